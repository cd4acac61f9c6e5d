//! Reads a name server's answer to a query for addresses. Does no IO.

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use postern_core::lookups::FoundAddresses;
use postern_core::names::NameFailure;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Addresses(FoundAddresses),
    /// The name is an alias for this one, with the alias's TTL; the answer has no records of it.
    Alias(Name, Duration),
}

/// Follows the aliases (RFC 1034, section 3.6.2) from `name` to the records of `kind`. Ignores
/// records of other names.
///
/// # Errors
///
/// [`NameFailure::NoSuchName`] or [`NameFailure::NoData`]: the server denies the name or the
/// records. [`NameFailure::ServerFailure`]: the aliases form a loop.
pub(super) fn read_addresses(
    message: &Message,
    name: &Name,
    kind: RecordType,
) -> Result<Reading, NameFailure> {
    if message.metadata.response_code == ResponseCode::NXDomain {
        return Err(NameFailure::NoSuchName);
    }
    let mut owner = name;
    let mut ttl = u32::MAX;
    for _ in 0..=MAX_ALIASES {
        let records = message.answers.iter().filter(|it| it.name == *owner);
        let records: Vec<&Record> = records.collect();
        let ips: Vec<IpAddr> = records.iter().filter_map(|it| address(it, kind)).collect();
        if !ips.is_empty() {
            let ttls = records.iter().map(|it| it.ttl);
            let ttl = ttls.fold(ttl, u32::min);
            let ttl = Duration::from_secs(ttl.into());
            return Ok(Reading::Addresses(FoundAddresses { ips, ttl }));
        }
        let Some((target, alias_ttl)) = records.iter().find_map(|it| alias(it)) else {
            if owner == name || has_soa(message) {
                return Err(NameFailure::NoData);
            }
            let ttl = Duration::from_secs(ttl.into());
            return Ok(Reading::Alias(owner.clone(), ttl));
        };
        (owner, ttl) = (target, ttl.min(alias_ttl));
    }
    Err(NameFailure::ServerFailure)
}

/// Longer chains of aliases are loops or attacks.
pub(super) const MAX_ALIASES: usize = 16;

/// An alias without addresses but with the SOA of the zone is a complete negative answer (RFC 2308,
/// section 2.2).
fn has_soa(message: &Message) -> bool {
    let mut authorities = message.authorities.iter();
    authorities.any(|record| record.record_type() == RecordType::SOA)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the DNS has a hundred kinds of records, and only two hold addresses"
)]
fn address(record: &Record, kind: RecordType) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) if kind == RecordType::A => Some(ip.0.into()),
        RData::AAAA(ip) if kind == RecordType::AAAA => Some(ip.0.into()),
        _ => None,
    }
}

fn alias(record: &Record) -> Option<(&Name, u32)> {
    if let RData::CNAME(target) = &record.data {
        Some((&target.0, record.ttl))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::rdata::{CNAME, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        let ip = std::net::Ipv4Addr::new(10, 0, 0, last);
        Record::from_rdata(name(owner), ttl, RData::A(ip.into()))
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn message(answers: impl IntoIterator<Item = Record>) -> Message {
        let mut message = Message::response(0, OpCode::Query);
        message.add_answers(answers);
        message
    }

    fn read(message: &Message) -> Result<Reading, NameFailure> {
        read_addresses(message, &name("a.example."), RecordType::A)
    }

    fn addresses(last: &[u8], ttl: u64) -> Result<Reading, NameFailure> {
        let ips = last.iter().map(|last| [10, 0, 0, *last].into()).collect();
        let ttl = Duration::from_secs(ttl);
        Ok(Reading::Addresses(FoundAddresses { ips, ttl }))
    }

    #[test]
    fn addresses_get_the_shortest_ttl_of_the_chain() {
        let direct = message([a("A.Example.", 60, 1), a("a.example.", 30, 2)]);
        assert_eq!(read(&direct), addresses(&[1, 2], 30));
        let chain = [
            a("c.example.", 60, 3),
            cname("b.example.", 20, "c.example."),
            cname("a.example.", 40, "b.example."),
        ];
        assert_eq!(read(&message(chain)), addresses(&[3], 20));
    }

    #[test]
    fn gives_up_on_a_chain_that_is_too_long() {
        let owner = |number: usize| match number {
            0 => "a.example.".to_owned(),
            number => format!("a{number}.example."),
        };
        let chain = |length: usize| {
            let mut records: Vec<Record> = (0..length)
                .map(|number| cname(&owner(number), 60, &owner(number + 1)))
                .collect();
            records.push(a(&owner(length), 60, 1));
            read(&message(records))
        };
        assert_eq!(chain(MAX_ALIASES), addresses(&[1], 60));
        assert_eq!(chain(MAX_ALIASES + 1), Err(NameFailure::ServerFailure));
    }

    #[test]
    fn ignores_records_of_other_names() {
        let mut foreign = message([a("other.example.", 60, 1)]);
        assert_eq!(read(&foreign), Err(NameFailure::NoData));
        foreign.answers.push(a("a.example.", 60, 2));
        assert_eq!(read(&foreign), addresses(&[2], 60));
        let v6 = read_addresses(&foreign, &name("a.example."), RecordType::AAAA);
        assert_eq!(v6, Err(NameFailure::NoData));
    }

    #[test]
    fn returns_an_alias_that_the_answer_does_not_resolve() {
        let mut message = message([cname("a.example.", 20, "b.example.")]);
        let elsewhere = Reading::Alias(name("b.example."), Duration::from_secs(20));
        assert_eq!(read(&message), Ok(elsewhere));
        let names = [name("ns.example."), name("admin.example.")];
        let [primary, admin] = names;
        let soa = RData::SOA(SOA::new(primary, admin, 1, 1, 1, 1, 1));
        message.add_authority(Record::from_rdata(name("example."), 60, soa));
        assert_eq!(read(&message), Err(NameFailure::NoData));
    }

    #[test]
    fn detects_loops_and_missing_names() {
        let ring = [
            cname("a.example.", 20, "b.example."),
            cname("b.example.", 20, "a.example."),
        ];
        assert_eq!(read(&message(ring)), Err(NameFailure::ServerFailure));
        let mut missing = message([cname("a.example.", 20, "b.example.")]);
        missing.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(read(&missing), Err(NameFailure::NoSuchName));
    }
}
