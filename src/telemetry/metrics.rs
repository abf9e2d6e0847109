//! The counters of the whole process: exchanges by how they ended, connections that were not taken or cut, lines lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::log::queue;
use super::meters::Meters;
use super::record::{Detail, Record};
use crate::policy::Refusal;

/// Counts and writes exchanges.
#[derive(Debug)]
pub struct Telemetry {
    paths: AtomicBool,
    origins: AtomicBool,
    exchanges: AtomicU64,
    /// One for each refusal, in the order of [`Refusal::all`], which is the order of the variants.
    refusals: Box<[AtomicU64]>,
    would_refuse: AtomicU64,
    connections_refused: AtomicU64,
    connections_cut: AtomicU64,
    handshakes_failed: AtomicU64,
}

impl Telemetry {
    /// Counters at zero, and records that hold so much.
    pub fn new(detail: Detail) -> Self {
        Self {
            paths: AtomicBool::new(detail.paths),
            origins: AtomicBool::new(detail.origins),
            exchanges: AtomicU64::default(),
            refusals: Refusal::all().map(|_| AtomicU64::default()).collect(),
            would_refuse: AtomicU64::default(),
            connections_refused: AtomicU64::default(),
            connections_cut: AtomicU64::default(),
            handshakes_failed: AtomicU64::default(),
        }
    }

    /// What records hold.
    pub fn detail(&self) -> Detail {
        Detail {
            paths: self.paths.load(Ordering::Relaxed),
            origins: self.origins.load(Ordering::Relaxed),
        }
    }

    /// From now on records hold so much.
    pub fn set_detail(&self, detail: Detail) {
        self.paths.store(detail.paths, Ordering::Relaxed);
        self.origins.store(detail.origins, Ordering::Relaxed);
    }

    /// Writes the one event of an exchange, and counts it.
    pub fn record(&self, record: &Record<'_>, meters: &Meters) {
        meters.count(record);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = record.refusal
            && let Some(count) = self.refusals.get(refusal.position())
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if record.would_refuse.is_some() {
            self.would_refuse.fetch_add(1, Ordering::Relaxed);
        }
        record.write();
    }

    /// Counts a connection that was not taken because of the limits.
    pub fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed because its peer was too slow.
    pub fn connection_cut(&self) {
        self.connections_cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection whose TLS handshake failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many exchanges ended so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// How many exchanges ended in a refusal.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals
            .get(refusal.position())
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many exchanges a `report_only` route let pass.
    pub fn would_have_refused(&self) -> u64 {
        self.would_refuse.load(Ordering::Relaxed)
    }

    /// Connections that were not taken, and connections that were cut for slowness.
    pub fn connections(&self) -> (u64, u64) {
        (
            self.connections_refused.load(Ordering::Relaxed),
            self.connections_cut.load(Ordering::Relaxed),
        )
    }

    /// How many TLS handshakes of callers failed.
    pub fn handshakes(&self) -> u64 {
        self.handshakes_failed.load(Ordering::Relaxed)
    }

    /// How many lines of this process's log could not be written.
    pub fn lines_lost(&self) -> u64 {
        queue::lines_lost()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(Detail::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn each_refusal_is_counted_by_itself() {
        let telemetry = Telemetry::default();
        let meters = Meters::new(&Policy::default(), None);
        for (position, refusal) in Refusal::all().enumerate() {
            assert_eq!(position, refusal.position(), "{refusal:?}");
            for _ in 0..=position {
                let record = Record {
                    refusal: Some(refusal),
                    ..Record::default()
                };
                telemetry.record(&record, &meters);
            }
        }
        let mut exchanges = 0;
        for (position, refusal) in Refusal::all().enumerate() {
            assert_eq!(telemetry.refused(refusal), position as u64 + 1);
            exchanges += position as u64 + 1;
        }
        assert_eq!(telemetry.exchanges(), exchanges);
    }
}
