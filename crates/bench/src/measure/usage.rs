//! What a process has used, as the kernel tells it: processor time and resident memory.
//!
//! Refuses to guess: a line that does not read as proc_pid_stat(5) or proc_pid_status(5) describe
//! it is an error. Processor time counts all threads of the process; work that the kernel does for
//! it in interrupts is booked on whoever was running.

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::time::Duration;

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time of all its threads.
    pub(super) cpu: Cpu,
    /// Resident memory now.
    pub(super) resident_bytes: u64,
}

/// Processor time in the two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    /// In the program's own code.
    pub(super) user: Duration,
    /// In the kernel, on its behalf or in interrupts that hit it.
    pub(super) system: Duration,
}

impl Cpu {
    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both modes.
    pub(super) fn total(self) -> Duration {
        self.user.saturating_add(self.system)
    }
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// There is no such process, or what the kernel tells cannot be understood.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            // The name of a process need not be UTF-8.
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (user, system) =
            cpu_ticks(&read("stat")?).context("unknown format of /proc/<pid>/stat")?;
        let resident_bytes = resident_bytes(&read("status")?).context("no VmRSS of a process")?;
        let per_second = ticks_per_second()?;
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / per_second);
        Ok(Self {
            cpu: Cpu {
                user: time(user),
                system: time(system),
            },
            resident_bytes,
        })
    }
}

/// The unit of the times in `/proc/<pid>/stat`.
fn ticks_per_second() -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the kernel names no clock ticks")?;
    Ok(ticks as f64)
}

/// utime and stime, the fields 14 and 15 of `/proc/<pid>/stat`. The second field is the name in
/// parentheses, which may itself hold spaces and parentheses: what follows begins after the last.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    // The first field here is the third of all.
    let user = fields.nth(14 - 3)?.parse().ok()?;
    let system = fields.next()?.parse().ok()?;
    Some((user, system))
}

/// The line `VmRSS:   1234 kB` of `/proc/<pid>/status`; the kernel's kB are 1024 bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let told = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = told.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line of the kernel with 52 fields, utime 250 and stime 1750.
    fn line(name: &str) -> String {
        format!(
            "4711 ({name}) S 1 4711 4711 0 -1 4194560 2000 0 0 0 250 1750 11 12 20 0 3 0 9000 \
             90000000 5000 18446744073709551615 1 1 0 0 0 0 0 4096 81920 0 0 0 17 1 0 0 0 0 0 0 0 \
             0 0 0 0 0 0\n"
        )
    }

    #[test]
    fn user_and_system_time_are_read_and_those_of_children_are_not() {
        assert_eq!(cpu_ticks(&line("postern")), Some((250, 1750)));
    }

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        for name in ["web server", "a) S 1 (b", "((", "))", ") R 9 9 9 (", ""] {
            assert_eq!(cpu_ticks(&line(name)), Some((250, 1750)), "{name}");
        }
    }

    #[test]
    fn time_since_an_earlier_look_is_the_difference_in_each_mode() {
        let cpu = |user, system| Cpu {
            user: Duration::from_millis(user),
            system: Duration::from_millis(system),
        };
        let spent = cpu(500, 90).since(cpu(300, 50));
        assert_eq!(spent, cpu(200, 40));
        assert_eq!(spent.total(), Duration::from_millis(240));
    }

    #[test]
    fn a_line_cut_short_tells_nothing() {
        let whole = line("postern");
        let (cut, _) = whole.split_once("1750").expect("stime");
        assert_eq!(cpu_ticks(cut), None);
        assert_eq!(cpu_ticks("4711 (postern"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn resident_memory_is_read_from_its_line() {
        let status = "Name:\tVmRSS: 1 kB\nVmHWM:\t   9999 kB\nVmRSS:\t   2048 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(2048 * 1024));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t2048 MB\n"), None);
    }

    #[test]
    fn a_living_process_has_used_something() {
        let before = Usage::of(std::process::id()).expect("this process lives");
        let ballast = vec![1_u8; 8 << 20];
        let after = Usage::of(std::process::id()).expect("this process lives");
        assert!(after.cpu.total() >= before.cpu.total());
        assert!(after.resident_bytes >= ballast.len() as u64);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        // Process ids end at 2^22 (PID_MAX_LIMIT), so this one never lives.
        let error = Usage::of(99_999_999).expect_err("nobody").to_string();
        assert!(error.contains("99999999"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _read_or_refused = (cpu_ticks(&text), resident_bytes(&text));
        }

        #[test]
        fn any_name_leaves_the_times_alone(name in "\\PC{0,15}") {
            prop_assert_eq!(cpu_ticks(&line(&name)), Some((250, 1750)));
        }
    }
}
