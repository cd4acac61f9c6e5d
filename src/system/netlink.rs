//! The rtnetlink requests that `defguard_wireguard_rs` has no public call for.
//!
//! Blocking, with a socket per request: they run at the start and when the portal changes the
//! gateway's addresses.
//! Source: rtnetlink(7), linux/if_link.h.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes are open-ended; only a few matter here"
)]

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::IpAddr;

/// Returns the index of the interface with this name.
pub(super) fn index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// Brings the interface up and sets its MTU.
pub(super) fn bring_up(index: u32, mtu_bytes: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    set_link(link, index, LinkAttribute::Mtu(mtu_bytes))
}

/// Stops the kernel from assigning an IPv6 link-local address to the interface.
pub(super) fn disable_link_local(index: u32) -> io::Result<()> {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let families = vec![AfSpecUnspec::Inet6(vec![mode])];
    let link = LinkMessage::default();
    set_link(link, index, LinkAttribute::AfSpecUnspec(families))
}

fn set_link(mut link: LinkMessage, index: u32, attribute: LinkAttribute) -> io::Result<()> {
    link.header.index = index;
    link.attributes.push(attribute);
    request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
}

/// An address of an interface, as the kernel lists it.
pub(super) struct Assigned {
    pub(super) ip: IpAddr,
    message: AddressMessage,
}

/// Lists all addresses of an interface.
pub(super) fn addresses(index: u32) -> io::Result<Vec<Assigned>> {
    let listed = request(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        NLM_F_DUMP,
    )?;
    let assigned = listed.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
            let ip = local_address(&message)?;
            Some(Assigned { ip, message })
        }
        _ => None,
    });
    Ok(assigned.collect())
}

/// On point-to-point links `Address` is that of the other end and `Local` that of this one. IPv6
/// addresses may have `Address` only.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    address
}

/// Removes an address; it is no error when it does not exist.
pub(super) fn remove_address(assigned: Assigned) -> io::Result<()> {
    match request(RouteNetlinkMessage::DelAddress(assigned.message), NLM_F_ACK) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// The interfaces of the main table's routes to exactly `network`.
pub(super) fn route_interfaces(network: IpNet) -> io::Result<Vec<u32>> {
    let mut query = RouteMessage::default();
    query.header.address_family = match network {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    let listed = request(RouteNetlinkMessage::GetRoute(query), NLM_F_DUMP)?;
    let interfaces = listed.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => interface_of(&route, network),
        _ => None,
    });
    Ok(interfaces.collect())
}

fn interface_of(route: &RouteMessage, network: IpNet) -> Option<u32> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN
        || route.header.destination_prefix_length != network.prefix_len()
    {
        return None;
    }
    let (mut destination, mut interface) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some((*ip).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                destination = Some((*ip).into())
            }
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    interface.filter(|_| destination == Some(network.network()))
}

/// Sends one request and collects the answers of the kernel, up to the acknowledgement or the end
/// of a dump.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if collect(&datagram, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Collects the messages of one datagram. Returns whether the answer is complete.
fn collect(mut datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Messages are padded to 4 bytes (netlink(7), NLMSG_ALIGN).
        let length = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = collect(&bytes, &mut Vec::new());
        }
    }
}
