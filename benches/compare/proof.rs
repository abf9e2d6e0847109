//! That each of the three does the job, before anything is measured: signs as the right user, refuses a wrong key, lets
//! nothing through that says who one is, and writes a line for each request.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::count::Over;
use crate::load::Line;
use crate::process::Proxy;
use crate::scene::{Caller, HOST, TOKEN_KEY, TOKEN_SECRET, hex};
use crate::site::{PROOF, header, headers, whole};
use crate::{Outcome, load, streams};

/// What a caller forges, one header a line; none may arrive. A proxy may also refuse such a request.
const FORGED: &str = "X-Deki-Token: tkn_forged_1_=admin_00\r\n\
    x-deki-token: tkn_forged_2_=admin_00\r\n\
    X_Deki_Token: tkn_forged_3_=admin_00\r\n\
    Cookie: authtoken=forged\r\n\
    X-Authtoken: forged\r\n\
    X-ApiKey: forged\r\n\
    X-Deki-Site: id=forged\r\n\
    X-Dream-Host: forged\r\n\
    X-Forwarded-For: 10.0.0.1\r\n\
    X-Forwarded-Host: forged\r\n\
    Forwarded: host=forged\r\n\
    X-Real-IP: 10.0.0.1\r\n\
    X-HTTP-Method-Override: GET\r\n\
    X-Original-URL: /forged\r\n\
    Front-End-Https: on\r\n\
    Proxy-Authorization: Basic Zm9yZ2Vk\r\n\
    X-Requested-With: XMLHttpRequest\r\n\
    Referer: https://forged.example.com/\r\n";
/// And what must arrive.
const HARMLESS: &str = "Accept: application/json\r\nX-Deki-Client: bench\r\n";

/// Fails with the reason if this proxy does not do the job.
pub(crate) fn of(proxy: &Proxy) -> Outcome<()> {
    let runtime = load::runtime()?;
    let mut good = 0;
    for over in [Over::Plain, Over::Tls, Over::Streams] {
        good += runtime
            .block_on(of_line(proxy, over))
            .map_err(|error| proxy.complaint(error))?;
    }
    logged(proxy, good)
}

/// That it does over one kind of connection; says how many good requests that took.
async fn of_line(proxy: &Proxy, over: Over) -> Outcome<usize> {
    let mut good = 0;
    for number in [0, 41, 99] {
        let caller = Caller::of(number);
        for credential in [
            format!("X-Api-Key: {}", caller.key),
            format!("Authorization: Bearer {}", caller.key),
        ] {
            for forged in std::iter::once("").chain(FORGED.split_inclusive("\r\n")) {
                let extra = format!("{credential}\r\n{forged}{HARMLESS}");
                let (status, body) = ask(proxy, over, &extra).await?;
                if !forged.is_empty() && is_refusal(status, &body) {
                    continue;
                }
                judge(&caller, forged, status, &body).map_err(|error| {
                    format!("does not do the job over {over:?}: {error}\n{status} {body}")
                })?;
                good += 1;
            }
        }
    }
    let stranger = format!("cs_{}", "0".repeat(43));
    let key = Caller::of(0).key;
    for credential in [
        String::new(),
        format!("X-Api-Key: {stranger}\r\n"),
        format!("X-Api-Key: {}\r\n", key.to_uppercase()),
        format!("Authorization: Bearer {stranger}\r\n"),
        format!("Authorization: Basic {key}\r\n"),
        format!("X-Api-Key: {key}\r\nAuthorization: Bearer {key}\r\n"),
    ] {
        let (status, body) = ask(proxy, over, &credential).await?;
        if !is_refusal(status, &body) {
            return Err(format!("takes {credential:?}: {status} {body}").into());
        }
    }
    Ok(good)
}

/// Of the proxy's own: the site's answers say what came.
fn is_refusal(status: u16, body: &str) -> bool {
    (400..500).contains(&status) && !body.contains(PROOF)
}

/// One request on a connection of its own.
async fn ask(proxy: &Proxy, over: Over, extra: &str) -> Outcome<(u16, String)> {
    let asking = async {
        let request = format!("GET {PROOF} HTTP/1.1\r\nHost: {HOST}\r\n{extra}");
        let (status, body) = match over {
            Over::Plain => load::once(proxy.ends.plain, Line::Plain, &request).await?,
            Over::Tls => load::once(proxy.ends.secured, Line::Full, &request).await?,
            Over::Streams => streams::once(proxy.ends.secured, &request).await?,
        };
        Outcome::Ok((status, String::from_utf8(body)?))
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await?
}

/// What the site says of a request: as whom it was signed and when, and how it came.
pub(crate) fn examined(head: &str) -> Vec<u8> {
    let tokens: Vec<_> = headers(head)
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-deki-token"))
        .collect();
    let (status, verdict) = match tokens[..] {
        [(_, token)] => match signed(token) {
            Some((user, epoch)) => ("200 OK", format!("{user} {epoch}")),
            None => ("401 Unauthorized", "the token is not valid".to_owned()),
        },
        _ => ("401 Unauthorized", format!("{} tokens", tokens.len())),
    };
    whole(
        status,
        "text/plain",
        format!("{verdict}\n{head}").as_bytes(),
    )
}

/// As whom a token was signed and when, read by code that shares nothing with the signer.
fn signed(token: &str) -> Option<(String, u64)> {
    let rest = token
        .strip_prefix("tkn_")?
        .strip_prefix(TOKEN_KEY)?
        .strip_prefix('_')?;
    let (rest, hash) = rest.rsplit_once('_')?;
    let (epoch, user) = rest.split_once('_')?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(TOKEN_SECRET.as_bytes()).expect("any length will do");
    mac.update(format!("{TOKEN_KEY}_{epoch}_{user}").as_bytes());
    (hash == hex(&mac.finalize().into_bytes())).then_some((user.to_owned(), epoch.parse().ok()?))
}

/// Whether the site got what it should of a request of this caller, and not the header it forged.
fn judge(caller: &Caller, forged: &str, status: u16, body: &str) -> Outcome<()> {
    if status != 200 {
        return Err("the site does not take it".into());
    }
    let (verdict, head) = body.split_once('\n').ok_or("the site says nothing")?;
    let (user, epoch) = verdict.split_once(' ').ok_or("the site says no user")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    if user != caller.user {
        return Err(format!("signed as {user}, not as {}", caller.user).into());
    }
    if now.abs_diff(epoch.parse()?) > 5 {
        return Err(format!("signed at {epoch}, and it is {now}").into());
    }
    if head.contains(&caller.key) {
        return Err("the caller's key arrives".into());
    }
    if let Some((name, value)) = forged.trim_end().split_once(": ") {
        let arrives = headers(head)
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .any(|(_, arrived)| arrived == value || !name.eq_ignore_ascii_case("x-deki-token"));
        if arrives {
            return Err(format!("{forged:?} arrives").into());
        }
    }
    for line in HARMLESS.split_terminator("\r\n") {
        let (name, value) = line.split_once(": ").ok_or("a header without a value")?;
        if header(head, name) != Some(value) {
            return Err(format!("{line} does not arrive").into());
        }
    }
    Ok(())
}

/// That as many good requests are in the log, each as a line of JSON that says who called and as whom.
fn logged(proxy: &Proxy, good: usize) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = proxy.logged()?;
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| {
                line["status"] == 200
                    && line["caller"]
                        .as_str()
                        .is_some_and(|name| name.starts_with("crm"))
                    && line["user"]
                        .as_str()
                        .is_some_and(|name| name.starts_with("=crm-"))
            })
            .count();
        if lines == good {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(proxy.complaint(format!("logs {lines} of {good} requests")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
