//! A failing network between agents and a coordinator. It drops, delays, repeats and truncates messages, loses answers
//! after the coordinator has committed, disconnects during a call, and is unreachable for a while on request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

#[derive(Debug, Default)]
struct Count {
    passed: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
    repeated: AtomicU64,
    cut_requests: AtomicU64,
    cut_answers: AtomicU64,
    lost_answers: AtomicU64,
    hung_up: AtomicU64,
}

/// The fault of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Pass,
    Drop,
    Delay(Duration),
    Repeat,
    CutRequest,
    CutAnswer,
    LoseAnswer,
    HangUp(Duration),
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    rng: Mutex<fastrand::Rng>,
    faulty: AtomicBool,
    away: watch::Sender<bool>,
    count: Count,
}

/// The network.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The address for agents.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A network to the coordinator at `to`, without faults at first.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(to: SocketAddr, seed: u64) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            to,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            faulty: AtomicBool::new(false),
            away: watch::Sender::new(false),
            count: Count::default(),
        });
        let proxy = Proxy { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // Failing connections are the purpose here.
                tokio::spawn(async move { drop(connection(client, &shared).await) });
            }
        });
        Ok(proxy)
    }

    /// Sets whether exchanges have faults.
    pub fn set_faulty(&self, faulty: bool) {
        self.shared.faulty.store(faulty, Ordering::Relaxed);
    }

    /// Sets whether all traffic is blocked.
    pub fn set_away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    /// How often each fault has occurred so far, by name.
    pub fn count(&self) -> Vec<(&'static str, u64)> {
        let Count {
            passed,
            dropped,
            delayed,
            repeated,
            cut_requests,
            cut_answers,
            lost_answers,
            hung_up,
        } = &self.shared.count;
        [
            ("passed", passed),
            ("dropped", dropped),
            ("delayed", delayed),
            ("repeated", repeated),
            ("cut_requests", cut_requests),
            ("cut_answers", cut_answers),
            ("lost_answers", lost_answers),
            ("hung_up", hung_up),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
        .to_vec()
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        let mut rng = self.rng.lock().unwrap();
        let is_faulty = self.faulty.load(Ordering::Relaxed);
        let (fault, counter) = match rng.u32(0..100) {
            _ if !is_faulty => (Fault::Pass, &self.count.passed),
            0..4 => (Fault::Drop, &self.count.dropped),
            4..9 => (Fault::LoseAnswer, &self.count.lost_answers),
            9..13 => (Fault::CutAnswer, &self.count.cut_answers),
            13..17 => (Fault::CutRequest, &self.count.cut_requests),
            17..22 => (Fault::Repeat, &self.count.repeated),
            22..30 => {
                let delay = Duration::from_millis(rng.u64(1..800));
                (Fault::Delay(delay), &self.count.delayed)
            }
            // Usually before the answer, and often before the commit.
            30..36 => {
                let delay = Duration::from_micros(rng.u64(0..15_000));
                (Fault::HangUp(delay), &self.count.hung_up)
            }
            _ => (Fault::Pass, &self.count.passed),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        fault
    }

    fn part(&self, length: usize) -> usize {
        self.rng.lock().unwrap().usize(0..length.max(1))
    }

    /// Waits while the network is unreachable. Bytes are lost without an error.
    async fn hold(&self) -> bool {
        let held = *self.away.borrow();
        let mut away = self.away.subscribe();
        // The sender is a field of this struct, so it outlives the wait.
        away.wait_for(|away| !away).await.expect("the proxy is there");
        held
    }
}

async fn connection(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    if shared.hold().await {
        return Ok(());
    }
    let mut server = TcpStream::connect(shared.to).await?;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // A request that follows an answer begins a new exchange.
    let (mut answered, mut fault) = (true, Fault::Pass);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let bytes = &from_client[..read?];
                if bytes.is_empty() || shared.hold().await {
                    return Ok(());
                }
                if std::mem::take(&mut answered) {
                    fault = shared.fault();
                }
                match fault {
                    Fault::Drop => return Ok(()),
                    Fault::CutRequest => {
                        server.write_all(&bytes[..shared.part(bytes.len())]).await?;
                        // The coordinator may answer the part that it got; a half-closed connection carries the answer
                        // back.
                        server.shutdown().await?;
                        let read = server.read(&mut from_server).await?;
                        return client.write_all(&from_server[..read]).await;
                    }
                    Fault::Repeat => repeat(bytes, shared).await,
                    Fault::Delay(delay) => sleep(delay).await,
                    _ => {}
                }
                server.write_all(bytes).await?;
                if let Fault::HangUp(delay) = fault {
                    sleep(delay).await;
                    return Ok(());
                }
            }
            read = server.read(&mut from_server) => {
                let bytes = &from_server[..read?];
                if bytes.is_empty() || shared.hold().await {
                    return Ok(());
                }
                answered = true;
                match fault {
                    Fault::LoseAnswer => return Ok(()),
                    Fault::CutAnswer => {
                        return client.write_all(&bytes[..shared.part(bytes.len())]).await;
                    }
                    Fault::Delay(delay) => sleep(delay).await,
                    _ => {}
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

/// Sends an additional copy of a request, before the one that will be answered.
async fn repeat(request: &[u8], shared: &Shared) {
    let Ok(mut server) = TcpStream::connect(shared.to).await else { return };
    if server.write_all(request).await.is_ok() {
        let mut answer = [0; 1 << 10];
        // The answer is discarded.
        let _ = tokio::time::timeout(Duration::from_secs(1), server.read(&mut answer)).await;
    }
}
