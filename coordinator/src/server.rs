//! Connections: accepting, TLS, limits on number and time, and shutdown.

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

/// Connection limits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most connections at once. Further ones wait until others end.
    connections: usize,
    /// Time limit of the TLS handshake of a new connection.
    handshake: Duration,
    /// Time limit from the previous call on a connection to the head of the next one.
    head: Duration,
    /// Time limit for running calls after a stop was requested.
    stop: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            // Two for each box in a farm of thousands, and some for people.
            connections: 16_384,
            handshake: Duration::from_secs(10),
            // This project's clients close idle connections sooner, so none sends a call into a connection that is
            // about to be closed.
            head: Duration::from_secs(30),
            stop: Duration::from_secs(7),
        }
    }
}

/// The wait after a connection could not be accepted, for example because no file handle is left.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until `stop`, and then until all running calls have ended or the time limit is over; false if some calls must
/// be cut off.
pub async fn run(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: impl Future<Output = ()>,
    bounds: Bounds,
) -> bool {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(bounds.connections));
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
            if let Err(error) = attend(stream, peer, tls, router, watcher, bounds).await {
                tracing::debug!(%peer, "a connection failed: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(bounds.stop, graceful.shutdown()).await.is_ok()
}

/// A client that disconnects before its connection is accepted is not an error. Any other error is the server's, and
/// may be temporary.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!("a connection could not be accepted: {error}");
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
    bounds: Bounds,
) -> Result<(), Broken> {
    // Answers are written as a whole; waiting for more data to send with them would only delay them.
    stream.set_nodelay(true)?;
    match tls {
        None => calls(stream, peer, router, watcher, bounds.head).await,
        Some(tls) => {
            let stream = tokio::time::timeout(bounds.handshake, tls.accept(stream)).await??;
            calls(stream, peer, router, watcher, bounds.head).await
        }
    }
}

/// Handles the calls on one connection; each call contains the address of its peer.
async fn calls(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
    head_within: Duration,
) -> Result<(), Broken> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within)
        .serve_connection(TokioIo::new(stream), service);
    Ok(watcher.watch(connection).await?)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const CALL: &[u8] = b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A server with two routes: `/peer` returns the caller's address, and `/slow` reports that it was reached and then
    /// waits for its `release`.
    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        release: CancellationToken,
        reached: mpsc::UnboundedReceiver<()>,
        run: JoinHandle<bool>,
    }

    async fn serve(bounds: Bounds) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, release) = (CancellationToken::new(), CancellationToken::new());
        let (sender, reached) = mpsc::unbounded_channel();
        let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
        let released = release.clone();
        let slow = move || {
            let (sender, released) = (sender.clone(), released.clone());
            async move {
                sender.send(()).unwrap();
                released.cancelled().await;
                "done"
            }
        };
        let router = Router::new().route("/peer", get(peer)).route("/slow", get(slow));
        let run = tokio::spawn(run(listener, None, router, stop.clone().cancelled_owned(), bounds));
        Served { address, stop, release, reached, run }
    }

    impl Served {
        async fn send(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }
    }

    /// The data until the connection is closed.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_call_knows_where_it_comes_from_and_an_idle_connection_ends() {
        let bounds = Bounds { head: Duration::from_millis(50), ..Bounds::default() };
        let served = serve(bounds).await;
        let stream = served.send(CALL).await;
        let from = stream.local_addr().unwrap().to_string();
        // The server closes it without a request.
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&from), "{answer}");
        let half = served.send(&CALL[..9]).await;
        assert_eq!(rest(half).await, "", "a head that does not end is not waited for");
    }

    #[tokio::test]
    async fn what_is_under_way_is_finished_and_idle_connections_are_not_waited_for() {
        let mut served = serve(Bounds::default()).await;
        let idle = served.send(b"").await;
        let slow = served.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        served.reached.recv().await.unwrap();
        served.stop.cancel();
        assert_eq!(rest(idle).await, "");
        served.release.cancel();
        assert!(rest(slow).await.ends_with("done"));
        assert!(served.run.await.unwrap(), "nothing was cut off");
    }

    #[tokio::test]
    async fn what_does_not_end_is_cut_off() {
        let mut served =
            serve(Bounds { stop: Duration::from_millis(50), ..Bounds::default() }).await;
        let _slow = served.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        served.reached.recv().await.unwrap();
        served.stop.cancel();
        assert!(!served.run.await.unwrap());
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_its_place() {
        let mut served = serve(Bounds { connections: 1, ..Bounds::default() }).await;
        let slow = served.send(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        served.reached.recv().await.unwrap();
        let mut second = served.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let early = tokio::time::timeout(Duration::from_millis(50), served.reached.recv()).await;
        assert!(early.is_err(), "it was let in beside the first");
        served.release.cancel();
        assert!(rest(slow).await.ends_with("done"));
        served.reached.recv().await.unwrap();
        let mut answer = [0; 12];
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
