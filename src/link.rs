//! A sender between two actors of the data path that buffers a few batches while the receiver
//! restarts.

use crate::messages::packets::Payload;
use crate::metrics::{Receiver, ShardMetrics};
use actix::prelude::*;
use postern_core::DropReason;
use std::collections::VecDeque;

/// Sends packets to one receiver.
pub struct Link<M: Payload> {
    receiver: Receiver,
    to: Option<Recipient<M>>,
    kept: VecDeque<M>,
}

impl<M: Payload> Link<M> {
    /// For a receiver that has not been started yet.
    pub fn nowhere(receiver: Receiver) -> Self {
        Self {
            receiver,
            to: None,
            kept: VecDeque::new(),
        }
    }

    pub fn new(receiver: Receiver, to: Recipient<M>) -> Self {
        Self {
            receiver,
            to: Some(to),
            kept: VecDeque::new(),
        }
    }

    /// Never waits, and never queues beyond the mailbox: packets that do not fit are dropped and
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

    /// Sends the buffered batches to a restarted receiver, in order.
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

/// Batches buffered during a restart: more than arrive in the few milliseconds that it takes.
const KEPT: usize = 64;
