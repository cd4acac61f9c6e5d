//! A name server of a few lines on loopback, and a DnsActor that asks it.

use super::probe::{Inbox, Probe};
use super::tell_addr;
use crate::actors::dns::{DnsActor, DnsReports, DnsSpec, Upstreams};
use crate::config::DnsConfig;
use crate::messages::dns::{NameAnswered, ResolveName};
use crate::messages::supervisor::{Child, InstanceId};
use crate::reload;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, NS, SRV, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use postern_core::ids::ClientId;
use postern_core::names::{AddressFamily, NameFailure};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use uuid::Uuid;

/// Serves the zone of [`answer`] over UDP, in a settable mode.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    /// Last byte of the IPv4 addresses in its answers.
    pub(crate) last: u8,
    /// All queries received.
    pub(crate) asked: RefCell<Vec<(String, RecordType)>>,
    /// Receives queries and does not answer.
    pub(crate) is_silent: Cell<bool>,
    /// Delay of each answer.
    pub(crate) delay: Cell<Duration>,
    /// Marks its answers as truncated.
    pub(crate) truncates: Cell<bool>,
    /// An attacker answers first; it can forge the server's address but does not see the queries.
    pub(crate) is_forged: Cell<bool>,
    /// Answers another query than the one received.
    pub(crate) misquotes: Cell<bool>,
    /// Does not support EDNS.
    pub(crate) is_old: Cell<bool>,
    /// Source addresses of the queries.
    pub(crate) sources: RefCell<BTreeSet<SocketAddr>>,
}

impl NameServer {
    pub(crate) async fn start() -> Rc<Self> {
        Self::start_at("127.0.0.1:0", 1).await
    }

    pub(crate) async fn start_at(address: &str, last: u8) -> Rc<Self> {
        let socket = UdpSocket::bind(address).await.expect("loopback has room");
        let server = Rc::new(Self {
            address: socket.local_addr().expect("bound"),
            last,
            asked: RefCell::default(),
            is_silent: Cell::new(false),
            delay: Cell::default(),
            truncates: Cell::new(false),
            is_forged: Cell::new(false),
            misquotes: Cell::new(false),
            is_old: Cell::new(false),
            sources: RefCell::default(),
        });
        actix_rt::spawn(Rc::clone(&server).serve(Rc::new(socket)));
        server
    }

    async fn serve(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut buffer = [0; 1_232];
        loop {
            let received = socket.recv_from(&mut buffer).await;
            let (length, asker) = received.expect("a datagram");
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            self.sources.borrow_mut().insert(asker);
            let mut answer = self.answer(&question);
            if self.truncates.get() {
                answer = answer.truncate();
            }
            if self.is_silent.get() {
                continue;
            }
            let mut datagrams = match self.is_forged.get() {
                true => forgeries(&question, &answer),
                false => Vec::new(),
            };
            datagrams.push(answer.to_vec().expect("an answer"));
            let (socket, delay) = (Rc::clone(&socket), self.delay.get());
            actix_rt::spawn(async move {
                tokio::time::sleep(delay).await;
                for datagram in datagrams {
                    socket.send_to(&datagram, asker).await.expect("sent");
                }
            });
        }
    }

    /// The first label of the name selects the answer.
    pub(crate) fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        let asked = &question.queries[0];
        let (name, kind) = (asked.name().to_string(), asked.query_type());
        self.asked.borrow_mut().push((name.clone(), kind));
        answer.add_query(asked.clone());
        if self.misquotes.get() {
            answer.queries[0].set_name(Name::from_ascii("other.example.").expect("a name"));
        }
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = match label(&name) {
            "missing" => ResponseCode::NXDomain,
            "broken" => ResponseCode::ServFail,
            "refused" => ResponseCode::Refused,
            _ if self.is_old.get() && question.edns.is_some() => ResponseCode::FormErr,
            _ => ResponseCode::NoError,
        };
        if answer.metadata.response_code == ResponseCode::NoError {
            let data = self.data(label(&name), kind);
            let record = |data| Record::from_rdata(asked.name().clone(), 60, data);
            answer.add_answers(data.into_iter().map(record));
        }
        if label(&name) == "elsewhere" {
            let server = Name::from_ascii("ns.example.").expect("a name");
            let data = RData::NS(NS(server));
            answer.metadata.recursion_available = false;
            answer.add_authority(Record::from_rdata(asked.name().clone(), 60, data));
        }
        answer
    }

    fn data(&self, label: &str, kind: RecordType) -> Vec<RData> {
        let target = Name::from_ascii("both.corp.example.").expect("a name");
        match (label, kind) {
            ("empty" | "elsewhere", _) | ("v4", RecordType::AAAA) | ("v6", RecordType::A) => {
                Vec::new()
            }
            ("alias", _) => vec![RData::CNAME(CNAME(target))],
            (_, RecordType::A) => vec![RData::A(v4(self.last).into())],
            (_, RecordType::AAAA) => vec![RData::AAAA(V6.into())],
            (_, RecordType::SRV) => vec![RData::SRV(SRV::new(1, 2, 5_060, target))],
            ("long", RecordType::TXT) => vec![RData::TXT(TXT::new(vec!["x".repeat(250); 3]))],
            (_, RecordType::TXT) => vec![RData::TXT(TXT::new(vec!["a text".to_owned()]))],
            _ => Vec::new(),
        }
    }

    /// Number of queries for `name`.
    pub(crate) fn count(&self, name: &str) -> usize {
        let asked = self.asked.borrow();
        asked
            .iter()
            .filter(|(it, _)| *it == format!("{name}."))
            .count()
    }

    /// The server's address as a configuration value.
    pub(crate) fn url(&self) -> String {
        self.address.to_string()
    }
}

/// Datagrams that must not count as `answer`: a wrong id, whole and cut, a wrong query, the query
/// itself, and garbage.
fn forgeries(question: &Message, answer: &Message) -> Vec<Vec<u8>> {
    let id = answer.metadata.id;
    let mut other_id = answer.clone();
    other_id.metadata.id = id.wrapping_add(1);
    other_id.metadata.response_code = ResponseCode::NXDomain;
    let mut cut = other_id.clone();
    cut.metadata.truncation = true;
    let mut other_question = answer.clone();
    other_question.metadata.response_code = ResponseCode::NXDomain;
    other_question.queries[0].set_name(Name::from_ascii("other.example.").expect("a name"));
    let messages = [&other_id, &cut, &other_question, question];
    let mut forgeries: Vec<Vec<u8>> = messages.map(|it| it.to_vec().expect("written")).into();
    forgeries.extend([vec![], vec![0xff], vec![0xff; 40]]);
    forgeries
}

fn label(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

pub(crate) fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

pub(crate) const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

pub(crate) fn config() -> DnsConfig {
    DnsConfig::default()
}

/// The result for one family.
pub(crate) type Outcome = Result<Vec<IpAddr>, NameFailure>;

/// The actor and its asker.
pub(crate) struct Scene {
    pub(crate) actor: Addr<DnsActor>,
    asker: Addr<Probe>,
    pub(crate) answers: Inbox,
}

impl Scene {
    pub(crate) fn new(servers: &[&Rc<NameServer>]) -> Self {
        Self::with(servers, |_| {})
    }

    /// As [`Self::new`], with a changed spec.
    pub(crate) fn with(servers: &[&Rc<NameServer>], change: impl FnOnce(&mut DnsSpec)) -> Self {
        let urls = servers.iter().map(|server| server.url());
        let servers = urls.map(|url| url.parse().expect("a server")).collect();
        Self::configured(&config(), |spec| {
            spec.upstreams = Upstreams::Given(servers);
            change(spec);
        })
    }

    /// From a configuration, with a changed spec.
    pub(crate) fn configured(config: &DnsConfig, change: impl FnOnce(&mut DnsSpec)) -> Self {
        let (asker, answers) = Probe::start();
        let death = DeathNotice::new(Child::Dns, InstanceId(1), asker.clone().recipient());
        let trust = reload::trust(config.ca_file.as_deref()).expect("a good file, or none");
        let reports = DnsReports {
            metrics: Arc::default(),
            news: asker.clone().recipient(),
        };
        let mut spec = DnsSpec::new(config, trust, reports, death);
        // Probing would disturb the counts of queries.
        spec.probes = false;
        spec.hosts = NO_FILE.into();
        assert!(!(spec.is_client)([127, 0, 0, 1].into()));
        assert!((spec.is_client)([100, 64, 0, 1].into()));
        spec.is_client = |ip| ip.is_loopback();
        change(&mut spec);
        Self {
            actor: DnsActor::new(spec).start(),
            asker,
            answers,
        }
    }

    pub(crate) fn ask(&self, name: &str, client: u8, refresh: bool) {
        let question = ResolveName {
            name: name.parse().expect("a name"),
            client: ClientId(Uuid::from_u128(client.into())),
            refresh,
            reply_to: Some(self.asker.clone().recipient()),
        };
        tell_addr(&self.actor, question);
    }

    /// The results for A and AAAA.
    pub(crate) async fn resolve(&mut self, name: &str) -> (Outcome, Outcome) {
        self.ask(name, 1, false);
        self.both(name).await
    }

    pub(crate) async fn refresh(&mut self, name: &str) -> (Outcome, Outcome) {
        self.ask(name, 1, true);
        self.both(name).await
    }

    /// The next two answers, which must be about `name`.
    pub(crate) async fn both(&mut self, name: &str) -> (Outcome, Outcome) {
        let (mut v4, mut v6) = (None, None);
        while v4.is_none() || v6.is_none() {
            let NameAnswered(answer) = self.answers.next_within(PATIENCE).await;
            assert_eq!(answer.name.as_str(), name);
            let slot = match answer.family {
                AddressFamily::V4 => &mut v4,
                AddressFamily::V6 => &mut v6,
            };
            let twice = slot.replace(answer.outcome.map(|found| found.ips));
            assert_eq!(twice, None, "answered twice");
        }
        v4.zip(v6).expect("both are there")
    }
}

const NO_FILE: &str = "there/is/no/such/file";
/// Longer than a lookup may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
