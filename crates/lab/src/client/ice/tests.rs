//! The agent against another ICE stack, and candidate strings in both directions.

use super::super::clock::now;
use super::super::tests::{GatewayCommand, TestGateway, client_credentials, gateway_credentials};
use super::*;
use proptest::prelude::*;

pub(in super::super) fn loopback_settings() -> Settings {
    Settings {
        check_interval: Duration::from_millis(20),
        interfaces: vec!["lo".into()],
        tunnel_interface: "pclient0".into(),
        stun_servers: Vec::new(),
        include_loopback: true,
    }
}

/// Two independent ICE stacks must agree: the main risk of this client.
#[tokio::test]
async fn connects_to_a_controlled_agent_of_another_stack() {
    let gateway = TestGateway::start("127.0.0.1", [1; 32]).await;
    let mut agent = IceAgent::new(&loopback_settings(), &client_credentials())
        .await
        .expect("starts");
    agent.add_remote_candidate(&gateway.candidate).expect("ok");
    let dialer = agent.dialer();
    let dial = dialer.clone().dial(gateway_credentials());
    let deadline = tokio::time::sleep(Duration::from_secs(10));
    tokio::pin!(dial, deadline);
    loop {
        tokio::select! {
            path = &mut dial => {
                path.expect("connects");
                break;
            }
            event = agent.next_event() => if let IceEvent::Candidate(candidate) = event {
                gateway.commands.send(GatewayCommand::Candidate(candidate)).expect("runs");
            },
            () = &mut deadline => panic!("no path"),
        }
    }
    let remote = dialer.nominated().map(|(_, remote)| remote);
    assert_eq!(remote, Some(gateway.addr));
    dialer.close().await;
}

/// IPv6 uses other code of the library: peer-reflexive candidates, sockets, candidate strings.
#[tokio::test]
async fn connects_over_ipv6_before_the_gateway_knows_any_candidate() {
    let gateway = TestGateway::start("::1", [1; 32]).await;
    let agent = IceAgent::new(&loopback_settings(), &client_credentials())
        .await
        .expect("starts");
    agent.add_remote_candidate(&gateway.candidate).expect("ok");
    let dialer = agent.dialer();
    let dial = dialer.clone().dial(gateway_credentials());
    let path = tokio::time::timeout(Duration::from_secs(10), dial).await;
    path.expect("in time").expect("connects");
    let remote = dialer.nominated().map(|(_, remote)| remote);
    assert_eq!(remote, Some(gateway.addr));
    dialer.close().await;
}

/// The agent must reach a gateway that answers late (a slow link, a busy portal): with the
/// library's defaults it would abandon the pair after 7 checks.
#[tokio::test]
async fn keeps_checking_a_pair_for_more_than_a_few_ticks() {
    let gateway = TestGateway::start("127.0.0.1", [1; 32]).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let candidate = gateway.candidate.replace(
        &format!(" {} typ", gateway.addr.port()),
        &format!(" {} typ", silent.local_addr().expect("bound").port()),
    );
    let agent = IceAgent::new(&loopback_settings(), &client_credentials())
        .await
        .expect("starts");
    agent.add_remote_candidate(&candidate).expect("ok");
    let dialing = tokio::spawn(agent.dialer().dial(gateway_credentials()));
    let mut buffer = [0; 2048];
    let mut first_pair = None;
    let started = now();
    let mut checks = 0;
    while checks < 20 {
        let (_, source) = silent.recv_from(&mut buffer).await.expect("a check");
        checks += u32::from(*first_pair.get_or_insert(source) == source);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    dialing.abort();
    agent.dialer().close().await;
}

#[tokio::test]
async fn writes_host_candidates_in_the_form_of_the_protocol() {
    let mut agent = IceAgent::new(&loopback_settings(), &client_credentials())
        .await
        .expect("starts");
    let IceEvent::Candidate(candidate) = agent.next_event().await else {
        panic!("no candidate");
    };
    let fields: Vec<&str> = candidate.split(' ').collect();
    assert!(fields[0].starts_with("candidate:") && fields[0].len() > "candidate:".len());
    assert_eq!(fields[1..3], ["1", "udp"]);
    assert!(fields[3].parse::<u32>().is_ok());
    assert!(fields[4].parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
    assert!(fields[5].parse::<u16>().is_ok_and(|port| port != 0));
    assert_eq!(fields[6..], ["typ", "host", "ufrag", "eokn"]);
    agent.dialer().close().await;
}

#[test]
fn uses_only_configured_interfaces_and_never_the_tunnel() {
    let mut settings = loopback_settings();
    settings.interfaces = Vec::new();
    let filter = interface_filter(&settings);
    assert!(filter("eth0") && !filter("pclient0"));
    settings.interfaces = vec!["eth1".into(), "wl*".into(), "pclient0".into()];
    let filter = interface_filter(&settings);
    assert!(filter("eth1") && filter("wlan0"));
    assert!(!filter("eth0") && !filter("eth10") && !filter("pclient0"));
}

#[test]
fn never_offers_loopback_or_link_local_addresses() {
    let mut settings = loopback_settings();
    settings.include_loopback = false;
    let filter = ip_filter(&settings);
    let allows = |ip: &str| filter(ip.parse().expect("an address"));
    assert!(allows("192.0.2.1") && allows("2001:db8::1") && allows("fd00::1"));
    assert!(!allows("127.0.0.1") && !allows("::1"));
    assert!(!allows("169.254.1.1") && !allows("fe80::1"));
}

#[test]
fn reads_candidates_of_gateways() {
    let read = |text| parse_candidate(text).expect("usable");
    // The recorded gateway's, a relayed one, one over IPv6, and one of another stack.
    let host = read(
        "candidate:fffeff7eed95ef33ea97091a 1 udp 2130706175 10.50.2.2 52625 typ host ufrag abbi",
    );
    assert_eq!(host.addr(), "10.50.2.2:52625".parse().expect("valid"));
    assert_eq!(host.priority(), 2_130_706_175);
    assert_eq!(host.candidate_type(), CandidateType::Host);
    let relay = read(
        "candidate:fffe3f02854b948871f718e5 1 udp 37748479 10.50.9.1 54569 typ relay raddr 0.0.0.0 \
         rport 0 ufrag abbi",
    );
    assert_eq!(relay.candidate_type(), CandidateType::Relay);
    let v6 = read("candidate:1 1 UDP 2130706431 2001:db8::5 52625 typ host ufrag 6m26");
    assert_eq!(v6.network_type(), NetworkType::Udp6);
    let srflx = read(
        "candidate:1 1 udp 1686109951 192.0.2.9 40000 typ srflx raddr 0.0.0.0 rport 0 generation 0",
    );
    assert_eq!(srflx.candidate_type(), CandidateType::ServerReflexive);
}

#[test]
fn refuses_each_malformed_candidate() {
    for text in [
        "",
        "1 1 udp 1 192.0.2.1 1 typ host",
        "candidate:1 1 udp high 192.0.2.1 1 typ host",
        "candidate:1 1 tcp 1 192.0.2.1 1 typ host tcptype active",
        "candidate:1 2 udp 1 192.0.2.1 1 typ host",
        "candidate:1 1 udp 1 4b4f7c3e.local 1 typ host",
        "candidate:1 1 udp 1 192.0.2.1 0 typ host",
        "candidate:1 1 udp 1 192.0.2.1 65536 typ host",
        "candidate:1 1 udp 1 192.0.2.1 1 typ alien",
        "candidate:1 1 udp 1 192.0.2.1 1 type host",
    ] {
        assert!(parse_candidate(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn refuses_credentials_that_are_too_short() {
    let short = IceCredentials {
        username: "ab".into(),
        password: "short".into(),
    };
    assert!(IceAgent::new(&loopback_settings(), &short).await.is_err());
}

#[test]
fn urls_of_stun_servers_keep_brackets_around_ipv6() {
    let url = stun_url(&"[2001:db8::1]:3478".parse().expect("valid"));
    assert_eq!((url.host.as_str(), url.port), ("[2001:db8::1]", 3478));
    let url = stun_url(&"203.0.113.1:3478".parse().expect("valid"));
    assert_eq!(url.host, "203.0.113.1");
}

proptest! {
    #[test]
    fn arbitrary_candidates_never_panic(text in "(candidate:)?[a-z0-9:. ]{0,80}") {
        let _ = parse_candidate(&text);
    }

    /// The client reads what the other stack writes.
    #[test]
    fn reads_candidates_of_the_other_stack(ip in any::<[u8; 4]>(), port in 1u16..) {
        let addr = SocketAddr::from((ip, port));
        if let Ok(mut written) = is::Candidate::host(addr, "udp") {
            written.set_ufrag("6m26");
            let read = parse_candidate(&written.to_sdp_string()).expect("usable");
            prop_assert_eq!(read.addr(), addr);
            prop_assert_eq!(read.priority(), written.prio());
        }
    }
}

/// A STUN server that reports a wrong address.
async fn stun_server(mapped: SocketAddr) -> SocketAddr {
    use stun::message::{BINDING_SUCCESS, Message};
    use stun::xoraddr::XorMappedAddress;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let addr = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (len, source) = socket.recv_from(&mut buffer).await.expect("receives");
            let mut request = Message::new();
            request.raw = buffer[..len].to_vec();
            request.decode().expect("a STUN message");
            let (ip, port) = (mapped.ip(), mapped.port());
            let mut answer = Message::new();
            answer
                .build(&[
                    Box::new(BINDING_SUCCESS),
                    Box::new(request.transaction_id),
                    Box::new(XorMappedAddress { ip, port }),
                ])
                .expect("builds");
            socket.send_to(&answer.raw, source).await.expect("sends");
        }
    });
    addr
}

#[tokio::test]
async fn signals_the_server_reflexive_address_and_hides_the_base() {
    let mapped = "198.51.100.7:40000".parse().expect("valid");
    let mut settings = loopback_settings();
    settings.stun_servers = vec![stun_server(mapped).await];
    let mut agent = IceAgent::new(&settings, &client_credentials())
        .await
        .expect("starts");
    let deadline = tokio::time::sleep(Duration::from_secs(10));
    tokio::pin!(deadline);
    let reflexive = loop {
        tokio::select! {
            event = agent.next_event() => {
                if let IceEvent::Candidate(text) = event && text.contains("srflx") {
                    break text;
                }
            }
            () = &mut deadline => panic!("no server-reflexive candidate"),
        }
    };
    let (_, tail) = reflexive.split_once(" udp ").expect("UDP");
    let (_, tail) = tail.split_once(' ').expect("a priority");
    assert_eq!(
        tail,
        "198.51.100.7 40000 typ srflx raddr 0.0.0.0 rport 0 ufrag eokn"
    );
    agent.dialer().close().await;
}
