//! What the control socket can ask for: the portal's own powers, and hostile ones for tests.

use super::frames::{Applicant, NEVER};
use super::generation0;
use super::grants::{Ask, Purpose};
use super::{Generation, GrantKey, Hub, MAX_ACK_TIMES, Output, PeerId, Side, Ticket, UserAgent};
use crate::portal::client_wire::ClientGrant;
use crate::portal::clock::Moment;
use crate::portal::derive::{keyed, uuid_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postern_core::portal::wire::Reason;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

/// One line of the control socket. Devices and resources are called by their names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Takes a grant back, and sends `reject_access` even when there is none.
    RejectAccess {
        /// Name.
        client: String,
        /// Name.
        resource: String,
    },
    /// Sends `init` once more.
    InitAgain {
        /// A gateway's or client's name.
        #[serde(alias = "client", alias = "peer")]
        gateway: String,
    },
    /// Sends `disconnect` with this reason; closes the connection too if `close`.
    Disconnect {
        /// A gateway's or client's name.
        #[serde(alias = "client", alias = "peer")]
        gateway: String,
        /// `token_expired` is the one that programs obey.
        reason: String,
        /// Whether the connection is closed afterwards.
        #[serde(default)]
        close: bool,
    },
    /// Closes the connection without a word.
    Close {
        /// A gateway's or client's name.
        peer: String,
    },
    /// Sends the request for an existing grant once more and waits for the acknowledgement.
    RepeatAuthorization {
        /// Name of a connected client.
        client: String,
        /// Name.
        resource: String,
    },
    /// Gives a grant a new expiry.
    SetExpiry {
        /// Name.
        client: String,
        /// Name.
        resource: String,
        /// UNIX seconds; null or absent, without `expires_in_seconds`: never.
        #[serde(default)]
        expires_at: Option<u64>,
        /// From now on; wins over `expires_at`.
        #[serde(default)]
        expires_in_seconds: Option<u64>,
    },
    /// Sends an event of the tester's making.
    Push {
        /// A gateway's or client's name.
        peer: String,
        /// Any.
        event: String,
        /// Any.
        #[serde(default)]
        payload: Value,
    },
    /// Sends a text frame of the tester's making, JSON or not.
    PushText {
        /// A gateway's or client's name.
        peer: String,
        /// The whole frame.
        text: String,
    },
    /// Refuses a gateway with 409 until told otherwise, as a real portal does for as long as it
    /// takes a dead connection of it for a living one. An open connection stays.
    RefuseGateway {
        /// A gateway's name.
        gateway: String,
        /// Whether it is refused from now on.
        refuse: bool,
    },
    /// Lists grants, given and asked for.
    Grants,
    /// Lists connections.
    Peers,
    /// Lists how long gateways took to acknowledge, in microseconds.
    AckTimes,
    /// Measures `count` set-ups one after another, each for a client that does not exist.
    Authorize(Load),
    /// Has a gateway admit a client that never connects to the portal: another program plays it.
    Admit(Guest),
}

/// Who is admitted without being in the configuration. Nothing is recorded: when its gateway joins
/// anew, the guest is not on its list and is cut off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Of its own choice; decides its id.
    pub client: String,
    /// Base64, 32 bytes.
    pub public_key: String,
    /// Decides its addresses in the tunnel, see [`Guest::addresses`].
    pub number: usize,
    /// Name of the resource that it is granted.
    pub resource: String,
}

impl Guest {
    /// What a guest of this number is called in the tunnel.
    #[must_use]
    pub fn addresses(number: usize) -> (Ipv4Addr, Ipv6Addr) {
        synthetic_addresses(number)
    }
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Prefix of the names of the clients; `load` when absent.
    #[serde(default)]
    pub client: Option<String>,
    /// Name of the resource that each is granted.
    pub resource: String,
    /// Name; when absent, a gateway of the resource's site.
    #[serde(default)]
    pub gateway: Option<String>,
    /// How many, at most [`MAX_ACK_TIMES`].
    pub count: usize,
    /// In which generation the gateway is asked.
    #[serde(default)]
    pub generation: SetUp,
    /// The name that each client of generation 0 announces; when absent and the resource is a
    /// pattern, one of its own for each.
    #[serde(default)]
    pub domain: Option<String>,
}

/// How a gateway is asked to admit a client that is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetUp {
    /// By `request_connection`.
    V0,
    /// By `authorize_flow` or `create_authorization`, whichever the gateway speaks.
    #[default]
    V2,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// This, at once.
    Done(Value),
    /// Whatever [`Output::Settled`] will say.
    Later(Ticket),
}

impl Hub {
    /// Carries out a command, all but [`Command::Authorize`] (see [`Self::measure`]) and
    /// [`Command::Admit`] (see [`Self::admit`]).
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn handle_command(&mut self, command: Command, now: Moment) -> Result<Outcome, String> {
        match command {
            Command::RejectAccess { client, resource } => {
                let key = self.key(&client, &resource)?;
                self.reject(key);
            }
            Command::InitAgain { gateway } => {
                let peer = self.peer(&gateway)?;
                self.push_init(peer, now);
            }
            Command::Disconnect {
                gateway,
                reason,
                close,
            } => {
                let peer = self.peer(&gateway)?;
                self.push(peer, "disconnect", &Reason { reason });
                if close {
                    self.drop_session(peer, "closed by the control socket");
                }
            }
            Command::Close { peer } => {
                let peer = self.peer(&peer)?;
                self.drop_session(peer, "closed by the control socket");
            }
            Command::RepeatAuthorization { client, resource } => {
                return self.repeat(&client, &resource, now);
            }
            Command::SetExpiry {
                client,
                resource,
                expires_at,
                expires_in_seconds,
            } => {
                let key = self.key(&client, &resource)?;
                let from_now = expires_in_seconds.map(|it| now.unix.saturating_add(it));
                if !self.set_expiry(key, from_now.or(expires_at), now) {
                    return Err("there is no such grant".to_owned());
                }
            }
            Command::Push {
                peer,
                event,
                payload,
            } => {
                let peer = self.peer(&peer)?;
                self.push(peer, &event, &payload);
            }
            Command::PushText { peer, text } => {
                let peer = self.peer(&peer)?;
                let grant = None;
                self.outbox.push_back(Output::Send { peer, text, grant });
            }
            Command::RefuseGateway { gateway, refuse } => {
                self.refuse_gateway(&gateway, refuse)?;
            }
            Command::Grants => return Ok(Outcome::Done(self.list_grants(now))),
            Command::Peers => return Ok(Outcome::Done(self.list_peers())),
            Command::AckTimes => {
                return Ok(Outcome::Done(json!({ "ack_times": self.ack_times })));
            }
            Command::Authorize(_) => {
                return Err("a load is measured one set-up at a time".to_owned());
            }
            Command::Admit(_) => {
                return Err("a guest is admitted when its gateway has answered".to_owned());
            }
        }
        Ok(Outcome::Done(json!({})))
    }

    /// One set-up of a load: asks a gateway to admit a client that does not exist, whose id, keys
    /// and addresses follow from `index`.
    ///
    /// # Errors
    /// What is wrong with the load, or that no gateway is here.
    pub fn measure(&mut self, load: &Load, index: usize, now: Moment) -> Result<Ticket, String> {
        if load.count > MAX_ACK_TIMES {
            return Err(format!("count is {MAX_ACK_TIMES} at most"));
        }
        let resource = self.resource(&load.resource)?;
        let gateway = match &load.gateway {
            Some(name) => self.gateway(name)?,
            None => self.gateway_in_front_of(resource)?,
        };
        let prefix = load.client.as_deref().unwrap_or("load");
        let applicant = self.synthetic(prefix, index);
        let key = GrantKey {
            client: applicant.id,
            resource,
        };
        let ask = Ask {
            applicant: &applicant,
            key,
            gateway,
            expires_at: Some(NEVER),
        };
        match load.generation {
            SetUp::V2 => self.propose_for_ticket(&ask, now, Purpose::Measurement),
            SetUp::V0 => {
                let announced = self.config.resources.get(&resource).and_then(|resource| {
                    let domain = load.domain.as_deref();
                    generation0::synthetic_domain(&resource.target, domain, index)
                });
                let offer = generation0::Offer::synthetic(&self.unforeseeable(), announced);
                let ticket = Ticket(self.count());
                self.request_connection(&ask, offer, Purpose::Measurement(ticket), now)?;
                Ok(ticket)
            }
        }
    }

    /// Has a gateway admit a guest; returns what the guest is to know, once the ticket is settled.
    ///
    /// # Errors
    /// What is wrong with the guest, or that no gateway is here.
    pub fn admit(&mut self, guest: &Guest, now: Moment) -> Result<(Ticket, ClientGrant), String> {
        let resource = self.resource(&guest.resource)?;
        let gateway = self.gateway_in_front_of(resource)?;
        let (ipv4, ipv6) = Guest::addresses(guest.number);
        let applicant = Applicant {
            id: uuid_of("guest", &guest.client),
            name: guest.client.clone(),
            public_key: guest.public_key.clone(),
            ipv4,
            ipv6,
            agent: UserAgent::parse("Linux/6.8 headless-client/1.5.12"),
            generation: Generation::V2,
        };
        let ask = Ask {
            applicant: &applicant,
            key: GrantKey {
                client: applicant.id,
                resource,
            },
            gateway,
            expires_at: Some(NEVER),
        };
        let ticket = Ticket(self.count());
        let mut told = None;
        self.propose(&ask, now, |grant| {
            told = Some(grant);
            Purpose::Admission(ticket)
        })?;
        let told = told.ok_or("nothing to tell")?;
        Ok((ticket, told))
    }

    fn propose_for_ticket(
        &mut self,
        ask: &Ask<'_>,
        now: Moment,
        purpose: fn(Ticket) -> Purpose,
    ) -> Result<Ticket, String> {
        let ticket = Ticket(self.count());
        self.propose(ask, now, |_| purpose(ticket))?;
        Ok(ticket)
    }

    fn synthetic(&mut self, prefix: &str, index: usize) -> Applicant {
        let random = self.unforeseeable();
        let key = keyed(&random, "public key");
        let mut id = [0; 16];
        id.copy_from_slice(&random[..16]);
        let (ipv4, ipv6) = synthetic_addresses(index);
        Applicant {
            id: uuid::Builder::from_random_bytes(id).into_uuid(),
            name: format!("{prefix}-{index}"),
            public_key: STANDARD.encode(key),
            ipv4,
            ipv6,
            agent: UserAgent::parse("Linux/6.8 headless-client/1.5.12"),
            generation: Generation::V2,
        }
    }

    fn repeat(&mut self, client: &str, resource: &str, now: Moment) -> Result<Outcome, String> {
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
        let gateway = self
            .joined_device(Side::Gateway, grant.gateway)
            .ok_or("the gateway is not connected")?;
        let applicant = self.applicant(session).ok_or("there is no such client")?;
        let ask = Ask {
            applicant: &applicant,
            key,
            gateway,
            expires_at: grant.expires_at,
        };
        self.propose_for_ticket(&ask, now, Purpose::Repeat)
            .map(Outcome::Later)
    }

    fn reject(&mut self, key: GrantKey) {
        if self.revoke(key) {
            return;
        }
        for (_, session) in self.joined_peers(Side::Gateway) {
            self.push_reject(key, session.device);
        }
    }

    fn refuse_gateway(&mut self, name: &str, refuse: bool) -> Result<(), String> {
        let mut gateways = self.config.gateways.iter();
        let found = gateways.find(|(_, it)| it.name == name);
        let (id, _) = found.ok_or_else(|| format!("there is no gateway \"{name}\""))?;
        match refuse {
            true => self.refused.insert(*id),
            false => self.refused.remove(id),
        };
        Ok(())
    }

    fn list_grants(&self, now: Moment) -> Value {
        let given = self.grants.iter().map(|(key, it)| (*key, *it, "given"));
        let asked = self.pending.values().map(|it| (it.key, it.grant, "asked"));
        let entry = |(key, grant, state): (GrantKey, super::Grant, &str)| {
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
        let entry = |(peer, it): (&PeerId, &super::Session)| {
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
        let mut clients = self.config.clients.iter();
        let found = clients.find(|(_, it)| it.name == client);
        let (id, _) = found.ok_or_else(|| format!("there is no client \"{client}\""))?;
        Ok(GrantKey {
            client: *id,
            resource: self.resource(resource)?,
        })
    }

    fn resource(&self, name: &str) -> Result<Uuid, String> {
        let mut resources = self.config.resources.iter();
        let found = resources.find(|(_, it)| it.name == name);
        let (id, _) = found.ok_or_else(|| format!("there is no resource \"{name}\""))?;
        Ok(*id)
    }

    /// The connection of a gateway or, failing that, of a client.
    fn peer(&self, name: &str) -> Result<PeerId, String> {
        self.gateway(name)
            .or_else(|_| self.connected(Side::Client, name))
    }

    fn gateway(&self, name: &str) -> Result<PeerId, String> {
        self.connected(Side::Gateway, name)
    }

    fn connected(&self, side: Side, name: &str) -> Result<PeerId, String> {
        let mut sessions = self.sessions.iter();
        let found = sessions.find(|(_, it)| it.side == side && it.name == name);
        let missing = || format!("nobody named \"{name}\" is connected");
        found.map(|(peer, _)| *peer).ok_or_else(missing)
    }

    fn gateway_in_front_of(&self, resource: Uuid) -> Result<PeerId, String> {
        let site = self.config.resources.get(&resource).map(|it| &it.site);
        let stands_there = |device: &Uuid| {
            let device = self.config.gateways.get(device);
            device.is_some_and(|it| it.site.as_ref() == site)
        };
        let joined = self.joined_peers(Side::Gateway).into_iter();
        joined
            .filter(|(_, it)| stands_there(&it.device))
            .map(|(peer, _)| peer)
            .next()
            .ok_or_else(|| "no gateway of the resource's site is connected".to_owned())
    }
}

/// From the upper end of the ranges of docs/protocol.md 6, away from what people
/// choose.
fn synthetic_addresses(index: usize) -> (Ipv4Addr, Ipv6Addr) {
    let low = u16::try_from(index % 65_000 + 1).unwrap_or(1);
    let [high, low_byte] = low.to_be_bytes();
    (
        Ipv4Addr::new(100, 95, high, low_byte),
        Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0x1f, low),
    )
}
