//! A site that records every request byte by byte, and answers as it is told, badly if it is told so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::{BROWSER_KEY, TOKEN_KEY, TOKEN_SECRET, token};

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// In their order, names as they were written.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came whole.
    pub is_complete: bool,
    /// Which connection it came on.
    pub connection: usize,
}

impl Seen {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Whether a header is there.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The one value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values = self.all(name);
        assert_eq!(values.len(), 1, "{name} stands once: {self:?}");
        values[0]
    }

    /// The user of its one token, which is well signed.
    #[track_caller]
    pub fn user(&self) -> String {
        let sent = self.header("x-deki-token");
        let read = token::user_of(sent, TOKEN_KEY, TOKEN_SECRET);
        read.unwrap_or_else(|| panic!("not well signed: {sent}")).0
    }

    /// Whether the gateway asks this for itself.
    pub fn is_probe(&self) -> bool {
        self.all("user-agent")
            .iter()
            .any(|agent| agent.starts_with("countersign/") && agent.ends_with("(probe)"))
    }

    /// Whether the gateway asks this to see whether a server token is accepted.
    pub fn is_token_probe(&self) -> bool {
        let agents = self.all("user-agent");
        agents.iter().any(|agent| agent.ends_with("(token probe)"))
    }

    /// Whether its one token is the browser token.
    pub fn is_from_page(&self) -> bool {
        self.all("x-deki-token") == [BROWSER_KEY]
    }
}

/// What the site does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes and keeps the connection.
    Bytes(Vec<u8>),
    /// Writes these bytes and closes.
    Last(Vec<u8>),
    /// Writes these bytes, and resets the connection.
    Reset(Vec<u8>),
    /// Writes these bytes, and nothing more, for as long as it is asked to wait.
    Hang(Vec<u8>),
    /// Writes these pieces with a pause before each, then keeps the connection.
    Drip(Duration, Vec<Vec<u8>>),
}

impl Reply {
    /// 200 with a little XML.
    pub fn ok() -> Self {
        Self::with("", "<user id=\"3\"/>")
    }

    /// 200 with further header lines (each ending in CRLF) and a body.
    pub fn with(headers: &str, body: &str) -> Self {
        Self::status("200 OK", headers, body)
    }

    /// A status with further header lines (each ending in CRLF) and a body.
    pub fn status(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
            )
            .into_bytes(),
        )
    }
}

impl Reply {
    /// The document of the user that a request is signed for, whatever key and secret it is signed with.
    fn current_user(seen: &Seen) -> Vec<u8> {
        let token = seen.header("x-deki-token").to_owned();
        let (claim, _) = token.rsplit_once('_').unwrap();
        let user = claim.rsplit('_').next().unwrap();
        match Self::user(user) {
            Self::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// The document of a user, `=crm-bot` or `7`.
    pub fn user(user: &str) -> Self {
        let (id, name) = match user.strip_prefix('=') {
            Some(name) => ("3", name),
            None => (user, "somebody"),
        };
        let user =
            format!("<user id=\"{id}\" anonymous=\"false\"><username>{name}</username></user>");
        Self::with("", &user)
    }
}

type Replies = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A listening site.
pub struct Site {
    pub address: SocketAddr,
    seen: Mutex<Vec<Seen>>,
    probes: Mutex<Vec<Seen>>,
    token_probes: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    protocols: Mutex<Vec<Option<Vec<u8>>>>,
    reply: Box<Replies>,
    /// Whether token probes are answered by `reply` as well.
    is_frank: bool,
}

impl Site {
    /// Token probes are answered apart: whoever signs is there, and `reply` never hears of it.
    pub async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Self::listen(None, false, reply).await
    }

    /// The same, but token probes are answered as told.
    pub async fn start_frank(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Self::listen(None, true, reply).await
    }

    /// The same over TLS.
    pub async fn start_frank_tls(
        config: ServerConfig,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), true, reply).await
    }

    /// The same as [`Self::start`] over TLS.
    pub async fn start_tls(
        config: ServerConfig,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), false, reply).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        is_frank: bool,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: Mutex::default(),
            probes: Mutex::default(),
            token_probes: Mutex::default(),
            connections: AtomicUsize::new(0),
            protocols: Mutex::default(),
            reply: Box::new(reply),
            is_frank,
        });
        let accepting = Arc::clone(&site);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let site = Arc::clone(&accepting);
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        if site.serve(&mut stream).await {
                            drop(stream.set_zero_linger());
                        }
                        return;
                    };
                    let Ok(mut stream) = tls.accept(stream).await else {
                        return;
                    };
                    let session = stream.get_ref().1;
                    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
                    site.protocols.lock().unwrap().push(protocol);
                    if site.serve(&mut stream).await {
                        drop(stream.get_ref().0.set_zero_linger());
                    }
                });
            }
        });
        site
    }

    /// What each TLS connection so far was to speak, as ALPN negotiated it.
    pub fn protocols(&self) -> Vec<Option<Vec<u8>>> {
        self.protocols.lock().unwrap().clone()
    }

    /// What the gateway has asked for itself so far; it is answered like everything else.
    pub fn probes(&self) -> Vec<Seen> {
        self.probes.lock().unwrap().clone()
    }

    /// How it was asked whether tokens are accepted.
    pub fn token_probes(&self) -> Vec<Seen> {
        self.token_probes.lock().unwrap().clone()
    }

    /// Everything that arrived for callers so far; it is forgotten with this.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// How many requests arrived so far.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How many connections were made so far, and something asked on; those of token probes apart.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The one request that arrived.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "one request arrives: {seen:?}");
        seen.remove(0)
    }

    /// Answers requests; `true` if the connection is then to be reset.
    async fn serve<S>(&self, stream: &mut S) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = Vec::new();
        let mut number = None;
        while let Some(mut seen) = read_request(stream, &mut buffer).await {
            if seen.is_token_probe() {
                self.token_probes.lock().unwrap().push(seen.clone());
                if !self.is_frank {
                    let reply = Reply::current_user(&seen);
                    drop(stream.write_all(&reply).await);
                    drop(stream.shutdown().await);
                    return false;
                }
            }
            let count = || self.connections.fetch_add(1, Ordering::SeqCst);
            seen.connection = *number.get_or_insert_with(count);
            if seen.is_token_probe() {
                // Told apart from what callers ask.
            } else if seen.is_probe() {
                self.probes.lock().unwrap().push(seen.clone());
            } else {
                self.seen.lock().unwrap().push(seen.clone());
            }
            if !seen.is_complete {
                return false;
            }
            match (self.reply)(&seen) {
                Reply::Bytes(bytes) => {
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                        return false;
                    }
                }
                Reply::Last(bytes) => {
                    drop(stream.write_all(&bytes).await);
                    drop(stream.shutdown().await);
                    return false;
                }
                Reply::Reset(bytes) => {
                    drop(stream.write_all(&bytes).await);
                    drop(stream.flush().await);
                    return true;
                }
                Reply::Hang(bytes) => {
                    drop(stream.write_all(&bytes).await);
                    drop(stream.flush().await);
                    // Until the gateway gives up.
                    drop(stream.read_buf(&mut buffer).await);
                    return false;
                }
                Reply::Drip(pause, pieces) => {
                    for piece in pieces {
                        tokio::time::sleep(pause).await;
                        if stream.write_all(&piece).await.is_err() {
                            return false;
                        }
                    }
                }
            }
        }
        false
    }
}

/// Reads one request with the plainest of parsers; `None` at the end of the connection.
async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> Option<Seen> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut request_line = lines.next().unwrap().split(' ');
    let mut seen = Seen {
        method: request_line.next().unwrap().to_owned(),
        target: request_line.next().unwrap().to_owned(),
        headers: lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_owned(), value.trim().to_owned())
            })
            .collect(),
        body: Vec::new(),
        is_complete: true,
        connection: 0,
    };
    assert_eq!(request_line.next(), Some("HTTP/1.1"), "{head}");
    if seen.has("expect") {
        drop(stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await);
    }
    let chunked = seen.has("transfer-encoding");
    let length: usize = seen
        .all("content-length")
        .first()
        .map_or(0, |length| length.parse().unwrap());
    assert!(
        !(chunked && seen.has("content-length")),
        "two framings: {head}"
    );
    let body = if chunked {
        read_chunks(stream, buffer).await
    } else {
        read_exactly(stream, buffer, length).await
    };
    seen.is_complete = body.is_some();
    seen.body = body.unwrap_or_default();
    Some(seen)
}

async fn read_exactly<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> Option<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..length).collect())
}

async fn read_chunks<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
                break end;
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 2);
        let size = usize::from_str_radix(&line, 16).unwrap();
        body.extend(read_exactly(stream, buffer, size + 2).await?);
        body.truncate(body.len() - 2);
        if size == 0 {
            return Some(body);
        }
    }
}
