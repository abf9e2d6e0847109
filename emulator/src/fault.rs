//! Faults on request: the `emulate.*` parameters make the site slow, wrong, or break off.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, LOCATION, RETRY_AFTER};

use super::answer::Answer;
use super::body::{Body, Source};
use super::denial::Denial;
use super::document::Element;
use super::parameters::Parameters;

/// What a request asks to go wrong; by default nothing.
///
/// | parameter | effect |
/// |---|---|
/// | `emulate.delay=MS` | waits before the head of the answer |
/// | `emulate.status=NNN` | that status, with an error document; 429 and 503 with `Retry-After` |
/// | `emulate.exception=1` | 500 with a stack trace |
/// | `emulate.redirect=URL` | 302 to that address |
/// | `emulate.bytes=N` | N zero bytes |
/// | `emulate.drip=MS` | waits before each of about ten chunks of the body |
/// | `emulate.truncate=N` | promises the whole body, and closes after N bytes |
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) delay: Option<Duration>,
    drip: Option<Duration>,
    truncate: Option<u64>,
    instead: Option<Instead>,
}

/// An answer in the place of the one the endpoint would give.
#[derive(Debug)]
enum Instead {
    Status(StatusCode),
    Exception,
    Redirect(String),
    Bytes(u64),
}

impl Faults {
    pub(super) fn read(parameters: &Parameters) -> Result<Self, Denial> {
        let number = |name: &str, most: u64| match parameters.first(name) {
            None => Ok(None),
            Some(value) => match value.parse() {
                Ok(number) if number <= most => Ok(Some(number)),
                _ => Err(Denial::bad_request(format!(
                    "{name} is a number up to {most}"
                ))),
            },
        };
        let status = number("emulate.status", 999)?
            .map(|code| {
                u16::try_from(code)
                    .ok()
                    .and_then(|code| StatusCode::from_u16(code).ok())
                    .filter(|status| !status.is_informational())
                    .ok_or_else(|| Denial::bad_request("emulate.status is no final status"))
            })
            .transpose()?;
        let exception = parameters.first("emulate.exception").is_some();
        let redirect = parameters.first("emulate.redirect").map(str::to_owned);
        let bytes = number("emulate.bytes", BYTES_MAX)?;
        Ok(Self {
            delay: number("emulate.delay", PAUSE_MS_MAX)?.map(Duration::from_millis),
            drip: number("emulate.drip", PAUSE_MS_MAX)?.map(Duration::from_millis),
            truncate: number("emulate.truncate", u64::MAX)?,
            instead: status
                .map(Instead::Status)
                .or_else(|| exception.then_some(Instead::Exception))
                .or_else(|| redirect.map(Instead::Redirect))
                .or_else(|| bytes.map(Instead::Bytes)),
        })
    }

    /// Makes a body slow or too short.
    pub(super) fn spoil(&self, body: Body) -> Body {
        let body = match self.drip {
            Some(pause) => body.dripping(pause),
            None => body,
        };
        match self.truncate {
            Some(bytes) => body.cut_after(bytes),
            None => body,
        }
    }

    /// What to answer without asking the endpoint.
    pub(super) fn answer(&self) -> Result<Option<Answer>, Denial> {
        Ok(Some(match &self.instead {
            None => return Ok(None),
            Some(Instead::Status(status)) => {
                let answer: Answer = Denial::emulated(*status).into();
                match *status {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        answer.with_header(RETRY_AFTER, HeaderValue::from_static("1"))
                    }
                    _ => answer,
                }
            }
            Some(Instead::Exception) => exception(),
            Some(Instead::Redirect(to)) => {
                Answer::empty(StatusCode::FOUND).with_text(LOCATION, to)?
            }
            Some(Instead::Bytes(count)) => {
                Answer::bytes("application/octet-stream", Source::Zeros(*count))
            }
        }))
    }
}

/// What the framework answers when something is thrown: always XML, and more than anyone should see.
fn exception() -> Answer {
    let frames = [
        "MindTouch.Deki.Data.MySql.PageDA.GetById(UInt32 id)",
        "MindTouch.Deki.Logic.PageBL.GetPageFromUrl(DreamContext context)",
        "MindTouch.Dream.DreamFeature.Invoke(DreamContext context)",
    ];
    let document = Element::new("exception")
        .leaf("type", "System.NullReferenceException")
        .leaf(
            "message",
            "Object reference not set to an instance of an object",
        )
        .leaf("source", "mindtouch.deki")
        .child(
            Element::new("stacktrace")
                .children(frames.map(|frame| Element::new("frame").text(format!("at {frame}")))),
        );
    Answer::bytes(
        "application/x-dream-exception+xml",
        document.to_xml().into(),
    )
    .with_status(StatusCode::INTERNAL_SERVER_ERROR)
}

const PAUSE_MS_MAX: u64 = 10 * 60 * 1000;
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_or_refused() {
        let read = |query| Faults::read(&Parameters::read(Some(query)));
        assert_eq!(
            read("emulate.delay=20").unwrap().delay,
            Some(Duration::from_millis(20))
        );
        assert!(read("").unwrap().answer().unwrap().is_none());
        assert!(
            read("emulate.status=503")
                .unwrap()
                .answer()
                .unwrap()
                .is_some()
        );
        for wrong in [
            "emulate.status=42",
            "emulate.status=100",
            "emulate.bytes=2147483649",
            "emulate.delay=soon",
            "emulate.truncate=-1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("emulate.redirect=%0d%0a").unwrap().answer().is_err());
    }
}
