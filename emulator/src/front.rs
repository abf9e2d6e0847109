//! One request's way through the site: tenant, preflight, credentials, faults, endpoint, format.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, DATE, HeaderName, HeaderValue, ORIGIN, SERVER,
    SET_COOKIE, VARY,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Site;
use super::answer::Answer;
use super::body::{Body, Intake, Source};
use super::call::{Call, Received, effective_method, segments};
use super::clock::Moment;
use super::denial::Denial;
use super::endpoints;
use super::fault::Faults;
use super::identity::{Asking, Credentials, TOKEN_HEADER, nonce};
use super::journal::{Arrival, Recording, TokenSeen};
use super::parameters::Parameters;
use super::token::admits;
use super::wiki::User;

/// Answers, and records the arrival before the answer begins.
pub(super) async fn answer(
    site: Arc<Site>,
    client: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    // For container health checks; the real site has no such place.
    if parts.uri.path() == "/healthz" {
        return Response::new(Body::empty());
    }
    let mut body = Intake::new(body);
    let provider = &site.provider;
    let path = parts.uri.path();
    if let Some(answer) = provider
        .answer(&parts.method, path, client, &mut body)
        .await
    {
        return answer;
    }
    let parameters = Parameters::read(parts.uri.query());
    let target = parts
        .uri
        .path_and_query()
        .map_or("*", |target| target.as_str());
    let received = Received {
        method: effective_method(&parts.method, &parts.headers, &parameters),
        path: parts.uri.path().to_owned(),
        authority: parts.uri.authority().map(ToString::to_string),
        now: Moment::now(site.options.clock_skew_seconds),
        headers: parts.headers,
        parameters,
        site,
    };
    let identified = received.identify();
    let seen = Seen::by(&identified, &received);
    let arrival = Arrival {
        method: parts.method.to_string(),
        target: target.to_owned(),
        headers: received.recorded_headers(seen.token),
        status: 0,
        user: seen.user.as_ref().map(|user| user.name.clone()),
        token: seen.token,
        body_bytes: 0,
    };
    let recording = Recording::new(received.site.journal.clone(), arrival, body.counter());
    let (answered, faults) = received.respond(identified, &mut body).await;
    let mut response = received.formatted(answered);
    // A method that was overridden leaves the server no reason to leave the body out.
    if received.method == Method::HEAD && parts.method != Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    let mut response = response.map(|body| faults.spoil(body));
    received.leak(&mut response, &seen);
    // Whoever asks before sending a body is spared sending it in vain.
    if received.header("expect").is_none() {
        body.discard().await;
    }
    recording.answered(response.status().as_u16());
    response
}

impl Received {
    fn identify(&self) -> Result<Asking, Denial> {
        let site = &self.site;
        self.credentials().identify(
            &site.keys,
            &site.options.allowed_hosts,
            &site.wiki(),
            self.now,
        )
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            headers: &self.headers,
            parameters: &self.parameters,
        }
    }

    /// The answer, and what is to go wrong while it is sent.
    async fn respond(
        &self,
        identified: Result<Asking, Denial>,
        body: &mut Intake,
    ) -> (Result<Answer, Denial>, Faults) {
        let faults = match self.site.options.faults {
            true => Faults::read(&self.parameters),
            false => Ok(Faults::default()),
        };
        match faults {
            Ok(faults) => {
                if let Some(delay) = faults.delay {
                    tokio::time::sleep(delay).await;
                }
                (self.decide(identified, &faults, body).await, faults)
            }
            Err(denial) => (Err(denial), Faults::default()),
        }
    }

    async fn decide(
        &self,
        identified: Result<Asking, Denial>,
        faults: &Faults,
        body: &mut Intake,
    ) -> Result<Answer, Denial> {
        let segments = segments(&self.path).ok_or_else(|| Denial::missing("resource"))?;
        if let Some(tenant) = self.header("x-deki-site")
            && tenant.trim() != TENANT
        {
            let text = format!("No wiki exists at host '{tenant}'");
            let gone = Answer::bytes("text/plain", text.into());
            return Ok(gone.with_status(StatusCode::GONE));
        }
        if self.method == Method::OPTIONS {
            return self.preflight();
        }
        let asking = identified?;
        if let Some(answer) = faults.answer()? {
            return Ok(answer);
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let call = Call {
            received: self,
            asking,
            body,
        };
        endpoints::answer(call, &segments).await
    }

    /// A preflight carries no token, so all hosts of all browser tokens are asked. A stranger gets
    /// no permission, which his browser then complains about.
    fn preflight(&self) -> Result<Answer, Denial> {
        if self.headers.contains_key(ORIGIN) && self.admitted_origin().is_none() {
            return Err(Denial::access("OPTIONS"));
        }
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
        let mut answer = Answer::empty(StatusCode::OK)
            .with_header(ALLOW, methods.clone())
            .with_header(ACCESS_CONTROL_ALLOW_METHODS, methods)
            .with_header(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(names) = self.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer = answer.with_header(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        Ok(answer)
    }

    fn admitted_origin(&self) -> Option<&HeaderValue> {
        let origin = self.headers.get(ORIGIN)?;
        admits(&self.site.options.allowed_hosts, origin.to_str().ok()?).then_some(origin)
    }

    /// An answer that cannot be written as asked becomes a refusal, in XML.
    fn formatted(&self, answered: Result<Answer, Denial>) -> Response<Body> {
        answered
            .unwrap_or_else(Answer::from)
            .formatted(&self.parameters)
            .or_else(|denial| Answer::from(denial).formatted(&Parameters::default()))
            .unwrap_or_else(|_| Response::new(Body::new(Source::Zeros(0))))
    }

    /// Adds what the real site tells everybody about itself, which is none of a caller's business.
    fn leak(&self, response: &mut Response<Body>, seen: &Seen) {
        let user = seen.user.as_ref().map_or(User::ANONYMOUS, |user| user.id);
        let nonce = nonce();
        let cookie = format!("dekisession=\"{nonce}\"; Path=/; HttpOnly");
        let headers = response.headers_mut();
        for (name, value) in [
            (SERVER, "Dream-HTTPAPI/1.0"),
            (HeaderName::from_static("x-deki-site"), TENANT),
            (
                HeaderName::from_static("x-deki-session"),
                &format!("{user}:{nonce}"),
            ),
            (
                HeaderName::from_static("x-data-stats"),
                "request-time-ms=7; mysql-time-ms=3",
            ),
            (HeaderName::from_static("x-deki-db-calls"), "4"),
            (
                HeaderName::from_static("p3p"),
                "CP=\"NOI ADM DEV PSAi COM NAV OUR OTRo STP IND DEM\"",
            ),
            (DATE, &self.now.rfc1123()),
            (SET_COOKIE, &cookie),
        ] {
            let value = HeaderValue::from_str(value).expect("dates and digits can be sent");
            headers.append(name, value);
        }
        if let Some(origin) = self.admitted_origin() {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            // The vendor's client knows that only a valid token brings this one.
            let trusted = matches!(seen.token, TokenSeen::Server | TokenSeen::Browser);
            if trusted || self.method == Method::OPTIONS {
                let yes = HeaderValue::from_static("true");
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            let exposed = HeaderValue::from_static("X-Deki-Session");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }

    fn recorded_headers(&self, token: TokenSeen) -> Vec<(String, String)> {
        self.headers
            .iter()
            .map(|(name, value)| {
                let value = if name == TOKEN_HEADER {
                    format!("({token} token)")
                } else {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                };
                (name.as_str().to_owned(), value)
            })
            .collect()
    }
}

/// Whom the site took the caller for.
struct Seen {
    user: Option<User>,
    token: TokenSeen,
}

impl Seen {
    fn by(identified: &Result<Asking, Denial>, received: &Received) -> Self {
        match identified {
            Ok(asking) => Self {
                user: Some(asking.user.clone()),
                token: asking.seen,
            },
            Err(_) => Self {
                user: None,
                token: match received.credentials().token() {
                    Some(_) => TokenSeen::Refused,
                    None => TokenSeen::None,
                },
            },
        }
    }
}

const TENANT: &str = "id=\"default\"";
