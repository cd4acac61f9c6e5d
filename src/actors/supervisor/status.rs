//! Answers `postern status`: collects the state of the actors and the clients.

use super::SupervisorActor;
use crate::actors::connection::ConnectionActor;
use crate::messages::connection::DescribeConnection;
use crate::messages::operator::GatewayStatus;
use crate::messages::reload::{ReloadOutcome, ReloadReport};
use crate::messages::reports::{
    ActorReport, ClientReport, HealthReport, PortalReport, ReloadSummary, ResourceReport,
    StatusReport, TrafficReport,
};
use crate::metrics::ActorCounters;
use crate::shell;
use actix::prelude::*;
use futures_util::future::join_all;
use postern_core::authorizations::Grant;
use postern_core::connection::{ConnectionStats, TrafficStats};
use postern_core::grant::ResourceKind;
use postern_core::health::PortalState;
use postern_core::ids::ClientId;
use postern_core::ledger::ClientRecord;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

impl Handler<GatewayStatus> for SupervisorActor {
    type Result = ResponseActFuture<Self, StatusReport>;

    fn handle(&mut self, query: GatewayStatus, _: &mut Context<Self>) -> Self::Result {
        let health = self.examine();
        let clients = self.describe_clients(query.clients);
        let report = health.then(move |health, actor: &mut Self, _| {
            clients
                .into_actor(actor)
                .map(move |clients, actor: &mut Self, _| actor.status(health, clients))
        });
        Box::pin(report)
    }
}

impl SupervisorActor {
    /// Asks the connections of the first `limit` clients for their stats; `None` for a connection
    /// that does not answer in time.
    pub(super) fn describe_clients(
        &self,
        limit: usize,
    ) -> impl Future<Output = Vec<(ClientId, Option<ConnectionStats>)>> + use<> {
        let all = self.connections().take(limit);
        let asked: Vec<_> = all
            .map(|(id, connection)| describe(id, connection.clone()))
            .collect();
        join_all(asked)
    }

    fn status(
        &self,
        health: HealthReport,
        clients: Vec<(ClientId, Option<ConnectionStats>)>,
    ) -> StatusReport {
        let ledger = &self.spec.ledger;
        let tunnel = ledger
            .gateway()
            .map(|it| vec![it.ipv4.into(), it.ipv6.into()]);
        let described = clients.into_iter().map(|(id, stats)| {
            let record = ledger.client(id).map(AsRef::as_ref);
            client_report(id, record, stats)
        });
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.health_state.started_at.0,
            now: shell::unix_now().0,
            health,
            portal: PortalReport {
                state: portal_word(&self.health_state.portal).to_owned(),
                since: self.health_state.portal_since.0,
                relays: self.relays.len(),
            },
            tunnel: tunnel.unwrap_or_default(),
            udp_port: self.spec.udp_port,
            reload: self.last_reload.as_ref().map(reload_summary),
            drain: self.drain_report(),
            clients: self.supervision.clients().len(),
            client_list: described.collect(),
            actors: self.actor_reports(),
            drops: self.drop_reports(),
        }
    }

    fn actor_reports(&self) -> BTreeMap<String, ActorReport> {
        let report = |(kind, counters): (&str, &ActorCounters)| {
            let report = ActorReport {
                deaths: counters.deaths.get(),
                recoveries: counters.recoveries.get(),
            };
            (kind.to_owned(), report)
        };
        self.spec.metrics.actors().map(report).collect()
    }

    fn drop_reports(&self) -> BTreeMap<String, u64> {
        let drops = self.spec.metrics.drops().into_iter();
        drops
            .map(|(reason, packets)| (format!("{reason:?}"), packets))
            .collect()
    }
}

async fn describe(
    id: ClientId,
    connection: Addr<ConnectionActor>,
) -> (ClientId, Option<ConnectionStats>) {
    let answer = timeout(PATIENCE, connection.send(DescribeConnection)).await;
    (id, answer.ok().and_then(Result::ok))
}

fn portal_word(state: &PortalState) -> &'static str {
    match state {
        PortalState::NeverJoined => "never_joined",
        PortalState::Joined => "joined",
        PortalState::Away => "away",
    }
}

fn reload_summary(report: &ReloadReport) -> ReloadSummary {
    let owned = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
    let mut summary = ReloadSummary {
        at: report.at.0,
        ..ReloadSummary::default()
    };
    let outcome = match &report.outcome {
        ReloadOutcome::Applied {
            changed,
            needs_restart,
        } => {
            summary.changed = owned(changed);
            summary.needs_restart = owned(needs_restart);
            "applied"
        }
        ReloadOutcome::Unchanged => "unchanged",
        ReloadOutcome::Refused { problems } => {
            summary.problems.clone_from(problems);
            "refused"
        }
    };
    summary.outcome = outcome.to_owned();
    summary
}

fn client_report(
    id: ClientId,
    record: Option<&ClientRecord>,
    stats: Option<ConnectionStats>,
) -> ClientReport {
    let path = stats.and_then(|stats| stats.path);
    let described = stats.unwrap_or_default();
    ClientReport {
        id: id.to_string(),
        tunnel: record
            .map(|it| vec![it.tunnel.ipv4.into(), it.tunnel.ipv6.into()])
            .unwrap_or_default(),
        has_session: stats.map(|stats| stats.has_session),
        heard_before: described.heard_before.as_ref().map(Duration::as_secs_f64),
        remote: path.map(|path| path.remote),
        local: path.map(|path| path.local),
        inbound: traffic_report(described.inbound),
        outbound: traffic_report(described.outbound),
        resources: record
            .map(|it| {
                it.authorizations
                    .grants()
                    .values()
                    .map(resource_report)
                    .collect()
            })
            .unwrap_or_default(),
        names: record.map_or(0, |it| it.authorizations.names().len()),
    }
}

fn traffic_report(stats: TrafficStats) -> TrafficReport {
    TrafficReport {
        packets: stats.packets,
        bytes: stats.bytes,
        last_before: stats.last_before.as_ref().map(Duration::as_secs_f64),
    }
}

fn resource_report(grant: &Grant) -> ResourceReport {
    ResourceReport {
        id: grant.resource.id.to_string(),
        name: grant.resource.name.clone(),
        address: match &grant.resource.kind {
            ResourceKind::Cidr(network) => network.to_string(),
            ResourceKind::Dns(pattern) => pattern.clone(),
            ResourceKind::Internet => "internet".to_owned(),
        },
        expires_at: grant.expires_at.map(|at| at.0),
    }
}

/// A healthy connection answers within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
