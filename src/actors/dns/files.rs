//! The host's files about names: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! Their content is watched, not their metadata: network managers replace, link and mount over
//! both, and both may be missing for a while at boot (docs/lessons.md 21).

use super::resolver::Hosts;
use crate::config::{DnsServer, DnsTransport};
use nix::net::if_::if_nametoindex;
use postern_core::names::DomainName;
use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;

/// A small file that may change at any time.
pub(super) struct Watched {
    path: PathBuf,
    last: Option<Vec<u8>>,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// The content, if the file exists and has changed since the last call.
    pub(super) fn changed(&mut self) -> Option<&[u8]> {
        let content = self.read()?;
        if self.last.as_ref() == Some(&content) {
            return None;
        }
        Some(self.last.insert(content))
    }

    fn read(&self) -> Option<Vec<u8>> {
        // Reading anything but a file might wait.
        let is_file = self.path.metadata().is_ok_and(|it| it.is_file());
        let file = is_file.then(|| File::open(&self.path).ok()).flatten()?;
        let mut content = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut content).ok()?;
        if content.len() as u64 == BYTES_MAX {
            drop_cut_line(&mut content);
        }
        Some(content)
    }
}

/// A cut name is another name.
fn drop_cut_line(content: &mut Vec<u8>) {
    let end = content.iter().rposition(|byte| *byte == b'\n');
    content.truncate(end.unwrap_or_default());
}

/// The servers in a `resolv.conf`, at `port`. Search domains and options are ignored: names are
/// complete, and time-outs are our own.
pub(super) fn servers(resolv_conf: &[u8], port: u16) -> Vec<DnsServer> {
    let server = |address| DnsServer {
        address,
        transport: DnsTransport::Udp,
    };
    let lines = lines(resolv_conf);
    let named = lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let addresses = named.filter_map(|text| address(text, port));
    addresses.take(SERVERS_MAX).map(server).collect()
}

/// A link-local server needs its interface, after `%`: a name or a number (RFC 4007, section 11.2).
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((ip, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let scope = match zone.parse() {
        Ok(number) => number,
        Err(_) => if_nametoindex(zone).ok()?,
    };
    Some(SocketAddrV6::new(ip.parse().ok()?, port, 0, scope).into())
}

/// The names in a hosts file, with their addresses.
pub(super) fn hosts(text: &[u8]) -> Hosts {
    let mut hosts = Hosts::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|ip| ip.parse().ok()) else {
            continue;
        };
        for name in words.filter_map(|name| name.parse::<DomainName>().ok()) {
            hosts.entry(name).or_default().push(ip);
        }
    }
    hosts
}

/// Lines without comments; `;` begins one in a resolv.conf, and is in no name.
fn lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let code = |line: &str| line.split(['#', ';']).next().unwrap_or_default().to_owned();
    text.lines().map(code).collect()
}

/// Usual files have a few hundred bytes; blocklists in the hosts file a few hundred thousand.
const BYTES_MAX: u64 = 4 << 20;
/// More than the C library's three, for deliberately longer lists.
const SERVERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_servers_among_other_lines() {
        let text = b"# managed\nsearch corp.example\noptions edns0 trust-ad\n\
                     nameserver 10.0.0.53 # first\nnameserver fd00::53\nnameserver fe80::1%lo\n\
                     nameserver fe80::1%7\nnameserver fe80::1%missing0\n\
                     nameserver nonsense\nnameserver\n;nameserver 10.0.0.54\n \xff\n";
        let shown: Vec<String> = servers(text, 53).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "udp://10.0.0.53:53",
                "udp://[fd00::53]:53",
                "udp://[fe80::1%1]:53",
                "udp://[fe80::1%7]:53"
            ]
        );
        assert_eq!(servers(b"", 53), []);
    }

    #[test]
    fn hosts_have_names_in_both_families() {
        let hosts =
            hosts(b"127.0.0.1 localhost\n10.0.0.1 App.Example app # ours\nfd00::1 app.example\n");
        let app = "app.example".parse().expect("a name");
        let ips = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(hosts.get(&app), Some(&ips.to_vec()));
        assert_eq!(hosts.len(), 3);
    }

    #[test]
    fn reads_only_whole_lines_of_an_oversized_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hosts");
        let line = "10.0.0.1 app.example\n";
        let text = line.repeat(usize::try_from(BYTES_MAX).expect("small") / line.len() + 1);
        std::fs::write(&path, text).expect("written");
        let mut watched = Watched::new(path);
        let hosts = hosts(watched.changed().expect("it is there"));
        assert_eq!(hosts.len(), 1, "{:?}", hosts.keys());
    }

    #[test]
    fn reports_a_change_once_and_a_missing_file_never() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        let mut watched = Watched::new(path.clone());
        assert_eq!(watched.changed(), None);
        for text in ["a", "b"] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(watched.changed(), Some(text.as_bytes()));
            assert_eq!(watched.changed(), None);
        }
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(watched.changed(), None);
    }
}
