//! Words of the file: which of them a problem may repeat, and which known one was meant.

/// Longest word, in letters.
const LETTERS_MAX: usize = 24;

/// Longest number within or after a word, such as a year or a port.
const DIGITS_MAX: usize = 6;

/// Longest piece that may mix letters and digits as it likes, such as `k8s`.
const ODD_MAX: usize = 4;

/// Longest text that may be repeated.
const BYTES_MAX: usize = 64;

/// Whether a text reads like a name that somebody gave something, and so may stand in a problem.
///
/// A secret in the wrong place must not be repeated, and secrets have every form. So this says what
/// a name looks like, and leaves out everything else: long random text, hexadecimal, base64, keys of
/// ours and tokens. A name that is left out costs the operator a glance at the line.
pub(super) fn may_be_repeated(text: &str) -> bool {
    if text.is_empty() || text.len() > BYTES_MAX || is_credential(text) {
        return false;
    }
    let mut odd = 0;
    text.split(['_', '-', '.']).all(|piece| {
        if piece.is_empty() || is_word(piece) {
            return true;
        }
        odd += 1;
        odd == 1 && piece.len() <= ODD_MAX && piece.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Whether a text is a secret by its form: a key of ours, a token, or long and random.
///
/// A text that may not be repeated is not yet one: what somebody named oddly still has a word in it.
pub(super) fn is_secret(text: &str) -> bool {
    let has_word = || {
        let mut pieces = text.split(['_', '-', '.']);
        pieces.any(|piece| piece.len() >= 3 && is_word(piece) && !is_digits(piece))
    };
    is_credential(text) || text.len() >= 20 && !may_be_repeated(text) && !has_word()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// A caller's key, a server token, or a JWT.
fn is_credential(text: &str) -> bool {
    ["cs_", "tkn_", "eyJ"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// A path with every part left out that may not be repeated.
pub(super) fn path_to_repeat(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        if part.is_empty() || may_be_repeated(part) {
            part
        } else {
            "…"
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Letters in one case, capitalized or in camel case, and perhaps a number after them; or a number.
fn is_word(piece: &str) -> bool {
    let letters = piece.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = piece.len() - letters.len();
    digits <= DIGITS_MAX && letters.len() <= LETTERS_MAX && are_letters_of_a_word(letters)
}

fn are_letters_of_a_word(letters: &str) -> bool {
    if letters.bytes().all(|b| b.is_ascii_uppercase()) {
        return true;
    }
    let mut humps = 0;
    let mut length = 2;
    for byte in letters.bytes() {
        if byte.is_ascii_uppercase() {
            // Single letters between capitals are no words.
            if length < 2 {
                return false;
            }
            humps += 1;
            length = 1;
        } else if byte.is_ascii_lowercase() {
            length += 1;
        } else {
            return false;
        }
    }
    length >= 2 && humps <= 4
}

/// The known word that differs from `word` by the fewest edits, if that is few.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    let close = known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 1 + candidate.len() / 4)
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate));
    close
        .min()
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .map(|(_, near)| near)
}

/// What to write in place of a word that is not known, out of those that are.
pub(crate) fn cure<'k>(word: &str, known: impl IntoIterator<Item = &'k str>, what: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let known = known.into_iter().filter(|name| may_be_repeated(name));
    let known: Vec<&str> = known.collect();
    if let Some(near) = nearest(word, known.iter().copied()) {
        return format!("did you mean {near}?");
    }
    let shown = known[..known.len().min(SHOWN_MAX)].join(", ");
    match known.len().saturating_sub(SHOWN_MAX) {
        _ if known.is_empty() => format!("there are no {what} yet"),
        0 => format!("known {what} are {shown}"),
        more => format!("known {what} are {shown}, and {more} more"),
    }
}

/// Edits from one word to another: a letter more, a letter less, another letter, two exchanged
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, left) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let mut edits = (row[j] + usize::from(left != *right))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            if j > 0 && last == Some(*right) && left == b[j - 1] {
                edits = edits.min(before[j - 1] + 1);
            }
            next.push(edits);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(left);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_repeated_and_secrets_may_not() {
        for text in [
            "acme",
            "ACME_TOKEN_KEY",
            "salesforce-prod-eu1",
            "token_secret.v2",
            "K8S_SECRET",
            "CALLER_SHA256",
            "2024_01_05",
            "serviceAccount",
            "JaneDoe",
            "..data",
            "ca.pem",
            "S3_KEY",
            "site-65532",
        ] {
            assert!(may_be_repeated(text), "{text}");
        }
        let hex = "5b7031928fe2".repeat(6);
        for text in [
            "",
            &hex[..64],
            &hex[..32],
            "deadbeefdeadbeefdeadbeefdeadbeef",
            "5b703192",
            "cs_demo_key_for_the_emulator_only",
            "cs_5kQ7",
            "tkn_key_1700000000_=admin_0123",
            "eyJhbGciOiJIUzI1NiJ9",
            "aGVsbG8gd29ybGQgaGVsbG8",
            "TWFyeSBoYWQgYSBsaXR0bGU=",
            "ZkQ3-x91_Lm2Pq-07Ab",
            "correct horse battery staple",
            "qpwoeirutyalskdjfhgzmxncbv",
            "P@ssw0rd",
            "$argon2id$v=19",
            "AKIA4X7Q2M9ZT3LB6W5E",
            "9f86d081-884c-7d65-9a2f-eaa0c55ad015",
        ] {
            assert!(!may_be_repeated(text), "{text}");
        }
        for text in [&hex[..], "cs_5kQ7", "AKIA4X7Q2M9ZT3LB6W5E"] {
            assert!(is_secret(text), "{text}");
        }
        for text in [
            "ACME_TOKEN_KEY",
            "5b7",
            "9f8e7d6c_KEY",
            "APP_K8S_V2X_B4B_TOKEN_KEY_1",
        ] {
            assert!(!is_secret(text), "{text}");
        }
        assert_eq!(
            path_to_repeat("/run/secrets/token_key"),
            "/run/secrets/token_key"
        );
        assert_eq!(path_to_repeat("../a/5b703192"), "../a/…");
    }

    #[test]
    fn what_was_meant() {
        let known = ["search", "read-pages", "read-files", "whoami", "all"];
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, known), expected, "{word}");
        };
        check("serach", Some("search"));
        check("read_pages", Some("read-pages"));
        check("readpages", Some("read-pages"));
        check("READ-FILES", Some("read-files"));
        check("whoam", Some("whoami"));
        check("al", Some("all"));
        check("frobnicate", None);
        check("", None);
        assert_eq!(
            cure("x-y-z", ["a-site", "b-site"], "sites"),
            "known sites are a-site, b-site"
        );
        assert_eq!(cure("x", [], "callers"), "there are no callers yet");
        let many: Vec<String> = (0..50).map(|number| format!("caller-{number}")).collect();
        let said = cure("zzz", many.iter().map(String::as_str), "callers");
        assert!(said.ends_with("caller-39, and 10 more"), "{said}");
    }
}
