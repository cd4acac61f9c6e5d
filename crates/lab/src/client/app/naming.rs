//! Names in the application loop: the DNS stubs, announcements to gateways, and their milestones.

use super::super::addresses::{DNS_PORT, STUB_IPV4, STUB_IPV6};
use super::super::clock::millis_since;
use super::super::control;
use super::super::data_plane::SharedRouter;
use super::super::names::Announcement;
use super::super::stub::{Resolver, Stub, StubEvent};
use super::super::timeline::Milestone;
use super::super::vocabulary::{DomainStatus, GatewayId};
use super::super::wire::Generation;
use super::App;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Starts to answer DNS queries. Skips an address that cannot be bound: networks work without
/// names.
pub(super) async fn start_stubs(
    routes: &SharedRouter,
    upstream: Vec<SocketAddr>,
) -> (Vec<Stub>, mpsc::Receiver<StubEvent>) {
    let (sender, events) = mpsc::channel(STUB_EVENTS_MAX);
    let resolver = Arc::new(Resolver::new(routes.clone(), upstream, sender));
    let mut stubs = Vec::new();
    for ip in [IpAddr::from(STUB_IPV4), IpAddr::from(STUB_IPV6)] {
        match Stub::start((ip, DNS_PORT).into(), Arc::clone(&resolver)).await {
            Ok(stub) => stubs.push(stub),
            Err(error) => {
                tracing::warn!(%ip, %error, "cannot answer DNS queries (another client runs?)");
            }
        }
    }
    (stubs, events)
}

impl App {
    pub(super) async fn handle_stub_event(&mut self, event: StubEvent) {
        match event {
            StubEvent::Answered { name, kind } => {
                self.record(Milestone {
                    milestone: "name_asked",
                    name: Some(name),
                    reason: Some(kind.into()),
                    ..Milestone::default()
                });
                loop {
                    let next = self.data_plane.router().names.poll_announcement();
                    let Some(announcement) = next else { return };
                    self.announce(announcement).await;
                }
            }
            StubEvent::AccessWanted(resource) => self.request_access(resource),
        }
    }

    /// Announces to a gateway which proxy IPs stand for a name.
    pub(super) async fn announce(&mut self, announcement: Announcement) {
        let Announcement {
            gateway,
            resource,
            domain,
            first_packet_at,
        } = announcement;
        let name = domain.name.clone();
        match self.generation {
            Generation::V0 => self.announce_by_portal(gateway, resource, Some(domain)),
            Generation::V1 | Generation::V2 => {
                let packet = control::assigned_ips(resource, &domain);
                self.gateways.send(gateway, &packet).await;
            }
        }
        self.record(Milestone {
            milestone: "name_announced",
            resource: Some(resource),
            gateway: Some(gateway),
            name: Some(name),
            since_first_packet_ms: Some(millis_since(first_packet_at)),
            ..Milestone::default()
        });
    }

    /// Sends the packets that waited for this status; returns whether the name was announced.
    pub(super) async fn settle_name(&mut self, gateway: GatewayId, status: DomainStatus) -> bool {
        let outcome = {
            let mut router = self.data_plane.router();
            router.names.handle_status(gateway, &status)
        };
        let Some(outcome) = outcome else {
            return false;
        };
        self.record(Milestone {
            milestone: if status.active {
                "name_active"
            } else {
                "name_inactive"
            },
            resource: Some(status.resource),
            gateway: Some(gateway),
            name: Some(status.domain),
            ms: Some(millis_since(outcome.announced_at)),
            since_first_packet_ms: Some(millis_since(outcome.first_packet_at)),
            ..Milestone::default()
        });
        for packet in outcome.held {
            self.gateways.send(gateway, &packet).await;
        }
        true
    }
}

/// Events that wait for the application loop; the stub pauses when there are more.
const STUB_EVENTS_MAX: usize = 256;
