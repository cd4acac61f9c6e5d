//! The measured gateways: names on the command line and in the tables, and the program of each.

use std::fmt;
use std::str::FromStr;

/// A gateway, or a substitute for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    /// Postern, by a CIDR resource.
    Postern,
    /// Postern, by a DNS resource.
    PosternByName,
    /// The floor at both ends.
    Floor,
    /// boringtun-cli with one thread.
    BoringtunOne,
    /// boringtun-cli with its default number of threads.
    Boringtun,
    Gotatun,
    /// wireguard-go of the Debian package.
    WireguardGo,
    /// Kernel forwarding without a tunnel.
    Kernel,
}

impl Contender {
    /// All contenders, in the order of measurements and tables.
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

    /// WireGuard program of a contender with its arguments before the interface; `None` for others.
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
