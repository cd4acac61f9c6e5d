//! Serves HTTP/1 on the listeners: a bounded number of connections, each for a bounded time.

use super::listeners::AdminListeners;
use super::routes::{self, AdminState};
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Serves on all listeners until the returned tasks are dropped.
pub(crate) fn serve(listeners: &AdminListeners, state: &AdminState) -> io::Result<JoinSet<()>> {
    let (unix, tcp) = listeners.register()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(unix, routes::private(state.clone())));
    for listener in tcp {
        let router = match listener.local_addr()?.ip().is_loopback() {
            true => routes::loopback(state.clone()),
            false => routes::public(state.clone()),
        };
        tasks.spawn(accept(listener, router));
    }
    Ok(tasks)
}

/// Connections beyond the limit wait in the kernel's queue.
async fn accept<L: Listener>(mut listener: L, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (stream, _) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let router = router.clone();
        connections.spawn(async move {
            serve_connection(stream, router).await;
            drop(slot);
        });
    }
}

/// Serves one connection for a limited time.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a question was broken off"),
    }
}

/// On each listener: a scraper and a few people.
const CONNECTIONS_MAX: usize = 32;
/// Time for the headers of a request.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// Scrapers keep their connection between scrapes, and open another one when it is closed.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
