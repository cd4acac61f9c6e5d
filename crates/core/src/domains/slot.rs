//! Dense numbers of a shard's clients and their names.

/// A client of the shard. A number is reused only after all state under it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientSlot(pub u32);

/// A mapping of a name. An id of an earlier generation finds nothing, so that state built on a
/// removed mapping is never used with its successor (docs/lessons.md 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId {
    /// The index of the mapping in the table.
    pub index: u32,
    /// How often that index was used before.
    pub generation: u32,
}
