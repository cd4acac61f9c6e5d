//! Twenty-four hours with names that cannot heal: the number of lookups (docs/lessons.md 2).

use super::family::IN_USE;
use super::waits::{JITTER, SETTLED, TRANSIENT};
use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// When the hour without packets begins.
const REST_AFTER: Duration = Duration::from_secs(12 * 60 * 60);
const PACKET_EVERY: Duration = Duration::from_secs(1);

/// What is wrong with the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The resource never answers; the DNS answer does not change.
    OneWay,
    /// Each packet is answered by ICMP unreachable; the DNS answer does not change.
    Unroutable,
    /// The name has no address.
    NoData,
    /// The name does not exist.
    NoSuchName,
    /// The DNS server is dead: a lookup fails after five seconds.
    DeadDns,
}

impl Failure {
    /// How long a lookup takes, and its result.
    fn answer(self) -> (Duration, Result<Vec<IpAddr>, NameFailure>) {
        let quick = Duration::from_millis(20);
        match self {
            Self::OneWay | Self::Unroutable => (quick, Ok(vec![v4(1)])),
            Self::NoData => (quick, Err(NameFailure::NoData)),
            Self::NoSuchName => (quick, Err(NameFailure::NoSuchName)),
            Self::DeadDns => (Duration::from_secs(5), Err(NameFailure::Timeout)),
        }
    }

    /// The minimum and maximum number of lookups during `time` of packets: the limits of the
    /// jitter, plus the time of each lookup and the time until the next signal.
    fn bounds(self, time: Duration) -> (usize, usize) {
        let (scale, slowest_sign) = match self {
            // Three packets over five seconds, and the packets are a second apart.
            Self::OneWay => (SETTLED, Duration::from_secs(7)),
            Self::Unroutable | Self::NoData | Self::NoSuchName => (SETTLED, PACKET_EVERY),
            Self::DeadDns => (TRANSIENT, PACKET_EVERY),
        };
        let (taken, _) = self.answer();
        let count = |share: f64, sign: Duration| {
            let (mut wait, mut spent, mut lookups) = (scale.first, Duration::ZERO, 0);
            while spent <= time {
                spent += wait.mul_f64(share) + taken + sign;
                wait = (wait * 2).min(scale.cap);
                lookups += 1;
            }
            lookups
        };
        // One more for the announcement, one more for the first signal.
        (
            count(1.0 + JITTER, slowest_sign) - 1,
            count(1.0 - JITTER, Duration::ZERO) + 2,
        )
    }
}

/// Runs the day; returns the times of the lookups since its beginning.
fn play(failure: Failure) -> Vec<Duration> {
    let mut world = World::new();
    let (begin, proxy_ip) = (world.now, proxy_v4(0, 0));
    let id = world.announce(NAME, 0);
    let mut lookups = Vec::new();
    let mut answer_at = None;
    let mut packet_at = begin + PACKET_EVERY;
    loop {
        if !world.lookups().is_empty() {
            assert_eq!(answer_at, None, "one lookup at a time");
            lookups.push(world.now - begin);
            answer_at = Some(world.now + failure.answer().0);
        }
        let timer = world.domains.poll_timeout();
        let next = [timer, answer_at]
            .into_iter()
            .flatten()
            .fold(packet_at, Instant::min);
        if next - begin >= DAY {
            return lookups;
        }
        world.now = next;
        if answer_at.is_some_and(|at| at <= next) {
            answer_at = None;
            for family in AddressFamily::ALL {
                match (failure.answer().1, family) {
                    (Ok(_), V6) => world.answer(V6, Err(NameFailure::NoData)),
                    (outcome, _) => world.answer(family, outcome),
                }
            }
        } else if packet_at <= next {
            packet(&mut world, failure, id, proxy_ip);
            packet_at += PACKET_EVERY;
            if (packet_at - begin >= REST_AFTER) && (packet_at - begin < REST_AFTER + HOUR) {
                packet_at = begin + REST_AFTER + HOUR;
            }
        } else {
            world.domains.handle_timeout(next);
            let timer = world.domains.poll_timeout();
            assert!(timer.is_none_or(|timer| timer > next), "a busy loop");
        }
        world.released();
    }
}

/// A packet of a stream that began long ago.
fn packet(world: &mut World, failure: Failure, id: MappingId, proxy_ip: IpAddr) {
    match world.route(id, proxy_ip) {
        Route::To { real, .. } => {
            world
                .domains
                .note_inbound(id, real, Sent::Unconfirmed, world.now);
            if failure == Failure::Unroutable {
                world.domains.note_unreachable(id, real, world.now);
            }
        }
        Route::Hold => {
            let packet = [0x45; 60];
            let held = world.domains.hold(id, &packet, world.now);
            assert_eq!(held, Ok(()), "at one packet a second there is room");
        }
        Route::Unreachable => {}
    }
}

/// docs/lessons.md 2: A refresh does not loop.
#[expect(clippy::print_stdout, reason = "the counts are worth reading")]
fn a_day_of(failure: Failure) {
    let lookups = play(failure);
    let (fewest, most) = failure.bounds(DAY - HOUR);
    let rest = REST_AFTER + IN_USE..REST_AFTER + HOUR;
    let at_rest = lookups.iter().filter(|at| rest.contains(at)).count();
    let count = lookups.len();
    let first_hour = lookups.iter().filter(|at| **at < HOUR).count();
    println!(
        "{failure:?}: {count} lookups in 23 h of one packet a second (allowed {fewest} to {most}), \
         {first_hour} of them in the first hour, {at_rest} in the hour without packets"
    );
    assert_eq!(at_rest, 0);
    assert!(
        (fewest..=most).contains(&count),
        "{failure:?}: {count} of {fewest} to {most}"
    );
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_day_of_a_one_way_stream() {
    a_day_of(Failure::OneWay);
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_day_of_an_unroutable_address() {
    a_day_of(Failure::Unroutable);
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_day_of_an_empty_answer() {
    a_day_of(Failure::NoData);
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_day_of_a_name_that_does_not_exist() {
    a_day_of(Failure::NoSuchName);
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn a_day_of_a_dead_dns_server() {
    a_day_of(Failure::DeadDns);
}
