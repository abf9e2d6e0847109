//! Where the keys of an issuer come from, asked once: files, a URL, or a discovery document and the URL
//! that it names.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::client::{self, Answer, Ask, Trust};
use crate::jose::{Json, KeySet};
use crate::policy::caller::jwt::{Issuer, KeySource};
use crate::policy::host::is_loopback;

/// Largest set of keys, and largest discovery document, in bytes.
const BYTES_MAX: usize = 1024 * 1024;

/// The keys that came.
#[derive(Debug)]
pub(super) struct Found {
    /// At least one.
    pub(super) keys: Arc<KeySet>,
    /// How long they last, if their server says so.
    pub(super) lasts: Option<Duration>,
}

/// What a file looked like; another mark means other contents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark(Vec<Option<[i128; 5]>>);

/// Where keys come from.
#[derive(Debug)]
pub(super) struct Source {
    issuer: Arc<Issuer>,
    trust: Option<Trust>,
}

impl Source {
    pub(super) fn new(issuer: &Arc<Issuer>) -> Self {
        let trust = match (&issuer.keys, &issuer.ca) {
            (KeySource::Files(_), _) => None,
            (_, Some(ca)) => Some(Trust::in_these(ca)),
            (_, None) => Some(Trust::in_system()),
        };
        Self {
            issuer: Arc::clone(issuer),
            trust,
        }
    }

    /// What the files look like now; nothing, where there are none.
    pub(super) async fn mark(&self) -> Option<Mark> {
        let KeySource::Files(paths) = &self.issuer.keys else {
            return None;
        };
        let mut marks = Vec::with_capacity(paths.len());
        for path in paths {
            let facts = tokio::fs::metadata(&**path).await.ok();
            marks.push(facts.map(|facts| {
                let [device, inode, size] = [facts.dev(), facts.ino(), facts.len()].map(i128::from);
                let changed = |seconds: i64, nanos: i64| {
                    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
                };
                let contents = changed(facts.mtime(), facts.mtime_nsec());
                let facts = changed(facts.ctime(), facts.ctime_nsec());
                [device, inode, size, contents, facts]
            }));
        }
        Some(Mark(marks))
    }

    /// Reads or fetches the keys once.
    ///
    /// # Errors
    /// Why that failed, for people.
    pub(super) async fn ask(&self) -> Result<Found, String> {
        match &self.issuer.keys {
            KeySource::Files(paths) => {
                let paths = paths.clone();
                let read = move || {
                    let sets: Result<Vec<_>, _> =
                        paths.iter().map(|path| read_file(path)).collect();
                    sets.map(KeySet::union)
                };
                Ok(Found {
                    keys: Arc::new(beside(read).await?),
                    lasts: None,
                })
            }
            KeySource::Url(url) => self.fetch(url).await,
            KeySource::Discovery(url) => {
                let named = self.discover(url).await?;
                self.fetch(&named).await
            }
        }
    }

    async fn fetch(&self, url: &str) -> Result<Found, String> {
        let answer = self.get(url).await?;
        let lasts = max_age(answer.header("cache-control"));
        let body = answer.body;
        let keys = beside(move || {
            KeySet::of_jwks(&body).map_err(|fault| format!("its keys {}", fault.text()))
        });
        Ok(Found {
            keys: Arc::new(keys.await?),
            lasts,
        })
    }

    /// The URL of the keys, as the issuer's metadata names it (RFC 8414 section 3.3: they must be of the
    /// very issuer).
    async fn discover(&self, url: &str) -> Result<Box<str>, String> {
        let answer = self.get(url).await?;
        let document = Json::read(&answer.body).ok_or("its discovery document is not JSON")?;
        if document.get("issuer").and_then(Json::text) != Some(&*self.issuer.name) {
            return Err("its discovery document is another issuer's: issuer must be the very text that its tokens have as iss".to_owned());
        }
        let named = document.get("jwks_uri").and_then(Json::text);
        let named = named.ok_or("its discovery document names no jwks_uri")?;
        let is_secure = named.starts_with("https://");
        // Else whoever answers there could have anything on this machine asked.
        let may_be_plain = url.starts_with("http://") && is_loopback_url(named);
        match is_secure || may_be_plain {
            true => Ok(named.into()),
            false => Err("its discovery document names a jwks_uri that is not https://".to_owned()),
        }
    }

    async fn get(&self, url: &str) -> Result<Answer, String> {
        let ask = Ask {
            headers: &[
                ("Accept", "application/json"),
                ("User-Agent", "countersign"),
            ],
            trust: self.trust.as_ref(),
            body_bytes_max: BYTES_MAX,
            ..Ask::new(Method::GET, url)
        };
        let answer = client::ask(&ask).await?;
        match answer.status {
            200 => Ok(answer),
            300..=399 => Err(format!(
                "it answers with status {} and redirects are not followed: configure where it leads",
                answer.status
            )),
            status => Err(format!("it answers with status {status}")),
        }
    }
}

fn is_loopback_url(url: &str) -> bool {
    let uri: Option<http::Uri> = url.parse().ok();
    uri.is_some_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri
                .host()
                .is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])))
    })
}

/// Does what takes a processor's time where requests do not wait for it.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("reading it went wrong".to_owned()))
}

fn read_file(path: &str) -> Result<KeySet, String> {
    let said = |error: std::io::Error| format!("the file {path} cannot be read: {}", error.kind());
    let facts = std::fs::metadata(path).map_err(said)?;
    if !facts.is_file() {
        return Err(format!("{path} is no file"));
    }
    let mut bytes = Vec::new();
    let most = BYTES_MAX as u64 + 1;
    let file = File::open(path).map_err(said)?;
    file.take(most).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() > BYTES_MAX {
        return Err(format!("the file {path} is larger than {BYTES_MAX} bytes"));
    }
    let keys = KeySet::read(&bytes);
    let keys = keys.map_err(|fault| format!("the keys in {path} {}", fault.text()))?;
    match keys.left_out.private {
        0 => Ok(keys),
        _ => Err(format!("the file {path} holds a private key")),
    }
}

/// How long an answer may be used (RFC 9111 section 5.2.2.1).
fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let is_max_age = name.eq_ignore_ascii_case("max-age");
        let seconds = value.trim_matches('"').parse().ok();
        seconds.filter(|_| is_max_age).map(Duration::from_secs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_lasts() {
        for (header, seconds) in [
            ("max-age=600", Some(600)),
            ("public, Max-Age=86400, must-revalidate", Some(86_400)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=0", Some(0)),
            ("no-store", None),
            ("s-maxage=60", None),
            ("max-age=-1", None),
            ("max-age=", None),
            ("max-age=99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(
                max_age(header),
                seconds.map(Duration::from_secs),
                "{header}"
            );
        }
    }

    #[test]
    fn addresses_of_this_machine() {
        for (url, expected) in [
            ("http://127.0.0.1:8088/jwks", true),
            ("http://localhost/jwks", true),
            ("http://[::1]:80/jwks", true),
            ("https://127.0.0.1/jwks", false),
            ("http://127.0.0.1.evil.example/jwks", false),
            ("http://127.0.0.1@evil.example/jwks", false),
            ("http://evil.example/#http://127.0.0.1", false),
            ("file:///etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_url(url), expected, "{url}");
        }
    }
}
