//! The rig: a gateway from a text of proxy.yaml, a site that records what it gets, and a caller that
//! writes bytes.

pub mod answer;
pub mod caller;
pub mod certificate;
pub mod issuer;
pub mod log;
pub mod need;
pub mod site;
pub mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign::config::reference::Sources;
use countersign::config::{self, Loaded, Unusable};
use countersign::server::{Server, Shared};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::answer::Answer;
pub use self::caller::Wire;
pub use self::log::{Capture, Log};
pub use self::need::{Need, cannot};
pub use self::site::{Reply, Seen, Site};

/// The token of the site, and the secrets of the rig: canaries, which may appear nowhere.
pub const TOKEN_KEY: &str = "canary0key0dacaffe7ce69dfd1071531e925f667905a1c981fb40d06c67688";
pub const TOKEN_SECRET: &str = "canary0secret05b70319201e9abad12a3458b32ed30cf634ef569ea47906e5";
pub const BROWSER_KEY: &str = "canary0browser0d6c8b1f0a7e94c52b3d8e1f6a9c07b5e4d2f183a6c9b0e7d4";
/// The caller's key whose digest is in [`ROUTES`].
pub const API_KEY: &str = "cs_canary_api_key_of_the_crm";
/// A second caller's.
pub const OTHER_KEY: &str = "cs_canary_api_key_of_the_portal";

/// What callers sign their messages with.
pub const HOOK_SECRET: &str = "canary-secret-of-the-webhooks-0";
pub const NEW_HOOK_SECRET: &str = "canary-secret-of-the-webhooks-1";
/// The same, as Standard Webhooks write it.
pub const STANDARD_SECRET: &str = "whsec_Y2FuYXJ5LXNlY3JldC1vZi10aGUtd2ViaG9va3M=";

/// No test waits longer for anything; on a busy machine everything takes its time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The routes most tests use. `@SITE@` is the site's address.
pub const ROUTES: &str = r#"
listeners: [{ address: "127.0.0.1:0" }]
admin: { address: "127.0.0.1:0" }
sites:
  acme:
    url: http://@SITE@
    server_tokens: [{ key: env:TOKEN_KEY, secret: env:TOKEN_SECRET }]
    browser_token:
      key: env:BROWSER_KEY
      allowed_hosts: ["crm.example.com, *.apps.example.com", "shop.example.com:8443"]
callers:
  crm: { api_key: { sha256: "@API@" }, acts_as: "=crm-bot" }
  portal: { api_key: { sha256: ["@OTHER@"] }, acts_as: "7" }
routes:
  - { name: read, mount: /crm, site: acme, token: server, callers: [crm, portal], allow: [search, read-pages, read-files, read-users, whoami] }
  - { name: write, mount: /write, site: acme, token: server, callers: [crm], allow: [read-pages, write-pages, write-files, read-files, comments] }
  - { name: everything, mount: /all, site: acme, token: server, callers: [crm], allow: [all] }
  - { name: minting, mount: /mint, site: acme, token: server, callers: [crm], allow: [all, mint-credentials] }
  - { name: sessions, mount: /sessions, site: acme, token: server, callers: [crm], allow: [mint-credentials], return_sessions: true }
  - { name: shared, mount: /shared, site: acme, token: server, callers: [crm], allow: [all], origins: [crm.example.com] }
  - { name: widget, mount: /widget, site: acme, token: browser, allow: [search, read-pages, comments, write-pages, whoami] }
  - { name: trial, mount: /trial, site: acme, token: browser, allow: [search], report_only: true }
  - { name: hosted, host: api.example.com, site: acme, token: server, callers: [crm], allow: [whoami] }
"#;

/// A running gateway.
pub struct Gateway {
    /// Where callers connect.
    pub address: SocketAddr,
    /// Where operators connect.
    pub admin: Option<SocketAddr>,
    /// What can be asked about it.
    pub shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// Compiles a text of proxy.yaml for a site at `site`.
pub fn compile(text: &str, site: SocketAddr) -> Result<Loaded, Unusable> {
    let digest = |key: &str| countersign::policy::caller::KeyDigest::of(key.as_bytes()).to_hex();
    let text = text
        .replace("@SITE@", &site.to_string())
        .replace("@API@", &digest(API_KEY))
        .replace("@OTHER@", &digest(OTHER_KEY));
    let environment = |name: &str| match name {
        "TOKEN_KEY" => Some(TOKEN_KEY.to_owned()),
        "TOKEN_SECRET" => Some(TOKEN_SECRET.to_owned()),
        "ADMIN_TOKEN" => Some("canary-admin-token-0123456789".to_owned()),
        "BROWSER_KEY" => Some(BROWSER_KEY.to_owned()),
        "HOOK_SECRET" => Some(HOOK_SECRET.to_owned()),
        "NEW_HOOK_SECRET" => Some(NEW_HOOK_SECRET.to_owned()),
        "STANDARD_SECRET" => Some(STANDARD_SECRET.to_owned()),
        "EMULATED_KEY" => Some(countersign_emulator::TOKEN_KEY.to_owned()),
        "EMULATED_SECRET" => Some(countersign_emulator::TOKEN_SECRET.to_owned()),
        _ => None,
    };
    let sources = Sources {
        environment: &environment,
        folder: PathBuf::new(),
    };
    config::load_text("proxy.yaml", &text, &sources)
}

impl Gateway {
    /// Starts one with this text of proxy.yaml.
    pub async fn start(text: &str, site: SocketAddr) -> Self {
        let loaded = compile(text, site).unwrap_or_else(|unusable| panic!("{unusable}"));
        let server = Server::bind(&loaded.settings, loaded.policy)
            .await
            .expect("the port is free");
        Self::serving(server)
    }

    /// Starts one with a file, which it reads again when it is told to, and when it changes.
    pub async fn of_file(path: &std::path::Path) -> Self {
        let read = config::attempt(path);
        let loaded = read.outcome.unwrap_or_else(|unusable| panic!("{unusable}"));
        let server = Server::bind(&loaded.settings, loaded.policy)
            .await
            .expect("the port is free");
        let path = path.to_owned();
        let load = Arc::new(move || config::attempt(&path));
        Self::serving(server.reloading(load, read.inputs))
    }

    fn serving(server: Server) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            address: server.addresses()[0],
            admin: server.admin_address(),
            shared: server.shared(),
            stop: Some(stop),
            serving: tokio::spawn(server.serve(async move { drop(stopped.await) })),
        }
    }

    /// Tells it to stop, as SIGTERM does.
    pub fn tell_to_stop(&mut self) {
        self.stop.take();
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) {
        drop(self.stop);
        within(self.serving).await.expect("it does not panic");
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Wire {
        Wire::open(self.address).await
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut wire = self.connect().await;
        wire.write(request).await;
        wire.answer().await
    }
}

/// A gateway with [`ROUTES`] before a site that answers everything with a little XML.
pub struct Rig {
    /// The gateway.
    pub gateway: Gateway,
    /// The site behind it.
    pub site: Arc<Site>,
}

impl Rig {
    /// Starts both.
    pub async fn start() -> Self {
        Self::with(ROUTES, |_| Reply::ok()).await
    }

    /// Starts both, with another file and other answers.
    pub async fn with(text: &str, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let site = Site::start(reply).await;
        let gateway = Gateway::start(text, site.address).await;
        Self { gateway, site }
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        self.gateway.send(request).await
    }

    /// A GET with the caller's key and further header lines (each ending in CRLF).
    pub async fn get(&self, target: &str, more: &str) -> Answer {
        self.send(get(target, more)).await
    }
}

/// A GET with the caller's key and further header lines (each ending in CRLF).
pub fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gateway.test\r\nX-Api-Key: {API_KEY}\r\n{more}\r\n")
}

/// Waits for something that will come, and fails the test instead of hanging it.
pub async fn within<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
