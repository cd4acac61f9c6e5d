//! The flow table against a reference that scans: the same answers after any sequence of calls.
//!
//! The reference does not predict random ports; it checks that the chosen one was allowed.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Open(Inside, IpAddr),
    Rebind(usize, IpAddr),
    Inbound(usize, TcpFlags),
    Outbound(usize, TcpFlags),
    Expire(usize),
    Remove(usize),
    RemoveClient(ClientSlot),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let flags = || prop_oneof![4 => Just(PLAIN), 1 => Just(SYN), 2 => Just(FIN), 1 => Just(RST)];
    let client = || (0u32..3).prop_map(ClientSlot);
    let real = || (1u8..4).prop_map(|host| IpAddr::from([10, 0, 0, host]));
    let millis = prop_oneof![
        4 => 0u64..3_000, 3 => 0u64..70_000, 2 => 0u64..700_000, 1 => 0u64..9_000_000,
    ];
    prop_oneof![
        8 => (any_inside(client()), real()).prop_map(|(inside, real)| Step::Open(inside, real)),
        2 => (any::<usize>(), real()).prop_map(|(nth, real)| Step::Rebind(nth, real)),
        3 => (any::<usize>(), flags()).prop_map(|(nth, flags)| Step::Inbound(nth, flags)),
        3 => (any::<usize>(), flags()).prop_map(|(nth, flags)| Step::Outbound(nth, flags)),
        1 => any::<usize>().prop_map(Step::Expire),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => client().prop_map(Step::RemoveClient),
        6 => millis.prop_map(Step::Wait),
    ]
}

fn any_inside(client: impl Strategy<Value = ClientSlot>) -> impl Strategy<Value = Inside> {
    let protocol = prop_oneof![
        2 => Just(FlowProtocol::Tcp), 1 => Just(FlowProtocol::Udp), 1 => Just(FlowProtocol::Echo),
    ];
    let port = prop_oneof![Just(0u16), Just(80), Just(65535)];
    (client, protocol, port, 1u8..4).prop_map(|(client, protocol, port, proxy)| Inside {
        client,
        protocol,
        port,
        proxy: [100, 96, 0, proxy].into(),
    })
}

/// A live flow of the reference.
#[derive(Clone, Copy, Debug)]
struct Flow {
    binding: Binding,
    last_packet: u64,
    /// Orders the unconfirmed flows by their last packet.
    heard: usize,
    fins: [bool; 2],
}

impl Flow {
    fn end(&self) -> u64 {
        let seconds = match self.binding.inside.protocol {
            _ if !self.binding.confirmed => 60,
            FlowProtocol::Tcp if self.fins == [true, true] => 5,
            FlowProtocol::Tcp => 7440,
            FlowProtocol::Udp | FlowProtocol::Echo => 120,
        };
        self.last_packet + seconds + 1
    }
}

/// A remembered flow of the reference.
#[derive(Clone, Copy, Debug)]
struct Left {
    inside: Inside,
    outside: Outside,
    since: u64,
}

struct Model {
    limits: FlowLimits,
    millis: u64,
    flows: Vec<Flow>,
    left: Vec<Left>,
    heard: usize,
}

impl Model {
    fn second(&self) -> u64 {
        self.millis / 1000
    }

    fn total(&self) -> usize {
        self.flows.len() + self.left.len()
    }

    fn is_full(&self) -> bool {
        self.total() >= self.limits.flows as usize
    }

    fn of(&self, client: ClientSlot) -> impl Iterator<Item = &Flow> {
        let is_theirs = move |flow: &&Flow| flow.binding.inside.client == client;
        self.flows.iter().filter(is_theirs)
    }

    fn next_victim(&self, client: ClientSlot) -> Option<usize> {
        let unconfirmed = self.of(client).filter(|flow| !flow.binding.confirmed);
        let heard = unconfirmed.map(|flow| flow.heard).min()?;
        self.flows.iter().position(|flow| flow.heard == heard)
    }

    fn end(&mut self, at: usize) {
        let binding = self.flows.remove(at).binding;
        self.leave(binding);
    }

    fn leave(&mut self, binding: Binding) {
        self.left.push(Left {
            inside: binding.inside,
            outside: binding.outside,
            since: self.second(),
        });
    }

    fn pass_time(&mut self) {
        let now = self.second();
        while let Some(at) = self.flows.iter().position(|flow| flow.end() <= now) {
            self.end(at);
        }
        self.left.retain(|left| left.since + 600 > now);
    }

    /// The table removed one of the longest remembered flows; several may have ended together.
    fn forget_oldest(&mut self, bench: &mut Bench) {
        let since = self.left.iter().map(|left| left.since).min();
        let is_gone = |left: &Left| {
            Some(left.since) == since && bench.outside(&left.outside) == Lookup::Unknown
        };
        let gone: Vec<bool> = self.left.iter().map(is_gone).collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "one is gone");
        let mut gone = gone.into_iter();
        self.left.retain(|_| gone.next() != Some(true));
    }

    fn check_port(&self, inside: &Inside, outside: &Outside, former: Option<u16>) {
        let taken = |port| {
            let tuple = Outside { port, ..*outside };
            let mut others = self.left.iter();
            let left = others.any(|it| it.outside == tuple && it.inside != *inside);
            left || self.flows.iter().any(|it| it.binding.outside == tuple)
        };
        let usable = |port| (port != 0 || inside.protocol == FlowProtocol::Echo) && !taken(port);
        assert!(usable(outside.port), "{outside:?} is not in use");
        let mut preferred = former.into_iter().chain([inside.port]);
        match preferred.find(|port| usable(*port)) {
            Some(port) => assert_eq!(outside.port, port),
            None if inside.protocol == FlowProtocol::Echo => {}
            None => assert!(outside.port >= 1024),
        }
    }

    fn open(&mut self, bench: &mut Bench, inside: Inside, real: IpAddr) {
        let answer = bench.open(inside, &real.to_string());
        if let Some(flow) = self.flows.iter().find(|it| it.binding.inside == inside) {
            assert_eq!(answer, Ok(flow.binding));
            return;
        }
        let client = inside.client;
        let at_limit = self.of(client).count() >= self.limits.flows_per_client as usize;
        let is_stuck = at_limit || (self.is_full() && self.left.is_empty());
        if is_stuck && self.next_victim(client).is_none() {
            assert_eq!(answer, Err(DropReason::FlowTableFull));
            return;
        }
        let binding = answer.expect("room and ports");
        let its_own = |left: &Left| left.inside == inside && left.outside == binding.outside;
        if !self.left.iter().any(its_own) {
            self.check_port(&inside, &binding.outside, None);
        }
        self.left.retain(|left| left.outside != binding.outside);
        let victim = |model: &Self| model.next_victim(client).expect("checked");
        if at_limit {
            self.end(victim(self));
        }
        if self.is_full() && !self.left.is_empty() {
            self.forget_oldest(bench);
        } else if self.is_full() {
            self.flows.remove(victim(self));
        }
        self.heard += 1;
        self.flows.push(Flow {
            binding,
            last_packet: self.second(),
            heard: self.heard,
            fins: [false; 2],
        });
    }

    fn rebind(&mut self, bench: &mut Bench, at: usize, real: IpAddr) {
        let before = self.flows[at].binding;
        let after = bench.table.rebind(before.flow, real, 2, bench.now);
        let after = after.expect("free ports");
        if before.confirmed {
            assert_eq!(after, before);
            return;
        }
        self.flows[at].binding.epoch = 2;
        if before.outside.real == real {
            assert_eq!(after, self.flows[at].binding);
            return;
        }
        self.check_port(&before.inside, &after.outside, Some(before.outside.port));
        self.left.retain(|left| left.outside != after.outside);
        if self.is_full() && !self.left.is_empty() {
            self.forget_oldest(bench);
        }
        if !self.is_full() {
            self.leave(before);
        }
        self.flows[at].binding.outside = after.outside;
    }

    fn note(&mut self, bench: &mut Bench, at: usize, flags: TcpFlags, inbound: bool) {
        let second = self.second();
        let flow = &mut self.flows[at];
        if inbound {
            bench.inbound(flow.binding, flags);
            if flow.last_packet != second {
                self.heard += 1;
                flow.heard = self.heard;
            }
            if flags.syn {
                flow.fins = [false; 2];
            }
        } else {
            let is_first = bench.outbound(flow.binding, flags);
            assert_eq!(is_first, !flow.binding.confirmed);
            flow.binding.confirmed = true;
        }
        flow.last_packet = second;
        flow.fins[usize::from(inbound)] |= flags.fin;
        if flags.rst {
            self.end(at);
        }
    }

    fn step_on_flow(&mut self, bench: &mut Bench, step: &Step, at: usize) {
        match step {
            Step::Rebind(_, real) => self.rebind(bench, at, *real),
            Step::Inbound(_, flags) => self.note(bench, at, *flags, true),
            Step::Outbound(_, flags) => self.note(bench, at, *flags, false),
            Step::Expire(_) => {
                bench.table.expire(self.flows[at].binding.flow, bench.now);
                self.end(at);
            }
            Step::Remove(_) => bench.table.remove(self.flows.remove(at).binding.flow),
            Step::Open(..) | Step::RemoveClient(_) | Step::Wait(_) => {}
        }
    }

    fn step(&mut self, bench: &mut Bench, step: &Step) {
        match step {
            Step::Open(inside, real) => self.open(bench, *inside, *real),
            Step::RemoveClient(client) => {
                bench.table.remove_client(*client);
                self.flows.retain(|it| it.binding.inside.client != *client);
                self.left.retain(|left| left.inside.client != *client);
            }
            Step::Wait(millis) => {
                self.millis += millis;
                bench.now += Duration::from_millis(*millis);
                self.pass_time();
            }
            Step::Rebind(nth, _)
            | Step::Inbound(nth, _)
            | Step::Outbound(nth, _)
            | Step::Expire(nth)
            | Step::Remove(nth) => {
                if let Some(at) = nth.checked_rem(self.flows.len()) {
                    self.step_on_flow(bench, step, at);
                }
            }
        }
    }

    fn assert_equals(&self, bench: &mut Bench) {
        for flow in &self.flows {
            let binding = flow.binding;
            let found = bench.table.find_inside(&binding.inside, bench.now);
            assert_eq!(found, Some(binding));
            assert_eq!(bench.outside(&binding.outside), Lookup::Live(binding));
        }
        for left in &self.left {
            assert_eq!(bench.outside(&left.outside), Lookup::Expired);
        }
        bench.table.handle_timeout(bench.now);
        assert_eq!(bench.table.len(), self.flows.len());
        assert_eq!(bench.table.remembered(), self.left.len());
        assert!(self.total() <= self.limits.flows as usize);
        for client in (0..3).map(ClientSlot) {
            let live = bench.table.len_of(client);
            assert_eq!(live, self.of(client).count());
            assert!(live <= self.limits.flows_per_client as usize);
        }
        match bench.table.poll_timeout() {
            Some(due) => assert!(due > bench.now),
            None => assert_eq!(self.total(), 0),
        }
    }
}

proptest! {
    /// docs/lessons.md 13: Packets of an expired flow are dropped.
    #[test]
    fn any_sequence_of_calls_matches_the_reference(
        steps in vec(any_step(), 0..120),
        flows in 0u32..9,
        flows_per_client in 0u32..5,
    ) {
        let mut bench = Bench::new(flows, flows_per_client);
        let mut model = Model {
            limits: FlowLimits { flows, flows_per_client },
            millis: 0,
            flows: Vec::new(),
            left: Vec::new(),
            heard: 0,
        };
        for step in &steps {
            model.step(&mut bench, step);
            model.assert_equals(&mut bench);
        }
    }
}
