//! The records of one zone, from a TOML file, changed by commands.
//!
//! ```toml
//! origin = "lab.example"
//! negative_ttl = 5                       # seconds; default 5
//! [[names]]
//! name = "app.lab.example"
//! ttl = 30                               # seconds; default 30
//! a = ["10.20.0.100"]
//! aaaa = ["fd20::100"]
//! txt = ["hello"]
//! srv = [{ priority = 0, weight = 0, port = 80, target = "app.lab.example" }]
//! ```
//!
//! A name that begins with `*.` answers for every name below the rest that has no records of its
//! own (RFC 4592, without its finer points). Refuses names outside the origin, unknown keys, and
//! more than [`NAMES_MAX`] names.

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many names a zone may have.
pub const NAMES_MAX: usize = 4096;
/// The kinds of records that a zone can hold.
pub const KINDS: [RecordType; 4] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::TXT,
];
/// Seconds for which records may be kept, unless they say otherwise.
const TTL: u32 = 30;
/// Seconds for which the absence of records may be kept, unless the file says otherwise.
const NEGATIVE_TTL: u32 = 5;

/// All records of one name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NameRecords {
    /// The whole name; a trailing dot does not count, nor does case.
    pub name: String,
    /// Seconds for which they may be kept.
    #[serde(default = "default_ttl")]
    pub ttl: u32,
    /// A.
    #[serde(default)]
    pub a: Vec<Ipv4Addr>,
    /// AAAA.
    #[serde(default)]
    pub aaaa: Vec<Ipv6Addr>,
    /// TXT, one string each, at most 255 bytes.
    #[serde(default)]
    pub txt: Vec<String>,
    /// SRV.
    #[serde(default)]
    pub srv: Vec<Service>,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among equals.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Whose addresses to look up.
    pub target: String,
}

fn default_ttl() -> u32 {
    TTL
}

fn default_negative_ttl() -> u32 {
    NEGATIVE_TTL
}

impl NameRecords {
    /// A name with addresses and nothing else.
    #[must_use]
    pub fn addresses(name: &str, ttl: u32, addresses: &[IpAddr]) -> Self {
        let mut records = Self {
            name: name.to_owned(),
            ttl,
            a: Vec::new(),
            aaaa: Vec::new(),
            txt: Vec::new(),
            srv: Vec::new(),
        };
        for address in addresses {
            match address {
                IpAddr::V4(address) => records.a.push(*address),
                IpAddr::V6(address) => records.aaaa.push(*address),
            }
        }
        records
    }

    /// The data of one kind.
    fn of(&self, kind: RecordType) -> Result<Vec<RData>> {
        let data = if kind == RecordType::A {
            self.a.iter().map(|ip| RData::A(A(*ip))).collect()
        } else if kind == RecordType::AAAA {
            self.aaaa.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect()
        } else if kind == RecordType::TXT {
            let text = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
            self.txt.iter().map(text).collect()
        } else if kind == RecordType::SRV {
            let services = self.srv.iter().map(Service::data);
            services.collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(data)
    }

    fn check(&self) -> Result<()> {
        let name = &self.name;
        Name::from_ascii(name).with_context(|| format!("{name:?} is no name"))?;
        ensure!(
            self.txt.iter().all(|text| text.len() <= 255),
            "a TXT string of {name} is longer than 255 bytes"
        );
        self.of(RecordType::SRV).map(drop)
    }
}

impl Service {
    fn data(&self) -> Result<RData> {
        let target = absolute(&self.target)?;
        let Self {
            priority,
            weight,
            port,
            ..
        } = *self;
        Ok(RData::SRV(SRV::new(priority, weight, port, target)))
    }
}

/// The file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ZoneFile {
    origin: String,
    #[serde(default = "default_negative_ttl")]
    negative_ttl: u32,
    #[serde(default)]
    names: Vec<NameRecords>,
}

/// What a zone knows about a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// These records.
    Records(Vec<Record>),
    /// The name exists without records of this kind.
    NoData,
    /// The name does not exist.
    NoSuchName,
    /// The name belongs to somebody else.
    NotOurs,
}

/// The records of all names at or below one origin.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: String,
    negative_ttl: u32,
    names: BTreeMap<String, NameRecords>,
}

impl Zone {
    /// Reads a zone file.
    ///
    /// # Errors
    /// It is no TOML, has unknown keys, names beyond the origin, or names twice.
    pub fn parse(text: &str) -> Result<Self> {
        let file: ZoneFile = toml::from_str(text)?;
        let mut zone = Self {
            origin: key(&file.origin),
            negative_ttl: file.negative_ttl,
            names: BTreeMap::new(),
        };
        absolute(&zone.origin)?;
        for records in file.names {
            let name = records.name.clone();
            if zone.names.contains_key(&key(&name)) {
                bail!("{name} stands there twice");
            }
            zone.set(records)?;
        }
        Ok(zone)
    }

    /// Writes a zone file.
    ///
    /// # Errors
    /// Never: all of it can be written as TOML.
    pub fn write(origin: &str, names: &[NameRecords]) -> Result<String> {
        let file = ZoneFile {
            origin: origin.to_owned(),
            negative_ttl: NEGATIVE_TTL,
            names: names.to_vec(),
        };
        Ok(toml::to_string(&file)?)
    }

    /// Replaces all records of a name.
    ///
    /// # Errors
    /// It is no name, not in this zone, or one too many.
    pub fn set(&mut self, records: NameRecords) -> Result<()> {
        records.check()?;
        let name = key(&records.name);
        ensure!(self.owns(&name), "{name} is not in {}", self.origin);
        let room = self.names.len() < NAMES_MAX || self.names.contains_key(&name);
        ensure!(room, "a zone has at most {NAMES_MAX} names");
        self.names.insert(name, records);
        Ok(())
    }

    /// Takes a name out; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.names.remove(&key(name)).is_some()
    }

    /// Looks a question up.
    #[must_use]
    pub fn find(&self, name: &Name, kind: RecordType) -> Found {
        let asked = key(&name.to_ascii());
        if !self.owns(&asked) {
            return Found::NotOurs;
        }
        let Some(records) = self.records(&asked) else {
            return match self.has_below(&asked) {
                true => Found::NoData,
                false => Found::NoSuchName,
            };
        };
        match records.of(kind) {
            Ok(data) if !data.is_empty() => {
                let record = |data| Record::from_rdata(name.clone(), records.ttl, data);
                Found::Records(data.into_iter().map(record).collect())
            }
            // They were checked when they came in, so there is no failure to tell of.
            Ok(_) | Err(_) => Found::NoData,
        }
    }

    /// The SOA record that limits how long an absence may be kept (RFC 2308, section 3).
    #[must_use]
    pub fn authority(&self) -> Option<Record> {
        let origin = absolute(&self.origin).ok()?;
        let soa = SOA::new(
            origin.prepend_label("ns").ok()?,
            origin.prepend_label("hostmaster").ok()?,
            1,
            3600,
            600,
            86_400,
            self.negative_ttl,
        );
        let ttl = self.negative_ttl;
        Some(Record::from_rdata(origin, ttl, RData::SOA(soa)))
    }

    fn owns(&self, name: &str) -> bool {
        let above = name.strip_suffix(&self.origin);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// Its own records, or those of the nearest wildcard above it.
    fn records(&self, name: &str) -> Option<&NameRecords> {
        if let Some(records) = self.names.get(name) {
            return Some(records);
        }
        let mut rest = name;
        while let Some((_, above)) = rest.split_once('.') {
            if let Some(records) = self.names.get(&format!("*.{above}")) {
                return Some(records);
            }
            rest = above;
        }
        None
    }

    /// Whether names below this one have records (RFC 4592, section 2.2.2), or it is the origin.
    fn has_below(&self, name: &str) -> bool {
        let below = format!(".{name}");
        name == self.origin || self.names.keys().any(|known| known.ends_with(&below))
    }
}

/// A name as the zone knows it: in lower case, without a trailing dot.
#[must_use]
pub fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn absolute(name: &str) -> Result<Name> {
    let mut parsed = Name::from_ascii(name).with_context(|| format!("{name:?} is no name"))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = r#"
        origin = "lab.example"
        [[names]]
        name = "App.lab.example."
        ttl = 7
        a = ["10.20.0.100", "10.20.0.101"]
        [[names]]
        name = "*.wild.lab.example"
        aaaa = ["fd20::100"]
        [[names]]
        name = "_web._tcp.lab.example"
        srv = [{ priority = 1, weight = 2, port = 80, target = "app.lab.example" }]
        txt = ["hello"]
    "#;

    fn find(name: &str, kind: RecordType) -> Found {
        let zone = Zone::parse(ZONE).expect("a zone");
        zone.find(&absolute(name).expect("a name"), kind)
    }

    fn data(name: &str, kind: RecordType) -> Vec<String> {
        match find(name, kind) {
            Found::Records(records) => {
                let text = |record: &Record| format!("{} {}", record.ttl, record.data);
                records.iter().map(text).collect()
            }
            Found::NoData | Found::NoSuchName | Found::NotOurs => Vec::new(),
        }
    }

    #[test]
    fn records_are_found_whatever_the_case() {
        let found = data("APP.lab.example", RecordType::A);
        assert_eq!(found, ["7 10.20.0.100", "7 10.20.0.101"]);
        let found = data("_web._tcp.lab.example", RecordType::SRV);
        assert_eq!(found, ["30 1 2 80 app.lab.example."]);
        let found = data("_web._tcp.lab.example", RecordType::TXT);
        assert_eq!(found, ["30 hello"]);
    }

    #[test]
    fn the_three_kinds_of_nothing_are_kept_apart() {
        assert_eq!(find("app.lab.example", RecordType::AAAA), Found::NoData);
        assert_eq!(find("nope.lab.example", RecordType::A), Found::NoSuchName);
        assert_eq!(find("elsewhere.example", RecordType::A), Found::NotOurs);
        assert_eq!(find("otherlab.example", RecordType::A), Found::NotOurs);
        assert_eq!(find("_tcp.lab.example", RecordType::A), Found::NoData);
        assert_eq!(find("lab.example", RecordType::A), Found::NoData);
    }

    #[test]
    fn a_wildcard_answers_for_everything_below_but_not_for_itself_alone() {
        for name in ["a.wild.lab.example", "b.a.wild.lab.example"] {
            assert_eq!(data(name, RecordType::AAAA), ["30 fd20::100"], "{name}");
        }
        assert_eq!(find("wild.lab.example", RecordType::AAAA), Found::NoData);
    }

    #[test]
    fn records_are_replaced_as_a_whole() {
        let mut zone = Zone::parse(ZONE).expect("a zone");
        let moved = NameRecords::addresses("app.lab.example", 1, &["fd20::101".parse().unwrap()]);
        zone.set(moved).expect("set");
        let name = absolute("app.lab.example").expect("a name");
        assert_eq!(zone.find(&name, RecordType::A), Found::NoData);
        assert!(matches!(
            zone.find(&name, RecordType::AAAA),
            Found::Records(_)
        ));
        assert!(zone.remove("app.lab.example"));
        assert!(!zone.remove("app.lab.example"));
        assert_eq!(zone.find(&name, RecordType::A), Found::NoSuchName);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let records = NameRecords::addresses("a.lab.example", 3, &["10.0.0.1".parse().unwrap()]);
        let text = Zone::write("lab.example", std::slice::from_ref(&records)).expect("TOML");
        let zone = Zone::parse(&text).expect("a zone");
        assert_eq!(zone.names["a.lab.example"], records);
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, word) in [
            ("origin = 7", "origin"),
            ("origin = \"x\"\nhue = 1", "hue"),
            ("origin = \"x\"\n[[names]]\nname = \"a.y\"", "not in x"),
            (
                "origin = \"x\"\n[[names]]\nname = \"a.x\"\n[[names]]\nname = \"A.x.\"",
                "twice",
            ),
            ("origin = \"x\"\n[[names]]\nname = \"a..x\"", "is no name"),
        ] {
            let error = Zone::parse(text).expect_err("a mistake");
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
    }
}
