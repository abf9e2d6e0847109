//! What the site answers, before and after it is put into the format asked for.

use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Body, Source};
use super::denial::Denial;
use super::document::Element;
use super::parameters::Parameters;

/// Status, headers and content, in no format yet.
#[derive(Clone)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Document(Box<Element>),
    Bytes { media_type: String, source: Source },
}

impl Answer {
    pub(super) fn document(document: Element) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Document(Box::new(document)),
        }
    }

    /// Bytes of a media type, which no `dream.out.format` changes.
    pub(super) fn bytes(media_type: &str, source: Source) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Bytes {
                media_type: media_type.to_owned(),
                source,
            },
        }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self::bytes("", Source::Zeros(0)).with_status(status)
    }

    pub(super) const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// A header whose text comes from outside; one that cannot be a header is the caller's mistake.
    pub(super) fn with_text(self, name: HeaderName, text: &str) -> Result<Self, Denial> {
        let value = HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| Denial::bad_request("a value cannot be sent in a header"))?;
        Ok(self.with_header(name, value))
    }

    /// Writes the document in the format asked for, and obeys the other `dream.out` parameters as
    /// Dream does: without a second thought.
    pub(super) fn formatted(self, parameters: &Parameters) -> Result<Response<Body>, Denial> {
        let format = Format::asked(parameters)?;
        let (media_type, source) = match self.content {
            Content::Document(document) => {
                let (media_type, source) = format.write(&document, parameters);
                let media_type = parameters.first("dream.out.type").unwrap_or(media_type);
                (media_type.to_owned(), source)
            }
            Content::Bytes { media_type, source } => (media_type, source),
        };
        let mut response = Response::new(Body::new(source));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let header = |text: &str| {
            HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| Denial::bad_request("a value cannot be sent in a header"))
        };
        if !media_type.is_empty() {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, header(&media_type)?);
        }
        if let Some(name) = parameters.first("dream.out.saveas") {
            let disposition = header(&format!("attachment; filename=\"{name}\""))?;
            response
                .headers_mut()
                .insert(CONTENT_DISPOSITION, disposition);
        }
        Ok(response)
    }
}

#[derive(Clone, Copy)]
enum Format {
    Xml,
    Json,
    Jsonp,
    Php,
}

impl Format {
    fn asked(parameters: &Parameters) -> Result<Self, Denial> {
        match parameters.first("dream.out.format").unwrap_or("xml") {
            "xml" | "" => Ok(Self::Xml),
            "json" => Ok(Self::Json),
            "jsonp" if parameters.first("dream.out.callback").is_some() => Ok(Self::Jsonp),
            "jsonp" => Err(Denial::bad_request("jsonp needs dream.out.callback")),
            "php" => Ok(Self::Php),
            _ => Err(Denial::bad_request("unknown dream.out.format")),
        }
    }

    fn write(self, document: &Element, parameters: &Parameters) -> (&'static str, Source) {
        match self {
            Self::Xml => ("application/xml; charset=utf-8", document.to_xml().into()),
            Self::Php => (
                "application/php; charset=utf-8",
                Source::Bytes(document.to_php().into()),
            ),
            Self::Json | Self::Jsonp => {
                let json = document.to_json();
                let text = match parameters.first("dream.out.callback") {
                    Some(callback) => format!("{callback}({json})"),
                    None => {
                        let part = |name| parameters.first(name).unwrap_or_default();
                        format!("{}{json}{}", part("dream.out.pre"), part("dream.out.post"))
                    }
                };
                let media_type = match self {
                    Self::Jsonp => "text/javascript; charset=utf-8",
                    _ => "application/json; charset=utf-8",
                };
                (media_type, text.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn written(query: &str) -> (String, String) {
        let answer = Answer::document(Element::new("sink").attribute("bytes", 3));
        let response = answer.formatted(&Parameters::read(Some(query))).unwrap();
        let media_type = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (media_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn dream_out_is_obeyed_without_a_second_thought() {
        for (query, media_type, body) in [
            (
                "dream.out.format=json",
                "application/json; charset=utf-8",
                r#"{"@bytes":"3"}"#,
            ),
            (
                "Dream.Out.Format=json&dream.out.callback=f",
                "application/json; charset=utf-8",
                r#"f({"@bytes":"3"})"#,
            ),
            (
                "dream.out.format=jsonp&dream.out.callback=f",
                "text/javascript; charset=utf-8",
                r#"f({"@bytes":"3"})"#,
            ),
            (
                "dream.out.format=json&dream.out.pre=a(&dream.out.post=)",
                "application/json; charset=utf-8",
                r#"a({"@bytes":"3"})"#,
            ),
            (
                "dream.out.format=php",
                "application/php; charset=utf-8",
                r#"a:1:{s:4:"sink";a:1:{s:6:"@bytes";s:1:"3";}}"#,
            ),
            (
                "dream.out.format=json&dream.out.type=text/html",
                "text/html",
                r#"{"@bytes":"3"}"#,
            ),
        ] {
            assert_eq!(
                written(query).await,
                (media_type.to_owned(), body.to_owned()),
                "{query}"
            );
        }
        let (media_type, xml) = written("").await;
        assert_eq!(media_type, "application/xml; charset=utf-8");
        assert!(xml.ends_with("<sink bytes=\"3\" />"));
    }

    #[test]
    fn unknown_formats_are_refused() {
        for query in [
            "dream.out.format=xspan",
            "dream.out.format=jsonp",
            "dream.out.format=yaml",
        ] {
            let answer = Answer::document(Element::new("sink"));
            assert!(
                answer.formatted(&Parameters::read(Some(query))).is_err(),
                "{query}"
            );
        }
    }
}
