//! The core by itself, without runtime and sockets: what a request costs before it is sent.
//!
//! `cargo bench --bench core`; compare medians of one run with each other, not with another machine's.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::LazyLock;

use countersign::config::reference::Sources;
use countersign::config::{self, Loaded};
use countersign::policy::caller::KeyDigest;
use countersign::policy::cors::Sharing;
use countersign::policy::peer::Peer;
use countersign::policy::request::{Field, Request};
use countersign::policy::{Admission, Verdict};
use countersign::rewrite::{self, Answer};
use countersign::signing::{Dialect, Epoch, Secret, Signer, User, UserEncoding};
use countersign::wire::framing::{Decoder, of_request};
use countersign::wire::head::{Finder, RequestHead};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn field(name: &'static str, value: &'static str) -> Field<'static> {
    Field {
        name: name.as_bytes(),
        value: value.as_bytes(),
    }
}

static PEER: LazyLock<Peer> = LazyLock::new(|| Peer::plain([192, 0, 2, 7].into()));

fn request<'a>(target: &'a str, fields: &'a [Field<'a>]) -> Request<'a> {
    Request::new(
        &PEER,
        b"GET",
        target.as_bytes(),
        fields,
        Epoch::from_unix(1_800_000_000),
    )
}

/// What a caller in an ordinary language sends.
fn call() -> Vec<Field<'static>> {
    vec![
        field("Host", "gateway.example.com"),
        field("User-Agent", "crm/1.0"),
        field("Accept", "*/*"),
        field("Accept-Encoding", "gzip, deflate, br"),
        field("Connection", "keep-alive"),
        field("X-Api-Key", API_KEY),
    ]
}

const HIT: &str = "@api/deki/pages/=Some%252FPage/contents?dream.out.format=json";

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let fields = call();
    for routes in [10, 100, 1000] {
        let policy = load(&file(routes)).policy;
        let mount = routes / 2 * 2 - 1;
        for (name, target, passes) in [
            ("hit", format!("/m{mount}/{HIT}"), true),
            ("miss", "/nowhere/@api/deki/pages/home".to_owned(), false),
            (
                "refused",
                format!("/m{mount}/@api/deki/users/authenticate"),
                false,
            ),
        ] {
            let request = request(&target, &fields);
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

/// A file with one route of this many callers, each with a key of its own; the one that calls stands in
/// the middle.
fn callers(count: usize) -> String {
    let mut text = "listeners: [{ address: \"127.0.0.1:8080\" }]\n\
         sites: { acme: { url: \"https://acme.mindtouch.us\", server_tokens: [{ key: env:KEY, secret: env:SECRET }] } }\n\
         callers:\n"
        .to_owned();
    let mut names = Vec::new();
    for number in 0..count {
        let key = if number == count / 2 {
            API_KEY.to_owned()
        } else {
            format!("cs_{number}")
        };
        let digest = KeyDigest::of(key.as_bytes()).to_hex();
        text.push_str(&format!(
            "  c{number}: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"{}\" }}\n",
            number + 1
        ));
        names.push(format!("c{number}"));
    }
    text.push_str(&format!(
        "routes: [{{ name: crm, mount: /m, site: acme, token: server, callers: [{}], allow: [all] }}]\n",
        names.join(", ")
    ));
    text
}

/// What it costs to find out who calls, among few and among many.
fn identify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let fields = call();
    let target = format!("/m/{HIT}");
    for count in [1, 100, 10_000] {
        let policy = load(&callers(count)).policy;
        let request = request(&target, &fields);
        assert!(matches!(
            policy.decide(&request).verdict,
            Verdict::Forward(_)
        ));
        group.bench_with_input(
            BenchmarkId::new("callers", count),
            &request,
            |bencher, request| bencher.iter(|| policy.decide(black_box(request))),
        );
    }
    group.finish();
}

/// Heads as clients send them, and bodies in chunks.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let curl = "GET /crm/@api/deki/pages/home?dream.out.format=json HTTP/1.1\r\nHost: gateway.example.com\r\n\
        User-Agent: curl/8.16.0\r\nAccept: */*\r\nX-Api-Key: cs_a_key_of_a_caller_in_a_bench\r\n\r\n";
    let browser = "GET /widget/@api/deki/site/query?q=install&limit=10&dream.out.format=json HTTP/1.1\r\n\
        Host: kb.example.com\r\nConnection: keep-alive\r\nsec-ch-ua-platform: \"Linux\"\r\n\
        X-Deki-Token: dacaffe7ce69dfd1071531e925f667905a1c981fb40d06c676880e84352cb3aa\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
        sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\nX-Deki-Client: mindtouch-martian\r\n\
        sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nOrigin: https://crm.example.com\r\nSec-Fetch-Site: cross-site\r\n\
        Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://crm.example.com/\r\n\
        Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n";
    for (name, head) in [("curl", curl), ("browser", browser)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(BenchmarkId::new("head", name), |bencher| {
            bencher.iter(|| {
                let input = black_box(head.as_bytes());
                let (start, end) = Finder::default().find(input).ok().flatten()?;
                let head = RequestHead::parse(&input[start..end]).ok()?;
                let body = of_request(head.version, &head.fields).ok()?;
                Some((head.fields.len(), body))
            });
        });
    }
    for size in [64, 8192] {
        let mut chunks = Vec::new();
        for _ in 0..64 * 1024 / size {
            chunks.extend(format!("{size:x}\r\n").bytes());
            chunks.extend(vec![b'x'; size]);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        let mut raw = chunks.clone();
        group.throughput(Throughput::Bytes(64 * 1024));
        group.bench_function(BenchmarkId::new("chunks", size), |bencher| {
            bencher.iter(|| {
                raw.copy_from_slice(&chunks);
                let decoded = Decoder::chunked().decode(black_box(&mut raw));
                decoded.map(|decoded| decoded.payload)
            });
        });
    }
    group.finish();
}

fn admission(request: &Request<'_>) -> Admission {
    match load(&file(10)).policy.decide(request).verdict {
        Verdict::Forward(admission) => admission,
        other => panic!("{other:?}"),
    }
}

/// A head with this many fields: those given, then others that do not cross.
fn padded(mut fields: Vec<Field<'static>>, count: usize) -> Vec<Field<'static>> {
    let more = count - fields.len();
    fields.extend(std::iter::repeat_n(field("X-Something", "value"), more));
    fields
}

fn rewriting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    let target = format!("/m9/{HIT}");
    let sharing = Sharing::default();
    let page = vec![
        field("Content-Type", "application/json; charset=utf-8"),
        field("Date", "Wed, 25 Nov 2026 08:00:00 GMT"),
        field("ETag", "\"0a1b2c3d4e5f\""),
        field("Cache-Control", "private"),
        field("Set-Cookie", "authtoken=1"),
        field("X-Deki-Site", "id=\"acme\""),
    ];
    for count in [6, 30] {
        let fields = padded(call(), count);
        let request = request(&target, &fields);
        let admission = admission(&request);
        group.bench_with_input(
            BenchmarkId::new("up", count),
            &request,
            |bencher, request| {
                bencher.iter(|| rewrite::up(black_box(request), &admission, "00ff").method);
            },
        );
        let fields = padded(page.clone(), count);
        let answer = Answer {
            status: 200,
            fields: &fields,
        };
        group.bench_with_input(
            BenchmarkId::new("down", count),
            &answer,
            |bencher, answer| {
                bencher.iter(|| {
                    let edits = rewrite::down(black_box(answer), &admission, &sharing, "00ff");
                    edits.map(|edits| edits.keep)
                });
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

criterion_group!(core, mint, decide, identify, reading, rewriting, compile);
criterion_main!(core);
