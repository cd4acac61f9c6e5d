//! A client that may use every name, for the tests of what is told its names.

use super::{Announcer, Authorizations, NameChange, NameMeaning};
use crate::grant::{AnnouncedName, Resource, ResourceKind};
use crate::ids::ResourceId;
use std::net::IpAddr;
use uuid::Uuid;

/// The authorizations of one client.
#[derive(Debug, Default)]
pub(crate) struct Entitled(pub(crate) Authorizations);

impl Entitled {
    /// The client announces a name inside the tunnel, for a resource that covers every name.
    pub(crate) fn announce(
        &mut self,
        resource: u128,
        domain: &str,
        proxy_ips: &[IpAddr],
    ) -> Vec<NameMeaning> {
        self.announce_by(Announcer::Client, resource, domain, proxy_ips)
    }

    pub(crate) fn announce_by(
        &mut self,
        by: Announcer,
        resource: u128,
        domain: &str,
        proxy_ips: &[IpAddr],
    ) -> Vec<NameMeaning> {
        let resource = everything(resource);
        let id = resource.id;
        self.0.allow(resource, None, usize::MAX).expect("room");
        let announced = AnnouncedName {
            domain: domain.into(),
            proxy_ips: proxy_ips.to_vec(),
        };
        let changes = self.0.assign(id, &announced, by).expect("entitled");
        changes.iter().filter_map(NameChange::meaning).collect()
    }

    pub(crate) fn release(&mut self, resource: u128) -> Vec<NameMeaning> {
        let changes = self.0.revoke(ResourceId(Uuid::from_u128(resource)));
        changes
            .names
            .iter()
            .filter_map(NameChange::meaning)
            .collect()
    }
}

/// A resource that covers every name.
pub(crate) fn everything(number: u128) -> Resource {
    Resource {
        id: ResourceId(Uuid::from_u128(number)),
        name: String::new(),
        kind: ResourceKind::Dns("**".into()),
        filters: Vec::new(),
    }
}
