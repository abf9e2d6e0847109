//! What callers and strangers may use: numbers only; what is used is counted beside the traffic, in
//! `watch`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

/// How much the gateway takes from everybody and from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections in total.
    pub connections_max: usize,
    /// Open connections from one address, as [`address_group`] has it.
    pub per_address_max: usize,
    /// From the first byte of a request to the end of its header section.
    pub header_timeout: Duration,
    /// That a connection is kept without a request, be it before the first one or between two.
    pub idle_timeout: Duration,
    /// Least rate of a body in bytes a second, in either direction, while we wait for the caller.
    pub body_bytes_per_second_min: u64,
    /// How long a body may be slower than that.
    pub body_grace: Duration,
}

/// The part of all connections that one address may hold.
const ADDRESSES_SHARE: usize = 20;

/// The part of all connections whose TLS handshake may be under way.
const HANDSHAKES_SHARE: usize = 10;

impl ConnectionLimits {
    /// What one address may hold of so many connections, where the file says nothing.
    pub fn share_of(connections_max: usize) -> usize {
        (connections_max / ADDRESSES_SHARE).max(1)
    }

    /// How many TLS handshakes may be under way in total.
    pub fn handshakes_max(&self) -> usize {
        (self.connections_max / HANDSHAKES_SHARE).max(1)
    }

    /// How many of them may come from one address, as [`address_group`] has it.
    pub fn handshakes_per_address_max(&self) -> usize {
        Self::share_of(self.handshakes_max())
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        const CONNECTIONS_MAX: usize = 20_480;
        Self {
            connections_max: CONNECTIONS_MAX,
            per_address_max: Self::share_of(CONNECTIONS_MAX),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes_per_second_min: 1024,
            body_grace: Duration::from_secs(10),
        }
    }
}

/// What one caller may use, or all who have something in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests a second, averaged.
    pub per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
    /// Requests under way at the same time.
    pub in_flight_max: u32,
}

impl RequestLimits {
    /// For a caller whose file says nothing.
    pub const CALLER: Self = Self::new(200, 400, 256);

    /// A quarter of it, and at least one: what one user of a caller may use where the file says nothing.
    pub fn quarter(self) -> Self {
        let quarter =
            |whole: NonZeroU32| NonZeroU32::new(whole.get() / 4).unwrap_or(NonZeroU32::MIN);
        Self {
            per_second: quarter(self.per_second),
            burst: quarter(self.burst),
            in_flight_max: (self.in_flight_max / 4).max(1),
        }
    }

    const fn new(per_second: u32, burst: u32, in_flight_max: u32) -> Self {
        Self {
            per_second: NonZeroU32::new(per_second).expect("not zero"),
            burst: NonZeroU32::new(burst).expect("not zero"),
            in_flight_max,
        }
    }
}

/// What one caller may use, and how much of that each user whom its requests choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerLimits {
    /// All its requests.
    pub all: RequestLimits,
    /// Those of one user, so that one that runs away leaves the others what they need.
    pub per_user: RequestLimits,
}

/// What those may use who hold no credential: pages, and strangers who say that they are one.
///
/// They can type an origin, but not an address. So what one address may use is a fraction of what its
/// route and any origin have, and what it is refused comes out of its own budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLimits {
    /// Pages at one address, on all browser routes together.
    pub per_address: RequestLimits,
    /// All pages on one browser route.
    pub per_route: RequestLimits,
    /// The pages of one origin.
    pub per_origin: RequestLimits,
    /// Requests of one address that are refused and come without a caller's credential.
    pub unidentified: RequestLimits,
}

impl Default for SharedLimits {
    fn default() -> Self {
        Self {
            // A whole office may stand at one address.
            per_address: RequestLimits::new(200, 1000, 64),
            per_route: RequestLimits::new(1600, 8000, 512),
            per_origin: RequestLimits::new(800, 4000, 256),
            // A refusal costs some 20 microseconds: this many take 2 % of a core.
            unidentified: RequestLimits::new(1000, 10_000, u32::MAX),
        }
    }
}

/// Longest body of a request in bytes where the route says nothing.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The same on browser routes, where anybody may send one.
pub const PAGE_BODY_BYTES_MAX: u64 = 256 * 1024;

/// What counts as one address: an IPv6 address counts as its /64, which is what one household or one
/// machine is given.
pub fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}
