//! What the portal's messages say: payloads from configuration and state, nothing decided here.
//!
//! Key for key as in the recorded session. Source: docs/protocol.md 2.1, 2.2 and 2.4.

use super::upgrade::UserAgent;
use super::{Generation, Hub, PeerId, Session, Side, value_of};
use crate::portal::client_wire::{
    ClientGrant, ClientInit, ClientInterface, ClientResource, FlowLogs, GrantSite, SiteEntry,
    Sites, UpstreamDns, UpstreamDo53,
};
use crate::portal::clock::{Moment, rfc3339};
use crate::portal::config::{Device, Dns, Relay, Resource, Target};
use crate::portal::derive::{IngestClaims, Pair, ingest_token, keyed, uuid_of};
use crate::relay::credentials;
use postern_core::portal::wire;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

/// 2038-01-01T00:00:00Z: the date that stands for "never" in this protocol. TURN credentials always
/// carry it, so that they do not change when a device reconnects (docs/protocol.md 2.1.
pub(super) const NEVER: u64 = 2_145_916_800;

/// Ingest tokens outlive their grant by 30 days (docs/protocol.md 2.1.
const INGEST_GRACE_SECS: u64 = 30 * 24 * 3600;

impl Hub {
    /// `init`, for the side that `peer` is.
    pub(super) fn push_init(&mut self, peer: PeerId, now: Moment) {
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
    /// acknowledged: a gateway revokes what is not listed (docs/lessons.md 23).
    fn gateway_init(
        &self,
        session: &Session,
        relays: Vec<wire::Relay>,
        now: Moment,
    ) -> Option<wire::Init> {
        let device = self.config.gateways.get(&session.device)?;
        let entry = |(key, expires_at): (super::GrantKey, Option<u64>)| wire::Authorization {
            client_id: key.client.to_string(),
            resource_id: key.resource.to_string(),
            expires_at,
        };
        let grants = self.valid_grants_of(session.device, now).into_iter();
        Some(wire::Init {
            interface: wire::Interface {
                ipv4: device.ipv4,
                ipv6: device.ipv6,
            },
            config: json!({"ipv4_masquerade_enabled": true, "ipv6_masquerade_enabled": true}),
            relays,
            account_slug: Some(self.config.account.clone()),
            authorizations: grants.map(entry).collect(),
            flow_logs: value_of(&FlowLogs::off()),
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
            flow_logs: FlowLogs::off(),
        })
    }
}

/// All relays with the credentials of the device that has this public key. Entries of one relay are
/// adjacent: clients group by consecutive equal ids.
pub(super) fn relays(relays: &[Relay], public_key: &str) -> Vec<wire::Relay> {
    let mut entries = Vec::new();
    for relay in relays {
        let issued = credentials::issue(public_key, NEVER, &relay.secret);
        for address in &relay.addresses {
            entries.push(wire::Relay::Turn {
                id: relay.id.to_string(),
                addr: address.to_string(),
                username: issued.username.clone(),
                password: issued.password.clone(),
                expires_at: NEVER,
            });
        }
    }
    entries
}

/// The client's interface as `init` and `config_changed` tell it.
pub(super) fn interface(device: &Device, dns: &Dns) -> ClientInterface {
    let upstream_dns = |ip: &std::net::IpAddr| UpstreamDns {
        protocol: "ip_port".to_owned(),
        address: std::net::SocketAddr::new(*ip, 53).to_string(),
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

/// A resource as gateways are told of it.
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

/// A resource as clients are told of it.
pub(super) fn client_resource(id: Uuid, resource: &Resource, agent: &UserAgent) -> ClientResource {
    let id = id.to_string();
    let name = resource.name.clone();
    let address_description = resource.description.clone();
    let filters = resource.filters.clone();
    let sites = vec![SiteEntry {
        id: resource.site.id.to_string(),
        name: resource.site.name.clone(),
    }];
    let sites = if agent.speaks_of_groups() {
        Sites::GatewayGroups(sites)
    } else {
        Sites::Sites(sites)
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
            ip_stack: "dual".to_owned(),
        },
        Target::Internet => ClientResource::Internet {
            id,
            name,
            sites,
            can_be_disabled: true,
        },
    }
}

/// Who asks: a client of the configuration, or one that only exists for a measurement.
#[derive(Clone, Debug)]
pub(super) struct Applicant {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) public_key: String,
    pub(super) ipv4: Ipv4Addr,
    pub(super) ipv6: Ipv6Addr,
    pub(super) agent: UserAgent,
    pub(super) generation: Generation,
}

impl Applicant {
    /// Who is behind it.
    pub(super) fn actor_id(&self) -> Uuid {
        uuid_of("actor", &self.name)
    }
}

/// A grant in the making, seen from above both ends.
pub(super) struct Proposal<'a> {
    pub(super) reference: &'a str,
    pub(super) applicant: &'a Applicant,
    pub(super) gateway: &'a Session,
    pub(super) gateway_device: &'a Device,
    pub(super) resource_id: Uuid,
    pub(super) resource: &'a Resource,
    pub(super) policy_id: Uuid,
    pub(super) expires_at: Option<u64>,
}

impl Proposal<'_> {
    fn pair(&self) -> Pair<'_> {
        Pair {
            client_id: self.applicant.id,
            client_key: &self.applicant.public_key,
            gateway_id: self.gateway.device,
            gateway_key: &self.gateway.public_key,
        }
    }

    fn preshared_key(&self, seed: &[u8; 32]) -> String {
        let client = keyed(seed, &format!("psk_base:client:{}", self.applicant.id));
        let gateway = keyed(seed, &format!("psk_base:gateway:{}", self.gateway.device));
        self.pair().preshared_key(&client, &gateway)
    }

    /// The payload of `create_authorization` and `authorize_flow`.
    pub(super) fn for_gateway(&self, account: &str, seed: &[u8; 32], now: Moment) -> Value {
        let credentials = self.pair().ice_credentials();
        let token = self.ingest_token("responder", account, seed, now);
        let message = wire::CreateAuthorization {
            reference: self.reference.to_owned(),
            client: wire::GrantedClient {
                id: self.applicant.id.to_string(),
                public_key: self.applicant.public_key.clone(),
                preshared_key: self.preshared_key(seed),
                ipv4: self.applicant.ipv4,
                ipv6: self.applicant.ipv6,
            },
            resource: gateway_resource(self.resource_id, self.resource),
            client_ice_credentials: credentials.client,
            gateway_ice_credentials: credentials.gateway,
            expires_at: self.expires_at,
            use_iceless: false,
            flow_logs_ingest_token: (self.gateway.generation == Generation::V2).then_some(token),
            subject: json!({
                "actor_id": self.applicant.actor_id(),
                "actor_name": self.applicant.name,
            }),
        };
        let mut payload = value_of(&message);
        if let Some(client) = payload["client"].as_object_mut() {
            let agent = &self.applicant.agent;
            client.insert("version".to_owned(), json!(agent.version_text()));
            client.insert("device_os_name".to_owned(), json!(agent.os_name));
            for unknown in ["device_os_version", "device_serial", "device_uuid"] {
                client.insert(unknown.to_owned(), Value::Null);
            }
        }
        payload
    }

    /// The payload of the client's `authorization_created` and `flow_created`.
    pub(super) fn for_client(&self, account: &str, seed: &[u8; 32], now: Moment) -> ClientGrant {
        let credentials = self.pair().ice_credentials();
        let site = self.resource.site.id.to_string();
        let token = self.ingest_token("initiator", account, seed, now);
        ClientGrant {
            resource_id: self.resource_id.to_string(),
            gateway_id: self.gateway.device.to_string(),
            gateway_public_key: self.gateway.public_key.clone(),
            gateway_ipv4: self.gateway_device.ipv4,
            gateway_ipv6: self.gateway_device.ipv6,
            site: if self.applicant.agent.speaks_of_groups() {
                GrantSite::GatewayGroupId(site)
            } else {
                GrantSite::SiteId(site)
            },
            preshared_key: self.preshared_key(seed),
            client_ice_credentials: credentials.client,
            gateway_ice_credentials: credentials.gateway,
            use_iceless: false,
            flow_logs_ingest_token: (self.applicant.generation == Generation::V2).then_some(token),
        }
    }

    fn ingest_token(&self, role: &str, account: &str, seed: &[u8; 32], now: Moment) -> String {
        let expires_at = self.expires_at.unwrap_or(NEVER);
        let address = self.resource.address();
        let claims = IngestClaims {
            account_id: uuid_of("account", account),
            iat: now.unix,
            exp: expires_at.saturating_add(INGEST_GRACE_SECS),
            uploads_enabled: false,
            role,
            initiator_device_id: self.applicant.id,
            responder_device_id: self.gateway.device,
            policy_authorization_id: uuid_of("policy_authorization", self.reference),
            policy_id: self.policy_id,
            resource_id: self.resource_id,
            resource_name: &self.resource.name,
            resource_address: address.as_deref(),
            initiator_actor_id: self.applicant.actor_id(),
            initiator_actor_name: &self.applicant.name,
            initiator_actor_email: None,
            authorized_at: rfc3339(now.unix),
            authorization_expires_at: rfc3339(expires_at),
        };
        ingest_token(&claims, &keyed(seed, "flow_logs_ingest"))
    }
}
