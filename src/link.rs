//! A sender between two actors of the data path that buffers a few batches while the receiver
//! restarts.

use crate::messages::control::Control;
use crate::messages::packets::Payload;
use crate::metrics::{Receiver, ShardMetrics};
use crate::post::Post;
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
            Err(SendError::Full(lost)) => self.drop_full(&lost, metrics),
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
            self.drop_full(&payload, metrics);
        }
    }

    /// Counts packets for which the receiver has no room.
    fn drop_full(&self, lost: &M, metrics: &ShardMetrics) {
        let packets = lost.packets();
        metrics.count_drops(DropReason::MailboxFull, packets);
        metrics.mailboxes.count_overflow(self.receiver, packets);
    }
}

/// Packets for a receiver that must know the commands before them.
pub struct GuardedLink<C: Control, M: Payload> {
    /// Keeps none: what the receiver has no room for is published again, whole.
    pub commands: Post<C>,
    packets: Link<M>,
}

impl<C: Control, M: Payload> GuardedLink<C, M> {
    pub fn new(receiver: Receiver, commands: Recipient<C>, packets: Recipient<M>) -> Self {
        Self {
            commands: Post::new(commands, 0),
            packets: Link::new(receiver, packets),
        }
    }

    /// As [`Link::offer`]. Packets are dropped and counted while the receiver lacks a command.
    pub fn offer(&mut self, payload: M, metrics: &ShardMetrics) {
        match self.commands.is_waiting() {
            true => self.packets.drop_full(&payload, metrics),
            false => self.packets.offer(payload, metrics),
        }
    }

    /// Sends the buffered batches to a restarted receiver, in order. It has got the commands.
    pub fn lead_to(&mut self, to: Recipient<M>, metrics: &ShardMetrics) {
        self.packets.lead_to(to, metrics);
    }
}

/// Batches buffered during a restart: more than arrive in the few milliseconds that it takes.
const KEPT: usize = 64;
