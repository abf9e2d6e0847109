//! What goes to the site: the headers that are listed, then what we set, and the token at the end.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Edits, Keep, Nominated, REQUEST_ID_HEADER, Value, names};
use crate::policy::parameter;
use crate::policy::request::{Body, Field, Request, is_plain};
use crate::policy::route::Route;
use crate::policy::{Admission, Identity};
use crate::signing::{Epoch, SignedToken};

/// A request as it goes to the site, but for the token.
#[derive(Debug)]
pub struct Upward<'a> {
    /// The effective method.
    pub method: &'static str,
    /// The target: the bytes that came, after the mount and without the parameters that were for us.
    pub target: Cow<'a, [u8]>,
    /// What is done to the fields. What frames the body comes last in `set`, if anything does.
    pub edits: Edits<'a>,
}

/// The request that goes to the site for one that was admitted.
pub fn up<'a>(request: &Request<'a>, admission: &'a Admission, request_id: &'a str) -> Upward<'a> {
    let route = &*admission.route;
    let nominated = Nominated::by(request.fields);
    let mut keep = Keep::default();
    for (index, field) in request.fields.iter().enumerate() {
        if goes_up(field, route) && is_plain(field.value) && !nominated.has(field.name) {
            keep.insert(index);
        }
    }
    let mut set = Vec::with_capacity(4);
    set.push(("Host", Value::Bytes(route.site.authority.as_bytes())));
    if route.site.forwards_address {
        let address = Value::Text(address_text(request.client));
        set.push(("X-Forwarded-For", address));
    }
    set.push((REQUEST_ID_HEADER, Value::Bytes(request_id.as_bytes())));
    let method = admission.method.on_the_wire();
    set.extend(framing(method, request.body));
    let target = request.target.get(admission.target_from..);
    let signed = admission.signed.as_ref();
    let dropped = signed.map_or(&[][..], |signed| &signed.drop_query);
    Upward {
        method,
        target: parameter::without(target.unwrap_or_default(), dropped),
        edits: Edits { keep, set },
    }
}

/// The token of one attempt, to be written last as `X-Deki-Token`; `None` if the site has none for
/// this kind of route, and then nothing may be sent. `signer` is the position of the server token.
pub fn token(admission: &Admission, signer: usize, at: Epoch) -> Option<SignedToken> {
    let site = &admission.route.site;
    match &admission.identity {
        Identity::User(user) => Some(site.signers.get(signer)?.mint(user, at)),
        Identity::Page => Some(site.browser_token.as_ref()?.token()),
    }
}

fn goes_up(field: &Field<'_>, route: &Route) -> bool {
    names::UPWARD.has(field.name)
        || (route.is_for_browsers() && names::UPWARD_OF_PAGES.has(field.name))
        || route.request_headers.iter().any(|name| field.is(name))
}

/// An address as it is written. By hand for IPv4, where it costs a tenth of what `Display` does.
pub fn address_text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address.to_canonical() else {
        return address.to_string();
    };
    let mut text = String::with_capacity(15);
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

/// What says where the body ends (RFC 9112 section 6): a PUT or POST always says it, since servers
/// ask for a length where there is none.
fn framing(method: &str, body: Body) -> Option<(&'static str, Value<'static>)> {
    match body {
        Body::Length(bytes) => Some(("Content-Length", Value::Number(bytes))),
        Body::None if matches!(method, "POST" | "PUT") => {
            Some(("Content-Length", Value::Number(0)))
        }
        Body::None => None,
        Body::Unknown => Some(("Transfer-Encoding", Value::Static("chunked"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::lines;
    use super::*;
    use crate::policy::acts_as::{ActingCaller, ActsAs, Choice, Glob, Source, Taken};
    use crate::policy::caller::hmac::Scheme;
    use crate::policy::caller::hmac::presets::preset;
    use crate::policy::caller::hmac::rules::Rules;
    use crate::policy::caller::{Caller, Callers, Credential};
    use crate::policy::capability::{Allowance, Pattern, Rule};
    use crate::policy::origin::Origins;
    use crate::policy::request::tests::{fields, request};
    use crate::policy::route::Access;
    use crate::policy::tests::{API_KEY, BROWSER_KEY, TOKEN_KEY, decide, route, widget};
    use crate::policy::{Policy, Refusal, Verdict};
    use crate::signing::{Secret, User, UserEncoding};

    const CONTENTS: &str = "/crm/@api/deki/pages/1/contents?x=1";
    const OURS: [&str; 3] = [
        "Host: acme.mindtouch.us",
        "X-Forwarded-For: 192.0.2.7",
        "X-Request-Id: 00ff",
    ];

    fn admitted(request: &Request<'_>) -> Admission {
        match decide(request).verdict {
            Verdict::Forward(admission) => admission,
            other => panic!("{other:?}"),
        }
    }

    /// What goes up of these fields, beside the ones that every request of the route has.
    fn check(of_page: bool, sent: &[(&str, &str)], expected: &[&str]) {
        let mut all = vec![("Host", "gw.example")];
        let target = if of_page {
            all.push(("Origin", "https://crm.example.com"));
            CONTENTS.replace("/crm", "/widget")
        } else {
            all.push(("X-Api-Key", API_KEY));
            CONTENTS.to_owned()
        };
        all.extend_from_slice(sent);
        let fields = fields(&all);
        let request = request("GET", &target, &fields);
        let admission = admitted(&request);
        let upward = up(&request, &admission, "00ff");
        assert_eq!(&*upward.target, b"/@api/deki/pages/1/contents?x=1");
        let mut whole: Vec<&str> = expected.to_vec();
        if of_page {
            whole.insert(0, "Origin: https://crm.example.com");
        }
        whole.extend(OURS);
        assert_eq!(lines(&fields, &upward.edits), whole, "{sent:?}");
    }

    #[test]
    fn identities_sites_and_positions_go() {
        for name in [
            "Cookie",
            "X-Authtoken",
            "X-ApiKey",
            "Api-Key",
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
            "X.Deki.Token",
            "X+Deki+Token",
            "X-Deki-Token-",
            "X-Amzn-Oidc-Identity",
            "Remote_User",
            "X-Real-IP",
            "X-Request-Id",
            "Access-Control-Request-Method",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Countersign-Refusal",
            "Content-Length",
            "Transfer-Encoding",
            "Slug",
            "X-Anything",
        ] {
            check(false, &[(name, "x")], &[]);
            check(true, &[(name, "x")], &[]);
        }
        check(false, &[("Referer", "https://crm.example.com/case/1")], &[]);
        let referer = "Referer: https://crm.example.com/case/1";
        check(true, &[("Referer", &referer[9..])], &[referer]);
        check(true, &[("Authorization", "Bearer x")], &[]);
        check(true, &[("X-Deki-Token", BROWSER_KEY)], &[]);
        let page = ("Origin", "https://app.example.com");
        check(false, &[page], &[]);
    }

    #[test]
    fn what_the_api_needs_stays() {
        for name in [
            "Accept",
            "accept-language",
            "Content-Type",
            "content-disposition",
            "If-None-Match",
            "if-unmodified-since",
            "Range",
            "User-Agent",
            "X-Deki-Client",
            "traceparent",
        ] {
            let line = format!("{name}: x");
            check(false, &[(name, "x")], &[&line]);
            check(true, &[(name, "x")], &[&line]);
            check(false, &[(name, "x"), (name, "x")], &[&line, &line]);
        }
        check(
            false,
            &[("Expect", "100-continue")],
            &["Expect: 100-continue"],
        );
    }

    #[test]
    fn what_connection_names_goes() {
        let nominated = ("Connection", "close, If-Match ,X-Deki-Client");
        let sent = [nominated, ("If-Match", "1"), ("x-deki-client", "1")];
        check(false, &sent, &[]);
        let sent = [("connection", "keep-alive"), ("Accept", "*/*")];
        check(false, &sent, &["Accept: */*"]);
    }

    #[test]
    fn values_that_are_not_plain_go() {
        check(
            false,
            &[("User-Agent", "J\u{f6}rg"), ("Accept", "a")],
            &["Accept: a"],
        );
        check(false, &[("Cookie", "J\u{f6}rg")], &[]);
    }

    #[test]
    fn what_a_route_adds() {
        let fields = fields(&[("X-Widget-Version", "3"), ("X-Widget", "4")]);
        let request = request("GET", "/", &fields);
        let mut route = widget();
        route.request_headers = vec!["x-widget-version".into()];
        assert!(goes_up(&request.fields[0], &route));
        assert!(!goes_up(&request.fields[1], &route));
    }

    /// What goes up of a call that `HubSpot` signed, and as whom.
    fn signed_by_hubspot(acts_as: ActsAs, target: &str) -> Result<(String, String), Refusal> {
        let rules = Rules {
            public_url: "https://gw.example.com".into(),
            ..preset("hubspot").unwrap()
        };
        let secret = Secret::new("yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy".to_owned());
        let scheme = Scheme::new(rules, &[secret]).unwrap();
        let caller = Caller {
            name: "hubspot".into(),
            credential: Some(Credential::Signature(scheme)),
            certificate: None,
            allowed_addresses: None,
        };
        let acting = ActingCaller {
            caller: Arc::new(caller),
            acts_as,
        };
        let rule = Rule {
            method: Some(http::Method::GET),
            pattern: Pattern::parse("site/query").unwrap(),
        };
        let mut route = route("acme", "/acme");
        route.access = Access::Server {
            callers: Box::new(Callers::new(vec![acting])),
            origins: Origins::default(),
        };
        route.allow = Allowance::new(&[], [rule].into(), Arc::default(), false);
        let fields = fields(&[
            ("host", "gw.example.com"),
            (
                "x-hubspot-signature-v3",
                "XJJFPMYDUzg6RAw/kugkMJFLtQC6gBWdCutzgL2jx9g=",
            ),
            ("x-hubspot-request-timestamp", "1790000000000"),
        ]);
        let mut request = request("GET", target, &fields);
        request.at = Epoch::from_unix(1_790_000_000);
        let decision = Policy::new(vec![Arc::new(route)]).decide(&request);
        let admission = match decision.verdict {
            Verdict::Forward(admission) => admission,
            Verdict::Refuse(refusal) => return Err(refusal),
            other => panic!("{other:?}"),
        };
        let target = up(&request, &admission, "00ff").target;
        let user = decision.found.user.unwrap().as_sent().to_owned();
        Ok((user, String::from_utf8(target.into_owned()).unwrap()))
    }

    #[test]
    fn parameters_that_were_for_the_gateway_go() {
        let target = "/acme/@api/deki/site/query?q=hs%3Aapp%2Fv3&userId=1&portalId=62515&userEmail=a%40example.com&appId=54321";
        let up = |user: &str| {
            let target = "/@api/deki/site/query?q=hs%3Aapp%2Fv3";
            Ok((user.to_owned(), target.to_owned()))
        };
        let fixed = ActsAs::Fixed(User::parse("=bot", UserEncoding::Plain).unwrap());
        assert_eq!(signed_by_hubspot(fixed, target), up("=bot"));
        let taken = |parameter: &str, allowed: &str| {
            ActsAs::Taken(Arc::new(Taken {
                source: Source::SignedQuery(parameter.into()),
                choice: Choice::Names {
                    allow: vec![Glob::new(allowed)],
                    deny: Vec::new(),
                },
                encoding: UserEncoding::Percent,
            }))
        };
        let of_example = || taken("userEmail", "*@example.com");
        assert_eq!(
            signed_by_hubspot(of_example(), target),
            up("=a@example.com")
        );
        let refused = Err(Refusal::UserNotAllowed);
        assert_eq!(
            signed_by_hubspot(taken("userEmail", "*@other.example"), target),
            refused
        );
        let (user, target_up) = signed_by_hubspot(taken("q", "*"), target).unwrap();
        assert_eq!(
            (&*user, &*target_up),
            ("=hs%3Aapp%2Fv3", "/@api/deki/site/query")
        );
        for (there, instead) in [("a%40", "b%40"), ("&appId", "&userEmail=b&appId")] {
            let other = target.replace(there, instead);
            let unknown = Err(Refusal::CredentialUnknown);
            assert_eq!(signed_by_hubspot(of_example(), &other), unknown, "{other}");
        }
    }

    #[test]
    fn bodies_are_framed_last() {
        let check = |method: &str, overrides: &str, body: Body, expected: Option<&str>| {
            let fields = fields(&[
                ("host", "gw.example"),
                ("x-api-key", API_KEY),
                ("x-http-method-override", overrides),
                ("content-length", "77"),
            ]);
            let target = match overrides {
                "PUT" => "/crm/@api/deki/pages/1/properties/x",
                _ => CONTENTS,
            };
            let mut request = request(method, target, &fields);
            request.body = body;
            let admission = admitted(&request);
            let upward = up(&request, &admission, "00ff");
            assert_eq!(upward.method, overrides);
            let lines = lines(&fields, &upward.edits);
            let framing = lines.get(OURS.len()).map(String::as_str);
            assert_eq!(framing, expected, "{method} {overrides} {body:?}");
        };
        check("POST", "POST", Body::Length(9), Some("Content-Length: 9"));
        check("POST", "PUT", Body::None, Some("Content-Length: 0"));
        check("POST", "POST", Body::None, Some("Content-Length: 0"));
        check(
            "PUT",
            "PUT",
            Body::Unknown,
            Some("Transfer-Encoding: chunked"),
        );
        check(
            "GET",
            "GET",
            Body::Unknown,
            Some("Transfer-Encoding: chunked"),
        );
        check("GET", "GET", Body::None, None);
    }

    #[test]
    fn the_address_is_canonical_and_can_be_left_out() {
        let fields = fields(&[("host", "gw.example"), ("x-api-key", API_KEY)]);
        let mut request = request("GET", CONTENTS, &fields);
        request.client = "::ffff:192.0.2.9".parse().unwrap();
        let mut admission = admitted(&request);
        let seen = lines(&fields, &up(&request, &admission, "00ff").edits);
        assert_eq!(seen[1], "X-Forwarded-For: 192.0.2.9");

        let mut site = crate::policy::tests::site();
        site.forwards_address = false;
        let mut route = widget();
        route.site = Arc::new(site);
        admission.route = Arc::new(route);
        let seen = lines(&fields, &up(&request, &admission, "00ff").edits);
        assert_eq!(seen, ["Host: acme.mindtouch.us", "X-Request-Id: 00ff"]);
    }

    #[test]
    fn addresses_as_everybody_writes_them() {
        for octet in 0..=255 {
            let address = IpAddr::from([octet, 0, 10, octet]);
            assert_eq!(address_text(address), address.to_string());
        }
        assert_eq!(address_text("2001:db8::1".parse().unwrap()), "2001:db8::1");
    }

    #[test]
    fn each_kind_of_route_has_its_token() {
        let fields = fields(&[("host", "gw.example"), ("x-api-key", API_KEY)]);
        let mut admission = admitted(&request("GET", CONTENTS, &fields));
        let signed = token(&admission, 0, Epoch::from_unix(7)).unwrap();
        let opening = format!("tkn_{TOKEN_KEY}_7_=crm-bot_");
        assert!(signed.as_text().starts_with(&opening));
        assert_eq!(format!("{signed:?}"), "[redacted]");
        admission.identity = Identity::Page;
        let browser = token(&admission, 0, Epoch::from_unix(7)).unwrap();
        assert_eq!(browser.as_bytes(), BROWSER_KEY.as_bytes());
        let mut site = crate::policy::tests::site();
        site.browser_token = None;
        let mut route = widget();
        route.site = Arc::new(site);
        admission.route = Arc::new(route);
        assert!(token(&admission, 0, Epoch::from_unix(7)).is_none());
    }
}
