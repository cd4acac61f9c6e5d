//! Inputs and outputs of the flow table: plain values.

use super::key::{FlowProtocol, Inside, Outside};
use crate::names::DomainName;
use crate::nat_table::MappingId;
#[cfg(doc)]
use crate::packet::DropReason;
use std::net::IpAddr;

/// The limits of a [`FlowTable`](super::FlowTable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows of all clients, including remembered ones.
    pub flows: u32,
    /// Live flows of one client; capped at [`Self::FLOWS_PER_CLIENT_MAX`].
    pub flows_per_client: u32,
}

impl FlowLimits {
    /// At most half of the ports, so that a random one is free at least every other time.
    pub const FLOWS_PER_CLIENT_MAX: u32 = 32_768;

    /// The limits that a table can reach.
    pub(super) fn possible(self) -> Self {
        Self {
            flows: self.flows.min(u32::MAX - 1),
            flows_per_client: self.flows_per_client.min(Self::FLOWS_PER_CLIENT_MAX),
        }
    }
}

/// A flow of one table. Finds nothing once the flow is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    pub(super) at: u32,
    pub(super) generation: u16,
}

/// A snapshot of a live flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The id for further calls.
    pub flow: FlowId,
    /// The tuple on the client's side.
    pub inside: Inside,
    /// The tuple on the resource's side.
    pub outside: Outside,
    /// The mapping given to [`super::FlowTable::open`].
    pub mapping: MappingId,
    /// The epoch given to [`super::FlowTable::open`] or [`super::FlowTable::rebind`] last.
    pub epoch: u32,
    /// Whether a packet came back.
    pub confirmed: bool,
}

/// The destination of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTarget {
    /// The real IP, of the family of the proxy IP.
    pub real: IpAddr,
    /// Stored for the caller, not interpreted.
    pub mapping: MappingId,
    /// Stored for the caller, not interpreted.
    pub epoch: u32,
}

/// A flow that a rebuilt table could not recreate by the rule, recorded for each client. The first
/// three fields are its key, which is unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinnedFlow {
    /// TCP, UDP or ICMP echo.
    pub protocol: FlowProtocol,
    /// The client's source port.
    pub port: u16,
    /// The destination that the client uses.
    pub proxy: IpAddr,
    /// The name of the proxy IP. The pin is void once the proxy IP has another.
    pub name: DomainName,
    /// The source port on the resource's side.
    pub outside_port: u16,
    /// The real IP, of the family of the proxy IP.
    pub real: IpAddr,
}

/// The result of looking up an outside tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The tuple belongs to this live flow.
    Live(Binding),
    /// The tuple of an ended flow: drop the packet as [`DropReason::ExpiredFlow`].
    Expired,
    /// No live or remembered flow has the tuple.
    Unknown,
}
