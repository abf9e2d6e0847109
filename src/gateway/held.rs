//! An error answer that is held back until it is known what it is: first its beginning is read, then it
//! goes on, or something else in its place.

use super::relay::Broken;
use crate::policy::Refusal;
use crate::rewrite;
use crate::upstream::Failure;
use crate::wire::coding;
use crate::wire::framing::Decoder;
use crate::wire::head::AnswerHead;

/// How much of an error answer is looked at, and held; of what that decodes to, as much.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1024;

/// The first status that says that something went wrong.
const FIRST_ERROR: u16 = 400;

/// An answer's head, and what has come of its body.
#[derive(Debug)]
pub(super) struct Held {
    head: Vec<u8>,
    pub(super) decoder: Decoder,
    /// Of the whole body, where it was announced.
    pub(super) length: Option<u64>,
    body: Vec<u8>,
    /// How much of it has gone on; `None` until it is known what it is.
    pub(super) sent: Option<usize>,
}

impl Held {
    /// An answer of which the head has come; `None` for one that needs not be looked into, because it
    /// is no error or has no body.
    pub(super) fn new(
        status: u16,
        head: &[u8],
        decoder: Decoder,
        length: Option<u64>,
    ) -> Option<Box<Self>> {
        let is_suspect = status >= FIRST_ERROR && !decoder.is_done();
        let room = length.map_or(0, |length| {
            HELD_BYTES_MAX.min(usize::try_from(length).unwrap_or(HELD_BYTES_MAX))
        });
        is_suspect.then(|| {
            Box::new(Self {
                head: head.to_vec(),
                decoder,
                length,
                body: Vec::with_capacity(room),
                sent: None,
            })
        })
    }

    /// Takes over a part of the body: returns how much.
    pub(super) fn take(&mut self, payload: &[u8]) -> usize {
        let count = payload.len().min(HELD_BYTES_MAX - self.body.len());
        self.body.extend_from_slice(&payload[..count]);
        count
    }

    /// Whether all that is looked at is there.
    pub(super) fn is_full(&self) -> bool {
        self.body.len() == HELD_BYTES_MAX
    }

    /// The head.
    pub(super) fn head(&self) -> Result<AnswerHead<'_>, Broken> {
        AnswerHead::parse(&self.head).map_err(|_| Broken::Site(Failure::Invalid))
    }

    /// Whether the answer may go on.
    ///
    /// # Errors
    /// What goes down in its place.
    pub(super) fn judge(&self) -> Result<(), Broken> {
        let head = self.head()?;
        // What cannot be read could be anything.
        let readings = coding::readings(&head.fields, &self.body, HELD_BYTES_MAX)
            .map_err(|_| Broken::Refused(Refusal::SiteInvalidAnswer))?;
        rewrite::judge_error(head.status, &readings).map_err(Broken::Refused)
    }

    /// Notes that more has gone on.
    pub(super) fn pass(&mut self, count: usize) {
        self.sent = Some(self.sent.unwrap_or_default() + count);
    }

    /// What has not gone on of what is held.
    pub(super) fn rest(&self) -> &[u8] {
        &self.body[self.sent.unwrap_or_default()..]
    }
}
