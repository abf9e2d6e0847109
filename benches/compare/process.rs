//! A proxy as a process of its own on a core of its own, and what the system says it uses.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, countersign, haproxy, nginx, secured};

/// The proxy has this core to itself.
const PROXY_CORE: &str = "0";
/// The load and the site share this one.
const LOAD_CORE: &str = "1";

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Countersign,
    HaProxy,
    Nginx,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Countersign, Self::HaProxy, Self::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Countersign => "countersign",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx + Lua",
        }
    }

    fn prepare(self, folder: &Path, ends: &Ends) -> Outcome<Program> {
        secured::write(folder)?;
        match self {
            Self::Countersign => countersign::prepare(folder, ends),
            Self::HaProxy => haproxy::prepare(folder, ends),
            Self::Nginx => nginx::prepare(folder, ends),
        }
    }

    /// Its name and its version.
    pub(crate) fn version(self) -> Outcome<String> {
        let (program, argument) = match self {
            Self::Countersign => (env!("CARGO_BIN_EXE_countersign").to_owned(), "--version"),
            Self::HaProxy => (haproxy::program(), "-v"),
            Self::Nginx => ("nginx".to_owned(), "-v"),
        };
        let said = Command::new(&program)
            .arg(argument)
            .output()
            .map_err(|error| format!("{program} cannot be run: {error}"))?;
        // Whatever stands around it.
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text).replace("nginx/", "");
        let version = text
            .split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        Ok(format!("{} {}", self.name(), version.unwrap_or("?")))
    }
}

/// Where a proxy listens, and where its site does.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) plain: SocketAddr,
    pub(crate) secured: SocketAddr,
    pub(crate) site: SocketAddr,
}

/// How a proxy is run.
pub(crate) struct Program {
    words: Vec<OsString>,
    environment: Vec<(&'static str, &'static str)>,
    /// Where its log goes: to what is its standard output, unless it says otherwise.
    pub(crate) log: PathBuf,
}

impl Program {
    pub(crate) fn new(program: &str, folder: &Path) -> Self {
        Self {
            words: vec![program.into()],
            environment: Vec::new(),
            log: folder.join("stdout"),
        }
    }

    pub(crate) fn argument(&mut self, word: impl AsRef<OsStr>) -> &mut Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    pub(crate) fn arguments(&mut self, words: impl IntoIterator<Item = &'static str>) -> &mut Self {
        self.words.extend(words.into_iter().map(OsString::from));
        self
    }

    pub(crate) fn environment(&mut self, name: &'static str, value: &'static str) -> &mut Self {
        self.environment.push((name, value));
        self
    }
}

/// A proxy that takes requests.
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) ends: Ends,
    /// Its files, until it is dropped.
    pub(crate) folder: tempfile::TempDir,
    log: PathBuf,
    child: Child,
    /// Every process of it.
    tree: Vec<u32>,
}

impl Proxy {
    /// Starts it, below another program if `below` gives one for its folder.
    pub(crate) fn start(
        kind: Kind,
        site: SocketAddr,
        below: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        // Both at once, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [plain, secured] = free.map(|listener| listener.and_then(|free| free.local_addr()));
        let ends = Ends {
            plain: plain?,
            secured: secured?,
            site,
        };
        let program = kind.prepare(folder.path(), &ends)?;
        let append = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let child = Command::new("taskset")
            .args(["-c", PROXY_CORE])
            .args(below(folder.path()))
            .args(&program.words)
            .envs(program.environment)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(append(&folder.path().join("stdout"))?)
            .stderr(append(&folder.path().join("stderr"))?)
            .spawn()
            .map_err(|error| format!("taskset cannot be run: {error}"))?;
        let mut proxy = Self {
            kind,
            ends,
            log: program.log,
            tree: vec![child.id()],
            child,
            folder,
        };
        proxy.await_ready()?;
        proxy.tree = descendants(proxy.child.id())?;
        Ok(proxy)
    }

    /// Until it takes connections; below valgrind that takes a while.
    fn await_ready(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if TcpStream::connect(self.ends.secured).is_ok() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(self.complaint("does not start"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is wrong, and the end of what it said itself.
    pub(crate) fn complaint(
        &self,
        wrong: impl std::fmt::Display,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        let mut said = String::new();
        for name in ["stderr", "nginx.error.log", "stdout"] {
            let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(5)..] {
                said.push_str("\n  ");
                said.push_str(line);
            }
        }
        format!("{} {wrong}{said}", self.kind.name()).into()
    }

    /// The time of processors that all its threads took so far.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        self.tree.iter().copied().map(cpu).sum()
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        self.tree.iter().copied().map(resident).sum()
    }

    /// What it logged.
    pub(crate) fn logged(&self) -> Outcome<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Empties its log, which it appends to, so that no run fills the disk.
    pub(crate) fn empty_log(&self) -> Outcome<()> {
        Ok(File::options().write(true).open(&self.log)?.set_len(0)?)
    }

    /// Asks it to stop and waits until it has, with what it runs below.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        // Below strace, the proxy is a child; everywhere else the first process is.
        let traced = self.tree.get(1).copied();
        let first = match traced {
            Some(child) if name(self.tree[0]) == "strace" => child,
            _ => self.tree[0],
        };
        signal("TERM", &[first])?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(self.complaint("does not stop"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tree.clear();
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.tree.is_empty() {
            // Whatever is left; a master that is killed would leave its workers.
            drop(signal("KILL", &self.tree));
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Puts this process, every thread and every child it will have on the core of the load.
pub(crate) fn pin_this_one() -> Outcome<()> {
    let pinned = Command::new("taskset")
        .args(["-cp", LOAD_CORE, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("taskset cannot be run: {error}"))?;
    if !pinned.success() {
        return Err("two cores are needed: one for the proxy, one for the load".into());
    }
    Ok(())
}

/// Says so if the machine has something else to do.
pub(crate) fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = load.split(' ').next().and_then(|load| load.parse().ok());
    if running.is_some_and(|running: f64| running > 1.0) {
        eprintln!(
            "the machine is busy (load {load}): latency will be wrong, ratios rough",
            load = load.trim_end()
        );
    }
}

/// Utime and stime of a process, all threads.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    let fields = stat(pid)?;
    let ticks = |at: usize| -> Outcome<u64> {
        Ok(fields.get(at).ok_or("/proc/PID/stat is short")?.parse()?)
    };
    // 14 and 15 of proc(5), which counts from one and with the two before the state. A tick is a hundredth of a
    // second for every program, whatever the kernel's own.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Exactly, by the pages themselves; the sum in /proc/PID/status is off by some dozens of pages.
fn resident(pid: u32) -> Outcome<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next())
        .ok_or("/proc/PID/smaps_rollup has no Rss")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: u32) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn name(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim_end().to_owned()
}

/// A process and all that it started, itself first.
fn descendants(root: u32) -> Outcome<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Whoever is gone meanwhile is none of ours.
        if let Ok(parent) = stat(pid).and_then(|fields| Ok(fields[1].parse()?)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while at < tree.len() {
        let mut below = children.remove(&tree[at]).unwrap_or_default();
        below.sort_unstable();
        tree.append(&mut below);
        at += 1;
    }
    Ok(tree)
}

fn signal(name: &str, pids: &[u32]) -> Outcome<()> {
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    Command::new("sh")
        .args([
            "-c",
            &format!("kill -{name} {} 2>/dev/null || true", pids.join(" ")),
        ])
        .status()?;
    Ok(())
}
