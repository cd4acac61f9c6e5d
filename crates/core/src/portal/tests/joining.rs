//! Joins, rejoins and heartbeats.

use super::*;

#[test]
fn joins_with_ref_0_and_declares_no_iceless_support() {
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
fn generation_1_declares_no_capabilities_and_acknowledges_by_its_own_name() {
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
fn a_refused_join_is_final_and_reported_with_its_reason() {
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
fn only_heartbeats_are_written_before_the_join_reply() {
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
            .all(|event| is_anomaly(event, AnomalyKind::ErrorReply)),
        "{events:?}"
    );
}

#[test]
fn a_portal_that_loses_every_join_is_retried_with_backoff() {
    let mut dialogue = Dialogue::joined();
    dialogue.reply_error(1, "unmatched topic");
    dialogue.reply_ok(2);
    dialogue.drain();
    dialogue.reply_error(3, "unmatched topic");
    let events = dialogue.events();
    assert_eq!(events[0], PortalEvent::Disconnect);
    assert!(matches!(events[1], PortalEvent::Left { .. }));
}

#[test]
fn heartbeats_are_sent_every_10_s_without_other_traffic() {
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

/// docs/lessons.md 28: a websocket that looks open can be dead.
#[test]
fn a_silent_socket_is_left_after_more_than_three_unanswered_heartbeats() {
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
fn one_reply_also_answers_the_earlier_heartbeats() {
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
fn a_suspended_machine_sends_one_heartbeat_afterwards() {
    let mut dialogue = Dialogue::joined();
    dialogue.pass(secs(3_600));
    assert_eq!(dialogue.written().len(), 1);
    assert_eq!(dialogue.wake(), secs(10));
}
