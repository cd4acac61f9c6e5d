//! What an operator asks and tells, by way of the AdminActor; the SupervisorActor answers.

use super::diagnosis::Diagnosis;
use crate::admin::reports::{DrainReport, HealthReport, StatusReport};
use actix::{Message, Recipient};
use std::time::Duration;

/// How the gateway is. Every shared actor is asked to answer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HealthReport")]
pub struct HealthCheck;

/// Everything that an operator may want to see.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "StatusReport")]
pub struct GatewayStatus {
    /// How many clients are described one by one.
    pub clients: usize,
}

/// Refuse new clients, keep those that are there until nobody is left or the time is over, then say
/// goodbye and end with code 0. A second one moves the end.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "DrainReport")]
pub struct DrainGateway {
    /// How long clients may stay.
    pub grace: Duration,
}

/// Go on as if nothing had been said.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CancelDrain;

/// What the AdminActor says to the SupervisorActor.
#[derive(Clone)]
pub struct OperatorLinks {
    /// See [`HealthCheck`].
    pub health: Recipient<HealthCheck>,
    /// See [`GatewayStatus`].
    pub status: Recipient<GatewayStatus>,
    /// See [`DrainGateway`].
    pub drain: Recipient<DrainGateway>,
    /// See [`CancelDrain`].
    pub cancel: Recipient<CancelDrain>,
    /// See [`Diagnosis`].
    pub why: Recipient<Diagnosis>,
}
