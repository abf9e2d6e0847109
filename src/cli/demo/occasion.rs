//! What the demo's callers present, made for the occasion: keys and certificates that nobody else has, so
//! that what was copied from the demo lets nobody in elsewhere.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::calls::{Call, With};
use crate::cli::key::random;
use crate::client::Trust;
use crate::policy::caller::basic::PasswordHash;
use countersign_emulator::{BROWSER_KEY, Provider, TOKEN_KEY, TOKEN_SECRET, zendesk_headers};

/// All of it.
pub(super) struct Occasion {
    provider: Provider,
    webhook_secret: Zeroizing<String>,
    password: Zeroizing<String>,
    password_hash: PasswordHash,
    /// The files that the configuration names.
    files: [(&'static str, String); 3],
    /// TLS of a caller without a certificate.
    bare: Trust,
    /// Of one with a certificate that an authority of the gateway's vouches for.
    vouched_for: Trust,
    /// Of one with the same name in a certificate that nobody vouches for.
    stranger: Trust,
}

/// What goes with a call.
pub(super) struct Presented<'a> {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) trust: &'a Trust,
}

impl Occasion {
    /// Makes it.
    pub(super) fn new(provider: Provider) -> std::io::Result<Self> {
        let (Some(salt), Some(password), Some(secret)) = (random::<16>(), text(), text()) else {
            return Err(std::io::Error::other("nothing can be made without them"));
        };
        let password_hash = PasswordHash::of(password.as_bytes(), &salt)
            .ok_or_else(|| std::io::Error::other("a password cannot be hashed here"))?;
        let gateways = authority("the gateway's authority")?;
        let callers = authority("the callers' authority")?;
        let nobody = authority("nobody's authority")?;
        let trusted = [gateways.as_ref().der().to_vec()];
        let (chain, key) = issued(&gateways, "127.0.0.1")?;
        let presenting = |authority| {
            let (certificate, key) = issued(authority, CALLER_NAME)?;
            let key = PrivateKeyDer::from(key);
            let trust = Trust::presenting(&trusted, vec![certificate.der().clone()], key);
            trust.map_err(std::io::Error::other)
        };
        Ok(Self {
            provider,
            webhook_secret: secret,
            password,
            password_hash,
            files: [
                ("gateway.pem", chain.pem()),
                ("gateway.key", key.serialize_pem()),
                ("callers-ca.pem", callers.as_ref().pem()),
            ],
            bare: Trust::in_these(&trusted),
            vouched_for: presenting(&callers)?,
            stranger: presenting(&nobody)?,
        })
    }

    /// What the configuration finds in its environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        Some(match name {
            "TOKEN_KEY" => TOKEN_KEY.to_owned(),
            "TOKEN_SECRET" => TOKEN_SECRET.to_owned(),
            "BROWSER_KEY" => BROWSER_KEY.to_owned(),
            "ZENDESK_SIGNING_SECRET" => self.webhook_secret.to_string(),
            "DESK_PASSWORD_HASH" => self.password_hash.as_str().to_owned(),
            _ => return None,
        })
    }

    /// A folder with the files that the configuration names, which is gone when it is dropped.
    pub(super) fn folder(&self) -> std::io::Result<TempDir> {
        let folder = tempfile::tempdir().or_else(|_| tempfile::tempdir_in(IN_MEMORY));
        let folder = folder.map_err(|error| {
            std::io::Error::other(format!(
                "certificates cannot be written down ({}); name a folder in TMPDIR",
                error.kind()
            ))
        })?;
        for (name, text) in &self.files {
            write(&folder.path().join(name), text)?;
        }
        Ok(folder)
    }

    /// What goes with a call, beside its own headers.
    pub(super) fn presented(&self, call: &Call) -> Result<Presented<'_>, String> {
        let mut headers = Vec::new();
        let mut trust = &self.bare;
        match call.with {
            With::Headers | With::Tls | With::NoTls => {}
            With::Token(claims) => {
                let token = self.provider.token(claims)?;
                headers.push(("Authorization", format!("Bearer {token}")));
            }
            With::Certificate => trust = &self.vouched_for,
            With::StrangersCertificate => trust = &self.stranger,
            With::SignatureOf(body) => {
                headers.extend(zendesk_headers(&self.webhook_secret, body));
            }
            With::Password => {
                let pair = Zeroizing::new(format!("desk:{}", *self.password));
                let pair = STANDARD.encode(pair.as_bytes());
                headers.push(("Authorization", format!("Basic {pair}")));
            }
        }
        Ok(Presented { headers, trust })
    }
}

/// A name in the certificates of callers.
const CALLER_NAME: &str = "acme.service-now.example";

/// Where files are kept in memory: containers have it that can write nowhere else.
const IN_MEMORY: &str = "/dev/shm";

/// 256 random bits as text.
fn text() -> Option<Zeroizing<String>> {
    let random = random::<32>()?;
    Some(Zeroizing::new(URL_SAFE_NO_PAD.encode(*random)))
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> std::io::Result<Authority> {
    let mut asked = CertificateParams::default();
    asked.distinguished_name.push(DnType::CommonName, name);
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(asked, key));
    made.map_err(std::io::Error::other)
}

/// A certificate for a host or an address. Its time ends in 4096, rcgen's default.
fn issued(by: &Authority, name: &str) -> std::io::Result<(rcgen::Certificate, KeyPair)> {
    let made = CertificateParams::new([name.to_owned()]).and_then(|asked| {
        let key = KeyPair::generate()?;
        Ok((asked.signed_by(&key, by)?, key))
    });
    made.map_err(std::io::Error::other)
}

/// Writes a file for nobody else's eyes.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
