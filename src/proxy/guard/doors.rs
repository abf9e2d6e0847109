//! How many connections there may be, in total and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::policy::Refusal;
use crate::policy::limit::ConnectionLimits;
use crate::proxy::reply::{Format, REFUSAL_HEADER, REQUEST_ID_HEADER};
use crate::telemetry::{Record, Telemetry};

/// How many connections there are, in total and from each address.
#[derive(Debug)]
pub struct Doors {
    limits: ConnectionLimits,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    pub(super) telemetry: Arc<Telemetry>,
    ids: RequestIds,
}

impl Doors {
    /// Doors that nobody has come through yet.
    pub fn new(limits: ConnectionLimits, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            telemetry,
            ids: RequestIds::new(),
        })
    }

    /// Lets a connection in; `None` if there are too many.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Pass> {
        let address = group(peer.ip());
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let total = self.open.load(Ordering::Relaxed);
        let here = by_address.get(&address).copied().unwrap_or_default();
        if total >= self.limits.connections_max || here >= self.limits.per_address_max {
            drop(by_address);
            self.telemetry.connection_refused();
            return None;
        }
        by_address.insert(address, here + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Pass {
            doors: Arc::clone(self),
            address,
        })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The limits.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// An id for a request.
    pub fn request_id(&self) -> String {
        self.ids.next()
    }

    /// Records a request that no filter ever saw, and makes its answer.
    pub(super) fn refuse_early(&self, refusal: Refusal) -> Bytes {
        let request_id = self.request_id();
        let (body, media_type) = Format::Xml.document(refusal, &request_id);
        let status = refusal.status();
        self.telemetry.record(&Record {
            request_id: &request_id,
            status: status.as_u16(),
            refusal: Some(refusal),
            answer_bytes: body.len() as u64,
            ..Record::default()
        });
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nVary: Origin\r\n{REFUSAL_HEADER}: {}\r\n{REQUEST_ID_HEADER}: {request_id}\r\nConnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or("Error"),
            body.len(),
            refusal.code(),
        );
        [head.as_bytes(), &body].concat().into()
    }
}

/// An IPv6 address counts as its /64, which is what one household or one machine is given.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// A connection's leave to be open; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    pub(super) doors: Arc<Doors>,
    address: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut by_address = self
            .doors
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
        self.doors.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ids that no two requests of one process, and hardly two of any, share.
#[derive(Debug)]
struct RequestIds {
    process: u64,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            // Then ids of two processes may collide, which only makes logs harder to read.
            random = std::process::id()
                .to_le_bytes()
                .repeat(2)
                .try_into()
                .unwrap_or_default();
        }
        Self {
            process: u64::from_le_bytes(random),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{count:08x}", self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: 3,
            per_address_max: 2,
            ..ConnectionLimits::default()
        }
    }

    #[test]
    fn doors_are_bounded_and_given_back() {
        let doors = Doors::new(limits(), Arc::default());
        let from = |text: &str| doors.admit(text.parse().unwrap());
        let first = from("192.0.2.1:1").unwrap();
        let _second = from("[::ffff:192.0.2.1]:2").unwrap();
        assert!(
            from("192.0.2.1:3").is_none(),
            "an address has its own limit, however it is written"
        );
        let _third = from("192.0.2.2:1").unwrap();
        assert!(from("192.0.2.3:1").is_none(), "the total is limited");
        drop(first);
        assert_eq!(doors.open(), 2);
        assert!(from("192.0.2.3:1").is_some());
    }

    #[test]
    fn an_ipv6_household_is_one_address() {
        let doors = Doors::new(limits(), Arc::default());
        let from = |text: &str| doors.admit(text.parse().unwrap());
        let _first = from("[2001:db8::1]:1").unwrap();
        let _second = from("[2001:db8::ffff:2]:1").unwrap();
        assert!(from("[2001:db8::3]:1").is_none());
        assert!(from("[2001:db8:0:1::3]:1").is_some());
    }
}
