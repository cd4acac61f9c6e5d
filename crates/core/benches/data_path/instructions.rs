//! The number of instructions of a packet between the socket and the TUN: run by callgrind, which
//! counts only [`Scene::inbound`] and [`Scene::outbound`] (see `./dev bench instructions`).
//!
//! `instructions inbound|outbound LOAD` passes a fixed number of packets.

mod scene;

use scene::{Load, SEGMENTS, Scene};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [direction @ ("inbound" | "outbound"), load, ..] = words[..] else {
        // As `cargo bench` runs it.
        return ExitCode::SUCCESS;
    };
    let Some(load) = Load::ALL.into_iter().find(|it| name(*it) == load) else {
        return ExitCode::FAILURE;
    };
    let mut scene = Scene::new(load);
    for _ in 0..BATCHES {
        let packets = match direction {
            "inbound" => {
                let batch = scene.sealed(SEGMENTS);
                scene.inbound(&batch)
            }
            _ => {
                let batch = scene.super_packet(SEGMENTS);
                scene.outbound(batch)
            }
        };
        assert_eq!(packets, SEGMENTS);
    }
    ExitCode::SUCCESS
}

fn name(load: Load) -> &'static str {
    match load {
        Load::TcpByAddress => "tcp-by-address",
        Load::TcpByName => "tcp-by-name",
        Load::SmallUdpByName => "udp-64-by-name",
    }
}

const BATCHES: usize = 200;
