//! Requests and a gateway for the tests of supervision.

use crate::grant::{
    AccessRequest, AnnouncedName, AuthorizationRequest, ClientProfile, IceCredentials,
    PresharedKey, ReplyKind, Resource, ResourceKind, TunnelAddresses,
};
use crate::ids::{PublicKey, ResourceId};
use crate::ledger::LedgerLimits;
use crate::supervision::*;
use crate::testing::beginning;
use uuid::Uuid;
use zeroize::Zeroizing;

pub(super) const CONFIG: SupervisionConfig = SupervisionConfig {
    shards: 2,
    max_clients: 3,
    handshakes_per_second: 8,
};

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn client(number: u8) -> ClientId {
    ClientId(Uuid::from_u128(number.into()))
}

pub(super) fn tunnel(number: u8) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: [100, 64, 0, number].into(),
        ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, number.into()].into(),
    }
}

pub(super) fn resource(number: u8) -> Resource {
    Resource {
        id: ResourceId(Uuid::from_u128(number.into())),
        name: "resource".into(),
        kind: ResourceKind::Dns("**.lab.example".into()),
        filters: vec![],
    }
}

/// A grant of resource `number` to a client with these tunnel addresses.
pub(super) fn open_at(id: u8, at: TunnelAddresses, number: u8) -> ClientCommand {
    let ice = || IceCredentials {
        ufrag: "ufrag".into(),
        password: Zeroizing::new("password".into()),
    };
    ClientCommand::Authorize(Box::new(AuthorizationRequest {
        reply_ref: format!("ref-{number}"),
        client: ClientProfile {
            id: client(id),
            public_key: PublicKey([id; 32]),
            preshared_key: PresharedKey(Zeroizing::new([1; 32])),
            tunnel: at,
        },
        resource: resource(number),
        gateway_ice: ice(),
        client_ice: ice(),
        expires_at: None,
        announced: None,
        reply: ReplyKind::Granted,
    }))
}

pub(super) fn open(id: u8, number: u8) -> ClientCommand {
    open_at(id, tunnel(id), number)
}

/// A further grant, which is acknowledged if the client `announces` a name.
pub(super) fn allow(id: u8, at: Option<TunnelAddresses>, announces: bool) -> ClientCommand {
    ClientCommand::Allow(Box::new(AccessRequest {
        reply_ref: "ref-access".into(),
        client: client(id),
        tunnel: at,
        resource: resource(100),
        expires_at: None,
        announced: announces.then(|| AnnouncedName {
            domain: "a.lab.example".into(),
            proxy_ips: vec![],
        }),
    }))
}

/// A supervision with its ledger and its clock.
pub(super) struct Scene {
    pub(super) supervision: Supervision,
    pub(super) ledger: Ledger,
    pub(super) now: Instant,
}

impl Scene {
    pub(super) fn new(config: SupervisionConfig) -> Self {
        Self {
            supervision: Supervision::new(config, [7; 32]),
            ledger: Ledger::new(LedgerLimits::default()),
            now: beginning(),
        }
    }

    /// A gateway that runs, without clients.
    pub(super) fn started() -> Self {
        let mut scene = Self::new(CONFIG);
        scene.supervision.handle_start(&mut scene.ledger, scene.now);
        scene.events();
        scene
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.supervision.poll_event()).collect()
    }

    pub(super) fn request(&mut self, request: ClientCommand) -> Result<(), Refusal> {
        let ledger = &mut self.ledger;
        self.supervision.handle_command(request, ledger, self.now)
    }

    /// Connects a client; returns its connection and its present instance.
    pub(super) fn connect(&mut self, id: u8) -> (Child, InstanceId) {
        self.request(open(id, id)).expect("admitted");
        let found = connected(&self.events());
        *found.first().expect("a connection is started")
    }

    pub(super) fn die(&mut self, (child, instance): (Child, InstanceId)) {
        self.end(child, instance, DeathCause::Stopped);
    }

    pub(super) fn end(&mut self, child: Child, instance: InstanceId, cause: DeathCause) {
        let death = Death {
            child,
            instance,
            cause,
        };
        let ledger = &mut self.ledger;
        self.supervision.handle_death(death, ledger, self.now);
    }

    /// Sleeps from deadline to deadline; returns the events with their times, except recoveries. No
    /// child answers unless `answers`.
    pub(super) fn run(&mut self, time: Duration, answers: bool) -> Vec<(Duration, Event)> {
        let (begun, until) = (self.now, self.now + time);
        let mut seen = Vec::new();
        while let Some(due) = self.supervision.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.supervision.handle_timeout(&mut self.ledger, self.now);
            while let Some(event) = self.supervision.poll_event() {
                if let Event::Ping(child, instance) = event
                    && answers
                {
                    self.supervision.handle_pong(child, instance, self.now);
                } else if !matches!(event, Event::Recovered(..)) {
                    seen.push((self.now - begun, event));
                }
            }
        }
        self.now = until;
        seen
    }

    /// The present instance of a child.
    pub(super) fn instance(&self, child: Child) -> InstanceId {
        self.supervision.instance(child).expect("it is known").id
    }

    /// Everything on the thread of `child` stands still until the supervision asks about the
    /// thread; returns what it does when the thread is busy with `busy`.
    pub(super) fn stick(&mut self, child: Child, busy: Option<InstanceId>) -> Vec<Event> {
        let is_question = |(_, event): &(Duration, Event)| matches!(event, Event::AskThread(_));
        self.supervision.end_hung(child, self.now);
        let seen = self.run(ms(600), true);
        assert_eq!(seen.iter().filter(|it| is_question(it)).count(), 1);
        let ledger = &mut self.ledger;
        self.supervision.handle_stuck(child, busy, ledger, self.now);
        self.events()
    }
}

/// The connections that are started, in order.
pub(super) fn connected(events: &[Event]) -> Vec<(Child, InstanceId)> {
    let connection = |event: &Event| {
        let Event::Connect(it) = event else {
            return None;
        };
        Some((Child::Connection(it.client, it.index), it.instance))
    };
    events.iter().filter_map(connection).collect()
}

/// What an event asks for, in short.
pub(super) fn shown(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Start(child, _) => format!("start {child}"),
        Event::Connect(it) => format!("connect {}", it.client.0.as_u128()),
        Event::Pass(_, _, request) => {
            format!("pass {}", request.awaited_ref().unwrap_or("unacknowledged"))
        }
        Event::Ping(child, _) => format!("ping {child}"),
        Event::Abort(child) => format!("abort {child}"),
        Event::AskThread(child) => format!("ask thread of {child}"),
        Event::Deaf(child) => format!("deaf {child}"),
        Event::ThreadStuck(child) => format!("stuck {child}"),
        Event::ReplaceThread(place) => format!("replace {place:?}"),
        Event::Stop(_, Farewell::Due) => "goodbye".into(),
        Event::Stop(_, Farewell::Said) => "stop".into(),
        Event::Detach(id, _) => format!("detach {}", id.0.as_u128()),
        Event::Died(child, _, true) => format!("hung {child}"),
        Event::Died(child, _, false) => format!("died {child}"),
        Event::Recovered(child, took) => format!("recovered {child} {}", took.as_millis()),
        Event::CutOff(id) => format!("cut off {}", id.0.as_u128()),
        Event::GiveUp(child) => format!("give up {child}"),
        Event::CountActive => "count".into(),
        Event::Drained => "drained".into(),
    };
    events.iter().map(word).collect()
}
