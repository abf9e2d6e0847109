//! The web as the browser sees it: pages at every host, and the gateway behind what terminates TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::PublicKeyData;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// What every page holds.
const PAGE: &str = "<!doctype html><title>A page</title><link rel=icon href=data:,>";

/// Hosts, each at a port of this machine.
pub struct Web {
    acceptor: TlsAcceptor,
    /// Of the public key that every host shows, as `--ignore-certificate-errors-spki-list` wants it.
    pub key_digest: String,
    /// Pages over TLS.
    pub pages: SocketAddr,
    /// The same pages without.
    pub plain_pages: SocketAddr,
}

/// What stands before a server and terminates TLS, as operators do before the gateway.
pub struct Front {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Web {
    /// Starts the pages.
    pub async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
        let digest = Sha256::digest(made.signing_key.subject_public_key_info());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let over_tls = acceptor.clone();
        Self {
            acceptor,
            key_digest: BASE64_STANDARD.encode(digest),
            pages: listen(move |stream| {
                let acceptor = over_tls.clone();
                async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_pages(stream).await;
                    }
                }
            })
            .await,
            plain_pages: listen(serve_pages).await,
        }
    }

    /// Puts TLS before a server.
    pub async fn before(&self, server: SocketAddr) -> Front {
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let (acceptor, record) = (self.acceptor.clone(), Arc::clone(&received));
        let address = listen(move |stream| {
            let (acceptor, record) = (acceptor.clone(), Arc::clone(&record));
            async move {
                let Ok(outer) = acceptor.accept(stream).await else {
                    return;
                };
                let Ok(inner) = TcpStream::connect(server).await else {
                    return;
                };
                inner.set_nodelay(true).unwrap();
                let (mut from_browser, mut to_browser) = tokio::io::split(outer);
                let (mut from_server, mut to_server) = inner.into_split();
                tokio::spawn(async move {
                    drop(copy(&mut from_server, &mut to_browser).await);
                    drop(to_browser.shutdown().await);
                });
                let mut buffer = Vec::with_capacity(16 * 1024);
                while from_browser
                    .read_buf(&mut buffer)
                    .await
                    .is_ok_and(|n| n > 0)
                {
                    record.lock().unwrap().extend_from_slice(&buffer);
                    if to_server.write_all(&buffer).await.is_err() {
                        return;
                    }
                    buffer.clear();
                }
            }
        })
        .await;
        Front { address, received }
    }
}

impl Front {
    /// The bytes that browsers sent since this was asked last.
    pub fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.received.lock().unwrap())).unwrap()
    }
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve_pages(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(page));
    // A browser leaves when it likes.
    drop(connection.await);
}

/// A page; at `/go?ADDRESS` a redirect that keeps the method, and that any page may follow.
async fn page(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let answer = http::Response::builder().header("access-control-allow-origin", "*");
    let answer = match (request.uri().path(), request.uri().query()) {
        ("/go", Some(target)) => answer
            .status(307)
            .header("location", target)
            .body(Full::default()),
        _ => answer
            .header("content-type", "text/html")
            .body(Full::from(PAGE)),
    };
    Ok(answer.unwrap())
}
