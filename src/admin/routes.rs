//! Which question is answered where, and in which form.

use crate::messages::diagnosis::Diagnosis;
use crate::messages::operator::{
    CancelDrain, DrainGateway, GatewayStatus, HealthCheck, OperatorLinks,
};
use crate::messages::reports::{HealthReport, HealthStatus};
use crate::metrics::{CONTENT_TYPE, Metrics};
use actix::prelude::*;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use postern_core::target::TargetParseError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Who knows the answers.
#[derive(Clone)]
pub struct Desk {
    /// The supervisor.
    pub supervisor: OperatorLinks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// No secret, and nothing that changes anything.
pub(super) fn for_everybody(desk: Desk) -> Router {
    public().with_state(desk)
}

/// As well who the clients are.
pub(super) fn for_this_host(desk: Desk) -> Router {
    public().route("/status", get(status)).with_state(desk)
}

/// As well what changes the gateway.
pub(super) fn everything(desk: Desk) -> Router {
    public()
        .route("/status", get(status))
        .route("/drain", post(drain).delete(cancel_drain))
        .route("/why", get(why))
        .with_state(desk)
}

fn public() -> Router<Desk> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn livez(State(desk): State<Desk>) -> Response {
    let report = health(&desk).await;
    (code(report.live), Json(report)).into_response()
}

async fn readyz(State(desk): State<Desk>) -> Response {
    let report = health(&desk).await;
    let is_ready = match report.status {
        HealthStatus::Ready | HealthStatus::Degraded => true,
        HealthStatus::NotReady => false,
    };
    (code(is_ready), Json(report)).into_response()
}

fn code(is_well: bool) -> StatusCode {
    match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Whoever does not get an answer from the supervisor knows enough.
async fn health(desk: &Desk) -> HealthReport {
    ask(&desk.supervisor.health, HealthCheck)
        .await
        .unwrap_or_else(|Silent| HealthReport {
            live: false,
            silent: vec!["supervisor".to_owned()],
            status: HealthStatus::NotReady,
            reasons: vec![Silent.to_string()],
        })
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (content_type, desk.metrics.page()).into_response()
}

#[derive(Deserialize)]
struct StatusQuery {
    #[serde(default = "some_clients")]
    clients: usize,
}

fn some_clients() -> usize {
    SHOWN_CLIENTS
}

async fn status(State(desk): State<Desk>, Query(query): Query<StatusQuery>) -> Response {
    let clients = query.clients.min(MAX_SHOWN_CLIENTS);
    reply(ask(&desk.supervisor.status, GatewayStatus { clients }).await)
}

#[derive(Deserialize)]
struct DrainQuery {
    grace: String,
}

async fn drain(State(desk): State<Desk>, Query(query): Query<DrainQuery>) -> Response {
    match humantime::parse_duration(&query.grace) {
        Ok(grace) => reply(ask(&desk.supervisor.drain, DrainGateway { grace }).await),
        Err(error) => {
            let reason = format!("grace={:?}: {error}; \"5m\" is five minutes", query.grace);
            (StatusCode::BAD_REQUEST, reason).into_response()
        }
    }
}

async fn cancel_drain(State(desk): State<Desk>) -> Response {
    reply(ask(&desk.supervisor.cancel, CancelDrain).await)
}

#[derive(Deserialize)]
struct WhyQuery {
    client: String,
    target: String,
}

async fn why(State(desk): State<Desk>, Query(query): Query<WhyQuery>) -> Response {
    let client = query.client;
    match query.target.parse() {
        Ok(target) => reply(ask(&desk.supervisor.why, Diagnosis { client, target }).await),
        Err(error) => {
            (StatusCode::BAD_REQUEST, TargetParseError::to_string(&error)).into_response()
        }
    }
}

fn reply<T: Serialize>(answer: Result<T, Silent>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(silent) => (StatusCode::SERVICE_UNAVAILABLE, silent.to_string()).into_response(),
    }
}

/// Nobody answered in time.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor does not answer")]
struct Silent;

async fn ask<M>(whom: &Recipient<M>, question: M) -> Result<M::Result, Silent>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    match timeout(PATIENCE, whom.send(question)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Silent),
    }
}

/// Longer than the supervisor waits for anybody else.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than anybody reads.
const SHOWN_CLIENTS: usize = 100;
/// Beyond it the answer would keep the supervisor busy.
const MAX_SHOWN_CLIENTS: usize = 10_000;
