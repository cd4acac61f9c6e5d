//! Serves HTTP/1 on the listeners: a bounded number of connections, and none that dawdles.

use super::listeners::AdminListeners;
use super::routes::{self, Desk};
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
///
/// # Errors
///
/// When the event loop of this thread does not take the listeners.
pub(crate) fn serve(listeners: &AdminListeners, desk: &Desk) -> io::Result<JoinSet<()>> {
    let (unix, tcp) = listeners.register()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(unix, routes::everything(desk.clone())));
    for listener in tcp {
        let router = match listener.local_addr()?.ip().is_loopback() {
            true => routes::for_this_host(desk.clone()),
            false => routes::for_everybody(desk.clone()),
        };
        tasks.spawn(accept(listener, router));
    }
    Ok(tasks)
}

/// Connections beyond the limit wait in the kernel's queue.
async fn accept<L: Listener>(mut listener: L, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, _) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let router = router.clone();
        connections.spawn(async move {
            converse(stream, router).await;
            drop(place);
        });
    }
}

/// One connection, for a while.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TAKE)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LASTS, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a question was broken off"),
    }
}

/// On each listener. A scraper and a few people.
const CONNECTIONS: usize = 32;
/// Whoever asks has something to ask.
const HEADERS_TAKE: Duration = Duration::from_secs(5);
/// Scrapers keep their connection between scrapes, and open a new one without ado.
const CONNECTION_LASTS: Duration = Duration::from_secs(120);
