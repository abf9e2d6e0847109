//! A small HTTP client for what the gateway and its commands ask themselves: one connection a request,
//! bodies in memory, no redirect followed.

pub(crate) mod trust;

use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(crate) use self::trust::Trust;

/// Longer answers are not read.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A call that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The header section.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header of the answer as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is asked, and what it may take.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// The method.
    pub(crate) method: Method,
    /// Where: its target is sent as it is written.
    pub(crate) url: &'a str,
    /// Headers beside `Host`, or with it.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(crate) body: Bytes,
    /// Whom an `https://` server must be vouched for by; without it only `http://` can be asked.
    pub(crate) trust: Option<&'a Trust>,
    /// Most bytes of the answer's body.
    pub(crate) body_bytes_max: usize,
}

impl<'a> Ask<'a> {
    /// An `http://` URL, nothing but `Host` beside it, and as much in the answer as commands take.
    pub(crate) fn new(method: Method, url: &'a str) -> Self {
        Self {
            method,
            url,
            headers: &[],
            body: Bytes::new(),
            trust: None,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }
}

/// Sends a request to an `http://` URL, whose target is sent as it is written.
///
/// # Errors
/// What is wrong with the URL or the connection, for people.
pub(crate) async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Result<Answer, String> {
    ask(&Ask {
        headers,
        body: Bytes::from_static(body.as_bytes()),
        ..Ask::new(method, url)
    })
    .await
}

/// Sends a request.
///
/// # Errors
/// What is wrong with the URL, the connection or the answer, for people.
pub(crate) async fn ask(ask: &Ask<'_>) -> Result<Answer, String> {
    let exchange = tokio::time::timeout(PATIENCE, exchange(ask));
    let timed_out = || format!("no answer within {} seconds", PATIENCE.as_secs());
    exchange.await.map_err(|_| timed_out())?
}

async fn exchange(ask: &Ask<'_>) -> Result<Answer, String> {
    let uri: Uri = ask
        .url
        .parse()
        .map_err(|_| "this is not a URL".to_owned())?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    match (uri.scheme_str(), ask.trust) {
        (Some("http"), _) => {
            let stream = connect(authority, 80).await?;
            exchange_over(stream, ask, &uri, authority).await
        }
        (Some("https"), Some(trust)) => {
            let stream = connect(authority, 443).await?;
            let stream = trust.secure(bare_host(authority), stream).await?;
            exchange_over(stream, ask, &uri, authority).await
        }
        _ => Err("only http:// URLs can be asked".to_owned()),
    }
}

fn bare_host(authority: &Authority) -> &str {
    authority.host().trim_matches(['[', ']'])
}

async fn connect(authority: &Authority, default_port: u16) -> Result<TcpStream, String> {
    let port = authority.port_u16().unwrap_or(default_port);
    TcpStream::connect((bare_host(authority), port))
        .await
        .map_err(|error| format!("no connection to {authority}: {error}"))
}

async fn exchange_over<S>(
    stream: S,
    ask: &Ask<'_>,
    uri: &Uri,
    authority: &Authority,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // How the connection ends is seen by whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(ask.method.clone()).uri(target);
    if !ask.headers.iter().any(|(name, _)| *name == "Host") {
        request = request.header("Host", authority.as_str());
    }
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(ask.body.clone()))
        .map_err(|error| error.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ask.body_bytes_max).collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.map_err(|error| error.to_string())?.to_bytes(),
    })
}
