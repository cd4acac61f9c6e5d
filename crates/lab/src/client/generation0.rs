//! Generation 0 of the signalling: the transports that we set up ourselves.
//!
//! The portal only names a gateway. The first resource through it is asked for with an offer of our
//! making; further ones reuse the connection. An offer is kept until the connection that it led to
//! is gone, so that a repeated question leads to the same connection. Source: docs/protocol.md
//! 11.1.

use super::names::Domain;
use super::wire::generation0::{Offer, Question};
use super::wire::{AuthorizationCreated, GatewayId, IceCredentials, Key, ResourceId};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What we have offered to gateways, and what they made of it.
#[derive(Debug, Default)]
pub struct Transports(BTreeMap<GatewayId, Transport>);

#[derive(Debug)]
struct Transport {
    offer: Offer,
    accepted: Option<Accepted>,
}

/// The gateway's half.
#[derive(Clone, Debug)]
struct Accepted {
    public_key: Key,
    ice: IceCredentials,
}

impl Transports {
    /// What to ask `gateway`, now that the portal has named it for `resource`. `is_connected`:
    /// whether the connection that came of our last offer is still there.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn next(
        &mut self,
        (resource, gateway): (ResourceId, GatewayId),
        is_connected: bool,
        domain: Option<Domain>,
    ) -> Result<Question, getrandom::Error> {
        let known = self.0.get(&gateway);
        let offer = match known {
            Some(transport) if transport.accepted.is_none() => transport.offer.clone(),
            Some(_) if is_connected => {
                return Ok(Question::Reuse {
                    resource,
                    gateway,
                    domain,
                });
            }
            Some(_) | None => {
                let offer = random_offer()?;
                let transport = Transport {
                    offer: offer.clone(),
                    accepted: None,
                };
                self.0.insert(gateway, transport);
                offer
            }
        };
        Ok(Question::Request {
            resource,
            gateway,
            offer,
            domain,
        })
    }

    /// The gateway has taken `offer`.
    pub fn accept(
        &mut self,
        gateway: GatewayId,
        offer: Offer,
        (public_key, ice): (Key, IceCredentials),
    ) {
        let accepted = Some(Accepted { public_key, ice });
        self.0.insert(gateway, Transport { offer, accepted });
    }

    /// What a portal of a later generation would say about `resource` through `gateway`. `None`
    /// before the gateway has taken an offer.
    #[must_use]
    pub fn grant(&self, resource: ResourceId, gateway: GatewayId) -> Option<AuthorizationCreated> {
        let transport = self.0.get(&gateway)?;
        let accepted = transport.accepted.clone()?;
        Some(AuthorizationCreated {
            resource_id: resource,
            gateway_id: gateway,
            gateway_public_key: accepted.public_key,
            // Clients of this generation are not told them: nobody can be reached there.
            gateway_ipv4: Ipv4Addr::UNSPECIFIED,
            gateway_ipv6: Ipv6Addr::UNSPECIFIED,
            preshared_key: transport.offer.preshared_key,
            client_ice_credentials: transport.offer.ice.clone(),
            gateway_ice_credentials: accepted.ice,
            use_iceless: false,
        })
    }
}

fn random_offer() -> Result<Offer, getrandom::Error> {
    let (mut preshared_key, mut ice) = ([0; 32], [0; 32]);
    getrandom::fill(&mut preshared_key)?;
    getrandom::fill(&mut ice)?;
    let code = data_encoding::BASE32_NOPAD
        .encode(&ice)
        .to_ascii_lowercase();
    let (username, rest) = code.split_at(UFRAG_CHARS);
    Ok(Offer {
        preshared_key: Key(preshared_key),
        ice: IceCredentials {
            username: username.to_owned(),
            password: rest[..PASSWORD_CHARS].to_owned(),
        },
    })
}

/// As clients of that time; RFC 8445, section 5.3, asks for as many.
const UFRAG_CHARS: usize = 4;

/// 130 bits, where RFC 8445, section 5.3, asks for 128.
const PASSWORD_CHARS: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(2));

    fn resource(number: u128) -> ResourceId {
        ResourceId(Uuid::from_u128(number))
    }

    fn request(transports: &mut Transports, number: u128, is_connected: bool) -> Offer {
        let asked = transports.next((resource(number), GATEWAY), is_connected, None);
        let Question::Request { offer, .. } = asked.expect("randomness") else {
            panic!("not a request");
        };
        offer
    }

    fn accept(transports: &mut Transports, offer: &Offer) {
        let ice = IceCredentials {
            username: "6m26".into(),
            password: "gj5f2zjrxg6cwvtrtqgfva".into(),
        };
        transports.accept(GATEWAY, offer.clone(), (Key([2; 32]), ice));
    }

    #[test]
    fn an_unanswered_offer_is_repeated() {
        let mut transports = Transports::default();
        let first = request(&mut transports, 1, false);
        assert_eq!(request(&mut transports, 1, false), first);
        assert_eq!(request(&mut transports, 2, false), first);
        assert!(transports.grant(resource(1), GATEWAY).is_none());
        let lengths = (first.ice.username.len(), first.ice.password.len());
        assert_eq!(lengths, (4, 26));
    }

    #[test]
    fn a_connection_is_reused_while_it_is_there_and_made_anew_afterwards() {
        let mut transports = Transports::default();
        let first = request(&mut transports, 1, false);
        accept(&mut transports, &first);
        let domain = Some(Domain {
            name: "app.corp.example".into(),
            proxy_ips: Vec::new(),
        });
        let asked = transports.next((resource(2), GATEWAY), true, domain.clone());
        assert_eq!(
            asked.expect("randomness"),
            Question::Reuse {
                resource: resource(2),
                gateway: GATEWAY,
                domain
            }
        );
        let grant = transports.grant(resource(2), GATEWAY).expect("accepted");
        assert_eq!(grant.preshared_key, first.preshared_key);
        assert_eq!(grant.client_ice_credentials, first.ice);
        assert_eq!(grant.gateway_ice_credentials.username, "6m26");
        assert_ne!(request(&mut transports, 1, false), first);
        assert!(transports.grant(resource(1), GATEWAY).is_none());
    }
}
