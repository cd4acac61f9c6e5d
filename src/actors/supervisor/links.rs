//! How the supervisor and the other actors reach each child.

use crate::config::UseSettings;
use crate::messages::diagnosis::ExplainName;
use crate::messages::dns::{ResolveName, ServeNames};
use crate::messages::nat_table::{NatTableCommand, NatTableInputs, NatTableSetup};
use crate::messages::packets::{InboundPackets, OutboundPackets, StrayPackets};
use crate::messages::portal::PortalCommand;
use crate::messages::tun::TunSetup;
use crate::messages::udp::{UdpCommand, UdpInputs, UdpSetup};
use crate::post::{FOR_SHARED, Post};
use actix::prelude::*;

/// Defines a struct of links to one child: recipients that are handed to other actors, the group
/// that connections get, and what the supervisor itself sends.
macro_rules! links {
    (pub struct $name:ident {
        $(for others { $($field:ident: $message:ty,)* })?
        $(for connections $inputs:ty;)?
        for supervisor { $($post:ident: $command:ty,)* }
    }) => {
        pub struct $name {
            $($(pub $field: Recipient<$message>,)*)?
            $(pub inputs: $inputs,)?
            $(pub $post: Post<$command>,)*
        }

        impl<A> From<&Addr<A>> for $name
        where
            A: Actor<Context = Context<A>> $($(+ Handler<$message>)*)? $(+ Handler<$command>)*,
            $($inputs: for<'a> From<&'a Addr<A>>,)?
        {
            fn from(addr: &Addr<A>) -> Self {
                Self {
                    $($($field: addr.clone().recipient(),)*)?
                    $(inputs: <$inputs>::from(addr),)?
                    $($post: Post::new(addr.clone().recipient(), FOR_SHARED),)*
                }
            }
        }

        impl $name {
            /// Sends again what waits. Returns whether the child has taken nothing for so long that
            /// messages were dropped.
            pub fn resend(&self) -> bool {
                $(self.$post.resend();)*
                $(self.$post.take_overflow())|*
            }
        }
    };
}

links! {
    pub struct TunLinks {
        for others { packets: InboundPackets, }
        for supervisor { setup: TunSetup, }
    }
}

links! {
    pub struct NatTableLinks {
        for others {
            outbound: OutboundPackets,
            strays: StrayPackets,
            explain: ExplainName,
        }
        for connections NatTableInputs;
        for supervisor {
            commands: NatTableCommand,
            setup: NatTableSetup,
            settings: UseSettings,
        }
    }
}

links! {
    pub struct UdpLinks {
        for connections UdpInputs;
        for supervisor {
            commands: UdpCommand,
            setup: UdpSetup,
            settings: UseSettings,
        }
    }
}

links! {
    pub struct DnsLinks {
        for others { resolve: ResolveName, }
        for supervisor {
            serve: ServeNames,
            settings: UseSettings,
        }
    }
}

links! {
    pub struct PortalLinks {
        for supervisor {
            commands: PortalCommand,
            settings: UseSettings,
        }
    }
}
