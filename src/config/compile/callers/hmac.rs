//! Callers that sign their messages: a preset by its name, and each setting by hand.

use std::time::Duration;

use crate::config::compile::routes::header_name;
use crate::config::compile::units::{bytes, duration};
use crate::config::reference::References;
use crate::config::tree::{At, Fields};
use crate::config::words::cure;
use crate::policy::caller::hmac::Scheme;
use crate::policy::caller::hmac::presets::{NAMES, ZENDESK_TEST_SECRET, preset};
use crate::policy::caller::hmac::rules::{
    Algorithm, Encoding, Format, Part, Rules, SecretEncoding, Separator, Source, Timestamp,
    UrlDecoding,
};
use crate::policy::host::{Host, Scheme as UrlScheme, split_port};
use crate::rewrite::names;
use crate::signing::Secret;

/// Largest `body_max`: such a body is held whole.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most secrets of one caller: the one in force, and the one that is rotated out.
const SECRETS_MAX: usize = 2;

/// Shortest secret in bytes that nobody guesses.
const SECRET_BYTES_MIN: usize = 16;

/// Most pieces of what is signed.
const PARTS_MAX: usize = 16;

/// What a scheme is made of.
const KEYS: [&str; 21] = [
    "preset",
    "secret",
    "header",
    "prefix",
    "separator",
    "encoding",
    "algorithm",
    "secret_encoding",
    "secret_prefix",
    "signed",
    "timestamp_header",
    "timestamp_prefix",
    "timestamp_format",
    "tolerance",
    "tolerance_ahead",
    "id_header",
    "public_url",
    "url_decoding",
    "drop_query",
    "body_max",
    "remember",
];

/// A scheme, and whether one of its secrets is published.
pub(super) struct Compiled {
    pub(super) scheme: Scheme,
    pub(super) is_published: bool,
}

pub(super) fn compile(at: At<'_>, references: &References<'_>) -> Option<Compiled> {
    let fields = at.fields(&KEYS)?;
    let secrets = secrets(&fields, references);
    let mut rules = beginning(&fields)?;
    signature(&fields, &mut rules);
    message(&fields, &mut rules);
    time(&fields, &mut rules);
    check(&fields, &rules);
    if rules.timestamp.is_none() {
        let kept = shown(rules.remembered_for);
        at.warning(format!("no time stands in these messages: each counts once, and is remembered for {kept}; whoever has seen one can send it again after that, after a restart, and to every other machine that runs a gateway"));
    }
    let secrets = secrets?;
    let is_published = secrets
        .iter()
        .any(|secret| secret.matches(ZENDESK_TEST_SECRET.as_bytes()));
    if !references.follow() {
        // What stands in for a secret is decoded by nobody.
        rules.secret_encoding = SecretEncoding::Text;
    }
    let scheme = Scheme::new(rules, &secrets).map_err(|(index, fault)| {
        let place = match secrets.len() {
            1 => "secret".to_owned(),
            _ => format!("secret[{index}]"),
        };
        fields.problem_at(&place, format!("what this refers to {fault}"));
    });
    Some(Compiled {
        scheme: scheme.ok()?,
        is_published,
    })
}

/// What a file starts from: a preset, or nothing but what it must say itself.
fn beginning(fields: &Fields<'_>) -> Option<Rules> {
    if fields.has("preset") {
        return fields.optional("preset", |at| {
            let name = at.text()?;
            let found = preset(name);
            if found.is_none() {
                let cure = cure(name, NAMES, "presets");
                at.problem(format!(
                    "there is no such preset; {cure}, or leave it out and write header and signed"
                ));
            }
            found
        });
    }
    for (key, cure) in [
        (
            "header",
            "name the header the signature comes in, or a preset",
        ),
        (
            "signed",
            "list what is signed, such as [timestamp, body], or name a preset",
        ),
    ] {
        if !fields.has(key) {
            fields.problem(format!("{key} is missing; {cure}"));
        }
    }
    Some(Rules::of_body(""))
}

/// A time as the file would write it.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// The secrets, if all of them can be used.
fn secrets(fields: &Fields<'_>, references: &References<'_>) -> Option<Vec<Secret>> {
    const CURE: &str = "write env:NAME or file:PATH, or a list of two while one is rotated out";
    if !fields.has("secret") {
        fields.problem(format!("secret is missing; {CURE}"));
        return None;
    }
    let mut count = 0;
    let read = |at: At<'_>| {
        count += 1;
        if count > SECRETS_MAX {
            at.problem(format!(
                "a caller has at most {SECRETS_MAX} secrets; remove the oldest"
            ));
        }
        let secret = references.secret(at, false)?;
        if !references.follow() {
            // Two of one name are the same secret.
            return Some(Secret::new(at.text()?.to_owned()));
        }
        if secret.byte_count() < SECRET_BYTES_MIN {
            at.warning(format!("what this refers to has less than {SECRET_BYTES_MIN} characters, which can be guessed; let the product make a longer one"));
        }
        Some(secret)
    };
    let secrets = fields.one_or_each("secret", read);
    (secrets.len() == count && count > 0).then_some(secrets)
}

/// Where the signature stands, and how it is written.
fn signature(fields: &Fields<'_>, rules: &mut Rules) {
    set(fields, "header", signed_header, &mut rules.signature_header);
    set(fields, "prefix", owned_text, &mut rules.prefix);
    let separator = |at: At<'_>| {
        one_of(
            at,
            &[("comma", Separator::Comma), ("space", Separator::Space)],
        )
        .map(Some)
    };
    set(fields, "separator", separator, &mut rules.separator);
    let encoding = |at: At<'_>| {
        let known = [
            ("hex", Encoding::Hex),
            ("base64", Encoding::Base64),
            ("base64url", Encoding::Base64Url),
        ];
        one_of(at, &known)
    };
    set(fields, "encoding", encoding, &mut rules.encoding);
    let algorithm = |at: At<'_>| {
        let known = [
            ("sha256", Algorithm::Sha256),
            ("sha512", Algorithm::Sha512),
            ("sha1", Algorithm::Sha1),
        ];
        one_of(at, &known)
    };
    set(fields, "algorithm", algorithm, &mut rules.algorithm);
    let secret_encoding = |at: At<'_>| {
        let known = [
            ("text", SecretEncoding::Text),
            ("base64", SecretEncoding::Base64),
        ];
        one_of(at, &known)
    };
    set(
        fields,
        "secret_encoding",
        secret_encoding,
        &mut rules.secret_encoding,
    );
    set(
        fields,
        "secret_prefix",
        owned_text,
        &mut rules.secret_prefix,
    );
    let is_text = rules.secret_encoding == SecretEncoding::Text;
    if fields.has("secret_prefix") && is_text {
        fields.problem_at("secret_prefix", "only a secret that is decoded has a prefix that is no part of it; write secret_encoding: base64, or remove this");
    }
}

/// What is signed, and what becomes of the rest.
fn message(fields: &Fields<'_>, rules: &mut Rules) {
    if fields.has("signed") {
        rules.signed = fields.each("signed", part);
    }
    let id_header = |at: At<'_>| signed_header(at).map(Some);
    set(fields, "id_header", id_header, &mut rules.id_header);
    set(fields, "public_url", public_url, &mut rules.public_url);
    let decoding = |at: At<'_>| {
        one_of(
            at,
            &[
                ("none", UrlDecoding::None),
                ("hubspot", UrlDecoding::Hubspot),
            ],
        )
    };
    set(fields, "url_decoding", decoding, &mut rules.url_decoding);
    if fields.has("drop_query") {
        rules.drop_query = fields.each("drop_query", parameter_name);
    }
    let body_max = |at: At<'_>| bytes(at, BODY_BYTES_MAX);
    set(fields, "body_max", body_max, &mut rules.body_bytes_max);
}

/// When it was signed, and how long that is remembered otherwise.
fn time(fields: &Fields<'_>, rules: &mut Rules) {
    let header = fields.optional("timestamp_header", signed_header);
    let entry = fields.optional("timestamp_prefix", owned_text);
    if header.is_some() && entry.is_some() {
        fields.problem_at("timestamp_prefix", "the time stands in a header of its own or within the signature's; remove this or timestamp_header");
    }
    let source = header.map(Source::Header).or(entry.map(Source::Entry));
    match (&mut rules.timestamp, source) {
        (Some(timestamp), Some(source)) => timestamp.source = source,
        (none, Some(source)) => *none = Some(Timestamp::within_minutes(source, Format::Seconds)),
        (_, None) => {}
    }
    let Some(timestamp) = &mut rules.timestamp else {
        for key in ["timestamp_format", "tolerance", "tolerance_ahead"] {
            if fields.has(key) {
                fields.problem_at(key, "no time stands in these messages; write timestamp_header or timestamp_prefix, or remove this");
            }
        }
        set(
            fields,
            "remember",
            |at| duration(at, Duration::from_secs(1), WEEK),
            &mut rules.remembered_for,
        );
        return;
    };
    let format = |at: At<'_>| {
        let known = [
            ("seconds", Format::Seconds),
            ("milliseconds", Format::Milliseconds),
            ("unix", Format::Unix),
            ("iso8601", Format::Iso8601),
        ];
        one_of(at, &known)
    };
    set(fields, "timestamp_format", format, &mut timestamp.format);
    let past = |at: At<'_>| duration(at, Duration::from_secs(1), DAY);
    let ahead = |at: At<'_>| duration(at, Duration::ZERO, DAY);
    set(fields, "tolerance", past, &mut timestamp.tolerance);
    set(
        fields,
        "tolerance_ahead",
        ahead,
        &mut timestamp.tolerance_ahead,
    );
    if fields.has("remember") {
        fields.problem_at("remember", "the time in these messages says how long they are good; write tolerance in place of this");
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What can be known only of the whole.
fn check(fields: &Fields<'_>, rules: &Rules) {
    let problem = |key: &str, text: &str| note(fields, key, text);
    let signed = |part: Part| rules.signs(&part);
    if fields.has("signed") && !rules.signed.is_empty() {
        if !signed(Part::Body) {
            problem(
                "signed",
                "a body that is not signed could be anybody's; add body",
            );
        }
        if rules.signed.len() > PARTS_MAX {
            problem("signed", &format!("at most {PARTS_MAX} pieces are signed"));
        }
    }
    let unsigned = "what is not signed proves nothing; add it to signed, or remove this";
    match (rules.timestamp.is_some(), signed(Part::Timestamp)) {
        (true, false) if !rules.signed.is_empty() => {
            let key = ["timestamp_header", "timestamp_prefix"];
            let key = key.into_iter().find(|key| fields.has(key));
            problem(
                key.unwrap_or("signed"),
                &format!("the timestamp: {unsigned}"),
            );
        }
        (false, true) if !fields.has("timestamp_header") => problem(
            "timestamp_header",
            "name the header the time comes in, or write timestamp_prefix if it stands within the signature's",
        ),
        _ => {}
    }
    match (rules.id_header.is_some(), signed(Part::Id)) {
        (true, false) if !rules.signed.is_empty() => {
            problem("id_header", &format!("the id: {unsigned}"))
        }
        (false, true) => problem("id_header", "name the header the message's id comes in"),
        _ => {}
    }
    check_url(fields, rules);
    check_headers(fields, rules);
}

fn check_url(fields: &Fields<'_>, rules: &Rules) {
    match (!rules.public_url.is_empty(), rules.signs(&Part::Url)) {
        (true, false) => note(
            fields,
            "public_url",
            "this caller signs no URL; remove this, or add url to signed",
        ),
        (false, true) if !fields.has("public_url") => note(
            fields,
            "public_url",
            "write what the caller's URLs begin with, such as https://gateway.example.com",
        ),
        _ => {}
    }
}

fn check_headers(fields: &Fields<'_>, rules: &Rules) {
    let is_entry = rules
        .timestamp
        .as_ref()
        .is_some_and(|it| matches!(it.source, Source::Entry(_)));
    if is_entry && rules.separator.is_none() && !fields.has("separator") {
        note(
            fields,
            "separator",
            "write comma or space: what stands between the time and the signature in their header",
        );
    }
    let mut headers = vec![&rules.signature_header];
    headers.extend(&rules.id_header);
    if let Some(Source::Header(name)) = rules.timestamp.as_ref().map(|it| &it.source) {
        headers.push(name);
    }
    headers.sort();
    if headers
        .windows(2)
        .any(|pair| pair[0] == pair[1] && !pair[0].is_empty())
    {
        fields.problem("the signature, the time and the id come in headers of their own; two of them are the same here");
    }
}

/// Notes a problem of a key, be it there or not.
fn note(fields: &Fields<'_>, key: &str, text: &str) {
    match fields.has(key) {
        true => fields.problem_at(key, text),
        false => fields.problem(format!("{key} is missing; {text}")),
    }
}

/// Sets what the file says.
fn set<T>(fields: &Fields<'_>, key: &str, read: impl FnOnce(At<'_>) -> Option<T>, target: &mut T) {
    if let Some(value) = fields.optional(key, read) {
        *target = value;
    }
}

fn one_of<T: Copy>(at: At<'_>, known: &[(&str, T)]) -> Option<T> {
    let written = at.text()?;
    let found = known.iter().find(|(name, _)| *name == written);
    if found.is_none() {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        at.problem(format!("this is one of {}", names.join(", ")));
    }
    found.map(|(_, value)| *value)
}

fn owned_text(at: At<'_>) -> Option<Box<str>> {
    at.text().map(Box::from)
}

/// A header that nothing else rests on, and that does not go up.
fn signed_header(at: At<'_>) -> Option<Box<str>> {
    let name = header_name(at)?;
    if names::goes_up(&name) || names::never_go_up(&name) {
        at.problem("this header means something else already; a signature, its time and its id come in headers of their own");
        return None;
    }
    Some(name)
}

/// A piece of what is signed: a word, or `{ text: … }`.
fn part(at: At<'_>) -> Option<Part> {
    if at.is_map() {
        let fields = at.fields(&["text"])?;
        let text = fields.required("text", "write the text that is signed, in quotes", |at| {
            at.any_text().map(Box::from)
        });
        return text.map(Part::Text);
    }
    let written = at.text()?;
    let part = match written {
        "timestamp" => Part::Timestamp,
        "id" => Part::Id,
        "body" => Part::Body,
        "method" => Part::Method,
        "url" => Part::Url,
        _ => {
            at.problem("what is signed is timestamp, id, body, method or url; a text that stands between them is { text: \".\" }");
            return None;
        }
    };
    Some(part)
}

/// Scheme and authority, with nothing after them that a target does not have.
fn public_url(at: At<'_>) -> Option<Box<str>> {
    let text = at.text()?;
    let base = text.strip_suffix('/').unwrap_or(text);
    let is_base = UrlScheme::strip(base).is_some_and(|(_, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_path = path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"?#\\".contains(&b));
        is_path && Host::parse(split_port(authority).0).is_some()
    });
    if !is_base {
        at.problem("a public_url is what the caller's URLs begin with, before the path that arrives here, such as https://gateway.example.com");
    }
    is_base.then(|| base.into())
}

fn parameter_name(at: At<'_>) -> Option<Box<str>> {
    let name = at.text()?;
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"&=%+#".contains(&b));
    if !is_name {
        at.problem("a query parameter's name is written as it is, without & = % + #");
    }
    is_name.then(|| name.into())
}
