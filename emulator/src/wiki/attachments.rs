//! Attachments: kept in memory while they fit, and remembered by their length when they do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;

use crate::body::Source;
use crate::clock::Moment;

use super::Wiki;

/// A file that hangs on a page.
pub(crate) struct Attachment {
    pub(crate) id: u32,
    pub(crate) page: u32,
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) description: String,
    pub(crate) author: u32,
    pub(crate) created: Moment,
    pub(crate) revision: u32,
    pub(crate) source: Source,
    /// Gives its bytes back to the shelf when the attachment goes.
    _hold: Hold,
}

impl Attachment {
    pub(crate) fn entity_tag(&self) -> String {
        format!(
            "\"{}.r{}_ts{}\"",
            self.id,
            self.revision,
            self.created.compact()
        )
    }
}

/// What a caller has uploaded, on its way to be an attachment.
pub(crate) struct Upload {
    pub(crate) media_type: String,
    pub(crate) description: String,
    pub(crate) author: u32,
    pub(crate) created: Moment,
    pub(crate) received: Receiving,
}

/// The memory all attachments share.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<AtomicU64>);

impl Shelf {
    fn take(&self, bytes: u64) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + bytes).filter(|used| *used <= KEPT_BYTES_MAX)
            })
            .is_ok()
    }
}

/// Part of the shelf, until dropped.
struct Hold {
    shelf: Shelf,
    bytes: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shelf.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An upload while it arrives. Once it is too long, or the shelf is full, it is only counted, and
/// zero bytes will stand in its place.
pub(crate) struct Receiving {
    kept: Option<BytesMut>,
    length: u64,
    hold: Hold,
}

impl Receiving {
    pub(crate) fn new(shelf: &Shelf) -> Self {
        Self {
            kept: Some(BytesMut::new()),
            length: 0,
            hold: Hold {
                shelf: shelf.clone(),
                bytes: 0,
            },
        }
    }

    pub(crate) fn append(&mut self, data: &[u8]) {
        let bytes = data.len() as u64;
        self.length += bytes;
        if let Some(kept) = &mut self.kept {
            if self.length <= FILE_KEPT_BYTES_MAX && self.hold.shelf.take(bytes) {
                self.hold.bytes += bytes;
                kept.extend_from_slice(data);
            } else {
                self.kept = None;
                self.hold = Self::new(&self.hold.shelf).hold;
            }
        }
    }
}

impl Wiki {
    pub(crate) fn attachments(&self, page: u32) -> impl Iterator<Item = &Attachment> {
        self.attachments
            .iter()
            .filter(move |file| file.page == page)
    }

    pub(crate) fn attachment(&self, id: u32) -> Option<&Attachment> {
        self.attachments.iter().find(|file| file.id == id)
    }

    /// Adds a file, or a new revision of the one of that name.
    pub(crate) fn attach(&mut self, page: u32, name: &str, upload: Upload) -> u32 {
        let known = self
            .attachments
            .iter()
            .position(|file| file.page == page && file.name.to_lowercase() == name.to_lowercase());
        let (id, revision) = match known.map(|at| self.attachments.remove(at)) {
            Some(before) => (before.id, before.revision + 1),
            None => {
                self.attachment_id_last += 1;
                (self.attachment_id_last, 1)
            }
        };
        let Receiving { kept, length, hold } = upload.received;
        self.attachments.push(Attachment {
            id,
            page,
            name: name.to_owned(),
            media_type: upload.media_type,
            description: upload.description,
            author: upload.author,
            created: upload.created,
            revision,
            source: match kept {
                Some(kept) => Source::Bytes(kept.freeze()),
                None => Source::Zeros(length),
            },
            _hold: hold,
        });
        id
    }

    pub(crate) fn detach(&mut self, id: u32) {
        self.attachments.retain(|file| file.id != id);
    }
}

const FILE_KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
const KEPT_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shelf_is_bounded_and_gives_back() {
        let shelf = Shelf::default();
        let chunk = vec![1; 1024 * 1024];
        let mut small = Receiving::new(&shelf);
        small.append(&chunk);
        let mut long = Receiving::new(&shelf);
        for _ in 0..65 {
            long.append(&chunk);
        }
        assert!(long.kept.is_none(), "one file keeps at most 64 MiB");
        assert_eq!(long.length, 65 * 1024 * 1024, "and is counted all the same");
        assert_eq!(shelf.0.load(Ordering::Relaxed), 1024 * 1024);
        assert!(
            !shelf.take(KEPT_BYTES_MAX),
            "all files together are bounded, too"
        );
        drop(small);
        assert_eq!(shelf.0.load(Ordering::Relaxed), 0);
    }
}
