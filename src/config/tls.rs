//! What a listener proves itself with, and who vouches for its callers: read at the start, and again
//! when the files change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use super::reference::ReadableFile;
use crate::policy::peer::{Asks, HostNames};
use crate::policy::x509::Contents;

/// TLS of a listener, as its files were when they were read.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<Files>,
    digest: [u8; 32],
    /// Its certificates, in the order of the file.
    pub identities: Vec<Identity>,
    /// Authorities that vouch for certificates of callers.
    pub client_ca: Authorities,
    /// Whether callers are asked for a certificate.
    pub asks: Asks,
}

/// A certificate of ours, and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain, and what signs for it.
    pub key: Arc<CertifiedKey>,
    /// The hosts it is for.
    pub hosts: HostNames,
    not_before: SystemTime,
    /// When its time is over.
    pub not_after: SystemTime,
}

/// The files of one certificate.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) chain: ReadableFile,
    pub(super) key: ReadableFile,
}

/// What is in them.
pub(super) struct ReadPair {
    pub(super) identity: Identity,
    /// Of the chain, and of the key.
    pub(super) bytes: [Bytes; 2],
}

#[derive(Debug)]
struct Files {
    pairs: Vec<Pair>,
    client_ca: Option<ReadableFile>,
    asks: Asks,
}

/// What the files of a listener hold at a moment, keys included.
pub struct Look {
    files: Arc<Files>,
    /// Of each certificate: the chain, and the key.
    pairs: Vec<[Bytes; 2]>,
    client_ca: Option<Bytes>,
}

/// What is in a file, or why it cannot be read.
pub(super) type Bytes = Result<Zeroizing<Vec<u8>>, String>;

/// The certificates of authorities.
pub type Authorities = Vec<CertificateDer<'static>>;

/// From when on an operator is told that a certificate's time will be over.
pub const DAYS_TO_WARN: u64 = 21;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Tls {
    /// TLS of what has been read: of certificates and of authorities, each with its bytes. Nothing has
    /// where files are not looked up.
    pub(super) fn new(
        pairs: Vec<(Pair, Option<ReadPair>)>,
        client_ca: Option<(ReadableFile, Option<(Authorities, Bytes)>)>,
        asks: Asks,
    ) -> Self {
        let (pairs, read): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let read = read.into_iter().flatten();
        let (identities, bytes) = read.map(|read| (read.identity, read.bytes)).unzip();
        let (client_ca, read) = client_ca.unzip();
        let (authorities, client_ca_bytes) = read.flatten().unzip();
        let look = Look {
            files: Arc::new(Files {
                pairs,
                client_ca,
                asks,
            }),
            pairs: bytes,
            client_ca: client_ca_bytes,
        };
        Self {
            digest: look.digest(),
            files: look.files,
            identities,
            client_ca: authorities.unwrap_or_default(),
            asks,
        }
    }

    /// What its files hold now.
    pub fn look(&self) -> Look {
        Look::at(&self.files)
    }

    /// The digest of what was read, as [`Look::digest`] has it.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether it is read from the same files as another one, in the same order, and asks callers for the
    /// same.
    pub fn has_files_of(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(|tls| {
            let pairs = tls.files.pairs.iter();
            let all = pairs.flat_map(|pair| [&pair.chain, &pair.key]);
            let all = all.chain(&tls.files.client_ca);
            all.map(ReadableFile::path).collect::<Vec<_>>()
        });
        let has_ca = |tls: &Self| tls.files.client_ca.is_some();
        one == two && has_ca(self) == has_ca(other) && self.asks == other.asks
    }

    /// Each certificate, with the name of its file.
    pub fn named_identities(&self) -> impl Iterator<Item = (&str, &Identity)> {
        let names = self.files.pairs.iter().map(|pair| &*pair.chain.named);
        names.zip(&self.identities)
    }
}

impl Look {
    fn at(files: &Arc<Files>) -> Self {
        let pairs = files.pairs.iter();
        Self {
            pairs: pairs
                .map(|pair| [pair.chain.read(), pair.key.read()])
                .collect(),
            client_ca: files.client_ca.as_ref().map(ReadableFile::read),
            files: Arc::clone(files),
        }
    }

    /// A digest of all that is there, and of why it cannot be read.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in self.pairs.iter().flatten().chain(&self.client_ca) {
            let bytes = match bytes {
                Ok(bytes) => &bytes[..],
                Err(fault) => fault.as_bytes(),
            };
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }

    /// What it comes to.
    ///
    /// # Errors
    /// Why it cannot be used, in a sentence that names the file.
    pub fn load(self) -> Result<Tls, String> {
        let digest = self.digest();
        let files = self.files;
        let mut identities = Vec::with_capacity(self.pairs.len());
        for (pair, [chain, key]) in files.pairs.iter().zip(self.pairs) {
            let identity = Identity::read(&chain?, &key?).map_err(|fault| {
                let file = match fault.half {
                    Half::Chain => &pair.chain,
                    Half::Key => &pair.key,
                };
                format!("{} {}", file.named, fault.text)
            });
            identities.push(identity?);
        }
        let client_ca = match (self.client_ca, &files.client_ca) {
            (Some(bytes), Some(file)) => {
                authorities(&bytes?).map_err(|fault| format!("{}: {fault}", file.named))?
            }
            _ => Vec::new(),
        };
        Ok(Tls {
            digest,
            identities,
            client_ca,
            asks: files.asks,
            files,
        })
    }
}

/// Which of two files something is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Chain,
    Key,
}

/// What is wrong with a certificate or its key, as the end of a sentence that begins with the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) half: Half,
    pub(super) text: String,
}

impl Identity {
    /// Reads a chain and its key, both in PEM.
    pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Self, Fault> {
        let of_chain = |text: &str| Fault {
            half: Half::Chain,
            text: text.to_owned(),
        };
        let certificates = certificates(chain).map_err(of_chain)?;
        let contents: Option<Vec<_>> = certificates.iter().map(|it| Contents::read(it)).collect();
        let contents = contents.ok_or_else(|| of_chain("holds a certificate that is damaged"))?;
        let signing = signing_key(key).map_err(|text| Fault {
            half: Half::Key,
            text: text.to_owned(),
        })?;
        let matches = |certificate: &CertificateDer<'static>| {
            CertifiedKey::new(vec![certificate.clone()], Arc::clone(&signing))
                .keys_match()
                .is_ok()
        };
        let is_in_order = contents
            .windows(2)
            .all(|pair| pair[0].names_as_issuer(&pair[1]));
        match certificates.iter().position(matches) {
            Some(0) if is_in_order => {}
            None => {
                return Err(Fault {
                    half: Half::Key,
                    text: "does not belong to the certificate of chain; was one of them replaced without the other?".to_owned(),
                });
            }
            _ => {
                return Err(of_chain(
                    "is out of order; the gateway's own certificate comes first, and each one after it is that of the issuer of the one before",
                ));
            }
        }
        let own = &contents[0];
        let time = |epoch: crate::signing::Epoch| UNIX_EPOCH + Duration::from_secs(epoch.as_unix());
        Ok(Self {
            hosts: HostNames::new(&own.dns_names, own.addresses.clone()),
            not_before: time(own.not_before),
            not_after: time(own.not_after),
            key: Arc::new(CertifiedKey::new(certificates, signing)),
        })
    }

    /// What an operator should know of it at a time, as ends of sentences that begin with it.
    pub(super) fn oddities(&self, now: SystemTime) -> Vec<String> {
        let mut found = Vec::new();
        if self.hosts.is_empty() {
            found.push(
                "names no host (subjectAltName); clients do not look for names elsewhere"
                    .to_owned(),
            );
        }
        if now < self.not_before {
            let date = httpdate::fmt_http_date(self.not_before);
            found.push(format!("is not valid before {date}; clients refuse it"));
        }
        found.extend(self.expiry(now));
        found
    }

    /// Whole days until its time is over; none where it is.
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        let left = self.not_after.duration_since(now).ok()?;
        Some(left.as_secs() / DAY.as_secs())
    }

    /// That its time is over, or will be soon, as the end of a sentence that begins with it.
    pub fn expiry(&self, now: SystemTime) -> Option<String> {
        let date = httpdate::fmt_http_date(self.not_after);
        match self.days_left(now) {
            None => Some(format!(
                "expired on {date}; clients refuse it until it is replaced"
            )),
            Some(days) if days < DAYS_TO_WARN => {
                let plural = if days == 1 { "" } else { "s" };
                Some(format!(
                    "expires in {days} day{plural}, on {date}; replace it before"
                ))
            }
            Some(_) => None,
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if holds(pem, "PRIVATE KEY-----") => {
            Err("holds a private key and no certificate; were chain and key exchanged?")
        }
        Ok(_) => Err("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"),
        Err(_) => Err("holds PEM that is damaged; copy it anew"),
    }
}

type SigningKey = Arc<dyn tokio_rustls::rustls::sign::SigningKey>;

fn signing_key(pem: &[u8]) -> Result<SigningKey, &'static str> {
    if holds(pem, "ENCRYPTED") {
        return Err(
            "is encrypted, and nobody is there to type its passphrase; write it anew with openssl pkey -in OLD -out NEW, readable by the gateway's user alone",
        );
    }
    let mut key = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => key,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            return Err("holds no private key in PEM (-----BEGIN PRIVATE KEY-----)");
        }
        Err(_) => return Err("holds PEM that is damaged; copy it anew"),
    };
    let signing = ring::sign::any_supported_type(&key);
    key.zeroize();
    signing.map_err(|_| {
        "holds a key of a kind that is not served; take ECDSA on P-256 or P-384, RSA of 2048 bits or more, or Ed25519"
    })
}

fn holds(pem: &[u8], words: &str) -> bool {
    memchr::memmem::find(pem, words.as_bytes()).is_some()
}

/// The certificates of authorities in a file, each of which a verifier would take.
pub(super) fn authorities(pem: &[u8]) -> Result<Authorities, &'static str> {
    let mut store = RootCertStore::empty();
    let found: Result<Authorities, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty() && found.iter().all(|it| store.add(it.clone()).is_ok()))
        .ok_or(
            "a ca file holds the certificates of authorities in PEM (-----BEGIN CERTIFICATE-----)",
        )
}
