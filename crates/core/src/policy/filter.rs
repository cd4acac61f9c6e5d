//! The filters of a resource (docs/protocol.md 5.2 step 7).
//!
//! Filters work in both directions without state (docs/lessons.md 19): inbound they match the
//! destination port, outbound the source port.

use crate::grant::Filter;
use crate::packet::Transport;

/// The part of a packet that filters match: the protocol, and the port on the resource's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Tcp(u16),
    Udp(u16),
    Icmp,
    Other,
}

impl Flow {
    /// The flow of a packet towards the resource.
    pub(super) fn towards(transport: Transport) -> Self {
        match transport {
            Transport::Tcp {
                destination_port, ..
            } => Self::Tcp(destination_port),
            Transport::Udp {
                destination_port, ..
            } => Self::Udp(destination_port),
            Transport::IcmpEcho { .. } | Transport::IcmpError | Transport::IcmpOther => Self::Icmp,
            Transport::Other(_) => Self::Other,
        }
    }

    /// The flow of a packet from the resource.
    pub(super) fn back(transport: Transport) -> Self {
        match transport {
            Transport::Tcp { source_port, .. } => Self::Tcp(source_port),
            Transport::Udp { source_port, .. } => Self::Udp(source_port),
            Transport::IcmpEcho { .. } | Transport::IcmpError | Transport::IcmpOther => Self::Icmp,
            Transport::Other(_) => Self::Other,
        }
    }
}

/// Whether `filters` permit `flow`. An empty list permits everything; only an empty list permits
/// protocols other than TCP, UDP and ICMP.
pub(super) fn permits(filters: &[Filter], flow: Flow) -> bool {
    filters.is_empty()
        || filters.iter().any(|filter| match (filter, flow) {
            (Filter::Tcp(ports), Flow::Tcp(port)) | (Filter::Udp(ports), Flow::Udp(port)) => {
                ports.contains(&port)
            }
            (Filter::Icmp, Flow::Icmp) => true,
            (Filter::Tcp(_) | Filter::Udp(_) | Filter::Icmp, _) => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_permits_every_protocol() {
        for flow in [Flow::Tcp(1), Flow::Udp(1), Flow::Icmp, Flow::Other] {
            assert!(permits(&[], flow));
        }
    }

    #[test]
    fn port_ranges_include_both_ends_and_only_their_protocol() {
        let filters = [Filter::Tcp(80..=443), Filter::Udp(0..=65535)];
        for (flow, expected) in [
            (Flow::Tcp(79), false),
            (Flow::Tcp(80), true),
            (Flow::Tcp(443), true),
            (Flow::Tcp(444), false),
            (Flow::Udp(0), true),
            (Flow::Udp(65535), true),
            (Flow::Icmp, false),
            (Flow::Other, false),
        ] {
            assert_eq!(permits(&filters, flow), expected, "{flow:?}");
        }
    }

    #[test]
    fn other_protocols_pass_no_filter() {
        let everything_nameable = [Filter::Tcp(0..=65535), Filter::Udp(0..=65535), Filter::Icmp];
        assert!(!permits(&everything_nameable, Flow::Other));
        assert!(permits(&everything_nameable, Flow::Icmp));
    }
}
