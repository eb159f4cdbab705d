//! Sending what is in the spool.

use std::time::Duration;

use anyhow::{Context, Result};
use latlas_shared::api::{Results, ResultsAnswer};
use latlas_shared::client::Client;

use crate::spool::Spool;

/// The most measurements of one batch.
const BATCH: usize = 100;

/// Waiting times between tries: doubling, capped, and spread by up to a half so that the boxes of a
/// farm do not all come back in the same second.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(60);

    /// From the beginning.
    pub fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// How long to wait now.
    pub fn step(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(Backoff::MOST);
        wait
    }
}

/// Sends everything in the spool, once.
///
/// What the coordinator refuses for good is moved out of the way together with its answer. A batch that
/// is refused as a whole is sent again in parts, so that one measurement takes no other with it.
///
/// # Errors
/// When the coordinator cannot be reached or is in trouble (the rest stays in the spool), or the spool cannot be
/// read.
pub async fn upload(client: &Client, spool: &Spool) -> Result<()> {
    let mut batch = BATCH;
    loop {
        let measurements = spool.oldest(batch)?;
        if measurements.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = measurements.iter().map(|measurement| measurement.id).collect();
        let answer: Result<ResultsAnswer, _> =
            client.post("v1/results", &Results { measurements }).await;
        match answer {
            Ok(answer) => {
                for id in ids {
                    match answer.refused.get(&id) {
                        Some(reason) => {
                            tracing::warn!("measurement {id} was refused: {reason}");
                            spool.refuse(id, reason)?;
                        }
                        None => spool.acknowledge(id)?,
                    }
                }
            }
            Err(e) if e.is_transient() || matches!(e.status(), Some(401 | 403)) => {
                return Err(e).context("sending results");
            }
            Err(e) => match ids.as_slice() {
                [id] => {
                    tracing::warn!("measurement {id} was refused: {e}");
                    spool.refuse(*id, &e.to_string())?;
                    batch = BATCH;
                }
                ids => batch = ids.len() / 2,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::tests::measurement;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use uuid::Uuid;

    /// Reads the body of a request.
    fn body(stream: &TcpStream) -> String {
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// A coordinator that can't read one measurement, and refuses every batch that has it.
    fn coordinator(unreadable: Uuid) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let is_bad = body(&stream).contains(&unreadable.to_string());
                let (status, text) = match is_bad {
                    true => {
                        (422, r#"{"type":"/p","title":"t","status":422,"detail":"unreadable"}"#)
                    }
                    false => (200, r#"{"stored":1,"known":0,"refused":{}}"#),
                };
                let length = text.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
                )
                .unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn one_that_cannot_be_read_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let measurements: Vec<_> = (0..7).map(|_| measurement()).collect();
        measurements.iter().for_each(|each| spool.add(each).unwrap());
        let bad = measurements[4].id;
        let client = Client::new(&coordinator(bad), None).unwrap();
        upload(&client, &spool).await.unwrap();
        assert_eq!(spool.oldest(10).unwrap(), []);
        let refused: Vec<_> = std::fs::read_dir(dir.path().join("refused"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".json"))
            .collect();
        assert_eq!(refused, [format!("{bad}.json")]);
    }
}
