//! Lists of names to find a name in, where most of what is looked for is not there.

/// A list of lower-case names, shortest first, in which only those of the right length are compared.
pub(crate) struct Names<const COUNT: usize> {
    names: [&'static str; COUNT],
    /// For each length, where the names of at least that length begin.
    starts: [usize; LENGTH_MAX + 2],
}

/// No name of a list is longer.
const LENGTH_MAX: usize = 32;

impl<const COUNT: usize> Names<COUNT> {
    /// A list of these names, in order of length.
    pub(crate) const fn new(names: [&'static str; COUNT]) -> Self {
        let mut starts = [COUNT; LENGTH_MAX + 2];
        let mut index = COUNT;
        while index > 0 {
            index -= 1;
            let length = names[index].len();
            assert!(length <= LENGTH_MAX, "a name is longer than LENGTH_MAX");
            assert!(
                index + 1 == COUNT || length <= names[index + 1].len(),
                "the shortest names stand first"
            );
            let mut at = 0;
            while at <= length {
                starts[at] = index;
                at += 1;
            }
        }
        Self { names, starts }
    }

    /// Whether a name, as it was sent, is on the list.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        let (Some(from), Some(to)) = (self.starts.get(name.len()), self.starts.get(name.len() + 1))
        else {
            return false;
        };
        self.names[*from..*to]
            .iter()
            .any(|listed| is_token_of(name, listed.as_bytes()))
    }

    /// Every name.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.names.into_iter()
    }
}

/// Whether a token, as it was sent, is a lower-case one of letters, digits and hyphens. Of the bytes a
/// token may have (RFC 9110 section 5.6.2), setting this bit makes the capital letters small, and none
/// a letter, a digit or a hyphen that was not. Most are told by their first byte.
fn is_token_of(name: &[u8], listed: &[u8]) -> bool {
    let differs = |sent: u8, wanted: u8| (sent | 0x20) ^ wanted;
    match (name, listed) {
        ([first, rest @ ..], [wanted, listed @ ..]) if differs(*first, *wanted) == 0 => {
            let pairs = rest.iter().zip(listed);
            pairs.fold(0, |odd, (sent, wanted)| odd | differs(*sent, *wanted)) == 0
                && rest.len() == listed.len()
                && is_token(name)
        }
        _ => false,
    }
}

/// Whether no byte is one that no token has and that would be taken for another.
fn is_token(name: &[u8]) -> bool {
    name.iter().fold(true, |token, byte| token & (*byte > b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_found_in_any_case() {
        let names = Names::new(["ab", "cd", "xyz", "abcdefgh"]);
        assert_eq!(names.iter().count(), 4);
        for name in ["ab", "CD", "Xyz", "abcdefgh"] {
            assert!(names.has(name.as_bytes()), "{name}");
        }
        for name in ["", "a", "ac", "abc", "xy", "xyzz", "abcdefg", "abcdefghi"] {
            assert!(!names.has(name.as_bytes()), "{name}");
        }
        assert!(!names.has(&[b'a'; 300]));
    }
}
