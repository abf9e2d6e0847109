//! What operators and orchestrators ask: is the process alive, may it be sent traffic, what is it, what
//! has it done.
//!
//! They are answered by a thread of its own, so that the answer comes while every other thread has more
//! to do than it can.

mod accept;
mod exposition;
mod process;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{Outcome, Shared};
use crate::signing::{Epoch, Secret};
use crate::watch::generation::Watched;

/// Connections to the admin listener at a time.
const CONNECTIONS_MAX: usize = 64;

/// For a request's header section, and for the pause before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept, whatever comes on it, and how much longer its last answer may take.
const LIFETIME: Duration = Duration::from_secs(300);
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// What can be asked.
const PATHS: [&str; 6] = [
    "/healthz", "/readyz", "/metrics", "/version", "/policy", "/reload",
];

/// The thread that answers; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    _stop: oneshot::Sender<Infallible>,
}

/// What it answers from.
#[derive(Clone, Debug)]
struct Desk {
    shared: Shared,
    /// What is to be presented for all but [`is_open`] questions.
    token: Option<Arc<Secret>>,
}

impl Admin {
    /// Starts to answer.
    ///
    /// # Errors
    /// The system's, where there can be no thread or no further file.
    pub(super) fn start(
        listener: TcpListener,
        token: Option<Arc<Secret>>,
        shared: Shared,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let desk = Desk { shared, token };
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = desk.serve(listener) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            _stop: stop,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Desk {
    /// Answers operators; never returns.
    async fn serve(self, listener: tokio::net::TcpListener) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                warn!("admin connection not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                continue;
            };
            let desk = self.clone();
            tokio::spawn(async move {
                desk.serve_connection(stream).await;
                drop(slot);
            });
        }
    }

    async fn serve_connection(self, stream: TcpStream) {
        let answer = service_fn(move |request| {
            let desk = self.clone();
            async move { Ok::<_, Infallible>(desk.answer(&request).await) }
        });
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
        );
        // An operator who hangs up in the middle needs no line in the log.
        if timeout(LIFETIME, serving.as_mut()).await.is_err() {
            serving.as_mut().graceful_shutdown();
            drop(timeout(LAST_ANSWER, serving).await);
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let (allowed, error) = match path {
            "/reload" => ("POST", "only POST"),
            _ => ("GET, HEAD", "only GET and HEAD"),
        };
        if !allowed.split(", ").any(|one| one == request.method()) {
            let mut answer = reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": error}));
            let allowed = HeaderValue::from_static(allowed);
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        if !is_open(path) && !self.admits(request.headers()) {
            let mut answer = reply(
                StatusCode::UNAUTHORIZED,
                &json!({"error": "send the token that admin.token refers to, once, as Authorization: Bearer TOKEN"}),
            );
            let challenge = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return answer;
        }
        match path {
            "/healthz" => reply(StatusCode::OK, &json!({"status": "alive"})),
            "/readyz" => ready(&self.shared),
            "/metrics" => self.metrics(request.headers()),
            "/version" => self.version(),
            "/policy" => self.policy(),
            "/reload" => self.reload(request.headers()).await,
            _ => reply(
                StatusCode::NOT_FOUND,
                &json!({"error": "there is nothing here", "paths": PATHS}),
            ),
        }
    }

    /// Has the configuration read again. Not for a web page, whose browser sends what it likes to whatever
    /// the operator's machine can reach.
    async fn reload(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if headers.contains_key(ORIGIN) {
            let error = json!({"error": "web pages may not ask for this"});
            return reply(StatusCode::FORBIDDEN, &error);
        }
        match self.shared.reloads.reload().await {
            Some(report) => {
                let status = match report.outcome {
                    Outcome::Failed => StatusCode::UNPROCESSABLE_ENTITY,
                    Outcome::Ok | Outcome::Unchanged => StatusCode::OK,
                };
                reply(status, &report.as_json())
            }
            None => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"error": "there is nothing to read again, or the gateway is stopping"}),
            ),
        }
    }

    /// Whether a request may ask for more than orchestrators do. The time taken tells only the length of
    /// the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let mut presented = headers.get_all(AUTHORIZATION).iter();
        match (presented.next(), presented.next()) {
            (Some(only), None) => {
                let (scheme, rest) = only.as_bytes().split_at(only.len().min(7));
                scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(rest)
            }
            _ => false,
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accepted = headers.get_all(ACCEPT).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        let (content_type, text) = match accept::prefers_openmetrics(accepted) {
            true => exposition::openmetrics(&self.shared),
            false => exposition::prometheus(&self.shared),
        };
        written(StatusCode::OK, content_type, text)
    }

    fn version(&self) -> Response<Full<Bytes>> {
        let policy = &self.shared.generation().effective;
        reply(
            StatusCode::OK,
            &json!({
                "version": env!("CARGO_PKG_VERSION"),
                "commit": env!("COUNTERSIGN_COMMIT"),
                "policy": policy.hash(),
            }),
        )
    }

    /// The text of the policy stands in it byte for byte, so that its hash can be made from it.
    fn policy(&self) -> Response<Full<Bytes>> {
        let policy = &self.shared.generation().effective;
        let (hash, text) = (policy.hash(), policy.text());
        let text = format!("{{\"hash\":\"{hash}\",\"policy\":{text}}}\n");
        written(StatusCode::OK, JSON, text)
    }
}

/// What orchestrators ask, who hold no token.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Ready means: not stopping, and at least one site is usable. One that is left alone is usable again
/// when its pause is over: our own probe, and no request, brings it back.
fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    let draining = shared.draining.load(Ordering::Acquire);
    let generation = shared.generation();
    let now = Instant::now();
    let mut usable = false;
    let sites: serde_json::Map<_, _> = generation
        .sites()
        .map(|(name, watched)| {
            let resolved = watched.addresses.pick(0).is_some();
            let is_usable = resolved && watched.breaker.is_usable(now);
            usable |= is_usable;
            let cause = watched.breaker.open_cause();
            let site = json!({
                "usable": is_usable,
                "resolved": resolved,
                "breaker": if cause.is_some() { "open" } else { "closed" },
                "cause": cause,
                "server_tokens": tokens(watched),
                "clock": {
                    "skew_seconds": watched.clock.skew_seconds(),
                    "corrected_seconds": watched.clock.correction(),
                },
            });
            (name.to_string(), site)
        })
        .collect();
    let ready = usable && !draining;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready,
        "draining": draining,
        "in_flight": shared.in_flight.load(Ordering::Acquire),
        "connections": shared.slots.open(),
        "sites": sites,
        "reload": shared.reloads.last().map(|last| json!({
            "outcome": last.outcome.word(),
            "since": httpdate::fmt_http_date(last.at),
            "problems": last.problems,
        })),
    });
    reply(status, &body)
}

/// What is known of each server token of a site, in the order of the file.
fn tokens(watched: &Watched) -> serde_json::Value {
    let standings = watched.server_tokens.standings().into_iter();
    let signing = watched.server_tokens.signing();
    let tokens = standings.enumerate().map(|(position, standing)| {
        let (accepted, user, fault) = match &standing.verdict {
            None => (None, None, None),
            Some(Ok(user)) => (Some(true), Some(user.as_sent()), None),
            Some(Err(fault)) => (Some(false), None, Some(fault.cause())),
        };
        json!({
            "accepted": accepted,
            "signs": position == signing,
            "user": user,
            "cause": fault.or(standing.untold),
            "since": standing.since.map(Epoch::as_unix),
        })
    });
    tokens.collect()
}

const JSON: &str = "application/json";

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    written(status, JSON, format!("{body}\n"))
}

fn written(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
