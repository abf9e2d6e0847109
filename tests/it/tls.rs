//! Sites over TLS: verified, spoken to in HTTP/1.1 only, and never asked twice for what must happen
//! once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::harness::{API_KEY, Gateway, OTHER_KEY, ROUTES, Reply, Site, get, until};

const READ: &str = "/crm/@api/deki/pages/home";

/// A certificate for this machine, and the authority that vouches for it: itself.
pub struct Identity {
    pub pem: String,
    pub config: ServerConfig,
}

pub fn identity(names: &[&str], protocols: &[&str]) -> Identity {
    identity_of(names, protocols, |_| {})
}

/// The same, with something else asked of the certificate.
pub fn identity_of(
    names: &[&str],
    protocols: &[&str],
    ask: impl FnOnce(&mut rcgen::CertificateParams),
) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut asked = rcgen::CertificateParams::new(names).unwrap();
    ask(&mut asked);
    let key_pair = rcgen::KeyPair::generate().unwrap();
    let made = asked.self_signed(&key_pair).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_pair.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Identity {
        pem: made.pem(),
        config,
    }
}

/// A gateway before a site over TLS, verified against this authority.
pub async fn gateway(
    address: SocketAddr,
    host: &str,
    authority: &str,
    more: &str,
) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority).unwrap();
    let text = ROUTES.replace(
        "url: http://@SITE@",
        &format!(
            "url: https://{host}:{}\n    ca: file:{}{more}",
            address.port(),
            path.display()
        ),
    );
    (Gateway::start(&text, address).await, folder)
}

/// Waits until nothing is under way: then connections to the site have been given back.
async fn settled(gateway: &Gateway) {
    until("everything ends", || {
        gateway.shared.in_flight.load(Ordering::SeqCst) == 0
    })
    .await;
}

fn post() -> String {
    format!(
        "POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 5\r\n\r\nhello"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_verified() {
    for (names, host) in [(["127.0.0.1"], "127.0.0.1"), (["localhost"], "localhost")] {
        let identity = identity(&names, &["h2", "http/1.1"]);
        let site = Site::start_tls(identity.config, |_| {
            Reply::with("Set-Cookie: a=b\r\nX-Deki-Site: id=1\r\n", "<a/>")
        })
        .await;
        let (gateway, _folder) = gateway(site.address, host, &identity.pem, "").await;
        for _ in 0..3 {
            let answer = gateway
                .send(get(
                    "/crm/@api/deki/pages/=A%252FB?x=%2B+y",
                    "Cookie: a=b\r\n",
                ))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            settled(&gateway).await;
            assert_eq!(
                (
                    answer.text().as_str(),
                    answer.header("set-cookie"),
                    answer.header("x-deki-site")
                ),
                ("<a/>", "", "")
            );
        }
        let seen = site.take();
        assert_eq!(seen.len(), 3);
        for asked in &seen {
            assert_eq!(asked.target, "/@api/deki/pages/=A%252FB?x=%2B+y");
            assert_eq!(asked.user(), "=crm-bot");
            assert_eq!(
                asked.header("host"),
                format!("{host}:{}", site.address.port())
            );
        }
        assert_eq!(site.connections(), 1, "one connection carries them all");
        // Another user never shares it, and HTTP/2, which would, is not even offered.
        let answer = gateway
            .send(get(READ, "").replace(API_KEY, OTHER_KEY))
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(site.take()[0].user(), "7");
        assert_eq!(site.connections(), 2);
        let protocols = site.protocols();
        assert!(
            !protocols.contains(&Some(b"h2".to_vec())),
            "HTTP/2 was negotiated: {protocols:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_not_who_it_says() {
    let (ours, theirs) = (identity(&["127.0.0.1"], &[]), identity(&["127.0.0.1"], &[]));
    let elsewhere = identity(&["other.example"], &[]);
    for (served, trusted) in [
        (theirs.config, &ours.pem),
        (elsewhere.config, &elsewhere.pem),
    ] {
        let site = Site::start_tls(served, |_| Reply::ok()).await;
        let (gateway, _folder) = gateway(site.address, "127.0.0.1", trusted, "").await;
        let answer = gateway.send(get(READ, "")).await;
        answer.refused(502, "site_unreachable");
        assert_eq!(site.count(), 0, "no token is sent to a stranger");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_speaks_http2_only() {
    let identity = identity(&["127.0.0.1"], &["h2"]);
    let site = Site::start_tls(identity.config, |_| Reply::ok()).await;
    let (gateway, _folder) = gateway(site.address, "127.0.0.1", &identity.pem, "").await;
    let answer = gateway.send(get(READ, "")).await;
    answer.refused(502, "site_unreachable");
    assert_eq!(site.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_goes_away() {
    for reply in [Reply::Last(Vec::new()), Reply::Reset(Vec::new())] {
        let identity = identity(&["127.0.0.1"], &[]);
        let asked = AtomicUsize::new(0);
        let site = Site::start_tls(identity.config, move |_| {
            match asked.fetch_add(1, Ordering::SeqCst) {
                1 | 3 => reply.clone(),
                _ => Reply::ok(),
            }
        })
        .await;
        let (gateway, _folder) = gateway(site.address, "127.0.0.1", &identity.pem, "").await;
        assert_eq!(gateway.send(get(READ, "")).await.status, 200);
        settled(&gateway).await;
        gateway.send(post()).await.refused(502, "site_unreachable");
        let seen = site.take();
        let posts = seen.iter().filter(|asked| asked.method == "POST").count();
        assert_eq!(posts, 1, "a POST is never sent twice: {seen:?}");
        assert_eq!(
            gateway.send(get(READ, "")).await.status,
            200,
            "the next request finds a new connection"
        );
        settled(&gateway).await;
        // A read that found a dead connection is asked again, signed afresh.
        let answer = gateway.send(get(READ, "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = site.take();
        assert_eq!(seen.len(), 3, "{seen:?}");
        for asked in &seen {
            assert_eq!(asked.user(), "=crm-bot");
        }
        settled(&gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass() {
    let identity = identity(&["127.0.0.1"], &[]);
    let big = "x".repeat(3 << 20);
    let answer = big.clone();
    let site = Site::start_tls(identity.config, move |_| Reply::with("", &answer)).await;
    let (gateway, _folder) = gateway(site.address, "127.0.0.1", &identity.pem, "").await;
    let answer = gateway
        .send(format!(
            "PUT /write/@api/deki/files/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n{big}",
            big.len()
        ))
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == big.as_bytes());
    assert!(site.only().body == big.as_bytes());
}
