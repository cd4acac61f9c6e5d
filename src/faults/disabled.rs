//! The interface of fault injection in a gateway that is built without it: no function does
//! anything.

use super::InjectFault;
use actix::{Actor, Context, Recipient};
use postern_core::ids::ClientId;
use std::future::{Ready, ready};

/// Has no value, so no message that carries a fault can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {}

/// Proves that the type has no value.
const _: () = assert!(size_of::<Option<FaultKind>>() == 0);

/// Never called: there is no fault to call it with.
pub fn inject<A: Actor<Context = Context<A>>>(
    fault: FaultKind,
    _kind: &'static str,
    _ctx: &mut Context<A>,
) {
    match fault {}
}

#[inline]
pub fn on_started(_kind: &'static str) {}

#[inline]
pub fn on_packets(_client: ClientId) {}

#[inline]
pub fn listen(_supervisor: Recipient<InjectFault>) -> Ready<()> {
    ready(())
}
