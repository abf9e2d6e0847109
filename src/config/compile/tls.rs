//! TLS of a listener: certificates with their keys, and whose certificates callers may present.

use std::time::SystemTime;

use crate::config::reference::References;
use crate::config::tls::{Half, Identity, Pair, ReadPair, Tls, authorities};
use crate::config::tree::At;
use crate::policy::peer::Asks;

pub(super) fn compile(at: At<'_>, references: &References<'_>) -> Option<Tls> {
    let fields = at.fields(&["certificates", "client_ca", "client_certificate"])?;
    if !fields.has("certificates") {
        fields.problem("certificates is missing; list at least one, such as - { chain: file:gateway.pem, key: file:gateway.key }");
    }
    let mut is_whole = true;
    let pairs = fields.each("certificates", |at| {
        let pair = pair(at, references);
        is_whole &= pair.is_some();
        pair
    });
    let client_ca = fields.optional("client_ca", |at| {
        let (file, bytes) = references.file(at, false)?;
        let read = match bytes {
            Some(bytes) => {
                let found = authorities(&bytes).map_err(|fault| at.problem(fault));
                Some((found.ok()?, Ok(bytes)))
            }
            None => None,
        };
        Some((file, read))
    });
    is_whole &= client_ca.is_some() == fields.has("client_ca");
    let asks = fields.optional("client_certificate", asks);
    let asks = asks.unwrap_or(match fields.has("client_ca") {
        true => Asks::Optionally,
        false => Asks::Never,
    });
    is_whole.then(|| Tls::new(pairs, client_ca, asks))
}

/// A certificate and its key: their files, and what is in them where files are looked up.
fn pair(at: At<'_>, references: &References<'_>) -> Option<(Pair, Option<ReadPair>)> {
    let fields = at.fields(&["chain", "key"])?;
    let cure = "write file:PATH";
    let chain = fields.required("chain", cure, |at| references.file(at, false));
    let key = fields.required("key", cure, |at| references.file(at, true));
    let ((chain_file, chain), (key_file, key)) = (chain?, key?);
    let pair = Pair {
        chain: chain_file,
        key: key_file,
    };
    let (Some(chain), Some(key)) = (chain, key) else {
        return Some((pair, None));
    };
    match Identity::read(&chain, &key) {
        Ok(identity) => {
            for odd in identity.oddities(SystemTime::now()) {
                let text = format!("the certificate in {} {odd}", pair.chain.named);
                fields.warning_at("chain", text);
            }
            let bytes = [Ok(chain), Ok(key)];
            Some((pair, Some(ReadPair { identity, bytes })))
        }
        Err(fault) => {
            let (place, file) = match fault.half {
                Half::Chain => ("chain", &pair.chain),
                Half::Key => ("key", &pair.key),
            };
            fields.problem_at(place, format!("{} {}", file.named, fault.text));
            None
        }
    }
}

fn asks(at: At<'_>) -> Option<Asks> {
    match at.text()? {
        "optional" => Some(Asks::Optionally),
        "required" => Some(Asks::Always),
        _ => {
            at.problem(
                "write optional or required; leave it out where callers present no certificate",
            );
            None
        }
    }
}
