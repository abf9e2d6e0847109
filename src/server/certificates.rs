//! Certificates of listeners while the program runs: replaced on disk, they are taken; when their time
//! runs out, the operator is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::tls::{DAYS_TO_WARN, Identity, Tls};
use crate::wire::tls::{Listener, Material, Served};

/// How often the files are looked at. What is seen to have changed is taken at the next look, if it is
/// the same still: a chain and its key are not replaced at the same moment.
const LOOK: Duration = Duration::from_secs(3);

/// Whole days before the end at which the operator is told, again and again: at 0 it is over.
const MOMENTS: [u64; 3] = [DAYS_TO_WARN, 7, 0];

/// What handshakes are made with, from what was read.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn material(tls: &Tls) -> Result<Material, String> {
    let served = tls.identities.iter().map(|identity| Served {
        key: Arc::clone(&identity.key),
        hosts: identity.hosts.clone(),
    });
    Material::new(served.collect(), &tls.client_ca, tls.asks)
        .map_err(|error| format!("TLS cannot be set up: {error}"))
}

/// Looks at a listener's files now and then; never returns.
pub(super) async fn keep_looking(listener: Arc<Listener>, tls: Tls, address: SocketAddr) {
    let mut watch = Watch::new(tls, SystemTime::now());
    loop {
        sleep(LOOK).await;
        let looked = tokio::task::spawn_blocking(move || {
            let seen = watch.look();
            (watch, seen)
        });
        // It fails only while the program ends.
        let Ok((back, seen)) = looked.await else {
            return;
        };
        watch = back;
        match seen {
            Seen::Nothing => {}
            Seen::Bad(fault) => {
                warn!(%address, reason = fault, "certificates were replaced and cannot be used; those from before stay in use");
            }
            Seen::New(material) => {
                listener.exchange(*material);
                for (file, identity) in watch.tls.named_identities() {
                    let until = httpdate::fmt_http_date(identity.not_after);
                    info!(%address, file, until, "certificate taken");
                }
            }
        }
        for told in watch.due(SystemTime::now()) {
            warn!(%address, "{told}");
        }
    }
}

/// What is known of a listener's files.
struct Watch {
    /// In use.
    tls: Tls,
    /// What was seen at the last look.
    seen: [u8; 32],
    /// What was found to be of no use.
    bad: Option<[u8; 32]>,
    /// Of each certificate, how many of [`MOMENTS`] are past.
    past: Vec<usize>,
}

/// What came of a look.
enum Seen {
    Nothing,
    Bad(String),
    New(Box<Material>),
}

impl Watch {
    fn new(tls: Tls, now: SystemTime) -> Self {
        Self {
            seen: tls.digest(),
            bad: None,
            // What is due at the start has been told as a warning of the file.
            past: moments_past(&tls, now),
            tls,
        }
    }

    fn look(&mut self) -> Seen {
        let look = self.tls.look();
        let digest = look.digest();
        let is_settled = std::mem::replace(&mut self.seen, digest) == digest;
        if digest == self.tls.digest() {
            self.bad = None;
            return Seen::Nothing;
        }
        if !is_settled || self.bad == Some(digest) {
            return Seen::Nothing;
        }
        let loaded = look.load().and_then(|tls| Ok((material(&tls)?, tls)));
        match loaded {
            Ok((material, tls)) => {
                // What is due of it is told at once.
                self.past = vec![0; tls.identities.len()];
                self.tls = tls;
                self.bad = None;
                Seen::New(Box::new(material))
            }
            Err(fault) => {
                self.bad = Some(digest);
                Seen::Bad(fault)
            }
        }
    }

    /// What the operator is to be told of certificates whose time runs out, each thing once.
    fn due(&mut self, now: SystemTime) -> Vec<String> {
        let reached = moments_past(&self.tls, now);
        let told = self.tls.named_identities().zip(&reached).zip(&self.past);
        let told = told
            .filter(|((_, reached), past)| reached > past)
            .filter_map(|(((file, identity), _), _)| {
                let expiry = identity.expiry(now)?;
                Some(format!("the certificate in {file} {expiry}"))
            })
            .collect();
        self.past = reached;
        told
    }
}

fn moments_past(tls: &Tls, now: SystemTime) -> Vec<usize> {
    let past = |identity: &Identity| match identity.days_left(now) {
        None => MOMENTS.len(),
        Some(days) => MOMENTS.iter().filter(|moment| days < **moment).count(),
    };
    tls.identities.iter().map(past).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config;
    use crate::config::reference::Sources;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Writes a certificate that lives so many days, and its key.
    fn write(folder: &Path, name: &str, days: u32) {
        let mut asked = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
        asked.not_after = (SystemTime::now() + DAY * days).into();
        let key = KeyPair::generate().unwrap();
        let made = asked.self_signed(&key).unwrap();
        put(folder, &format!("{name}.pem"), &made.pem());
        put(folder, &format!("{name}.key"), &key.serialize_pem());
    }

    fn put(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).unwrap();
    }

    fn watch(folder: &Path, names: &[&str]) -> Watch {
        let pair = |name: &&str| format!("{{ chain: file:{name}.pem, key: file:{name}.key }}");
        let pairs: Vec<_> = names.iter().map(pair).collect();
        let text = format!(
            "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}], client_ca: file:ca.pem }} }}]\n\
             sites: {{ acme: {{ url: https://acme.example, server_tokens: [{{ key: env:A, secret: env:A }}] }} }}\n\
             callers: {{ crm: {{ api_key: {{ sha256: \"{}\" }}, acts_as: \"1\" }} }}\n\
             routes: [{{ name: all, site: acme, token: server, callers: [crm], allow: [search] }}]\n",
            pairs.join(", "),
            "0123456789abcdef".repeat(4)
        );
        let sources = Sources {
            environment: &|_| Some("a".to_owned()),
            folder: folder.to_owned(),
        };
        let loaded = config::load_text("f", &text, &sources).unwrap_or_else(|it| panic!("{it}"));
        let tls = loaded.settings.listeners[0].tls.clone().unwrap();
        Watch::new(tls, SystemTime::now())
    }

    fn seen(watch: &mut Watch) -> String {
        match watch.look() {
            Seen::Nothing => String::new(),
            Seen::New(_) => "new".to_owned(),
            Seen::Bad(fault) => fault,
        }
    }

    #[test]
    fn what_changes_is_taken_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["gw", "ca", "next", "other"] {
            write(folder, name, 90);
        }
        let mut watch = watch(folder, &["gw"]);
        assert_eq!(seen(&mut watch), "");
        let replace = |from: &str, to: &str| {
            std::fs::rename(folder.join(from), folder.join(to)).unwrap();
        };
        replace("next.pem", "gw.pem");
        assert_eq!(seen(&mut watch), "", "its key may follow");
        replace("next.key", "gw.key");
        assert_eq!(seen(&mut watch), "", "and did");
        assert_eq!(seen(&mut watch), "new");
        assert_eq!(seen(&mut watch), "");

        let old = std::fs::read_to_string(folder.join("gw.pem")).unwrap();
        replace("other.pem", "gw.pem");
        assert_eq!(seen(&mut watch), "");
        let fault = seen(&mut watch);
        assert!(
            fault.contains("gw.key does not belong to the certificate"),
            "{fault}"
        );
        assert_eq!(seen(&mut watch), "", "it is told once");
        put(folder, "gw.pem", "");
        assert_eq!(seen(&mut watch), "");
        let fault = seen(&mut watch);
        assert!(fault.contains("gw.pem holds no certificate"), "{fault}");
        std::fs::remove_file(folder.join("gw.pem")).unwrap();
        assert_eq!(seen(&mut watch), "");
        let fault = seen(&mut watch);
        assert!(fault.contains("gw.pem cannot be read"), "{fault}");
        put(folder, "gw.pem", &old);
        assert_eq!(
            [seen(&mut watch), seen(&mut watch)],
            ["", ""],
            "it is in use"
        );
        replace("other.key", "gw.key");
        assert_eq!(seen(&mut watch), "");
        assert!(
            seen(&mut watch).contains("does not belong"),
            "what is bad anew is told anew"
        );
        put(folder, "gw.pem", &old);

        put(folder, "ca.pem", "no");
        assert_eq!(seen(&mut watch), "");
        assert!(
            seen(&mut watch).contains("gw.key does not belong"),
            "the first fault"
        );
    }

    #[test]
    fn authorities_are_taken_too() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["gw", "ca", "next"] {
            write(folder.path(), name, 90);
        }
        let mut watch = watch(folder.path(), &["gw"]);
        put(folder.path(), "ca.pem", "no");
        assert_eq!(seen(&mut watch), "");
        let fault = seen(&mut watch);
        assert!(fault.contains("ca.pem: a ca file holds"), "{fault}");
        std::fs::rename(folder.path().join("next.pem"), folder.path().join("ca.pem")).unwrap();
        assert_eq!([seen(&mut watch), seen(&mut watch)], ["", "new"]);
    }

    #[test]
    fn the_end_of_a_certificate_is_told_three_times() {
        let folder = tempfile::tempdir().unwrap();
        for (name, days) in [("gw", 40), ("short", 10), ("ca", 90), ("fresh", 5)] {
            write(folder.path(), name, days);
        }
        let mut watch = watch(folder.path(), &["gw", "short"]);
        let now = SystemTime::now();
        let mut told = Vec::new();
        for days in 0..45 {
            for line in watch.due(now + DAY * days + DAY / 2) {
                let name = line.split('/').next_back().unwrap();
                let name = name.split(" on ").next().unwrap();
                told.push(format!("{days}: {}", name.trim_end_matches(',')));
            }
        }
        assert_eq!(
            told,
            [
                "3: short.pem expires in 6 days",
                "10: short.pem expired",
                "19: gw.pem expires in 20 days",
                "33: gw.pem expires in 6 days",
                "40: gw.pem expired",
            ]
        );
        for (from, to) in [("fresh.pem", "gw.pem"), ("fresh.key", "gw.key")] {
            std::fs::rename(folder.path().join(from), folder.path().join(to)).unwrap();
        }
        assert_eq!([seen(&mut watch), seen(&mut watch)], ["", "new"]);
        let told = watch.due(now);
        assert_eq!(told.len(), 2, "of what is new everything is told: {told:?}");
        assert!(watch.due(now).is_empty());
    }
}
