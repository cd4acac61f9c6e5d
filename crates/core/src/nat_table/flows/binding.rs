//! What the flow table is told and what it answers: plain values.

use super::key::{FlowProtocol, Inside, Outside};
use crate::names::DomainName;
use crate::nat_table::MappingId;
#[cfg(doc)]
use crate::packet::DropReason;
use std::net::IpAddr;

/// How large a table may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows of all clients, remembered ones included.
    pub flows: u32,
    /// Live flows of one client; more than [`Self::FLOWS_PER_CLIENT_MAX`] is taken as that.
    pub flows_per_client: u32,
}

impl FlowLimits {
    /// At most half of the ports, so that a random one is free at least every other time.
    pub const FLOWS_PER_CLIENT_MAX: u32 = 32_768;

    /// No more than a table can have.
    pub(super) fn possible(self) -> Self {
        Self {
            flows: self.flows.min(u32::MAX - 1),
            flows_per_client: self.flows_per_client.min(Self::FLOWS_PER_CLIENT_MAX),
        }
    }
}

/// One flow of one table. Leads nowhere once that flow is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    pub(super) at: u32,
    pub(super) generation: u16,
}

/// A live flow as it was when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// By which it is spoken of.
    pub flow: FlowId,
    /// As the client sees it.
    pub inside: Inside,
    /// As the resource sees it.
    pub outside: Outside,
    /// As given to [`super::FlowTable::open`].
    pub mapping: MappingId,
    /// As given to [`super::FlowTable::open`] or [`super::FlowTable::rebind`] last.
    pub epoch: u32,
    /// Whether a packet came back.
    pub confirmed: bool,
}

/// Where a new flow is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTarget {
    /// Of the family of the proxy IP.
    pub real: IpAddr,
    /// Kept for the caller.
    pub mapping: MappingId,
    /// Kept for the caller.
    pub epoch: u32,
}

/// A flow that cannot be guessed from what else is known, as it is kept for the time after a
/// rebuild. By client; the first three fields are its key, of which there is one flow at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinnedFlow {
    /// Which.
    pub protocol: FlowProtocol,
    /// The client's source port.
    pub port: u16,
    /// Where the client believes to send.
    pub proxy: IpAddr,
    /// The name that the proxy IP stood for. Void once it stands for another.
    pub name: DomainName,
    /// The port that stands for the client's.
    pub outside_port: u16,
    /// Where the packets really go; of the family of the proxy IP.
    pub real: IpAddr,
}

/// What an outside tuple stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This flow.
    Live(Binding),
    /// A flow that ended: the packet is to be dropped as [`DropReason::ExpiredFlow`].
    Expired,
    /// Nothing that is, or is remembered.
    Unknown,
}
