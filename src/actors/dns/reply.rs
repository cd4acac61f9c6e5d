//! The responder's protocol: reads queries of clients and writes replies. Uses no socket.
//!
//! Accepts one question for SRV or TXT records (docs/protocol.md 5.8) and refuses all others,
//! addresses above all: clients get those as proxy IPs. Bytes that are not a query get no answer,
//! so that a reply with a forged source cannot start a loop.

use hickory_resolver::proto::op::{
    Edns, Header, Message, MessageType, OpCode, Query, ResponseCode,
};
use hickory_resolver::proto::rr::{DNSClass, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable as _;
use postern_core::names::NameFailure;

#[derive(Debug)]
pub(super) enum Received {
    /// Look this up, then reply.
    Ask(Asked),
    Reply(Vec<u8>),
    Silence,
}

/// A query worth looking up.
#[derive(Debug)]
pub(super) struct Asked {
    id: u16,
    recursion_desired: bool,
    pub(super) query: Query,
    /// The datagram size that the client accepts, if it sent one.
    edns_payload: Option<u16>,
}

/// The transport of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A reply that does not fit is emptied and marked as truncated.
    Udp,
    Tcp,
}

pub(super) fn read(bytes: &[u8]) -> Received {
    let header = match Header::from_bytes(bytes) {
        Ok(header) if header.message_type == MessageType::Query => header,
        Ok(_) | Err(_) => return Received::Silence,
    };
    let id = header.id;
    let Ok(message) = Message::from_vec(bytes) else {
        return refuse(id, OpCode::Query, ResponseCode::FormErr, None);
    };
    let op_code = message.metadata.op_code;
    if op_code != OpCode::Query {
        return refuse(id, op_code, ResponseCode::NotImp, None);
    }
    let [query] = message.queries.as_slice() else {
        return refuse(id, op_code, ResponseCode::FormErr, None);
    };
    let is_ours = matches!(query.query_type(), RecordType::SRV | RecordType::TXT);
    if !is_ours || query.query_class() != DNSClass::IN {
        return refuse(id, op_code, ResponseCode::Refused, Some(query));
    }
    Received::Ask(Asked {
        id,
        recursion_desired: message.metadata.recursion_desired,
        query: query.clone(),
        edns_payload: message.edns.as_ref().map(Edns::max_payload),
    })
}

fn refuse(id: u16, op_code: OpCode, code: ResponseCode, query: Option<&Query>) -> Received {
    let mut reply = Message::error_msg(id, op_code, code);
    reply.add_queries(query.cloned());
    match reply.to_vec() {
        Ok(bytes) => Received::Reply(bytes),
        Err(_) => Received::Silence,
    }
}

impl Asked {
    /// Writes the reply: the name server's answer, or SERVFAIL.
    pub(super) fn reply(&self, outcome: Result<Message, NameFailure>, by: Carrier) -> Vec<u8> {
        let whole = self.message(outcome);
        let limit = match by {
            Carrier::Udp => self.datagram_limit(),
            Carrier::Tcp => usize::from(u16::MAX),
        };
        match whole.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            Ok(_) | Err(_) => whole.truncate().to_vec().unwrap_or_default(),
        }
    }

    fn message(&self, outcome: Result<Message, NameFailure>) -> Message {
        let mut reply = Message::new(self.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = self.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(self.query.clone());
        match outcome {
            Ok(answer) => {
                reply.metadata.response_code = answer.metadata.response_code;
                reply.answers = answer.answers;
                reply.authorities = answer.authorities;
            }
            Err(_) => reply.metadata.response_code = ResponseCode::ServFail,
        }
        if self.edns_payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM_MAX);
            reply.set_edns(edns);
        }
        reply
    }

    fn datagram_limit(&self) -> usize {
        let wanted = self.edns_payload.unwrap_or(DATAGRAM_WITHOUT_EDNS);
        wanted.clamp(DATAGRAM_WITHOUT_EDNS, DATAGRAM_MAX).into()
    }
}

/// The limit without EDNS (RFC 1035, section 4.2.1).
const DATAGRAM_WITHOUT_EDNS: u16 = 512;
/// Fits into one packet of the tunnel (MTU 1280 bytes) with an IPv6 and a UDP header.
const DATAGRAM_MAX: u16 = 1_232;

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::TXT;
    use hickory_resolver::proto::rr::{Name, RData, Record};
    use proptest::prelude::*;

    fn query(kind: RecordType, edns: Option<u16>) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("_sip._tcp.lab.example.").expect("a name");
        message.add_query(Query::query(name, kind));
        message.metadata.recursion_desired = true;
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message
    }

    fn asked(kind: RecordType, edns: Option<u16>) -> Asked {
        let received = read(&query(kind, edns).to_vec().expect("written"));
        let Received::Ask(asked) = received else {
            panic!("{received:?}");
        };
        asked
    }

    fn code(received: &Received) -> Option<ResponseCode> {
        let Received::Reply(bytes) = received else {
            return None;
        };
        let reply = Message::from_vec(bytes).expect("a reply");
        assert_eq!(reply.metadata.id, 7);
        Some(reply.metadata.response_code)
    }

    fn answer(texts: usize) -> Message {
        let mut answer = Message::response(0, OpCode::Query);
        let name = Name::from_ascii("_sip._tcp.lab.example.").expect("a name");
        for _ in 0..texts {
            let text = RData::TXT(TXT::new(vec!["x".repeat(100)]));
            answer.add_answer(Record::from_rdata(name.clone(), 60, text));
        }
        answer
    }

    fn size(edns: Option<u16>, texts: usize, by: Carrier) -> (usize, bool) {
        let bytes = asked(RecordType::TXT, edns).reply(Ok(answer(texts)), by);
        let reply = Message::from_vec(&bytes).expect("a reply");
        assert_eq!(reply.edns.is_some(), edns.is_some());
        (reply.answers.len(), reply.metadata.truncation)
    }

    #[test]
    fn looks_up_srv_and_txt_only() {
        for kind in [RecordType::SRV, RecordType::TXT] {
            asked(kind, None);
        }
        for kind in [
            RecordType::A,
            RecordType::AAAA,
            RecordType::ANY,
            RecordType::MX,
        ] {
            let received = read(&query(kind, None).to_vec().expect("written"));
            assert_eq!(code(&received), Some(ResponseCode::Refused), "{kind}");
        }
    }

    #[test]
    fn malformed_messages_get_an_error_and_non_queries_no_answer() {
        let good = query(RecordType::TXT, None);
        let mut response = good.clone();
        response.metadata.message_type = MessageType::Response;
        assert!(matches!(
            read(&response.to_vec().expect("written")),
            Received::Silence
        ));
        assert!(matches!(read(b""), Received::Silence));
        assert!(matches!(read(&[0; 11]), Received::Silence));
        let mut two = good.clone();
        two.add_query(good.queries[0].clone());
        let received = read(&two.to_vec().expect("written"));
        assert_eq!(code(&received), Some(ResponseCode::FormErr));
        let bytes = good.to_vec().expect("written");
        let received = read(&bytes[..bytes.len() - 1]);
        assert_eq!(code(&received), Some(ResponseCode::FormErr));
        let mut status = good;
        status.metadata.op_code = OpCode::Status;
        let received = read(&status.to_vec().expect("written"));
        assert_eq!(code(&received), Some(ResponseCode::NotImp));
    }

    #[test]
    fn truncates_replies_over_udp_to_the_client_s_limit() {
        assert_eq!(size(None, 4, Carrier::Udp), (4, false));
        assert_eq!(size(None, 5, Carrier::Udp), (0, true));
        assert_eq!(size(Some(4_096), 9, Carrier::Udp), (9, false));
        assert_eq!(size(Some(4_096), 11, Carrier::Udp), (0, true));
        assert_eq!(size(Some(100), 4, Carrier::Udp), (4, false));
        assert_eq!(size(None, 200, Carrier::Tcp), (200, false));
    }

    #[test]
    fn failures_become_servfail_and_nxdomain_is_passed_on() {
        let asked = asked(RecordType::SRV, None);
        let bytes = asked.reply(Err(NameFailure::Timeout), Carrier::Udp);
        assert_eq!(code(&Received::Reply(bytes)), Some(ResponseCode::ServFail));
        let mut missing = answer(0);
        missing.metadata.response_code = ResponseCode::NXDomain;
        let bytes = asked.reply(Ok(missing), Carrier::Udp);
        assert_eq!(code(&Received::Reply(bytes)), Some(ResponseCode::NXDomain));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in 0..60_usize,
            with in any::<u8>(),
            tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = query(RecordType::TXT, Some(1_232)).to_vec().expect("written");
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            bytes.extend(&tail);
            if let Received::Ask(asked) = read(&bytes) {
                asked.reply(Ok(answer(3)), Carrier::Udp);
            }
            read(&tail);
        }
    }
}
