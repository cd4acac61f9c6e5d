//! Binding the one UDP port for all shards.
//!
//! Each shard has its own sockets, which share the port (SO_REUSEPORT), and the kernel steers each
//! datagram to the shard of its peer by [`steering_program`]. If the kernel refuses, there is one
//! socket for each family: shard 0 reads it, and all shards send through it.
//!
//! The first socket of a family is bound before it shares the port: the kernel refuses the port to
//! a second gateway as to any other program.

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};
use postern_core::peer::steering_program;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The requested buffer sizes; the kernel may grant less, which works as well (docs/lessons.md 29).
#[derive(Clone, Copy, Debug)]
pub struct BufferSizes {
    /// `SO_RCVBUF` in bytes.
    pub receive_bytes: usize,
    /// `SO_SNDBUF` in bytes.
    pub send_bytes: usize,
}

/// The sockets of all shards, bound but not yet part of an event loop.
pub struct SocketGroup {
    v4: Option<Family>,
    v6: Option<Family>,
    port: u16,
}

/// The sockets of one shard, for its event loop; created on any thread.
pub struct BoundSockets {
    pub(super) v4: Option<BoundSocket>,
    pub(super) v6: Option<BoundSocket>,
    pub(super) port: u16,
}

pub(super) struct BoundSocket {
    pub(super) socket: UdpSocket,
    /// Whether this shard receives from the socket, or only sends.
    pub(super) is_read: bool,
}

/// The sockets of one address family: one for each shard, or one for all.
struct Family {
    sockets: Vec<UdpSocket>,
    /// Why there is one for all.
    refused: Option<io::Error>,
}

/// Attaches the steering program to a group of so many sockets.
type AttachSteering = fn(&Socket, u8) -> io::Result<()>;

/// Everything but the address.
#[derive(Clone, Copy)]
struct BindOptions {
    buffers: BufferSizes,
    shards: u8,
    attach_steering: AttachSteering,
}

impl SocketGroup {
    /// Binds `port` for both families. A host without one of the families gets the other only.
    ///
    /// # Errors
    /// When another program has the port; when neither family can be bound, the error of IPv4.
    pub fn bind(port: u16, buffers: BufferSizes, shards: u8) -> io::Result<Self> {
        let options = BindOptions {
            buffers,
            shards,
            attach_steering,
        };
        let group = Self::bind_with(port, options)?;
        if let Some(error) = group.steering_refused() {
            tracing::warn!(
                %error,
                "the kernel does not give datagrams to the shards of their clients: one shard \
                 receives for all"
            );
        }
        Ok(group)
    }

    fn bind_with(port: u16, options: BindOptions) -> io::Result<Self> {
        let bind = |ip, port| match Family::bind(ip, port, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            bound => Ok(bound),
        };
        let v4 = bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
        // The port that the kernel chose for one family is that of both.
        let port = v4.as_ref().map_or(Ok(port), Family::port)?;
        let (v4, v6) = match (v4, bind(Ipv6Addr::UNSPECIFIED.into(), port)?) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let port = v6.as_ref().map_or(Ok(port), Family::port)?;
        Ok(Self { v4, v6, port })
    }

    /// Why there is only one socket for a family, if so.
    fn steering_refused(&self) -> Option<&io::Error> {
        let mut families = self.v4.iter().chain(&self.v6);
        families.find_map(|family| family.refused.as_ref())
    }

    /// The sockets of a shard, for the event loop of its next instance, which reads what the former
    /// one did not.
    pub fn member(&self, shard: u8) -> io::Result<BoundSockets> {
        let of = |family: &Option<Family>| family.as_ref().map(|it| it.member(shard)).transpose();
        Ok(BoundSockets {
            v4: of(&self.v4)?,
            v6: of(&self.v6)?,
            port: self.port,
        })
    }

    /// The port of both families.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl BoundSockets {
    /// The port of both families.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Family {
    fn bind(ip: IpAddr, port: u16, options: BindOptions) -> io::Result<Self> {
        let first = open(ip, options.buffers)?;
        first.bind(&SocketAddr::new(ip, port).into())?;
        let (others, refused) = match share(&first, ip, options) {
            Ok(others) => (others, None),
            Err(error) => {
                // Closes the group. If the option is refused now, it was refused before.
                let _ = first.set_reuse_port(false);
                (Vec::new(), Some(error))
            }
        };
        let all = std::iter::once(first).chain(others);
        let sockets = all.map(Into::into).collect();
        Ok(Self { sockets, refused })
    }

    fn port(&self) -> io::Result<u16> {
        Ok(self.sockets[0].local_addr()?.port())
    }

    fn member(&self, shard: u8) -> io::Result<BoundSocket> {
        let own = self.sockets.get(usize::from(shard));
        Ok(BoundSocket {
            socket: own.unwrap_or(&self.sockets[0]).try_clone()?,
            is_read: own.is_some(),
        })
    }
}

/// Binds the sockets of all shards but the first, in their order, which is that of the group.
fn share(first: &Socket, ip: IpAddr, options: BindOptions) -> io::Result<Vec<Socket>> {
    let address = first.local_addr()?;
    let mut others = Vec::new();
    for _ in 1..options.shards {
        first.set_reuse_port(true)?;
        let other = open(ip, options.buffers)?;
        other.set_reuse_port(true)?;
        other.bind(&address)?;
        // A group exists from two sockets on. All earlier datagrams are in the first socket.
        if others.is_empty() {
            (options.attach_steering)(first, options.shards)?;
        }
        others.push(other);
    }
    Ok(others)
}

fn open(ip: IpAddr, buffers: BufferSizes) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(ip, 0));
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    enlarge_buffers(&socket, buffers);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sets sizes beyond the host's limits (`net.core.rmem_max`), which CAP_NET_ADMIN permits, or else
/// up to them. A refused size is not an error: the defaults work, with more loss under bursts.
fn enlarge_buffers(socket: &Socket, buffers: BufferSizes) {
    let BufferSizes {
        receive_bytes,
        send_bytes,
    } = buffers;
    let _smaller = setsockopt(socket, sockopt::RcvBufForce, &receive_bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &receive_bytes));
    let _smaller = setsockopt(socket, sockopt::SndBufForce, &send_bytes)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &send_bytes));
}

fn attach_steering(member: &Socket, shards: u8) -> io::Result<()> {
    let mut program = steering_program(shards).map(|instruction| sock_filter {
        code: instruction.code,
        jt: instruction.if_true,
        jf: instruction.if_false,
        k: instruction.operand,
    });
    let program = sock_fprog {
        len: u16::try_from(program.len()).expect("a handful of instructions"),
        filter: program.as_mut_ptr(),
    };
    setsockopt(member, sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use postern_core::peer::{PeerIndex, PeerIndexPool};
    use rustix::thread::{CapabilitySet, capabilities};
    use std::collections::BTreeMap;
    use std::time::Duration;

    const BUFFERS: BufferSizes = BufferSizes {
        receive_bytes: 1 << 20,
        send_bytes: 1 << 20,
    };

    fn options(shards: u8, attach_steering: AttachSteering) -> BindOptions {
        BindOptions {
            buffers: BUFFERS,
            shards,
            attach_steering,
        }
    }

    /// docs/lessons.md 29: the sizes are beyond what any host grants by itself. The kernel keeps
    /// twice the requested size (socket(7)).
    #[test]
    fn buffers_beyond_the_limits_of_the_host_are_granted_or_refused_without_harm() {
        let bytes = 1 << 29;
        let buffers = BufferSizes {
            receive_bytes: bytes,
            send_bytes: bytes,
        };
        let group = SocketGroup::bind(0, buffers, 1).expect("a free port");
        let socket = group.member(0).expect("a descriptor").v4.expect("IPv4");
        let granted = [
            getsockopt(&socket.socket, sockopt::RcvBuf).expect("a socket"),
            getsockopt(&socket.socket, sockopt::SndBuf).expect("a socket"),
        ];
        let effective = capabilities(None).expect("readable").effective;
        if effective.contains(CapabilitySet::NET_ADMIN) {
            assert_eq!(granted, [2 * bytes; 2]);
        }
    }

    fn no_steering(_: &Socket, _: u8) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn message(kind: u8, offset: usize, index: PeerIndex, bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0; bytes];
        datagram[0] = kind;
        let receiver = index.to_bits() << 8 | 0x42;
        datagram[offset..offset + 4].copy_from_slice(&receiver.to_le_bytes());
        datagram
    }

    /// Each datagram waits in the socket of the shard that its index names, all others in the
    /// first.
    fn assert_steered(ip: IpAddr, group: &SocketGroup, shards: u8) {
        let mut pool = PeerIndexPool::new([5; 32]);
        let mut sent: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
        for shard in (0..shards).cycle().take(100) {
            let index = pool.allocate(shard).expect("room");
            let data = message(4, 4, index, 64);
            let response = message(2, 8, index, 92);
            sent.entry(shard).or_default().extend([data, response]);
            let initiation = message(1, 4, index, 148);
            let cookie = message(3, 4, index, 64);
            sent.entry(0).or_default().extend([initiation, cookie]);
        }
        let stranger = pool.allocate(shards).expect("room");
        let former = message(4, 4, stranger, 64);
        sent.entry(0).or_default().push(former);
        for datagrams in sent.values() {
            for datagram in datagrams {
                // Of as many flows as there are datagrams: no hash can be lucky.
                let sender = UdpSocket::bind((ip, 0)).expect("room");
                let bytes = sender.send_to(datagram, (ip, group.port()));
                assert_eq!(bytes.expect("sent"), datagram.len());
            }
        }
        for (shard, expected) in sent {
            let member = group.member(shard).expect("a descriptor");
            let bound = if ip.is_ipv4() { member.v4 } else { member.v6 };
            let socket = bound.expect("the family").socket;
            socket.set_nonblocking(false).expect("a socket");
            let patience = Some(Duration::from_secs(2));
            socket.set_read_timeout(patience).expect("a socket");
            let mut buffer = [0; 2048];
            for datagram in &expected {
                let (bytes, _) = socket.recv_from(&mut buffer).expect("it is there");
                assert_eq!(&buffer[..bytes], datagram, "shard {shard}");
            }
            socket.set_nonblocking(true).expect("a socket");
            assert!(socket.recv_from(&mut buffer).is_err(), "nothing else");
        }
    }

    #[test]
    fn the_kernel_gives_each_datagram_to_the_shard_of_its_peer() {
        for shards in [1, 2, 5] {
            let group = SocketGroup::bind_with(0, options(shards, attach_steering)).expect("room");
            assert!(group.steering_refused().is_none());
            assert_steered(Ipv4Addr::LOCALHOST.into(), &group, shards);
            if group.v6.is_some() {
                assert_steered(Ipv6Addr::LOCALHOST.into(), &group, shards);
            }
        }
    }

    #[test]
    fn without_steering_the_first_shard_reads_and_all_send() {
        let group = SocketGroup::bind_with(0, options(3, no_steering)).expect("room");
        let refused = group.steering_refused().map(io::Error::kind);
        assert_eq!(refused, Some(io::ErrorKind::Unsupported));
        let v4 = |shard| group.member(shard).expect("a descriptor").v4;
        let members = [0, 1, 2].map(|shard| v4(shard).expect("IPv4"));
        let read = members.each_ref().map(|member| member.is_read);
        assert_eq!(read, [true, false, false]);
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("room");
        let to = receiver.local_addr().expect("bound");
        for member in &members {
            member.socket.send_to(b"here", to).expect("sent");
            let (_, from) = receiver.recv_from(&mut [0; 8]).expect("received");
            assert_eq!(from.port(), group.port());
        }
        // No hash of a datagram leads to a socket that no shard reads.
        let index = PeerIndexPool::new([6; 32]).allocate(1).expect("room");
        for _ in 0..50 {
            let sender = UdpSocket::bind("127.0.0.1:0").expect("room");
            let to = (Ipv4Addr::LOCALHOST, group.port());
            sender.send_to(&message(4, 4, index, 64), to).expect("sent");
            let socket = &members[0].socket;
            socket.set_nonblocking(false).expect("a socket");
            let patience = Some(Duration::from_secs(2));
            socket.set_read_timeout(patience).expect("a socket");
            socket.recv_from(&mut [0; 128]).expect("received");
        }
    }

    #[test]
    fn a_second_gateway_is_refused_the_port_with_shards_and_without() {
        for (first, second) in [(1, 1), (2, 2), (1, 2), (2, 1)] {
            for steering in [attach_steering as AttachSteering, no_steering] {
                let group = SocketGroup::bind_with(0, options(first, steering)).expect("room");
                let again = SocketGroup::bind(group.port(), BUFFERS, second);
                let refused = again.err().map(|error| error.kind());
                assert_eq!(refused, Some(io::ErrorKind::AddrInUse), "{first}, {second}");
            }
        }
    }

    #[test]
    fn both_families_have_the_port_that_the_kernel_chose_and_it_is_free_afterwards() {
        let group = SocketGroup::bind(0, BUFFERS, 2).expect("room");
        let port = group.port();
        for family in group.v4.iter().chain(&group.v6) {
            for socket in &family.sockets {
                assert_eq!(socket.local_addr().expect("bound").port(), port);
            }
        }
        drop(group);
        SocketGroup::bind(port, BUFFERS, 2).expect("it is free");
    }
}
