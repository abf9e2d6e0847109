//! What the system says of this process: its time, memory and files.

/// Numbers under the names that client libraries of Prometheus give them. What the system does not tell
/// is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Time on processors since it started.
    pub(super) cpu_seconds: Option<f64>,
    /// When it started, since 1970.
    pub(super) start_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) files_max: Option<u64>,
}

impl Process {
    /// As it is now.
    #[cfg(target_os = "linux")]
    pub(super) fn now() -> Self {
        use procfs::process::{LimitValue, Process};

        let Ok(process) = Process::myself() else {
            return Self::default();
        };
        let stat = process.stat().ok();
        let ticks = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let booted = procfs::boot_time_secs().ok();
        let files = process.limits().map(|limits| limits.max_open_files);
        Self {
            cpu_seconds: stat.as_ref().map(|stat| ticks(stat.utime + stat.stime)),
            start_seconds: stat
                .as_ref()
                .and_then(|stat| Some(booted? as f64 + ticks(stat.starttime))),
            resident_bytes: stat.as_ref().map(|stat| stat.rss * procfs::page_size()),
            virtual_bytes: stat.as_ref().map(|stat| stat.vsize),
            threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
            open_files: process.fd_count().ok().map(|count| count as u64),
            files_max: files.ok().and_then(|files| match files.soft_limit {
                LimitValue::Value(limit) => Some(limit),
                LimitValue::Unlimited => None,
            }),
        }
    }

    /// As it is now.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn now() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use std::time::{SystemTime, UNIX_EPOCH};

    #[cfg(target_os = "linux")]
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_what_it_is() {
        let now = Process::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let started = now.start_seconds.unwrap();
        assert!(started > 1.6e9 && started < since_1970.as_secs_f64() + 2.0);
        assert!(now.cpu_seconds.unwrap() < 1e6);
        let (resident, whole) = (now.resident_bytes.unwrap(), now.virtual_bytes.unwrap());
        assert!(resident > 100_000 && resident < whole, "{now:?}");
        assert!(now.threads.unwrap() >= 1);
        let before = now.open_files.unwrap();
        let _more: Vec<_> = (0..20)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests open and close files at the same time.
        assert!(before >= 3 && Process::now().open_files.unwrap() >= 20);
    }
}
