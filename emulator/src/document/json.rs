//! JSON as Dream writes it: pure ASCII, every value a string.

use super::Value;

pub(super) fn write(value: &Value) -> String {
    let mut json = String::new();
    append(value, &mut json);
    json
}

fn append(value: &Value, json: &mut String) {
    match value {
        Value::Text(text) => append_text(text, json),
        Value::Map(entries) => {
            json.push('{');
            for (index, (name, value)) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                append_text(name, json);
                json.push(':');
                append(value, json);
            }
            json.push('}');
        }
        Value::List(values) => {
            json.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                append(value, json);
            }
            json.push(']');
        }
    }
}

fn append_text(text: &str, json: &mut String) {
    for letter in serde_json::Value::from(text).to_string().chars() {
        if letter.is_ascii() {
            json.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Element, tests::sample};

    #[test]
    fn json_follows_the_rules_of_the_api() {
        let expected = concat!(
            r#"{"@id":"7","@draft.state":"inactive","Upper":"","#,
            r##""contents":{"@href":"/x","#text":""},"##,
            r#""date.created":"Mon, 05 Oct 2015 18:44:27 GMT","empty":"","#,
            r##""mark":{"@only":""},"path":{"@seo":"true","#text":"Caf\u00e9"},"##,
            r#""tag":["one","two"],"title":"Caf\u00e9 <&> \"tea\""}"#,
        );
        assert_eq!(sample().to_json(), expected);
    }

    #[test]
    fn text_alone_is_a_string() {
        assert_eq!(Element::new("a").to_json(), r#""""#);
        assert_eq!(
            Element::new("a").text("\u{1f600}\n").to_json(),
            r#""\ud83d\ude00\n""#
        );
    }
}
