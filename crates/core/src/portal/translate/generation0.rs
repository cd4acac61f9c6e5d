//! Translates generation 0's messages into the gateway's own types.
//!
//! The portal passes on names and addresses that a client states about itself; they are only
//! bounded here and checked where they are used (docs/lessons.md 16). Clients from before
//! 2024-06-24, which announce a bare name and expect its addresses in the answer, are accepted and
//! receive none: the oldest supported clients bring proxy IPs of their own for a name. Source:
//! docs/protocol.md 11.1.

use super::{TranslateError, ice, key, resource, uuid};
use crate::grant::{
    AccessRequest, AnnouncedName, AuthorizationRequest, ClientProfile, PresharedKey, ReplyKind,
    TunnelAddresses,
};
use crate::ids::{ClientId, PublicKey, UnixTime};
use crate::portal::credentials::IceSecret;
use crate::portal::wire::{self, Payload, generation0};

/// A grant with the gateway's own ICE credentials, which this generation's portals do not generate.
pub(super) fn connection(
    payload: Payload,
    secret: &IceSecret,
) -> Result<AuthorizationRequest, TranslateError> {
    let request: generation0::RequestConnection = wire::read_payload(payload)?;
    let peer = request.client.peer;
    let client = ClientProfile {
        id: ClientId(uuid(&request.client.id, "client.id")?),
        public_key: PublicKey(*key(&peer.public_key, "client.peer.public_key")?),
        preshared_key: PresharedKey(key(&peer.preshared_key, "client.peer.preshared_key")?),
        tunnel: TunnelAddresses {
            ipv4: peer.ipv4,
            ipv6: peer.ipv6,
        },
    };
    let client_ice = ice(
        request.client.payload.ice_parameters,
        "client.payload.ice_parameters",
    )?;
    Ok(AuthorizationRequest {
        reply_ref: request.reference,
        resource: resource(request.resource)?,
        gateway_ice: secret.credentials(&client, &client_ice),
        client,
        client_ice,
        expires_at: request.expires_at.map(UnixTime),
        announced: announced(request.client.payload.domain)?,
        reply: ReplyKind::ConnectionReady,
    })
}

pub(super) fn access(payload: Payload) -> Result<AccessRequest, TranslateError> {
    let request: generation0::AllowAccess = wire::read_payload(payload)?;
    let addresses = request.client_ipv4.zip(request.client_ipv6);
    Ok(AccessRequest {
        reply_ref: request.reference,
        client: ClientId(uuid(&request.client_id, "client_id")?),
        tunnel: addresses.map(|(ipv4, ipv6)| TunnelAddresses { ipv4, ipv6 }),
        resource: resource(request.resource)?,
        expires_at: request.expires_at.map(UnixTime),
        announced: announced(request.payload)?,
    })
}

fn announced(domain: Option<generation0::Domain>) -> Result<Option<AnnouncedName>, TranslateError> {
    let name = match domain {
        None => return Ok(None),
        Some(generation0::Domain::Name(domain)) => AnnouncedName {
            domain,
            proxy_ips: Vec::new(),
        },
        Some(generation0::Domain::Mapped { name, proxy_ips }) => AnnouncedName {
            domain: name,
            proxy_ips,
        },
    };
    if !AnnouncedName::is_within_limits(&name.domain, &name.proxy_ips) {
        return Err("the announced name or its list of addresses is too long".into());
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests;
