//! Access that an authorized client has, and access that it does not have.

use crate::{LIMIT, Trial, WEB};
use nix::errno::Errno;
use postern_lab::playground::Role;
use postern_lab::playground::icmp::IcmpTap;
use postern_lab::playground::setup::{DENIED_PORT, WEB_PORT};
use postern_lab::playground::traffic::ping;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};

#[test]
fn a_page_comes_over_both_families_and_the_resource_sees_the_gateway() {
    let trial = Trial::start();
    for (address, gateway) in WEB.into_iter().zip(["10.20.0.1:", "[fd20::1]:"]) {
        let page = trial.expect_page(address);
        assert!(page.contains(&format!("came from {gateway}")), "{page}");
    }
}

#[test]
fn pings_are_answered_over_both_families() {
    let trial = Trial::start();
    for address in WEB {
        trial.expect_page(address);
        let pinged = ping(trial.playground(), Role::Client, address).expect("ping runs");
        assert_eq!(pinged.received, pinged.sent, "{address}");
    }
}

/// docs/lessons.md 19: a filtered packet is answered with "prohibited". IPv4 and IPv6 reach the
/// application as different errors (Linux: EHOSTUNREACH and EACCES), so the test checks the ICMP
/// message too.
#[test]
fn a_port_outside_the_policy_is_refused_with_icmp_prohibited() {
    let trial = Trial::start();
    for (address, errno) in WEB.into_iter().zip([Errno::EHOSTUNREACH, Errno::EACCES]) {
        trial.expect_page(address);
        let tap = IcmpTap::open(trial.playground(), Role::Client, address).expect("a tap");
        let connected = trial.playground().enter(Role::Client, || {
            Ok(TcpStream::connect_timeout(
                &(address, DENIED_PORT).into(),
                LIMIT,
            ))
        });
        let error = connected.expect("tried").expect_err("refused");
        assert_eq!(
            error.raw_os_error(),
            Some(errno as i32),
            "{address}: {error}"
        );
        let message = tap.wait_for(trial.playground(), address, DENIED_PORT, LIMIT);
        let message = message.expect("an ICMP error");
        assert!(message.is_prohibited(), "{message:?}");
    }
}

#[test]
fn a_large_download_comes_whole_and_in_order() {
    let trial = Trial::start();
    for address in WEB {
        let body = download(&trial, Role::Client, address, 8_000_000);
        assert_eq!(body.len(), 8_000_000, "{address}");
        let wrong = body
            .iter()
            .zip((0..251u8).cycle())
            .position(|(is, should)| *is != should);
        assert_eq!(wrong, None, "{address}");
    }
}

/// The body of a download with many bytes, as the web server sends it.
pub(crate) fn download(trial: &Trial, role: Role, address: IpAddr, bytes: usize) -> Vec<u8> {
    let answer = trial.playground().enter(role, || {
        let mut stream = TcpStream::connect_timeout(&(address, WEB_PORT).into(), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(format!("GET /bytes/{bytes} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    });
    let mut answer = answer.expect("downloads");
    let mut ends = answer.windows(4);
    let head = ends.position(|end| end == b"\r\n\r\n").expect("a head");
    answer.split_off(head + 4)
}
