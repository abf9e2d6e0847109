//! An identity provider beside the site: a key of its own, its public half as a JWKS, and tokens with
//! whatever claims are asked for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Response, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};

use super::body::{Body, Intake, Source};
use super::clock::Moment;

/// Whom its tokens are for, where the claims do not say.
const AUDIENCE: &str = "countersign";

/// How long its tokens are good, where the claims do not say: as long as Keycloak's.
const LIFETIME_SECONDS: i64 = 300;

/// An identity provider that issues tokens to whoever asks. Its key is made when it starts, so that a
/// token of it is good for nobody but those who ask this very one for its keys.
#[derive(Clone)]
pub struct Provider {
    key: Arc<Key>,
    clock_skew_seconds: i64,
}

struct Key {
    pair: EcdsaKeyPair,
    id: String,
    issuer: String,
}

impl Provider {
    /// One with a new key, whose documents lie at this address.
    pub(super) fn new(address: SocketAddr, clock_skew_seconds: i64) -> std::io::Result<Self> {
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random)
            .ok()
            .and_then(|made| EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).ok())
            .ok_or_else(|| std::io::Error::other("the system gives no random numbers"))?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(std::io::Error::other)?;
        Ok(Self {
            key: Arc::new(Key {
                pair,
                id: base16ct::lower::encode_string(&id),
                issuer: format!("http://{address}"),
            }),
            clock_skew_seconds,
        })
    }

    /// What its tokens have as `iss`.
    pub fn issuer(&self) -> &str {
        &self.key.issuer
    }

    /// A token with these claims, a JSON object; `iss`, `aud`, `iat` and `exp` are added where they are
    /// missing.
    ///
    /// # Errors
    /// What is wrong with the claims.
    pub fn token(&self, claims: &str) -> Result<String, &'static str> {
        let claims: Map<String, Value> =
            serde_json::from_str(claims).map_err(|_| "claims are a JSON object")?;
        let now = Moment::now(self.clock_skew_seconds).seconds();
        let mut all = Map::new();
        all.insert("iss".to_owned(), self.issuer().into());
        all.insert("aud".to_owned(), AUDIENCE.into());
        all.insert("iat".to_owned(), now.into());
        all.insert("exp".to_owned(), (now + LIFETIME_SECONDS).into());
        all.extend(claims);
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.key.id });
        let part = |value: String| URL_SAFE_NO_PAD.encode(value);
        let message = format!(
            "{}.{}",
            part(header.to_string()),
            part(Value::Object(all).to_string())
        );
        let signature = self
            .key
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| "the system gives no random numbers")?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn keys(&self) -> Value {
        // A point: a byte that says it is uncompressed, and both coordinates.
        let (x, y) = self.key.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key.id, "x": x, "y": y,
        }] })
    }

    /// Its answer, if a path is one of its own.
    pub(super) async fn answer(
        &self,
        method: &Method,
        path: &str,
        client: IpAddr,
        body: &mut Intake,
    ) -> Option<Response<Body>> {
        let issuer = self.issuer();
        let document = match (method, path) {
            (&Method::GET, "/jwks.json") => self.keys(),
            (&Method::GET, "/.well-known/openid-configuration") => {
                json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json") })
            }
            (&Method::POST, "/emulate/token") => {
                return Some(match self.issue(client, body).await {
                    Ok(token) => written("text/plain", StatusCode::OK, format!("{token}\n")),
                    Err((status, why)) => written("text/plain", status, format!("{why}\n")),
                });
            }
            _ => return None,
        };
        let text = document.to_string();
        Some(written("application/json", StatusCode::OK, text))
    }

    async fn issue(
        &self,
        client: IpAddr,
        body: &mut Intake,
    ) -> Result<String, (StatusCode, &'static str)> {
        if !client.to_canonical().is_loopback() {
            let why = "tokens are issued to this machine only";
            return Err((StatusCode::FORBIDDEN, why));
        }
        let bad = |why| (StatusCode::BAD_REQUEST, why);
        let claims = body.text().await;
        let claims = claims.map_err(|_| bad("the claims cannot be read"))?;
        self.token(&claims).map_err(bad)
    }
}

fn written(kind: &'static str, status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Source::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Its key stays out of it.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.key.issuer)
            .finish_non_exhaustive()
    }
}
