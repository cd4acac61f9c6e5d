//! The ties between an actor and its supervisor: launching it, the notice of its death, and the
//! ping that it answers.
//!
//! A panic unwinds one actor: tokio catches it at the edge of the actor's task, and the actor's
//! fields are dropped on the way. One of them is a [`DeathNotice`], which notifies the supervisor.
//! A stuck actor is ended from outside by its [`AbortHandle`], which drops it whole.
//!
//! The `JoinHandle` of the task does not replace the notice: there is none before the actor is
//! built, it has no place of a panic, and it comes in no order with the actor's last messages
//! (ARCHITECTURE.md 16.63).

use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId, PanicReport};
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

/// The watchdog's question; each actor answers it in the order of its mailbox.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Ping;

/// Implements for an actor what supervision needs: the answer to [`Ping`] and, with fault
/// injection, the handler for faults.
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

/// The instance that a thread is polling; 0 for none.
#[derive(Clone, Debug, Default)]
pub struct RunningInstance(Arc<AtomicU64>);

impl RunningInstance {
    /// The instance that runs on the thread now, or in which the thread is stuck.
    pub fn instance(&self) -> Option<InstanceId> {
        let instance = self.0.load(Ordering::Relaxed);
        (instance != 0).then_some(InstanceId(instance))
    }

    /// What marks the thread while it polls `instance`.
    pub fn mark(&self, instance: InstanceId) -> Mark {
        let running = self.clone();
        Mark { running, instance }
    }
}

/// An instance, and where its thread shows that it polls it.
pub struct Mark {
    running: RunningInstance,
    instance: InstanceId,
}

impl Mark {
    /// The thread counts as at work for the instance until `work` returns or panics.
    fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Reset<'a>(bool, &'a RunningInstance, u64);
        impl Drop for Reset<'_> {
            fn drop(&mut self) {
                AT_WORK.set(self.0);
                self.1.0.store(self.2, Ordering::Relaxed);
            }
        }
        let Self { running, instance } = self;
        let before = running.0.swap(instance.0, Ordering::Relaxed);
        let _reset = Reset(AT_WORK.replace(true), running, before);
        work()
    }
}

/// Starts an actor on the thread of `arbiter`; its address is usable immediately. While the actor
/// is polled, the thread carries `mark`.
///
/// Actors are launched by hand, not by actix's `start`, because the supervisor must be able to drop
/// them. If `build` fails, the [`DeathNotice`] that it owns is dropped and reports a death.
pub fn launch<A>(
    arbiter: &ArbiterHandle,
    mark: Mark,
    mailbox: usize,
    build: impl FnOnce(&mut Context<A>) -> io::Result<A> + Send + 'static,
) -> (Addr<A>, AbortHandle)
where
    A: Actor<Context = Context<A>>,
{
    let (sender, receiver) = channel::channel(mailbox);
    let (abort, registration) = AbortHandle::new_pair();
    // An ended thread drops the closure, and with it the death notice.
    arbiter.spawn_fn(move || {
        let mut context = Context::with_receiver(receiver);
        let built = mark.at_work(|| build(&mut context));
        match built {
            Ok(actor) => {
                let whole = Abortable::new(context.into_future(actor), registration);
                actix_rt::spawn(AtWork {
                    future: Box::pin(whole),
                    mark,
                });
            }
            Err(error) => tracing::error!(%error, "an actor cannot be started"),
        }
    });
    (Addr::new(sender), abort)
}

/// Notifies the supervisor when its actor stops, panics or is dropped: `Drop` runs while the actor
/// unwinds.
pub struct DeathNotice {
    child: Child,
    instance: InstanceId,
    supervisor: Recipient<ChildDied>,
}

impl DeathNotice {
    /// The actor holds the notice in a field.
    pub fn new(child: Child, instance: InstanceId, supervisor: Recipient<ChildDied>) -> Self {
        Self {
            child,
            instance,
            supervisor,
        }
    }

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

/// Held by the supervisor, which has no supervisor: its panic ends the process.
pub struct ExitGuard {
    pub exit_code: i32,
    /// Set on a panic if the next process finds a saved state.
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

/// Installs the panic hook: the supervisor logs panics of actors, the hook those elsewhere. Called
/// once, before any actor is started.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let report = describe(info);
        if AT_WORK.get() {
            LAST_PANIC.set(Some(report));
        } else {
            tracing::error!(panic = report.message, at = report.location, "panicked");
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> PanicReport {
    let message = info.payload_as_str().unwrap_or("no message");
    let location = info
        .location()
        .map(|at| format!("{}:{}", at.file(), at.line()));
    PanicReport {
        message: message.chars().take(PANIC_CHARS).collect(),
        location: location.unwrap_or_default(),
    }
}

/// An actor's future. While it is polled, the thread counts as at work for that instance.
struct AtWork<F> {
    future: Pin<Box<F>>,
    mark: Mark,
}

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

impl<F: Future> Future for AtWork<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let future = this.future.as_mut();
        this.mark.at_work(|| future.poll(cx))
    }
}

/// Longer messages are cut.
const PANIC_CHARS: usize = 300;
