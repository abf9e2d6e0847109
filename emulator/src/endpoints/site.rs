//! `site`: search, state, and what only administrators may see.

use http::Method;

use crate::answer::Answer;
use crate::call::Call;
use crate::denial::Denial;
use crate::document::Element;
use crate::identity::nonce;
use crate::wiki::Page;

use super::{pages, users};

pub(super) async fn answer(call: Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    let names = super::names(rest);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["search"] => read(&call, search),
        ["query"] => read(&call, query),
        ["status"] => read(&call, |_| {
            Element::new("status").attribute("status", "running")
        }),
        ["tags"] => read(&call, tags),
        ["activity"] => read(&call, |_| Element::new("activity").attribute("count", 0)),
        ["settings"] => {
            call.must_be_admin()?;
            read(&call, settings)
        }
        ["developer-tokens"] => developer_tokens(call).await,
        _ => Err(Denial::missing("resource")),
    }
}

fn read(call: &Call<'_>, document: impl Fn(&Call<'_>) -> Element) -> Result<Answer, Denial> {
    call.method_of(&[Method::GET])?;
    Ok(Answer::document(document(call)))
}

/// What was asked for, and the readable pages that hold every word of it.
fn found(call: &Call<'_>) -> (String, Vec<Page>) {
    let asked = call.parameter("q").unwrap_or_default().to_owned();
    let words: Vec<String> = asked.split_whitespace().map(str::to_lowercase).collect();
    let wiki = call.wiki();
    let pages = wiki
        .pages()
        .iter()
        .filter(|page| !words.is_empty() && page.mentions(&words) && pages::may_read(call, page))
        .cloned()
        .collect();
    (asked, pages)
}

/// The older search: whole pages.
fn search(call: &Call<'_>) -> Element {
    let (asked, found) = found(call);
    let shown: Vec<Element> = call
        .window()
        .of(&found)
        .map(|page| pages::page(call, page))
        .collect();
    Element::new("search")
        .attribute("count", shown.len())
        .attribute("querycount", found.len())
        .attribute("ranking", "adaptive")
        .leaf("parsedQuery", asked)
        .children(shown)
}

/// The newer search: one result for each page.
fn query(call: &Call<'_>) -> Element {
    let (asked, found) = found(call);
    let shown: Vec<Element> = call
        .window()
        .of(&found)
        .map(|page| result(call, page))
        .collect();
    Element::new("search")
        .attribute("ranking", "adaptive")
        .attribute("queryid", 1)
        .attribute("sessionid", nonce())
        .attribute("querycount", found.len())
        .attribute("count.recommendations", 0)
        .attribute("count", shown.len())
        .leaf("parsedQuery", asked)
        .children(shown)
}

fn result(call: &Call<'_>, page: &Page) -> Element {
    let preview: String = page.text.chars().take(PREVIEW_LETTERS).collect();
    let track = call.href(format_args!("site/query/1?pageid={}", page.id));
    Element::new("result")
        .leaf(
            "author",
            users::reference(call, "author", page.author).inner_text(),
        )
        .date("date.modified", page.modified)
        .leaf("id", page.id)
        .leaf("mime", "text/html")
        .child(
            Element::new("page")
                .child(Element::new("rating").attribute("count", page.ratings.len()))
                .leaf("title", &page.title)
                .leaf("path", &page.path),
        )
        .leaf("preview", preview)
        .leaf("rank", "1.0")
        .leaf("tag", page.tags.join("\n"))
        .leaf("title", &page.title)
        .leaf("type", "wiki")
        .leaf("uri", call.href("").replace("@api/deki/", &page.path))
        .leaf("uri.track", track)
}

fn tags(call: &Call<'_>) -> Element {
    let mut values: Vec<String> = call
        .wiki()
        .pages()
        .iter()
        .flat_map(|page| page.tags.iter().cloned())
        .collect();
    values.sort();
    values.dedup();
    Element::new("tags")
        .attribute("count", values.len())
        .attribute("href", call.href("site/tags"))
        .children(values.iter().map(|value| {
            Element::new("tag")
                .attribute("value", value)
                .leaf("type", "text")
                .leaf("title", value)
        }))
}

fn settings(call: &Call<'_>) -> Element {
    Element::new("config")
        .child(
            Element::new("ui")
                .leaf("sitename", "Lumenbase Help")
                .leaf("language", "en-US"),
        )
        .child(Element::new("security").leaf("api-key", "not-a-real-key"))
        .leaf("uri", call.href(""))
}

/// The most dangerous resource there is: whoever may call it gets a credential for ten years. This
/// one opens nothing.
async fn developer_tokens(call: Call<'_>) -> Result<Answer, Denial> {
    let method = call.method_of(&[Method::GET, Method::POST])?;
    call.must_be_admin()?;
    if method == Method::GET {
        let token = |id, kind, host: &str| {
            Element::new("developer-token")
                .attribute("id", id)
                .attribute("type", kind)
                .leaf("name", format_args!("{kind} token"))
                .leaf("host", host)
        };
        let hosts = call.received.site.options.allowed_hosts.join(",");
        let list = Element::new("developer-tokens")
            .attribute("count", 2)
            .children([token(1, "server", ""), token(2, "browser", &hosts)]);
        return Ok(Answer::document(list));
    }
    let xml = call.body.text().await?;
    let asked = Element::read(&xml)
        .filter(|asked| asked.is_named("developer-token"))
        .ok_or_else(|| Denial::bad_request("a <developer-token> document is expected"))?;
    let name = asked.elements("name").next().map(Element::inner_text);
    let ten_years = call.now().seconds() + 10 * 365 * 86_400;
    let token = Element::new("developer-token")
        .attribute("id", 3)
        .attribute("type", asked.attribute_value("type").unwrap_or("server"))
        .leaf("name", name.unwrap_or_default())
        .leaf("key", format_args!("{0}{0}", nonce()))
        .leaf("secret", format_args!("{0}{0}", nonce()))
        .leaf("token", format_args!("emulated.{}.{ten_years}", nonce()));
    Ok(Answer::document(token))
}

const PREVIEW_LETTERS: usize = 160;
