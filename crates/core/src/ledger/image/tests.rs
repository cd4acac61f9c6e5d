//! Tests of the saved state.

use super::super::scripts::{SECRET, Step, TIGHT, script};
use super::*;
use crate::ids::RelayId;
use crate::packet::Path;
use proptest::prelude::*;

const KEY: [u8; 32] = [7; 32];
const ROOMY: usize = 1 << 20;

fn state(ledger: Ledger) -> SavedState {
    SavedState {
        saved_at: UnixTime(1_700_000_000),
        gateway_key: Zeroizing::new([0xa5; 32]),
        ice_secret: Zeroizing::new([0xa6; 32]),
        udp_port: 51820,
        taken_over_at: Some(UnixTime(1_600_000_000)),
        ledger,
    }
}

fn lived(script: &[Step], limits: LedgerLimits) -> Ledger {
    let mut ledger = Ledger::new(limits);
    for step in script {
        step.apply(&mut ledger);
    }
    ledger
}

/// A history with every kind of record.
fn eventful() -> Ledger {
    let steps = (0..=255).flat_map(|detail: u8| {
        [0, 11, 14, 5, 18, 19].map(|kind| Step {
            kind,
            client: detail % 3,
            resource: detail % 4,
            detail,
        })
    });
    lived(&steps.collect::<Vec<_>>(), LedgerLimits::default())
}

fn encoded(ledger: Ledger) -> Zeroizing<Vec<u8>> {
    encode(&state(ledger), &KEY, ROOMY).expect("it fits")
}

fn read(image: &[u8]) -> Result<SavedState, ImageError> {
    decode(image, &KEY, LedgerLimits::default())
}

fn same(one: &Ledger, other: &Ledger) -> bool {
    one.gateway() == other.gateway()
        && one.clients().eq(other.clients())
        && one.known_names().eq(other.known_names())
}

/// Any body with a valid HMAC, as from an incompatible program.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut image = header(body.len(), &KEY).to_vec();
    image.extend(body);
    let mac = mac(&KEY, &image).finalize();
    image.extend(mac.into_bytes());
    image
}

#[test]
fn prints_no_secret() {
    let state = state(eventful());
    let image = encode(&state, &KEY, ROOMY).expect("it fits");
    let has_secret = |bytes: &[u8]| bytes.windows(4).any(|it| it == SECRET.as_bytes());
    assert!(
        has_secret(&image),
        "the test looks for something that is there"
    );
    let printed = format!("{state:?} {:?}", state.ledger);
    assert!(!has_secret(printed.as_bytes()));
    for bytes in ["165, 165", "166, 166", "167, 167"] {
        assert!(!printed.contains(bytes), "{bytes}");
    }
}

#[test]
fn detects_every_damaged_byte() {
    let image = encoded(eventful());
    for at in 0..image.len() {
        let mut damaged = image.to_vec();
        damaged[at] ^= 0x10;
        assert!(read(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn detects_every_truncation() {
    let image = encoded(eventful());
    for length in 0..image.len() {
        assert_eq!(
            read(&image[..length]).err(),
            Some(ImageError::TooShort),
            "{length}"
        );
    }
    let longer = [&image[..], b"\0"].concat();
    assert_eq!(read(&longer).err(), Some(ImageError::Damaged));
}

#[test]
fn distinguishes_a_foreign_state_from_a_damaged_one() {
    let image = encoded(eventful());
    let other = decode(&image, &[8; 32], LedgerLimits::default());
    assert_eq!(other.err(), Some(ImageError::Foreign));
    let mut newer = image.to_vec();
    newer[8] = 9;
    assert_eq!(
        read(&newer).err(),
        Some(ImageError::UnknownVersion { found: 9 })
    );
}

#[test]
fn refuses_a_state_that_is_too_large() {
    let (state, bytes) = (state(eventful()), encoded(eventful()).len());
    assert!(encode(&state, &KEY, bytes).is_ok());
    let limit = bytes - 1;
    let refused = encode(&state, &KEY, limit).err();
    assert_eq!(refused, Some(ImageError::TooLarge { bytes, limit }));
}

#[test]
fn smaller_limits_omit_excess_records() {
    let restored = decode(&encoded(eventful()), &KEY, TIGHT)
        .expect("a state")
        .ledger;
    assert_eq!(restored.clients().len(), 3);
    assert_eq!(restored.known_names().len(), TIGHT.known_names);
    for (_, record) in restored.clients() {
        assert!(record.authorizations.grants().len() <= TIGHT.resources_per_client);
        assert!(record.remote_candidates.len() <= TIGHT.candidates_per_client);
    }
}

/// If this fails for the same script, the layout has changed: see `wire` for the way to add a
/// field. If that is not enough, raise `VERSION`, then set the new digest.
#[test]
fn the_layout_belongs_to_its_version() {
    use sha2::Digest;
    let image = encoded(eventful());
    let digest = sha2::Sha256::digest(&image[HEADER_BYTES..image.len() - MAC_BYTES]);
    let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    assert_eq!((VERSION, digest.collect::<String>()), (2, LAYOUT.into()));
}

const LAYOUT: &str = "17949aa11b437333";

/// What a program with version 1 wrote of [`eventful`].
fn version_1() -> Vec<u8> {
    let hex = include_str!("version1.hex").replace('\n', "");
    let image = data_encoding::HEXLOWER.decode(hex.as_bytes());
    image.expect("hexadecimal digits")
}

#[test]
fn reads_what_version_1_wrote() {
    let image = version_1();
    assert_eq!(image[8], 1);
    let (read, written) = (read(&image).expect("a state"), state(eventful()));
    assert!(same(&read.ledger, &written.ledger));
    assert!(
        read.ledger
            .clients()
            .any(|(_, record)| record.path.is_some())
    );
    assert_eq!(read.gateway_key, written.gateway_key);
    assert_eq!(read.ice_secret, written.ice_secret);
    assert_eq!(read.udp_port, written.udp_port);
    assert_eq!(read.saved_at, written.saved_at);
    assert_eq!(read.taken_over_at, written.taken_over_at);
}

#[test]
fn the_body_of_one_version_is_no_body_of_another() {
    for (mut image, version) in [(version_1(), 2), (encoded(eventful()).to_vec(), 1)] {
        image[8] = version;
        let sealed_bytes = image.len() - MAC_BYTES;
        let mac = mac(&KEY, &image[..sealed_bytes]).finalize().into_bytes();
        image[sealed_bytes..].copy_from_slice(&mac);
        assert_eq!(read(&image).err(), Some(ImageError::Damaged));
    }
}

#[test]
fn a_path_keeps_its_relay() {
    let mut ledger = eventful();
    let record = ledger.clients().find(|(_, it)| it.path.is_some());
    let (client, path) = record.map(|(id, it)| (id, it.path)).expect("a client");
    let via = Some(RelayId::of("r1"));
    let path = path.map(|path| Path { via, ..path }).expect("a path");
    ledger.record_path(client, path);
    let restored = read(&encoded(ledger.clone())).expect("a state").ledger;
    assert!(same(&ledger, &restored));
    assert!(restored.clients().any(|(_, it)| it.path == Some(path)));
}

#[test]
fn a_reader_skips_fields_that_it_does_not_know() {
    let before = state(eventful());
    let image = sealed(&wire::with_unknown_fields(&before));
    assert!(image.len() > encoded(eventful()).len());
    let after = read(&image).expect("a state");
    assert!(same(&before.ledger, &after.ledger));
}

proptest! {
    #[test]
    fn decodes_what_was_encoded(script in script()) {
        let limits = LedgerLimits::default();
        let before = state(lived(&script, limits));
        let image = encode(&before, &KEY, ROOMY).expect("it fits");
        let after = decode(&image, &KEY, limits).expect("it is whole");
        prop_assert!(same(&before.ledger, &after.ledger));
        prop_assert_eq!(&before.gateway_key, &after.gateway_key);
        prop_assert_eq!(&before.ice_secret, &after.ice_secret);
        prop_assert_eq!(before.udp_port, after.udp_port);
        prop_assert_eq!(before.saved_at, after.saved_at);
        prop_assert_eq!(before.taken_over_at, after.taken_over_at);
        prop_assert_eq!(encode(&after, &KEY, ROOMY).expect("it fits"), image);
    }

    #[test]
    fn refuses_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
        let tail = [&header(bytes.len(), &KEY)[..], &bytes].concat();
        prop_assert!(read(&tail).is_err());
    }

    /// A body with a valid HMAC is not trusted either: it is decoded or refused, within the limits.
    #[test]
    fn no_authenticated_body_breaks_the_decoder(
        script in script(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let image = encoded(lived(&script, LedgerLimits::default()));
        let mut body = image[HEADER_BYTES..image.len() - MAC_BYTES].to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        for body in [body, noise] {
            if let Ok(state) = decode(&sealed(&body), &KEY, TIGHT) {
                prop_assert!(state.ledger.clients().len() <= TIGHT.clients);
                prop_assert!(state.ledger.known_names().len() <= TIGHT.known_names);
                for (_, record) in state.ledger.clients() {
                    super::super::tests::require_consistent(record, &TIGHT);
                }
            }
        }
    }
}
