//! The cost of an idle client: how often each side checks the path.

use super::tests::{Pair, resource};
use crate::peer::Demux;
use std::time::Duration;

/// An established pair, idle for long enough that both sides know it.
fn idle() -> Pair {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.agent.be_idle();
    requests(&mut pair, 60, true);
    pair
}

/// Advances by `seconds`; returns the number of checks that the gateway sent. The client checks, or
/// is gone.
fn requests(pair: &mut Pair, seconds: u64, is_there: bool) -> usize {
    let mut requests = 0;
    for _ in 0..seconds {
        pair.now += Duration::from_secs(1);
        if is_there {
            for datagram in pair.agent.progress(pair.now) {
                pair.connection.handle_datagrams(&datagram, pair.now);
            }
        }
        if pair
            .connection
            .poll_timeout()
            .is_some_and(|at| at <= pair.now)
        {
            pair.connection.handle_timeout(pair.now);
        }
        while let Some(batch) = pair.connection.poll_transmit() {
            requests += usize::from(Demux::is_stun_request(&batch));
            if is_there {
                pair.agent.handle(&batch, pair.now);
            }
        }
    }
    requests
}

#[test]
fn a_client_that_checks_its_path_is_checked_rarely() {
    let mut pair = idle();
    let ours = requests(&mut pair, 1000, true);
    assert!((9..=11).contains(&ours), "{ours} checks in 1000 s");
}

#[test]
fn a_silent_client_is_checked_as_often_as_any_idle_one() {
    let mut pair = idle();
    let first = requests(&mut pair, 60, false);
    let ours = requests(&mut pair, 250, false);
    assert!(first >= 1, "no check in 60 s");
    assert!((9..=11).contains(&ours), "{ours} checks in 250 s");
}

#[test]
fn traffic_makes_the_checks_frequent_again() {
    let mut pair = idle();
    pair.send_packet(&super::tests::udp_to_web());
    let ours = requests(&mut pair, 20, true);
    assert!(ours >= 1, "no check in 20 s of activity");
}
