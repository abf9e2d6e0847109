//! The record of an exchange: what an operator needs, and nothing that a stranger typed unless asked.

use serde_json::Value;

use crate::harness::{API_KEY, Log, ROUTES, Reply, Rig};

const DETAILED: &str = "log: { paths: full, origins: full }\n";

/// The one record since the last look.
fn record(log: &Log, seen: &mut usize) -> Value {
    let records = log.named("exchange");
    assert_eq!(records.len(), *seen + 1, "one record for each exchange");
    *seen += 1;
    records[*seen - 1].clone()
}

fn check(record: &Value, expected: &[(&str, Value)]) {
    for (field, value) in expected {
        let found = record.get(*field).unwrap_or(&Value::Null);
        assert_eq!(found, value, "{field} of {record}");
    }
}

#[tokio::test]
async fn what_an_operator_needs() {
    let log = Log::listen();
    let mut seen = 0;
    let rig = Rig::start().await;
    let path = "/crm/@api/deki/pages/=Secret%2520title/contents?q=1";
    rig.get(path, "X-Request-Id: 7f-1.a:b_2\r\n").await;
    let expected = [
        ("level", "INFO".into()),
        ("client", "127.0.0.1".into()),
        ("caller", "crm".into()),
        ("user", "=crm-bot".into()),
        ("site", "acme".into()),
        ("route", "read".into()),
        ("endpoint", "pages/*/contents".into()),
        ("method", "GET".into()),
        ("effective_method", "GET".into()),
        ("status", 200.into()),
        ("site_status", 200.into()),
        ("caller_request_id", "7f-1.a:b_2".into()),
        ("host", Value::Null),
        ("path", Value::Null),
        ("origin", Value::Null),
    ];
    let whole = record(&log, &mut seen);
    check(&whole, &expected);
    assert!(!whole.to_string().contains("Secret"), "{whole}");

    rig.get(
        "/crm/@api/deki/users/=bob/password",
        "X-Request-Id: a b\r\n",
    )
    .await;
    let refused = [
        ("user", "=crm-bot".into()),
        ("refusal", "mints_credentials".into()),
        ("endpoint", Value::Null),
        ("caller_request_id", Value::Null),
        ("path", Value::Null),
    ];
    check(&record(&log, &mut seen), &refused);

    let hosted = format!(
        "GET /@api/deki/users/current HTTP/1.1\r\nHost: API.example.com:80\r\nX-Api-Key: {API_KEY}\r\n\r\n"
    );
    rig.send(hosted).await;
    check(
        &record(&log, &mut seen),
        &[("host", "api.example.com".into())],
    );

    rig.get("/crm/@api/deki/pages/%2e%2e/x", "").await;
    let causes = [
        ("refusal", "bad_target".into()),
        ("cause", "dot_segment".into()),
    ];
    check(&record(&log, &mut seen), &causes);
    rig.send("GET /crm/x HTTP/1.1\r\n\r\n")
        .await
        .refused(400, "bad_message");
    check(&record(&log, &mut seen), &[("cause", "host_count".into())]);
}

#[tokio::test]
async fn what_strangers_type_is_in_no_record_unless_asked() {
    for (detail, is_detailed) in [("", false), (DETAILED, true)] {
        let log = Log::listen();
        let mut seen = 0;
        let rig = Rig::with(&format!("{ROUTES}{detail}"), |_| Reply::ok()).await;
        let typed = |text: &str| {
            if is_detailed {
                Value::from(text)
            } else {
                Value::Null
            }
        };
        let long = format!("/crm/@api/deki/pages/={}", "a".repeat(600));
        rig.get(&format!("{long}?typed=1"), "").await;
        check(&record(&log, &mut seen), &[("path", typed(&long[..512]))]);

        rig.get("/nowhere/typed", "").await;
        let expected = [
            ("refusal", "no_route".into()),
            ("path", typed("/nowhere/typed")),
            ("unknown_host", typed("gateway.test")),
        ];
        check(&record(&log, &mut seen), &expected);

        rig.get("/crm/%2e%2e/typed", "").await;
        check(&record(&log, &mut seen), &[("path", Value::Null)]);

        let origin = "Origin: https://crm.exampel.com\r\n";
        for (target, refusal, would_refuse) in [
            ("/widget/@api/deki/site/query", "origin_not_allowed", ""),
            ("/trial/@api/deki/site/query", "", "origin_not_allowed"),
        ] {
            rig.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{origin}\r\n"))
                .await;
            let code = |code: &str| match code {
                "" => Value::Null,
                code => code.into(),
            };
            let expected = [
                ("refusal", code(refusal)),
                ("would_refuse", code(would_refuse)),
                ("origin", typed("https://crm.exampel.com")),
                ("nearest", "https://crm.example.com".into()),
            ];
            check(&record(&log, &mut seen), &expected);
        }
    }
}

#[tokio::test]
async fn what_somebody_has_to_mend_is_a_warning() {
    let log = Log::listen();
    let mut seen = 0;
    let rig = Rig::with(ROUTES, |_| Reply::Last(b"nonsense\r\n\r\n".to_vec())).await;
    rig.get("/crm/@api/deki/users/current", "")
        .await
        .refused(502, "site_invalid_answer");
    let expected = [("level", "WARN".into()), ("cause", "invalid_answer".into())];
    check(&record(&log, &mut seen), &expected);
    rig.get("/crm/@api/deki/site/settings", "")
        .await
        .refused(403, "mints_credentials");
    check(&record(&log, &mut seen), &[("level", "INFO".into())]);
}
