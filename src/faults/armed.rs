//! What each fault does to the actor that it is injected into.
//!
//! Panics say "injected: panic in PLACE of KIND", so that logs tell them from bugs. What the next
//! incarnation of an actor or each packet of a client is to suffer is kept process-wide: whoever
//! suffers it is not there yet, or knows nothing of faults.

use actix::fut::wrap_future;
use actix::prelude::*;
use postern_core::ids::ClientId;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A way to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Panic in the handler of a message.
    PanicInHandler,
    /// Panic now, and the next incarnation of that kind once more, in `started`.
    PanicInStarted,
    /// Panic in a spawned future, at its second poll.
    PanicInFuture,
    /// Panic in a timer.
    PanicInTimer,
    /// Stop, as an actor does by itself.
    Stop,
    /// Never look at the mailbox again; the thread stays free.
    Hang,
    /// Keep the thread for 30 s.
    Block,
    /// Do not look at the mailbox for 3 s, so that what comes in fills it.
    Fill,
    /// Panic on all packets of a client, whichever actor is to carry them.
    PanicOnPackets,
    /// Take [`Self::PanicOnPackets`] back.
    Calm,
}

/// Breaks the actor behind `ctx`, which is of this kind. What is no fault of an actor
/// ([`FaultKind::PanicOnPackets`], [`FaultKind::Calm`]) does nothing here.
///
/// # Panics
///
/// That is what it is for.
pub fn inject<A: Actor<Context = Context<A>>>(
    fault: FaultKind,
    kind: &'static str,
    ctx: &mut Context<A>,
) {
    match fault {
        FaultKind::PanicInHandler => panic!("injected: panic in handler of {kind}"),
        FaultKind::PanicInStarted => {
            *locked(&DOOMED).entry(kind).or_default() += 1;
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
        FaultKind::PanicOnPackets | FaultKind::Calm => {}
    }
}

/// Called first in an actor's `started`.
///
/// # Panics
///
/// When this incarnation is meant by an earlier [`FaultKind::PanicInStarted`].
pub fn on_started(kind: &'static str) {
    let is_doomed = match locked(&DOOMED).get_mut(kind) {
        Some(0) | None => false,
        Some(left) => {
            *left -= 1;
            true
        }
    };
    assert!(!is_doomed, "injected: panic in started of {kind}");
}

/// Called before a client's packets are looked at.
///
/// # Panics
///
/// While that client's packets are to ([`FaultKind::PanicOnPackets`]).
#[inline]
pub fn on_packets(client: ClientId) {
    if ANY_POISONOUS.load(Ordering::Relaxed) {
        let is_poisonous = locked(&POISONOUS).contains(&client);
        assert!(!is_poisonous, "injected: panic in packets of connection");
    }
}

/// From now on all packets of `client` panic.
pub(super) fn poison(client: ClientId) {
    let mut poisonous = locked(&POISONOUS);
    poisonous.insert(client);
    ANY_POISONOUS.store(true, Ordering::Relaxed);
}

/// Packets of `client`, or of all clients, no longer panic.
pub(super) fn calm(client: Option<ClientId>) {
    let mut poisonous = locked(&POISONOUS);
    match client {
        Some(client) => {
            poisonous.remove(&client);
        }
        None => poisonous.clear(),
    }
    ANY_POISONOUS.store(!poisonous.is_empty(), Ordering::Relaxed);
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
    reason = "a thread that stands still is the fault"
)]
fn block() {
    std::thread::sleep(BLOCKED_FOR);
}

/// Whoever panics here does so without the lock.
fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many incarnations of each kind have to panic in `started`.
static DOOMED: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());
/// Whose packets panic.
static POISONOUS: Mutex<BTreeSet<ClientId>> = Mutex::new(BTreeSet::new());
/// Whether there are any, for the path of every packet.
static ANY_POISONOUS: AtomicBool = AtomicBool::new(false);

/// Longer than any patience of the watchdog; a test of the block itself does not wait as long.
pub(super) const BLOCKED_FOR: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(30)
};

/// Long enough for traffic to fill any mailbox.
pub(super) const FILLED_FOR: Duration = Duration::from_secs(3);
