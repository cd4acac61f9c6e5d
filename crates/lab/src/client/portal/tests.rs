//! The channel against a websocket server of the test.

use super::*;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

type ServerSocket = WebSocketStream<TcpStream>;

fn settings(url: &str, generation: Generation) -> Settings {
    #[derive(serde::Deserialize)]
    struct Wrapper {
        token: Token,
    }
    let Wrapper { token } = toml::from_str("token = \"cltok\"").expect("a token");
    Settings {
        url: url.parse().expect("a URL"),
        token,
        name: "lab-client".into(),
        id: "cl-1".into(),
        generation,
        public_key: [1; 32],
    }
}

struct TestPortal {
    listener: TcpListener,
    events: mpsc::UnboundedReceiver<PortalEvent>,
    handle: PortalHandle,
}

impl TestPortal {
    async fn start(generation: Generation) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("ws://{}", listener.local_addr().expect("bound"));
        let (sender, events) = mpsc::unbounded_channel();
        let handle = spawn(settings(&url, generation), sender);
        Self {
            listener,
            events,
            handle,
        }
    }

    #[expect(
        clippy::result_large_err,
        reason = "the error type is the websocket library's"
    )]
    async fn accept(&self) -> (ServerSocket, Request) {
        let (stream, _) = self.listener.accept().await.expect("accepts");
        let mut seen = None;
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            seen = Some(request.clone());
            Ok(response)
        };
        let socket = accept_hdr_async(stream, callback).await.expect("upgrades");
        (socket, seen.expect("called"))
    }

    async fn event(&mut self) -> PortalEvent {
        self.events.recv().await.expect("an event")
    }
}

async fn receive(socket: &mut ServerSocket) -> Value {
    loop {
        let message = socket.next().await.expect("open").expect("a message");
        if let Message::Text(text) = message {
            return serde_json::from_str(text.as_str()).expect("JSON");
        }
    }
}

async fn push(socket: &mut ServerSocket, frame: &Value) {
    let message = Message::text(frame.to_string());
    socket.send(message).await.expect("sends");
}

/// The portal's answer to the join.
fn join_reply(payload: Value) -> Value {
    json!({"topic": "client", "event": "phx_reply", "ref": 0, "payload": payload})
}

fn push_frame(event: &str, payload: Value) -> Value {
    json!({"topic": "client", "event": event, "payload": payload, "ref": null})
}

async fn accept_join(socket: &mut ServerSocket) {
    assert_eq!(receive(socket).await["event"], "phx_join");
    let reply = join_reply(json!({"status": "ok", "response": {}}));
    push(socket, &reply).await;
}

/// Path, query and headers are those of the recorded client, apart from its version.
#[tokio::test]
async fn joins_as_the_recorded_client_did() {
    let mut portal = TestPortal::start(Generation::V2).await;
    let (mut socket, request) = portal.accept().await;
    assert_eq!(
        request.uri().to_string(),
        "/client/v2/websocket?external_id=cl-1&name=lab-client\
         &public_key=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE%3D"
    );
    assert_eq!(request.headers()["x-authorization"], "Bearer cltok");
    assert!(
        request.headers()["user-agent"]
            .to_str()
            .expect("ASCII")
            .contains("headless-client/1.5.")
    );
    let join = receive(&mut socket).await;
    assert_eq!(
        join,
        json!({"topic": "client", "event": "phx_join", "payload": null, "ref": 0})
    );
    let reply = join_reply(json!({"status": "ok", "response": {}}));
    push(&mut socket, &reply).await;
    assert!(matches!(portal.event().await, PortalEvent::Joined));
    let capabilities = receive(&mut socket).await;
    assert_eq!(capabilities["event"], "set_snownet_capabilities");
    assert_eq!(capabilities["ref"], 1);
}

#[tokio::test]
async fn generation_1_uses_the_old_path_and_announces_no_capabilities() {
    let mut portal = TestPortal::start(Generation::V1).await;
    let (mut socket, request) = portal.accept().await;
    assert_eq!(request.uri().path(), "/client/websocket");
    accept_join(&mut socket).await;
    assert!(matches!(portal.event().await, PortalEvent::Joined));
    let resource_id = wire::ResourceId(Uuid::nil());
    portal.handle.send(Outgoing::RequestAuthorization {
        resource_id,
        connected_gateway_ids: Vec::new(),
    });
    let request = receive(&mut socket).await;
    assert_eq!(
        (&request["event"], &request["ref"]),
        (&json!("create_flow"), &json!(1))
    );
}

#[tokio::test]
async fn generation_0_matches_each_answer_to_its_question() {
    let mut portal = TestPortal::start(Generation::V0).await;
    let (mut socket, request) = portal.accept().await;
    assert_eq!(request.uri().path(), "/client/websocket");
    let agent = request.headers()["user-agent"].to_str().expect("ASCII");
    assert!(agent.contains("headless-client/1.3."), "{agent}");
    accept_join(&mut socket).await;
    assert!(matches!(portal.event().await, PortalEvent::Joined));
    let question = |number| Question::Prepare {
        resource_id: wire::ResourceId(Uuid::from_u128(number)),
        connected_gateway_ids: Vec::new(),
    };
    for number in 1..=2 {
        portal.handle.send(Outgoing::Ask(question(number)));
        let asked = receive(&mut socket).await;
        assert_eq!(
            (&asked["event"], &asked["ref"]),
            (&json!("prepare_connection"), &json!(number))
        );
    }
    let reply = |reference: u64, payload: Value| json!({"topic": "client", "event": "phx_reply", "ref": reference, "payload": payload});
    let response = json!({"gateway_id": Uuid::nil()});
    let late = reply(2, json!({"status": "ok", "response": response}));
    push(&mut socket, &late).await;
    let refusal = json!({"status": "error", "response": {"reason": "offline"}});
    push(&mut socket, &reply(1, refusal)).await;
    let PortalEvent::Answered(asked, outcome) = portal.event().await else {
        panic!("an answer");
    };
    assert_eq!((asked, outcome), (question(2), Ok(response)));
    let PortalEvent::Answered(asked, outcome) = portal.event().await else {
        panic!("an answer");
    };
    assert_eq!((asked, outcome), (question(1), Err("offline".into())));

    portal.handle.send(Outgoing::NewCandidates {
        gateway_id: wire::GatewayId(Uuid::nil()),
        candidates: vec!["candidate:x".into()],
    });
    let candidates = receive(&mut socket).await;
    assert_eq!(candidates["event"], "broadcast_ice_candidates");
    assert_eq!(candidates["payload"]["gateway_ids"], json!([Uuid::nil()]));
}

#[tokio::test]
async fn reconnects_after_a_loss_and_sends_the_kept_candidates() {
    let mut portal = TestPortal::start(Generation::V1).await;
    let (mut socket, _) = portal.accept().await;
    accept_join(&mut socket).await;
    assert!(matches!(portal.event().await, PortalEvent::Joined));
    drop(socket);
    assert!(matches!(portal.event().await, PortalEvent::Lost(_)));
    let gateway_id = wire::GatewayId(Uuid::nil());
    portal.handle.send(Outgoing::RequestAuthorization {
        resource_id: wire::ResourceId(Uuid::nil()),
        connected_gateway_ids: Vec::new(),
    });
    portal.handle.send(Outgoing::NewCandidates {
        gateway_id,
        candidates: vec!["candidate:x".into()],
    });
    let (mut socket, _) = portal.accept().await;
    accept_join(&mut socket).await;
    let first = receive(&mut socket).await;
    assert_eq!(
        first["event"], "new_gateway_ice_candidates",
        "the request is dropped"
    );
    assert_eq!(first["ref"], 1, "references restart");
}

#[tokio::test]
async fn the_channel_survives_malformed_frames() {
    let mut portal = TestPortal::start(Generation::V1).await;
    let (mut socket, _) = portal.accept().await;
    accept_join(&mut socket).await;
    assert!(matches!(portal.event().await, PortalEvent::Joined));
    socket.send(Message::text("[1,2,3]")).await.expect("sends");
    push(&mut socket, &push_frame("init", json!(5))).await;
    let deleted = push_frame("resource_deleted", json!(Uuid::nil()));
    push(&mut socket, &deleted).await;
    assert!(matches!(
        portal.event().await,
        PortalEvent::Push(Push::ResourceDeleted(_))
    ));
}

#[tokio::test]
async fn a_refused_join_and_a_disconnect_are_final() {
    for frame in [
        join_reply(json!({"status": "error", "response": {"reason": "disabled"}})),
        push_frame("disconnect", json!({"reason": "token_expired"})),
    ] {
        let mut portal = TestPortal::start(Generation::V2).await;
        let (mut socket, _) = portal.accept().await;
        push(&mut socket, &frame).await;
        assert!(matches!(portal.event().await, PortalEvent::Refused(_)));
    }
}

#[tokio::test]
async fn only_401_is_final_among_http_answers() {
    for (answer, is_final) in [("401 Unauthorized", true), ("409 Conflict", false)] {
        let mut portal = TestPortal::start(Generation::V2).await;
        let (mut stream, _) = portal.listener.accept().await.expect("accepts");
        let mut request = [0; 2048];
        let len = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
        assert!(len.is_ok_and(|len| len > 0));
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
            .await
            .expect("answers");
        match portal.event().await {
            PortalEvent::Refused(_) => assert!(is_final),
            PortalEvent::Lost(reason) => assert!(!is_final && reason.contains("409"), "{reason}"),
            PortalEvent::Joined | PortalEvent::Push(_) | PortalEvent::Answered(..) => {
                panic!("joined without a portal")
            }
        }
    }
}

#[tokio::test]
async fn leaving_closes_the_websocket_in_order() {
    let portal = TestPortal::start(Generation::V1).await;
    let (mut socket, _) = portal.accept().await;
    accept_join(&mut socket).await;
    let closing = tokio::spawn(portal.handle.close());
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
    closing.await.expect("closed");
}

#[test]
fn hashes_a_uuid_and_keeps_other_ids() {
    assert_eq!(
        external_id("123e4567-e89b-12d3-a456-426614174000"),
        "986c0dc956dc822b5d8f698661b9eb1ef880786ff9043c16744d2a420e99e9bb"
    );
    assert_eq!(external_id("cl-1"), "cl-1");
}

#[test]
fn keeps_the_path_of_the_base_url_and_drops_its_query() {
    let url = |base| websocket_url(&settings(base, Generation::V2));
    let with_path = url("https://portal.example/api/?x=1");
    assert_eq!(with_path.scheme(), "wss");
    assert_eq!(with_path.path(), "/api/client/v2/websocket");
    assert!(
        with_path
            .query()
            .is_some_and(|query| query.starts_with("external_id="))
    );
}

#[test]
fn backs_off_from_half_a_second_to_about_a_minute() {
    for failures in [0, 1, 5, 100, u32::MAX] {
        let wait = backoff(failures);
        assert!(wait >= Duration::from_millis(250), "{wait:?}");
        assert!(wait <= LONGEST_BACKOFF * 3 / 2, "{wait:?}");
    }
    assert!(backoff(0) <= Duration::from_millis(750));
}
