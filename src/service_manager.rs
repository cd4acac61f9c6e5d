//! What the gateway tells systemd, or whoever else has started it: that it has started, how it is,
//! that it reads its configuration, that it stops, and that it is alive.
//!
//! The protocol is a datagram for each message, to the socket that `NOTIFY_SOCKET` names
//! (sd_notify(3)). Where that is not set nothing happens.

use sd_notify::NotifyState;
use std::io;
use std::time::Duration;

/// Sends messages, each as one datagram.
pub type Notify = Box<dyn Fn(&[NotifyState<'_>]) -> io::Result<()> + Send>;

/// See the module's documentation.
pub struct ServiceManager {
    /// `None` when nobody listens.
    notify: Option<Notify>,
    /// Ends the gateway when it hears nothing for so long.
    watchdog: Option<Duration>,
    status: String,
    is_ready: bool,
    is_reloading: bool,
    is_failing: bool,
}

impl ServiceManager {
    /// The one that the environment names.
    #[must_use]
    pub fn of_environment() -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => Self::new(Box::new(sd_notify::notify), sd_notify::watchdog_enabled()),
            None => Self::nobody(),
        }
    }

    /// One that is told by `notify`, and hears the gateway at least once in `watchdog`.
    #[must_use]
    pub fn new(notify: Notify, watchdog: Option<Duration>) -> Self {
        Self {
            notify: Some(notify),
            watchdog,
            status: String::new(),
            is_ready: false,
            is_reloading: false,
            is_failing: false,
        }
    }

    /// Nobody is told anything.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            notify: None,
            ..Self::new(Box::new(|_| Ok(())), None)
        }
    }

    /// How often it wants to know; `None` when it does not. Often enough that an actor which is
    /// being replaced at that moment costs one of several chances.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.notify.as_ref()?;
        let for_watchdog = self.watchdog.map(|watchdog| watchdog / CHANCES);
        Some(for_watchdog.map_or(STATUS_EVERY, |it| it.min(STATUS_EVERY)))
    }

    /// Whether all actors answer, and how the gateway is in one line. The first time that all do,
    /// the gateway has started: its sockets are bound, its interface is there.
    pub fn note_health(&mut self, everybody_answers: bool, status: &str) {
        if everybody_answers && !std::mem::replace(&mut self.is_ready, true) {
            self.tell(&[NotifyState::Ready]);
        }
        if self.is_ready && self.status != status {
            status.clone_into(&mut self.status);
            self.tell(&[NotifyState::Status(status)]);
        }
        if everybody_answers && self.watchdog.is_some() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// The configuration is being read again. A gateway that has not started yet has nothing to
    /// say: the word that ends a reload would mean that it has.
    pub fn note_reload_began(&mut self) {
        if self.is_ready && self.notify.is_some() {
            self.is_reloading = true;
            match NotifyState::monotonic_usec_now() {
                Ok(now) => self.tell(&[NotifyState::Reloading, now]),
                Err(_) => self.tell(&[NotifyState::Reloading]),
            }
        }
    }

    /// And that is done, well or not.
    pub fn note_reloaded(&mut self) {
        if std::mem::take(&mut self.is_reloading) {
            self.tell(&[NotifyState::Ready]);
        }
    }

    /// The gateway ends.
    pub fn note_stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// A failure is said once: it would come again with every message.
    fn tell(&mut self, messages: &[NotifyState<'_>]) {
        let Some(notify) = &self.notify else { return };
        let result = notify(messages);
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        if let Err(error) = result
            && !was_failing
        {
            tracing::warn!(%error, "the service manager cannot be told anything");
        }
    }
}

/// Times that the watchdog is fed in the time that it is patient.
const CHANCES: u32 = 4;
/// How soon a change shows in the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);
