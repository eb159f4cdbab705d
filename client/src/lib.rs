//! The HTTP client of a coordinator: one way to send a request, to read an answer, and to explain a failure; and what
//! the program `latlas` and the Python package do alike with requests to measure: they ask for what networks need, wait
//! and read what was measured.

pub mod attendance;
mod error;
mod follow;
mod networks;
mod tls;

use std::fmt;
use std::time::Duration;

use eventsource_stream::{EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _};

use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use ops_catalog::text;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use latlas_shared::HardwareId;
use latlas_shared::api::{Page, Problem, STALE};

pub use error::ClientError;
pub use follow::{Display, follow};
pub use networks::{add_missing_rows, known_ops, measured};
pub use tls::TlsFiles;

use error::{innermost, not_let_in, untrusted};

/// A coordinator, as one user sees it.
#[derive(Clone)]
pub struct Client {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the token nor a password in the address belongs in a log.
        f.debug_struct("Client").field("base", &self.shown_base()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the coordinator at `base`, e.g. `http://127.0.0.1:8700`, with the system's trusted certificates.
    ///
    /// # Errors
    /// When `base` is not an http address.
    pub fn new(base: &str, token: Option<String>) -> Result<Client, ClientError> {
        Client::with_tls(&TlsFiles::default(), base, token)
    }

    /// The same, with certificates in files.
    ///
    /// # Errors
    /// When `base` is not an http address, or a file cannot be used.
    pub fn with_tls(
        files: &TlsFiles,
        base: &str,
        token: Option<String>,
    ) -> Result<Client, ClientError> {
        let address = || ClientError::Address(base.to_owned());
        let mut url = Url::parse(base).map_err(|_| address())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(address());
        }
        // Without the slash a path prefix of the base would be replaced, not continued.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            // Sooner than a coordinator closes it, so that no call is sent into a closing connection.
            .pool_idle_timeout(Duration::from_secs(20))
            .user_agent(concat!("latlas/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            // A proxy from the environment would reach its own loopback, not this machine's.
            builder = builder.no_proxy();
        }
        if let Some(path) = &files.ca {
            builder = builder.tls_certs_merge(tls::certificates(path)?);
        }
        if let Some(path) = &files.client_cert {
            builder = builder.identity(tls::identity(path)?);
        }
        // Only this step shows whether a certificate is valid. Leaving out one of two files shows which of them is
        // invalid.
        let http = builder.build().map_err(|e| match files {
            TlsFiles { ca, client_cert: Some(path) } => {
                let others = TlsFiles { ca: ca.clone(), client_cert: None };
                let cause = innermost(&e);
                let own = ClientError::ClientCertFile { path: path.clone(), cause };
                Client::with_tls(&others, base, None).err().unwrap_or(own)
            }
            TlsFiles { ca: Some(path), client_cert: None } => {
                ClientError::CaFile { path: path.clone(), cause: innermost(&e) }
            }
            _ => ClientError::Unreachable { url: base.to_owned(), cause: innermost(&e) },
        })?;
        Ok(Client { base: url, token, http })
    }

    /// The same coordinator with another token.
    pub fn with_token(&self, token: String) -> Client {
        Client { token: Some(token), ..self.clone() }
    }

    /// The client's base address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The base address without its user and password.
    pub fn shown_base(&self) -> String {
        shown(&self.base).trim_end_matches('/').to_owned()
    }

    /// Reads `path`, relative to the base and with its query if it has one, as JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(self.send(self.request(Method::GET, path)?).await?).await
    }

    /// Reads `path` without decoding it, for downloads and streams.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_raw(&self, path: &str) -> Result<Response, ClientError> {
        self.send(self.request(Method::GET, path)?).await
    }

    /// Downloads a table.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn download(&self, wanted: &WantedTable<'_>) -> Result<Download, ClientError> {
        self.download_at(&wanted.path()).await
    }

    /// Downloads what is at `path`, relative to the base: a table of a coordinator, or a file of any server.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn download_at(&self, path: &str) -> Result<Download, ClientError> {
        let mut response = self.get_raw(path).await?;
        let stale = response.headers().get(STALE);
        let stale = stale.map(|why| String::from_utf8_lossy(why.as_bytes()).into_owned());
        let mut content = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            content.extend_from_slice(&bytes);
        }
        Ok(Download { content, stale })
    }

    /// Reads a stream of server-sent events at `path`: the data of each event, in order.
    ///
    /// # Errors
    /// See [`ClientError`]. An item is an error if the connection breaks or the server sends something else.
    pub async fn events(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, ClientError>>, ClientError> {
        let response = self.get_raw(path).await?;
        let url = shown(response.url());
        Ok(response.bytes_stream().eventsource().map(move |event| match event {
            Ok(event) => Ok(event.data),
            Err(EventStreamError::Transport(error)) => Err(self.unreachable(&error)),
            Err(error) => {
                Err(ClientError::NotUnderstood { url: url.clone(), cause: error.to_string() })
            }
        }))
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let url = match &cursor {
                None => path.to_owned(),
                Some(cursor) => with_query(path, &[("cursor", cursor)]),
            };
            let page: Page<T> = self.get(&url).await?;
            items.extend(page.items);
            match page.next_cursor {
                None => return Ok(items),
                same if same == cursor => {
                    let cause = "its pages have no end".to_owned();
                    return Err(ClientError::NotUnderstood { url, cause });
                }
                next => cursor = next,
            }
        }
    }

    /// Sends JSON to `path` and reads the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.read(self.send(self.request(Method::POST, path)?.json(body)).await?).await
    }

    /// Puts JSON to `path` and reads the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.read(self.send(self.request(Method::PUT, path)?.json(body)).await?).await
    }

    /// Patches the resource at `path` with some JSON and reads the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.read(self.send(self.request(Method::PATCH, path)?.json(body)).await?).await
    }

    /// Deletes the resource at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.read(self.send(self.request(Method::DELETE, path)?).await?).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let url = self.base.join(path).map_err(|_| ClientError::Address(path.to_owned()))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.header(AUTHORIZATION, authorization(token)?),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = shown(response.url());
        let after = retry_after(&response);
        let text = response.text().await.map_err(|e| self.unreachable(&e))?;
        let cause = format!("status {status}");
        let problem = serde_json::from_str::<Problem>(&text);
        if let Some(after) = after {
            let why = problem.map_or(cause, |problem| problem.detail);
            return Err(ClientError::Later { why, status: status.as_u16(), after });
        }
        Err(match problem {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                // A proxy may answer for a coordinator that is down.
                self.unanswered(cause)
            }
            Err(_) => ClientError::NotUnderstood { url, cause },
        })
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let url = shown(response.url());
        let body = response.text().await.map_err(|e| self.unreachable(&e))?;
        // An answer without a body, as 204 has, is read as the unit type.
        let body = if body.is_empty() { "null" } else { &body };
        text::read_json(body).map_err(|e| ClientError::NotUnderstood { url, cause: e.to_string() })
    }

    /// The error for a failed connection, also while the caller reads a body.
    pub fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let (url, cause) = (self.shown_base(), innermost(error));
        if untrusted(&cause) {
            return ClientError::Untrusted { url, cause };
        }
        if not_let_in(&cause) {
            return ClientError::NotLetIn { url, cause };
        }
        self.unanswered(cause)
    }

    /// The error for a missing answer. If a proxy is used, only the proxy was reached.
    fn unanswered(&self, cause: String) -> ClientError {
        let url = self.shown_base();
        match self.proxy() {
            Some(proxy) => ClientError::Proxy { proxy, url, cause },
            None => ClientError::Unreachable { url, cause },
        }
    }

    /// The proxy for the coordinator from the environment, without its user and password.
    fn proxy(&self) -> Option<String> {
        if is_loopback(&self.base) {
            return None;
        }
        let uri = self.base.as_str().parse().ok()?;
        let proxy = Matcher::from_env().intercept(&uri)?;
        Url::parse(&proxy.uri().to_string())
            .ok()
            .map(|url| shown(&url).trim_end_matches('/').to_owned())
    }
}

/// A table to download.
#[derive(Debug, Clone, Copy)]
pub struct WantedTable<'a> {
    /// The class of device.
    pub hardware: &'a HardwareId,
    /// Id of the run config; the hardware's default when not given.
    pub config: Option<&'a str>,
    /// Table version; the latest when not given.
    pub version: Option<&'a str>,
    /// `json`, `ndjson` or `csv`.
    pub format: &'a str,
}

impl WantedTable<'_> {
    fn path(&self) -> String {
        let mut path = format!("v1/tables/{}", self.hardware);
        if let Some(version) = self.version {
            path = format!("{path}/versions/{version}");
        }
        let config = self.config.map(|config| ("config", config));
        let query: Vec<_> = config.into_iter().chain([("format", self.format)]).collect();
        with_query(&path, &query)
    }
}

/// What was downloaded.
#[derive(Debug, Clone)]
pub struct Download {
    /// The document.
    pub content: Vec<u8>,
    /// Why a table lacks stored measurements, as a name of [`latlas_shared::api::Stale`]; none when it has them all.
    pub stale: Option<String>,
}

/// The warning about a table that lacks stored measurements. `why` is one of [`latlas_shared::api::Stale`].
pub fn stale_warning(table: &str, why: &str) -> String {
    format!(
        "{table}: this version lacks measurements that the coordinator has stored ({why}): ask again later, or ask \
         its host"
    )
}

/// A path with a query, its values percent-encoded.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() {
        return path.to_owned();
    }
    // The query of every address is encoded alike; this address is never called.
    let mut url = Url::parse("http://localhost/").expect("it is an address");
    url.query_pairs_mut().extend_pairs(pairs);
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}{}", url.query().unwrap_or_default())
}

fn authorization(token: &str) -> Result<HeaderValue, ClientError> {
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let mut value = match HeaderValue::from_str(&format!("Bearer {token}")) {
        Ok(value) if plain => value,
        _ => return Err(ClientError::Token),
    };
    value.set_sensitive(true);
    Ok(value)
}

/// The wait that a busy server asks for, in seconds or as a date. A value that cannot be parsed counts as no wait. The
/// same holds for an answer that has nothing to do with load.
fn retry_after(response: &Response) -> Option<Duration> {
    let status = response.status();
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    // A past date asks for no wait.
    Some(date.duration_since(Timestamp::now()).try_into().unwrap_or_default())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// An address without its user and password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both calls fail only for addresses that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
