//! The effect of each fault on the actor that it is injected into.
//!
//! Panics say "injected: panic in PLACE of KIND", so that logs tell them from bugs. Faults of the
//! next instance of an actor and of each packet of a client are kept process-wide: that instance
//! does not exist yet, and packets are handled by any actor.

use actix::fut::wrap_future;
use actix::prelude::*;
use postern_core::ids::ClientId;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A way in which an actor fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Panic in the handler of a message.
    PanicInHandler,
    /// Panic now, and in `started` of the next instance of that kind.
    PanicInStarted,
    /// Panic in a spawned future, at its second poll.
    PanicInFuture,
    /// Panic in the handler of a timer.
    PanicInTimer,
    /// Stop without a panic.
    Stop,
    /// Never read the mailbox again; the thread stays free.
    Hang,
    /// Keep the thread for 30 s.
    Block,
    /// Do not read the mailbox for 3 s, so that incoming messages fill it.
    Fill,
    /// Panic on all packets of a client, in the actor that handles them.
    PanicOnPackets,
    /// End [`Self::PanicOnPackets`].
    AcceptPackets,
}

/// Breaks the actor of this kind behind `ctx`. Faults of packets ([`FaultKind::PanicOnPackets`],
/// [`FaultKind::AcceptPackets`]) do nothing here.
///
/// # Panics
///
/// By the faults that are panics.
pub fn inject<A: Actor<Context = Context<A>>>(
    fault: FaultKind,
    kind: &'static str,
    ctx: &mut Context<A>,
) {
    match fault {
        FaultKind::PanicInHandler => panic!("injected: panic in handler of {kind}"),
        FaultKind::PanicInStarted => {
            *locked(&PANICS_IN_STARTED).entry(kind).or_default() += 1;
            panic!("injected: panic in handler of {kind}");
        }
        FaultKind::PanicInFuture => panic_in_future(kind, ctx),
        FaultKind::PanicInTimer => {
            ctx.run_later(Duration::from_millis(1), move |_, _| {
                panic!("injected: panic in timer of {kind}");
            });
        }
        FaultKind::Stop => ctx.stop(),
        FaultKind::Hang => ctx.wait(wrap_future(std::future::pending())),
        FaultKind::Block => block(),
        FaultKind::Fill => ctx.wait(wrap_future(tokio::time::sleep(FILLED_FOR))),
        FaultKind::PanicOnPackets | FaultKind::AcceptPackets => {}
    }
}

/// Called first in an actor's `started`.
///
/// # Panics
///
/// After [`FaultKind::PanicInStarted`] of the former instance.
pub fn on_started(kind: &'static str) {
    let mut starts = locked(&PANICS_IN_STARTED);
    let left = starts.get_mut(kind).filter(|left| **left > 0);
    let panics = left.map(|left| *left -= 1).is_some();
    drop(starts);
    assert!(!panics, "injected: panic in started of {kind}");
}

/// Called before a client's packets are handled.
///
/// # Panics
///
/// If all packets of that client panic ([`FaultKind::PanicOnPackets`]).
#[inline]
pub fn on_packets(client: ClientId) {
    if ANY_PANICKING.load(Ordering::Relaxed) {
        let panics = locked(&PANICKING).contains(&client);
        assert!(!panics, "injected: panic in packets of connection");
    }
}

/// Lets all packets of `client` panic from now on.
pub(super) fn panic_on_packets(client: ClientId) {
    change_panicking(|clients| {
        clients.insert(client);
    });
}

/// Ends the panics of the packets of `client`, or of all clients.
pub(super) fn accept_packets(client: Option<ClientId>) {
    change_panicking(|clients| clients.retain(|it| client.is_some_and(|client| client != *it)));
}

fn change_panicking(change: impl FnOnce(&mut BTreeSet<ClientId>)) {
    let mut clients = locked(&PANICKING);
    change(&mut clients);
    ANY_PANICKING.store(!clients.is_empty(), Ordering::Relaxed);
}

fn panic_in_future<A: Actor<Context = Context<A>>>(kind: &'static str, ctx: &mut Context<A>) {
    let mut was_polled = false;
    let future = poll_fn(move |task| {
        assert!(!was_polled, "injected: panic in future of {kind}");
        was_polled = true;
        task.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    ctx.spawn(wrap_future(future));
}

#[expect(
    clippy::disallowed_methods,
    reason = "the fault is a thread that does not run"
)]
fn block() {
    std::thread::sleep(BLOCKED_FOR);
}

/// No panic is injected while a lock is held.
fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many instances of each kind panic in `started`.
static PANICS_IN_STARTED: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());
/// Clients with panicking packets.
static PANICKING: Mutex<BTreeSet<ClientId>> = Mutex::new(BTreeSet::new());
/// Whether there are any: cheap to read for every packet.
static ANY_PANICKING: AtomicBool = AtomicBool::new(false);

/// Longer than any timeout of the watchdog; the test of the block itself waits less.
pub(super) const BLOCKED_FOR: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(30)
};

/// Long enough for traffic to fill any mailbox.
pub(super) const FILLED_FOR: Duration = Duration::from_secs(3);
