//! The stub over loopback, with a router and with DNS servers of the test.

use super::super::data_plane::SharedRouter;
use super::super::vocabulary::{GatewayId, ResourceId, TunnelAddresses};
use super::super::wire::{Resource, ResourceKind};
use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::sync::mpsc;
use uuid::Uuid;

const APP: &str = "App.lab.example.";

fn resource() -> ResourceId {
    ResourceId(Uuid::from_u128(1))
}

/// A stub on loopback with its router and its events.
struct Setup {
    routes: SharedRouter,
    stub: Stub,
    stub_events: mpsc::Receiver<StubEvent>,
}

async fn start(upstream: &[SocketAddr], gateway_port: u16) -> Setup {
    let routes = SharedRouter::default();
    routes.lock().replace_resources(vec![Resource {
        id: resource(),
        kind: ResourceKind::Dns("*.lab.example".into()),
        filters: Vec::new(),
    }]);
    let (events, stub_events) = mpsc::channel(16);
    let mut resolver = Resolver::new(routes.clone(), upstream.to_vec(), events);
    resolver.gateway_port = gateway_port;
    let resolver = Arc::new(resolver);
    // Another program may use the UDP port with the number of the chosen TCP port.
    let stub = loop {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        if let Ok(stub) = Stub::start(any, Arc::clone(&resolver)).await {
            break stub;
        }
    };
    Setup {
        routes,
        stub,
        stub_events,
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect("a name");
    message.add_query(Query::query(name, kind));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("writable")
}

async fn ask_bytes(stub: &Stub, query: &[u8]) -> Message {
    let answer = exchange::exchange(query, stub.address, Transport::Udp).await;
    Message::from_vec(&answer.expect("an answer")).expect("readable")
}

async fn ask(stub: &Stub, name: &str, kind: RecordType) -> Message {
    ask_bytes(stub, &bytes(&question(name, kind))).await
}

fn records(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

/// A DNS server that answers everything with one TXT record, over both transports.
async fn server(text: &'static str) -> SocketAddr {
    let (listener, socket) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        if let Ok(socket) = UdpSocket::bind(address).await {
            break (listener, socket);
        }
    };
    let address = listener.local_addr().expect("bound");
    let answer = move |query: &[u8]| {
        let query = Message::from_vec(query).expect("a query");
        let name = query.queries[0].name().clone();
        let mut answer = query.into_response();
        let data = RData::TXT(TXT::new(vec![text.to_owned()]));
        answer.add_answer(Record::from_rdata(name, 60, data));
        bytes(&answer)
    };
    tokio::spawn(async move {
        let mut buffer = [0; MESSAGE_BYTES];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            // The client must skip the answer to another query.
            let mut stray = answer(&buffer[..len]);
            stray[0] ^= 1;
            for datagram in [stray, answer(&buffer[..len])] {
                socket.send_to(&datagram, from).await.expect("sends");
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let query = read_message(&mut stream).await.expect("reads");
            let answer = answer(&query.expect("a query"));
            write_message(&mut stream, &answer).await.expect("writes");
        }
    });
    address
}

#[tokio::test]
async fn answers_names_of_resources_with_proxy_ips_for_a_second() {
    let Setup {
        stub,
        mut stub_events,
        ..
    } = start(&[], 1).await;
    let answer = ask(&stub, APP, RecordType::A).await;
    assert_eq!(answer.metadata.id, 0x1234);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let expected = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"];
    assert_eq!(records(&answer), expected);
    for record in &answer.answers {
        assert_eq!(record.ttl, 1);
        // In the case of the query, as resolvers that check it require.
        assert_eq!(record.name.to_ascii(), APP);
    }
    let answer = ask(&stub, APP, RecordType::AAAA).await;
    assert_eq!(records(&answer)[3], "fd00:2021:1111:8000::3");
    for kind in ["A", "AAAA"] {
        let name = "app.lab.example".to_owned();
        let expected = StubEvent::Answered { name, kind };
        assert_eq!(stub_events.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn answers_several_queries_on_one_tcp_connection() {
    let Setup { stub, .. } = start(&[], 1).await;
    let mut stream = TcpStream::connect(stub.address).await.expect("connects");
    for name in [APP, "other.lab.example."] {
        let query = bytes(&question(name, RecordType::A));
        write_message(&mut stream, &query).await.expect("writes");
        let answer = read_message(&mut stream).await.expect("reads");
        let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
        assert_eq!(answer.answers.len(), 4);
    }
}

#[tokio::test]
async fn answers_other_types_of_a_resources_name_without_records() {
    let Setup { stub, .. } = start(&[server("upstream").await], 1).await;
    for kind in [RecordType::HTTPS, RecordType::MX, RecordType::ANY] {
        let answer = ask(&stub, APP, kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn answers_ptr_of_a_proxy_ip_with_its_name() {
    let Setup { stub, .. } = start(&[], 1).await;
    ask(&stub, APP, RecordType::A).await;
    let answer = ask(&stub, "2.0.96.100.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(records(&answer), ["app.lab.example."]);
    let answer = ask(&stub, "9.0.96.100.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn refuses_foreign_names_or_forwards_them_to_the_first_server_that_answers() {
    let Setup { stub, .. } = start(&[], 1).await;
    let answer = ask(&stub, "example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    // No socket listens on the first one: the kernel reports it at once.
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let upstream = [dead.local_addr().expect("bound"), server("upstream").await];
    drop(dead);
    let Setup { stub, .. } = start(&upstream, 1).await;
    let answer = ask(&stub, "example.com.", RecordType::TXT).await;
    assert_eq!(records(&answer), ["upstream"]);
    let query = bytes(&question("example.com.", RecordType::TXT));
    let answer = exchange::exchange(&query, stub.address, Transport::Tcp).await;
    let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
    assert_eq!(records(&answer), ["upstream"]);
}

#[tokio::test]
async fn srv_and_txt_wait_for_a_grant_and_go_to_the_site() {
    let site = server("site").await;
    let Setup {
        routes,
        stub,
        mut stub_events,
    } = start(&[server("upstream").await], site.port()).await;
    let (answer, ()) = tokio::join!(ask(&stub, APP, RecordType::TXT), async {
        let expected = StubEvent::AccessWanted(resource());
        assert_eq!(stub_events.recv().await, Some(expected));
        let gateway = TunnelAddresses {
            ipv4: Ipv4Addr::LOCALHOST,
            ipv6: Ipv6Addr::LOCALHOST,
        };
        let granted =
            routes
                .lock()
                .handle_granted(resource(), GatewayId(Uuid::from_u128(9)), gateway);
        assert!(granted.is_some());
        routes.granted.notify_waiters();
    });
    assert_eq!(records(&answer), ["site"]);
    let answer = ask(&stub, "_sip._tcp.lab.example.", RecordType::SRV).await;
    assert_eq!(records(&answer), ["upstream"], "matches no resource");
    let answer = ask(&stub, "sip.lab.example.", RecordType::SRV).await;
    assert_eq!(records(&answer), ["site"]);
}

#[tokio::test]
async fn answers_servfail_without_a_gateway_for_the_site() {
    let Setup {
        routes,
        stub_events,
        ..
    } = start(&[], 1).await;
    drop(stub_events);
    tokio::time::pause();
    let (events, _stub_events) = mpsc::channel(16);
    let resolver = Resolver::new(routes, Vec::new(), events);
    let query = bytes(&question(APP, RecordType::TXT));
    let answer = resolver.answer(&query, Transport::Udp).await;
    let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn answers_unusual_queries_with_the_matching_error_code() {
    let Setup { stub, .. } = start(&[], 1).await;
    let code = async |query: &[u8]| ask_bytes(&stub, query).await.metadata.response_code;
    let mut update = question(APP, RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&bytes(&update)).await, ResponseCode::NotImp);
    let mut two = question(APP, RecordType::A);
    two.add_queries(question(APP, RecordType::AAAA).queries);
    assert_eq!(code(&bytes(&two)).await, ResponseCode::FormErr);
    let mut cut = bytes(&question(APP, RecordType::A));
    cut.truncate(cut.len() - 3);
    assert_eq!(code(&cut).await, ResponseCode::FormErr);
    let mut chaos = bytes(&question(APP, RecordType::A));
    *chaos.last_mut().expect("a class") = 3;
    assert_eq!(code(&chaos).await, ResponseCode::Refused);
    // A dot within a label differs from the dot between labels.
    let odd = question(r"app.lab\.example.", RecordType::A);
    assert_eq!(code(&bytes(&odd)).await, ResponseCode::Refused);
}

#[tokio::test]
async fn ignores_responses_and_acknowledges_extensions() {
    let Setup { routes, .. } = start(&[], 1).await;
    let (events, _stub_events) = mpsc::channel(16);
    let resolver = Resolver::new(routes, Vec::new(), events);
    let mut query = question(APP, RecordType::A);
    query.set_edns(Edns::new());
    let answer = resolver.answer(&bytes(&query), Transport::Udp).await;
    let answer = answer.expect("an answer");
    let read = Message::from_vec(&answer).expect("readable");
    assert!(read.edns.is_some());
    assert_eq!(resolver.answer(&answer, Transport::Udp).await, None);
    assert_eq!(
        resolver.answer(&[0, 1, 0x80, 0], Transport::Udp).await,
        None
    );
    assert_eq!(resolver.answer(b"x", Transport::Udp).await, None);
}
