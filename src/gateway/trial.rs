//! A server token is tried: the site is asked, with this token, who asks.

use tokio::time::Instant;

use super::Gateway;
use super::blame::{SKEW_SECONDS, skew_seconds};
use super::current_user::{CurrentUser, current_user};
use super::probe::{Heard, chance, question, tell_operator};
use crate::policy::{Identity, Refusal};
use crate::rewrite;
use crate::signing::{Epoch, User};
use crate::upstream::Failure;
use crate::watch::generation::Watched;
use crate::watch::rotation::{Probed, TokenFault};
use crate::wire::clock;
use crate::wire::coding;
use crate::wire::head::AnswerHead;

/// What these probes say they are.
const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"), " (token probe)");

/// How much of the document of a user is read; who it is stands at its beginning.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// The cause where the site is there, and fails.
const SITE_ERROR: &str = "site_error";

/// What trying a token brought.
struct Trial {
    probed: Probed,
    /// Whether tokens are minted by another clock from now on.
    clock_turned: bool,
}

impl Gateway {
    /// Tries each server token of a site now and then, as long as there is somebody to try it as; never
    /// returns.
    pub(super) async fn keep_trying_tokens(&self, watched: &Watched) {
        loop {
            let began = Instant::now();
            // A reload may name another one.
            if let Some(Identity::User(user)) = watched.probe_as() {
                self.try_tokens(watched, &user).await;
            }
            watched.server_tokens.next_round(began, chance()).await;
        }
    }

    async fn try_tokens(&self, watched: &Watched, user: &User) {
        for position in 0..watched.site().signers.len() {
            let mut trial = self.try_token(watched, position, user).await;
            if trial.clock_turned && matches!(trial.probed, Ok(Err(_))) {
                trial = self.try_token(watched, position, user).await;
            }
            let tokens = &watched.server_tokens;
            tokens.probed(position, user, trial.probed, clock::now());
            if let Ok(Err(TokenFault::Clock(skew))) = trial.probed
                && watched
                    .clock
                    .skew_seconds()
                    .is_some_and(|median| median.abs_diff(skew) > SKEW_SECONDS)
            {
                // One of the clocks was set, and the median does not know it yet.
                tokens.want_probes();
            }
        }
    }

    async fn try_token(&self, watched: &Watched, position: usize, user: &User) -> Trial {
        let untold = |cause| Trial {
            probed: Err(cause),
            clock_turned: false,
        };
        let site = watched.site();
        let Some(signer) = site.signers.get(position) else {
            return untold(Failure::Invalid.cause());
        };
        let wall = clock::now();
        let epoch = watched.clock.corrected(wall, Instant::now());
        let token = signer.mint(user, epoch);
        let question = question(&site, "users/current", USER_AGENT, Some(&token));
        let heard = self.ask(watched, &question, DOCUMENT_BYTES_MAX).await;
        let now = Instant::now();
        match heard.and_then(|heard| Ok((judge(&heard, user, wall, epoch)?, skew_of(&heard)?))) {
            Ok((probed, skew)) => {
                // It is there, whatever it says.
                watched.breaker.probed(Some(Ok(())), 0, now);
                let measured = skew.filter(|_| site.address.tls);
                let clock_turned =
                    measured.is_some_and(|skew| watched.clock.measured(skew, clock::now(), now));
                Trial {
                    probed,
                    clock_turned,
                }
            }
            Err(failure) => {
                if watched.breaker.tells(failure.cause(), now) {
                    tell_operator(failure, &site);
                }
                untold(failure.cause())
            }
        }
    }
}

/// How far this machine's clock was ahead of the site's, if the answer tells.
fn skew_of(heard: &Heard) -> Result<Option<i64>, Failure> {
    Ok(skew_seconds(&heard.head()?.fields, heard.midpoint()))
}

/// What an answer says of the token that was sent: minted with `epoch` when this machine's clock said
/// `wall`.
fn judge(heard: &Heard, user: &User, wall: Epoch, epoch: Epoch) -> Result<Probed, Failure> {
    let head = heard.head()?;
    let Ok(readings) = coding::readings(&head.fields, &heard.body, DOCUMENT_BYTES_MAX) else {
        return Ok(Ok(Err(TokenFault::NoUser)));
    };
    // Status and document, as for callers; to a question without an error in it, either will do.
    let refused = rewrite::judge_error(head.status, &readings) == Err(Refusal::SiteRefusedToken);
    Ok(match head.status {
        _ if refused => Ok(Err(refused_because(&head, heard, wall, epoch))),
        401 | 403 => Ok(Err(refused_because(&head, heard, wall, epoch))),
        200 => {
            let named = readings.iter().rev().find_map(|text| current_user(text));
            Ok(named.map_or(Err(TokenFault::NoUser), |named| is_it(&named, user)))
        }
        408 | 429 | 500.. => Err(SITE_ERROR),
        _ => Ok(Err(TokenFault::NoUser)),
    })
}

/// The clock, if the token was of another time than the site's.
fn refused_because(head: &AnswerHead<'_>, heard: &Heard, wall: Epoch, epoch: Epoch) -> TokenFault {
    let Some(skew) = skew_seconds(&head.fields, heard.midpoint()) else {
        return TokenFault::Refused;
    };
    let seconds = |epoch: Epoch| i64::try_from(epoch.as_unix()).unwrap_or(i64::MAX);
    let corrected = seconds(wall).saturating_sub(seconds(epoch));
    if skew.abs_diff(corrected) > SKEW_SECONDS {
        TokenFault::Clock(skew)
    } else {
        TokenFault::Refused
    }
}

/// Whether the site knows the user it was told, as the one it was told.
fn is_it(named: &CurrentUser, user: &User) -> Result<(), TokenFault> {
    let is_it = match user.name() {
        Some(name) => named.name.to_lowercase() == name.to_lowercase(),
        None => named.id == user.as_sent(),
    };
    match (named.is_anonymous, is_it) {
        (true, _) => Err(TokenFault::Anonymous),
        (false, true) => Ok(()),
        (false, false) => Err(TokenFault::OtherUser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::UserEncoding;

    #[test]
    fn who_it_is() {
        let check = |user: &str, anonymous: bool, id: &str, name: &str, expected| {
            let user = User::parse(user, UserEncoding::Percent).unwrap();
            let named = CurrentUser {
                is_anonymous: anonymous,
                id: id.to_owned(),
                name: name.to_owned(),
            };
            assert_eq!(is_it(&named, &user), expected, "{user} {id} {name}");
        };
        check("=crm-bot", false, "7", "crm-bot", Ok(()));
        check("=crm-bot", false, "7", "CRM-Bot", Ok(()));
        check(
            "=J\u{f6}rg D\u{f6}",
            false,
            "7",
            "J\u{d6}RG d\u{f6}",
            Ok(()),
        );
        check("7", false, "7", "crm-bot", Ok(()));
        check("7", false, "77", "7", Err(TokenFault::OtherUser));
        check("=7", false, "7", "x", Err(TokenFault::OtherUser));
        check("=crm-bot", false, "7", "", Err(TokenFault::OtherUser));
        check(
            "=crm-bot",
            true,
            "2",
            "Anonymous",
            Err(TokenFault::Anonymous),
        );
        // Who signs as nobody is told so as well.
        check(
            "=Anonymous",
            true,
            "2",
            "Anonymous",
            Err(TokenFault::Anonymous),
        );
    }
}
