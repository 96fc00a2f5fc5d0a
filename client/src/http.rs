//! Requests that are tried again, and what their answers mean.

use std::sync::Once;
use std::time::Duration;

use aotfarm_blob::DEFAULT_LIMIT;
use aotfarm_protocol::ApiError;
use aotfarm_protocol::endpoints::Call;
use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::retry::{Failed, Retry, Tries};

pub(crate) type Result<T> = std::result::Result<T, ClientError>;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a JSON answer may take, unless the call says otherwise.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a blob's stream may stand still.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a coordinator. Clones share its pool of sockets.
///
/// Every request of the API can be repeated safely, so all are tried again after a lost connection, an answer of a gateway or
/// an unexplained failure of the server. An [`ApiError`] is the server's word and final, unless it comes with 503.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    base: Url,
    pub(crate) retry: Retry,
    pub(crate) limit: u64,
}

impl Client {
    /// A client of the coordinator at `base`: `http://HOST:PORT` or `https://…`, possibly with a path. Does not connect yet.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn new(base: &str) -> Result<Self> {
        static TLS: Once = Once::new();
        // An error means that the program has installed another provider, which is as good.
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));

        let bad = |reason: String| ClientError::Address { url: base.to_owned(), reason };
        let url = Url::parse(base).map_err(|e| bad(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("`{}` is neither http nor https", url.scheme())));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has a query or a fragment".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("aotfarm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT);
        if url.scheme() == "http" {
            // Machines without any installed certificate authority can still use plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| bad(cause(&e)))?;
        Ok(Self { http, base: url, retry: Retry::default(), limit: DEFAULT_LIMIT })
    }

    /// Replaces the retry policy.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Replaces the limit for the uncompressed bytes of a downloaded blob.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// The address that the client was made with.
    pub fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Sends a request; the answer is JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<R: DeserializeOwned>(&self, call: Call<R>) -> Result<R> {
        self.call_within(call, ANSWER_TIMEOUT).await
    }

    /// [`Self::call`] for an answer that may take its time: a long poll.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call_within<R: DeserializeOwned>(&self, call: Call<R>, timeout: Duration) -> Result<R> {
        let url = self.url(&call);
        let body = call.body.map(Bytes::from);
        let mut tries = Tries::new(self.retry, &url);
        loop {
            let mut request = self.http.request(call.method.clone(), &url).timeout(timeout);
            if let Some(body) = &body {
                request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.clone());
            }
            match answer(request).await {
                Ok(response) => match response.bytes().await {
                    Ok(bytes) => return from_json(&url, &bytes),
                    Err(e) => tries.again(passing(&e)).await?,
                },
                Err(failed) => tries.again(failed).await?,
            }
        }
    }

    /// Where a request goes.
    pub(crate) fn url<R>(&self, call: &Call<R>) -> String {
        format!("{}{}", self.base(), call.target)
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn from_json<T: DeserializeOwned>(url: &str, bytes: &[u8]) -> Result<T> {
    // An empty answer is that of a handler that returns nothing.
    let text = if bytes.is_empty() { b"null" } else { bytes };
    serde_json::from_slice(text).map_err(|e| ClientError::Foreign { url: url.to_owned(), reason: e.to_string() })
}

/// Sends a request; anything but success is a failure.
pub(crate) async fn answer(request: RequestBuilder) -> std::result::Result<Response, Failed> {
    let response = request.send().await.map_err(|e| passing(&e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = response.url().to_string();
    let body = response.bytes().await.map_err(|e| passing(&e))?;
    Err(refusal(&url, status, &body))
}

/// Reads an answer that is not a success.
pub(crate) fn refusal(url: &str, status: StatusCode, body: &[u8]) -> Failed {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(error) if status == StatusCode::SERVICE_UNAVAILABLE => Failed::Passing(error.message),
        Ok(error) => Failed::Final(ClientError::Api(error)),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().take(200).collect();
            let reason = if text.is_empty() { format!("status {status}") } else { format!("status {status}: {text}") };
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                Failed::Passing(reason)
            } else {
                Failed::Final(ClientError::Foreign { url: url.to_owned(), reason })
            }
        }
    }
}

/// A transport failure: the next try may go better.
pub(crate) fn passing(error: &reqwest::Error) -> Failed {
    Failed::Passing(cause(error))
}

/// The innermost reason of a transport error, which is what tells people something.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() { "connecting timed out".to_owned() } else { "no answer in time".to_owned() };
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    match inner.downcast_ref::<std::io::Error>() {
        Some(io) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => io.to_string(),
        },
        None => inner.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::endpoints::admin::HEALTH;

    use super::*;

    #[test]
    fn addresses_are_checked() {
        for (url, reason) in [
            ("", "relative URL"),
            ("localhost:7070", "neither http nor https"),
            ("ftp://x", "neither http nor https"),
            ("http://x/?a=b", "query"),
        ] {
            let error = Client::new(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        let health = |base| Client::new(base).unwrap().url(&HEALTH.request());
        assert_eq!(health("http://farm:7070/"), "http://farm:7070/v1/health");
        assert_eq!(health("http://farm/aot"), "http://farm/aot/v1/health");
    }

    #[test]
    fn the_servers_word_is_final_and_a_gateways_is_not() {
        let body = serde_json::to_vec(&ApiError::new(aotfarm_protocol::ErrorCode::Storage, "disk full")).unwrap();
        assert!(matches!(refusal("u", StatusCode::INSUFFICIENT_STORAGE, &body), Failed::Final(ClientError::Api(_))));
        assert!(matches!(refusal("u", StatusCode::SERVICE_UNAVAILABLE, &body), Failed::Passing(why) if why == "disk full"));
        assert!(
            matches!(refusal("u", StatusCode::BAD_GATEWAY, b"<html> bad\n gateway"), Failed::Passing(why) if why == "status 502 Bad Gateway: <html> bad gateway")
        );
        assert!(matches!(refusal("u", StatusCode::NOT_FOUND, b""), Failed::Final(ClientError::Foreign { .. })));
    }
}
