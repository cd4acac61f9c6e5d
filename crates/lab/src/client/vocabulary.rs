//! Plain data that several parts of the client share: ids, keys, credentials, addresses, names.
//!
//! Imports nothing of the client, so that every other file can import it. Serialized as
//! docs/protocol.md 2.1, 4 and 11.1 write it; shares no type with the gateway or the lab portal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayId(pub Uuid);

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(pub Uuid);

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 32-byte key, base64 on the wire. `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(serde::de::Error::custom)?;
        let bytes = <[u8; 32]>::try_from(bytes);
        let bytes = bytes.map_err(|_| serde::de::Error::custom("a key has 32 bytes"))?;
        Ok(Self(bytes))
    }
}

/// ICE user name fragment and password of one side (RFC 8445, 5.3). `Debug` hides the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// At least 3 characters; 4 from a portal.
    pub username: String,
    /// At least 16 characters; 22 from a portal.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({})", self.username)
    }
}

/// Tunnel addresses of this client or of a gateway, without prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TunnelAddresses {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

impl TunnelAddresses {
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip == self.ipv4 || ip == self.ipv6
    }
}

/// A name with its proxy IPs, as the client announces it to gateways and (in generation 0) to the
/// portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Lower case, without a trailing dot.
    pub name: String,
    /// Eight addresses, IPv4 first.
    pub proxy_ips: Vec<IpAddr>,
}

/// A gateway's answer to the announcement of a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DomainStatus {
    pub resource: ResourceId,
    pub domain: String,
    /// Whether packets to the name's proxy IPs may be sent.
    #[serde(rename = "status", deserialize_with = "is_active")]
    pub active: bool,
}

/// Every word but `Active` means inactive.
fn is_active<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "Active")
}
