//! `postern-bench udp-load`: UDP at a given rate from one end to the other, counted at the other.
//!
//! A server at the resource counts what is sent to it, or sends what it is asked for; a client puts
//! on one load and prints what arrived as one line of JSON. Refuses to guess: a load whose end was
//! never told is an error.

mod batch;
mod tally;
mod wire;

use anyhow::{Context, Result, anyhow, ensure};
use batch::Receiver;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tally::Tally;
use tokio::time::Instant;
use wire::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Plan};

/// `postern-bench udp-load`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Serve at this address until killed.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "to")]
    serve: Option<SocketAddr>,
    /// Put a load on the way to the server at this address.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "serve")]
    to: Option<SocketAddr>,
    /// The load goes from the server to here.
    #[arg(long)]
    reverse: bool,
    /// Payload of each datagram.
    #[arg(long, default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(24..=i64::from(PAYLOAD_BYTES_MAX)))]
    bytes: u16,
    /// Datagrams per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// How long.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    millis: u32,
    /// Datagrams are handed to the kernel and taken from it in groups of up to 16, as QUIC does.
    #[arg(long)]
    grouped: bool,
}

/// What became of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived after one with a higher number.
    pub reordered: u32,
    /// How long sending took.
    pub millis: u32,
}

/// Serves until it is killed, or puts on one load.
///
/// # Errors
/// The address cannot be used, or the other end does not answer.
pub fn run(args: &Args) -> Result<()> {
    if let Some(address) = args.serve {
        return serve(&bind(address)?);
    }
    let to = args.to.context("neither --serve nor --to")?;
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = bind((any, 0).into())?;
    socket.connect(to)?;
    let plan = Plan {
        payload_bytes: args.bytes,
        per_second: args.rate,
        millis: args.millis,
        is_grouped: args.grouped,
    };
    let flow = getrandom::u32().map_err(|error| anyhow!("no randomness: {error}"))?;
    let outcome = match args.reverse {
        false => upload(&socket, flow, plan)?,
        true => download(&socket, flow, plan)?,
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}

/// With room for a burst, or the receiver itself would be the bottleneck.
fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    // Refused without CAP_NET_ADMIN: then it loses more.
    let _smaller = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
    Ok(socket)
}

fn serve(socket: &UdpSocket) -> Result<()> {
    let mut receiver = Receiver::new(false);
    let mut tallies: BTreeMap<u32, Tally> = BTreeMap::new();
    let mut served = None;
    loop {
        let mut asked = Vec::new();
        receiver.receive(socket, FOREVER, |bytes, from| {
            let Some(header) = Header::read(bytes) else {
                return;
            };
            match header.kind {
                Kind::Data => tallies.entry(header.flow).or_default().note(header.number),
                Kind::Query | Kind::Group => asked.push((header, None, from)),
                Kind::Request => {
                    asked.push((header, Plan::read(&bytes[HEADER_BYTES..]), from));
                }
                Kind::End | Kind::Report => {}
            }
        })?;
        for (header, plan, from) in asked {
            let Some(from) = from else {
                continue;
            };
            if header.kind == Kind::Group {
                receiver = gathering(socket, header.number == 1)?;
            }
            match plan {
                None => report(socket, &mut tallies, header.flow, from)?,
                // A request is repeated until the load begins.
                Some(plan) if served != Some(header.flow) => {
                    served = Some(header.flow);
                    give(socket, header.flow, plan, from)?;
                }
                Some(_) => {}
            }
        }
    }
}

/// Takes what arrives in groups from now on, or singly.
fn gathering(socket: &UdpSocket, is_grouped: bool) -> Result<Receiver> {
    setsockopt(socket, sockopt::UdpGroSegment, &is_grouped)?;
    Ok(Receiver::new(is_grouped))
}

fn report(
    socket: &UdpSocket,
    tallies: &mut BTreeMap<u32, Tally>,
    flow: u32,
    to: SocketAddr,
) -> Result<()> {
    let tally = tallies.get(&flow).copied().unwrap_or_default();
    // What was not asked about for so long never will be.
    if tallies.len() > TALLIES_MAX {
        tallies.retain(|it, _| *it == flow);
    }
    let header = Header {
        reordered: tally.reordered,
        ..Header::new(Kind::Report, flow, tally.received)
    };
    // Lost like any datagram: then it is asked for again.
    let _lost = socket.send_to(&header.bytes(), to);
    Ok(())
}

fn give(socket: &UdpSocket, flow: u32, plan: Plan, to: SocketAddr) -> Result<()> {
    let sent = batch::send(socket, Some(to.into()), flow, plan)?;
    for _ in 0..ENDS {
        // Not into the full buffers that the load leaves behind.
        batch::pause(END_EVERY);
        let _lost = socket.send_to(&Header::new(Kind::End, flow, sent).bytes(), to);
    }
    Ok(())
}

fn upload(socket: &UdpSocket, flow: u32, plan: Plan) -> Result<Outcome> {
    ask(
        socket,
        Header::new(Kind::Group, flow, plan.is_grouped.into()),
    )?;
    let begun = Instant::now();
    let sent = batch::send(socket, None, flow, plan)?;
    let millis = u32::try_from(begun.elapsed().as_millis())?;
    let told = ask(socket, Header::new(Kind::Query, flow, 0))?;
    Ok(Outcome {
        sent,
        received: told.number,
        reordered: told.reordered,
        millis,
    })
}

/// Asks the server until it reports.
fn ask(socket: &UdpSocket, question: Header) -> Result<Header> {
    let mut receiver = Receiver::new(false);
    for _ in 0..QUERIES {
        socket.send(&question.bytes())?;
        let mut told = None;
        receiver.receive(socket, ANSWER_LIMIT, |bytes, _| {
            let header = Header::read(bytes);
            told = header.filter(|it| it.kind == Kind::Report && it.flow == question.flow);
        })?;
        if let Some(told) = told {
            return Ok(told);
        }
    }
    Err(anyhow!("the server does not tell what arrived"))
}

fn download(socket: &UdpSocket, flow: u32, plan: Plan) -> Result<Outcome> {
    let mut request = Header::new(Kind::Request, flow, 0).bytes().to_vec();
    request.extend(plan.bytes());
    let mut receiver = gathering(socket, plan.is_grouped)?;
    let (mut tally, mut sent) = (Tally::default(), None);
    let mut unanswered = 0;
    let deadline = Instant::now() + Duration::from_millis(plan.millis.into()) + LATENESS;
    while sent.is_none() && Instant::now() < deadline {
        if tally.received == 0 {
            unanswered += 1;
            ensure!(unanswered <= QUERIES, "the server does not send");
            socket.send(&request)?;
        }
        receiver.receive(socket, ANSWER_LIMIT, |bytes, _| {
            match Header::read(bytes).filter(|it| it.flow == flow) {
                Some(it) if it.kind == Kind::Data => tally.note(it.number),
                Some(it) if it.kind == Kind::End => sent = Some(it.number),
                Some(_) | None => {}
            }
        })?;
    }
    Ok(Outcome {
        sent: sent.context("the end of the load did not arrive")?,
        received: tally.received,
        reordered: tally.reordered,
        millis: plan.millis,
    })
}

const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
const FOREVER: Duration = Duration::from_secs(3600);
/// How long a question waits for its answer, and a load for its next datagram.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// Loads that are remembered.
const TALLIES_MAX: usize = 1000;
/// How often it is asked.
const QUERIES: u32 = 20;
/// The end is told so often: each may be lost.
const ENDS: u32 = 10;
const END_EVERY: Duration = Duration::from_millis(20);
/// How long after its time the end of a load may come.
const LATENESS: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a load on the way to a server on loopback, in each direction.
    fn outcomes(is_grouped: bool) -> [Outcome; 2] {
        let server = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = server.local_addr().expect("bound");
        std::thread::spawn(move || serve(&server));
        let client = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        client.connect(address).expect("loopback");
        let plan = Plan {
            payload_bytes: 100,
            per_second: 10_000,
            millis: 100,
            is_grouped,
        };
        [
            upload(&client, 1, plan).expect("uploaded"),
            download(&client, 2, plan).expect("downloaded"),
        ]
    }

    #[test]
    fn a_load_arrives_whole_and_in_order_singly_and_in_groups() {
        for is_grouped in [false, true] {
            for outcome in outcomes(is_grouped) {
                assert!(outcome.sent > 0, "{outcome:?}");
                let arrived = (outcome.received, outcome.reordered);
                assert_eq!(arrived, (outcome.sent, 0), "{is_grouped}");
            }
        }
    }
}
