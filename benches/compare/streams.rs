//! Callers that speak HTTP/2 over TLS: several streams on each connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::load::{Progress, Sample, Span, finish, measured, request};
use crate::scene::HOST;
use crate::secured;
use crate::site::{PAGE, headers};

/// Of each connection.
pub(crate) const STREAMS: usize = 10;

/// A connection; each of its clones may ask.
#[derive(Clone)]
struct Multiplexed(SendRequest<Empty<Bytes>>);

impl Multiplexed {
    async fn open(to: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (stream, _) = secured::shake_hands(&secured::caller("h2", false)?, stream).await?;
        let (asking, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends with the last of those that ask.
        tokio::spawn(connection);
        Ok(Self(asking))
    }

    /// One request, and the status and body of its answer.
    async fn ask(&mut self, request: &Request<Empty<Bytes>>) -> Outcome<(u16, Bytes)> {
        self.0.ready().await?;
        let answer = self.0.send_request(request.clone()).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// A request of HTTP/1.1 as one of HTTP/2.
fn of_text(text: &str) -> Outcome<Request<Empty<Bytes>>> {
    let target = text.split(' ').nth(1).ok_or("no target")?;
    let uri = Uri::builder().scheme("https").authority(HOST);
    let mut request = Request::get(uri.path_and_query(target).build()?);
    for (name, value) in headers(text).filter(|(name, _)| *name != "Host") {
        request = request.header(name, value);
    }
    Ok(request.body(Empty::new())?)
}

/// A request of HTTP/1.1, but for the end of its head, on a connection of its own as one of HTTP/2; the status and body
/// of its answer.
pub(crate) async fn once(to: SocketAddr, request: &str) -> Outcome<(u16, Vec<u8>)> {
    let (status, body) = Multiplexed::open(to).await?.ask(&of_text(request)?).await?;
    Ok((status, body.into()))
}

fn page(caller: usize) -> Outcome<Request<Empty<Bytes>>> {
    of_text(std::str::from_utf8(&request(caller, "GET", PAGE, ""))?)
}

async fn ask_for_page(
    connection: &mut Multiplexed,
    request: &Request<Empty<Bytes>>,
) -> Outcome<()> {
    match connection.ask(request).await? {
        (200, body) if body.len() == 1024 => Ok(()),
        (status, body) => Err(format!("{status} with {} bytes", body.len()).into()),
    }
}

/// Each stream is followed by the next as soon as it is answered.
pub(crate) async fn closed(
    to: SocketAddr,
    connections: usize,
    span: Span,
    cpu: impl Fn() -> Outcome<Duration>,
) -> Outcome<Sample> {
    let progress = Arc::<Progress>::default();
    let mut running = JoinSet::new();
    for number in 0..connections {
        let connection = Multiplexed::open(to).await?;
        for stream in 0..STREAMS {
            let (mut connection, progress) = (connection.clone(), Arc::clone(&progress));
            running.spawn(async move {
                let request = page(number * STREAMS + stream)?;
                while progress.goes_on() {
                    ask_for_page(&mut connection, &request).await?;
                    progress.note();
                }
                Ok(())
            });
        }
    }
    measured(running, &progress, span, cpu).await
}

/// So many requests, evenly over the streams of so many connections.
pub(crate) async fn counted(to: SocketAddr, connections: usize, requests: usize) -> Outcome<()> {
    let mut running = JoinSet::new();
    for number in 0..connections {
        let connection = Multiplexed::open(to).await?;
        for stream in 0..STREAMS {
            let mut connection = connection.clone();
            running.spawn(async move {
                let (streams, number) = (connections * STREAMS, number * STREAMS + stream);
                let request = page(number)?;
                // The rest of the division goes to the first ones.
                for _ in 0..requests / streams + usize::from(number < requests % streams) {
                    ask_for_page(&mut connection, &request).await?;
                }
                Ok(())
            });
        }
    }
    tokio::time::timeout(Duration::from_secs(300), finish(running)).await?
}
