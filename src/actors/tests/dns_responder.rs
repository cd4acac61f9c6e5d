//! The queries of clients for SRV and TXT records, sent to a DnsActor that serves on loopback. In
//! real time, because TCP waits for the kernel.

use super::name_server::{NameServer, Scene};
use super::tell_addr;
use crate::messages::dns::ServeNames;
use actix::prelude::*;
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use postern_core::grant::TunnelAddresses;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// The gateway's addresses: on loopback, different for each test, because tests run in parallel.
fn addresses(last: u8) -> TunnelAddresses {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    TunnelAddresses {
        ipv4: Ipv4Addr::new(127, high.max(1), low, last),
        ipv6: Ipv6Addr::LOCALHOST,
    }
}

fn serve(scene: &Scene, last: u8) -> SocketAddr {
    let addresses = addresses(last);
    tell_addr(&scene.actor, ServeNames(addresses));
    SocketAddr::new(addresses.ipv4.into(), 53_535)
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    let name = Name::from_ascii(format!("{name}.")).expect("a name");
    query.add_query(Query::query(name, kind));
    query
}

/// Asks until the responder listens.
async fn over_udp(server: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("room");
    socket.connect(server).await.expect("a route");
    let mut buffer = [0; 2_048];
    for _ in 0..200 {
        let received = async {
            socket.send(bytes).await?;
            socket.recv(&mut buffer).await
        };
        let received = tokio::time::timeout(Duration::from_secs(5), received).await;
        match received.expect("an answer in time") {
            Ok(length) => return Message::from_vec(&buffer[..length]).expect("a message"),
            // Refused: the socket is not bound yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("no responder at {server}");
}

async fn code(server: SocketAddr, name: &str, kind: RecordType) -> (ResponseCode, usize) {
    let query = query(name, kind);
    let reply = over_udp(server, &query.to_vec().expect("written")).await;
    assert_eq!(reply.metadata.id, query.metadata.id);
    (reply.metadata.response_code, reply.answers.len())
}

#[test]
fn resolves_srv_and_txt_and_refuses_others() {
    System::new().block_on(async {
        let upstream = NameServer::start().await;
        let scene = Scene::new(&[&upstream]);
        let server = serve(&scene, 10);
        for (name, kind, expected) in [
            ("_sip.example", RecordType::SRV, (ResponseCode::NoError, 1)),
            ("both.example", RecordType::TXT, (ResponseCode::NoError, 1)),
            ("empty.example", RecordType::TXT, (ResponseCode::NoError, 0)),
            (
                "missing.example",
                RecordType::SRV,
                (ResponseCode::NXDomain, 0),
            ),
            (
                "broken.example",
                RecordType::TXT,
                (ResponseCode::ServFail, 0),
            ),
            ("both.example", RecordType::A, (ResponseCode::Refused, 0)),
        ] {
            assert_eq!(code(server, name, kind).await, expected, "{name} {kind}");
        }
        let kinds = |(_, kind): &(String, RecordType)| *kind;
        let asked: Vec<RecordType> = upstream.asked.borrow().iter().map(kinds).collect();
        assert!(!asked.contains(&RecordType::A));
    });
}

#[test]
fn without_a_server_queries_get_servfail() {
    System::new().block_on(async {
        let scene = Scene::new(&[]);
        let server = serve(&scene, 20);
        let expected = (ResponseCode::ServFail, 0);
        assert_eq!(
            code(server, "both.example", RecordType::TXT).await,
            expected
        );
    });
}

#[test]
fn truncates_over_udp_and_answers_in_full_over_tcp() {
    System::new().block_on(async {
        let upstream = NameServer::start().await;
        let scene = Scene::new(&[&upstream]);
        let server = serve(&scene, 30);
        let long = query("long.example", RecordType::TXT);
        let long = long.to_vec().expect("written");
        let cut = over_udp(server, &long).await;
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let mut stream = TcpStream::connect(server).await.expect("it listens");
        let length = u16::try_from(long.len()).expect("short");
        for _ in 0..2 {
            let framed = [&length.to_be_bytes(), long.as_slice()].concat();
            stream.write_all(&framed).await.expect("sent");
            let length = stream.read_u16().await.expect("an answer");
            let mut reply = vec![0; length.into()];
            stream.read_exact(&mut reply).await.expect("whole");
            let reply = Message::from_vec(&reply).expect("a message");
            assert_eq!((reply.metadata.truncation, reply.answers.len()), (false, 1));
        }
        let nonsense = [0, 2, 0xff, 0xff];
        stream.write_all(&nonsense).await.expect("sent");
        let closed = stream.read_u16().await;
        assert!(closed.is_err(), "who speaks nonsense is hung up on");
    });
}

#[test]
fn malformed_queries_get_an_error_and_end_nothing() {
    System::new().block_on(async {
        let upstream = NameServer::start().await;
        let scene = Scene::new(&[&upstream]);
        let server = serve(&scene, 40);
        let whole = query("both.example", RecordType::TXT);
        let whole = whole.to_vec().expect("written");
        let reply = over_udp(server, &whole[..whole.len() - 2]).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        let expected = (ResponseCode::NoError, 1);
        assert_eq!(
            code(server, "both.example", RecordType::TXT).await,
            expected
        );
    });
}

#[test]
fn one_source_cannot_use_the_whole_quota() {
    System::new().block_on(async {
        let upstream = NameServer::start().await;
        let scene = Scene::new(&[&upstream]);
        let server = serve(&scene, 50);
        let expected = (ResponseCode::NoError, 1);
        assert_eq!(
            code(server, "both.example", RecordType::TXT).await,
            expected
        );
        upstream.is_silent.set(true);
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let held = query("held.example", RecordType::TXT)
            .to_vec()
            .expect("written");
        for _ in 0..40 {
            socket.send_to(&held, server).await.expect("sent");
        }
        let mut buffer = [0; 512];
        let (length, _) = socket.recv_from(&mut buffer).await.expect("refused");
        let reply = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(upstream.count("held.example") <= 16);
        // Another source is served meanwhile.
        upstream.is_silent.set(false);
        let other = UdpSocket::bind("127.0.0.2:0").await.expect("room");
        let query = query("both.example", RecordType::TXT)
            .to_vec()
            .expect("written");
        other.send_to(&query, server).await.expect("sent");
        let (length, _) = other.recv_from(&mut buffer).await.expect("answered");
        let reply = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    });
}

#[test]
fn moves_to_new_addresses_and_ignores_the_same() {
    System::new().block_on(async {
        let upstream: Rc<NameServer> = NameServer::start().await;
        let scene = Scene::new(&[&upstream]);
        let first = serve(&scene, 60);
        let expected = (ResponseCode::NoError, 1);
        assert_eq!(code(first, "both.example", RecordType::TXT).await, expected);
        let mut open = TcpStream::connect(first).await.expect("it listens");
        assert_eq!(over_tcp(&mut open, "both.example").await, expected);
        assert_eq!(serve(&scene, 60), first);
        assert_eq!(code(first, "both.example", RecordType::TXT).await, expected);
        let repeated = over_tcp(&mut open, "both.example").await;
        assert_eq!(repeated, expected, "a repetition cuts no connection");
        let second = serve(&scene, 61);
        assert_eq!(
            code(second, "both.example", RecordType::TXT).await,
            expected
        );
        assert!(
            TcpStream::connect(first).await.is_err(),
            "the socket is closed"
        );
        // Back immediately, while a query over the old socket may be under way.
        upstream.is_silent.set(true);
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let held = query("held.example", RecordType::TXT);
        let held = held.to_vec().expect("written");
        socket.send_to(&held, second).await.expect("sent");
        while upstream.count("held.example") == 0 {
            tokio::task::yield_now().await;
        }
        upstream.is_silent.set(false);
        assert_eq!(serve(&scene, 60), first);
        assert_eq!(serve(&scene, 61), second);
        let later = code(second, "both.example", RecordType::TXT).await;
        assert_eq!(later, expected);
    });
}

#[test]
fn serves_only_clients() {
    System::new().block_on(async {
        let upstream = NameServer::start().await;
        let scene = Scene::with(&[&upstream], |spec| {
            spec.is_client = |ip| ip == IpAddr::from([127, 0, 0, 2]);
        });
        let server = serve(&scene, 70);
        let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let client = UdpSocket::bind("127.0.0.2:0").await.expect("room");
        let asks = |name| query(name, RecordType::TXT).to_vec().expect("written");
        let mut stream = loop {
            // Until the responder listens.
            match TcpStream::connect(server).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let _ = stream.write_all(&framed(&asks("stream.example"))).await;
        assert!(stream.read_u16().await.is_err(), "hung up on");
        let (first, second) = (asks("stranger.example"), asks("client.example"));
        stranger.send_to(&first, server).await.expect("sent");
        client.send_to(&second, server).await.expect("sent");
        let mut buffer = [0; 512];
        let (length, _) = client.recv_from(&mut buffer).await.expect("answered");
        let reply = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        let names = |name| upstream.count(name);
        let asked = ["client.example", "stranger.example", "stream.example"].map(names);
        assert_eq!(asked, [1, 0, 0]);
    });
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}

async fn over_tcp(stream: &mut TcpStream, name: &str) -> (ResponseCode, usize) {
    let query = query(name, RecordType::TXT).to_vec().expect("written");
    stream.write_all(&framed(&query)).await.expect("sent");
    let length = stream.read_u16().await.expect("an answer");
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await.expect("whole");
    let reply = Message::from_vec(&reply).expect("a message");
    (reply.metadata.response_code, reply.answers.len())
}
