//! Queries by their bytes, and over real sockets on loopback.

use super::mode::Mode;
use super::serve::{self, SharedResponder};
use super::server::{Reaction, Responder, Transport};
use super::zone::Zone;
use super::{control, zone::NameRecords};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::Instant;

const APP: &str = "app.lab.example.";

fn responder() -> Responder {
    let mut names = vec![NameRecords::addresses(
        APP,
        30,
        &["10.20.0.100".parse().unwrap()],
    )];
    let many: Vec<IpAddr> = (0..60).map(|last| [10, 9, 0, last].into()).collect();
    names.push(NameRecords::addresses("many.lab.example", 30, &many));
    let text = Zone::write("lab.example", &names).expect("TOML");
    Responder::new(Zone::parse(&text).expect("a zone"), Mode::Healthy)
}

fn query(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).expect("a name");
    message.add_query(Query::query(name, kind));
    message
}

fn a_sender() -> SocketAddr {
    "192.0.2.1:5300".parse().expect("an address")
}

fn ask(responder: &mut Responder, message: &Message, transport: Transport) -> Reaction {
    let bytes = message.to_vec().expect("bytes");
    responder.handle(&bytes, a_sender(), transport, 1000.0)
}

fn answered(verdict: Reaction) -> Message {
    let Reaction::Answer(bytes) = verdict else {
        panic!("no answer: {verdict:?}");
    };
    Message::from_vec(&bytes).expect("a message")
}

#[test]
fn an_answer_has_the_id_the_question_and_the_records() {
    let mut responder = responder();
    let message = query(77, "aPP.lab.example.", RecordType::A);
    let answer = answered(ask(&mut responder, &message, Transport::Udp));
    assert_eq!(answer.metadata.id, 77);
    assert!(answer.metadata.authoritative);
    assert_eq!(answer.queries, message.queries);
    assert_eq!(answer.answers[0].ttl, 30);
    let ip: IpAddr = [10, 20, 0, 100].into();
    assert_eq!(answer.answers[0].data.ip_addr(), Some(ip));
}

#[test]
fn an_absence_says_how_long_it_may_be_kept() {
    let mut responder = responder();
    for (name, kind, code) in [
        ("nope.lab.example.", RecordType::A, ResponseCode::NXDomain),
        (APP, RecordType::AAAA, ResponseCode::NoError),
    ] {
        let answer = answered(ask(&mut responder, &query(1, name, kind), Transport::Udp));
        assert_eq!(answer.metadata.response_code, code);
        let RData::SOA(soa) = &answer.authorities[0].data else {
            panic!("no SOA: {answer}");
        };
        assert_eq!(soa.minimum, 5);
    }
    let foreign = query(1, "example.org.", RecordType::A);
    let answer = answered(ask(&mut responder, &foreign, Transport::Udp));
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let mut responder = responder();
    let mut message = query(1, "many.lab.example.", RecordType::A);
    let cut = answered(ask(&mut responder, &message, Transport::Udp));
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = answered(ask(&mut responder, &message, Transport::Tcp));
    assert_eq!(whole.answers.len(), 60);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let whole = answered(ask(&mut responder, &message, Transport::Udp));
    assert_eq!(whole.answers.len(), 60);
    assert_eq!(whole.max_payload(), 1232);
}

#[test]
fn modes_are_for_all_names_or_for_one() {
    let mut responder = responder();
    let app = query(1, APP, RecordType::A);
    let other = query(1, "many.lab.example.", RecordType::AAAA);
    let ask = |responder: &mut Responder, message| ask(responder, message, Transport::Udp);
    responder.set_mode(None, Some(Mode::Silent)).expect("set");
    responder
        .set_mode(Some("APP.lab.example"), Some(Mode::Servfail))
        .expect("set");
    let failed = answered(ask(&mut responder, &app));
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(&mut responder, &other), Reaction::Swallow);
    responder.set_mode(Some(APP), None).expect("set");
    assert_eq!(ask(&mut responder, &app), Reaction::Swallow);
    responder.set_mode(None, Some(Mode::Refused)).expect("set");
    let refused = answered(ask(&mut responder, &app));
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    responder.set_mode(None, None).expect("set");
    assert_eq!(answered(ask(&mut responder, &app)).answers.len(), 1);
}

fn told<'a>(counts: &'a Value, name: &str) -> &'a Value {
    let questions = counts.as_array().expect("a list");
    let found = questions.iter().find(|question| question["name"] == name);
    found.expect("counted")
}

#[tokio::test(start_paused = true)]
async fn outstanding_queries_are_counted_once_for_each_sender_and_id() {
    let mut responder = responder();
    let slow = Mode::Slow(Duration::from_secs(2));
    responder.set_mode(None, Some(slow)).expect("set");
    let Reaction::Later(_, _, pending) = ask(
        &mut responder,
        &query(1, APP, RecordType::A),
        Transport::Udp,
    ) else {
        panic!("not slow");
    };
    for id in [1, 1, 2] {
        ask(
            &mut responder,
            &query(id, APP, RecordType::A),
            Transport::Udp,
        );
    }
    responder.answered(&pending);
    ask(
        &mut responder,
        &query(3, APP, RecordType::A),
        Transport::Udp,
    );
    let counts = responder.counts();
    let app = told(&counts, "app.lab.example");
    assert_eq!(app["queries"], 5);
    assert_eq!(app["type"], "A");
    assert_eq!(app["most_outstanding"], 2);
    assert_eq!(app["unix_ms"].as_array().map(Vec::len), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_swallowed_query_is_outstanding_for_a_second() {
    let mut responder = responder();
    responder.set_mode(None, Some(Mode::Silent)).expect("set");
    for id in 0..3 {
        ask(
            &mut responder,
            &query(id, APP, RecordType::A),
            Transport::Udp,
        );
        tokio::time::advance(Duration::from_millis(600)).await;
    }
    let counts = responder.counts();
    let app = told(&counts, "app.lab.example");
    assert_eq!(app["most_outstanding"], 2);
    responder.forget();
    assert_eq!(responder.counts(), json!([]));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_swallowed(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _any = responder().handle(&bytes, a_sender(), Transport::Udp, 0.0);
    }
}

/// The sockets of a server on loopback.
async fn serving() -> (SocketAddr, SocketAddr, Arc<SharedResponder>) {
    let shared = Arc::new(SharedResponder::new(responder()));
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let addresses = (udp.local_addr(), tcp.local_addr());
    tokio::spawn(serve::datagrams(udp, Arc::clone(&shared)));
    tokio::spawn(serve::connections(tcp, Arc::clone(&shared)));
    let (udp, tcp) = addresses;
    (udp.expect("an address"), tcp.expect("an address"), shared)
}

async fn command(shared: &Arc<SharedResponder>, command: Value) -> Result<Value, String> {
    control::execute(command.to_string().into_bytes(), Arc::clone(shared)).await
}

#[tokio::test]
async fn datagrams_are_answered_and_slow_ones_later() {
    let (address, _, shared) = serving().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    socket.connect(address).await.expect("connects");
    let op = json!({"op": "mode", "name": APP, "mode": "slow 100ms"});
    command(&shared, op).await.expect("set");
    let begun = Instant::now();
    for (id, name) in [(1, APP), (2, "many.lab.example.")] {
        let message = query(id, name, RecordType::AAAA);
        let bytes = message.to_vec().expect("bytes");
        socket.send(&bytes).await.expect("sent");
    }
    let mut buffer = [0; 512];
    let mut ids = Vec::new();
    for _ in 0..2 {
        let length = socket.recv(&mut buffer).await.expect("answered");
        let message = Message::from_vec(&buffer[..length]).expect("a message");
        ids.push(message.metadata.id);
    }
    assert_eq!(ids, [2, 1]);
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_connection_carries_several_queries() {
    let (_, address, shared) = serving().await;
    let records = json!({"name": "new.lab.example", "txt": ["fresh"]});
    let op = json!({"op": "set", "records": records});
    command(&shared, op).await.expect("set");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    for id in 0..2 {
        let message = query(id, "new.lab.example.", RecordType::TXT);
        let bytes = message.to_vec().expect("bytes");
        let length = u16::try_from(bytes.len()).expect("short");
        stream.write_u16(length).await.expect("sent");
        stream.write_all(&bytes).await.expect("sent");
        let length = stream.read_u16().await.expect("answered");
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.expect("answered");
        let answer = Message::from_vec(&answer).expect("a message");
        assert_eq!(answer.answers[0].data.to_string(), "fresh");
    }
}

#[tokio::test]
async fn wrong_commands_are_refused() {
    let (_, _, shared) = serving().await;
    for op in [
        json!({"op": "mode", "mode": "sulking"}),
        json!({"op": "remove", "name": "nope.lab.example"}),
        json!({"op": "set", "records": {"name": "app.elsewhere.example"}}),
        json!({"op": "set", "records": {"name": "app.lab.example", "mx": []}}),
        json!({"op": "dance"}),
    ] {
        assert!(command(&shared, op.clone()).await.is_err(), "{op}");
    }
}
