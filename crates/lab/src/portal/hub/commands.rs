//! The commands of the control socket: administration, measurements, and hostile acts for tests.

use super::frames::{NEVER, Requester};
use super::generation0::{ConnectionOffer, synthetic_domain};
use super::grants::{AccessRequest, Grant, Purpose};
use super::{
    Generation, GrantKey, Hub, MAX_ACK_TIMES, Output, PeerId, Session, Side, Ticket, UserAgent,
};
use crate::clock::ClockReading;
use crate::portal::derive::uuid_of;
use crate::secret::keyed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

/// One line of the control socket. Devices and resources are given by name; a peer is a connected
/// gateway or client.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Revokes a grant, and sends `reject_access` even when there is none.
    RejectAccess { client: String, resource: String },
    /// Sends `init` once more, to a gateway or a client.
    InitAgain { gateway: String },
    /// Closes the connection without any message.
    Close { peer: String },
    /// Sends the request for an existing grant once more and waits for the acknowledgement.
    RepeatAuthorization { client: String, resource: String },
    /// Gives a grant a new expiry, from now on; without a number it never expires.
    SetExpiry {
        client: String,
        resource: String,
        #[serde(default)]
        expires_in_seconds: Option<u64>,
    },
    /// Sends a text frame of the tester's making, JSON or not.
    PushText { peer: String, text: String },
    /// Refuses a gateway with 409 until the next such command, as a real portal does while it takes
    /// a dead connection of it for a living one. An open connection stays.
    RefuseGateway { gateway: String, refuse: bool },
    /// Lists grants, given and requested.
    Grants,
    /// Lists connected gateways and clients.
    Peers,
    /// Lists how long gateways took to acknowledge, in microseconds.
    AckTimes,
    /// Measures set-ups one after another, each for a synthetic client.
    Authorize(SetUpMeasurement),
    /// Has a gateway admit a client that another program plays.
    Admit(ExternalClient),
}

/// A client that another program plays and that never connects to the portal. The hub records
/// nothing: when the gateway joins again, its `init` does not list this client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalClient {
    /// A name of its own choice; determines its id.
    pub client: String,
    /// Base64 of 32 bytes, as on the wire.
    pub public_key: String,
    /// Determines its tunnel addresses, see [`ExternalClient::addresses`].
    pub number: usize,
    pub resource: String,
}

impl ExternalClient {
    /// The tunnel addresses of the client with this number.
    #[must_use]
    pub fn addresses(number: usize) -> (Ipv4Addr, Ipv6Addr) {
        synthetic_addresses(number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetUpMeasurement {
    pub resource: String,
    /// Number of set-ups, at most [`MAX_ACK_TIMES`].
    pub count: usize,
    #[serde(default)]
    pub generation: SetUpSignalling,
}

/// The request for a client of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetUpSignalling {
    /// `request_connection`; for a pattern of names, with a name of its own for each client.
    V0,
    /// `authorize_flow` or `create_authorization`, whichever the gateway speaks.
    #[default]
    V2,
}

/// The answer to a command. With a ticket it is due when [`Output::Settled`] has that ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOutcome {
    pub answer: Value,
    pub ticket: Option<Ticket>,
}

impl Hub {
    /// Executes a command, all but [`Command::Authorize`] (see [`Self::measure`]).
    ///
    /// # Errors
    /// The mistake in it, for people.
    pub fn handle_command(
        &mut self,
        command: Command,
        now: ClockReading,
    ) -> Result<CommandOutcome, String> {
        let mut outcome = CommandOutcome {
            answer: json!({}),
            ticket: None,
        };
        match command {
            Command::RejectAccess { client, resource } => {
                let key = self.key(&client, &resource)?;
                self.reject(key);
            }
            Command::InitAgain { gateway } => self.push_init(self.peer(&gateway)?, now),
            Command::Close { peer } => {
                self.drop_session(self.peer(&peer)?, "closed by the control socket");
            }
            Command::RepeatAuthorization { client, resource } => {
                outcome.ticket = Some(self.repeat(&client, &resource, now)?);
            }
            Command::SetExpiry {
                client,
                resource,
                expires_in_seconds,
            } => {
                let key = self.key(&client, &resource)?;
                let expires_at = expires_in_seconds.map(|it| now.unix.saturating_add(it));
                if !self.set_expiry(key, expires_at, now) {
                    return Err("there is no such grant".to_owned());
                }
            }
            Command::PushText { peer, text } => {
                let peer = self.peer(&peer)?;
                let grant = None;
                self.outbox.push_back(Output::Send { peer, text, grant });
            }
            Command::RefuseGateway { gateway, refuse } => {
                let id = id_of(&self.config.gateways, "gateway", &gateway, |it| &it.name)?;
                match refuse {
                    true => self.refused.insert(id),
                    false => self.refused.remove(&id),
                };
            }
            Command::Grants => outcome.answer = self.list_grants(now),
            Command::Peers => outcome.answer = self.list_peers(),
            Command::AckTimes => {
                let times = self.ack_times.iter();
                let times: Vec<Value> = times.map(|micros| json!({ "micros": micros })).collect();
                outcome.answer = json!({ "ack_times": times });
            }
            Command::Authorize(_) => {
                return Err("set-ups are measured one at a time".to_owned());
            }
            Command::Admit(client) => outcome = self.admit(client, now)?,
        }
        Ok(outcome)
    }

    /// One set-up of a measurement: asks a gateway to admit a synthetic client, the id, keys and
    /// addresses of which follow from `index`.
    ///
    /// # Errors
    /// The mistake in the command, or that no gateway is connected.
    pub fn measure(
        &mut self,
        measurement: &SetUpMeasurement,
        index: usize,
        now: ClockReading,
    ) -> Result<Ticket, String> {
        if measurement.count > MAX_ACK_TIMES {
            return Err(format!("count is {MAX_ACK_TIMES} at most"));
        }
        let random = self.unforeseeable();
        let mut id = [0; 16];
        id.copy_from_slice(&random[..16]);
        let requester = synthetic_requester(
            uuid::Builder::from_random_bytes(id).into_uuid(),
            format!("load-{index}"),
            STANDARD.encode(keyed(&random, "public key")),
            index,
        );
        let access = self.access_of(requester, &measurement.resource)?;
        let ticket = Ticket(self.count());
        let purpose = Purpose::Measurement(ticket);
        match measurement.generation {
            SetUpSignalling::V2 => self.propose(&access, now, |_| purpose)?,
            SetUpSignalling::V0 => {
                let resource = self.config.resources.get(&access.key.resource);
                let domain = resource.and_then(|it| synthetic_domain(&it.target, index));
                let offer = ConnectionOffer::synthetic(&self.unforeseeable(), domain);
                self.request_connection(&access, offer, purpose, now)?;
            }
        }
        Ok(ticket)
    }

    fn admit(
        &mut self,
        client: ExternalClient,
        now: ClockReading,
    ) -> Result<CommandOutcome, String> {
        let requester = synthetic_requester(
            uuid_of("guest", &client.client),
            client.client,
            client.public_key,
            client.number,
        );
        let access = self.access_of(requester, &client.resource)?;
        let ticket = Ticket(self.count());
        let mut answer = json!({});
        self.propose(&access, now, |grant| {
            answer["grant"] = grant;
            Purpose::Admission(ticket)
        })?;
        Ok(CommandOutcome {
            answer,
            ticket: Some(ticket),
        })
    }

    /// An access that no policy limits, through any gateway of the site.
    fn access_of(&self, requester: Requester, resource: &str) -> Result<AccessRequest, String> {
        let resource = self.resource(resource)?;
        let site = self.config.resources.get(&resource).map(|it| it.site.id);
        let gateway = site.and_then(|site| self.joined_gateways_of(site).next());
        let (_, gateway) = gateway.ok_or("no gateway of the resource's site is connected")?;
        let key = GrantKey {
            client: requester.id,
            resource,
        };
        Ok(AccessRequest {
            requester,
            key,
            gateway,
            expires_at: Some(NEVER),
        })
    }

    fn repeat(
        &mut self,
        client: &str,
        resource: &str,
        now: ClockReading,
    ) -> Result<Ticket, String> {
        let key = self.key(client, resource)?;
        let grant = *self.grants.get(&key).ok_or("there is no such grant")?;
        let session = self
            .joined_device(Side::Client, key.client)
            .and_then(|peer| self.sessions.get(&peer))
            .ok_or("the client is not connected")?;
        if session.asks_in_generation_0 {
            // Its transport has keys of the client's making, which only the client can repeat.
            return Err("a client of generation 0 repeats its requests itself".to_owned());
        }
        let gateway = self.joined_device(Side::Gateway, grant.gateway);
        let access = AccessRequest {
            requester: self.requester(session).ok_or("there is no such client")?,
            key,
            gateway: gateway.ok_or("the gateway is not connected")?,
            expires_at: grant.expires_at,
        };
        let ticket = Ticket(self.count());
        self.propose(&access, now, |_| Purpose::Repeat(ticket))?;
        Ok(ticket)
    }

    fn reject(&mut self, key: GrantKey) {
        if self.revoke(key) {
            return;
        }
        for (_, session) in self.joined_peers(Side::Gateway) {
            self.push_reject(key, session.device);
        }
    }

    fn list_grants(&self, now: ClockReading) -> Value {
        let given = self.grants.iter().map(|(key, it)| (*key, *it, "given"));
        let asked = self.pending.values().map(|it| (it.key, it.grant, "asked"));
        let entry = |(key, grant, state): (GrantKey, Grant, &str)| {
            json!({
                "client": self.config.clients.get(&key.client).map(|it| &it.name),
                "client_id": key.client,
                "resource": self.config.resources.get(&key.resource).map(|it| &it.name),
                "resource_id": key.resource,
                "gateway": self.config.gateways.get(&grant.gateway).map(|it| &it.name),
                "gateway_id": grant.gateway,
                "expires_at": grant.expires_at,
                "state": state,
            })
        };
        let valid = given.chain(asked).filter(|(_, it, _)| it.is_valid(now));
        json!({ "grants": valid.map(entry).collect::<Vec<_>>() })
    }

    fn list_peers(&self) -> Value {
        let entry = |(peer, it): (&PeerId, &Session)| {
            json!({
                "connection": peer.0,
                "name": it.name,
                "id": it.device,
                "side": it.side.topic(),
                "generation": match it.asks_in_generation_0 {
                    true => "v0",
                    false => it.generation.pick("v1", "v2"),
                },
                "joined": it.joined,
                "public_key": it.public_key,
                "user_agent": it.agent.text,
            })
        };
        json!({ "peers": self.sessions.iter().map(entry).collect::<Vec<_>>() })
    }

    fn key(&self, client: &str, resource: &str) -> Result<GrantKey, String> {
        Ok(GrantKey {
            client: id_of(&self.config.clients, "client", client, |it| &it.name)?,
            resource: self.resource(resource)?,
        })
    }

    fn resource(&self, name: &str) -> Result<Uuid, String> {
        id_of(&self.config.resources, "resource", name, |it| &it.name)
    }

    /// The connection of a gateway or, failing that, of a client.
    fn peer(&self, name: &str) -> Result<PeerId, String> {
        let of_side = |side| {
            let mut sessions = self.sessions.iter();
            sessions.find(|(_, it)| it.side == side && it.name == name)
        };
        let found = of_side(Side::Gateway).or_else(|| of_side(Side::Client));
        let missing = || format!("nobody named \"{name}\" is connected");
        found.map(|(peer, _)| *peer).ok_or_else(missing)
    }
}

fn id_of<T>(
    entries: &BTreeMap<Uuid, T>,
    kind: &str,
    name: &str,
    name_of: fn(&T) -> &String,
) -> Result<Uuid, String> {
    let found = entries.iter().find(|(_, it)| name_of(it) == name);
    let missing = || format!("there is no {kind} \"{name}\"");
    found.map(|(id, _)| *id).ok_or_else(missing)
}

fn synthetic_requester(id: Uuid, name: String, public_key: String, index: usize) -> Requester {
    let (ipv4, ipv6) = synthetic_addresses(index);
    Requester {
        id,
        name,
        public_key,
        ipv4,
        ipv6,
        agent: UserAgent::parse("Linux/6.8 headless-client/1.5.12"),
        generation: Generation::V2,
    }
}

/// From the upper end of the ranges of docs/protocol.md 6, away from addresses that people choose.
fn synthetic_addresses(index: usize) -> (Ipv4Addr, Ipv6Addr) {
    let low = u16::try_from(index % 65_000 + 1).unwrap_or(1);
    let [high, low_byte] = low.to_be_bytes();
    (
        Ipv4Addr::new(100, 95, high, low_byte),
        Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0x1f, low),
    )
}
