//! Which client is meant: by its id, the beginning of it, or its tunnel address. The portal tells
//! gateways no names of clients.

use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Who is meant by a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMatch {
    /// This client.
    One(ClientId),
    /// Several clients' ids begin like that.
    Several(Vec<ClientId>),
    /// Nobody.
    None {
        /// Whose id is written almost like that.
        nearest: Option<ClientId>,
    },
}

/// Finds the client that `text` means among all that are known.
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

/// The id with the most characters in common, if these are most of what was given.
fn nearest(asked: &str, known: impl Iterator<Item = ClientId>) -> Option<ClientId> {
    let in_common = |id: &ClientId| {
        let hex = hex(id);
        // A character too few or too many shifts the rest: what is right counts from both ends.
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

/// With less than this, everything resembles everything.
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
    fn a_client_is_found_by_its_id_its_beginning_and_its_tunnel_addresses() {
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
    fn a_beginning_that_several_have_names_them() {
        assert_eq!(who("be"), ClientMatch::Several(vec![id(BEN), id(BEA)]));
    }

    #[test]
    fn a_slip_of_the_pen_is_led_to_the_nearest_id_and_nothing_else_is() {
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
