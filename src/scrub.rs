//! What must not cross: credentials and identities upward, sessions and token traces downward.
//!
//! Returns the names of headers to remove; the adapter removes them. Upward, everything goes by
//! which the API family learns who asks, for which site, or from where (the map is section 1 of the
//! contract; sources: MindTouch/DReAM `DreamHostService`, `dreamutil`, the open DekiWiki `AuthBL`
//! and `InstanceManager`), together with hop-by-hop fields (RFC 9110 section 7.6.1) and names that
//! a CGI-like server would read as another name. Downward, what tells a caller about the site's
//! sessions, tokens and software.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, ORIGIN, REFERER};

/// Which way a request goes on; it decides about `Origin` and `Referer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upward {
    /// Signed with a server token: the site must not see the page.
    Server,
    /// With the browser token: the site checks the page's `Origin` again.
    Browser,
}

/// The headers of a request that must not reach the site.
pub fn request(headers: &HeaderMap, upward: Upward) -> Vec<HeaderName> {
    let nominated = nominated(headers);
    headers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            removed_upward(text)
                || (upward == Upward::Server && (*name == ORIGIN || *name == REFERER))
                || nominates(&nominated, text)
        })
        .cloned()
        .collect()
}

/// The headers of an answer that must not reach a caller.
pub fn answer(headers: &HeaderMap) -> Vec<HeaderName> {
    let nominated = nominated(headers);
    headers
        .keys()
        .filter(|name| removed_downward(name.as_str()) || nominates(&nominated, name.as_str()))
        .cloned()
        .collect()
}

/// Fields that concern one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "upgrade",
];

/// Fields that frame or route the message. The adapter writes them; what `Connection` says of them
/// is not followed, so that no caller can take them away.
const FRAMING: [&str; 5] = [
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-deki-token",
];

const UPWARD_NAMES: [&str; 30] = [
    "apikey",
    "authorization",
    "authtoken",
    "cf-connecting-ip",
    "client-ip",
    "cookie",
    "cookie2",
    "dekisession",
    "forwarded",
    "front-end-https",
    "impersonateuserid",
    // A CGI program finds it as HTTP_PROXY (httpoxy, CVE-2016-5385).
    "proxy",
    "remote-user",
    "service-key",
    "true-client-ip",
    "via",
    "x-api-key",
    "x-apikey",
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
    "x-request-id",
];

const UPWARD_PREFIXES: [&str; 6] = [
    "access-control-",
    "proxy-",
    "x-countersign-",
    "x-deki-",
    "x-dream-",
    "x-forwarded-",
];

const DOWNWARD_NAMES: [&str; 15] = [
    // Would lead clients past the gateway.
    "alt-svc",
    "authtoken",
    "p3p",
    "server",
    "set-cookie",
    "set-cookie2",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-authtoken",
    "x-data-stats",
    "x-deki-db-calls",
    "x-deki-site",
    "x-deki-token",
    "x-powered-by",
    "x-request-id",
];

fn removed_upward(name: &str) -> bool {
    const KEPT: &str = "x-deki-client";
    // `X_Deki_Token` is `X-Deki-Token` to CGI, FastCGI, WSGI and their like.
    name.contains('_')
        || HOP_BY_HOP.contains(&name)
        || UPWARD_NAMES.contains(&name)
        || matches!(name, "x-requested-with" | "x-rewrite-url" | "x-remote-user")
        || (name != KEPT
            && UPWARD_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix)))
}

fn removed_downward(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["access-control-", "proxy-", "x-countersign-", "x-dream-"];
    name.contains('_')
        || HOP_BY_HOP.contains(&name)
        || DOWNWARD_NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The values of `Connection`; its tokens name further hop-by-hop fields.
fn nominated(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect()
}

fn nominates(connection: &[&str], name: &str) -> bool {
    !FRAMING.contains(&name)
        && connection
            .iter()
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name.parse::<HeaderName>().unwrap(), "x".parse().unwrap());
        }
        headers
    }

    fn kept(headers: &HeaderMap, removed: &[HeaderName]) -> Vec<String> {
        headers
            .keys()
            .filter(|name| !removed.contains(name))
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn identities_sites_and_positions_go() {
        let hostile = map(&[
            "Authorization",
            "Cookie",
            "X-Authtoken",
            "X-ApiKey",
            "X-Api-Key",
            "X-Deki-Token",
            "X-Deki-Site",
            "X-Deki-Requested-With",
            "X-Dream-Public-Uri",
            "X-Dream-User-Host",
            "X-Dream-Anything",
            "X-Requested-With",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Server",
            "X-Forwarded",
            "Forwarded",
            "Via",
            "Front-End-Https",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Keep-Alive",
            "Connection",
            "X_Deki_Token",
            "Remote_User",
            "X-Real-IP",
            "X-HTTP-Method-Override",
            "X-Request-Id",
            "Origin",
            "Referer",
            "Access-Control-Request-Method",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Countersign-Refusal",
        ]);
        assert_eq!(
            kept(&hostile, &request(&hostile, Upward::Server)),
            Vec::<String>::new()
        );
        let kept = kept(&hostile, &request(&hostile, Upward::Browser));
        assert_eq!(kept, ["origin", "referer"]);
    }

    #[test]
    fn what_the_api_needs_stays() {
        let names = [
            "accept",
            "accept-language",
            "content-type",
            "content-length",
            "expect",
            "host",
            "if-none-match",
            "range",
            "slug",
            "user-agent",
            "x-deki-client",
        ];
        let headers = map(&names);
        assert_eq!(request(&headers, Upward::Server), Vec::<HeaderName>::new());
    }

    #[test]
    fn connection_nominates_but_not_our_framing() {
        let mut headers = map(&[
            "x-custom",
            "x-other",
            "host",
            "x-deki-token",
            "content-length",
        ]);
        headers.insert(
            CONNECTION,
            "close, X-Custom, Host, X-Deki-Token,content-length"
                .parse()
                .unwrap(),
        );
        let mut removed = answer(&headers);
        removed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        assert_eq!(
            removed,
            ["connection", "x-custom", "x-deki-token"],
            "the token goes as itself, not as nominated"
        );
    }

    #[test]
    fn sessions_and_software_go_down_to_nobody() {
        let headers = map(&[
            "Set-Cookie",
            "X-Deki-Token",
            "X-Authtoken",
            "X-Deki-Site",
            "X-Dream-Transport",
            "X-Data-Stats",
            "X-Deki-DB-Calls",
            "P3P",
            "Server",
            "X-Powered-By",
            "Access-Control-Allow-Origin",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Upgrade",
            "Trailer",
            "TE",
            "Connection",
            "Alt-Svc",
            "X-Deki-Session",
            "ETag",
            "Content-Type",
            "Location",
        ]);
        let removed = answer(&headers);
        let mut left = kept(&headers, &removed);
        left.sort();
        assert_eq!(left, ["content-type", "etag", "location", "x-deki-session"]);
    }
}
