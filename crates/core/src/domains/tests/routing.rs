//! Routes of flows, and how DNS answers change them.

use super::addresses::{DENIED_FOR, SHUN_FOR};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// docs/lessons.md 9: Every proxy IP is mapped, each family for itself.
#[test]
fn proxy_ips_map_round_robin_to_addresses_of_their_family() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2), v4(3), v6(1)]);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v4(0, place)));
    assert_eq!(reached, [v4(1), v4(2), v4(3), v4(1)]);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v6(0, place)));
    assert_eq!(reached, [v6(1); 4]);
}

/// docs/lessons.md 8: Unresolved is "unreachable", not "prohibited".
#[test]
fn holds_unresolved_names_and_refuses_denied_ones() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.fail(NameFailure::ServerFailure);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.answer(V4, Err(NameFailure::NoData));
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.route(id, proxy_v6(0, 0)), Route::Hold);
}

/// docs/lessons.md 9: Every proxy IP is mapped, each family for itself.
#[test]
fn a_family_without_addresses_is_unreachable_immediately() {
    let (mut world, id) = World::resolved(&[v6(1)]);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.real(id, proxy_v6(0, 0)), v6(1));
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn failures_remove_no_address_for_a_day() {
    for failure in [
        NameFailure::ServerFailure,
        NameFailure::Timeout,
        NameFailure::Network,
        NameFailure::Quota,
    ] {
        let (mut world, id) = World::resolved(&[v4(1)]);
        for _ in 0..23 {
            world.pass(DAY / 24);
            world.announce(NAME, 0);
            world.fail(failure);
            assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1), "{failure:?}");
        }
        world.pass(DAY / 24);
        assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold, "{failure:?}");
    }
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn an_answer_renews_the_validity() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass(DAY / 2);
    world.resolve(&[v4(1)]);
    world.pass(DAY / 2);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn a_denial_keeps_addresses_in_use_for_an_hour() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass_ms(2000);
    world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    world.statuses();
    world.pass(DENIED_FOR / 2);
    world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    assert_eq!(
        world.statuses().len(),
        1,
        "active, in answer to the announcement"
    );
    world.pass(DENIED_FOR / 2);
    world.lookups();
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.lookups(), [true], "asked once more");
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.statuses(), [(1, NAME.to_owned(), false)]);
}

#[test]
fn an_answer_ends_the_hour_of_a_denial() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.fail(NameFailure::NoSuchName);
    world.pass(DENIED_FOR / 2);
    world.resolve(&[v4(1)]);
    world.fail(NameFailure::NoSuchName);
    world.pass(DENIED_FOR / 2);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn silence_and_a_denial_together_remove_addresses() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(world.lookups(), [true]);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.statuses(), [(1, NAME.to_owned(), false)]);
}

/// docs/lessons.md 33: Names are resolved again and pruned.
#[test]
fn uses_stale_addresses_during_their_renewal() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass(TTL - Duration::from_millis(1));
    world.domains.note_new_flow(id, v4(1), world.now);
    assert_eq!(world.lookups(), [false; 0]);
    world.pass_ms(1);
    world.domains.note_new_flow(id, v4(1), world.now);
    world.domains.note_new_flow(id, v4(1), world.now);
    assert_eq!(world.lookups(), [false], "through the cache, one in flight");
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    world.resolve(&[v4(2)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
    world.domains.note_new_flow(id, v4(2), world.now);
    assert_eq!(world.lookups(), [false; 0]);
}

/// docs/lessons.md 33: Names are resolved again and pruned.
#[test]
fn a_failed_renewal_backs_off_from_5_seconds() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass(TTL);
    let mut lookups = Vec::new();
    for second in 0..120 {
        world.domains.note_new_flow(id, v4(1), world.now);
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.reply(id, v4(1), true);
        if world.lookups() == [false] {
            lookups.push(second);
            world.fail(NameFailure::ServerFailure);
        }
        world.pass_ms(1000);
    }
    assert!((5..=6).contains(&lookups.len()), "{lookups:?}");
}

/// docs/lessons.md 5: A refresh does not cut live flows.
#[test]
fn a_changed_answer_moves_unconfirmed_flows_only() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    let Route::To { epoch, .. } = world.route(id, proxy_v4(0, 0)) else {
        panic!("it is resolved");
    };
    assert_eq!(epoch, world.epoch(id));
    let epoch_v6 = world.domains.epoch(id, V6);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.epoch(id), epoch, "nothing changed");
    world.resolve(&[v4(3)]);
    assert_ne!(world.epoch(id), epoch);
    assert_eq!(world.real(id, proxy_v4(0, 1)), v4(3));
    assert!(
        is_current(&world.domains, id),
        "flows of the mapping live on"
    );
    assert_eq!(
        world.domains.epoch(id, V6),
        epoch_v6,
        "the other family is left alone"
    );
}

#[test]
fn shuns_an_unreachable_address_for_30_seconds_and_looks_it_up() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    let epoch = world.epoch(id);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.domains.note_unreachable(id, v4(1), world.now);
    assert_eq!(world.lookups(), [true]);
    assert_eq!(world.epoch(id), epoch + 1);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v4(0, place)));
    assert_eq!(reached, [v4(2); 4]);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2), "moved once already");
    world.pass(SHUN_FOR);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn tries_all_addresses_in_turn_when_all_are_shunned() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.domains.note_unreachable(id, v4(2), world.now);
    let one = world.real(id, proxy_v4(0, 0));
    world.domains.note_unreachable(id, one, world.now);
    let two = world.real(id, proxy_v4(0, 0));
    assert_ne!(one, two);
}

#[test]
fn a_change_clears_the_record_of_removed_addresses_only() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.resolve(&[v4(1), v4(3)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(3));
    world.resolve(&[v4(3)]);
    world.resolve(&[v4(1), v4(3)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn a_confirmed_flow_ends_shunning() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.reply(id, v4(1), true);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn uses_answers_of_other_clients_but_not_their_quota_errors() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world.fail(NameFailure::Timeout);
    world.fail(NameFailure::Quota);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.lookups();
    world.resolve(&[v4(1)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    world.answer(V4, Err(NameFailure::Quota));
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}
