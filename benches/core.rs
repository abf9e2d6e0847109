//! The core by itself, without runtime and sockets: what a request costs before it is sent.
//!
//! `cargo bench --bench core`; compare medians of one run with each other, not with another machine's.

use std::hint::black_box;
use std::path::PathBuf;

use countersign::config::reference::Sources;
use countersign::config::{self, Loaded};
use countersign::policy::Verdict;
use countersign::policy::caller::KeyDigest;
use countersign::policy::message::Request;
use countersign::scrub::{self, Upward};
use countersign::signing::{Dialect, Epoch, Secret, Signer, User, UserEncoding};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

const KEY: &str = "dacaffe7ce69dfd1071531e925f667905a1c981fb40d06c676880e84352cb3aa";
const SECRET: &str = "5b70319201e9abad12a3458b32ed30cf634ef569ea47906e5012baf11cab5046";
const API_KEY: &str = "cs_a_key_of_a_caller_in_a_bench";

fn mint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mint");
    let (key, secret) = (Secret::new(KEY.to_owned()), Secret::new(SECRET.to_owned()));
    let user = User::parse("=crm-bot", UserEncoding::Plain).expect("a plain name");
    for (name, dialect) in [("tkn", Dialect::Tkn), ("legacy", Dialect::Legacy)] {
        let signer = Signer::new(dialect, &key, &secret).expect("a good key");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| signer.mint(black_box(&user), Epoch::from_unix(black_box(1_800_000_000))));
        });
    }
    group.finish();
}

/// A file with this many routes, each of a host of its own or below a mount of its own.
fn file(routes: usize) -> String {
    let digest = KeyDigest::of(API_KEY.as_bytes()).to_hex();
    let mut text = format!(
        "listeners: [{{ address: \"127.0.0.1:8080\" }}]\n\
         sites:\n  acme:\n    url: https://acme.mindtouch.us\n    \
         server_tokens: [{{ key: env:KEY, secret: env:SECRET }}]\n\
         callers:\n  crm: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"=crm-bot\" }}\n\
         routes:\n"
    );
    for number in 0..routes {
        let host = if number % 2 == 0 {
            format!("host: h{number}.example.com, ")
        } else {
            String::new()
        };
        text.push_str(&format!(
            "  - {{ name: r{number}, {host}mount: /m{number}, site: acme, token: server, callers: [crm], allow: [search, read-pages, read-files] }}\n"
        ));
    }
    text
}

fn load(text: &str) -> Loaded {
    let environment = |name: &str| match name {
        "KEY" => Some(KEY.to_owned()),
        "SECRET" => Some(SECRET.to_owned()),
        _ => None,
    };
    let sources = Sources {
        environment: &environment,
        folder: PathBuf::new(),
    };
    config::load_text("bench", text, &sources).expect("a good file")
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let method = Method::GET;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "gateway.example.com"),
        ("user-agent", "crm/1.0"),
        ("accept", "*/*"),
        ("x-api-key", API_KEY),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    for routes in [10, 100, 500] {
        let policy = load(&file(routes)).policy;
        let mount = routes / 2 * 2 - 1;
        for (name, target, passes) in [
            (
                "hit",
                format!("/m{mount}/@api/deki/pages/=Some%252FPage/contents?dream.out.format=json"),
                true,
            ),
            ("miss", "/nowhere/@api/deki/pages/home".to_owned(), false),
            (
                "refused",
                format!("/m{mount}/@api/deki/users/authenticate"),
                false,
            ),
        ] {
            let request = Request {
                method: &method,
                target: target.as_bytes(),
                authority: None,
                headers: &headers,
                version: Version::HTTP_11,
                has_body: false,
                head: None,
            };
            let verdict = policy.decide(&request).verdict;
            assert_eq!(
                matches!(verdict, Verdict::Forward(_)),
                passes,
                "{target}: {verdict:?}"
            );
            group.bench_with_input(
                BenchmarkId::new(format!("{routes}_routes"), name),
                &request,
                |bencher, request| {
                    bencher.iter(|| policy.decide(black_box(request)));
                },
            );
        }
    }
    group.finish();
}

fn scrubbing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrub");
    for count in [5, 30] {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("authtoken=1"));
        headers.insert("connection", HeaderValue::from_static("close, x-mine"));
        for number in headers.len()..count {
            let name = HeaderName::try_from(format!("x-header-{number}")).expect("a name");
            headers.insert(name, HeaderValue::from_static("value"));
        }
        group.bench_with_input(
            BenchmarkId::new("request", count),
            &headers,
            |bencher, headers| {
                bencher.iter(|| scrub::request(black_box(headers), Upward::Server));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("answer", count),
            &headers,
            |bencher, headers| {
                bencher.iter(|| scrub::answer(black_box(headers)));
            },
        );
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    for routes in [10, 500] {
        let text = file(routes);
        group.bench_with_input(
            BenchmarkId::from_parameter(routes),
            &text,
            |bencher, text| {
                bencher.iter(|| load(black_box(text)));
            },
        );
    }
    group.finish();
}

criterion_group!(core, mint, decide, scrubbing, compile);
criterion_main!(core);
