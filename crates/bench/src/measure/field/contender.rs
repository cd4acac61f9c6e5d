//! Who is measured: names on the command line and in the tables, and which program it takes.

use std::fmt;
use std::str::FromStr;

/// A gateway, or what stands in for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    /// Postern, by a CIDR resource.
    Postern,
    /// Postern, by a name.
    PosternByName,
    /// The floor at both ends.
    Floor,
    /// boringtun-cli with one thread.
    BoringtunOne,
    /// boringtun-cli with as many threads as it likes.
    Boringtun,
    /// gotatun-cli.
    Gotatun,
    /// wireguard-go, as Debian has it.
    WireguardGo,
    /// The kernel forwards; no tunnel.
    Kernel,
}

impl Contender {
    /// In the order in which they are measured and shown.
    pub(super) const ALL: [Self; 8] = [
        Self::Postern,
        Self::PosternByName,
        Self::Floor,
        Self::BoringtunOne,
        Self::Boringtun,
        Self::Gotatun,
        Self::WireguardGo,
        Self::Kernel,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Postern => "postern",
            Self::PosternByName => "postern-name",
            Self::Floor => "floor",
            Self::BoringtunOne => "boringtun-1",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::WireguardGo => "wireguard-go",
            Self::Kernel => "kernel",
        }
    }

    /// The WireGuard program of a contender that is one, with its arguments before the interface.
    pub(super) fn wireguard(self) -> Option<&'static [&'static str]> {
        match self {
            Self::BoringtunOne => Some(&[
                "boringtun-cli",
                "--foreground",
                "--disable-drop-privileges",
                "--threads",
                "1",
            ]),
            Self::Boringtun => {
                Some(&["boringtun-cli", "--foreground", "--disable-drop-privileges"])
            }
            Self::Gotatun => Some(&["gotatun", "--foreground", "--disable-drop-privileges"]),
            Self::WireguardGo => Some(&["wireguard-go", "--foreground"]),
            Self::Postern | Self::PosternByName | Self::Floor | Self::Kernel => None,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|it| it.name() == text);
        named.ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            format!("there is no contender {text:?}; there are {all}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_is_found_by_its_name() {
        for contender in Contender::ALL {
            assert_eq!(contender.to_string().parse(), Ok(contender));
        }
        let error = Contender::from_str("seed").expect_err("unknown");
        assert!(error.contains("postern-name"), "{error}");
    }
}
