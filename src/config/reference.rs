//! `env:NAME` and `file:PATH`: secrets stand outside the file, and this is where they are fetched.

use std::path::{Path, PathBuf};

use super::tree::At;
use crate::signing::Secret;

/// Largest secret file in bytes that is read.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where references are looked up.
pub struct Sources<'a> {
    /// The environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The folder relative paths start from: that of proxy.yaml.
    pub folder: PathBuf,
}

impl Sources<'_> {
    /// Fetches the secret that the reference at `at` names.
    ///
    /// `development` permits a file that others can read: what opens a site on this machine's own
    /// loopback opens nothing else.
    pub fn secret(&self, at: At<'_>, development: bool) -> Option<Secret> {
        let reference = at.text()?;
        let found = if let Some(name) = reference.strip_prefix("env:") {
            self.environment(name)
        } else if let Some(path) = reference.strip_prefix("file:") {
            let path = self.folder.join(path);
            check_mode(&path, development).and_then(|()| read_file(&path))
        } else {
            Err("a secret is never written here; write env:NAME or file:PATH".to_owned())
        };
        let cleaned = found.and_then(clean);
        cleaned.map_err(|fault| at.problem(fault)).ok()
    }

    /// The text at `at`, or what it refers to: for what is no secret, but differs from one
    /// deployment of the same file to the next.
    pub fn plain(&self, at: &At<'_>) -> Option<String> {
        let text = at.text()?;
        let found = if let Some(name) = text.strip_prefix("env:") {
            self.environment(name)
        } else if let Some(path) = text.strip_prefix("file:") {
            read_file(&self.folder.join(path))
        } else {
            return Some(text.to_owned());
        };
        found
            .map(|text| text.trim().to_owned())
            .and_then(|text| {
                if text.is_empty() {
                    return Err("what this refers to is empty".to_owned());
                }
                Ok(text)
            })
            .map_err(|fault| at.problem(fault))
            .ok()
    }

    /// Reads the file that the reference at `at` names, of something that is no secret.
    pub fn public_file(&self, at: At<'_>) -> Option<Vec<u8>> {
        let Some(path) = at.text()?.strip_prefix("file:") else {
            at.problem("this is read from a file; write file:PATH");
            return None;
        };
        let read = read_file(&self.folder.join(path));
        read.map(String::into_bytes)
            .map_err(|fault| at.problem(fault))
            .ok()
    }

    fn environment(&self, name: &str) -> Result<String, String> {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // A secret that was written here instead of the name of one is not repeated.
        let looks_random = name.len() >= 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !plain || looks_random {
            return Err(
                "env: is followed by the name of a variable in letters, digits and _".to_owned(),
            );
        }
        (self.environment)(name)
            .ok_or_else(|| format!("the environment variable {name} is not set, or is not UTF-8"))
    }
}

fn clean(text: String) -> Result<Secret, String> {
    let mut text = zeroize::Zeroizing::new(text);
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err("what this refers to is empty".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("what this refers to holds blanks, line breaks or control characters; it must be the bare value with at most one line break behind it".to_owned());
    }
    Ok(Secret::new(std::mem::take(&mut *text)))
}

fn read_file(path: &Path) -> Result<String, String> {
    let unreadable = |error: &std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "this user may not read it; change its owner or mode".to_owned()
            }
            std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            kind => kind.to_string(),
        };
        format!("the file {} cannot be read: {why}", path.display())
    };
    let facts = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !facts.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if facts.len() > SECRET_BYTES_MAX {
        return Err(format!(
            "the file {} is larger than 64 KiB; is it the right one?",
            path.display()
        ));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(&error))
}

/// A secret that every user of the machine can read is none, except where a container runtime
/// mounts it: there the mode says nothing, since the container's users are its own.
fn check_mode(path: &Path, development: bool) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(facts) = std::fs::metadata(path) else {
        // Reading it will say why.
        return Ok(());
    };
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounted = ["/run/secrets", "/var/run/secrets"].iter().any(|root| real.starts_with(root))
        // Kubernetes projects secrets through a folder named ..DATE.
        || real.components().any(|part| part.as_os_str().to_string_lossy().starts_with("..2"));
    if facts.permissions().mode() & 0o007 == 0 || mounted || development {
        return Ok(());
    }
    Err(format!(
        "the file {} can be read by every user of this machine; run chmod o= on it, or mount it below /run/secrets",
        path.display()
    ))
}
