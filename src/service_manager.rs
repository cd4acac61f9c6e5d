//! Reports to systemd, or another service manager: started, health, configuration reloaded,
//! stopping, alive.
//!
//! Each message is a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). If that is
//! not set, sends nothing.

use sd_notify::NotifyState;
use std::io;
use std::time::Duration;

/// Sends messages in one datagram.
pub type Notify = Box<dyn Fn(&[NotifyState<'_>]) -> io::Result<()> + Send>;

/// The service manager that has started this process, if any.
pub struct ServiceManager {
    /// `None` if there is no service manager.
    notify: Option<Notify>,
    /// Time after which it ends a gateway that does not report.
    watchdog: Option<Duration>,
    status: String,
    is_ready: bool,
    is_reloading: bool,
    is_failing: bool,
}

impl ServiceManager {
    /// The service manager that the environment names.
    pub fn of_environment() -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => Self::new(Box::new(sd_notify::notify), sd_notify::watchdog_enabled()),
            None => Self::none(),
        }
    }

    /// A service manager that `notify` reaches and that expects a report within each `watchdog`.
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

    /// No service manager: sends nothing.
    pub fn none() -> Self {
        Self {
            notify: None,
            ..Self::new(Box::new(|_| Ok(())), None)
        }
    }

    /// How often to report the health; `None` without a service manager. Several times in the time
    /// of the watchdog: an actor that is being replaced costs one report.
    pub fn interval(&self) -> Option<Duration> {
        self.notify.as_ref()?;
        let for_watchdog = self
            .watchdog
            .map(|watchdog| watchdog / REPORTS_PER_WATCHDOG);
        Some(for_watchdog.map_or(STATUS_EVERY, |it| it.min(STATUS_EVERY)))
    }

    /// Reports whether all actors answer, and the health in one line. When all answer for the first
    /// time, the gateway has started: its sockets are bound, its interface exists.
    pub fn note_health(&mut self, is_live: bool, status: &str) {
        if is_live && !std::mem::replace(&mut self.is_ready, true) {
            self.send(&[NotifyState::Ready]);
        }
        if self.is_ready && self.status != status {
            status.clone_into(&mut self.status);
            self.send(&[NotifyState::Status(status)]);
        }
        if is_live && self.watchdog.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    /// Reports the begin of a reload of the configuration. A gateway that has not started sends
    /// nothing: the message that ends a reload would mean that it has started.
    pub fn note_reload_began(&mut self) {
        if self.is_ready && self.notify.is_some() {
            self.is_reloading = true;
            match NotifyState::monotonic_usec_now() {
                Ok(now) => self.send(&[NotifyState::Reloading, now]),
                Err(_) => self.send(&[NotifyState::Reloading]),
            }
        }
    }

    /// Reports the end of a reload, successful or not.
    pub fn note_reloaded(&mut self) {
        if std::mem::take(&mut self.is_reloading) {
            self.send(&[NotifyState::Ready]);
        }
    }

    /// Reports that the gateway stops.
    pub fn note_stopping(&mut self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Logs the first of several failures in a row.
    fn send(&mut self, messages: &[NotifyState<'_>]) {
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

const REPORTS_PER_WATCHDOG: u32 = 4;
/// Longest delay of a change in the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);
