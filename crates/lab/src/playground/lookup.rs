//! Queries a name server from a namespace, one UDP query at a time.
//!
//! Not a resolver: no retries, no search list, no cache. The result is the server's answer.

use super::network::STUB_V4;
use super::{Playground, Role};
use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Answer of a name server.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Response code: `NOERROR`, `NXDOMAIN`, …
    pub code: ResponseCode,
    /// Data of the answer section, as a zone file writes it.
    pub data: Vec<String>,
    /// The addresses in the answer section.
    pub addresses: Vec<IpAddr>,
}

/// Sends one query to `server` from a namespace.
pub fn ask(
    playground: &Playground,
    role: Role,
    server: SocketAddr,
    question: (&str, RecordType),
    limit: Duration,
) -> Result<Answer> {
    let (name, kind) = question;
    let mut query = Message::query();
    let mut fqdn = Name::from_ascii(name)?;
    fqdn.set_fqdn(true);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(fqdn, kind));
    let bytes = query.to_vec()?;
    let answer = playground.exchange(role, server, &bytes, limit)?;
    let answer = answer.with_context(|| format!("{server} does not say what {name} {kind} is"))?;
    let answer = Message::from_vec(&answer.0)?;
    ensure!(answer.metadata.id == query.metadata.id, "a foreign answer");
    let data = answer.answers.iter().map(|record| &record.data);
    Ok(Answer {
        code: answer.metadata.response_code,
        data: data.clone().map(ToString::to_string).collect(),
        addresses: data.filter_map(|data| data.ip_addr()).collect(),
    })
}

/// Proxy IPs under which applications beside the client in a namespace reach a name, of both
/// families.
pub fn proxies(
    playground: &Playground,
    role: Role,
    name: &str,
    limit: Duration,
) -> Result<Vec<IpAddr>> {
    let stub = (STUB_V4, 53).into();
    let mut addresses = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = ask(playground, role, stub, (name, kind), limit)?;
        addresses.extend(answer.addresses);
    }
    Ok(addresses)
}
