//! A certificate and its key, for serving over TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Why nothing can be served with some files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path} can't be read ({cause}): it is a PEM file with {holds}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should be.
        holds: &'static str,
        /// Why not.
        cause: pem::Error,
    },
    /// The file of certificates has none.
    #[error(
        "{path} has no certificate in it: it is a PEM file with the server's certificate first"
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// They don't fit together.
    #[error(
        "the certificate in {certificates} can't be served with the key in {key} ({cause}): give the files \
         that were made together"
    )]
    Unfit {
        /// The certificates.
        certificates: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        cause: rustls::Error,
    },
}

/// What connections are wrapped in: TLS 1.2 or 1.3, HTTP/1.1.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It holds the key.
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads a certificate with those that lead to its root, and its private key, both PEM.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(certificates: &Path, key: &Path) -> Result<Tls, TlsError> {
        let unreadable = |path: &Path, holds, cause| TlsError::Unreadable {
            path: path.to_owned(),
            holds,
            cause,
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect)
            .map_err(|cause| unreadable(certificates, "the server's certificate first", cause))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: certificates.to_owned() });
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|cause| unreadable(key, "one private key", cause))?;
        let unfit = |cause| TlsError::Unfit {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            cause,
        };
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(unfit)?
                .with_no_client_auth()
                .with_single_cert(chain, private)
                .map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake.
    pub(crate) async fn accept(&self, connection: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(connection).await
    }
}
