//! Certificates of listeners while the program runs: replaced on disk, they are taken; when their time
//! runs out, the operator is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::tls::{Asks, DAYS_TO_WARN, Tls};
use crate::wire::tls::{self, Identity, Listener, Material};

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
    let identities = tls.identities.iter().map(|identity| Identity {
        key: Arc::clone(&identity.key),
        hosts: identity.hosts.clone(),
    });
    let asks = match tls.asks {
        Asks::Never => None,
        Asks::Optionally => Some(tls::Asks { always: false }),
        Asks::Always => Some(tls::Asks { always: true }),
    };
    Material::new(identities.collect(), &tls.client_ca, asks)
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
                warn!(%address, "certificates were replaced and cannot be used: {fault}; those from before stay in use");
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
    let past = |identity: &crate::config::tls::Identity| match identity.days_left(now) {
        None => MOMENTS.len(),
        Some(days) => MOMENTS.iter().filter(|moment| days < **moment).count(),
    };
    tls.identities.iter().map(past).collect()
}
