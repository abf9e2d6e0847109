//! XML that callers send, read into the same tree the answers are made of.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{Element, Node};

impl Element {
    /// The root of a well-formed text; nothing else counts.
    pub(crate) fn read(xml: &str) -> Option<Self> {
        let mut reader = Reader::from_str(xml);
        let mut open: Vec<Self> = Vec::new();
        loop {
            let finished = match reader.read_event().ok()? {
                Event::Start(start) => {
                    if open.len() == DEPTH_MAX {
                        return None;
                    }
                    open.push(Self::opened(&start)?);
                    None
                }
                Event::Empty(start) => Some(Self::opened(&start)?),
                Event::End(_) => open.pop(),
                Event::Text(text) => {
                    append(&mut open, &text);
                    None
                }
                Event::CData(text) => {
                    append(&mut open, &text);
                    None
                }
                Event::GeneralRef(reference) => {
                    let letter = match reference.resolve_char_ref().ok()? {
                        Some(letter) => letter,
                        None => named(&reference)?,
                    };
                    append(&mut open, letter.encode_utf8(&mut [0; 4]));
                    None
                }
                Event::Eof => return None,
                _ => None,
            };
            if let Some(element) = finished {
                match open.last_mut() {
                    Some(parent) => parent.nodes.push(Node::Element(element)),
                    None => return Some(element),
                }
            }
        }
    }

    fn opened(start: &BytesStart<'_>) -> Option<Self> {
        let mut element = Self::new(start.name().as_ref());
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
            element = element.attribute(attribute.key.as_ref(), value);
        }
        Some(element)
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.nodes.push(Node::Text(text.to_owned()));
    }
}

/// The five entities of XML; a document type that declares others is not read.
fn named(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// Deeper nesting is not read, so that a hostile text cannot exhaust the stack later.
const DEPTH_MAX: usize = 100;
