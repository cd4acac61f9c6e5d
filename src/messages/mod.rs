//! Messages between actors: plain, owned data; one file for each receiving actor.
//!
//! They depend on `postern_core` and on each other, never on actors or on what actors use.
//! Commands are imperative (`OpenConnection`), events are past tense (`ConnectionAccepted`).
//! Packets travel only in batches. *Inbound* is from the tunnel towards the resource, *outbound*
//! the reverse.

/// Defines a struct of recipients: the links from one actor to another. Made from an address, all
/// of them lead to one actor. The last field may be such a struct itself.
macro_rules! recipients {
    ($(#[$attribute:meta])* pub struct $name:ident {
        $($field:ident: $message:ty,)*
    } $(with $group:ident: $inner:ty)?) => {
        $(#[$attribute])*
        #[derive(Clone)]
        pub struct $name {
            $(pub $field: actix::Recipient<$message>,)*
            $(pub $group: $inner,)?
        }

        impl<A> From<&actix::Addr<A>> for $name
        where
            A: actix::Actor<Context = actix::Context<A>> $(+ actix::Handler<$message>)*,
            $($inner: for<'a> From<&'a actix::Addr<A>>,)?
        {
            fn from(addr: &actix::Addr<A>) -> Self {
                Self {
                    $($field: addr.clone().recipient(),)*
                    $($group: addr.into(),)?
                }
            }
        }
    };
}
pub(crate) use recipients;

pub mod connection;
pub mod diagnosis;
pub mod dns;
pub mod nat_table;
pub mod operator;
pub mod packets;
pub mod portal;
pub mod presence;
pub mod reload;
pub mod reports;
pub mod successors;
pub mod supervisor;
pub mod tun;
pub mod udp;
