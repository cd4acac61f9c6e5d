//! Forwards one query to another DNS server, unchanged, and returns its unchanged answer.
//!
//! Uses ordinary sockets: a query to an address in a resource's network goes through the tunnel,
//! like that of an application. Refuses answers to other queries. Source: RFC 1035, 4.2.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The transport of a query, of its answer, and of the forwarded query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Sends `query` to `server` once.
///
/// # Errors
/// When `server` does not answer in time or is unreachable.
pub(super) async fn exchange(
    query: &[u8],
    server: SocketAddr,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let answer = async {
        match transport {
            Transport::Udp => over_udp(query, server).await,
            Transport::Tcp => over_tcp(query, server).await,
        }
    };
    timeout(ANSWER_TIMEOUT, answer).await?
}

async fn over_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_answer(query, &buffer[..len]) {
            return Ok(buffer[..len].to_vec());
        }
    }
}

async fn over_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    match read_message(&mut stream).await? {
        Some(answer) if is_answer(query, &answer) => Ok(answer),
        Some(_) => Err(io::Error::other("the answer to another question")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether `answer` has the same identifier and the response bit.
fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    let is_response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    answer.len() >= HEADER_BYTES && is_response && query.get(..2) == answer.get(..2)
}

/// The next message on a connection; `None` at its end.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await
}

/// The largest datagram: more than resolvers send today.
pub(super) const MESSAGE_BYTES: usize = 4096;
/// The fixed header (RFC 1035, 4.1.1).
const HEADER_BYTES: usize = 12;
/// Less than the 5 s after which applications repeat a query.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
