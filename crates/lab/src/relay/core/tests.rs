//! The relay's answers, checked with keys derived here from docs/protocol.md and not by the relay's
//! own code.

use super::*;
use proptest::prelude::*;
use stun::attributes::{ATTR_ERROR_CODE, ATTR_REQUESTED_TRANSPORT, ATTR_XORMAPPED_ADDRESS};
use stun::message::{BINDING_REQUEST, CLASS_INDICATION, Getter, Method};

const SECRET: &str = "stamp-secret-1";
/// The vector of docs/protocol.md 10.
const USERNAME: &str = "2145916800:nXAyqBpHWYA/1G2XTllLzU96O4pcBycOWOnhLBT9TPA";
const PASSWORD: &str = "xY1uFP9jjjAXJTSQh5GXbvAPv6XCpor+AP95KXVcPpw";
const NOW: u64 = 1_790_000_000;
/// ADDITIONAL-ADDRESS-FAMILY, which connlib sends and this crate does not name.
const ADDITIONAL_ADDRESS_FAMILY: AttrType = AttrType(0x8000);

fn relay() -> RelayCore {
    RelayCore::new(SECRET.to_owned(), [7; 32])
}

fn client() -> SocketAddr {
    "198.51.100.7:52625".parse().expect("an address")
}

fn key(password: &str) -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity(
        USERNAME.to_owned(),
        "firezone".to_owned(),
        password.to_owned(),
    )
}

/// A request as connlib makes it: signed from the first attempt on, no FINGERPRINT.
fn signed_request(method: Method, nonce: Option<&str>, password: &str) -> Vec<u8> {
    let mut request = Message::new();
    request
        .build(&[
            Box::new(TransactionId([9; 12])),
            Box::new(MessageType::new(method, CLASS_REQUEST)),
        ])
        .expect("builds");
    request.add(ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    request.add(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    request.add(ATTR_SOFTWARE, b"snownet");
    request.add(ATTR_USERNAME, USERNAME.as_bytes());
    request.add(ATTR_REALM, b"firezone");
    if let Some(nonce) = nonce {
        request.add(ATTR_NONCE, nonce.as_bytes());
    }
    key(password).add_to(&mut request).expect("signs");
    request.raw
}

fn ask(relay: &mut RelayCore, request: &[u8]) -> Message {
    let bytes = relay.handle(request, client(), NOW).expect("an answer");
    let mut answer = Message::new();
    answer.unmarshal_binary(&bytes).expect("well-formed");
    answer
}

fn error_code(answer: &Message) -> u16 {
    let mut error = ErrorCodeAttribute::default();
    error.get_from(answer).expect("an error code");
    error.code.0
}

fn nonce_of(answer: &Message) -> String {
    text_of(answer, ATTR_NONCE).expect("a nonce")
}

fn assert_signed(answer: &mut Message) {
    key(PASSWORD).check(answer).expect("verifies");
}

#[test]
fn binding_reports_the_address_the_request_came_from() {
    for from in ["198.51.100.7:52625", "[2001:db8::7]:40000"] {
        let from: SocketAddr = from.parse().expect("an address");
        let mut request = Message::new();
        let id = TransactionId([3; 12]);
        request
            .build(&[Box::new(id), Box::new(BINDING_REQUEST)])
            .expect("builds");
        let bytes = relay().handle(&request.raw, from, NOW).expect("an answer");
        let mut answer = Message::new();
        answer.unmarshal_binary(&bytes).expect("well-formed");
        assert_eq!(answer.transaction_id, id);
        assert_eq!(bytes[..2], [0x01, 0x01], "Binding success");
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&answer).expect("an address");
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), from);
        assert!(!answer.contains(ATTR_FINGERPRINT));
    }
}

#[test]
fn binding_matches_the_sample_of_rfc_5769() {
    // RFC 5769, 2.2: transaction id b7e7a701bc34d686fa87dfae, mapped address 192.0.2.1 port 32853.
    let request = [
        0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,
        0x86, 0xfa, 0x87, 0xdf, 0xae,
    ];
    let from = "192.0.2.1:32853".parse().expect("an address");
    let bytes = relay().handle(&request, from, NOW).expect("an answer");
    let mut answer = Message::new();
    answer.unmarshal_binary(&bytes).expect("well-formed");
    let (mapped, _) = answer.attributes.get(ATTR_XORMAPPED_ADDRESS);
    assert_eq!(
        mapped.value,
        [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]
    );
}

#[test]
fn a_fingerprint_is_answered_with_a_fingerprint_and_a_false_one_not_at_all() {
    let mut request = Message::new();
    request
        .build(&[Box::new(BINDING_REQUEST), Box::new(FINGERPRINT)])
        .expect("builds");
    let answer = ask(&mut relay(), &request.raw);
    FINGERPRINT.check(&answer).expect("holds");

    let mut broken = request.raw.clone();
    *broken.last_mut().expect("not empty") ^= 1;
    let mut relay = relay();
    assert_eq!(relay.handle(&broken, client(), NOW), None);
    assert_eq!(relay.counters().malformed, 1);
}

#[test]
fn the_401_to_an_allocate_without_nonce_is_signed() {
    let request = signed_request(METHOD_ALLOCATE, None, PASSWORD);
    let mut answer = ask(&mut relay(), &request);
    assert_eq!(error_code(&answer), 401);
    assert_eq!(text_of(&answer, ATTR_REALM).as_deref(), Some("firezone"));
    assert!(nonce_of(&answer).parse::<uuid::Uuid>().is_ok());
    assert_signed(&mut answer);
}

#[test]
fn an_authenticated_allocate_is_refused_with_a_signed_486() {
    let mut relay = relay();
    let first = ask(&mut relay, &signed_request(METHOD_ALLOCATE, None, PASSWORD));
    let nonce = nonce_of(&first);
    let retry = signed_request(METHOD_ALLOCATE, Some(&nonce), PASSWORD);
    let mut answer = ask(&mut relay, &retry);
    assert_eq!(error_code(&answer), 486);
    assert_eq!(answer.raw[..2], [0x01, 0x13], "Allocate error response");
    assert_signed(&mut answer);
}

#[test]
fn requests_about_allocations_are_refused_with_a_signed_437() {
    for method in [
        METHOD_REFRESH,
        METHOD_CHANNEL_BIND,
        METHOD_CREATE_PERMISSION,
    ] {
        let mut relay = relay();
        let nonce = nonce_of(&ask(&mut relay, &signed_request(method, None, PASSWORD)));
        let mut answer = ask(&mut relay, &signed_request(method, Some(&nonce), PASSWORD));
        assert_eq!(error_code(&answer), 437);
        assert_signed(&mut answer);
    }
}

#[test]
fn an_unsigned_allocate_and_a_wrong_password_get_an_unsigned_401() {
    let mut bare = Message::new();
    bare.build(&[Box::new(MessageType::new(METHOD_ALLOCATE, CLASS_REQUEST))])
        .expect("builds");
    for request in [bare.raw, signed_request(METHOD_ALLOCATE, None, "wrong")] {
        let answer = ask(&mut relay(), &request);
        assert_eq!(error_code(&answer), 401);
        assert!(!answer.contains(ATTR_MESSAGE_INTEGRITY));
        assert!(answer.contains(ATTR_NONCE));
    }
}

#[test]
fn expired_credentials_get_an_unsigned_401() {
    let request = signed_request(METHOD_ALLOCATE, None, PASSWORD);
    let mut relay = relay();
    let bytes = relay.handle(&request, client(), 2_145_916_800);
    let mut answer = Message::new();
    answer
        .unmarshal_binary(&bytes.expect("an answer"))
        .expect("well-formed");
    assert_eq!(error_code(&answer), 401);
    assert!(!answer.contains(ATTR_MESSAGE_INTEGRITY));
}

#[test]
fn a_nonce_of_another_socket_is_stale() {
    let mut relay = relay();
    let other = "198.51.100.8:52625".parse().expect("an address");
    let request = signed_request(METHOD_ALLOCATE, None, PASSWORD);
    let bytes = relay.handle(&request, other, NOW).expect("an answer");
    let mut challenge = Message::new();
    challenge.unmarshal_binary(&bytes).expect("well-formed");
    let stolen = nonce_of(&challenge);
    let request = signed_request(METHOD_ALLOCATE, Some(&stolen), PASSWORD);
    let mut answer = ask(&mut relay, &request);
    assert_eq!(error_code(&answer), 438);
    assert_signed(&mut answer);
}

#[test]
fn a_nonce_is_spent_after_ten_thousand_requests() {
    let mut nonces = Nonces::new([1; 32]);
    let nonce = nonces.issue(client());
    assert_eq!(nonces.issue(client()), nonce, "a retransmission agrees");
    for _ in 0..REQUESTS_PER_NONCE {
        assert!(nonces.spend(client(), &nonce));
    }
    assert!(!nonces.spend(client(), &nonce));
    assert_ne!(nonces.issue(client()), nonce);
}

#[test]
fn nonces_stay_bounded_and_the_oldest_is_forgotten() {
    let mut nonces = Nonces::new([1; 32]);
    let socket = |n: usize| SocketAddr::from(([198, 51, (n >> 8) as u8, n as u8], 1000));
    let first = nonces.issue(socket(0));
    for n in 1..=MAX_NONCES {
        nonces.issue(socket(n));
    }
    assert_eq!(nonces.by_socket.len(), MAX_NONCES);
    assert_eq!(nonces.oldest_first.len(), MAX_NONCES);
    assert!(!nonces.spend(socket(0), &first));
}

#[test]
fn what_is_no_request_is_dropped_and_counted() {
    let mut relay = relay();
    let mut indication = Message::new();
    indication
        .build(&[Box::new(MessageType::new(METHOD_BINDING, CLASS_INDICATION))])
        .expect("builds");
    assert_eq!(relay.handle(&indication.raw, client(), NOW), None);
    assert_eq!(relay.handle(&[0x40, 0, 0, 1, 9], client(), NOW), None);
    assert_eq!(relay.counters().ignored, 2);
    let trailing = [indication.raw.as_slice(), &[0]].concat();
    for garbage in [&[][..], &[0; 19], &[0xff; 2000], &trailing] {
        assert_eq!(relay.handle(garbage, client(), NOW), None);
    }
    assert_eq!(relay.counters().malformed, 4);
    let answered = relay.counters().bindings + relay.counters().challenged;
    assert_eq!(answered, 0);
}

#[test]
fn an_error_code_attribute_in_a_request_is_tolerated() {
    let mut request = Message::new();
    request.build(&[Box::new(BINDING_REQUEST)]).expect("builds");
    request.add(ATTR_ERROR_CODE, &[0, 0, 4, 1]);
    request.add(AttrType(0x7fff), b"comprehension required");
    assert_eq!(ask(&mut relay(), &request.raw).raw[..2], [0x01, 0x01]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        relay().handle(&bytes, client(), NOW);
    }

    /// Anything behind a plausible header, so that the attribute parser and the integrity check see
    /// every combination of lengths.
    #[test]
    fn arbitrary_attributes_never_panic(
        method in prop_oneof![Just(0x0001_u16), Just(0x0003), Just(0x0004), Just(0x0009)],
        attributes in proptest::collection::vec(
            (
                prop_oneof![Just(0x0006_u16), Just(0x0008), Just(0x0014), Just(0x0015),
                            Just(0x8028), any::<u16>()],
                any::<Option<u16>>(),
                proptest::collection::vec(any::<u8>(), 0..40),
            ),
            0..8,
        ),
    ) {
        let mut body = Vec::new();
        for (kind, lie, value) in attributes {
            let length = lie.unwrap_or(u16::try_from(value.len()).expect("short"));
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut request = method.to_be_bytes().to_vec();
        request.extend_from_slice(&u16::try_from(body.len()).expect("short").to_be_bytes());
        request.extend_from_slice(&0x2112_a442_u32.to_be_bytes());
        request.extend_from_slice(&[5; 12]);
        request.extend_from_slice(&body);
        relay().handle(&request, client(), NOW);
    }

    /// A signed request with one flipped bit is never taken for authentic.
    #[test]
    fn a_flipped_bit_is_never_authentic(position in 0_usize..1000, bit in 0_u8..8) {
        let mut relay = relay();
        let first = ask(&mut relay, &signed_request(METHOD_ALLOCATE, None, PASSWORD));
        let nonce = nonce_of(&first);
        let mut request = signed_request(METHOD_ALLOCATE, Some(&nonce), PASSWORD);
        let position = position % request.len();
        request[position] ^= 1 << bit;
        relay.handle(&request, client(), NOW);
        prop_assert_eq!(relay.counters().refused, 0);
    }
}
