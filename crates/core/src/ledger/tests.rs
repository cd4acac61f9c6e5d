//! Tests of the ledger: its rules, its limits, and restored policies.

use super::scripts::{Step, TIGHT, client, proxy_ips, resource_id, script};
use super::*;
use crate::grant::{AuthorizationEntry, ResourceKind};
use crate::names::DomainName;
use crate::policy::{Policy, PolicyConfig};
use crate::testing::beginning;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Everything that is worth saving.
type Content = (
    Option<TunnelAddresses>,
    Vec<(ClientId, ClientRecord)>,
    Vec<(DomainName, Vec<IpAddr>)>,
);

fn content(ledger: &Ledger) -> Content {
    let clients = ledger
        .clients()
        .map(|(id, record)| (id, (**record).clone()));
    let known = ledger.known_names();
    let known = known.map(|known| (known.name.clone(), known.ips.clone()));
    (ledger.gateway(), clients.collect(), known.collect())
}

pub(super) fn require_consistent(record: &ClientRecord, limits: &LedgerLimits) {
    assert!((1..=limits.resources_per_client).contains(&record.grants.len()));
    assert!(record.names.len() <= limits.names_per_client);
    assert!(record.remote_candidates.len() <= limits.candidates_per_client);
    let distinct: BTreeSet<_> = record.remote_candidates.iter().collect();
    assert_eq!(distinct.len(), record.remote_candidates.len());
    if record.transport.is_none() {
        assert!(record.remote_candidates.is_empty() && record.path.is_none());
    }
    let mut owners = BTreeMap::new();
    for name in &record.names {
        let grant = record
            .grants
            .get(&name.resource)
            .expect("a name has its grant");
        assert!(matches!(grant.resource.kind, ResourceKind::Dns(_)));
        let domain: DomainName = name.announced.domain.parse().expect("a name");
        for ip in &name.announced.proxy_ips {
            let owner = owners.entry(*ip).or_insert_with(|| domain.clone());
            assert_eq!(*owner, domain, "one proxy IP, one name");
        }
    }
    assert!(record.pins.len() <= limits.pins_per_client);
    for flow in record.pins.values() {
        assert_eq!(owners.get(&flow.proxy), Some(&flow.name), "no name, no pin");
    }
}

fn step(kind: u8, client: u8, resource: u8, detail: u8) -> Step {
    Step {
        kind,
        client,
        resource,
        detail,
    }
}

fn granted() -> Ledger {
    let mut ledger = Ledger::new(LedgerLimits::default());
    for resource in [0, 1] {
        ledger.record_authorization(&step(0, 0, resource, 3).authorization());
    }
    ledger
}

fn record(ledger: &Ledger) -> &ClientRecord {
    ledger.client(client(0)).expect("a client")
}

fn name(resource: u8, domain: &str, ips: &[&str]) -> RecordedName {
    let mut name = step(0, 0, resource, 1).name();
    name.announced.domain = domain.into();
    name.announced.proxy_ips = ips
        .iter()
        .map(|ip| ip.parse().expect("an address"))
        .collect();
    name
}

fn names(ledger: &Ledger) -> Vec<(ResourceId, &str, Vec<String>)> {
    let names = record(ledger).names.iter().map(|name| {
        let ips = name.announced.proxy_ips.iter().map(IpAddr::to_string);
        (name.resource, &*name.announced.domain, ips.collect())
    });
    names.collect()
}

#[test]
fn other_keys_are_another_transport() {
    let mut ledger = granted();
    let path = crate::packet::Path::direct(
        "192.0.2.1:1".parse().unwrap(),
        "192.0.2.2:2".parse().unwrap(),
    );
    ledger.add_candidates(client(0), &["candidate:1".into()]);
    ledger.record_path(client(0), path);
    let mut request = step(0, 0, 0, 3).authorization();
    ledger.record_authorization(&request);
    assert_eq!(record(&ledger).path, Some(path));
    request.client_ice.ufrag = "other".into();
    ledger.record_authorization(&request);
    assert_eq!(record(&ledger).transport, Some(request.transport_keys()));
    assert_eq!(record(&ledger).path, None);
    assert!(record(&ledger).remote_candidates.is_empty());
}

#[test]
fn a_further_candidate_replaces_the_oldest() {
    let mut ledger = granted();
    let line = |n: usize| format!("candidate:{n}");
    for n in 0..70 {
        ledger.add_candidates(client(0), &[line(n)]);
    }
    ledger.add_candidates(client(0), &["c".repeat(1000)]);
    let expected: Vec<_> = (6..70).map(line).collect();
    assert_eq!(record(&ledger).remote_candidates, expected);
    let many: Vec<_> = (0..1000).map(line).collect();
    ledger.add_candidates(client(0), &many);
    assert_eq!(record(&ledger).remote_candidates, many[936..]);
}

#[test]
fn lower_limits_keep_existing_records() {
    let mut ledger = granted();
    ledger.record_authorization(&step(0, 1, 0, 3).authorization());
    ledger.limit(1, 1);
    assert_eq!(record(&ledger).grants.len(), 2);
    ledger.record_authorization(&step(0, 0, 1, 3).authorization());
    ledger.record_authorization(&step(0, 0, 2, 3).authorization());
    assert_eq!(record(&ledger).grants.len(), 2, "held ones alone");
    ledger.record_authorization(&step(0, 2, 0, 3).authorization());
    assert_eq!(ledger.clients().len(), 2);
    ledger.limit(3, 3);
    ledger.record_authorization(&step(0, 2, 0, 3).authorization());
    assert_eq!(ledger.clients().len(), 3);
}

#[test]
fn a_client_is_removed_with_its_last_grant() {
    let mut ledger = granted();
    ledger.record_name(client(0), name(0, "a.lab.example", &["100.96.0.1"]));
    ledger.revoke(client(0), resource_id(0));
    assert!(names(&ledger).is_empty());
    ledger.revoke(client(0), resource_id(1));
    assert!(ledger.client(client(0)).is_none());
}

#[test]
fn an_extended_expiry_keeps_the_grant() {
    let mut ledger = granted();
    let entry = |at| AuthorizationEntry {
        client: client(0),
        resource: resource_id(0),
        expires_at: Some(UnixTime(at)),
    };
    ledger.set_expiry(entry(200));
    ledger.prune_expired(UnixTime(100));
    assert!(record(&ledger).grants.contains_key(&resource_id(0)));
    ledger.set_expiry(entry(100));
    ledger.prune_expired(UnixTime(100));
    assert!(!record(&ledger).grants.contains_key(&resource_id(0)));
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn a_proxy_ip_under_another_name_removes_the_former_name() {
    let mut ledger = granted();
    let v6 = "fd00:2021:1111:8000::1";
    ledger.record_name(client(0), name(0, "a.lab.example", &["100.96.0.1", v6]));
    ledger.record_name(client(0), name(1, "A.lab.example", &["100.96.0.1"]));
    ledger.record_name(client(0), name(0, "b.lab.example", &["100.96.0.1"]));
    let expected = (
        resource_id(0),
        "b.lab.example",
        vec!["100.96.0.1".to_owned()],
    );
    assert_eq!(names(&ledger), [expected]);
}

#[test]
fn a_name_is_replaced_family_by_family() {
    let mut ledger = granted();
    let v6 = "fd00:2021:1111:8000::1";
    ledger.record_name(client(0), name(0, "a.lab.example", &[v6]));
    ledger.record_name(client(0), name(0, "a.lab.example", &["100.96.0.2"]));
    ledger.record_name(client(0), name(0, "A.lab.example", &["100.96.0.1"]));
    let ips = vec!["100.96.0.1".to_owned(), v6.to_owned()];
    assert_eq!(names(&ledger), [(resource_id(0), "A.lab.example", ips)]);
}

#[test]
fn a_further_name_replaces_the_one_announced_first() {
    let mut ledger = granted();
    for n in 0..2050_u16 {
        let ip = IpAddr::from([100, 96, (n / 256) as u8, (n % 256) as u8]).to_string();
        ledger.record_name(client(0), name(0, &format!("n{n}.lab.example"), &[&ip]));
    }
    let names = names(&ledger);
    assert_eq!(names.len(), 2048);
    assert_eq!(names[0].1, "n2.lab.example");
}

#[test]
fn a_further_resolved_name_replaces_the_longest_ago_resolved() {
    let mut ledger = Ledger::new(LedgerLimits {
        known_names: 2,
        ..LedgerLimits::default()
    });
    let known = |name: &str, at| ResolvedName {
        name: name.parse().expect("a name"),
        family: crate::names::AddressFamily::V4,
        ips: vec![IpAddr::from([10, 0, 0, 1])],
        resolved_at: UnixTime(at),
    };
    ledger.record_known(known("a.lab.example", 1));
    ledger.record_known(known("b.lab.example", 2));
    let before = ledger.revision();
    ledger.record_known(known("a.lab.example", 3));
    assert_eq!(
        ledger.revision(),
        before,
        "the same addresses are no change"
    );
    // Many small steps count as one large one: the saved age must not be outdated.
    for at in [200, 302, 303] {
        ledger.record_known(known("a.lab.example", at));
        assert_eq!(ledger.revision(), before + u64::from(at > 301), "{at}");
    }
    let saved = ledger.known_names().next().expect("a name");
    assert_eq!(saved.resolved_at, UnixTime(303));
    ledger.record_known(known("c.lab.example", 4));
    let names: Vec<_> = ledger.known_names().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a.lab.example", "c.lab.example"]);
}

proptest! {
    #[test]
    fn every_history_keeps_the_limits(script in script()) {
        let mut ledger = Ledger::new(TIGHT);
        for step in script {
            step.apply(&mut ledger);
            prop_assert!(ledger.clients().len() <= TIGHT.clients);
            prop_assert!(ledger.known_names().len() <= TIGHT.known_names);
            for (_, record) in ledger.clients() {
                require_consistent(record, &TIGHT);
            }
        }
    }

    #[test]
    fn the_revision_rises_with_every_change_and_only_then(script in script()) {
        let mut ledger = Ledger::new(TIGHT);
        for step in script {
            let before = (ledger.revision(), content(&ledger));
            step.apply(&mut ledger);
            let after = (ledger.revision(), content(&ledger));
            prop_assert_eq!(before.0 != after.0, before.1 != after.1, "{:?}", step);
            step.apply(&mut ledger);
            prop_assert_eq!((ledger.revision(), content(&ledger)), after, "again: {:?}", step);
        }
    }

    #[test]
    fn a_record_that_was_handed_out_never_changes(script in script()) {
        let mut ledger = Ledger::new(TIGHT);
        let mut handed_out: Vec<(Arc<ClientRecord>, ClientRecord)> = Vec::new();
        for step in script {
            step.apply(&mut ledger);
            let records = ledger.clients().map(|(_, it)| (it.clone(), (**it).clone()));
            handed_out.extend(records);
        }
        for (record, as_it_was) in handed_out {
            prop_assert_eq!(&*record, &as_it_was);
        }
    }

    /// A policy after a history equals a new one that is restored from the ledger.
    #[test]
    fn a_restored_policy_equals_the_former_one(script in script()) {
        let now = beginning();
        let config = PolicyConfig {
            client: step(0, 0, 0, 0).authorization().client.tunnel,
            gateway: None,
            max_resources: 3,
        };
        let limits = LedgerLimits { resources_per_client: 3, ..LedgerLimits::default() };
        let (mut ledger, mut policy) = (Ledger::new(limits), Policy::new(config));
        for step in script {
            // One client, and nothing expires: that needs a clock on either side.
            let step = Step { client: 0, ..step };
            if !matches!(step.kind, 16 | 17) {
                step.apply(&mut ledger);
                live(step, &mut policy, now);
            }
        }
        let mut rebuilt = Policy::new(config);
        if let Some(record) = ledger.client(client(0)) {
            rebuild(record, &mut rebuilt, now);
        }
        let granted = |policy: &Policy| {
            let kinds = policy.resources().map(|it| (it.id, it.kind.clone(), it.filters.clone()));
            kinds.collect::<Vec<_>>()
        };
        prop_assert_eq!(granted(&rebuilt), granted(&policy));
        for ip in proxy_ips() {
            prop_assert_eq!(rebuilt.proxied_name(ip), policy.proxied_name(ip), "{}", ip);
        }
    }
}

/// Applies a step as the connection does to its policy.
fn live(step: Step, policy: &mut Policy, now: std::time::Instant) {
    let then = UnixTime(0);
    let announce = |policy: &mut Policy, resource, announced: &crate::grant::AnnouncedName| {
        if let Ok(name) = announced.domain.parse()
            && !announced.proxy_ips.is_empty()
        {
            let _ = policy.assign_proxies(resource, &name, &announced.proxy_ips);
        }
    };
    match step.kind {
        0..5 => {
            let request = step.authorization();
            let is_known = policy.resources().next().is_some();
            if step.kind == 4 && step.access().tunnel.is_none() && !is_known {
                return;
            }
            let resource = request.resource.id;
            let allowed = policy.allow(request.resource, request.expires_at, then, now);
            let full = matches!(
                allowed,
                Err(crate::policy::PolicyError::TooManyResources { .. })
            );
            if let Some(announced) = request.announced.filter(|_| !full) {
                announce(policy, resource, &announced);
            }
        }
        7 => {
            policy.revoke(resource_id(step.resource));
        }
        9 => {
            policy.update_filters(&step.resource());
        }
        10 => {
            let entries = step.entries().into_iter();
            let entries = entries.filter(|entry| entry.client == client(0));
            policy.reconcile(entries.map(|it| (it.resource, it.expires_at)), then, now);
        }
        11..14 => {
            let name = step.name();
            announce(policy, name.resource, &name.announced);
        }
        _ => {}
    }
}

/// Restores a policy as the connection does.
fn rebuild(record: &ClientRecord, policy: &mut Policy, now: std::time::Instant) {
    for grant in record.grants.values() {
        let allowed = policy.allow(grant.resource.clone(), None, UnixTime(0), now);
        allowed.expect("the ledger has the policy's limits");
    }
    for name in &record.names {
        let domain = name.announced.domain.parse().expect("a name");
        let assigned = policy.assign_proxies(name.resource, &domain, &name.announced.proxy_ips);
        assigned.expect("the ledger records what the policy takes");
    }
}
