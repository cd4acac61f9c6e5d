//! Invariants at each step of any sequence of announcements, answers, failures, packets and time.

use super::{Scene, own_v4, proxy_v4};
use crate::names::{AddressFamily, NameFailure};
use crate::packet::IpPacket;
use crate::packet::samples::{Shape, packet};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Assign {
        name: usize,
        block: u8,
    },
    Answer {
        name: usize,
        ips: Vec<usize>,
    },
    Fail {
        name: usize,
        failure: NameFailure,
    },
    Packet {
        block: u8,
        place: u8,
        port: u16,
    },
    /// The resource answers the packet that was forwarded this many packets ago.
    Back(usize),
    Pass(u64),
    Release,
}

fn any_step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(NameFailure::NoSuchName),
        Just(NameFailure::NoData),
        Just(NameFailure::ServerFailure),
        Just(NameFailure::Timeout),
    ];
    let ips = proptest::collection::vec(0..REALS.len(), 1..4);
    prop_oneof![
        2 => (0..NAMES.len(), 0u8..3).prop_map(|(name, block)| Step::Assign { name, block }),
        2 => (0..NAMES.len(), ips).prop_map(|(name, ips)| Step::Answer { name, ips }),
        1 => (0..NAMES.len(), failure).prop_map(|(name, failure)| Step::Fail { name, failure }),
        6 => (0u8..3, 0u8..4, 5000u16..5003)
            .prop_map(|(block, place, port)| Step::Packet { block, place, port }),
        2 => (0usize..4).prop_map(Step::Back),
        1 => (0u64..30).prop_map(Step::Pass),
        1 => Just(Step::Release),
    ]
}

/// The required state, in its simplest form.
#[derive(Default)]
struct Model {
    /// The name of each block of proxy IPs.
    owners: BTreeMap<u8, usize>,
    /// Every address that a name ever had.
    resolved: BTreeMap<usize, BTreeSet<IpAddr>>,
    /// Names that have an address since their last new announcement.
    usable: BTreeSet<usize>,
}

impl Model {
    fn assign(&mut self, name: usize, block: u8) {
        if self.owners.get(&block) == Some(&name) {
            return;
        }
        if let Some(former) = self.owners.remove(&block) {
            self.usable.remove(&former);
        }
        self.owners.retain(|_, owner| *owner != name);
        self.owners.insert(block, name);
        self.usable.remove(&name);
    }

    fn answer(&mut self, name: usize, ips: &[&str]) {
        let parsed = ips
            .iter()
            .map(|ip| ip.parse::<IpAddr>().expect("an address"));
        self.resolved.entry(name).or_default().extend(parsed);
        if self.owners.values().any(|owner| *owner == name) {
            self.usable.insert(name);
        }
    }

    fn is_usable(&self, block: u8) -> bool {
        let owner = self.owners.get(&block);
        owner.is_some_and(|name| self.usable.contains(name))
    }
}

fn udp(block: u8, place: u8, port: u16) -> Vec<u8> {
    let own = own_v4(1).parse().expect("an address");
    let shape = Shape::Udp { from: port, to: 53 };
    packet(own, proxy_v4(block, place), shape, &[block, place])
}

/// The NAT, its model, and the packets sent to resources so far.
struct Run {
    scene: Scene,
    model: Model,
    sent: Vec<Vec<u8>>,
}

impl Run {
    /// Applies one step and checks every packet.
    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let mut forwarded = Vec::new();
        let scene = &mut self.scene;
        match step {
            Step::Assign { name, block } => {
                scene.assign(1, NAMES[*name], *block);
                self.model.assign(*name, *block);
            }
            Step::Answer { name, ips } => self.answer(*name, ips),
            Step::Fail { name, failure } => {
                if failure.is_definite() {
                    // Ends the use of addresses that were silent at the time.
                    self.model.usable.remove(name);
                }
                for family in AddressFamily::ALL {
                    scene.answer(NAMES[*name], family, Err(*failure));
                }
            }
            Step::Packet { block, place, port } => {
                forwarded = scene.send(&udp(*block, *place, *port));
                let is_usable = self.model.is_usable(*block);
                prop_assert!(!is_usable || forwarded.len() == 1, "a usable name was lost");
            }
            Step::Back(age) => {
                let place = self.sent.len().checked_sub(age + 1);
                if let Some(packet) = place.map(|place| &self.sent[place]) {
                    scene.nat.handle_outbound(back(packet), scene.now);
                }
            }
            Step::Pass(seconds) => scene.pass(Duration::from_secs(*seconds)),
            Step::Release => {
                scene.release(1, 1);
                self.model.owners.clear();
                self.model.usable.clear();
            }
        }
        forwarded.extend(self.scene.forwarded());
        for packet in &forwarded {
            check_forwarded(&self.model, packet)?;
        }
        self.sent.extend(forwarded);
        let delivered = self.scene.delivered();
        delivered
            .iter()
            .try_for_each(|packet| check_delivered(packet))
    }

    fn answer(&mut self, name: usize, places: &[usize]) {
        let ips: BTreeSet<&str> = places.iter().map(|place| REALS[*place]).collect();
        let ips: Vec<&str> = ips.into_iter().collect();
        self.model.answer(name, &ips);
        let scene = &mut self.scene;
        scene.answer(NAMES[name], AddressFamily::V4, Ok(&ips));
        scene.answer(NAMES[name], AddressFamily::V6, Err(NameFailure::NoData));
    }
}

/// Each packet goes to an address that was resolved for its name.
fn check_forwarded(model: &Model, packet: &[u8]) -> Result<(), TestCaseError> {
    let parsed = IpPacket::parse(packet).expect("valid");
    let block = parsed.segment()[8];
    let name = model.owners.get(&block);
    let resolved = name.and_then(|name| model.resolved.get(name));
    let is_known = resolved.is_some_and(|ips| ips.contains(&parsed.destination()));
    prop_assert!(
        is_known,
        "{} for block {block} of {name:?}",
        parsed.destination()
    );
    Ok(())
}

/// Each packet to a client comes from the proxy IP that it had sent this payload to, or is an ICMP
/// error from one.
fn check_delivered(packet: &[u8]) -> Result<(), TestCaseError> {
    let parsed = IpPacket::parse(packet).expect("valid");
    if let [_, _, _, _, _, _, _, _, block, place] = parsed.segment() {
        prop_assert_eq!(parsed.source(), proxy_v4(*block, *place));
    }
    Ok(())
}

fn back(sent: &[u8]) -> crate::packet::PacketBatch {
    let parsed = IpPacket::parse(sent).expect("valid");
    let segment = parsed.segment();
    let from = u16::from_be_bytes([segment[2], segment[3]]);
    let to = u16::from_be_bytes([segment[0], segment[1]]);
    let shape = Shape::Udp { from, to };
    let answer = packet(parsed.destination(), parsed.source(), shape, &segment[8..]);
    crate::packet::PacketBatch::of(&answer)
}

const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
const REALS: [&str; 4] = ["10.20.0.1", "10.20.0.2", "10.20.0.3", "10.20.0.4"];

proptest! {
    #[test]
    fn loses_no_mapping_and_misdelivers_no_packet(
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut run = Run {
            scene: Scene::new(&[1]),
            model: Model::default(),
            sent: Vec::new(),
        };
        for step in &steps {
            run.take(step)?;
        }
    }
}
