//! Watches the one thread that the watchdog cannot: the supervisor's own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ends the process from a thread of its own when `alive` is not set for a long time. The next
/// process takes the clients over.
pub(crate) fn watch(alive: Arc<AtomicBool>) -> io::Result<()> {
    let watch = move || {
        // Twice in a row: a process that was frozen as a whole wakes up with one missed sign.
        let mut missed = 0;
        while missed < 2 {
            std::thread::park_timeout(PATIENCE);
            let is_alive = alive.swap(false, Ordering::Relaxed);
            missed = if is_alive { 0 } else { missed + 1 };
        }
        tracing::error!("the supervisor's thread is stuck, the process ends");
        std::process::exit(EXIT_STUCK);
    };
    let name = "heartbeat".to_owned();
    std::thread::Builder::new().name(name).spawn(watch)?;
    Ok(())
}

/// Ten heartbeats of the supervisor.
const PATIENCE: Duration = Duration::from_secs(10);
/// As for a supervisor that dies.
const EXIT_STUCK: i32 = 70;
