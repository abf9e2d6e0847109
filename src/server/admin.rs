//! What operators and orchestrators ask: is the process alive, may it be sent traffic, what is it.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::Shared;

/// Connections to the admin listener at a time.
const CONNECTIONS_MAX: usize = 64;

/// Answers operators; never returns.
pub async fn serve(listener: TcpListener, shared: Shared) {
    let slots = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = listener.accept().await;
        let Ok((stream, _)) = accepted else {
            warn!("admin connection not accepted");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = std::sync::Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &shared);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            // An operator who hangs up in the middle needs no line in the log.
            drop(served);
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"error": "only GET and HEAD"}),
        );
    }
    match request.uri().path() {
        "/healthz" => reply(StatusCode::OK, &json!({"status": "alive"})),
        "/readyz" => ready(shared),
        "/version" => reply(
            StatusCode::OK,
            &json!({"version": env!("CARGO_PKG_VERSION")}),
        ),
        _ => reply(
            StatusCode::NOT_FOUND,
            &json!({"error": "there are /healthz, /readyz and /version"}),
        ),
    }
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
    });
    reply(status, &body)
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
