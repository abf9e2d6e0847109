//! `users` and `groups`: who there is, who is asking, and signing in.

use http::header::{HeaderValue, LOCATION, SET_COOKIE};
use http::{Method, StatusCode};

use crate::answer::Answer;
use crate::call::Call;
use crate::clock::Moment;
use crate::denial::Denial;
use crate::document::Element;
use crate::identity::nonce;
use crate::parameters::{Plus, decode};
use crate::wiki::User;

pub(super) fn answer(call: Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    let names = super::names(rest);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (rest, names.as_slice()) {
        ([], _) => list(&call),
        (_, ["authenticate"]) => authenticate(call),
        (_, ["current"]) => {
            call.method_of(&[Method::GET])?;
            Ok(Answer::document(user(&call, &call.asking.user)))
        }
        ([reference], _) => {
            call.method_of(&[Method::GET])?;
            // A name in a path is encoded twice.
            let reference = decode(reference, Plus::Literal);
            let found = call.wiki().user_called(&reference).cloned();
            let found = found.ok_or_else(|| Denial::missing("user"))?;
            Ok(Answer::document(user(&call, &found)))
        }
        ([reference, _], [_, "password"]) => password(&call, &decode(reference, Plus::Literal)),
        _ => Err(Denial::missing("resource")),
    }
}

/// `groups`: a few who may write, and everybody.
pub(super) fn groups(call: &Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    if !rest.is_empty() {
        return Err(Denial::missing("group"));
    }
    call.method_of(&[Method::GET])?;
    let groups = [(1, "Support"), (2, "Partners")].map(|(id, name)| {
        Element::new("group")
            .attribute("id", id)
            .attribute("href", call.href(format_args!("groups/{id}")))
            .leaf("groupname", name)
    });
    let document = Element::new("groups")
        .attribute("count", groups.len())
        .attribute("querycount", groups.len())
        .attribute("href", call.href("groups"))
        .children(groups);
    Ok(Answer::document(document))
}

fn list(call: &Call<'_>) -> Result<Answer, Denial> {
    call.method_of(&[Method::GET])?;
    let everybody = call.wiki().users().to_vec();
    let filter = call
        .parameter("usernamefilter")
        .unwrap_or_default()
        .to_lowercase();
    let found: Vec<&User> = everybody
        .iter()
        .filter(|user| user.name.to_lowercase().contains(&filter))
        .collect();
    let shown: Vec<Element> = call
        .window()
        .of(&found)
        .map(|found| user(call, found))
        .collect();
    let document = Element::new("users")
        .attribute("count", shown.len())
        .attribute("querycount", found.len())
        .attribute("totalcount", everybody.len())
        .attribute("href", call.href("users"))
        .children(shown);
    Ok(Answer::document(document))
}

/// Opens a session, for a user who is made now if there is none of that name, and may send the
/// browser wherever the caller likes.
fn authenticate(mut call: Call<'_>) -> Result<Answer, Denial> {
    call.method_of(&[Method::GET, Method::POST])?;
    if let Some(named) = call.asking.named.take() {
        let created = call.wiki().user_created(&named);
        if let Some(created) = created {
            call.asking.user = created;
        }
    }
    if call.asking.user.is_anonymous() {
        return Err(Denial::unauthenticated());
    }
    let answer = open_session(&call, call.asking.user.id);
    match call.parameter("redirect") {
        Some(to) => answer
            .with_status(StatusCode::FOUND)
            .with_text(LOCATION, to),
        None => Ok(answer),
    }
}

/// A new password is not kept, but its answer is the one that matters: a session.
fn password(call: &Call<'_>, reference: &str) -> Result<Answer, Denial> {
    call.method_of(&[Method::PUT])?;
    let found = call.wiki().user_called(reference).map(|user| user.id);
    let id = found.ok_or_else(|| Denial::missing("user"))?;
    if id != call.asking.user.id || id == User::ANONYMOUS {
        call.must_be_admin()?;
    }
    Ok(open_session(call, id))
}

fn open_session(call: &Call<'_>, id: u32) -> Answer {
    let session = format!("{id}_{}_{}", call.now().compact(), nonce());
    call.wiki().open_session(session.clone(), id);
    let cookie = format!("authtoken=\"{session}\"; Path=/; HttpOnly");
    let cookie = HeaderValue::try_from(cookie).expect("digits and quotes can be sent");
    Answer::bytes("text/plain; charset=utf-8", session.into()).with_header(SET_COOKIE, cookie)
}

/// The document of a user.
fn user(call: &Call<'_>, user: &User) -> Element {
    let permissions = |name| {
        Element::new(name).child(
            Element::new("operations")
                .attribute("mask", user.role.operations().len())
                .text(user.role.operations()),
        )
    };
    Element::new("user")
        .attribute("anonymous", user.is_anonymous())
        .attribute("virtual", false)
        .attribute("id", user.id)
        .attribute("wikiid", "default")
        .attribute("href", call.href(format_args!("users/{}", user.id)))
        .leaf("nick", &user.name)
        .leaf("username", &user.name)
        .leaf("fullname", &user.full_name)
        .leaf("email", &user.email)
        .date("date.created", FOUNDED)
        .date("date.lastlogin", call.now())
        .leaf("status", "active")
        .leaf("language", "en-US")
        .leaf("timezone", "GMT")
        .leaf("service.authentication", "local")
        .child(permissions("permissions.user").leaf("role", user.role.name()))
        .child(permissions("permissions.effective"))
        .child(Element::new("groups").attribute("count", 0))
}

/// The few facts about a user that other documents hold.
pub(super) fn reference(call: &Call<'_>, name: &str, id: u32) -> Element {
    let user = call.wiki().user(id).cloned();
    let user = user.unwrap_or_else(|| call.wiki().anonymous());
    Element::new(name)
        .attribute("id", user.id)
        .attribute("href", call.href(format_args!("users/{}", user.id)))
        .leaf("nick", &user.name)
        .leaf("username", &user.name)
}

/// When all accounts were made.
const FOUNDED: Moment = Moment::at(1_577_836_800);
