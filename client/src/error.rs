//! Why a call failed.

use std::path::PathBuf;
use std::time::Duration;

use latlas_shared::api::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base address is invalid.
    #[error("`{0}` is not the address of a coordinator: write it like http://127.0.0.1:8700")]
    Address(String),
    /// The token cannot be sent. It is not repeated here.
    #[error(
        "the token has characters that no token has: copy it again, without spaces and line ends"
    )]
    Token,
    /// The file of certificates cannot be used.
    #[error(
        "the certificates in {path} cannot be used ({cause}): --ca-file or LATLAS_CA_FILE names a PEM file \
         with the certificates to trust"
    )]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: String,
    },
    /// The file of the client's own certificate cannot be used.
    #[error(
        "the client certificate in {path} cannot be used ({cause}): --client-cert or LATLAS_CLIENT_CERT \
         names a PEM file with a certificate and its private key"
    )]
    ClientCertFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: String,
    },
    /// The coordinator requires a certificate of its own authority.
    #[error(
        "the coordinator at {url} refuses this client ({cause}): it requires a certificate of its own authority; \
         name yours with --client-cert or LATLAS_CLIENT_CERT"
    )]
    NotLetIn {
        /// The coordinator's address.
        url: String,
        /// Its answer.
        cause: String,
    },
    /// The coordinator's certificate is not trusted.
    #[error(
        "the coordinator at {url} is not trusted ({cause}): if its certificate is self-signed, name it \
         with --ca-file or LATLAS_CA_FILE, and use the host name that is in it"
    )]
    Untrusted {
        /// The coordinator's address.
        url: String,
        /// What is wrong with its certificate.
        cause: String,
    },
    /// There was no answer, or the connection broke.
    #[error(
        "the coordinator at {url} does not answer ({cause}): is it running (`latlas-coordinator serve`), \
         and is this its address (--coordinator or LATLAS_COORDINATOR)?"
    )]
    Unreachable {
        /// The address that was called.
        url: String,
        /// The innermost cause.
        cause: String,
    },
    /// A proxy between this client and the coordinator failed.
    #[error(
        "the call to {url} went through the proxy {proxy}, which did not pass it on ({cause}): the environment \
         names that proxy (http_proxy, https_proxy or all_proxy); unset it, or name the coordinator's host in \
         no_proxy"
    )]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The coordinator behind it.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// The coordinator refused, with a reason.
    #[error("the coordinator refused: {} ({})", .0.detail, .0.title)]
    Refused(Problem),
    /// The coordinator, or a proxy in front of it, asked to retry later.
    #[error("the coordinator is busy and asks to retry in {} s: {why}", after.as_secs())]
    Later {
        /// The message.
        why: String,
        /// HTTP status, 429 or 503.
        status: u16,
        /// How long to wait, from its `Retry-After`.
        after: Duration,
    },
    /// The answer was not understood.
    #[error(
        "the answer of {url} was not understood ({cause}): is this a Latlas coordinator of the same \
         version?"
    )]
    NotUnderstood {
        /// The address that was called.
        url: String,
        /// The reason why it was not understood.
        cause: String,
    },
}

impl ClientError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Refused(problem) => Some(problem.status),
            ClientError::Later { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What to do, where the token was refused. It is read from the environment by the programs, and by the Python
    /// package unless it is given one.
    pub fn remedy(&self, token_sent: bool) -> Option<&'static str> {
        match (self, self.status()) {
            (ClientError::Token, _) => Some("It is read from LATLAS_TOKEN."),
            // The coordinator already tells how to get a token.
            (ClientError::Refused(problem), _) if problem.detail.contains("LATLAS_TOKEN") => None,
            (_, Some(401)) if !token_sent => Some(
                "No token was sent: set LATLAS_TOKEN to a researcher token, which \
                 `latlas-coordinator token create --role researcher` prints once.",
            ),
            (_, Some(401)) => Some(
                "The token in LATLAS_TOKEN was not accepted; `latlas-coordinator token create --role \
                 researcher` prints a new one.",
            ),
            (_, Some(403)) => Some("The token in LATLAS_TOKEN has a role that may not do this."),
            _ => None,
        }
    }

    /// Whether a retry of the call may succeed: there was no answer, the call was cut off, or the server failed or was
    /// busy. Other refusals are final.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::Proxy { .. }
            | ClientError::Later { .. } => true,
            ClientError::Address(_)
            | ClientError::Token
            | ClientError::CaFile { .. }
            | ClientError::ClientCertFile { .. }
            | ClientError::NotLetIn { .. }
            | ClientError::Untrusted { .. }
            | ClientError::NotUnderstood { .. } => false,
            ClientError::Refused(problem) => {
                problem.status >= 500 || matches!(problem.status, 408 | 429)
            }
        }
    }

    /// How long the coordinator asked to wait before a retry.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Later { after, .. } => Some(*after),
            _ => None,
        }
    }
}

/// The beginning of the error of rustls for a certificate that it does not trust.
const UNTRUSTED: &str = "invalid peer certificate";

/// Names in rustls of the alerts (RFC 8446, section 6.2) by which a server refuses a client's certificate.
const NOT_LET_IN: [&str; 6] = [
    "CertificateRequired",
    "UnknownCA",
    "BadCertificate",
    "CertificateExpired",
    "CertificateUnknown",
    "DecryptError",
];

/// Whether a connection failed because the coordinator's certificate is not trusted.
pub(crate) fn untrusted(cause: &str) -> bool {
    cause.starts_with(UNTRUSTED)
}

/// Whether a connection failed because the coordinator refuses the client's certificate.
pub(crate) fn not_let_in(cause: &str) -> bool {
    NOT_LET_IN.iter().any(|alert| cause.ends_with(alert))
}

/// The innermost cause of an error, such as `connection refused`. The layers above only repeat that a request failed.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
