//! Packets that wait for the address of their name.

use super::*;

fn packet(version: u8, number: u8, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    (packet[0], packet[1]) = (version << 4, number);
    packet
}

fn hold(world: &mut World, id: MappingId, packet: &[u8]) -> Result<(), DropReason> {
    world.domains.hold(id, packet, world.now)
}

#[test]
fn releases_held_packets_in_order_when_their_family_resolves() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    for number in 0..3 {
        assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
        assert_eq!(hold(&mut world, id, &packet(4, number, 20)), Ok(()));
        assert_eq!(hold(&mut world, id, &packet(6, number, 40)), Ok(()));
    }
    world.answer(V4, Ok(vec![v4(1)]));
    let expected = [0, 1, 2].map(|number| (packet(4, number, 20), HeldOutcome::Released));
    assert_eq!(world.released(), expected);
    world.answer(V6, Err(NameFailure::NoData));
    let expected = [0, 1, 2].map(|number| (packet(6, number, 40), HeldOutcome::Unreachable));
    assert_eq!(world.released(), expected);
    assert_eq!(world.domains.held_bytes(), 0);
}

#[test]
fn refuses_each_held_packet_after_two_seconds() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(hold(&mut world, id, &packet(4, 1, 20)), Ok(()));
    world.pass_ms(500);
    assert_eq!(hold(&mut world, id, &packet(4, 2, 20)), Ok(()));
    world.pass_ms(1499);
    assert_eq!(world.released(), []);
    world.pass_ms(1);
    assert_eq!(
        world.released(),
        [(packet(4, 1, 20), HeldOutcome::Unreachable)]
    );
    world.pass_ms(500);
    assert_eq!(
        world.released(),
        [(packet(4, 2, 20), HeldOutcome::Unreachable)]
    );
}

#[test]
fn a_transient_failure_keeps_packets_held() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    assert_eq!(hold(&mut world, id, &packet(4, 1, 20)), Ok(()));
    world.fail(NameFailure::ServerFailure);
    assert_eq!(world.released(), []);
    world.lookups();
    world.pass_ms(300);
    assert_eq!(
        world.lookups(),
        [true],
        "asked again without another packet"
    );
    world.resolve(&[v4(1)]);
    assert_eq!(
        world.released(),
        [(packet(4, 1, 20), HeldOutcome::Released)]
    );
}

#[test]
fn limits_packets_and_bytes_of_a_name() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    for number in 0..32 {
        assert_eq!(hold(&mut world, id, &packet(4, number, 20)), Ok(()));
    }
    let refused = hold(&mut world, id, &packet(4, 99, 20));
    assert_eq!(refused, Err(DropReason::HoldFull));
    let other = world.announce("other.lab.example", 1);
    assert_eq!(hold(&mut world, other, &packet(4, 0, 65_536)), Ok(()));
    assert_eq!(
        hold(&mut world, other, &packet(4, 1, 20)),
        Err(DropReason::HoldFull)
    );
}

#[test]
fn limits_the_total_of_held_bytes() {
    let mut world = World::with(DomainsConfig {
        held_bytes_in_all: 100,
        ..DomainsConfig::default()
    });
    let (one, two) = (
        world.announce(NAME, 0),
        world.announce("other.lab.example", 1),
    );
    assert_eq!(hold(&mut world, one, &packet(4, 0, 60)), Ok(()));
    assert_eq!(
        hold(&mut world, two, &packet(4, 1, 60)),
        Err(DropReason::HoldFull)
    );
    world.pass_ms(2000);
    assert_eq!(hold(&mut world, two, &packet(4, 1, 60)), Ok(()));
    world.domains.remove_client(CLIENT);
    assert_eq!(world.domains.held_bytes(), 0);
}

#[test]
fn does_not_hold_packets_with_an_address_or_without_a_mapping() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    assert_eq!(hold(&mut world, id, &packet(4, 1, 20)), Ok(()));
    assert_eq!(
        world.released(),
        [(packet(4, 1, 20), HeldOutcome::Released)]
    );
    assert_eq!(hold(&mut world, id, &[]), Err(DropReason::MalformedIp));
    world.release(1);
    assert_eq!(
        hold(&mut world, id, &packet(4, 1, 20)),
        Err(DropReason::Unmapped)
    );
}

#[test]
fn a_client_cannot_take_the_room_of_the_others() {
    let mut world = World::with(DomainsConfig {
        held_bytes_of_client: 100,
        ..DomainsConfig::default()
    });
    let (one, two) = (
        world.announce(NAME, 0),
        world.announce("other.lab.example", 1),
    );
    let another = world.announce_of(2, NAME).expect("room");
    assert_eq!(hold(&mut world, one, &packet(4, 0, 60)), Ok(()));
    assert_eq!(
        hold(&mut world, two, &packet(4, 1, 60)),
        Err(DropReason::HoldFull)
    );
    assert_eq!(hold(&mut world, another, &packet(4, 2, 60)), Ok(()));
    world.pass_ms(2000);
    assert_eq!(hold(&mut world, two, &packet(4, 3, 60)), Ok(()));
}
