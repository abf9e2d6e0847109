//! Serialized PHP: lengths count bytes of UTF-8, and a list is an array with the keys 0, 1, 2.

use super::Value;

pub(super) fn write(value: &Value) -> Vec<u8> {
    let mut php = Vec::new();
    append(value, &mut php);
    php
}

fn append(value: &Value, php: &mut Vec<u8>) {
    match value {
        Value::Text(text) => append_text(text, php),
        Value::Map(entries) => {
            php.extend_from_slice(format!("a:{}:{{", entries.len()).as_bytes());
            for (name, value) in entries {
                append_text(name, php);
                append(value, php);
            }
            php.push(b'}');
        }
        Value::List(values) => {
            php.extend_from_slice(format!("a:{}:{{", values.len()).as_bytes());
            for (index, value) in values.iter().enumerate() {
                php.extend_from_slice(format!("i:{index};").as_bytes());
                append(value, php);
            }
            php.push(b'}');
        }
    }
}

fn append_text(text: &str, php: &mut Vec<u8>) {
    php.extend_from_slice(format!("s:{}:\"{text}\";", text.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn php_counts_bytes_and_keeps_the_root() {
        let expected = concat!(
            r#"a:1:{s:4:"page";a:10:{s:3:"@id";s:1:"7";s:12:"@draft.state";s:8:"inactive";"#,
            r##"s:5:"Upper";s:0:"";s:8:"contents";a:2:{s:5:"@href";s:2:"/x";s:5:"#text";s:0:"";}"##,
            r#"s:12:"date.created";s:29:"Mon, 05 Oct 2015 18:44:27 GMT";s:5:"empty";s:0:"";"#,
            r#"s:4:"mark";a:1:{s:5:"@only";s:0:"";}"#,
            r##"s:4:"path";a:2:{s:4:"@seo";s:4:"true";s:5:"#text";s:5:"Café";}"##,
            r#"s:3:"tag";a:2:{i:0;s:3:"one";i:1;s:3:"two";}s:5:"title";s:15:"Café <&> "tea"";}}"#,
        );
        assert_eq!(String::from_utf8(sample().to_php()).unwrap(), expected);
    }
}
