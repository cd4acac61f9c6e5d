//! Generation 0 in the application loop: each step of a request is a question to the portal.
//!
//! Names travel with the questions, so that [`App::confirm_name`] takes the place of a gateway's
//! DomainStatus.

use super::super::clock::now;
use super::super::vocabulary::{Domain, DomainStatus, GatewayId, ResourceId};
use super::super::wire::Outgoing;
use super::super::wire::generation0::{Answer, Question};
use super::App;
use serde_json::Value;

impl App {
    /// Handles the portal's answer to a question, or its refusal.
    pub(super) async fn handle_answer(
        &mut self,
        question: Question,
        outcome: Result<Value, String>,
    ) {
        let resource = question.resource_id();
        let answer = outcome.and_then(|response| {
            let answer = question.answer(&response);
            answer.map_err(|error| format!("an answer that cannot be read: {error}"))
        });
        match (answer, question) {
            (Ok(Answer::Prepared(gateway)), _) => self.request(resource, gateway).await,
            (
                Ok(Answer::Connected {
                    gateway_public_key,
                    ice_parameters,
                }),
                Question::Request {
                    gateway_id,
                    client_preshared_key,
                    client_payload,
                    ..
                },
            ) => {
                self.transports.accept(
                    gateway_id,
                    (client_preshared_key, client_payload.ice_parameters),
                    (gateway_public_key, ice_parameters),
                );
                self.granted(resource, gateway_id, client_payload.domain)
                    .await;
            }
            (
                Ok(Answer::Accepted),
                Question::Reuse {
                    gateway_id,
                    payload,
                    ..
                },
            ) => self.granted(resource, gateway_id, payload).await,
            (Ok(_), _) => tracing::debug!(%resource, "an answer that does not fit its question"),
            (Err(reason), _) => self.handle_refusal(resource, reason),
        }
    }

    /// Announces a further name to a connected gateway, through the portal.
    pub(super) fn announce_by_portal(
        &self,
        gateway_id: GatewayId,
        resource_id: ResourceId,
        payload: Option<Domain>,
    ) {
        self.portal.send(Outgoing::Ask(Question::Reuse {
            resource_id,
            gateway_id,
            payload,
        }));
    }

    /// Handles the news that the gateway knows a name: packets to its proxy IPs may be sent.
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
            let mut router = self.data_plane.router();
            let route = (gateway, resource);
            router.names.assume_confirmed(&name, route, now());
        }
    }

    /// Asks the gateway that the portal named for a connection, or for one more resource over the
    /// existing one.
    async fn request(&mut self, resource: ResourceId, gateway: GatewayId) {
        let domain = self.data_plane.router().requested_domain(resource);
        let is_network = domain.is_none();
        let is_connected = self.gateways.ids().contains(&gateway);
        match self
            .transports
            .next((resource, gateway), is_connected, domain)
        {
            Ok(question) => {
                let is_reuse = matches!(question, Question::Reuse { .. });
                self.portal.send(Outgoing::Ask(question));
                if is_reuse && is_network {
                    // The portal informs the gateway and sends no reply. Held packets would arrive
                    // first and be refused: applications send them again, as they had to with
                    // clients of that time.
                    self.data_plane.router().handle_refused(resource);
                    self.granted(resource, gateway, None).await;
                }
            }
            Err(error) => self.handle_refusal(resource, format!("no randomness: {error}")),
        }
    }

    async fn granted(&mut self, resource: ResourceId, gateway: GatewayId, domain: Option<Domain>) {
        if let Some(grant) = self.transports.grant(resource, gateway) {
            self.handle_grant(grant, domain).await;
        }
    }
}
