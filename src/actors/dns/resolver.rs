//! Asks name servers until one answers or the deadline comes.
//!
//! Asks the servers of the longest suffix of the name, else the default ones. While there is no
//! answer, it sends the query again every second, to the next server in turn, and keeps waiting for
//! the earlier ones: a slow server still answers, and one that comes back is noticed within a
//! second. A server at which the query still waits is asked again on the same socket. When a server
//! fails, the next one is asked immediately.

use super::answers::{MAX_ALIASES, Reading, read_addresses};
use super::server::{Again, NameServer};
use crate::config::{DnsServer, DnsSuffix};
use crate::shell;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::PoolContext;
use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use postern_core::lookups::FoundAddresses;
use postern_core::names::{AddressFamily, DomainName, NameFailure};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Group = Rc<[Rc<NameServer>]>;

/// The names of the hosts file.
pub(super) type Hosts = BTreeMap<DomainName, Vec<IpAddr>>;

/// Shared by the lookups and the responder.
pub(super) struct Resolver {
    context: RefCell<Arc<PoolContext>>,
    servers: RefCell<Group>,
    suffixes: RefCell<BTreeMap<Name, Group>>,
    hosts: RefCell<Hosts>,
}

impl Resolver {
    /// Has no default servers yet.
    pub(super) fn new(suffixes: &[DnsSuffix], context: Arc<PoolContext>) -> Self {
        Self {
            suffixes: RefCell::new(by_suffix(suffixes, &context)),
            context: RefCell::new(context),
            servers: RefCell::new(Rc::new([])),
            hosts: RefCell::default(),
        }
    }

    /// Asks these servers from the next query on where a suffix fits; queries under way are sent to
    /// them as well. The default servers stay.
    pub(super) fn use_suffixes(&self, suffixes: &[DnsSuffix], context: Arc<PoolContext>) {
        self.suffixes.replace(by_suffix(suffixes, &context));
        self.context.replace(context);
    }

    /// Asks these servers from the next query on where no suffix fits.
    pub(super) fn use_servers(&self, servers: Vec<DnsServer>) {
        self.servers.replace(group(servers, &self.context.borrow()));
    }

    pub(super) fn use_hosts(&self, hosts: Hosts) {
        self.hosts.replace(hosts);
    }

    /// The addresses of `name`. For names in the hosts file only its addresses count, also in a
    /// family of which it has none: such a name is meant to lead there and nowhere else.
    pub(super) async fn addresses(
        &self,
        name: &DomainName,
        family: AddressFamily,
        deadline: Instant,
    ) -> Result<FoundAddresses, NameFailure> {
        if let Some(ips) = self.hosts.borrow().get(name) {
            return Ok(FoundAddresses {
                ips: ips.clone(),
                ttl: Duration::ZERO,
            });
        }
        let kind = match family {
            AddressFamily::V4 => RecordType::A,
            AddressFamily::V6 => RecordType::AAAA,
        };
        let mut name = wire_name(name).ok_or(NameFailure::NoSuchName)?;
        let mut ttl = Duration::MAX;
        for _ in 0..MAX_ALIASES {
            let query = Query::query(name.clone(), kind);
            let message = self.ask(&query, deadline).await?;
            match read_addresses(&message, &name, kind)? {
                Reading::Addresses(mut found) => {
                    found.ttl = found.ttl.min(ttl);
                    return Ok(found);
                }
                // The server knows the alias, but not its target: others may.
                Reading::Alias(target, alias_ttl) => {
                    (name, ttl) = (target, ttl.min(alias_ttl));
                }
            }
        }
        Err(NameFailure::ServerFailure)
    }

    /// Sends a query to the servers responsible for the name.
    ///
    /// # Errors
    ///
    /// `ServerFailure` as soon as all have failed and one of them reported a failure; otherwise the
    /// summary of the failures at the deadline.
    pub(super) async fn ask(
        &self,
        query: &Query,
        deadline: Instant,
    ) -> Result<Message, NameFailure> {
        let mut tries = FuturesUnordered::new();
        let mut waiting = Waiting::default();
        let mut verdict = Verdict::default();
        let mut number = 0;
        let mut patience = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let deadline = tokio::time::sleep_until(deadline.into());
        let mut deadline = std::pin::pin!(deadline);
        loop {
            let servers = self.servers_for(query.name());
            if servers.is_empty() && tries.is_empty() {
                return Err(NameFailure::Network);
            }
            tokio::select! {
                biased;
                Some(outcome) = tries.next() => match outcome {
                    Ok(message) => return Ok(message),
                    Err(failure) => {
                        verdict.add(failure);
                        if number < servers.len() {
                            patience.as_mut().reset(shell::now().into());
                        } else if tries.is_empty() && verdict.server_failed {
                            return Err(NameFailure::ServerFailure);
                        }
                    }
                },
                () = &mut deadline => return Err(verdict.at_the_end(!tries.is_empty())),
                () = &mut patience => {
                    if let Some(index) = number.checked_rem(servers.len()) {
                        let server = Rc::clone(&servers[index]);
                        if let Some(again) = waiting.again(&server) {
                            tries.push(async move { server.ask(query, &again).await });
                        }
                        number += 1;
                    }
                    patience.as_mut().reset((shell::now() + ASK_AGAIN).into());
                }
            }
        }
    }

    fn servers_for(&self, name: &Name) -> Group {
        let mut suffix = name.to_lowercase();
        while !suffix.is_root() {
            if let Some(servers) = self.suffixes.borrow().get(&suffix) {
                return Rc::clone(servers);
            }
            suffix = suffix.base_name();
        }
        Rc::clone(&self.servers.borrow())
    }
}

/// The servers to which a query was sent.
#[derive(Default)]
struct Waiting(Vec<(Rc<NameServer>, Rc<Again>)>);

impl Waiting {
    /// Repeats the query on the server's socket where it waits, or returns the state for a new try.
    fn again(&mut self, server: &Rc<NameServer>) -> Option<Rc<Again>> {
        let Self(tries) = self;
        let same = tries.iter().position(|(it, _)| Rc::ptr_eq(it, server));
        if let Some(place) = same {
            if tries[place].1.ask() {
                return None;
            }
            tries.swap_remove(place);
        }
        let again = Rc::new(Again::default());
        tries.push((Rc::clone(server), Rc::clone(&again)));
        Some(again)
    }
}

/// Summary of the failures of several servers.
#[derive(Default)]
struct Verdict {
    server_failed: bool,
    timed_out: bool,
}

impl Verdict {
    fn add(&mut self, failure: NameFailure) {
        match failure {
            NameFailure::ServerFailure => self.server_failed = true,
            NameFailure::Timeout => self.timed_out = true,
            NameFailure::Network
            | NameFailure::NoSuchName
            | NameFailure::NoData
            | NameFailure::Quota => {}
        }
    }

    fn at_the_end(&self, some_are_silent: bool) -> NameFailure {
        if self.server_failed {
            NameFailure::ServerFailure
        } else if self.timed_out || some_are_silent {
            NameFailure::Timeout
        } else {
            NameFailure::Network
        }
    }
}

fn by_suffix(suffixes: &[DnsSuffix], context: &Arc<PoolContext>) -> BTreeMap<Name, Group> {
    let mut servers: BTreeMap<Name, Vec<DnsServer>> = BTreeMap::new();
    for suffix in suffixes {
        if let Some(name) = wire_name(&suffix.domain) {
            let servers = servers.entry(name).or_default();
            servers.push(suffix.server.clone());
        }
    }
    let groups = servers.into_iter();
    groups
        .map(|(name, servers)| (name, group(servers, context)))
        .collect()
}

fn group(servers: Vec<DnsServer>, context: &Arc<PoolContext>) -> Group {
    let server = |config| Rc::new(NameServer::new(config, Arc::clone(context)));
    servers.into_iter().map(server).collect()
}

/// Fully qualified, so that no search domain is appended.
fn wire_name(name: &DomainName) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

/// A query without an answer is repeated after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
