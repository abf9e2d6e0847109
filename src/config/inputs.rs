//! What a configuration was made of: which files, how they stood when they were read, and a digest of all
//! that was in them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// How a file stands on its disk, links followed: whoever replaces it, writes to it or turns a link on the
/// way to it makes another mark. `None` where there is no regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Option<Facts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Also of its mode and its owner, which nobody can set back.
    changed: (i64, i64),
}

impl Mark {
    /// How the file of this name stands now.
    pub fn of(path: &Path) -> Self {
        let facts = std::fs::metadata(path).ok().filter(|facts| facts.is_file());
        Self(facts.and_then(|facts| {
            Some(Facts {
                path: path.canonicalize().ok()?,
                device: facts.dev(),
                inode: facts.ino(),
                bytes: facts.len(),
                modified: facts.modified().ok(),
                changed: (facts.ctime(), facts.ctime_nsec()),
            })
        }))
    }
}

/// The marks of some files.
pub type Marks = BTreeMap<PathBuf, Mark>;

/// What one reading of a configuration was made of.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Each file that was read, as it stood just before.
    pub marks: Marks,
    /// Of all that was read: two readings with one digest come to the same.
    pub digest: [u8; 32],
}

/// Inputs while they are read.
#[derive(Default)]
pub(super) struct Noted {
    marks: RefCell<Marks>,
    digest: RefCell<Sha256>,
}

impl Noted {
    /// A file is about to be read. Its first mark counts: what changes after that shows.
    pub(super) fn file(&self, path: &Path) {
        let mut marks = self.marks.borrow_mut();
        let mark = marks.entry(path.to_owned());
        mark.or_insert_with(|| Mark::of(path));
    }

    /// This was read in the place of that name.
    pub(super) fn text(&self, name: &str, bytes: &[u8]) {
        let mut digest = self.digest.borrow_mut();
        for part in [name.as_bytes(), bytes] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }

    pub(super) fn into_inputs(self) -> Inputs {
        Inputs {
            marks: self.marks.into_inner(),
            digest: self.digest.into_inner().finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir, remove_file, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn whatever_happens_to_a_file_shows() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut last = Mark::of(&at("a"));
        assert_eq!(last, Mark(None));
        let mut changed = |what: &str| {
            let now = Mark::of(&at("a"));
            assert_ne!(now, last, "{what}");
            assert_eq!(now, Mark::of(&at("a")), "{what}");
            last = now;
        };
        write(at("a"), "one").unwrap();
        changed("made");
        write(at("b"), "two").unwrap();
        rename(at("b"), at("a")).unwrap();
        changed("replaced");
        remove_file(at("a")).unwrap();
        changed("removed");
        for version in ["v1", "v2"] {
            create_dir(at(version)).unwrap();
            write(at(version).join("a"), "same").unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/a", at("a")).unwrap();
        changed("a link to it");
        symlink("v2", at("..next")).unwrap();
        rename(at("..next"), at("..data")).unwrap();
        changed("a link on the way is turned");
        remove_file(at("a")).unwrap();
        create_dir(at("a")).unwrap();
        assert_eq!(Mark::of(&at("a")), Mark(None), "a folder is no file");
        remove_dir(at("a")).unwrap();
    }

    #[test]
    fn the_digest_is_of_all_of_it() {
        let of = |parts: &[(&str, &str)]| {
            let noted = Noted::default();
            for (name, text) in parts {
                noted.text(name, text.as_bytes());
            }
            noted.into_inputs().digest
        };
        assert_eq!(of(&[("env:A", "1")]), of(&[("env:A", "1")]));
        let all = [
            of(&[]),
            of(&[("env:A", "1")]),
            of(&[("env:A", "2")]),
            of(&[("env:A1", "")]),
            of(&[("env:A", "1"), ("env:B", "1")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}
