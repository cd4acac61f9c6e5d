//! Sample clients, grants and addresses, and the outputs of a connection among probes.

use super::probe::Probe;
use super::seen::NameChanged;
use super::tell_addr;
use crate::actors::connection::{ConnectionOutputs, ConnectionSpec};
use crate::actors::supervisor::links::{NatTableLinks, UdpLinks};
use crate::messages::nat_table::NatTableCommand;
use crate::messages::supervisor::{ConnectionFact, ConnectionNews};
use crate::messages::updates::ConnectionUpdate;
use crate::metrics::ShardMetrics;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use postern_core::authorizations::{Announced, Announcer, NameMeaning, ProxiedName};
use postern_core::command::ClientCommand;
use postern_core::connection::ConnectionConfig;
use postern_core::grant::{
    AccessRequest, AnnouncedName, AuthorizationRequest, ClientProfile, IceCredentials,
    PresharedKey, Relay, ReplyKind, Resource, ResourceKind, TunnelAddresses,
};
use postern_core::ids::{ClientId, PublicKey, RelayId, ResourceId};
use postern_core::names::DomainName;
use postern_core::peer::{GatewayKeys, LocalAddresses, PeerIndex, PeerIndexPool};
use std::net::Ipv4Addr;
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The index of the connection of client 1.
pub(crate) fn peer_index() -> PeerIndex {
    PeerIndexPool::new([0; 32]).allocate(0).expect("room")
}

/// The connection of client 1, which nothing is known of.
pub(crate) fn connection_spec(
    outputs: ConnectionOutputs,
    metrics: Arc<ShardMetrics>,
    death: DeathNotice,
) -> ConnectionSpec {
    ConnectionSpec {
        client: client(1),
        config: ConnectionConfig {
            keys: GatewayKeys::new([2; 32]),
            index: peer_index(),
            client: tunnel(1),
            gateway: Some(tunnel(0)),
            max_resources: 8,
        },
        outputs,
        record: None,
        included: 0,
        metrics,
        death,
    }
}

pub(crate) fn client(number: u8) -> ClientId {
    ClientId(Uuid::from_u128(number.into()))
}

pub(crate) fn resource(number: u8) -> ResourceId {
    ResourceId(Uuid::from_u128(number.into()))
}

/// Tunnel addresses of client `number`; 0 is the gateway.
pub(crate) fn tunnel(number: u8) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: [100, 64, 1, number].into(),
        ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, number.into()].into(),
    }
}

/// Client 1 may reach resource `number`; acknowledged with `ref-<number>`.
pub(crate) fn open(number: u8) -> ClientCommand {
    open_for(1, number)
}

/// Client `client` may reach resource `number`; acknowledged with `ref-<number>`.
pub(crate) fn open_for(client: u8, number: u8) -> ClientCommand {
    ClientCommand::Authorize(request_for(client, number))
}

/// The grant of [`open`].
pub(crate) fn request(number: u8) -> Box<AuthorizationRequest> {
    request_for(1, number)
}

pub(crate) fn request_for(client: u8, number: u8) -> Box<AuthorizationRequest> {
    Box::new(AuthorizationRequest {
        reply_ref: format!("ref-{number}"),
        client: ClientProfile {
            id: self::client(client),
            public_key: PublicKey([client; 32]),
            preshared_key: PresharedKey(Zeroizing::new([3; 32])),
            tunnel: tunnel(client),
        },
        resource: Resource {
            id: resource(number),
            name: "web".into(),
            kind: ResourceKind::Cidr("10.20.0.0/24".parse().expect("literal")),
            filters: Vec::new(),
        },
        gateway_ice: ice("6m26", "gj5f2zjrxg6cwvtrtqgfva"),
        client_ice: ice("eokn", "5enp7ct6775ebzonvunxjy"),
        expires_at: None,
        announced: None,
        reply: ReplyKind::Granted,
    })
}

/// Client 1 may reach resource `number` by a name; acknowledged with `ref-<number>`.
pub(crate) fn allow(number: u8, tunnel: Option<TunnelAddresses>) -> ClientCommand {
    let open = request(number);
    ClientCommand::Allow(Box::new(AccessRequest {
        reply_ref: open.reply_ref,
        client: open.client.id,
        tunnel,
        resource: Resource {
            kind: ResourceKind::Dns("*.corp.example".into()),
            ..open.resource
        },
        expires_at: None,
        announced: Some(AnnouncedName {
            domain: "app.corp.example".into(),
            proxy_ips: Vec::new(),
        }),
    }))
}

/// Client 1 may reach resource `number` by the name app.corp.example, which it uses under
/// [`PROXY_IPS`].
pub(crate) fn open_name(number: u8) -> ClientCommand {
    ClientCommand::Authorize(request_name(number))
}

/// The grant of [`open_name`].
pub(crate) fn request_name(number: u8) -> Box<AuthorizationRequest> {
    let mut open = request(number);
    open.resource.kind = ResourceKind::Dns("*.corp.example".into());
    open.announced = Some(AnnouncedName {
        domain: "app.corp.example".into(),
        proxy_ips: PROXY_IPS.map(Into::into).to_vec(),
    });
    open
}

pub(crate) const PROXY_IPS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(100, 96, 0, 1),
    Ipv4Addr::new(100, 96, 0, 2),
    Ipv4Addr::new(100, 96, 0, 3),
    Ipv4Addr::new(100, 96, 0, 4),
];

/// A UDP packet without payload.
pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .udp(4000, 5000)
        .write(&mut packet, &[])
        .expect("fits");
    packet
}

fn ice(ufrag: &str, password: &str) -> IceCredentials {
    IceCredentials {
        ufrag: ufrag.into(),
        password: Zeroizing::new(password.into()),
    }
}

/// The gateway's one address.
pub(crate) fn local_addresses() -> ConnectionUpdate {
    ConnectionUpdate::LocalAddresses(LocalAddresses {
        host: vec!["192.0.2.10:52625".parse().expect("literal")],
        reflexive: Vec::new(),
    })
}

pub(crate) fn relay(id: &str, addr: &str) -> Relay {
    Relay {
        id: RelayId::of(id),
        addr: addr.parse().expect("literal"),
        credentials: None,
    }
}

/// The messages of a connection, sorted by receiver: news for the portal goes there, and the
/// supervisor hears only of the end.
pub(crate) fn outputs(
    nat_table: &Addr<Probe>,
    udp: &Addr<Probe>,
    portal: &Addr<Probe>,
    supervisor: &Addr<Probe>,
) -> ConnectionOutputs {
    let (deaf, _) = Probe::start();
    let sorter = Sorter {
        portal: portal.clone(),
        supervisor: supervisor.clone(),
    };
    ConnectionOutputs {
        nat_table: NatTableLinks::from(nat_table).inputs,
        udp: UdpLinks::from(udp).inputs,
        front: None,
        resolve: deaf.recipient(),
        news: sorter.start().recipient(),
    }
}

struct Sorter {
    portal: Addr<Probe>,
    supervisor: Addr<Probe>,
}

impl Actor for Sorter {
    type Context = Context<Self>;
}

impl Handler<ConnectionNews> for Sorter {
    type Result = ();

    fn handle(&mut self, news: ConnectionNews, _: &mut Context<Self>) {
        match news.fact {
            ConnectionFact::Accepted { .. } | ConnectionFact::CandidatesGathered(_) => {
                tell_addr(&self.portal, news);
            }
            ConnectionFact::Closed => tell_addr(&self.supervisor, news),
            ConnectionFact::Authorizations(..)
            | ConnectionFact::PathInUse(_)
            | ConnectionFact::TransportLost
            | ConnectionFact::SessionEstablished => {}
        }
    }
}

/// What the NAT is told of a name that is not gone.
pub(crate) fn proxied(told: &NameChanged) -> &ProxiedName {
    told.meaning.proxied.as_deref().expect("a name")
}

/// A name with one proxy IP, as client 1 has announced it for resource 1.
pub(crate) fn announced(domain: &str, proxy_ip: Ipv4Addr) -> NatTableCommand {
    let name: DomainName = domain.parse().expect("a name");
    let announced = Announced {
        domain: domain.into(),
        by: Announcer::Client,
    };
    let proxied = ProxiedName {
        name: name.clone(),
        proxy_ips: vec![proxy_ip.into()],
        resources: [(resource(1), announced)].into(),
    };
    let meaning = NameMeaning {
        name,
        proxied: Some(Arc::new(proxied)),
        announced_for: Some(resource(1)),
    };
    NatTableCommand::Names {
        client: client(1),
        meanings: vec![meaning],
    }
}

/// A name of client 1 is gone.
pub(crate) fn gone(domain: &str) -> NatTableCommand {
    let meaning = NameMeaning {
        name: domain.parse().expect("a name"),
        proxied: None,
        announced_for: None,
    };
    NatTableCommand::Names {
        client: client(1),
        meanings: vec![meaning],
    }
}
