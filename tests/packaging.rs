//! The files for packagers: a unit that systemd understands, and that says what its page says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the unit may say, by section: systemd ignores what it does not know, and so would we.
const KNOWN: &[(&str, &str)] = &[
    (
        "Unit",
        "After Description Documentation StartLimitBurst StartLimitIntervalSec Wants",
    ),
    (
        "Service",
        "AmbientCapabilities CapabilityBoundingSet ConfigurationDirectory DeviceAllow DevicePolicy \
         ExecReload ExecStart Group KeyringMode LimitNOFILE LoadCredential LockPersonality \
         MemoryDenyWriteExecute NoNewPrivileges NotifyAccess PrivateMounts PrivateTmp ProcSubset \
         ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs \
         ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem RemoveIPC Restart \
         RestartMaxDelaySec RestartSec RestartSteps RestrictAddressFamilies RestrictNamespaces \
         RestrictRealtime RestrictSUIDSGID RuntimeDirectory RuntimeDirectoryMode \
         RuntimeDirectoryPreserve StateDirectory StateDirectoryMode SystemCallArchitectures \
         SystemCallErrorNumber SystemCallFilter TimeoutStartSec TimeoutStopSec Type UMask User \
         WatchdogSec",
    ),
    ("Install", "WantedBy"),
];

type Unit = BTreeMap<(String, String), Vec<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("it is in the repository")
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let all = text.lines().map(str::trim);
    all.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Every value by section and key.
fn unit() -> Unit {
    let text = read("packaging/systemd/postern.service");
    let mut unit = Unit::new();
    let mut section = String::new();
    for line in lines(&text) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').expect("closed").to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').expect("an assignment");
        let place = (section.clone(), key.to_owned());
        unit.entry(place).or_default().push(value.to_owned());
    }
    unit
}

fn value<'a>(unit: &'a Unit, section: &str, key: &str) -> &'a str {
    let values = &unit[&(section.to_owned(), key.to_owned())];
    assert_eq!(values.len(), 1, "{key}");
    &values[0]
}

#[test]
fn every_line_of_the_unit_is_one_that_systemd_knows() {
    let known: BTreeSet<(String, String)> = KNOWN
        .iter()
        .flat_map(|(section, keys)| {
            let keys = keys.split_ascii_whitespace();
            keys.map(|key| ((*section).to_owned(), key.to_owned()))
        })
        .collect();
    let said: BTreeSet<_> = unit().into_keys().collect();
    assert_eq!(said, known);
}

/// What the gateway's own defaults, its behaviour and the unit say must be the same.
#[test]
fn the_unit_fits_the_gateway() {
    let unit = unit();
    let service = |key: &str| value(&unit, "Service", key).to_owned();
    assert_eq!(service("Type"), "notify");
    assert_eq!(service("NotifyAccess"), "main");
    assert!(service("ExecReload").contains("-HUP"));
    for directory in [
        "StateDirectory",
        "RuntimeDirectory",
        "ConfigurationDirectory",
    ] {
        assert_eq!(service(directory), "postern");
    }
    assert_eq!(service("RuntimeDirectoryPreserve"), "yes");
    assert_eq!(service("AmbientCapabilities"), "CAP_NET_ADMIN");
    assert_eq!(service("CapabilityBoundingSet"), "CAP_NET_ADMIN");
    let config = read("config/gateway.toml");
    for (directory, holds) in [
        ("/var/lib/", "id_file = \"/var/lib/postern/"),
        ("/run/", "file = \"/run/postern/"),
        ("/etc/", "LoadCredential=POSTERN_TOKEN:/etc/postern/token"),
    ] {
        assert!(config.contains(holds), "{directory}");
    }
    let credential = service("LoadCredential");
    assert!(config.contains(&format!("LoadCredential={credential}")));
}

/// The gateway may not write there: what it needs of the kernel stands in the drop-in, all of it.
#[test]
fn the_kernel_switches_are_those_that_the_gateway_looks_at() {
    let text = read("packaging/systemd/60-postern.conf");
    let set: Vec<&str> = lines(&text).collect();
    let expected = [
        "net.ipv4.ip_forward = 1",
        "net.ipv6.conf.all.forwarding = 1",
    ];
    assert_eq!(set, expected);
    for switch in set {
        let name = switch.split(" = ").next().expect("a name");
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn the_page_names_every_file_and_every_protection() {
    let page = read("docs/systemd.md");
    for entry in fs::read_dir(root().join("packaging/systemd")).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let path = format!("packaging/systemd/{}", name.to_string_lossy());
        assert!(page.contains(&path), "{path}");
    }
    for key in [
        "WatchdogSec",
        "RestartSteps",
        "RuntimeDirectoryPreserve",
        "ProtectKernelTunables",
        "SystemCallFilter",
        "DeviceAllow",
        "LoadCredential",
        "ExecReload",
    ] {
        assert!(page.contains(key), "{key}");
    }
}

/// Where systemd's own checker is there, it has the last word. It misses the program, which is not
/// installed, and, before version 254, two keys that it passes over.
#[test]
fn systemd_understands_the_unit() {
    let path = root().join("packaging/systemd/postern.service");
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    let Ok(output) = verify else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = |line: &str| {
        line.contains("Command /usr/bin/postern is not executable")
            || line.contains("Unknown key 'RestartSteps'")
            || line.contains("Unknown key 'RestartMaxDelaySec'")
            // About the machine and not about the unit.
            || !line.contains("postern.service")
    };
    let unexpected: Vec<&str> = said.lines().filter(|line| !expected(line)).collect();
    assert_eq!(unexpected, [""; 0]);
}
