//! Shared by all actors: the clocks, randomness, the actor's one timer, the control path.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use postern_core::UnixTime;
use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

/// Sends on the control path: never dropped for lack of room, because the volume is bounded: one
/// message per portal event, per child, or per announcement, of which a client has a budget.
#[expect(
    clippy::disallowed_methods,
    reason = "control messages are few and must arrive; the data path uses a Link"
)]
pub fn tell<M>(to: &Recipient<M>, message: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    to.do_send(message);
}

/// As [`tell`], for an address.
pub fn tell_addr<A, M>(to: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    tell(&to.clone().recipient(), message);
}
