//! The file read again while the gateway serves: on request, and when it or a file it refers to has
//! changed. What can be used is put in force whole; what cannot changes nothing.
//!
//! Files are looked at, every few seconds, and not watched: that is the same on a local disk, on NFS, and
//! where a link on the way to them is turned, as Kubernetes does; and it is a few calls for each of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::background::Background;
use super::changes::Changes;
use crate::config::inputs::{Inputs, Mark, Marks};
use crate::config::problem::Problem;
use crate::config::{Attempt, Loaded, Settings, Unusable};
use crate::gateway::Gateway;
use crate::telemetry::{Detail, Tally};
use crate::watch::generation::Generation;

/// How often files are looked at. What is seen to have changed is read at the next look, if it is the same
/// still: a file may be half written.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the file once more.
pub type Load = Arc<dyn Fn() -> Attempt + Send + Sync>;

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was read is in force.
    Ok,
    /// It was in force already.
    Unchanged,
    /// It cannot be used: what was in force is still.
    Failed,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Unchanged, Self::Failed];

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// What came of a reload.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Everything that is wrong with the file.
    pub problems: Vec<Problem>,
    /// What the operator should know of it.
    pub warnings: Vec<Problem>,
    /// Keys of the file that wait for a restart.
    pub restart: Vec<&'static str>,
    changes: Changes,
}

impl Report {
    /// For programs.
    pub fn as_json(&self) -> Value {
        let texts = |all: &[Problem]| all.iter().map(problem_as_json).collect::<Value>();
        json!({
            "outcome": self.outcome.word(),
            "changes": self.changes.as_json(),
            "restart": self.restart,
            "problems": texts(&self.problems),
            "warnings": texts(&self.warnings),
        })
    }
}

fn problem_as_json(problem: &Problem) -> Value {
    json!({
        "line": problem.line,
        "path": problem.path(),
        "place": problem.place,
        "text": problem.text,
    })
}

/// Where reloads are asked for, and what came of them.
#[derive(Debug)]
pub struct Reloads {
    asks: mpsc::Sender<Ask>,
    counts: Tally<&'static str>,
    last: Mutex<Option<Last>>,
    drain_timeout: Mutex<Duration>,
}

/// The last reload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) outcome: Outcome,
    pub(super) at: SystemTime,
    pub(super) problems: usize,
}

/// That somebody wants a reload, and perhaps to hear of it.
pub(super) type Ask = Option<oneshot::Sender<Report>>;

impl Reloads {
    /// None yet; with where they are asked for.
    pub(super) fn new(drain_timeout: Duration) -> (Arc<Self>, mpsc::Receiver<Ask>) {
        // One that waits is as good as many.
        let (asks, asked) = mpsc::channel(1);
        let reloads = Self {
            asks,
            counts: Tally::default(),
            last: Mutex::default(),
            drain_timeout: Mutex::new(drain_timeout),
        };
        (Arc::new(reloads), asked)
    }

    /// Has the file read again, soon. Whoever asks while one is waited for has asked for that one.
    pub fn want(&self) {
        drop(self.asks.try_send(None));
    }

    /// Has the file read again, and waits for what comes of it; `None` where the gateway was started
    /// without a file, or is stopping.
    pub async fn reload(&self) -> Option<Report> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Some(answer)).await.ok()?;
        answered.await.ok()
    }

    /// How many have ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        let counts = self.counts.counts().into_iter();
        let of = counts.filter(|(word, _)| *word == outcome.word());
        of.map(|(_, count)| count).sum()
    }

    pub(super) fn last(&self) -> Option<Last> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long requests in flight may take to finish when the program stops.
    pub(super) fn drain_timeout(&self) -> Duration {
        *self
            .drain_timeout
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, report: &Report) {
        self.counts.count(report.outcome.word());
        let last = Last {
            outcome: report.outcome,
            at: SystemTime::now(),
            problems: report.problems.len(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

/// Reads the file again when it is time.
pub(super) struct Reloader {
    pub(super) gateway: Arc<Gateway>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) background: Background,
    /// What the program runs with.
    pub(super) settings: Settings,
}

/// Where the configuration comes from.
pub(super) struct Source {
    pub(super) load: Load,
    /// Of what is in force.
    digest: [u8; 32],
    files: Files,
    /// Keys that wait for a restart.
    restart: Vec<&'static str>,
}

impl Source {
    pub(super) fn new(load: Load, inputs: Inputs) -> Self {
        Self {
            load,
            digest: inputs.digest,
            files: Files::new(inputs.marks),
            restart: Vec::new(),
        }
    }

    fn report(&self, outcome: Outcome, warnings: Vec<Problem>, changes: Changes) -> Report {
        Report {
            outcome,
            problems: Vec::new(),
            warnings,
            restart: self.restart.clone(),
            changes,
        }
    }

    fn failed(&self, problems: Vec<Problem>) -> Report {
        Report {
            problems,
            ..self.report(Outcome::Failed, Vec::new(), Changes::default())
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Keeps what goes on beside the traffic going, and reloads whenever somebody asks for it and whenever
    /// files have changed, if there is a file; never returns.
    pub(super) async fn run(mut self, source: Option<Source>, mut asked: mpsc::Receiver<Ask>) {
        self.background.follow(&self.gateway.live.pin());
        let Some(mut source) = source else {
            // Whoever asks is told that there is none.
            drop(asked);
            return std::future::pending().await;
        };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ask = tokio::select! {
                Some(ask) = asked.recv() => ask,
                _ = looks.tick() => {
                    if !source.files.look().await {
                        continue;
                    }
                    None
                }
            };
            let report = self.reload(&mut source).await;
            self.reloads.note(&report);
            if let Some(answer) = ask {
                // Whoever asked may have gone.
                drop(answer.send(report));
            }
        }
    }

    async fn reload(&mut self, source: &mut Source) -> Report {
        let load = Arc::clone(&source.load);
        // A thread that panics, or none while the program ends: what is in force stays.
        let Ok(attempt) = spawn_blocking(move || load()).await else {
            return source.failed(Vec::new());
        };
        source.files = Files::new(attempt.inputs.marks);
        match attempt.outcome {
            Err(unusable) => {
                tell_unusable(&unusable);
                source.failed(unusable.problems)
            }
            Ok(loaded) if attempt.inputs.digest == source.digest => {
                info!("configuration read again: it is unchanged");
                source.report(Outcome::Unchanged, loaded.warnings, Changes::default())
            }
            Ok(loaded) => match self.take(loaded, source).await {
                Some(report) => {
                    source.digest = attempt.inputs.digest;
                    report
                }
                None => source.failed(Vec::new()),
            },
        }
    }

    /// Puts what was read in force; `None` while the program ends.
    async fn take(&mut self, loaded: Loaded, source: &mut Source) -> Option<Report> {
        let (settings, restart) = loaded.settings.over(&self.settings);
        let before = self.gateway.live.pin();
        let (old, policy, of_generation) = (before.clone(), loaded.policy, settings.clone());
        // It may read this machine's authorities.
        let made = spawn_blocking(move || {
            let effective = of_generation.effective(&policy);
            Generation::new(
                policy,
                &of_generation.caller_limits,
                &of_generation.shared_limits,
                effective,
                Some(&old),
            )
        });
        let generation = Arc::new(made.await.ok()?);
        prepare(&generation).await;
        self.gateway.telemetry.set_detail(Detail {
            paths: settings.records_paths,
            origins: settings.records_origins,
        });
        *self
            .reloads
            .drain_timeout
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = settings.drain_timeout;
        self.gateway.live.publish(Arc::clone(&generation));
        self.background.follow(&generation);
        self.settings = settings;
        source.restart = restart;
        for warning in &loaded.warnings {
            tell(warning);
        }
        if !source.restart.is_empty() {
            warn!(
                keys = source.restart.join(", "),
                "these parts of the configuration take a restart; until then they are as they were"
            );
        }
        let changes = changes(&before, &generation);
        info!(
            policy = generation.effective.short_hash(),
            routes = changes.routes.count(),
            callers = changes.callers.count(),
            sites = changes.sites.count(),
            "configuration reloaded"
        );
        Some(source.report(Outcome::Ok, loaded.warnings, changes))
    }
}

/// Learns what is needed before requests come: where new sites are, and the keys of new issuers.
async fn prepare(generation: &Generation) {
    let mut resolving = JoinSet::new();
    for (_, watched) in generation.sites() {
        let addresses = Arc::clone(&watched.addresses);
        if addresses.pick(0).is_none() {
            resolving.spawn(async move { addresses.resolve().await });
        }
    }
    resolving.join_all().await;
    generation.tokens.begin().await;
}

fn changes(old: &Generation, new: &Generation) -> Changes {
    let ids: HashMap<&str, u64> = old.sites().map(|(name, it)| (name, it.id)).collect();
    let begun = new
        .sites()
        .filter(|(name, it)| ids.get(name) != Some(&it.id));
    let begun: Vec<_> = begun.map(|(name, _)| name).collect();
    Changes::between(&old.effective, &new.effective, &begun)
}

fn tell_unusable(unusable: &Unusable) {
    warn!(
        problems = unusable.problems.len(),
        "the configuration cannot be used as it is now; the one from before stays in force"
    );
    for problem in &unusable.problems {
        tell(problem);
    }
}

fn tell(problem: &Problem) {
    warn!(
        place = problem.place,
        line = problem.line,
        "{}",
        problem.text
    );
}

/// The files of a configuration.
#[derive(Debug)]
struct Files {
    /// As they stood when they were read.
    read: Marks,
    /// As they stood at the last look.
    seen: Marks,
}

impl Files {
    fn new(read: Marks) -> Self {
        Self {
            seen: read.clone(),
            read,
        }
    }

    /// Whether they have changed, and stand still again.
    async fn look(&mut self) -> bool {
        let names: Vec<_> = self.read.keys().cloned().collect();
        let looked = spawn_blocking(move || {
            let marked = names.into_iter().map(|file| (Mark::of(&file), file));
            marked.map(|(mark, file)| (file, mark)).collect()
        });
        // It fails only while the program ends.
        looked.await.is_ok_and(|now| self.have_settled(now))
    }

    /// Whether what is there now is other than what was read, and the same as at the last look.
    fn have_settled(&mut self, now: Marks) -> bool {
        let is_still = self.seen == now;
        self.seen = now;
        is_still && self.seen != self.read
    }
}
