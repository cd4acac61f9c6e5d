//! A DnsActor and a name server of thirty lines on loopback, in real time: a datagram takes what it
//! takes. Only the silent server is asked in virtual time, where patience costs nothing.

use crate::in_virtual_time;
use crate::probe::{Inbox, Probe};
use actix::prelude::*;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use postern::actors::dns::{DnsActor, Upstreams};
use postern::messages::dns::{NameFailure, NameResolution, ResolveName};
use postern::messages::supervisor::Child;
use postern::shell::{DeathNotice, tell_addr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::net::UdpSocket;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

#[test]
fn lesson_07_each_outcome_is_told_apart() {
    System::new().block_on(async {
        let socket = loopback_socket().await;
        let mut scene = Scene::new(&socket);
        actix_rt::spawn(serve(socket));
        let both: Vec<IpAddr> = vec![V4.into(), V6.into()];
        assert_eq!(scene.resolve("both.example").await, Ok(both));
        for (name, failure) in [
            ("missing.example", NameFailure::NoSuchName),
            ("empty.example", NameFailure::NoData),
            ("broken.example", NameFailure::ServerFailure),
            ("refused.example", NameFailure::ServerFailure),
        ] {
            assert_eq!(scene.resolve(name).await, Err(failure), "{name}");
        }
    });
}

#[test]
fn lesson_09_a_name_of_one_family_is_found() {
    System::new().block_on(async {
        let socket = loopback_socket().await;
        let mut scene = Scene::new(&socket);
        actix_rt::spawn(serve(socket));
        assert_eq!(scene.resolve("v4.example").await, Ok(vec![V4.into()]));
        assert_eq!(scene.resolve("v6.example").await, Ok(vec![V6.into()]));
    });
}

#[test]
fn lesson_07_a_silent_server_is_a_timeout() {
    in_virtual_time(async {
        let socket = loopback_socket().await;
        let mut scene = Scene::new(&socket);
        let outcome = scene.resolve("both.example").await;
        assert_eq!(outcome, Err(NameFailure::Timeout));
    });
}

#[test]
fn without_a_name_server_the_network_is_to_blame_and_the_actor_lives() {
    in_virtual_time(async {
        let mut scene = Scene::of(ResolverConfig::default());
        for _ in 0..2 {
            let outcome = scene.resolve("both.example").await;
            assert_eq!(outcome, Err(NameFailure::Network));
        }
    });
}

/// The actor and who asks it.
struct Scene {
    actor: Addr<DnsActor>,
    asker: Addr<Probe>,
    answers: Inbox,
}

impl Scene {
    /// Asks whoever reads from `server`.
    fn new(server: &UdpSocket) -> Self {
        let server = server.local_addr().expect("bound");
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        Self::of(ResolverConfig::from_name_servers(vec![server]))
    }

    fn of(config: ResolverConfig) -> Self {
        let (asker, answers) = Probe::start();
        let death = DeathNotice::new(Child::Dns, asker.clone().recipient());
        Self {
            actor: DnsActor::new(Upstreams::Given(config), death).start(),
            asker,
            answers,
        }
    }

    async fn resolve(&mut self, name: &str) -> Result<Vec<IpAddr>, NameFailure> {
        let question = ResolveName {
            name: name.into(),
            reply_to: self.asker.clone().recipient(),
        };
        tell_addr(&self.actor, question);
        let answer: NameResolution = self.answers.next_within(PATIENCE).await;
        assert_eq!(answer.name, name);
        answer.outcome
    }
}

async fn loopback_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await;
    socket.expect("loopback has room")
}

/// Answers what it is asked, as the first label of the name says.
async fn serve(socket: UdpSocket) {
    let mut buffer = [0; 1_232];
    loop {
        let (length, asker) = socket.recv_from(&mut buffer).await.expect("a datagram");
        let question = Message::from_vec(&buffer[..length]).expect("a question");
        let answer = answer(&question).to_vec().expect("an answer");
        socket.send_to(&answer, asker).await.expect("sent");
    }
}

fn answer(question: &Message) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    let asked = &question.queries[0];
    answer.add_query(asked.clone());
    let name = asked.name().to_string();
    let label = name.split('.').next();
    let label = label.expect("split yields one at least");
    answer.metadata.response_code = match label {
        "missing" => ResponseCode::NXDomain,
        "broken" => ResponseCode::ServFail,
        "refused" => ResponseCode::Refused,
        _ => ResponseCode::NoError,
    };
    let v4 = asked.query_type() == RecordType::A && ["both", "v4"].contains(&label);
    let v6 = asked.query_type() == RecordType::AAAA && ["both", "v6"].contains(&label);
    let v4 = v4.then(|| RData::A(V4.into()));
    let v6 = v6.then(|| RData::AAAA(V6.into()));
    for address in v4.into_iter().chain(v6) {
        answer.add_answer(Record::from_rdata(asked.name().clone(), 60, address));
    }
    answer
}

/// Longer than a resolver tries.
const PATIENCE: Duration = Duration::from_secs(60);
