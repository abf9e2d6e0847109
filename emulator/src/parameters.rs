//! The query as Dream reads it, which is not quite as browsers write it.
//!
//! Names and values are split at `&` only and decoded; a name is looked up without regard to case,
//! and the first of its kind wins (MindTouch/DReAM, `XUriParser` and `XUri.GetParam`).

/// The decoded parameters of a query, in the order received.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn read(query: Option<&str>) -> Self {
        let parameters = query
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(name, Plus::Space), decode(value, Plus::Space))
            })
            .collect();
        Self(parameters)
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A number, or what to take where there is none that can be read.
    pub(super) fn number(&self, name: &str, otherwise: usize) -> usize {
        self.first(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(otherwise)
    }
}

/// What a `+` stands for. In a query and in a title it is a space (PHP clients encode titles with
/// `urlencode`); in a path and in a user's name it is itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    Space,
    Literal,
}

/// Decodes `%XX` and `%uXXXX` once, as UTF-8; an invalid escape stands for itself.
pub(super) fn decode(text: &str, plus: Plus) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let wide = bytes[at..].starts_with(b"%u") || bytes[at..].starts_with(b"%U");
        if wide && let Some(unit) = hexadecimal(bytes, at + 2, 4) {
            let letter = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
            decoded.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else if bytes[at] == b'%'
            && let Some(byte) = hexadecimal(bytes, at + 1, 2).and_then(|byte| byte.try_into().ok())
        {
            decoded.push(byte);
            at += 3;
        } else {
            let space = bytes[at] == b'+' && plus == Plus::Space;
            decoded.push(if space { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hexadecimal(bytes: &[u8], at: usize, digits: usize) -> Option<u32> {
    bytes
        .get(at..at + digits)?
        .iter()
        .try_fold(0, |value, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(value * 16 + digit)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_dream_reads_them() {
        let query = "DREAM%2EIN%2EVERB=PUT&dream.in.verb=DELETE&%u0061uthtoken=x;y&q=a+b%2Bc&flag&=nameless";
        let parameters = Parameters::read(Some(query));
        assert_eq!(
            parameters.first("dream.in.verb"),
            Some("PUT"),
            "the first wins"
        );
        assert_eq!(
            parameters.first("AuthToken"),
            Some("x;y"),
            "; does not separate"
        );
        assert_eq!(parameters.first("q"), Some("a b+c"));
        assert_eq!(parameters.first("flag"), Some(""));
        assert_eq!(parameters.first("absent"), None);
        assert_eq!(parameters.number("limit", 100), 100);
    }

    #[test]
    fn escapes_are_decoded_once_and_leniently() {
        for (text, expected) in [
            ("Some%252FPage", "Some%2FPage"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%u00e9%C3%A9", "éé"),
            ("%u12", "%u12"),
            ("%ff", "\u{fffd}"),
            ("%ud800", "\u{fffd}"),
        ] {
            assert_eq!(decode(text, Plus::Literal), expected, "{text}");
        }
        assert_eq!(decode("a+b", Plus::Literal), "a+b");
        assert_eq!(decode("a+b", Plus::Space), "a b");
    }
}
