//! An operator's questions and commands, from the AdminActor to the SupervisorActor.

use super::diagnosis::Diagnosis;
use super::reports::{DrainReport, HealthReport, StatusReport};
use actix::Message;
use std::time::Duration;

/// Pings every shared actor and judges the gateway's health.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HealthReport")]
pub struct HealthCheck;

/// Asks for the whole status.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "StatusReport")]
pub struct GatewayStatus {
    /// How many clients are described one by one.
    pub clients: usize,
}

/// Refuse new clients and keep the present ones until the last has gone or the time is over; then
/// say goodbye and exit with code 0. A second message moves the end.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "DrainReport")]
pub struct DrainGateway {
    /// How long clients may stay.
    pub grace: Duration,
}

/// Admit new clients again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CancelDrain;

recipients! {
    /// The supervisor, as the AdminActor reaches it.
    pub struct OperatorLinks {
        health: HealthCheck,
        status: GatewayStatus,
        drain: DrainGateway,
        cancel: CancelDrain,
        why: Diagnosis,
    }
}
