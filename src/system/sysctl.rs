//! Kernel settings under `/proc/sys/net`, of the network namespace of the calling thread.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

/// The state of a setting that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Any value other than 0.
    On,
    /// 0, and writable for this process.
    Off,
    /// 0, and not writable for this process.
    Locked,
    /// Unknown to this kernel.
    Absent,
}

/// Reads `name`, with slashes: `net/ipv4/ip_forward`.
pub(super) fn state(name: &str) -> Setting {
    match fs::read_to_string(path(name)) {
        Ok(value) if value.trim() != "0" => Setting::On,
        Ok(_) if OpenOptions::new().write(true).open(path(name)).is_ok() => Setting::Off,
        Ok(_) => Setting::Locked,
        Err(_) => Setting::Absent,
    }
}

pub(super) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
