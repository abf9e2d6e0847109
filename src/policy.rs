//! The whole admission: whether a request may pass, as whom, and what goes upstream.
//!
//! [`Policy::decide`] is the one place that branches on what the files below find. It is a function
//! of its arguments: no clock, no environment, nothing remembered.

pub mod acts_as;
pub mod caller;
pub mod capability;
pub mod cors;
pub mod effective;
pub(crate) mod escape;
pub mod fault;
pub mod forwarded;
pub mod host;
pub mod limit;
pub mod method;
pub(crate) mod names;
pub mod origin;
pub mod parameter;
pub mod peer;
pub mod proof;
mod reading;
pub mod refusal;
pub mod request;
pub mod route;
pub mod site;
pub mod target;
pub mod x509;

use std::collections::HashSet;
use std::sync::Arc;

use self::acts_as::ActingCaller;
use self::caller::hmac::Once;
use self::caller::jwt::Issuer;
use self::caller::{Callers, Credential, Identified, is_key_of_ours};
use self::capability::Allowed;
use self::cors::{Preflights, Sharing};
use self::host::Authority;
use self::method::EffectiveMethod;
use self::origin::Presented;
use self::parameter::Parameters;
use self::proof::Need;
pub use self::refusal::Refusal;
pub use self::request::Request;
use self::request::{Body, Repeated};
use self::route::{Access, Route, Routes};
use self::target::Target;
use crate::signing::User;

/// The header that holds the MindTouch token.
pub const TOKEN_HEADER: &str = "x-deki-token";

/// Compiled rules: what requests are judged by.
#[derive(Debug, Default)]
pub struct Policy {
    routes: Routes,
    /// The callers of all routes, but for those that sign.
    callers: Callers,
}

/// What was decided of a request, and what was found on the way there. Nothing in it borrows from
/// the request.
#[derive(Debug)]
pub struct Decision {
    /// Yes with its terms, an answer of our own, or no with its reason.
    pub verdict: Verdict,
    /// What the record and the answer need to know, as far as it was found.
    pub found: Found,
}

/// Yes, here is the answer, or no.
#[derive(Debug)]
pub enum Verdict {
    /// The request goes to the site on these terms.
    Forward(Admission),
    /// A preflight, answered so to the page that [`Found::sharing`] names.
    Preflight(Preflights),
    /// An OPTIONS that may go no further (RFC 9110 section 7.6.2), answered with these methods.
    Options(Arc<str>),
    /// That cannot be told before this is known: then it is to be decided again.
    Need(Need),
    /// The request goes nowhere.
    Refuse(Refusal),
}

/// What was found before the verdict.
#[derive(Debug, Default)]
pub struct Found {
    /// The route that answers.
    pub route: Option<Arc<Route>>,
    /// The caller whose credential was proved, whatever else is wrong.
    pub caller: Option<Arc<str>>,
    /// What exactly is wrong with the credential presented: one word of a closed list.
    pub credential_fault: Option<&'static str>,
    /// What follows from the message being signed, if it is.
    pub signed: Option<Box<Signed>>,
    /// As whom the caller acts.
    pub user: Option<User>,
    /// Whether the request chose that user.
    pub chose_user: bool,
    /// What the request came as, and what it does at the site.
    pub effective_method: Option<EffectiveMethod>,
    /// Which page may read the answer.
    pub sharing: Sharing,
    /// Whether browsers are told to come back over TLS only: the request came so, to a host that the
    /// file names.
    pub keeps_to_tls: bool,
    /// The pattern of the capability that covers it, such as `pages/*/contents`.
    pub endpoint: Option<Arc<str>>,
    /// Whether its target could be read, whatever came of it.
    pub is_readable: bool,
    /// The page that is on no list.
    pub foreign: Option<Foreign>,
    /// The refusal that a `report_only` route let pass.
    pub would_refuse: Option<Refusal>,
}

/// What follows from a message being signed by its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// That the message counts once, where nothing in it says when it was signed.
    pub once: Option<Once>,
    /// Query parameters that were for the gateway: they do not go up.
    pub drop_query: Vec<Box<str>>,
}

/// A page's origin that a route does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// As it came: an origin that a browser sends.
    pub origin: Box<str>,
    /// The configured pattern it is nearest to, if one is near.
    pub nearest: Option<Box<str>>,
}

/// The terms on which a request goes to a site.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The route it goes by.
    pub route: Arc<Route>,
    /// What it is sent with.
    pub identity: Identity,
    /// What it does.
    pub method: EffectiveMethod,
    /// Where in the request's target begins what is sent: the bytes after the mount.
    pub target_from: usize,
    /// Whether its answer holds a credential.
    pub mints: bool,
    /// What follows from its being signed, if it is.
    pub signed: Option<Box<Signed>>,
}

/// What a request is sent with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A token minted for this user.
    User(User),
    /// The browser token.
    Page,
}

impl Policy {
    /// A policy of these routes. Without any, everything is refused.
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        let mut names = HashSet::new();
        let callers = routes.iter().flat_map(|route| match &route.access {
            Access::Server { callers, .. } => callers.iter().collect(),
            Access::Browser => Vec::new(),
        });
        // Who signs is known on its own routes only: elsewhere a stranger would have its message judged
        // with every secret there is.
        let signs = |acting: &&ActingCaller| {
            matches!(acting.caller.credential, Some(Credential::Signature(_)))
        };
        let callers = callers.filter(|acting| !signs(acting));
        let once = callers.filter(|acting| names.insert(Arc::clone(&acting.caller.name)));
        Self {
            callers: Callers::new(once.cloned().collect()),
            routes: Routes::new(routes),
        }
    }

    /// Whether a request presents a caller's credential, be it for another route: it is no stranger's,
    /// whatever else is wrong with it.
    pub fn knows_caller_of(&self, request: &Request<'_>) -> bool {
        matches!(self.callers.identify(request), Ok(Identified::Caller(..)))
    }

    /// Whose tokens callers present.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        self.callers.issuers()
    }

    /// Every route, in the file's order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// Decides what happens to a request.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let mut found = Found::default();
        let verdict = self.judge(request, &mut found).unwrap_or_else(|refusal| {
            if found.route.is_none() {
                found.sharing = self.sharing_of_unjudged(request);
            }
            Verdict::Refuse(refusal)
        });
        Decision { verdict, found }
    }

    /// Which page may read why its request could not be judged: one that the route allows which
    /// answers there, as far as that can be told.
    fn sharing_of_unjudged(&self, request: &Request<'_>) -> Sharing {
        let host = request.only("host").unwrap_or_default();
        let Some(authority) = request.authority.or(host) else {
            return Sharing::default();
        };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let route = text(authority)
            .and_then(Authority::parse)
            .and_then(|authority| self.routes.find(authority, text(request.target)?));
        let mut found = Found::default();
        match route.map(|route| check_origin(route, request, &mut found)) {
            Some(Ok(())) if found.would_refuse.is_none() => found.sharing,
            _ => Sharing::default(),
        }
    }

    fn judge(&self, request: &Request<'_>, found: &mut Found) -> Result<Verdict, Refusal> {
        let authority = request.check()?;
        let tls = request.peer.tls.as_ref();
        // Whoever took one connection for several hosts is told before anything is looked for.
        if tls.is_some_and(|tls| tls.shown.misdirects(&authority.canonical_host())) {
            return Err(Refusal::Misdirected);
        }
        let target = Target::parse(request.target, authority.text)?;
        found.is_readable = true;
        let route = self
            .routes
            .find(authority, target.path())
            .ok_or(Refusal::NoRoute)?;
        found.route = Some(Arc::clone(route));
        found.keeps_to_tls = tls.is_some() && route.host.is_some();

        let parameters = Parameters::judge(target.query(), route.allow.may_mint());
        if let Some(asked) = cors::preflight_method(request)? {
            return preflight(route, request, &target, &parameters?, asked, found);
        }

        // First, so that an allowed page can read whatever refusal follows.
        let origin = check_origin(route, request, found);
        let parameters = parameters?;
        check_token(route, request)?;
        origin?;

        let actor = match identify(route, request, found)? {
            Actor::Unsettled(need) => return Ok(Verdict::Need(need)),
            Actor::Known(identity) => Ok(identity),
            Actor::Denied(refusal) => Err(refusal),
        };
        let method = EffectiveMethod::find(request, parameters.verb.as_ref())?;
        found.effective_method = Some(method.clone());
        let mints = check_capability(route, &method, &target, found)?;
        if matches!(request.body, Body::Length(bytes) if bytes > route.body_bytes_max) {
            return Err(Refusal::BodyTooLarge);
        }
        let identity = actor?;
        if method.effective == http::Method::OPTIONS && is_for_us(request) {
            return Ok(Verdict::Options(Arc::clone(&route.preflights.methods)));
        }
        Ok(Verdict::Forward(Admission {
            route: Arc::clone(route),
            identity,
            method,
            target_from: target.path_start() + route.mount.as_str().len(),
            mints,
            signed: found.signed.take(),
        }))
    }
}

/// Judges a preflight as the request it asks for, but for the credential, which it cannot carry.
fn preflight(
    route: &Route,
    request: &Request<'_>,
    target: &Target<'_>,
    parameters: &Parameters,
    asked: &[u8],
    found: &mut Found,
) -> Result<Verdict, Refusal> {
    check_origin(route, request, found)?;
    // Only a page that gets its answer is told that it may read one.
    let sharing = std::mem::take(&mut found.sharing);
    let method = EffectiveMethod::of(asked, parameters.verb.as_ref(), None)?;
    found.effective_method = Some(method.clone());
    check_capability(route, &method, target, found)?;
    found.sharing = sharing;
    Ok(Verdict::Preflight(route.preflights.clone()))
}

/// Finds out whether the page may ask, and notes which page may read the answer.
fn check_origin(route: &Route, request: &Request<'_>, found: &mut Found) -> Result<(), Refusal> {
    let is_browser = route.is_for_browsers();
    let origins = match (&route.access, &route.site.browser_token) {
        (Access::Server { origins, .. }, _) => origins,
        (Access::Browser, Some(token)) => &token.allowed_hosts,
        (Access::Browser, None) => return Err(Refusal::OriginNotAllowed),
    };
    let presented = origins.check(request);
    if let Presented::Foreign(origin) = presented {
        let nearest = origins.nearest(origin);
        found.foreign = Some(Foreign {
            origin: origin.into(),
            nearest: nearest.map(|pattern| pattern.to_string().into()),
        });
    }
    let refusal = match presented {
        Presented::Allowed(origin) => {
            found.sharing = Sharing {
                origin: Some(origin.into()),
                with_credentials: is_browser,
            };
            return Ok(());
        }
        Presented::Missing if !is_browser => return Ok(()),
        Presented::Missing => Refusal::OriginMissing,
        Presented::Foreign(_) | Presented::Malformed => Refusal::OriginNotAllowed,
    };
    if !route.report_only {
        return Err(refusal);
    }
    if let Presented::Foreign(origin) = presented {
        // Without credentials: those go with allowed origins only.
        found.sharing.origin = Some(origin.into());
    }
    found.would_refuse = Some(refusal);
    Ok(())
}

/// Refuses a token of the caller's own. A page may send the browser token it has always sent, and a
/// caller a key of ours in its place.
fn check_token(route: &Route, request: &Request<'_>) -> Result<(), Refusal> {
    let browser_token = match &route.access {
        Access::Browser => route.site.browser_token.as_ref(),
        Access::Server { .. } => None,
    };
    match request.only(TOKEN_HEADER) {
        Ok(None) => Ok(()),
        Ok(Some(value)) => {
            let is_known = match browser_token {
                Some(token) => token.is(value),
                None => is_key_of_ours(value),
            };
            is_known.then_some(()).ok_or(Refusal::CallerSentToken)
        }
        Err(Repeated) => Err(Refusal::CallerSentToken),
    }
}

/// As whom a request goes on, as far as that is known.
enum Actor {
    /// As this one.
    Known(Identity),
    /// As a user that its caller may not be. It is told so after all else, which concerns every user.
    Denied(Refusal),
    /// That cannot be told before this is known.
    Unsettled(Need),
}

/// Finds out who calls, and with that as whom the request goes on.
fn identify(route: &Route, request: &Request<'_>, found: &mut Found) -> Result<Actor, Refusal> {
    let Access::Server { callers, .. } = &route.access else {
        return Ok(Actor::Known(Identity::Page));
    };
    let identified = callers.identify(request).map_err(|rejected| {
        found.credential_fault = rejected.cause;
        found.caller = rejected.caller;
        rejected.refusal
    });
    let (acting, claims) = match identified? {
        Identified::Caller(acting, claims) => (acting, claims),
        Identified::Signed(acting, once) => {
            found.signed = Some(Box::new(acting.signed(once)));
            (acting, None)
        }
        Identified::Needs(Need::Body { bytes_max }) => {
            let bytes_max = bytes_max.min(route.body_bytes_max);
            return Ok(Actor::Unsettled(Need::Body { bytes_max }));
        }
        Identified::Needs(need) => return Ok(Actor::Unsettled(need)),
    };
    found.caller = Some(Arc::clone(&acting.caller.name));
    Ok(match acting.acts_as.choose(request, claims.as_deref()) {
        Ok(user) => {
            found.chose_user = acting.acts_as.fixed().is_none();
            found.user = Some(user.clone());
            Actor::Known(Identity::User(user))
        }
        Err(refusal) => Actor::Denied(refusal),
    })
}

/// Whether a request may not be forwarded once: `Max-Forwards: 0`.
fn is_for_us(request: &Request<'_>) -> bool {
    let is_zero = |value: &[u8]| !value.is_empty() && value.iter().all(|digit| *digit == b'0');
    request.all("max-forwards").any(is_zero)
}

/// Whether the route allows the call; notes the endpoint it is, and says whether its answer holds a
/// credential.
fn check_capability(
    route: &Route,
    method: &EffectiveMethod,
    target: &Target<'_>,
    found: &mut Found,
) -> Result<bool, Refusal> {
    let call = target
        .segments()
        .get(route.mount.segments()..)
        .unwrap_or_default();
    match route.allow.judge(&method.effective, call) {
        Allowed::Yes { endpoint, mints } => {
            found.endpoint = Some(endpoint);
            Ok(mints)
        }
        Allowed::No => Err(Refusal::CapabilityMissing),
        Allowed::NoItMints => Err(Refusal::MintsCredentials),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::acts_as::ActsAs;
    use super::caller::{Caller, KeyDigest};
    use super::capability::{Allowance, Minting, Pattern, Rule};
    use super::origin::{OriginPattern, Origins};
    use super::peer::Peer;
    use super::request::tests::{fields, request};
    use super::route::Mount;
    use super::site::{BrowserToken, Site, SiteAddress, Timeouts};
    use super::*;
    use crate::signing::{Dialect, Secret, Signer, UserEncoding};

    /// The key of the server token of [`site`].
    pub(crate) const TOKEN_KEY: &str = "dacaffe7ce69dfd1";
    /// The browser token of [`site`].
    pub(crate) const BROWSER_KEY: &str = "b20c5e2de7e1b20c";
    /// The key of the only caller of [`route`].
    pub(crate) const API_KEY: &str = "cs_key";

    fn origins(list: &str) -> Origins {
        Origins::new(OriginPattern::parse_list(list).unwrap())
    }

    /// A site in a test.
    pub(crate) fn site() -> Site {
        let secret = |text: &str| Secret::new(text.to_owned());
        let signer = Signer::new(Dialect::Tkn, &secret(TOKEN_KEY), &secret("canary-secret"));
        let address = SiteAddress {
            tls: true,
            host: "acme.mindtouch.us".to_owned(),
            port: 443,
            ca: None,
        };
        Site {
            name: "acme".into(),
            authority: address.authority().into(),
            address,
            signers: vec![signer.unwrap()],
            browser_token: BrowserToken::new(secret(BROWSER_KEY), origins("crm.example.com")),
            user_encoding: UserEncoding::Plain,
            probe_user: None,
            forwards_address: true,
            timeouts: Timeouts::default(),
            retries_max: 2,
        }
    }

    /// A route to [`site`] for one caller, which allows reading pages and more.
    pub(crate) fn route(name: &str, mount: &str) -> Route {
        let rule = |method: http::Method, pattern: &str| Rule {
            method: Some(method),
            pattern: Pattern::parse(pattern).unwrap(),
        };
        let rules = [
            rule(http::Method::GET, "pages/*/contents"),
            rule(http::Method::PUT, "pages/*/properties/*"),
            rule(http::Method::POST, "pages/*/contents"),
            rule(http::Method::OPTIONS, "pages/*/contents"),
        ];
        let minting = vec![rule(http::Method::POST, "users/authenticate")];
        let minting = Minting::new(minting, Vec::new());
        let allow = Allowance::new(&[], rules.into(), minting.into(), true);
        Route {
            name: name.into(),
            host: None,
            mount: Mount::parse(mount).unwrap_or_default(),
            site: Arc::new(site()),
            access: Access::Server {
                callers: Box::new(Callers::new(vec![ActingCaller {
                    caller: Arc::new(Caller {
                        name: "crm".into(),
                        credential: Some(Credential::ApiKeys(vec![KeyDigest::of(
                            API_KEY.as_bytes(),
                        )])),
                        certificate: None,
                        allowed_addresses: None,
                    }),
                    acts_as: ActsAs::Fixed(User::parse("=crm-bot", UserEncoding::Plain).unwrap()),
                }])),
                origins: origins("app.example.com"),
            },
            preflights: Preflights::new(&allow.methods(), ["x-api-key"]),
            allow,
            request_headers: Vec::new(),
            answer_headers: Vec::new(),
            body_bytes_max: 100,
            report_only: false,
            return_sessions: false,
        }
    }

    /// A route of pages to [`site`].
    pub(crate) fn widget() -> Route {
        Route {
            access: Access::Browser,
            ..route("widget", "/widget")
        }
    }

    /// What is decided of a request on either route.
    pub(crate) fn decide(request: &Request<'_>) -> Decision {
        Policy::new(vec![Arc::new(route("crm", "/crm")), Arc::new(widget())]).decide(request)
    }

    fn check(method: &str, target: &str, lines: &[(&str, &str)], expected: Result<&str, Refusal>) {
        let mut all = vec![("Host", "gw.example"), ("Cookie", "name=J\u{f6}rg")];
        all.extend_from_slice(lines);
        let fields = fields(&all);
        let verdict = decide(&request(method, target, &fields)).verdict;
        let seen = match &verdict {
            Verdict::Forward(admission) => Ok(&target[admission.target_from..]),
            Verdict::Preflight(preflights) => Ok(&*preflights.methods),
            Verdict::Options(methods) => Ok(&**methods),
            Verdict::Refuse(refusal) => Err(*refusal),
            Verdict::Need(need) => panic!("{need:?}"),
        };
        assert_eq!(seen, expected, "{method} {target} {lines:?}");
    }

    const KEY: (&str, &str) = ("X-Api-Key", API_KEY);
    const PAGE: (&str, &str) = ("Origin", "https://crm.example.com");
    const APP: (&str, &str) = ("Origin", "https://app.example.com");
    const CONTENTS: &str = "/crm/@api/deki/pages/=A%252FB/contents?x=/crm";

    #[test]
    fn a_call_goes_on_after_its_mount() {
        let rest = Ok("/@api/deki/pages/=A%252FB/contents?x=/crm");
        check("GET", CONTENTS, &[KEY], rest);
        check("HEAD", CONTENTS, &[KEY], rest);
        let absolute = format!("http://gw.example{CONTENTS}");
        check("GET", &absolute, &[KEY], rest);
        check("GET", CONTENTS, &[KEY, APP], rest);
        check("GET", &CONTENTS.replace("crm/@", "widget/@"), &[PAGE], rest);
    }

    #[test]
    fn what_was_found_is_told() {
        let fields = fields(&[
            ("host", "gw.example"),
            KEY,
            ("X-HTTP-Method-Override", "PUT"),
        ]);
        let target = "/crm/@api/deki/pages/1/properties/x";
        let mut request = request("POST", target, &fields);
        request.body = Body::Length(100);
        let decision = decide(&request);
        let Verdict::Forward(admission) = decision.verdict else {
            panic!("{:?}", decision.verdict);
        };
        assert_eq!(admission.method.on_the_wire(), "PUT");
        assert!(!admission.method.may_repeat() && !admission.mints);
        let found = decision.found;
        assert_eq!(found.endpoint.as_deref(), Some("pages/*/properties/*"));
        assert_eq!(found.caller.as_deref(), Some("crm"));
        assert_eq!(found.user.unwrap().as_sent(), "=crm-bot");
        assert_eq!(&*found.route.unwrap().name, "crm");
        assert_eq!(found.effective_method, Some(admission.method));

        request.body = Body::Length(101);
        let verdict = decide(&request).verdict;
        assert!(matches!(verdict, Verdict::Refuse(Refusal::BodyTooLarge)));
    }

    #[test]
    fn refusals_in_their_order() {
        let widget = "/widget/@api/deki/pages/1/contents";
        check("GET", "/nowhere", &[KEY], Err(Refusal::NoRoute));
        check("GET", CONTENTS, &[], Err(Refusal::CredentialMissing));
        check(
            "GET",
            CONTENTS,
            &[KEY, PAGE],
            Err(Refusal::OriginNotAllowed),
        );
        check("GET", widget, &[], Err(Refusal::OriginMissing));
        check("GET", widget, &[PAGE, PAGE], Err(Refusal::OriginNotAllowed));
        let token = ("X-Deki-Token", BROWSER_KEY);
        check(
            "GET",
            CONTENTS,
            &[KEY, token],
            Err(Refusal::CallerSentToken),
        );
        check(
            "GET",
            widget,
            &[PAGE, token, token],
            Err(Refusal::CallerSentToken),
        );
        check("GET", widget, &[PAGE, token], Ok(&widget[7..]));
        let ours = ("X-Deki-Token", API_KEY);
        check("GET", CONTENTS, &[ours], Ok(&CONTENTS[4..]));
        check("GET", widget, &[PAGE, ours], Err(Refusal::CallerSentToken));
        let signed = ("X-Deki-Token", "tkn_1_1_=a_00");
        let sent = Err(Refusal::CallerSentToken);
        check("GET", CONTENTS, &[KEY, signed], sent);
        check("GET", CONTENTS, &[KEY, ("X-Deki-Token", "")], sent);
        check("DELETE", CONTENTS, &[KEY], Err(Refusal::CapabilityMissing));
        let users = "/crm/@api/deki/users/authenticate";
        check("GET", users, &[KEY], Err(Refusal::MintsCredentials));
        check("POST", users, &[KEY], Ok(&users[4..]));
        let close = ("Connection", "close, X-Api-Key");
        let refused = Refusal::BadMessage(fault::MessageFault::Connection);
        check("GET", CONTENTS, &[KEY, close], Err(refused));
    }

    #[test]
    fn requests_of_one_connection_are_for_its_hosts() {
        let hosts = |name: &str| peer::HostNames::new(&[name.into()], Vec::new());
        let all: Arc<[_]> = [hosts("gw.example"), hosts("*.other.example")].into();
        let plain = Peer::plain([192, 0, 2, 1].into());
        let mut hosted = route("hosted", "/hosted");
        hosted.host = host::Host::parse("gw.example");
        let policy = Policy::new(vec![Arc::new(route("crm", "/crm")), Arc::new(hosted)]);
        let check = |peer: &Peer, host: &str, target: &str, expected: (bool, bool)| {
            let fields = fields(&[("Host", host), KEY]);
            let mut request = request("GET", target, &fields);
            request.peer = peer;
            let Decision { verdict, found } = policy.decide(&request);
            let is_misdirected = matches!(verdict, Verdict::Refuse(Refusal::Misdirected));
            let seen = (is_misdirected, found.keeps_to_tls);
            assert_eq!(seen, expected, "{host} {target}");
        };
        let hosted = "/hosted/@api/deki/pages/1/contents";
        for chosen in [0, 1] {
            let secured = peer::Secured {
                shown: peer::Shown::new(Arc::clone(&all), chosen),
                ..peer::Secured::default()
            };
            let peer = Peer {
                tls: Some(secured),
                ..plain.clone()
            };
            let is_first = chosen == 0;
            check(&peer, "GW.example.:8443", hosted, (!is_first, is_first));
            check(&peer, "gw.example", CONTENTS, (!is_first, false));
            check(&peer, "a.other.example:8443", CONTENTS, (is_first, false));
            check(&peer, "nobodys.example", CONTENTS, (false, false));
            check(&peer, "127.0.0.1", "/%zz", (false, false));
        }
        for host in ["gw.example", "a.other.example"] {
            check(&plain, host, hosted, (false, false));
        }
    }

    #[test]
    fn an_allowed_page_can_read_why_it_could_not_be_judged() {
        let check = |target: &str, lines: &[(&str, &str)], expected: Option<&str>| {
            let mut all = vec![("Host", "gw.example")];
            all.extend_from_slice(lines);
            let fields = fields(&all);
            let decision = decide(&request("GET", target, &fields));
            assert!(matches!(decision.verdict, Verdict::Refuse(_)), "{target}");
            let origin = decision.found.sharing.origin;
            assert_eq!(origin.as_deref(), expected, "{target} {lines:?}");
        };
        let ours = Some(PAGE.1);
        let bad = "/widget/@api/deki/../x";
        check(bad, &[PAGE], ours);
        check(bad, &[APP], None);
        check(bad, &[PAGE, PAGE], None);
        check("/crm/%zz", &[PAGE], None);
        check("/crm/%zz", &[APP], Some(APP.1));
        check("/nowhere/%zz", &[PAGE], None);
        check(
            "/widget/@api/deki/pages/1/contents",
            &[PAGE, ("Expect", "x")],
            ours,
        );
        check(
            "/widget/x",
            &[PAGE, ("Host", "gw.example"), ("Host", "b")],
            None,
        );
    }

    #[test]
    fn an_options_that_may_go_no_further_is_answered_here() {
        let rest = Ok(&CONTENTS[4..]);
        let methods = Ok("GET, HEAD, POST, PUT, OPTIONS");
        check("OPTIONS", CONTENTS, &[KEY], rest);
        check("OPTIONS", CONTENTS, &[KEY, ("Max-Forwards", "10")], rest);
        check("OPTIONS", CONTENTS, &[KEY, ("max-forwards", "0")], methods);
        check("OPTIONS", CONTENTS, &[KEY, ("Max-Forwards", "00")], methods);
        let missing = Err(Refusal::CredentialMissing);
        check("OPTIONS", CONTENTS, &[("Max-Forwards", "0")], missing);
        check("GET", CONTENTS, &[KEY, ("Max-Forwards", "0")], rest);
    }

    #[test]
    fn preflights_are_judged_as_what_they_ask_for() {
        let put = ("Access-Control-Request-Method", "PUT");
        let get = ("Access-Control-Request-Method", "GET");
        let methods = Ok("GET, HEAD, POST, PUT, OPTIONS");
        check("OPTIONS", CONTENTS, &[APP, get], methods);
        check(
            "OPTIONS",
            CONTENTS,
            &[APP, put],
            Err(Refusal::CapabilityMissing),
        );
        check(
            "OPTIONS",
            CONTENTS,
            &[PAGE, get],
            Err(Refusal::OriginNotAllowed),
        );
        for (asked, expected) in [(get, Some("https://app.example.com")), (put, None)] {
            let fields = fields(&[("host", "gw.example"), APP, asked]);
            let sharing = decide(&request("OPTIONS", CONTENTS, &fields)).found.sharing;
            assert_eq!(sharing.origin.as_deref(), expected, "{asked:?}");
        }
    }
}
