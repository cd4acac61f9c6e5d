//! Tests of the supervision in virtual time.

mod model;
mod samples;

use super::*;
use crate::UnixTime;
use crate::connection::{ConnectionStats, TrafficStats};
use crate::grant::AuthorizationEntry;
use samples::*;

fn panicked() -> DeathCause {
    DeathCause::Panicked(PanicReport::default())
}

#[test]
fn everything_starts_in_order_and_the_portal_last() {
    let mut scene = Scene::new(CONFIG);
    for id in 1..=3 {
        scene.ledger.record_command(&open(id, 1));
    }
    scene.supervision.handle_start(&mut scene.ledger, scene.now);
    let seen = shown(&scene.events());
    let shard = ["start tun", "start nat_table", "start udp"];
    let mut expected = vec!["start admin"];
    expected.extend(shard.into_iter().chain(shard));
    expected.extend(["start dns", "connect 1", "connect 2", "start portal"]);
    let started = seen.iter().filter(|it| !it.starts_with("ping"));
    assert_eq!(started.collect::<Vec<_>>(), expected);
    // Each shared child is pinged at once, so that its recovery is noticed.
    assert_eq!(seen.len(), expected.len() + 9);
    let rest = scene.run(ms(250), true);
    assert_eq!(rest.len(), 1);
    assert_eq!(
        (rest[0].0, &*shown(&[rest[0].1.clone()])[0]),
        (ms(250), "connect 3")
    );
}

#[test]
fn a_further_grant_is_passed_to_the_connection() {
    let mut scene = Scene::started();
    scene.request(open(1, 1)).expect("admitted");
    assert_eq!(shown(&scene.events()), ["connect 1", "pass ref-1"]);
    scene.request(allow(1, None, true)).expect("admitted");
    assert_eq!(shown(&scene.events()), ["pass ref-access"]);
    let record = scene.ledger.client(client(1)).expect("recorded");
    assert_eq!(record.authorizations.grants().len(), 2);
}

#[test]
fn clients_are_spread_over_the_shards() {
    let mut scene = Scene::started();
    let shards = [1, 2, 3].map(|id| scene.connect(id).0.shard());
    assert_eq!(shards, [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_client_with_another_address_stays_on_its_shard_and_gets_another_index() {
    let mut scene = Scene::started();
    scene.connect(1);
    let former = scene.connect(2);
    scene.request(open_at(2, tunnel(7), 1)).expect("admitted");
    let seen = scene.events();
    assert_eq!(shown(&seen), ["goodbye", "connect 2", "pass ref-1"]);
    let [present] = connected(&seen)[..] else {
        panic!("one connection");
    };
    assert_eq!(present.0.shard(), Some(1));
    assert_ne!(present.0, former.0);
    let record = scene.ledger.client(client(2)).expect("recorded");
    assert_eq!(
        (record.tunnel, record.authorizations.grants().len()),
        (tunnel(7), 1)
    );
    scene.die(former);
    assert_eq!(shown(&scene.events()), ["detach 2"]);
    assert!(scene.supervision.is_running(present.0));
    scene.die(former);
    assert_eq!(shown(&scene.events()), [""; 0], "an index is released once");
}

#[test]
fn a_dead_connection_of_a_client_with_another_address_has_no_successor() {
    let mut scene = Scene::started();
    let mut at = scene.connect(1);
    scene.die(at);
    at.1 = scene.instance(at.0);
    scene.die(at);
    scene.events();
    scene.request(open_at(1, tunnel(7), 1)).expect("admitted");
    assert_eq!(
        shown(&scene.events()),
        ["detach 1", "connect 1", "pass ref-1"]
    );
    assert_eq!(scene.run(ms(1000), true).len(), 0);
}

#[test]
fn a_full_gateway_refuses_until_there_is_room() {
    let mut scene = Scene::started();
    let first = scene.connect(1);
    scene.connect(2);
    scene.connect(3);
    for refused in 1..=2 {
        assert_eq!(scene.request(open(4, 1)), Err(Refusal::Full(refused)));
    }
    assert!(scene.ledger.client(client(4)).is_none());
    scene.supervision.limit(1, 8);
    scene.request(open(1, 2)).expect("known clients are served");
    let Child::Connection(id, _) = first.0 else {
        panic!("a connection");
    };
    scene.supervision.limit(4, 8);
    assert_eq!(id, client(1));
    scene.request(open(4, 1)).expect("the limit is higher");
}

#[test]
fn an_access_needs_tunnel_addresses_from_somewhere() {
    let mut scene = Scene::started();
    assert_eq!(scene.request(allow(1, None, true)), Err(Refusal::Unknown));
    scene
        .request(allow(1, Some(tunnel(1)), true))
        .expect("told");
    scene.ledger.record_command(&open(2, 1));
    scene.events();
    scene.request(allow(2, None, true)).expect("recorded");
    let seen = scene.events();
    let Some(Event::Connect(connection)) = seen.first() else {
        panic!("{seen:?}");
    };
    let record = connection.record.as_ref().expect("of the former process");
    assert_eq!(
        record.authorizations.grants().len(),
        1,
        "as the former process left it"
    );
}

#[test]
fn a_child_restarts_at_once_and_then_after_a_growing_delay() {
    let mut scene = Scene::started();
    for delay in [0, 10, 20, 40] {
        scene.die((Child::Dns, scene.instance(Child::Dns)));
        let seen = shown(&scene.events());
        if delay == 0 {
            assert_eq!(seen, ["died dns", "start dns", "ping dns"]);
            continue;
        }
        assert_eq!(seen, ["died dns"]);
        assert!(!scene.supervision.is_running(Child::Dns));
        let seen = scene.run(ms(delay), true);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].0, ms(delay));
        assert!(scene.supervision.is_running(Child::Dns));
    }
    scene.die((Child::Dns, scene.instance(Child::Dns)));
    assert_eq!(shown(&scene.events()), ["died dns", "give up dns"]);
    assert!(scene.run(ms(2000), true).is_empty());
}

#[test]
fn the_death_of_a_former_instance_is_ignored() {
    let mut scene = Scene::started();
    let former = scene.instance(Child::Tun(1));
    scene.die((Child::Tun(1), former));
    scene.events();
    for _ in 0..9 {
        scene.die((Child::Tun(1), former));
    }
    assert_eq!(shown(&scene.events()), [""; 0]);
    scene
        .supervision
        .handle_pong(Child::Tun(1), former, scene.now);
    assert_eq!(
        shown(&scene.events()),
        [""; 0],
        "its answer does not count either"
    );
}

#[test]
fn the_third_death_cuts_a_client_off_until_its_time() {
    let mut scene = Scene::started();
    let mut at = scene.connect(1);
    for _ in 0..2 {
        scene.die(at);
        scene.events();
        scene.run(ms(10), true);
        at.1 = scene.instance(at.0);
    }
    scene.die(at);
    let seen = shown(&scene.events());
    assert_eq!(seen, ["died connection", "cut off 1", "detach 1"]);
    assert!(scene.ledger.client(client(1)).is_none());
    scene.run(ms(29_999), true);
    assert_eq!(scene.request(open(1, 1)), Err(Refusal::CutOff));
    let rest = scene.supervision.cut_off_for(client(1), scene.now);
    assert_eq!(rest, Some(ms(1)));
    scene.connect(2);
    scene.run(ms(1), true);
    assert_eq!(scene.supervision.cut_off_for(client(1), scene.now), None);
    scene.connect(1);
}

#[test]
fn a_successor_gets_the_requests_that_were_not_acknowledged() {
    let mut scene = Scene::started();
    let at = scene.connect(1);
    for request in [
        open(1, 2),
        open(1, 3),
        allow(1, None, false),
        allow(1, None, true),
    ] {
        scene.request(request).expect("admitted");
    }
    scene.supervision.handle_acknowledgement(client(1), "ref-1");
    scene.ledger.revoke(client(1), resource(2).id);
    scene.ledger.set_expiry(AuthorizationEntry {
        client: client(1),
        resource: resource(3).id,
        expires_at: Some(UnixTime(5)),
    });
    scene.events();
    scene.die(at);
    let seen = scene.events();
    let expected = [
        "died connection",
        "connect 1",
        "pass ref-3",
        "pass ref-access",
    ];
    assert_eq!(shown(&seen), expected);
    let Event::Pass(_, _, ClientCommand::Authorize(renewed)) = &seen[2] else {
        panic!("{seen:?}");
    };
    assert_eq!(renewed.expires_at, Some(UnixTime(5)));
    let instance = scene.instance(at.0);
    let closed = |handled| Progress {
        client: client(1),
        instance,
        handled,
    };
    assert!(!scene.supervision.has_handled_all(closed(1)));
    assert!(scene.supervision.has_handled_all(closed(2)));
}

#[test]
fn a_request_to_a_dead_connection_waits_for_its_successor() {
    let mut scene = Scene::started();
    let mut at = scene.connect(1);
    scene.die(at);
    at.1 = scene.instance(at.0);
    scene.die(at);
    scene.events();
    scene
        .request(open(1, 2))
        .expect("it will have a connection");
    assert_eq!(shown(&scene.events()), [""; 0]);
    let seen: Vec<_> = scene.run(ms(10), true).into_iter().map(|it| it.1).collect();
    assert_eq!(shown(&seen), ["connect 1", "pass ref-1", "pass ref-2"]);
}

#[test]
fn at_most_32_requests_wait_and_the_oldest_goes() {
    let mut scene = Scene::started();
    let at = scene.connect(1);
    for number in 2..=40 {
        scene.request(open(1, number)).expect("admitted");
    }
    scene.events();
    scene.die(at);
    let seen = shown(&scene.events());
    assert_eq!((seen.len(), &*seen[2]), (2 + 32, "pass ref-9"));
}

#[test]
fn a_client_that_lost_all_grants_is_not_restarted() {
    let mut scene = Scene::started();
    let at = scene.connect(1);
    scene.ledger.revoke(client(1), resource(1).id);
    scene.die(at);
    assert_eq!(shown(&scene.events()), ["died connection", "detach 1"]);
    assert!(scene.supervision.client(client(1)).is_none());
}

#[test]
fn a_connection_closes_unless_a_request_is_on_its_way() {
    let mut scene = Scene::started();
    let (child, instance) = scene.connect(1);
    scene.request(open(1, 2)).expect("admitted");
    scene.events();
    let closed = |handled| Progress {
        client: client(1),
        instance,
        handled,
    };
    let Scene {
        supervision,
        ledger,
        now,
    } = &mut scene;
    supervision.handle_closed(closed(1), ledger, *now);
    assert!(supervision.client(client(1)).is_some());
    supervision.handle_closed(closed(2), ledger, *now);
    assert!(supervision.client(client(1)).is_none());
    assert!(ledger.client(client(1)).is_none());
    assert_eq!(shown(&scene.events()), ["stop"]);
    // One that does not stop is ended.
    let seen = scene.run(ms(10_000), true);
    assert_eq!((seen.len(), seen[0].0), (1, ms(5000)));
    assert_eq!(shown(&[seen[0].1.clone()]), ["abort connection"]);
    scene.die((child, instance));
    assert_eq!(shown(&scene.events()), ["detach 1"]);
}

#[test]
fn a_panic_on_the_way_out_counts_and_the_present_connection_is_ended_before_its_index_is_free() {
    let mut scene = Scene::started();
    let mut at = scene.connect(1);
    for _ in 0..2 {
        scene.die(at);
        scene.run(ms(10), true);
        at.1 = scene.instance(at.0);
    }
    scene.request(open_at(1, tunnel(7), 1)).expect("admitted");
    let [present] = connected(&scene.events())[..] else {
        panic!("one connection");
    };
    scene.end(at.0, at.1, panicked());
    let seen = shown(&scene.events());
    assert_eq!(
        seen,
        ["died connection", "cut off 1", "goodbye", "detach 1"]
    );
    assert_eq!(scene.request(open(1, 1)), Err(Refusal::CutOff));
    scene.die(present);
    assert_eq!(shown(&scene.events()), ["detach 1"]);
}

#[test]
fn a_child_that_does_not_answer_is_ended_and_then_restarted() {
    let mut scene = Scene::started();
    let at = (Child::Dns, scene.instance(Child::Dns));
    let mut ended_at = None;
    while ended_at.is_none() {
        let due = scene.supervision.poll_timeout().expect("it is watched");
        scene.now = due;
        scene.supervision.handle_timeout(&mut scene.ledger, due);
        for event in scene.events() {
            if let Event::Ping(child, id) = event
                && child != Child::Dns
            {
                scene.supervision.handle_pong(child, id, due);
            } else if let Event::Abort(Child::Dns) = event {
                ended_at = Some(due);
            }
        }
    }
    assert!(!scene.supervision.is_running(Child::Dns));
    scene.now += ms(3);
    scene.die(at);
    assert_eq!(
        shown(&scene.events()),
        ["hung dns", "start dns", "ping dns"]
    );
    let successor = scene.instance(Child::Dns);
    scene.now += ms(4);
    scene
        .supervision
        .handle_pong(Child::Dns, successor, scene.now);
    assert_eq!(shown(&scene.events()), ["recovered dns 7"]);
    scene
        .supervision
        .handle_pong(Child::Dns, successor, scene.now);
    assert_eq!(shown(&scene.events()), [""; 0]);
}

#[test]
fn a_child_that_takes_no_commands_is_ended() {
    let mut scene = Scene::started();
    let at = scene.connect(1);
    scene.supervision.handle_deaf(at.0, scene.now);
    scene.supervision.handle_deaf(at.0, scene.now);
    assert_eq!(
        shown(&scene.events()),
        ["deaf connection", "abort connection"]
    );
    scene.die(at);
    let expected = ["hung connection", "connect 1", "pass ref-1"];
    assert_eq!(shown(&scene.events()), expected);
    scene.supervision.handle_stop();
    scene.supervision.handle_deaf(at.0, scene.now);
    assert_eq!(shown(&scene.events()), [""; 0]);
}

#[test]
fn a_command_about_all_clients_reaches_each_with_its_own_grants() {
    let mut scene = Scene::started();
    scene.connect(1);
    scene.connect(2);
    let entry = AuthorizationEntry {
        client: client(2),
        resource: resource(2).id,
        expires_at: None,
    };
    let reconcile = ClientCommand::Reconcile {
        gateway: tunnel(99),
        granted: vec![entry],
    };
    scene.request(reconcile).expect("nothing to admit");
    let of_client = |event: &Event| {
        let Event::Pass(_, _, ClientCommand::Reconcile { granted, .. }) = event else {
            panic!("{event:?}");
        };
        granted.len()
    };
    let seen: Vec<_> = scene.events().iter().map(of_client).collect();
    assert_eq!(seen, [0, 1]);
    assert!(scene.ledger.client(client(1)).is_none());
}

#[test]
fn a_connection_has_recovered_when_it_has_a_session() {
    let mut scene = Scene::started();
    let at = scene.connect(1);
    scene.die(at);
    scene.events();
    scene.now += ms(30);
    let successor = scene.instance(at.0);
    scene.supervision.handle_pong(at.0, successor, scene.now);
    assert_eq!(shown(&scene.events()), [""; 0]);
    scene.supervision.handle_session(client(1), scene.now);
    scene.supervision.handle_session(client(1), scene.now);
    assert_eq!(shown(&scene.events()), ["recovered connection 30"]);
}

#[test]
fn a_stuck_thread_is_replaced_with_everything_on_it() {
    let mut scene = Scene::started();
    let first = scene.connect(1);
    let other = scene.connect(2);
    let seen = scene.stick(Child::Udp(0), None);
    let expected = [
        "stuck udp",
        "replace Shard(0)",
        "abort tun",
        "abort nat_table",
        "abort udp",
        "abort connection",
        "start tun",
        "ping tun",
        "start nat_table",
        "ping nat_table",
        "start udp",
        "ping udp",
        "connect 1",
        "pass ref-1",
    ];
    assert_eq!(shown(&seen), expected);
    assert_eq!(connected(&seen)[0].0, first.0, "it keeps its index");
    assert_eq!(scene.instance(other.0), other.1);
    // What the thread dropped late does not count.
    scene.die(first);
    assert_eq!(shown(&scene.events()), [""; 0]);
}

#[test]
fn a_stuck_thread_is_charged_to_the_client_that_blocks_it() {
    let mut scene = Scene::started();
    let (child, _) = scene.connect(1);
    for _ in 0..2 {
        let seen = scene.stick(Child::Tun(0), Some(scene.instance(child)));
        assert_eq!(shown(&seen)[0], "stuck connection");
        assert_eq!(connected(&seen).len(), 1);
    }
    let seen = scene.stick(Child::Tun(0), Some(scene.instance(child)));
    assert_eq!(connected(&seen).len(), 0);
    let seen = shown(&seen);
    assert!(seen.contains(&"cut off 1".to_owned()), "{seen:?}");
    assert!(seen.contains(&"start tun".to_owned()), "{seen:?}");
}

#[test]
fn the_fifth_time_a_shared_child_blocks_its_thread_ends_the_process() {
    let mut scene = Scene::started();
    for _ in 0..4 {
        let seen = shown(&scene.stick(Child::Dns, None));
        let expected = ["stuck dns", "replace Control", "abort dns", "abort portal"];
        assert_eq!(seen[..4], expected);
    }
    let seen = shown(&scene.stick(Child::Dns, None));
    assert_eq!(seen, ["stuck dns", "give up dns"]);
}

#[test]
fn a_thread_on_which_two_children_hang_is_replaced_once() {
    let mut scene = Scene::started();
    scene.supervision.end_hung(Child::Tun(0), scene.now);
    scene.supervision.end_hung(Child::Udp(0), scene.now);
    let mut replaced = 0;
    for (_, event) in scene.run(ms(500), true) {
        if let Event::AskThread(child) = event {
            let ledger = &mut scene.ledger;
            scene
                .supervision
                .handle_stuck(child, None, ledger, scene.now);
            let is_replaced = |event: &Event| matches!(event, Event::ReplaceThread(_));
            replaced += scene.events().iter().filter(|it| is_replaced(it)).count();
        }
    }
    assert_eq!(replaced, 1);
}

#[test]
fn a_thread_that_drops_the_child_in_time_is_not_asked_about() {
    let mut scene = Scene::started();
    scene.supervision.end_hung(Child::Admin, scene.now);
    scene.die((Child::Admin, scene.instance(Child::Admin)));
    scene.events();
    assert!(scene.run(ms(1000), true).is_empty());
}

#[test]
fn portions_keep_the_rate_of_handshakes_over_two_threads() {
    let config = SupervisionConfig {
        max_clients: 12,
        ..CONFIG
    };
    let mut scene = Scene::new(config);
    scene.supervision.handle_start(&mut scene.ledger, scene.now);
    for id in 1..=12 {
        scene.request(open(id, 1)).expect("admitted");
    }
    scene.events();
    // Both shards are stuck at nearly the same time.
    scene.supervision.end_hung(Child::Tun(0), scene.now);
    scene
        .supervision
        .end_hung(Child::Tun(1), scene.now + ms(10));
    let mut started = Vec::new();
    let end = scene.now + ms(5000);
    while let Some(due) = scene.supervision.poll_timeout().filter(|due| *due <= end) {
        scene.now = scene.now.max(due);
        scene.supervision.handle_timeout(&mut scene.ledger, due);
        while let Some(event) = scene.supervision.poll_event() {
            started.extend(connected(std::slice::from_ref(&event)).iter().map(|_| due));
            if let Event::Ping(child, id) = event {
                scene.supervision.handle_pong(child, id, due);
            } else if let Event::AskThread(child) = event {
                let ledger = &mut scene.ledger;
                scene.supervision.handle_stuck(child, None, ledger, due);
            }
        }
    }
    assert_eq!(started.len(), 12);
    for window in started.windows(3) {
        assert!(window[2] - window[0] >= ms(240), "{started:?}");
    }
}

#[test]
fn a_client_granted_before_its_portion_is_started_once() {
    let mut scene = Scene::new(CONFIG);
    for id in 1..=3 {
        scene.ledger.record_command(&open(id, 1));
    }
    scene.supervision.handle_start(&mut scene.ledger, scene.now);
    scene.events();
    scene.request(open(3, 2)).expect("admitted");
    let seen = scene.events();
    assert_eq!(shown(&seen), ["connect 3", "pass ref-2"]);
    let Event::Connect(connection) = &seen[0] else {
        panic!("{seen:?}");
    };
    assert!(connection.is_first && connection.record.is_some());
    assert!(scene.run(ms(2000), true).is_empty());
}

#[test]
fn a_gateway_that_stops_starts_nothing() {
    let mut scene = Scene::started();
    let first = scene.connect(1);
    let second = scene.connect(2);
    let mut at = (Child::Dns, scene.instance(Child::Dns));
    scene.die(at);
    at.1 = scene.instance(Child::Dns);
    scene.die(at);
    scene.events();
    scene.supervision.handle_stop();
    assert_eq!(scene.request(open(3, 1)), Err(Refusal::Stopping));
    assert_eq!(scene.request(open(1, 2)), Err(Refusal::Stopping));
    scene
        .request(allow(1, None, true))
        .expect("it is recorded for the next process");
    let moved = allow(2, Some(tunnel(9)), true);
    assert_eq!(scene.request(moved), Err(Refusal::Stopping));
    scene.die(first);
    assert_eq!(shown(&scene.events()), ["pass ref-access", "goodbye"]);
    scene.die(second);
    assert_eq!(shown(&scene.events()), ["detach 2"]);
    assert!(scene.run(ms(2000), true).is_empty());
}

#[test]
fn draining_refuses_new_clients_and_serves_old_ones() {
    let mut scene = Scene::started();
    scene.connect(1);
    scene.supervision.handle_drain(ms(60_000), scene.now);
    assert_eq!(scene.request(open(2, 1)), Err(Refusal::Draining));
    scene.request(open(1, 2)).expect("an old one");
    scene.events();
    let drain = *scene.supervision.drain().expect("it drains");
    assert_eq!((drain.refused, drain.active), (1, 1));
    let seen: Vec<_> = scene
        .run(ms(2000), true)
        .into_iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(shown(&seen), ["count", "count"]);
    scene.supervision.handle_active(1, scene.now);
    assert_eq!(shown(&scene.events()), [""; 0]);
    let cancelled = scene.supervision.cancel_drain().expect("it drained");
    assert_eq!(cancelled.refused, 1);
    scene.request(open(2, 1)).expect("it goes on");
    scene.events();
    assert!(scene.run(ms(2000), true).is_empty());
}

#[test]
fn draining_ends_without_active_clients_or_at_its_deadline() {
    let mut scene = Scene::started();
    scene.connect(1);
    scene.supervision.handle_drain(Duration::MAX, scene.now);
    scene.supervision.handle_drain(ms(3000), scene.now);
    scene.supervision.note_active(0);
    assert_eq!(shown(&scene.events()), [""; 0], "a report does not end it");
    scene.supervision.handle_active(1, scene.now + ms(2999));
    assert_eq!(shown(&scene.events()), [""; 0]);
    scene.supervision.handle_active(1, scene.now + ms(3000));
    assert_eq!(shown(&scene.events()), ["drained"]);
    scene.supervision.handle_active(0, scene.now);
    assert_eq!(shown(&scene.events()), ["drained"]);
}

#[test]
fn a_client_counts_as_active_for_a_minute_after_its_last_packet() {
    let stats = |inbound: Option<u64>, outbound: Option<u64>| {
        let traffic = |before: Option<u64>| TrafficStats {
            last_before: before.map(ms),
            ..TrafficStats::default()
        };
        ConnectionStats {
            inbound: traffic(inbound),
            outbound: traffic(outbound),
            ..ConnectionStats::default()
        }
    };
    assert!(is_active(None));
    assert!(!is_active(Some(&stats(None, None))));
    assert!(is_active(Some(&stats(None, Some(59_999)))));
    assert!(is_active(Some(&stats(Some(0), Some(100_000)))));
    assert!(!is_active(Some(&stats(Some(60_000), None))));
}
