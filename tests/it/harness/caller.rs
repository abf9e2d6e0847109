//! A caller that writes bytes, as no decent client lets it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Answer, within};

/// A connection.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Wire<TcpStream> {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address))
            .await
            .expect("it listens");
        Self::over(stream)
    }

    /// One that is open already.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }
}

impl Wire<TlsStream<TcpStream>> {
    /// One over TLS, to this host.
    pub async fn tls(address: SocketAddr, host: &str, config: &Arc<ClientConfig>) -> Self {
        let made = Self::try_tls(address, host, config).await;
        made.unwrap_or_else(|error| panic!("the handshake for {host} fails: {error}"))
    }

    /// The same where it may fail.
    pub async fn try_tls(
        address: SocketAddr,
        host: &str,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let stream = within(TcpStream::connect(address)).await?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Self::on(within(connector.connect(name, stream)).await?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// One over anything that carries bytes.
    pub fn on(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes. That the other side has closed already is seen when reading.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        drop(within(self.stream.write_all(bytes.as_ref())).await);
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Reads the next final answer; interim ones are passed over.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads the next final answer to a request with this method.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        match self.try_answer(method).await {
            Some(answer) => answer,
            None => panic!(
                "the connection was closed without an answer, after {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    /// Reads the next final answer, or nothing if the connection is closed before it begins.
    pub async fn try_answer(&mut self, method: &str) -> Option<Answer> {
        loop {
            let head = self.take_head().await?;
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap();
            assert!(status_line.starts_with("HTTP/1.1 "), "{status_line:?}");
            let status: u16 = status_line[9..12].parse().unwrap();
            let headers: Vec<(String, String)> = lines
                .map(|line| {
                    let (name, value) = line.split_once(':').expect("a header line has a colon");
                    (name.to_owned(), value.trim().to_owned())
                })
                .collect();
            if status / 100 == 1 && status != 101 {
                continue;
            }
            let mut answer = Answer {
                status,
                headers,
                body: Vec::new(),
            };
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                answer.body = self.take_body(&answer).await?;
            }
            return Some(answer);
        }
    }

    /// Whether the other side has closed and nothing more came.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// Reads until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn take_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Some(head);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take_body(&mut self, answer: &Answer) -> Option<Vec<u8>> {
        if answer.header("transfer-encoding") == "chunked" {
            assert_eq!(answer.header("content-length"), "", "two framings");
            let mut body = Vec::new();
            loop {
                let line = self.take_line().await?;
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
                body.extend(self.take(size).await?);
                if size == 0 {
                    while !self.take_line().await?.is_empty() {}
                    return Some(body);
                }
                assert_eq!(self.take_line().await?, "", "a chunk ends where it says");
            }
        }
        match answer.header("content-length") {
            "" => Some(self.rest().await),
            length => self.take(length.parse().unwrap()).await,
        }
    }

    async fn take_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < size {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..size).collect())
    }

    /// Reads more; `false` at the end, be it a polite one or not.
    async fn fill(&mut self) -> bool {
        within(self.stream.read_buf(&mut self.buffer))
            .await
            .is_ok_and(|read| read > 0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
