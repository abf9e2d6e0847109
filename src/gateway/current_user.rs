//! Whom a site takes us for, as the document of `users/current` says it.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The facts that tell one user from another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CurrentUser {
    /// Whether it is nobody in particular.
    pub(super) is_anonymous: bool,
    pub(super) id: String,
    pub(super) name: String,
}

/// The id of the user Anonymous, where a site does not mark it.
const ANONYMOUS: (&str, &str) = ("2", "anonymous");

/// Reads `<user anonymous="false" id="7">…<username>crm-bot</username>…</user>`; `None` for any other
/// document, and for one that breaks off before the name.
pub(super) fn current_user(document: &[u8]) -> Option<CurrentUser> {
    let text = String::from_utf8_lossy(document);
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut user = CurrentUser::default();
    let mut depth = 0_usize;
    let mut is_name = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                depth += 1;
                let name = start.local_name();
                if depth == 1 {
                    if name.as_ref() != "user" {
                        return None;
                    }
                    for attribute in start.attributes() {
                        let attribute = attribute.ok()?;
                        let value = attribute.value.trim();
                        match attribute.key.as_ref() {
                            "id" => value.clone_into(&mut user.id),
                            "anonymous" => user.is_anonymous = value.eq_ignore_ascii_case("true"),
                            _ => {}
                        }
                    }
                }
                is_name = depth == 2 && name.as_ref() == "username";
            }
            Event::Text(text) if is_name => user.name.push_str(&text),
            Event::CData(text) if is_name => user.name.push_str(&text),
            Event::GeneralRef(reference) if is_name => {
                user.name.extend(character(&reference));
            }
            Event::End(_) if is_name => break,
            Event::End(_) => depth = depth.checked_sub(1)?,
            Event::Eof => return None,
            _ => {}
        }
    }
    let (id, name) = ANONYMOUS;
    user.name = user.name.trim().to_owned();
    user.is_anonymous |= user.id == id && user.name.eq_ignore_ascii_case(name);
    Some(user)
}

/// The character that `&NAME;` or `&#NUMBER;` stands for.
fn character(reference: &quick_xml::events::BytesRef<'_>) -> Option<char> {
    if let Some(character) = reference.resolve_char_ref().ok().flatten() {
        return Some(character);
    }
    let named: &str = reference;
    let text = quick_xml::escape::resolve_predefined_entity(named)?;
    text.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: Option<(bool, &str, &str)>) {
        let read = current_user(document.as_bytes());
        let read = read
            .as_ref()
            .map(|user| (user.is_anonymous, &*user.id, &*user.name));
        assert_eq!(read, expected, "{document}");
    }

    #[test]
    fn documents_of_users() {
        let user = r#"<user anonymous="false" virtual="false" id="7" href="x"><nick>n</nick><username>crm-bot</username><email/></user>"#;
        check(user, Some((false, "7", "crm-bot")));
        check(
            &format!("\u{feff}<?xml version=\"1.0\"?>\n{user}"),
            Some((false, "7", "crm-bot")),
        );
        let anonymous = r#"<user id="2" anonymous="true"><username>Anonymous</username></user>"#;
        check(anonymous, Some((true, "2", "Anonymous")));
        check(
            &anonymous.replace(" anonymous=\"true\"", ""),
            Some((true, "2", "Anonymous")),
        );
        check(
            &anonymous.replace("id=\"2\"", "id=\"5\""),
            Some((true, "5", "Anonymous")),
        );
        check(
            &user.replace("crm-bot", "a &amp; b&#45;c<![CDATA[ <d>]]>"),
            Some((false, "7", "a & b-c <d>")),
        );
        check(
            "<user id='7'><username>\n crm-bot\n</username>",
            Some((false, "7", "crm-bot")),
        );
    }

    #[test]
    fn other_documents() {
        for document in [
            "",
            "crm-bot",
            "<html><user id=\"7\"><username>crm-bot</username></user></html>",
            "<users><user id=\"7\"><username>crm-bot</username></user></users>",
            "<user id=\"7\"/>",
            "<user id=\"7\"><nick>crm-bot</nick></user>",
            "<user id=\"7\"><owner><username>crm-bot</username></owner></user>",
            "<user id=\"7\"><username>crm",
            r#"{"@id":"7","username":"crm-bot"}"#,
        ] {
            check(document, None);
        }
    }
}
