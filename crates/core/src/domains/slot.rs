//! The small numbers by which the NAT of a shard knows its clients and their names.

/// A client of the shard. Numbers are used again only after everything kept under them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientSlot(pub u32);

/// A mapping of a name. An id whose generation is over leads nowhere, so that what was built on a
/// mapping that has been reset is never taken for part of its successor (docs/lessons.md 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId {
    /// Its place.
    pub index: u32,
    /// How often that place was used before.
    pub generation: u32,
}
