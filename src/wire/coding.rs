//! What a content coding hides: the beginning of a body, as whoever decodes it reads it.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::policy::request::{self, Field};

/// Codings one upon the other; nobody needs two.
const CODINGS_MAX: usize = 3;

/// What a decoder of zstd may have to remember, as a power of two: what RFC 9659 allows a sender.
const ZSTD_WINDOW_LOG: u32 = 23;

/// What gzip begins with (RFC 1952 section 2.3.1), whether or not it is announced.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// A body in a coding that nothing here reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// How the beginning of a body may be read: as it is, and decoded as its head says. Of what is decoded
/// only the first `bytes_max` are there, however much it would become. A body that is not in the coding
/// it claims, or breaks off, is read as far as that goes: so does whoever decodes it.
///
/// # Errors
/// [`Unreadable`] for a coding that is not gzip, deflate, br or zstd, and for a pile of them.
pub(crate) fn readings<'a>(
    fields: &[Field<'_>],
    body: &'a [u8],
    bytes_max: usize,
) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
    let mut codings: Vec<Coding> = Vec::new();
    for name in request::all(fields, "content-encoding").flat_map(|value| value.split(is_comma)) {
        match Coding::named(name.trim_ascii())? {
            Some(coding) if codings.len() < CODINGS_MAX => codings.push(coding),
            Some(_) => return Err(Unreadable),
            None => {}
        }
    }
    if codings.is_empty() && body.starts_with(GZIP_MAGIC) {
        codings.push(Coding::Gzip);
    }
    let mut readings = vec![Cow::Borrowed(body)];
    // What was applied last is taken off first (RFC 9110 section 8.4).
    let decoded = codings.iter().rev().fold(None, |outer, coding| {
        let outer: Option<Vec<u8>> = outer;
        Some(coding.decode(outer.as_deref().unwrap_or(body), bytes_max))
    });
    readings.extend(decoded.map(Cow::Owned));
    Ok(readings)
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The coding of a name; `None` for one that codes nothing.
    fn named(name: &[u8]) -> Result<Option<Self>, Unreadable> {
        Ok(Some(match name.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => return Ok(None),
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"br" => Self::Brotli,
            b"zstd" => Self::Zstd,
            _ => return Err(Unreadable),
        }))
    }

    fn decode(self, coded: &[u8], bytes_max: usize) -> Vec<u8> {
        match self {
            Self::Gzip => beginning(MultiGzDecoder::new(coded), bytes_max),
            Self::Deflate => {
                // Some send it without the wrapping that the standard means (RFC 9110 section 8.4.1.2).
                let wrapped = beginning(ZlibDecoder::new(coded), bytes_max);
                if wrapped.is_empty() {
                    beginning(DeflateDecoder::new(coded), bytes_max)
                } else {
                    wrapped
                }
            }
            Self::Brotli => beginning(brotli::Decompressor::new(coded, 4096), bytes_max),
            Self::Zstd => {
                let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(coded) else {
                    return Vec::new();
                };
                if decoder.window_log_max(ZSTD_WINDOW_LOG).is_err() {
                    return Vec::new();
                }
                beginning(decoder, bytes_max)
            }
        }
    }
}

/// What a decoder has to say, up to a fault in it.
fn beginning(decoder: impl Read, bytes_max: usize) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut limited = decoder.take(bytes_max as u64);
    // What came before a fault is there all the same.
    drop(limited.read_to_end(&mut decoded));
    decoded
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::request::tests::fields;

    const TEXT: &[u8] = b"at MindTouch.Dream.Feature.Invoke(Context context)";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut coded, 4096, 5, 22);
        encoder.write_all(bytes).unwrap();
        drop(encoder);
        coded
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn check(named: &[&str], body: &[u8], expected: Result<&[u8], Unreadable>) {
        let lines: Vec<_> = named
            .iter()
            .map(|value| ("Content-Encoding", *value))
            .collect();
        let fields = fields(&lines);
        let readings = readings(&fields, body, 1024);
        let last = readings.as_ref().map(|all| &**all.last().unwrap());
        assert_eq!(last.map_err(|fault| *fault), expected, "{named:?}");
        if let Ok(all) = &readings {
            assert_eq!(&*all[0], body, "as it is, too");
        }
    }

    #[test]
    fn every_coding_that_is_spoken() {
        check(&[], TEXT, Ok(TEXT));
        check(&["identity", ""], TEXT, Ok(TEXT));
        for name in ["gzip", "GZip", "x-gzip", "identity, gzip", "gzip,"] {
            check(&[name], &gzip(TEXT), Ok(TEXT));
        }
        check(&[], &gzip(TEXT), Ok(TEXT));
        check(&["deflate"], &zlib(TEXT), Ok(TEXT));
        check(&["deflate"], &deflate(TEXT), Ok(TEXT));
        check(&["br"], &brotli(TEXT), Ok(TEXT));
        check(&["zstd"], &zstd(TEXT), Ok(TEXT));
        let two = brotli(&gzip(TEXT));
        check(&["gzip, br"], &two, Ok(TEXT));
        check(&["gzip", "br"], &two, Ok(TEXT));
        let members = [gzip(&TEXT[..10]), gzip(&TEXT[10..])].concat();
        check(&["gzip"], &members, Ok(TEXT));
    }

    #[test]
    fn what_nothing_reads_says_so() {
        for named in ["compress", "exi", "gzip;q=1", "\"gzip\"", "gzip, chunked"] {
            check(&[named], &gzip(TEXT), Err(Unreadable));
        }
        check(&["gzip, gzip, gzip, gzip"], TEXT, Err(Unreadable));
    }

    #[test]
    fn what_breaks_off_is_read_so_far() {
        let long = TEXT.repeat(10);
        // Without its last bytes, and with others in their place.
        for coded in [
            &gzip(&long)[..gzip(&long).len() - 9],
            &[&gzip(&long)[..], b"rubbish"].concat(),
        ] {
            let fields = fields(&[("Content-Encoding", "gzip")]);
            let readings = readings(&fields, coded, 1024).unwrap();
            assert!(readings[1].starts_with(TEXT), "{readings:?}");
        }
        for name in ["gzip", "deflate", "br", "zstd"] {
            let fields = fields(&[("Content-Encoding", name)]);
            assert!(readings(&fields, TEXT, 1024).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_bomb_stays_small() {
        let zeros = vec![0; 64 << 20];
        for (name, coded) in [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("br", brotli(&zeros)),
            ("zstd", zstd(&zeros)),
            ("gzip, gzip", gzip(&gzip(&zeros))),
        ] {
            let fields = fields(&[("Content-Encoding", name)]);
            let beginning = &coded[..coded.len().min(64 << 10)];
            let readings = readings(&fields, beginning, 64 << 10).unwrap();
            assert!(readings[1].len() <= 64 << 10, "{name}");
            assert!(readings[1].len() > 1000, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            name in proptest::sample::select(vec!["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate"]),
        ) {
            let fields = fields(&[("Content-Encoding", name)]);
            for reading in readings(&fields, &body, 4096).unwrap().iter().skip(1) {
                prop_assert!(reading.len() <= 4096);
            }
        }
    }
}
