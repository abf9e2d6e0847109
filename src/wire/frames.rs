//! What frames of HTTP/2 cost, counted as they come in, before the protocol does its work with them.

use super::pace::PIECE;

/// A frame's header (RFC 9113 section 4.1), and that of a WINDOW_UPDATE with its increment.
const HEADER_BYTES: usize = 9;
const WINDOW_UPDATE_BYTES: usize = 13;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Where in a frame the bytes so far end.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; WINDOW_UPDATE_BYTES],
    known: usize,
    /// Bytes of the present frame, or of the preface, that are to come.
    left: usize,
}

/// What some bytes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Of small pieces.
    pub(super) pieces: u64,
    /// Messages that begin there.
    pub(super) messages: usize,
}

impl Frames {
    /// Frames that follow a preface of so many bytes.
    pub(super) fn after(preface: usize) -> Self {
        Self {
            header: [0; WINDOW_UPDATE_BYTES],
            known: 0,
            left: preface,
        }
    }

    /// Reads on. Bytes that end no header are a small piece themselves if they are few.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Cost {
        let mut cost = Cost::default();
        let few = PIECE.saturating_sub(bytes.len() as u64);
        let mut is_within = true;
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let wanted = self.header_bytes();
            let taken = (wanted - self.known).min(bytes.len());
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == self.header_bytes() {
                is_within = false;
                self.end_header(&mut cost);
            }
        }
        if is_within {
            cost.pieces += few;
        }
        cost
    }

    fn payload_bytes(&self) -> usize {
        let [a, b, c, ..] = self.header.map(usize::from);
        a << 16 | b << 8 | c
    }

    /// How much of the frame is to be known.
    fn header_bytes(&self) -> usize {
        let is_update = self.known >= HEADER_BYTES
            && self.header[3] == WINDOW_UPDATE
            && self.payload_bytes() == WINDOW_UPDATE_BYTES - HEADER_BYTES;
        if is_update {
            WINDOW_UPDATE_BYTES
        } else {
            HEADER_BYTES
        }
    }

    fn end_header(&mut self, cost: &mut Cost) {
        let payload = self.payload_bytes();
        let (kind, flags) = (self.header[3], self.header[4]);
        match kind {
            // Each is a request, which is judged and limited as one.
            HEADERS => cost.messages += 1,
            CONTINUATION => {}
            // One a request.
            DATA if flags & END_STREAM != 0 => {}
            DATA => cost.pieces += PIECE.saturating_sub(payload as u64),
            // A window that opens by little makes little frames of an answer.
            WINDOW_UPDATE if self.known == WINDOW_UPDATE_BYTES => {
                let increment = self.header[HEADER_BYTES..].iter();
                let increment = increment.fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                cost.pieces += PIECE.saturating_sub(increment & 0x7fff_ffff);
            }
            _ => cost.pieces += PIECE,
        }
        self.left = (HEADER_BYTES + payload).saturating_sub(self.known);
        self.known = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// What frames cost that come in one piece, and in pieces of any size.
    fn check(frames: &[Vec<u8>], pieces: u64, messages: usize) {
        let bytes = [&b"preface"[..], &frames.concat()].concat();
        let whole = Frames::after(7).read(&bytes);
        assert_eq!(whole, Cost { pieces, messages }, "{frames:?}");
        for size in 1..bytes.len() {
            let mut reader = Frames::after(7);
            let mut sum = Cost::default();
            for piece in bytes.chunks(size) {
                let cost = reader.read(piece);
                sum.pieces += cost.pieces;
                sum.messages += cost.messages;
            }
            assert_eq!(sum.messages, messages, "{size}");
            assert!(sum.pieces >= pieces, "{size}");
        }
    }

    #[test]
    fn small_frames_cost_and_large_ones_do_not() {
        check(
            &[frame(HEADERS, 4, b"abc"), frame(DATA, 0, &[0; 2000])],
            0,
            1,
        );
        check(&vec![frame(DATA, 0, b"x"); 3], 3 * (PIECE - 1), 0);
        check(
            &[frame(HEADERS, 4, b""), frame(DATA, END_STREAM, b"")],
            0,
            1,
        );
        check(&[frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1])], PIECE - 1, 0);
        check(&[frame(WINDOW_UPDATE, 0, &[0x80, 0, 4, 0])], 0, 0);
        check(&[frame(WINDOW_UPDATE, 0, b"odd")], PIECE, 0);
        check(&[frame(6, 0, &[0; 8]), frame(4, 1, b"")], 2 * PIECE, 0);
        check(
            &[frame(DATA, 0, &[0; 500]), frame(CONTINUATION, 4, b"x")],
            PIECE - 500,
            0,
        );
    }

    #[test]
    fn bytes_within_a_frame_are_pieces() {
        let mut frames = Frames::after(0);
        assert_eq!(frames.read(&frame(DATA, 0, &[0; 5000])[..100]).pieces, 0);
        assert_eq!(frames.read(&[0; 1]).pieces, PIECE - 1);
        assert_eq!(frames.read(&[0; 2000]).pieces, 0);
    }
}
