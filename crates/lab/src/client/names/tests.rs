//! The rules for names one by one, then in random order.

use super::super::addresses::is_sentinel;
use super::super::clock::now;
use super::proxies::PER_FAMILY;
use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const APP: &str = "app.lab.example";

fn resource(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn gateway(number: u128) -> GatewayId {
    GatewayId(Uuid::from_u128(number))
}

const fn via() -> (GatewayId, ResourceId) {
    (
        GatewayId(Uuid::from_u128(9)),
        ResourceId(Uuid::from_u128(1)),
    )
}

fn status(domain: &str, active: bool) -> DomainStatus {
    DomainStatus {
        resource: resource(1),
        domain: domain.into(),
        active,
    }
}

/// One resource for all of lab.example.
fn names() -> Names {
    let mut names = Names::default();
    names.set_resource(resource(1), "*.lab.example");
    names
}

fn ask(names: &mut Names, name: &str, now: Instant) -> ProxyIps {
    match names.handle_question(name, now) {
        Some(Answer::ProxyIps(ips)) => ips,
        other => panic!("{name}: {other:?}"),
    }
}

/// Sends a packet to the name; returns whether it is held.
fn send(names: &mut Names, packet: &[u8], now: Instant) -> bool {
    names.hold_unconfirmed(&APP.into(), via(), packet, now)
}

fn announced(names: &mut Names) -> usize {
    std::iter::from_fn(|| names.poll_announcement()).count()
}

#[test]
fn a_name_keeps_its_proxy_ips_and_shares_them_with_no_other() {
    let (mut names, now) = (names(), now());
    let app = ask(&mut names, APP, now);
    let other = ask(&mut names, "other.lab.example", now);
    assert_eq!(app.ipv4[0].to_string(), "100.96.0.1");
    assert_eq!(other.ipv4[0].to_string(), "100.96.0.5");
    assert_eq!(ask(&mut names, APP, now), app);
    names.remove_resource(resource(1));
    assert_eq!(names.handle_question(APP, now), None);
    names.set_resource(resource(2), APP);
    assert_eq!(ask(&mut names, APP, now), app);
    for ip in app.iter() {
        let (name, resources) = names.behind(ip).expect("a proxy IP");
        assert_eq!((name.as_ref(), resources), (APP, &[resource(2)][..]));
    }
}

#[test]
fn ignores_a_name_outside_all_resources() {
    let (mut names, now) = (names(), now());
    assert_eq!(names.handle_question("app.example", now), None);
    assert!(names.behind([100, 96, 0, 1].into()).is_none());
}

#[test]
fn orders_resources_by_narrowness_then_by_greater_id() {
    let (mut names, now) = (names(), now());
    names.set_resource(resource(3), "**.example");
    names.set_resource(resource(4), APP);
    names.set_resource(resource(5), "*.lab.example");
    ask(&mut names, APP, now);
    let expected = [resource(4), resource(5), resource(1), resource(3)];
    assert_eq!(names.resources_of(APP), expected);
    names.remove_resource(resource(5));
    let (_, resources) = names.behind([100, 96, 0, 1].into()).expect("a proxy IP");
    assert_eq!(resources, [resource(4), resource(1), resource(3)]);
}

#[test]
fn the_first_packet_announces_the_name_and_waits_for_the_gateway() {
    let (mut names, now) = (names(), now());
    let ips = ask(&mut names, APP, now);
    assert_eq!(announced(&mut names), 0, "no gateway yet");
    assert!(send(&mut names, b"1", now));
    let announcement = names.poll_announcement().expect("due");
    let expected = Announcement {
        gateway: gateway(9),
        resource: resource(1),
        domain: Domain {
            name: APP.into(),
            proxy_ips: ips.iter().collect(),
        },
        first_packet_at: now,
    };
    assert_eq!(announcement, expected);
    assert_eq!(announcement.domain.proxy_ips.len(), 8);
    assert!(send(&mut names, b"2", now));
    assert_eq!(announced(&mut names), 0);
    let settled = names
        .handle_status(gateway(9), &status("App.Lab.Example.", true))
        .expect("was announced");
    assert_eq!(settled.held, [b"1", b"2"]);
    assert!(!send(&mut names, b"3", now));
}

#[test]
fn packets_repeat_an_unanswered_announcement_every_two_seconds() {
    let (mut names, start) = (names(), now());
    ask(&mut names, APP, start);
    let mut due_at = |ms| {
        send(&mut names, b"x", start + Duration::from_millis(ms));
        announced(&mut names)
    };
    let due = [0, 1, 1999, 2000, 3999, 4000, 60_000, 60_001].map(&mut due_at);
    assert_eq!(due, [1, 0, 0, 1, 0, 1, 1, 0]);
}

#[test]
fn holds_32_packets_and_drops_the_newest() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    for n in 0..100 {
        assert!(send(&mut names, &[n], now));
    }
    let settled = names.handle_status(gateway(9), &status(APP, true));
    let held = settled.expect("was announced").held;
    assert_eq!(held, (0..32).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn a_new_query_repeats_the_announcement_without_holding_packets() {
    let (mut names, start) = (names(), now());
    ask(&mut names, APP, start);
    send(&mut names, b"1", start);
    announced(&mut names);
    names.handle_status(gateway(9), &status(APP, true));
    ask(&mut names, APP, start);
    assert_eq!(announced(&mut names), 1);
    assert!(!send(&mut names, b"2", start));
    // Without an answer, a packet repeats the announcement and passes.
    let later = start + Duration::from_secs(2);
    assert!(!send(&mut names, b"3", later));
    assert_eq!(announced(&mut names), 1);
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert!(settled.expect("was announced").held.is_empty());
    ask(&mut names, "other.lab.example", later);
    assert_eq!(announced(&mut names), 0, "another name");
}

#[test]
fn a_query_for_an_unconfirmed_name_repeats_the_announcement_and_keeps_holding() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    send(&mut names, b"1", now);
    announced(&mut names);
    ask(&mut names, APP, now);
    assert_eq!(announced(&mut names), 1);
    assert!(send(&mut names, b"2", now));
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert_eq!(settled.expect("was announced").held, [b"1", b"2"]);
}

#[test]
fn a_query_announces_a_failed_name_again() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    send(&mut names, b"1", now);
    announced(&mut names);
    let settled = names.handle_status(gateway(9), &status(APP, false));
    assert!(settled.expect("was announced").held.is_empty());
    let later = now + Duration::from_secs(60);
    assert!(!send(&mut names, b"2", later));
    assert_eq!(announced(&mut names), 0);
    ask(&mut names, APP, later);
    assert_eq!(announced(&mut names), 1);
    assert!(send(&mut names, b"3", later));
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert_eq!(settled.expect("was announced").held, [b"3"]);
}

#[test]
fn accepts_changed_answers_of_a_gateway() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    send(&mut names, b"1", now);
    for (active, state) in [(true, "confirmed"), (false, "failed"), (true, "confirmed")] {
        assert!(
            names
                .handle_status(gateway(9), &status(APP, active))
                .is_some()
        );
        assert_eq!(names.list()[0].announced[0].state, state);
    }
}

#[test]
fn ignores_a_status_without_an_announcement() {
    let (mut names, now) = (names(), now());
    assert_eq!(names.handle_status(gateway(9), &status(APP, true)), None);
    ask(&mut names, APP, now);
    assert_eq!(names.handle_status(gateway(9), &status(APP, true)), None);
    send(&mut names, b"1", now);
    assert_eq!(names.handle_status(gateway(8), &status(APP, true)), None);
    assert_eq!(names.list()[0].announced[0].state, "pending");
}

#[test]
fn announces_nothing_for_removed_gateways_and_resources() {
    let forget: [fn(&mut Names); 3] = [
        |names| names.forget_gateway(gateway(9)),
        |names| names.forget_resource(resource(1)),
        |names| names.remove_resource(resource(1)),
    ];
    for forget in forget {
        let (mut names, now) = (names(), now());
        ask(&mut names, APP, now);
        send(&mut names, b"1", now);
        forget(&mut names);
        assert_eq!(announced(&mut names), 0);
        assert_eq!(names.handle_status(gateway(9), &status(APP, true)), None);
        assert!(send(&mut names, b"2", now), "from the start");
        assert_eq!(announced(&mut names), 1);
    }
}

#[test]
fn does_not_announce_a_name_that_the_portal_announced() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    names.assume_confirmed(APP, via(), now);
    assert!(!send(&mut names, b"1", now));
    assert_eq!(announced(&mut names), 0);
}

#[test]
fn limits_the_number_of_names() {
    let (mut names, now) = (names(), now());
    for n in 0..NAMES_MAX {
        ask(&mut names, &format!("n{n}.lab.example"), now);
    }
    assert_eq!(names.handle_question(APP, now), Some(Answer::Full));
    ask(&mut names, "n0.lab.example", now);
}

proptest! {
    /// In every order of events, proxy IPs belong to one name and never change, and at most 32
    /// packets wait, only for an outstanding answer.
    #[test]
    fn names_never_share_and_packets_wait_only_for_an_answer(
        steps in prop::collection::vec((0u8..6, 0u8..4, any::<bool>(), 0u64..1500), 1..120),
    ) {
        let (mut names, mut now) = (names(), now());
        let mut known: BTreeMap<u8, ProxyIps> = BTreeMap::new();
        let mut answered: BTreeSet<(u8, u128)> = BTreeSet::new();
        for (step, number, flag, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            let name = Arc::<str>::from(format!("n{number}.lab.example"));
            let gateway_number = u128::from(flag);
            let through = (gateway(gateway_number), resource(1));
            match step {
                0 => {
                    let ips = ask(&mut names, &name, now);
                    prop_assert_eq!(*known.entry(number).or_insert(ips), ips);
                }
                1 | 2 => {
                    if names.hold_unconfirmed(&name, through, b"x", now) {
                        prop_assert!(!answered.contains(&(number, gateway_number)));
                    }
                }
                3 => {
                    let status = status(&name, true);
                    if let Some(settled) = names.handle_status(through.0, &status) {
                        prop_assert!(settled.held.len() <= HELD_PACKETS);
                        answered.insert((number, gateway_number));
                    }
                }
                4 => {
                    names.forget_gateway(through.0);
                    answered.retain(|(_, by)| *by != gateway_number);
                }
                _ => while let Some(announcement) = names.poll_announcement() {
                    prop_assert_eq!(announcement.domain.proxy_ips.len(), 2 * PER_FAMILY);
                },
            }
        }
        let all: Vec<IpAddr> = known.values().flat_map(ProxyIps::iter).collect();
        let distinct: BTreeSet<IpAddr> = all.iter().copied().collect();
        prop_assert_eq!(distinct.len(), all.len());
        for ip in distinct {
            prop_assert!(!is_sentinel(ip));
        }
    }
}
