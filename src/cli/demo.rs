//! `countersign demo`: an emulated site and the gateway on free ports, calls and attacks, and what
//! came of each. It runs with the proxy.yaml that lies beside this file.

mod calls;
mod occasion;
mod stage;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use tokio::sync::oneshot;

use self::occasion::Occasion;
use self::stage::{Own, Stage};
use super::{Outcome, runtime};
use crate::config;
use crate::config::reference::Sources;
use crate::server::Server;
use countersign_emulator::{Emulator, Options};

/// Start an emulated site and the gateway, make calls and attacks, and show what came of each.
///
/// Needs no account, no network and no configuration. Ends with 0 only if each call went as it should.
#[derive(Args, Debug)]
pub struct Demo {
    /// Call a gateway that runs already, with the repository's proxy.yaml before an emulated site, in place of one
    /// started for the occasion; leaves out TLS and the credentials that the demo makes itself
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Print the configuration that the demo runs, and do nothing else
    #[arg(long, conflicts_with = "gateway")]
    print_config: bool,
}

impl Demo {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        if self.print_config {
            write!(out, "{CONFIGURATION}")?;
            return Ok(Outcome::Good);
        }
        runtime()?.block_on(async {
            match self.gateway {
                Some(url) => {
                    let url = url.trim_end_matches('/').to_owned();
                    writeln!(
                        out,
                        "Calling the gateway at {url}, without TLS and without credentials made for the occasion.\n"
                    )?;
                    let stage = Stage { url, own: None };
                    stage.play(out).await
                }
                None => on_this_machine(CONFIGURATION, out).await,
            }
        })
    }
}

const CONFIGURATION: &str = include_str!("demo/proxy.yaml");

/// Starts both, plays, and stops both.
async fn on_this_machine(configuration: &str, out: &mut dyn Write) -> std::io::Result<Outcome> {
    let emulator = Emulator::bind(Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        ..Options::default()
    })
    .await?;
    let (site, journal) = (emulator.local_addr(), emulator.journal());
    let occasion = Occasion::new(emulator.provider())?;
    let (stop_site, site_stopped) = oneshot::channel::<()>();
    let (stop_gateway, gateway_stopped) = oneshot::channel::<()>();
    // It answers before the gateway starts, which then asks it for keys. Dropping the sender tells as
    // much as sending would.
    let emulating = tokio::spawn(emulator.serve(async move { drop(site_stopped.await) }));
    let server = start(configuration, site, &occasion).await?;
    let [plain, secure] = server.addresses()[..] else {
        return Err(std::io::Error::other("the demo's file has two listeners"));
    };
    writeln!(
        out,
        "An emulated MindTouch site listens on http://{site}, the gateway before it on http://{plain} and https://{secure}.\n\
         Both are real servers on this machine; what follows are real HTTP requests to the gateway.\n"
    )?;
    let own = Own {
        secure,
        journal,
        occasion,
    };
    let stage = Stage {
        url: format!("http://{plain}"),
        own: Some(own),
    };
    let serving = tokio::spawn(server.serve(async move { drop(gateway_stopped.await) }));
    let outcome = stage.play(out).await;
    drop(stop_gateway);
    serving.await.map_err(std::io::Error::other)?;
    drop(stop_site);
    emulating.await.map_err(std::io::Error::other)?;
    outcome
}

/// The gateway with this configuration, on free ports and before this site.
async fn start(text: &str, site: SocketAddr, occasion: &Occasion) -> std::io::Result<Server> {
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:8443", "127.0.0.1:0")
        .replace("127.0.0.1:8088", &site.to_string());
    // Gone when the gateway listens: what it has read, it keeps.
    let folder = occasion.folder()?;
    let sources = Sources {
        environment: &|name| occasion.variable(name),
        folder: folder.path().to_owned(),
    };
    let loaded = config::load_text("proxy.yaml", &text, &sources).map_err(std::io::Error::other)?;
    let server = Server::bind(&loaded.settings, loaded.policy).await;
    server.map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the demo calls that do not go as they should with a configuration that is otherwise.
    async fn failing(changes: &[(&str, &str)]) -> Vec<String> {
        let mut text = CONFIGURATION.to_owned();
        for (is, becomes) in changes {
            assert_eq!(text.matches(is).count(), 1, "{is}");
            text = text.replace(is, becomes);
        }
        let mut out = Vec::new();
        let outcome = on_this_machine(&text, &mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        let failing: Vec<_> = out
            .lines()
            .filter_map(|line| Some(line.split_once(" FAIL ")?.1.to_owned()))
            .collect();
        let expected = match failing.is_empty() {
            true => Outcome::Good,
            false => Outcome::Bad,
        };
        assert_eq!(outcome, expected, "{out}");
        failing
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_gateway_that_is_otherwise_does_is_seen() {
        const USERS: [&str; 3] = [
            "Anna has signed in",
            "Ben has signed in",
            "Chloe has signed in",
        ];
        const ADMINISTRATOR: &str =
            "an administrator has signed in, and the portal may act as support-* only";
        const EXPIRED: &str = "Anna's token of another day";
        const CERTIFIED: &str = "with a certificate that the callers' authority vouches for";
        let asked_for = "client_ca: file:callers-ca.pem       # vouches for certificates of callers; they may have none";
        for (is, becomes, expected) in [
            (
                r#"allow: ["support-*"]"#,
                r#"allow: ["support-*"]"#,
                &[][..],
            ),
            (
                r#"allow: ["support-*"]"#,
                r#"allow: ["*"]"#,
                &[ADMINISTRATOR],
            ),
            (
                r#"allow: ["support-*"]"#,
                "allow: [support-anna]",
                &USERS[1..],
            ),
            (
                "acts_as: { claim: preferred_username, allow: [\"support-*\"], deny: [support-admin] }",
                "acts_as: \"=support-anna\"",
                &[USERS[1], USERS[2], ADMINISTRATOR],
            ),
            // What a token is for is judged before its dates.
            (
                "required_claims: { azp: portal }",
                "required_claims: { azp: another }",
                &[USERS[0], USERS[1], USERS[2], ADMINISTRATOR, EXPIRED],
            ),
            (asked_for, "client_certificate: optional", &[CERTIFIED]),
            (
                "dns_name: acme.service",
                "dns_name: other.service",
                &[CERTIFIED],
            ),
            (
                "env:ZENDESK_SIGNING_SECRET",
                "env:TOKEN_SECRET",
                &["Zendesk comments on a page"],
            ),
            (
                "basic: {",
                "basic: { user: another,",
                &["with its password"],
            ),
        ] {
            let failing = failing(&[(is, becomes)]).await;
            assert_eq!(failing, expected, "{is} becomes {becomes}");
        }
    }

    /// All that is made for the occasion.
    #[tokio::test(flavor = "multi_thread")]
    async fn without_routes_nothing_of_it_goes_as_it_should() {
        let mounts = ["portal", "servicenow", "zendesk", "desk"].map(|name| {
            let is = format!("mount: /{name},");
            (is, "mount: /elsewhere/".to_owned() + name + ",")
        });
        let changes: Vec<_> = mounts
            .iter()
            .map(|(is, becomes)| (&**is, &**becomes))
            .collect();
        let made: Vec<_> = calls::CALLS
            .iter()
            .filter(|call| !matches!(call.with, calls::With::Headers | calls::With::NoTls))
            .map(|call| call.about)
            .collect();
        assert_eq!(made.len(), 12);
        assert_eq!(failing(&changes).await, made);
    }
}
