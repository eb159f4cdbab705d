//! Certificates from files.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};

use crate::ClientError;
use crate::error::innermost;

/// Files for TLS, in addition to the certificates that the system trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust, PEM.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its private key, in one PEM file.
    pub client_cert: Option<PathBuf>,
}

pub(crate) fn identity(path: &Path) -> Result<Identity, ClientError> {
    let unusable = |cause: String| ClientError::ClientCertFile { path: path.to_owned(), cause };
    let text = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
    Identity::from_pem(&text).map_err(|e| unusable(innermost(&e)))
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let unusable = |cause: String| ClientError::CaFile { path: path.to_owned(), cause };
    let text = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&text).map_err(|e| unusable(innermost(&e)))?;
    if certificates.is_empty() {
        return Err(unusable("it has none".to_owned()));
    }
    Ok(certificates)
}
