//! The caller whose signature a message bears.

use super::hmac::Scheme;
use super::{ActingCaller, Callers, Credential, Identified, Rejected, admit_from};
use crate::policy::Refusal;
use crate::policy::fault::MessageFault;
use crate::policy::proof::Need;
use crate::policy::request::{Body, Request};

impl Callers {
    /// Whether a request holds a signature that a caller of the route is known by.
    pub(super) fn is_signed(&self, request: &Request<'_>) -> Result<bool, Refusal> {
        let mut is_signed = false;
        for (_, scheme) in self.schemes() {
            let mut headers = scheme.headers();
            let signature = headers.next().map(|name| request.all(name));
            if signature.is_some_and(|mut values| values.any(|value| !value.is_empty())) {
                if scheme.headers().any(|name| request.nominates(name)) {
                    return Err(Refusal::BadMessage(MessageFault::Connection));
                }
                is_signed = true;
            }
        }
        Ok(is_signed)
    }

    fn schemes(&self) -> impl Iterator<Item = (&ActingCaller, &Scheme)> {
        let signing = self.signing.iter().map(|index| &self.all[*index]);
        signing.filter_map(|acting| match &acting.caller.credential {
            Some(Credential::Signature(scheme)) => Some((acting, scheme)),
            _ => None,
        })
    }

    /// The only caller whose signature a message bears. Of several reasons why it is none's, the one of
    /// the caller whose it is most nearly is told.
    pub(super) fn by_signature(&self, request: &Request<'_>) -> Result<Identified<'_>, Rejected> {
        let mut fault = None;
        let mut claimed = Vec::new();
        for (acting, scheme) in self.schemes() {
            match scheme.read(request) {
                Ok(Some(claim)) => claimed.push((acting, scheme, claim)),
                Ok(None) => {}
                Err(other) => fault = fault.max(Some(other)),
            }
        }
        // Before a byte of the body is read.
        if claimed.is_empty() {
            return Err(fault.map_or(Refusal::CredentialUnknown.into(), Rejected::from));
        }
        let body = match (&request.proof.body, request.body) {
            (Some(body), _) => &**body,
            (None, Body::None | Body::Length(0)) => b"",
            (None, _) => {
                let callers = claimed.iter().map(|(acting, scheme, _)| (*acting, *scheme));
                return self.ask_for_body(callers, request);
            }
        };
        let mut found = None;
        for (acting, scheme, claim) in &claimed {
            match scheme.verify(request, claim, body) {
                Ok(_) if found.is_some() => return Err(Refusal::AmbiguousCredential.into()),
                Ok(_) if body.len() as u64 > scheme.rules().body_bytes_max => {
                    return Err(Rejected::from(Refusal::BodyTooLarge).of(acting));
                }
                Ok(signature) => {
                    found = Some((*acting, scheme.once(&acting.caller.name, signature)))
                }
                Err(other) => fault = fault.max(Some(other)),
            }
        }
        match (found, fault) {
            (Some((acting, once)), _) => Ok(Identified::Signed(acting, once)),
            (None, Some(fault)) => Err(fault.into()),
            (None, None) => Err(Refusal::CredentialUnknown.into()),
        }
    }

    /// Asks for the body of a message that one of these may have signed. A body is read for nobody who
    /// would be refused whatever is in it.
    fn ask_for_body<'c>(
        &self,
        callers: impl Iterator<Item = (&'c ActingCaller, &'c Scheme)>,
        request: &Request<'_>,
    ) -> Result<Identified<'c>, Rejected> {
        let mut most = None;
        let mut refused = Refusal::CredentialUnknown.into();
        for (acting, scheme) in callers {
            let judged = self.check_certificate(acting, request);
            match judged.and_then(|()| admit_from(acting, request)) {
                Ok(()) => most = most.max(Some(scheme.rules().body_bytes_max)),
                // Its signature is not proved yet.
                Err(rejected) => {
                    refused = Rejected {
                        caller: None,
                        ..rejected
                    }
                }
            }
        }
        let bytes_max = most.ok_or(refused)?;
        Ok(Identified::Needs(Need::Body { bytes_max }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::hmac::presets::{ZENDESK_TEST_SECRET, preset};
    use super::super::hmac::rules::Rules;
    use super::*;
    use crate::policy::acts_as::ActsAs;
    use crate::policy::caller::Caller;
    use crate::policy::peer::Networks;
    use crate::policy::proof::Proof;
    use crate::policy::request::tests::{fields, request};
    use crate::policy::route::Access;
    use crate::policy::tests::route;
    use crate::policy::{Policy, Verdict};
    use crate::signing::{Epoch, Secret, User, UserEncoding};

    /// A route whose only caller is Zendesk, and its policy.
    fn policy(body_bytes_max: u64) -> Policy {
        policy_for(body_bytes_max, None)
    }

    /// The same where it may call from there only.
    fn policy_for(body_bytes_max: u64, allowed_addresses: Option<Networks>) -> Policy {
        let secret = Secret::new(ZENDESK_TEST_SECRET.to_owned());
        let scheme = Scheme::new(preset("zendesk").unwrap(), &[secret]).unwrap();
        let caller = Caller {
            name: "zendesk".into(),
            credential: Some(Credential::Signature(scheme)),
            certificate: None,
            allowed_addresses,
        };
        let mut route = route("hooks", "/crm");
        let Access::Server { callers, .. } = &mut route.access else {
            panic!("a route of callers");
        };
        **callers = Callers::new(vec![ActingCaller {
            caller: Arc::new(caller),
            acts_as: ActsAs::Fixed(User::parse("1", UserEncoding::Plain).unwrap()),
        }]);
        route.body_bytes_max = body_bytes_max;
        Policy::new(vec![Arc::new(route)])
    }

    const HEADERS: [(&str, &str); 3] = [
        ("host", "gw.example"),
        (
            "x-zendesk-webhook-signature",
            "FByJZLm3S/YrpvmQJdjhQbRN3LM9mHHGtzNT1smnqSc=",
        ),
        (
            "x-zendesk-webhook-signature-timestamp",
            "2026-07-14T12:00:00Z",
        ),
    ];

    #[test]
    fn what_is_asked_for_before_a_body_is_judged() {
        let fields = fields(&HEADERS);
        let mut request = request("POST", "/crm/@api/deki/pages/1/contents", &fields);
        request.at = Epoch::from_unix(1_784_030_400);
        let check = |request: &Request<'_>, route_max: u64, expected: Option<u64>| {
            let asked = match policy(route_max).decide(request).verdict {
                Verdict::Need(Need::Body { bytes_max }) => Some(bytes_max),
                Verdict::Forward(_) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(asked, expected, "{:?} {route_max}", request.body);
        };
        for empty in [Body::None, Body::Length(0)] {
            request.body = empty;
            check(&request, 1 << 30, None);
        }
        for body in [Body::Length(5), Body::Length(1 << 40), Body::Unknown] {
            request.body = body;
            check(&request, 1 << 30, Some(1 << 20));
            check(&request, 1000, Some(1000));
        }
        let proof = Proof {
            body: Some(Vec::new().into()),
            ..Proof::default()
        };
        request.proof = &proof;
        check(&request, 1000, None);
    }

    #[test]
    fn no_body_is_read_for_who_may_not_call_from_there() {
        let fields = fields(&HEADERS);
        let mut request = request("POST", "/crm/@api/deki/pages/1/contents", &fields);
        request.at = Epoch::from_unix(1_784_030_400);
        request.body = Body::Unknown;
        let outcome = |network: &str| {
            let networks = Networks::new(vec![network.parse().unwrap()]);
            let decision = policy_for(1000, Some(networks)).decide(&request);
            assert_eq!(decision.found.caller, None, "nothing is proved yet");
            match decision.verdict {
                Verdict::Need(_) => Ok(()),
                Verdict::Refuse(refusal) => Err(refusal),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(outcome("192.0.2.0/24"), Ok(()));
        assert_eq!(outcome("10.0.0.0/8"), Err(Refusal::AddressNotAllowed));
    }

    #[test]
    fn each_caller_has_its_own_longest_body() {
        let caller = |name: &str, secret: &str, body_bytes_max: u64| {
            let rules = Rules {
                body_bytes_max,
                ..preset("zendesk").unwrap()
            };
            let scheme = Scheme::new(rules, &[Secret::new(secret.to_owned())]).unwrap();
            ActingCaller {
                caller: Arc::new(Caller {
                    name: name.into(),
                    credential: Some(Credential::Signature(scheme)),
                    certificate: None,
                    allowed_addresses: None,
                }),
                acts_as: ActsAs::Fixed(User::parse("1", UserEncoding::Plain).unwrap()),
            }
        };
        let body = br#"{"ticket_id": 12345, "status": "open"}"#;
        let signature = "DM4vdWm3RFsaESVGQ1PGkJ2ES0CrXVJSpknXWR06Kss=";
        let signed = [HEADERS[0], (HEADERS[1].0, signature), HEADERS[2]];
        let fields = fields(&signed);
        let mut request = request("POST", "/", &fields);
        request.at = Epoch::from_unix(1_784_030_400);
        let proof = Proof {
            body: Some(body.to_vec().into()),
            ..Proof::default()
        };
        request.proof = &proof;
        let check = |most: u64, expected: Result<(), Refusal>| {
            let callers = Callers::new(vec![
                caller("small", ZENDESK_TEST_SECRET, most),
                caller("large", "another secret", 1000),
            ]);
            let judged = callers.by_signature(&request);
            let judged = judged.map(drop).map_err(|rejected| rejected.refusal);
            assert_eq!(judged, expected, "{most}");
        };
        check(body.len() as u64, Ok(()));
        check(body.len() as u64 - 1, Err(Refusal::BodyTooLarge));
    }

    #[test]
    fn who_signs_is_known_on_its_own_routes_only() {
        let fields = fields(&HEADERS);
        let mut request = request("GET", "/crm/@api/deki/pages/1/contents", &fields);
        request.at = Epoch::from_unix(1_784_030_400);
        let policy = policy(1000);
        assert!(policy.decide(&request).found.caller.is_some());
        assert!(!policy.knows_caller_of(&request));
    }
}
