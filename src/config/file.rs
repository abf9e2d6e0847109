//! Files that are read before anything runs: opened once, judged by what was opened, never read
//! beyond a bound.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// What `statfs` says of a file system in memory (`linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A regular file, open for reading.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    facts: Metadata,
}

impl Opened {
    /// Opens a file. A pipe without a writer is not waited for, and a device is not touched.
    ///
    /// # Errors
    /// Why it cannot be read, as the end of a sentence that begins with its name.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let said = |error: &std::io::Error| unreadable(error.kind());
        is_regular(&std::fs::metadata(path).map_err(|error| said(&error))?)?;
        // Something else may have taken its place since.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| said(&error))?;
        let facts = file.metadata().map_err(|error| said(&error))?;
        is_regular(&facts)?;
        Ok(Self { file, facts })
    }

    /// Reads all of it, if that is no more than `most` bytes.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(super) fn read(&self, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
        // Room for all of it: growing would leave copies of a secret behind.
        let expected = usize::try_from(self.facts.len()).unwrap_or(most).min(most);
        let mut bytes = Zeroizing::new(Vec::with_capacity(expected + 1));
        (&self.file)
            .take(most as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(error.kind()))?;
        if bytes.len() > most {
            let most = match most >> 20 {
                0 => format!("{} KiB", most >> 10),
                most => format!("{most} MiB"),
            };
            return Err(format!("is larger than {most}; is it the right one?"));
        }
        Ok(bytes)
    }

    /// Who else can read or replace a secret that stands in it, as the end of a sentence that begins
    /// with its name.
    pub(super) fn exposure(&self, path: &Path) -> Option<&'static str> {
        let real = self.real_path(path);
        if self.is_mounted_secret(&real) {
            return None;
        }
        if self.facts.permissions().mode() & 0o007 != 0 {
            return Some(
                "is open to every user of this machine; run chmod o= on it, or mount it as a container's secret",
            );
        }
        let folder = std::fs::metadata(real.parent()?).ok()?;
        let mode = folder.permissions().mode();
        // With the sticky bit, only its owner can replace a file.
        (mode & 0o002 != 0 && mode & 0o1000 == 0).then_some(
            "can be replaced by every user of this machine; run chmod o-w on the folder it is in",
        )
    }

    /// Where what was opened stands: of the open file where the system tells, which nobody can
    /// exchange.
    fn real_path(&self, path: &Path) -> PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
            .or_else(|_| path.canonicalize())
            .unwrap_or_else(|_| path.to_owned())
    }

    /// Whether a container runtime mounted it: there the mode says nothing, since the container's
    /// users are its own.
    fn is_mounted_secret(&self, real: &Path) -> bool {
        let of_docker = ["/run/secrets", "/var/run/secrets"];
        if of_docker.iter().any(|root| real.starts_with(root)) {
            return true;
        }
        let in_memory = rustix::fs::fstatfs(&self.file)
            .is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(TMPFS_MAGIC));
        in_memory && real.ancestors().any(is_projected)
    }
}

/// Whether a kubelet made this folder: it writes a volume's files to a folder named after the time,
/// and turns the link `..data` beside it to the newest one.
fn is_projected(folder: &Path) -> bool {
    let (Some(name), Some(volume)) = (folder.file_name(), folder.parent()) else {
        return false;
    };
    let shape = b"..9999_99_99_99_99_99.";
    let bytes = name.as_encoded_bytes();
    let fits = bytes.len() > shape.len()
        && shape.iter().zip(bytes).all(|(shape, byte)| match shape {
            b'9' => byte.is_ascii_digit(),
            other => other == byte,
        })
        && bytes[shape.len()..].iter().all(u8::is_ascii_digit);
    fits && std::fs::read_link(volume.join("..data")).is_ok_and(|target| target.as_os_str() == name)
}

fn is_regular(facts: &Metadata) -> Result<(), String> {
    let kind = facts.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("is {what} and no file"))
}

fn unreadable(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::NotFound => "cannot be read: there is no such file".to_owned(),
        ErrorKind::PermissionDenied => {
            "cannot be read: this user may not; change its owner or mode".to_owned()
        }
        kind => format!("cannot be read: {kind}"),
    }
}
