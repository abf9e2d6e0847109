//! Pages: found by id, guid or title, and written.

use std::collections::BTreeMap;

use crate::clock::Moment;
use crate::parameters::{Plus, decode};

use super::Wiki;

/// A page with everything that hangs on it but its attachments.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) id: u32,
    pub(crate) guid: String,
    /// Titles from the root down, `/` between them, `//` for a slash in a title, `_` for a space.
    pub(crate) path: String,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) created: Moment,
    pub(crate) modified: Moment,
    pub(crate) author: u32,
    pub(crate) revision: u32,
    /// Whether only those who may write may read it.
    pub(crate) restricted: bool,
    pub(crate) tags: Vec<String>,
    pub(crate) comments: Vec<Comment>,
    /// Scores between 0 and 1, by user.
    pub(crate) ratings: BTreeMap<u32, f32>,
}

/// What somebody has said about a page.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    pub(crate) author: u32,
    pub(crate) posted: Moment,
    pub(crate) text: String,
}

impl Page {
    pub(crate) const fn is_home(&self) -> bool {
        self.path.is_empty()
    }

    /// The path of the page above; the home page is above all others.
    pub(crate) fn parent_path(&self) -> Option<&str> {
        if self.is_home() {
            return None;
        }
        let bytes = self.path.as_bytes();
        let single = |at: usize| {
            bytes[at] == b'/'
                && bytes.get(at + 1) != Some(&b'/')
                && (at == 0 || bytes[at - 1] != b'/')
        };
        let cut = (0..bytes.len()).rev().find(|at| single(*at)).unwrap_or(0);
        Some(&self.path[..cut])
    }

    pub(crate) fn mentions(&self, words: &[String]) -> bool {
        let text = format!("{}\n{}", self.title, self.text).to_lowercase();
        words.iter().all(|word| text.contains(word))
    }
}

impl Wiki {
    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }

    pub(crate) fn page(&self, id: u32) -> Option<&Page> {
        self.pages.iter().find(|page| page.id == id)
    }

    pub(crate) fn page_mut(&mut self, id: u32) -> Option<&mut Page> {
        self.pages.iter_mut().find(|page| page.id == id)
    }

    /// By an id, `home`, `:` and a guid, or `=` and a title that is still encoded once.
    pub(crate) fn page_called(&self, reference: &str) -> Option<&Page> {
        if reference.eq_ignore_ascii_case("home") {
            return self.pages.iter().find(|page| page.is_home());
        }
        if let Some(guid) = reference.strip_prefix(':') {
            let guid = guid.replace('-', "");
            return self
                .pages
                .iter()
                .find(|page| page.guid.eq_ignore_ascii_case(&guid));
        }
        match reference.strip_prefix('=') {
            Some(title) => {
                let path = path_of(title).to_lowercase();
                self.pages
                    .iter()
                    .find(|page| page.path.to_lowercase() == path)
            }
            None => self.page(reference.parse().ok()?),
        }
    }

    pub(crate) fn subpages<'a>(&'a self, of: &'a Page) -> impl Iterator<Item = &'a Page> {
        self.pages
            .iter()
            .filter(|page| page.parent_path() == Some(of.path.as_str()))
    }

    /// A new, empty page at a title that is still encoded once; `None` if it is no title.
    pub(crate) fn create_page(&mut self, title: &str, author: u32, now: Moment) -> Option<u32> {
        let path = path_of(title);
        if path.is_empty() || self.pages.len() == PAGES_MAX {
            return None;
        }
        Some(self.add_page(path, author, now))
    }

    pub(super) fn add_page(&mut self, path: String, author: u32, now: Moment) -> u32 {
        self.page_id_last += 1;
        let id = self.page_id_last;
        let name = path.replace("//", "\0");
        let name = name.rsplit('/').next().unwrap_or_default();
        self.pages.push(Page {
            id,
            guid: format!("0f3c5a{id:010x}9a80c1d2e3f4a5b6"),
            title: name.replace('\0', "/").replace('_', " "),
            path,
            text: String::new(),
            created: now,
            modified: now,
            author,
            revision: 0,
            restricted: false,
            tags: Vec::new(),
            comments: Vec::new(),
            ratings: BTreeMap::new(),
        });
        id
    }

    /// Removes a page, with its attachments.
    pub(crate) fn delete_page(&mut self, id: u32) {
        self.pages.retain(|page| page.id != id);
        self.attachments.retain(|attachment| attachment.page != id);
    }
}

/// The second decoding of a title; the first one is the front end's.
fn path_of(title: &str) -> String {
    decode(title, Plus::Space)
        .trim_matches('/')
        .replace(' ', "_")
}

const PAGES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_decoded_and_found() {
        let wiki = Wiki::sample(Moment::at(1_700_000_000));
        for (reference, title) in [
            ("home", "Lumenbase Help"),
            ("1", "Lumenbase Help"),
            ("=Getting_started", "Getting started"),
            ("=Getting%20started", "Getting started"),
            ("=getting+started", "Getting started"),
            (
                "=Getting%20started%2FInstall%20the%20agent",
                "Install the agent",
            ),
            ("=Getting_started/Install_the_agent", "Install the agent"),
            ("=Input%2F%2FOutput", "Input/Output"),
            ("=C%2B%2B%20client", "C++ client"),
            ("=Caf%C3%A9", "Café"),
            ("=Plans%2C%20prices", "Plans, prices"),
            ("=Release:_2026", "Release: 2026"),
        ] {
            let found = wiki.page_called(reference).map(|page| page.title.as_str());
            assert_eq!(found, Some(title), "{reference}");
        }
        for reference in ["=Getting%2520started", "99", "", "=C++ client", ":0"] {
            assert!(wiki.page_called(reference).is_none(), "{reference}");
        }
        let guid = format!(":{}", wiki.page(3).unwrap().guid);
        assert_eq!(guid.len(), 33, "a guid has 32 digits");
        assert_eq!(wiki.page_called(&guid).unwrap().id, 3);
    }

    #[test]
    fn a_double_slash_is_no_level() {
        let wiki = Wiki::sample(Moment::at(1_700_000_000));
        let parent = |reference| wiki.page_called(reference).unwrap().parent_path();
        assert_eq!(parent("home"), None);
        assert_eq!(parent("=Input//Output"), Some(""));
        assert_eq!(
            parent("=Getting started/Install the agent"),
            Some("Getting_started")
        );
    }
}
