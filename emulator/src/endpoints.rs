//! The resources below `/@api/deki`, one file for each kind.

use http::Method;

use super::answer::Answer;
use super::call::Call;
use super::denial::Denial;
use super::document::Element;

mod attachments;
mod content;
mod feedback;
mod pages;
mod site;
mod users;

/// Names are compared without case, as Dream does; what comes after `=` is left as it is.
pub(super) async fn answer(call: Call<'_>, segments: &[&str]) -> Result<Answer, Denial> {
    let Some((kind, rest)) = segments.split_first() else {
        return Err(Denial::missing("resource"));
    };
    match kind.to_ascii_lowercase().as_str() {
        "users" => users::answer(call, rest),
        "groups" => users::groups(&call, rest),
        "pages" => pages::answer(call, rest).await,
        "files" => attachments::answer(call, rest).await,
        "site" => site::answer(call, rest).await,
        "emulate" => sink(call, rest).await,
        _ => Err(Denial::missing("resource")),
    }
}

/// Swallows a body of any length, and says how long it was.
async fn sink(call: Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    if rest != ["sink"] {
        return Err(Denial::missing("resource"));
    }
    call.method_of(&[Method::POST, Method::PUT])?;
    while call.body.chunk().await?.is_some() {}
    let sink = Element::new("sink").attribute("bytes", call.body.received());
    Ok(Answer::document(sink))
}

/// The segments in lower case, to compare with names.
fn names(segments: &[&str]) -> Vec<String> {
    segments
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect()
}
