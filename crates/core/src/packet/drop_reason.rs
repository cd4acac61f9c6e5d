//! Why a packet was dropped. Counted by variant, never formatted on the data path.

/// Reasons to drop a packet; one counter each, labelled [`Self::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Not an IP packet, or a header that contradicts the packet's length.
    MalformedIp,
    /// Longer than the tunnel's MTU of 1280 bytes.
    OversizedIp,
    /// An IP fragment (docs/protocol.md 5.7: never forwarded).
    Fragment,
    /// A truncated TCP, UDP or ICMP header.
    MalformedTransport,
    /// A multicast destination, sent by a client.
    Multicast,
    /// An ICMP error sent by a client (docs/lessons.md 19).
    IcmpErrorFromClient,
    /// The source is not the client's tunnel address.
    SourceMismatch,
    /// No authorization covers the destination, or the resource's filter forbids it.
    NotAuthorized,
    /// Addressed to another client or to the gateway's own range.
    TunnelRange,
    /// A private or reserved address, sent to an Internet resource.
    NotInternet,
    /// A proxy IP without a real address.
    Unmapped,
    /// A packet of a flow that expired (docs/lessons.md 13).
    ExpiredFlow,
    /// No free port is left for the translation.
    PortsExhausted,
    /// The client has reached its flow limit, and none of its flows is evictable.
    FlowTableFull,
    /// Too many packets already wait for the addresses of a name.
    HoldFull,
    /// An IP protocol that the NAT table cannot translate.
    Untranslatable,
    /// From the resource side, to an address that no client has.
    UnknownClient,
    /// To a client without a working tunnel.
    NotConnected,
    /// From the resource side, from an address that no resource of the client covers.
    ReturnNotAuthorized,
    /// A UDP payload that is neither STUN, WireGuard nor ChannelData.
    UnknownDatagram,
    /// STUN that does not parse, or that no peer or server expects.
    StunRejected,
    /// WireGuard that does not parse, does not decrypt, or matches no peer.
    WireguardRejected,
    /// A replayed or too old WireGuard counter.
    WireguardReplayed,
    /// A handshake beyond the rate limit, answered with a cookie.
    HandshakeLimited,
    /// ChannelData from an address that is not one of our relays.
    ChannelDataRejected,
    /// An in-tunnel control message that does not parse.
    ControlRejected,
    /// The receiving actor's mailbox is full.
    MailboxFull,
    /// The kernel refused to send it (no buffer, no route).
    SendFailed,
}

impl DropReason {
    /// All variants, in order, for counters and metrics.
    pub const ALL: [Self; 28] = [
        Self::MalformedIp,
        Self::OversizedIp,
        Self::Fragment,
        Self::MalformedTransport,
        Self::Multicast,
        Self::IcmpErrorFromClient,
        Self::SourceMismatch,
        Self::NotAuthorized,
        Self::TunnelRange,
        Self::NotInternet,
        Self::Unmapped,
        Self::ExpiredFlow,
        Self::PortsExhausted,
        Self::FlowTableFull,
        Self::HoldFull,
        Self::Untranslatable,
        Self::UnknownClient,
        Self::NotConnected,
        Self::ReturnNotAuthorized,
        Self::UnknownDatagram,
        Self::StunRejected,
        Self::WireguardRejected,
        Self::WireguardReplayed,
        Self::HandshakeLimited,
        Self::ChannelDataRejected,
        Self::ControlRejected,
        Self::MailboxFull,
        Self::SendFailed,
    ];

    /// The reason's value in the `reason` label of the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MalformedIp => "malformed_ip",
            Self::OversizedIp => "oversized_ip",
            Self::Fragment => "fragment",
            Self::MalformedTransport => "malformed_transport",
            Self::Multicast => "multicast",
            Self::IcmpErrorFromClient => "icmp_error_from_client",
            Self::SourceMismatch => "source_mismatch",
            Self::NotAuthorized => "not_authorized",
            Self::TunnelRange => "tunnel_range",
            Self::NotInternet => "not_internet",
            Self::Unmapped => "unmapped",
            Self::ExpiredFlow => "expired_flow",
            Self::PortsExhausted => "ports_exhausted",
            Self::FlowTableFull => "flow_table_full",
            Self::HoldFull => "hold_full",
            Self::Untranslatable => "untranslatable",
            Self::UnknownClient => "unknown_client",
            Self::NotConnected => "not_connected",
            Self::ReturnNotAuthorized => "return_not_authorized",
            Self::UnknownDatagram => "unknown_datagram",
            Self::StunRejected => "stun_rejected",
            Self::WireguardRejected => "wireguard_rejected",
            Self::WireguardReplayed => "wireguard_replayed",
            Self::HandshakeLimited => "handshake_limited",
            Self::ChannelDataRejected => "channel_data_rejected",
            Self::ControlRejected => "control_rejected",
            Self::MailboxFull => "mailbox_full",
            Self::SendFailed => "send_failed",
        }
    }
}

/// Number of dropped packets per reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// Counts one packet dropped for `reason`.
    pub fn count(&mut self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts `packets` packets dropped for `reason`.
    pub fn count_many(&mut self, reason: DropReason, packets: usize) {
        self.0[reason as usize] += packets as u64;
    }

    /// Adds all counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (total, more) in self.0.iter_mut().zip(other.0) {
            *total += more;
        }
    }

    /// The number of packets dropped for `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The number of packets dropped for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons with a count above zero, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.0;
        DropReason::ALL
            .into_iter()
            .map(move |reason| (reason, counts[reason as usize]))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_variant_at_its_discriminant() {
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}
