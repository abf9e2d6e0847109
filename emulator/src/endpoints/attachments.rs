//! `files`: attachments up and down, with validators and ranges.

use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, ETAG, HeaderValue, LAST_MODIFIED,
};
use http::{Method, StatusCode};

use crate::answer::Answer;
use crate::body::Source;
use crate::call::Call;
use crate::clock::Moment;
use crate::denial::Denial;
use crate::document::Element;
use crate::parameters::{Plus, decode};
use crate::wiki::Page;
use crate::wiki::{Attachment, Receiving, Upload};

use super::{pages, users};

pub(super) async fn answer(call: Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    let missing = || Denial::missing("file");
    let id: u32 = rest
        .first()
        .and_then(|id| id.parse().ok())
        .ok_or_else(missing)?;
    let page = call
        .wiki()
        .attachment(id)
        .map(|file| file.page)
        .ok_or_else(missing)?;
    // Who may not read the page may not read what hangs on it.
    pages::find(&call, &page.to_string())?;
    match rest {
        [_, info] if info.eq_ignore_ascii_case("info") => {
            call.method_of(&[Method::GET])?;
            Ok(Answer::document(document(&call, id)?))
        }
        [_] | [_, _] => match call.method_of(&[Method::GET, Method::PUT, Method::DELETE])? {
            Method::PUT => {
                let name = call.wiki().attachment(id).map(|file| file.name.clone());
                store(call, page, &name.ok_or_else(missing)?).await
            }
            Method::DELETE => {
                call.must_write()?;
                call.wiki().detach(id);
                Ok(Answer::empty(StatusCode::OK))
            }
            _ => download(&call, id),
        },
        _ => Err(Denial::missing("resource")),
    }
}

/// A file of a page, by its name; a name without an extension has a `=` before it.
pub(super) async fn attach(call: Call<'_>, reference: &str, name: &str) -> Result<Answer, Denial> {
    let allowed = [Method::GET, Method::PUT, Method::POST];
    let name = decode(name.strip_prefix('=').unwrap_or(name), Plus::Space);
    let page = pages::find(&call, reference)?.id;
    if call.method_of(&allowed)? == Method::GET {
        let wiki = call.wiki();
        let found = wiki.attachments(page).find(|file| file.name == name);
        let id = found.map(|file| file.id);
        drop(wiki);
        return download(&call, id.ok_or_else(|| Denial::missing("file"))?);
    }
    store(call, page, &name).await
}

pub(super) fn list(call: &Call<'_>, page: &Page) -> Element {
    let ids: Vec<u32> = call
        .wiki()
        .attachments(page.id)
        .map(|file| file.id)
        .collect();
    Element::new("files")
        .attribute("count", ids.len())
        .attribute("totalcount", ids.len())
        .attribute("href", call.href(format_args!("pages/{}/files", page.id)))
        .children(ids.into_iter().filter_map(|id| document(call, id).ok()))
}

async fn store(call: Call<'_>, page: u32, name: &str) -> Result<Answer, Denial> {
    call.must_write()?;
    let mut received = Receiving::new(&call.received.site.shelf);
    while let Some(data) = call.body.chunk().await? {
        received.append(&data);
    }
    let upload = Upload {
        media_type: match call.received.header("content-type") {
            Some(media_type) => media_type.to_owned(),
            None => "application/octet-stream".to_owned(),
        },
        description: call.parameter("description").unwrap_or_default().to_owned(),
        author: call.asking.user.id,
        created: call.now(),
        received,
    };
    let id = call.wiki().attach(page, name, upload);
    Ok(Answer::document(document(&call, id)?))
}

fn document(call: &Call<'_>, id: u32) -> Result<Element, Denial> {
    let wiki = call.wiki();
    let file = wiki.attachment(id).ok_or_else(|| Denial::missing("file"))?;
    let href = call.href(format_args!("files/{id}/{}", encoded(&file.name)));
    let contents = Element::new("contents")
        .attribute("type", &file.media_type)
        .attribute("size", file.source.length())
        .attribute("href", href);
    let (author, parent) = (file.author, wiki.page(file.page).cloned());
    let element = Element::new("file")
        .attribute("id", id)
        .attribute("revision", file.revision)
        .attribute("res-id", 1000 + id)
        .attribute("href", call.href(format_args!("files/{id}/info")))
        .leaf("filename", &file.name)
        .leaf("description", &file.description)
        .child(contents)
        .date("date.created", file.created);
    drop(wiki);
    let parent = parent.map(|page| {
        Element::new("page.parent")
            .attribute("id", page.id)
            .attribute("href", call.href(format_args!("pages/{}", page.id)))
            .leaf("title", page.title)
            .leaf("path", page.path)
    });
    Ok(element
        .child(users::reference(call, "user.createdby", author))
        .children(parent))
}

/// A name in a link: everything but letters, digits and `.-_` as `%XX`.
fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn download(call: &Call<'_>, id: u32) -> Result<Answer, Denial> {
    let wiki = call.wiki();
    let file = wiki.attachment(id).ok_or_else(|| Denial::missing("file"))?;
    let tag = file.entity_tag();
    let length = file.source.length();
    let fresh = call.received.header("if-none-match").is_some_and(|known| {
        known.split(',').any(|known| {
            let known = known.trim();
            known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
        })
    });
    let answer = if fresh {
        Answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        match range(call, &tag, length) {
            Range::Whole => whole(file, file.source.clone()),
            Range::Part(from, to) => whole(file, file.source.slice(from, to))
                .with_status(StatusCode::PARTIAL_CONTENT)
                .with_text(CONTENT_RANGE, &format!("bytes {from}-{}/{length}", to - 1))?,
            Range::Unsatisfiable => Answer::empty(StatusCode::RANGE_NOT_SATISFIABLE)
                .with_text(CONTENT_RANGE, &format!("bytes */{length}"))?,
        }
    };
    let Attachment { created, .. } = file;
    validated(answer, &tag, *created)
}

fn whole(file: &Attachment, source: Source) -> Answer {
    let name: String = file
        .name
        .chars()
        .filter(|letter| !"\"\\".contains(*letter))
        .collect();
    let disposition = format!("inline; filename=\"{name}\"");
    let answer = Answer::bytes(&file.media_type, source);
    match answer.clone().with_text(CONTENT_DISPOSITION, &disposition) {
        Ok(answer) => answer,
        // A name no header can hold is left out.
        Err(_) => answer,
    }
}

fn validated(answer: Answer, tag: &str, created: Moment) -> Result<Answer, Denial> {
    answer
        .with_header(ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        .with_text(ETAG, tag)?
        .with_text(LAST_MODIFIED, &created.rfc1123())
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From the first offset up to, and without, the second.
    Part(u64, u64),
    Unsatisfiable,
}

/// RFC 9110 section 14: one range of bytes; anything else is as if there were none.
fn range(call: &Call<'_>, tag: &str, length: u64) -> Range {
    let stale = call
        .received
        .header("if-range")
        .is_some_and(|known| known != tag);
    match call.received.header("range") {
        Some(text) if !stale => Range::read(text, length),
        _ => Range::Whole,
    }
}

impl Range {
    fn read(text: &str, length: u64) -> Self {
        let Some((first, last)) = text
            .strip_prefix("bytes=")
            .and_then(|text| text.split_once('-'))
        else {
            return Self::Whole;
        };
        let (from, to) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(length)),
            (Ok(first), Err(_)) if last.trim().is_empty() => (first, length),
            (Err(_), Ok(suffix)) if first.trim().is_empty() => {
                (length.saturating_sub(suffix), length)
            }
            _ => return Self::Whole,
        };
        if from < to {
            Self::Part(from, to)
        } else {
            Self::Unsatisfiable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read() {
        for (text, expected) in [
            ("bytes=0-3", Range::Part(0, 4)),
            ("bytes=4-", Range::Part(4, 10)),
            ("bytes=-3", Range::Part(7, 10)),
            ("bytes=-99", Range::Part(0, 10)),
            ("bytes=8-99", Range::Part(8, 10)),
            ("bytes=10-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=5-4", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=0-1", Range::Whole),
        ] {
            assert_eq!(Range::read(text, 10), expected, "{text}");
        }
    }
}
