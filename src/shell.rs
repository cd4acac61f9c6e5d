//! Shared by all actors: the clocks, randomness, an actor's timers.

use actix::prelude::*;
use postern_core::UnixTime;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The only place in the program that reads the monotonic clock. Follows tokio's paused time in
/// tests.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The only place in the program that reads the wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the wall clock; all other code is handed a UnixTime"
)]
pub fn unix_now() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since_epoch.map_or(0, |elapsed| elapsed.as_secs()))
}

/// For seeds and keys; fails if the kernel provides none.
pub fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// An actor with a core that asks to be woken.
pub trait Driven: Actor<Context = Context<Self>> {
    fn wakeup(&mut self) -> &mut Wakeup;
    /// Passes the deadline to the core, then drains it.
    fn on_deadline(&mut self, ctx: &mut Context<Self>);
}

/// At most one pending timer per actor; re-armed only when the core's deadline moves.
#[derive(Default)]
pub struct Wakeup {
    armed: Option<(Instant, SpawnHandle)>,
}

/// Arms the actor's timer for `deadline`, or disarms it.
pub fn arm<A: Driven>(actor: &mut A, deadline: Option<Instant>, ctx: &mut Context<A>) {
    let armed = actor.wakeup().armed.take();
    if armed.map(|(at, _)| at) == deadline {
        actor.wakeup().armed = armed;
        return;
    }
    if let Some((_, handle)) = armed {
        ctx.cancel_future(handle);
    }
    let Some(at) = deadline else { return };
    let handle = ctx.run_later(at.saturating_duration_since(now()), |actor, ctx| {
        actor.wakeup().armed = None;
        actor.on_deadline(ctx);
    });
    actor.wakeup().armed = Some((at, handle));
}

/// The one timer of an actor with messages that wait for room in a mailbox.
#[derive(Default)]
pub struct Retry {
    is_armed: bool,
}

/// An actor that sends through [`Post`](crate::post::Post)s.
pub trait Posting: Actor<Context = Context<Self>> {
    fn retry(&mut self) -> &mut Retry;
    /// Whether any message waits.
    fn is_waiting(&self) -> bool;
    /// Sends again what waits.
    fn resend(&mut self, ctx: &mut Context<Self>);
}

/// Arms the actor's timer if messages wait. Called after sending.
pub fn resend_later<A: Posting>(actor: &mut A, ctx: &mut Context<A>) {
    if !actor.is_waiting() || std::mem::replace(&mut actor.retry().is_armed, true) {
        return;
    }
    ctx.run_later(RESEND_AFTER, |actor, ctx| {
        actor.retry().is_armed = false;
        actor.resend(ctx);
        resend_later(actor, ctx);
    });
}

/// A healthy actor empties a full mailbox in less.
const RESEND_AFTER: Duration = Duration::from_millis(20);
