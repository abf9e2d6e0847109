//! Certificates for the occasion: of an authority, for hosts and for callers.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// Who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate, and those of its issuers if there are any, in PEM.
    pub chain: String,
    /// The key, in PEM.
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (asked, key) = Self::asked(name);
        Self {
            certificate: asked.self_signed(&key).unwrap(),
            issuer: Issuer::new(asked, key),
        }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let (asked, key) = Self::asked(name);
        Self {
            certificate: asked.signed_by(&key, &self.issuer).unwrap(),
            issuer: Issuer::new(asked, key),
        }
    }

    fn asked(name: &str) -> (CertificateParams, KeyPair) {
        let mut asked = CertificateParams::default();
        asked.distinguished_name.push(DnType::CommonName, name);
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (asked, KeyPair::generate().unwrap())
    }

    /// Issues a certificate for these DNS names and addresses, with what else is asked of it.
    pub fn issue(&self, names: &[&str], ask: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut asked = CertificateParams::new(names).unwrap();
        ask(&mut asked);
        let key = KeyPair::generate().unwrap();
        let made = asked.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: made.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// What a caller speaks TLS with that trusts this authority alone and has no certificate.
    pub fn caller(&self) -> Arc<ClientConfig> {
        Arc::new(self.trusted().with_no_client_auth())
    }

    /// The same with a certificate.
    pub fn caller_with(&self, own: &Issued) -> Arc<ClientConfig> {
        let chain = CertificateDer::pem_slice_iter(own.chain.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        Arc::new(self.trusted().with_client_auth_cert(chain, key).unwrap())
    }

    fn trusted(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

impl Issued {
    /// Writes NAME.pem and NAME.key, the key for nobody else.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.chain).unwrap();
        write_private(&folder.join(format!("{name}.key")), &self.key);
    }
}

/// Writes a file that nobody else can read.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
