//! `pages/{id}/contents`: the text of a page, read and written.

use http::Method;

use crate::answer::Answer;
use crate::call::Call;
use crate::denial::Denial;
use crate::document::Element;

use super::pages;

pub(super) async fn answer(mut call: Call<'_>, reference: &str) -> Result<Answer, Denial> {
    if call.method_of(&[Method::GET, Method::POST])? == Method::GET {
        return read(&call, reference);
    }
    call.must_write()?;
    let text = body_text(&mut call).await?;
    write(&call, reference, &text)
}

/// What callers write: a document, or plain text under one of two names.
pub(super) async fn body_text(call: &mut Call<'_>) -> Result<String, Denial> {
    match call.media_type().as_str() {
        "text/plain" | "text/html" | "application/x-www-form-urlencoded" | "" => {
            call.body.text().await
        }
        "application/xml" | "text/xml" => {
            let xml = call.body.text().await?;
            let document = Element::read(&xml)
                .ok_or_else(|| Denial::bad_request("the body is not well-formed XML"))?;
            let body = document.elements("body").next().map(Element::inner_text);
            Ok(body.unwrap_or_else(|| document.inner_text()))
        }
        "application/json" => Err(Denial::media_type("json(p) input format not supported")),
        _ => Err(Denial::media_type(
            "text/plain or application/xml is expected",
        )),
    }
}

fn read(call: &Call<'_>, reference: &str) -> Result<Answer, Denial> {
    let page = pages::find(call, reference)?;
    let content = Element::new("content")
        .attribute("type", "text/html")
        .attribute("title", &page.title)
        .attribute("revision", page.revision);
    let source = matches!(call.parameter("mode"), Some("edit" | "raw"));
    if source {
        return Ok(Answer::document(content.leaf("body", page.text)));
    }
    let contents = Element::new("body")
        .attribute("target", "toc")
        .text("<em>No headers</em>");
    let content = content
        .child(Element::new("head"))
        .leaf("body", page.text)
        .child(contents)
        .child(Element::new("tail"));
    Ok(Answer::document(content))
}

/// Writes a page, or creates it. `edittime` is what the writer believes to be the last change;
/// `abort` says what to do when somebody was faster: give up (`modified`, as if unsaid), give up if
/// there is a page at all (`exists`), or overwrite and report a conflict (`never`).
fn write(call: &Call<'_>, reference: &str, text: &str) -> Result<Answer, Denial> {
    let known = match pages::find(call, reference) {
        Ok(page) => Some(page),
        Err(_) if reference.starts_with('=') => None,
        Err(denial) => return Err(denial),
    };
    let abort = call.parameter("abort").unwrap_or("modified");
    let overtaken = match (call.parameter("edittime"), &known) {
        (None | Some("now"), _) => false,
        (Some(time), _) if time.len() != 14 || !time.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(Denial::bad_request("edittime is now or yyyyMMddHHmmss"));
        }
        (Some(time), Some(page)) => page.modified.compact().as_str() > time,
        (Some(_), None) => false,
    };
    if known.is_some() && (abort == "exists" || abort == "modified" && overtaken) {
        return Err(Denial::conflict(
            "The page already exists or was changed meanwhile",
        ));
    }
    let author = call.asking.user.id;
    let mut wiki = call.wiki();
    let id = match &known {
        Some(page) => page.id,
        None => wiki
            .create_page(reference.trim_start_matches('='), author, call.now())
            .ok_or_else(|| Denial::bad_request("a page cannot have this title"))?,
    };
    let page = wiki.page_mut(id).ok_or_else(|| Denial::missing("page"))?;
    text.clone_into(&mut page.text);
    page.modified = call.now();
    page.revision += 1;
    if let Some(title) = call.parameter("title") {
        title.clone_into(&mut page.title);
    }
    let page = page.clone();
    drop(wiki);
    let edit = Element::new("edit")
        .attribute("status", if overtaken { "conflict" } else { "success" })
        .child(pages::page(call, &page));
    Ok(Answer::document(edit))
}
