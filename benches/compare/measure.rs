//! What is measured, in which order and how long.

use std::net::SocketAddr;
use std::time::Duration;

use crate::count::{self, Counter, Over};
use crate::load::{self, Line, Sample, Span, Traffic, Way};
use crate::process::{Kind, Proxy};
use crate::site::{FILE, LARGE, PAGE, Site};
use crate::table::{Column, Figure, Table};
use crate::{Outcome, proof, streams};

/// How much is measured.
pub(crate) struct Extent {
    rounds: usize,
    window: Duration,
    bodies: u64,
    /// For counting; as many again for the difference.
    counted: usize,
    idle: usize,
}

impl Extent {
    /// By `ROUNDS` and `QUICK`.
    pub(crate) fn from_environment() -> Outcome<Self> {
        let quick = std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
        let rounds = match std::env::var("ROUNDS") {
            Ok(value) if !value.is_empty() => value
                .parse()
                .ok()
                .filter(|rounds| (1..=100).contains(rounds))
                .ok_or("ROUNDS is a number from 1 to 100")?,
            _ if quick => 1,
            _ => 5,
        };
        Ok(if quick {
            Self {
                rounds,
                window: Duration::from_millis(400),
                bodies: 3,
                counted: 4 * CONNECTIONS,
                idle: 500,
            }
        } else {
            Self {
                rounds,
                window: Duration::from_millis(1000),
                bodies: 10,
                counted: 10 * CONNECTIONS,
                idle: 2000,
            }
        })
    }

    fn span(&self, connections: usize) -> Span {
        Span {
            // A thousand connections have to be opened first.
            warming: Duration::from_millis(if connections > 100 { 400 } else { 150 }),
            measured: self.window,
        }
    }
}

/// Of the first row.
const CONNECTIONS: usize = 64;
/// Of HTTP/2.
const MULTIPLEXED: usize = 10;
const STALLED: usize = 32;
/// The share of HAProxy's capacity at which latency is measured.
const SHARE_OF_CAPACITY: f64 = 0.3;

/// Where requests go, and what is charged for them.
struct Target<'t> {
    column: Column,
    address: SocketAddr,
    /// With TLS; the site has none.
    secured: Option<SocketAddr>,
    proxy: Option<&'t Proxy>,
    site: &'t Site,
}

impl Target<'_> {
    fn address_for(&self, line: Line) -> Option<SocketAddr> {
        match line {
            Line::Plain => Some(self.address),
            Line::Full | Line::Resumed => self.secured,
        }
    }

    /// Of the proxy; without one, of the site.
    fn cpu(&self) -> Outcome<Duration> {
        self.proxy
            .map_or_else(|| self.site.cpu(), |proxy| proxy.cpu())
    }

    /// Runs something against it, and empties the log behind it.
    fn run<T>(&self, what: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.complete(load::runtime()?.block_on(what))
    }

    fn complete<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        match self.proxy {
            None => outcome.map_err(|error| format!("direct: {error}").into()),
            Some(proxy) => {
                let value = outcome.map_err(|error| proxy.complaint(error))?;
                proxy.empty_log()?;
                Ok(value)
            }
        }
    }
}

/// Everything: proof first, then rounds, then what needs fresh processes.
pub(crate) fn all(site: &Site, extent: &Extent) -> Outcome<Table> {
    let mut table = Table::default();
    let mut proxies = Vec::new();
    for kind in Kind::ALL {
        let proxy = Proxy::start(kind, site.address, |_| Vec::new())?;
        proof::of(&proxy)?;
        table.versions.push(kind.version()?);
        eprintln!("{} signs as it should and refuses a wrong key", kind.name());
        proxies.push(proxy);
    }
    let mut targets: Vec<_> = proxies
        .iter()
        .map(|proxy| Target {
            column: Column::Proxy(proxy.kind),
            address: proxy.ends.plain,
            secured: Some(proxy.ends.secured),
            proxy: Some(proxy),
            site,
        })
        .collect();
    targets.push(Target {
        column: Column::Direct,
        address: site.address,
        secured: None,
        proxy: None,
        site,
    });
    let mut rate = None;
    for round in 0..extent.rounds {
        eprintln!("round {} of {}", round + 1, extent.rounds);
        one_round(&targets, extent, &mut table, &mut rate)?;
        // Whoever was first is last now.
        targets.rotate_left(1);
    }
    drop(targets);
    for mut proxy in proxies {
        proxy.stop()?;
    }
    for kind in Kind::ALL {
        eprintln!("memory, instructions and system calls of {}", kind.name());
        held(kind, site, extent, &mut table)?;
        counts(kind, site, extent, &mut table)?;
    }
    Ok(table)
}

/// Every measurement once, each against all targets in turn.
fn one_round(
    targets: &[Target<'_>],
    extent: &Extent,
    table: &mut Table,
    rate: &mut Option<u32>,
) -> Outcome<()> {
    for (figure, target, connections, fresh, line) in [
        (Figure::Page, PAGE, CONNECTIONS, false, Line::Plain),
        (Figure::File, FILE, 16, false, Line::Plain),
        (Figure::Fresh, PAGE, 16, true, Line::Plain),
        (Figure::Thousand, PAGE, 1000, false, Line::Plain),
        (Figure::Tls, PAGE, CONNECTIONS, false, Line::Full),
        (Figure::FullHandshake, PAGE, 16, true, Line::Full),
        (Figure::ResumedHandshake, PAGE, 16, true, Line::Resumed),
    ] {
        let traffic = Traffic {
            target,
            connections,
            fresh,
            line,
        };
        for target in targets {
            let Some(address) = target.address_for(line) else {
                continue;
            };
            let span = extent.span(connections);
            let sample = target.run(load::closed(address, traffic, span, || target.cpu()))?;
            table.add(figure, target.column, microseconds(sample));
            if figure == Figure::Page {
                let per_second = sample.requests as f64 / sample.elapsed.as_secs_f64();
                table.add(Figure::PageRate, target.column, per_second / 1000.0);
            }
        }
    }
    for target in targets {
        if let Some(address) = target.secured {
            let span = extent.span(MULTIPLEXED);
            let load = streams::closed(address, MULTIPLEXED, span, || target.cpu());
            table.add(
                Figure::Streams,
                target.column,
                microseconds(target.run(load)?),
            );
        }
    }
    large_bodies(targets, extent, table)?;
    let rate = *rate.get_or_insert_with(|| {
        let cost = table.median(Figure::Page, Column::Proxy(Kind::HaProxy));
        // Whole hundreds; the load shares its core with the site.
        ((SHARE_OF_CAPACITY * 1e6 / cost / 100.0).round() * 100.0).clamp(500.0, 20_000.0) as u32
    });
    table.rate = rate;
    latency(targets, extent, table, rate)
}

fn large_bodies(targets: &[Target<'_>], extent: &Extent, table: &mut Table) -> Outcome<()> {
    for (cpu, throughput, way) in [
        (Figure::DownCpu, Figure::DownRate, Way::Down(LARGE)),
        (Figure::UpCpu, Figure::UpRate, Way::Up),
    ] {
        for target in targets {
            let sample = target.run(load::bodies(target.address, way, extent.bodies, || {
                target.cpu()
            }))?;
            table.add(cpu, target.column, microseconds(sample) / 1000.0);
            let bytes = sample.requests as f64 * crate::site::LARGE_BYTES as f64;
            table.add(
                throughput,
                target.column,
                bytes / sample.elapsed.as_secs_f64() / 1e6,
            );
        }
    }
    Ok(())
}

/// What each proxy adds to the direct way, at the same rate for all.
fn latency(targets: &[Target<'_>], extent: &Extent, table: &mut Table, rate: u32) -> Outcome<()> {
    let mut found = Vec::new();
    for target in targets {
        let span = Span {
            warming: Duration::from_millis(200),
            measured: 2 * extent.window,
        };
        let times = target.complete(load::steady(target.address, rate, span))?;
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
        found.push((target.column, at(50), at(99)));
    }
    let direct = found
        .iter()
        .find(|(column, ..)| *column == Column::Direct)
        .map_or((0.0, 0.0), |(_, half, most)| (*half, *most));
    for (column, half, most) in found {
        let base = match column {
            Column::Direct => (0.0, 0.0),
            Column::Proxy(_) => direct,
        };
        table.add(Figure::AddedHalf, column, half - base.0);
        table.add(Figure::AddedMost, column, most - base.1);
    }
    Ok(())
}

/// What a connection holds, of processes that held nothing before.
fn held(kind: Kind, site: &Site, extent: &Extent, table: &mut Table) -> Outcome<()> {
    for (figure, count) in [
        (Figure::Idle, extent.idle),
        (Figure::TlsIdle, extent.idle),
        (Figure::Stalled, STALLED),
    ] {
        let mut proxy = Proxy::start(kind, site.address, |_| Vec::new())?;
        let held = load::runtime()?.block_on(async {
            // So that what is made once is there, connections to the site too.
            let ends = proxy.ends;
            load::everyone(ends.plain).await?;
            let mut held = Vec::new();
            let mut resident = Vec::new();
            // Twice as many, and then the difference: what was needed for the first ones and given back
            // since is there for the others.
            for _ in 0..2 {
                held.extend(match figure {
                    Figure::Idle => load::idle(ends.plain, Line::Plain, count).await?,
                    Figure::TlsIdle => load::idle(ends.secured, Line::Full, count).await?,
                    _ => load::stalled(ends.plain, LARGE, count).await?,
                });
                tokio::time::sleep(Duration::from_millis(1500)).await;
                resident.push(proxy.resident()?);
            }
            let (before, after) = (resident[0], resident[1]);
            drop(held);
            Outcome::Ok(after as f64 - before as f64)
        });
        let bytes = held.map_err(|error| proxy.complaint(error))?;
        // Less than nothing is what the allocator gave back meanwhile: it cannot be told.
        if bytes > 0.0 {
            table.add(figure, Column::Proxy(kind), bytes / 1024.0 / count as f64);
        }
        proxy.stop()?;
    }
    Ok(())
}

fn counts(kind: Kind, site: &Site, extent: &Extent, table: &mut Table) -> Outcome<()> {
    use {Counter::*, Over::*};
    for (figure, counter, over, connections) in [
        (Figure::Instructions, Instructions, Plain, CONNECTIONS),
        (Figure::SystemCalls, SystemCalls, Plain, CONNECTIONS),
        (Figure::TlsInstructions, Instructions, Tls, CONNECTIONS),
        (Figure::TlsSystemCalls, SystemCalls, Tls, CONNECTIONS),
        (
            Figure::StreamInstructions,
            Instructions,
            Streams,
            MULTIPLEXED,
        ),
        (Figure::StreamSystemCalls, SystemCalls, Streams, MULTIPLEXED),
    ] {
        let requests = extent.counted;
        let each = count::of_a_request(counter, kind, site.address, over, connections, requests)?;
        let each = match counter {
            Instructions => each / 1000.0,
            SystemCalls => each,
        };
        table.add(figure, Column::Proxy(kind), each);
    }
    Ok(())
}

/// Of the processor, for a request.
fn microseconds(sample: Sample) -> f64 {
    sample.cpu.as_secs_f64() * 1e6 / sample.requests as f64
}
