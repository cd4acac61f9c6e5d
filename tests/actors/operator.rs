//! What an operator is told, and what he may say.

use crate::probe::Break;
use crate::samples::{client, open, open_for, resource};
use crate::scene::Scene;
use crate::{in_virtual_time, until_exit};
use postern::admin::reports::{DrainReport, HealthReport, HealthStatus, StatusReport};
use postern::messages::operator::{CancelDrain, DrainGateway, GatewayStatus, HealthCheck};
use postern::messages::portal::{ConnectionAccepted, LeavePortal};
use postern::messages::supervisor::{
    Child, InterfaceConfigured, PortalStateChanged, ResolverStateChanged,
};
use postern::shell::tell;
use postern_core::health::{PortalState, ResolverState};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

impl Scene {
    async fn health(&self) -> HealthReport {
        let links = self.desk.operator();
        links.health.send(HealthCheck).await.expect("answers")
    }

    async fn status(&self, clients: usize) -> StatusReport {
        let links = self.desk.operator();
        let query = GatewayStatus { clients };
        links.status.send(query).await.expect("answers")
    }

    async fn drain(&self, grace: Duration) -> DrainReport {
        let links = self.desk.operator();
        links
            .drain
            .send(DrainGateway { grace })
            .await
            .expect("answers")
    }

    fn portal_is(&self, state: PortalState) {
        tell(&self.desk.portal().state, PortalStateChanged(state));
    }

    fn resolver_is(&self, state: ResolverState) {
        tell(&self.desk.resolver(), ResolverStateChanged(state));
    }

    /// Everything that there is to be told.
    async fn becomes_ready(&mut self) {
        self.settle().await;
        self.portal_is(PortalState::Joined);
        tell(&self.desk.tun().configured, InterfaceConfigured);
        self.resolver_is(ResolverState::Answering);
    }
}

/// docs/lessons.md 31.
#[test]
fn a_gateway_is_ready_when_all_that_it_needs_has_said_so() {
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

/// docs/lessons.md 24.
#[test]
fn without_the_portal_it_is_degraded_while_it_serves_somebody() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.becomes_ready().await;
        scene.portal_is(PortalState::Away);
        assert_eq!(scene.health().await.status, HealthStatus::NotReady);
        scene.connect(open(1)).await;
        assert_eq!(scene.health().await.status, HealthStatus::Degraded);
        scene.portal_is(PortalState::Joined);
        assert_eq!(scene.health().await.status, HealthStatus::Ready);
        // Whoever comes after a dead PortalActor has yet to join.
        scene.desk.break_child(Child::Portal, Break::Panic);
        tokio::time::sleep(MS(100)).await;
        assert_eq!(scene.health().await.status, HealthStatus::Degraded);
    });
}

#[test]
fn an_actor_that_hangs_is_named_until_it_is_replaced() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.becomes_ready().await;
        assert!(scene.health().await.live);
        scene.desk.break_child(Child::Dns, Break::Hang);
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
fn the_status_lists_clients_and_what_they_may_reach() {
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
fn a_client_that_does_not_answer_is_listed_all_the_same() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.desk.set_stuck(client(1), true);
        scene.tell(open(1));
        scene.connect(open_for(2, 2)).await;
        let report = scene.status(10).await;
        let sessions: Vec<_> = report.client_list.iter().map(|it| it.has_session).collect();
        assert_eq!(sessions, [None, Some(false)]);
    });
}

#[test]
fn while_it_drains_new_clients_are_refused_and_old_ones_admitted_to_more() {
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.max_clients = 3);
        scene.desk.set_stuck(client(3), true);
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

        let links = scene.desk.operator();
        links.cancel.send(CancelDrain).await.expect("answers");
        assert_eq!(scene.status(0).await.drain, None);
        scene.desk.set_stuck(client(3), false);
        scene.tell(open_for(2, 2));
        scene.portal.next::<ConnectionAccepted>().await;
        tokio::time::sleep(MS(70_000)).await;
        assert_eq!(scene.status(0).await.clients, 3, "it goes on");
    });
}

#[test]
fn draining_ends_with_a_goodbye_when_the_time_is_over() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        // It does not answer: it may be in the middle of something.
        scene.desk.set_stuck(client(1), true);
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
fn draining_ends_at_once_when_nobody_has_anything_under_way() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.drain(MS(3_600_000)).await;
        scene.portal.next::<LeavePortal>().await;
    });
    assert_eq!(code, 0);
}
