//! What the operator is told where a site does not take the gateway's own token: which one, and why that
//! may be.

use std::time::Instant;

use tracing::warn;

use super::exchange::Admitted;
use crate::policy::Identity;
use crate::policy::request::{Field, all};
use crate::signing::Epoch;
use crate::watch::skew::off;
use crate::wire::clock;

/// From here on the clocks are what to look at first.
pub(super) const SKEW_SECONDS: u64 = 30;

/// Says that the site of an exchange refused the token it was sent, not more often than once a minute
/// for each kind of token; and has server tokens tried.
pub(super) fn token_refused(
    admitted: &Admitted,
    signer: usize,
    fields: &[Field<'_>],
    request_id: &str,
) {
    let site = &admitted.admission.route.site;
    let watched = &admitted.watched;
    let skew = skew_seconds(fields, clock::now());
    let (kind, position, quiet) = match admitted.admission.identity {
        Identity::Page => ("browser", None, &watched.browser_token_refused),
        Identity::User(_) => {
            watched.server_tokens.want_probes();
            ("server", Some(signer), &watched.server_token_refused)
        }
    };
    let dialect = position.and_then(|position| site.signers.get(position));
    let dialect = dialect.map(|signer| signer.dialect().name());
    let corrected = watched.clock.correction();
    if quiet.may_speak(Instant::now()) {
        warn!(
            site = &*site.name,
            token = kind,
            position,
            dialect,
            skew_seconds = skew,
            request_id,
            "the site does not accept this gateway's token: {}",
            reason(&admitted.admission.identity, skew, corrected)
        );
    }
}

/// How far this machine's clock is ahead of the site's; `None` where the answer does not tell, or comes
/// from a cache.
pub(super) fn skew_seconds(fields: &[Field<'_>], now: Epoch) -> Option<i64> {
    let mut dates = all(fields, "date");
    let date = clock::read_date(dates.next()?)?;
    let is_fresh = dates.next().is_none() && all(fields, "age").next().is_none();
    let (now, date) = (
        i64::try_from(now.as_unix()).ok()?,
        i64::try_from(date.as_unix()).ok()?,
    );
    is_fresh.then_some(now - date)
}

/// What to look at. Of the skew so much was `corrected` in the token.
fn reason(identity: &Identity, skew: Option<i64>, corrected: i64) -> String {
    match (identity, skew) {
        // A browser token has no time in it.
        (Identity::Page, _) => "the browser token was removed, or the page's host is not in its list at the site; \
             compare allowed_hosts with the list there"
            .to_owned(),
        (Identity::User(_), Some(skew)) if skew.abs_diff(corrected) > SKEW_SECONDS => {
            off(skew)
        }
        (Identity::User(_), _) => "the token key or secret is wrong, or the token was removed, or it is restricted to another user; \
             compare them with the site's API token page"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::request::tests::fields;
    use crate::signing::{User, UserEncoding};

    #[test]
    fn how_far_clocks_are_apart() {
        let check = |lines: &[(&str, &str)], expected| {
            let now = Epoch::from_unix(1_444_070_667);
            assert_eq!(skew_seconds(&fields(lines), now), expected, "{lines:?}");
        };
        let date = ("Date", "Mon, 05 Oct 2015 18:44:27 GMT");
        check(&[date], Some(0));
        check(&[("date", "Mon, 05 Oct 2015 18:43:27 GMT")], Some(60));
        check(&[("Date", "Mon, 05 Oct 2015 18:45:28 GMT")], Some(-61));
        check(&[date, ("Age", "0")], None);
        check(&[date, date], None);
        check(&[("Date", "yesterday")], None);
        check(&[], None);
    }

    #[test]
    fn what_to_look_at() {
        let user = Identity::User(User::parse("=crm-bot", UserEncoding::Plain).unwrap());
        let check = |identity: &Identity, skew, corrected, expected: &str| {
            let reason = reason(identity, skew, corrected);
            assert!(reason.contains(expected), "{skew:?}: {reason}");
        };
        check(&user, Some(301), 0, "301 s ahead of the site's; fix NTP");
        check(&user, Some(-31), 0, "31 s behind the site's");
        check(&user, Some(601), 0, "more than 600 s are not corrected");
        check(&user, Some(0), 480, "0 s behind the site's");
        for skew in [None, Some(0), Some(30), Some(-30)] {
            check(&user, skew, 0, "key or secret is wrong");
        }
        check(&user, Some(480), 481, "key or secret is wrong");
        for skew in [None, Some(1000)] {
            check(&Identity::Page, skew, 0, "not in its list");
        }
    }
}
