//! A certificate and its key, for serving over TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Why some files can't be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path} can't be read: give a PEM file with {holds}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The content that is expected.
        holds: &'static str,
        /// The reason.
        #[source]
        cause: pem::Error,
    },
    /// The file of certificates contains none.
    #[error("{path} contains no certificate: give a PEM file with {holds}")]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// The content that is expected.
        holds: &'static str,
    },
    /// The certificates can't be used as authorities.
    #[error("the certificates in {path} can't be used as client CAs")]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key do not match.
    #[error(
        "the certificate in {certificates} can't be served with the key in {key}: give the files that were \
         made together"
    )]
    Unfit {
        /// The certificates.
        certificates: PathBuf,
        /// The key.
        key: PathBuf,
        /// The reason.
        #[source]
        cause: rustls::Error,
    },
}

/// After a refusal, this many bytes of a client are read, and for this long.
const MOST_UNREAD: u64 = 64 << 10;
const HANG_UP_WITHIN: Duration = Duration::from_secs(1);

/// The TLS configuration of connections: TLS 1.2 or 1.3, HTTP/1.1.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It contains the private key.
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads a certificate with its chain, and its private key, both as PEM. With a file of authorities, only clients
    /// with a certificate of one of them are accepted.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(
        certificates: &Path,
        key: &Path,
        client_authorities: Option<&Path>,
    ) -> Result<Tls, TlsError> {
        let chain = read(certificates, "the server's certificate, then its chain")?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::Unreadable {
            path: key.to_owned(),
            holds: "one private key",
            cause,
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match client_authorities {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => {
                let no_authority = |cause| TlsError::NoAuthority { path: path.to_owned(), cause };
                let mut roots = RootCertStore::empty();
                for certificate in read(path, "the certificates of the client CAs")? {
                    roots.add(certificate).map_err(|cause| no_authority(cause.into()))?;
                }
                WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                    .build()
                    .map_err(|cause| no_authority(cause.into()))?
            }
        };
        let unfit = |cause| TlsError::Unfit {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            cause,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake.
    pub(crate) async fn accept(&self, connection: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match self.0.accept(connection).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, connection)) => {
                hang_up(connection).await;
                Err(error)
            }
        }
    }
}

/// Closes a connection so that the client learns the reason. In TLS 1.3 the client may have sent its call already.
/// Closing with unread bytes would reset the connection and lose the alert.
async fn hang_up(mut connection: TcpStream) {
    let ending = async {
        connection.shutdown().await?;
        tokio::io::copy(&mut (&mut connection).take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    // The connection has ended in either case.
    let _ = tokio::time::timeout(HANG_UP_WITHIN, ending).await;
}

fn read(path: &Path, holds: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| TlsError::Unreadable { path: path.to_owned(), holds, cause })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned(), holds });
    }
    Ok(certificates)
}
