//! The supervision against a naive model of the actors that its events start and end.

use super::samples::*;
use crate::grant::TunnelAddresses;
use crate::supervision::*;
use proptest::prelude::*;

/// One random input of the supervision.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A grant for a client, with one of two tunnel addresses.
    Open(u8, bool),
    Access(u8),
    Revoke(u8),
    /// The portal's list of grants no longer contains the client.
    ForgetClient(u8),
    /// A live instance dies; which one, and whether by a panic.
    Die(u8, bool),
    /// A live instance no longer answers, nor can it be ended from outside.
    Stick(u8),
    /// A live child takes no commands.
    Deafen(u8),
    /// A connection has nothing left to serve.
    Close(u8),
    Acknowledge(u8),
    Wait(u64),
    Drain(bool),
    Limit(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0_u8..6;
    prop_oneof![
        6 => (id(), prop::bool::weighted(0.1)).prop_map(|(id, moved)| Step::Open(id, moved)),
        2 => id().prop_map(Step::Access),
        1 => id().prop_map(Step::Revoke),
        1 => id().prop_map(Step::ForgetClient),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(which, panics)| Step::Die(which, panics)),
        2 => any::<u8>().prop_map(Step::Stick),
        1 => any::<u8>().prop_map(Step::Deafen),
        2 => id().prop_map(Step::Close),
        1 => id().prop_map(Step::Acknowledge),
        6 => (0_u64..3000).prop_map(Step::Wait),
        1 => (30_000_u64..40_000).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.3).prop_map(Step::Drain),
        1 => (2_u8..6).prop_map(Step::Limit),
    ]
}

/// An instance that has been started and not been reported as dead.
#[derive(Clone, Copy, Debug)]
struct Actor {
    child: Child,
    /// Neither answers nor ends; so does everything on its thread.
    is_stuck: bool,
    /// Its thread was abandoned.
    is_abandoned: bool,
    /// It is to end: asked to, or from outside.
    is_ending: bool,
}

struct Model {
    scene: Scene,
    actors: BTreeMap<InstanceId, Actor>,
    /// Indices of connections that were started and not detached.
    indices: BTreeSet<PeerIndex>,
    /// Clients that wait for their portion.
    waiting: BTreeSet<ClientId>,
    /// When connections were restarted in a portion.
    portions: Vec<Instant>,
    cut_off: BTreeMap<ClientId, Instant>,
    last_instance: InstanceId,
    max_clients: usize,
    is_over: bool,
}

type Checked = Result<(), TestCaseError>;

impl Model {
    fn new(left: u8) -> Self {
        let mut scene = Scene::new(CONFIG);
        for id in 0..left {
            scene.ledger.record_command(&open(id, 1));
        }
        Self {
            scene,
            actors: BTreeMap::new(),
            indices: BTreeSet::new(),
            waiting: (0..left).take(CONFIG.max_clients).map(client).collect(),
            portions: Vec::new(),
            cut_off: BTreeMap::new(),
            last_instance: InstanceId::default(),
            max_clients: CONFIG.max_clients,
            is_over: false,
        }
    }

    fn apply(&mut self, step: Step) -> Checked {
        match step {
            Step::Open(id, false) => self.request(id, tunnel(id), open(id, id))?,
            Step::Open(id, true) => {
                let moved = tunnel(id + 50);
                self.request(id, moved, open_at(id, moved, id))?;
            }
            Step::Access(id) => {
                let client = self.scene.supervision.client(client(id));
                if let Some(at) = client.map(|client| client.tunnel) {
                    self.request(id, at, allow(id, None, true))?;
                }
            }
            Step::Revoke(id) => self.scene.ledger.revoke(client(id), resource(id).id),
            Step::ForgetClient(id) => self.scene.ledger.remove_client(client(id)),
            Step::Die(which, panics) => self.die(which, panics),
            Step::Stick(which) => {
                if let Some(place) = self.pick(which).map(|(_, actor)| actor.child.place()) {
                    let there = |actor: &&mut Actor| actor.child.place() == place;
                    self.actors
                        .values_mut()
                        .filter(there)
                        .for_each(|it| it.is_stuck = true);
                }
            }
            Step::Deafen(which) => {
                if let Some((_, actor)) = self.pick(which) {
                    self.scene
                        .supervision
                        .handle_deaf(actor.child, self.scene.now);
                }
            }
            Step::Close(id) => self.close(client(id)),
            Step::Acknowledge(id) => {
                let supervision = &mut self.scene.supervision;
                supervision.handle_acknowledgement(client(id), &format!("ref-{id}"));
            }
            Step::Wait(time) => self.wait(ms(time))?,
            Step::Drain(true) => self
                .scene
                .supervision
                .handle_drain(ms(9_999_999), self.scene.now),
            Step::Drain(false) => drop(self.scene.supervision.cancel_drain()),
            Step::Limit(clients) => {
                self.max_clients = clients.into();
                self.scene
                    .supervision
                    .limit(self.max_clients, CONFIG.handshakes_per_second);
            }
        }
        self.perform()
    }

    fn request(&mut self, id: u8, at: TunnelAddresses, request: ClientCommand) -> Checked {
        let (id, now) = (client(id), self.scene.now);
        let known = self
            .scene
            .supervision
            .client(id)
            .map(|client| client.tunnel);
        let served = self.scene.supervision.clients().len() - usize::from(known.is_some());
        let expected = if known == Some(at) {
            Ok(())
        } else if self.cut_off.get(&id).is_some_and(|until| *until > now) {
            Err(Refusal::CutOff)
        } else if self.scene.supervision.drain().is_some() {
            Err(Refusal::Draining)
        } else if served >= self.max_clients {
            Err(Refusal::Full(self.scene.supervision.refused + 1))
        } else {
            Ok(())
        };
        prop_assert_eq!(self.scene.request(request), expected);
        if expected.is_ok() && known != Some(at) {
            // It no longer waits: it is admitted by itself.
            self.waiting.remove(&id);
        }
        self.perform()
    }

    /// A live instance that is not stuck.
    fn pick(&self, which: u8) -> Option<(InstanceId, Actor)> {
        let free = self.actors.iter().filter(|(_, actor)| !actor.is_stuck);
        let free: Vec<_> = free.collect();
        let at = usize::from(which).checked_rem(free.len())?;
        Some((*free[at].0, *free[at].1))
    }

    fn die(&mut self, which: u8, panics: bool) {
        if let Some((instance, actor)) = self.pick(which) {
            self.actors.remove(&instance);
            let cause = match panics {
                true => DeathCause::Panicked(PanicReport::default()),
                false => DeathCause::Stopped,
            };
            self.scene.end(actor.child, instance, cause);
        }
    }

    fn close(&mut self, id: ClientId) {
        let Scene {
            supervision,
            ledger,
            now,
        } = &mut self.scene;
        if let Some(client) = supervision.client(id) {
            let at = Progress {
                client: id,
                instance: client.instance.id,
                handled: 1,
            };
            supervision.handle_closed(at, ledger, *now);
        }
    }

    fn wait(&mut self, time: Duration) -> Checked {
        let until = self.scene.now + time;
        self.settle()?;
        while let Some(due) = self
            .scene
            .supervision
            .poll_timeout()
            .filter(|due| *due <= until)
        {
            self.scene.now = due.max(self.scene.now);
            let Scene {
                supervision,
                ledger,
                now,
            } = &mut self.scene;
            supervision.handle_timeout(ledger, *now);
            self.settle()?;
        }
        self.scene.now = until;
        Ok(())
    }

    /// Instances that are to end do so, unless they are stuck.
    fn settle(&mut self) -> Checked {
        self.perform()?;
        let is_due = |actor: &Actor| actor.is_ending && !actor.is_stuck;
        while let Some((id, actor)) = self.actors.iter().find(|(_, actor)| is_due(actor)) {
            let (id, child) = (*id, actor.child);
            self.actors.remove(&id);
            self.scene.die((child, id));
            self.perform()?;
        }
        Ok(())
    }

    fn perform(&mut self) -> Checked {
        while let Some(event) = self.scene.supervision.poll_event() {
            self.check(event)?;
        }
        // A client has at most one connection, and what the supervision calls running runs.
        for (id, client) in self.scene.supervision.clients() {
            if client.is_running() {
                let actor = self.actors.get(&client.instance.id);
                let actor = actor.expect("the present instance is there");
                prop_assert_eq!(actor.child, Child::Connection(id, client.index));
                prop_assert!(!actor.is_ending && !actor.is_abandoned, "{:?}", actor);
            }
            prop_assert!(self.indices.contains(&client.index));
        }
        Ok(())
    }

    fn check(&mut self, event: Event) -> Checked {
        match event {
            Event::Start(child, instance) => self.begin(child, instance)?,
            Event::Connect(it) => {
                let is_fresh = self.indices.insert(it.index);
                prop_assert_eq!(is_fresh, it.is_first, "an index is given out once");
                self.begin(Child::Connection(it.client, it.index), it.instance)?;
                if self.waiting.remove(&it.client) {
                    self.portions.push(self.scene.now);
                }
            }
            Event::Pass(index, ..) => {
                let to = |it: &&Actor| matches!(it.child, Child::Connection(_, at) if at == index);
                let mut to = self.actors.values().filter(to);
                let running = to.any(|it| !it.is_ending && !it.is_abandoned);
                prop_assert!(running, "a request to a dead connection");
            }
            Event::Ping(child, instance) => {
                let actor = self.actors.get(&instance);
                let actor = actor.expect("only running children are pinged");
                prop_assert_eq!(actor.child, child);
                if !actor.is_stuck {
                    self.scene
                        .supervision
                        .handle_pong(child, instance, self.scene.now);
                }
            }
            Event::Abort(child) => self.end(child),
            Event::Stop(index, _) => {
                let is_meant =
                    |it: &&Actor| matches!(it.child, Child::Connection(_, at) if at == index);
                let child = self.actors.values().find(is_meant).map(|it| it.child);
                self.end(child.expect("a connection that runs"));
            }
            Event::AskThread(child) => self.answer_thread(child)?,
            Event::ReplaceThread(place) => self.replace(place),
            Event::Detach(id, index) => {
                let holds =
                    |it: &Actor| it.child == Child::Connection(id, index) && !it.is_abandoned;
                prop_assert!(!self.actors.values().any(holds), "its index is in use");
                prop_assert!(self.indices.remove(&index), "an index is released once");
            }
            Event::CutOff(id) => {
                self.cut_off.insert(id, self.scene.now + ms(30_000));
                prop_assert!(self.scene.ledger.client(id).is_none());
            }
            Event::GiveUp(child) => {
                prop_assert_eq!(child.client(), None, "a client ends no process");
                self.is_over = true;
            }
            Event::Died(..)
            | Event::Recovered(..)
            | Event::Deaf(_)
            | Event::ThreadStuck(_)
            | Event::CountActive => {}
            Event::Drained => prop_assert!(false, "there are active clients"),
        }
        Ok(())
    }

    fn answer_thread(&mut self, child: Child) -> Checked {
        let stuck = self
            .actors
            .iter()
            .filter(|(_, it)| !it.is_abandoned && it.is_stuck);
        let mut there = stuck.filter(|(_, it)| it.child.place() == child.place());
        let busy = there.next_back().map(|(id, _)| *id);
        prop_assert!(busy.is_some(), "a thread that is not stuck");
        let Scene {
            supervision,
            ledger,
            now,
        } = &mut self.scene;
        supervision.handle_stuck(child, busy, ledger, *now);
        Ok(())
    }

    fn begin(&mut self, child: Child, instance: InstanceId) -> Checked {
        prop_assert!(instance > self.last_instance, "a number of its own");
        self.last_instance = instance;
        let runs = |it: &&Actor| it.child == child && !it.is_abandoned;
        prop_assert_eq!(self.actors.values().filter(runs).count(), 0, "two run");
        let same_thread = |it: &&Actor| it.child.place() == child.place() && !it.is_abandoned;
        let actor = Actor {
            child,
            is_stuck: self
                .actors
                .values()
                .filter(same_thread)
                .any(|it| it.is_stuck),
            is_abandoned: false,
            is_ending: false,
        };
        self.actors.insert(instance, actor);
        Ok(())
    }

    fn end(&mut self, child: Child) {
        for actor in self.actors.values_mut().filter(|it| it.child == child) {
            actor.is_ending = true;
        }
    }

    fn replace(&mut self, place: Place) {
        for actor in self
            .actors
            .values_mut()
            .filter(|it| it.child.place() == place)
        {
            actor.is_abandoned = true;
        }
        let clients = self.scene.supervision.clients();
        let there = clients.filter(|(_, client)| Place::Shard(client.index.shard()) == place);
        self.waiting.extend(there.map(|(id, _)| id));
    }

    /// Undisturbed, everything that should run does, and nothing is left over.
    fn finish(&mut self) -> Checked {
        self.wait(ms(60_000))?;
        if self.is_over {
            return Ok(());
        }
        let children = [
            Place::Admin,
            Place::Control,
            Place::Shard(0),
            Place::Shard(1),
        ];
        for child in children.into_iter().flat_map(Place::children) {
            prop_assert!(self.scene.supervision.is_running(child), "{child:?}");
        }
        let supervision = &self.scene.supervision;
        prop_assert!(supervision.clients().all(|(_, client)| client.is_running()));
        prop_assert!(supervision.waiting.is_empty() && supervision.timers.is_empty());
        let held = supervision.clients().map(|(_, client)| client.index);
        let held: BTreeSet<_> = held.chain(supervision.retiring.keys().copied()).collect();
        prop_assert_eq!(&held, &self.indices);
        // What retires for ever is stuck on a thread that was abandoned.
        for last in supervision.retiring.values() {
            let actor = self.actors.get(last).expect("it holds its index");
            prop_assert!(actor.is_abandoned && actor.is_stuck);
        }
        Ok(())
    }

    /// In each window of a portion at most as many connections as a portion holds.
    fn check_portions(&self) -> Checked {
        let portion = CONFIG.handshakes_per_second / PORTIONS_PER_SECOND as usize;
        for window in self.portions.windows(portion + 1) {
            prop_assert!(
                window[portion] - window[0] >= ms(250),
                "{:?}",
                self.portions
            );
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model(
        left in 0_u8..5,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(left);
        let Scene { supervision, ledger, now } = &mut model.scene;
        supervision.handle_start(ledger, *now);
        model.perform()?;
        for step in steps {
            model.apply(step)?;
            if model.is_over {
                break;
            }
        }
        model.finish()?;
        model.check_portions()?;
    }
}
