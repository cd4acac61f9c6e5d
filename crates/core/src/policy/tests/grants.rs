//! Grants and their ends: docs/protocol.md 5.1.

use super::*;

#[test]
fn granting_again_updates_filters_and_expiry() {
    let mut scene = Scene::with([]);
    scene
        .allow(cidr(1, "10.20.0.0/16", &[]), Some(10))
        .expect("room");
    let web = [Filter::Tcp(80..=80)];
    scene
        .allow(cidr(1, "10.20.0.0/16", &web), Some(20))
        .expect("held");
    assert_eq!(scene.send("10.20.0.1", to_port(22)), PROHIBITED);
    assert_eq!(
        scene.policy.poll_timeout(),
        Some(scene.now + Duration::from_secs(20))
    );
    scene
        .allow(cidr(1, "10.20.9.9/16", &web), None)
        .expect("the same network");
    assert_eq!(scene.policy.poll_timeout(), None);
    assert_eq!(scene.policy.resources().count(), 1);
}

#[test]
fn granting_again_with_another_kind_is_refused_without_effect() {
    let mut scene = Scene::with([cidr(1, "10.20.0.0/16", &[Filter::Tcp(80..=80)])]);
    let refused = Err(AuthorizationError::KindChanged { resource: id(1) });
    for other in [
        cidr(1, "10.20.0.0/17", &[]),
        dns(1, "app.example.com", &[]),
        internet(1),
    ] {
        assert_eq!(scene.allow(other, Some(5)), refused);
    }
    assert_eq!(scene.policy.poll_timeout(), None);
    assert_eq!(scene.send("10.20.0.1", to_port(22)), PROHIBITED);
    scene.revoke(1);
    assert_eq!(scene.allow(dns(1, "app.example.com", &[]), None), Ok(()));
}

#[test]
fn beyond_the_limit_only_held_resources_are_granted() {
    let mut scene = Scene::with((1..=4).map(internet));
    let refused = Err(AuthorizationError::TooManyResources { limit: 4 });
    assert_eq!(scene.allow(internet(5), None), refused);
    assert_eq!(scene.allow(internet(4), Some(1)), Ok(()));
    scene.revoke(1);
    assert_eq!(scene.allow(internet(5), None), Ok(()));
}

#[test]
fn a_lower_limit_keeps_held_resources() {
    let mut scene = Scene::with((1..=4).map(internet));
    scene.policy.limit_resources(1);
    let refused = Err(AuthorizationError::TooManyResources { limit: 1 });
    assert_eq!(scene.allow(internet(5), None), refused);
    assert_eq!(scene.policy.resources().count(), 4);
    for number in 1..=4 {
        scene.revoke(number);
    }
    assert_eq!(scene.ended().len(), 4);
    scene.policy.limit_resources(2);
    assert_eq!(scene.allow(internet(1), None), Ok(()));
    assert_eq!(scene.allow(internet(2), None), Ok(()));
}

#[test]
fn filters_expire_individually() {
    let mut scene = Scene::with([]);
    let port = |port: u16| [Filter::Tcp(port..=port)];
    scene
        .allow(cidr(1, "10.20.0.0/16", &port(80)), Some(10))
        .expect("room");
    scene
        .allow(cidr(2, "10.20.0.0/16", &port(443)), Some(20))
        .expect("room");
    assert_eq!(scene.tick_at(9), []);
    assert_eq!(scene.send("10.20.0.1", to_port(80)), PASS);
    assert_eq!(scene.tick_at(10), [expired(1)]);
    assert_eq!(scene.send("10.20.0.1", to_port(80)), PROHIBITED);
    assert_eq!(scene.receive("10.20.0.1", from_port(80)), RETURN_REFUSED);
    assert_eq!(scene.send("10.20.0.1", to_port(443)), PASS);
    assert!(!scene.policy.is_empty());
    assert_eq!(scene.tick_at(20), [expired(2)]);
    assert!(scene.policy.is_empty());
    assert_eq!(scene.policy.poll_timeout(), None);
}

#[test]
fn a_past_expiry_is_removed_at_the_next_tick() {
    let mut scene = Scene::with([]);
    let past = Some(UnixTime(EPOCH.0 - 100));
    let (now, resource) = (scene.now, cidr(1, "10.20.0.0/16", &[]));
    scene
        .policy
        .allow(resource, past, EPOCH, now)
        .expect("room");
    assert_eq!(scene.policy.poll_timeout(), Some(now));
    assert_eq!(scene.tick_at(0), [expired(1)]);
    assert!(scene.policy.is_empty());
}

#[test]
fn the_latest_possible_expiry_never_comes() {
    let mut scene = Scene::with([]);
    let (now, resource) = (scene.now, cidr(1, "10.20.0.0/16", &[]));
    let never = Some(UnixTime(u64::MAX));
    scene
        .policy
        .allow(resource, never, EPOCH, now)
        .expect("room");
    assert_eq!(scene.policy.poll_timeout(), None);
}

#[test]
fn treats_a_clock_that_goes_back_as_stopped() {
    let mut scene = Scene::with([]);
    scene
        .allow(cidr(1, "10.20.0.0/16", &[]), Some(10))
        .expect("room");
    assert_eq!(scene.tick_at(8), []);
    let (earlier, in_ten) = (scene.now, Some(UnixTime(EPOCH.0 + 10)));
    scene.policy.set_expiry(id(1), in_ten, EPOCH, earlier);
    assert_eq!(
        scene.policy.poll_timeout(),
        Some(scene.now + Duration::from_secs(18))
    );
}

#[test]
fn revoking_takes_effect_immediately_and_is_reported_once() {
    let mut scene = Scene::with([cidr(1, "10.20.0.0/16", &[]), cidr(2, "10.30.0.0/16", &[])]);
    scene.revoke(1);
    scene.revoke(1);
    assert_eq!(scene.ended(), [(id(1), GrantEnd::Revoked)]);
    assert_eq!(scene.send("10.20.0.1", PING), PROHIBITED);
    assert_eq!(scene.send("10.30.0.1", PING), PASS);
}

/// docs/lessons.md 18: NAT set-up is keyed by resource and accepts any order.
#[test]
fn filters_change_after_set_up() {
    let mut scene = Scene::with([
        cidr(1, "10.20.0.0/16", &[Filter::Tcp(80..=80)]),
        dns(2, "app.example.com", &[]),
    ]);
    scene.assign(2, &[PROXY]).expect("valid");
    // The address in the update is ignored (docs/protocol.md 2.2); the filters apply.
    assert!(
        scene
            .policy
            .update_filters(&cidr(1, "10.99.0.0/16", &[Filter::Tcp(22..=22)]))
    );
    assert_eq!(scene.send("10.20.0.1", to_port(80)), PROHIBITED);
    assert_eq!(scene.send("10.20.0.1", to_port(22)), PASS);
    assert_eq!(scene.send("10.99.0.1", to_port(22)), PROHIBITED);
    assert!(
        scene
            .policy
            .update_filters(&dns(2, "app.example.com", &[Filter::Icmp]))
    );
    assert_eq!(scene.send(PROXY, to_port(443)), PROHIBITED);
    assert_eq!(scene.send(PROXY, PING), TRANSLATE);
}

#[test]
fn an_update_to_another_type_or_of_an_unknown_resource_is_ignored() {
    let mut scene = Scene::with([cidr(1, "10.20.0.0/16", &[Filter::Tcp(80..=80)])]);
    assert!(!scene.policy.update_filters(&dns(1, "app.example.com", &[])));
    assert!(!scene.policy.update_filters(&cidr(2, "10.20.0.0/16", &[])));
    assert_eq!(scene.send("10.20.0.1", to_port(22)), PROHIBITED);
}

/// docs/lessons.md 23: Authorizations are reconciled on every `init`.
#[test]
fn reconciling_revokes_absent_resources_and_updates_expiry() {
    let mut scene = Scene::with([
        cidr(1, "10.10.0.0/16", &[]),
        cidr(2, "10.20.0.0/16", &[]),
        dns(3, "app.example.com", &[]),
    ]);
    scene.assign(3, &[PROXY]).expect("valid");
    let granted = [(id(2), Some(UnixTime(EPOCH.0 + 30))), (id(7), None)];
    scene.reconcile(&granted);
    let unlisted = |number| (id(number), GrantEnd::Unlisted);
    assert_eq!(scene.ended(), [unlisted(1), unlisted(3)]);
    let held: Vec<_> = scene
        .policy
        .resources()
        .map(|resource| resource.id)
        .collect();
    assert_eq!(held, [id(2)], "what was not held is not created");
    assert_eq!(
        scene.policy.poll_timeout(),
        Some(scene.now + Duration::from_secs(30))
    );
    assert_eq!(scene.send("10.10.0.1", PING), PROHIBITED);
    assert_eq!(scene.send(PROXY, PING), PROHIBITED);
    scene.reconcile(&[(id(2), None)]);
    assert_eq!(scene.policy.poll_timeout(), None);
    assert_eq!(scene.ended(), []);
    scene.reconcile(&[]);
    assert!(scene.policy.is_empty());
}
