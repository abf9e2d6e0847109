//! A small HTTP client for the commands that make calls: one connection a request, bodies in memory.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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
    let exchange = tokio::time::timeout(PATIENCE, exchange(method, url, headers, body));
    let timed_out = || format!("no answer within {} seconds", PATIENCE.as_secs());
    exchange.await.map_err(|_| timed_out())?
}

async fn exchange(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|_| "this is not a URL".to_owned())?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// URLs can be asked".to_owned());
    }
    let authority = uri.authority().ok_or("the URL has no host")?;
    let address = (
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    );
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("no connection to {authority}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // How the connection ends is seen by whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request = request.header("Host", authority.as_str());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .map_err(|error| error.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.map_err(|error| error.to_string())?.to_bytes(),
    })
}
