//! The datagrams of a load: a header of 24 bytes, and whatever fills it up.

/// The least that a datagram of a load can be.
pub(super) const HEADER_BYTES: usize = 24;

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Which load it belongs to.
    pub(super) flow: u32,
    /// Of data: its number. Of the end: how many there were. Of a report: how many arrived.
    pub(super) number: u64,
    /// Of a report: how many arrived after one with a higher number.
    pub(super) reordered: u32,
}

/// What a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the load.
    Data,
    /// Send me such a load; what, stands behind the header.
    Request,
    /// That was all.
    End,
    /// From now on take what arrives in groups, or not: 1 or 0. Answered by a report.
    Group,
    /// How much has arrived?
    Query,
    /// So much.
    Report,
}

impl Header {
    pub(super) fn new(kind: Kind, flow: u32, number: u64) -> Self {
        Self {
            kind,
            flow,
            number,
            reordered: 0,
        }
    }

    pub(super) fn write(self, to: &mut [u8]) {
        let kind = match self.kind {
            Kind::Data => 0_u32,
            Kind::Request => 1,
            Kind::End => 2,
            Kind::Query => 3,
            Kind::Report => 4,
            Kind::Group => 5,
        };
        let Some(header) = to.first_chunk_mut::<HEADER_BYTES>() else {
            return;
        };
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&kind.to_be_bytes());
        header[8..12].copy_from_slice(&self.flow.to_be_bytes());
        header[12..20].copy_from_slice(&self.number.to_be_bytes());
        header[20..].copy_from_slice(&self.reordered.to_be_bytes());
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        self.write(&mut bytes);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        if header[..4] != MAGIC {
            return None;
        }
        let u32_at = |at: usize| {
            let bytes = header[at..].first_chunk::<4>();
            bytes.map_or(0, |it| u32::from_be_bytes(*it))
        };
        let kind = match u32_at(4) {
            0 => Kind::Data,
            1 => Kind::Request,
            2 => Kind::End,
            3 => Kind::Query,
            4 => Kind::Report,
            5 => Kind::Group,
            _ => return None,
        };
        Some(Self {
            kind,
            flow: u32_at(8),
            number: (u64::from(u32_at(12)) << 32) | u64::from(u32_at(16)),
            reordered: u32_at(20),
        })
    }
}

/// What a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Payload of each datagram.
    pub(super) payload_bytes: u16,
    pub(super) per_second: u32,
    pub(super) millis: u32,
    /// Whether datagrams are handed to the kernel, and taken from it, in groups.
    pub(super) is_grouped: bool,
}

impl Plan {
    pub(super) const BYTES: usize = 11;

    pub(super) fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&self.payload_bytes.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.per_second.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.millis.to_be_bytes());
        bytes[10] = u8::from(self.is_grouped);
        bytes
    }

    /// Refuses loads that last for longer than a minute: somebody would wait for their end.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ Self::BYTES }>()?;
        let [b0, b1, rate @ .., m0, m1, m2, m3, grouped] = *bytes;
        let plan = Self {
            payload_bytes: u16::from_be_bytes([b0, b1]),
            per_second: u32::from_be_bytes(rate),
            millis: u32::from_be_bytes([m0, m1, m2, m3]),
            is_grouped: grouped != 0,
        };
        let is_sound = usize::from(plan.payload_bytes) >= HEADER_BYTES
            && plan.payload_bytes <= PAYLOAD_BYTES_MAX
            && plan.millis <= 60_000;
        is_sound.then_some(plan)
    }
}

/// What a packet of 1280 bytes holds, over either family.
pub(super) const PAYLOAD_BYTES_MAX: u16 = 1232;
const MAGIC: [u8; 4] = *b"pstl";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Data),
            Just(Kind::Request),
            Just(Kind::End),
            Just(Kind::Query),
            Just(Kind::Report),
            Just(Kind::Group),
        ]
    }

    proptest! {
        #[test]
        fn headers_are_read_as_they_are_written(
            kind in kinds(), flow: u32, number: u64, reordered: u32,
        ) {
            let header = Header { kind, flow, number, reordered };
            prop_assert_eq!(Header::read(&header.bytes()), Some(header));
        }

        #[test]
        fn plans_are_read_as_they_are_written(
            payload_bytes in 24_u16..=PAYLOAD_BYTES_MAX, per_second: u32, millis in 0_u32..=60_000,
            is_grouped: bool,
        ) {
            let plan = Plan { payload_bytes, per_second, millis, is_grouped };
            prop_assert_eq!(Plan::read(&plan.bytes()), Some(plan));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _read_or_refused = (Header::read(&bytes), Plan::read(&bytes));
        }
    }

    #[test]
    fn what_nobody_could_send_is_refused() {
        let plan = |payload_bytes, millis| Plan {
            payload_bytes,
            per_second: 1,
            millis,
            is_grouped: false,
        };
        for plan in [plan(23, 1), plan(1233, 1), plan(64, 60_001)] {
            assert_eq!(Plan::read(&plan.bytes()), None, "{plan:?}");
        }
    }
}
