//! Loss of the portal, reconnection, and final errors.

use super::*;

/// docs/lessons.md 21: booting without a network is normal.
#[test]
fn without_a_network_it_tries_every_second_and_does_not_stop() {
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
fn a_portal_that_answers_and_refuses_is_tried_less_and_less_often() {
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
fn an_attempt_times_out_after_15_s() {
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

/// docs/lessons.md 28: 429 and Retry-After are honoured.
#[test]
fn retry_after_replaces_the_backoff_in_seconds_and_as_a_date() {
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
fn every_status_except_401_is_retried() {
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
fn a_404_on_v2_leads_to_v1_immediately_and_each_new_attempt_starts_with_v2() {
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
fn a_configured_generation_is_kept_after_any_response() {
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
fn phx_close_only_leads_to_a_reconnect() {
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

/// docs/lessons.md 24: the data plane outlives the portal.
#[test]
fn an_outage_is_fatal_only_after_the_configured_time() {
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

/// docs/lessons.md 24: the data plane outlives the portal.
#[test]
fn the_limit_of_an_outage_can_be_changed_while_it_lasts() {
    let mut dialogue = Dialogue::joined();
    dialogue.protocol.handle_closed("reset", dialogue.now);
    dialogue.drain();
    let (hour, now) = (secs(3_600), dialogue.now);
    dialogue.protocol.tolerate_outage(2 * hour, now);
    dialogue.now += hour;
    let now = dialogue.now;
    dialogue.protocol.tolerate_outage(3 * hour, now);
    assert_eq!(dialogue.fatal(), None);
    dialogue.protocol.tolerate_outage(hour, now);
    assert!(dialogue.fatal().is_some());
}

#[test]
fn a_reason_is_new_once_per_outage() {
    let mut dialogue = Dialogue::new();
    let is_new = |dialogue: &mut Dialogue, reason: &str| {
        dialogue.attempt();
        dialogue.protocol.handle_connect_error(reason, dialogue.now);
        let events = dialogue.events();
        events
            .iter()
            .any(|event| matches!(event, PortalEvent::Retrying { is_new: true, .. }))
    };
    assert!(is_new(&mut dialogue, "refused"));
    assert!(!is_new(&mut dialogue, "refused"));
    assert!(is_new(&mut dialogue, "no route"));
    dialogue.connect();
    dialogue.reply_ok(0);
    dialogue.protocol.handle_closed("reset", dialogue.now);
    assert!(is_new(&mut dialogue, "refused"));
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
