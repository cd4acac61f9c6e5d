//! How the supervisor and the other actors reach each child. All of a kind may lead to one actor,
//! as in tests.

use crate::messages::diagnosis::ExplainName;
use crate::messages::dns::{LimitLookups, ResolveName, ServeNames, UseNameServers};
use crate::messages::nat_table::{
    AssignProxyIps, AttachClient, DetachClient, LimitNatTable, ReleaseResource, RouteClient,
    UnrouteClient,
};
use crate::messages::packets::{InboundPackets, OutboundDatagrams, OutboundPackets, StrayPackets};
use crate::messages::portal::{
    CandidatesGathered, ConnectionAccepted, LeavePortal, RequestRelays, TolerateOutage,
};
use crate::messages::successors::{
    NatTableInputs, UdpInputs, UseDns, UseOutbound, UseSibling, UseTun,
};
use crate::messages::tun::ConfigureInterface;
use crate::messages::udp::{
    AttachPeer, DetachPeer, FlushDatagrams, LimitHandshakes, OfferAddresses, UseRelays,
};
use actix::prelude::*;

/// To the TunActor.
#[derive(Clone)]
pub struct TunLinks {
    /// Packets towards resources.
    pub packets: Recipient<InboundPackets>,
    /// Its addresses and routes.
    pub configure: Recipient<ConfigureInterface>,
    /// Where packets from resources go.
    pub use_outbound: Recipient<UseOutbound>,
}

/// To the NatTableActor.
#[derive(Clone)]
pub struct NatTableLinks {
    /// For connections.
    pub inputs: NatTableInputs,
    /// Packets from resources.
    pub outbound: Recipient<OutboundPackets>,
    /// Packets from resources that another shard has read.
    pub strays: Recipient<StrayPackets>,
    /// Clients of other shards.
    pub route: Recipient<RouteClient>,
    /// And their end.
    pub unroute: Recipient<UnrouteClient>,
    /// Where packets towards resources go.
    pub use_tun: Recipient<UseTun>,
    /// Where packets for clients of another shard go.
    pub use_sibling: Recipient<UseSibling>,
    /// Who looks names up.
    pub use_dns: Recipient<UseDns>,
    /// What it knows of a name.
    pub explain: Recipient<ExplainName>,
    /// Other limits.
    pub limit: Recipient<LimitNatTable>,
}

/// To the UdpActor.
#[derive(Clone)]
pub struct UdpLinks {
    /// For connections.
    pub inputs: UdpInputs,
    /// Whom to ask for our addresses.
    pub relays: Recipient<UseRelays>,
    /// The last message of all.
    pub flush: Recipient<FlushDatagrams>,
    /// Another limit.
    pub handshakes: Recipient<LimitHandshakes>,
    /// Other addresses.
    pub offer: Recipient<OfferAddresses>,
}

/// To the DnsActor.
#[derive(Clone)]
pub struct DnsLinks {
    /// Lookups.
    pub resolve: Recipient<ResolveName>,
    /// Where clients ask.
    pub serve: Recipient<ServeNames>,
    /// Other name servers.
    pub servers: Recipient<UseNameServers>,
    /// Other limits.
    pub limit: Recipient<LimitLookups>,
}

/// To the PortalActor.
#[derive(Clone)]
pub struct PortalLinks {
    /// Acknowledgements.
    pub accepted: Recipient<ConnectionAccepted>,
    /// Our candidates.
    pub gathered: Recipient<CandidatesGathered>,
    /// None is left.
    pub request_relays: Recipient<RequestRelays>,
    /// The end.
    pub leave: Recipient<LeavePortal>,
    /// How long it may be away.
    pub tolerate: Recipient<TolerateOutage>,
}

impl TunLinks {
    /// All to `addr`.
    #[must_use]
    pub fn to<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<InboundPackets>
            + Handler<ConfigureInterface>
            + Handler<UseOutbound>,
    {
        Self {
            packets: addr.clone().recipient(),
            configure: addr.clone().recipient(),
            use_outbound: addr.clone().recipient(),
        }
    }
}

impl NatTableLinks {
    /// All to `addr`.
    #[must_use]
    pub fn to<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<InboundPackets>
            + Handler<OutboundPackets>
            + Handler<AttachClient>
            + Handler<DetachClient>
            + Handler<AssignProxyIps>
            + Handler<ReleaseResource>
            + Handler<StrayPackets>
            + Handler<RouteClient>
            + Handler<UnrouteClient>
            + Handler<UseTun>
            + Handler<UseSibling>
            + Handler<UseDns>
            + Handler<ExplainName>
            + Handler<LimitNatTable>,
    {
        Self {
            inputs: NatTableInputs {
                packets: addr.clone().recipient(),
                attach: addr.clone().recipient(),
                detach: addr.clone().recipient(),
                assign: addr.clone().recipient(),
                release: addr.clone().recipient(),
            },
            outbound: addr.clone().recipient(),
            strays: addr.clone().recipient(),
            route: addr.clone().recipient(),
            unroute: addr.clone().recipient(),
            use_tun: addr.clone().recipient(),
            use_sibling: addr.clone().recipient(),
            use_dns: addr.clone().recipient(),
            explain: addr.clone().recipient(),
            limit: addr.clone().recipient(),
        }
    }
}

impl UdpLinks {
    /// All to `addr`.
    #[must_use]
    pub fn to<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<OutboundDatagrams>
            + Handler<AttachPeer>
            + Handler<DetachPeer>
            + Handler<UseRelays>
            + Handler<FlushDatagrams>
            + Handler<LimitHandshakes>
            + Handler<OfferAddresses>,
    {
        Self {
            inputs: UdpInputs {
                datagrams: addr.clone().recipient(),
                attach: addr.clone().recipient(),
                detach: addr.clone().recipient(),
            },
            relays: addr.clone().recipient(),
            flush: addr.clone().recipient(),
            handshakes: addr.clone().recipient(),
            offer: addr.clone().recipient(),
        }
    }
}

impl DnsLinks {
    /// All to `addr`.
    #[must_use]
    pub fn to<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<ResolveName>
            + Handler<ServeNames>
            + Handler<UseNameServers>
            + Handler<LimitLookups>,
    {
        Self {
            resolve: addr.clone().recipient(),
            serve: addr.clone().recipient(),
            servers: addr.clone().recipient(),
            limit: addr.clone().recipient(),
        }
    }
}

impl PortalLinks {
    /// All to `addr`.
    #[must_use]
    pub fn to<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<ConnectionAccepted>
            + Handler<CandidatesGathered>
            + Handler<RequestRelays>
            + Handler<LeavePortal>
            + Handler<TolerateOutage>,
    {
        Self {
            accepted: addr.clone().recipient(),
            gathered: addr.clone().recipient(),
            request_relays: addr.clone().recipient(),
            leave: addr.clone().recipient(),
            tolerate: addr.clone().recipient(),
        }
    }
}
