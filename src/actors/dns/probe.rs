//! Asks name servers periodically whether they answer.
//!
//! The query to the default servers is for the name servers of the root: every server answers it in
//! some way, and a refusal is an answer. Servers of suffixes are not asked: their failures show at
//! their names.

use super::DnsActor;
use super::resolver::Resolver;
use crate::messages::supervisor::HealthNews;
use crate::shell::{self, resend_later};
use actix::prelude::*;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use postern_core::health::ResolverState;
use postern_core::names::NameFailure;
use std::rc::Rc;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Probe {
    state: ResolverState,
    pending: Option<SpawnHandle>,
    is_asking: bool,
}

impl DnsActor {
    /// Asks now, and schedules the next query.
    pub(super) fn probe(&mut self, ctx: &mut Context<Self>) {
        let Some(probe) = self.probe.as_mut().filter(|probe| !probe.is_asking) else {
            return;
        };
        probe.is_asking = true;
        if let Some(pending) = probe.pending.take() {
            ctx.cancel_future(pending);
        }
        let answer = ask(Rc::clone(&self.resolver)).into_actor(self);
        ctx.spawn(answer.map(|state, actor, ctx| actor.note_probe(state, ctx)));
    }

    /// After a lookup without an answer: all servers may be gone.
    pub(super) fn suspect_silence(&mut self, ctx: &mut Context<Self>) {
        let state = self.probe.as_ref().map(|probe| probe.state);
        if state == Some(ResolverState::Answering) {
            self.probe(ctx);
        }
    }

    fn note_probe(&mut self, state: ResolverState, ctx: &mut Context<Self>) {
        let Some(probe) = &mut self.probe else {
            return;
        };
        probe.is_asking = false;
        if std::mem::replace(&mut probe.state, state) != state {
            self.news.tell(HealthNews::Resolver(state));
        }
        let after = match state {
            ResolverState::Answering => WHILE_WELL,
            ResolverState::Unproven | ResolverState::Silent => WHILE_SILENT,
        };
        probe.pending = Some(ctx.run_later(after, |actor, ctx| {
            if let Some(probe) = &mut actor.probe {
                probe.pending = None;
            }
            actor.probe(ctx);
        }));
        resend_later(self, ctx);
    }
}

async fn ask(resolver: Rc<Resolver>) -> ResolverState {
    let query = Query::query(Name::root(), RecordType::NS);
    match resolver.ask(&query, shell::now() + PATIENCE).await {
        Ok(_) => ResolverState::Answering,
        Err(failure) => match failure {
            NameFailure::NoSuchName | NameFailure::NoData | NameFailure::ServerFailure => {
                ResolverState::Answering
            }
            NameFailure::Timeout | NameFailure::Network | NameFailure::Quota => {
                ResolverState::Silent
            }
        },
    }
}

/// One question in ten seconds is nothing to a server.
const WHILE_WELL: Duration = Duration::from_secs(10);
/// A server that comes back is noticed soon.
const WHILE_SILENT: Duration = Duration::from_secs(2);
/// Shorter than for a client's lookup, so that a dead server is reported soon.
const PATIENCE: Duration = Duration::from_millis(2500);
