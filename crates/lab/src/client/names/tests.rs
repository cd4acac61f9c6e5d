//! The rules for names one by one, then in any order.

use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const APP: &str = "app.lab.example";

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

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

fn send(names: &mut Names, packet: &[u8], now: Instant) -> Passage {
    names.handle_packet(&APP.into(), via(), packet, now)
}

fn announced(names: &mut Names) -> usize {
    std::iter::from_fn(|| names.poll_announcement()).count()
}

#[test]
fn a_name_keeps_its_proxy_ips_and_shares_them_with_none() {
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
fn a_name_of_no_resource_is_somebody_elses() {
    let (mut names, now) = (names(), now());
    assert_eq!(names.handle_question("app.example", now), None);
    assert!(names.behind([100, 96, 0, 1].into()).is_none());
}

#[test]
fn the_narrowest_resource_comes_first_and_then_the_greater_id() {
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
fn the_first_packet_announces_and_waits_for_the_gateway() {
    let (mut names, now) = (names(), now());
    let ips = ask(&mut names, APP, now);
    assert_eq!(announced(&mut names), 0, "no gateway is concerned yet");
    assert_eq!(send(&mut names, b"1", now), Passage::Held);
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
    assert_eq!(send(&mut names, b"2", now), Passage::Held);
    assert_eq!(announced(&mut names), 0);
    let settled = names
        .handle_status(gateway(9), &status("App.Lab.Example.", true))
        .expect("was told");
    assert_eq!(settled.held, [b"1", b"2"]);
    assert_eq!(send(&mut names, b"3", now), Passage::Pass);
}

#[test]
fn an_unanswered_announcement_is_repeated_by_packets_only_every_two_seconds() {
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
fn at_most_32_packets_wait_and_the_oldest_survive() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    for n in 0..100 {
        assert_eq!(send(&mut names, &[n], now), Passage::Held);
    }
    let settled = names.handle_status(gateway(9), &status(APP, true));
    let held = settled.expect("was told").held;
    assert_eq!(held, (0..32).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn a_new_question_announces_again_without_holding_packets_up() {
    let (mut names, start) = (names(), now());
    ask(&mut names, APP, start);
    send(&mut names, b"1", start);
    announced(&mut names);
    names.handle_status(gateway(9), &status(APP, true));
    ask(&mut names, APP, start);
    assert_eq!(announced(&mut names), 1);
    assert_eq!(send(&mut names, b"2", start), Passage::Pass);
    // Still unanswered: repeated, and still nothing waits.
    let later = start + Duration::from_secs(2);
    assert_eq!(send(&mut names, b"3", later), Passage::Pass);
    assert_eq!(announced(&mut names), 1);
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert!(settled.expect("was told").held.is_empty());
    ask(&mut names, "other.lab.example", later);
    assert_eq!(announced(&mut names), 0, "another name is another matter");
}

#[test]
fn a_question_for_a_name_that_waits_announces_it_again_and_goes_on_waiting() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    send(&mut names, b"1", now);
    announced(&mut names);
    ask(&mut names, APP, now);
    assert_eq!(announced(&mut names), 1);
    assert_eq!(send(&mut names, b"2", now), Passage::Held);
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert_eq!(settled.expect("was told").held, [b"1", b"2"]);
}

#[test]
fn a_name_that_the_gateway_does_not_serve_is_asked_for_afresh_by_the_next_question() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    send(&mut names, b"1", now);
    announced(&mut names);
    let settled = names.handle_status(gateway(9), &status(APP, false));
    assert!(settled.expect("was told").held.is_empty());
    let later = now + Duration::from_secs(60);
    assert_eq!(send(&mut names, b"2", later), Passage::Pass);
    assert_eq!(announced(&mut names), 0);
    ask(&mut names, APP, later);
    assert_eq!(announced(&mut names), 1);
    assert_eq!(send(&mut names, b"3", later), Passage::Held);
    let settled = names.handle_status(gateway(9), &status(APP, true));
    assert_eq!(settled.expect("was told").held, [b"3"]);
}

#[test]
fn a_gateway_may_change_its_mind() {
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
fn a_status_that_nobody_waits_for_is_ignored() {
    let (mut names, now) = (names(), now());
    assert_eq!(names.handle_status(gateway(9), &status(APP, true)), None);
    ask(&mut names, APP, now);
    assert_eq!(names.handle_status(gateway(9), &status(APP, true)), None);
    send(&mut names, b"1", now);
    assert_eq!(names.handle_status(gateway(8), &status(APP, true)), None);
    assert_eq!(names.list()[0].announced[0].state, "pending");
}

#[test]
fn gateways_and_resources_that_are_gone_leave_nothing_to_announce() {
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
        assert_eq!(send(&mut names, b"2", now), Passage::Held, "from the start");
        assert_eq!(announced(&mut names), 1);
    }
}

#[test]
fn a_name_of_which_the_portal_told_needs_no_announcement() {
    let (mut names, now) = (names(), now());
    ask(&mut names, APP, now);
    names.assume_confirmed(APP, via(), now);
    assert_eq!(send(&mut names, b"1", now), Passage::Pass);
    assert_eq!(announced(&mut names), 0);
}

#[test]
fn names_are_limited() {
    let (mut names, now) = (names(), now());
    for n in 0..NAMES_MAX {
        ask(&mut names, &format!("n{n}.lab.example"), now);
    }
    assert_eq!(names.handle_question(APP, now), Some(Answer::Full));
    ask(&mut names, "n0.lab.example", now);
}

proptest! {
    /// Whatever happens in whatever order: proxy IPs belong to one name and never change, packets
    /// wait only for an answer that is outstanding, and no more than 32.
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
                    let passage = names.handle_packet(&name, through, b"x", now);
                    if passage == Passage::Held {
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
            let reserved = match ip {
                IpAddr::V4(ip) => IPV4_SENTINELS.contains(&ip),
                IpAddr::V6(ip) => IPV6_SENTINELS.contains(&ip),
            };
            prop_assert!(!reserved);
        }
    }
}
