//! Finds a client by its id, a prefix of it, or its tunnel address. The portal sends gateways no
//! names of clients.

use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The clients that match a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMatch {
    /// Exactly one client matches.
    One(ClientId),
    /// The ids of several clients begin with the text.
    Several(Vec<ClientId>),
    /// No client matches the text.
    None {
        /// The client with the most similar id.
        nearest: Option<ClientId>,
    },
}

/// Finds the client that `text` means among all known ones.
#[must_use]
pub fn identify(text: &str, known: &BTreeMap<ClientId, TunnelAddresses>) -> ClientMatch {
    let text = text.trim().to_ascii_lowercase();
    if let Ok(ip) = text.parse::<IpAddr>() {
        let mut all = known.iter();
        let at_ip = all.find(|(_, tunnel)| tunnel.contains(ip));
        return match at_ip {
            Some((id, _)) => ClientMatch::One(*id),
            None => ClientMatch::None { nearest: None },
        };
    }
    let asked = bare(&text);
    let is_hex = asked.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begins = |id: &&ClientId| is_hex && !asked.is_empty() && hex(id).starts_with(&asked);
    let matches: Vec<_> = known.keys().filter(begins).copied().collect();
    match matches[..] {
        [one] => ClientMatch::One(one),
        [] => ClientMatch::None {
            nearest: nearest(&asked, known.keys().copied()),
        },
        [..] => ClientMatch::Several(matches),
    }
}

fn hex(id: &ClientId) -> String {
    id.0.simple().to_string()
}

fn bare(text: &str) -> String {
    text.chars().filter(|character| *character != '-').collect()
}

/// The id with the most characters in common, if these are most of the given ones.
fn nearest(asked: &str, known: impl Iterator<Item = ClientId>) -> Option<ClientId> {
    let in_common = |id: &ClientId| {
        let hex = hex(id);
        // A missing or an extra character shifts the rest: matches count from both ends.
        let from_start = asked.bytes().zip(hex.bytes());
        let from_end = asked.bytes().rev().zip(hex.bytes().rev());
        let start = from_start.take_while(|(one, other)| one == other).count();
        let end = from_end.take_while(|(one, other)| one == other).count();
        start + end
    };
    let best = known.max_by_key(in_common)?;
    let is_near = asked.len() >= NEAR && in_common(&best) * 4 >= asked.len() * 3;
    is_near.then_some(best)
}

/// Shorter texts resemble too many ids.
const NEAR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ADA: u128 = 0xada0_0000_0000_4000_8000_0000_0000_0001;
    const BEN: u128 = 0xbe00_0000_0000_4000_8000_0000_0000_0002;
    const BEA: u128 = 0xbea0_0000_0000_4000_8000_0000_0000_0003;

    fn id(number: u128) -> ClientId {
        ClientId(Uuid::from_u128(number))
    }

    fn who(text: &str) -> ClientMatch {
        let all = [(ADA, 1), (BEN, 2), (BEA, 3)];
        let known = all.map(|(number, last)| {
            let tunnel = TunnelAddresses {
                ipv4: [100, 64, 0, last].into(),
                ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, u16::from(last)].into(),
            };
            (id(number), tunnel)
        });
        identify(text, &known.into_iter().collect())
    }

    #[test]
    fn finds_a_client_by_id_prefix_and_tunnel_addresses() {
        for text in [
            "ada00000-0000-4000-8000-000000000001",
            "ADA00000000040008000000000000001",
            "ada00000-0000",
            "a",
            "100.64.0.1",
            "fd00:2021:1111::1",
        ] {
            assert_eq!(who(text), ClientMatch::One(id(ADA)), "{text}");
        }
    }

    #[test]
    fn an_ambiguous_prefix_names_all_matches() {
        assert_eq!(who("be"), ClientMatch::Several(vec![id(BEN), id(BEA)]));
    }

    #[test]
    fn suggests_the_nearest_id_for_a_typing_error_only() {
        let nearest = |text| match who(text) {
            ClientMatch::None { nearest } => nearest,
            found @ (ClientMatch::One(_) | ClientMatch::Several(_)) => {
                panic!("{text} is {found:?}")
            }
        };
        let misspelled = "ada00000-0000-4000-8000-00000000001";
        assert_eq!(nearest(misspelled), Some(id(ADA)));
        let wrong = "ada00000-0000-4000-9000-000000000001";
        assert_eq!(nearest(wrong), Some(id(ADA)));
        for text in [
            "",
            "-",
            "laptop",
            "100.64.0.9",
            "ffff0000-1234-4321-aaaa-bbbbbbbbbbbb",
        ] {
            assert_eq!(nearest(text), None, "{text}");
        }
    }
}
