//! Payloads of the portal's messages, from configuration and state. Decides nothing.
//!
//! Key for key as in the recorded session. Source: docs/protocol.md 2.1, 2.2, 2.4 and 11.1.

use super::upgrade::UserAgent;
use super::{Generation, GrantKey, Hub, PeerId, Session, Side};
use crate::clock::{ClockReading, rfc3339};
use crate::portal::config::{Device, Dns, Relay, Resource, Target};
use crate::portal::derive::{DevicePair, ingest_token, uuid_of};
use crate::relay::credentials;
use crate::secret::keyed;
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
        let payload = self
            .sessions
            .get(&peer)
            .and_then(|session| match session.side {
                Side::Gateway => self.gateway_init(session, now),
                Side::Client => self.client_init(session),
            });
        // `None` for a device that has left the configuration: its connection closes soon.
        if let Some(payload) = payload {
            self.push(peer, "init", payload);
        }
    }

    /// Lists all grants of this gateway that are still valid, also those it has not yet
    /// acknowledged: a gateway revokes all that are not listed (docs/lessons.md 23).
    fn gateway_init(&self, session: &Session, now: ClockReading) -> Option<Value> {
        let device = self.config.gateways.get(&session.device)?;
        let grants = self.valid_grants_of(session.device, now).into_iter();
        let grants = grants.map(|(key, expires_at)| authorization(key, expires_at));
        Some(json!({
            "interface": { "ipv4": device.ipv4, "ipv6": device.ipv6 },
            "config": { "ipv4_masquerade_enabled": true, "ipv6_masquerade_enabled": true },
            "relays": relays(&self.config.relays, &session.public_key),
            "account_slug": self.config.account,
            "authorizations": grants.collect::<Value>(),
            "flow_logs": flow_logs_off(),
        }))
    }

    /// `authorizations` are for access between clients only. A client of generation 2 refuses an
    /// `init` without `flow_logs`.
    fn client_init(&self, session: &Session) -> Option<Value> {
        let device = self.config.clients.get(&session.device)?;
        let visible = self.config.visible_to(session.device);
        let resources = visible.map(|(id, it)| client_resource(id, it, &session.agent));
        Some(json!({
            "interface": interface(device, &self.config.dns),
            "resources": resources.collect::<Value>(),
            "relays": relays(&self.config.relays, &session.public_key),
            "authorizations": [],
            "flow_logs": flow_logs_off(),
        }))
    }
}

/// Interval 0 switches flow logs off. The URL must parse and is never called.
fn flow_logs_off() -> Value {
    json!({
        "api_url": "http://127.0.0.1:1",
        "upload_interval_secs": 0,
        "upload_batch_size": 0,
    })
}

/// A grant in `init` and in `access_authorization_expiry_updated`.
pub(super) fn authorization(key: GrantKey, expires_at: Option<u64>) -> Value {
    json!({ "client_id": key.client, "resource_id": key.resource, "expires_at": expires_at })
}

/// All relays with the credentials of the device that has this public key. Entries of one relay are
/// adjacent: clients group by consecutive equal ids.
pub(super) fn relays(relays: &[Relay], public_key: &str) -> Value {
    let entries = relays.iter().flat_map(|relay| {
        let issued = credentials::issue(public_key, NEVER, &relay.secret);
        relay.addresses.iter().map(move |address| {
            json!({
                "type": "turn",
                "id": relay.id,
                "addr": address,
                "username": issued.username,
                "password": issued.password,
                "expires_at": NEVER,
            })
        })
    });
    entries.collect()
}

/// The client's interface in `init` and `config_changed`. Clients before `upstream_do53` read
/// `upstream_dns`.
pub(super) fn interface(device: &Device, dns: &Dns) -> Value {
    let upstream_dns = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, 53);
        json!({ "protocol": "ip_port", "address": address })
    };
    let upstream_do53 = |ip: &IpAddr| json!({ "ip": ip });
    json!({
        "ipv4": device.ipv4,
        "ipv6": device.ipv6,
        "upstream_dns": dns.upstream.iter().map(upstream_dns).collect::<Value>(),
        "upstream_do53": dns.upstream.iter().map(upstream_do53).collect::<Value>(),
        "upstream_doh": [],
        "search_domain": dns.search_domain,
    })
}

/// A resource in the form for gateways.
pub(super) fn gateway_resource(id: Uuid, resource: &Resource) -> Value {
    let Some(address) = resource.address() else {
        return json!({ "type": "internet", "id": id });
    };
    json!({
        "type": kind(resource),
        "id": id,
        "name": resource.name,
        "address": address,
        "filters": resource.filters,
    })
}

fn kind(resource: &Resource) -> &'static str {
    match resource.target {
        Target::Cidr(_) => "cidr",
        Target::Dns(_) => "dns",
        Target::Internet => "internet",
    }
}

/// A resource in the form for clients. It has one of the keys `sites` and (before January 2026)
/// `gateway_groups`: with both a client silently drops the resource.
pub(super) fn client_resource(id: Uuid, resource: &Resource, agent: &UserAgent) -> Value {
    let mut entry = json!({ "type": kind(resource), "id": id, "name": resource.name });
    let sites = match agent.uses_groups() {
        true => "gateway_groups",
        false => "sites",
    };
    entry[sites] = json!([{ "id": resource.site.id, "name": resource.site.name }]);
    match &resource.target {
        Target::Internet => entry["can_be_disabled"] = json!(true),
        Target::Cidr(_) | Target::Dns(_) => {
            entry["address"] = json!(resource.address());
            entry["address_description"] = json!(resource.description);
            entry["filters"] = json!(resource.filters);
        }
    }
    if let Target::Dns(_) = resource.target {
        entry["ip_stack"] = json!("dual");
    }
    entry
}

/// The key for the id of a site, `gateway_group_id` before January 2026.
pub(super) fn site_key(agent: &UserAgent) -> &'static str {
    match agent.uses_groups() {
        true => "gateway_group_id",
        false => "site_id",
    }
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

/// A grant under construction, with both of its ends.
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
        let requester = self.requester;
        let mut payload = json!({
            "ref": self.reference,
            "client": {
                "id": requester.id,
                "public_key": requester.public_key,
                "preshared_key": self.preshared_key(),
                "ipv4": requester.ipv4,
                "ipv6": requester.ipv6,
                "version": requester.agent.version_text(),
                "device_os_name": requester.agent.os_name,
                "device_os_version": null,
                "device_serial": null,
                "device_uuid": null,
            },
            "resource": gateway_resource(self.resource_id, self.resource),
            "client_ice_credentials": credentials.client,
            "gateway_ice_credentials": credentials.gateway,
            "expires_at": self.expires_at,
            "use_iceless": false,
            "subject": { "actor_id": requester.actor_id(), "actor_name": requester.name },
        });
        self.add_ingest_token(&mut payload, self.gateway.generation, "responder");
        payload
    }

    /// The payload of the client's `authorization_created` and `flow_created`.
    pub(super) fn for_client(&self) -> Value {
        let credentials = self.pair().ice_credentials();
        let mut payload = json!({
            "resource_id": self.resource_id,
            "gateway_id": self.gateway.device,
            "gateway_public_key": self.gateway.public_key,
            "gateway_ipv4": self.gateway_device.ipv4,
            "gateway_ipv6": self.gateway_device.ipv6,
            "preshared_key": self.preshared_key(),
            "client_ice_credentials": credentials.client,
            "gateway_ice_credentials": credentials.gateway,
            "use_iceless": false,
        });
        payload[site_key(&self.requester.agent)] = json!(self.resource.site.id);
        self.add_ingest_token(&mut payload, self.requester.generation, "initiator");
        payload
    }

    /// Clients of generation 2 refuse a grant without the token; generation 1 never had it. The
    /// claims are all those that a data plane insists on.
    fn add_ingest_token(&self, payload: &mut Value, generation: Generation, role: &str) {
        if generation == Generation::V1 {
            return;
        }
        let expires_at = self.expires_at.unwrap_or(NEVER);
        let claims = json!({
            "account_id": uuid_of("account", self.account),
            "iat": self.now.unix,
            "exp": expires_at.saturating_add(INGEST_GRACE_SECS),
            "uploads_enabled": false,
            "role": role,
            "initiator_device_id": self.requester.id,
            "responder_device_id": self.gateway.device,
            "policy_authorization_id": uuid_of("policy_authorization", self.reference),
            "policy_id": self.policy_id,
            "resource_id": self.resource_id,
            "resource_name": self.resource.name,
            "resource_address": self.resource.address(),
            "initiator_actor_id": self.requester.actor_id(),
            "initiator_actor_name": self.requester.name,
            "initiator_actor_email": null,
            "authorized_at": rfc3339(self.now.unix),
            "authorization_expires_at": rfc3339(expires_at),
        });
        let token = ingest_token(&claims, &keyed(self.seed, "flow_logs_ingest"));
        payload["flow_logs_ingest_token"] = json!(token);
    }
}
