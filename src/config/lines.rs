//! On which line of the file each piece of YAML stands, and what stands there that YAML has but
//! proxy.yaml does not take.
//!
//! serde_yaml, which reads the file, knows no lines. A second parser, with markers, goes over the
//! same text for the lines alone; where the two disagree, there are no lines.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::yaml::{ALIAS, ANCHOR, MERGE_KEY, Mistake, TAG};

/// What kind of piece begins somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    List,
    Map,
}

/// What the second pass found.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Each piece in the order of the file, keys of maps included, with its line.
    pub(super) pieces: Vec<(Kind, usize)>,
    /// Anchors, aliases, tags, merge keys, further documents: each a mistake here.
    pub(super) not_taken: Vec<Mistake>,
    /// The line on which a second document begins.
    pub(super) second_document: Option<usize>,
    /// First and last line of the last text in quotes.
    pub(super) quoted: Option<(usize, usize)>,
    /// What was open in brackets or braces at the end, innermost first, with the line it begins on.
    pub(super) open: Option<(Kind, usize)>,
    /// Where this parser gave up, and what it said.
    pub(super) fault: Option<(usize, String)>,
}

impl Lines {
    /// Goes over a text as far as it is YAML.
    pub(super) fn of(text: &str) -> Self {
        // The other parser takes tabs after a colon and between brackets; this one does not. Columns
        // do not matter here.
        let text = text.replace('\t', "        ");
        let mut lines = Self::default();
        let mut documents = 0;
        let mut maps = OpenMaps::default();
        for event in Parser::new_from_str(&text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(fault) => {
                    lines.fault = Some((fault.marker().line(), fault.info().to_owned()));
                    break;
                }
            };
            match &event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents == 2 {
                        lines.second_document = Some(span.start.line());
                    }
                }
                _ if documents <= 1 => lines.note(&event, span, &mut maps),
                _ => {}
            }
        }
        lines.open = maps.in_brackets();
        lines
    }

    fn note(&mut self, event: &Event<'_>, span: Span, maps: &mut OpenMaps) {
        let line = span.start.line();
        let (kind, anchor, tag) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                if matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted) {
                    self.quoted = Some((line, span.end.line()));
                }
                if maps.at_key() && *style == ScalarStyle::Plain && text == "<<" {
                    self.refuse(MERGE_KEY, line);
                }
                (Kind::Scalar, *anchor, tag.is_some())
            }
            Event::SequenceStart(anchor, tag) => (Kind::List, *anchor, tag.is_some()),
            Event::MappingStart(anchor, tag) => (Kind::Map, *anchor, tag.is_some()),
            Event::Alias(_) => {
                self.refuse(ALIAS, line);
                maps.passed();
                return;
            }
            Event::SequenceEnd | Event::MappingEnd => return maps.closed(),
            _ => return,
        };
        if anchor != 0 {
            self.refuse(ANCHOR, line);
        }
        if tag {
            self.refuse(TAG, line);
        }
        self.pieces.push((kind, line));
        match kind {
            Kind::Scalar => maps.passed(),
            // Only brackets and braces are characters of their own.
            Kind::List | Kind::Map => maps.opened(kind, (!span.is_empty()).then_some(line)),
        }
    }

    fn refuse(&mut self, text: &'static str, line: usize) {
        let mistake = Mistake::on(line, text);
        if !self.not_taken.contains(&mistake) {
            self.not_taken.push(mistake);
        }
    }
}

/// The lists and maps that are open.
#[derive(Debug, Default)]
struct OpenMaps(Vec<Open>);

#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Whether a map's key comes next.
    key_is_next: bool,
    /// The line of its bracket or brace, if it has one.
    bracket: Option<usize>,
}

impl OpenMaps {
    fn at_key(&self) -> bool {
        let top = self.0.last();
        top.is_some_and(|open| open.kind == Kind::Map && open.key_is_next)
    }

    fn passed(&mut self) {
        if let Some(open) = self.0.last_mut() {
            open.key_is_next = !open.key_is_next;
        }
    }

    fn opened(&mut self, kind: Kind, bracket: Option<usize>) {
        self.passed();
        self.0.push(Open {
            kind,
            key_is_next: true,
            bracket,
        });
    }

    fn closed(&mut self) {
        self.0.pop();
    }

    fn in_brackets(&self) -> Option<(Kind, usize)> {
        let mut inner = self.0.iter().rev();
        inner.find_map(|open| Some((open.kind, open.bracket?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_has_its_line() {
        use Kind::{List, Map, Scalar};
        let lines = Lines::of(
            "a: 1\nb:\n  - c: [x,\n      y]\n  -\n    d\n# e\nf: {g: \"h\n  i\"}\nj:\tk\n",
        );
        let expected = [
            (Map, 1),
            (Scalar, 1),
            (Scalar, 1),
            (Scalar, 2),
            (List, 3),
            (Map, 3),
            (Scalar, 3),
            (List, 3),
            (Scalar, 3),
            (Scalar, 4),
            (Scalar, 6),
            (Scalar, 8),
            (Map, 8),
            (Scalar, 8),
            (Scalar, 8),
            (Scalar, 10),
            (Scalar, 10),
        ];
        assert_eq!(lines.pieces, expected);
        assert_eq!((lines.fault, lines.not_taken), (None, Vec::new()));
        assert_eq!(lines.quoted, Some((8, 9)));
    }

    #[test]
    fn what_yaml_has_and_the_file_does_not_take() {
        let check = |text: &str, expected: &[(usize, &'static str)]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(line, text)| Mistake::on(*line, text))
                .collect();
            assert_eq!(Lines::of(text).not_taken, expected, "{text}");
        };
        check(
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            &[(1, ANCHOR), (3, MERGE_KEY), (3, ALIAS)],
        );
        check("- &x\n- [*x, *x]\n", &[(1, ANCHOR), (2, ALIAS)]);
        check(
            "a: !x b\nc: !!str\nd: ! e\n",
            &[(1, TAG), (2, TAG), (3, TAG)],
        );
        check("a: [<<]\nb: <<\n\"<<\": c\n", &[]);
        check("a: '*x'\nb: a*b\nc: a&b\nd: a!b\n", &[]);
        assert_eq!(Lines::of("a: 1\n---\nb: &x 2\n").second_document, Some(2));
        let open = |text: &str| Lines::of(text).open;
        assert_eq!(open("a:\n  - b: [c\nd: @\n"), Some((Kind::List, 2)));
        assert_eq!(open("a: {b: c,\nd: e,\n@\n"), Some((Kind::Map, 1)));
        assert_eq!(open("a:\n  - [b]\n  - c: @\n"), None);
    }
}
