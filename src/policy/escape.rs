//! The escapes of a URL as the API's family reads them: `%XX` for a byte, `%uXXXX` for a UTF-16 unit.

/// What the escape at the beginning of a text stands for, and how long it is: 3 for a byte, 6 for a
/// unit. `None` where none stands there.
pub(crate) fn escape(text: &[u8]) -> Option<(u32, usize)> {
    let (digits, length) = match text {
        [b'%', b'u' | b'U', digits @ ..] => (digits.get(..4)?, 6),
        [b'%', digits @ ..] => (digits.get(..2)?, 3),
        _ => return None,
    };
    let number = digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })?;
    Some((number, length))
}

/// A text with its escapes decoded, units as UTF-8, and every other byte as `plain` has it; and whether
/// there was an escape. What comes of it need not be UTF-8.
pub(super) fn decoded(text: &str, plain: impl Fn(u8) -> u8) -> (Vec<u8>, bool) {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    let mut has_escape = false;
    while let Some(byte) = rest.first() {
        let found = escape(rest);
        has_escape |= found.is_some();
        let length = match found {
            Some((byte, length @ 3)) => {
                bytes.push(byte.to_le_bytes()[0]);
                length
            }
            Some((unit, length)) => {
                let c = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                length
            }
            None => {
                bytes.push(plain(*byte));
                1
            }
        };
        rest = &rest[length..];
    }
    (bytes, has_escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_escape_is() {
        let check = |text: &str, expected| assert_eq!(escape(text.as_bytes()), expected, "{text}");
        check("%41b", Some((0x41, 3)));
        check("%fF", Some((0xff, 3)));
        check("%u0041b", Some((0x41, 6)));
        check("%Uff41", Some((0xff41, 6)));
        for text in [
            "", "a%41", "%", "%4", "%4g", "%+4", "%u004", "%u00 4", "%u+041", "%%41",
        ] {
            check(text, None);
        }
    }
}
