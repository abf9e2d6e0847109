//! Answers as a tree of elements, written as XML, JSON or serialized PHP by the API's own rules.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::clock::Moment;

mod json;
mod php;
mod reading;

/// An element with its attributes and what it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    /// Written one way in XML and another in JSON and PHP.
    Date(Moment),
    Element(Element),
}

impl Element {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn attribute(mut self, name: &str, value: impl Display) -> Self {
        self.attributes.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn text(mut self, text: impl Display) -> Self {
        self.nodes.push(Node::Text(text.to_string()));
        self
    }

    pub(super) fn child(mut self, child: Self) -> Self {
        self.nodes.push(Node::Element(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.nodes.extend(children.into_iter().map(Node::Element));
        self
    }

    /// A child that holds only text.
    pub(super) fn leaf(self, name: &str, text: impl Display) -> Self {
        self.child(Self::new(name).text(text))
    }

    /// A child that holds only a date.
    pub(super) fn date(self, name: &str, moment: Moment) -> Self {
        let mut child = Self::new(name);
        child.nodes.push(Node::Date(moment));
        self.child(child)
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == name
    }

    pub(super) fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.nodes.iter().filter_map(move |node| match node {
            Node::Element(element) if element.name == name => Some(element),
            _ => None,
        })
    }

    pub(super) fn attribute_value(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All text in it, also in its children.
    pub(super) fn inner_text(&self) -> String {
        self.nodes
            .iter()
            .map(|node| match node {
                Node::Text(text) => text.clone(),
                Node::Date(moment) => moment.iso(),
                Node::Element(element) => element.inner_text(),
            })
            .collect()
    }

    pub(super) fn to_xml(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>");
        self.write_xml(&mut xml);
        xml
    }

    /// The root's name is lost in JSON.
    pub(super) fn to_json(&self) -> String {
        json::write(&self.value())
    }

    /// The root's name is a key in PHP: the vendor's client reads `error/message`.
    pub(super) fn to_php(&self) -> Vec<u8> {
        php::write(&Value::Map(vec![(self.name.clone(), self.value())]))
    }

    fn write_xml(&self, xml: &mut String) {
        xml.push('<');
        xml.push_str(&self.name);
        for (name, value) in &self.attributes {
            xml.push(' ');
            xml.push_str(name);
            xml.push_str("=\"");
            escape(value, xml);
            xml.push('"');
        }
        if self.nodes.is_empty() {
            xml.push_str(" />");
            return;
        }
        xml.push('>');
        for node in &self.nodes {
            match node {
                Node::Text(text) => escape(text, xml),
                Node::Date(moment) => xml.push_str(&moment.iso()),
                Node::Element(element) => element.write_xml(xml),
            }
        }
        xml.push_str("</");
        xml.push_str(&self.name);
        xml.push('>');
    }

    /// The tree that JSON and PHP share: attributes first, then text, then the children by name in
    /// ordinal order, several of one name as a list. Text alone is just text.
    fn value(&self) -> Value {
        let mut text = None;
        let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for node in &self.nodes {
            match node {
                Node::Text(part) => text.get_or_insert_with(String::new).push_str(part),
                Node::Date(moment) => {
                    text.get_or_insert_with(String::new)
                        .push_str(&moment.rfc1123());
                }
                Node::Element(child) => groups.entry(&child.name).or_default().push(child.value()),
            }
        }
        if self.attributes.is_empty() && groups.is_empty() {
            return Value::Text(text.unwrap_or_default());
        }
        let attributes = self
            .attributes
            .iter()
            .map(|(name, value)| (format!("@{name}"), Value::Text(value.clone())));
        let text = text.map(|text| ("#text".to_owned(), Value::Text(text)));
        let children = groups.into_iter().map(|(name, mut values)| {
            let value = if values.len() == 1 {
                values.remove(0)
            } else {
                Value::List(values)
            };
            (name.to_owned(), value)
        });
        Value::Map(attributes.chain(text).chain(children).collect())
    }
}

/// Text, map and list are all there is: to the API every value is a string.
enum Value {
    Text(String),
    Map(Vec<(String, Self)>),
    List(Vec<Self>),
}

/// Escapes what has a meaning in text and in attributes; XML 1.0 has no way to write other control
/// characters, so they become the replacement character.
fn escape(text: &str, xml: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\t' | '\n' => xml.push(letter),
            '\r' => xml.push_str("&#xD;"),
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                xml.push(char::REPLACEMENT_CHARACTER);
            }
            _ => xml.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of everything the rules speak about.
    pub(super) fn sample() -> Element {
        Element::new("page")
            .attribute("id", 7)
            .attribute("draft.state", "inactive")
            .leaf("title", "Café <&> \"tea\"")
            .child(
                Element::new("path")
                    .attribute("seo", "true")
                    .text("Caf\u{e9}"),
            )
            .date("date.created", Moment::at(1_444_070_667))
            .child(Element::new("empty"))
            .child(Element::new("Upper"))
            .leaf("tag", "one")
            .leaf("tag", "two")
            .child(Element::new("contents").attribute("href", "/x").text(""))
            .child(Element::new("mark").attribute("only", ""))
    }

    #[test]
    fn xml_is_escaped_and_has_iso_dates() {
        let expected = concat!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>",
            "<page id=\"7\" draft.state=\"inactive\">",
            "<title>Café &lt;&amp;&gt; &quot;tea&quot;</title>",
            "<path seo=\"true\">Café</path>",
            "<date.created>2015-10-05T18:44:27Z</date.created>",
            "<empty /><Upper />",
            "<tag>one</tag><tag>two</tag>",
            "<contents href=\"/x\"></contents>",
            "<mark only=\"\" />",
            "</page>",
        );
        assert_eq!(sample().to_xml(), expected);
        let control = Element::new("a").attribute("b", "\"\u{1}").to_xml();
        assert!(control.ends_with("<a b=\"&quot;\u{fffd}\" />"), "{control}");
    }

    #[test]
    fn xml_can_be_read_again() {
        let read = Element::read(&sample().to_xml()).unwrap();
        assert!(read.is_named("page"));
        assert_eq!(read.attribute_value("id"), Some("7"));
        assert_eq!(
            read.elements("title").next().unwrap().inner_text(),
            "Café <&> \"tea\""
        );
        assert_eq!(read.elements("tag").count(), 2);
    }
}
