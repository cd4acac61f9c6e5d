//! Generation 0 of the signalling, in which the client itself sets up the transports.
//!
//! The portal only names a gateway. The request for the first resource through it carries an offer
//! of the client; further requests reuse the connection. The client keeps an offer until the
//! resulting connection is gone, so that a repeated question leads to the same connection. Source:
//! docs/protocol.md 11.1.

use super::vocabulary::{Domain, GatewayId, IceCredentials, Key, ResourceId};
use super::wire::AuthorizationCreated;
use super::wire::generation0::{ClientPayload, Question};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// One side's part of a transport: from the client the preshared key, from the gateway its public
/// key, from both their ICE credentials.
pub type Half = (Key, IceCredentials);

/// The offers to gateways and their answers.
#[derive(Debug, Default)]
pub struct Transports(BTreeMap<GatewayId, Transport>);

#[derive(Debug)]
struct Transport {
    offer: Half,
    accepted: Option<Half>,
}

impl Transports {
    /// The question to `gateway` after the portal named it for `resource`. `is_connected`: whether
    /// the connection from the last offer still exists.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn next(
        &mut self,
        (resource_id, gateway_id): (ResourceId, GatewayId),
        is_connected: bool,
        domain: Option<Domain>,
    ) -> Result<Question, getrandom::Error> {
        let offer = match self.0.get(&gateway_id) {
            Some(transport) if transport.accepted.is_none() => transport.offer.clone(),
            Some(_) if is_connected => {
                return Ok(Question::Reuse {
                    resource_id,
                    gateway_id,
                    payload: domain,
                });
            }
            Some(_) | None => {
                let (offer, accepted) = (random_offer()?, None);
                let transport = Transport {
                    offer: offer.clone(),
                    accepted,
                };
                self.0.insert(gateway_id, transport);
                offer
            }
        };
        let (client_preshared_key, ice_parameters) = offer;
        Ok(Question::Request {
            resource_id,
            gateway_id,
            client_preshared_key,
            client_payload: ClientPayload {
                ice_parameters,
                domain,
            },
        })
    }

    /// Records that the gateway accepted `offer`.
    pub fn accept(&mut self, gateway: GatewayId, offer: Half, accepted: Half) {
        let accepted = Some(accepted);
        self.0.insert(gateway, Transport { offer, accepted });
    }

    /// The grant that a portal of a later generation would send for `resource` through `gateway`.
    /// `None` before the gateway has accepted an offer.
    pub fn grant(&self, resource: ResourceId, gateway: GatewayId) -> Option<AuthorizationCreated> {
        let transport = self.0.get(&gateway)?;
        let (gateway_public_key, gateway_ice_credentials) = transport.accepted.clone()?;
        let (preshared_key, client_ice_credentials) = transport.offer.clone();
        Some(AuthorizationCreated {
            resource_id: resource,
            gateway_id: gateway,
            gateway_public_key,
            // Clients of this generation do not learn these addresses and never send to them.
            gateway_ipv4: Ipv4Addr::UNSPECIFIED,
            gateway_ipv6: Ipv6Addr::UNSPECIFIED,
            preshared_key,
            client_ice_credentials,
            gateway_ice_credentials,
            use_iceless: false,
        })
    }
}

fn random_offer() -> Result<Half, getrandom::Error> {
    let (mut preshared_key, mut ice) = ([0; 32], [0; 32]);
    getrandom::fill(&mut preshared_key)?;
    getrandom::fill(&mut ice)?;
    let code = data_encoding::BASE32_NOPAD
        .encode(&ice)
        .to_ascii_lowercase();
    let (username, rest) = code.split_at(UFRAG_CHARS);
    let ice = IceCredentials {
        username: username.to_owned(),
        password: rest[..PASSWORD_CHARS].to_owned(),
    };
    Ok((Key(preshared_key), ice))
}

/// As in clients of that time; also the minimum of RFC 8445, 5.3.
const UFRAG_CHARS: usize = 4;

/// 130 bits; RFC 8445, 5.3, requires 128.
const PASSWORD_CHARS: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(2));

    fn resource(number: u128) -> ResourceId {
        ResourceId(Uuid::from_u128(number))
    }

    fn request(transports: &mut Transports, number: u128, is_connected: bool) -> Half {
        let question = transports.next((resource(number), GATEWAY), is_connected, None);
        let Question::Request {
            client_preshared_key,
            client_payload,
            ..
        } = question.expect("randomness")
        else {
            panic!("not a request");
        };
        (client_preshared_key, client_payload.ice_parameters)
    }

    fn accept(transports: &mut Transports, offer: &Half) {
        let ice = IceCredentials {
            username: "6m26".into(),
            password: "gj5f2zjrxg6cwvtrtqgfva".into(),
        };
        transports.accept(GATEWAY, offer.clone(), (Key([2; 32]), ice));
    }

    #[test]
    fn repeats_an_unanswered_offer() {
        let mut transports = Transports::default();
        let first = request(&mut transports, 1, false);
        assert_eq!(request(&mut transports, 1, false), first);
        assert_eq!(request(&mut transports, 2, false), first);
        assert!(transports.grant(resource(1), GATEWAY).is_none());
        let lengths = (first.1.username.len(), first.1.password.len());
        assert_eq!(lengths, (4, 26));
    }

    #[test]
    fn reuses_an_existing_connection_and_replaces_a_lost_one() {
        let mut transports = Transports::default();
        let first = request(&mut transports, 1, false);
        accept(&mut transports, &first);
        let domain = Some(Domain {
            name: "app.corp.example".into(),
            proxy_ips: Vec::new(),
        });
        let question = transports.next((resource(2), GATEWAY), true, domain.clone());
        assert_eq!(
            question.expect("randomness"),
            Question::Reuse {
                resource_id: resource(2),
                gateway_id: GATEWAY,
                payload: domain
            }
        );
        let grant = transports.grant(resource(2), GATEWAY).expect("accepted");
        assert_eq!(grant.preshared_key, first.0);
        assert_eq!(grant.client_ice_credentials, first.1);
        assert_eq!(grant.gateway_ice_credentials.username, "6m26");
        assert_ne!(request(&mut transports, 1, false), first);
        assert!(transports.grant(resource(1), GATEWAY).is_none());
    }
}
