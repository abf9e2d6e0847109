//! HAProxy and nginx as people run them before the gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{TARGET, connect, with_listener};
use crate::harness::{Gateway, Log, Need, Reply, Site, cannot, get, until};

/// Where a client of the proxy connects from.
const CLIENT: &str = "127.0.0.3";

/// Where Debian puts nginx's modules.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A proxy that runs until it is dropped.
struct Product {
    process: Child,
    folder: tempfile::TempDir,
}

impl Product {
    /// Starts one with this configuration, in which FOLDER is a folder of its own; nothing if it
    /// does not run here.
    fn start(program: &str, arguments: &[&str], text: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let file = folder.path().join("proxy.conf");
        std::fs::write(&file, text.replace("FOLDER", place)).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let started = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        match started {
            Ok(process) => Some(Self { process, folder }),
            Err(fault) => {
                cannot(
                    Need::Proxies,
                    &format!(
                        "a test of proxies needs {program} ({fault}); make test installs it as root on Debian"
                    ),
                );
                None
            }
        }
    }

    /// Waits until it takes connections there.
    async fn listens(&mut self, on: &[SocketAddr]) {
        for address in on {
            until("the proxy listens", || {
                let ended = self.process.try_wait().unwrap();
                let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
                assert!(ended.is_none(), "it has ended: {}", log());
                std::net::TcpStream::connect(address).is_ok()
            })
            .await;
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Ports that nobody uses at the moment.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// One request through a proxy whose client says that it is another: who the site and the record
/// say that it is.
async fn check(log: &Log, site: &Site, proxy: SocketAddr, forged: &str, what: &str) {
    let of_client = |record: &&Value| record["client"] == CLIENT && record["status"] == 200;
    let before = log.named("exchange").iter().filter(of_client).count();
    let mut wire = connect(CLIENT, proxy).await;
    wire.write(get(TARGET, forged)).await;
    assert_eq!(wire.answer().await.status, 200, "{what}");
    let seen = site.take();
    assert_eq!(seen[0].header("x-forwarded-for"), CLIENT, "{what}");
    until("it is recorded", || {
        log.named("exchange").iter().filter(of_client).count() > before
    })
    .await;
}

/// A gateway whose listener is told this beside who is trusted.
async fn gateway(site: &Site, more: &str) -> Gateway {
    let listener = format!("trusted_proxies: [127.0.0.1/32], {more}");
    Gateway::start(&with_listener(&listener), site.address).await
}

const FORGED: [&str; 3] = [
    "",
    "X-Forwarded-For: 1.2.3.4\r\n",
    "X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\n",
];

#[tokio::test]
async fn haproxy() {
    let log = Log::listen();
    let site = Site::start(|_| Reply::ok()).await;
    let spoken = gateway(&site, "proxy_protocol: required").await;
    let forwarded = gateway(&site, "forwarded_header: x-forwarded-for").await;
    let unsaid = gateway(&site, "h2c: false").await;
    let [v1, v2, summed, http, plain] = free();
    let (to, forwarded, unsaid) = (spoken.address, forwarded.address, unsaid.address);
    let text = format!(
        "defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen v1
    bind {v1}
    server gateway {to} send-proxy
listen v2
    bind {v2}
    option httpchk
    http-check send meth GET uri /checked ver HTTP/1.1 hdr Host gateway.test
    http-check expect status 404
    server gateway {to} send-proxy-v2 check inter 50ms
listen summed
    bind {summed}
    server gateway {to} send-proxy-v2 proxy-v2-options crc32c,unique-id
listen http
    mode http
    option forwardfor
    bind {http}
    server gateway {forwarded}
listen plain
    mode http
    option forwardfor
    bind {plain}
    server gateway {unsaid}
"
    );
    let Some(mut haproxy) = Product::start("haproxy", &["-db", "-f"], &text) else {
        return;
    };
    haproxy.listens(&[v1, v2, summed, http, plain]).await;
    for (proxy, what) in [
        (v1, "send-proxy"),
        (v2, "send-proxy-v2"),
        (summed, "crc32c"),
        (http, "option forwardfor"),
        (plain, "option forwardfor, header unsaid"),
    ] {
        for forged in FORGED {
            check(&log, &site, proxy, forged, what).await;
        }
    }
    check(&log, &site, http, "Forwarded: for=1.2.3.4\r\n", "Forwarded").await;
    // Its own question whether we live is the proxy's, and is answered.
    until("it has asked", || {
        let records = log.named("exchange");
        records
            .iter()
            .any(|record| record["client"] == "127.0.0.1" && record["refusal"] == "no_route")
    })
    .await;
}

#[tokio::test]
async fn nginx() {
    if !Path::new(STREAM).exists() {
        cannot(
            Need::Proxies,
            "a test of proxies needs nginx with its stream module; make test installs it as root on Debian",
        );
        return;
    }
    let log = Log::listen();
    let site = Site::start(|_| Reply::ok()).await;
    let spoken = gateway(&site, "proxy_protocol: required").await;
    let forwarded = gateway(&site, "forwarded_header: x-forwarded-for").await;
    let [stream, http, two] = free();
    let (to, forwarded) = (spoken.address, forwarded.address);
    let text = format!(
        "load_module {STREAM};
daemon off;
master_process off;
pid FOLDER/pid;
error_log stderr;
events {{ worker_connections 64; }}
stream {{
    server {{ listen {stream}; proxy_pass {to}; proxy_protocol on; }}
    server {{ listen {two}; proxy_pass {http}; }}
}}
http {{
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server {{
        listen {http};
        location / {{
            proxy_pass http://{forwarded};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"
    );
    let Some(mut nginx) = Product::start("nginx", &["-e", "stderr", "-c"], &text) else {
        return;
    };
    nginx.listens(&[stream, http, two]).await;
    for (proxy, what) in [
        (stream, "proxy_protocol on"),
        (http, "$proxy_add_x_forwarded_for"),
    ] {
        for forged in FORGED {
            check(&log, &site, proxy, forged, what).await;
        }
    }
    // A proxy before nginx that names nobody is itself the client.
    let mut wire = connect(CLIENT, two).await;
    wire.write(get(TARGET, "")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(site.take()[0].header("x-forwarded-for"), "127.0.0.1");
}
