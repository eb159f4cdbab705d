//! Connections: taken, wrapped in TLS, limited in number and in patience, and ended in peace.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::tls::Tls;

/// The most connections at once: two of each box in a farm of thousands, and some for people. Those that
/// come then wait until others end.
const MOST_CONNECTIONS: usize = 16_384;

/// A connection that has begun is a TLS connection within this time.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The head of a call is here this long after the call before it on the same connection. Clients of ours
/// let go of an idle connection sooner, so none sends a call into one that is about to be closed.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Before the next try after a connection could not be taken, as when no file handle is left.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until `stop`, and after it until all that is under way has ended, but no longer than `patience`;
/// false when something had to be cut off.
pub async fn run(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: impl Future<Output = ()>,
    patience: Duration,
) -> bool {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let connection = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place.expect("it is never closed"))
        };
        let (accepted, place) = tokio::select! {
            connection = connection => connection,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = attend(stream, peer, tls, router, watcher).await {
                tracing::debug!(%peer, "a connection broke off: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(patience, graceful.shutdown()).await.is_ok()
}

/// A client that has gone before it was taken is its own matter; anything else is ours, and may pass.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!("a connection could not be taken: {error}");
        tokio::time::sleep(BREATHER).await;
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    router: Router,
    watcher: Watcher,
) -> Result<(), Broken> {
    // Answers are written whole; waiting for more to send with them would only delay them.
    stream.set_nodelay(true)?;
    match tls {
        None => calls(stream, peer, router, watcher).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await??;
            calls(stream, peer, router, watcher).await
        }
    }
}

/// The calls on one connection, which know where they come from.
async fn calls(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) -> Result<(), Broken> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    Ok(watcher.watch(connection).await?)
}
