//! The counters of incidents, and how long they last.

use super::*;

fn raised(world: &mut World) -> ([u64; 4], Vec<(HealSignal, u64)>) {
    let HealCounts { raised, healed } = world.domains.take_heals();
    let healed = healed.into_iter();
    let in_ms = healed.map(|(signal, took)| (signal, took.as_millis() as u64));
    (raised, in_ms.collect())
}

const NONE: [u64; 4] = [0; 4];
const ONE_WAY: [u64; 4] = [1, 0, 0, 0];
const HANDSHAKE: [u64; 4] = [0, 1, 0, 0];
const UNREACHABLE: [u64; 4] = [0, 0, 1, 0];
const UNMAPPED: [u64; 4] = [0, 0, 0, 1];

/// Two SYNs to the first of two addresses, a second apart, without an answer.
fn handshakes_in_vain() -> (World, MappingId) {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    assert_eq!(raised(&mut world), (NONE, vec![]));
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(raised(&mut world), (HANDSHAKE, vec![]));
    (world, id)
}

#[test]
fn a_handshake_incident_ends_with_the_first_confirmed_flow() {
    let (mut world, id) = handshakes_in_vain();
    world.pass_ms(20);
    world.resolve(&[v4(1), v4(2)]);
    world.pass_ms(1980);
    assert_eq!(world.send(id, proxy_v4(0, 0), Sent::Syn), v4(2));
    // An old flow to the dead address proves nothing.
    world.reply(id, v4(1), false);
    assert_eq!(raised(&mut world), (NONE, vec![]));
    world.pass_ms(10);
    world.reply(id, v4(2), true);
    let healed = vec![(HealSignal::Handshake, 2010)];
    assert_eq!(raised(&mut world), (NONE, healed));
    world.reply(id, v4(2), true);
    assert_eq!(raised(&mut world), (NONE, vec![]), "once");
}

#[test]
fn an_unmapped_incident_ends_with_an_address() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.pass_ms(40);
    world.fail(NameFailure::ServerFailure);
    assert_eq!(
        raised(&mut world),
        (UNMAPPED, vec![]),
        "once for all packets"
    );
    world.pass_ms(260);
    world.resolve(&[v4(1)]);
    let healed = vec![(HealSignal::Unmapped, 300)];
    assert_eq!(raised(&mut world), (NONE, healed));
}

#[test]
fn silence_ends_with_any_packet_that_comes_back() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    for _ in 0..6 {
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.pass_ms(1000);
    }
    assert_eq!(raised(&mut world), (ONE_WAY, vec![]));
    world.reply(id, v4(1), false);
    let healed = vec![(HealSignal::Silence, 1000)];
    assert_eq!(raised(&mut world), (NONE, healed));
}

#[test]
fn an_unreachable_incident_ends_with_a_confirmed_flow_elsewhere() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    let real = world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.domains.note_unreachable(id, real, world.now);
    world.domains.note_answer_by_icmp(id, real, world.now);
    assert_eq!(raised(&mut world), (UNREACHABLE, vec![]));
    world.pass_ms(500);
    let other = world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_ne!(other, real);
    world.reply(id, other, true);
    let healed = vec![(HealSignal::Unreachable, 500)];
    assert_eq!(raised(&mut world), (NONE, healed));
}

#[test]
fn an_incident_counts_by_its_first_signal() {
    let (mut world, id) = handshakes_in_vain();
    world.pass_ms(100);
    world.domains.note_unreachable(id, v4(1), world.now);
    assert_eq!(raised(&mut world), (UNREACHABLE, vec![]));
    world.pass_ms(100);
    assert_eq!(world.send(id, proxy_v4(0, 0), Sent::Syn), v4(2));
    world.reply(id, v4(2), true);
    let healed = vec![(HealSignal::Handshake, 200)];
    assert_eq!(raised(&mut world), (NONE, healed));
}

#[test]
fn an_abandoned_incident_is_not_counted() {
    let (mut world, id) = handshakes_in_vain();
    world.resolve(&[v4(1), v4(2)]);
    world.pass_ms(3_600_000);
    let real = world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.reply(id, real, true);
    assert_eq!(raised(&mut world), (NONE, vec![]));
}

#[test]
fn live_flows_do_not_prolong_the_incident_of_others() {
    let (mut world, id) = handshakes_in_vain();
    world.resolve(&[v4(1), v4(2)]);
    for _ in 0..100 {
        world.pass_ms(5000);
        let sent = Sent::Confirmed;
        world.domains.note_inbound(id, v4(1), sent, world.now);
        world.reply(id, v4(1), false);
    }
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.reply(id, v4(2), true);
    assert_eq!(raised(&mut world), (NONE, vec![]));
}

#[test]
fn counts_held_packets_until_their_release() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    let packet = [0x45; 40];
    for held in 1..=3 {
        world.domains.hold(id, &packet, world.now).expect("room");
        let counts = (world.domains.held_packets(), world.domains.held_bytes());
        assert_eq!(counts, (held, held * 40));
    }
    world.resolve(&[v4(1)]);
    assert_eq!(world.released().len(), 3);
    assert_eq!(world.domains.held_packets(), 0);

    let id = world.announce("other.lab.example", 1);
    world.domains.hold(id, &packet, world.now).expect("room");
    world.domains.remove_client(CLIENT);
    let counts = (world.domains.held_packets(), world.domains.held_bytes());
    assert_eq!(counts, (0, 0));
}
