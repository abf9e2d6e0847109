//! Certificates for a test, made on the spot.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::super::Served;
use crate::policy::peer::HostNames;
use crate::policy::x509::Contents;

pub(super) type Der = CertificateDer<'static>;

/// A certificate, its issuers, and its key.
pub(super) struct Made {
    pub(super) chain: Vec<Der>,
    pub(super) key: KeyPair,
}

impl Made {
    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    pub(super) fn served(&self) -> Served {
        let key = ring::sign::any_supported_type(&self.private_key()).unwrap();
        let contents = Contents::read(&self.chain[0]).unwrap();
        Served {
            key: Arc::new(CertifiedKey::new(self.chain.clone(), key)),
            hosts: HostNames::new(&contents.dns_names, contents.addresses),
        }
    }

    pub(super) fn spki_sha256(&self) -> [u8; 32] {
        Contents::read(&self.chain[0]).unwrap().spki_sha256
    }
}

/// Who issues certificates.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: Der,
}

fn asked_for_authority(name: &str) -> CertificateParams {
    let mut asked = CertificateParams::default();
    asked.distinguished_name.push(DnType::CommonName, name);
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    asked
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let (asked, key) = (asked_for_authority(name), KeyPair::generate().unwrap());
        let certificate = asked.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(asked, key),
            certificate,
        }
    }

    /// An authority below this one.
    pub(super) fn below(&self, name: &str) -> Self {
        let (asked, key) = (asked_for_authority(name), KeyPair::generate().unwrap());
        let certificate = asked.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self {
            issuer: Issuer::new(asked, key),
            certificate,
        }
    }

    pub(super) fn issue(&self, names: &[&str], ask: impl FnOnce(&mut CertificateParams)) -> Made {
        let key = KeyPair::generate().unwrap();
        let asked = asked(names, ask);
        let chain = vec![asked.signed_by(&key, &self.issuer).unwrap().der().clone()];
        Made { chain, key }
    }
}

pub(super) fn asked(names: &[&str], ask: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut asked = CertificateParams::new(names).unwrap();
    asked
        .distinguished_name
        .push(DnType::CommonName, "cn.example");
    ask(&mut asked);
    asked
}

pub(super) fn self_signed(names: &[&str], ask: impl FnOnce(&mut CertificateParams)) -> Made {
    let key = KeyPair::generate().unwrap();
    let chain = vec![asked(names, ask).self_signed(&key).unwrap().der().clone()];
    Made { chain, key }
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A subject alternative name with these bytes for a DNS name, which rcgen would not write, beside one
/// that is in order.
pub(super) fn odd_names(bytes: &[u8]) -> rcgen::CustomExtension {
    let name = |bytes: &[u8]| [&[0x82, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let names = [name(bytes), name(b"good.example")].concat();
    let mut content = vec![0x30, u8::try_from(names.len()).unwrap()];
    content.extend(names);
    rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}
