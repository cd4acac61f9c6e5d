//! The stub over loopback, with a router behind it and servers of the test beside it.

use super::super::SharedRouter;
use super::super::wire::{GatewayId, Interface, Resource, ResourceId, ResourceKind};
use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::mpsc;
use uuid::Uuid;

const APP: &str = "App.lab.example.";

fn resource() -> ResourceId {
    ResourceId(Uuid::from_u128(1))
}

/// A stub on loopback, and what stands behind it.
struct Setup {
    routes: SharedRouter,
    stub: Stub,
    asked: mpsc::Receiver<Asked>,
}

async fn start(upstream: &[SocketAddr], gateway_port: u16) -> Setup {
    let routes = SharedRouter::default();
    routes.lock().replace_resources(vec![Resource {
        id: resource(),
        name: "lab".into(),
        kind: ResourceKind::Dns("*.lab.example".into()),
        filters: Vec::new(),
    }]);
    let (events, asked) = mpsc::channel(16);
    let resolver = Resolver::new(routes.clone(), upstream.to_vec(), events);
    let resolver = Arc::new(resolver.with_gateway_port(gateway_port));
    // The TCP port that the kernel picks may be somebody's UDP port.
    let stub = loop {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        if let Ok(stub) = Stub::start(any, Arc::clone(&resolver)).await {
            break stub;
        }
    };
    Setup {
        routes,
        stub,
        asked,
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
    let answer = exchange::exchange(query, stub.address(), Transport::Udp).await;
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
            // The answer to another question is no answer.
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
async fn names_of_resources_are_proxy_ips_for_a_second() {
    let Setup {
        stub, mut asked, ..
    } = start(&[], 1).await;
    let answer = ask(&stub, APP, RecordType::A).await;
    assert_eq!(answer.metadata.id, 0x1234);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let expected = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"];
    assert_eq!(records(&answer), expected);
    for record in &answer.answers {
        assert_eq!(record.ttl, 1);
        // As it was asked, so that resolvers that check the case are content.
        assert_eq!(record.name.to_ascii(), APP);
    }
    let answer = ask(&stub, APP, RecordType::AAAA).await;
    assert_eq!(records(&answer)[3], "fd00:2021:1111:8000::3");
    for kind in ["A", "AAAA"] {
        let name = "app.lab.example".to_owned();
        assert_eq!(asked.recv().await, Some(Asked::Answered { name, kind }));
    }
}

#[tokio::test]
async fn several_questions_go_over_one_tcp_connection() {
    let Setup { stub, .. } = start(&[], 1).await;
    let mut stream = TcpStream::connect(stub.address()).await.expect("connects");
    for name in [APP, "other.lab.example."] {
        let query = bytes(&question(name, RecordType::A));
        write_message(&mut stream, &query).await.expect("writes");
        let answer = read_message(&mut stream).await.expect("reads");
        let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
        assert_eq!(answer.answers.len(), 4);
    }
}

#[tokio::test]
async fn other_types_of_a_resources_names_do_not_exist() {
    let Setup { stub, .. } = start(&[server("upstream").await], 1).await;
    for kind in [RecordType::HTTPS, RecordType::MX, RecordType::ANY] {
        let answer = ask(&stub, APP, kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_proxy_ip_has_its_name_back() {
    let Setup { stub, .. } = start(&[], 1).await;
    ask(&stub, APP, RecordType::A).await;
    let answer = ask(&stub, "2.0.96.100.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(records(&answer), ["app.lab.example."]);
    let answer = ask(&stub, "9.0.96.100.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn foreign_names_are_refused_or_asked_of_the_first_server_that_answers() {
    let Setup { stub, .. } = start(&[], 1).await;
    let answer = ask(&stub, "example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    // Nobody listens on the first one: the kernel says so at once.
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let upstream = [dead.local_addr().expect("bound"), server("upstream").await];
    drop(dead);
    let Setup { stub, .. } = start(&upstream, 1).await;
    let answer = ask(&stub, "example.com.", RecordType::TXT).await;
    assert_eq!(records(&answer), ["upstream"]);
    let query = bytes(&question("example.com.", RecordType::TXT));
    let answer = exchange::exchange(&query, stub.address(), Transport::Tcp).await;
    let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
    assert_eq!(records(&answer), ["upstream"]);
}

#[tokio::test]
async fn srv_and_txt_wait_for_a_grant_and_are_asked_at_the_site() {
    let site = server("site").await;
    let Setup {
        routes,
        stub,
        mut asked,
    } = start(&[server("upstream").await], site.port()).await;
    let (answer, ()) = tokio::join!(ask(&stub, APP, RecordType::TXT), async {
        assert_eq!(asked.recv().await, Some(Asked::Access(resource())));
        let gateway = Interface {
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
async fn without_a_gateway_the_site_does_not_answer() {
    let Setup { routes, asked, .. } = start(&[], 1).await;
    drop(asked);
    tokio::time::pause();
    let (events, _asked) = mpsc::channel(16);
    let resolver = Resolver::new(routes, Vec::new(), events);
    let query = bytes(&question(APP, RecordType::TXT));
    let answer = resolver.answer(&query, Transport::Udp).await;
    let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn strange_questions_get_the_code_that_they_deserve() {
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
    // A dot within a label is not the dot between labels.
    let odd = question(r"app.lab\.example.", RecordType::A);
    assert_eq!(code(&bytes(&odd)).await, ResponseCode::Refused);
}

#[tokio::test]
async fn answers_are_not_answered_and_extensions_are_acknowledged() {
    let Setup { routes, .. } = start(&[], 1).await;
    let (events, _asked) = mpsc::channel(16);
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
