//! Who calls and with which token the site is called: the same for all three.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The token of the site, of the form the vendor issues.
pub(crate) const TOKEN_KEY: &str =
    "dacaffe7ce69dfd1071531e925f667905a1c981fb40d06c676880e84352cb3aa";
/// Its secret.
pub(crate) const TOKEN_SECRET: &str =
    "5b70319201e9abad12a3458b32ed30cf634ef569ea47906e5012baf11cab5046";

/// The host that callers ask for.
pub(crate) const HOST: &str = "gateway.example.com";

/// How many callers every configuration has.
pub(crate) const CALLERS: usize = 100;

/// A program that calls.
pub(crate) struct Caller {
    /// Its name in the logs.
    pub(crate) name: String,
    /// As whom it acts, as it stands in a token.
    pub(crate) user: String,
    /// What it presents.
    pub(crate) key: String,
}

impl Caller {
    /// The caller of this number; any number will do.
    pub(crate) fn of(number: usize) -> Self {
        let number = number % CALLERS;
        let random = hex(&Sha256::digest(format!("key {number}")));
        Self {
            name: format!("crm{number}"),
            user: format!("=crm-{number}"),
            key: format!("cs_{}", &random[..43]),
        }
    }

    /// The digest of its key, in lower-case hexadecimal digits.
    pub(crate) fn digest(&self) -> String {
        hex(&Sha256::digest(&self.key))
    }

    /// Everyone.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CALLERS).map(Self::of)
    }
}

/// A text with a line for each caller.
pub(crate) fn lines(line: impl Fn(&Caller) -> String) -> String {
    Caller::all().fold(String::new(), |mut text, caller| {
        text.push_str(&line(&caller));
        text.push('\n');
        text
    })
}

/// A template with its `{name}`s replaced.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes what is written");
        text
    })
}
