//! A changed configuration: pushes the differences to each connected device, and nothing else.
//!
//! Access that is gone is taken from the gateways first, then the clients learn of it. Source:
//! docs/protocol.md 2.2 (messages for each kind of change) and 2.4.

use super::frames::{authorization, client_resource, gateway_resource, interface};
use super::grants::expiry;
use super::{Generation, GrantKey, Hub, Session, Side};
use crate::clock::ClockReading;
use crate::portal::config::{Config, Resource};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tracing::info;
use uuid::Uuid;

impl Hub {
    /// Puts `config` in force and pushes the differences.
    pub fn handle_config(&mut self, config: Config, now: ClockReading) {
        let old = std::mem::replace(&mut self.config, config);
        self.expel_strangers(&old);
        self.revoke_forbidden(&old);
        let moved = self.update_expiries(&old);
        self.update_gateway_resources(&old);
        self.update_client_resources(&old);
        self.update_relays(&old);
        self.update_interfaces(&old);
        self.update_gateways(&old, &moved, now);
        info!("configuration reloaded");
    }

    /// A new expiry for one grant. `None` never expires; a date in the past revokes.
    pub(super) fn set_expiry(
        &mut self,
        key: GrantKey,
        expires_at: Option<u64>,
        now: ClockReading,
    ) -> bool {
        let Some(grant) = self.grants.get_mut(&key) else {
            return false;
        };
        grant.expires_at = expires_at;
        let (valid, gateway) = (grant.is_valid(now), grant.gateway);
        self.grants_changed = true;
        if valid {
            self.push_expiries(&BTreeSet::from([(gateway, key)]), now);
        } else {
            self.revoke(key);
        }
        true
    }

    /// Expels devices that are gone or have another token.
    fn expel_strangers(&mut self, old: &Config) {
        let is_stranger = |session: &Session| {
            let token = |config: &Config| {
                let device = config.devices(session.side).get(&session.device);
                device.map(|it| it.token.clone())
            };
            let now = token(&self.config);
            now.is_none() || now != token(old)
        };
        let sessions = self.sessions.iter();
        let strangers = sessions.filter(|(_, session)| is_stranger(session));
        let strangers: Vec<_> = strangers.map(|(peer, _)| *peer).collect();
        for peer in strangers {
            self.push(peer, "disconnect", json!({ "reason": "token_expired" }));
            self.drop_session(peer, "expelled");
        }
    }

    /// Revokes grants, given or requested, that the configuration no longer permits, or that were
    /// for another target of the same name.
    fn revoke_forbidden(&mut self, old: &Config) {
        let given = self.grants.iter().map(|(key, grant)| (*key, grant.gateway));
        let forbidden: Vec<_> = given
            .filter(|(key, gateway)| !self.still_permits(old, *key, *gateway))
            .collect();
        for (key, _) in forbidden {
            self.revoke(key);
        }
        let asked = self.pending.iter();
        let forbidden: Vec<_> = asked
            .filter(|(_, it)| self.is_stale_request(old, it.key, it.grant.gateway))
            .map(|(reference, it)| (reference.clone(), it.key, it.grant.gateway))
            .collect();
        for (reference, key, gateway) in forbidden {
            self.push_reject(key, gateway);
            self.abandon(&reference, "forbidden");
        }
    }

    fn still_permits(&self, old: &Config, key: GrantKey, gateway: Uuid) -> bool {
        let address = |config: &Config| {
            let device = config.clients.get(&key.client)?;
            Some((device.ipv4, device.ipv6))
        };
        self.permits(key, gateway)
            && address(&self.config) == address(old)
            && self.same_target(old, key.resource)
    }

    /// The opposite of [`Self::still_permits`], for requests that may come from synthetic clients,
    /// which are in no policy.
    fn is_stale_request(&self, old: &Config, key: GrantKey, gateway: Uuid) -> bool {
        let configured = old.clients.contains_key(&key.client);
        let permitted = if configured {
            self.still_permits(old, key, gateway)
        } else {
            self.same_target(old, key.resource)
        };
        !permitted
    }

    fn same_target(&self, old: &Config, resource: Uuid) -> bool {
        let target = |config: &Config| {
            let resource = config.resources.get(&resource)?;
            Some((resource.target.clone(), resource.site.id))
        };
        let now = target(&self.config);
        now.is_some() && now == target(old)
    }

    /// Applies changed lifetimes, which count from the start of the grant. Returns the grants with
    /// a new expiry, by gateway.
    fn update_expiries(&mut self, old: &Config) -> BTreeSet<(Uuid, GrantKey)> {
        let mut moved = BTreeSet::new();
        for (key, grant) in &mut self.grants {
            let Some(policy) = self.config.policy(key.client, key.resource) else {
                continue;
            };
            let before = old.policy(key.client, key.resource);
            if before.is_some_and(|it| it.expires_in == policy.expires_in) {
                continue;
            }
            grant.expires_at = expiry(policy, grant.granted_at);
            moved.insert((grant.gateway, *key));
        }
        self.grants_changed |= !moved.is_empty();
        moved
    }

    /// Generation 2 has no message for an expiry and gets `init` again, which carries all of them.
    fn push_expiries(&mut self, moved: &BTreeSet<(Uuid, GrantKey)>, now: ClockReading) {
        for (peer, session) in self.joined_peers(Side::Gateway) {
            let its = moved
                .iter()
                .filter(|(gateway, _)| *gateway == session.device);
            let its: Vec<_> = its.map(|(_, key)| *key).collect();
            match session.generation {
                _ if its.is_empty() => {}
                Generation::V2 => self.push_init(peer, now),
                Generation::V1 => {
                    for key in its {
                        let expires_at = self.grants.get(&key).and_then(|it| it.expires_at);
                        let payload = authorization(key, expires_at);
                        self.push(peer, "access_authorization_expiry_updated", payload);
                    }
                }
            }
        }
    }

    /// Pushes a new name and new filters to the gateways of the site. Other changes have revoked
    /// the grants.
    fn update_gateway_resources(&mut self, old: &Config) {
        let mut changed = Vec::new();
        for (id, resource) in &self.config.resources {
            let before = old.resources.get(id);
            if before.is_some_and(|it| it != resource) && self.same_target(old, *id) {
                changed.push((resource.site.id, gateway_resource(*id, resource)));
            }
        }
        for (peer, session) in self.joined_peers(Side::Gateway) {
            let device = self.config.gateways.get(&session.device);
            let site = device.and_then(|it| it.site.as_ref()).map(|it| it.id);
            for (_, resource) in changed.iter().filter(|(it, _)| Some(*it) == site) {
                self.push(peer, "resource_updated", resource.clone());
            }
        }
    }

    fn update_client_resources(&mut self, old: &Config) {
        for (peer, session) in self.joined_peers(Side::Client) {
            let before: BTreeMap<Uuid, &Resource> = old.visible_to(session.device).collect();
            let after: BTreeMap<Uuid, Resource> = self
                .config
                .visible_to(session.device)
                .map(|(id, resource)| (id, resource.clone()))
                .collect();
            for id in before.keys().filter(|id| !after.contains_key(id)) {
                self.push(peer, "resource_deleted", json!(id));
            }
            for (id, resource) in &after {
                if before.get(id).is_none_or(|it| *it != resource) {
                    let payload = client_resource(*id, resource, &session.agent);
                    self.push(peer, "resource_created_or_updated", payload);
                }
            }
        }
    }

    fn update_relays(&mut self, old: &Config) {
        if old.relays == self.config.relays {
            return;
        }
        let now: BTreeSet<Uuid> = self.config.relays.iter().map(|it| it.id).collect();
        let gone = old.relays.iter().filter(|it| !now.contains(&it.id));
        let gone: Vec<Uuid> = gone.map(|it| it.id).collect();
        for side in [Side::Gateway, Side::Client] {
            for (peer, _) in self.joined_peers(side) {
                self.push_relays(peer, &gone);
            }
        }
    }

    fn update_interfaces(&mut self, old: &Config) {
        for (peer, session) in self.joined_peers(Side::Client) {
            let of = |config: &Config| {
                let device = config.clients.get(&session.device)?;
                Some(interface(device, &config.dns))
            };
            let Some(interface) = of(&self.config) else {
                continue;
            };
            if of(old).as_ref() != Some(&interface) {
                self.push(peer, "config_changed", json!({ "interface": interface }));
            }
        }
    }

    /// Pushes `init` for new addresses and a new account, and all new expiries.
    fn update_gateways(
        &mut self,
        old: &Config,
        moved: &BTreeSet<(Uuid, GrantKey)>,
        now: ClockReading,
    ) {
        let of = |config: &Config, id: Uuid| {
            let device = config.gateways.get(&id)?;
            Some((device.ipv4, device.ipv6, config.account.clone()))
        };
        let mut initiated = BTreeSet::new();
        for (peer, session) in self.joined_peers(Side::Gateway) {
            if of(old, session.device) != of(&self.config, session.device) {
                self.push_init(peer, now);
                initiated.insert(session.device);
            }
        }
        let mut moved = moved.clone();
        moved.retain(|(gateway, _)| !initiated.contains(gateway));
        self.push_expiries(&moved, now);
        self.grants.retain(|_, grant| grant.is_valid(now));
    }
}
