//! Dialogues with the state machine, in virtual time. The names follow the protocol page, sections 1.4
//! to 1.7, and what section 9.3 lists for the reference implementation.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

const WALL: UnixTime = UnixTime(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
const CLIENT: ClientId = ClientId(Uuid::from_u128(1));

/// The protocol and its clock.
struct Dialogue {
    protocol: PortalProtocol,
    now: Instant,
}

impl Dialogue {
    fn with(config: PortalConfig) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        let now = Instant::now();
        let protocol = PortalProtocol::new(config, [7; 32], now);
        Self { protocol, now }
    }

    fn new() -> Self {
        Self::with(test_config())
    }

    /// Joined over generation 2, everything drained.
    fn joined() -> Self {
        let mut dialogue = Self::new();
        dialogue.connect();
        dialogue.reply_ok(0);
        dialogue.drain();
        dialogue
    }

    /// Waits for the next attempt and lets the socket open.
    fn connect(&mut self) -> ConnectRequest {
        let request = self.attempt();
        self.protocol.handle_connected(request.generation, self.now);
        request
    }

    /// Waits for the next attempt.
    fn attempt(&mut self) -> ConnectRequest {
        self.wake();
        self.next_connect().expect("an attempt is due")
    }

    /// The attempt that has begun, if any.
    fn next_connect(&mut self) -> Option<ConnectRequest> {
        std::iter::from_fn(|| self.protocol.poll_event()).find_map(|event| {
            if let PortalEvent::Connect(request) = event {
                Some(request)
            } else {
                None
            }
        })
    }

    /// Jumps to the next deadline and returns how far that was.
    fn wake(&mut self) -> Duration {
        let at = self.protocol.poll_timeout().expect("something is due");
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.protocol.handle_timeout(self.now);
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.protocol.handle_timeout(self.now);
    }

    fn say(&mut self, frame: Value) {
        self.protocol.handle_text(&frame.to_string(), self.now);
    }

    fn push(&mut self, event: &str, payload: Value) {
        self.say(json!({"topic":"gateway","event":event,"payload":payload,"ref":null}));
    }

    fn reply_ok(&mut self, reference: u64) {
        let payload = json!({"status":"ok","response":{}});
        self.say(json!({"topic":"gateway","event":"phx_reply","payload":payload,"ref":reference}));
    }

    fn reply_error(&mut self, reference: u64, reason: &str) {
        let payload = json!({"status":"error","response":{"reason":reason}});
        self.say(json!({"topic":"gateway","event":"phx_reply","payload":payload,"ref":reference}));
    }

    fn fail(&mut self, status: u16) {
        let failure = UpgradeFailure {
            status,
            ..UpgradeFailure::default()
        };
        self.protocol
            .handle_upgrade_failed(&failure, self.now, WALL);
    }

    fn grant(&mut self, reply_ref: &str) {
        self.push(
            "create_authorization",
            json!({
                "ref": reply_ref,
                "client": {
                    "id": CLIENT, "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5",
                    "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                    "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
                },
                "resource": {"type": "internet", "id": Uuid::from_u128(2)},
                "client_ice_credentials": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                "gateway_ice_credentials": {"username": "6m26", "password": "gj5f2zjrxg6cwvtrtqgfva"},
            }),
        );
    }

    fn events(&mut self) -> Vec<PortalEvent> {
        std::iter::from_fn(|| self.protocol.poll_event()).collect()
    }

    /// Frames to write, parsed.
    fn frames(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.protocol.poll_transmit())
            .map(|text| serde_json::from_str(&text).expect("we write JSON"))
            .collect()
    }

    /// Event names and refs of the frames to write.
    fn written(&mut self) -> Vec<(String, u64)> {
        let name = |frame: &Value| frame["event"].as_str().unwrap().to_owned();
        let frames = self.frames();
        frames
            .iter()
            .map(|frame| (name(frame), frame["ref"].as_u64().unwrap()))
            .collect()
    }

    fn drain(&mut self) {
        self.events();
        self.frames();
    }

    /// The wait that a failure led to.
    fn retry(&mut self) -> Duration {
        let retrying = self.events().into_iter().find_map(|event| {
            if let PortalEvent::Retrying { after, .. } = event {
                Some(after)
            } else {
                None
            }
        });
        retrying.expect("another attempt is planned")
    }

    fn fatal(&mut self) -> Option<String> {
        self.events().into_iter().find_map(|event| {
            if let PortalEvent::Fatal { reason } = event {
                Some(reason)
            } else {
                None
            }
        })
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn is_noise(event: &PortalEvent, kind: NoiseKind) -> bool {
    matches!(event, PortalEvent::Noise(noise) if noise.kind == kind)
}

// Join.

#[test]
fn joins_with_ref_0_and_announces_that_it_does_not_speak_iceless() {
    let mut dialogue = Dialogue::new();
    dialogue.connect();
    assert_eq!(dialogue.written(), [("phx_join".into(), 0)]);
    dialogue.reply_ok(0);
    assert_eq!(
        dialogue.frames(),
        [
            json!({"topic":"gateway","event":"set_snownet_capabilities","payload":{"iceless":false},"ref":1})
        ]
    );
    assert_eq!(
        dialogue.events(),
        [PortalEvent::Joined {
            generation: Generation::V2
        }]
    );
}

#[test]
fn generation_1_announces_nothing_and_acknowledges_by_its_own_name() {
    let mut dialogue = Dialogue::with(PortalConfig {
        generation: GenerationChoice::Only(Generation::V1),
        ..test_config()
    });
    dialogue.connect();
    dialogue.reply_ok(0);
    dialogue.grant("r");
    dialogue.protocol.accept("r");
    assert_eq!(
        dialogue.written(),
        [("phx_join".into(), 0), ("flow_authorized".into(), 1)]
    );
}

#[test]
fn a_join_that_is_not_answered_within_5_s_is_tried_on_a_new_socket() {
    let mut dialogue = Dialogue::new();
    dialogue.connect();
    dialogue.drain();
    assert_eq!(dialogue.wake(), secs(5));
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    assert!(matches!(events[1], PortalEvent::Retrying { .. }));
}

#[test]
fn a_refused_join_is_final_and_says_why() {
    let mut dialogue = Dialogue::new();
    dialogue.connect();
    dialogue.reply_error(0, "invalid_version");
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    let PortalEvent::Fatal { reason } = &events[1] else {
        panic!("final");
    };
    assert!(reason.contains("invalid_version") && reason.contains("update"));
    assert_eq!(dialogue.protocol.poll_timeout(), None);
}

#[test]
fn nothing_but_heartbeats_goes_out_before_the_join_reply() {
    let mut dialogue = Dialogue::joined();
    dialogue.grant("before");
    dialogue.reply_error(1, "unmatched topic");
    assert_eq!(dialogue.written(), [("phx_join".into(), 2)]);
    dialogue.protocol.accept("before");
    dialogue.protocol.report_no_relays();
    dialogue.protocol.report_no_relays();
    dialogue.protocol.add_candidates(CLIENT, vec!["a".into()]);
    assert_eq!(dialogue.written(), []);
    dialogue.reply_ok(2);
    let names: Vec<String> = dialogue
        .written()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "set_snownet_capabilities",
            "authorization_created",
            "no_relays",
            "broadcast_ice_candidates"
        ],
        "repetitions are dropped, acknowledgements come before candidates"
    );
}

#[test]
fn an_unmatched_topic_leads_to_a_rejoin_on_the_same_socket() {
    let mut dialogue = Dialogue::joined();
    dialogue.reply_error(1, "unmatched topic");
    assert_eq!(dialogue.written(), [("phx_join".into(), 2)]);
    dialogue.reply_error(1, "unmatched topic");
    assert_eq!(
        dialogue.written(),
        [],
        "a second complaint about the same changes nothing"
    );
    dialogue.reply_ok(2);
    assert!(dialogue.protocol.is_joined());
    let events = dialogue.events();
    assert!(
        events
            .iter()
            .all(|event| is_noise(event, NoiseKind::ErrorReply)),
        "{events:?}"
    );
}

#[test]
fn a_portal_that_forgets_every_join_is_left_alone_for_a_while() {
    let mut dialogue = Dialogue::joined();
    dialogue.reply_error(1, "unmatched topic");
    dialogue.reply_ok(2);
    dialogue.drain();
    dialogue.reply_error(3, "unmatched topic");
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    assert!(matches!(events[1], PortalEvent::Left { .. }));
}

// Heartbeats.

#[test]
fn heartbeats_go_out_every_10_s_without_other_traffic() {
    let mut dialogue = Dialogue::joined();
    assert_eq!(dialogue.wake(), secs(10));
    assert_eq!(
        dialogue.frames(),
        [json!({"topic":"phoenix","event":"heartbeat","payload":{},"ref":2})]
    );
    dialogue.say(json!({"topic":"phoenix","event":"phx_reply","ref":2,"payload":{"status":"ok","response":{}}}));
    assert_eq!(dialogue.wake(), secs(10));
    assert_eq!(dialogue.written(), [("heartbeat".into(), 3)]);
}

#[test]
fn lesson_28_a_silent_socket_is_left_after_more_than_three_unanswered_heartbeats() {
    let mut dialogue = Dialogue::joined();
    for _ in 0..4 {
        dialogue.wake();
        assert_eq!(dialogue.written().len(), 1);
        assert_eq!(dialogue.events(), []);
    }
    dialogue.wake();
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    assert!(matches!(events[1], PortalEvent::Left { .. }));
}

#[test]
fn one_answer_makes_up_for_the_heartbeats_before_it() {
    let mut dialogue = Dialogue::joined();
    for beat in 0..20u64 {
        dialogue.wake();
        if beat % 3 == 2 {
            let answer = json!({"status":"ok","response":{}});
            dialogue.say(
                json!({"topic":"phoenix","event":"phx_reply","ref":beat + 2,"payload":answer}),
            );
        }
    }
    assert!(dialogue.protocol.is_joined());
}

#[test]
fn a_machine_that_slept_sends_one_heartbeat_not_hundreds() {
    let mut dialogue = Dialogue::joined();
    dialogue.pass(secs(3_600));
    assert_eq!(dialogue.written().len(), 1);
    assert_eq!(dialogue.wake(), secs(10));
}

// Reconnecting.

#[test]
fn lesson_21_without_a_network_it_tries_every_second_and_does_not_give_up() {
    let mut dialogue = Dialogue::new();
    for _ in 0..600 {
        dialogue.attempt();
        dialogue
            .protocol
            .handle_connect_error("no route", dialogue.now);
        assert_eq!(dialogue.retry(), secs(1));
    }
}

#[test]
fn a_portal_that_answers_and_refuses_is_asked_less_and_less() {
    let mut dialogue = Dialogue::new();
    let mut waits = Vec::new();
    for _ in 0..40 {
        dialogue.attempt();
        dialogue.fail(503);
        waits.push(dialogue.retry());
    }
    assert!(waits[..15].iter().all(|wait| *wait == secs(1)));
    assert!(waits[39] > secs(20) && waits.iter().all(|wait| *wait <= secs(60)));
}

#[test]
fn after_a_join_the_backoff_starts_at_half_a_second_and_each_join_resets_it() {
    let mut dialogue = Dialogue::joined();
    let half = Duration::from_millis(250)..=Duration::from_millis(750);
    for _ in 0..3 {
        dialogue.protocol.handle_closed("reset", dialogue.now);
        assert!(half.contains(&dialogue.retry()));
        for _ in 0..8 {
            dialogue.attempt();
            dialogue
                .protocol
                .handle_connect_error("refused", dialogue.now);
        }
        assert!(dialogue.retry() > secs(3));
        dialogue.connect();
        dialogue.reply_ok(0);
        dialogue.drain();
    }
}

#[test]
fn an_attempt_that_takes_15_s_is_given_up() {
    let mut dialogue = Dialogue::new();
    dialogue.attempt();
    assert_eq!(dialogue.wake(), secs(15));
    assert_eq!(
        dialogue.protocol.poll_event(),
        Some(PortalEvent::Disconnect)
    );
    dialogue.retry();
    dialogue
        .protocol
        .handle_connected(Generation::V2, dialogue.now);
    assert_eq!(
        dialogue.events(),
        [PortalEvent::Disconnect],
        "a socket that comes too late is closed"
    );
}

#[test]
fn lesson_28_retry_after_replaces_the_backoff_in_seconds_and_as_a_date() {
    for (status, header) in [
        (503, "30"),
        (429, "30"),
        (503, "Sun, 06 Nov 1994 08:50:07 GMT"),
    ] {
        let mut dialogue = Dialogue::new();
        dialogue.attempt();
        let failure = UpgradeFailure {
            status,
            body: String::new(),
            retry_after: Some(header.to_owned()),
        };
        dialogue
            .protocol
            .handle_upgrade_failed(&failure, dialogue.now, WALL);
        assert_eq!(dialogue.retry(), secs(30));
        assert_eq!(dialogue.wake(), secs(30));
        assert!(dialogue.next_connect().is_some());
    }
}

#[test]
fn every_status_but_401_is_tried_again() {
    for status in [400, 402, 403, 408, 409, 429, 500, 502, 503, 504] {
        let mut dialogue = Dialogue::new();
        dialogue.attempt();
        dialogue.fail(status);
        dialogue.retry();
        dialogue.attempt();
    }
}

#[test]
fn a_401_is_final_before_and_after_having_joined() {
    let mut fresh = Dialogue::new();
    fresh.attempt();
    fresh.fail(401);
    assert!(
        fresh
            .fatal()
            .unwrap()
            .contains("create a new gateway token")
    );
    assert_eq!(fresh.protocol.poll_timeout(), None);

    let mut known = Dialogue::joined();
    known.protocol.handle_closed("reset", known.now);
    known.attempt();
    known.fail(401);
    assert!(known.fatal().is_some());
}

#[test]
fn a_404_on_v2_leads_to_v1_at_once_and_each_new_attempt_begins_with_v2() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.attempt().generation, Generation::V2);
    dialogue.fail(404);
    let older = dialogue.next_connect().expect("without waiting");
    assert!(older.url.contains("/gateway/websocket?"));
    dialogue.fail(404);
    assert_eq!(dialogue.retry(), secs(1));
    assert_eq!(dialogue.attempt().generation, Generation::V2);
}

#[test]
fn a_configured_generation_is_kept_whatever_the_portal_answers() {
    let mut dialogue = Dialogue::with(PortalConfig {
        generation: GenerationChoice::Only(Generation::V2),
        ..test_config()
    });
    dialogue.attempt();
    dialogue.fail(404);
    dialogue.retry();
    assert_eq!(dialogue.attempt().generation, Generation::V2);
}

#[test]
fn phx_close_is_a_reason_to_reconnect_and_nothing_more() {
    let mut dialogue = Dialogue::joined();
    dialogue.push("phx_close", json!({}));
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    assert!(matches!(events[1], PortalEvent::Left { .. }));
    assert!(matches!(events[2], PortalEvent::Retrying { .. }));
}

#[test]
fn an_expired_token_is_final_and_another_reason_is_not() {
    let mut dialogue = Dialogue::joined();
    dialogue.push("disconnect", json!({"reason":"certificate_revoked"}));
    dialogue.push("disconnect", json!({"reason":"certificate_revoked"}));
    assert_eq!(dialogue.events().len(), 1, "reported once");
    assert!(dialogue.protocol.is_joined());
    dialogue.say(json!({"topic":"anything","event":"disconnect","payload":{"reason":"token_expired"},"ref":null}));
    let events = dialogue.events();
    assert!(matches!(events[0], PortalEvent::Left { .. }));
    assert_eq!(events[1], PortalEvent::Disconnect);
    assert!(matches!(&events[2], PortalEvent::Fatal { reason } if reason.contains("token")));
}

#[test]
fn lesson_24_an_outage_is_fatal_only_after_the_configured_time() {
    let mut dialogue = Dialogue::joined();
    dialogue.pass(secs(5 * 24 * 3_600));
    dialogue.drain();
    assert!(dialogue.protocol.is_joined(), "time joined is no outage");
    dialogue.protocol.handle_closed("reset", dialogue.now);
    let lost_at = dialogue.now;
    loop {
        dialogue.wake();
        if dialogue.next_connect().is_none() {
            break;
        }
        dialogue
            .protocol
            .handle_connect_error("refused", dialogue.now);
        if let Some(reason) = dialogue.fatal() {
            assert!(reason.contains("max_outage"));
            break;
        }
    }
    assert_eq!(dialogue.now - lost_at, secs(24 * 3_600));
    assert_eq!(dialogue.protocol.poll_timeout(), None);
}

#[test]
fn a_reason_is_news_once_in_an_outage() {
    let mut dialogue = Dialogue::new();
    let news = |dialogue: &mut Dialogue, reason: &str| {
        dialogue.attempt();
        dialogue.protocol.handle_connect_error(reason, dialogue.now);
        let events = dialogue.events();
        events
            .iter()
            .any(|event| matches!(event, PortalEvent::Retrying { news: true, .. }))
    };
    assert!(news(&mut dialogue, "refused"));
    assert!(!news(&mut dialogue, "refused"));
    assert!(news(&mut dialogue, "no route"));
    dialogue.connect();
    dialogue.reply_ok(0);
    dialogue.protocol.handle_closed("reset", dialogue.now);
    assert!(news(&mut dialogue, "refused"));
}

#[test]
fn leaving_closes_the_socket_and_ends_everything() {
    let mut dialogue = Dialogue::joined();
    dialogue.protocol.leave(dialogue.now);
    let events = dialogue.events();
    assert!(matches!(events[0], PortalEvent::Left { .. }));
    assert_eq!(events[1], PortalEvent::Disconnect);
    assert_eq!(dialogue.protocol.poll_timeout(), None);
}

// Messages.

#[test]
fn messages_share_one_counter_and_each_grant_is_acknowledged_once() {
    let mut dialogue = Dialogue::joined();
    dialogue.grant("first");
    dialogue.protocol.accept("first");
    dialogue.protocol.accept("first");
    dialogue.protocol.accept("never asked");
    dialogue
        .protocol
        .add_candidates(CLIENT, vec!["candidate:1 1 udp 1 x".into()]);
    dialogue
        .protocol
        .remove_candidates(CLIENT, vec!["candidate:1 1 udp 1 x".into()]);
    dialogue.protocol.add_candidates(CLIENT, vec![]);
    assert_eq!(
        dialogue.written(),
        [
            ("authorization_created".into(), 2),
            ("broadcast_ice_candidates".into(), 3),
            ("broadcast_invalidated_ice_candidates".into(), 4),
        ]
    );
}

#[test]
fn an_acknowledgement_for_a_dead_socket_is_dropped_and_refs_start_over() {
    let mut dialogue = Dialogue::joined();
    dialogue.grant("old");
    dialogue.protocol.handle_closed("reset", dialogue.now);
    dialogue.protocol.accept("old");
    dialogue.connect();
    dialogue.protocol.accept("old");
    dialogue.reply_ok(0);
    dialogue.protocol.accept("old");
    assert_eq!(
        dialogue.written(),
        [
            ("phx_join".into(), 0),
            ("set_snownet_capabilities".into(), 1)
        ]
    );
}

#[test]
fn frames_and_messages_of_a_dead_socket_are_dropped() {
    let mut dialogue = Dialogue::joined();
    dialogue.grant("a");
    dialogue.reply_error(1, "unmatched topic");
    dialogue.protocol.accept("a");
    dialogue.protocol.handle_closed("reset", dialogue.now);
    assert_eq!(dialogue.written(), []);
    dialogue.connect();
    dialogue.reply_ok(0);
    assert_eq!(dialogue.written().len(), 2, "join and capabilities only");
}

#[test]
fn candidates_of_an_outage_come_as_one_added_and_one_removed_batch_per_client() {
    let mut dialogue = Dialogue::joined();
    dialogue.protocol.handle_closed("reset", dialogue.now);
    let relayed = "candidate:2 1 udp 37748479 203.0.113.1 50000 typ relay".to_owned();
    let host = "candidate:1 1 udp 2130706175 192.0.2.1 52625 typ host".to_owned();
    dialogue
        .protocol
        .add_candidates(CLIENT, vec![relayed.clone()]);
    dialogue
        .protocol
        .add_candidates(CLIENT, vec!["candidate:3 1 udp 9 gone".into()]);
    dialogue.protocol.add_candidates(CLIENT, vec![host.clone()]);
    dialogue
        .protocol
        .remove_candidates(CLIENT, vec!["candidate:3 1 udp 9 gone".into()]);
    dialogue
        .protocol
        .remove_candidates(CLIENT, vec!["candidate:0 1 udp 7 old".into()]);
    dialogue.connect();
    dialogue.reply_ok(0);
    let frames = dialogue.frames();
    assert_eq!(frames.len(), 4);
    assert_eq!(
        frames[2],
        json!({"topic":"gateway","event":"broadcast_ice_candidates","ref":2,
               "payload":{"client_ids":[CLIENT],"candidates":[host, relayed]}})
    );
    assert_eq!(
        frames[3],
        json!({"topic":"gateway","event":"broadcast_invalidated_ice_candidates","ref":3,
               "payload":{"client_ids":[CLIENT],"candidates":["candidate:0 1 udp 7 old"]}})
    );
}

#[test]
fn nonsense_is_reported_once_for_each_kind_and_the_connection_is_kept() {
    let mut dialogue = Dialogue::joined();
    for _ in 0..3 {
        dialogue.protocol.handle_text("{", dialogue.now);
        dialogue.protocol.handle_text("[1,2,3]", dialogue.now);
        dialogue.protocol.handle_binary(dialogue.now);
        dialogue.push("party", json!({}));
        dialogue.push("init", json!({"interface": 7}));
        dialogue.push("phx_error", json!({}));
        dialogue.push("phx_reply", json!({"status": "maybe"}));
        dialogue.reply_error(77, "unknown_message");
    }
    let events = dialogue.events();
    assert_eq!(events.len(), 7, "{events:?}");
    assert!(
        events
            .iter()
            .all(|event| matches!(event, PortalEvent::Noise(_)))
    );
    assert!(dialogue.protocol.is_joined());
    dialogue.grant("still works");
    assert!(matches!(
        dialogue.events()[..],
        [PortalEvent::AuthorizationRequested(_)]
    ));
}

#[test]
fn a_string_ref_answers_as_a_number_does() {
    let mut dialogue = Dialogue::new();
    dialogue.connect();
    dialogue.say(json!({"topic":"gateway","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"0"}));
    assert!(dialogue.protocol.is_joined());
}

#[test]
fn handle_timeout_early_late_or_twice_is_harmless() {
    let mut dialogue = Dialogue::joined();
    for _ in 0..10 {
        dialogue.protocol.handle_timeout(dialogue.now);
    }
    assert_eq!(dialogue.written(), []);
    dialogue.pass(secs(10));
    dialogue.protocol.handle_timeout(dialogue.now);
    dialogue.protocol.handle_timeout(dialogue.now - secs(5));
    assert_eq!(dialogue.written().len(), 1);
}

// Anything.

fn any_frame() -> impl Strategy<Value = String> {
    let event = prop_oneof![
        Just("init"),
        Just("phx_reply"),
        Just("phx_error"),
        Just("ice_candidates"),
        Just("reject_access"),
        Just("resource_updated"),
        Just("relays_presence"),
        Just("create_authorization"),
        Just("disconnect"),
        Just("unheard_of"),
    ];
    let payload = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("x")),
        Just(json!(1.5)),
        Just(json!({"status":"ok"})),
        Just(json!({"status":"error","response":null})),
        Just(json!({"candidates":[1,"a",null],"client_id":CLIENT})),
        Just(json!({"reason":"certificate_revoked"})),
        Just(json!({"interface":{"ipv4":"100.64.0.9","ipv6":"fd00:2021:1111::9"},"relays":[{}]})),
    ];
    let reference = prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!("1")),
        Just(json!({})),
        Just(json!(1u64 << 60)),
    ];
    (event, payload, reference).prop_map(|(event, payload, reference)| {
        json!({"topic":"gateway","event":event,"payload":payload,"ref":reference}).to_string()
    })
}

proptest! {
    /// Whatever the portal writes, short of the three fatal words and of closing the channel, we stay.
    #[test]
    fn no_frame_panics_or_disconnects(
        frames in prop::collection::vec(prop_oneof![any_frame(), any::<String>(), ".{0,80}"], 0..20),
    ) {
        let mut dialogue = Dialogue::joined();
        for frame in frames {
            dialogue.protocol.handle_text(&frame, dialogue.now);
        }
        prop_assert!(dialogue.protocol.is_joined());
        prop_assert!(!dialogue.events().contains(&PortalEvent::Disconnect));
    }

    /// Any order of inputs: never a panic, always a next step unless stopped, refs of a socket rising
    /// by one from 0, and nothing but joins and heartbeats before a join is answered.
    #[test]
    fn any_order_of_inputs_keeps_the_rules(steps in prop::collection::vec(0u8..14, 0..120)) {
        let mut dialogue = Dialogue::new();
        let mut next_ref = 0;
        for step in steps {
            let joined_before = dialogue.protocol.is_joined();
            any_step(&mut dialogue, step, next_ref);
            for (name, reference) in dialogue.written() {
                if name == "phx_join" && reference == 0 {
                    next_ref = 0;
                }
                prop_assert_eq!(reference, next_ref);
                next_ref += 1;
                let early = name == "phx_join" || name == "heartbeat";
                prop_assert!(early || joined_before || dialogue.protocol.is_joined(), "{}", name);
            }
            let events = dialogue.events();
            let stopped = events.iter().any(|event| matches!(event, PortalEvent::Fatal { .. }));
            prop_assert!(!stopped, "none of the steps is fatal");
            prop_assert!(dialogue.protocol.poll_timeout().is_some());
        }
    }
}

fn any_step(dialogue: &mut Dialogue, step: u8, next_ref: u64) {
    let now = dialogue.now;
    match step {
        0..=2 => drop(dialogue.wake()),
        3 => dialogue.protocol.handle_connected(Generation::V2, now),
        4 => dialogue.reply_ok(next_ref.saturating_sub(1)),
        5 => dialogue.protocol.handle_closed("reset", now),
        6 => dialogue.protocol.handle_connect_error("refused", now),
        7 => dialogue.fail(404),
        8 => dialogue.grant("r"),
        9 => dialogue.protocol.accept("r"),
        10 => dialogue.protocol.add_candidates(CLIENT, vec!["a".into()]),
        11 => dialogue
            .protocol
            .remove_candidates(CLIENT, vec!["a".into()]),
        12 => dialogue.protocol.report_no_relays(),
        _ => dialogue.pass(secs(3)),
    }
}
