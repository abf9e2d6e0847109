//! What readers and editors add to a page: tags, comments, ratings.

use http::Method;

use crate::answer::Answer;
use crate::call::Call;
use crate::denial::Denial;
use crate::document::Element;
use crate::wiki::{Comment, Page};

use super::{content, pages, users};

pub(super) async fn tags(call: Call<'_>, reference: &str) -> Result<Answer, Denial> {
    if call.method_of(&[Method::GET, Method::PUT])? == Method::PUT {
        call.must_write()?;
        let id = pages::find(&call, reference)?.id;
        let xml = call.body.text().await?;
        let document = Element::read(&xml)
            .filter(|document| document.is_named("tags"))
            .ok_or_else(|| Denial::bad_request("a <tags> document is expected"))?;
        let values = document
            .elements("tag")
            .filter_map(|tag| tag.attribute_value("value"))
            .map(str::to_owned)
            .collect();
        if let Some(page) = call.wiki().page_mut(id) {
            page.tags = values;
        }
    }
    let page = pages::find(&call, reference)?;
    Ok(Answer::document(tag_list(&call, &page)))
}

pub(super) fn tag_list(call: &Call<'_>, page: &Page) -> Element {
    Element::new("tags")
        .attribute("count", page.tags.len())
        .attribute("href", call.href(format_args!("pages/{}/tags", page.id)))
        .children(page.tags.iter().map(|value| {
            Element::new("tag")
                .attribute("value", value)
                .leaf("type", "text")
                .leaf("title", value)
        }))
}

pub(super) async fn comments(mut call: Call<'_>, reference: &str) -> Result<Answer, Denial> {
    let page = pages::find(&call, reference)?;
    if call.method_of(&[Method::GET, Method::POST])? == Method::POST {
        call.must_write()?;
        let text = content::body_text(&mut call).await?;
        let said = Comment {
            author: call.asking.user.id,
            posted: call.now(),
            text,
        };
        let number = call.wiki().page_mut(page.id).map_or(0, |page| {
            if page.comments.len() < COMMENTS_MAX {
                page.comments.push(said.clone());
            }
            page.comments.len()
        });
        return Ok(Answer::document(comment(&call, &page, number, &said)));
    }
    let all: Vec<(usize, &Comment)> = (1..).zip(&page.comments).collect();
    let shown: Vec<Element> = call
        .window()
        .of(all)
        .map(|(number, said)| comment(&call, &page, number, said))
        .collect();
    let list = Element::new("comments")
        .attribute("count", shown.len())
        .attribute("totalcount", page.comments.len())
        .attribute(
            "href",
            call.href(format_args!("pages/{}/comments", page.id)),
        )
        .children(shown);
    Ok(Answer::document(list))
}

fn comment(call: &Call<'_>, page: &Page, number: usize, said: &Comment) -> Element {
    let href = call.href(format_args!("pages/{}/comments/{number}", page.id));
    Element::new("comment")
        .attribute("id", format_args!("{}{number:03}", page.id))
        .attribute("href", href)
        .leaf("number", number)
        .date("date.posted", said.posted)
        .child(users::reference(call, "user.createdby", said.author))
        .child(
            Element::new("content")
                .attribute("type", "text/plain")
                .text(&said.text),
        )
}

/// One score a user; the last one counts. Anonymous shares one among everybody.
pub(super) fn ratings(call: &Call<'_>, reference: &str) -> Result<Answer, Denial> {
    let mut page = pages::find(call, reference)?;
    if call.method_of(&[Method::GET, Method::POST])? == Method::POST {
        let score = call
            .parameter("score")
            .and_then(|score| score.parse().ok())
            .filter(|score| (0.0..=1.0).contains(score))
            .ok_or_else(|| Denial::bad_request("score is a number from 0 to 1"))?;
        page.ratings.insert(call.asking.user.id, score);
        if let Some(kept) = call.wiki().page_mut(page.id) {
            kept.ratings.clone_from(&page.ratings);
        }
    }
    let count = page.ratings.len();
    let sum: f32 = page.ratings.values().sum();
    let rating = Element::new("rating")
        .attribute("count", count)
        .attribute("href", call.href(format_args!("pages/{}/ratings", page.id)));
    Ok(Answer::document(match u16::try_from(count) {
        Ok(count @ 1..) => rating.attribute("score", sum / f32::from(count)),
        _ => rating,
    }))
}

const COMMENTS_MAX: usize = 1000;
