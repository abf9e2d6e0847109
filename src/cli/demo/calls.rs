//! The demo's calls and attacks, and how each should go.

use countersign_emulator::{Arrival, TokenSeen};

/// One request of the demo, and what should come of it.
pub(super) struct Call {
    /// The heading, where a new part begins.
    pub(super) part: Option<&'static str>,
    pub(super) about: &'static str,
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: &'static str,
    pub(super) with: With,
    pub(super) status: u16,
    /// The refusal's code, or empty.
    pub(super) refusal: &'static str,
    /// What the answer's body holds.
    pub(super) shows: &'static str,
    /// A header of the answer.
    pub(super) answer_header: Option<(&'static str, &'static str)>,
    pub(super) arrives: Arrives,
}

/// What goes with a call beside its headers, and where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// Nothing, without TLS: any gateway with the annotated proxy.yaml can be called so.
    Headers,
    /// Nothing, over TLS.
    Tls,
    /// Nothing, and plain HTTP where TLS is spoken.
    NoTls,
    /// A token with these claims, signed by the identity provider; over TLS, as all that follow.
    Token(&'static str),
    /// A certificate that is vouched for.
    Certificate,
    /// One with the same name that is not.
    StrangersCertificate,
    /// The signature of a webhook with this body.
    SignatureOf(&'static str),
    /// A user name and its password.
    Password,
}

/// What reaches the site.
#[derive(Clone, Copy)]
pub(super) enum Arrives {
    Nothing,
    /// One request, well signed, as this user.
    Signed(&'static str),
    /// One request with the browser token.
    FromPage,
}

/// What the site made of the token it got.
pub(super) fn token_name(arrival: &Arrival) -> &'static str {
    match arrival.token {
        TokenSeen::Server => "a valid signature",
        TokenSeen::Browser => "the browser token",
        TokenSeen::None => "no token",
        TokenSeen::Refused => "a token it refuses",
    }
}

pub(super) fn is_signed(arrival: &Arrival, user: &str) -> bool {
    matches!(arrival.token, TokenSeen::Server)
        && arrival.user.as_deref() == Some(user)
        && arrival
            .headers
            .iter()
            .all(|(name, _)| !KEPT_BACK.contains(&name.as_str()))
}

pub(super) fn is_from_page(arrival: &Arrival) -> bool {
    matches!(arrival.token, TokenSeen::Browser)
}

/// What the demo's callers and attackers send along, and must not arrive.
const KEPT_BACK: [&str; 10] = [
    "authorization",
    "cookie",
    "x-api-key",
    "x-apikey",
    "x-authtoken",
    "x-deki-site",
    "x-dream-origin",
    "x-forwarded-host",
    "x-zendesk-webhook-signature",
    "x-zendesk-webhook-signature-timestamp",
];

const KEY: (&str, &str) = ("X-Api-Key", "cs_demo_key_for_the_emulator_only");

const PLAIN: Call = Call {
    part: None,
    about: "",
    method: "GET",
    target: "",
    headers: &[KEY],
    body: "",
    with: With::Headers,
    status: 200,
    refusal: "",
    shows: "",
    answer_header: None,
    arrives: Arrives::Signed("crm-bot"),
};

const REFUSED: Call = Call {
    status: 403,
    arrives: Arrives::Nothing,
    ..PLAIN
};

/// By a token for this user.
const fn signed_in(about: &'static str, claims: &'static str, user: &'static str) -> Call {
    Call {
        about,
        target: "/portal/@api/deki/users/current",
        headers: &[],
        with: With::Token(claims),
        shows: user,
        arrives: Arrives::Signed(user),
        ..PLAIN
    }
}

const CERTIFIED: Call = Call {
    target: "/servicenow/@api/deki/users/current",
    headers: &[],
    with: With::Certificate,
    shows: "<username>crm-bot</username>",
    ..PLAIN
};

const WEBHOOK: &str = "<comment>Ticket 4711 is solved.</comment>";

const SIGNED: Call = Call {
    method: "POST",
    target: "/zendesk/@api/deki/pages/home/comments",
    headers: &[("Content-Type", "application/xml")],
    body: WEBHOOK,
    with: With::SignatureOf(WEBHOOK),
    ..PLAIN
};

const PAGE: (&str, &str) = ("Origin", "https://crm.example.com");

/// In the order they are made.
pub(super) const CALLS: &[Call] = &[
    Call {
        part: Some(
            "A CRM calls with its own key; the site sees a signed request of the user the policy chose:",
        ),
        about: "who am I?",
        target: "/crm/@api/deki/users/current",
        shows: "<username>crm-bot</username>",
        ..PLAIN
    },
    Call {
        about: "search, in JSON",
        target: "/crm/@api/deki/site/query?q=install&dream.out.format=json",
        headers: &[("Authorization", "Bearer cs_demo_key_for_the_emulator_only")],
        shows: "\"@querycount\"",
        ..PLAIN
    },
    Call {
        about: "write a page whose title has a slash and a space, encoded twice as the API wants it",
        method: "POST",
        target: "/crm-writing/@api/deki/pages/=Demo%252FHello%2520world/contents?edittime=now",
        headers: &[KEY, ("Content-Type", "text/plain; charset=utf-8")],
        body: "<p>Written through the gateway.</p>",
        shows: "status=\"success\"",
        ..PLAIN
    },
    Call {
        about: "read it back by the route that may only read",
        target: "/crm/@api/deki/pages/=Demo%252FHello%2520world/contents?dream.out.format=json",
        shows: "Written through the gateway.",
        ..PLAIN
    },
    Call {
        about: "the same caller sends forged identities along: none of them arrives",
        target: "/crm/@api/deki/users/current",
        headers: &[
            KEY,
            ("Cookie", "authtoken=\"1_admin\"; dekisession=1"),
            ("X-Authtoken", "1_admin"),
            ("X-ApiKey", "master"),
            ("X-Deki-Site", "id=another"),
            ("X-Dream-Origin", "http://localhost"),
            ("X-Forwarded-Host", "another.mindtouch.us"),
            ("Connection", "close, X-Deki-Token"),
        ],
        shows: "<username>crm-bot</username>",
        ..PLAIN
    },
    Call {
        part: Some("\nWhat is not allowed never reaches the site:"),
        about: "no credential",
        target: "/crm/@api/deki/users/current",
        headers: &[],
        status: 401,
        refusal: "credential_missing",
        ..REFUSED
    },
    Call {
        about: "a key nobody was given",
        target: "/crm/@api/deki/users/current",
        headers: &[("X-Api-Key", "cs_guessed")],
        status: 401,
        refusal: "credential_unknown",
        ..REFUSED
    },
    Call {
        about: "a token of the caller's own",
        target: "/crm/@api/deki/users/current",
        headers: &[KEY, ("X-Deki-Token", "tkn_key_1700000000_=admin_00")],
        status: 400,
        refusal: "caller_sent_token",
        ..REFUSED
    },
    Call {
        about: "a POST that turns into DELETE at the site, on the route that may only read",
        method: "POST",
        target: "/crm/@api/deki/pages/home?dream.in.verb=DELETE",
        refusal: "capability_missing",
        ..REFUSED
    },
    Call {
        about: "a session for the asking, in a spelling that filters miss",
        target: "/crm-writing/@api/deki/users/%61uthenticate",
        refusal: "mints_credentials",
        ..REFUSED
    },
    Call {
        about: "out of the API by an encoded dot segment",
        target: "/crm/@api/deki/%2e%2e/%2e%2e/Special:Admin",
        status: 400,
        refusal: "bad_target",
        ..REFUSED
    },
    Call {
        about: "a script wrapped around the answer, readable across origins",
        target: "/crm/@api/deki/users/current?dream.out.format=json&DREAM%2Eout.pre=steal(",
        status: 400,
        refusal: "forbidden_parameter",
        ..REFUSED
    },
    Call {
        part: Some("\nWeb pages need no key on a browser route, but must be at an allowed host:"),
        about: "a page at https://crm.example.com",
        target: "/widget/@api/deki/site/query?q=install",
        headers: &[PAGE],
        answer_header: Some(("access-control-allow-origin", "https://crm.example.com")),
        arrives: Arrives::FromPage,
        ..PLAIN
    },
    Call {
        about: "its preflight is answered by the gateway",
        method: "OPTIONS",
        target: "/widget/@api/deki/site/query?q=install",
        headers: &[
            PAGE,
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "x-deki-token"),
        ],
        status: 204,
        answer_header: Some(("access-control-allow-origin", "https://crm.example.com")),
        ..REFUSED
    },
    Call {
        about: "a page at a host that only looks like it",
        target: "/widget/@api/deki/site/query?q=install",
        headers: &[("Origin", "https://crm.example.com.evil.test")],
        refusal: "origin_not_allowed",
        ..REFUSED
    },
    Call {
        about: "no page at all, with the header that makes the site skip its own check",
        target: "/widget/@api/deki/site/query?q=install",
        headers: &[("X-Requested-With", "XMLHttpRequest")],
        refusal: "origin_missing",
        ..REFUSED
    },
    Call {
        part: Some(
            "\nOver TLS, a portal with an identity provider acts as the user who has signed in there, within bounds:",
        ),
        ..signed_in(
            "Anna has signed in",
            r#"{"azp": "portal", "preferred_username": "support-anna"}"#,
            "support-anna",
        )
    },
    signed_in(
        "Ben has signed in",
        r#"{"azp": "portal", "preferred_username": "support-ben"}"#,
        "support-ben",
    ),
    signed_in(
        "Chloe has signed in",
        r#"{"azp": "portal", "preferred_username": "support-chloe"}"#,
        "support-chloe",
    ),
    Call {
        about: "an administrator has signed in, and the portal may act as support-* only",
        target: "/portal/@api/deki/users/current",
        headers: &[],
        with: With::Token(r#"{"azp": "portal", "preferred_username": "admin"}"#),
        refusal: "user_not_allowed",
        ..REFUSED
    },
    Call {
        about: "Anna's token of another day",
        target: "/portal/@api/deki/users/current",
        headers: &[],
        with: With::Token(
            r#"{"azp": "portal", "preferred_username": "support-anna", "iat": 1700000000, "exp": 1700000300}"#,
        ),
        status: 401,
        refusal: "credential_expired",
        ..REFUSED
    },
    Call {
        part: Some("\nIn the TLS handshake a caller can prove itself, too:"),
        about: "with a certificate that the callers' authority vouches for",
        ..CERTIFIED
    },
    Call {
        about: "without one",
        with: With::Tls,
        status: 401,
        refusal: "credential_missing",
        shows: "",
        arrives: Arrives::Nothing,
        ..CERTIFIED
    },
    Call {
        about: "with one of the same name that somebody else made",
        with: With::StrangersCertificate,
        status: 401,
        refusal: "credential_unknown",
        shows: "",
        arrives: Arrives::Nothing,
        ..CERTIFIED
    },
    Call {
        about: "plain HTTP where TLS is spoken",
        with: With::NoTls,
        status: 400,
        refusal: "bad_message",
        shows: "https://",
        arrives: Arrives::Nothing,
        ..CERTIFIED
    },
    Call {
        part: Some("\nA product that signs each message is known by its signature:"),
        about: "Zendesk comments on a page",
        shows: "Ticket 4711 is solved.",
        ..SIGNED
    },
    Call {
        about: "the same message with one byte changed",
        body: "<comment>Ticket 4712 is solved.</comment>",
        status: 401,
        refusal: "credential_unknown",
        arrives: Arrives::Nothing,
        ..SIGNED
    },
    Call {
        part: Some("\nAnd what can do nothing else has a user name and a password:"),
        about: "with its password",
        target: "/desk/@api/deki/users/current",
        headers: &[],
        with: With::Password,
        shows: "<username>crm-bot</username>",
        ..PLAIN
    },
    Call {
        about: "with a password that somebody guessed",
        target: "/desk/@api/deki/users/current",
        // desk:Summer2024!
        headers: &[("Authorization", "Basic ZGVzazpTdW1tZXIyMDI0IQ==")],
        with: With::Tls,
        status: 401,
        refusal: "credential_unknown",
        ..REFUSED
    },
];
