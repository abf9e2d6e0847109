//! The pages of `docs/` that list what the program knows say what the program says.

use std::collections::BTreeSet;
use std::process::Command;

use countersign::policy::Refusal;
use countersign::policy::caller::hmac::SignatureFault;
use countersign::policy::caller::jwt::TokenFault;
use countersign::policy::fault::{MessageFault, TargetFault};

/// The cells of the rows of a page's tables.
fn rows(page: &str) -> Vec<Vec<&str>> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            row.split(" | ")
                .map(|cell| cell.trim_matches('`'))
                .collect()
        })
        .collect()
}

#[test]
fn every_refusal_stands_in_its_page() {
    let page = include_str!("../../docs/refusals.md");
    let (codes, causes) = page.split_once("## Causes of `bad_target`").unwrap();
    let written: BTreeSet<_> = rows(codes)
        .iter()
        .map(|row| {
            assert_eq!(row.len(), 5, "{row:?}");
            (row[0].to_owned(), row[1].to_owned())
        })
        .collect();
    let known: BTreeSet<_> = Refusal::all()
        .map(|refusal| {
            (
                refusal.code().to_owned(),
                refusal.status().as_str().to_owned(),
            )
        })
        .collect();
    assert_eq!(written, known, "codes and statuses of docs/refusals.md");

    let (causes, of_credentials) = causes
        .split_once("## Causes of `credential_unknown`")
        .unwrap();
    let (of_credentials, signatures) = of_credentials
        .split_once("## Causes of a refused signature")
        .unwrap();
    let signatures = signatures.split("\n## ").next().unwrap();
    let written: Vec<_> = rows(signatures).iter().map(|row| row[0]).collect();
    let known = SignatureFault::ALL.map(SignatureFault::name);
    assert_eq!(written, known, "causes of signatures, in their order");

    let written: Vec<_> = rows(causes).iter().map(|row| (row[0], row[1])).collect();
    let targets = TargetFault::ALL.map(|fault| (fault.name(), fault.sentence()));
    let messages = MessageFault::ALL.map(|fault| (fault.name(), fault.sentence()));
    let known: Vec<_> = targets.into_iter().chain(messages).collect();
    assert_eq!(written, known, "causes of docs/refusals.md");

    let is_of_token = |name: &&str| name.starts_with("token_") || name.starts_with("issuer_");
    let written = rows(of_credentials);
    let written: Vec<_> = written
        .iter()
        .map(|row| row[0])
        .filter(is_of_token)
        .collect();
    let known = TokenFault::ALL.map(TokenFault::name);
    assert_eq!(
        written, known,
        "causes of docs/refusals.md that concern tokens"
    );
}

#[test]
fn the_page_of_capabilities_is_what_the_command_writes() {
    let written = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["capabilities", "--markdown"])
        .output()
        .unwrap();
    assert!(written.status.success());
    let page = include_str!("../../docs/capabilities.md");
    assert_eq!(
        String::from_utf8(written.stdout).unwrap(),
        page,
        "write docs/capabilities.md anew with countersign capabilities --markdown"
    );
}
