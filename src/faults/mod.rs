//! Fault injection: a test or a chaos run breaks the actors of a running gateway from outside.
//!
//! Built only with the cargo feature `fault-injection`, and never for release. The gateway then
//! listens on the unix socket that the environment variable `POSTERN_FAULTS` names, and breaks its
//! actors as the received commands say (see `command`). Without the feature the same names exist,
//! so that no actor depends on the feature, but [`FaultKind`] has no value: the compiler sees that
//! no fault ever happens, and drops the code that handles one.

// A release build has no debug assertions, and nothing in the profiles switches them on.
#[cfg(all(feature = "fault-injection", not(debug_assertions)))]
compile_error!(
    "the feature fault-injection lets anybody with the socket crash the gateway: build for \
     release without it"
);

#[cfg(feature = "fault-injection")]
mod command;
#[cfg(feature = "fault-injection")]
mod control_socket;
#[cfg(not(feature = "fault-injection"))]
mod disabled;
#[cfg(feature = "fault-injection")]
mod enabled;
#[cfg(all(test, feature = "fault-injection"))]
mod tests;

#[cfg(feature = "fault-injection")]
pub use control_socket::listen;
#[cfg(not(feature = "fault-injection"))]
pub use disabled::{FaultKind, inject, listen, on_packets, on_started};
#[cfg(feature = "fault-injection")]
pub use enabled::{FaultKind, inject, on_packets, on_started};

pub use crate::injectable;

use actix::Message;
use postern_core::ids::ClientId;
use std::fmt;

/// The actor that a fault is injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "fault-injection"),
    expect(dead_code, reason = "without faults there is no target")
)]
pub enum Target {
    /// Takes [`FaultKind::PanicInHandler`] only.
    Supervisor,
    Portal,
    Dns,
    /// NatTableActor of this shard.
    NatTable(u8),
    /// TunActor of this shard.
    Tun(u8),
    /// UdpActor of this shard.
    Udp(u8),
    Admin,
    /// ConnectionActor of this client, or of any client.
    Connection(Option<ClientId>),
}

impl fmt::Display for Target {
    /// The kind of actor, as in log lines.
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

/// To the SupervisorActor: passes [`Fault`] on to the target. The error says why that cannot be
/// done, for people.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), String>")]
pub struct InjectFault {
    pub target: Target,
    pub kind: FaultKind,
}

/// To an actor that is [`injectable`]: breaks it in this way.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Fault(pub FaultKind);

/// Gives an actor a handler of [`Fault`]: `injectable!(TunActor, "tun")`. The second argument is
/// the kind of the actor, as in log lines and in its call of [`on_started`].
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
