//! What stands in for fault injection in a gateway that was built without it: nothing.

use super::InjectFault;
use actix::{Actor, Context, Recipient};
use postern_core::ids::ClientId;
use std::future::{Ready, ready};

/// There is none, so no message that carries one can ever be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {}

/// Without values, there is nothing to tell apart from `None`.
const _: () = assert!(size_of::<Option<FaultKind>>() == 0);

/// Never called: nobody has a fault.
pub fn inject<A: Actor<Context = Context<A>>>(
    fault: FaultKind,
    _kind: &'static str,
    _ctx: &mut Context<A>,
) {
    match fault {}
}

/// Does nothing.
#[inline]
pub fn on_started(_kind: &'static str) {}

/// Does nothing.
#[inline]
pub fn on_packets(_client: ClientId) {}

/// Does nothing.
#[inline]
pub fn listen(_supervisor: Recipient<InjectFault>) -> Ready<()> {
    ready(())
}
