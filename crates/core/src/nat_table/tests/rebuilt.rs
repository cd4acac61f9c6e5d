//! A table that replaces a crashed one while connections go on.

use super::*;
use crate::nat_table::flows::FlowProtocol;

/// The addresses that the owner of one table recorded for the next.
fn known(scene: &mut Scene) -> Vec<RestoredName> {
    known_and_pinned(scene, &mut Vec::new())
}

/// The same; `pins` become those that it recorded.
fn known_and_pinned(scene: &mut Scene, pins: &mut Vec<PinnedFlow>) -> Vec<RestoredName> {
    let mut known = Vec::new();
    for event in scene.events() {
        if let NatTableEvent::PinsChanged { pins: changed, .. } = event {
            *pins = changed;
        } else if let NatTableEvent::NameKnown { name, family, ips } = event {
            let age = Duration::from_secs(60);
            known.push(RestoredName {
                name,
                family,
                ips,
                age,
            });
        }
    }
    known
}

/// Replaces the table; the new one gets the records and the client's names.
fn rebuild(scene: &mut Scene, known: Vec<RestoredName>) {
    scene.nat = NatTable::new(NatTableConfig::default(), [8; 32], scene.now);
    scene.nat.begin_recovery(scene.now);
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

/// docs/lessons.md 5: A refresh does not cut live flows.
#[test]
fn flows_resume_with_their_next_packet_before_any_dns_answer() {
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
    // The answer has the same addresses in another order: nothing moves, nothing is reported.
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

/// docs/lessons.md 33: Names are resolved again and pruned.
#[test]
fn an_announcement_renews_restored_addresses() {
    let (mut scene, known) = with_two_addresses();
    rebuild(&mut scene, known);
    let mut asked = scene.events();
    asked.retain(|event| matches!(event, NatTableEvent::Resolve { refresh: false, .. }));
    assert_eq!(asked.len(), 1);
    scene.answer("app.example", AddressFamily::V4, Ok(&["10.20.0.102"]));
    let news = self::known(&mut scene);
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].ips.len(), 1);
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&sent), ["10.20.0.102"]);
}

/// The reaction of the client's TCP, which has one connection.
fn answer_of_client(shown: &[Vec<u8>], proxy: IpAddr) -> Vec<Vec<u8>> {
    let answer = |segment: &Vec<u8>| {
        let from = IpPacket::parse(segment).expect("valid").source();
        reply_to(segment, if from == proxy { ACK } else { RST })
    };
    shown.iter().map(answer).collect()
}

#[test]
fn a_download_resumes_though_only_the_resource_sends() {
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
fn copies_segments_rarely_and_only_after_a_rebuild() {
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
    assert_eq!(shown, 2 * 9, "no answer");
    // Segments of no name, or with a flow, are not copied.
    let foreign = tcp("10.99.0.1", &own_v4(1), 80, 6001, ACK);
    let handshake = tcp(REAL, &own_v4(1), 80, 6002, SYN_ACK);
    for packet in [foreign, handshake] {
        assert_eq!(scene.receive(&packet), std::slice::from_ref(&packet));
    }
    scene.pass(Duration::from_secs(15 * 60));
    assert_eq!(scene.receive(&segment).len(), 1, "it is over");
    assert!(scene.nat.recovery.is_idle());
}

#[test]
fn a_reset_of_the_original_segment_does_not_end_the_download() {
    let (mut scene, known) = with_two_addresses();
    let opened = scene.send(&syn(proxy_v4(0, 0), 5000)).remove(0);
    scene.receive(&reply_to(&opened, SYN_ACK));
    rebuild(&mut scene, known);
    let segment = reply_to(&opened, ACK);
    scene.receive(&segment);
    // The client also has access to the network of the real address, and no such connection.
    let reset = reply_to(&segment, RST);
    assert_eq!(destination_of(std::slice::from_ref(&reset)), [REAL]);
    assert!(scene.send(&reset).is_empty());
    assert_eq!(scene.drops(DropReason::ExpiredFlow), 1);
    // Other packets to that network pass, as do resets that answer no copy.
    let own = tcp(&own_v4(1), REAL, 5000, 80, ACK);
    let other = tcp(&own_v4(1), REAL, 5001, 80, RST);
    for packet in [own, other] {
        assert_eq!(scene.send(&packet), std::slice::from_ref(&packet));
    }
    scene.pass(Duration::from_secs(3));
    assert_eq!(scene.send(&reset), [reset], "it may well be meant");
}

#[test]
fn recovers_only_clients_of_the_former_table() {
    let segment = tcp(REAL, &own_v4(1), 80, 6000, ACK);
    let shown_to_client_after = |wait: Option<Duration>| {
        let (mut scene, known) = with_two_addresses();
        scene.nat = NatTable::new(NatTableConfig::default(), [8; 32], scene.now);
        if wait.is_some() {
            scene.nat.begin_recovery(scene.now);
        }
        scene.nat.restore_names(known, scene.now);
        scene.pass(wait.unwrap_or_default());
        let (id, tunnel) = client(1);
        scene.nat.attach(id, tunnel);
        scene.assign(1, "app.example", 0);
        scene.receive(&segment).len() - 1
    };
    assert_eq!(shown_to_client_after(Some(Duration::from_secs(59))), 2);
    assert_eq!(shown_to_client_after(Some(Duration::from_secs(60))), 0);
    assert_eq!(shown_to_client_after(None), 0, "there was no former table");
}

#[test]
fn a_flood_of_segments_without_a_flow_is_bounded() {
    let (mut scene, known) = with_two_addresses();
    rebuild(&mut scene, known);
    let segment = |port| tcp(REAL, &own_v4(1), 80, port, ACK);
    let flood = |scene: &mut Scene, from: u16| {
        let copies = (from..from + 1000).map(|port| scene.receive(&segment(port)).len() - 1);
        copies.sum::<usize>()
    };
    assert_eq!(flood(&mut scene, 10_000), 64 * 2, "a place for each");
    scene.pass(Duration::from_secs(2));
    assert_eq!(flood(&mut scene, 20_000), 0, "the places are taken");
    scene.pass(Duration::from_secs(1));
    assert_eq!(flood(&mut scene, 30_000), 64 * 2, "no answer");
    // More names with the same address than the limits: 64 copies of a segment, 256 a second.
    share_address(&mut scene, 1..17);
    scene.pass(Duration::from_secs(3));
    let first = scene.receive(&segment(40_000)).len() - 1;
    assert_eq!(first, 64);
    let copies = first + flood(&mut scene, 40_001);
    assert!((200..=256).contains(&copies), "{copies}");
}

/// Names with the address of the first one.
fn share_address(scene: &mut Scene, blocks: std::ops::Range<u8>) {
    for block in blocks {
        let name = format!("n{block}.example");
        scene.assign(1, &name, block);
        scene.answer(&name, AddressFamily::V4, Ok(&[REAL]));
    }
}

#[test]
fn a_download_resumes_for_any_of_several_names_with_one_address() {
    let (mut scene, mut names) = with_two_addresses();
    share_address(&mut scene, 1..9);
    names.extend(known(&mut scene));
    for block in 1..9 {
        let proxy = proxy_v4(block, 3);
        let port = 5000 + u16::from(block);
        let opened = scene.send(&syn(proxy, port)).remove(0);
        scene.receive(&reply_to(&opened, SYN_ACK));
        rebuild(&mut scene, names.clone());
        share_address(&mut scene, 1..9);
        let shown = scene.receive(&reply_to(&opened, ACK));
        let source = |it: &Vec<u8>| IpPacket::parse(it).expect("valid").source();
        assert!(shown.iter().map(source).any(|it| it == proxy), "n{block}");
    }
}

#[test]
fn forwards_resets_that_answer_no_copy() {
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

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn repeats_unanswered_lookups_after_a_resolver_restart() {
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
    let mut asked = Vec::new();
    for event in scene.events() {
        if let NatTableEvent::Resolve { name, refresh, .. } = event {
            asked.push((name.to_string(), refresh));
        }
    }
    assert_eq!(
        asked,
        [("app.example".into(), false), ("c.example".into(), false)]
    );
    // The held packet waits no longer for it.
    scene.pass(Duration::from_millis(501));
    assert_eq!(scene.delivered().len(), 1);
}

/// The owner's record of pinned flows.
fn note_pins(scene: &mut Scene, pins: &mut Vec<PinnedFlow>) {
    for event in scene.events() {
        if let NatTableEvent::PinsChanged { pins: changed, .. } = event {
            *pins = changed;
        }
    }
}

/// docs/lessons.md 5: A refresh does not cut live flows.
#[test]
fn a_flow_to_a_former_address_is_pinned_and_comes_back_from_either_side() {
    let (mut scene, _) = with_two_addresses();
    let mut opened = Vec::new();
    for port in [5000, 5001, 5002] {
        let sent = scene.send(&syn(proxy_v4(0, 0), port)).remove(0);
        scene.receive(&reply_to(&sent, SYN_ACK));
        opened.push(sent);
    }
    let mut pins = Vec::new();
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins, [], "they follow the rule");
    let new = ["10.20.0.102"];
    scene.answer("app.example", AddressFamily::V4, Ok(&new));
    let known = known_and_pinned(&mut scene, &mut pins);
    assert_eq!(pins.len(), 3);

    rebuild(&mut scene, known);
    scene.nat.restore_pins(client(1).0, pins, scene.now);
    let sent = scene.send(&data(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&sent), [REAL]);
    let segment = reply_to(&opened[1], ACK);
    let expected = reply_to(&data(proxy_v4(0, 0), 5001), ACK);
    assert_eq!(scene.receive(&segment), [expected], "no guess");
    let anew = scene.send(&syn(proxy_v4(0, 0), 5002));
    assert_eq!(destination_of(&anew), new, "a new connection");
}

#[test]
fn a_flow_whose_port_was_taken_is_pinned_until_it_ends() {
    let (mut scene, known) = with_two_addresses();
    let proxies = [proxy_v4(0, 0), proxy_v4(0, 2)];
    let connect = |proxy| {
        let sent = scene.send(&syn(proxy, 5000)).remove(0);
        scene.receive(&reply_to(&sent, SYN_ACK));
        sent
    };
    let opened = proxies.map(connect);
    let mut pins = Vec::new();
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins.len(), 1);
    assert_eq!((pins[0].proxy, pins[0].port), (proxies[1], 5000));
    assert_eq!(pins[0].outside_port.to_be_bytes(), opened[1][20..22]);

    rebuild(&mut scene, known);
    scene.events();
    scene.nat.restore_pins(client(1).0, pins.clone(), scene.now);
    let sent = scene.send(&data(proxies[1], 5000));
    assert_eq!(sent[0][20..22], opened[1][20..22]);
    scene.receive(&reply_to(&sent[0], ACK));
    scene.pass(Duration::from_secs(120));
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins.len(), 1, "reported once, and live");
    scene.receive(&reply_to(&sent[0], RST));
    scene.pass(Duration::from_secs(31));
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins, []);
    assert_eq!(scene.nat.pins.poll_timeout(), None, "nothing to look for");
}

#[test]
fn unused_restored_pins_expire() {
    let (mut scene, known) = with_two_addresses();
    rebuild(&mut scene, known);
    let pin = PinnedFlow {
        protocol: FlowProtocol::Tcp,
        port: 5000,
        proxy: proxy_v4(0, 0),
        name: "app.example".parse().expect("a name"),
        outside_port: 6000,
        real: OTHER_REAL.parse().expect("literal"),
    };
    let mut pins = vec![pin.clone()];
    scene.nat.restore_pins(client(1).0, pins.clone(), scene.now);
    scene.pass(Duration::from_secs(7000));
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins, [pin]);
    scene.pass(Duration::from_secs(500));
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins, []);
}

/// A table whose predecessor pinned a flow of `app.example`; its proxy IPs are announced as `name`.
fn rebuilt_with_pin(name: &str) -> (Scene, PinnedFlow) {
    let mut scene = Scene::new(&[1]);
    let pin = PinnedFlow {
        protocol: FlowProtocol::Tcp,
        port: 5000,
        proxy: proxy_v4(0, 0),
        name: "app.example".parse().expect("a name"),
        outside_port: 6000,
        real: OTHER_REAL.parse().expect("literal"),
    };
    (scene.nat).restore_pins(client(1).0, vec![pin.clone()], scene.now);
    scene.assign(1, name, 0);
    scene.answer(name, AddressFamily::V4, Ok(&[REAL]));
    scene.events();
    (scene, pin)
}

/// A packet of the resource in the pinned flow.
fn from_pinned(flags: u8) -> Vec<u8> {
    tcp(OTHER_REAL, &own_v4(1), 80, 6000, flags)
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn a_pin_of_another_name_is_void() {
    let (mut scene, mut pin) = rebuilt_with_pin("other.example");
    let segment = from_pinned(ACK);
    assert_eq!(scene.receive(&segment), [segment], "as if untranslated");
    let sent = scene.send(&data(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&sent), [REAL], "where the other name leads");
    assert_eq!(sent[0][20..22], 5000_u16.to_be_bytes());
    let mut pins = vec![pin.clone()];
    scene.pass(Duration::from_secs(31));
    note_pins(&mut scene, &mut pins);
    assert_eq!(pins, [], "and reported to the owner");

    // The same flow, pinned for the other name, is reported as such.
    scene.receive(&reply_to(&sent[0], ACK));
    scene.answer("other.example", AddressFamily::V4, Ok(&["10.20.0.102"]));
    note_pins(&mut scene, &mut pins);
    pin.name = "other.example".parse().expect("a name");
    let told = PinnedFlow {
        outside_port: 5000,
        real: REAL.parse().expect("literal"),
        ..pin
    };
    assert_eq!(pins, [told]);
}

#[test]
fn a_pin_waits_for_its_name_and_ignores_syns_from_outside() {
    let (mut scene, pin) = rebuilt_with_pin("app.example");
    for flags in [SYN, SYN_ACK] {
        let forged = from_pinned(flags);
        assert_eq!(scene.receive(&forged), [forged]);
    }
    let expected = reply_to(&data(pin.proxy, 5000), ACK);
    assert_eq!(scene.receive(&from_pinned(ACK)), [expected]);

    // Packets before the announcement of the name use nothing up.
    let mut scene = Scene::new(&[1]);
    (scene.nat).restore_pins(client(1).0, vec![pin.clone()], scene.now);
    scene.receive(&from_pinned(ACK));
    scene.send(&data(pin.proxy, 5000));
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    let sent = scene.send(&data(pin.proxy, 5000));
    assert_eq!(destination_of(&sent), [OTHER_REAL]);
}

#[test]
fn limits_the_pins_of_a_client() {
    let mut scene = Scene::new(&[1, 2]);
    let (_, pin) = rebuilt_with_pin("app.example");
    let pins = |number: u16| {
        (0..number).map(|port| PinnedFlow {
            port,
            outside_port: port,
            ..pin.clone()
        })
    };
    for number in [1, 2] {
        scene.assign(number, "app.example", 0);
    }
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    (scene.nat).restore_pins(client(1).0, pins(5000).collect(), scene.now);
    (scene.nat).restore_pins(client(1).0, pins(5000).collect(), scene.now);
    (scene.nat).restore_pins(client(2).0, pins(10).collect(), scene.now);
    // Of the second, all fit: the owner has them.
    assert_eq!(pins_told(&mut scene), [(1, 256)]);
    scene.pass(Duration::from_secs(7500));
    assert_eq!(pins_told(&mut scene), [(1, 0), (2, 0)]);
    // The entries are free again.
    (scene.nat).restore_pins(client(1).0, pins(5000).collect(), scene.now);
    assert_eq!(
        scene.nat.pins.poll_timeout(),
        Some(scene.now + Duration::from_secs(30))
    );
    assert_eq!(pins_told(&mut scene), [(1, 256)]);
    scene.pass(Duration::from_secs(7500));
    assert_eq!(pins_told(&mut scene), [(1, 0)]);
}

/// The clients whose pins were published since the last call, and how many each has.
fn pins_told(scene: &mut Scene) -> Vec<(u8, usize)> {
    let number = |id| (1..=2).find(|number| client(*number).0 == id);
    let events = scene.events().into_iter();
    let told = events.filter_map(|event| match event {
        NatTableEvent::PinsChanged { client, pins } => Some((number(client)?, pins.len())),
        NatTableEvent::Resolve { .. }
        | NatTableEvent::NameKnown { .. }
        | NatTableEvent::Status { .. } => None,
    });
    told.collect()
}
