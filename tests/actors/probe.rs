//! An actor that stands for any other: it keeps what it is told, in order, for the test to read.

use actix::prelude::*;
use postern::messages::connection::DomainStatusChanged;
use postern::messages::dns::{NameAnswered, ResolveName, ServeNames};
use postern::messages::nat_table::{AssignProxyIps, AttachClient, DetachClient, ReleaseResource};
use postern::messages::packets::{InboundPackets, OutboundDatagrams, OutboundPackets};
use postern::messages::portal::{
    CandidatesGathered, ConnectionAccepted, LeavePortal, RequestRelays,
};
use postern::messages::supervisor::{ChildDied, ConnectionClosed};
use postern::messages::tun::ConfigureInterface;
use postern::messages::udp::{AttachPeer, DetachPeer, FlushDatagrams, UseRelays};
use std::any::type_name;
use std::time::Duration;
use tokio::sync::mpsc;

/// Takes every message that [`Seen`] knows.
pub(crate) struct Probe {
    told: mpsc::UnboundedSender<Seen>,
}

/// What a [`Probe`] was told and the test has not looked at.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Seen>);

impl Probe {
    /// A running probe.
    pub(crate) fn start() -> (Addr<Self>, Inbox) {
        let (probe, inbox) = Self::new();
        (Actor::start(probe), inbox)
    }

    /// A probe for the test to start: until it runs, its mailbox fills.
    pub(crate) fn new() -> (Self, Inbox) {
        let (told, inbox) = mpsc::unbounded_channel();
        (Self { told }, Inbox(inbox))
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
        // A test that has ended reads no more.
        let _ = self.told.send(message.into());
    }
}

impl Inbox {
    /// The next message, which must be an `M`.
    pub(crate) async fn next<M: TryFrom<Seen, Error = Seen>>(&mut self) -> M {
        self.next_within(crate::PATIENCE).await
    }

    /// As [`Self::next`], for what takes its time.
    pub(crate) async fn next_within<M>(&mut self, limit: Duration) -> M
    where
        M: TryFrom<Seen, Error = Seen>,
    {
        let name = type_name::<M>();
        let next = tokio::time::timeout(limit, self.0.recv()).await;
        let Ok(seen) = next else {
            panic!("no {name} in {limit:?}");
        };
        match M::try_from(seen.expect("the probe lives")) {
            Ok(message) => message,
            Err(other) => panic!("{} instead of {name}", other.name()),
        }
    }

    /// Fails if anything else comes before all actors are idle.
    pub(crate) async fn nothing(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(1), self.0.recv());
        if let Ok(Some(seen)) = next.await {
            panic!("{} instead of nothing", seen.name());
        }
    }
}

macro_rules! seen {
    ($($message:ident),* $(,)?) => {
        /// Any message that an actor sends to another, except those to connections.
        pub(crate) enum Seen {
            $($message($message),)*
        }

        impl Seen {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$message(_) => stringify!($message),)*
                }
            }
        }

        $(
            impl From<$message> for Seen {
                fn from(message: $message) -> Self {
                    Self::$message(message)
                }
            }

            impl TryFrom<Seen> for $message {
                type Error = Seen;

                fn try_from(seen: Seen) -> Result<Self, Seen> {
                    if let Seen::$message(message) = seen {
                        Ok(message)
                    } else {
                        Err(seen)
                    }
                }
            }
        )*
    };
}

seen! {
    AssignProxyIps,
    AttachClient,
    AttachPeer,
    CandidatesGathered,
    ChildDied,
    ConfigureInterface,
    ConnectionAccepted,
    ConnectionClosed,
    DetachClient,
    DetachPeer,
    DomainStatusChanged,
    FlushDatagrams,
    InboundPackets,
    LeavePortal,
    NameAnswered,
    OutboundDatagrams,
    OutboundPackets,
    ReleaseResource,
    RequestRelays,
    ResolveName,
    ServeNames,
    UseRelays,
}
