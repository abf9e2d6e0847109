//! `api_key`: digests of keys, and when they are to be replaced.

use crate::config::compile::dates::{Date, today};
use crate::config::reference::References;
use crate::config::tree::At;
use crate::policy::caller::KeyDigest;

/// `{ sha256: … }` with one digest or several, or a list of such maps.
pub(super) fn compile(at: At<'_>, references: &References<'_>) -> Option<Vec<KeyDigest>> {
    if !at.is_list() {
        return keys(at, references);
    }
    all(at, |at| keys(at, references)).map(|keys| keys.concat())
}

fn keys(at: At<'_>, references: &References<'_>) -> Option<Vec<KeyDigest>> {
    let fields = at.fields(&["sha256", "rotate_by"])?;
    if let Some(date) = fields.optional("rotate_by", rotate_by)
        && let Some(warning) = date.warning(today())
    {
        fields.warning_at("rotate_by", warning);
    }
    fields.required(
        "sha256",
        "run countersign key new NAME and paste the digest it prints",
        |at| match at.is_list() {
            true => all(at, |at| digest(at, references)),
            false => digest(at, references).map(|digest| vec![digest]),
        },
    )
}

/// What `read` makes of the elements of a list, if all can be read.
fn all<T>(at: At<'_>, read: impl Fn(At<'_>) -> Option<T>) -> Option<Vec<T>> {
    let list = at.list()?;
    let mut found = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        let place = format!("{}[{index}]", at.place());
        found.extend(read(at.child(node, &place)));
    }
    (found.len() == list.len()).then_some(found)
}

fn digest(at: At<'_>, references: &References<'_>) -> Option<KeyDigest> {
    // Where references are not looked up, two of one name still hold the same digest.
    let stand_in = KeyDigest::of(at.text()?.as_bytes()).to_hex();
    let digest = KeyDigest::from_hex(&references.plain(&at, &stand_in)?);
    if digest.is_none() {
        at.problem("a digest is 64 hexadecimal digits in quotes; run countersign key new NAME, and never write the key itself here");
    }
    digest
}

fn rotate_by(at: At<'_>) -> Option<Date> {
    let date = Date::parse(at.text()?);
    if date.is_none() {
        at.problem("a date is a year, a month and a day, such as 2027-01-31");
    }
    date
}
