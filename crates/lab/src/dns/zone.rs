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

/// Names that a zone may have.
pub const NAMES_MAX: usize = 4096;
/// Default TTL of records, in seconds.
const TTL: u32 = 30;
/// Default TTL of negative answers, in seconds.
const NEGATIVE_TTL: u32 = 5;

/// All records of one name. The TTL is in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NameRecords {
    /// The whole name; case and a trailing dot do not matter.
    pub name: String,
    #[serde(default = "default_ttl")]
    pub ttl: u32,
    #[serde(default)]
    pub a: Vec<Ipv4Addr>,
    #[serde(default)]
    pub aaaa: Vec<Ipv6Addr>,
    /// One string for each record, at most 255 bytes.
    #[serde(default)]
    pub txt: Vec<String>,
    #[serde(default)]
    pub srv: Vec<Service>,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
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

    /// The records of one kind.
    fn of(&self, kind: RecordType) -> Result<Vec<RData>> {
        let data = if kind == RecordType::A {
            self.a.iter().map(|ip| RData::A(A(*ip))).collect()
        } else if kind == RecordType::AAAA {
            self.aaaa.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect()
        } else if kind == RecordType::TXT {
            let text = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
            self.txt.iter().map(text).collect()
        } else if kind == RecordType::SRV {
            self.srv.iter().map(Service::data).collect::<Result<_>>()?
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
        let srv = SRV::new(self.priority, self.weight, self.port, target);
        Ok(RData::SRV(srv))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ZoneFile {
    origin: String,
    #[serde(default = "default_negative_ttl")]
    negative_ttl: u32,
    #[serde(default)]
    names: Vec<NameRecords>,
}

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq)]
pub enum ZoneLookup {
    Records(Vec<Record>),
    /// The name exists without records of this kind.
    NoData,
    NoSuchName,
    OutsideZone,
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
    /// The text is no TOML, has unknown keys, names outside the origin, or a name twice.
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
    /// The name is invalid, not in this zone, or one too many.
    pub fn set(&mut self, records: NameRecords) -> Result<()> {
        records.check()?;
        let name = key(&records.name);
        ensure!(self.owns(&name), "{name} is not in {}", self.origin);
        let room = self.names.len() < NAMES_MAX || self.names.contains_key(&name);
        ensure!(room, "a zone has at most {NAMES_MAX} names");
        self.names.insert(name, records);
        Ok(())
    }

    /// Removes a name. Returns whether it existed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.names.remove(&key(name)).is_some()
    }

    /// Looks up the records of a name.
    #[must_use]
    pub fn find(&self, name: &Name, kind: RecordType) -> ZoneLookup {
        let asked = key(&name.to_ascii());
        if !self.owns(&asked) {
            return ZoneLookup::OutsideZone;
        }
        let Some(records) = self.records(&asked) else {
            return match self.has_below(&asked) {
                true => ZoneLookup::NoData,
                false => ZoneLookup::NoSuchName,
            };
        };
        match records.of(kind) {
            Ok(data) if !data.is_empty() => {
                let record = |data| Record::from_rdata(name.clone(), records.ttl, data);
                ZoneLookup::Records(data.into_iter().map(record).collect())
            }
            // `set` has checked them, so there is no failure to report.
            Ok(_) | Err(_) => ZoneLookup::NoData,
        }
    }

    /// The SOA record that limits the lifetime of negative answers (RFC 2308, 3).
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

    /// The records of the name itself, or of the nearest wildcard above it.
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

    /// Whether names below this one have records (RFC 4592, 2.2.2), or it is the origin.
    fn has_below(&self, name: &str) -> bool {
        let below = format!(".{name}");
        name == self.origin || self.names.keys().any(|known| known.ends_with(&below))
    }
}

/// The zone's form of a name: in lower case, without a trailing dot.
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

    fn find(name: &str, kind: RecordType) -> ZoneLookup {
        let zone = Zone::parse(ZONE).expect("a zone");
        zone.find(&absolute(name).expect("a name"), kind)
    }

    fn data(name: &str, kind: RecordType) -> Vec<String> {
        match find(name, kind) {
            ZoneLookup::Records(records) => {
                let text = |record: &Record| format!("{} {}", record.ttl, record.data);
                records.iter().map(text).collect()
            }
            ZoneLookup::NoData | ZoneLookup::NoSuchName | ZoneLookup::OutsideZone => Vec::new(),
        }
    }

    #[test]
    fn records_are_found_regardless_of_case() {
        let found = data("APP.lab.example", RecordType::A);
        assert_eq!(found, ["7 10.20.0.100", "7 10.20.0.101"]);
        let found = data("_web._tcp.lab.example", RecordType::SRV);
        assert_eq!(found, ["30 1 2 80 app.lab.example."]);
        let found = data("_web._tcp.lab.example", RecordType::TXT);
        assert_eq!(found, ["30 hello"]);
    }

    #[test]
    fn missing_data_missing_names_and_foreign_names_differ() {
        assert_eq!(
            find("app.lab.example", RecordType::AAAA),
            ZoneLookup::NoData
        );
        assert_eq!(
            find("nope.lab.example", RecordType::A),
            ZoneLookup::NoSuchName
        );
        assert_eq!(
            find("elsewhere.example", RecordType::A),
            ZoneLookup::OutsideZone
        );
        assert_eq!(
            find("otherlab.example", RecordType::A),
            ZoneLookup::OutsideZone
        );
        assert_eq!(find("_tcp.lab.example", RecordType::A), ZoneLookup::NoData);
        assert_eq!(find("lab.example", RecordType::A), ZoneLookup::NoData);
    }

    #[test]
    fn a_wildcard_answers_for_everything_below_but_not_for_itself_alone() {
        for name in ["a.wild.lab.example", "b.a.wild.lab.example"] {
            assert_eq!(data(name, RecordType::AAAA), ["30 fd20::100"], "{name}");
        }
        assert_eq!(
            find("wild.lab.example", RecordType::AAAA),
            ZoneLookup::NoData
        );
    }

    #[test]
    fn records_are_replaced_as_a_whole() {
        let mut zone = Zone::parse(ZONE).expect("a zone");
        let moved = NameRecords::addresses("app.lab.example", 1, &["fd20::101".parse().unwrap()]);
        zone.set(moved).expect("set");
        let name = absolute("app.lab.example").expect("a name");
        assert_eq!(zone.find(&name, RecordType::A), ZoneLookup::NoData);
        assert!(matches!(
            zone.find(&name, RecordType::AAAA),
            ZoneLookup::Records(_)
        ));
        assert!(zone.remove("app.lab.example"));
        assert!(!zone.remove("app.lab.example"));
        assert_eq!(zone.find(&name, RecordType::A), ZoneLookup::NoSuchName);
    }

    #[test]
    fn a_written_zone_is_read_again() {
        let records = NameRecords::addresses("a.lab.example", 3, &["10.0.0.1".parse().unwrap()]);
        let text = Zone::write("lab.example", std::slice::from_ref(&records)).expect("TOML");
        let zone = Zone::parse(&text).expect("a zone");
        assert_eq!(zone.names["a.lab.example"], records);
    }

    #[test]
    fn mistakes_in_the_file_are_refused() {
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
