//! x
#![allow(missing_docs)]
use super::ClientSlot;
use super::flows::{Inside, Outside};
use std::net::IpAddr;
pub fn inbound(_: &mut [u8], _: IpAddr, _: u16) {}
pub fn outbound(_: &mut [u8], _: IpAddr, _: u16) {}
pub enum Unreachable {
    Address,
    Port,
    Other,
}
pub struct IcmpError {
    pub outside: Outside,
    pub kind: Unreachable,
}
impl IcmpError {
    pub fn parse(_: ClientSlot, _: &[u8]) -> Option<Self> {
        None
    }
    pub fn rewrite(&self, b: &mut [u8], _: &Inside) -> usize {
        b.len()
    }
}
