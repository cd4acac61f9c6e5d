//! The authorization ledger: what the portal granted and the client announced.
//!
//! Plain records, written before the actor that they concern is told. Whatever dies is built anew
//! from them: a ConnectionActor from its client's [`ClientRecord`], the NAT's mappings from the
//! names in it and from the [`KnownName`]s, a whole process from the saved ledger.

mod record;

pub use record::{ClientRecord, Grant, KnownName, RecordedName};
