//! How the supervisor and the other actors reach each child.

use crate::actors::dns::UseNameServers;
use crate::messages::diagnosis::ExplainName;
use crate::messages::dns::{LimitLookups, ResolveName, ServeNames};
use crate::messages::nat_table::{LimitNatTable, RouteClient, UnrouteClient};
use crate::messages::packets::{InboundPackets, OutboundPackets, StrayPackets};
use crate::messages::portal::{
    CandidatesGathered, ConnectionAccepted, LeavePortal, RequestRelays, TolerateOutage,
};
use crate::messages::recipients;
use crate::messages::successors::{
    NatTableInputs, UdpInputs, UseDns, UseOutbound, UseSibling, UseTun,
};
use crate::messages::tun::ConfigureInterface;
use crate::messages::udp::{FlushDatagrams, LimitHandshakes, OfferAddresses, UseRelays};

recipients! {
    pub struct TunLinks {
        packets: InboundPackets,
        configure: ConfigureInterface,
        use_outbound: UseOutbound,
    }
}

recipients! {
    pub struct NatTableLinks {
        outbound: OutboundPackets,
        strays: StrayPackets,
        route: RouteClient,
        unroute: UnrouteClient,
        use_tun: UseTun,
        use_sibling: UseSibling,
        use_dns: UseDns,
        explain: ExplainName,
        limit: LimitNatTable,
    } with inputs: NatTableInputs
}

recipients! {
    pub struct UdpLinks {
        relays: UseRelays,
        flush: FlushDatagrams,
        handshakes: LimitHandshakes,
        offer: OfferAddresses,
    } with inputs: UdpInputs
}

recipients! {
    pub struct DnsLinks {
        resolve: ResolveName,
        serve: ServeNames,
        servers: UseNameServers,
        limit: LimitLookups,
    }
}

recipients! {
    pub struct PortalLinks {
        accepted: ConnectionAccepted,
        gathered: CandidatesGathered,
        request_relays: RequestRelays,
        leave: LeavePortal,
        tolerate: TolerateOutage,
    }
}
