//! How the supervisor and the other actors reach each child.

use crate::config::UseSettings;
use crate::messages::diagnosis::ExplainName;
use crate::messages::dns::{ResolveName, ServeNames};
use crate::messages::nat_table::{RouteClient, UnrouteClient};
use crate::messages::packets::{InboundPackets, OutboundPackets, StrayPackets};
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted, LeavePortal, RequestRelays};
use crate::messages::recipients;
use crate::messages::successors::{
    NatTableInputs, UdpInputs, UseDns, UseOutbound, UseSibling, UseTun,
};
use crate::messages::tun::ConfigureInterface;
use crate::messages::udp::{FlushDatagrams, UseRelays};

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
        settings: UseSettings,
    } with inputs: NatTableInputs
}

recipients! {
    pub struct UdpLinks {
        relays: UseRelays,
        flush: FlushDatagrams,
        settings: UseSettings,
    } with inputs: UdpInputs
}

recipients! {
    pub struct DnsLinks {
        resolve: ResolveName,
        serve: ServeNames,
        settings: UseSettings,
    }
}

recipients! {
    pub struct PortalLinks {
        accepted: ConnectionAccepted,
        gathered: CandidatesGathered,
        request_relays: RequestRelays,
        leave: LeavePortal,
        settings: UseSettings,
    }
}
