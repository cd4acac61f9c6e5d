//! The commands of the control socket.

use super::*;

#[test]
fn rejecting_access_takes_the_grant_back() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.grant(alice, gateway, "web");
    let command = json!({"op": "reject_access", "client": "alice", "resource": "web"});
    lab.command(command.clone()).expect("done");
    let expected =
        json!({"client_id": id("client", "alice"), "resource_id": id("resource", "web")});
    assert_eq!(lab.only(gateway, "reject_access"), expected);
    assert_eq!(lab.list(), []);
    lab.command(command).expect("done");
    assert_eq!(
        lab.only(gateway, "reject_access"),
        expected,
        "also without a grant"
    );
}

#[test]
fn a_new_expiry_reaches_both_generations() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.grant(alice, gateway, "web");
    let set = |seconds: u64| {
        json!({"op": "set_expiry", "client": "alice", "resource": "web",
               "expires_in_seconds": seconds})
    };
    lab.command(set(5)).expect("done");
    let init = lab.only(gateway, "init");
    assert_eq!(init["authorizations"][0]["expires_at"], 1_790_000_005);

    let gateway = lab.connect("/gateway/websocket", "gw-token", GATEWAY_KEY);
    lab.say(gateway, "gateway", "phx_join", Value::Null);
    lab.said();
    let never = json!({"op": "set_expiry", "client": "alice", "resource": "web"});
    lab.command(never).expect("done");
    let update = lab.only(gateway, "access_authorization_expiry_updated");
    assert_eq!(update["expires_at"], Value::Null);
    lab.command(set(0)).expect("done");
    lab.only(gateway, "reject_access");
    assert_eq!(
        lab.command(set(5)),
        Err("there is no such grant".to_owned())
    );
}

#[test]
fn measurements_are_taken_between_writing_and_reading() {
    let mut lab = Lab::new();
    let gateway = lab.gateway();
    let measurement = SetUpMeasurement {
        resource: "web".to_owned(),
        count: 2,
        generation: SetUpSignalling::V2,
    };
    let mut ids = BTreeSet::new();
    for index in 0..2 {
        let ticket = lab.hub.measure(&measurement, index, lab.now);
        let ticket = ticket.expect("asked");
        let Some(Output::Send { text, grant, .. }) = lab.hub.poll_output() else {
            panic!("nothing sent");
        };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(grant.as_deref(), frame["payload"]["ref"].as_str());
        ids.insert(frame["payload"]["client"]["id"].to_string());
        lab.pass(Duration::from_millis(5));
        lab.hub
            .handle_sent(&grant.expect("measured"), lab.now.instant);
        lab.pass(Duration::from_micros(750));
        lab.acknowledge(gateway, &frame["payload"]);
        let outputs: Vec<_> = std::iter::from_fn(|| lab.hub.poll_output()).collect();
        assert!(matches!(&outputs[0], Output::Send { text, .. } if text.contains("reject_access")));
        let result = Ok(750);
        assert_eq!(outputs[1], Output::Settled { ticket, result });
    }
    assert_eq!(ids.len(), 2);
    assert_eq!(lab.list(), []);
    assert_eq!(lab.answer("ack_times")["ack_times"][1]["micros"], 750);
}

#[test]
fn an_external_client_is_admitted_and_not_recorded() {
    let mut lab = Lab::new();
    let gateway = lab.gateway();
    let admit = json!({"op": "admit", "client": "guest", "public_key": OTHER_KEY, "number": 6,
        "resource": "web"});
    let CommandOutcome { answer, ticket } = lab.command(admit).expect("asked");
    let grant = &answer["grant"];
    let request = lab.only(gateway, "create_authorization");
    assert_eq!(request["client"]["public_key"], OTHER_KEY);
    assert_eq!(request["client"]["ipv4"], "100.95.0.7");
    assert_eq!(request["client"]["preshared_key"], grant["preshared_key"]);
    assert_eq!(
        request["gateway_ice_credentials"],
        grant["gateway_ice_credentials"]
    );
    assert_eq!(request["resource"]["id"], grant["resource_id"]);
    lab.acknowledge(gateway, &request);
    let outputs: Vec<_> = std::iter::from_fn(|| lab.hub.poll_output()).collect();
    let settled = |it: &Output| {
        let Output::Settled { ticket: of, result } = it else {
            return false;
        };
        Some(*of) == ticket && result.is_ok()
    };
    assert!(outputs.iter().any(settled), "{outputs:?}");
    let rejects =
        |it: &Output| matches!(it, Output::Send { text, .. } if text.contains("reject_access"));
    assert!(!outputs.iter().any(rejects), "{outputs:?}");
    assert_eq!(lab.list(), []);
}

#[test]
fn measurements_in_generation_0_announce_a_name_of_their_own() {
    let mut lab = Lab::new();
    let gateway = lab.gateway();
    let measurement = json!({"resource": "corp", "count": 2, "generation": "v0"});
    let measurement: SetUpMeasurement = serde_json::from_value(measurement).expect("valid");
    let mut names = BTreeSet::new();
    for index in 0..2 {
        let ticket = lab.hub.measure(&measurement, index, lab.now);
        let ticket = ticket.expect("asked");
        let Some(Output::Send { text, grant, .. }) = lab.hub.poll_output() else {
            panic!("nothing sent");
        };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(frame["event"], "request_connection");
        let domain = &frame["payload"]["client"]["payload"]["domain"];
        assert_eq!(domain["proxy_ips"].as_array().map(Vec::len), Some(8));
        let name = domain["name"].as_str().expect("a name").to_owned();
        assert!(name.ends_with(".corp.example"), "{name}");
        names.insert(name);
        lab.hub
            .handle_sent(&grant.expect("measured"), lab.now.instant);
        lab.pass(Duration::from_micros(500));
        let ready = json!({"ref": frame["payload"]["ref"], "gateway_payload":
            {"ConnectionAccepted": {"ice_parameters": {"username": "u", "password": "p"}}}});
        lab.say(gateway, "gateway", "connection_ready", ready);
        let outputs: Vec<_> = std::iter::from_fn(|| lab.hub.poll_output()).collect();
        assert!(matches!(&outputs[0], Output::Send { text, .. } if text.contains("reject_access")));
        let result = Ok(500);
        assert_eq!(outputs[1], Output::Settled { ticket, result });
    }
    assert_eq!(names.len(), 2);
}

#[test]
fn a_repeated_authorization_is_sent_for_an_existing_grant_only() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    let repeat = json!({"op": "repeat_authorization", "client": "alice", "resource": "web"});
    assert_eq!(
        lab.command(repeat.clone()),
        Err("there is no such grant".to_owned())
    );
    lab.grant(alice, gateway, "web");
    let ticket = lab.command(repeat).expect("asked").ticket;
    let ticket = ticket.expect("a ticket");
    let request = lab.only(gateway, "create_authorization");
    lab.acknowledge(gateway, &request);
    let result = Ok(0);
    assert_eq!(
        lab.hub.poll_output(),
        Some(Output::Settled { ticket, result })
    );
    assert_eq!(
        lab.events(),
        [(gateway, "phx_reply")],
        "the client is not told"
    );
}

#[test]
fn hostile_frames_can_be_pushed() {
    let mut lab = Lab::new();
    let gateway = lab.gateway();
    let nonsense = json!({"topic": "gateway", "event": "nonsense", "payload": [1]}).to_string();
    let text = json!({"op": "push_text", "peer": "gw", "text": nonsense});
    lab.command(text).expect("done");
    assert_eq!(lab.only(gateway, "nonsense"), json!([1]));
    let text = json!({"op": "push_text", "peer": "gw", "text": "{broken"});
    lab.command(text).expect("done");
    let Some(Output::Send { text, .. }) = lab.hub.poll_output() else {
        panic!("nothing sent");
    };
    assert_eq!(text, "{broken");
    lab.command(json!({"op": "init_again", "gateway": "gw"}))
        .expect("done");
    lab.only(gateway, "init");
    lab.command(json!({"op": "close", "peer": "gw"}))
        .expect("done");
    assert_eq!(lab.events(), [(gateway, "CLOSE")]);
    let missing = lab.command(json!({"op": "init_again", "gateway": "gw"}));
    assert_eq!(missing, Err("nobody named \"gw\" is connected".to_owned()));
}
