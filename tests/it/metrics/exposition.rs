//! The text format of metrics, read by a parser of the tests' own that takes nothing which the format
//! does not have (version 0.0.4).

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// A metric and its series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    pub help: String,
    pub kind: String,
    /// By the name of the series, which a histogram has three of, and its labels.
    pub series: BTreeMap<(String, Labels), f64>,
}

/// Everything that was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition(pub BTreeMap<String, Family>);

impl Exposition {
    /// Reads a text; fails at whatever a scraper could stumble over.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'), "lines end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && help.ends_with('.'), "{line}");
                let help = help.to_owned();
                let family = Family {
                    help,
                    ..Family::default()
                };
                let before = families.insert(name.to_owned(), family);
                assert_eq!(before, None, "{name} stands in one place");
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(name, current, "its help stands before it");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let family = families.get_mut(&current).expect(line);
                let suffix = name.strip_prefix(&current).expect(line);
                let suffixes: &[_] = match family.kind.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "" => panic!("no type before {line}"),
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                let before = family.series.insert((name, labels), value);
                assert_eq!(before, None, "a series twice: {line}");
            }
        }
        let exposition = Self(families);
        exposition.check();
        exposition
    }

    /// The value of a series; 0 for one that is not there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.series(name);
        found.get(&labels_of(labels)).copied().unwrap_or_default()
    }

    /// The series of this name, by their labels.
    pub fn series(&self, name: &str) -> BTreeMap<Labels, f64> {
        let all = self.0.values().flat_map(|family| &family.series);
        let named = all.filter(|((series, _), _)| series == name);
        named
            .map(|((_, labels), value)| (labels.clone(), *value))
            .collect()
    }

    /// Which series there are.
    pub fn names(&self) -> BTreeSet<(String, Labels)> {
        let all = self.0.values().flat_map(|family| family.series.keys());
        all.cloned().collect()
    }

    /// What holds of each type.
    fn check(&self) {
        for (name, family) in &self.0 {
            assert_ne!(family.kind, "", "{name} has a type");
            if family.kind == "counter" {
                for (series, value) in &family.series {
                    assert!(*value >= 0.0, "{series:?}");
                }
            }
            if family.kind != "histogram" {
                continue;
            }
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for (mut labels, count) in self.series(&format!("{name}_bucket")) {
                let bound = labels.remove("le").expect("a bucket has a bound");
                let bound = match bound.as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().expect("a bound is a number"),
                };
                buckets.entry(labels).or_default().push((bound, count));
            }
            let counts = self.series(&format!("{name}_count"));
            let sums = self.series(&format!("{name}_sum"));
            assert!(buckets.keys().eq(counts.keys()) && buckets.keys().eq(sums.keys()));
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
                let last = buckets.last().unwrap();
                assert_eq!(*last, (f64::INFINITY, counts[&labels]), "{name} {labels:?}");
            }
        }
    }
}

pub fn labels_of(labels: &[(&str, &str)]) -> Labels {
    let owned = labels.iter();
    owned
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn is_name(text: &str) -> bool {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(is_of_a_name)
}

/// `name{label="value",…} value`
fn sample(line: &str) -> (String, Labels, f64) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).expect(line));
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    let mut rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after).expect(line);
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => break after.strip_prefix('}').expect(line),
            }
        },
    };
    rest = rest.strip_prefix(' ').expect(line);
    assert!(!rest.contains(' '), "no timestamp: {line}");
    (name.to_owned(), labels, rest.parse().expect(line))
}

/// A value and what stands after its closing quotation mark.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

#[test]
fn what_is_no_exposition() {
    let good =
        "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"\\\"\\\\\\n\"} 1\na_total 2\n";
    let parsed = Exposition::parse(good);
    assert_eq!(parsed.value("a_total", &[("x", "\"\\\n")]), 1.0);
    assert_eq!(parsed.value("a_total", &[]), 2.0);
    let histogram = "# HELP h A.\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    Exposition::parse(histogram);
    for (from, to) in [
        ("a_total 2\n", "a_total 2"),
        ("a_total 2\n", "a_total 2 1700000000\n"),
        ("a_total 2\n", "a_total 2\na_total 3\n"),
        ("a_total 2\n", "b_total 2\n"),
        ("a_total 2\n", "a_total -2\n"),
        ("a_total 2\n", "a_total two\n"),
        ("# TYPE a_total counter\n", ""),
        ("# HELP a_total A.\n", ""),
        ("counter", "gauge"),
        ("{x=", "{x-y="),
        ("\\n", "\\t"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert!(
            std::panic::catch_unwind(|| Exposition::parse(&bad)).is_err(),
            "{bad}"
        );
    }
    for (from, to) in [
        ("+Inf\"} 2", "+Inf\"} 3"),
        ("1.0\"} 1", "1.0\"} 3"),
        ("h_count 2\n", ""),
        ("h_sum 3\n", ""),
        ("h_sum", "h_total"),
    ] {
        let bad = histogram.replace(from, to);
        assert_ne!(bad, histogram);
        assert!(
            std::panic::catch_unwind(|| Exposition::parse(&bad)).is_err(),
            "{bad}"
        );
    }
}
