//! Clients of generation 0: the portal names a gateway, then the client asks that gateway through
//! the portal for a connection, or for more access over the one it has.
//!
//! They connect as clients of generation 1 do and are recognized by their events. Their answers
//! are replies to their own messages, sent once the gateway has answered; a grant without a name
//! over an existing connection has no answer at all, and counts as given immediately. Source:
//! docs/protocol.md 11.1.

use super::frames::{KEEPALIVE_SECS, gateway_resource, site_key};
use super::grants::{AccessRequest, GatewayRequest, Grant, Purpose};
use super::{FrameResult, Hub, ReceivedFrame};
use crate::clock::ClockReading;
use crate::portal::client_wire::{RequestConnection, ResourceRequest, ReuseConnection};
use crate::portal::config::{Resource, Target};
use crate::secret::keyed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use postern_core::portal::wire::generation0::{ClientPayload, ConnectionReady, Domain};
use postern_core::portal::wire::{Frame, IceCredentials};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

/// The client's share of a connection.
pub(super) struct ConnectionOffer {
    pub(super) preshared_key: String,
    pub(super) payload: ClientPayload,
}

impl ConnectionOffer {
    /// The share of a synthetic client.
    pub(super) fn synthetic(random: &[u8; 32], domain: Option<Domain>) -> Self {
        let code = BASE32_NOPAD.encode(&keyed(random, "ice"));
        let code = code.to_ascii_lowercase();
        let ice_parameters = IceCredentials {
            username: code[..4].to_owned(),
            password: code[4..26].to_owned(),
        };
        Self {
            preshared_key: STANDARD.encode(keyed(random, "psk")),
            payload: ClientPayload {
                ice_parameters,
                domain,
            },
        }
    }
}

impl Hub {
    /// `prepare_connection`, `request_connection` and `reuse_connection`.
    pub(super) fn handle_generation_0(
        &mut self,
        event: &str,
        received: &ReceivedFrame<'_>,
    ) -> FrameResult {
        if let Some(session) = self.sessions.get_mut(&received.peer) {
            session.asks_in_generation_0 = true;
        }
        match event {
            "prepare_connection" => self.prepare_connection(received),
            "request_connection" => self.handle_connection_request(received),
            _ => self.handle_reuse(received),
        }
    }

    /// `connection_ready`, from a gateway.
    pub(super) fn handle_ready(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let ready: ConnectionReady = received.payload()?;
        self.acknowledged(received, &ready.reference, Some(ready.gateway_payload))
    }

    fn prepare_connection(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let request: ResourceRequest = received.payload()?;
        let access = self.access_request(received, &request)?;
        let gateway = self.sessions.get(&access.gateway).ok_or("offline")?;
        let mut response = json!({
            "resource_id": request.resource_id,
            "gateway_id": gateway.device,
            "gateway_remote_ip": gateway.remote_ip,
        });
        let site = &self.resource_of(&access)?.site;
        response[site_key(&received.session.agent)] = json!(site.id);
        Ok(Some(response))
    }

    fn resource_of(&self, access: &AccessRequest) -> Result<&Resource, &'static str> {
        let resource = self.config.resources.get(&access.key.resource);
        resource.ok_or("not_found")
    }

    fn handle_connection_request(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let request: RequestConnection = received.payload()?;
        let access = self.access_through(received, request.resource_id, request.gateway_id)?;
        let offer = ConnectionOffer {
            preshared_key: request.client_preshared_key,
            payload: request.client_payload,
        };
        self.request_connection(&access, offer, purpose(received), received.now)?;
        Ok(None)
    }

    /// Asks a gateway for a connection.
    pub(super) fn request_connection(
        &mut self,
        access: &AccessRequest,
        offer: ConnectionOffer,
        purpose: Purpose,
        now: ClockReading,
    ) -> Result<(), &'static str> {
        let reference = self.new_reference()?;
        let requester = &access.requester;
        let payload = json!({
            "ref": reference,
            "resource": gateway_resource(access.key.resource, self.resource_of(access)?),
            "client": {
                "id": requester.id,
                "peer": {
                    "public_key": requester.public_key,
                    "preshared_key": offer.preshared_key,
                    "ipv4": requester.ipv4,
                    "ipv6": requester.ipv6,
                    "persistent_keepalive": KEEPALIVE_SECS,
                },
                "payload": offer.payload,
            },
            "actor": { "id": requester.actor_id() },
            "expires_at": access.expires_at,
        });
        let request = GatewayRequest {
            reference,
            event: "request_connection",
            payload,
            in_generation_0: true,
        };
        self.send_request(request, access, purpose, now)
    }

    fn handle_reuse(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let request: ReuseConnection = received.payload()?;
        let access = self.access_through(received, request.resource_id, request.gateway_id)?;
        let reference = self.new_reference()?;
        let payload = json!({
            "ref": reference,
            "client_id": access.requester.id,
            "resource": gateway_resource(access.key.resource, self.resource_of(&access)?),
            "expires_at": access.expires_at,
            "payload": request.payload,
            "client_ipv4": access.requester.ipv4,
            "client_ipv6": access.requester.ipv6,
        });
        let is_answered = request.payload.is_some();
        let request = GatewayRequest {
            reference,
            event: "allow_access",
            payload,
            in_generation_0: true,
        };
        if is_answered {
            self.send_request(request, &access, purpose(received), received.now)?;
        } else {
            let gateway = self.sessions.get(&access.gateway).ok_or("offline")?;
            let grant = Grant {
                gateway: gateway.device,
                granted_at: received.now.unix,
                expires_at: access.expires_at,
            };
            self.push(access.gateway, request.event, request.payload);
            self.give(access.key, grant, received.now);
        }
        Ok(None)
    }

    /// As [`Self::access_request`], through this gateway and no other.
    fn access_through(
        &self,
        received: &ReceivedFrame<'_>,
        resource_id: String,
        gateway_id: String,
    ) -> Result<AccessRequest, &'static str> {
        let wanted: Uuid = gateway_id.parse().map_err(|_| "offline")?;
        let request = ResourceRequest {
            resource_id,
            connected_gateway_ids: vec![gateway_id],
        };
        let access = self.access_request(received, &request)?;
        let chosen = self.sessions.get(&access.gateway);
        match chosen.is_some_and(|session| session.device == wanted) {
            true => Ok(access),
            false => Err("offline"),
        }
    }
}

/// A reply needs only the head of the question.
fn purpose(received: &ReceivedFrame<'_>) -> Purpose {
    Purpose::Connection {
        peer: received.peer,
        question: Frame {
            topic: received.frame.topic.clone(),
            event: received.frame.event.clone(),
            payload: Value::Null,
            reference: received.frame.reference,
        },
    }
}

/// The name that set-up number `index` of a measurement announces: one of its own that fits the
/// resource's pattern. `None` for a resource without names.
pub(super) fn synthetic_domain(target: &Target, index: usize) -> Option<Domain> {
    let Target::Dns(pattern) = target else {
        return None;
    };
    let label = format!("load-{index}");
    let name = pattern
        .replace("**", &label)
        .replace('*', &label)
        .replace('?', "x");
    let first = u32::try_from(index % MAX_SYNTHETIC_NAMES).unwrap_or(0) * 4;
    let ipv4 = (first..first + 4).map(|low| Ipv4Addr::from(PROXY_IPV4 + low).into());
    let ipv6 = (first..first + 4).map(|low| Ipv6Addr::from(PROXY_IPV6 + u128::from(low)).into());
    Some(Domain::Mapped {
        name,
        proxy_ips: ipv4.chain(ipv6).collect::<Vec<IpAddr>>(),
    })
}

/// Four proxy IPs of each family for each, well inside 100.96.0.0/11 and its IPv6 counterpart.
const MAX_SYNTHETIC_NAMES: usize = 16_384;

/// The first of 100.96.0.0/11.
const PROXY_IPV4: u32 = 0x6460_0000;

/// The first of fd00:2021:1111:8000::/107.
const PROXY_IPV6: u128 = 0xfd00_2021_1111_8000 << 64;
