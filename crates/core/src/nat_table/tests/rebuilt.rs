//! A table that takes the place of one that died, under connections that go on.

use super::*;

/// The addresses that the owner recorded, of one table for the next.
fn known(scene: &mut Scene) -> Vec<RestoredName> {
    let known = scene.events().into_iter().filter_map(|event| match event {
        NatTableEvent::NameKnown { name, family, ips } => Some(RestoredName {
            name,
            family,
            ips,
            age: Duration::from_secs(60),
        }),
        NatTableEvent::Resolve { .. } | NatTableEvent::Status { .. } => None,
    });
    known.collect()
}

/// The table dies; its successor is told what is known, and the client's names.
fn rebuild(scene: &mut Scene, known: Vec<RestoredName>) {
    scene.nat = NatTable::new(NatTableConfig::default(), [8; 32], scene.now);
    scene.nat.restore_names(known, scene.now);
    let (id, tunnel) = client(1);
    scene.nat.attach(id, tunnel);
    scene.assign(1, "app.example", 0);
}

fn data(proxy: IpAddr, from: u16) -> Vec<u8> {
    let own = if proxy.is_ipv4() {
        own_v4(1)
    } else {
        own_v6(1)
    };
    tcp(&own, &proxy.to_string(), from, 80, ACK)
}

fn with_two_addresses() -> (Scene, Vec<RestoredName>) {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL, OTHER_REAL]));
    scene.answer("app.example", AddressFamily::V6, Ok(&[REAL_V6]));
    let known = known(&mut scene);
    assert_eq!(known.len(), 2);
    (scene, known)
}

#[test]
fn lesson_05_flows_come_back_by_their_next_packet_before_any_dns_answer() {
    let (mut scene, known) = with_two_addresses();
    let proxies = [proxy_v4(0, 0), proxy_v4(0, 1), proxy_v6(0, 3)];
    let connect = |proxy| {
        let sent = scene.send(&syn(proxy, 5000)).remove(0);
        scene.receive(&reply_to(&sent, SYN_ACK));
        sent
    };
    let opened = proxies.map(connect);
    rebuild(&mut scene, known);
    for (proxy, opened) in proxies.into_iter().zip(&opened) {
        let sent = scene.send(&data(proxy, 5000));
        assert_eq!(
            IpPacket::parse(&sent[0]).expect("valid").destination(),
            IpPacket::parse(opened).expect("valid").destination(),
        );
        assert_eq!(sent[0][20..22], opened[20..22], "the outside port");
        let back = scene.receive(&reply_to(&sent[0], ACK));
        assert_eq!(back, [reply_to(&data(proxy, 5000), ACK)]);
    }
    // The answer names the same addresses, in whatever order: nothing moves, nothing is news.
    scene.events();
    scene.answer("app.example", AddressFamily::V4, Ok(&[OTHER_REAL, REAL]));
    assert_eq!(scene.events(), []);
    assert_eq!(
        destination_of(&scene.send(&syn(proxy_v4(0, 0), 5001))),
        [REAL]
    );
    let other = scene.send(&syn(proxy_v4(0, 1), 5001));
    assert_eq!(destination_of(&other), [OTHER_REAL]);
}

#[test]
fn lesson_33_the_announcement_renews_what_was_known() {
    let (mut scene, known) = with_two_addresses();
    rebuild(&mut scene, known);
    let asks =
        |event: &NatTableEvent| matches!(event, NatTableEvent::Resolve { refresh: false, .. });
    assert_eq!(scene.events().iter().filter(|it| asks(it)).count(), 1);
    scene.answer("app.example", AddressFamily::V4, Ok(&["10.20.0.102"]));
    let is_told = |event: &NatTableEvent| matches!(event, NatTableEvent::NameKnown { ips, .. } if ips.len() == 1);
    assert!(scene.events().iter().any(is_told));
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&sent), ["10.20.0.102"]);
}

/// What the client's TCP makes of it: it has one connection.
fn answer_of_client(shown: &[Vec<u8>], proxy: IpAddr) -> Vec<Vec<u8>> {
    let answer = |segment: &Vec<u8>| {
        let from = IpPacket::parse(segment).expect("valid").source();
        reply_to(segment, if from == proxy { ACK } else { RST })
    };
    shown.iter().map(answer).collect()
}

#[test]
fn a_download_goes_on_though_only_the_resource_speaks() {
    let (mut scene, known) = with_two_addresses();
    let proxy = proxy_v4(0, 3);
    let opened = scene.send(&syn(proxy, 5000)).remove(0);
    scene.receive(&reply_to(&opened, SYN_ACK));
    rebuild(&mut scene, known);

    let segment = reply_to(&opened, ACK);
    let shown = scene.receive(&segment);
    let (original, copies): (Vec<_>, Vec<_>) = shown.into_iter().partition(|it| *it == segment);
    assert_eq!(original.len(), 1, "left to the policy");
    let sources: BTreeSet<_> = copies
        .iter()
        .map(|it| IpPacket::parse(it).expect("valid").source())
        .collect();
    assert_eq!(sources, [proxy_v4(0, 1), proxy].into(), "of that address");

    // The resets come first, the worse case.
    let mut answers = answer_of_client(&copies, proxy);
    answers.sort_by_key(|answer| answer[33] != RST);
    let forwarded: Vec<_> = answers.iter().flat_map(|it| scene.send(it)).collect();
    assert_eq!(forwarded.len(), 1, "the acknowledgement alone");
    assert_eq!(forwarded[0][20..22], opened[20..22]);
    assert_eq!(destination_of(&forwarded), [OTHER_REAL]);
    assert_eq!(scene.receive(&segment), [reply_to(&data(proxy, 5000), ACK)]);
    assert_eq!(scene.drops(DropReason::ExpiredFlow), 1);
}

#[test]
fn segments_are_shown_around_seldom_and_never_without_a_rebuild() {
    let (mut scene, known) = with_two_addresses();
    let segment = tcp(REAL, &own_v4(1), 80, 6000, ACK);
    assert_eq!(scene.receive(&segment), std::slice::from_ref(&segment));

    rebuild(&mut scene, known);
    assert_eq!(scene.receive(&segment).len(), 3);
    assert_eq!(scene.receive(&segment).len(), 1, "a moment later");
    let mut shown = 0;
    for _ in 0..100 {
        scene.pass(Duration::from_millis(200));
        shown += scene.receive(&segment).len() - 1;
    }
    assert_eq!(shown, 2 * 9, "nobody answers");
    // What cannot be of a name, or has its flow, is not shown at all.
    let foreign = tcp("10.99.0.1", &own_v4(1), 80, 6001, ACK);
    let handshake = tcp(REAL, &own_v4(1), 80, 6002, SYN_ACK);
    for packet in [foreign, handshake] {
        assert_eq!(scene.receive(&packet), std::slice::from_ref(&packet));
    }
    scene.pass(Duration::from_secs(7440));
    assert_eq!(scene.receive(&segment).len(), 1, "nothing lives that long");
}

#[test]
fn a_client_may_still_reset_what_nobody_guessed_at() {
    let (mut scene, known) = with_two_addresses();
    rebuild(&mut scene, known);
    let reset = tcp(&own_v4(1), &proxy_v4(0, 0).to_string(), 5000, 80, RST);
    assert_eq!(destination_of(&scene.send(&reset)), [REAL]);
}

#[test]
fn attaching_again_with_the_same_addresses_keeps_names_and_flows() {
    let (mut scene, _) = with_two_addresses();
    let opened = scene.send(&syn(proxy_v4(0, 0), 5000)).remove(0);
    let (id, tunnel) = client(1);
    scene.nat.attach(id, tunnel);
    scene.assign(1, "app.example", 0);
    let back = scene.receive(&reply_to(&opened, SYN_ACK));
    assert_eq!(back, [reply_to(&syn(proxy_v4(0, 0), 5000), SYN_ACK)]);
}

#[test]
fn lesson_07_a_resolver_that_was_restarted_is_asked_what_it_had_not_answered() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.assign(1, "b.example", 1);
    scene.assign(1, "c.example", 2);
    for family in AddressFamily::ALL {
        scene.answer("b.example", family, Err(NameFailure::NoData));
    }
    scene.answer("c.example", AddressFamily::V4, Ok(&[REAL]));
    scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.events();
    scene.pass(Duration::from_millis(1500));
    scene.nat.handle_resolver_restarted(scene.now);
    let asked = scene.events().into_iter().filter_map(|event| match event {
        NatTableEvent::Resolve { name, refresh, .. } => Some((name.to_string(), refresh)),
        NatTableEvent::NameKnown { .. } | NatTableEvent::Status { .. } => None,
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(
        asked,
        [("app.example".into(), false), ("c.example".into(), false)]
    );
    // The held packet waits no longer for it.
    scene.pass(Duration::from_millis(501));
    assert_eq!(scene.delivered().len(), 1);
}
