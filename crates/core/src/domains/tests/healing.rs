//! The signals that cause a lookup, and the rules that prevent loops.

use super::mapping::LOOKUP_LOST;
use super::*;

/// Sends one packet a second for `seconds`; the DNS answers each lookup by `answer`. Returns the
/// seconds of the lookups, and asserts that each was a refresh.
fn stream(
    world: &mut World,
    (id, sent): (MappingId, Sent),
    seconds: u64,
    answer: impl Fn(&mut World),
) -> Vec<u64> {
    let mut asked = Vec::new();
    for second in 0..seconds {
        if let Route::To { .. } = world.route(id, proxy_v4(0, 0)) {
            world.send(id, proxy_v4(0, 0), sent);
        }
        asked.extend(world.lookups().iter().map(|is_refresh| {
            assert!(is_refresh);
            answer(world);
            second
        }));
        world.pass_ms(1000);
        asked.extend(world.lookups().iter().map(|_| {
            answer(world);
            second
        }));
    }
    asked
}

#[test]
fn one_way_is_three_packets_over_five_seconds_without_an_answer() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    for second in 0..=5 {
        assert_eq!(world.lookups(), [false; 0], "{second}");
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.pass_ms(1000);
    }
    assert_eq!(world.lookups(), [true]);
}

#[test]
fn two_packets_are_too_few_however_long_it_takes() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
    world.pass_ms(10_000);
    world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
    assert_eq!(world.lookups(), [false; 0]);
    world.pass_ms(10_000);
    world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
    assert_eq!(world.lookups(), [true]);
}

/// docs/lessons.md 3: Only names in use are refreshed.
#[test]
fn one_answering_address_is_enough_for_silence() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    for _ in 0..60 {
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.reply(id, v4(2), false);
        world.pass_ms(1000);
    }
    assert_eq!(world.lookups(), [false; 0]);
}

/// docs/lessons.md 3: Only names in use are refreshed.
#[test]
fn does_not_look_up_an_unused_name() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    let mut asked = 0;
    for _ in 0..600 {
        asked += world.lookups().len();
        world.fail(NameFailure::ServerFailure);
        world.pass_ms(100);
    }
    assert!(
        (10..=15).contains(&asked),
        "{asked}: only in the first ten seconds"
    );
    assert_eq!(world.domains.poll_timeout(), None);
}

/// docs/lessons.md 6: An unanswered SYN is not pinned to a dead address.
#[test]
fn a_repeated_syn_causes_a_lookup_and_moves_to_the_next_address() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    assert_eq!(world.send(id, proxy_v4(0, 0), Sent::Syn), v4(1));
    world.pass_ms(1000);
    let epoch = world.epoch(id);
    assert_eq!(world.send(id, proxy_v4(0, 0), Sent::Syn), v4(1));
    assert_eq!(world.lookups(), [true]);
    assert_eq!(world.epoch(id), epoch, "the answer comes first");
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.epoch(id), epoch + 1);
    let reached = [0, 1, 2, 3].map(|place| world.real(id, proxy_v4(0, place)));
    assert_eq!(
        reached,
        [v4(2); 4],
        "away from the dead one, for all proxy IPs"
    );
}

#[test]
fn a_cached_answer_for_another_client_does_not_answer_a_refresh() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(world.lookups(), [true]);
    let epoch = world.epoch(id);
    world.answer_from_cache(V4, vec![v4(1), v4(2)]);
    assert_eq!(world.epoch(id), epoch, "the refresh is still awaited");
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
}

/// docs/lessons.md 6: An unanswered SYN is not pinned to a dead address.
#[test]
fn a_failed_refresh_also_moves_to_the_next_address_once_per_attempt() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.fail(NameFailure::ServerFailure);
    assert_eq!(world.lookups(), [true]);
    let mut asked = 0;
    for _ in 0..50 {
        assert_eq!(
            world.real(id, proxy_v4(0, 0)),
            v4(2),
            "not tried since, so not left"
        );
        world.pass_ms(100);
        if !world.lookups().is_empty() {
            asked += 1;
            world.fail(NameFailure::ServerFailure);
        }
    }
    assert!(
        asked >= 5,
        "{asked}: it goes on asking while the name is in use"
    );
    world.resolve(&[v4(3)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(3));
}

/// docs/lessons.md 6: An unanswered SYN is not pinned to a dead address.
#[test]
fn an_old_live_flow_does_not_hide_that_new_ones_fail() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    let mut one_way = 0;
    for tenth in 0..40 {
        // A live download goes on, in an established flow to the same address …
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.reply(id, v4(1), false);
        one_way += world.lookups().len();
        // … and a handshake is not answered: SYNs after 0, 1 and 3 s.
        if [0, 10, 30].contains(&tenth) {
            world.send(id, proxy_v4(0, 0), Sent::Syn);
        }
        world.pass_ms(100);
        if tenth == 10 {
            assert_eq!(world.lookups(), [true], "at the second SYN");
            world.resolve(&[v4(1)]);
        }
    }
    assert_eq!(
        one_way, 0,
        "the one-way signal alone would never have asked"
    );
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_live_flow_does_not_reset_the_backoff_of_failing_ones() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    let mut asked = Vec::new();
    for second in 0..300 {
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.reply(id, v4(1), false);
        world.send(id, proxy_v4(0, 0), Sent::Syn);
        if !world.lookups().is_empty() {
            asked.push(second);
            world.resolve(&[v4(1)]);
        }
        world.pass_ms(1000);
        if !world.lookups().is_empty() {
            asked.push(second);
            world.resolve(&[v4(1)]);
        }
    }
    assert!((5..=8).contains(&asked.len()), "{asked:?}");
}

#[test]
fn answered_handshakes_elsewhere_do_not_clear_a_dead_address() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    for _ in 0..10 {
        world.send(id, proxy_v4(0, 1), Sent::Syn);
        world.reply(id, v4(2), true);
        world.pass_ms(100);
    }
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(world.lookups(), [true]);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
    assert_eq!(world.real(id, proxy_v4(0, 1)), v4(2), "the live side stays");
}

#[test]
fn a_dns_server_asked_a_moment_ago_does_not_delay_the_next_address() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2), v4(3)]);
    let syn = |world: &mut World| world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(syn(&mut world), v4(1));
    world.pass_ms(1000);
    assert_eq!(syn(&mut world), v4(1));
    world.resolve(&[v4(1), v4(2), v4(3)]);
    world.lookups();
    world.pass_ms(1000);
    assert_eq!(syn(&mut world), v4(2));
    world.pass_ms(1000);
    assert_eq!(syn(&mut world), v4(2));
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(3));
    assert_eq!(world.lookups(), [false; 0]);
}

#[test]
fn other_protocols_signal_after_three_packets_over_five_seconds() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    for _ in 0..5 {
        world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.reply(id, v4(1), false);
        assert_eq!(world.lookups(), [false; 0]);
        world.pass_ms(1000);
    }
    world.send(id, proxy_v4(0, 0), Sent::Unconfirmed);
    assert_eq!(world.lookups(), [true]);
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_rst_and_an_icmp_error_count_as_answers() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    for second in 0..60 {
        world.send(id, proxy_v4(0, 0), Sent::Syn);
        match second % 2 {
            0 => world.reply(id, v4(1), true),
            _ => world.domains.note_answer_by_icmp(id, v4(1), world.now),
        }
        world.pass_ms(1000);
    }
    assert_eq!(world.lookups(), [false; 0]);
}

#[test]
fn a_reply_during_a_lookup_keeps_the_address() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.reply(id, v4(1), true);
    let epoch = world.epoch(id);
    world.resolve(&[v4(1), v4(2)]);
    assert_eq!(world.epoch(id), epoch);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn unchanged_answers_double_the_wait_from_5_seconds_to_5_minutes() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    let asked = stream(&mut world, (id, Sent::Unconfirmed), 3600, |it| {
        it.resolve(&[v4(1)])
    });
    let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let expected = [5, 10, 20, 40, 80, 160, 300, 300];
    for (gap, expected) in gaps.iter().zip(expected) {
        let (gap, expected) = (*gap as f64, f64::from(expected));
        assert!(
            gap >= expected * 0.8 - 1.0 && gap <= expected * 1.2 + 6.0,
            "{gaps:?}"
        );
    }
    assert!((15..=19).contains(&asked.len()), "{gaps:?}");
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_reply_from_the_resource_resets_the_backoff() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    stream(&mut world, (id, Sent::Unconfirmed), 600, |it| {
        it.resolve(&[v4(1)])
    });
    world.reply(id, v4(1), true);
    let asked = stream(&mut world, (id, Sent::Unconfirmed), 30, |it| {
        it.resolve(&[v4(1)])
    });
    assert!(asked.len() >= 2 && asked[0] <= 5, "{asked:?}");
}

#[test]
fn addresses_that_change_with_each_answer_do_not_bypass_the_backoff() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    let begin = world.now;
    let asked = stream(&mut world, (id, Sent::Syn), 60, |world| {
        let second = (world.now - begin).as_secs() as u8;
        world.resolve(&[v4(2 + second)]);
    });
    assert!(asked.len() <= 60 / 4 + 1, "{asked:?}");
}

#[test]
fn repeated_denials_double_the_wait_of_the_packets() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world.fail(NameFailure::NoSuchName);
    world.lookups();
    let deny = |world: &mut World| world.fail(NameFailure::NoSuchName);
    let asked = stream(&mut world, (id, Sent::Syn), 3600, deny);
    assert!((14..=20).contains(&asked.len()), "{asked:?}");
    world.resolve(&[v4(1)]);
    world.fail(NameFailure::NoSuchName);
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
}

#[test]
fn a_timer_retries_transient_failures_within_a_second() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world.lookups();
    world.fail(NameFailure::Timeout);
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    let begin = world.now;
    let mut waits = Vec::new();
    for _ in 0..6 {
        let asked_at = world.now;
        let at = world
            .domains
            .poll_timeout()
            .expect("it will be tried again");
        world.pass(at - world.now);
        assert_eq!(world.lookups(), [true]);
        world.fail(NameFailure::Timeout);
        waits.push((world.now - asked_at).as_secs_f64());
    }
    for (wait, expected) in waits.iter().zip([0.25, 0.5, 1.0, 1.0, 1.0, 1.0]) {
        assert!((wait / expected - 1.0).abs() <= 0.2, "{waits:?}");
    }
    assert!(world.now - begin < super::family::IN_USE);
}

#[test]
fn a_lookup_that_is_never_answered_counts_as_a_timeout() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    assert_eq!(world.lookups(), [false]);
    world.answer(V6, Err(NameFailure::NoData));
    world.pass(LOOKUP_LOST - Duration::from_millis(1));
    assert_eq!(world.route(id, proxy_v4(0, 0)), Route::Hold);
    world.pass_ms(1);
    assert_eq!(world.lookups(), [false; 0], "not at once");
    world.pass_ms(300);
    assert_eq!(world.lookups(), [true]);
    world.answer(V4, Ok(vec![v4(1)]));
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(1));
    assert_eq!(world.route(id, proxy_v6(0, 0)), Route::Unreachable);
}

#[test]
fn a_cached_answer_does_not_end_a_refresh() {
    let (mut world, id) = World::resolved(&[v4(1)]);
    world.pass_ms(1000);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    world.pass_ms(1000);
    world.announce(NAME, 0);
    world.send(id, proxy_v4(0, 0), Sent::Syn);
    assert_eq!(world.lookups(), [false], "one in flight");
    world.resolve(&[v4(1)]);
    assert_eq!(world.lookups(), [true]);
}

#[test]
fn families_heal_independently() {
    let (mut world, id) = World::resolved(&[v4(1), v6(1)]);
    let epoch = world.domains.epoch(id, V6);
    for _ in 0..7 {
        world.send(id, proxy_v4(0, 0), Sent::Confirmed);
        world.send(id, proxy_v6(0, 0), Sent::Confirmed);
        world.reply(id, v6(1), false);
        world.pass_ms(1000);
    }
    assert_eq!(world.lookups(), [true]);
    world.answer(V4, Ok(vec![v4(2)]));
    world.answer(V6, Ok(vec![v6(1)]));
    assert_eq!(world.real(id, proxy_v4(0, 0)), v4(2));
    assert_eq!(world.domains.epoch(id, V6), epoch);
}

#[test]
fn a_backoff_that_a_confirmed_flow_resets_ends_with_the_next_packet() {
    let (mut world, id) = World::resolved(&[v4(1), v4(2)]);
    let mut asked = 0;
    for _ in 0..20 {
        world
            .domains
            .note_inbound(id, v4(1), Sent::Unconfirmed, world.now);
        asked += world.lookups().len();
        world.resolve(&[v4(1), v4(2)]);
        world.pass_ms(1000);
    }
    assert_eq!(asked, 2, "after 5 and about 11 s; the next wait is 10 s");
    world.reply(id, v4(2), true);
    world
        .domains
        .note_inbound(id, v4(1), Sent::Unconfirmed, world.now);
    assert_eq!(world.lookups(), [true]);
}

#[test]
fn failing_a_lookup_does_not_fail_its_immediate_successor() {
    let mut world = World::new();
    let id = world.announce(NAME, 0);
    world.answer(V6, Err(NameFailure::NoData));
    world.lookups();
    world.pass(LOOKUP_LOST - Duration::from_millis(100));
    assert_eq!(world.route(id, proxy_v6(0, 0)), Route::Unreachable);
    world.pass_ms(100);
    assert_eq!(world.lookups(), [true], "for the other family");
    assert_eq!(world.route(id, proxy_v6(0, 0)), Route::Unreachable);
    world.answer(V4, Ok(vec![v4(1)]));
    assert_eq!(world.lookups(), [false; 0], "half of it is still under way");
}
