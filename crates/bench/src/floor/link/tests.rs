//! A link against another implementation of WireGuard.

use super::*;
use defguard_boringtun::noise::{Tunn, TunnResult};
use defguard_boringtun::x25519::{PublicKey, StaticSecret};
use postern_core::portal::wire::IceCredentials;

const GATEWAY: &str = "203.0.113.10:52625";

fn config(ice: Option<IcePair>) -> LinkConfig {
    LinkConfig {
        identity: Identity {
            secret: [1; 32],
            peer: PublicKey::from(&StaticSecret::from([2; 32])).to_bytes(),
            preshared: [3; 32],
        },
        gateway: GATEWAY.parse().expect("an address"),
        ice,
        announcements: Vec::new(),
        pace: Pace::ACTIVE,
        number: 0x00a1_b2c3,
    }
}

fn gateway() -> Tunn {
    let peer = PublicKey::from(&StaticSecret::from([1; 32]));
    Tunn::new(
        StaticSecret::from([2; 32]),
        peer,
        Some([3; 32]),
        None,
        7,
        None,
    )
}

fn ice() -> IcePair {
    let credentials = |username: &str| IceCredentials {
        username: username.to_owned(),
        password: "a password of 22 chars".to_owned(),
    };
    IcePair {
        client: credentials("eokn"),
        gateway: credentials("6m26"),
    }
}

fn later(now: Moment, by: Duration) -> Moment {
    Moment {
        instant: now.instant + by,
        unix: now.unix + by,
    }
}

fn sent(link: &mut Link) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.poll_transmit())
        .map(|(to, datagram)| {
            assert_eq!(to, GATEWAY.parse().expect("an address"));
            datagram
        })
        .collect()
}

/// What the gateway answers; `None` to what it takes without a word.
fn answer(gateway: &mut Tunn, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 2048];
    match gateway.decapsulate(None, datagram, &mut buffer) {
        TunnResult::WriteToNetwork(answer) => Some(answer.to_vec()),
        TunnResult::Done => None,
        refused @ (TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..)) => panic!("refused: {refused:?}"),
    }
}

/// A link whose first session stands.
fn established(config: LinkConfig, gateway: &mut Tunn, now: Moment) -> Link {
    let mut link = Link::new(config, now);
    link.handle_timeout(now);
    let initiations = sent(&mut link);
    assert_eq!(initiations.len(), 1);
    assert!(!link.is_up());
    let response = answer(gateway, &initiations[0]).expect("a response");
    link.handle_datagram(&response, now);
    assert!(link.is_up());
    link
}

#[test]
fn a_plain_link_shakes_hands_at_once_and_proves_the_session() {
    let (mut gateway, now) = (gateway(), Moment::now());
    let mut link = established(config(None), &mut gateway, now);
    let keepalives = sent(&mut link);
    assert_eq!(keepalives.len(), 1);
    assert_eq!(answer(&mut gateway, &keepalives[0]), None);
}

#[test]
fn a_lost_initiation_is_repeated_after_its_time() {
    let now = Moment::now();
    let mut link = Link::new(config(None), now);
    link.handle_timeout(now);
    let first = sent(&mut link);
    assert_eq!(
        link.poll_timeout(),
        Some(now.instant + Pace::ACTIVE.handshake)
    );
    link.handle_timeout(later(now, Pace::ACTIVE.handshake / 2));
    assert!(sent(&mut link).is_empty());
    link.handle_timeout(later(now, Pace::ACTIVE.handshake));
    let second = sent(&mut link);
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
}

#[test]
fn a_session_is_replaced_in_time_and_the_one_before_still_opens() {
    let (mut gateway, now) = (gateway(), Moment::now());
    let mut link = established(config(None), &mut gateway, now);
    sent(&mut link);
    let now = later(now, REKEY_AFTER);
    link.handle_timeout(now);
    let mut initiations = sent(&mut link);
    initiations.retain(|it| it[0] == 1);
    assert_eq!(initiations.len(), 1);
    let response = answer(&mut gateway, &initiations[0]).expect("a response");
    link.handle_datagram(&response, now);
    assert_eq!(link.openers().len(), 2);
    let keepalives = sent(&mut link);
    assert_eq!(keepalives.len(), 1);
    assert_eq!(answer(&mut gateway, &keepalives[0]), None);
}

#[test]
fn with_ice_the_path_comes_first() {
    let now = Moment::now();
    let mut link = Link::new(config(Some(ice())), now);
    link.handle_timeout(now);
    let checks = sent(&mut link);
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0][4..8], STUN_COOKIE);
    // The gateway's end of the check, by the same agent with the roles exchanged.
    let IcePair { client, gateway } = ice();
    let exchanged = IcePair {
        client: gateway,
        gateway: client,
    };
    let address = GATEWAY.parse().expect("an address");
    let Heard::Asked(answer) = Checks::new(exchanged, 2).handle(&checks[0], address) else {
        panic!("not authentic");
    };
    link.handle_datagram(&answer, now);
    let next = sent(&mut link);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0][0], 1, "an initiation");
}

#[test]
fn names_are_announced_until_they_are_answered() {
    let (mut gateway, now) = (gateway(), Moment::now());
    let packet = |kind: u8, body: &str| {
        let mut packet = vec![0; 48];
        (packet[0], packet[6], packet[40]) = (0x60, 0xff, kind);
        packet.extend(body.as_bytes());
        packet[5] = (packet.len() - 40) as u8;
        packet
    };
    let announcement = packet(0, "a name");
    let config = LinkConfig {
        announcements: vec![announcement.clone()],
        ..config(None)
    };
    let mut link = established(config, &mut gateway, now);
    assert!(!link.is_ready());
    let is_announced = |datagrams: &[Vec<u8>]| {
        let long = announcement.len() + OVERHEAD_BYTES;
        datagrams.iter().any(|it| it.len() == long)
    };
    assert!(is_announced(&sent(&mut link)));
    let now = later(now, ANNOUNCE_AGAIN);
    link.handle_timeout(now);
    assert!(is_announced(&sent(&mut link)));
    let status =
        r#"{"resource":"00000000-0000-0000-0000-000000000000","domain":"a","status":"Active"}"#;
    link.handle_control_packet(&packet(1, status));
    assert!(link.is_ready());
    link.handle_timeout(later(now, ANNOUNCE_AGAIN));
    assert!(!is_announced(&sent(&mut link)));
}

proptest::proptest! {
    #[test]
    fn arbitrary_datagrams_bring_nothing_up(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let now = Moment::now();
        let mut link = Link::new(config(Some(ice())), now);
        link.handle_timeout(now);
        link.handle_datagram(&bytes, now);
        link.handle_control_packet(&bytes);
        proptest::prop_assert!(!link.is_up());
    }
}
