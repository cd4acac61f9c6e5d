//! Flows to names that a restored NAT could not recreate by its rule. They are removed with their
//! name: the client must not return to one that it may not reach any more, or reaches under other
//! proxy IPs.

use super::Ledger;
use super::record::{ClientRecord, FlowKey, RecordedName};
use crate::ids::ClientId;
use crate::nat_table::flows::PinnedFlow;
use std::collections::{BTreeMap, BTreeSet};

impl Ledger {
    /// Records a deviating flow, in place of one with the same key. Ignored unless its proxy IP
    /// belongs to its name according to the records.
    pub fn record_pin(&mut self, client: ClientId, flow: PinnedFlow) {
        let limit = self.limits.pins_per_client;
        let key = (flow.protocol, flow.port, flow.proxy);
        self.change(client, |record| {
            let held = record.pins.get(&key);
            let has_room = held.is_some() || record.pins.len() < limit;
            if !has_room || held == Some(&flow) || !is_named(record, &flow) {
                return false;
            }
            record.pins.insert(key, flow);
            true
        });
    }

    /// Removes a flow that has ended or follows the rule again.
    pub fn forget_pin(&mut self, client: ClientId, key: FlowKey) {
        self.change(client, |record| record.pins.remove(&key).is_some());
    }
}

/// Whether the proxy IP of the flow belongs to its name.
fn is_named(record: &ClientRecord, flow: &PinnedFlow) -> bool {
    let is_of_flow = |name: &RecordedName| {
        name.announced.proxy_ips.contains(&flow.proxy) && name.is_for(&flow.name)
    };
    record.names.iter().any(is_of_flow)
}

/// Removes the flows of removed or renumbered names. Returns whether there were any.
pub(super) fn forget_unnamed(record: &mut ClientRecord) -> bool {
    if record.pins.is_empty() {
        return false;
    }
    let proxies: BTreeSet<_> = record.pins.values().map(|flow| flow.proxy).collect();
    let mut owners = BTreeMap::new();
    for name in &record.names {
        let pinned = (name.announced.proxy_ips.iter()).filter(|ip| proxies.contains(ip));
        owners.extend(pinned.map(|ip| (*ip, name)));
    }
    let before = record.pins.len();
    record.pins.retain(|_, flow| {
        let owner = owners.get(&flow.proxy);
        owner.is_some_and(|name| name.is_for(&flow.name))
    });
    before != record.pins.len()
}

#[cfg(test)]
mod tests {
    use super::super::scripts::{Step, TIGHT, client, resource_id};
    use super::*;
    use crate::grant::AuthorizationEntry;
    use crate::ids::UnixTime;
    use crate::nat_table::flows::FlowProtocol;

    const NAME: &str = "a.lab.example";

    fn pin(port: u16, outside_port: u16) -> PinnedFlow {
        PinnedFlow {
            protocol: FlowProtocol::Tcp,
            port,
            proxy: [100, 96, 0, 1].into(),
            name: NAME.parse().expect("a name"),
            outside_port,
            real: [10, 20, 0, 100].into(),
        }
    }

    fn step(resource: u8) -> Step {
        Step {
            kind: 0,
            client: 1,
            resource,
            detail: 3,
        }
    }

    fn named(domain: &str, last: u8) -> RecordedName {
        let mut name = step(0).name();
        name.announced.domain = domain.into();
        name.announced.proxy_ips = vec![[100, 96, 0, last].into()];
        name
    }

    /// Two resources; the first has the name of the pins.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(TIGHT);
        step(0).apply(&mut ledger);
        step(3).apply(&mut ledger);
        ledger.record_name(client(1), named(NAME, 1));
        ledger
    }

    fn pins(ledger: &Ledger) -> Vec<PinnedFlow> {
        let record = ledger.client(client(1)).expect("granted").clone();
        record.pins.values().cloned().collect()
    }

    /// docs/lessons.md 5: A refresh does not cut live flows.
    #[test]
    fn a_pin_lasts_until_it_is_removed_and_there_is_a_limit() {
        let mut ledger = ledger();
        ledger.record_pin(client(2), pin(1, 1));
        assert!(ledger.client(client(2)).is_none(), "no client is created");
        ledger.record_pin(client(1), pin(1, 1));
        ledger.record_pin(client(1), pin(1, 2));
        ledger.record_pin(client(1), pin(2, 2));
        ledger.record_pin(client(1), pin(3, 3));
        assert_eq!(pins(&ledger), [pin(1, 2), pin(2, 2)]);

        let revision = ledger.revision();
        ledger.record_pin(client(1), pin(2, 2));
        assert_eq!(ledger.revision(), revision);
        ledger.forget_pin(client(1), (FlowProtocol::Tcp, 1, [100, 96, 0, 1].into()));
        assert_eq!(pins(&ledger), [pin(2, 2)]);
    }

    /// docs/lessons.md 17: A reused proxy IP resets its mapping.
    #[test]
    fn removes_pins_with_their_name_and_ignores_late_ones() {
        let ends: [fn(&mut Ledger); 6] = [
            |ledger| ledger.revoke(client(1), resource_id(0)),
            |ledger| ledger.record_name(client(1), named("b.lab.example", 1)),
            |ledger| ledger.record_name(client(1), named(NAME, 2)),
            |ledger| {
                let entry = AuthorizationEntry {
                    client: client(1),
                    resource: resource_id(3),
                    expires_at: None,
                };
                let gateway = step(0).authorization().client.tunnel;
                ledger.reconcile(gateway, &[entry]);
            },
            |ledger| {
                ledger.set_expiry(over());
                ledger.prune_expired(UnixTime(1));
            },
            |ledger| {
                // Two names more than the limit.
                ledger.record_name(client(1), named("b.lab.example", 2));
                ledger.record_name(client(1), named("c.d.lab.example", 3));
            },
        ];
        for (at, end) in ends.into_iter().enumerate() {
            let mut ledger = ledger();
            ledger.record_pin(client(1), pin(1, 2));
            assert_eq!(pins(&ledger).len(), 1);
            end(&mut ledger);
            assert_eq!(pins(&ledger), [], "end {at}");
            ledger.record_pin(client(1), pin(1, 2));
            assert_eq!(pins(&ledger), [], "late news after end {at}");
        }
    }

    fn over() -> AuthorizationEntry {
        AuthorizationEntry {
            client: client(1),
            resource: resource_id(0),
            expires_at: Some(UnixTime(1)),
        }
    }

    #[test]
    fn another_spelling_or_more_proxy_ips_keep_the_pins() {
        let mut ledger = ledger();
        ledger.record_pin(client(1), pin(1, 2));
        let mut name = named("A.lab.example.", 1);
        name.announced.proxy_ips.push([100, 96, 0, 2].into());
        ledger.record_name(client(1), name);
        assert_eq!(pins(&ledger), [pin(1, 2)]);
    }
}
