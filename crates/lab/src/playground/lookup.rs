//! Asking a name server from a place, one UDP query at a time.
//!
//! Refuses to be a resolver: no retries, no search, no cache. What the server said is the result.

use super::network::STUB_V4;
use super::{Playground, Role};
use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What a server said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// `NOERROR`, `NXDOMAIN`, …
    pub code: ResponseCode,
    /// The answers as a zone file writes their data.
    pub data: Vec<String>,
    /// The addresses among them.
    pub addresses: Vec<IpAddr>,
}

/// Asks `server` from a place.
///
/// # Errors
/// The name is none, no answer comes within `limit`, or it cannot be read.
pub fn ask(
    playground: &Playground,
    role: Role,
    server: SocketAddr,
    question: (&str, RecordType),
    limit: Duration,
) -> Result<Said> {
    let (name, kind) = question;
    let mut asked = Message::query();
    let mut fqdn = Name::from_ascii(name)?;
    fqdn.set_fqdn(true);
    asked.metadata.recursion_desired = true;
    asked.add_query(Query::query(fqdn, kind));
    let bytes = asked.to_vec()?;
    let answer = playground.enter(role, || {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(&bytes)?;
        let mut answer = vec![0; usize::from(u16::MAX)];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    });
    let answer = answer.with_context(|| format!("{server} does not say what {name} {kind} is"))?;
    let answer = Message::from_vec(&answer)?;
    ensure!(answer.metadata.id == asked.metadata.id, "a foreign answer");
    let data = answer.answers.iter().map(|record| &record.data);
    Ok(Said {
        code: answer.metadata.response_code,
        data: data.clone().map(ToString::to_string).collect(),
        addresses: data.filter_map(|data| data.ip_addr()).collect(),
    })
}

/// The addresses under which applications beside the client of a place reach a name, of both
/// families.
///
/// # Errors
/// Those of [`ask`].
pub fn proxies(
    playground: &Playground,
    role: Role,
    name: &str,
    limit: Duration,
) -> Result<Vec<IpAddr>> {
    let stub = (STUB_V4, 53).into();
    let mut addresses = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let said = ask(playground, role, stub, (name, kind), limit)?;
        addresses.extend(said.addresses);
    }
    Ok(addresses)
}
