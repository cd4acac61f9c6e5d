//! Payloads of the portal's messages, from configuration and state. Decides nothing.
//!
//! Key for key as in the recorded session. Source: docs/protocol.md 2.1, 2.2 and 2.4.

use super::upgrade::UserAgent;
use super::{Generation, GrantKey, Hub, PeerId, Session, Side, value_of};
use crate::clock::{ClockReading, rfc3339};
use crate::portal::client_wire::{
    ClientGrant, ClientInit, ClientInterface, ClientResource, ConnectionReply, FlowLogs, SiteEntry,
    SiteList, SiteReference, UpstreamDns, UpstreamDo53,
};
use crate::portal::config::{Device, Dns, Relay, Resource, Site, Target};
use crate::portal::derive::{DevicePair, IngestClaims, ingest_token, uuid_of};
use crate::relay::credentials;
use crate::secret::keyed;
use postern_core::portal::wire;
use postern_core::portal::wire::generation0::GatewayResponse;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use uuid::Uuid;

/// 2038-01-01T00:00:00Z: the date that stands for "never" in this protocol. TURN credentials always
/// carry it, so that they do not change when a device reconnects (docs/protocol.md 2.1).
pub(super) const NEVER: u64 = 2_145_916_800;

/// Ingest tokens outlive their grant by 30 days (docs/protocol.md 2.1).
const INGEST_GRACE_SECS: u64 = 30 * 24 * 3600;

/// The interval that the real portal gives to both ends (docs/protocol.md 11.1).
pub(super) const KEEPALIVE_SECS: u64 = 25;

impl Hub {
    /// `init`, for the side of `peer`.
    pub(super) fn push_init(&mut self, peer: PeerId, now: ClockReading) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let relays = relays(&self.config.relays, &session.public_key);
        let payload = match session.side {
            Side::Gateway => value_of(&self.gateway_init(session, relays, now)),
            Side::Client => value_of(&self.client_init(session, relays)),
        };
        // Null for a device that has left the configuration; its connection is about to be closed.
        if !payload.is_null() {
            self.push(peer, "init", &payload);
        }
    }

    /// Lists all grants of this gateway that are still valid, also those it has not yet
    /// acknowledged: a gateway revokes all that are not listed (docs/lessons.md 23).
    fn gateway_init(
        &self,
        session: &Session,
        relays: Vec<wire::Relay>,
        now: ClockReading,
    ) -> Option<wire::Init> {
        let device = self.config.gateways.get(&session.device)?;
        let grants = self.valid_grants_of(session.device, now).into_iter();
        let entry = |(key, expires_at)| authorization(key, expires_at);
        Some(wire::Init {
            interface: wire::Interface {
                ipv4: device.ipv4,
                ipv6: device.ipv6,
            },
            config: json!({"ipv4_masquerade_enabled": true, "ipv6_masquerade_enabled": true}),
            relays,
            account_slug: Some(self.config.account.clone()),
            authorizations: grants.map(entry).collect(),
            flow_logs: value_of(&FlowLogs::OFF),
        })
    }

    fn client_init(&self, session: &Session, relays: Vec<wire::Relay>) -> Option<ClientInit> {
        let device = self.config.clients.get(&session.device)?;
        let visible = self.config.visible_to(session.device);
        Some(ClientInit {
            interface: interface(device, &self.config.dns),
            resources: visible
                .map(|(id, resource)| client_resource(id, resource, &session.agent))
                .collect(),
            relays,
            authorizations: Vec::new(),
            flow_logs: FlowLogs::OFF,
        })
    }
}

/// A grant in `init` and in `access_authorization_expiry_updated`.
pub(super) fn authorization(key: GrantKey, expires_at: Option<u64>) -> wire::Authorization {
    wire::Authorization {
        client_id: key.client.to_string(),
        resource_id: key.resource.to_string(),
        expires_at,
    }
}

/// All relays with the credentials of the device that has this public key. Entries of one relay are
/// adjacent: clients group by consecutive equal ids.
pub(super) fn relays(relays: &[Relay], public_key: &str) -> Vec<wire::Relay> {
    let entries = relays.iter().flat_map(|relay| {
        let issued = credentials::issue(public_key, NEVER, &relay.secret);
        let entry = move |address: &SocketAddr| wire::Relay::Turn {
            id: relay.id.to_string(),
            addr: address.to_string(),
            username: issued.username.clone(),
            password: issued.password.clone(),
            expires_at: NEVER,
        };
        relay.addresses.iter().map(entry)
    });
    entries.collect()
}

/// The client's interface in `init` and `config_changed`.
pub(super) fn interface(device: &Device, dns: &Dns) -> ClientInterface {
    let upstream_dns = |ip: &IpAddr| UpstreamDns {
        protocol: "ip_port",
        address: SocketAddr::new(*ip, 53).to_string(),
    };
    ClientInterface {
        ipv4: device.ipv4,
        ipv6: device.ipv6,
        upstream_dns: dns.upstream.iter().map(upstream_dns).collect(),
        upstream_do53: dns.upstream.iter().map(|&ip| UpstreamDo53 { ip }).collect(),
        upstream_doh: Vec::new(),
        search_domain: dns.search_domain.clone(),
    }
}

/// A resource in the form for gateways.
pub(super) fn gateway_resource(id: Uuid, resource: &Resource) -> wire::Resource {
    let id = id.to_string();
    let (name, filters) = (resource.name.clone(), resource.filters.clone());
    match &resource.target {
        Target::Cidr(network) => wire::Resource::Cidr {
            id,
            address: network.to_string(),
            name,
            filters,
        },
        Target::Dns(pattern) => wire::Resource::Dns {
            id,
            address: pattern.clone(),
            name,
            filters,
        },
        Target::Internet => wire::Resource::Internet { id },
    }
}

/// A resource in the form for clients.
pub(super) fn client_resource(id: Uuid, resource: &Resource, agent: &UserAgent) -> ClientResource {
    let id = id.to_string();
    let name = resource.name.clone();
    let address_description = resource.description.clone();
    let filters = resource.filters.clone();
    let sites = vec![SiteEntry {
        id: resource.site.id.to_string(),
        name: resource.site.name.clone(),
    }];
    let sites = match agent.uses_groups() {
        true => SiteList::GatewayGroups(sites),
        false => SiteList::Sites(sites),
    };
    match &resource.target {
        Target::Cidr(network) => ClientResource::Cidr {
            id,
            name,
            address: network.to_string(),
            address_description,
            sites,
            filters,
        },
        Target::Dns(pattern) => ClientResource::Dns {
            id,
            name,
            address: pattern.clone(),
            address_description,
            sites,
            filters,
            ip_stack: "dual",
        },
        Target::Internet => ClientResource::Internet {
            id,
            name,
            sites,
            can_be_disabled: true,
        },
    }
}

pub(super) fn site_reference(site: &Site, agent: &UserAgent) -> SiteReference {
    let id = site.id.to_string();
    match agent.uses_groups() {
        true => SiteReference::GatewayGroupId(id),
        false => SiteReference::SiteId(id),
    }
}

/// The reply to a client of generation 0 once its gateway has answered.
pub(super) fn connection_reply(
    key: GrantKey,
    gateway_key: String,
    response: GatewayResponse,
) -> Value {
    value_of(&ConnectionReply {
        resource_id: key.resource.to_string(),
        persistent_keepalive: KEEPALIVE_SECS,
        gateway_public_key: gateway_key,
        gateway_payload: response,
    })
}

/// A client that asks for access: one of the configuration, or a synthetic one.
#[derive(Clone, Debug)]
pub(super) struct Requester {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) public_key: String,
    pub(super) ipv4: Ipv4Addr,
    pub(super) ipv6: Ipv6Addr,
    pub(super) agent: UserAgent,
    pub(super) generation: Generation,
}

impl Requester {
    /// The user of the client, in the account's terms.
    pub(super) fn actor_id(&self) -> Uuid {
        uuid_of("actor", &self.name)
    }
}

/// A grant in the making, with both of its ends.
pub(super) struct Proposal<'a> {
    pub(super) account: &'a str,
    pub(super) seed: &'a [u8; 32],
    pub(super) reference: &'a str,
    pub(super) requester: &'a Requester,
    pub(super) gateway: &'a Session,
    pub(super) gateway_device: &'a Device,
    pub(super) resource_id: Uuid,
    pub(super) resource: &'a Resource,
    pub(super) policy_id: Uuid,
    pub(super) expires_at: Option<u64>,
    pub(super) now: ClockReading,
}

impl Proposal<'_> {
    fn pair(&self) -> DevicePair<'_> {
        DevicePair {
            client_id: self.requester.id,
            client_key: &self.requester.public_key,
            gateway_id: self.gateway.device,
            gateway_key: &self.gateway.public_key,
        }
    }

    fn preshared_key(&self) -> String {
        let base = |label: &str, id| keyed(self.seed, &format!("psk_base:{label}:{id}"));
        let client = base("client", self.requester.id);
        let gateway = base("gateway", self.gateway.device);
        self.pair().preshared_key(&client, &gateway)
    }

    /// The payload of `create_authorization` and `authorize_flow`.
    pub(super) fn for_gateway(&self) -> Value {
        let credentials = self.pair().ice_credentials();
        let token = || self.ingest_token("responder");
        let has_token = self.gateway.generation == Generation::V2;
        let message = wire::CreateAuthorization {
            reference: self.reference.to_owned(),
            client: wire::GrantedClient {
                id: self.requester.id.to_string(),
                public_key: self.requester.public_key.clone(),
                preshared_key: self.preshared_key(),
                ipv4: self.requester.ipv4,
                ipv6: self.requester.ipv6,
            },
            resource: gateway_resource(self.resource_id, self.resource),
            client_ice_credentials: credentials.client,
            gateway_ice_credentials: credentials.gateway,
            expires_at: self.expires_at,
            use_iceless: false,
            flow_logs_ingest_token: has_token.then(token),
            subject: json!({
                "actor_id": self.requester.actor_id(),
                "actor_name": self.requester.name,
            }),
        };
        let mut payload = value_of(&message);
        let client = &mut payload["client"];
        client["version"] = json!(self.requester.agent.version_text());
        client["device_os_name"] = json!(self.requester.agent.os_name);
        for unknown in ["device_os_version", "device_serial", "device_uuid"] {
            client[unknown] = Value::Null;
        }
        payload
    }

    /// The payload of the client's `authorization_created` and `flow_created`.
    pub(super) fn for_client(&self) -> ClientGrant {
        let credentials = self.pair().ice_credentials();
        let token = || self.ingest_token("initiator");
        let has_token = self.requester.generation == Generation::V2;
        ClientGrant {
            resource_id: self.resource_id.to_string(),
            gateway_id: self.gateway.device.to_string(),
            gateway_public_key: self.gateway.public_key.clone(),
            gateway_ipv4: self.gateway_device.ipv4,
            gateway_ipv6: self.gateway_device.ipv6,
            site: site_reference(&self.resource.site, &self.requester.agent),
            preshared_key: self.preshared_key(),
            client_ice_credentials: credentials.client,
            gateway_ice_credentials: credentials.gateway,
            use_iceless: false,
            flow_logs_ingest_token: has_token.then(token),
        }
    }

    fn ingest_token(&self, role: &str) -> String {
        let expires_at = self.expires_at.unwrap_or(NEVER);
        let address = self.resource.address();
        let claims = IngestClaims {
            account_id: uuid_of("account", self.account),
            iat: self.now.unix,
            exp: expires_at.saturating_add(INGEST_GRACE_SECS),
            uploads_enabled: false,
            role,
            initiator_device_id: self.requester.id,
            responder_device_id: self.gateway.device,
            policy_authorization_id: uuid_of("policy_authorization", self.reference),
            policy_id: self.policy_id,
            resource_id: self.resource_id,
            resource_name: &self.resource.name,
            resource_address: address.as_deref(),
            initiator_actor_id: self.requester.actor_id(),
            initiator_actor_name: &self.requester.name,
            initiator_actor_email: None,
            authorized_at: rfc3339(self.now.unix),
            authorization_expires_at: rfc3339(expires_at),
        };
        ingest_token(&claims, &keyed(self.seed, "flow_logs_ingest"))
    }
}
