//! `pages`: what there is, how it hangs together, and taking it away.

use http::Method;

use crate::answer::Answer;
use crate::call::Call;
use crate::denial::Denial;
use crate::document::Element;
use crate::wiki::{Page, Wiki};

use super::{attachments, content, feedback, users};

pub(super) async fn answer(call: Call<'_>, rest: &[&str]) -> Result<Answer, Denial> {
    let Some((reference, parts)) = rest.split_first() else {
        call.method_of(&[Method::GET])?;
        return Ok(Answer::document(tree_of(&call, "home")?));
    };
    let names = super::names(parts);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => page_itself(&call, reference),
        ["info"] => read(&call, |call| Ok(page(call, &find(call, reference)?))),
        ["contents"] => content::answer(call, reference).await,
        ["subpages"] => read(&call, |call| Ok(subpages(call, &find(call, reference)?))),
        ["tree"] => read(&call, |call| tree_of(call, reference)),
        ["files,subpages"] => read(&call, |call| {
            let found = find(call, reference)?;
            let files = attachments::list(call, &found);
            Ok(page(call, &found)
                .child(files)
                .child(subpages(call, &found)))
        }),
        ["properties"] => read(&call, |call| {
            let href = call.href(format_args!(
                "pages/{}/properties",
                find(call, reference)?.id
            ));
            Ok(Element::new("properties")
                .attribute("count", 0)
                .attribute("href", href))
        }),
        ["tags"] => feedback::tags(call, reference).await,
        ["comments"] => feedback::comments(call, reference).await,
        ["ratings"] => feedback::ratings(&call, reference),
        ["files"] => read(&call, |call| {
            Ok(attachments::list(call, &find(call, reference)?))
        }),
        ["files", _] => attachments::attach(call, reference, parts[1]).await,
        _ => Err(Denial::missing("resource")),
    }
}

fn read(
    call: &Call<'_>,
    document: impl Fn(&Call<'_>) -> Result<Element, Denial>,
) -> Result<Answer, Denial> {
    call.method_of(&[Method::GET])?;
    Ok(Answer::document(document(call)?))
}

fn page_itself(call: &Call<'_>, reference: &str) -> Result<Answer, Denial> {
    if call.method_of(&[Method::GET, Method::DELETE])? == Method::GET {
        let found = find(call, reference)?;
        let details = page(call, &found)
            .child(users::reference(call, "user.createdby", found.author))
            .child(feedback::tag_list(call, &found))
            .child(attachments::list(call, &found))
            .child(subpages(call, &found));
        return Ok(Answer::document(details));
    }
    call.must_write()?;
    let found = find(call, reference)?;
    if found.is_home() {
        return Err(Denial::access("DELETE"));
    }
    let mut doomed = vec![found];
    if call.parameter("recursive") == Some("true") {
        let inside = format!("{}/", doomed[0].path);
        let wiki = call.wiki();
        doomed.extend(
            wiki.pages()
                .iter()
                .filter(|page| page.path.starts_with(&inside))
                .cloned(),
        );
    }
    let deleted: Vec<Element> = doomed.iter().map(|doomed| page(call, doomed)).collect();
    for doomed in &doomed {
        call.wiki().delete_page(doomed.id);
    }
    let document = Element::new("pages.deleted")
        .attribute("count", deleted.len())
        .children(deleted);
    Ok(Answer::document(document))
}

/// The page of this reference, if it exists and the caller may read it.
pub(super) fn find(call: &Call<'_>, reference: &str) -> Result<Page, Denial> {
    let found = call.wiki().page_called(reference).cloned();
    let found = found.ok_or_else(|| Denial::missing("page"))?;
    if may_read(call, &found) {
        Ok(found)
    } else {
        Err(Denial::access("READ"))
    }
}

pub(super) fn may_read(call: &Call<'_>, page: &Page) -> bool {
    !page.restricted || call.asking.user.may_write()
}

/// The document of a page, without what hangs on it.
pub(super) fn page(call: &Call<'_>, page: &Page) -> Element {
    named(call, "page", page)
}

fn named(call: &Call<'_>, name: &str, page: &Page) -> Element {
    let address = call.href("").replace("@api/deki/", &page.path);
    Element::new(name)
        .attribute("id", page.id)
        .attribute("guid", &page.guid)
        .attribute("draft.state", "inactive")
        .attribute("href", call.href(format_args!("pages/{}", page.id)))
        .attribute("deleted", false)
        .attribute("revision", page.revision)
        .date("date.created", page.created)
        .date("date.modified", page.modified)
        .leaf("language", "en-US")
        .leaf("namespace", "main")
        .child(
            Element::new("path")
                .attribute("seo", true)
                .attribute(
                    "type",
                    if page.title.contains('/') {
                        "custom"
                    } else {
                        ""
                    },
                )
                .text(&page.path),
        )
        .leaf("title", &page.title)
        .leaf("uri.ui", address)
}

fn subpages(call: &Call<'_>, of: &Page) -> Element {
    let below: Vec<Page> = call.wiki().subpages(of).cloned().collect();
    let readable: Vec<&Page> = below.iter().filter(|page| may_read(call, page)).collect();
    let shown: Vec<Element> = call
        .window()
        .of(&readable)
        .map(|page| {
            let has_children = call.wiki().subpages(page).next().is_some();
            named(call, "page.subpage", page).attribute("subpages", has_children)
        })
        .collect();
    Element::new("subpages")
        .attribute("totalcount", readable.len())
        .attribute("count", shown.len())
        .attribute("href", call.href(format_args!("pages/{}/subpages", of.id)))
        .children(shown)
}

fn tree_of(call: &Call<'_>, reference: &str) -> Result<Element, Denial> {
    let top = find(call, reference)?;
    let mut found = Vec::new();
    gather(call, &call.wiki(), &top, 0, &mut found);
    if call.parameter("format") == Some("ids") {
        let ids: Vec<String> = found.iter().map(|(_, page)| page.id.to_string()).collect();
        return Ok(Element::new("pages").text(ids.join(",")));
    }
    let nested = nest(call, &mut found.into_iter().peekable(), 0);
    Ok(Element::new("pages").children(nested))
}

/// A page and all below it, each with its depth, parents before their children.
fn gather(call: &Call<'_>, wiki: &Wiki, page: &Page, depth: usize, found: &mut Vec<(usize, Page)>) {
    if may_read(call, page) {
        found.push((depth, page.clone()));
        for below in wiki.subpages(page) {
            gather(call, wiki, below, depth + 1, found);
        }
    }
}

fn nest(
    call: &Call<'_>,
    pages: &mut std::iter::Peekable<std::vec::IntoIter<(usize, Page)>>,
    depth: usize,
) -> Vec<Element> {
    let mut siblings = Vec::new();
    while let Some((_, next)) = pages.next_if(|(at, _)| *at == depth) {
        let below = Element::new("subpages").children(nest(call, pages, depth + 1));
        siblings.push(page(call, &next).child(below));
    }
    siblings
}
