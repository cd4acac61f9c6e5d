//! Answers `postern why`: collects the facts from the actors; the core judges them.

use super::SupervisorActor;
use crate::messages::diagnosis::{Diagnosis, ExplainAccess, ExplainName};
use crate::messages::supervisor::Child;
use crate::shell;
use actix::prelude::*;
use futures_util::future::join;
use postern_core::connection::ConnectionFacts;
use postern_core::diagnosis::{
    ClientFacts, ClientMatch, Facts, GatewayFacts, Report, Response, Subject, diagnose, identify,
};
use postern_core::grant::TunnelAddresses;
use postern_core::health::PortalState;
use postern_core::ids::ClientId;
use postern_core::nat_table::NatFacts;
use postern_core::supervision::FRONT;
use postern_core::target::Target;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

impl Handler<Diagnosis> for SupervisorActor {
    type Result = ResponseActFuture<Self, Report>;

    fn handle(&mut self, question: Diagnosis, _: &mut Context<Self>) -> Self::Result {
        self.note_ended();
        let subject = match identify(&question.client, &self.known_clients()) {
            ClientMatch::One(id) => return self.examine_client(id, question),
            ClientMatch::Several(ids) => Subject::Ambiguous(ids),
            ClientMatch::None { nearest } => Subject::Unknown {
                nearest,
                served: self.supervision.clients().len(),
            },
        };
        let report = diagnose(&self.facts(question, subject));
        Box::pin(actix::fut::ready(report))
    }
}

impl SupervisorActor {
    /// Moves ended clients and grants from the ledger into the journal, with the time.
    pub(super) fn note_ended(&mut self) {
        for ended in self.spec.ledger.take_ended() {
            self.journal.note(ended, shell::unix_now());
        }
    }

    /// All clients that are served, wait to be restored, or were served lately. For an id with
    /// several addresses the last of these sources in this order counts: journal, ledger, clients.
    fn known_clients(&self) -> BTreeMap<ClientId, TunnelAddresses> {
        let former = self.journal.latest().map(|it| (it.client, it.tunnel));
        let former: Vec<_> = former.collect();
        // The journal has the latest first; here the latest must come last.
        let former = former.into_iter().rev();
        let recorded = self.spec.ledger.clients().map(|(id, it)| (id, it.tunnel));
        let served = self.supervision.clients();
        let served = served.map(|(id, client)| (id, client.tunnel));
        former.chain(recorded).chain(served).collect()
    }

    /// Asks the client's connection and the NAT at the same time.
    fn examine_client(&self, id: ClientId, question: Diagnosis) -> ResponseActFuture<Self, Report> {
        let access = self.ask_connection(id, question.target.clone());
        let name = self.ask_nat_table(id, question.target.clone());
        let answers = join(access, name).into_actor(self);
        Box::pin(answers.map(move |(connection, nat), actor, _| {
            let client = actor.client_facts(id, connection, nat);
            diagnose(&actor.facts(question, Subject::Client(Box::new(client))))
        }))
    }

    fn ask_connection(
        &self,
        id: ClientId,
        target: Target,
    ) -> impl Future<Output = Response<ConnectionFacts>> + use<> {
        let connection = match (self.supervision.client(id), self.connection(id)) {
            (None, _) => Err(Response::Absent),
            (Some(_), Some(connection)) => Ok(connection.clone()),
            (Some(_), None) => Err(Response::Restarting),
        };
        async move {
            match connection {
                Ok(connection) => ask(connection.send(ExplainAccess(target)), |it| it.0).await,
                Err(told) => told,
            }
        }
    }

    fn ask_nat_table(
        &self,
        client: ClientId,
        target: Target,
    ) -> impl Future<Output = Response<NatFacts>> + use<> {
        let known = self.supervision.client(client);
        let shard = known.map_or(FRONT, |client| client.index.shard());
        let is_running = self.supervision.is_running(Child::NatTable(shard));
        let links = self.tree.shard(shard).nat_table.as_ref();
        let links = links.filter(|_| is_running);
        let nat_table = links.map(|links| links.explain.clone());
        async move {
            match nat_table {
                Some(it) => ask(it.send(ExplainName { client, target }), |it| it.0).await,
                None => Response::Restarting,
            }
        }
    }

    fn client_facts(
        &self,
        id: ClientId,
        connection: Response<ConnectionFacts>,
        nat: Response<NatFacts>,
    ) -> ClientFacts {
        let record = self.spec.ledger.client(id);
        let ended = self.journal.latest().filter(|it| it.client == id);
        ClientFacts {
            id,
            tunnel: self.known_clients().get(&id).copied(),
            cut_off_for: self.supervision.cut_off_for(id, shell::now()),
            connection,
            nat,
            grants: record.map_or(Vec::new(), |it| {
                it.authorizations.grants().values().cloned().collect()
            }),
            ended: ended.cloned().collect(),
        }
    }

    fn facts(&self, question: Diagnosis, client: Subject) -> Facts {
        let unix_now = shell::unix_now();
        let away = match self.health_state.portal {
            PortalState::Joined => None,
            PortalState::NeverJoined | PortalState::Away => Some(self.health_state.portal_since),
        };
        Facts {
            asked: question.client,
            target: question.target,
            client,
            gateway: GatewayFacts {
                is_draining: self.supervision.drain().is_some() || self.stopping,
                portal_away: away
                    .map(|since| Duration::from_secs(unix_now.0.saturating_sub(since.0))),
            },
            unix_now,
        }
    }
}

/// A closed mailbox means that the actor is being restarted.
async fn ask<T, U>(
    answer: impl Future<Output = Result<T, MailboxError>>,
    into: impl FnOnce(T) -> U,
) -> Response<U> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Response::Answer(into(answer)),
        Ok(Err(MailboxError::Closed)) => Response::Restarting,
        Ok(Err(MailboxError::Timeout)) | Err(_) => Response::Timeout,
    }
}

/// A healthy actor answers within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
