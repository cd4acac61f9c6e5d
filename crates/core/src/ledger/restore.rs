//! Restores the records of a saved ledger, limited to what this ledger could have recorded itself.

use super::names::is_plausible;
use super::pins::forget_unnamed;
use super::record::{ClientRecord, RecordedName};
use super::transport::MAX_CANDIDATE_BYTES;
use super::{Ledger, LedgerLimits};
use crate::grant::ResourceKind;
use crate::ids::{ClientId, ResourceId};
use crate::names::DomainName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

impl Ledger {
    /// Restores a client's record, within the limits.
    pub(super) fn restore(&mut self, client: ClientId, mut record: ClientRecord) {
        let is_known = self.clients.contains_key(&client);
        if !is_known && self.clients.len() >= self.limits.clients {
            return;
        }
        fit(&mut record, &self.limits);
        if !record.grants.is_empty() {
            self.clients.insert(client, Arc::new(record));
            self.note(true);
        }
    }
}

fn fit(record: &mut ClientRecord, limits: &LedgerLimits) {
    while record.grants.len() > limits.resources_per_client {
        record.grants.pop_last();
    }
    fit_names(record, limits.names_per_client);
    forget_unnamed(record);
    if record.transport.is_none() {
        record.remote_candidates.clear();
        record.path = None;
    }
    let mut seen = BTreeSet::new();
    let candidates = &mut record.remote_candidates;
    candidates.retain(|line| line.len() <= MAX_CANDIDATE_BYTES && seen.insert(line.clone()));
    keep_last(candidates, limits.candidates_per_client);
    while record.pins.len() > limits.pins_per_client {
        record.pins.pop_last();
    }
}

/// Keeps each name once for each resource, and each proxy IP for one name.
fn fit_names(record: &mut ClientRecord, limit: usize) {
    let grants = &record.grants;
    let is_dns = |resource: &ResourceId| {
        let kind = grants.get(resource).map(|grant| &grant.resource.kind);
        matches!(kind, Some(ResourceKind::Dns(_)))
    };
    let mut seen = BTreeSet::new();
    let mut owners: BTreeMap<IpAddr, DomainName> = BTreeMap::new();
    let mut is_fit = |name: &RecordedName| {
        let ips = &name.announced.proxy_ips;
        let Ok(domain) = name.announced.domain.parse::<DomainName>() else {
            return false;
        };
        let is_taken = |ip: &IpAddr| owners.get(ip).is_some_and(|owner| *owner != domain);
        if !is_dns(&name.resource) || !is_plausible(ips) || ips.iter().any(is_taken) {
            return false;
        }
        owners.extend(ips.iter().map(|ip| (*ip, domain.clone())));
        seen.insert((name.resource, domain))
    };
    record.names.retain(&mut is_fit);
    keep_last(&mut record.names, limit);
}

fn keep_last<T>(list: &mut Vec<T>, limit: usize) {
    list.drain(..list.len().saturating_sub(limit));
}
