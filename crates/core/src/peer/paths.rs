//! The paths to one client: which one its datagrams take, and which one was reported.
//!
//! Packets go to the path that ICE nominated last. Before the first nomination, and while the
//! nominated path is silent but the client is heard on another, they go to the path of its last
//! authentic WireGuard message (the client accepts them from anywhere, docs/protocol.md 8.1).

use crate::packet::Path;
use std::time::{Duration, Instant};

/// See the module's documentation.
pub(crate) struct Paths {
    nominated: Option<Nominated>,
    /// When the client last checked the path that was the nominated one then.
    client_checked: Option<Instant>,
    /// The path of the last authentic WireGuard message, or the former peer's.
    authentic: Option<Path>,
    /// When the last authentic WireGuard message arrived.
    authentic_heard: Option<Instant>,
    /// The path that was last reported.
    in_use: Option<Path>,
    /// Until when no other path is reported.
    quiet_until: Instant,
}

struct Nominated {
    path: Path,
    /// When the client was last heard on it.
    heard: Instant,
}

/// Whether to tell the owner which path is in use.
pub(crate) enum Report {
    /// It is the one that was reported last.
    Unchanged,
    /// It is another, to be reported at this time if it still is.
    Later(Instant),
    /// Report this path; `None` if there is none left.
    Now(Option<Path>),
}

impl Paths {
    /// No path, or that of a former peer.
    pub(crate) fn new(former: Option<Path>, now: Instant) -> Self {
        Self {
            nominated: None,
            client_checked: None,
            authentic: former,
            authentic_heard: None,
            in_use: former,
            quiet_until: now,
        }
    }

    /// The path for the client's datagrams.
    pub(crate) fn current(&self, now: Instant) -> Option<Path> {
        match (&self.nominated, self.authentic) {
            (Some(nominated), Some(alive)) if nominated.is_silent(now) => Some(alive),
            (nominated, alive) => nominated.as_ref().map(|it| it.path).or(alive),
        }
    }

    /// The path that ICE nominated last.
    pub(crate) fn nominated(&self) -> Option<Path> {
        self.nominated.as_ref().map(|nominated| nominated.path)
    }

    /// The path that was last reported.
    pub(crate) fn in_use(&self) -> Option<Path> {
        self.in_use
    }

    /// When the last authentic WireGuard message arrived.
    pub(crate) fn authentic_heard(&self) -> Option<Instant> {
        self.authentic_heard
    }

    /// ICE nominated `path`. Returns whether it is another than before.
    pub(crate) fn nominate(&mut self, path: Path, now: Instant) -> bool {
        let nominated = Nominated { path, heard: now };
        let before = self.nominated.replace(nominated);
        before.is_none_or(|before| before.path != path)
    }

    /// No nominated path works any longer.
    pub(crate) fn forget_nominated(&mut self) {
        self.nominated = None;
    }

    /// An authentic WireGuard message arrived on `path`.
    pub(crate) fn note_authentic(&mut self, path: Path, now: Instant) {
        self.authentic = Some(path);
        self.authentic_heard = Some(now);
    }

    /// The client was heard on `path`, by WireGuard or by ICE.
    pub(crate) fn note_heard(&mut self, path: Path, now: Instant) {
        if let Some(nominated) = self.nominated.as_mut().filter(|it| it.path == path) {
            nominated.heard = now;
        }
    }

    /// The client's ICE agent checked `path`.
    pub(crate) fn note_checked(&mut self, path: Path, now: Instant) {
        if self.nominated() == Some(path) {
            self.client_checked = Some(now);
        }
    }

    /// Whether the client keeps checking the nominated path.
    pub(crate) fn is_checked(&self, now: Instant) -> bool {
        let checked = self.client_checked;
        checked.is_some_and(|at| now.saturating_duration_since(at) < CLIENT_CHECKS_WITHIN)
    }

    /// What to tell the owner; a path that is to be reported now counts as reported.
    pub(crate) fn report(&mut self, now: Instant) -> Report {
        let path = self.current(now);
        if path == self.in_use {
            return Report::Unchanged;
        }
        if self.quiet_until > now {
            return Report::Later(self.quiet_until);
        }
        self.in_use = path;
        self.quiet_until = now + REPORT_PAUSE;
        Report::Now(path)
    }
}

impl Nominated {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > NOMINATED_SILENCE
    }
}

/// The shortest time between two reports.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// A client checks its path at least every 25 s (docs/protocol.md 3.3.1), and a check may be late.
const CLIENT_CHECKS_WITHIN: Duration = Duration::from_secs(30);
/// Longer than the gap between a client's checks on a path that it uses (1.5 s while active), with
/// a margin for two lost checks; far shorter than the time after which ICE alone would notice.
pub(crate) const NOMINATED_SILENCE: Duration = Duration::from_secs(5);
