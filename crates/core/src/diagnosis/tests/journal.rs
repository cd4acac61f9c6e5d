//! The journal of ended grants.

use super::*;
use crate::ledger::EndedGrant;

fn ended(number: u128, expires_at: Option<u64>, end: GrantEnd) -> EndedGrant {
    EndedGrant {
        client: ClientId(Uuid::from_u128(number)),
        tunnel: TunnelAddresses {
            ipv4: [100, 64, 0, 5].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 5].into(),
        },
        grant: Grant {
            resource: wiki(),
            expires_at: expires_at.map(UnixTime),
        },
        end,
    }
}

#[test]
fn a_full_journal_drops_the_oldest_entry() {
    let mut journal = Journal::default();
    for number in 0..=Journal::ENTRIES as u128 {
        journal.note(ended(number, None, GrantEnd::Revoked), NOW);
    }
    let clients: Vec<_> = journal.latest().map(|it| it.client.0.as_u128()).collect();
    assert_eq!(clients.len(), Journal::ENTRIES);
    assert_eq!(clients.first(), Some(&(Journal::ENTRIES as u128)));
    assert_eq!(clients.last(), Some(&1));
}

#[test]
fn an_expired_grant_counts_as_expired_for_any_removal() {
    let mut journal = Journal::default();
    let expired_at = NOW.0 - 30;
    for end in [GrantEnd::ClientGone, GrantEnd::Unlisted, GrantEnd::Expired] {
        journal.note(ended(1, Some(expired_at), end), NOW);
    }
    journal.note(ended(2, Some(NOW.0 + 30), GrantEnd::Revoked), NOW);
    let mut latest = journal.latest();
    let revoked = latest.next().expect("four were noted");
    assert_eq!((revoked.at, revoked.end), (NOW, GrantEnd::Revoked));
    for expired in latest {
        assert_eq!((expired.at.0, expired.end), (expired_at, GrantEnd::Expired));
    }
}
