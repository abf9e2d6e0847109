//! What is kept of a request, so that it can be sent a second time.

/// Bytes of a body that are kept, to be sent once more on another connection.
const REPLAYED_BYTES_MAX: usize = 64 * 1024;

/// A body's beginning, kept for a second attempt.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) bytes: Vec<u8>,
    /// Whether something was sent that is not kept.
    is_torn: bool,
}

impl Replay {
    /// Whether all that was read of the body is at hand.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_torn
    }

    /// Keeps what is sent, as far as it is `wanted` and there is room.
    pub(super) fn keep(&mut self, bytes: &[u8], wanted: bool) {
        if wanted && !self.is_torn && self.bytes.len() + bytes.len() <= REPLAYED_BYTES_MAX {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.is_torn |= !bytes.is_empty();
        }
    }
}
