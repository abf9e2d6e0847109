//! Every way the site says no, as the error document of the API.

use http::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};

use super::answer::Answer;
use super::document::Element;
use super::token::Flaw;

/// A refusal; it becomes an [`Answer`] with an `<error>` document.
#[derive(Debug)]
pub(super) struct Denial {
    status: StatusCode,
    exception: &'static str,
    resource: &'static str,
    message: String,
    argument: Option<String>,
    allow: Option<String>,
}

impl Denial {
    fn new(status: StatusCode, resource: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            exception: "MindTouch.Deki.Exceptions.DekiException",
            resource,
            message: message.into(),
            argument: None,
            allow: None,
        }
    }

    /// The vendor does not say with which status; 403 is taken here, and 401 is as likely.
    pub(super) fn token(flaw: Flaw) -> Self {
        let argument = flaw.argument();
        Self {
            exception: "MindTouch.Deki.Auth.Exceptions.TokenValidationFailedException",
            argument: Some(argument.to_owned()),
            ..Self::new(
                StatusCode::FORBIDDEN,
                "System.API.Error.developer-token-validation-failed",
                format!("The request failed API token validation, {argument}"),
            )
        }
    }

    pub(super) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "System.API.Error.authentication-failed",
            "Authentication failed",
        )
    }

    pub(super) fn access(what: &str) -> Self {
        Self {
            exception: "MindTouch.Deki.Exceptions.PermissionsDeniedException",
            argument: Some(what.to_owned()),
            ..Self::new(
                StatusCode::FORBIDDEN,
                "System.API.Error.permission-denied",
                format!("Access denied: {what} is not permitted to this user"),
            )
        }
    }

    pub(super) fn missing(what: &str) -> Self {
        Self {
            exception: "MindTouch.Deki.Exceptions.NotFoundException",
            argument: Some(what.to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "System.API.Error.not-found",
                format!("The requested {what} does not exist"),
            )
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "System.API.Error.bad-request",
            message,
        )
    }

    pub(super) fn conflict(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "System.API.Error.conflict", message)
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "System.API.Error.too-large",
            "The document is too large",
        )
    }

    pub(super) fn media_type(message: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "System.API.Error.unsupported-media-type",
            message,
        )
    }

    pub(super) fn method(allowed: &[Method]) -> Self {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        Self {
            allow: Some(names.join(", ")),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "System.API.Error.method-not-allowed",
                "The method is not supported by this resource",
            )
        }
    }

    /// A status somebody asked for.
    pub(super) fn emulated(status: StatusCode) -> Self {
        Self::new(
            status,
            "System.API.Error.emulated",
            "This status was asked for",
        )
    }
}

impl From<Denial> for Answer {
    fn from(denial: Denial) -> Self {
        let arguments = Element::new("arguments")
            .attribute("count", denial.argument.iter().count())
            .children(
                denial
                    .argument
                    .iter()
                    .map(|argument| Element::new("argument").text(argument)),
            );
        let document = Element::new("error")
            .leaf("exception", denial.exception)
            .leaf("resource", denial.resource)
            .child(arguments)
            .leaf("message", denial.message);
        let mut answer = Self::document(document).with_status(denial.status);
        if denial.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"DekiWiki\"");
            answer = answer.with_header(WWW_AUTHENTICATE, challenge);
        }
        match denial.allow.and_then(|names| names.try_into().ok()) {
            Some(names) => answer.with_header(ALLOW, names),
            None => answer,
        }
    }
}
