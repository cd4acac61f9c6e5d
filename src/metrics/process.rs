//! The kernel's figures for this process, under the names that Prometheus clients share.
//!
//! Does not guess: figures that cannot be read, as in a container without /proc, are left out.

use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::time::Duration;

/// The figures at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// In seconds since 1970.
    pub started_at: f64,
    pub resident_bytes: u64,
    /// Addresses that it has.
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_fds: u64,
    /// How many it may have.
    pub max_fds: u64,
}

/// Reads the present figures; `None` if one of them cannot be read.
pub fn read() -> Option<Process> {
    let text = |path: &str| {
        let bytes = fs::read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let stat = Stat::parse(&text("/proc/self/stat")?)?;
    let per_second = positive(SysconfVar::CLK_TCK)?;
    let booted_at = number_after(&text("/proc/stat")?, "btime ")?;
    Some(Process {
        cpu: Duration::from_secs_f64(stat.cpu_ticks as f64 / per_second as f64),
        started_at: booted_at as f64 + stat.start_ticks as f64 / per_second as f64,
        resident_bytes: stat.resident_pages * positive(SysconfVar::PAGE_SIZE)?,
        virtual_bytes: stat.virtual_bytes,
        threads: stat.threads,
        open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        max_fds: number_after(&text("/proc/self/limits")?, "Max open files ")?,
    })
}

/// Some fields of `/proc/<pid>/stat`, see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The program's name is in parentheses and may contain parentheses itself.
        let (_, after_name) = line.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1; the first field here is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The first number after the first `mark`.
fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, after) = text.split_once(mark)?;
    let word = after.split_ascii_whitespace().next()?;
    match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn positive(name: SysconfVar) -> Option<u64> {
    let value = sysconf(name).ok()??;
    u64::try_from(value).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_fields_of_stat_behind_any_program_name() {
        let line = "4711 (a) S 1 (b) S 1 4711 4711 0 -1 4194560 2000 0 0 0 250 1750 11 12 20 0 3 \
                    0 9000 90000000 5000 18446744073709551615 1 1 0 0";
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                cpu_ticks: 2000,
                threads: 3,
                start_ticks: 9000,
                virtual_bytes: 90_000_000,
                resident_pages: 5000,
            })
        );
        assert_eq!(Stat::parse("4711 (postern) S 1"), None);
    }

    #[test]
    fn reads_limits_and_boot_time_from_their_lines() {
        let limits = "Max processes   95  95  processes\nMax open files            1024    \
                      524288    files\n";
        assert_eq!(number_after(limits, "Max open files "), Some(1024));
        let unlimited = "Max open files            unlimited    unlimited    files\n";
        assert_eq!(number_after(unlimited, "Max open files "), Some(u64::MAX));
        assert_eq!(
            number_after("cpu 1 2\nbtime 1700000000\n", "btime "),
            Some(1_700_000_000)
        );
        assert_eq!(number_after("btime soon", "btime "), None);
    }

    #[test]
    fn this_process_has_plausible_figures() {
        let process = read().expect("/proc is mounted");
        assert!(process.resident_bytes > 100_000, "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!((3..=process.max_fds).contains(&process.open_fds));
        let now = crate::shell::unix_now().0 as f64;
        assert!((now - process.started_at).abs() < 3600.0, "{process:?}");
        assert!(process.threads >= 1);
    }
}
