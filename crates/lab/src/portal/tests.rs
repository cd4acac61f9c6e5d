//! The whole portal on loopback, driven by bare websockets.

use super::*;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const GATEWAY_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI%3D";
const CLIENT_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE%3D";

const CONFIG: &str = r#"
listen = ["127.0.0.1:0"]
[[relays]]
addr = ["127.0.0.1:3478"]
secret_file = "relay.secret"
[[sites]]
name = "lab"
[[gateways]]
name = "gw"
token = "gw-token"
site = "lab"
ipv4 = "100.64.0.1"
ipv6 = "fd00:2021:1111::1"
[[clients]]
name = "alice"
token = "alice-token"
ipv4 = "100.64.1.2"
ipv6 = "fd00:2021:1111::102"
[[resources]]
name = "web"
type = "cidr"
address = "10.20.0.0/24"
site = "lab"
[[policies]]
client = "alice"
resource = "web"
"#;

/// A running portal in a directory of its own.
struct Running {
    directory: tempfile::TempDir,
    address: SocketAddr,
    server: Arc<PortalServer>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("portal.toml"), CONFIG).expect("written");
        Self::start(directory)
    }

    fn start(directory: tempfile::TempDir) -> Self {
        let args = Args {
            config: directory.path().join("portal.toml"),
            control: Some(directory.path().join("control.sock")),
        };
        let portal = Portal::start(&args).expect("starts");
        let (stop, stopped) = oneshot::channel();
        let server = Arc::clone(&portal.server);
        let address = portal.addresses[0];
        let task = tokio::spawn(async move {
            tokio::select! {
                ended = portal.serve() => panic!("ended: {ended:?}"),
                _ = stopped => portal.stop().await,
            }
        });
        Self {
            directory,
            address,
            server,
            stop,
            task,
        }
    }

    /// As if killed: saves and sends nothing more.
    async fn kill(self) -> tempfile::TempDir {
        self.task.abort();
        let _ = self.task.await;
        self.server.stopping.send_replace(true);
        self.directory
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.directory.path().join("portal.toml"), text).expect("written");
    }

    async fn command(&self, command: Value) -> Value {
        let path = self.directory.path().join("control.sock");
        let mut stream = UnixStream::connect(path).await.expect("connects");
        let line = format!("{command}\n");
        stream.write_all(line.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut answer).await.expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    async fn connect(&self, path: &str, token: &str, key: &str) -> Result<Peer, WsError> {
        let uri = format!("ws://{}{path}?name=x&public_key={key}", self.address);
        let mut request = uri.into_client_request().expect("a request");
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
        request.headers_mut().insert("x-authorization", bearer);
        let agent = HeaderValue::from_static("Debian/12 gateway/1.6.1");
        request.headers_mut().insert("user-agent", agent);
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let topic = if path.starts_with("/gateway") {
            "gateway"
        } else {
            "client"
        };
        Ok(Peer {
            socket,
            topic,
            reference: 0,
        })
    }

    /// Connected, joined and initiated.
    async fn joined(&self, path: &str, token: &str, key: &str) -> (Peer, Value) {
        let mut peer = self.connect(path, token, key).await.expect("admitted");
        peer.say("phx_join", Value::Null).await;
        let expected = json!({"status": "ok", "response": {}});
        assert_eq!(peer.hear("phx_reply").await, expected);
        let init = peer.hear("init").await;
        (peer, init)
    }

    async fn gateway(&self) -> (Peer, Value) {
        self.joined("/gateway/v2/websocket", "gw-token", GATEWAY_KEY)
            .await
    }

    async fn alice(&self) -> (Peer, Value) {
        self.joined("/client/v2/websocket", "alice-token", CLIENT_KEY)
            .await
    }
}

struct Peer {
    socket: WebSocketStream<TcpStream>,
    topic: &'static str,
    reference: u64,
}

impl Peer {
    async fn say(&mut self, event: &str, payload: Value) {
        let frame = json!({
            "topic": self.topic, "event": event, "payload": payload, "ref": self.reference,
        });
        self.reference += 1;
        let frame = Message::text(frame.to_string());
        self.socket.send(frame).await.expect("sent");
    }

    async fn next(&mut self) -> Value {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("no frame: {other:?}"),
        }
    }

    /// The payload of the next frame, which is this event.
    async fn hear(&mut self, event: &str) -> Value {
        let mut frame = self.next().await;
        assert_eq!(frame["event"], event, "{frame}");
        frame["payload"].take()
    }

    async fn request(&mut self) {
        let resource = derive::uuid_of("resource", "web");
        let payload = json!({"resource_id": resource, "connected_gateway_ids": []});
        self.say("request_authorization", payload).await;
    }
}

/// A grant from the request to the messages to both ends.
async fn grant(alice: &mut Peer, gateway: &mut Peer) -> (Value, Value) {
    alice.request().await;
    let request = gateway.hear("create_authorization").await;
    let ack = json!({"ref": request["ref"]});
    gateway.say("authorization_created", ack).await;
    gateway.hear("phx_reply").await;
    (request, alice.hear("authorization_created").await)
}

#[tokio::test]
async fn a_client_and_a_gateway_are_brought_together() {
    let portal = Running::new();
    let (mut gateway, init) = portal.gateway().await;
    assert_eq!(init["interface"]["ipv4"], "100.64.0.1");
    let (mut alice, init) = portal.alice().await;
    assert_eq!(init["resources"][0]["address"], "10.20.0.0/24");
    let (request, granted) = grant(&mut alice, &mut gateway).await;
    assert_eq!(granted["preshared_key"], request["client"]["preshared_key"]);

    let candidates = json!(["candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host"]);
    let to_alice = json!({"client_ids": [request["client"]["id"]], "candidates": candidates});
    gateway.say("broadcast_ice_candidates", to_alice).await;
    assert_eq!(alice.hear("ice_candidates").await["candidates"], candidates);
    let to_gateway = json!({"gateway_id": granted["gateway_id"], "candidates": candidates});
    alice.say("new_gateway_ice_candidates", to_gateway).await;
    let heard = gateway.hear("ice_candidates").await;
    assert_eq!(heard["client_id"], request["client"]["id"]);
}

#[tokio::test]
async fn refused_upgrades_say_why_in_a_problem_document() {
    let portal = Running::new();
    let refused = portal
        .connect("/gateway/v2/websocket", "wrong", GATEWAY_KEY)
        .await;
    let Err(WsError::Http(response)) = refused.map(|_| ()) else {
        panic!("not refused");
    };
    assert_eq!(response.status(), 401);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body: Value =
        serde_json::from_slice(response.body().as_deref().unwrap_or_default()).expect("JSON");
    assert_eq!(body["code"], "invalid_token");
}

#[tokio::test]
async fn hostile_input_costs_nothing_but_a_line_in_the_log() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    for frame in [
        Message::text("{"),
        Message::text("[]"),
        Message::binary(vec![0, 159]),
        Message::text(r#"{"topic":"gateway","event":"broadcast_ice_candidates"}"#),
    ] {
        gateway.socket.send(frame).await.expect("sent");
    }
    gateway.say("no_such_event", json!({})).await;
    let refusal = gateway.hear("phx_reply").await;
    assert_eq!(refusal["response"]["reason"], "invalid_payload");
    let refusal = gateway.hear("phx_reply").await;
    assert_eq!(refusal["response"]["reason"], "unknown_message");

    let mut stream = TcpStream::connect(portal.address).await.expect("connects");
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("written");
    let (mut alice, _) = portal.alice().await;
    grant(&mut alice, &mut gateway).await;
}

#[tokio::test]
async fn a_changed_file_is_followed_and_a_bad_one_is_not() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    let (mut alice, _) = portal.alice().await;
    grant(&mut alice, &mut gateway).await;
    portal.configure(&CONFIG.replace("site = \"lab\"", "sight = \"lab\""));
    // The portal reads the file at least twice in this virtual time.
    tokio::time::pause();
    let mut ticks = tokio::time::interval(RELOAD_EVERY);
    for _ in 0..4 {
        ticks.tick().await;
    }
    tokio::time::resume();
    assert_eq!(
        portal.command(json!({"op": "peers"})).await["peers"][1]["name"],
        "alice"
    );
    portal.configure(&CONFIG[..CONFIG.find("[[policies]]").expect("there")]);
    gateway.hear("reject_access").await;
    let deleted = alice.hear("resource_deleted").await;
    assert_eq!(deleted, json!(derive::uuid_of("resource", "web")));
}

#[tokio::test]
async fn grants_and_keys_survive_the_death_of_the_portal() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    let (mut alice, _) = portal.alice().await;
    let (before, _) = grant(&mut alice, &mut gateway).await;
    // The answer follows the saving of the grant: both happen on this thread, in this order.
    portal.command(json!({"op": "grants"})).await;
    let directory = portal.kill().await;

    let portal = Running::start(directory);
    let (mut gateway, init) = portal.gateway().await;
    let listed = init["authorizations"].as_array().expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["client_id"], before["client"]["id"]);
    let (mut alice, _) = portal.alice().await;
    let (after, _) = grant(&mut alice, &mut gateway).await;
    assert_eq!(after["client"], before["client"], "the same keys");
    assert_ne!(after["ref"], before["ref"]);
}

#[tokio::test]
async fn the_control_socket_measures_and_interferes() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    let answering = tokio::spawn(async move {
        for _ in 0..20 {
            let request = gateway.hear("create_authorization").await;
            let ack = json!({"ref": request["ref"]});
            gateway.say("authorization_created", ack).await;
            let rejected = gateway.hear("reject_access").await;
            assert_eq!(rejected["client_id"], request["client"]["id"]);
            gateway.hear("phx_reply").await;
        }
        gateway
    });
    let load = json!({"op": "authorize", "resource": "web", "count": 20});
    let measured = portal.command(load).await;
    assert_eq!(measured["ok"], true, "{measured}");
    let micros = measured["micros"].as_array().expect("a list");
    assert_eq!(micros.len(), 20);
    assert!(micros.iter().all(|it| it.as_u64().is_some_and(|it| it > 0)));
    let mut gateway = answering.await.expect("answered");
    let times = portal.command(json!({"op": "ack_times"})).await;
    assert_eq!(times["ack_times"].as_array().map(Vec::len), Some(20));

    let text = json!({"op": "push_text", "peer": "gw", "text": "{\"event\":\"x\"}"});
    assert_eq!(portal.command(text).await, json!({"ok": true}));
    assert_eq!(gateway.next().await, json!({"event": "x"}));
    let wrong = portal.command(json!({"op": "explode"})).await;
    assert_eq!(wrong["ok"], false);
    let wrong = portal
        .command(json!({"op": "close", "peer": "nobody"}))
        .await;
    assert_eq!(wrong["error"], "nobody named \"nobody\" is connected");
    let closed = portal.command(json!({"op": "close", "peer": "gw"})).await;
    assert_eq!(closed["ok"], true);
    let end = gateway.socket.next().await;
    assert!(matches!(end, Some(Ok(Message::Close(Some(_))))), "{end:?}");
}

#[tokio::test]
async fn a_stopping_portal_says_so_and_leaves_nothing_behind() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    portal.stop.send(()).expect("running");
    let end = gateway.socket.next().await;
    let Some(Ok(Message::Close(Some(close)))) = end else {
        panic!("no close: {end:?}");
    };
    assert_eq!(close.code, CloseCode::Away);
    portal.task.await.expect("stopped");
    assert!(!portal.directory.path().join("control.sock").exists());
    assert!(TcpStream::connect(portal.address).await.is_err());
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_37_seconds() {
    let portal = Running::new();
    let (mut gateway, _) = portal.gateway().await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let end = gateway.socket.next().await;
    assert!(matches!(end, Some(Ok(Message::Close(Some(_))))), "{end:?}");
    let waited = start.elapsed();
    assert!(
        waited >= server::IDLE_TIMEOUT - Duration::from_secs(1),
        "{waited:?}"
    );
    assert!(
        waited <= server::IDLE_TIMEOUT + Duration::from_secs(1),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_wrong_configuration_names_the_file_and_the_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("portal.toml");
    std::fs::write(&config, "listen = [\"127.0.0.1:0\"]\nlisten_on = 1\n").expect("written");
    let args = Args {
        config,
        control: None,
    };
    let error = Portal::start(&args).err().expect("refused").to_string();
    assert!(
        error.contains("portal.toml:2:1: unknown field `listen_on`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_taken_port_and_a_taken_control_socket_are_named() {
    let portal = Running::new();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("portal.toml");
    let taken = CONFIG.replace("127.0.0.1:0", &portal.address.to_string());
    std::fs::write(&config, taken).expect("written");
    let args = Args {
        config,
        control: Some(portal.directory.path().join("control.sock")),
    };
    let error = Portal::start(&args).err().expect("refused").to_string();
    assert!(error.contains("another process answers on"), "{error}");
    let args = Args {
        control: None,
        ..args
    };
    let error = Portal::start(&args).err().expect("refused").to_string();
    assert!(error.contains("cannot listen on"), "{error}");
}
