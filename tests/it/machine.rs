//! Machines on which tools are missing or do not run: what `.ci/tools`, `.ci/install` and `.ci/docker` do there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the scripts themselves use.
const SYSTEM: [&str; 19] = [
    "awk", "bash", "cat", "chmod", "date", "dirname", "env", "grep", "id", "mkdir", "mktemp", "mv",
    "rm", "seq", "sh", "tail", "timeout", "touch", "true",
];

/// A folder with the scripts, and the only programs there are.
struct Machine {
    /// With a space in its name, as folders of people have.
    folder: PathBuf,
    _temporary: tempfile::TempDir,
}

/// How a script ended and what it said.
struct Ended {
    good: bool,
    said: String,
}

impl Machine {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a folder");
        for part in [".ci", "shims", "system", "debian"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for script in ["tools", "install", "docker"] {
            fs::copy(
                here.join(".ci").join(script),
                folder.join(".ci").join(script),
            )
            .unwrap();
        }
        for name in SYSTEM {
            let real = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
            let real = real.iter().find(|path| path.exists()).expect(name);
            symlink(real, folder.join("system").join(name)).unwrap();
        }
        let machine = Self {
            folder,
            _temporary: temporary,
        };
        // No test waits; the machine's own package manager and accounts are out of reach.
        machine.program("shims", "sleep", "exit 0");
        for name in ["apt-get", "sudo", "dnf", "brew"] {
            machine.program("shims", name, "exit 127");
        }
        machine
    }

    fn program(&self, place: &str, name: &str, text: &str) {
        let path = self.folder.join(place).join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An apt that notes how it is called; `text` says how it ends.
    fn apt(&self, text: &str) {
        let text = format!(
            "[ \"$1\" != --version ] || exit 0\necho \"${{DEBIAN_FRONTEND:-}} $*\" >>\"$CALLS\"\n{text}"
        );
        self.program("shims", "apt-get", &text);
    }

    fn user(&self, id: u32) {
        self.program("shims", "id", &format!("echo {id}"));
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// A path of the folder's own programs, and nothing of the real machine's.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let place = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{}", place("shims"), place("system")))
            .env("COUNTERSIGN_DEBIAN_FOLDERS", place("debian"))
            .env("CALLS", place("calls"))
            .env("HOME", &self.folder)
            .env("TMPDIR", &self.folder);
        command
    }

    fn run(&self, script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let output = self
            .command(self.folder.join(".ci").join(script))
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        Ended {
            good: output.status.success(),
            said: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }

    /// What a tool says when it is called as the Makefile has it called.
    fn says(&self, tool: &str) -> String {
        let link = self.folder.join("target/tools").join(tool);
        let output = self.command(link).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The tools of each group; nginx is left out, since its module is looked for at a fixed place.
const GROUPS: [(&str, &[&str]); 6] = [
    ("build", &["cmake", "cc", "make"]),
    (
        "clients",
        &[
            "curl",
            "openssl",
            "python3",
            "node",
            "php",
            "java",
            "keytool",
            "chromedriver",
            "prometheus",
            "promtool",
        ],
    ),
    ("proxies", &["haproxy"]),
    ("rivals", &["haproxy", "valgrind", "strace", "taskset"]),
    (
        "docker",
        &["docker", "docker-compose", "debootstrap", "curl", "python3"],
    ),
    ("engine", &["dockerd"]),
];

const SHIM: &str = "echo \"shim: no version is set\" >&2; exit 127";

#[test]
fn the_first_that_runs_is_used() {
    for (group, tools) in GROUPS {
        for broken in tools {
            let machine = Machine::new();
            for tool in tools {
                machine.program("debian", tool, "echo the real one");
            }
            machine.program("shims", broken, SHIM);
            for tool in tools.iter().filter(|tool| *tool != broken) {
                machine.program("shims", tool, "exit 0");
            }
            let need = match group {
                "proxies" | "rivals" => "optional",
                _ => "required",
            };
            let ended = machine.run("tools", &[group, need], &[]);
            assert!(ended.good, "{group} with a broken {broken}: {}", ended.said);
            assert!(
                ended.said.contains(&format!("{broken} does not run; ")),
                "{}",
                ended.said
            );
            assert_eq!(machine.says(broken), "the real one\n");
            let made: Vec<_> = fs::read_dir(machine.folder.join("target/tools"))
                .unwrap()
                .collect();
            assert_eq!(
                made.len(),
                1,
                "{group}, {broken}: the others are left as they are"
            );

            machine.program("shims", broken, "echo repaired");
            let ended = machine.run("tools", &[group, need], &[]);
            assert!(ended.good, "{}", ended.said);
            assert!(
                !machine.folder.join("target/tools").join(broken).exists(),
                "what runs by itself needs no help"
            );
        }
    }
}

#[test]
fn what_is_off_the_path_is_found() {
    let machine = Machine::new();
    for tool in GROUPS[0].1 {
        machine.program("debian", tool, "echo the real one");
    }
    let ended = machine.run("tools", &["build", "required"], &[]);
    assert!(ended.good, "{}", ended.said);
    assert_eq!(machine.says("cmake"), "the real one\n");
    assert_eq!(machine.calls(), [""; 0], "nothing is installed");
}

#[test]
fn what_does_not_run_is_installed() {
    let machine = Machine::new();
    machine.user(0);
    machine.program("shims", "cmake", SHIM);
    // A file that cannot be run, a folder, a link to nowhere.
    fs::write(machine.folder.join("shims/cc"), "").unwrap();
    fs::create_dir(machine.folder.join("shims/make")).unwrap();
    symlink("/nowhere", machine.folder.join("debian/make")).unwrap();
    machine.apt(
        "cd \"$(dirname \"$CALLS\")/debian\"\nrm -f make\nfor tool in cmake cc make; do echo '#!/bin/sh' >$tool; echo 'echo the real one' >>$tool; chmod +x $tool; done",
    );
    let ended = machine.run("tools", &["build", "required"], &[]);
    assert!(ended.good, "{}", ended.said);
    let calls = machine.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(
        calls[0].ends_with("install -y --no-install-recommends cmake gcc libc6-dev make"),
        "{calls:?}"
    );
    for tool in ["cmake", "cc", "make"] {
        assert_eq!(machine.says(tool), "the real one\n");
    }
}

#[test]
fn what_is_not_to_be_had_is_named() {
    for (apt, what) in [
        ("exit 0", "installs without making it run"),
        ("exit 100", "fails"),
    ] {
        let machine = Machine::new();
        machine.user(0);
        machine.program("shims", "cc", "exit 0");
        machine.program("shims", "make", "exit 0");
        machine.program("shims", "cmake", SHIM);
        machine.apt(apt);
        let ended = machine.run("tools", &["build", "required"], &[]);
        assert!(
            !ended.good && ended.said.contains("cmake"),
            "apt {what}: {}",
            ended.said
        );
        let ended = machine.run("tools", &["build", "optional"], &[]);
        assert!(
            ended.good && ended.said.contains("not to be had here: cmake\n"),
            "apt {what}: {}",
            ended.said
        );
    }
    let ended = Machine::new().run("tools", &["kitchen", "required"], &[]);
    assert!(
        !ended.good && ended.said.contains("build, clients"),
        "{}",
        ended.said
    );
}

#[test]
fn apt_as_root_and_through_sudo() {
    for id in [0, 1000] {
        let machine = Machine::new();
        machine.user(id);
        machine.apt("exit 0");
        machine.program(
            "shims",
            "sudo",
            "[ \"$1\" = -n ] || exit 1; shift; echo \"sudo $1\" >>\"$CALLS\"; exec \"$@\"",
        );
        let ended = machine.run("install", &[" cmake curl", "required"], &[]);
        assert!(ended.good, "{}", ended.said);
        let calls = machine.calls();
        let call = calls.last().unwrap();
        assert!(
            call.starts_with("noninteractive -o DPkg::Lock::Timeout=300 "),
            "{calls:?}"
        );
        assert!(
            call.ends_with(" install -y --no-install-recommends cmake curl"),
            "{calls:?}"
        );
        assert_eq!(calls.contains(&"sudo env".to_owned()), id != 0, "{calls:?}");
    }
    let ended = Machine::new().run("install", &["", "required"], &[]);
    assert!(
        ended.good && ended.said.is_empty(),
        "nothing is missing: {}",
        ended.said
    );
}

#[test]
fn old_lists_are_renewed() {
    let machine = Machine::new();
    machine.user(0);
    machine.apt("case \"$*\" in *update) touch \"$CALLS.new\" ;; *) [ -e \"$CALLS.new\" ] || { echo 'E: Unable to locate package cmake'; exit 100; } ;; esac");
    let ended = machine.run("install", &[" cmake", "required"], &[]);
    assert!(ended.good, "{}", ended.said);
    let last = |call: &String| call.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(
        machine.calls().iter().map(last).collect::<Vec<_>>(),
        ["cmake", "update", "cmake"]
    );
}

#[test]
fn one_optional_package_keeps_no_other_away() {
    let machine = Machine::new();
    machine.user(0);
    machine.apt("case \"$*\" in *chromium*) exit 100 ;; esac");
    let packages = &[" curl chromium nodejs", "optional"];
    let ended = machine.run("install", packages, &[]);
    assert!(
        ended.good && ended.said.contains("missing: chromium\n"),
        "{}",
        ended.said
    );
    for package in ["curl", "nodejs"] {
        let alone = format!("--no-install-recommends {package}");
        assert!(
            machine.calls().iter().any(|call| call.ends_with(&alone)),
            "{:?}",
            machine.calls()
        );
    }
}

#[test]
fn locks_are_waited_for_but_not_for_ever() {
    for said in [
        "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
        "E: Unable to lock directory /var/cache/apt/archives/",
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
    ] {
        let machine = Machine::new();
        machine.user(0);
        machine.apt(&format!("[ -e \"$CALLS.2\" ] && exit 0; [ ! -e \"$CALLS.1\" ] || touch \"$CALLS.2\"; touch \"$CALLS.1\"; echo '{said}' >&2; exit 100"));
        let ended = machine.run("install", &[" cmake", "required"], &[]);
        assert!(
            ended.good && ended.said.contains("waiting"),
            "{}",
            ended.said
        );
        assert_eq!(machine.calls().len(), 3, "{:?}", machine.calls());

        machine.apt(&format!("echo '{said}' >&2; exit 100"));
        let ended = machine.run(
            "install",
            &[" cmake", "required"],
            &[("COUNTERSIGN_APT_PATIENCE", "0")],
        );
        assert!(
            !ended.good && ended.said.contains(said),
            "it says why: {}",
            ended.said
        );
    }
}

#[test]
fn where_it_cannot_install_it_says_what_to_do() {
    let packages = " cmake gcc libc6-dev make python3-requests nodejs";
    for (apt, manager, says) in [
        (
            true,
            "",
            "apt-get install cmake gcc libc6-dev make python3-requests nodejs\n",
        ),
        (
            false,
            "dnf",
            "dnf install cmake gcc glibc-devel make python3-requests nodejs\n",
        ),
        (
            false,
            "brew",
            "brew install cmake (the compiler of: xcode-select --install) (python3 -m pip install requests) node\n",
        ),
        (false, "", "these are Debian's names"),
    ] {
        let machine = Machine::new();
        machine.user(1000);
        if apt {
            machine.apt("exit 0");
        }
        if !manager.is_empty() {
            machine.program("shims", manager, "exit 0");
        }
        for (need, good) in [("required", false), ("optional", true)] {
            let ended = machine.run("install", &[packages, need], &[]);
            assert_eq!(ended.good, good, "{}", ended.said);
            assert!(
                ended.said.contains(&format!("missing:{packages}\n")),
                "{}",
                ended.said
            );
            assert!(ended.said.contains(says), "{says}: {}", ended.said);
        }
        assert_eq!(machine.calls(), [""; 0], "nobody who may not install tries");
    }
}

#[test]
fn docker_is_not_passed_over_in_silence() {
    let machine = Machine::new();
    for (may_skip, good) in [
        ("", false),
        ("docker", true),
        ("browser,docker", true),
        ("browser", false),
    ] {
        let ended = machine.run("docker", &[], &[("COUNTERSIGN_TESTS_MAY_SKIP", may_skip)]);
        assert!(ended.said.contains("DOCKER STEP NOT RUN"), "{}", ended.said);
        assert_eq!(ended.good, good, "{may_skip:?}: {}", ended.said);
    }
}
