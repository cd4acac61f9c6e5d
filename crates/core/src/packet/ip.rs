//! IP.
/// x
pub struct IpPacket;
/// x
pub struct Transport;
