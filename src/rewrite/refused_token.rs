//! Whether the site says that it does not take the gateway's own token.
//!
//! The vendor documents no status for that, but the error document names it. Read by place, not by
//! looking for the words: messages repeat what callers sent, and a caller should not be able to make the
//! site seem to say this. In XML and JSON what is repeated is escaped; in serialized PHP it is counted.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::exception::{unescaped, without_marks};

/// The name of the error (LibreTexts/Libretext issue 153).
const RESOURCE: &str = "System.API.Error.developer-token-validation-failed";

/// The class behind it, at the end of its full name.
const EXCEPTION: &str = "TokenValidationFailedException";

/// How deep in a document the fields of an error are: in its root, or with the root named.
const DEPTH_MAX: usize = 2;

/// Whether an error document, in XML, JSON or serialized PHP, says that the token was refused.
pub(super) fn refuses_token(document: &[u8]) -> bool {
    let document = without_marks(document);
    let document = document.trim_ascii();
    match document.first() {
        Some(b'<') => in_xml(&String::from_utf8_lossy(document)),
        Some(b'{') => in_json(document),
        Some(b'a') => in_php(document),
        _ => false,
    }
}

fn says(name: &[u8], value: &[u8]) -> bool {
    let value = value.trim_ascii();
    match name {
        b"resource" => value.eq_ignore_ascii_case(RESOURCE.as_bytes()),
        b"exception" => value.ends_with(EXCEPTION.as_bytes()),
        _ => false,
    }
}

fn in_xml(document: &str) -> bool {
    let mut reader = Reader::from_str(document);
    let mut depth = 0_usize;
    let mut field = (Vec::new(), String::new());
    // What is not well-formed, or cut off, is read up to there.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(start) => {
                depth += 1;
                if depth == DEPTH_MAX {
                    let name = start.local_name().into_inner().as_bytes().to_vec();
                    field = (name, String::new());
                }
            }
            Event::Text(text) if depth == DEPTH_MAX => field.1.push_str(&text),
            Event::CData(text) if depth == DEPTH_MAX => field.1.push_str(&text),
            Event::GeneralRef(reference) if depth == DEPTH_MAX => {
                field.1.extend(reference.resolve_char_ref().ok().flatten());
            }
            Event::End(_) => {
                if depth == DEPTH_MAX && says(&field.0, field.1.as_bytes()) {
                    return true;
                }
                depth = depth.saturating_sub(1);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    false
}

fn in_json(document: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    let mut key: &[u8] = b"";
    while let Some(byte) = document.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let string = json_string(&document[at..]);
                at += string.len() + 1;
                let rest = document.get(at..).unwrap_or_default();
                if rest.trim_ascii_start().starts_with(b":") {
                    key = string;
                } else if depth <= DEPTH_MAX && says(&unescaped(key), &unescaped(string)) {
                    return true;
                } else {
                    key = b"";
                }
            }
            _ => {}
        }
    }
    false
}

/// What stands before the quote that ends a string.
fn json_string(text: &[u8]) -> &[u8] {
    let mut end = 0;
    while end < text.len() && text[end] != b'"' {
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    &text[..end.min(text.len())]
}

fn in_php(document: &[u8]) -> bool {
    let mut rest = document;
    let mut keys: Vec<Option<&[u8]>> = Vec::new();
    loop {
        let scalar: &[u8] = match rest {
            [b'}', after @ ..] => {
                rest = after;
                keys.pop();
                b""
            }
            [b'a', b':', after @ ..] => {
                let Some(open) = memchr::memchr(b'{', after) else {
                    return false;
                };
                rest = &after[open + 1..];
                keys.push(None);
                continue;
            }
            [b's', b':', after @ ..] => {
                let Some((string, after)) = php_string(after) else {
                    return false;
                };
                rest = after;
                string
            }
            [_, ..] => {
                let Some(end) = memchr::memchr(b';', rest) else {
                    return false;
                };
                rest = &rest[end + 1..];
                b""
            }
            [] => return false,
        };
        let depth = keys.len();
        match keys.last_mut() {
            Some(key @ None) => *key = Some(scalar),
            Some(key) => {
                if depth <= DEPTH_MAX && says(key.take().unwrap_or_default(), scalar) {
                    return true;
                }
            }
            None => return false,
        }
    }
}

/// The string that `LENGTH:"…";` counts, and what follows.
fn php_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', &text[..text.len().min(12)])?;
    let length: usize = std::str::from_utf8(&text[..colon]).ok()?.parse().ok()?;
    let quoted = text[colon + 1..].strip_prefix(b"\"")?;
    let after = quoted.get(length..)?.strip_prefix(b"\";")?;
    Some((&quoted[..length], after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const XML: &str = "<error><exception>MindTouch.Deki.Auth.Exceptions.TokenValidationFailedException</exception>\
<resource>System.API.Error.developer-token-validation-failed</resource><arguments count=\"1\"><argument>missing required token</argument>\
</arguments><message>The request failed API token validation, missing required token</message></error>";
    const JSON: &str = r#"{"arguments":{"@count":"1","argument":"x"},"message":"no \"}","resource":"System.API.Error.developer-token-validation-failed"}"#;
    const PHP: &str = r#"a:1:{s:5:"error";a:3:{s:9:"arguments";a:1:{s:8:"argument";a:2:{i:0;s:1:"}";i:1;b:0;}}s:7:"message";N;s:8:"resource";s:50:"System.API.Error.developer-token-validation-failed";}}"#;

    fn check(document: &str, expected: bool) {
        assert_eq!(refuses_token(document.as_bytes()), expected, "{document}");
        let wide: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(document.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(refuses_token(&wide), expected, "in UTF-16: {document}");
    }

    #[test]
    fn each_form_of_the_document() {
        for document in [XML, JSON, PHP] {
            check(document, true);
            check(&format!("\u{feff}\r\n {document}"), true);
        }
        check(
            &XML.replace("<resource>", "<resource a='b'>\n <![CDATA[")
                .replace("</resource>", "]]>\n</resource>"),
            true,
        );
        check(
            &XML.replace(
                "<error>",
                "<?xml version=\"1.0\"?><!-- a --><error xmlns=\"x\">",
            ),
            true,
        );
        check(
            &XML.replace("<res", "<e:res").replace("</res", "</e:res"),
            true,
        );
        check(&XML.replace("developer-", "developer&#45;"), true);
        check(&XML.replace(RESOURCE, "System.API.Error.other"), true);
        check(&XML.replace(EXCEPTION, "Other"), true);
        check(&XML[..XML.len() - 40], true);
        check(&JSON.replace('-', "\\u002d"), true);
        check(&JSON.replace("\":\"", "\" :\n\""), true);
        check(&format!("{{\"error\":{JSON}}}"), true);
        check(
            r#"{"exception":"MindTouch.Deki.Auth.Exceptions.TokenValidationFailedException"}"#,
            true,
        );
        check(&PHP[PHP.find("a:3").unwrap()..PHP.len() - 1], true);
    }

    #[test]
    fn what_a_caller_can_make_it_repeat_is_no_evidence() {
        let field = format!("<resource>{RESOURCE}</resource>");
        for document in [
            String::new(),
            RESOURCE.to_owned(),
            format!("<error><resource>other</resource><message>{RESOURCE}</message></error>"),
            format!("<error><message><![CDATA[</message>{field}]]></message></error>"),
            format!(
                "<error><message>&lt;/message&gt;{}</message></error>",
                field.replace('<', "&lt;")
            ),
            format!("<error><!-- {field} --><message/></error>"),
            format!("<error><data><page>{field}</page></data></error>"),
            format!("<error><resource>{RESOURCE}-not</resource></error>"),
            format!(r#"{{"message":"\",\"resource\":\"{RESOURCE}\""}}"#),
            format!(r#"{{"message":"{RESOURCE}","resource":"x"}}"#),
            format!(r#"{{"resource":["{RESOURCE}"],"a":{{"b":{{"resource":"{RESOURCE}"}}}}}}"#)
                .replace("[\"System", "[\"x\",\"System"),
            php(&format!("\";s:8:\"resource\";s:50:\"{RESOURCE}\";")),
        ] {
            check(&document, false);
        }
    }

    fn php(message: &str) -> String {
        format!("a:1:{{s:7:\"message\";s:{}:\"{message}\";}}", message.len())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in "[<{a]", bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            refuses_token(&[start.as_bytes(), &bytes].concat());
            for document in [XML, JSON, PHP] {
                let mut document = document.as_bytes()[..cut.min(document.len())].to_vec();
                document.extend_from_slice(&bytes);
                refuses_token(&document);
            }
        }

        #[test]
        fn no_message_makes_php_say_it(message in "[a-z\";:{}0-9]{0,40}") {
            let message = format!("{message}\";s:8:\"resource\";s:50:\"{RESOURCE}\";}}");
            let document = php(&message);
            prop_assert!(!refuses_token(document.as_bytes()), "{}", document);
        }
    }
}
