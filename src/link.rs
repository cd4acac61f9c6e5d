//! The door from one actor of the data path to the next, through which the next may come back to
//! life.

use crate::messages::packets::Payload;
use crate::metrics::{Receiver, ShardMetrics};
use actix::prelude::*;
use postern_core::DropReason;
use std::collections::VecDeque;

/// Where packets go. While nobody is there, because the actor died and is being rebuilt, a few are
/// kept for its successor.
pub struct Link<M: Payload> {
    receiver: Receiver,
    to: Option<Recipient<M>>,
    kept: VecDeque<M>,
}

impl<M: Payload> Link<M> {
    /// A door to a receiver that is yet to come.
    #[must_use]
    pub fn nowhere(receiver: Receiver) -> Self {
        Self {
            receiver,
            to: None,
            kept: VecDeque::new(),
        }
    }

    /// A door to `to`, who is a `receiver`.
    #[must_use]
    pub fn new(receiver: Receiver, to: Recipient<M>) -> Self {
        Self {
            receiver,
            to: Some(to),
            kept: VecDeque::new(),
        }
    }

    /// Sends on the data path: never waits, never queues beyond the mailbox. What does not fit is
    /// counted.
    pub fn offer(&mut self, mut payload: M, metrics: &ShardMetrics) {
        payload.wait(metrics.mailboxes.enter(self.receiver));
        let Some(to) = self.to.as_ref().filter(|_| self.kept.is_empty()) else {
            return self.keep(payload, metrics);
        };
        match to.try_send(payload) {
            Ok(()) => {}
            Err(SendError::Full(lost)) => self.count(&lost, metrics),
            Err(SendError::Closed(payload)) => self.keep(payload, metrics),
        }
    }

    /// The successor is there: it gets what was kept, in order.
    pub fn lead_to(&mut self, to: Recipient<M>, metrics: &ShardMetrics) {
        self.to = Some(to);
        for payload in std::mem::take(&mut self.kept) {
            self.offer(payload, metrics);
        }
    }

    fn keep(&mut self, payload: M, metrics: &ShardMetrics) {
        if self.kept.len() < KEPT {
            self.kept.push_back(payload);
        } else {
            self.count(&payload, metrics);
        }
    }

    fn count(&self, lost: &M, metrics: &ShardMetrics) {
        let packets = lost.packets();
        metrics.count_drops(DropReason::MailboxFull, packets);
        metrics.mailboxes.count_overflow(self.receiver, packets);
    }
}

/// Batches kept for a successor: more than comes in the few milliseconds that it takes to build
/// one.
const KEPT: usize = 64;
