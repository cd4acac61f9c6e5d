//! Kernel switches under `/proc/sys/net`, which follow the network namespace of the calling thread.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

/// A switch of the kernel and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Any value but 0.
    On,
    /// 0, and we may change it.
    Off,
    /// 0, and we may not change it.
    Locked,
    /// This kernel has no such switch.
    Absent,
}

/// Reads `name`, which is written with slashes: `net/ipv4/ip_forward`.
pub(super) fn state(name: &str) -> Switch {
    match fs::read_to_string(path(name)) {
        Ok(value) if value.trim() != "0" => Switch::On,
        Ok(_) if OpenOptions::new().write(true).open(path(name)).is_ok() => Switch::Off,
        Ok(_) => Switch::Locked,
        Err(_) => Switch::Absent,
    }
}

/// Sets `name` to `value`.
pub(super) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
