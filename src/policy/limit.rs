//! What one caller may use: numbers only; what is used is counted beside the traffic, in `watch`.

use std::num::NonZeroU32;
use std::time::Duration;

/// How much the gateway takes from everybody and from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections in total.
    pub connections_max: usize,
    /// Open connections from one address; an IPv6 address counts as its /64.
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

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_480,
            per_address_max: 10_240,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes_per_second_min: 1024,
            body_grace: Duration::from_secs(10),
        }
    }
}

/// What one caller, or the pages of one origin, may use.
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
    pub const CALLER: Self = Self {
        per_second: NonZeroU32::new(200).expect("not zero"),
        burst: NonZeroU32::new(400).expect("not zero"),
        in_flight_max: 256,
    };

    /// For the pages of one origin, where the file says nothing.
    pub const ORIGIN: Self = Self {
        per_second: NonZeroU32::new(100).expect("not zero"),
        burst: NonZeroU32::new(200).expect("not zero"),
        in_flight_max: 128,
    };
}

/// Longest body of a request in bytes where the route says nothing.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
