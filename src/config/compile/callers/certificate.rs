//! `client_certificate`: which certificate a caller must present.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::problem::Findings;
use crate::config::reference::References;
use crate::config::tree::{At, Fields};
use crate::policy::caller::KeyDigest;
use crate::policy::caller::certificate::CertificateRule;
use crate::policy::host::Host;

/// Exactly one of `{ dns_name: … }`, `{ uri: … }` and `{ spki_sha256: … }`.
pub(super) fn compile(at: At<'_>, references: &References<'_>) -> Option<CertificateRule> {
    let known = ["dns_name", "uri", "spki_sha256"];
    let fields = at.fields(&known)?;
    if known.iter().filter(|key| fields.has(key)).count() != 1 {
        fields.problem("write exactly one of dns_name, uri and spki_sha256: what identifies the caller's certificate");
        return None;
    }
    let dns_name = fields.optional("dns_name", |at| dns_name(&at, references));
    let uri = fields.optional("uri", |at| uri(&at, references));
    let spki = fields.optional("spki_sha256", |at| spki(&at, references));
    dns_name.or(uri).or(spki)
}

fn dns_name(at: &At<'_>, references: &References<'_>) -> Option<CertificateRule> {
    let host = Host::parse(&references.plain(at, &stand_in(at, ".invalid")?)?);
    let host = host.filter(|host| !host.is_address());
    if host.is_none() {
        at.problem("a dns_name is one whole host name as it stands in the certificate, such as desk.example.com: no wildcard, no address, no port");
    }
    Some(CertificateRule::DnsName(host?.as_str().into()))
}

fn uri(at: &At<'_>, references: &References<'_>) -> Option<CertificateRule> {
    let uri = references.plain(at, &stand_in(at, ":x")?)?;
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let is_uri = uri.split_once(':').is_some_and(|(scheme, rest)| {
        is_scheme(scheme) && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic())
    });
    if !is_uri {
        at.problem("a uri is one whole URI as it stands in the certificate, such as spiffe://example.com/desk");
    }
    is_uri.then(|| CertificateRule::Uri(uri.into()))
}

fn spki(at: &At<'_>, references: &References<'_>) -> Option<CertificateRule> {
    let text = references.plain(at, &stand_in(at, "")?)?;
    let mut digest = [0; 32];
    let is_hexadecimal = text.len() == 64
        && base16ct::mixed::decode(&text, &mut digest).is_ok_and(|bytes| bytes.len() == 32);
    let decoded = match is_hexadecimal {
        true => Some(digest),
        false => STANDARD
            .decode(&text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok()),
    };
    if decoded.is_none() {
        at.problem("a spki_sha256 is the SHA-256 digest of the certificate's public key: 64 hexadecimal digits, or base64; openssl x509 -in caller.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum prints it");
    }
    decoded.map(CertificateRule::Spki)
}

/// What stands for the value where references are not looked up: the same for the same reference.
fn stand_in(at: &At<'_>, end: &str) -> Option<String> {
    let digest = KeyDigest::of(at.text()?.as_bytes()).to_hex();
    // A label of a host name has at most 63 characters.
    let start = if end.is_empty() { 0 } else { 32 };
    Some(format!("{}{end}", &digest[start..]))
}

/// Whether a listener asks callers for certificates.
pub(super) fn are_asked_for(file: &Fields<'_>) -> bool {
    // What is wrong with listeners is told where they are compiled.
    let quiet = Findings::default();
    let file = file.noting_in(&quiet);
    let asks = file.each("listeners", |at| {
        let listener = at.map()?;
        let (_, tls) = listener.iter().find(|(key, _)| *key == "tls")?;
        let keys = at.child(tls, at.place()).map()?;
        Some(keys.iter().any(|(key, _)| key.starts_with("client_")))
    });
    asks.contains(&true)
}
