//! An actor that stands for any other: it keeps its messages, in order, for the test to read.

use super::seen::Seen;
use crate::faults::{self, Fault};
use crate::messages::diagnosis::{ExplainName, NameFacts};
use crate::supervision::{self, DeathNotice, Ping, RunningInstance};
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::nat_table::NatFacts;
use std::any::type_name;
use std::time::Duration;
use tokio::sync::mpsc;

/// Takes every message that [`Seen`] knows.
pub(crate) struct Probe {
    told: mpsc::UnboundedSender<Seen>,
    /// Introductions, releases and requests for relays may go to another inbox.
    introduced: mpsc::UnboundedSender<Seen>,
    _death: Option<DeathNotice>,
}

/// The sending half of an [`Inbox`]: several probes may share one, at a time or in turn.
#[derive(Clone)]
pub(crate) struct InboxSender(mpsc::UnboundedSender<Seen>);

/// Messages of a [`Probe`] that the test has not read.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Seen>);

/// Ends or blocks a [`Probe`].
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) enum Break {
    /// Panics in the handler.
    Panic,
    Stop,
    /// Never reads its mailbox again.
    Hang,
    /// Blocks for this long.
    Work(Duration),
}

impl Probe {
    /// A supervised probe: it holds its death notice.
    pub(crate) fn launch(
        told: &InboxSender,
        introduced: &InboxSender,
        death: DeathNotice,
    ) -> (Addr<Self>, AbortHandle) {
        let instance = death.instance();
        let probe = Self {
            told: told.0.clone(),
            introduced: introduced.0.clone(),
            _death: Some(death),
        };
        let mark = RunningInstance::default().mark(instance);
        supervision::launch(&Arbiter::current(), mark, Self::MAILBOX, |_| Ok(probe))
    }

    /// Size of its mailbox, if it was launched.
    pub(crate) const MAILBOX: usize = 64;

    pub(crate) fn start() -> (Addr<Self>, Inbox) {
        let (probe, inbox) = Self::new();
        (Actor::start(probe), inbox)
    }

    /// A probe for the test to start later: until then its mailbox fills.
    pub(crate) fn new() -> (Self, Inbox) {
        let (InboxSender(told), inbox) = Inbox::new();
        let probe = Self {
            introduced: told.clone(),
            told,
            _death: None,
        };
        (probe, inbox)
    }
}

impl Actor for Probe {
    type Context = Context<Self>;
}

impl<M> Handler<M> for Probe
where
    M: Message<Result = ()>,
    Seen: From<M>,
{
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Context<Self>) {
        let seen = Seen::from(message);
        let is_introduction = matches!(
            seen,
            Seen::RequestRelays(_)
                | Seen::UseDns(_)
                | Seen::UseOutbound(_)
                | Seen::UseSibling(_)
                | Seen::UseTun(_)
        );
        // The test may have ended.
        let _ = match is_introduction {
            true => self.introduced.send(seen),
            false => self.told.send(seen),
        };
    }
}

impl Handler<Ping> for Probe {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {}
}

impl Handler<ExplainName> for Probe {
    type Result = NameFacts;

    fn handle(&mut self, _: ExplainName, _: &mut Context<Self>) -> NameFacts {
        NameFacts(NatFacts {
            is_attached: true,
            ..NatFacts::default()
        })
    }
}

impl Handler<Fault> for Probe {
    type Result = ();

    fn handle(&mut self, fault: Fault, ctx: &mut Context<Self>) {
        faults::inject(fault.0, "probe", ctx);
    }
}

impl Handler<Break> for Probe {
    type Result = ();

    fn handle(&mut self, how: Break, ctx: &mut Context<Self>) {
        match how {
            Break::Panic => panic!("a probe panics"),
            Break::Stop => ctx.stop(),
            Break::Hang => ctx.wait(std::future::pending().into_actor(self)),
            Break::Work(time) => ctx.wait(tokio::time::sleep(time).into_actor(self)),
        }
    }
}

impl Inbox {
    /// An empty inbox and its sending half.
    pub(crate) fn new() -> (InboxSender, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (InboxSender(sender), Self(inbox))
    }

    /// The next `M`; discards other messages before it.
    pub(crate) async fn find<M: TryFrom<Seen, Error = Seen>>(&mut self) -> M {
        let name = type_name::<M>();
        let found = tokio::time::timeout(super::PATIENCE, async {
            loop {
                let seen = self.0.recv().await.expect("the probe runs");
                if let Ok(message) = M::try_from(seen) {
                    return message;
                }
            }
        });
        let Ok(message) = found.await else {
            panic!("no {name} in {:?}", super::PATIENCE);
        };
        message
    }

    /// Discards all messages so far.
    pub(crate) fn forget(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// All messages so far, once all actors are idle.
    pub(crate) async fn drain(&mut self) -> Vec<Seen> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }

    /// The next message, which must be an `M`.
    pub(crate) async fn next<M: TryFrom<Seen, Error = Seen>>(&mut self) -> M {
        self.next_within(super::PATIENCE).await
    }

    /// As [`Self::next`], with a longer time-out.
    pub(crate) async fn next_within<M>(&mut self, limit: Duration) -> M
    where
        M: TryFrom<Seen, Error = Seen>,
    {
        let name = type_name::<M>();
        let next = tokio::time::timeout(limit, self.0.recv()).await;
        let Ok(seen) = next else {
            panic!("no {name} in {limit:?}");
        };
        match M::try_from(seen.expect("the probe runs")) {
            Ok(message) => message,
            Err(other) => panic!("{} instead of {name}", other.name()),
        }
    }

    /// Fails if another message comes before all actors are idle.
    pub(crate) async fn nothing(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(1), self.0.recv());
        if let Ok(Some(seen)) = next.await {
            panic!("{} instead of nothing", seen.name());
        }
    }
}

pub(crate) fn only<M: TryFrom<Seen>>(seen: Vec<Seen>) -> Vec<M> {
    seen.into_iter()
        .filter_map(|one| M::try_from(one).ok())
        .collect()
}
