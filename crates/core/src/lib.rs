//! The cores of Postern: everything the gateway decides, and nothing it touches.
//!
//! No tokio, no actix, no socket, no clock and no ambient randomness live in this crate;
//! `clippy.toml` and `tests/tidy.rs` keep it so. A core is a plain struct that is told what
//! happened and asked what to do about it, so every rule of the gateway can be tested in virtual
//! time.
//!
//! # The contract, once for all cores
//!
//! ```text
//! new(config, seed, now) -> Self
//! handle_<noun>(input, now)        something happened
//! handle_timeout(now)              time passed
//! poll_timeout() -> Option<Instant>   when to call handle_timeout next
//! poll_transmit() -> Option<_>     datagrams to send
//! poll_event() -> Option<_>        what the owner must know or do
//! ```
//!
//! * After any `&mut` call, drain every `poll_*` to `None`, then sleep until `poll_timeout()`.
//! * `handle_timeout` early, late or twice is harmless.
//! * `now` never goes back; a smaller value is treated as the last one seen.
//! * Wall-clock time is a [`UnixTime`] argument beside `now`, where the wire speaks of dates.
//! * Every queue and map has a limit in its config and a documented answer for when it is full.
//! * A dropped packet is a [`DropReason`]: counted, never formatted.
//!
//! # Floors
//!
//! A module imports only from floors below its own, so there is no circle of imports:
//!
//! 1. Values: [`ids`], [`names`], [`grant`], [`target`], [`packet`], [`backoff`],
//!    [`timers`], [`command`].
//! 2. One concern each: [`authorizations`], [`replies`], [`health`], [`portal`];
//!    and [`policy`], an index of the first.
//! 3. [`peer`] (a client's transport), [`domains`] (a name's addresses), [`lookups`].
//! 4. [`nat_table`] (flows and rewriting on top of [`domains`]).
//! 5. [`ledger`] (the records that all of the above is rebuilt from).
//! 6. [`connection`] (one client: [`policy`] and [`peer`], restored from the [`ledger`]).
//! 7. [`supervision`] (which actors run for which clients, restored from the [`ledger`]).
//! 8. [`diagnosis`] (reads the facts that each floor's `explain` returns; nothing imports it).

pub mod authorizations;
pub mod backoff;
pub mod command;
pub mod connection;
pub mod diagnosis;
pub mod domains;
pub mod grant;
pub mod health;
pub mod ids;
pub mod ledger;
pub mod lookups;
pub mod names;
pub mod nat_table;
pub mod packet;
pub mod peer;
pub mod policy;
pub mod portal;
pub mod replies;
pub mod supervision;
pub mod target;
pub mod timers;

#[cfg(test)]
mod testing;

pub use ids::UnixTime;
pub use packet::DropReason;
