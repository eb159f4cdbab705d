//! The commands: each reads, decides with the pure parts of the crate, and writes.

pub mod accuracy;
pub mod arch;
pub mod farm;
pub mod hardware;
pub mod networks;
mod onnx;
pub mod ops;
pub mod predict;
pub mod profile;
pub mod prune;
pub mod request;
pub mod space;
pub mod table;

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use latlas_client::{Client, ClientError, TlsFiles};
use serde::Serialize;

use latlas_program::exit::Usage;

/// A coordinator. No connection is opened before the first call.
pub struct Coordinator {
    address: String,
    token: Option<String>,
    tls: TlsFiles,
}

impl Coordinator {
    /// The coordinator at an address, with the user's token and files for TLS.
    pub fn new(address: String, token: Option<String>, tls: TlsFiles) -> Coordinator {
        Coordinator { address, token, tls }
    }

    /// Runs one conversation with the coordinator.
    fn ask<T>(&self, conversation: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let client = Client::with_tls(&self.tls, &self.address, self.token.clone());
        let client = match client {
            Err(error @ ClientError::Address(_)) => return Err(Usage(error.to_string()).into()),
            other => other.map_err(|error| self.explained(error))?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(conversation(client));
        result.map_err(|error| match error.downcast::<ClientError>() {
            Ok(error) => self.explained(error),
            Err(error) => error,
        })
    }

    /// The error with a remedy, where the token was refused.
    fn explained(&self, error: ClientError) -> anyhow::Error {
        match error.remedy(self.token.is_some()) {
            Some(remedy) => anyhow!("{error}. {remedy}"),
            None => error.into(),
        }
    }
}

/// Writes one JSON object on its own line.
fn write_json(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    // Serialized first: a full disk is then an error of the disk, not of the data.
    let text = serde_json::to_string(value).context("a result cannot be written as JSON")?;
    Ok(writeln!(out, "{text}")?)
}
