//! The whole admission: whether a request may pass, as whom, and what goes upstream.
//!
//! [`Policy::decide`] is the one place that branches on what the files below find. It is a function
//! of its arguments: no clock, no environment, nothing remembered.

pub mod acts_as;
pub mod caller;
pub mod capability;
pub mod cors;
pub mod limit;
pub mod message;
pub mod method;
pub mod origin;
pub mod parameter;
pub mod refusal;
pub mod route;
pub mod site;
pub mod target;

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use self::capability::Allowed;
use self::cors::Sharing;
use self::message::Request;
use self::method::EffectiveMethod;
use self::origin::Presented;
use self::parameter::Parameters;
pub use self::refusal::Refusal;
use self::route::{Access, Route, Routes};
use self::target::Target;
use crate::signing::User;

/// The header that holds the MindTouch token.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-deki-token");

/// Compiled rules: what requests are judged by.
#[derive(Debug, Default)]
pub struct Policy {
    routes: Routes,
}

/// What was decided of a request, and what was found on the way there.
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
    /// A preflight, answered 204 with these headers.
    Preflight(cors::Headers),
    /// The request goes nowhere.
    Refuse(Refusal),
}

/// What was found before the verdict.
#[derive(Debug, Default)]
pub struct Found {
    /// The route that answers.
    pub route: Option<Arc<Route>>,
    /// The caller that was identified.
    pub caller: Option<Arc<str>>,
    /// What the request does at the site.
    pub effective_method: Option<Method>,
    /// Which page may read the answer.
    pub sharing: Sharing,
    /// The refusal that a `report_only` route let pass.
    pub would_refuse: Option<Refusal>,
}

/// The terms on which a request goes to a site.
#[derive(Debug)]
pub struct Admission {
    /// The route it goes by.
    pub route: Arc<Route>,
    /// What it is sent with.
    pub identity: Identity,
    /// What it does.
    pub method: EffectiveMethod,
    /// The target it is sent with: the bytes that came, behind the mount.
    pub target: String,
    /// Whether its answer holds a credential.
    pub mints: bool,
}

/// What a request is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A token minted for this user.
    User(User),
    /// The browser token.
    Page,
}

impl Policy {
    /// A policy of these routes. Without any, everything is refused.
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        Self {
            routes: Routes::new(routes),
        }
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// Decides what happens to a request.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let mut found = Found::default();
        let verdict = self
            .judge(request, &mut found)
            .unwrap_or_else(Verdict::Refuse);
        Decision { verdict, found }
    }

    fn judge(&self, request: &Request<'_>, found: &mut Found) -> Result<Verdict, Refusal> {
        let authority = request.check()?;
        let target = Target::parse(request.target, authority)?;
        let host = message::host_name(authority);
        let route = self
            .routes
            .find(&host, target.path())
            .ok_or(Refusal::NoRoute)?;
        found.route = Some(Arc::clone(route));
        let parameters = Parameters::judge(target.query());
        if let Some(asked) = cors::preflight_method(request.method, request.headers)? {
            return preflight(route, request, &target, &parameters?, &asked, found);
        }
        // First, so that an allowed page can read whatever refusal follows.
        let origin = check_origin(route, request.headers, found);
        let parameters = parameters?;
        check_token(route, request.headers)?;
        origin?;
        let identity = identify(route, request.headers, found)?;
        let method =
            EffectiveMethod::find(request.method, parameters.verb.as_ref(), request.headers)?;
        found.effective_method = Some(method.effective.clone());
        let mints = check_capability(route, &method, &target)?;
        if request
            .body_bytes()
            .is_some_and(|bytes| bytes > route.body_bytes_max)
        {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Verdict::Forward(Admission {
            route: Arc::clone(route),
            identity,
            method,
            target: target.behind(&route.mount),
            mints,
        }))
    }
}

/// Judges a preflight as the request it asks for, but for the credential, which it cannot carry.
fn preflight(
    route: &Arc<Route>,
    request: &Request<'_>,
    target: &Target<'_>,
    parameters: &Parameters,
    asked: &Method,
    found: &mut Found,
) -> Result<Verdict, Refusal> {
    check_origin(route, request.headers, found)?;
    // Only a page that gets its answer is told that it may read one.
    let sharing = std::mem::take(&mut found.sharing);
    let method = EffectiveMethod::find(asked, parameters.verb.as_ref(), &HeaderMap::new())?;
    found.effective_method = Some(method.effective.clone());
    check_capability(route, &method, target)?;
    Ok(Verdict::Preflight(route.preflights.answer(&sharing)))
}

/// Finds out whether the page may ask, and notes which page may read the answer.
fn check_origin(route: &Route, headers: &HeaderMap, found: &mut Found) -> Result<(), Refusal> {
    let presented = match &route.access {
        Access::Browser => {
            let token = route.site.browser_token.as_ref();
            token.map_or(Presented::Malformed, |token| {
                token.allowed_hosts.check(headers)
            })
        }
        Access::Server { origins, .. } => origins.check(headers),
    };
    let is_browser = matches!(route.access, Access::Browser);
    let refusal = match presented {
        Presented::Allowed(origin) => {
            found.sharing = Sharing {
                origin: Some(origin.clone()),
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
        found.sharing.origin = Some(origin.clone());
    }
    found.would_refuse = Some(refusal);
    Ok(())
}

/// Refuses a token of the caller's own; a page may send the browser token it has always sent.
fn check_token(route: &Route, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut sent = headers.get_all(TOKEN_HEADER).iter();
    let is_ours = |value: &HeaderValue| match &route.access {
        Access::Browser => route
            .site
            .browser_token
            .as_ref()
            .is_some_and(|token| token.is(value)),
        Access::Server { .. } => false,
    };
    match (sent.next(), sent.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if is_ours(value) => Ok(()),
        _ => Err(Refusal::CallerSentToken),
    }
}

/// Finds out who calls, and with that as whom the request goes on.
fn identify(route: &Route, headers: &HeaderMap, found: &mut Found) -> Result<Identity, Refusal> {
    match &route.access {
        Access::Browser => Ok(Identity::Page),
        Access::Server { callers, .. } => {
            let index = caller::identify(callers.iter().map(|acting| &*acting.caller), headers)?;
            let acting = &callers[index];
            found.caller = Some(Arc::clone(&acting.caller.name));
            Ok(Identity::User(acting.user.clone()))
        }
    }
}

/// Whether the route allows the call; `true` if its answer holds a credential.
fn check_capability(
    route: &Route,
    method: &EffectiveMethod,
    target: &Target<'_>,
) -> Result<bool, Refusal> {
    let mount_segments = route.mount.matches('/').count();
    let call = target.segments().get(mount_segments..).unwrap_or_default();
    match route.allow.judge(&method.effective, call) {
        Allowed::Yes => Ok(false),
        Allowed::YesAndMints => Ok(true),
        Allowed::No => Err(Refusal::CapabilityMissing),
        Allowed::NoItMints => Err(Refusal::MintsCredentials),
    }
}
