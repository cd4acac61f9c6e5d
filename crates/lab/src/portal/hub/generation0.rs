//! Clients of generation 0: they are told a gateway, then ask it through the portal for a
//! connection or for more over the one they have.
//!
//! They connect as clients of generation 1 do and are known by the events they use. Their answers
//! are replies to their own messages, sent once the gateway has answered; a grant without a name
//! over a connection that there is has no answer at all, and counts as given at once. Source:
//! docs/protocol.md 11.1.

use super::frames::{self, Applicant};
use super::grants::{Ask, Grant, GrantKey, Purpose, Request, expiry};
use super::{Heard, Hub, PeerId, Verdict, read, value_of};
use crate::portal::client_wire::{
    ConnectionPrepared, ConnectionReply, GrantSite, PrepareConnection, RequestConnection,
    ReuseConnection,
};
use crate::portal::clock::Moment;
use crate::portal::config::Target;
use crate::portal::derive::keyed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use postern_core::portal::wire::generation0::{
    AllowAccess, ClientPayload, ConnectionReady, Domain, GatewayResponse, RequestingClient,
    RequestingPeer,
};
use postern_core::portal::wire::{Frame, IceCredentials, generation0 as wire};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

/// What a client brings to a connection.
pub(super) struct Offer {
    pub(super) preshared_key: String,
    pub(super) payload: ClientPayload,
}

impl Offer {
    /// Of a client that does not exist.
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

/// A question about a resource, as far as all three events have it in common.
struct Asked {
    applicant: Applicant,
    key: GrantKey,
    gateway: PeerId,
    expires_at: Option<u64>,
}

impl Asked {
    fn ask(&self) -> Ask<'_> {
        Ask {
            applicant: &self.applicant,
            key: self.key,
            gateway: self.gateway,
            expires_at: self.expires_at,
        }
    }
}

impl Hub {
    /// `prepare_connection`, `request_connection` and `reuse_connection`.
    pub(super) fn handle_generation_0(&mut self, event: &str, heard: &Heard<'_>) -> Verdict {
        if let Some(session) = self.sessions.get_mut(&heard.peer) {
            session.asks_in_generation_0 = true;
        }
        let outcome = match event {
            "prepare_connection" => self.prepare_connection(heard),
            "request_connection" => self.handle_connection_request(heard),
            _ => self.handle_reuse(heard),
        };
        outcome.unwrap_or_else(Verdict::Error)
    }

    /// `connection_ready`, from a gateway.
    pub(super) fn handle_ready(&mut self, heard: &Heard<'_>) -> Verdict {
        match read::<ConnectionReady>(heard.frame) {
            Some(ready) => self.acknowledged(heard, &ready.reference, Some(ready.gateway_payload)),
            None => Verdict::Error("invalid_payload"),
        }
    }

    fn prepare_connection(&mut self, heard: &Heard<'_>) -> Result<Verdict, &'static str> {
        let question: PrepareConnection = read(heard.frame).ok_or("invalid_payload")?;
        let preferred = &question.connected_gateway_ids;
        let asked = self.asked(heard, &question.resource_id, preferred)?;
        let gateway = self.sessions.get(&asked.gateway).ok_or("offline")?;
        let resource = self.config.resources.get(&asked.key.resource);
        let site = resource.ok_or("not_found")?.site.id.to_string();
        let prepared = ConnectionPrepared {
            resource_id: question.resource_id,
            gateway_id: gateway.device.to_string(),
            site: match heard.session.agent.speaks_of_groups() {
                true => GrantSite::GatewayGroupId(site),
                false => GrantSite::SiteId(site),
            },
            gateway_remote_ip: gateway
                .remote_ip
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        Ok(Verdict::Answer(value_of(&prepared)))
    }

    fn handle_connection_request(&mut self, heard: &Heard<'_>) -> Result<Verdict, &'static str> {
        let question: RequestConnection = read(heard.frame).ok_or("invalid_payload")?;
        let asked = self.asked_of(heard, &question.resource_id, question.gateway_id)?;
        let offer = Offer {
            preshared_key: question.client_preshared_key,
            payload: question.client_payload,
        };
        let purpose = purpose(heard);
        self.request_connection(&asked.ask(), offer, purpose, heard.now)?;
        Ok(Verdict::Silent)
    }

    /// Asks a gateway for a connection.
    pub(super) fn request_connection(
        &mut self,
        ask: &Ask<'_>,
        offer: Offer,
        purpose: Purpose,
        now: Moment,
    ) -> Result<(), &'static str> {
        let reference = self.new_reference()?;
        let resource = self.config.resources.get(&ask.key.resource);
        let resource = resource.ok_or("not_found")?;
        let message = wire::RequestConnection {
            reference: reference.clone(),
            resource: frames::gateway_resource(ask.key.resource, resource),
            client: RequestingClient {
                id: ask.applicant.id.to_string(),
                peer: RequestingPeer {
                    public_key: ask.applicant.public_key.clone(),
                    preshared_key: offer.preshared_key,
                    ipv4: ask.applicant.ipv4,
                    ipv6: ask.applicant.ipv6,
                    persistent_keepalive: Some(KEEPALIVE_SECS),
                },
                payload: offer.payload,
            },
            expires_at: ask.expires_at,
        };
        let mut payload = value_of(&message);
        payload["actor"] = json!({ "id": ask.applicant.actor_id() });
        let request = Request {
            reference,
            event: "request_connection",
            payload,
            in_generation_0: true,
        };
        self.send_request(request, ask, purpose, now)
    }

    fn handle_reuse(&mut self, heard: &Heard<'_>) -> Result<Verdict, &'static str> {
        let question: ReuseConnection = read(heard.frame).ok_or("invalid_payload")?;
        let asked = self.asked_of(heard, &question.resource_id, question.gateway_id)?;
        let ask = asked.ask();
        let reference = self.new_reference()?;
        let resource = self.config.resources.get(&ask.key.resource);
        let is_answered = question.payload.is_some();
        let message = AllowAccess {
            reference: reference.clone(),
            client_id: ask.applicant.id.to_string(),
            resource: frames::gateway_resource(ask.key.resource, resource.ok_or("not_found")?),
            expires_at: ask.expires_at,
            payload: question.payload,
            client_ipv4: Some(ask.applicant.ipv4),
            client_ipv6: Some(ask.applicant.ipv6),
        };
        let request = Request {
            reference,
            event: "allow_access",
            payload: value_of(&message),
            in_generation_0: true,
        };
        if is_answered {
            self.send_request(request, &ask, purpose(heard), heard.now)?;
        } else {
            let gateway = self.sessions.get(&ask.gateway).ok_or("offline")?;
            let grant = Grant {
                gateway: gateway.device,
                granted_at: heard.now.unix,
                expires_at: ask.expires_at,
            };
            self.push(ask.gateway, request.event, &request.payload);
            self.give(ask.key, grant, heard.now);
        }
        Ok(Verdict::Silent)
    }

    /// As [`Self::asked`], for this gateway and no other.
    fn asked_of(
        &self,
        heard: &Heard<'_>,
        resource: &str,
        gateway: String,
    ) -> Result<Asked, &'static str> {
        let wanted = gateway.parse::<Uuid>().map_err(|_| "offline")?;
        let asked = self.asked(heard, resource, &[gateway])?;
        let chosen = self.sessions.get(&asked.gateway);
        match chosen.is_some_and(|session| session.device == wanted) {
            true => Ok(asked),
            false => Err("offline"),
        }
    }

    /// Whether this client may have this resource, and through whom.
    fn asked(
        &self,
        heard: &Heard<'_>,
        resource: &str,
        preferred: &[String],
    ) -> Result<Asked, &'static str> {
        let resource: Uuid = resource.parse().map_err(|_| "not_found")?;
        let known = self.config.resources.get(&resource).ok_or("not_found")?;
        let key = GrantKey {
            client: heard.session.device,
            resource,
        };
        let policy = self.config.policy(key.client, key.resource);
        Ok(Asked {
            expires_at: expiry(policy.ok_or("forbidden")?, heard.now.unix),
            applicant: self.applicant(heard.session).ok_or("forbidden")?,
            key,
            gateway: self
                .choose_gateway(key, known.site.id, preferred)
                .ok_or("offline")?,
        })
    }

    /// Replies to a question of a while ago, if the connection that it came over is still there.
    pub(super) fn answer(&mut self, peer: PeerId, question: &Frame, status: &str, what: Value) {
        if self.sessions.contains_key(&peer) {
            self.reply(peer, question, status, what);
        }
    }
}

/// Replies need only the head of the question.
fn purpose(heard: &Heard<'_>) -> Purpose {
    Purpose::Connection {
        peer: heard.peer,
        question: Frame {
            topic: heard.frame.topic.clone(),
            event: heard.frame.event.clone(),
            payload: Value::Null,
            reference: heard.frame.reference,
        },
    }
}

/// What a client is told when its gateway has answered.
pub(super) fn reply(key: GrantKey, gateway_key: String, response: GatewayResponse) -> Value {
    value_of(&ConnectionReply {
        resource_id: key.resource.to_string(),
        persistent_keepalive: KEEPALIVE_SECS,
        gateway_public_key: gateway_key,
        gateway_payload: response,
    })
}

/// What set-up number `index` of a measurement announces for a resource: `named`, or a name of its
/// own that fits the pattern. Nothing for anything but a name.
pub(super) fn synthetic_domain(
    target: &Target,
    named: Option<&str>,
    index: usize,
) -> Option<Domain> {
    let Target::Dns(pattern) = target else {
        return None;
    };
    let own = || {
        let label = format!("load-{index}");
        pattern
            .replace("**", &label)
            .replace('*', &label)
            .replace('?', "x")
    };
    let first = u32::try_from(index % MAX_SYNTHETIC_NAMES).unwrap_or(0) * 4;
    let ipv4 = (first..first + 4).map(|low| Ipv4Addr::from(PROXY_IPV4 + low).into());
    let ipv6 = (first..first + 4).map(|low| Ipv6Addr::from(PROXY_IPV6 + u128::from(low)).into());
    Some(Domain::Mapped {
        name: named.map_or_else(own, str::to_owned),
        proxy_ips: ipv4.chain(ipv6).collect::<Vec<IpAddr>>(),
    })
}

/// As the real portal tells both ends.
const KEEPALIVE_SECS: u64 = 25;

/// Four proxy IPs of each family for each, well inside 100.96.0.0/11 and its IPv6 counterpart.
const MAX_SYNTHETIC_NAMES: usize = 16_384;

/// The first of 100.96.0.0/11.
const PROXY_IPV4: u32 = 0x6460_0000;

/// The first of fd00:2021:1111:8000::/107.
const PROXY_IPV6: u128 = 0xfd00_2021_1111_8000 << 64;
