//! Translates the portal's messages into the gateway's own types.
//!
//! Fails closed: a grant with a single unusable member is refused, because a filter list without
//! some of its entries could permit more, not less. Lists of independent entries (relays,
//! authorizations) lose only their bad entries. Source: docs/protocol.md 2.1 and 2.2.

mod generation0;

use super::PortalEvent;
use super::credentials::IceSecret;
use super::wire::{self, Payload};
use crate::command::ClientCommand;
use crate::grant::{
    AuthorizationEntry, AuthorizationRequest, ClientProfile, Filter, GatewayInit, IceCredentials,
    PresharedKey, Relay, RelayCredentials, ReplyKind, Resource, ResourceKind, TunnelAddresses,
};
use crate::ids::{ClientId, PublicKey, RelayId, ResourceId, UnixTime};
use data_encoding::BASE64;
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use uuid::Uuid;
use zeroize::Zeroizing;

/// A translated push of the portal.
#[derive(Debug, PartialEq)]
pub(super) struct Translated {
    /// The event for the owner.
    pub(super) event: PortalEvent,
    /// Number of list entries that were unusable and left out.
    pub(super) skipped: usize,
}

/// Why a push cannot be translated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TranslateError {
    /// The event is unknown.
    UnknownEvent,
    /// The event is known, but its payload is wrong; in words, without quotes from it.
    WrongPayload(String),
}

impl From<String> for TranslateError {
    fn from(what: String) -> Self {
        Self::WrongPayload(what)
    }
}

impl From<&str> for TranslateError {
    fn from(what: &str) -> Self {
        Self::WrongPayload(what.to_owned())
    }
}

/// Translates one push. Accepts the event names of all generations on either endpoint. `secret` is
/// for the gateway's own ICE credentials in generation 0.
pub(super) fn push(
    event: &str,
    payload: Payload,
    secret: &IceSecret,
) -> Result<Translated, TranslateError> {
    let (command, skipped) = match event {
        "init" => return init(payload),
        "relays_presence" => return relays_presence(payload),
        "create_authorization" | "authorize_flow" => {
            let request = authorization(payload)?;
            (ClientCommand::Authorize(Box::new(request)), 0)
        }
        "request_connection" => {
            let request = generation0::connection(payload, secret)?;
            (ClientCommand::Authorize(Box::new(request)), 0)
        }
        "allow_access" => {
            let request = generation0::access(payload)?;
            (ClientCommand::Allow(Box::new(request)), 0)
        }
        "ice_candidates" => {
            let (client, candidates, skipped) = candidates(payload)?;
            (ClientCommand::AddCandidates { client, candidates }, skipped)
        }
        "invalidate_ice_candidates" => {
            let (client, candidates, skipped) = candidates(payload)?;
            (
                ClientCommand::RemoveCandidates { client, candidates },
                skipped,
            )
        }
        "reject_access" => {
            let reject: wire::RejectAccess = wire::read_payload(payload)?;
            let client = ClientId(uuid(&reject.client_id, "client_id")?);
            let resource = ResourceId(uuid(&reject.resource_id, "resource_id")?);
            (ClientCommand::Revoke { client, resource }, 0)
        }
        "resource_updated" => {
            let updated = resource(wire::read_payload(payload)?)?;
            (ClientCommand::UpdateResource(updated), 0)
        }
        "access_authorization_expiry_updated" => {
            let entry = authorization_entry(&wire::read_payload(payload)?)?;
            (ClientCommand::SetExpiry(entry), 0)
        }
        _ => return Err(TranslateError::UnknownEvent),
    };
    let event = PortalEvent::Client(command);
    Ok(Translated { event, skipped })
}

fn init(mut payload: Payload) -> Result<Translated, TranslateError> {
    let mut skipped = wire::drop_unreadable::<wire::Relay>(&mut payload, "relays");
    skipped += wire::drop_unreadable::<wire::Authorization>(&mut payload, "authorizations");
    let init: wire::Init = wire::read_payload(payload)?;
    let relays = usable(init.relays, relay, &mut skipped);
    let authorizations = usable(
        init.authorizations,
        |line| authorization_entry(&line),
        &mut skipped,
    );
    let event = PortalEvent::Initialized(GatewayInit {
        tunnel: TunnelAddresses {
            ipv4: init.interface.ipv4,
            ipv6: init.interface.ipv6,
        },
        relays,
        authorizations,
    });
    Ok(Translated { event, skipped })
}

fn relays_presence(mut payload: Payload) -> Result<Translated, TranslateError> {
    let mut skipped = wire::drop_unreadable::<wire::Relay>(&mut payload, "connected");
    skipped += wire::drop_unreadable::<String>(&mut payload, "disconnected_ids");
    let presence: wire::RelaysPresence = wire::read_payload(payload)?;
    let event = PortalEvent::RelaysChanged {
        disconnected: presence.disconnected_ids.into_iter().map(RelayId).collect(),
        connected: usable(presence.connected, relay, &mut skipped),
    };
    Ok(Translated { event, skipped })
}

fn authorization(payload: Payload) -> Result<AuthorizationRequest, TranslateError> {
    let request: wire::CreateAuthorization = wire::read_payload(payload)?;
    if request.use_iceless {
        return Err("it wants the ICE-less path, which we told the portal we do not speak".into());
    }
    let client = ClientProfile {
        id: ClientId(uuid(&request.client.id, "client.id")?),
        public_key: PublicKey(*key(&request.client.public_key, "client.public_key")?),
        preshared_key: PresharedKey(key(&request.client.preshared_key, "client.preshared_key")?),
        tunnel: TunnelAddresses {
            ipv4: request.client.ipv4,
            ipv6: request.client.ipv6,
        },
    };
    let gateway_ice = ice(request.gateway_ice_credentials, "gateway_ice_credentials")?;
    let client_ice = ice(request.client_ice_credentials, "client_ice_credentials")?;
    if gateway_ice.ufrag.len() + 1 + client_ice.ufrag.len() > USERNAME_BYTES_MAX {
        return Err("the ICE username fragments are too long together".into());
    }
    Ok(AuthorizationRequest {
        reply_ref: request.reference,
        client,
        resource: resource(request.resource)?,
        gateway_ice,
        client_ice,
        expires_at: request.expires_at.map(UnixTime),
        announced: None,
        reply: ReplyKind::Granted,
    })
}

fn candidates(mut payload: Payload) -> Result<(ClientId, Vec<String>, usize), TranslateError> {
    let mut skipped = wire::drop_unreadable::<String>(&mut payload, "candidates");
    let mut message: wire::ClientCandidates = wire::read_payload(payload)?;
    skipped += message.candidates.len().saturating_sub(MAX_CANDIDATES);
    message.candidates.truncate(MAX_CANDIDATES);
    let client = ClientId(uuid(&message.client_id, "client_id")?);
    Ok((client, message.candidates, skipped))
}

fn authorization_entry(line: &wire::Authorization) -> Result<AuthorizationEntry, TranslateError> {
    Ok(AuthorizationEntry {
        client: ClientId(uuid(&line.client_id, "client_id")?),
        resource: ResourceId(uuid(&line.resource_id, "resource_id")?),
        expires_at: line.expires_at.map(UnixTime),
    })
}

fn resource(resource: wire::Resource) -> Result<Resource, TranslateError> {
    let (id, name, filters, kind) = match resource {
        wire::Resource::Cidr {
            id,
            address,
            name,
            filters,
        } => {
            let network = address
                .parse()
                .or_else(|_| address.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| "the resource's address is not a network")?;
            (id, name, filters, ResourceKind::Cidr(network))
        }
        wire::Resource::Dns {
            id,
            address,
            name,
            filters,
        } => (id, name, filters, ResourceKind::Dns(address)),
        wire::Resource::Internet { id } => (id, String::new(), Vec::new(), ResourceKind::Internet),
    };
    Ok(Resource {
        id: ResourceId(uuid(&id, "resource.id")?),
        name,
        kind,
        filters: filters.into_iter().map(filter).collect(),
    })
}

/// A range with an end before its start is kept: it permits nothing.
fn filter(filter: wire::Filter) -> Filter {
    match filter {
        wire::Filter::Tcp(range) => Filter::Tcp(range.port_range_start..=range.port_range_end),
        wire::Filter::Udp(range) => Filter::Udp(range.port_range_start..=range.port_range_end),
        wire::Filter::Icmp => Filter::Icmp,
    }
}

fn relay(relay: wire::Relay) -> Result<Relay, TranslateError> {
    let (id, addr, credentials) = match relay {
        wire::Relay::Stun { id, addr } => (id, addr, None),
        wire::Relay::Turn {
            id,
            addr,
            username,
            password,
            expires_at: _,
        } => {
            let credentials = RelayCredentials {
                username,
                password: Zeroizing::new(password),
            };
            (id, addr, Some(credentials))
        }
    };
    Ok(Relay {
        id: RelayId(id),
        addr: addr
            .parse()
            .map_err(|_| "a relay's address is not ip:port")?,
        credentials,
    })
}

/// Checks that ICE can use the credentials: in generation 0 the client generates its own, and the
/// portal passes them on unchecked (RFC 8839, 5.4).
fn ice(credentials: wire::IceCredentials, member: &str) -> Result<IceCredentials, TranslateError> {
    let credentials = IceCredentials {
        ufrag: credentials.username,
        password: Zeroizing::new(credentials.password),
    };
    let is_usable = is_ice_text(&credentials.ufrag, UFRAG_CHARS)
        && is_ice_text(&credentials.password, PASSWORD_CHARS);
    match is_usable {
        true => Ok(credentials),
        false => Err(format!("{member} are no ICE credentials").into()),
    }
}

fn is_ice_text(text: &str, lengths: RangeInclusive<usize>) -> bool {
    let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    lengths.contains(&text.len()) && text.bytes().all(is_ice_char)
}

fn uuid(text: &str, member: &str) -> Result<Uuid, TranslateError> {
    Uuid::try_parse(text).map_err(|_| format!("{member} is not a UUID").into())
}

fn key(text: &str, member: &str) -> Result<Zeroizing<[u8; 32]>, TranslateError> {
    let wrong = || format!("{member} is not the base64 of 32 bytes");
    let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| wrong())?);
    let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| wrong())?;
    Ok(Zeroizing::new(bytes))
}

/// Translates the usable entries and counts the others.
fn usable<T, U>(
    lines: Vec<T>,
    translate: impl Fn(T) -> Result<U, TranslateError>,
    skipped: &mut usize,
) -> Vec<U> {
    let before = lines.len();
    let translated: Vec<U> = lines
        .into_iter()
        .filter_map(|line| translate(line).ok())
        .collect();
    *skipped += before - translated.len();
    translated
}

/// The limit of the agent for both fragments and a colon between them; STUN itself permits 509
/// bytes (RFC 8489, 14.3).
const USERNAME_BYTES_MAX: usize = 128;

/// RFC 8839 permits 256; these fit beside ours of 8 if the client generates its own.
const UFRAG_CHARS: RangeInclusive<usize> = 4..=119;

/// Lengths permitted by RFC 8839, 5.4.
const PASSWORD_CHARS: RangeInclusive<usize> = 22..=256;

/// Candidates accepted from one message. Clients send a handful; more would only cause work.
const MAX_CANDIDATES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const CLIENT: &str = "11111111-1111-4111-8111-111111111111";
    const RESOURCE: &str = "33333333-3333-4333-8333-333333333333";

    fn grant() -> Value {
        json!({
            "ref": "opaque",
            "client": {
                "id": CLIENT,
                "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
                "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5", "version": "1.5.12",
            },
            "resource": {
                "type": "cidr", "id": RESOURCE, "address": "10.20.0.0/16", "name": "Office",
                "filters": [{"protocol": "tcp", "port_range_start": 80}, {"protocol": "icmp"}],
            },
            "client_ice_credentials": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
            "gateway_ice_credentials": {"username": "6m26", "password": "gj5f2zjrxg6cwvtrtqgfva"},
            "expires_at": 1_790_000_000,
            "unheard_of": [1, 2, 3],
        })
    }

    fn push(event: &str, payload: Value) -> Result<Translated, TranslateError> {
        super::push(event, payload, &IceSecret::new([5; 32]))
    }

    fn granted(payload: Value) -> Result<AuthorizationRequest, TranslateError> {
        let PortalEvent::Client(ClientCommand::Authorize(request)) =
            push("create_authorization", payload)?.event
        else {
            panic!("not a grant");
        };
        Ok(*request)
    }

    #[test]
    fn a_grant_is_translated_completely() {
        let request = granted(grant()).unwrap();
        assert_eq!(request.reply_ref, "opaque");
        assert_eq!(request.client.public_key, PublicKey([1; 32]));
        assert_eq!(
            request.resource.kind,
            ResourceKind::Cidr("10.20.0.0/16".parse().unwrap())
        );
        assert_eq!(
            request.resource.filters,
            [Filter::Tcp(80..=65535), Filter::Icmp]
        );
        assert_eq!(
            (
                request.client_ice.ufrag.as_str(),
                request.gateway_ice.ufrag.as_str()
            ),
            ("eokn", "6m26")
        );
        assert_eq!(request.expires_at, Some(UnixTime(1_790_000_000)));
    }

    #[test]
    fn the_names_of_both_generations_are_accepted() {
        assert_eq!(
            push("authorize_flow", grant()).unwrap(),
            push("create_authorization", grant()).unwrap()
        );
    }

    #[test]
    fn an_unknown_filter_refuses_the_grant_instead_of_widening_it() {
        let mut payload = grant();
        payload["resource"]["filters"] = json!([{"protocol": "sctp"}]);
        assert!(matches!(
            granted(payload),
            Err(TranslateError::WrongPayload(_))
        ));
    }

    #[test]
    fn a_grant_with_an_unusable_member_is_refused_with_its_name() {
        for (pointer, value, says) in [
            ("/client/id", json!("x"), "client.id"),
            ("/client/public_key", json!("AQEB"), "client.public_key"),
            ("/client/preshared_key", json!("?"), "client.preshared_key"),
            ("/resource/address", json!("10.20.0.0/33"), "address"),
            ("/use_iceless", json!(true), "ICE-less"),
            ("/expires_at", json!(-1), "invalid"),
            (
                "/client_ice_credentials/username",
                json!("u".repeat(120)),
                "client_ice_credentials",
            ),
            (
                "/gateway_ice_credentials/password",
                json!("too short"),
                "gateway_ice_credentials",
            ),
        ] {
            let mut payload = grant();
            payload["use_iceless"] = json!(false);
            *payload.pointer_mut(pointer).unwrap() = value;
            let Err(TranslateError::WrongPayload(what)) = granted(payload) else {
                panic!("{pointer} must refuse the grant");
            };
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn username_fragments_must_fit_together() {
        let with_lengths = |client: usize, gateway: usize| {
            let mut payload = grant();
            payload["client_ice_credentials"]["username"] = json!("u".repeat(client));
            payload["gateway_ice_credentials"]["username"] = json!("u".repeat(gateway));
            granted(payload)
        };
        assert!(with_lengths(63, 64).is_ok());
        assert!(with_lengths(64, 64).is_err());
        assert!(with_lengths(119, 4).is_ok());
    }

    #[test]
    fn a_single_address_is_a_network_of_one() {
        let updated = json!({"type":"cidr","id":RESOURCE,"address":"10.20.0.7","filters":[]});
        let Ok(Translated {
            event: PortalEvent::Client(ClientCommand::UpdateResource(resource)),
            ..
        }) = push("resource_updated", updated)
        else {
            panic!("translates");
        };
        assert_eq!(
            resource.kind,
            ResourceKind::Cidr("10.20.0.7/32".parse().unwrap())
        );
    }

    #[test]
    fn init_loses_only_bad_entries() {
        let payload = json!({
            "interface": {"ipv4": "100.64.0.9", "ipv6": "fd00:2021:1111::9"},
            "relays": [
                {"id":"a","type":"turn","addr":"203.0.113.1:3478","username":"u","password":"p","expires_at":1},
                {"id":"a","type":"turn","addr":"[2001:db8::1]:3478","username":"u","password":"p","expires_at":1},
                {"id":"b","type":"stun","addr":"not an address"},
                {"id":"c","type":"quic"},
            ],
            "authorizations": [
                {"client_id": CLIENT, "resource_id": RESOURCE, "expires_at": null},
                {"client_id": "x", "resource_id": RESOURCE},
                7,
            ],
        });
        let Translated {
            event: PortalEvent::Initialized(init),
            skipped,
        } = push("init", payload).unwrap()
        else {
            panic!("translates");
        };
        assert_eq!(
            (init.relays.len(), init.authorizations.len(), skipped),
            (2, 1, 4)
        );
        assert_eq!(init.authorizations[0].expires_at, None);
    }

    #[test]
    fn init_requires_only_addresses() {
        let payload = json!({"interface": {"ipv4": "100.64.0.9", "ipv6": "fd00:2021:1111::9"}});
        assert!(push("init", payload).is_ok());
        assert!(push("init", json!({})).is_err());
    }

    #[test]
    fn expiries_and_relays_are_updated() {
        let moved = json!({"client_id": CLIENT, "resource_id": RESOURCE, "expires_at": 5});
        let event = push("access_authorization_expiry_updated", moved)
            .unwrap()
            .event;
        let PortalEvent::Client(ClientCommand::SetExpiry(entry)) = event else {
            panic!("an expiry");
        };
        assert_eq!(entry.expires_at, Some(UnixTime(5)));
        let presence = json!({"disconnected_ids": ["a"], "connected": null});
        let event = push("relays_presence", presence).unwrap().event;
        assert_eq!(
            event,
            PortalEvent::RelaysChanged {
                disconnected: vec![RelayId("a".into())],
                connected: vec![]
            }
        );
    }

    #[test]
    fn too_many_candidates_are_truncated() {
        let many = vec!["candidate:x"; 1_000];
        let translated = push(
            "ice_candidates",
            json!({"client_id": CLIENT, "candidates": many}),
        );
        assert_eq!(translated.unwrap().skipped, 1_000 - MAX_CANDIDATES);
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            Just(json!(CLIENT)),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(member(), inner, 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn member() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("relays"),
            Just("connected"),
            Just("candidates"),
            Just("client_id"),
            Just("client"),
            Just("interface"),
            Just("resource"),
            Just("type"),
            Just("id"),
            Just("filters"),
        ]
        .prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn no_payload_panics(which in 0usize..EVENTS.len(), payload in any_json()) {
            let _ = push(EVENTS[which], payload);
        }

        /// One member of a valid grant replaced by anything: translated or refused, never a panic.
        #[test]
        fn no_damage_to_a_grant_panics(which in 0usize..MEMBERS.len(), value in any_json()) {
            let mut payload = grant();
            *payload.pointer_mut(MEMBERS[which]).unwrap() = value;
            let _ = push("create_authorization", payload);
        }
    }

    const EVENTS: [&str; 11] = [
        "init",
        "create_authorization",
        "authorize_flow",
        "request_connection",
        "allow_access",
        "ice_candidates",
        "invalidate_ice_candidates",
        "reject_access",
        "resource_updated",
        "relays_presence",
        "access_authorization_expiry_updated",
    ];

    const MEMBERS: [&str; 9] = [
        "/ref",
        "/client",
        "/client/id",
        "/client/public_key",
        "/client/ipv4",
        "/resource",
        "/resource/filters",
        "/resource/filters/0/port_range_start",
        "/client_ice_credentials",
    ];
}
