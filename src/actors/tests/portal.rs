//! The PortalActor against a portal of ten lines on loopback: wiring only, the protocol has its own
//! tests in the core.

use crate::actors::portal::{PortalActor, PortalSpec};
use crate::messages::portal::PortalCommand;
use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId, PortalNews};
use crate::metrics::Metrics;
use crate::post::FOR_SUPERVISOR;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use postern_core::command::ClientCommand;
use postern_core::grant::{AccessRequest, AuthorizationRequest};
use postern_core::health::PortalState;
use postern_core::ids::{ClientId, PublicKey};
use postern_core::portal::{
    GenerationChoice, IceSecret, PortalConfig, PortalLimits, PortalUrl, Token,
};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

const CLIENT: &str = "11111111-1111-4111-8111-111111111111";

#[actix::test]
async fn joins_and_acknowledges_before_candidates_go_out() {
    let mut scene = Scene::new().await;
    let (mut socket, request) = scene.portal.accept().await;
    assert!(request.uri().path().ends_with("/gateway/v2/websocket"));
    assert_eq!(request.headers()["host"], "127.0.0.1");
    assert_eq!(request.headers()["x-authorization"], "Bearer gwtok");
    let agent = request.headers()["user-agent"].to_str().unwrap();
    assert_eq!(agent, "Linux/6.18.0 gateway/1.6.1 (x86_64; 6.18.0)");

    join(&mut socket, 0).await;
    assert_eq!(read(&mut socket).await["event"], "set_snownet_capabilities");
    write(&mut socket, "init", init()).await;
    let Seen::Initialized(init) = scene.seen().await else {
        panic!("init comes first");
    };
    assert_eq!(init.tunnel.ipv4.to_string(), "100.64.0.1");

    write(&mut socket, "create_authorization", grant("ref-1")).await;
    let Seen::Opened(opened) = scene.seen().await else {
        panic!("a grant follows");
    };
    scene.accept_with_candidates(&opened);
    let ack = read(&mut socket).await;
    assert_eq!(
        ack,
        json!({"topic":"gateway","event":"authorization_created","payload":{"ref":"ref-1"},"ref":2})
    );
    let candidates = read(&mut socket).await;
    assert_eq!(candidates["event"], "broadcast_ice_candidates");
    assert_eq!(candidates["payload"]["client_ids"], json!([CLIENT]));
    assert_eq!(candidates["ref"], 3);
}

#[actix::test]
async fn each_push_reaches_the_supervisor_in_order() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    let access = json!({"client_id": CLIENT, "resource_id": CLIENT, "expires_at": 5});
    let candidates = json!({"client_id": CLIENT, "candidates": ["candidate:1"]});
    for (event, payload) in [
        ("ice_candidates", candidates.clone()),
        ("invalidate_ice_candidates", candidates),
        ("resource_updated", json!({"type":"internet","id":CLIENT})),
        ("access_authorization_expiry_updated", access.clone()),
        ("reject_access", access),
        (
            "relays_presence",
            json!({"disconnected_ids":["a"],"connected":[]}),
        ),
    ] {
        write(&mut socket, event, payload).await;
    }
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(scene.seen().await.name());
    }
    assert_eq!(
        names,
        ["added", "removed", "updated", "expiry", "revoked", "relays"]
    );
}

#[actix::test]
async fn reopens_a_dropped_websocket_and_keeps_candidates() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    write(&mut socket, "create_authorization", grant("old")).await;
    let Seen::Opened(opened) = scene.seen().await else {
        panic!("a grant");
    };
    drop(socket);

    let (mut socket, _) = scene.portal.accept().await;
    scene.accept_with_candidates(&opened);
    join(&mut socket, 0).await;
    assert_eq!(read(&mut socket).await["event"], "set_snownet_capabilities");
    let next = read(&mut socket).await;
    assert_eq!(
        next["event"], "broadcast_ice_candidates",
        "the acknowledgement belonged to the other socket"
    );
}

/// docs/lessons.md 31: reports about the gateway's health are true.
#[actix::test]
async fn reports_the_portal_s_state() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    assert_eq!(scene.state().await, PortalState::Joined);
    assert_eq!(scene.counted(), [1, 0, 0]);
    drop(socket);
    assert_eq!(scene.state().await, PortalState::Away);
    assert_eq!(scene.counted(), [0, 0, 1]);
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    assert_eq!(scene.state().await, PortalState::Joined);
    assert_eq!(scene.counted(), [1, 1, 1]);
}

#[actix::test]
async fn echoes_a_close_frame_and_reconnects() {
    let scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    socket.send(Frame::Close(None)).await.unwrap();
    let mut echoed = false;
    while let Some(Ok(frame)) = within(socket.next()).await {
        echoed |= matches!(frame, Frame::Close(_));
    }
    assert!(echoed);
    scene.portal.accept().await;
}

#[actix::test]
async fn reports_a_401_with_the_remedy() {
    let mut scene = Scene::new().await;
    let body = r#"{"type":"about:blank","status":401,"code":"invalid_token"}"#;
    scene.portal.refuse(401, body).await;
    let Seen::Refused(reason) = scene.seen().await else {
        panic!("refused");
    };
    assert!(reason.contains("invalid_token"), "{reason}");
    assert!(reason.contains("create a new gateway token"), "{reason}");
    assert!(!reason.contains("gwtok"));
}

#[actix::test]
async fn falls_back_to_v1() {
    let mut scene = Scene::new().await;
    scene.portal.refuse(404, "").await;
    let (mut socket, request) = scene.portal.accept().await;
    assert!(request.uri().path().ends_with("/gateway/websocket"));
    join(&mut socket, 0).await;
    write(&mut socket, "authorize_flow", grant("ref-1")).await;
    let Seen::Opened(opened) = scene.seen().await else {
        panic!("a grant");
    };
    scene.accept_with_candidates(&opened);
    assert_eq!(read(&mut socket).await["event"], "flow_authorized");
}

/// docs/lessons.md 1: an acknowledgement goes out before anything else.
#[actix::test]
async fn answers_generation_0_immediately_and_before_candidates() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    assert_eq!(read(&mut socket).await["event"], "set_snownet_capabilities");
    write(&mut socket, "request_connection", request("ref-1")).await;
    let Seen::Opened(opened) = scene.seen().await else {
        panic!("a grant");
    };
    scene.accept_with_candidates(&opened);
    let ready = read(&mut socket).await;
    assert_eq!(ready["event"], "connection_ready");
    assert_eq!(ready["payload"]["ref"], "ref-1");
    assert_eq!(read(&mut socket).await["event"], "broadcast_ice_candidates");

    let access = json!({"ref": "ref-2", "client_id": CLIENT, "payload": "app.corp.example",
        "resource": {"type": "internet", "id": CLIENT}});
    write(&mut socket, "allow_access", access).await;
    let Seen::Allowed(allowed) = scene.seen().await else {
        panic!("an access");
    };
    let reply_ref = allowed.reply_ref;
    scene.actor.try_send(accepted(reply_ref)).unwrap();
    let ready = read(&mut socket).await;
    assert_eq!(ready["payload"]["ref"], "ref-2");
}

#[actix::test]
async fn leaving_closes_with_1000_and_stops_the_actor() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    assert_eq!(read(&mut socket).await["event"], "set_snownet_capabilities");
    within(scene.actor.send(PortalCommand::Leave))
        .await
        .unwrap();
    let Some(Ok(Frame::Close(Some(close)))) = within(socket.next()).await else {
        panic!("a close frame");
    };
    assert_eq!(close.code, CloseCode::Normal);
    assert!(matches!(
        scene.seen().await,
        Seen::Died(ChildDied {
            child: Child::Portal,
            instance: InstanceId(3),
            cause: DeathCause::Stopped,
        })
    ));
}

#[actix::test]
async fn malformed_frames_do_not_close_the_connection() {
    let mut scene = Scene::new().await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    for text in [
        "",
        "{",
        "null",
        "[]",
        r#"{"topic":1}"#,
        r#"{"topic":"gateway","event":"?"}"#,
    ] {
        socket.send(Frame::text(text)).await.unwrap();
    }
    socket.send(Frame::binary(vec![0u8, 255])).await.unwrap();
    write(&mut socket, "create_authorization", json!({"ref": 7})).await;
    write(&mut socket, "create_authorization", grant("ref-1")).await;
    assert!(matches!(scene.seen().await, Seen::Opened(_)));
}

/// Portal → supervisor: news waits, and beyond the limit the actor asks for a fresh `init`.
#[actix::test]
async fn joins_again_if_the_supervisor_does_not_keep_up() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let (states, mut states_heard) = mpsc::unbounded_channel();
    let mut full = Context::<Supervisor>::new();
    full.set_mailbox_capacity(1);
    let news: Recipient<PortalNews> = full.address().recipient();
    let mut scene = Scene::reporting_to(Some(news)).await;
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    let candidates = json!({"client_id": CLIENT, "candidates": ["candidate:1"]});
    for _ in 0..FOR_SUPERVISOR + 10 {
        write(&mut socket, "ice_candidates", candidates.clone()).await;
    }
    let (mut socket, _) = scene.portal.accept().await;
    join(&mut socket, 0).await;
    write(&mut socket, "init", init()).await;
    write(&mut socket, "create_authorization", grant("ref-1")).await;
    assert_eq!(read(&mut socket).await["event"], "set_snownet_capabilities");

    full.run(Supervisor { told, states });
    let mut names = Vec::new();
    while names.last() != Some(&"opened") {
        names.push(within(heard.recv()).await.expect("it runs").name());
    }
    assert!(names.len() < 10, "{names:?}");
    assert_eq!(names[names.len() - 2..], ["initialized", "opened"]);
    let mut last = None;
    while let Ok(state) = states_heard.try_recv() {
        last = Some(state);
    }
    assert_eq!(last, Some(PortalState::Joined));
    assert!(scene.inbox.try_recv().is_err(), "the actor lives");
}

fn accepted(reply_ref: String) -> PortalCommand {
    PortalCommand::Acknowledge { reply_ref }
}

// The scene.

/// A PortalActor, its supervisor and its portal.
struct Scene {
    portal: Portal,
    actor: Addr<PortalActor>,
    inbox: mpsc::UnboundedReceiver<Seen>,
    metrics: Arc<Metrics>,
    states: mpsc::UnboundedReceiver<PortalState>,
}

impl Scene {
    async fn new() -> Self {
        Self::reporting_to(None).await
    }

    /// With another receiver of its news.
    async fn reporting_to(news: Option<Recipient<PortalNews>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (told, inbox) = mpsc::unbounded_channel();
        let (states, told_states) = mpsc::unbounded_channel();
        let supervisor = Supervisor { told, states }.start();
        let metrics = Arc::new(Metrics::default());
        let actor = PortalActor::new(PortalSpec {
            config: config(&url),
            seed: [7; 32],
            news: news.unwrap_or_else(|| supervisor.clone().recipient()),
            metrics: Arc::clone(&metrics),
            death: DeathNotice::new(Child::Portal, InstanceId(3), supervisor.recipient()),
        });
        Self {
            portal: Portal { listener },
            actor: actor.start(),
            inbox,
            metrics,
            states: told_states,
        }
    }

    async fn state(&mut self) -> PortalState {
        within(self.states.recv())
            .await
            .expect("the supervisor runs")
    }

    /// Whether it is joined, the number of joins after the first, and the number of failures.
    fn counted(&self) -> [u64; 3] {
        let page = self.metrics.page();
        ["joined", "reconnects_total", "failures_total"].map(|what| {
            let name = format!("postern_portal_{what} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&name));
            line.and_then(|value| value.parse().ok()).unwrap()
        })
    }

    async fn seen(&mut self) -> Seen {
        within(self.inbox.recv())
            .await
            .expect("the supervisor runs")
    }

    /// Acknowledges a grant, as a ConnectionActor does.
    fn accept_with_candidates(&self, request: &AuthorizationRequest) {
        let reply_ref = request.reply_ref.clone();
        self.actor.try_send(accepted(reply_ref)).unwrap();
        let candidates = vec!["candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host".to_owned()];
        let client: ClientId = request.client.id;
        self.actor
            .try_send(PortalCommand::SignalCandidates { client, candidates })
            .unwrap();
    }
}

fn config(url: &str) -> PortalConfig {
    PortalConfig {
        url: PortalUrl::parse(url).unwrap(),
        token: Token::new("gwtok").unwrap(),
        id: "gw-1".into(),
        name: "lab-gw".into(),
        public_key: PublicKey([2; 32]),
        ice_secret: IceSecret::new([5; 32]),
        generation: GenerationChoice::Auto,
        kernel: "6.18.0".into(),
        arch: "x86_64".into(),
        max_outage: Duration::from_secs(24 * 3_600),
        backoff: postern_core::backoff::BackoffConfig::default(),
        limits: PortalLimits::default(),
    }
}

type Socket = WebSocketStream<TcpStream>;

struct Portal {
    listener: TcpListener,
}

impl Portal {
    /// Accepts the gateway's websocket and returns its request.
    async fn accept(&self) -> (Socket, Request) {
        let (tcp, _) = within(self.listener.accept()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut asked = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, response: Response| {
            asked = Some(request.clone());
            Ok(response)
        };
        let socket = within(accept_hdr_async(tcp, callback)).await.unwrap();
        (socket, asked.expect("the callback ran"))
    }

    async fn refuse(&self, status: u16, body: &str) {
        let (tcp, _) = within(self.listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |_: &Request, _: Response| {
            let mut refusal = ErrorResponse::new(Some(body.to_owned()));
            *refusal.status_mut() = status.try_into().unwrap();
            Err(refusal)
        };
        assert!(within(accept_hdr_async(tcp, callback)).await.is_err());
    }
}

async fn read(socket: &mut Socket) -> Value {
    loop {
        let frame = within(socket.next())
            .await
            .expect("an open socket")
            .unwrap();
        if let Frame::Text(text) = frame {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn write(socket: &mut Socket, event: &str, payload: Value) {
    let frame = json!({"topic":"gateway","event":event,"payload":payload,"ref":null});
    socket.send(Frame::text(frame.to_string())).await.unwrap();
}

async fn join(socket: &mut Socket, reference: u64) {
    assert_eq!(
        read(socket).await,
        json!({"topic":"gateway","event":"phx_join","payload":null,"ref":reference})
    );
    let reply = json!({"topic":"gateway","event":"phx_reply","ref":reference,
                       "payload":{"status":"ok","response":{}}});
    socket.send(Frame::text(reply.to_string())).await.unwrap();
}

fn init() -> Value {
    json!({"interface": {"ipv4": "100.64.0.1", "ipv6": "fd00:2021:1111::1"}})
}

fn grant(reply_ref: &str) -> Value {
    json!({
        "ref": reply_ref,
        "client": {
            "id": CLIENT, "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5",
            "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
        },
        "resource": {"type": "internet", "id": CLIENT},
        "client_ice_credentials": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
        "gateway_ice_credentials": {"username": "6m26", "password": "gj5f2zjrxg6cwvtrtqgfva"},
    })
}

/// As [`grant`], of generation 0.
fn request(reply_ref: &str) -> Value {
    json!({
        "ref": reply_ref,
        "client": {
            "id": CLIENT,
            "peer": {
                "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5", "persistent_keepalive": 25,
                "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
            },
            "payload": {
                "ice_parameters": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                "domain": null,
            },
        },
        "resource": {"type": "internet", "id": CLIENT},
    })
}

/// All steps happen immediately, or after a backoff of at most a second.
async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("in time")
}

/// Stands for the SupervisorActor: passes on its messages.
struct Supervisor {
    told: mpsc::UnboundedSender<Seen>,
    /// Separate from the other messages, which come in between.
    states: mpsc::UnboundedSender<PortalState>,
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<ChildDied> for Supervisor {
    type Result = ();

    fn handle(&mut self, death: ChildDied, _: &mut Context<Self>) {
        let _ = self.told.send(Seen::Died(death));
    }
}

impl Handler<PortalNews> for Supervisor {
    type Result = ();

    fn handle(&mut self, news: PortalNews, _: &mut Context<Self>) {
        let seen = match news {
            PortalNews::Joined => return drop(self.states.send(PortalState::Joined)),
            PortalNews::Left => return drop(self.states.send(PortalState::Away)),
            PortalNews::Refused { reason } => Seen::Refused(reason),
            PortalNews::Initialized(init) => Seen::Initialized(init),
            PortalNews::RelaysChanged { .. } => Seen::Relays,
            PortalNews::Client(command) => match command {
                ClientCommand::Authorize(request) => Seen::Opened(request),
                ClientCommand::Allow(request) => Seen::Allowed(request),
                ClientCommand::AddCandidates { .. } => Seen::Added,
                ClientCommand::RemoveCandidates { .. } => Seen::Removed,
                ClientCommand::Revoke { .. } => Seen::Revoked,
                ClientCommand::SetExpiry(_) => Seen::Expiry,
                ClientCommand::UpdateResource(_) => Seen::Updated,
                ClientCommand::Reconcile { .. } => panic!("the supervisor makes these"),
            },
        };
        let _ = self.told.send(seen);
    }
}

enum Seen {
    Opened(Box<AuthorizationRequest>),
    Allowed(Box<AccessRequest>),
    Added,
    Removed,
    Revoked,
    Updated,
    Expiry,
    Initialized(postern_core::grant::GatewayInit),
    Relays,
    Refused(String),
    Died(ChildDied),
}

impl Seen {
    fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Allowed(_) => "allowed",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Revoked => "revoked",
            Self::Updated => "updated",
            Self::Expiry => "expiry",
            Self::Initialized(_) => "initialized",
            Self::Relays => "relays",
            Self::Refused(_) => "refused",
            Self::Died(_) => "died",
        }
    }
}
