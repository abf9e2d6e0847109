//! `basic`: a user name, and the hashes of its passwords.

use crate::config::reference::References;
use crate::config::tree::At;
use crate::policy::caller::basic::{Basic, PasswordHash};

/// What stands for a hash that is elsewhere.
const STAND_IN: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RhbmQtaW4gb2Ygc2FsdA$c3RhbmQtaW4gb2YgYSBoYXNoLCAzMiBieXRlcywgeWVz";

/// `{ user: …, password: … }`; the user is called as the caller where none is named.
pub(super) fn compile(at: At<'_>, caller: &str, references: &References<'_>) -> Option<Basic> {
    let fields = at.fields(&["user", "password"])?;
    let user_name = match fields.has("user") {
        true => fields.optional("user", |at| user_name(&at, references)),
        false => Some(caller.into()),
    };
    let mut listed = 0;
    if !fields.has("password") {
        fields.problem("password is missing; run countersign key new --basic NAME and paste the hash it prints");
    }
    let passwords = fields.one_or_each("password", |at| {
        listed += 1;
        let hash = PasswordHash::parse(&references.plain(&at, STAND_IN)?);
        hash.map_err(|fault| at.problem(fault)).ok()
    });
    let is_whole = listed > 0 && passwords.len() == listed;
    is_whole.then_some(())?;
    Some(Basic {
        user_name: user_name?,
        passwords: passwords.into(),
    })
}

/// A user name that can stand before a colon (RFC 7617 section 2).
fn user_name(at: &At<'_>, references: &References<'_>) -> Option<Box<str>> {
    let name = references.plain(at, at.text()?)?;
    if name.len() > 255 || name.chars().any(|c| c == ':' || c.is_control()) {
        at.problem("a user name has at most 255 bytes, no colon and no control characters");
        return None;
    }
    Some(name.into())
}
