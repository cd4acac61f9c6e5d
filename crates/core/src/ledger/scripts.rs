//! Random histories of a ledger for property tests: few clients, resources and names, so that they
//! interact often.

use super::{Ledger, LedgerLimits};
use crate::authorizations::Announcer;
use crate::grant::{
    AccessRequest, AnnouncedName, AuthorizationEntry, AuthorizationRequest, ClientProfile, Filter,
    IceCredentials, PresharedKey, ReplyKind, Resource, ResourceKind, TunnelAddresses,
};
use crate::ids::{ClientId, PublicKey, ResourceId, UnixTime};
use crate::ledger::ResolvedName;
use crate::names::AddressFamily;
use crate::nat_table::flows::{FlowProtocol, PinnedFlow};
use crate::packet::Path;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Small enough to be reached.
pub(super) const TIGHT: LedgerLimits = LedgerLimits {
    clients: 3,
    resources_per_client: 2,
    candidates_per_client: 2,
    known_names: 2,
};

/// One call; `detail` selects everything that has no number of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) kind: u8,
    pub(super) client: u8,
    pub(super) resource: u8,
    pub(super) detail: u8,
}

pub(super) fn script() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..20, 0_u8..5, 0_u8..4, any::<u8>());
    let step = step.prop_map(|(kind, client, resource, detail)| Step {
        kind,
        client,
        resource,
        detail,
    });
    prop::collection::vec(step, 1..60)
}

impl Step {
    pub(super) fn apply(self, ledger: &mut Ledger) {
        let client = client(self.client);
        match self.kind {
            0..4 => ledger.record_authorization(&self.authorization()),
            4 => ledger.record_access(&self.access()),
            5 => ledger.add_candidates(client, &candidates(self.detail)),
            6 => ledger.remove_candidates(client, &candidates(self.detail)),
            7 => ledger.revoke(client, resource_id(self.resource)),
            8 => ledger.set_expiry(self.entry()),
            9 => ledger.update_resource(&self.resource()),
            10 => ledger.reconcile(tunnel(self.client), &self.entries()),
            11..14 => {
                let (resource, announced, by) = self.name();
                publish_name(ledger, client, resource, announced, by);
            }
            14 => {
                ledger.record_path(client, path(self.detail));
                ledger.record_pins(client, self.pin().into_iter().collect());
            }
            15 => ledger.forget_transport(client),
            16 => ledger.prune_expired(self.time()),
            17 => match self.detail {
                0..200 => ledger.prune_expired(self.time()),
                200.. => ledger.remove_client(client),
            },
            18 => ledger.record_known(self.known()),
            _ => ledger.set_gateway(tunnel(self.detail)),
        }
    }

    pub(super) fn authorization(self) -> AuthorizationRequest {
        let ice = |end: &str| IceCredentials {
            ufrag: format!("{end}{}", self.detail % 2),
            password: Zeroizing::new(format!("{SECRET}-{end}")),
        };
        AuthorizationRequest {
            reply_ref: "ref".into(),
            client: ClientProfile {
                id: client(self.client),
                public_key: PublicKey([self.client; 32]),
                preshared_key: PresharedKey(Zeroizing::new([SECRET_BYTE; 32])),
                tunnel: tunnel(self.client),
            },
            resource: self.resource(),
            gateway_ice: ice("gateway"),
            client_ice: ice("client"),
            expires_at: self.expiry(),
            announced: self.announced(),
            reply: ReplyKind::Granted,
        }
    }

    pub(super) fn access(self) -> AccessRequest {
        AccessRequest {
            reply_ref: "ref".into(),
            client: client(self.client),
            tunnel: (!self.detail.is_multiple_of(3)).then(|| tunnel(self.client)),
            resource: self.resource(),
            expires_at: self.expiry(),
            announced: self.announced(),
        }
    }

    /// Two thirds are names; sometimes the portal changes the kind of a resource.
    pub(super) fn resource(self) -> Resource {
        let dns = ResourceKind::Dns("**.lab.example".into());
        let cidr = ResourceKind::Cidr("10.1.2.3/16".parse().expect("a network"));
        let kind = match (self.resource, self.detail % 16) {
            (0 | 1, 15) | (2, 0..15) => cidr,
            (0 | 1, _) | (2, _) => dns,
            _ => ResourceKind::Internet,
        };
        let filters = match self.detail % 4 {
            0 => vec![],
            1 => vec![Filter::Tcp(80..=80), Filter::Icmp],
            _ => vec![Filter::Udp(0..=u16::MAX)],
        };
        Resource {
            id: resource_id(self.resource),
            name: format!("resource {}", self.detail % 3),
            kind,
            filters,
        }
    }

    fn pin(self) -> Option<PinnedFlow> {
        let AnnouncedName { domain, proxy_ips } = announced(self.detail);
        let v4 = proxy_ips.into_iter().find(IpAddr::is_ipv4);
        v4.map(|proxy| PinnedFlow {
            protocol: FlowProtocol::Udp,
            port: self.resource.into(),
            proxy,
            name: domain.parse().expect("a name"),
            outside_port: 7,
            real: [10, 20, 0, 1].into(),
        })
    }

    pub(super) fn name(self) -> (ResourceId, AnnouncedName, Announcer) {
        let by = match self.detail.is_multiple_of(2) {
            true => Announcer::Client,
            false => Announcer::Portal,
        };
        (resource_id(self.resource), announced(self.detail), by)
    }

    pub(super) fn entry(self) -> AuthorizationEntry {
        AuthorizationEntry {
            client: client(self.client),
            resource: resource_id(self.resource),
            expires_at: self.expiry(),
        }
    }

    /// About half of all possible grants.
    pub(super) fn entries(self) -> Vec<AuthorizationEntry> {
        let all = (0..5).flat_map(|client| (0..4).map(move |resource| (client, resource)));
        let is_listed = |(at, _): &(usize, _)| self.detail >> (at % 8) & 1 == 1;
        let listed = all.enumerate().filter(is_listed);
        let entry = |(_, (client, resource))| {
            Self {
                client,
                resource,
                ..self
            }
            .entry()
        };
        listed.map(entry).collect()
    }

    fn announced(self) -> Option<AnnouncedName> {
        (self.detail % 5 < 2).then(|| announced(self.detail / 2))
    }

    fn expiry(self) -> Option<UnixTime> {
        (!self.detail.is_multiple_of(7)).then(|| self.time())
    }

    fn time(self) -> UnixTime {
        UnixTime(1_700_000_000 + u64::from(self.detail % 32))
    }

    fn known(self) -> ResolvedName {
        let family = AddressFamily::ALL[usize::from(self.detail % 2)];
        let is_of_family = |ip: &IpAddr| AddressFamily::of(*ip) == family;
        let ips = announced(self.detail).proxy_ips;
        ResolvedName {
            name: NAMES[usize::from(self.client % 3)].parse().expect("a name"),
            family,
            ips: ips.into_iter().filter(is_of_family).collect(),
            resolved_at: self.time(),
        }
    }
}

/// The client's connection has handled all commands; it accepts a name and publishes it.
pub(super) fn publish_name(
    ledger: &mut Ledger,
    client: ClientId,
    resource: ResourceId,
    announced: AnnouncedName,
    by: Announcer,
) {
    let Some(record) = ledger.client(client) else {
        return;
    };
    let mut authorizations = record.authorizations.clone();
    if authorizations.assign(resource, &announced, by).is_ok() {
        let included = ledger.last_command(client);
        ledger.record_authorizations(client, included, authorizations, UnixTime(0));
    }
}

pub(super) fn client(number: u8) -> ClientId {
    ClientId(Uuid::from_u128(number.into()))
}

pub(super) fn resource_id(number: u8) -> ResourceId {
    ResourceId(Uuid::from_u128(number.into()))
}

fn tunnel(number: u8) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: Ipv4Addr::new(100, 64, 0, number),
        ipv6: Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, number.into()),
    }
}

/// All proxy IPs of the tests.
pub(super) fn proxy_ips() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..4).map(|n| IpAddr::from([100, 96, 0, n]));
    let v6 = (0..4).map(|n| IpAddr::from([0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, n]));
    v4.chain(v6)
}

/// Of one family, of both, or of none; rarely an invalid one. The sets of one name are equal or
/// disjoint, those of two names may overlap.
fn announced(detail: u8) -> AnnouncedName {
    let name = usize::from(detail % 5);
    let sets: [[&[usize]; 2]; 3] = [[&[0, 1], &[2, 3]], [&[0, 2], &[1]], [&[3], &[2, 1]]];
    let set = |bits: u8| match bits % 3 {
        0 => &[][..],
        choice => sets[[0, 0, 1, 2, 2][name]][usize::from(choice) - 1],
    };
    let all: Vec<_> = proxy_ips().collect();
    let v4 = set(detail / 5).iter().map(|at| all[*at]);
    let v6 = set(detail / 15).iter().map(|at| all[4 + *at]);
    let mut proxy_ips: Vec<_> = v4.chain(v6).collect();
    if detail % 4 == 3 {
        proxy_ips.reverse();
    }
    if detail == 250 {
        proxy_ips.push(IpAddr::from([192, 0, 2, 1]));
    }
    AnnouncedName {
        domain: NAMES[name].into(),
        proxy_ips,
    }
}

fn candidates(detail: u8) -> Vec<String> {
    let chosen = (0..4).filter(|at| detail >> (2 * at) & 3 == 3);
    chosen.map(|at| format!("candidate:{at}")).collect()
}

fn path(detail: u8) -> Path {
    let ends = [
        ("192.0.2.1:51820", "198.51.100.7:4500"),
        ("0.0.0.0:51820", "198.51.100.7:4501"),
        ("[fe80::1%3]:51820", "[fe80::2%3]:4500"),
    ];
    let (local, remote) = ends[usize::from(detail % 3)];
    Path::direct(
        local.parse().expect("an address"),
        remote.parse().expect("an address"),
    )
}

/// The second is the first in another spelling; no resource covers the last.
const NAMES: [&str; 5] = [
    "a.lab.example",
    "A.Lab.example.",
    "b.lab.example",
    "c.d.lab.example",
    "elsewhere.example",
];
/// Part of every secret text of the tests.
pub(super) const SECRET: &str = "hush";
const SECRET_BYTE: u8 = 0xa7;
