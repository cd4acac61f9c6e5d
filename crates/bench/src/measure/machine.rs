//! What the figures were measured on, in words that name no particular machine.

use std::fs::read_to_string;
use std::thread::available_parallelism;

/// Cores, processor, kernel and how busy the machine is before the first load.
pub(super) fn described() -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let processor = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = model(&processor).unwrap_or("unknown processor");
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "{cores} cores, {processor}, Linux {}, load average {load}",
        numbers(kernel.trim())
    )
}

/// The processor's name, from the first core of `/proc/cpuinfo`.
fn model(cpuinfo: &str) -> Option<&str> {
    cpuinfo.lines().find_map(|line| {
        let (key, name) = line.split_once(':')?;
        (key.trim() == "model name").then_some(name.trim())
    })
}

/// The version without what a builder appended to it.
fn numbers(release: &str) -> &str {
    release.split('-').next().unwrap_or(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_the_first_cores() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: A 1000\n\n\
                       processor\t: 1\nmodel name\t: B 2000\n";
        assert_eq!(model(cpuinfo), Some("A 1000"));
        assert_eq!(model("processor\t: 0\n"), None);
    }

    #[test]
    fn a_kernels_version_ends_before_its_builder() {
        assert_eq!(numbers("6.18.44-builder-7"), "6.18.44");
        assert_eq!(numbers("6.18.44"), "6.18.44");
    }
}
