//! Listeners, the admin address and limits: what is the program's and not a request's.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::proxies::{self, proxies};
use super::tls;
use super::units::{bytes, duration};
use crate::config::reference::References;
use crate::config::tls::Tls;
use crate::config::tree::{At, Fields};
use crate::policy::forwarded::TrustedProxies;
use crate::policy::limit::{CallerLimits, ConnectionLimits, RequestLimits, SharedLimits};
use crate::signing::Secret;

/// What the program is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where callers connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where operators connect.
    pub admin: Option<Admin>,
    /// How much is taken from everybody and from one address.
    pub connections: ConnectionLimits,
    /// How long requests in flight may take to finish when the program stops.
    pub drain_timeout: Duration,
    /// What each caller may use.
    pub caller_limits: Vec<(Arc<str>, CallerLimits)>,
    /// What those may use who hold no credential.
    pub shared_limits: SharedLimits,
    /// Whether records hold the path as it came.
    pub records_paths: bool,
    /// Whether records hold origins that are on no list, and hosts that found no route.
    pub records_origins: bool,
}

/// The address operators connect to.
#[derive(Clone, Debug)]
pub struct Admin {
    /// An IP address and a port.
    pub address: SocketAddr,
    /// What they present for all but the two questions of orchestrators; `None` lets everybody ask.
    pub token: Option<Arc<Secret>>,
}

/// One address callers connect to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// An IP address and a port.
    pub address: SocketAddr,
    /// Whether HTTP/2 without TLS is spoken there, by prior knowledge (RFC 9113 section 3.3).
    pub h2c: bool,
    /// What it proves itself with; without it, there is no TLS.
    pub tls: Option<Tls>,
    /// Whose word about where a request comes from is believed there.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Whether connections are taken from trusted proxies only, and begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl Settings {
    /// These settings where `old` ones are in force already, and the keys of the file that wait for a
    /// restart: what the program is started with stays as it is.
    pub fn over(self, old: &Self) -> (Self, Vec<&'static str>) {
        let same_listeners = self.listeners.len() == old.listeners.len()
            && (self.listeners.iter().zip(&old.listeners)).all(|(new, old)| new.is_like(old));
        let same_admin = match (&self.admin, &old.admin) {
            (Some(new), Some(old)) => new.is_like(old),
            (new, old) => new.is_none() && old.is_none(),
        };
        let (new, before) = (&self.connections, &old.connections);
        let restart = [
            ("listeners", same_listeners),
            ("admin", same_admin),
            (
                "limits.connections",
                new.connections_max == before.connections_max,
            ),
            (
                "limits.connections_per_address",
                new.per_address_max == before.per_address_max,
            ),
            (
                "limits.header_timeout",
                new.header_timeout == before.header_timeout,
            ),
            (
                "limits.idle_timeout",
                new.idle_timeout == before.idle_timeout,
            ),
            (
                "limits.body_rate_min",
                new.body_bytes_per_second_min == before.body_bytes_per_second_min,
            ),
            ("limits.body_grace", new.body_grace == before.body_grace),
        ];
        let restart = restart.into_iter().filter(|(_, is_same)| !is_same);
        let restart = restart.map(|(key, _)| key).collect();
        let kept = Self {
            listeners: old.listeners.clone(),
            admin: old.admin.clone(),
            connections: old.connections,
            ..self
        };
        (kept, restart)
    }
}

impl Admin {
    fn is_like(&self, other: &Self) -> bool {
        let same_token = match (&self.token, &other.token) {
            (Some(one), Some(two)) => one.is(two),
            (one, two) => one.is_none() && two.is_none(),
        };
        self.address == other.address && same_token
    }
}

impl Listener {
    /// Whether it is written as another one is. What its certificates hold may differ: that is taken
    /// without a restart.
    fn is_like(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(one), Some(two)) => one.has_files_of(two),
            (one, two) => one.is_none() && two.is_none(),
        };
        self.address == other.address
            && self.h2c == other.h2c
            && self.trusted_proxies == other.trusted_proxies
            && self.proxy_protocol == other.proxy_protocol
            && same_tls
    }
}

/// The settings, and what one user of a caller may use where the caller says nothing.
pub(super) fn compile(
    file: &Fields<'_>,
    references: &References<'_>,
) -> (Settings, Option<WrittenLimits>) {
    let listeners = listeners(file, references);
    let admin = file.optional("admin", |at| admin(at, references));
    let of_admin = admin.as_ref().map(|admin| admin.address);
    if let Some(taken) =
        of_admin.filter(|admin| listeners.iter().any(|one| is_taken(one.address, *admin)))
    {
        file.problem_at(
            "admin",
            format!(
                "callers connect to {taken} already; give the admin listener an address of its own"
            ),
        );
    }
    let mut settings = Settings {
        listeners,
        admin,
        connections: ConnectionLimits::default(),
        drain_timeout: Duration::from_secs(30),
        caller_limits: Vec::new(),
        shared_limits: SharedLimits::default(),
        records_paths: false,
        records_origins: false,
    };
    file.optional("log", |at| log(at, &mut settings));
    let per_user = file.optional("limits", |at| limits(at, &mut settings));
    (settings, per_user.flatten())
}

/// The address and the token of operators.
pub(super) fn admin(at: At<'_>, references: &References<'_>) -> Option<Admin> {
    let fields = at.fields(&["address", "token"])?;
    let address = fields.required("address", "write an address such as 127.0.0.1:9901", |at| {
        socket_address(&at, references)
    });
    let token = fields.optional("token", |at| references.secret(at, false));
    let is_short =
        |token: &Secret| references.follow() && token.byte_count() < ADMIN_TOKEN_BYTES_MIN;
    if token.as_ref().is_some_and(is_short) {
        fields.problem_at("token", format!("a token that can be guessed keeps nobody out; make one of at least {ADMIN_TOKEN_BYTES_MIN} characters, such as openssl rand -hex 32 prints"));
    }
    if token
        .as_ref()
        .is_some_and(|token| !token.is_visible_ascii())
    {
        fields.problem_at("token", "it is sent in a header: letters, digits and punctuation of ASCII only, such as openssl rand -hex 32 prints");
    }
    let address = address?;
    if !is_loopback(address) && !fields.has("token") {
        fields.warning_at("address", "whoever reaches this address reads the whole policy and all metrics: callers, users, sites; demand a token (token: env:NAME or file:PATH), or bind it to 127.0.0.1");
    }
    Some(Admin {
        address,
        token: token.map(Arc::new),
    })
}

/// Shortest token of operators.
const ADMIN_TOKEN_BYTES_MIN: usize = 16;

fn log(at: At<'_>, settings: &mut Settings) -> Option<()> {
    let fields = at.fields(&["paths", "origins"])?;
    let is_full = |key: &str| {
        let full = fields.optional(key, |at| {
            let is_full = at.text()? == "full";
            if !is_full {
                at.problem("write full, or leave it out: then records hold the endpoint and names of this file only");
            }
            Some(is_full)
        });
        full.unwrap_or(false)
    };
    settings.records_paths = is_full("paths");
    settings.records_origins = is_full("origins");
    Some(())
}

fn listeners(file: &Fields<'_>, references: &References<'_>) -> Vec<Listener> {
    if !file.has("listeners") {
        file.problem("listeners is missing; write a list with at least one address, such as - address: 127.0.0.1:8080");
    }
    let mut seen = Vec::new();
    file.each("listeners", |at| {
        let [trusted, header, protocol] = proxies::KEYS;
        let fields = at.fields(&["address", "h2c", "tls", trusted, header, protocol])?;
        let proxies = proxies(&fields, references);
        let h2c = fields.optional("h2c", |at| at.flag()).unwrap_or(false);
        let tls = fields.optional("tls", |at| tls::compile(at, references));
        if h2c && fields.has("tls") {
            fields.problem_at("h2c", "HTTP/2 is chosen in the TLS handshake here, and callers without TLS are refused; remove h2c");
        }
        let address =
            fields.required("address", "write an address such as 127.0.0.1:8080", |at| {
                socket_address(&at, references)
            })?;
        if seen.iter().any(|other| is_taken(*other, address)) {
            fields.problem_at(
                "address",
                "another listener has this address; remove one of them",
            );
        }
        seen.push(address);
        if !is_loopback(address) && !fields.has("tls") {
            fields.warning_at("address", "callers' keys cross the network in the clear here; give the listener a certificate with tls:, bind it to 127.0.0.1, or put what terminates TLS before it on a network of your own");
        }
        let (trusted_proxies, proxy_protocol) = proxies;
        Some(Listener {
            address,
            h2c,
            tls,
            trusted_proxies,
            proxy_protocol,
        })
    })
}

/// Port 0 lets the system choose, so two of them are different.
fn is_taken(taken: SocketAddr, wanted: SocketAddr) -> bool {
    taken == wanted && wanted.port() != 0
}

/// Whether what is sent to an address crosses no network.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn limits(at: At<'_>, settings: &mut Settings) -> Option<Option<WrittenLimits>> {
    let fields = at.fields(&[
        "connections",
        "connections_per_address",
        "header_timeout",
        "idle_timeout",
        "body_rate_min",
        "body_grace",
        "drain_timeout",
        "per_address",
        "per_route",
        "per_origin",
        "per_user",
        "unidentified",
    ])?;
    let count = |key: &str, target: &mut usize| {
        if let Some(count) = fields.optional(key, |at| at.count(1_000_000)) {
            *target = count as usize;
        }
    };
    let time = |key: &str, most_seconds: u64, target: &mut Duration| {
        let read = |at: At<'_>| {
            duration(
                at,
                Duration::from_secs(1),
                Duration::from_secs(most_seconds),
            )
        };
        if let Some(time) = fields.optional(key, read) {
            *target = time;
        }
    };
    let connections = &mut settings.connections;
    count("connections", &mut connections.connections_max);
    connections.per_address_max = ConnectionLimits::share_of(connections.connections_max);
    count("connections_per_address", &mut connections.per_address_max);
    time("header_timeout", 120, &mut connections.header_timeout);
    time("idle_timeout", 3600, &mut connections.idle_timeout);
    time("body_grace", 600, &mut connections.body_grace);
    time("drain_timeout", 3600, &mut settings.drain_timeout);
    if let Some(rate) = fields.optional("body_rate_min", |at| bytes(at, 1 << 30)) {
        connections.body_bytes_per_second_min = rate;
    }
    let shared = &mut settings.shared_limits;
    for (key, target) in [
        ("per_address", &mut shared.per_address),
        ("per_route", &mut shared.per_route),
        ("per_origin", &mut shared.per_origin),
    ] {
        if let Some(limits) = fields.optional(key, WrittenLimits::read) {
            *target = limits.over(*target);
        }
    }
    let read = |at: At<'_>| Some(WrittenLimits::of(&at.fields(&RATES)?));
    if let Some(limits) = fields.optional("unidentified", read) {
        shared.unidentified = limits.over(shared.unidentified);
    }
    Some(fields.optional("per_user", WrittenLimits::read))
}

const RATES: [&str; 2] = ["requests_per_second", "burst"];

/// `{ requests_per_second: 50, burst: 100, in_flight: 64 }`, as far as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrittenLimits {
    per_second: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    in_flight: Option<u32>,
}

impl WrittenLimits {
    fn read(at: At<'_>) -> Option<Self> {
        let [per_second, burst] = RATES;
        Some(Self::of(&at.fields(&[per_second, burst, "in_flight"])?))
    }

    fn of(fields: &Fields<'_>) -> Self {
        let [per_second, burst] = RATES.map(|key| {
            let count = fields.optional(key, |at| at.count(1_000_000));
            count.and_then(NonZeroU32::new)
        });
        Self {
            per_second,
            burst,
            in_flight: fields.optional("in_flight", |at| at.count(1_000_000)),
        }
    }

    /// With defaults for what is not written. Where only the rate is, the burst stands to it as the
    /// default's to the default rate.
    pub(super) fn over(self, defaults: RequestLimits) -> RequestLimits {
        let in_proportion = |rate: NonZeroU32| {
            let times = u64::from(defaults.burst.get()) * u64::from(rate.get());
            let burst = times / u64::from(defaults.per_second.get());
            u32::try_from(burst).ok().and_then(NonZeroU32::new)
        };
        RequestLimits {
            per_second: self.per_second.unwrap_or(defaults.per_second),
            burst: self
                .burst
                .or(self.per_second.and_then(in_proportion))
                .unwrap_or(defaults.burst),
            in_flight_max: self.in_flight.unwrap_or(defaults.in_flight_max),
        }
    }
}

/// What a caller may use, and each user it chooses: as its `limits` say, then as the file says of all
/// callers, then a quarter.
pub(super) fn caller_limits(fields: &Fields<'_>, per_user: Option<WrittenLimits>) -> CallerLimits {
    let read = |at: At<'_>| {
        let [per_second, burst] = RATES;
        let fields = at.fields(&[per_second, burst, "in_flight", "per_user"])?;
        let per_user = fields.optional("per_user", WrittenLimits::read);
        Some((WrittenLimits::of(&fields), per_user))
    };
    let (all, own) = fields.optional("limits", read).unzip();
    let all = all.map_or(RequestLimits::CALLER, |all: WrittenLimits| {
        all.over(RequestLimits::CALLER)
    });
    let per_user = [per_user, own.flatten()];
    CallerLimits {
        all,
        per_user: per_user
            .into_iter()
            .flatten()
            .fold(all.quarter(), |limits, written| written.over(limits)),
    }
}

fn socket_address(at: &At<'_>, references: &References<'_>) -> Option<SocketAddr> {
    // Two of port 0 are never the same.
    let parsed = references.plain(at, "127.0.0.1:0")?.parse();
    if parsed.is_err() {
        at.problem("an address is an IP address and a port, such as 127.0.0.1:8080 or [::]:8080");
    }
    parsed.ok()
}
