//! Invariants under arbitrary inputs from the portal and the network.

use super::*;
use proptest::prelude::*;

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
        Just("request_connection"),
        Just("allow_access"),
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
    /// No frame disconnects, except the three final reasons and the close of the channel.
    #[test]
    fn no_frame_panics_or_disconnects(
        frames in prop::collection::vec(
            prop_oneof![any_frame(), any::<String>(), ".{0,80}"],
            0..20,
        ),
    ) {
        let mut dialogue = Dialogue::joined();
        for frame in frames {
            dialogue.protocol.handle_text(&frame, dialogue.now);
        }
        prop_assert!(dialogue.protocol.is_joined());
        prop_assert!(!dialogue.events().contains(&PortalEvent::Disconnect));
    }

    /// Any order of inputs: never a panic, always a next step unless stopped, references of a
    /// socket rise by one from 0, and only joins and heartbeats precede the reply to a join.
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
        9 => drop(dialogue.protocol.accept("r")),
        10 => dialogue.protocol.add_candidates(CLIENT, vec!["a".into()]),
        11 => dialogue
            .protocol
            .remove_candidates(CLIENT, vec!["a".into()]),
        12 => dialogue.protocol.report_no_relays(),
        _ => dialogue.pass(secs(3)),
    }
}
