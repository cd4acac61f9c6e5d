//! The steps about authorizations.

use super::*;

/// docs/lessons.md 32: The gateway says why something does not work.
#[test]
fn an_unauthorized_target_is_shown_with_held_resources() {
    let report = Scene::new("192.0.2.7:443").grant(wiki()).report();
    let verdict = "Nothing authorizes the client for 192.0.2.7; it holds \"Wiki\" (10.20.0.0/16).";
    assert_says(
        &report,
        verdict,
        "in the portal for a resource that covers the address",
    );
    assert_eq!(marks(&report), "✓✓✗----?");
}

#[test]
fn a_name_needs_a_dns_resource_even_if_its_address_is_in_a_network() {
    let report = Scene::new("wiki.example").grant(wiki()).report();
    assert_says(
        &report,
        &report.verdict,
        "DNS resource that covers the name",
    );
    assert_says(
        &report,
        &report.verdict,
        "A network that contains its address is not enough",
    );
}

#[test]
fn shortens_long_lists_of_held_resources() {
    let mut scene = Scene::new("192.0.2.7");
    for number in 1..=9 {
        let address = format!("10.{number}.0.0/16");
        scene.allow(network(number, "", &address, &[]), None);
    }
    let report = scene.report();
    assert!(
        report.verdict.contains("10.5.0.0/16, and 4 more."),
        "{}",
        report.verdict
    );
}

#[test]
fn an_expired_authorization_shows_its_date() {
    let ended = Scene::new("10.20.0.7").ended(wiki(), 300, GrantEnd::Expired);
    let verdict = "The authorization for \"Wiki\" (10.20.0.0/16) expired 5 min ago, \
                   at 2026-09-21 14:08:20 UTC.";
    let report = ended.report();
    assert_says(&report, verdict, "sign in again");
    assert_eq!(marks(&report), "✓✓✗----?");
    // The same before it is removed.
    let mut over = Scene::new("10.20.0.7");
    over.client.grants.push(Grant {
        resource: wiki(),
        expires_at: Some(UnixTime(NOW.0 - 300)),
    });
    assert_eq!(over.report().verdict, verdict);
}

#[test]
fn shows_a_revoked_authorization_of_a_client_that_left() {
    for end in [GrantEnd::Revoked, GrantEnd::Unlisted] {
        let scene = Scene::new("10.20.0.7").ended(wiki(), 4, end);
        let report = scene
            .with(|scene| scene.client.connection = Response::Absent)
            .report();
        let verdict = "The authorization for \"Wiki\" (10.20.0.0/16) was revoked 4 s ago, \
                       at 2026-09-21 14:13:16 UTC.";
        assert_says(&report, verdict, "restore the policy");
        assert_eq!(marks(&report), "✓-✗-----");
    }
}

#[test]
fn an_ended_grant_of_another_target_is_no_reason() {
    let other = network(2, "Shop", "10.30.0.0/16", &[]);
    let ssh = network(3, "Admin", "10.20.0.0/16", &[Filter::Tcp(22..=22)]);
    for ended in [other, ssh] {
        let scene = Scene::new("10.20.0.7:443").ended(ended, 4, GrantEnd::Revoked);
        assert!(scene.report().verdict.starts_with("Nothing authorizes"));
    }
}

#[test]
fn an_ended_authorization_goes_before_a_filter() {
    let ssh = network(3, "Admin", "10.20.0.0/16", &[Filter::Tcp(22..=22)]);
    let web = network(1, "Wiki", "10.20.0.0/16", &web_and_ping());
    let scene = Scene::new("10.20.0.7:22")
        .grant(web)
        .ended(ssh, 4, GrantEnd::Revoked);
    let report = scene.report();
    assert!(
        report
            .verdict
            .contains("for \"Admin\" (10.20.0.0/16) was revoked")
    );
}

#[test]
fn a_filter_shows_the_services_of_each_covering_resource() {
    let web = network(1, "Wiki", "10.20.0.0/16", &web_and_ping());
    let ssh = network(2, "Admin", "10.20.0.7/32", &[Filter::Tcp(22..=22)]);
    let report = Scene::new("10.20.0.7:udp/53")
        .grant(web)
        .grant(ssh)
        .report();
    let verdict = "udp 53 of 10.20.0.7 is filtered out: \"Admin\" (10.20.0.7/32) permits tcp 22, \
                   and \"Wiki\" (10.20.0.0/16) permits tcp 443, icmp.";
    assert_says(&report, verdict, "traffic filters");
    assert_eq!(marks(&report), "✓✓✓✗---?");
}

#[test]
fn a_port_that_only_one_protocol_may_use_is_permitted_with_a_note() {
    let web = network(1, "Wiki", "10.20.0.0/16", &web_and_ping());
    let scene = Scene::new("10.20.0.7:443").grant(web).replies(replied(3));
    let report = scene.report();
    assert_eq!(report.severity, Severity::Works);
    assert_eq!(report.notes, ["The filter does not permit udp 443."]);
    assert_eq!(step(&report, StepName::Filter), "permits tcp 443, icmp");
}

#[test]
fn an_authorization_shows_its_expiry() {
    let mut scene = Scene::new("10.20.0.7");
    scene.allow(wiki(), Some(UnixTime(NOW.0 + 3_900)));
    let until = "by \"Wiki\" (10.20.0.0/16), until 2026-09-21 15:18:20 UTC (for 1 h 5 min)";
    assert_eq!(step(&scene.report(), StepName::Authorization), until);
}

/// docs/lessons.md 35: Several egress addresses, closed private networks, many clients.
#[test]
fn private_addresses_stay_closed_beside_the_internet() {
    let internet = resource(9, "", ResourceKind::Internet, &[]);
    let report = Scene::new("10.20.0.7")
        .grant(wiki())
        .grant(internet)
        .report();
    let verdict = "10.20.0.7 is private, and the client holds the Internet, beside which no \
                   private network is reached.";
    assert_says(&report, verdict, "different sites");
}

#[test]
fn addresses_of_the_gateways_own_ranges_are_explained() {
    let verdict = |target| {
        let scene = Scene::new(target).grant(dns(1, "App", "app.example"));
        scene.report().verdict
    };
    assert!(verdict("100.64.0.9").contains("clients' and gateways' own addresses"));
    assert!(verdict("224.0.0.251").contains("multicast"));
    assert!(verdict("100.96.0.77").contains("stands in for a name"));
}

#[test]
fn the_gateways_own_address_is_open() {
    let report = Scene::new("100.64.0.1:53").replies(replied(1)).report();
    assert_eq!(marks(&report), "✓✓✓✓---✓");
}
