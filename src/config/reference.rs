//! `env:NAME` and `file:PATH`: secrets stand outside the file, and this is where they are fetched.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::file::Opened;
use super::inputs::{Inputs, Noted};
use super::tree::At;
use super::words::{is_secret, may_be_repeated, path_to_repeat};
use crate::signing::Secret;

/// Largest file in bytes that a secret is read from.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Largest file in bytes of what is no secret: a whole bundle of authorities fits.
const PUBLIC_BYTES_MAX: usize = 1024 * 1024;

/// Where references are looked up.
pub struct Sources<'a> {
    /// The environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The folder relative paths start from: that of proxy.yaml.
    pub folder: PathBuf,
}

/// What references of one file lead to.
pub struct References<'a> {
    sources: &'a Sources<'a>,
    follows: bool,
    noted: Noted,
}

/// A reference as the file writes it.
#[derive(Clone, Copy)]
enum Reference<'a> {
    Variable(&'a str),
    File(&'a str),
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let variable = text.strip_prefix("env:").map(Self::Variable);
        variable.or_else(|| text.strip_prefix("file:").map(Self::File))
    }

    /// What is wrong with its form.
    fn check(self) -> Result<(), String> {
        let (prefix, name, is_good, cure) = match self {
            Self::Variable(name) => (
                "env:",
                name,
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                "is followed by the name of a variable in letters, digits and _",
            ),
            Self::File(path) => (
                "file:",
                path,
                !path.contains(char::is_control),
                "is followed by the path of a file",
            ),
        };
        if name.trim().is_empty() || !is_good {
            return Err(format!("{prefix} {cure}"));
        }
        Ok(())
    }

    /// What is wrong where the secret itself stands in place of the name of what holds it.
    fn check_name(self) -> Result<(), String> {
        let (prefix, name) = match self {
            Self::Variable(name) => ("env:", name),
            Self::File(path) => ("file:", path.rsplit('/').next().unwrap_or(path)),
        };
        if is_secret(name) {
            return Err(format!(
                "what stands after {prefix} looks like a secret; write the name of the variable or file that holds it, and replace the secret, which has been in a file"
            ));
        }
        Ok(())
    }

    /// What it names, for a sentence; a name that may be a secret in the wrong place is left out.
    fn named(self, folder: &Path) -> String {
        match self {
            Self::Variable(name) if may_be_repeated(name) => {
                format!("the environment variable {name}")
            }
            Self::Variable(_) => "the environment variable that is named here".to_owned(),
            Self::File(path) => {
                let path = folder.join(path_to_repeat(path));
                format!("the file {}", path.display())
            }
        }
    }
}

impl<'a> References<'a> {
    /// References to `sources`.
    pub fn to(sources: &'a Sources<'a>) -> Self {
        Self {
            sources,
            follows: true,
            noted: Noted::default(),
        }
    }

    /// References that are judged by their form alone, where what they lead to is elsewhere.
    pub fn by_form(sources: &'a Sources<'a>) -> Self {
        Self {
            sources,
            follows: false,
            noted: Noted::default(),
        }
    }

    /// Notes the text that the references stand in.
    pub(super) fn note_text(&self, file: &str, text: &str) {
        self.noted.text(file, text.as_bytes());
    }

    /// All that was read. Not the certificates of listeners: those are looked at and taken by themselves.
    pub(super) fn into_inputs(self) -> Inputs {
        self.noted.into_inputs()
    }

    /// Whether they are looked up.
    pub fn follow(&self) -> bool {
        self.follows
    }

    /// Fetches the secret that the reference at `at` names; a stand-in where it is not looked up.
    ///
    /// `is_published` permits a file that others can read: everybody has what stands in it.
    pub fn secret(&self, at: At<'_>, is_published: bool) -> Option<Secret> {
        // Digits alone are a number for YAML.
        let text = if at.is_number() { "" } else { at.text()? };
        let Some(reference) = Reference::parse(text) else {
            at.problem("a secret is never written here; write env:NAME or file:PATH");
            return None;
        };
        let secret = self.fetch(reference, !is_published).and_then(|found| {
            let bare = match &found {
                Some(found) => {
                    bare(found).map_err(|fault| format!("{} {fault}", self.named(reference)))?
                }
                None => "stand-in",
            };
            Ok(Secret::new(bare.to_owned()))
        });
        noted(secret, &at, text)
    }

    /// The text at `at`, or what it refers to: for what is no secret, but differs from one
    /// deployment of the same file to the next. `stand_in` is taken where it is not looked up.
    pub fn plain(&self, at: &At<'_>, stand_in: &str) -> Option<String> {
        let text = at.text()?;
        let Some(reference) = Reference::parse(text) else {
            return Some(text.to_owned());
        };
        let plain = self.fetch(reference, false).and_then(|found| match found {
            Some(found) if found.trim().is_empty() => {
                Err(format!("{} is empty", self.named(reference)))
            }
            Some(found) => Ok(found.trim().to_owned()),
            None => Ok(stand_in.to_owned()),
        });
        noted(plain, at, text)
    }

    /// Reads the file that the reference at `at` names, of something that is no secret; nothing
    /// where it is not looked up.
    pub fn public_file(&self, at: At<'_>) -> Option<Zeroizing<Vec<u8>>> {
        self.file_at(at, false, true)?.1
    }

    /// The path of the file that the reference at `at` names, from where the program runs.
    pub fn path(&self, at: &At<'_>) -> Option<PathBuf> {
        match Reference::parse(at.text()?)? {
            Reference::File(path) => Some(self.sources.folder.join(path)),
            Reference::Variable(_) => None,
        }
    }

    /// The text that a reference leads to; nothing where it is not looked up.
    fn fetch(
        &self,
        reference: Reference<'_>,
        is_private: bool,
    ) -> Result<Option<Zeroizing<String>>, String> {
        reference.check()?;
        if !self.follows {
            return reference.check_name().map(|()| None);
        }
        match reference {
            Reference::Variable(name) => match (self.sources.environment)(name) {
                Some(text) => {
                    let text = Zeroizing::new(text);
                    self.noted.text(name, text.as_bytes());
                    Ok(Some(text))
                }
                None => {
                    reference.check_name()?;
                    Err(format!(
                        "{} is not set, or is not UTF-8",
                        self.named(reference)
                    ))
                }
            },
            Reference::File(path) => {
                self.noted.file(&self.sources.folder.join(path));
                let bytes = self.read(path, SECRET_BYTES_MAX, is_private)?;
                self.noted.text(path, &bytes);
                let text = decode(&bytes);
                text.map(Some)
                    .map_err(|fault| format!("{} {fault}", self.named(reference)))
            }
        }
    }

    fn named(&self, reference: Reference<'_>) -> String {
        reference.named(&self.sources.folder)
    }

    fn read(
        &self,
        path: &str,
        bytes_max: usize,
        is_private: bool,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let file = self.readable(path, bytes_max, is_private);
        file.read().or_else(|fault| {
            if !file.path.exists() {
                Reference::File(path).check_name()?;
            }
            Err(fault)
        })
    }

    fn readable(&self, path: &str, bytes_max: usize, is_private: bool) -> ReadableFile {
        ReadableFile {
            path: self.sources.folder.join(path),
            named: self.named(Reference::File(path)),
            bytes_max,
            is_private,
        }
    }

    /// The file that the reference at `at` names, which is read again later, and what is in it now;
    /// nothing is where it is not looked up. `is_private` forbids that others can read it.
    pub(super) fn file(
        &self,
        at: At<'_>,
        is_private: bool,
    ) -> Option<(ReadableFile, Option<Zeroizing<Vec<u8>>>)> {
        self.file_at(at, is_private, false)
    }

    fn file_at(
        &self,
        at: At<'_>,
        is_private: bool,
        is_noted: bool,
    ) -> Option<(ReadableFile, Option<Zeroizing<Vec<u8>>>)> {
        let text = at.text()?;
        let Some(reference @ Reference::File(path)) = Reference::parse(text) else {
            at.problem("this is read from a file; write file:PATH");
            return None;
        };
        let file = self.readable(path, PUBLIC_BYTES_MAX, is_private);
        if is_noted {
            self.noted.file(&file.path);
        }
        let bytes = reference.check().and_then(|()| match self.follows {
            true => self.read(path, PUBLIC_BYTES_MAX, is_private).map(Some),
            false => reference.check_name().map(|()| None),
        });
        if is_noted && let Ok(Some(bytes)) = &bytes {
            self.noted.text(path, bytes);
        }
        Some((file, noted(bytes, &at, text)?))
    }
}

/// A file that proxy.yaml names.
#[derive(Clone, Debug)]
pub(super) struct ReadableFile {
    path: PathBuf,
    /// As sentences name it.
    pub(super) named: String,
    bytes_max: usize,
    is_private: bool,
}

impl ReadableFile {
    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be read, or must not be used, in a sentence that names it.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let said = |fault: &str| format!("{} {fault}", self.named);
        let opened = Opened::open(&self.path).map_err(|fault| said(&fault))?;
        if self.is_private
            && let Some(exposure) = opened.exposure(&self.path)
        {
            return Err(said(exposure));
        }
        opened.read(self.bytes_max).map_err(|fault| said(&fault))
    }
}

fn noted<T>(found: Result<T, String>, at: &At<'_>, reference: &str) -> Option<T> {
    found
        .map_err(|fault| at.reference_problem(reference, fault))
        .ok()
}

/// A secret without the line break after it, if it is nothing but visible characters.
fn bare(text: &str) -> Result<&str, &'static str> {
    let bare = match text.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    };
    if bare.is_empty() {
        return Err("is empty");
    }
    if bare.starts_with('\u{feff}') {
        return Err(BYTE_ORDER_MARK);
    }
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    if bare.contains(is_odd) {
        return Err(
            "holds spaces, line breaks or characters that nobody sees; it must hold the bare value, with at most one line break after it",
        );
    }
    Ok(bare)
}

/// Characters without a glyph that come along when text is copied: soft hyphens, joiners, marks of
/// direction, byte order marks.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

fn decode(bytes: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is UTF-16 text, as PowerShell writes it; save it as UTF-8 without BOM");
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(BYTE_ORDER_MARK);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    Ok(Zeroizing::new(text.to_owned()))
}

const BYTE_ORDER_MARK: &str = "begins with a byte order mark, which would become part of the value; save it as UTF-8 without BOM";
