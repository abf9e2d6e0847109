//! Whatever bytes come: the parsers that face strangers do not panic, and what they accept holds what
//! they promise.
//!
//! Each test is a fuzz target. `cargo test` runs it over the seeds in `__fuzz__/*/corpus` and a
//! thousand inputs made at random; `cargo install cargo-bolero && cargo bolero test fuzz::target
//! --test it` runs it for as long as you like. What a run finds is kept as a new seed.

use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::config::reference::Sources;
use countersign::policy::caller::hmac::presets;
use countersign::policy::cors::Sharing;
use countersign::policy::forwarded::{Header, TrustedProxies};
use countersign::policy::origin::{OriginPattern, Origins, Presented};
use countersign::policy::peer::{Networks, Peer};
use countersign::policy::proof::{Need, Proof};
use countersign::policy::request::Body;
use countersign::policy::request::{Field, Request, Version};
use countersign::policy::target::Target;
use countersign::policy::x509::Contents;
use countersign::policy::{Admission, Policy, Verdict};
use countersign::rewrite::{self, Answer, Wants};
use countersign::signing::{Epoch, Secret, examine};
use countersign::wire::framing::{Decoder, of_answer, of_request};
use countersign::wire::head::{AnswerHead, Finder, RequestHead};
use countersign::wire::proxy_protocol;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::harness::certificate::Authority;
use crate::harness::{API_KEY, ROUTES, compile};

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    compile(ROUTES, "127.0.0.1:8088".parse().unwrap())
        .unwrap()
        .policy
});

static PEER: LazyLock<Peer> = LazyLock::new(|| Peer::plain([192, 0, 2, 7].into()));

fn request<'a>(method: &'a [u8], target: &'a [u8], fields: &'a [Field<'a>]) -> Request<'a> {
    let at = Epoch::from_unix(1_800_000_000);
    Request::new(&PEER, method, target, fields, at)
}

fn is_allowed(origins: &Origins, origin: &[u8]) -> bool {
    let fields = [Field {
        name: b"Origin",
        value: origin,
    }];
    matches!(
        origins.check(&request(b"GET", b"/", &fields)),
        Presented::Allowed(_)
    )
}

#[test]
fn target() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(target) = Target::parse(input, "gw.example") else {
            return;
        };
        let path = target.path();
        assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'));
        let whole = &input[target.path_start()..];
        assert!(
            whole.starts_with(path.as_bytes()),
            "what goes on is what came"
        );
        for segment in target.segments() {
            assert!(!segment.is_empty() && segment != "." && segment != "..");
            assert!(
                !segment
                    .chars()
                    .any(|c| c == '/' || c == '\\' || c.is_control())
            );
        }
        assert_eq!(
            Target::parse(whole, "other").map(|again| again.segments().to_vec()),
            Ok(target.segments().to_vec()),
            "it reads the same again"
        );
    });
}

/// Whatever a stranger sends to a trusted proxy, what that one adds decides.
#[test]
fn forwarded() {
    let trusted = |header| TrustedProxies {
        networks: Networks::new(vec!["192.0.2.0/24".parse().unwrap()]),
        header: Some(header),
    };
    bolero::check!().for_each(|input: &[u8]| {
        for (header, name, added) in [
            (Header::XForwardedFor, "X-Forwarded-For", ",203.0.113.7:80"),
            (
                Header::Forwarded,
                "Forwarded",
                ",for=203.0.113.7;host=\"a\\\"b\"",
            ),
        ] {
            let peer = Peer {
                trusted_proxies: trusted(header).into(),
                ..PEER.clone()
            };
            let client = |value: &[u8]| {
                let name = name.as_bytes();
                peer.client(&[Field { name, value }])
            };
            let _ = client(input);
            let passed_on = [input, added.as_bytes()].concat();
            assert_eq!(client(&passed_on).to_string(), "203.0.113.7");
        }
    });
}

/// A PROXY header is the same whatever follows, and all that comes before its end belongs to it.
#[test]
fn proxy_header() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(Some(header)) = proxy_protocol::read(input) else {
            return;
        };
        let whole = &input[..header.length];
        assert_eq!(proxy_protocol::read(whole), Ok(Some(header)));
        for end in 0..whole.len() {
            assert_eq!(proxy_protocol::read(&whole[..end]), Ok(None));
        }
    });
}

#[test]
fn origin() {
    let allowed = "crm.example.com, *.apps.example.com, shop.example.com:8443, http://localhost:*";
    let origins = Origins::new(OriginPattern::parse_list(allowed).unwrap());
    bolero::check!().for_each(|input: &[u8]| {
        if !is_allowed(&origins, input) {
            return;
        }
        let text = std::str::from_utf8(input).expect("what is allowed is ASCII");
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let below = text
            .strip_prefix("https://")
            .and_then(|host| host.strip_suffix(".apps.example.com"));
        let local = text.strip_prefix("http://localhost").is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok())
        });
        assert!(
            text == "https://crm.example.com"
                || text == "https://shop.example.com:8443"
                || local
                || below.is_some_and(|labels| labels.split('.').all(is_label)),
            "{text} is allowed"
        );
    });
}

#[test]
fn pattern() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let Ok(patterns) = OriginPattern::parse_list(text) else {
            return;
        };
        let origins = Origins::new(patterns);
        for stranger in ["https://stranger.test", "null", "https://com"] {
            assert!(
                !is_allowed(&origins, stranger.as_bytes()) || text.contains("stranger.test"),
                "{text:?} allows {stranger}"
            );
        }
    });
}

#[test]
fn configuration() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let sources = Sources {
            environment: &|_| Some("value".to_owned()),
            folder: PathBuf::new(),
        };
        if let Err(unusable) = countersign::config::load_text("x", text, &sources) {
            assert!(!unusable.problems.is_empty(), "there is a reason");
        }
    });
}

/// One route whose callers sign, in every product's way; one of a caller with a password.
static SIGNED: LazyLock<Policy> = LazyLock::new(|| {
    let (mut callers, mut routes) = (String::new(), String::new());
    let mut names = Vec::new();
    for preset in presets::NAMES {
        let secret = match preset {
            "standard-webhooks" | "svix" => "env:STANDARD_SECRET",
            _ => "env:HOOK_SECRET",
        };
        let url = match preset {
            "hubspot" => ", public_url: https://hooks.example.com",
            _ => "",
        };
        callers += &format!(
            "  {preset}: {{ hmac: {{ preset: {preset}, secret: {secret}{url} }}, acts_as: \"=bot\" }}\n"
        );
        names.push(preset);
    }
    callers += "  desk: { basic: { password: \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$rC5wOdNa+G0FGxcWYcQq0Hn6qLjh4vxuMEfLNphiY1s\" }, acts_as: \"=desk\" }\n";
    for (name, callers) in [("hooks", &*names.join(", ")), ("desk", "desk")] {
        routes += &format!(
            "  - {{ name: {name}, mount: /{name}, site: acme, token: server, callers: [{callers}], allow: [all] }}\n"
        );
    }
    let (before, _) = ROUTES.split_once("callers:\n").unwrap();
    let text = format!("{before}callers:\n{callers}routes:\n{routes}");
    let loaded = compile(&text, "127.0.0.1:8088".parse().unwrap());
    loaded
        .unwrap_or_else(|unusable| panic!("{unusable}"))
        .policy
});

/// Header lines of a message that some product is said to have signed: nobody guesses a signature, and
/// whoever tries is nobody. The word NOW in a seed is the time of the test, as each format has it.
#[test]
fn signature() {
    let body = Proof {
        body: Some((&b"{}"[..]).into()),
        ..Proof::default()
    };
    bolero::check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input)
            .replace("NOWMS", "1800000000000")
            .replace("NOWISO", "2027-01-15T08:00:00Z")
            .replace("NOW", "1800000000");
        let lines = text.split("\r\n").filter_map(|line| line.split_once(": "));
        let mut fields: Vec<_> = lines
            .map(|(name, value)| Field {
                name: name.as_bytes(),
                value: value.as_bytes(),
            })
            .collect();
        fields.retain(|field| !field.is("host"));
        fields.push(Field {
            name: b"Host",
            value: b"gw.example",
        });
        let target = b"/hooks/@api/deki/pages/home?userEmail=x";
        for proof in [&body, Proof::NONE] {
            let request = Request {
                body: Body::Length(2),
                proof,
                ..request(b"POST", target, &fields)
            };
            let decision = SIGNED.decide(&request);
            assert_eq!(decision.found.caller, None);
            match decision.verdict {
                Verdict::Refuse(_) => {}
                Verdict::Need(Need::Body { bytes_max }) => {
                    assert!(proof.body.is_none() && bytes_max <= 1 << 20);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// What follows `Basic`, as it is and as what it encodes.
#[test]
fn password() {
    let outcome = |value: &[u8], password_is_right| {
        let value = [b"Basic ", value].concat();
        let fields = [
            (&b"Host"[..], &b"gw.example"[..]),
            (b"Authorization", &value),
        ];
        let fields = fields.map(|(name, value)| Field { name, value });
        let proof = Proof {
            password_is_right,
            ..Proof::default()
        };
        let request = Request {
            proof: &proof,
            ..request(b"GET", b"/desk/@api/deki/pages/home", &fields)
        };
        SIGNED.decide(&request).verdict
    };
    bolero::check!().for_each(|input: &[u8]| {
        for pair in [input.to_vec(), STANDARD.encode(input).into_bytes()] {
            if let Verdict::Need(Need::Password {
                user_name,
                password,
                is_known,
                ..
            }) = outcome(&pair, None)
            {
                let decoded = STANDARD.decode(pair.trim_ascii()).expect("it was read");
                assert_eq!([&user_name, &b":"[..], &password].concat(), decoded);
                assert!(!user_name.contains(&b':'));
                assert_eq!(is_known, *user_name == *b"desk");
                // A name of nobody is nobody's, whosever password it is.
                let is_let_in = matches!(outcome(&pair, Some(true)), Verdict::Forward(_));
                assert_eq!(is_let_in, is_known);
            }
            let wrong = outcome(&pair, Some(false));
            assert!(matches!(wrong, Verdict::Refuse(_)), "{wrong:?}");
        }
    });
}

/// A certificate with bytes of a stranger's written over it, or a stranger's bytes alone.
#[test]
fn certificate() {
    let names = ["desk.example", "*.example"];
    let issued = Authority::new("ours").issue(&names, |_| {});
    let whole = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
    assert_eq!(
        &*Contents::read(&whole).unwrap().dns_names,
        names.map(Box::from)
    );
    bolero::check!().for_each(|input: &[u8]| {
        let mut changed = whole.to_vec();
        if let [high, low, bytes @ ..] = input {
            let at = usize::from(u16::from_be_bytes([*high, *low])) % changed.len();
            let end = (at + bytes.len()).min(changed.len());
            changed[at..end].copy_from_slice(&bytes[..end - at]);
        }
        for der in [input, &changed] {
            let Some(contents) = Contents::read(der) else {
                continue;
            };
            let of_name = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.*".contains(&byte)
            };
            for name in &contents.dns_names {
                assert!(!name.is_empty() && name.bytes().all(of_name), "{name:?}");
            }
            for uri in &contents.uris {
                assert!(
                    !uri.is_empty() && uri.bytes().all(|byte| byte.is_ascii_graphic()),
                    "{uri:?}"
                );
            }
            let now = Epoch::from_unix(1_800_000_000);
            let nearest = contents.nearest_to(now);
            assert_eq!(nearest == now, contents.is_in_date(now));
            assert_eq!(
                Contents::read(&[der, b"\0"].concat()),
                None,
                "and nothing else"
            );
        }
    });
}

/// A header section as it would come over the wire, decided by the policy of the other tests, and
/// rewritten if it may pass.
#[test]
fn decision() {
    bolero::check!().for_each(|input: &[u8]| {
        // A seed cannot know the key.
        let text = String::from_utf8_lossy(input).replace("KEY", API_KEY);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (
            words.next().unwrap_or_default().as_bytes(),
            words.next().unwrap_or_default().as_bytes(),
        );
        let fields: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| Field {
                name: name.as_bytes(),
                value: value.as_bytes(),
            })
            .collect();
        let request = request(method, target, &fields);
        let decision = POLICY.decide(&request);
        let wants = Wants::of(&request);
        match &decision.verdict {
            Verdict::Forward(admission) => {
                assert!(decision.found.effective_method.is_some());
                check_upward(&request, admission);
                check_downward(&fields, admission);
            }
            Verdict::Refuse(refusal) => {
                let sharing = &decision.found.sharing;
                let rewrite::Own { status, .. } =
                    rewrite::refusal(*refusal, None, wants, "00ff", sharing, None);
                assert!(status >= 400);
            }
            Verdict::Preflight(_) => assert!(decision.found.sharing.origin.is_some()),
            Verdict::Options(methods) => assert!(!methods.is_empty()),
            Verdict::Need(need) => panic!("{need:?} of a caller with a key"),
        }
    });
}

fn check_upward(request: &Request<'_>, admission: &Admission) {
    let route = &admission.route;
    let upward = rewrite::up(request, admission, "00ff");
    let target = String::from_utf8_lossy(&upward.target).to_ascii_lowercase();
    let target = target.replace("%40", "@");
    assert!(
        target.starts_with("/@api/deki/") || route.name.contains("all"),
        "{target}"
    );
    // Parameters are parted by `&` alone; within a value the word is a word.
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('&') {
        let name = parameter.split('=').next().unwrap_or_default();
        assert!(
            !["authtoken", "apikey", "x-deki-token"].contains(&name),
            "{target}"
        );
    }
    assert!(!admission.mints || matches!(&*route.name, "minting" | "sessions"));
    if &*route.name == "widget" {
        assert_eq!(request.all("origin").count(), 1);
    }
    for (index, field) in request.fields.iter().enumerate() {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        let secret = ["cookie", "auth", "key", "token", "host", "length", "coding"];
        let harmless = ["accept-encoding", "content-encoding"].contains(&&*name);
        assert!(
            harmless
                || !upward.edits.keep.contains(index)
                || !secret.iter().any(|part| name.contains(part)),
            "{name} goes up"
        );
    }
    for (name, value) in &upward.edits.set {
        let mut line = name.as_bytes().to_vec();
        value.write_to(&mut line);
        assert!(!line.iter().any(u8::is_ascii_control), "{line:?}");
    }
}

/// The fields of a request serve as those of an answer: they are as hostile.
fn check_downward(fields: &[Field<'_>], admission: &Admission) {
    let sharing = Sharing::default();
    for status in [200, 204, 304, 500] {
        let answer = Answer { status, fields };
        let Ok(edits) = rewrite::down(&answer, admission, &sharing, "00ff") else {
            continue;
        };
        for (index, field) in fields.iter().enumerate() {
            let value = String::from_utf8_lossy(field.value).to_ascii_lowercase();
            let shows = ["authtoken=", "authtoken%3d", "%61uthtoken=", "dekisession="]
                .iter()
                .any(|part| value.contains(part));
            assert!(!edits.keep.contains(index) || !shows);
        }
    }
}

/// Whatever stands before a trace, in whatever form, it is found.
#[test]
fn trace() {
    const TRACES: [&str; 4] = [
        "<stacktrace><frame>at A.B(C)</frame></stacktrace>",
        "\"stacktrace\":{\"frame\":[\"at A.B(C)\"]}",
        "s:10:\"stacktrace\";a:1:{i:0;s:9:\"at A.B(C)\";}",
        "\n   at A.B.C (System.String d) [0x0001c] in <5a2b>:0\n",
    ];
    bolero::check!().for_each(|input: &[u8]| {
        assert!(!rewrite::holds_trace(&[]));
        for trace in TRACES {
            let text = [input, trace.as_bytes()].concat();
            assert!(rewrite::holds_trace(&text), "{}", text.escape_ascii());
        }
        let readings = [input.into()];
        let judged = rewrite::judge_error(500, &readings);
        assert_eq!(judged.is_err(), rewrite::holds_trace(input));
    });
}

/// The guard's reader agrees with itself, however the bytes are cut.
#[test]
fn head() {
    bolero::check!().for_each(|input: &[u8]| {
        let whole = Finder::default().find(input);
        let mut finder = Finder::default();
        let mut pieces = Ok(None);
        let mut end = 0;
        while pieces == Ok(None) && end < input.len() {
            end = (end + 3).min(input.len());
            pieces = finder.find(&input[..end]);
        }
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "in pieces as in one"),
            (whole, pieces) => assert_eq!(whole.is_err(), pieces.is_err()),
        }
        let Ok(Some((start, end))) = whole else {
            return;
        };
        let bytes = &input[start..end];
        if let Ok(head) = RequestHead::parse(bytes) {
            assert!(!head.method.is_empty() && !head.target.is_empty());
            let mut again = [head.method, b" ", head.target].concat();
            again.extend(match head.version {
                Version::Http10 => b" HTTP/1.0\r\n",
                _ => b" HTTP/1.1\r\n",
            });
            for field in &head.fields {
                assert!(
                    !field
                        .value
                        .iter()
                        .any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
                );
                again.extend([field.name, b": ", field.value, b"\r\n"].concat());
            }
            again.extend(b"\r\n");
            assert_eq!(Finder::default().find(&again), Ok(Some((0, again.len()))));
            let read = RequestHead::parse(&again).expect("what is written reads the same");
            assert_eq!(read.fields.len(), head.fields.len());
            let body = of_request(head.version, &head.fields);
            assert_eq!(of_request(read.version, &read.fields), body);
        }
        if let Ok(head) = AnswerHead::parse(bytes) {
            assert!((100..1000).contains(&head.status));
            if let Ok((decoder, length)) = of_answer(head.version, &head.fields, false) {
                assert!(!decoder.ends_with_connection() || length.is_none());
            }
        }
        // Nothing is both.
        assert!(RequestHead::parse(bytes).is_err() || AnswerHead::parse(bytes).is_err());
        assert_ne!(Finder::default().find(b"\x16\x03\x01"), Ok(None));
    });
}

#[test]
fn body() {
    bolero::check!().for_each(|input: &[u8]| {
        let mut raw = input.to_vec();
        let mut decoder = Decoder::chunked();
        let whole = decoder
            .decode(&mut raw)
            .map(|decoded| (raw[..decoded.payload].to_vec(), decoded.consumed));
        let mut pieces = Decoder::chunked();
        let (mut payload, mut consumed) = (Vec::new(), 0);
        for piece in input.chunks(3) {
            let mut piece = piece.to_vec();
            let Ok(decoded) = pieces.decode(&mut piece) else {
                assert!(whole.is_err(), "in one as in pieces");
                return;
            };
            payload.extend_from_slice(&piece[..decoded.payload]);
            consumed += decoded.consumed;
            if pieces.is_done() {
                break;
            }
        }
        assert_eq!(whole.expect("in one as in pieces"), (payload, consumed));
        assert_eq!(decoder.is_done(), pieces.is_done());
        assert!(
            decoder.is_done() || consumed == input.len(),
            "all is read until the end"
        );
    });
}

#[test]
fn token() {
    let (key, secret) = (
        Secret::new("dacaffe7".to_owned()),
        Secret::new("5b703192".to_owned()),
    );
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let found = examine(text, &key, &secret, Epoch::from_unix(1_422_940_200));
        assert!(
            !found.is_accepted() || text.contains("5e"),
            "nobody guesses a signature: {text:?}"
        );
    });
}
