//! What the wiring does about names: tells gateways of them, and the timeline of what became of it.

use super::super::SharedRouter;
use super::super::control::{self, DomainStatus};
use super::super::names::Announcement;
use super::super::stub::{self, Asked, Resolver, Stub};
use super::super::timeline::Milestone;
use super::super::wire::{GatewayId, Generation};
use super::{App, since};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Starts to answer DNS queries. An address on which that is not possible is left out: networks
/// work without names.
pub(super) async fn start_stubs(
    routes: &SharedRouter,
    upstream: Vec<SocketAddr>,
) -> (Vec<Stub>, mpsc::Receiver<Asked>) {
    let (events, asked) = mpsc::channel(ASKED_MAX);
    let resolver = Arc::new(Resolver::new(routes.clone(), upstream, events));
    let mut stubs = Vec::new();
    for ip in [IpAddr::from(stub::IPV4), IpAddr::from(stub::IPV6)] {
        match Stub::start((ip, stub::PORT).into(), Arc::clone(&resolver)).await {
            Ok(stub) => stubs.push(stub),
            Err(error) => {
                tracing::warn!(%ip, %error, "cannot answer DNS queries (another client runs?)");
            }
        }
    }
    (stubs, asked)
}

impl App {
    pub(super) async fn handle_asked(&mut self, asked: Asked) {
        match asked {
            Asked::Answered { name, kind } => {
                self.record(Milestone {
                    milestone: "name_asked",
                    name: Some(name),
                    reason: Some(kind.into()),
                    ..Milestone::default()
                });
                self.announce_all().await;
            }
            Asked::Access(resource) => self.ask(resource),
        }
    }

    async fn announce_all(&mut self) {
        loop {
            let next = self.shared.router().poll_announcement();
            let Some(announcement) = next else { return };
            self.announce(announcement).await;
        }
    }

    /// Tells a gateway which proxy IPs stand for a name.
    pub(super) async fn announce(&mut self, announcement: Announcement) {
        let Announcement {
            gateway,
            resource,
            domain,
            first_packet_at,
        } = announcement;
        match self.generation {
            Generation::V0 => self.announce_by_portal(gateway, resource, Some(domain.clone())),
            Generation::V1 | Generation::V2 => {
                let packet = control::assigned_ips(resource, &domain);
                self.gateways.send(gateway, &packet).await;
            }
        }
        self.record(Milestone {
            milestone: "name_announced",
            resource: Some(resource),
            gateway: Some(gateway),
            name: Some(domain.name),
            since_first_packet_ms: Some(since(first_packet_at)),
            ..Milestone::default()
        });
    }

    /// A gateway says what it makes of a name.
    pub(super) async fn handle_domain_status(&mut self, gateway: GatewayId, status: DomainStatus) {
        if !self.settle_name(gateway, status).await {
            tracing::debug!(%gateway, "ignoring the status of a name that was not announced");
        }
    }

    /// Sends what waited for word about a name; returns whether word was awaited.
    pub(super) async fn settle_name(&mut self, gateway: GatewayId, status: DomainStatus) -> bool {
        let settled = self.shared.router().handle_domain_status(gateway, &status);
        let Some(settled) = settled else {
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
            ms: Some(since(settled.announced_at)),
            since_first_packet_ms: Some(since(settled.first_packet_at)),
            ..Milestone::default()
        });
        for packet in settled.held {
            self.gateways.send(gateway, &packet).await;
        }
        true
    }
}

/// Questions that the wiring has yet to hear of; the stub waits for it when there are more.
const ASKED_MAX: usize = 256;
