//! Tests of the ledger: its rules, its limits, and restored policies.

use super::scripts::{Step, TIGHT, client, proxy_ips, publish_name, resource_id, script};
use super::*;
use crate::authorizations::{Announcer, AuthorizationError, Authorizations, GrantEnd};
use crate::grant::{AnnouncedName, AuthorizationEntry, ResourceKind};
use crate::ids::UnixTime;
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
    let authorizations = &record.authorizations;
    let grants = authorizations.grants();
    assert!((1..=limits.resources_per_client).contains(&grants.len()));
    assert!(record.remote_candidates.len() <= limits.candidates_per_client);
    let distinct: BTreeSet<_> = record.remote_candidates.iter().collect();
    assert_eq!(distinct.len(), record.remote_candidates.len());
    if record.transport.is_none() {
        assert!(record.remote_candidates.is_empty() && record.path.is_none());
    }
    let mut owned = BTreeSet::new();
    for (name, proxied) in authorizations.names() {
        assert_eq!(*name, proxied.name);
        for resource in proxied.resources.keys() {
            let grant = grants.get(resource).expect("a name has its grants");
            assert!(matches!(grant.resource.kind, ResourceKind::Dns(_)));
        }
        let is_free = proxied.proxy_ips.iter().all(|ip| owned.insert(*ip));
        assert!(is_free, "one proxy IP, one name");
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

fn config() -> PolicyConfig {
    PolicyConfig {
        client: step(0, 0, 0, 0).authorization().client.tunnel,
        gateway: None,
        max_resources: 3,
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

fn announced(domain: &str, ips: &[&str]) -> AnnouncedName {
    let ips = ips.iter().map(|ip| ip.parse().expect("an address"));
    AnnouncedName {
        domain: domain.into(),
        proxy_ips: ips.collect(),
    }
}

fn names(ledger: &Ledger) -> Vec<&str> {
    let names = record(ledger).authorizations.names();
    names.keys().map(DomainName::as_str).collect()
}

/// The numbers of the resources that the record has.
fn held(ledger: &Ledger) -> Vec<u128> {
    let grants = record(ledger).authorizations.grants();
    grants.keys().map(|id| id.0.as_u128()).collect()
}

/// docs/lessons.md 23: Authorizations are reconciled on every `init`.
#[test]
fn a_late_snapshot_never_brings_back_what_was_revoked() {
    let mut ledger = granted();
    let before = record(&ledger).authorizations.clone();
    let included = ledger.last_command(client(0));
    ledger.revoke(client(0), resource_id(0));
    // Published before the connection heard of the revocation.
    ledger.record_authorizations(client(0), included, before.clone(), UnixTime(0));
    assert_eq!(held(&ledger), [1]);
    assert_eq!(ledger.take_ended().count(), 1, "it ended once");

    // Likewise after more commands than are kept, for a client that came back, and for one whose
    // connection was replaced.
    ledger.record_authorization(&step(0, 0, 0, 3).authorization());
    let included = ledger.last_command(client(0));
    ledger.revoke(client(0), resource_id(0));
    for _ in 0..100 {
        ledger.record_authorization(&step(0, 0, 1, 3).authorization());
    }
    ledger.record_authorizations(client(0), included, before.clone(), UnixTime(0));
    assert_eq!(held(&ledger), [1]);
    ledger.revoke(client(0), resource_id(1));
    ledger.record_authorization(&step(0, 0, 1, 3).authorization());
    ledger.record_authorizations(client(0), included, before.clone(), UnixTime(0));
    assert_eq!(held(&ledger), [1]);
    ledger.note_restored(client(0));
    ledger.record_authorizations(client(0), included, before, UnixTime(0));
    assert_eq!(held(&ledger), [1]);
}

/// docs/lessons.md 23: Authorizations are reconciled on every `init`.
#[test]
fn a_snapshot_from_before_the_last_grant_ended_does_not_count_for_the_next() {
    let mut ledger = Ledger::new(TIGHT);
    ledger.record_authorization(&step(0, 0, 0, 3).authorization());
    let before = record(&ledger).authorizations.clone();
    let included = ledger.last_command(client(0));
    ledger.revoke(client(0), resource_id(0));
    assert!(ledger.client(client(0)).is_none());
    assert!(ledger.last_command(client(0)) > included);
    ledger.record_authorization(&step(0, 0, 1, 3).authorization());
    ledger.record_authorizations(client(0), included, before, UnixTime(0));
    assert_eq!(held(&ledger), [1]);
}

#[test]
fn a_snapshot_removes_what_has_expired_or_was_left() {
    let mut ledger = granted();
    let expires_at = Some(UnixTime(50));
    let entry = AuthorizationEntry {
        client: client(0),
        resource: resource_id(0),
        expires_at,
    };
    ledger.set_expiry(entry);
    let mut published = record(&ledger).authorizations.clone();
    published.expire(|id, _| id == resource_id(0));
    let included = ledger.last_command(client(0));
    ledger.record_authorizations(client(0), included, published, UnixTime(50));
    assert_eq!(held(&ledger), [1]);
    let ended: Vec<_> = ledger.take_ended().map(|ended| ended.end).collect();
    assert_eq!(ended, [GrantEnd::Expired]);
    ledger.record_authorizations(client(0), included, Authorizations::default(), UnixTime(50));
    assert!(ledger.client(client(0)).is_none());
    let ended: Vec<_> = ledger.take_ended().map(|ended| ended.end).collect();
    assert_eq!(ended, [GrantEnd::ClientGone]);
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
    assert_eq!(held(&ledger).len(), 2);
    ledger.record_authorization(&step(0, 0, 1, 3).authorization());
    ledger.record_authorization(&step(0, 0, 2, 3).authorization());
    assert_eq!(held(&ledger).len(), 2, "held ones alone");
    ledger.record_authorization(&step(0, 2, 0, 3).authorization());
    assert_eq!(ledger.clients().len(), 2);
    ledger.limit(3, 3);
    ledger.record_authorization(&step(0, 2, 0, 3).authorization());
    assert_eq!(ledger.clients().len(), 3);
}

#[test]
fn a_client_is_removed_with_its_last_grant() {
    let mut ledger = granted();
    let announced = announced("a.lab.example", &["100.96.0.1"]);
    publish_name(
        &mut ledger,
        client(0),
        resource_id(0),
        announced,
        Announcer::Client,
    );
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
    assert_eq!(held(&ledger), [0, 1]);
    ledger.set_expiry(entry(100));
    ledger.prune_expired(UnixTime(100));
    assert_eq!(held(&ledger), [1]);
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

    /// A connection handles the commands later than the ledger records them, announces names in
    /// between, and publishes; its snapshots are late too. The record always has the grants of
    /// all commands, and in the end what the connection has.
    #[test]
    fn a_record_is_the_last_snapshot_and_the_commands_beyond_it(
        script in script(),
        lags in prop::collection::vec(0_usize..4, 60),
    ) {
        let limits = LedgerLimits { resources_per_client: 3, ..LedgerLimits::default() };
        let (mut ledger, now, unix_now) = (Ledger::new(limits), beginning(), UnixTime(0));
        ledger.record_authorization(&step(0, 0, 0, 3).authorization());
        let at_once = record(&ledger).authorizations.clone();
        let mut at_once = Policy::restore(config(), &at_once, unix_now, now);
        let mut connection = Policy::restore(config(), at_once.authorizations(), unix_now, now);
        ledger.note_restored(client(0));
        let (mut commands, mut snapshots) = (VecDeque::new(), VecDeque::new());
        let mut included = ledger.last_command(client(0));
        for (step, lag) in script.into_iter().zip(lags.into_iter().chain([0].repeat(60))) {
            let step = Step { client: 0, ..step };
            match step.kind {
                0..5 | 7..11 => {
                    step.apply(&mut ledger);
                    live(step, &mut at_once, now);
                    commands.push_back((ledger.last_command(client(0)), step));
                }
                11..14 => {
                    live(step, &mut connection, now);
                    snapshots.push_back((included, connection.authorizations().clone()));
                }
                _ => {}
            }
            if at_once.is_empty() {
                break;
            }
            for _ in 0..commands.len().saturating_sub(lag) {
                let (number, step) = commands.pop_front().expect("as many");
                live(step, &mut connection, now);
                included = number;
                snapshots.push_back((included, connection.authorizations().clone()));
            }
            for _ in 0..snapshots.len().saturating_sub(lag / 2) {
                let (included, published) = snapshots.pop_front().expect("as many");
                ledger.record_authorizations(client(0), included, published, unix_now);
            }
            let of_record = record(&ledger).authorizations.grants();
            prop_assert_eq!(of_record, at_once.authorizations().grants());
            if commands.is_empty() && snapshots.is_empty() {
                prop_assert_eq!(&record(&ledger).authorizations, connection.authorizations());
            }
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
        let config = config();
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
        let record = ledger.client(client(0)).map(|record| record.authorizations.clone());
        let record = record.unwrap_or_default();
        prop_assert_eq!(&record, policy.authorizations());
        let rebuilt = Policy::restore(config, &record, UnixTime(0), now);
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
    match step.kind {
        0..5 => {
            let request = step.authorization();
            let is_known = policy.resources().next().is_some();
            if step.kind == 4 && step.access().tunnel.is_none() && !is_known {
                return;
            }
            let resource = request.resource.id;
            let refused = policy
                .allow(request.resource, request.expires_at, then, now)
                .err();
            let is_held = refused.is_none_or(AuthorizationError::leaves_it_granted);
            if let Some(announced) = request.announced.filter(|_| is_held) {
                let _ = policy.assign_proxies(resource, &announced, Announcer::Portal);
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
            let listed = entries.map(|it| (it.resource, it.expires_at)).collect();
            policy.reconcile(&listed, then, now);
        }
        8 => {
            policy.set_expiry(
                resource_id(step.resource),
                step.entry().expires_at,
                then,
                now,
            );
        }
        11..14 => {
            let (resource, announced, by) = step.name();
            let _ = policy.assign_proxies(resource, &announced, by);
        }
        _ => {}
    }
}
