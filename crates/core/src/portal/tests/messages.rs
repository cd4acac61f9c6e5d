//! Messages over a joined socket, and those held for the next one.

use super::*;

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
fn an_acknowledgement_for_a_dead_socket_is_dropped_and_references_start_over() {
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
fn acknowledgements_of_many_grants_survive_a_rejoin() {
    let mut dialogue = Dialogue::joined();
    let refs: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for reply_ref in &refs {
        dialogue.grant(reply_ref);
    }
    dialogue.reply_error(1, "unmatched topic");
    for reply_ref in &refs {
        assert!(dialogue.protocol.accept(reply_ref));
    }
    assert_eq!(dialogue.written(), [("phx_join".into(), 2)]);
    dialogue.reply_ok(2);
    let acknowledged = |(event, _): &(String, u64)| event == "authorization_created";
    assert_eq!(
        dialogue
            .written()
            .iter()
            .filter(|it| acknowledged(it))
            .count(),
        200
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
fn candidates_of_an_outage_are_sent_as_one_added_and_one_removed_batch_per_client() {
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
fn unusable_messages_are_reported_once_per_kind_and_the_connection_is_kept() {
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
            .all(|event| matches!(event, PortalEvent::Anomaly(_)))
    );
    assert!(dialogue.protocol.is_joined());
    dialogue.grant("still works");
    assert!(matches!(
        dialogue.events()[..],
        [PortalEvent::Client(ClientCommand::Authorize(_))]
    ));
}

#[test]
fn a_string_reference_matches_like_a_number() {
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
