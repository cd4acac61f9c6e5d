//! A changed configuration: exactly the differences are pushed.

use super::*;

/// Alice has "web" and "corp" through the gateway; all frames are consumed.
fn lab_with_grants() -> (Lab, PeerId, PeerId) {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.grant(alice, gateway, "web");
    lab.grant(alice, gateway, "corp");
    (lab, gateway, alice)
}

impl Lab {
    fn reload(&mut self, line: &str, replacement: &str) {
        assert!(CONFIG.contains(line), "{line}");
        let config = parse(&CONFIG.replacen(line, replacement, 1));
        self.hub.handle_config(config, self.now);
    }
}

const CORP_POLICY: &str = "[[policies]]\nclient = \"alice\"\nresource = \"corp\"\n";

#[test]
fn an_unchanged_file_says_nothing() {
    let (mut lab, _, _) = lab_with_grants();
    lab.hub.handle_config(parse(CONFIG), lab.now);
    assert_eq!(lab.events(), []);
}

#[test]
fn a_removed_policy_is_taken_from_the_gateway_first_and_then_from_the_client() {
    let (mut lab, gateway, alice) = lab_with_grants();
    lab.reload(CORP_POLICY, "");
    let said = lab.said();
    assert_eq!(said.len(), 2);
    assert_eq!(
        (said[0].0, said[0].1["event"].as_str()),
        (gateway, Some("reject_access"))
    );
    assert_eq!(
        said[0].1["payload"]["resource_id"],
        json!(id("resource", "corp"))
    );
    assert_eq!(
        (said[1].0, said[1].1["event"].as_str()),
        (alice, Some("resource_deleted"))
    );
    assert_eq!(
        said[1].1["payload"],
        json!(id("resource", "corp")),
        "a bare string"
    );
    assert_eq!(lab.list(), [("alice".to_owned(), "web".to_owned())]);
}

#[test]
fn a_request_on_its_way_is_refused_when_its_policy_goes() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "corp");
    let request = lab.only(gateway, "create_authorization");
    lab.reload(CORP_POLICY, "");
    let expected = [
        (gateway, "reject_access"),
        (alice, "authorization_creation_failed"),
        (alice, "resource_deleted"),
    ];
    assert_eq!(lab.events(), expected);
    lab.acknowledge(gateway, &request);
    assert_eq!(lab.events(), [(gateway, "phx_reply")], "nothing is given");
    assert_eq!(lab.list(), []);
}

#[test]
fn changed_filters_are_updated_in_place() {
    let (mut lab, gateway, alice) = lab_with_grants();
    lab.reload(
        "filters = [\"tcp/80\"]",
        "filters = [\"tcp/443\", \"icmp\"]",
    );
    let said = lab.said();
    assert_eq!(said.len(), 2);
    assert_eq!(
        (said[0].0, said[0].1["event"].as_str()),
        (gateway, Some("resource_updated"))
    );
    let expected = json!([
        {"protocol": "tcp", "port_range_start": 443, "port_range_end": 443},
        {"protocol": "icmp"},
    ]);
    assert_eq!(said[0].1["payload"]["filters"], expected);
    assert_eq!(
        (said[1].0, said[1].1["event"].as_str()),
        (alice, Some("resource_created_or_updated"))
    );
    assert_eq!(lab.list().len(), 2, "the grant stays");
}

#[test]
fn another_address_under_the_same_name_needs_a_new_grant() {
    let (mut lab, gateway, alice) = lab_with_grants();
    lab.reload("10.20.0.0/24", "10.30.0.0/24");
    let expected = [
        (gateway, "reject_access"),
        (alice, "resource_created_or_updated"),
    ];
    assert_eq!(lab.events(), expected);
}

#[test]
fn a_new_resource_is_announced_to_the_clients_that_may_reach_it() {
    let (mut lab, _, alice) = lab_with_grants();
    let bob = lab.join("/client/v2/websocket", "bob-token", OTHER_KEY);
    let added = format!(
        "[[resources]]\nname = \"new\"\ntype = \"cidr\"\naddress = \"10.40.0.0/24\"\n\
         site = \"lab\"\n{CORP_POLICY}[[policies]]\nclient = \"alice\"\nresource = \"new\"\n"
    );
    lab.reload(CORP_POLICY, &added);
    let announced = lab.only(alice, "resource_created_or_updated");
    assert_eq!(announced["name"], "new");
    assert_ne!(alice, bob);
}

#[test]
fn a_changed_lifetime_counts_from_when_the_grant_was_given() {
    let (mut lab, gateway, _) = lab_with_grants();
    lab.pass(Duration::from_secs(60));
    lab.reload("expires_in = \"1h\"", "expires_in = \"2h\"");
    let init = lab.only(gateway, "init");
    let listed = init["authorizations"].as_array().expect("a list").iter();
    let web = json!(id("resource", "web"));
    let expiries: Vec<_> = listed
        .filter(|it| it["resource_id"] == web)
        .map(|it| it["expires_at"].clone())
        .collect();
    assert_eq!(expiries, [json!(1_790_007_200)]);
    lab.reload("expires_in = \"1h\"", "expires_in = \"30s\"");
    let init = lab.only(gateway, "init");
    let listed = init["authorizations"].as_array().expect("a list");
    assert_eq!(
        listed.len(),
        1,
        "over already, so no longer listed and pruned"
    );
}

#[test]
fn devices_that_are_gone_or_have_another_token_are_expelled() {
    let (mut lab, gateway, alice) = lab_with_grants();
    lab.reload("token = \"gw-token\"", "token = \"another\"");
    assert_eq!(lab.events(), [(gateway, "disconnect"), (gateway, "CLOSE")]);
    let refused = lab.upgrade("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    assert_eq!(refused.expect_err("refused").code, "invalid_token");
    lab.hub.handle_text(gateway, "{}", lab.now);
    lab.hub
        .handle_config(parse(&CONFIG.replace("alice", "carol")), lab.now);
    let events = lab.events();
    assert_eq!(events[..2], [(alice, "disconnect"), (alice, "CLOSE")]);
    assert_eq!(lab.list(), []);
}

#[test]
fn a_removed_relay_is_named_and_the_others_are_sent_again() {
    let (mut lab, gateway, alice) = lab_with_grants();
    let before = parse(CONFIG).relays[0].id.to_string();
    lab.reload("\"203.0.113.1:3478\", ", "\"203.0.113.9:3478\", ");
    let said = lab.said();
    assert_eq!(said.len(), 2);
    for ((to, frame), expected) in said.iter().zip([gateway, alice]) {
        assert_eq!(
            (*to, frame["event"].as_str()),
            (expected, Some("relays_presence"))
        );
        assert_eq!(frame["payload"]["disconnected_ids"], json!([before]));
        assert_eq!(frame["payload"]["connected"][0]["addr"], "203.0.113.9:3478");
    }
}

#[test]
fn changed_tunnel_addresses_reach_their_devices() {
    let (mut lab, gateway, alice) = lab_with_grants();
    lab.reload("ipv4 = \"100.64.0.1\"", "ipv4 = \"100.64.0.9\"");
    assert_eq!(lab.only(gateway, "init")["interface"]["ipv4"], "100.64.0.9");
    lab.hub.handle_config(parse(CONFIG), lab.now);
    lab.said();
    lab.reload("ipv4 = \"100.64.1.2\"", "ipv4 = \"100.64.1.9\"");
    let expected = [
        (gateway, "reject_access"),
        (gateway, "reject_access"),
        (alice, "config_changed"),
    ];
    assert_eq!(lab.events(), expected);
}
