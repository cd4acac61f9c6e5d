//! The examples of docs/protocol.md 11.1, and errors in similar messages.

use super::*;
use crate::command::ClientCommand;
use crate::grant::{Filter, ResourceKind};
use crate::portal::PortalEvent;
use crate::portal::translate::push;
use crate::portal::translate::tests::any_json;
use proptest::prelude::*;
use serde_json::{Value, json};

const CLIENT: &str = "11111111-1111-4111-8111-111111111111";
const RESOURCE: &str = "33333333-3333-4333-8333-333333333333";

fn secret() -> IceSecret {
    IceSecret::new([5; 32])
}

fn request() -> Value {
    json!({
        "ref": "SFMyNTY.opaque",
        "resource": {
            "type": "dns", "id": RESOURCE, "address": "*.corp.example", "name": "Corp",
            "filters": [{"protocol": "tcp"}, {"protocol": "icmp"}],
        },
        "client": {
            "id": CLIENT,
            "peer": {
                "persistent_keepalive": 25,
                "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
                "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5",
            },
            "payload": {
                "ice_parameters": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                "domain": {
                    "name": "app.corp.example",
                    "proxy_ips": ["100.96.0.1", "fd00:2021:1111:8000::"],
                },
            },
        },
        "relays": [{"id": "a", "type": "stun", "addr": "203.0.113.1:3478"}],
        "expires_at": 1_790_000_000,
        "actor": {"id": CLIENT},
    })
}

fn access() -> Value {
    json!({
        "ref": "SFMyNTY.opaque",
        "client_id": CLIENT,
        "resource": {
            "type": "cidr", "id": RESOURCE, "address": "10.20.0.0/16", "name": "Office",
            "filters": [],
        },
        "expires_at": 1_790_000_000,
        "payload": null,
        "client_ipv4": "100.64.0.5", "client_ipv6": "fd00:2021:1111::5",
    })
}

fn requested(payload: Value) -> Result<AuthorizationRequest, TranslateError> {
    let PortalEvent::Client(ClientCommand::Authorize(request)) =
        push("request_connection", payload, &secret())?.event
    else {
        panic!("not a grant");
    };
    Ok(*request)
}

fn allowed(payload: Value) -> Result<AccessRequest, TranslateError> {
    let PortalEvent::Client(ClientCommand::Allow(request)) =
        push("allow_access", payload, &secret())?.event
    else {
        panic!("not an access");
    };
    Ok(*request)
}

fn with(mut payload: Value, pointer: &str, value: Value) -> Value {
    *payload.pointer_mut(pointer).unwrap() = value;
    payload
}

fn without(mut payload: Value, parent: &str, member: &str) -> Value {
    let parent = payload.pointer_mut(parent).unwrap();
    parent.as_object_mut().unwrap().remove(member).unwrap();
    payload
}

#[test]
fn a_request_is_translated_completely() {
    let request = requested(request()).unwrap();
    assert_eq!(request.reply_ref, "SFMyNTY.opaque");
    assert_eq!(request.client.public_key, PublicKey([1; 32]));
    assert_eq!(request.client.preshared_key.0[0], 0x75);
    assert_eq!(request.client.tunnel.ipv4.to_string(), "100.64.0.5");
    assert_eq!(
        request.resource.kind,
        ResourceKind::Dns("*.corp.example".into())
    );
    assert_eq!(
        request.resource.filters,
        [Filter::Tcp(0..=65535), Filter::Icmp]
    );
    assert_eq!(request.client_ice.ufrag, "eokn");
    assert_eq!(request.expires_at, Some(UnixTime(1_790_000_000)));
    assert_eq!(request.reply, ReplyKind::ConnectionReady);
    let announced = request.announced.unwrap();
    assert_eq!(announced.domain, "app.corp.example");
    assert_eq!(
        announced.proxy_ips,
        [
            "100.96.0.1".parse::<std::net::IpAddr>().unwrap(),
            "fd00:2021:1111:8000::".parse().unwrap()
        ]
    );
}

#[test]
fn a_repeated_request_leads_to_the_same_transport_and_another_client_to_another() {
    let keys = |payload| requested(payload).unwrap().transport_keys();
    let first = keys(request());
    let repeated = with(request(), "/ref", json!("later"));
    assert_eq!(keys(repeated), first);
    let with_other = |pointer, value| keys(with(request(), pointer, value)).local_ice;
    let other = json!("22222222-2222-4222-8222-222222222222");
    assert_ne!(with_other("/client/id", other), first.local_ice);
    let ice = json!({"username": "eokx", "password": "5enp7ct6775ebzonvunxjy"});
    let pointer = "/client/payload/ice_parameters";
    assert_ne!(with_other(pointer, ice), first.local_ice);
}

#[test]
fn missing_bare_and_mapped_names_are_accepted() {
    let domain = |value| {
        let payload = with(request(), "/client/payload/domain", value);
        requested(payload).unwrap().announced
    };
    assert_eq!(domain(json!(null)), None);
    let bare = domain(json!("app.corp.example")).unwrap();
    assert_eq!(
        (bare.domain.as_str(), bare.proxy_ips.len()),
        ("app.corp.example", 0)
    );
    let missing = without(request(), "/client/payload", "domain");
    assert_eq!(requested(missing).unwrap().announced, None);
    let mapped = json!({"name": "app.corp.example", "proxy_ips": ["100.96.0.1"]});
    let access = allowed(with(access(), "/payload", mapped)).unwrap();
    assert_eq!(access.announced.unwrap().proxy_ips.len(), 1);
}

#[test]
fn optional_members_may_be_absent_and_unknown_ones_present() {
    let mut payload = without(request(), "", "relays");
    payload = without(payload, "", "expires_at");
    payload = without(payload, "", "actor");
    payload = without(payload, "/client/peer", "persistent_keepalive");
    payload["unheard_of"] = json!([1]);
    assert_eq!(requested(payload).unwrap().expires_at, None);
    for address in ["client_ipv4", "client_ipv6"] {
        let early = allowed(without(access(), "", address)).unwrap();
        assert_eq!(early.tunnel, None, "half a pair is none");
    }
    let early = without(without(access(), "", "payload"), "", "expires_at");
    let early = allowed(early).unwrap();
    assert_eq!((early.announced, early.expires_at), (None, None));
}

#[test]
fn an_access_is_translated_completely() {
    let access = allowed(access()).unwrap();
    assert_eq!(access.reply_ref, "SFMyNTY.opaque");
    assert_eq!(access.client.to_string(), CLIENT);
    assert_eq!(access.tunnel.unwrap().ipv6.to_string(), "fd00:2021:1111::5");
    assert_eq!(access.resource.id.to_string(), RESOURCE);
    assert_eq!(access.expires_at, Some(UnixTime(1_790_000_000)));
}

#[test]
fn an_unusable_member_refuses_the_whole_message() {
    let long_name = json!("a".repeat(256));
    let many = json!({"name": "app.corp.example", "proxy_ips": vec!["100.96.0.1"; 9]});
    for (pointer, value, says) in [
        ("/client/id", json!("x"), "client.id"),
        (
            "/client/peer/public_key",
            json!("AQEB"),
            "client.peer.public_key",
        ),
        ("/client/peer/preshared_key", json!(null), "invalid"),
        ("/client/peer/ipv4", json!("fd00::1"), "invalid"),
        ("/client/payload/ice_parameters", json!({}), "missing"),
        ("/client/payload/domain", json!(7), "data did not match"),
        ("/client/payload/domain", long_name, "too long"),
        ("/client/payload/domain", many, "too long"),
        (
            "/resource/filters",
            json!([{"protocol": "sctp"}]),
            "unknown",
        ),
    ] {
        let refused = requested(with(request(), pointer, value));
        let Err(TranslateError::WrongPayload(what)) = refused else {
            panic!("{pointer} must refuse the request");
        };
        assert!(what.contains(says), "{pointer}: {what}");
    }
    for (pointer, value) in [
        ("/client_id", json!(1)),
        ("/resource/type", json!("planet")),
        ("/client_ipv4", json!("x")),
        ("/payload", json!({"name": "a.example", "proxy_ips": ["x"]})),
        ("/expires_at", json!("tomorrow")),
    ] {
        let refused = allowed(with(access(), pointer, value));
        assert!(refused.is_err(), "{pointer} must refuse the access");
    }
}

#[test]
fn credentials_that_ice_cannot_use_refuse_the_request() {
    let with_ice = |username: &str, password: &str| {
        let parameters = json!({"username": username, "password": password});
        requested(with(
            request(),
            "/client/payload/ice_parameters",
            parameters,
        ))
    };
    let good = "p".repeat(22);
    assert!(with_ice(&"u".repeat(119), &good).is_ok());
    assert!(with_ice("a+/9", &"p".repeat(256)).is_ok());
    for (username, password) in [
        ("u".repeat(120), good.clone()),
        ("abc".into(), good.clone()),
        ("ab:d".into(), good.clone()),
        ("äbcd".into(), good.clone()),
        ("abcd".into(), "p".repeat(21)),
        ("abcd".into(), "p".repeat(257)),
        ("abcd".into(), format!("{good}\n")),
    ] {
        let Err(TranslateError::WrongPayload(what)) = with_ice(&username, &password) else {
            panic!("{username:?} must refuse the request");
        };
        assert!(what.contains("ice_parameters"), "{what}");
        assert!(!what.contains(&password), "a secret is not quoted");
    }
}

proptest! {
    /// One member of a valid message replaced by anything: translated or refused, never a panic.
    #[test]
    fn no_damage_panics(which in 0usize..MEMBERS.len(), value in any_json()) {
        let _ = requested(with(request(), MEMBERS[which], value.clone()));
        if access().pointer(MEMBERS[which]).is_some() {
            let _ = allowed(with(access(), MEMBERS[which], value));
        }
    }
}

const MEMBERS: [&str; 9] = [
    "/ref",
    "/client",
    "/client/id",
    "/client/peer",
    "/client/payload",
    "/client/payload/domain",
    "/resource",
    "/resource/id",
    "/expires_at",
];
