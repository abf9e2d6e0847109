//! Which headers cross: two lists, one for each way, and what no file may add to them.
//!
//! What is not listed does not cross, so no spelling of a name can slip through: `X_Deki_Token`,
//! `X.Deki.Token` and whatever else some server reads as `X-Deki-Token` are simply other names.

use crate::policy::names::Names;

/// What goes to the site: what an answer may depend on, and what says what a body is.
pub(super) static UPWARD: Names<22> = Names::new([
    "range",
    "accept",
    "pragma",
    "digest",
    "expect",
    "if-match",
    "if-range",
    "user-agent",
    "tracestate",
    "traceparent",
    "content-md5",
    "content-type",
    "cache-control",
    "if-none-match",
    "x-deki-client",
    "accept-encoding",
    "accept-language",
    "content-encoding",
    "content-language",
    "if-modified-since",
    "content-disposition",
    "if-unmodified-since",
]);

/// What goes to the site on routes of pages: the site checks the page again.
pub(super) static UPWARD_OF_PAGES: Names<2> = Names::new(["origin", "referer"]);

/// What goes to a caller, beside every `Content-*` (the length is written anew).
pub(super) static DOWNWARD: Names<16> = Names::new([
    "age",
    "via",
    "etag",
    "date",
    "vary",
    "allow",
    "expires",
    "location",
    "retry-after",
    "cache-control",
    "last-modified",
    "accept-ranges",
    "x-deki-session",
    "referrer-policy",
    "x-content-type-options",
    "content-security-policy",
]);

/// What a 304 is made of (RFC 9110 section 15.4.5), and what says how old it is.
pub(super) static DOWNWARD_OF_304: Names<7> = Names::new([
    "etag",
    "date",
    "vary",
    "expires",
    "cache-control",
    "last-modified",
    "content-location",
]);

/// Whether a header, in lower case, goes up on any kind of route whatever the file says.
pub fn goes_up(name: &str) -> bool {
    UPWARD.has(name.as_bytes()) || UPWARD_OF_PAGES.has(name.as_bytes())
}

/// Whether a header, in lower case, may be added to no list of a file: it says who asks, for which
/// site or from where, or it belongs to one connection, to the message's framing, or to us.
///
/// Sources: MindTouch/DReAM `DreamHostService`, `dreamutil`, the open DekiWiki `AuthBL` and
/// `InstanceManager`.
pub fn never_go_up(name: &str) -> bool {
    is_among(name, &NEVER_UPWARD, &NEVER_UPWARD_PREFIXES)
}

/// Whether a header, in lower case, may be added to no list of answers: it hands out or asks for a
/// credential, belongs to one connection or to the message's framing, speaks for the gateway's own
/// address to browsers, or is ours to set.
pub fn never_go_down(name: &str) -> bool {
    is_among(name, &NEVER_DOWNWARD, &NEVER_DOWNWARD_PREFIXES)
}

/// Whether a name is on a list, or begins as one: letters and digits alone are compared, since some
/// servers take a point, a plus or an underscore for the hyphen.
fn is_among(name: &str, names: &[&str], prefixes: &[&str]) -> bool {
    let folded = |name: &str| -> String {
        let kept = name.bytes().filter(u8::is_ascii_alphanumeric);
        kept.map(char::from).collect()
    };
    let name = folded(name);
    names.iter().any(|one| folded(one) == name)
        || prefixes
            .iter()
            .any(|prefix| name.starts_with(&folded(prefix)))
}

const NEVER_DOWNWARD: [&str; 34] = [
    "alt-svc",
    "alt-used",
    "api-key",
    "apikey",
    "authentication-info",
    "authorization",
    "authtoken",
    "clear-site-data",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "dekisession",
    "http2-settings",
    "impersonateuserid",
    "keep-alive",
    "service-key",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "te",
    "timing-allow-origin",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-api-key",
    "x-apikey",
    "x-auth-token",
    "x-authtoken",
    "x-deki-token",
    "x-request-id",
    "x-service-key",
];

const NEVER_DOWNWARD_PREFIXES: [&str; 4] = [
    "access-control-",
    "proxy-",
    "sec-websocket-",
    "x-countersign-",
];

const NEVER_UPWARD: [&str; 50] = [
    "x-auth-token",
    "x-original-uri",
    "apikey",
    "authorization",
    "authtoken",
    "cf-connecting-ip",
    "client-ip",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "dekisession",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "host",
    "http2-settings",
    "impersonateuserid",
    "keep-alive",
    "origin",
    // A CGI program finds it as HTTP_PROXY (httpoxy, CVE-2016-5385).
    "proxy",
    "referer",
    "remote-user",
    "service-key",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "via",
    "x-api-key",
    "x-apikey",
    "api-key",
    "x-authtoken",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-remote-user",
    "x-request-id",
    "x-requested-with",
    "x-rewrite-url",
    "x-user",
];

const NEVER_UPWARD_PREFIXES: [&str; 10] = [
    "ssl-client-",
    "x-client-cert",
    "x-ssl-client-",
    "access-control-",
    "proxy-",
    "x-amzn-oidc-",
    "x-countersign-",
    "x-deki-",
    "x-dream-",
    "x-forwarded-",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_names_and_no_others() {
        for name in UPWARD.iter() {
            assert!(UPWARD.has(name.as_bytes()), "{name}");
            assert!(UPWARD.has(name.to_uppercase().as_bytes()), "{name}");
            assert!(!UPWARD.has(&name.as_bytes()[1..]), "{name}");
            assert!(!UPWARD.has(format!("{name}x").as_bytes()), "{name}");
            let other = name.replace('-', "_");
            assert!(other == name || !UPWARD.has(other.as_bytes()), "{other}");
        }
        assert!(!UPWARD.has(b""));
        assert!(!UPWARD.has(&[b'a'; 300]));
        assert!(DOWNWARD.has(b"ETag") && DOWNWARD.has(b"Content-Security-Policy"));
    }

    #[test]
    fn no_list_holds_what_may_never_go_up() {
        for name in UPWARD.iter() {
            assert!(name == "x-deki-client" || !never_go_up(name), "{name}");
        }
        for name in ["x-deki-token", "x-forwarded-host", "cookie", "te"] {
            assert!(never_go_up(name), "{name}");
        }
        for name in [
            "x_deki_token",
            "x.deki.token",
            "x-ssl-client-verify",
            "xforwardedhost",
        ] {
            assert!(never_go_up(name), "{name}");
        }
        assert!(!never_go_up("x-widget-version") && !never_go_up("x-clients"));
    }

    #[test]
    fn no_list_holds_what_may_never_go_down() {
        for name in DOWNWARD.iter().chain(DOWNWARD_OF_304.iter()) {
            assert!(!never_go_down(name), "{name}");
        }
        for name in [
            "set-cookie",
            "www-authenticate",
            "proxy-authenticate",
            "x-deki-token",
            "transfer-encoding",
            "access-control-allow-origin",
            "x-countersign-refusal",
            "x-request-id",
        ] {
            assert!(never_go_down(name), "{name}");
        }
        assert!(!never_go_down("link") && !never_go_down("x-deki-site"));
    }
}
