//! Plays the demo: makes the calls, tells what came of each, and finds what went otherwise than it should.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;

use super::calls::{self, Arrives, CALLS, Call, With};
use super::occasion::Occasion;
use crate::cli::Outcome;
use crate::client::{self, Answer, Ask};
use crate::telemetry::may_colour;
use countersign_emulator::{Arrival, Journal};

/// A gateway to call.
pub(super) struct Stage {
    /// Where it listens without TLS.
    pub(super) url: String,
    /// What there is only of one that the demo started.
    pub(super) own: Option<Own>,
}

/// What there is of a gateway that the demo started.
pub(super) struct Own {
    /// Where it speaks TLS.
    pub(super) secure: SocketAddr,
    /// What arrives at the site.
    pub(super) journal: Journal,
    /// What its callers present.
    pub(super) occasion: Occasion,
}

impl Stage {
    /// Makes all calls that can be made here, and tells what came of each.
    pub(super) async fn play(&self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let mut failed = 0;
        let can_be_made = |call: &&Call| self.own.is_some() || call.with == With::Headers;
        let calls: Vec<_> = CALLS.iter().filter(can_be_made).collect();
        for (index, call) in calls.iter().enumerate() {
            if let Some(part) = call.part {
                writeln!(out, "{part}")?;
            }
            let seen = self.make(call).await;
            let faults = seen.as_ref().map_or_else(
                |fault| vec![fault.clone()],
                |(answer, arrivals)| call.faults(answer, arrivals.as_deref()),
            );
            let mark = match (faults.is_empty(), may_colour(&std::io::stdout())) {
                (true, false) => "ok  ",
                (true, true) => "\x1b[32mok\x1b[0m  ",
                (false, false) => "FAIL",
                (false, true) => "\x1b[31mFAIL\x1b[0m",
            };
            writeln!(out, "{:3} {mark} {}", index + 1, call.about)?;
            writeln!(out, "         {} {}", call.method, call.target)?;
            if let Ok((answer, arrivals)) = &seen {
                writeln!(out, "         {}", told(answer, arrivals.as_deref()))?;
            }
            for fault in &faults {
                writeln!(out, "         but {fault}")?;
            }
            failed += usize::from(!faults.is_empty());
        }
        writeln!(out)?;
        if failed > 0 {
            writeln!(
                out,
                "{failed} of {} calls did not go as they should.",
                calls.len()
            )?;
            return Ok(Outcome::Bad);
        }
        writeln!(
            out,
            "All {} calls went as they should: what was allowed arrived signed, the rest was refused at the gateway.",
            calls.len()
        )?;
        Ok(Outcome::Good)
    }

    /// Makes a call, and finds what of it arrived at the site.
    async fn make(&self, call: &Call) -> Result<(Answer, Option<Vec<Arrival>>), String> {
        let own = self.own.as_ref();
        if let Some(own) = own {
            drop(own.journal.take());
        }
        let presented = own.map(|own| own.occasion.presented(call)).transpose()?;
        let url = format!("{}{}", self.base(call.with), call.target);
        let more = presented.iter().flat_map(|presented| &presented.headers);
        let more = more.map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = call.headers.iter().copied().chain(more).collect();
        let method = call.method.parse().map_err(|_| "the method is none")?;
        let ask = Ask {
            headers: &headers,
            body: Bytes::from_static(call.body.as_bytes()),
            trust: presented.as_ref().map(|presented| presented.trust),
            ..Ask::new(method, &url)
        };
        let answer = client::ask(&ask).await?;
        let arrivals = own.map(|own| {
            let mut arrivals = own.journal.take();
            arrivals.retain(|arrival| !is_probe(arrival));
            arrivals
        });
        Ok((answer, arrivals))
    }

    /// What stands before a call's target.
    fn base(&self, with: With) -> String {
        match (&self.own, with) {
            (None, _) | (_, With::Headers) => self.url.clone(),
            (Some(own), With::NoTls) => format!("http://{}", own.secure),
            (Some(own), _) => format!("https://{}", own.secure),
        }
    }
}

/// What came of a call, in one line.
fn told(answer: &Answer, arrivals: Option<&[Arrival]>) -> String {
    let mut line = match answer.header("x-countersign-refusal") {
        "" => answer.status.to_string(),
        code => format!("{} {code}", answer.status),
    };
    match arrivals {
        None => {}
        Some([]) => line.push_str("; nothing reached the site"),
        Some(arrivals) => {
            for arrival in arrivals {
                line.push_str("; reached the site with ");
                line.push_str(calls::token_name(arrival));
                line.push_str(", as ");
                line.push_str(arrival.user.as_deref().unwrap_or("nobody"));
            }
        }
    }
    line
}

impl Call {
    /// What went otherwise than it should; empty if nothing did.
    fn faults(&self, answer: &Answer, arrivals: Option<&[Arrival]>) -> Vec<String> {
        let mut faults = Vec::new();
        if answer.status != self.status {
            faults.push(format!("the status should be {}", self.status));
        }
        let code = answer.header("x-countersign-refusal");
        if code != self.refusal {
            faults.push(match self.refusal {
                "" => "it should not be refused".to_owned(),
                expected => format!("it should be refused as {expected}"),
            });
        }
        if !answer.text().contains(self.shows) {
            faults.push(format!("the answer should show {:?}", self.shows));
        }
        if let Some((name, value)) = self.answer_header
            && answer.header(name) != value
        {
            faults.push(format!("the answer should have {name}: {value}"));
        }
        for leak in ["set-cookie", "x-deki-token", "x-deki-site", "server"] {
            if answer.headers.contains_key(leak) {
                faults.push(format!("the answer should not have {leak}"));
            }
        }
        if let Some(arrivals) = arrivals {
            faults.extend(self.arrives.faults(arrivals));
        }
        faults
    }
}

impl Arrives {
    fn faults(self, arrivals: &[Arrival]) -> Option<String> {
        match (self, arrivals) {
            (Self::Nothing, []) => None,
            (Self::Nothing, _) => Some("nothing should reach the site".to_owned()),
            (Self::Signed(user), [arrival]) if calls::is_signed(arrival, user) => None,
            (Self::Signed(user), _) => Some(format!(
                "the site should get one request, well signed, as {user}"
            )),
            (Self::FromPage, [arrival]) if calls::is_from_page(arrival) => None,
            (Self::FromPage, _) => {
                Some("the site should get one request with the browser token".to_owned())
            }
        }
    }
}

/// Whether the gateway asked this for itself.
fn is_probe(arrival: &Arrival) -> bool {
    let mut fields = arrival.headers.iter();
    fields.any(|(name, value)| name == "user-agent" && value.ends_with("probe)"))
}
