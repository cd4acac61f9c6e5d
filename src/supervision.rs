//! What ties an actor to its supervisor: how it is started, how its death is told, and the ping
//! that it answers while it lives.
//!
//! A panic unwinds one actor: tokio catches it at the edge of the actor's task, and the actor's
//! fields are dropped on the way. One of them is a [`DeathNotice`], which tells the supervisor. An
//! actor that is stuck instead is ended from outside by its [`AbortHandle`], which drops it whole.

use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId};
use actix::dev::channel;
use actix::prelude::*;
use futures_util::future::{AbortHandle, Abortable};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::PanicHookInfo;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

/// Answered by every actor that the watchdog looks after, in the order of its mailbox.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Ping;

/// Makes an actor one that can be supervised: it answers [`Ping`] and, in builds that can break
/// themselves, takes faults.
macro_rules! supervised {
    ($actor:ident, $kind:literal) => {
        impl actix::Handler<$crate::supervision::Ping> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::supervision::Ping, _: &mut actix::Context<Self>) {}
        }

        $crate::faults::injectable!($actor, $kind);
    };
}
pub(crate) use supervised;

/// Which life a thread is busy with just now; 0 when with none.
#[derive(Clone, Debug, Default)]
pub struct RunningInstance(Arc<AtomicU64>);

impl RunningInstance {
    /// The life whose code runs at this moment, or ran for ever.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        let instance = self.0.load(Ordering::Relaxed);
        (instance != 0).then_some(InstanceId(instance))
    }
}

/// Starts an actor on the thread of `arbiter`; its address is good at once. While its code runs,
/// `mark` says so.
///
/// An actor that cannot be built has died: the [`DeathNotice`] that `build` holds says so.
pub fn launch<A>(
    arbiter: &ArbiterHandle,
    (mark, instance): (&RunningInstance, InstanceId),
    mailbox: usize,
    build: impl FnOnce(&mut Context<A>) -> io::Result<A> + Send + 'static,
) -> (Addr<A>, AbortHandle)
where
    A: Actor<Context = Context<A>>,
{
    let (sender, receiver) = channel::channel(mailbox);
    let (abort, registration) = AbortHandle::new_pair();
    let mark = mark.clone();
    // A thread that is gone drops the closure, and with it the death notice.
    arbiter.spawn_fn(move || {
        let mut context = Context::with_receiver(receiver);
        let built = at_work((&mark, instance), || build(&mut context));
        match built {
            Ok(actor) => {
                let whole = Abortable::new(context.into_future(actor), registration);
                actix_rt::spawn(AtWork {
                    future: Box::pin(whole),
                    mark,
                    instance,
                });
            }
            Err(error) => tracing::error!(%error, "an actor cannot be started"),
        }
    });
    (Addr::new(sender), abort)
}

/// Tells the supervisor when the actor that holds it is gone, however that came about: `Drop` runs
/// while the actor unwinds.
pub struct DeathNotice {
    child: Child,
    instance: InstanceId,
    supervisor: Recipient<ChildDied>,
}

impl DeathNotice {
    /// To be held in a field of the actor.
    #[must_use]
    pub fn new(child: Child, instance: InstanceId, supervisor: Recipient<ChildDied>) -> Self {
        Self {
            child,
            instance,
            supervisor,
        }
    }

    /// Which life this is.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl Drop for DeathNotice {
    #[expect(
        clippy::disallowed_methods,
        reason = "a death must not get lost because the supervisor's mailbox is full"
    )]
    fn drop(&mut self) {
        let cause = match std::thread::panicking() {
            true => DeathCause::Panicked(LAST_PANIC.take().unwrap_or_default()),
            false => DeathCause::Stopped,
        };
        self.supervisor.do_send(ChildDied {
            child: self.child,
            instance: self.instance,
            cause,
        });
    }
}

/// Held by the actor that nobody supervises: should it panic, the process ends.
pub struct ExitGuard {
    /// With this code.
    pub exit_code: i32,
    /// Set then, if the next process finds what it needs.
    pub handed_over: Option<Arc<AtomicBool>>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let report = LAST_PANIC.take().unwrap_or_default();
            tracing::error!(
                panic = report.message,
                at = report.location,
                "supervisor died"
            );
            if let Some(handed_over) = &self.handed_over {
                handed_over.store(true, Ordering::Relaxed);
            }
            System::current().stop_with_code(self.exit_code);
        }
    }
}

/// What a panic said, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PanicReport {
    /// The message, cut to 300 characters.
    pub message: String,
    /// `file:line`.
    pub location: String,
}

/// A panic of an actor is one line of the supervisor's, not one of the runtime's as well. Panics
/// elsewhere are logged here. To be called once, before any actor is started.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let report = PanicReport::of(info);
        if AT_WORK.get() {
            LAST_PANIC.set(Some(report));
        } else {
            tracing::error!(panic = report.message, at = report.location, "panicked");
        }
    }));
}

impl PanicReport {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let message = info.payload_as_str().unwrap_or("no message");
        let location = info
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()));
        Self {
            message: message.chars().take(PANIC_CHARS).collect(),
            location: location.unwrap_or_default(),
        }
    }
}

/// An actor's future; during its polls the actor is at work on this thread.
struct AtWork<F> {
    future: Pin<Box<F>>,
    mark: RunningInstance,
    instance: InstanceId,
}

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

fn at_work<T>((mark, instance): (&RunningInstance, InstanceId), work: impl FnOnce() -> T) -> T {
    struct Reset<'a>(bool, &'a RunningInstance, u64);
    impl Drop for Reset<'_> {
        fn drop(&mut self) {
            AT_WORK.set(self.0);
            self.1.0.store(self.2, Ordering::Relaxed);
        }
    }
    let before = mark.0.swap(instance.0, Ordering::Relaxed);
    let _reset = Reset(AT_WORK.replace(true), mark, before);
    work()
}

impl<F: Future> Future for AtWork<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        at_work((&this.mark, this.instance), || {
            this.future.as_mut().poll(cx)
        })
    }
}

/// Longer messages are cut.
const PANIC_CHARS: usize = 300;
