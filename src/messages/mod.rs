//! Messages between actors: plain, owned data; most files are named for the receiving actor.
//!
//! They depend on `postern_core` and on each other, never on actors or on what actors use. There
//! is one type for each pair of neighbours: commands are an enum with imperative variants
//! (`NatTableCommand::Attach`), news an enum of facts (`PortalNews::Joined`). What has an answer
//! (`ExplainName`), and what carries packets, is a type of its own. What happens when the
//! receiver's mailbox is full: `control`, ARCHITECTURE.md 12.
//! Packets travel only in batches. *Inbound* is from the tunnel towards the resource, *outbound*
//! the reverse.

/// Defines a struct of recipients: the links from one actor to another. Made from an address, all
/// of them lead to one actor.
macro_rules! recipients {
    ($(#[$attribute:meta])* pub struct $name:ident {
        $($field:ident: $message:ty,)*
    }) => {
        $(#[$attribute])*
        #[derive(Clone)]
        pub struct $name {
            $(pub $field: actix::Recipient<$message>,)*
        }

        impl<A> From<&actix::Addr<A>> for $name
        where
            A: actix::Actor<Context = actix::Context<A>> $(+ actix::Handler<$message>)*,
        {
            fn from(addr: &actix::Addr<A>) -> Self {
                Self {
                    $($field: addr.clone().recipient(),)*
                }
            }
        }
    };
}

pub mod connection;
pub mod control;
pub mod diagnosis;
pub mod dns;
pub mod nat_table;
pub mod operator;
pub mod packets;
pub mod portal;
pub mod presence;
pub mod reload;
pub mod reports;
pub mod supervisor;
pub mod tun;
pub mod udp;
pub mod updates;
