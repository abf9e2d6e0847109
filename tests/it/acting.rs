//! Users that a caller's proof chooses: claims of real tokens, tables, parameters of signed URLs; and what
//! pages, methods and floods make of callers that choose.

use std::fmt::Write as _;

use serde_json::Value;

use crate::harness::issuer::{Pair, Provider, claims};
use crate::harness::{API_KEY, Log, OTHER_KEY, Reply, Rig, until};
use crate::webhooks::{has_openssl, message, now, signed};

/// @KEYS@ is where the issuer's keys are.
const FILE: &str = r#"
listeners: [{ address: "127.0.0.1:0" }]
sites:
  acme:
    url: http://@SITE@
    server_tokens: [{ key: env:TOKEN_KEY, secret: env:TOKEN_SECRET }]
callers:
  staff:
    jwt: { issuer: "https://login.example.com/", audience: countersign, keys: "@KEYS@", required_claims: { azp: staff } }
    acts_as: { claim: preferred_username, allow: ["support-*"], deny: [support-admin] }
  numbers:
    jwt: { issuer: "https://login.example.com/", audience: countersign, keys: "@KEYS@", required_claims: { azp: numbers } }
    acts_as: { claim: employee, map: { "0042": "=jane", "0043": "7" } }
  subjects:
    jwt: { issuer: "https://login.example.com/", audience: countersign, keys: "@KEYS@", required_claims: { azp: subjects } }
    acts_as: { map: { "auth0|5f7": "=jim" } }
  hubspot:
    hmac: { preset: hubspot, secret: env:HOOK_SECRET, public_url: "https://hooks.example.com" }
    acts_as: { signed_query: userEmail, allow: ["*@example.com"], deny: [admin@example.com] }
  agent:
    hmac: { preset: hubspot, secret: env:NEW_HOOK_SECRET, public_url: "https://hooks.example.com" }
    acts_as: { signed_query: agent, map: { "a b": "=jane" } }
  desk: { basic: { password: "@HASH@" }, acts_as: "=desk" }
  crm: { api_key: { sha256: "@API@" }, acts_as: "=crm-bot" }
  portal: { api_key: { sha256: "@OTHER@" }, acts_as: { header: X-Acting-User, allow: ["support-*"] } }
routes:
  - { name: all, mount: /all, site: acme, token: server, callers: [staff, numbers, subjects, desk, crm, portal], allow: [read-pages] }
  - { name: again, mount: /again, site: acme, token: server, callers: [staff, portal], allow: [read-pages, write-pages] }
  - { name: fixed, mount: /fixed, site: acme, token: server, callers: [crm], allow: [read-pages] }
  - { name: signed, mount: /signed, site: acme, token: server, callers: [hubspot], allow: [read-pages, write-pages] }
  - { name: agents, mount: /agents, site: acme, token: server, callers: [agent], allow: [read-pages] }
  - { name: shared, mount: /shared, site: acme, token: server, callers: [portal, staff, hubspot], allow: [read-pages], origins: [crm.example.com] }
  - { name: trial, mount: /trial, site: acme, token: server, callers: [portal], allow: [read-pages], origins: [crm.example.com], report_only: true }
"#;

const PAGE: &str = "/@api/deki/pages/home";

struct Acting {
    rig: Rig,
    /// The issuer's only key.
    pair: Pair,
    log: Log,
    seen: usize,
    _provider: Provider,
}

impl Acting {
    async fn start() -> Self {
        let pair = Pair::p256();
        let provider = Provider::start(&[pair.jwk("")]).await;
        let log = Log::listen();
        let text = FILE.replace("@KEYS@", &provider.url());
        let hash = countersign::policy::caller::basic::PasswordHash::of(
            b"canary-password-of-the-desk",
            b"saltsaltsaltsalt",
        );
        let text = text.replace("@HASH@", hash.unwrap().as_str());
        let rig = Rig::with(&text, |_| Reply::ok()).await;
        Self {
            rig,
            pair,
            log,
            seen: 0,
            _provider: provider,
        }
    }

    /// Header lines with a token that says this beside who issued it.
    fn token(&self, more: &str) -> String {
        let token = self.pair.sign("{\"alg\":\"ES256\"}", &claims(more));
        format!("Authorization: Bearer {token}\r\n")
    }

    /// Sends a message: the user it reaches the site as, or its refusal. The record says the same, and
    /// whose it was.
    async fn ask(&mut self, caller: &str, message: impl AsRef<[u8]>) -> Result<String, String> {
        let answer = self.rig.send(message).await;
        let record = self.record().await;
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("refusal"), answer.refusal(), "{record}");
        assert_eq!(text("caller"), caller, "{record}");
        if answer.status == 200 {
            let seen = self.rig.site.only();
            assert_eq!(text("user"), seen.user(), "{record}");
            assert!(!seen.has("x-acting-user") && !seen.has("authorization"));
            return Ok(seen.user());
        }
        assert_eq!(record.get("user"), None, "{record}");
        assert_eq!(self.rig.site.count(), 0);
        Err(answer.refusal().to_owned())
    }

    async fn record(&mut self) -> Value {
        let number = self.seen;
        self.seen += 1;
        let records = || self.log.named("exchange");
        until("it is recorded", || records().len() > number).await;
        records().remove(number)
    }
}

fn get(target: &str, lines: &str) -> Vec<u8> {
    message("GET", target, lines, b"")
}

fn refused(code: &str) -> Result<String, String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn claims_of_tokens() {
    let mut acting = Acting::start().await;
    let long = format!("\"support-{}\"", "x".repeat(248));
    let fits = format!("\"support-{}\"", "x".repeat(247));
    let target = format!("/all{PAGE}");
    for (value, expected) in [
        ("\"support-1\"", Some("=support-1")),
        ("\"support-\"", Some("=support-")),
        ("\"support-\\u0031\"", Some("=support-1")),
        (&fits, Some(&*format!("={}", &fits[1..fits.len() - 1]))),
        (&long, None),
        ("[\"support-1\"]", None),
        ("[\"support-1\", \"admin\"]", None),
        ("[]", None),
        ("1", None),
        ("1.5", None),
        ("true", None),
        ("null", None),
        ("{\"name\": \"support-1\"}", None),
        ("\"\"", None),
        ("\"=admin\"", None),
        ("\"=support-1\"", None),
        ("\"admin\"", None),
        ("\"1\"", None),
        ("\"SUPPORT-1\"", None),
        ("\"support-admin\"", None),
        ("\"support-Admin\"", None),
        ("\"support-ad_min\"", None),
        ("\"support-x\\nadmin\"", None),
        ("\"support-x\\r\\nX-Deki-Token: 1\"", None),
        ("\"support-x\\u0000\"", None),
        ("\"support-x\\u001b[0m\"", None),
        ("\"support-x\\u0085\"", None),
        ("\"support-%61\"", None),
        ("\"support-x%0aadmin\"", None),
        ("\" support-1\"", None),
        ("\"support-1 \"", None),
        ("\"support-x\\u200b\"", None),
        ("\"support-x\\u202e\"", None),
        ("\"support-J\\u00f6rg\"", None),
    ] {
        let lines = acting.token(&format!(
            ",\"azp\":\"staff\",\"preferred_username\":{value}"
        ));
        let seen = acting.ask("staff", get(&target, &lines)).await;
        let expected = expected
            .map(str::to_owned)
            .ok_or("user_not_allowed".to_owned());
        assert_eq!(seen, expected, "{value}");
    }
    // Absent, in other letters, as another claim; and a header says nothing.
    for more in [
        "",
        ",\"Preferred_Username\":\"support-1\"",
        ",\"sub\":\"support-1\"",
    ] {
        let lines =
            acting.token(&format!(",\"azp\":\"staff\"{more}")) + "X-Acting-User: support-1\r\n";
        let seen = acting.ask("staff", get(&target, &lines)).await;
        assert_eq!(seen, refused("user_not_allowed"), "{more}");
    }
    // Two values, and the same in disguise: no token at all.
    for twin in ["preferred_username", "preferred\\u005fusername"] {
        let both = format!(
            ",\"azp\":\"staff\",\"preferred_username\":\"support-1\",\"{twin}\":\"support-2\""
        );
        let lines = acting.token(&both);
        let seen = acting.ask("", get(&target, &lines)).await;
        assert_eq!(seen, refused("credential_unknown"), "{twin}");
    }
    // The same caller elsewhere.
    let lines = acting.token(",\"azp\":\"staff\",\"preferred_username\":\"support-2\"");
    let seen = acting
        .ask("staff", get(&format!("/again{PAGE}"), &lines))
        .await;
    assert_eq!(seen, Ok("=support-2".to_owned()));
    let seen = acting.ask("", get(&format!("/fixed{PAGE}"), &lines)).await;
    assert_eq!(seen, refused("credential_unknown"));
}

#[tokio::test]
async fn claims_by_a_table() {
    let mut acting = Acting::start().await;
    let target = format!("/all{PAGE}");
    for (caller, claim, value, expected) in [
        ("numbers", "employee", "\"0042\"", Some("=jane")),
        ("numbers", "employee", "\"0043\"", Some("7")),
        ("numbers", "employee", "\"42\"", None),
        ("numbers", "employee", "42", None),
        ("numbers", "employee", "\"0042 \"", None),
        ("numbers", "employee", "\"=jane\"", None),
        ("numbers", "employee", "\"7\"", None),
        ("numbers", "employee", "[\"0042\"]", None),
        ("numbers", "employee", "{\"0042\":1}", None),
        ("numbers", "sub", "\"0042\"", None),
        // A table alone is of the claim `sub`.
        ("subjects", "sub", "\"auth0|5f7\"", Some("=jim")),
        ("subjects", "sub", "\"auth0|5F7\"", None),
        ("subjects", "sub", "\"=jim\"", None),
        ("subjects", "sub", "\"jim\"", None),
        ("subjects", "preferred_username", "\"auth0|5f7\"", None),
    ] {
        let lines = acting.token(&format!(",\"azp\":\"{caller}\",\"{claim}\":{value}"));
        let seen = acting.ask(caller, get(&target, &lines)).await;
        let expected = expected
            .map(str::to_owned)
            .ok_or("user_not_allowed".to_owned());
        assert_eq!(seen, expected, "{caller} {claim} {value}");
    }
}

/// Claims that were good until an hour ago.
fn over(more: &str) -> String {
    let ends = |at: u64| format!("\"exp\":{at}");
    let claims = claims(more);
    let (_, after) = claims.split_once("\"exp\":").unwrap();
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let end: u64 = digits.parse().unwrap();
    claims.replace(&ends(end), &ends(end - 2 * 3600))
}

/// An expired token is its caller's, and opens nothing.
#[tokio::test]
async fn a_token_whose_time_is_over_is_still_somebodys() {
    let mut acting = Acting::start().await;
    let over = over(",\"azp\":\"staff\"");
    for (claims, caller, code) in [
        (over.clone(), "staff", "credential_expired"),
        // Nobody's, or not signed by whom it says.
        (over.replace("staff", "other"), "", "credential_unknown"),
        (
            over.replace("countersign", "other"),
            "",
            "credential_unknown",
        ),
    ] {
        let token = acting.pair.sign("{\"alg\":\"ES256\"}", &claims);
        let lines = format!("Authorization: Bearer {token}\r\n");
        let seen = acting
            .ask(caller, get(&format!("/all{PAGE}"), &lines))
            .await;
        assert_eq!(seen, refused(code), "{claims}");
    }
    let token = Pair::p256().sign("{\"alg\":\"ES256\"}", &over);
    let lines = format!("Authorization: Bearer {token}\r\n");
    let seen = acting.ask("", get(&format!("/all{PAGE}"), &lines)).await;
    assert_eq!(seen, refused("credential_unknown"));
}

#[tokio::test]
async fn a_parameter_that_hubspot_signs() {
    if !has_openssl() {
        return;
    }
    let mut acting = Acting::start().await;
    let target =
        |more: &str| format!("/signed{PAGE}?userId=9&portalId=62515&{more}&appId=4711&title=a%3Ab");
    let sign = |target: &str| signed("hubspot", "GET", target, b"", now());
    for (more, expected) in [
        ("userEmail=jane%40example.com", Some("=jane@example.com")),
        ("userEmail=jane@example.com", Some("=jane@example.com")),
        ("useremail=jane%40example.com", Some("=jane@example.com")),
        ("%75serEmail=jane%40example.com", Some("=jane@example.com")),
        ("userEmail=admin%40example.com", None),
        ("userEmail=ADMIN%40example.com", None),
        ("userEmail=Admin%40example.com", None),
        ("userEmail=jane%40example.org", None),
        ("userEmail=jane%40EXAMPLE.com", None),
        ("userEmail=%3Djane%40example.com", None),
        ("userEmail=jane%2540example.com", None),
        ("userEmail=jane%0aadmin%40example.com", None),
        ("userEmail=jane%40example.com%00", None),
        ("userEmail=", None),
        ("other=jane%40example.com", None),
        // The app's page adds one of its own before HubSpot does.
        (
            "userEmail=jim%40example.com&userEmail=jane%40example.com",
            None,
        ),
        (
            "useremail=jim%40example.com&userEmail=jane%40example.com",
            None,
        ),
        (
            "%55SEREMAIL=jim%40example.com&userEmail=jane%40example.com",
            None,
        ),
    ] {
        let target = target(more);
        let message = get(&target, &sign(&target));
        let answer = acting.rig.send(&message).await;
        let record = acting.record().await;
        assert_eq!(record["caller"], "hubspot", "{more}: {record}");
        let Some(user) = expected else {
            answer.refused(403, "user_not_allowed");
            assert_eq!(acting.rig.site.count(), 0, "{more}");
            continue;
        };
        assert_eq!(answer.status, 200, "{more}: {}", answer.text());
        let seen = acting.rig.site.only();
        assert_eq!(
            (seen.user().as_str(), &record["user"]),
            (user, &user.into()),
            "{more}"
        );
        assert_eq!(seen.target, format!("{PAGE}?title=a%3Ab"), "{more}");
    }
    // Whatever is changed after it was signed is nobody's word.
    let good = target("userEmail=jane%40example.com");
    let lines = sign(&good);
    for changed in [
        good.replace("jane", "jim"),
        good.replace("&appId=4711", ""),
        format!("{good}&userEmail=jim%40example.com"),
        good.replace("userEmail", "useremail"),
        good.replace("home", "=other"),
    ] {
        let seen = acting.ask("", get(&changed, &lines)).await;
        assert_eq!(seen, refused("credential_unknown"), "{changed}");
    }
    let as_post = message("POST", &good, &lines, b"");
    assert_eq!(acting.ask("", as_post).await, refused("credential_unknown"));
    // A header of the page's is not the caller's word.
    let both = format!("{lines}X-Acting-User: support-1\r\n");
    let seen = acting.ask("hubspot", get(&good, &both)).await;
    assert_eq!(seen, Ok("=jane@example.com".to_owned()));
    let unsigned = get(&good, "");
    assert_eq!(
        acting.ask("", unsigned).await,
        refused("credential_missing")
    );
}

#[tokio::test]
async fn preflights_name_what_a_page_may_send() {
    let acting = Acting::start().await;
    let ask = async |mount: &str, lines: &str| {
        let preflight = format!(
            "Origin: https://crm.example.com\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-acting-user\r\n{lines}"
        );
        let target = format!("{mount}{PAGE}");
        let message = message("OPTIONS", &target, &preflight, b"");
        acting.rig.send(message).await
    };
    for (mount, names, nobody) in [
        (
            "/shared",
            &["x-acting-user", "authorization", "x-api-key"][..],
            "hubspot",
        ),
        (
            "/trial",
            &["x-acting-user", "authorization", "x-api-key"],
            "hubspot",
        ),
    ] {
        let answer = ask(mount, "").await;
        assert_eq!(answer.status, 204, "{mount}");
        let allowed = answer.header("access-control-allow-headers").to_owned();
        let listed: Vec<_> = allowed.split(", ").collect();
        for name in names {
            let count = listed.iter().filter(|one| *one == name).count();
            assert_eq!(count, 1, "{mount}: {name} in {allowed}");
        }
        // No page holds the secret of one that signs.
        assert!(
            !allowed.contains(nobody) && !allowed.contains("signature"),
            "{allowed}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    // Who has no origins answers no preflight, whatever it presents.
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    for lines in ["", &key] {
        let answer = ask("/all", lines).await;
        answer.refused(403, "origin_not_allowed");
        assert_eq!(answer.header("access-control-allow-headers"), "");
    }
    assert_eq!(acting.rig.site.count(), 0);
}

#[tokio::test]
async fn every_method_is_judged_as_its_user() {
    let mut acting = Acting::start().await;
    let chosen = format!("X-Api-Key: {OTHER_KEY}\r\nX-Acting-User: support-1\r\n");
    let origin = "Origin: https://crm.example.com\r\n";
    for (method, mount, more, status, code) in [
        ("HEAD", "/all", "", 200, ""),
        ("GET", "/shared", origin, 200, ""),
        ("GET", "/trial", origin, 200, ""),
        (
            "GET",
            "/trial",
            "Origin: https://elsewhere.test\r\n",
            200,
            "",
        ),
        (
            "GET",
            "/shared",
            "Origin: https://elsewhere.test\r\n",
            403,
            "origin_not_allowed",
        ),
        (
            "OPTIONS",
            "/all",
            "Max-Forwards: 0\r\n",
            403,
            "capability_missing",
        ),
        (
            "POST",
            "/all",
            "X-HTTP-Method-Override: DELETE\r\n",
            403,
            "capability_missing",
        ),
    ] {
        let message = message(
            method,
            &format!("{mount}{PAGE}"),
            &format!("{chosen}{more}"),
            b"",
        );
        let mut wire = acting.rig.gateway.connect().await;
        wire.write(message).await;
        let answer = wire.answer_to(method).await;
        assert_eq!(
            (answer.status, answer.refusal()),
            (status, code),
            "{method} {mount} {more}"
        );
        let record = acting.record().await;
        if code != "origin_not_allowed" {
            assert_eq!(record["caller"], "portal", "{record}");
            assert_eq!(record["user"], "=support-1", "{record}");
        }
        if status == 200 {
            let seen = acting.rig.site.only();
            assert_eq!(
                (seen.user().as_str(), &*seen.method),
                ("=support-1", method)
            );
            assert!(!seen.has("x-acting-user"));
        }
    }
    // Where nobody chooses, nobody is asked, and the header stays here.
    let fixed = format!("X-Api-Key: {API_KEY}\r\nX-Acting-User: admin\r\n");
    for mount in ["/fixed", "/all"] {
        let seen = acting
            .ask("crm", get(&format!("{mount}{PAGE}"), &fixed))
            .await;
        assert_eq!(seen, Ok("=crm-bot".to_owned()));
    }
}

/// Whoever presents what was a caller's, or looks like it, takes nothing from that caller, nor from others
/// at the same address.
#[tokio::test]
async fn floods_lock_nobody_out() {
    if !has_openssl() {
        return;
    }
    let mut acting = Acting::start().await;
    let limited = "limits: { unidentified: { requests_per_second: 1, burst: 50 } }\n";
    let pair = Pair::p256();
    let keys: Vec<_> = (0..7).map(|_| Pair::p256().jwk("")).collect();
    let keys = [keys, vec![pair.jwk("")]].concat();
    let provider = Provider::start(&keys).await;
    let text = FILE.replace("@KEYS@", &provider.url()).replace(
        "@HASH@",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$rC5wOdNa+G0FGxcWYcQq0Hn6qLjh4vxuMEfLNphiY1s",
    );
    acting.rig = Rig::with(&(text + limited), |_| Reply::ok()).await;
    acting.pair = pair;

    let target = format!("/all{PAGE}");
    let good = acting.token(",\"azp\":\"staff\",\"preferred_username\":\"support-1\"");
    let over = over(",\"azp\":\"staff\"");
    let expired = acting.pair.sign("{\"alg\":\"ES256\"}", &over);
    let mut groups = String::new();
    while groups.len() < 11_000 {
        write!(groups, ",\"g{}\":\"x\"", groups.len()).unwrap();
    }
    let signature = signed("hubspot", "GET", &target, b"", now());
    let mut floods = Vec::new();
    for kind in 0..5 {
        let stranger = Pair::p256();
        let mut wire = acting.rig.gateway.connect().await;
        let (target, expired, groups) = (target.clone(), expired.clone(), groups.clone());
        let (signature, signed) = (signature.clone(), format!("/signed{PAGE}?userEmail=x"));
        floods.push(tokio::spawn(async move {
            for round in 0..150 {
                let own = claims(&format!(",\"n\":{round},\"azp\":\"staff\"{groups}"));
                let message = match kind {
                    0 => get(&target, &format!("Authorization: Bearer {expired}\r\n")),
                    // 16 KiB, with a key that must be looked for among all.
                    1 => {
                        let token = stranger.sign("{\"alg\":\"ES256\"}", &own);
                        get(&target, &format!("Authorization: Bearer {token}\r\n"))
                    }
                    2 => get(&signed, &signature),
                    3 => get(&target, "Authorization: Basic ZGVzazp3cm9uZw==\r\n"),
                    _ => get(&target, &format!("X-Api-Key: cs_guess_{round}\r\n")),
                };
                wire.write(message).await;
                let answer = wire.answer().await;
                assert!([401, 429].contains(&answer.status), "{kind}: {answer:?}");
            }
        }));
    }
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    let chosen = format!("X-Api-Key: {OTHER_KEY}\r\nX-Acting-User: support-1\r\n");
    while floods.iter().any(|flood| !flood.is_finished()) {
        for (lines, user) in [
            (&good, "=support-1"),
            (&key, "=crm-bot"),
            (&chosen, "=support-1"),
        ] {
            let answer = acting.rig.send(get(&target, lines)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(acting.rig.site.only().user(), user);
        }
        let signed_now = format!("/signed{PAGE}?userEmail=jane%40example.com");
        let lines = signed("hubspot", "GET", &signed_now, b"", now());
        assert_eq!(acting.rig.send(get(&signed_now, &lines)).await.status, 200);
        assert_eq!(acting.rig.site.only().user(), "=jane@example.com");
    }
    for flood in floods {
        flood.await.unwrap();
    }
    // By password, too: its name was guessed at, and only who guessed has to wait.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let stream = socket.connect(acting.rig.gateway.address).await.unwrap();
    let mut wire = crate::harness::Wire::over(stream);
    // desk:canary-password
    wire.write(get(
        &target,
        "Authorization: Basic ZGVzazpjYW5hcnktcGFzc3dvcmQ=\r\n",
    ))
    .await;
    assert_eq!(wire.answer().await.status, 200);
}
