//! Sites over TLS: verified, spoken to in HTTP/1.1 and HTTP/2, and never asked twice for what must
//! happen once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::harness::token::user_of;
use crate::harness::{API_KEY, Gateway, PATIENCE, ROUTES, TOKEN_KEY, TOKEN_SECRET, get, until};

const READ: &str = "/crm/@api/deki/pages/home";

/// A certificate for this machine, and the authority that vouches for it: itself.
struct Identity {
    pem: String,
    config: ServerConfig,
}

fn identity(names: &[&str], protocols: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Identity {
        pem: made.cert.pem(),
        config,
    }
}

/// What an HTTP/2 site does with a stream.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Reset(Reason),
    GoAway,
    Hangup,
}

#[derive(Clone, Debug)]
struct Asked {
    method: String,
    target: String,
    tokens: Vec<String>,
    connection: usize,
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// A site that speaks HTTP/2 over TLS.
async fn h2_site(
    identity: &Identity,
    act: impl Fn(usize) -> Act + Send + Sync + 'static,
) -> (SocketAddr, Log) {
    let acceptor = TlsAcceptor::from(Arc::new(identity.config.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let (seen, act) = (Arc::clone(&log), Arc::new(act));
    tokio::spawn(async move {
        let mut connection = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen, act) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&act));
            connection += 1;
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let Ok(mut session) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = session.accept().await {
                    let asked = Asked {
                        method: request.method().to_string(),
                        target: request.uri().path().to_owned(),
                        tokens: request
                            .headers()
                            .get_all("x-deki-token")
                            .iter()
                            .map(|value| value.to_str().unwrap().to_owned())
                            .collect(),
                        connection,
                    };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(asked);
                        seen.len()
                    };
                    match act(number) {
                        Act::Answer => {
                            let head = http::Response::builder()
                                .header("set-cookie", "a=b")
                                .header("x-deki-site", "id=1")
                                .body(())
                                .unwrap();
                            let mut body = respond.send_response(head, false).unwrap();
                            body.send_data(Bytes::from_static(b"<a/>"), true).unwrap();
                        }
                        Act::Reset(reason) => respond.send_reset(reason),
                        Act::GoAway => {
                            session.abrupt_shutdown(Reason::NO_ERROR);
                        }
                        Act::Hangup => return,
                    }
                }
            });
        }
    });
    (address, log)
}

/// A gateway before a site over TLS, verified against this authority.
async fn gateway(
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

fn post() -> String {
    format!(
        "POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 5\r\n\r\nhello"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_verified() {
    for (names, host) in [(["127.0.0.1"], "127.0.0.1"), (["localhost"], "localhost")] {
        let identity = identity(&names, &["h2"]);
        let (address, log) = h2_site(&identity, |_| Act::Answer).await;
        let (gateway, _folder) = gateway(address, host, &identity.pem, "").await;
        for _ in 0..3 {
            let answer = gateway
                .send(get(
                    "/crm/@api/deki/pages/=A%252FB?x=%2B+y",
                    "Cookie: a=b\r\n",
                ))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(
                (
                    answer.text().as_str(),
                    answer.header("set-cookie"),
                    answer.header("x-deki-site")
                ),
                ("<a/>", "", "")
            );
        }
        let seen = log.lock().unwrap().clone();
        assert_eq!(seen.len(), 3);
        for asked in &seen {
            assert_eq!(asked.target, "/@api/deki/pages/=A%252FB");
            assert_eq!(asked.tokens.len(), 1, "one token on HTTP/2, too");
            assert_eq!(
                user_of(&asked.tokens[0], TOKEN_KEY, TOKEN_SECRET)
                    .unwrap()
                    .0,
                "=crm-bot"
            );
        }
        assert!(
            seen.iter().all(|asked| asked.connection == 1),
            "one connection carries them all"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_not_who_it_says() {
    let (ours, theirs) = (
        identity(&["127.0.0.1"], &["h2"]),
        identity(&["127.0.0.1"], &["h2"]),
    );
    let elsewhere = identity(&["other.example"], &["h2"]);
    for (served, trusted) in [(&theirs, &ours.pem), (&elsewhere, &elsewhere.pem)] {
        let (address, log) = h2_site(served, |_| Act::Answer).await;
        let (gateway, _folder) = gateway(address, "127.0.0.1", trusted, "").await;
        let answer = gateway.send(get(READ, "")).await;
        answer.refused(502, "site_unreachable");
        assert!(
            log.lock().unwrap().is_empty(),
            "no token is sent to a stranger"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_takes_streams_back() {
    for reason in [
        Reason::REFUSED_STREAM,
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
    ] {
        let identity = identity(&["127.0.0.1"], &["h2"]);
        let (address, log) = h2_site(&identity, move |_| Act::Reset(reason)).await;
        let (gateway, _folder) = gateway(address, "127.0.0.1", &identity.pem, "").await;
        let answer = gateway.send(post()).await;
        assert_eq!(answer.status, 502, "{reason:?}: {answer:?}");
        let seen = log.lock().unwrap().clone();
        assert_eq!(
            seen.len(),
            1,
            "{reason:?}: a POST is never sent twice: {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_goes_away() {
    for act in [Act::GoAway, Act::Hangup] {
        let identity = identity(&["127.0.0.1"], &["h2"]);
        let (address, log) = h2_site(
            &identity,
            move |number| if number == 2 { act } else { Act::Answer },
        )
        .await;
        let (gateway, _folder) = gateway(address, "127.0.0.1", &identity.pem, "").await;
        assert_eq!(gateway.send(get(READ, "")).await.status, 200);
        let answer = tokio::time::timeout(PATIENCE, gateway.send(post()))
            .await
            .expect("no hang");
        assert_eq!(answer.status, 502, "{answer:?}");
        let seen = log.lock().unwrap().clone();
        let posts = seen.iter().filter(|asked| asked.method == "POST").count();
        assert_eq!(posts, 1, "{seen:?}");
        assert_eq!(
            gateway.send(get(READ, "")).await.status,
            200,
            "the next request finds a new connection"
        );
        until("nothing stays behind", || {
            gateway
                .shared
                .in_flight
                .load(std::sync::atomic::Ordering::SeqCst)
                == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_may_be_asked_again() {
    let identity = identity(&["127.0.0.1"], &["h2"]);
    let (address, log) = h2_site(&identity, |number| {
        if number == 2 {
            Act::GoAway
        } else {
            Act::Answer
        }
    })
    .await;
    let (gateway, _folder) = gateway(address, "127.0.0.1", &identity.pem, "").await;
    assert_eq!(gateway.send(get(READ, "")).await.status, 200);
    let answer = gateway.send(get(READ, "")).await;
    let seen = log.lock().unwrap().clone();
    assert!(answer.status == 200 || answer.status == 502, "{answer:?}");
    assert!(seen.len() <= 4, "{seen:?}");
    for asked in &seen {
        assert!(
            user_of(&asked.tokens[0], TOKEN_KEY, TOKEN_SECRET).is_some(),
            "each attempt is well signed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_http2_where_it_is_not_wanted() {
    let identity = identity(&["127.0.0.1"], &["h2", "http/1.1"]);
    let acceptor = TlsAcceptor::from(Arc::new(identity.config.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let spoken = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&spoken);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            noted.lock().unwrap().push(protocol);
            let mut buffer = [0; 4096];
            drop(stream.read(&mut buffer).await);
            drop(
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await,
            );
            drop(stream.flush().await);
        }
    });
    let (gateway, _folder) =
        gateway(address, "127.0.0.1", &identity.pem, "\n    http2: false").await;
    assert_eq!(gateway.send(get(READ, "")).await.text(), "ok");
    assert!(
        !spoken.lock().unwrap().contains(&Some(b"h2".to_vec())),
        "{spoken:?}"
    );
}
