//! The whole program in its own network namespace, against a portal and a gateway of the test.

use super::super::addresses::{DNS_PORT, STUB_IPV6};
use super::super::tests::{
    GatewayCommand, GatewayHandle, PSK, TestGateway, client_credentials, gateway_credentials,
    gateway_public_key,
};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use hickory_proto::op::{Message as DnsMessage, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

const GATEWAY: &str = "1ce2a32f-d76d-5f7a-b9df-9378f352718d";
const WEB4: &str = "a9c07f0a-68ed-564a-973d-c8624ca2b19a";
const WEB6: &str = "b9c07f0a-68ed-564a-973d-c8624ca2b19b";
const NAMES: &str = "c9c07f0a-68ed-564a-973d-c8624ca2b19c";

/// Runs `test` in a fresh network namespace, which the test's own thread enters alone. Without the
/// privilege the test passes without a check.
fn in_namespace(test: impl AsyncFnOnce()) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
    for command in [
        "link set lo up",
        "link add underlay type veth peer name other",
        "addr add 192.0.2.1/24 dev underlay",
        "link set underlay up",
        "link set other up",
    ] {
        assert!(ip(command).0, "ip {command}");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let deadline = Duration::from_secs(60);
            tokio::time::timeout(deadline, test())
                .await
                .expect("in time");
        });
}

fn ip(arguments: &str) -> (bool, String) {
    let output = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

struct TestPortal {
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
    client_key: [u8; 32],
}

impl TestPortal {
    async fn bind() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("binds"),
            socket: None,
            client_key: [0; 32],
        }
    }

    async fn accept(&mut self) {
        let (stream, _) = self.listener.accept().await.expect("accepts");
        let mut request = [0; 1024];
        let len = stream.peek(&mut request).await.expect("a request");
        let request = String::from_utf8_lossy(&request[..len]).into_owned();
        let line = request.lines().next().expect("a request line");
        let path = line.split(' ').nth(1).expect("a path");
        let url = Url::parse(&format!("ws://portal{path}")).expect("a URL");
        let (_, key) = url
            .query_pairs()
            .find(|(name, _)| name == "public_key")
            .expect("a key");
        let key = STANDARD.decode(key.as_bytes()).expect("base64");
        self.client_key = key.try_into().expect("32 bytes");
        self.socket = Some(accept_async(stream).await.expect("upgrades"));
        assert_eq!(self.receive("phx_join").await, Value::Null);
        let joined = json!({"status": "ok", "response": {}});
        let reply = json!({"topic": "client", "event": "phx_reply", "ref": 0, "payload": joined});
        self.send(reply).await;
        let cidr = |id: &str, address: &str| {
            let sites: [&str; 0] = [];
            json!({"type": "cidr", "id": id, "name": id, "address": address, "sites": sites})
        };
        self.push(
            "init",
            json!({
                "interface": {"ipv4": "100.64.1.2", "ipv6": "fd00:2021:1111::102"},
                "resources": [
                    cidr(WEB4, "10.20.0.0/24"),
                    cidr(WEB6, "2001:db8:20::/64"),
                    {"type": "dns", "id": NAMES, "name": NAMES, "address": "*.lab.example",
                     "sites": []},
                ],
                "relays": [],
            }),
        )
        .await;
    }

    async fn send(&mut self, frame: Value) {
        let socket = self.socket.as_mut().expect("accepted");
        socket
            .send(Message::text(frame.to_string()))
            .await
            .expect("sends");
    }

    async fn push(&mut self, event: &str, payload: Value) {
        self.send(json!({"topic": "client", "event": event, "payload": payload, "ref": null}))
            .await;
    }

    /// The payload of the next `event`; skips others.
    async fn receive(&mut self, event: &str) -> Value {
        let socket = self.socket.as_mut().expect("accepted");
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), socket.next());
            let message = next.await.expect("in time").expect("open");
            let Message::Text(text) = message.expect("a message") else {
                continue;
            };
            let frame: Value = serde_json::from_str(text.as_str()).expect("JSON");
            if frame["event"] == event {
                return frame["payload"].clone();
            }
        }
    }

    async fn expect_request(&mut self, resource: &str, connected: &[&str]) {
        let request = self.receive("request_authorization").await;
        assert_eq!(
            request,
            json!({"resource_id": resource, "connected_gateway_ids": connected})
        );
    }

    async fn grant(&mut self, resource: &str, gateway: &GatewayHandle) {
        self.push(
            "authorization_created",
            json!({
                "resource_id": resource,
                "gateway_id": GATEWAY,
                "gateway_public_key": gateway_public_key(),
                "gateway_ipv4": "100.64.0.1",
                "gateway_ipv6": "fd00:2021:1111::1",
                "site_id": WEB4,
                "preshared_key": PSK,
                "client_ice_credentials": client_credentials(),
                "gateway_ice_credentials": gateway_credentials(),
                "use_iceless": false,
            }),
        )
        .await;
        self.push(
            "ice_candidates",
            json!({"gateway_id": GATEWAY, "candidates": [gateway.candidate]}),
        )
        .await;
    }

    async fn carry_candidates(&mut self, gateway: &GatewayHandle) {
        let signalled = self.receive("new_gateway_ice_candidates").await;
        assert_eq!(signalled["gateway_id"], GATEWAY);
        let candidates = signalled["candidates"].as_array().expect("a list");
        for candidate in candidates {
            let text = candidate.as_str().expect("a string").to_owned();
            // Neither the tunnel nor loopback.
            assert!(text.contains(" 192.0.2.1 "), "{text}");
            gateway
                .commands
                .send(GatewayCommand::Candidate(text))
                .expect("runs");
        }
    }
}

/// An application: sends a datagram and waits for its mirror image, once a second.
async fn echo(socket: &UdpSocket, to: &str) {
    let mut buffer = [0; 64];
    for _ in 0..10 {
        socket.send_to(b"hello", to).await.expect("a route");
        let answer = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut buffer));
        if let Ok(answer) = answer.await {
            let (len, from) = answer.expect("received");
            assert_eq!(&buffer[..len], b"hello");
            assert_eq!(from, to.parse().expect("an address"));
            return;
        }
    }
    panic!("no echo from {to}");
}

/// Binds an application's socket as soon as the interface has its address.
async fn application(own: &str) -> UdpSocket {
    let bound = async {
        loop {
            if let Ok(socket) = UdpSocket::bind((own, 0)).await {
                return socket;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), bound)
        .await
        .expect("an address on the interface")
}

struct Setup {
    portal: TestPortal,
    client: tokio::task::JoinHandle<anyhow::Result<()>>,
    timeline: PathBuf,
    _dir: tempfile::TempDir,
}

async fn start() -> Setup {
    let portal = TestPortal::bind().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (config, timeline) = (dir.path().join("client.toml"), dir.path().join("timeline"));
    let addr = portal.listener.local_addr().expect("bound");
    let text = format!("[portal]\nurl = \"ws://{addr}\"\ntoken = \"t\"\nname = \"alice\"\n");
    std::fs::write(&config, text).expect("written");
    let args = Args {
        config,
        timeline: Some(timeline.clone()),
        control: None,
        portal_url: None,
        interface: Some("ptest0".into()),
    };
    Setup {
        portal,
        client: tokio::spawn(run(args)),
        timeline,
        _dir: dir,
    }
}

async fn stop(client: tokio::task::JoinHandle<anyhow::Result<()>>) {
    let signal = nix::sys::signal::Signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::getpid(), signal).expect("may");
    let stopped = tokio::time::timeout(Duration::from_secs(5), client).await;
    stopped
        .expect("in time")
        .expect("no panic")
        .expect("no error");
}

#[test]
fn carries_both_families_through_one_gateway_and_leaves_nothing_behind() {
    in_namespace(async || {
        let Setup {
            mut portal,
            client,
            timeline,
            _dir,
        } = start().await;
        portal.accept().await;
        let capabilities = portal.receive("set_snownet_capabilities").await;
        assert_eq!(capabilities, json!({"iceless": false}));
        let mut gateway = TestGateway::start("192.0.2.1", portal.client_key).await;

        let (app4, app6) = (
            application("100.64.1.2").await,
            application("fd00:2021:1111::102").await,
        );
        let (_, ()) = tokio::join!(echo(&app4, "10.20.0.10:7"), async {
            portal.expect_request(WEB4, &[]).await;
            portal.grant(WEB4, &gateway).await;
            portal.carry_candidates(&gateway).await;
        });
        // A second resource through the same gateway needs the portal but no new connection.
        let (_, ()) = tokio::join!(echo(&app6, "[2001:db8:20::a]:7"), async {
            portal.expect_request(WEB6, &[GATEWAY]).await;
            portal.grant(WEB6, &gateway).await;
        });

        // The tunnel works without the portal, and after its return.
        portal.socket = None;
        echo(&app4, "10.20.0.10:7").await;
        portal.accept().await;
        echo(&app4, "10.20.0.10:7").await;

        // Marked sockets bypass the tunnel.
        let mark = format!(
            "route get 10.20.0.10 mark {}",
            super::super::tunnel::SOCKET_MARK
        );
        assert!(!ip(&mark).1.contains("ptest0"));
        assert!(ip("route get 10.20.0.10").1.contains("ptest0"));

        while gateway.heard.try_recv().is_ok() {}
        stop(client).await;
        let goodbye = gateway.heard.recv().await.expect("a packet");
        assert!(super::super::control::parse(&goodbye).is_some());
        assert!(!ip("link show dev ptest0").0);
        for family in ["-4", "-6"] {
            assert!(!ip(&format!("{family} rule")).1.contains("fwmark"));
        }
        assert_eq!(
            milestones(&timeline),
            [
                "joined",
                "authorization_requested",
                "authorization_created",
                "path_nominated",
                "handshake_completed",
                "first_packet_received",
                "authorization_requested",
                "authorization_created",
                "joined",
                "goodbye"
            ]
        );
    });
}

/// Queries the client's DNS server, like a host with it in `resolv.conf`.
async fn lookup(server: &str, name: &str, kind: RecordType) -> DnsMessage {
    let mut query = DnsMessage::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).expect("a name");
    query.add_query(Query::query(name, kind));
    let socket = UdpSocket::bind(if server.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    });
    let socket = socket.await.expect("binds");
    socket.connect(server).await.expect("an address");
    let query = query.to_vec().expect("writable");
    socket.send(&query).await.expect("a route");
    let mut buffer = [0; 512];
    let answer = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    let len = answer.await.expect("in time").expect("an answer");
    DnsMessage::from_vec(&buffer[..len]).expect("readable")
}

/// Waits for the stub, which listens after the client created the interface.
async fn stub_is_up() {
    let up = async {
        while UdpSocket::bind((STUB_IPV6, 0)).await.is_err()
            || tokio::net::TcpStream::connect((STUB_IPV6, DNS_PORT))
                .await
                .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), up)
        .await
        .expect("the stub's addresses");
}

#[test]
fn answers_announces_and_carries_names_also_without_a_portal() {
    in_namespace(async || {
        let Setup {
            mut portal,
            client,
            timeline,
            _dir,
        } = start().await;
        // The client has not joined the portal.
        stub_is_up().await;
        let answer = lookup("100.100.111.1:53", "app.lab.example.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);

        portal.accept().await;
        portal.receive("set_snownet_capabilities").await;
        let mut gateway = TestGateway::start("192.0.2.1", portal.client_key).await;
        let (app4, app6) = (
            application("100.64.1.2").await,
            application("fd00:2021:1111::102").await,
        );
        let answer = lookup("100.100.111.1:53", "app.lab.example.", RecordType::A).await;
        assert_eq!(answer.answers[0].data.to_string(), "100.96.0.1");
        let (_, ()) = tokio::join!(echo(&app4, "100.96.0.1:7"), async {
            portal.expect_request(NAMES, &[]).await;
            portal.grant(NAMES, &gateway).await;
            portal.carry_candidates(&gateway).await;
        });
        let first = gateway.heard.recv().await.expect("a packet");
        assert_eq!(first[40], 0, "the name is announced before anything else");

        // The other family needs neither portal nor announcement: it works without the portal.
        portal.socket = None;
        let resolver = format!("[{}]:53", STUB_IPV6);
        let answer = lookup(&resolver, "app.lab.example.", RecordType::AAAA).await;
        assert_eq!(answer.answers[2].data.to_string(), "fd00:2021:1111:8000::2");
        echo(&app6, "[fd00:2021:1111:8000::2]:7").await;

        portal.accept().await;
        stop(client).await;
        let seen = milestones(&timeline);
        let mut names: Vec<&str> = seen.iter().map(String::as_str).collect();
        names.retain(|name| name.starts_with("name_"));
        // A slow machine announces twice.
        names.dedup();
        assert_eq!(
            names,
            [
                "name_asked",
                "name_announced",
                "name_active",
                "name_asked",
                "name_announced",
                "name_active"
            ]
        );
    });
}

#[test]
fn the_next_packet_after_a_goodbye_of_the_gateway_requests_access() {
    in_namespace(async || {
        let Setup {
            mut portal,
            client,
            _dir,
            ..
        } = start().await;
        portal.accept().await;
        let gateway = TestGateway::start("192.0.2.1", portal.client_key).await;
        let app = application("100.64.1.2").await;
        let (_, ()) = tokio::join!(echo(&app, "10.20.0.10:7"), async {
            portal.expect_request(WEB4, &[]).await;
            portal.grant(WEB4, &gateway).await;
            portal.carry_candidates(&gateway).await;
        });
        gateway
            .commands
            .send(GatewayCommand::Goodbye)
            .expect("runs");
        // The restarted gateway has the same keys in this test, like one that kept its state.
        let restarted = TestGateway::start("192.0.2.1", portal.client_key).await;
        let (_, ()) = tokio::join!(echo(&app, "10.20.0.10:7"), async {
            portal.expect_request(WEB4, &[]).await;
            portal.grant(WEB4, &restarted).await;
            portal.carry_candidates(&restarted).await;
        });
        stop(client).await;
    });
}

#[test]
fn reports_a_taken_interface_name_in_one_line() {
    in_namespace(async || {
        assert!(ip("link add ptest0 type veth peer name taken").0);
        let Setup { client, _dir, .. } = start().await;
        let error = client.await.expect("no panic").expect_err("refused");
        let line = format!("{error:#}");
        assert!(
            line.contains("ptest0") && line.contains("tunnel.interface"),
            "{line}"
        );
    });
}

fn milestones(timeline: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(timeline).expect("written");
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["milestone"].as_str().expect("a name").to_owned()
        })
        .collect()
}
