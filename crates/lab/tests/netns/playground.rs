//! The playground itself: it connects what it should, leads nowhere else, and leaves nothing.

use postern_lab::playground::network::{
    CLIENT_V4, GATEWAY_V4, GATEWAY_V6, ROUTER_V4, WEB_V4, interface_bytes,
};
use postern_lab::playground::{Plan, Playground, Role};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

fn handle(playground: &Playground, role: Role) -> String {
    format!("/run/netns/{}", playground.namespace(role))
}

/// A datagram from the client to the gateway: who the gateway says sent it.
fn source_seen_by_gateway(playground: &Playground, to: IpAddr) -> IpAddr {
    let receiver = playground.enter(Role::Gateway, || Ok(UdpSocket::bind((to, 0))?));
    let receiver = receiver.expect("binds");
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let at = receiver.local_addr().expect("an address");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = playground
        .enter(Role::Client, || Ok(UdpSocket::bind(any)?))
        .expect("binds");
    sender.send_to(b"hello", at).expect("is sent");
    let (_, source) = receiver.recv_from(&mut [0; 16]).expect("arrives");
    source.ip()
}

#[test]
fn the_router_masquerades_ipv4_and_routes_ipv6() {
    let playground = Playground::new().expect("builds");
    let v4 = source_seen_by_gateway(&playground, GATEWAY_V4.into());
    assert_eq!(
        v4,
        IpAddr::from(ROUTER_V4),
        "the gateway must not see {CLIENT_V4}"
    );
    let v6 = source_seen_by_gateway(&playground, GATEWAY_V6.into());
    assert_eq!(v6, "fd50::2".parse::<IpAddr>().expect("an address"));
    let passed = interface_bytes(&playground, Role::Router, "wan0").expect("counters");
    assert!(passed.expect("an interface").sent > 0);
}

#[test]
fn without_a_tunnel_the_resource_is_out_of_reach() {
    let playground = Playground::new().expect("builds");
    let sent = playground.enter(Role::Client, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((WEB_V4, 80))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send(b"hello")?;
        Ok(socket.recv(&mut [0; 16]).err())
    });
    // The router knows no way there and says so, or the firewall stays silent.
    let error = sent.expect("is sent").expect("no answer");
    assert_ne!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "it arrived: {error}"
    );
}

#[test]
fn two_playgrounds_of_one_process_stand_side_by_side_and_both_go() {
    let (one, other) = (
        Playground::new().expect("builds"),
        Playground::new().expect("builds"),
    );
    let mut places = vec![one.directory().to_owned(), other.directory().to_owned()];
    for role in Role::ALL {
        places.push(handle(&one, role).into());
        places.push(handle(&other, role).into());
    }
    let held: std::collections::BTreeSet<_> = places.iter().collect();
    assert_eq!(held.len(), places.len());
    assert!(places.iter().all(|place| place.exists()));
    let mut idle = one.command(Role::Client, "sleep");
    idle.arg("600");
    let idle = one.spawn("idle", idle).expect("starts");
    let process = format!("/proc/{}", idle.pid());
    // As if its maker had died: nobody stops the program but the janitor.
    std::mem::forget(idle);
    drop((one, other));
    assert!(places.iter().all(|place| !place.exists()), "{places:?}");
    let state = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    assert!(
        !Path::new(&process).exists() || state.contains(") Z "),
        "{state}"
    );
}

#[test]
fn a_crowd_stands_behind_the_router_and_what_is_in_memory_goes_with_it() {
    let playground = Playground::planned(Plan {
        crowd: 2,
        memory: true,
        ..Plan::default()
    });
    let playground = playground.expect("builds");
    let memory = playground.memory().expect("asked for").to_owned();
    let system = nix::sys::statfs::statfs(&memory).expect("a file system");
    assert_eq!(system.filesystem_type(), nix::sys::statfs::TMPFS_MAGIC);
    std::fs::write(memory.join("secret"), "x").expect("written");
    let mut places = vec![memory];
    for role in playground.members() {
        places.push(handle(&playground, role).into());
        let sent = playground.enter(role, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"hello", (GATEWAY_V4, 9))?;
            Ok(())
        });
        sent.expect("a way to the internet");
    }
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|place| place.exists()), "{places:?}");
    drop(playground);
    assert!(places.iter().all(|place| !place.exists()), "{places:?}");
}
