//! Where flows go, and what the answers of the DNS change about it.

use super::addresses::{DENIED_FOR, SHUN_FOR};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// docs/lessons.md 9.
#[test]
fn proxy_ips_go_round_the_addresses_of_their_own_family() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2), v4(3), v6(1)]);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v4(0, place)));
    assert_eq!(reached, [v4(1), v4(2), v4(3), v4(1)]);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v6(0, place)));
    assert_eq!(reached, [v6(1); 4]);
}

/// docs/lessons.md 8.
#[test]
fn unresolved_is_held_and_denied_is_unreachable() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.fail(NameFailure::ServerFailure);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.answer(V4, Err(NameFailure::NoData));
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.route(id, proxy_v6(0, 0)), Route::Hold);
}

/// docs/lessons.md 9.
#[test]
fn the_family_without_addresses_is_unreachable_at_once() {
    let (mut world, id) = World::resolved(&[v6(1)]);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.real(id, proxy_v6(0, 0)), v6(1));
}

/// docs/lessons.md 7.
#[test]
fn failures_erase_nothing_for_a_day() {
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

/// docs/lessons.md 7.
#[test]
fn an_answer_renews_the_day() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass(DAY / 2);
    world.resolve(&[v4(1)]);
    world.pass(DAY / 2);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

/// docs/lessons.md 7.
#[test]
fn a_denial_leaves_addresses_in_use_for_an_hour() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass_ms(2000);
    world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    world.told();
    world.pass(DENIED_FOR / 2);
    world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    assert_eq!(
        world.told().len(),
        1,
        "active, in answer to the announcement"
    );
    world.pass(DENIED_FOR / 2);
    world.lookups();
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.lookups(), [true], "asked once more");
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.told(), [(1, NAME.to_owned(), false)]);
}

#[test]
fn the_hour_of_a_denial_is_over_when_the_name_is_back() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.fail(NameFailure::NoSuchName);
    world.pass(DENIED_FOR / 2);
    world.resolve(&[v4(1)]);
    world.fail(NameFailure::NoSuchName);
    world.pass(DENIED_FOR / 2);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn silence_and_a_denial_are_two_witnesses() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(world.lookups(), [true]);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Unreachable);
    assert_eq!(world.told(), [(1, NAME.to_owned(), false)]);
}

/// docs/lessons.md 33.
#[test]
fn stale_addresses_are_used_while_they_are_looked_up() {
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

/// docs/lessons.md 33.
#[test]
fn a_renewal_that_fails_waits_5_seconds_doubling() {
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

/// docs/lessons.md 5.
#[test]
fn a_changed_answer_moves_only_who_asks_again() {
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
fn an_unreachable_address_is_shunned_for_30_seconds_and_the_dns_asked() {
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
fn when_all_addresses_are_shunned_all_are_tried_in_turn() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.domains.note_unreachable(id, v4(2), world.now);
    let one = world.real(id, proxy_v4(0, 0));
    world.domains.note_unreachable(id, one, world.now);
    let two = world.real(id, proxy_v4(0, 0));
    assert_ne!(one, two);
}

#[test]
fn a_change_forgets_bad_marks_of_addresses_that_are_gone_only() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.resolve(&[v4(1), v4(3)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(3));
    world.resolve(&[v4(3)]);
    world.resolve(&[v4(1), v4(3)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn an_address_that_confirms_a_flow_is_shunned_no_more() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.domains.note_unreachable(id, v4(1), world.now);
    world.reply(id, v4(1), true);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn an_answer_that_another_client_asked_for_helps_and_its_quota_does_not_harm() {
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
