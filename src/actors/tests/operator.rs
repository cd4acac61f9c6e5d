//! An operator's questions and commands.

use super::probe::Break;
use super::samples::{client, open, open_for, resource};
use super::scene::Scene;
use super::seen::{ConnectionAccepted, LeavePortal};
use super::tell;
use super::{in_virtual_time, until_exit};
use crate::messages::operator::{CancelDrain, DrainGateway, GatewayStatus, HealthCheck};
use crate::messages::reports::{DrainReport, HealthReport, HealthStatus, StatusReport};
use crate::messages::supervisor::{Child, HealthNews, PortalNews};
use postern_core::health::{PortalState, ResolverState};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

impl Scene {
    async fn health(&self) -> HealthReport {
        let links = self.spawner.operator();
        links.health.send(HealthCheck).await.expect("answers")
    }

    async fn status(&self, clients: usize) -> StatusReport {
        let links = self.spawner.operator();
        let query = GatewayStatus { clients };
        links.status.send(query).await.expect("answers")
    }

    async fn drain(&self, grace: Duration) -> DrainReport {
        let links = self.spawner.operator();
        links
            .drain
            .send(DrainGateway { grace })
            .await
            .expect("answers")
    }

    fn portal_is(&self, state: PortalState) {
        let news = match state {
            PortalState::Joined => PortalNews::Joined,
            PortalState::NeverJoined | PortalState::Away => PortalNews::Left,
        };
        tell(&self.spawner.portal(), news);
    }

    fn resolver_is(&self, state: ResolverState) {
        tell(&self.spawner.health(), HealthNews::Resolver(state));
    }

    async fn becomes_ready(&mut self) {
        self.settle().await;
        self.portal_is(PortalState::Joined);
        tell(&self.spawner.health(), HealthNews::InterfaceConfigured);
        self.resolver_is(ResolverState::Answering);
    }
}

/// docs/lessons.md 31: readiness is true.
#[test]
fn is_ready_when_interface_portal_and_resolver_are() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        let report = scene.health().await;
        assert_eq!((report.status, report.live), (HealthStatus::NotReady, true));
        assert_eq!(report.reasons.len(), 3, "{:?}", report.reasons);
        scene.becomes_ready().await;
        let report = scene.health().await;
        assert_eq!(report.status, HealthStatus::Ready);
        assert_eq!(report.reasons, [""; 0]);
        scene.resolver_is(ResolverState::Silent);
        let report = scene.health().await;
        assert_eq!(report.status, HealthStatus::NotReady);
        assert!(report.reasons[0].contains("name server"), "{report:?}");
    });
}

/// docs/lessons.md 24: the data plane outlives the portal.
#[test]
fn is_degraded_without_the_portal_while_it_has_clients() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.becomes_ready().await;
        scene.portal_is(PortalState::Away);
        assert_eq!(scene.health().await.status, HealthStatus::NotReady);
        scene.connect(open(1)).await;
        assert_eq!(scene.health().await.status, HealthStatus::Degraded);
        scene.portal_is(PortalState::Joined);
        assert_eq!(scene.health().await.status, HealthStatus::Ready);
        // The successor of a dead PortalActor has not joined yet.
        scene.spawner.break_child(Child::Portal, Break::Panic);
        tokio::time::sleep(MS(100)).await;
        assert_eq!(scene.health().await.status, HealthStatus::Degraded);
    });
}

#[test]
fn names_a_hung_actor_until_it_is_replaced() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.becomes_ready().await;
        assert!(scene.health().await.live);
        scene.spawner.break_child(Child::Dns, Break::Hang);
        let report = scene.health().await;
        assert_eq!(
            (report.live, &report.silent[..]),
            (false, &["dns".to_owned()][..])
        );
        assert_eq!(report.status, HealthStatus::NotReady);
        tokio::time::sleep(MS(3000)).await;
        assert!(scene.health().await.live);
    });
}

#[test]
fn the_status_lists_clients_and_their_resources() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.connect(open_for(2, 2)).await;
        let report = scene.status(10).await;
        assert_eq!(report.clients, 2);
        assert_eq!(report.udp_port, 52_625);
        let ids: Vec<_> = report.client_list.iter().map(|it| it.id.clone()).collect();
        assert_eq!(ids, [client(1).to_string(), client(2).to_string()]);
        let second = &report.client_list[1];
        assert_eq!(second.resources[0].id, resource(2).to_string());
        assert_eq!(second.has_session, Some(false));
        let some = scene.status(1).await;
        assert_eq!((some.clients, some.client_list.len()), (2, 1));
    });
}

#[test]
fn lists_a_client_that_does_not_answer() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.spawner.set_stuck(client(1), true);
        scene.tell(open(1));
        scene.connect(open_for(2, 2)).await;
        let report = scene.status(10).await;
        let sessions: Vec<_> = report.client_list.iter().map(|it| it.has_session).collect();
        assert_eq!(sessions, [None, Some(false)]);
    });
}

#[test]
fn draining_refuses_new_clients_and_serves_old_ones() {
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.max_clients = 3);
        scene.spawner.set_stuck(client(3), true);
        scene.connect(open(1)).await;
        scene.tell(open_for(3, 1));
        scene.settle().await;
        let report = scene.drain(MS(60_000)).await;
        assert_eq!((report.remaining, report.clients), (60, 2));
        scene.tell(open_for(2, 2));
        scene.portal.nothing().await;
        scene.tell(open(2));
        scene.portal.next::<ConnectionAccepted>().await;
        let report = scene.status(0).await;
        assert_eq!(report.drain.map(|drain| drain.refused), Some(1));
        assert_eq!(report.health.status, HealthStatus::NotReady);

        let links = scene.spawner.operator();
        links.cancel.send(CancelDrain).await.expect("answers");
        assert_eq!(scene.status(0).await.drain, None);
        scene.spawner.set_stuck(client(3), false);
        scene.tell(open_for(2, 2));
        scene.portal.next::<ConnectionAccepted>().await;
        tokio::time::sleep(MS(70_000)).await;
        assert_eq!(scene.status(0).await.clients, 3, "it goes on");
    });
}

#[test]
fn draining_ends_with_goodbyes_at_the_deadline() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        // Its connection does not answer, so it counts as active.
        scene.spawner.set_stuck(client(1), true);
        scene.tell(open(1));
        scene.settle().await;
        scene.drain(MS(2500)).await;
        tokio::time::sleep(MS(2000)).await;
        scene.portal.nothing().await;
        scene.portal.next::<LeavePortal>().await;
    });
    assert_eq!(code, 0);
}

#[test]
fn draining_ends_immediately_without_active_clients() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.drain(MS(3_600_000)).await;
        scene.portal.next::<LeavePortal>().await;
    });
    assert_eq!(code, 0);
}
