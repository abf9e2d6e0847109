//! The policy in force as people are shown it, and its hash: by which two of them are told apart.

use sha2::{Digest, Sha256};

/// How many digits of the hash stand in records.
const SHORT: usize = 12;

/// A text of a policy without its secrets, and the SHA-256 of that text.
#[derive(Clone, Debug)]
pub struct Effective {
    text: Box<str>,
    hash: Box<str>,
}

impl Effective {
    /// The text and its hash.
    pub fn new(text: String) -> Self {
        let hash = base16ct::lower::encode_string(&Sha256::digest(&text));
        Self {
            text: text.into(),
            hash: hash.into(),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The first digits of the hash.
    pub fn short_hash(&self) -> &str {
        &self.hash[..SHORT]
    }
}

impl Default for Effective {
    /// Of a policy that nobody has described.
    fn default() -> Self {
        Self::new(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_text() {
        let effective = Effective::new("abc".to_owned());
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(effective.hash(), known);
        assert_eq!(effective.short_hash(), &known[..12]);
        assert_eq!(effective.text(), "abc");
    }
}
