//! Shutdown: goodbyes, or a handover to the next process.

use super::SupervisorActor;
use crate::actors::connection::ConnectionActor;
use crate::actors::udp::UdpActor;
use crate::messages::connection::ConnectionCommand;
use crate::messages::portal::PortalCommand;
use crate::messages::supervisor::{Shutdown, ShutdownMode};
use crate::messages::udp::UdpSetup;
use actix::prelude::*;
use futures_util::future::join_all;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Handler<Shutdown> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, shutdown: Shutdown, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.supervision.handle_stop();
        let Shutdown { exit_code, mode } = shutdown;
        let is_handed_over = mode == ShutdownMode::HandOver && self.hand_over(exit_code);
        self.spec.service_manager.note_stopping();
        let clients = self.supervision.clients().len();
        tracing::info!(clients, exit_code, is_handed_over, "stopping");
        let connections = match is_handed_over {
            true => Vec::new(),
            false => {
                self.forget_state();
                let all = self.connections();
                all.map(|(_, connection)| connection.clone()).collect()
            }
        };
        let goodbyes = say_goodbye(connections);
        let shards = self.tree.shards.iter();
        let udps = shards.filter_map(|shard| shard.udp.as_ref());
        let flushes: Vec<_> = udps.map(|udp| udp.setup.recipient()).collect();
        let portal = self.tree.portal.as_ref();
        let portal = portal.map(|portal| portal.commands.recipient());
        let mode = async move {
            // Each step has a time-out: the process must end within 2 s.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbyes).await;
            let flushed = join_all(flushes.iter().map(|flush| flush.send(UdpSetup::Flush)));
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
            if let Some(portal) = portal {
                let left = portal.send(PortalCommand::Leave);
                let _ = tokio::time::timeout(LEAVE_TIMEOUT, left).await;
            }
        };
        ctx.spawn(mode.into_actor(self).map(move |(), actor, _| {
            if is_handed_over {
                actor.save_at_the_end();
            }
            actor.report_drops();
            tracing::info!("goodbye");
            System::current().stop_with_code(exit_code);
        }));
    }
}

impl SupervisorActor {
    /// Saves the state for the next process, if that can use it.
    fn hand_over(&mut self, exit_code: i32) -> bool {
        let is_saved = self.save_for_successor(exit_code);
        self.spec.handed_over.store(is_saved, Ordering::Relaxed);
        is_saved
    }

    fn report_drops(&self) {
        for (reason, packets) in self.spec.metrics.drops() {
            tracing::info!(?reason, packets, "dropped");
        }
    }
}

/// In batches that fit into the mailbox of the UdpActor, which receives each goodbye.
async fn say_goodbye(connections: Vec<Addr<ConnectionActor>>) {
    for batch in connections.chunks(UdpActor::MAILBOX / 2) {
        join_all(batch.iter().map(|it| it.send(ConnectionCommand::Close))).await;
    }
}

const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
