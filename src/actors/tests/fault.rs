//! Makes an actor panic from outside: through its log events, because actors have no other entry.

use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// While the guard exists, a warning under `target` on this thread panics.
pub(crate) fn panic_on_warnings_of(target: &'static str) -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(Fault { target }))
}

struct Fault {
    target: &'static str,
}

impl<S: Subscriber> Layer<S> for Fault {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let meant = metadata.target() == self.target && *metadata.level() == Level::WARN;
        assert!(!meant, "the fault that this test injects");
    }
}
