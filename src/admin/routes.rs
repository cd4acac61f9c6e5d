//! The requests that each kind of listener serves, and the form of their answers.

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

/// The sources of all answers.
#[derive(Clone)]
pub struct AdminState {
    /// Links to the SupervisorActor.
    pub supervisor: OperatorLinks,
    /// Source of the page of metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves what is not secret and changes nothing.
pub(super) fn public(state: AdminState) -> Router {
    public_routes().with_state(state)
}

/// Also serves the list of clients.
pub(super) fn loopback(state: AdminState) -> Router {
    loopback_routes().with_state(state)
}

/// Also serves the requests that change the gateway.
pub(super) fn private(state: AdminState) -> Router {
    loopback_routes()
        .route("/drain", post(drain).delete(cancel_drain))
        .route("/why", get(why))
        .with_state(state)
}

fn loopback_routes() -> Router<AdminState> {
    public_routes().route("/status", get(status))
}

fn public_routes() -> Router<AdminState> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn livez(State(state): State<AdminState>) -> Response {
    let report = health(&state).await;
    probe_answer(report.live, report)
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = health(&state).await;
    probe_answer(report.status != HealthStatus::NotReady, report)
}

fn probe_answer(is_well: bool, report: HealthReport) -> Response {
    let code = match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(report)).into_response()
}

/// A supervisor that does not answer is not live.
async fn health(state: &AdminState) -> HealthReport {
    ask(&state.supervisor.health, HealthCheck)
        .await
        .unwrap_or_else(|NoAnswer| HealthReport {
            live: false,
            silent: vec!["supervisor".to_owned()],
            status: HealthStatus::NotReady,
            reasons: vec![NoAnswer.to_string()],
        })
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (content_type, state.metrics.page()).into_response()
}

#[derive(Deserialize)]
struct StatusQuery {
    clients: Option<usize>,
}

async fn status(State(state): State<AdminState>, Query(query): Query<StatusQuery>) -> Response {
    let clients = query
        .clients
        .unwrap_or(SHOWN_CLIENTS)
        .min(SHOWN_CLIENTS_MAX);
    serve(&state.supervisor.status, GatewayStatus { clients }).await
}

#[derive(Deserialize)]
struct DrainQuery {
    grace: String,
}

async fn drain(State(state): State<AdminState>, Query(query): Query<DrainQuery>) -> Response {
    match humantime::parse_duration(&query.grace) {
        Ok(grace) => serve(&state.supervisor.drain, DrainGateway { grace }).await,
        Err(error) => {
            let reason = format!("grace={:?}: {error}; \"5m\" is five minutes", query.grace);
            (StatusCode::BAD_REQUEST, reason).into_response()
        }
    }
}

async fn cancel_drain(State(state): State<AdminState>) -> Response {
    serve(&state.supervisor.cancel, CancelDrain).await
}

#[derive(Deserialize)]
struct WhyQuery {
    client: String,
    target: String,
}

async fn why(State(state): State<AdminState>, Query(query): Query<WhyQuery>) -> Response {
    let client = query.client;
    match query.target.parse() {
        Ok(target) => serve(&state.supervisor.why, Diagnosis { client, target }).await,
        Err(error) => {
            (StatusCode::BAD_REQUEST, TargetParseError::to_string(&error)).into_response()
        }
    }
}

/// Asks the supervisor and serves its answer as JSON.
async fn serve<M>(supervisor: &Recipient<M>, question: M) -> Response
where
    M: Message + Send + 'static,
    M::Result: Send + Serialize,
{
    match ask(supervisor, question).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the supervisor does not answer")]
struct NoAnswer;

async fn ask<M>(supervisor: &Recipient<M>, question: M) -> Result<M::Result, NoAnswer>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    match timeout(ANSWER_WITHIN, supervisor.send(question)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(NoAnswer),
    }
}

/// Longer than the supervisor waits for another actor.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// More than people read.
const SHOWN_CLIENTS: usize = 100;
/// A longer answer would occupy the supervisor.
const SHOWN_CLIENTS_MAX: usize = 10_000;
