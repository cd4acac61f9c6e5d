//! The messages of actors, one type for each verb: a test asks an inbox for the next of a type.

use crate::config::UseSettings;
use crate::messages::dns::{NameAnswered, ResolveName, ServeNames};
use crate::messages::nat_table::{AttachClient, NatTableCommand, NatTableSetup, RouteClient};
use crate::messages::packets::{
    InboundDatagrams, InboundPackets, OutboundDatagrams, OutboundPackets, StrayPackets,
};
use crate::messages::portal::PortalCommand;
use crate::messages::supervisor::{
    ChildDied, ConnectionFact, ConnectionNews, HealthNews, NatTableChanged,
};
use crate::messages::tun::TunSetup;
use crate::messages::udp::{AttachPeer, UdpCommand, UdpSetup};
use crate::messages::updates::ConnectionUpdate;
use actix::Recipient;
use postern_core::authorizations::NameMeaning;
use postern_core::grant::{Relay, TunnelAddresses};
use postern_core::ids::ClientId;
use postern_core::peer::{DomainStatus, LocalAddresses, PeerIndex};

pub(crate) struct DetachClient {
    pub(crate) client: ClientId,
    pub(crate) index: PeerIndex,
}

pub(crate) struct NameChanged {
    pub(crate) client: ClientId,
    pub(crate) meaning: NameMeaning,
}

pub(crate) struct DetachPeer {
    pub(crate) index: PeerIndex,
}

pub(crate) struct UseRelays(pub(crate) Vec<Relay>);

pub(crate) struct FlushDatagrams;

pub(crate) struct ConfigureInterface(pub(crate) TunnelAddresses);

pub(crate) struct UseOutbound(pub(crate) Recipient<OutboundPackets>);

pub(crate) struct UseTun(pub(crate) Recipient<InboundPackets>);

pub(crate) struct UseDns(pub(crate) Recipient<ResolveName>);

pub(crate) struct UseSibling {
    pub(crate) shard: u8,
    pub(crate) strays: Recipient<StrayPackets>,
}

pub(crate) struct UnrouteClient(pub(crate) ClientId);

pub(crate) struct ConnectionAccepted {
    pub(crate) reply_ref: String,
}

pub(crate) struct CandidatesGathered {
    pub(crate) client: ClientId,
    pub(crate) candidates: Vec<String>,
}

pub(crate) struct RequestRelays;

pub(crate) struct LeavePortal;

pub(crate) struct ConnectionClosed {
    pub(crate) client: ClientId,
    pub(crate) opened: u64,
}

pub(crate) struct DomainStatusChanged(pub(crate) DomainStatus);

pub(crate) struct LocalAddressesChanged(pub(crate) LocalAddresses);

macro_rules! seen {
    ($($message:ident),* $(,)?) => {
        /// Any message that an actor sends to another, except those to connections.
        pub(crate) enum Seen {
            $($message($message),)*
        }

        impl Seen {
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$message(_) => stringify!($message),)*
                }
            }
        }

        $(
            impl TryFrom<Seen> for $message {
                type Error = Seen;

                fn try_from(seen: Seen) -> Result<Self, Seen> {
                    if let Seen::$message(message) = seen {
                        Ok(message)
                    } else {
                        Err(seen)
                    }
                }
            }
        )*
    };
}

seen! {
    AttachClient,
    AttachPeer,
    CandidatesGathered,
    ChildDied,
    ConfigureInterface,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionNews,
    DetachClient,
    DetachPeer,
    DomainStatusChanged,
    FlushDatagrams,
    HealthNews,
    InboundDatagrams,
    InboundPackets,
    LeavePortal,
    LocalAddressesChanged,
    NameAnswered,
    NatTableChanged,
    OutboundDatagrams,
    OutboundPackets,
    NameChanged,
    RequestRelays,
    ResolveName,
    RouteClient,
    ServeNames,
    StrayPackets,
    UnrouteClient,
    UseDns,
    UseOutbound,
    UseRelays,
    UseSettings,
    UseSibling,
    UseTun,
}

macro_rules! seen_as_they_are {
    ($($message:ident),* $(,)?) => {$(
        impl From<$message> for Seen {
            fn from(message: $message) -> Self {
                Self::$message(message)
            }
        }
    )*};
}

seen_as_they_are! {
    ChildDied,
    HealthNews,
    InboundDatagrams,
    InboundPackets,
    NameAnswered,
    NatTableChanged,
    OutboundDatagrams,
    OutboundPackets,
    ResolveName,
    ServeNames,
    StrayPackets,
    UseSettings,
}

impl From<NatTableCommand> for Seen {
    fn from(command: NatTableCommand) -> Self {
        match command {
            NatTableCommand::Attach(attach) => Self::AttachClient(attach),
            NatTableCommand::Detach { client, index } => {
                Self::DetachClient(DetachClient { client, index })
            }
            NatTableCommand::Names { client, meanings } => {
                let [meaning] = <[_; 1]>::try_from(meanings).expect("one name in these tests");
                Self::NameChanged(NameChanged { client, meaning })
            }
        }
    }
}

impl From<NatTableSetup> for Seen {
    fn from(setup: NatTableSetup) -> Self {
        match setup {
            NatTableSetup::Route(route) => Self::RouteClient(route),
            NatTableSetup::Unroute(client) => Self::UnrouteClient(UnrouteClient(client)),
            NatTableSetup::UseTun(tun) => Self::UseTun(UseTun(tun)),
            NatTableSetup::UseSibling { shard, strays } => {
                Self::UseSibling(UseSibling { shard, strays })
            }
            NatTableSetup::UseDns(resolve) => Self::UseDns(UseDns(resolve)),
        }
    }
}

impl From<UdpCommand> for Seen {
    fn from(command: UdpCommand) -> Self {
        match command {
            UdpCommand::Attach(attach) => Self::AttachPeer(attach),
            UdpCommand::Detach(index) => Self::DetachPeer(DetachPeer { index }),
        }
    }
}

impl From<UdpSetup> for Seen {
    fn from(setup: UdpSetup) -> Self {
        match setup {
            UdpSetup::UseRelays(relays) => Self::UseRelays(UseRelays(relays)),
            UdpSetup::Flush => Self::FlushDatagrams(FlushDatagrams),
        }
    }
}

impl From<TunSetup> for Seen {
    fn from(setup: TunSetup) -> Self {
        match setup {
            TunSetup::Configure(tunnel) => Self::ConfigureInterface(ConfigureInterface(tunnel)),
            TunSetup::UseOutbound(outbound) => Self::UseOutbound(UseOutbound(outbound)),
        }
    }
}

impl From<PortalCommand> for Seen {
    fn from(command: PortalCommand) -> Self {
        match command {
            PortalCommand::Acknowledge { reply_ref } => {
                Self::ConnectionAccepted(ConnectionAccepted { reply_ref })
            }
            PortalCommand::SignalCandidates { client, candidates } => {
                Self::CandidatesGathered(CandidatesGathered { client, candidates })
            }
            PortalCommand::RequestRelays => Self::RequestRelays(RequestRelays),
            PortalCommand::Leave => Self::LeavePortal(LeavePortal),
        }
    }
}

impl From<ConnectionUpdate> for Seen {
    fn from(update: ConnectionUpdate) -> Self {
        match update {
            ConnectionUpdate::LocalAddresses(addresses) => {
                Self::LocalAddressesChanged(LocalAddressesChanged(addresses))
            }
            ConnectionUpdate::DomainStatus(status) => {
                Self::DomainStatusChanged(DomainStatusChanged(status))
            }
        }
    }
}

impl From<ConnectionNews> for Seen {
    fn from(news: ConnectionNews) -> Self {
        let client = news.client;
        match news.fact {
            ConnectionFact::Accepted { reply_ref } => {
                Self::ConnectionAccepted(ConnectionAccepted { reply_ref })
            }
            ConnectionFact::CandidatesGathered(candidates) => {
                Self::CandidatesGathered(CandidatesGathered { client, candidates })
            }
            ConnectionFact::Closed => {
                let opened = news.opened;
                Self::ConnectionClosed(ConnectionClosed { client, opened })
            }
            ConnectionFact::Authorizations(..)
            | ConnectionFact::PathInUse(_)
            | ConnectionFact::TransportLost
            | ConnectionFact::SessionEstablished => Self::ConnectionNews(news),
        }
    }
}
