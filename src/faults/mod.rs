//! Fault injection: lets a test or a chaos run break the actors of a running gateway from outside.
//!
//! Built only with the cargo feature `fault-injection`, and never for release. The gateway then
//! listens on the unix socket that the environment variable `POSTERN_FAULTS` names, and does to its
//! actors what the lines say that come in (see `line`). Without the feature the same names are
//! here, so that no actor needs to know, but there is no value of [`FaultKind`]: the compiler can
//! see that no fault ever happens, and drops what would handle one.

// A release build has no debug assertions, and nothing in the profiles switches them on.
#[cfg(all(feature = "fault-injection", not(debug_assertions)))]
compile_error!(
    "the feature fault-injection lets anybody with the socket crash the gateway: build for \
     release without it"
);

#[cfg(not(feature = "fault-injection"))]
mod absent;
#[cfg(feature = "fault-injection")]
mod armed;
#[cfg(feature = "fault-injection")]
mod desk;
#[cfg(feature = "fault-injection")]
mod line;
#[cfg(all(test, feature = "fault-injection"))]
mod tests;

#[cfg(not(feature = "fault-injection"))]
pub use absent::{FaultKind, inject, listen, on_packets, on_started};
#[cfg(feature = "fault-injection")]
pub use armed::{FaultKind, inject, on_packets, on_started};
#[cfg(feature = "fault-injection")]
pub use desk::listen;

pub use crate::injectable;

use actix::Message;
use postern_core::ids::ClientId;
use std::fmt;

/// Who is to suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "fault-injection"),
    expect(dead_code, reason = "without faults there is no target")
)]
pub enum Target {
    /// The SupervisorActor; only by a panic in a handler.
    Supervisor,
    /// The PortalActor.
    Portal,
    /// The DnsActor.
    Dns,
    /// The NatTableActor of this shard.
    NatTable(u8),
    /// The TunActor of this shard.
    Tun(u8),
    /// The UdpActor of this shard.
    Udp(u8),
    /// The AdminActor.
    Admin,
    /// The ConnectionActor of this client, or that of any.
    Connection(Option<ClientId>),
}

impl fmt::Display for Target {
    /// The kind alone, as log lines call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Supervisor => "supervisor",
            Self::Portal => "portal",
            Self::Dns => "dns",
            Self::NatTable(_) => "nat_table",
            Self::Tun(_) => "tun",
            Self::Udp(_) => "udp",
            Self::Admin => "admin",
            Self::Connection(_) => "connection",
        })
    }
}

/// To the SupervisorActor: pass [`Fault`] on to the target. Answered with why that cannot be done,
/// in words.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), String>")]
pub struct InjectFault {
    /// Who.
    pub target: Target,
    /// What.
    pub kind: FaultKind,
}

/// To an actor that is [`injectable`]: break like this.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Fault(pub FaultKind);

/// Lets faults be injected into an actor: `injectable!(TunActor, "tun")` gives it a handler of
/// [`Fault`]. The second is its kind, as log lines call it and as it calls [`on_started`].
#[macro_export]
#[doc(hidden)]
macro_rules! injectable {
    ($actor:ty, $kind:literal) => {
        impl ::actix::Handler<$crate::faults::Fault> for $actor {
            type Result = ();

            fn handle(&mut self, fault: $crate::faults::Fault, ctx: &mut ::actix::Context<Self>) {
                $crate::faults::inject(fault.0, $kind, ctx);
            }
        }
    };
}
