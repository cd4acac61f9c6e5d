//! Announcements of proxy IPs: their effects, their checks, the status that the client gets.

use super::*;

/// docs/lessons.md 1: DNS never delays a reply.
#[test]
fn answers_an_announcement_before_the_lookup() {
    let mut world = World::new();
    world.announce("App.Lab.Example", 0);
    assert_eq!(world.statuses(), [(1, "App.Lab.Example".to_owned(), true)]);
    assert_eq!(world.lookups(), [false]);
}

#[test]
fn does_not_answer_announcements_from_outside_the_tunnel() {
    let mut world = World::new();
    let mut client = Entitled::default();
    let meanings = client.announce_by(Announcer::Portal, 1, NAME, &proxies(0));
    world.tell(CLIENT, NAME, &meanings).expect("room");
    world.fail(NameFailure::NoSuchName);
    world.resolve(&[v4(1)]);
    assert_eq!(world.statuses(), []);
}

#[test]
fn a_repeated_announcement_causes_one_cached_lookup_a_second() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world.announce(NAME, 0);
    assert_eq!(world.lookups(), [false], "one in flight");
    world.resolve(&[v4(1)]);
    world.pass_ms(999);
    world.announce(NAME, 0);
    assert_eq!(world.lookups(), [false; 0]);
    world.pass_ms(1);
    assert_eq!(world.announce(NAME, 0), id);
    assert_eq!(world.lookups(), [false]);
    assert_eq!(world.statuses().len(), 4);
    assert_eq!(world.domains.mappings(), 1);
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn a_proxy_ip_for_another_name_removes_the_former_name() {
    let (mut world, old) = World::resolved(&[v4(1)]);
    let new = world
        .announce_as(1, "other.lab.example", &[proxy_v4(0, 3)])
        .expect("room");
    assert!(!is_current(&world.domains, old) && is_current(&world.domains, new));
    assert_ne!(old, new);
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 3)), Some(new));
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 0)), None);
    assert_eq!(world.route(old, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.route(new, proxy_v4(0, 3)), Route::Hold);
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn packets_held_for_the_former_name_are_dropped_and_counted() {
    let mut world = World::new();
    let old = world.announce(NAME, 0);
    assert_eq!(world.domains.hold(old, &ipv4_packet(1), world.now), Ok(()));
    world.announce("other.lab.example", 0);
    world.resolve(&[v4(1)]);
    world.pass_ms(5000);
    assert_eq!(world.released(), []);
    assert_eq!(world.domains.held_bytes(), 0);
    assert_eq!(world.domains.take_drops().of(DropReason::Unmapped), 1);
}

#[test]
fn the_same_proxy_ips_of_another_client_are_another_name() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    let other = world.announce_of(2, "other.lab.example").expect("room");
    assert!(is_current(&world.domains, id));
    assert_eq!(
        world.domains.find(ClientSlot(2), proxy_v4(0, 0)),
        Some(other)
    );
    world.domains.remove_client(CLIENT);
    assert!(!is_current(&world.domains, id) && is_current(&world.domains, other));
}

/// docs/lessons.md 18: NAT set-up is keyed by resource and accepts any order.
#[test]
fn a_name_stays_until_its_last_resource_is_released() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    assert_eq!(world.announce_as(2, "APP.lab.example", &proxies(0)), Ok(id));
    world.release(1);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    world.fail(NameFailure::NoSuchName);
    world.release(2);
    assert!(!is_current(&world.domains, id));
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 0)), None);
    assert_eq!(world.domains.mappings(), 0);
    assert_eq!(world.domains.poll_timeout(), None, "its timer went with it");
}

#[test]
fn a_new_set_replaces_the_old_one_of_its_family_only() {
    let (mut world, id) = World::resolved(&[v4(1), v6(1)]);
    let epoch = world.epoch(id);
    let set = [proxy_v4(9, 1), proxy_v4(9, 0)];
    assert_eq!(world.announce_as(1, NAME, &set), Ok(id));
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 0)), None);
    assert_eq!(world.domains.find(CLIENT, proxy_v4(9, 1)), Some(id));
    assert_eq!(world.real(id, proxy_v6(0, 0)), v6(1));
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert!(world.epoch(id) > epoch);
}

#[test]
fn a_name_that_is_denied_in_both_families_is_inactive_until_it_heals() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world
        .announce_as(2, "APP.lab.example", &proxies(0))
        .expect("room");
    world.statuses();
    world.answer(V4, Err(NameFailure::NoData));
    assert_eq!(world.statuses(), []);
    world.answer(V6, Err(NameFailure::NoSuchName));
    let names = [(1, NAME.to_owned()), (2, "APP.lab.example".to_owned())];
    let statuses = |active| names.clone().map(|(id, domain)| (id, domain, active));
    assert_eq!(world.statuses(), statuses(false));
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.statuses(), [], "statuses once");
    world.answer(V6, Ok(vec![v6(1)]));
    assert_eq!(world.statuses(), statuses(true));
}

#[test]
fn one_family_is_enough_and_a_transient_failure_denies_nothing() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world.statuses();
    world.resolve(&[v6(1)]);
    world.pass_ms(2000);
    world.announce(NAME, 0);
    world.statuses();
    world.answer(V4, Err(NameFailure::NoData));
    world.answer(V6, Err(NameFailure::ServerFailure));
    assert_eq!(world.statuses(), []);
}

/// docs/lessons.md 12: A resource can be limited to one IP family.
#[test]
fn the_status_depends_on_the_families_with_proxy_ips_only() {
    let mut world = World::new();
    world.announce_as(1, NAME, &[proxy_v4(0, 0)]).expect("room");
    world.statuses();
    world.resolve(&[v6(1)]);
    assert_eq!(world.statuses(), [(1, NAME.to_owned(), false)]);
}

#[test]
fn a_repeated_announcement_of_a_denied_name_gets_the_known_status() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    world.statuses();
    world.announce(NAME, 0);
    let statuses: Vec<_> = world
        .statuses()
        .into_iter()
        .map(|(_, _, active)| active)
        .collect();
    assert_eq!(statuses, [true, false], "within a second: no lookup");
    world.pass_ms(1000);
    world.announce(NAME, 0);
    assert_eq!(world.statuses().len(), 1, "asked: there is hope");
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.statuses().len(), 1);
}

#[test]
fn a_client_at_its_limit_evicts_its_longest_unused_name() {
    let mut world = World::with(DomainsConfig {
        mappings_per_client: 2,
        ..DomainsConfig::default()
    });
    let (first, second) = (
        world.announce("a.example", 0),
        world.announce("b.example", 1),
    );
    world.pass(EVICTED_AFTER / 2);
    world.announce("a.example", 0);
    let full = Err(AssignError::ClientFull(2));
    assert_eq!(world.announce_as(1, "c.example", &proxies(2)), full);
    world.pass(EVICTED_AFTER / 2);
    let third = world.announce("c.example", 2);
    assert!(is_current(&world.domains, first) && is_current(&world.domains, third));
    assert!(!is_current(&world.domains, second));
    assert_eq!(third.index, second.index);
    assert_eq!(third.generation, second.generation + 1);
}

#[test]
fn a_full_table_evicts_an_unused_name_of_any_client() {
    let mut world = World::with(DomainsConfig {
        mappings: 2,
        ..DomainsConfig::default()
    });
    let vanished = [
        world.announce("a.example", 0),
        world.announce("b.example", 1),
    ];
    let refused = world.announce_of(2, NAME);
    assert_eq!(refused, Err(AssignError::Full(2)));
    world.pass(EVICTED_AFTER);
    world.announce_of(2, NAME).expect("room");
    let left = vanished
        .iter()
        .filter(|id| is_current(&world.domains, **id));
    assert_eq!(left.count(), 1);
}

#[test]
fn a_full_table_refuses_and_changes_nothing() {
    let mut world = World::with(DomainsConfig {
        mappings: 1,
        ..DomainsConfig::default()
    });
    let id = world.announce(NAME, 0);
    assert_eq!(
        world.announce_as(1, "b.example", &proxies(1)),
        Err(AssignError::Full(1))
    );
    assert!(is_current(&world.domains, id));
    assert_eq!(world.domains.mappings(), 1);
}

/// The index leads each proxy IP to one name, even if it was not told that the former one is gone.
#[test]
fn a_proxy_ip_leads_to_the_name_that_was_told_last() {
    let mut world = World::new();
    let old = world.announce(NAME, 0);
    let meanings = Entitled::default().announce(1, "other.lab.example", &[proxy_v4(0, 3)]);
    let new = world
        .tell(CLIENT, "other.lab.example", &meanings)
        .expect("room");
    assert!(!is_current(&world.domains, old));
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 3)), Some(new));
    assert_eq!(world.domains.find(CLIENT, proxy_v4(0, 0)), None);
}

/// A resource that is taken away starts no lookup and sends no status.
#[test]
fn a_name_that_loses_a_resource_stays_quiet() {
    let mut world = World::new();
    world.announce(NAME, 0);
    world
        .announce_as(2, "APP.lab.example", &proxies(0))
        .expect("room");
    world.resolve(&[v4(1)]);
    world.pass_ms(5000);
    world.lookups();
    world.statuses();
    world.release(1);
    assert_eq!((world.lookups(), world.statuses()), (vec![], vec![]));
}

fn ipv4_packet(number: u8) -> Vec<u8> {
    vec![0x45, number]
}
