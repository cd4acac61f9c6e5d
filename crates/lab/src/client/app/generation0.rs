//! What the wiring does in generation 0, where each step is a question to the portal.
//!
//! Names travel with the questions: [`App::domain_of`] says which name a resource is asked for,
//! [`App::announce_by_portal`] tells a gateway of one more, [`App::confirm_name`] hears that it
//! knows one.

use super::super::control::DomainStatus;
use super::super::names::Domain;
use super::super::timeline::Milestone;
use super::super::wire::generation0::{Answer, Question};
use super::super::wire::{GatewayId, Outgoing, ResourceId};
use super::{App, now};
use serde_json::Value;

impl App {
    /// The portal has answered a question, or refused what it asks for.
    pub(super) async fn handle_answer(
        &mut self,
        question: Question,
        outcome: Result<Value, String>,
    ) {
        let resource = question.resource();
        let answer = outcome.and_then(|response| {
            let answer = question.answer(response);
            answer.map_err(|error| format!("an answer that cannot be read: {error}"))
        });
        match answer {
            Ok(Answer::Prepared(gateway)) => self.settle(resource, gateway).await,
            Ok(Answer::Connected {
                gateway_public_key,
                ice,
            }) => {
                let Question::Request {
                    gateway,
                    offer,
                    domain,
                    ..
                } = question
                else {
                    return tracing::debug!(%resource, "a connection that was not asked for");
                };
                self.transports
                    .accept(gateway, offer, (gateway_public_key, ice));
                self.granted(resource, gateway, domain).await;
            }
            Ok(Answer::Accepted) => {
                if let Question::Reuse {
                    gateway, domain, ..
                } = question
                {
                    self.granted(resource, gateway, domain).await;
                }
            }
            Err(reason) => self.refused(resource, reason),
        }
    }

    /// Tells a gateway that we are connected to of a further name, through the portal.
    pub(super) fn announce_by_portal(
        &self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: Option<Domain>,
    ) {
        self.portal.send(Outgoing::Ask(Question::Reuse {
            resource,
            gateway,
            domain,
        }));
    }

    /// The gateway knows a name now, and packets to its proxy IPs may be sent.
    pub(super) async fn confirm_name(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: Domain,
    ) {
        let status = DomainStatus {
            resource,
            domain: domain.name,
            active: true,
        };
        let name = status.domain.clone();
        if !self.settle_name(gateway, status).await {
            let mut router = self.shared.router();
            router.assume_confirmed(gateway, resource, &name, now());
        }
    }

    /// The name that a resource is asked for. `None` for a network.
    fn domain_of(&self, resource: ResourceId) -> Option<Domain> {
        self.shared.router().requested_domain(resource)
    }

    /// The portal names a gateway: ask it for a connection, or for more over the one there is.
    async fn settle(&mut self, resource: ResourceId, gateway: GatewayId) {
        let domain = self.domain_of(resource);
        let is_connected = self.gateways.ids().contains(&gateway);
        let next = self
            .transports
            .next((resource, gateway), is_connected, domain);
        match next {
            Ok(Question::Reuse { domain, .. }) => {
                let is_answered = domain.is_some();
                self.announce_by_portal(gateway, resource, domain);
                if !is_answered {
                    // The gateway hears of it through the portal, nobody tells us when. What is
                    // held would be there first and be refused: applications send it again, as
                    // they had to with clients of that time.
                    self.shared.router().handle_refused(resource);
                    self.granted(resource, gateway, None).await;
                }
            }
            Ok(question) => self.portal.send(Outgoing::Ask(question)),
            Err(error) => self.refused(resource, format!("no randomness: {error}")),
        }
    }

    async fn granted(&mut self, resource: ResourceId, gateway: GatewayId, domain: Option<Domain>) {
        if let Some(grant) = self.transports.grant(resource, gateway) {
            self.handle_grant(grant, domain).await;
        }
    }

    fn refused(&self, resource: ResourceId, reason: String) {
        self.shared.router().handle_refused(resource);
        self.record(Milestone {
            milestone: "authorization_failed",
            resource: Some(resource),
            reason: Some(reason),
            ..Milestone::default()
        });
    }
}
