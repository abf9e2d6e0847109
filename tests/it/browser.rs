//! Browser routes in Chromium: which pages can read, and that nothing else reaches the site.
//!
//! One browser serves every scenario, since starting it takes longer than all of them. Every host
//! is a port of this machine; pages come over TLS, and TLS stands before the gateway as well, so
//! that origins, cookies and caches are what they are on the web.

mod allowed;
mod chromium;
mod cookies;
mod foreign;
mod web;

use countersign::policy::Refusal;
use serde_json::{Value, json};

use self::chromium::Browser;
use self::web::{Front, Web};
use crate::harness::{ROUTES, Reply, Rig, until};

/// A page at an allowed host.
const CRM: &str = "https://crm.example.com";

/// A search through the gateway.
const SEARCH: &str = "https://gateway.test/widget/@api/deki/site/query?q=x";

/// What the site says of itself, against which the gateway's word must stand.
const SITE_HEADERS: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: *\r\nX-Deki-Session: s1\r\nETag: \"e1\"\r\nX-Hidden: yes\r\n";

/// A session of the site, which a browser would keep and send from every page.
const SITE_COOKIE: &str = "Set-Cookie: authtoken=1_7_canary; Path=/; Secure; SameSite=None\r\n";

/// Fetches `argument.address` as `argument.init` says, and tells everything a page can learn.
const FETCH: &str = "
const ask = async ({ address, init }) => {
    try {
        const answer = await fetch(address, init);
        return {
            type: answer.type,
            status: answer.status,
            headers: Object.fromEntries(answer.headers),
            text: await answer.text(),
        };
    } catch (fault) {
        return { fault: String(fault) };
    }
};
";

/// A site, the gateway before it, TLS before that, and a browser.
struct Scene {
    browser: Browser,
    rig: Rig,
    gateway: Front,
    /// The site without the gateway, to show what the gateway prevents.
    site: Front,
}

impl Scene {
    /// Sets it; `None` where no browser is installed.
    async fn set() -> Option<Self> {
        let rig = Rig::with(ROUTES, |seen| {
            if seen.all("host") == ["site.example.com"] {
                // What the site would do without the gateway.
                let origin = seen.header("origin");
                let headers = format!("{SITE_COOKIE}Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n");
                return Reply::with(&headers, "<user id=\"3\"/>");
            }
            if seen.target.contains("cacheable") {
                return Reply::with("Cache-Control: max-age=3600\r\n", "<kept/>");
            }
            Reply::with(&format!("{SITE_COOKIE}{SITE_HEADERS}"), "<user id=\"3\"/>")
        })
        .await;
        let web = Web::start().await;
        let gateway = web.before(rig.gateway.address).await;
        let site = web.before(rig.site.address).await;
        let rules = [
            format!("MAP gateway.test:443 {}", gateway.address),
            format!("MAP gateway.example.com:443 {}", gateway.address),
            format!("MAP site.example.com:443 {}", site.address),
            format!("MAP *:80 {}", web.plain_pages),
            format!("MAP *:443 {}", web.pages),
            format!("MAP *:8444 {}", web.pages),
            "MAP * ~NOTFOUND".to_owned(),
        ];
        let browser = Browser::open(&rules.join(","), &web.key_digest).await?;
        Some(Self {
            browser,
            rig,
            gateway,
            site,
        })
    }

    /// Fetches from the page that is open.
    async fn fetch(&self, address: &str, init: Value) -> Value {
        let call = json!({ "address": address, "init": init });
        let script = format!("{FETCH} return ask(argument);");
        self.browser.run(&script, &call).await
    }

    /// Runs a script in the page that is open, and waits until the gateway has refused as often as
    /// it should. Nothing reaches the site.
    async fn refuses(&self, expected: &[Refusal], what: &str, script: &str, call: &Value) -> Value {
        let telemetry = &self.rig.gateway.shared.telemetry;
        let site = &self.rig.site;
        let (exchanges, mut counts) = (telemetry.exchanges(), Vec::new());
        for refusal in expected {
            let times = expected.iter().filter(|one| *one == refusal).count() as u64;
            counts.push((*refusal, telemetry.refused(*refusal) + times));
        }
        let result = self.browser.run(script, call).await;
        until(&format!("{what} is refused as {expected:?}"), || {
            telemetry.exchanges() >= exchanges + expected.len() as u64 || site.count() > 0
        })
        .await;
        assert_eq!(site.take(), [], "{what} reaches the site");
        for (refusal, count) in counts {
            assert_eq!(
                telemetry.refused(refusal),
                count,
                "{what} is refused as {refusal:?}"
            );
        }
        result
    }
}

#[tokio::test]
async fn pages_in_chromium() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    allowed::reads_an_answer(&scene).await;
    allowed::sends_json(&scene).await;
    allowed::sends_the_browser_token(&scene).await;
    allowed::hosts_below_a_wildcard(&scene).await;
    allowed::reads_why_it_is_refused(&scene).await;
    allowed::calls_a_server_route_with_a_key(&scene).await;
    allowed::first_rollout(&scene).await;
    foreign::pages_cannot_fetch(&scene).await;
    foreign::null_origin(&scene).await;
    foreign::redirects(&scene).await;
    foreign::elements(&scene).await;
    foreign::elements_of_an_allowed_page(&scene).await;
    foreign::jsonp(&scene).await;
    foreign::a_neighbour_and_the_cache(&scene).await;
    foreign::console(&scene).await;
    cookies::neither_up_nor_down(&scene).await;
    scene.browser.close().await;
}
