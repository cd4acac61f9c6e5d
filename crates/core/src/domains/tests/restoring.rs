//! Names across a rebuild of the table: reports to the owner, and addresses restored from it.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn restored(ips: &[IpAddr], age: Duration) -> RestoredName {
    RestoredName {
        name: name(NAME),
        family: V4,
        ips: ips.to_vec(),
        age,
    }
}

fn world_with(ips: &[IpAddr], age: Duration) -> World {
    let mut world = World::new();
    world
        .domains
        .restore_names(vec![restored(ips, age)], world.now);
    world
}

fn reals(world: &mut World, id: MappingId) -> Vec<IpAddr> {
    (0..4)
        .map(|place| world.real(id, proxy_v4(0, place)))
        .collect()
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn restored_addresses_are_used_immediately_and_in_order() {
    let mut world = world_with(&[v4(2), v4(1)], HOUR);
    let id = world.announce(NAME, 0);
    assert_eq!(reals(&mut world, id), [v4(2), v4(1), v4(2), v4(1)]);
    assert_eq!(world.lookups(), [false], "through the cache");
    let epoch = world.epoch(id);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(reals(&mut world, id), [v4(2), v4(1), v4(2), v4(1)]);
    assert_eq!(world.epoch(id), epoch, "no flow has to ask again");
    assert_eq!(
        world.known(),
        [[v4(2), v4(1)]],
        "confirmed, in the same order"
    );
    // Fresh again: new flows cause no lookup.
    world.domains.note_new_flow(id, v4(1), world.now);
    assert!(world.lookups().is_empty());
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn a_failed_lookup_keeps_restored_addresses() {
    let mut world = world_with(&[v4(1)], HOUR);
    let id = world.announce(NAME, 0);
    world.fail(NameFailure::ServerFailure);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    // Their age counts from the answer of the DNS, not from the rebuild.
    world.pass(22 * HOUR);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    world.pass(HOUR);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    assert_eq!(world.known(), [Vec::<IpAddr>::new()]);
}

#[test]
fn ignores_addresses_that_are_too_old_or_of_the_wrong_family() {
    for odd in [
        restored(&[v4(1)], 24 * HOUR),
        restored(&[v6(1)], HOUR),
        restored(&[], HOUR),
    ] {
        let mut world = World::new();
        world.domains.restore_names(vec![odd], world.now);
        let id = world.announce(NAME, 0);
        assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    }
    let mut world = world_with(&[v4(1), v4(1), v6(1), v4(2)], HOUR);
    let id = world.announce(NAME, 0);
    assert_eq!(reals(&mut world, id), [v4(1), v4(2), v4(1), v4(2)]);
}

#[test]
fn restores_no_more_names_than_the_limit() {
    let mut world = World::with(DomainsConfig {
        mappings: 2,
        ..DomainsConfig::default()
    });
    let names = ["x.example", "y.example", NAME].map(|text| RestoredName {
        name: name(text),
        ..restored(&[v4(1)], HOUR)
    });
    world.domains.restore_names(names.into(), world.now);
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
}

#[test]
fn answers_update_restored_addresses_of_later_announcements() {
    let mut world = world_with(&[v4(1)], HOUR);
    world.announce(NAME, 0);
    world.resolve(&[v4(2)]);
    assert_eq!(world.known(), [[v4(2)]]);
    let id = world.announce_of(2, NAME).expect("room");
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
    assert!(world.known().is_empty());

    let mut world = world_with(&[v4(1)], HOUR);
    world.answer(V4, Err(NameFailure::NoSuchName));
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
}

#[test]
fn a_late_restore_releases_held_packets() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world
        .domains
        .hold(id, &[0x45; 40], world.now)
        .expect("room");
    world
        .domains
        .restore_names(vec![restored(&[v4(1)], HOUR)], world.now);
    assert_eq!(world.released(), [(vec![0x45; 40], HeldOutcome::Released)]);
}

#[test]
fn reports_changes_to_the_owner_once_for_all_clients() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world.announce_of(2, NAME).expect("room");
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.known(), [[v4(1), v4(2)]]);
    world.resolve(&[v4(1), v4(2)]);
    world.fail(NameFailure::Timeout);
    assert!(world.known().is_empty());
    world.resolve(&[v4(3)]);
    assert_eq!(world.known(), [[v4(3)]]);
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn reports_confirmed_addresses_again_after_a_while() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.known().len(), 1);
    let minute = Duration::from_secs(60);
    world.pass(9 * minute);
    world.resolve(&[v4(1), v4(2)]);
    assert!(world.known().is_empty(), "not so soon");
    world.pass(minute);
    world.fail(NameFailure::Timeout);
    world.answer_from_cache(V4, vec![v4(1), v4(2)]);
    assert!(world.known().is_empty(), "the DNS has said nothing");
    world.resolve(&[v4(2), v4(1)]);
    assert_eq!(world.known(), [[v4(1), v4(2)]], "in the order that holds");
    world.resolve(&[v4(1), v4(2)]);
    assert!(world.known().is_empty());

    // Restored addresses keep their age.
    let mut world = world_with(&[v4(1)], HOUR);
    world.announce(NAME, 0);
    world.resolve(&[v4(1)]);
    assert_eq!(world.known(), [[v4(1)]]);
}

#[test]
fn unclaimed_restored_names_are_dropped() {
    let limit = Duration::from_secs(300);
    let route_after = |wait| {
        let mut world = world_with(&[v4(1)], HOUR);
        world.pass(wait);
        let id = world.announce(NAME, 0);
        (world.route(id, proxy_v4(0, 0)), world)
    };
    let (route, mut world) = route_after(limit - Duration::from_millis(1));
    assert!(matches!(route, Route::To { real, .. } if real == v4(1)));
    // Those in use stay.
    world.pass(limit);
    let id = world.announce(NAME, 0);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    let (route, mut world) = route_after(limit);
    assert_eq!(route, Route::Hold);
    world.resolve(&[v4(2)]);
    assert_eq!(world.known(), [[v4(2)]]);
}

/// Two addresses that do not answer, each used too rarely to be shunned.
fn rotated() -> (World, MappingId) {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.known();
    for _ in 0..2 {
        world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
        world.send(id, proxy_v4(0, 1), Sent::Unconfirmed);
        world.pass_ms(5100);
    }
    assert_eq!(world.lookups(), [true]);
    world.resolve(&[v4(1), v4(2)]);
    (world, id)
}

#[test]
fn a_rebuilt_table_keeps_the_order_after_a_move() {
    let (mut world, id) = rotated();
    let before = reals(&mut world, id);
    assert_eq!(before[0], v4(2), "it moved on");
    let known = world.known();
    assert_eq!(known, [[v4(2), v4(1)]]);

    let mut world = world_with(&known[0], Duration::ZERO);
    let id = world.announce(NAME, 0);
    assert_eq!(reals(&mut world, id), before);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(reals(&mut world, id), before, "the set decides");
}

#[test]
fn a_shunned_address_keeps_its_place_in_the_order() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.known();
    world.domains.note_unreachable(id, v4(1), world.now);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
    assert!(world.known().is_empty());
}

#[test]
fn reports_addresses_as_gone_when_silence_and_denial_agree() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.known();
    world.domains.note_unreachable(id, v4(1), world.now);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.domains.note_unreachable(id, v4(1), world.now);
    assert_eq!(world.lookups(), [true]);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.known(), [Vec::<IpAddr>::new()]);
}

#[test]
fn a_resolver_restart_repeats_lookups_in_progress() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.announce("b.lab.example", 1);
    assert_eq!(world.lookups(), [false]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.domains.note_unreachable(id, v4(1), world.now);
    assert_eq!(world.lookups(), [true]);
    world.pass_ms(11_000);
    world.lookups();
    world.domains.handle_resolver_restarted(world.now);
    assert_eq!(world.lookups(), [true, false], "in the order of the names");
    // The timeout of the new lookups starts now.
    world.pass_ms(11_000);
    assert!(world.lookups().is_empty());
    world.resolve(&[v4(1)]);
    world.domains.handle_resolver_restarted(world.now);
    assert_eq!(world.lookups(), [false], "one is answered");
}
