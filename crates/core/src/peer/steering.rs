//! The program with which the kernel assigns each datagram to the shard that owns its peer.
//!
//! Classic BPF for a group of sockets that share a port: it reads the UDP payload and returns the
//! number of a socket. Data and handshake responses carry the receiver index; its second byte on
//! the wire is the shard ([`PeerIndex`](super::PeerIndex)). All other datagrams (initiations,
//! cookies, STUN, noise) go to shard 0, which knows all peers. The program does not determine the
//! peer: the [`Demux`](super::Demux) of the receiving shard does.
//!
//! Source: `linux/filter.h`, `linux/bpf_common.h`; WireGuard paper, 5.4, for the offsets.

/// One instruction in the kernel's format (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation: a combination of `BPF_*` flags.
    pub code: u16,
    /// Instructions to skip if a comparison is true.
    pub if_true: u8,
    /// Instructions to skip if a comparison is false.
    pub if_false: u8,
    /// The constant or offset that the operation uses.
    pub operand: u32,
}

/// The program for `shards` shards; the group holds their sockets in the order of shard numbers.
///
/// A shard number without a socket selects shard 0: the kernel would spread such datagrams over all
/// sockets. A load beyond the end of a datagram ends the program with 0.
#[must_use]
pub fn steering_program(shards: u8) -> [Instruction; 10] {
    [
        // Message type.
        load_byte(0),
        skip_if_equal(DATA, 2),
        skip_if_equal(HANDSHAKE_RESPONSE, 3),
        return_constant(0),
        // Data message.
        load_byte(DATA_RECEIVER + SHARD_BYTE),
        skip(1),
        // Handshake response.
        load_byte(RESPONSE_RECEIVER + SHARD_BYTE),
        skip_if_at_least(shards, 1),
        RETURN_SHARD,
        return_constant(0),
    ]
}

const fn load_byte(offset: u32) -> Instruction {
    Instruction {
        code: LOAD_BYTE,
        if_true: 0,
        if_false: 0,
        operand: offset,
    }
}

fn skip_if_equal(value: u8, instructions: u8) -> Instruction {
    Instruction {
        code: JUMP_IF_EQUAL,
        if_true: instructions,
        if_false: 0,
        operand: value.into(),
    }
}

fn skip_if_at_least(value: u8, instructions: u8) -> Instruction {
    Instruction {
        code: JUMP_IF_AT_LEAST,
        if_true: instructions,
        if_false: 0,
        operand: value.into(),
    }
}

fn skip(instructions: u32) -> Instruction {
    Instruction {
        code: JUMP,
        if_true: 0,
        if_false: 0,
        operand: instructions,
    }
}

const fn return_constant(value: u32) -> Instruction {
    Instruction {
        code: RETURN,
        if_true: 0,
        if_false: 0,
        operand: value,
    }
}

const RETURN_SHARD: Instruction = Instruction {
    code: RETURN_ACCUMULATOR,
    if_true: 0,
    if_false: 0,
    operand: 0,
};

/// The code `BPF_LD | BPF_B | BPF_ABS`.
const LOAD_BYTE: u16 = 0x30;
/// The code `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// The code `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// The code `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// The code `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;
/// The code `BPF_RET | BPF_A`.
const RETURN_ACCUMULATOR: u16 = 0x16;

/// Message types that carry a receiver index.
const DATA: u8 = 4;
const HANDSHAKE_RESPONSE: u8 = 2;
/// Offset of the receiver index in the message.
const DATA_RECEIVER: u32 = 4;
const RESPONSE_RECEIVER: u32 = 8;
/// Offset of the shard in the little-endian index.
const SHARD_BYTE: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerIndex;
    use crate::peer::demux::Kind;
    use crate::peer::wireguard::{DATA_OVERHEAD_BYTES, HANDSHAKE_RESPONSE_BYTES};
    use proptest::prelude::*;

    /// Interprets the program as the kernel does; `None` if the kernel would reject it.
    fn verdict(program: &[Instruction], datagram: &[u8]) -> Option<u32> {
        let (mut accumulator, mut at) = (0, 0);
        // Jumps only lead forward, so every program ends.
        loop {
            let Instruction {
                code,
                if_true,
                if_false,
                operand,
            } = *program.get(at)?;
            at += 1;
            let jump = |holds: bool| usize::from(if holds { if_true } else { if_false });
            match code {
                LOAD_BYTE => match datagram.get(operand as usize) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return Some(0),
                },
                JUMP => at += operand as usize,
                JUMP_IF_EQUAL => at += jump(accumulator == operand),
                JUMP_IF_AT_LEAST => at += jump(accumulator >= operand),
                RETURN => return Some(operand),
                RETURN_ACCUMULATOR => return Some(accumulator),
                _ => return None,
            }
        }
    }

    fn message(kind: u8, offset: usize, receiver: u32, bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0xEE; bytes];
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        datagram[offset..offset + 4].copy_from_slice(&receiver.to_le_bytes());
        datagram
    }

    proptest! {
        #[test]
        fn data_and_responses_go_to_the_shard_of_their_index(
            shards in 1u8..=64,
            receiver: u32,
            more in 0usize..1300,
        ) {
            let program = steering_program(shards);
            let owner = PeerIndex::of_receiver_index(receiver).shard();
            let expected = if owner < shards { owner } else { 0 };
            let data = message(4, 4, receiver, DATA_OVERHEAD_BYTES + more);
            prop_assert_eq!(Kind::of(&data), Kind::Data);
            prop_assert_eq!(verdict(&program, &data), Some(expected.into()));
            let response = message(2, 8, receiver, HANDSHAKE_RESPONSE_BYTES);
            prop_assert_eq!(Kind::of(&response), Kind::HandshakeResponse);
            prop_assert_eq!(verdict(&program, &response), Some(expected.into()));
        }

        #[test]
        fn every_verdict_is_a_socket_and_datagrams_without_index_go_to_shard_0(
            shards in 1u8..=64,
            first in 0u8..8,
            mut datagram in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            let verdict = verdict(&steering_program(shards), &datagram);
            prop_assert!(verdict.is_some_and(|socket| socket < shards.into()));
            if !matches!(datagram.first(), Some(2 | 4)) {
                prop_assert_eq!(verdict, Some(0));
            }
        }
    }

    #[test]
    fn the_test_interpreter_rejects_invalid_programs() {
        let mut program = steering_program(2);
        program[0].code = 0xFF;
        assert_eq!(verdict(&program, &[4; 32]), None);
        assert_eq!(verdict(&steering_program(2)[..1], &[4; 32]), None);
    }
}
