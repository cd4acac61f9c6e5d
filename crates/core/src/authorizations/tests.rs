//! The rules of names, which no other module has.

use super::testing::{Entitled, everything};
use super::*;
use uuid::Uuid;

fn id(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn ips(last: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
    last.into_iter()
        .map(|last| [100, 96, 0, last].into())
        .collect()
}

fn v6(last: u16) -> IpAddr {
    [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, last].into()
}

/// Each name with its proxy IPs and resources.
fn names(client: &Entitled) -> Vec<(&str, Vec<IpAddr>, Vec<u128>)> {
    let names = client.0.names().values().map(|it| {
        let resources = it.resources.keys().map(|id| id.0.as_u128());
        (it.name.as_str(), it.proxy_ips.clone(), resources.collect())
    });
    names.collect()
}

#[test]
fn an_announcement_replaces_the_earlier_one_of_its_family() {
    let mut client = Entitled::default();
    client.announce(1, "a.example", &[ips(1..=2), vec![v6(1)]].concat());
    client.announce(2, "A.example.", &ips(2..=3));
    let expected = [ips(2..=3), vec![v6(1)]].concat();
    assert_eq!(names(&client), [("a.example", expected, vec![1, 2])]);
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn a_proxy_ip_under_another_name_removes_the_former_name() {
    let mut client = Entitled::default();
    client.announce(1, "a.example", &[ips(1..=4), vec![v6(1)]].concat());
    client.announce(1, "b.example", &ips(5..=8));
    let told = client.announce(2, "c.example", &ips(4..=4));
    let told: Vec<_> = told
        .iter()
        .map(|it| (it.name.as_str(), it.proxied.is_some()))
        .collect();
    assert_eq!(told, [("a.example", false), ("c.example", true)]);
    let expected = [
        ("b.example", ips(5..=8), vec![1]),
        ("c.example", ips([4]), vec![2]),
    ];
    assert_eq!(names(&client), expected, "a name without conflict stays");
}

#[test]
fn a_name_goes_with_its_last_resource() {
    let mut client = Entitled::default();
    client.announce(1, "a.example", &ips(1..=4));
    client.announce(2, "a.example", &ips(1..=4));
    client.announce(1, "b.example", &ips(5..=5));
    let told = client.release(1);
    let told: Vec<_> = told
        .iter()
        .map(|it| (it.name.as_str(), it.proxied.is_some()))
        .collect();
    assert_eq!(told, [("a.example", true), ("b.example", false)]);
    assert_eq!(names(&client), [("a.example", ips(1..=4), vec![2])]);
    client.release(2);
    assert_eq!(client.0, Authorizations::default());
}

/// docs/lessons.md 16: Proxy IPs that a client chooses are checked first.
#[test]
fn a_refused_announcement_changes_nothing() {
    let mut client = Entitled::default();
    client.announce(1, "a.example", &ips(1..=4));
    let before = client.0.clone();
    let mut refused = |domain: &str, proxy_ips: Vec<IpAddr>| {
        let domain = domain.into();
        let announced = AnnouncedName { domain, proxy_ips };
        client.0.assign(id(1), &announced, Announcer::Client).err()
    };
    let not_covered = AuthorizationError::NameNotCovered { resource: id(1) };
    assert_eq!(refused("no name", ips([1])), Some(not_covered));
    assert_eq!(
        refused("b.example", vec![]),
        Some(AuthorizationError::NoProxyIps)
    );
    for ip in [[10, 20, 0, 1], [100, 95, 255, 255], [100, 128, 0, 0]].map(IpAddr::from) {
        let expected = AuthorizationError::NotProxyIp { ip };
        assert_eq!(refused("b.example", vec![ips([1])[0], ip]), Some(expected));
    }
    for number in 2..=64 {
        client.announce(number, "a.example", &ips(1..=4));
    }
    client.0.allow(everything(65), None, 100).expect("room");
    let announced = AnnouncedName {
        domain: "a.example".into(),
        proxy_ips: ips(1..=4),
    };
    let refused = client.0.assign(id(65), &announced, Announcer::Client).err();
    assert_eq!(refused, Some(AuthorizationError::TooManyResourcesOfName));
    (2..=65).for_each(|number| drop(client.release(number)));
    assert_eq!(client.0, before);
}

/// A client that has announced a name itself waits for its status, whoever announces it later.
#[test]
fn an_announcement_of_the_portal_does_not_silence_the_status() {
    let mut client = Entitled::default();
    let by = |client: &Entitled| {
        let name = client.0.names().values().next().expect("a name");
        name.resources[&id(1)].by
    };
    client.announce_by(Announcer::Portal, 1, "a.example", &ips([1]));
    assert_eq!(by(&client), Announcer::Portal);
    client.announce(1, "a.example", &ips([1]));
    client.announce_by(Announcer::Portal, 1, "a.example", &ips([2]));
    assert_eq!(by(&client), Announcer::Client);
}

#[test]
fn a_snapshot_shares_what_did_not_change() {
    let mut client = Entitled::default();
    client.announce(1, "a.example", &ips([1]));
    let snapshot = client.0.clone();
    assert!(client.0.update(&everything(1)));
    assert!(client.0.set_expiry(id(1), None));
    client.announce(1, "a.example", &ips([1]));
    assert!(Arc::ptr_eq(&snapshot.grants, &client.0.grants));
    assert!(Arc::ptr_eq(&snapshot.names, &client.0.names));
    client.announce(1, "b.example", &ips([2]));
    let kept =
        |it: &Authorizations| it.names["a.example".parse::<DomainName>().as_ref().unwrap()].clone();
    assert!(Arc::ptr_eq(&kept(&snapshot), &kept(&client.0)));
}
