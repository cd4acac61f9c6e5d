//! Flows to names that a rebuilt NAT could not make anew by its rule.

use super::Ledger;
use super::record::FlowKey;
use crate::ids::ClientId;
use crate::nat_table::flows::PinnedFlow;

impl Ledger {
    /// A flow deviates from the rule. Takes the place of one with the same key.
    pub fn record_pin(&mut self, client: ClientId, flow: PinnedFlow) {
        let limit = self.limits.pins_per_client;
        let key = (flow.protocol, flow.port, flow.proxy);
        self.change(client, |record| {
            let has_room = record.pins.contains_key(&key) || record.pins.len() < limit;
            has_room && record.pins.insert(key, flow) != Some(flow)
        });
    }

    /// It has ended, or follows the rule again.
    pub fn forget_pin(&mut self, client: ClientId, key: FlowKey) {
        self.change(client, |record| record.pins.remove(&key).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripts::{Step, TIGHT, client};
    use super::*;
    use crate::nat_table::flows::FlowProtocol;

    fn pin(port: u16, outside_port: u16) -> PinnedFlow {
        PinnedFlow {
            protocol: FlowProtocol::Tcp,
            port,
            proxy: [100, 96, 0, 1].into(),
            outside_port,
            real: [10, 20, 0, 100].into(),
        }
    }

    #[test]
    fn lesson_05_a_pin_lasts_until_it_is_taken_back_and_there_is_a_limit() {
        let mut ledger = Ledger::new(TIGHT);
        let grant = Step {
            kind: 0,
            client: 1,
            resource: 0,
            detail: 0,
        };
        ledger.record_pin(client(1), pin(1, 1));
        assert!(ledger.client(client(1)).is_none(), "nobody is made up");
        grant.apply(&mut ledger);
        ledger.record_pin(client(1), pin(1, 1));
        ledger.record_pin(client(1), pin(1, 2));
        ledger.record_pin(client(1), pin(2, 2));
        ledger.record_pin(client(1), pin(3, 3));
        let pins = |ledger: &Ledger| {
            let record = ledger.client(client(1)).expect("granted").clone();
            record.pins.values().copied().collect::<Vec<_>>()
        };
        assert_eq!(pins(&ledger), [pin(1, 2), pin(2, 2)]);

        let revision = ledger.revision();
        ledger.record_pin(client(1), pin(2, 2));
        assert_eq!(ledger.revision(), revision);
        ledger.forget_pin(client(1), (FlowProtocol::Tcp, 1, [100, 96, 0, 1].into()));
        assert_eq!(pins(&ledger), [pin(2, 2)]);
    }
}
