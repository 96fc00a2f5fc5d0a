//! Blobs as zstd frames.

use std::io::SeekFrom;

use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use aotfarm_store::{Frames, Source, Stored};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::error::Failure;
use super::routes::{At, Routes};
use super::state::Registry;

/// Bytes read from disk at a time.
const CHUNK: usize = 128 * 1024;

/// How much of an upload that is too large is still read, so that its sender gets to the answer instead of a reset connection.
const LINGER: usize = 16 << 20;

/// Header with the bytes of the content, uncompressed.
const SIZE_HEADER: &str = "aotfarm-content-size";

pub(super) fn routes(routes: Routes<Registry>) -> Routes<Registry> {
    routes
        .raw(&registry::BLOB_HEAD, head)
        .raw(&registry::BLOB, get)
        .raw(&registry::BLOB_PUT, put)
        .on(&registry::BLOB_VERIFY, verify)
}

/// Identifies the stored frames, not only their content: the same content can be compressed to other bytes.
fn etag(digest: Digest, length: u64) -> String {
    format!("\"{}-{length}\"", digest.hex())
}

async fn head(State(registry): State<Registry>, At(digest): At<Digest>) -> Result<Response, Failure> {
    let blobs = registry.blobs();
    // Marks it as used: whoever asks will not upload it.
    blobs.contains(digest).await?;
    let size = blobs.size(digest).await?;
    let length = blobs.open_stored(digest).await?.length;
    Ok(with_headers(digest, length, Some(size), StatusCode::OK, length, None, Body::empty()))
}

async fn get(State(registry): State<Registry>, At(digest): At<Digest>, headers: HeaderMap) -> Result<Response, Failure> {
    let Stored { length, mut source } = registry.blobs().open_stored(digest).await?;
    let (start, end) = match requested_range(&headers, &etag(digest, length), length) {
        Requested::All => return Ok(whole(digest, length, source)),
        Requested::Range(start, end) => (start, end),
        Requested::Unsatisfiable => {
            let error = ApiError::new(ErrorCode::BadRequest, format!("the range is outside the {length} bytes of blob {digest}"));
            let mut response = Failure { error, status: Some(StatusCode::RANGE_NOT_SATISFIABLE) }.into_response();
            if let Ok(value) = format!("bytes */{length}").parse() {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            return Ok(response);
        }
    };
    source
        .seek(SeekFrom::Start(start))
        .await
        .map_err(|e| ApiError::new(ErrorCode::Storage, format!("failed to read blob {digest}: {e}")))?;
    let stream = ReaderStream::with_capacity(source.take(end - start + 1), CHUNK);
    let range = format!("bytes {start}-{end}/{length}");
    Ok(with_headers(digest, length, None, StatusCode::PARTIAL_CONTENT, end - start + 1, Some(range), Body::from_stream(stream)))
}

fn whole(digest: Digest, length: u64, source: Box<dyn Source>) -> Response {
    let stream = ReaderStream::with_capacity(source, CHUNK);
    with_headers(digest, length, None, StatusCode::OK, length, None, Body::from_stream(stream))
}

fn with_headers(
    digest: Digest,
    stored: u64,
    content: Option<u64>,
    status: StatusCode,
    length: u64,
    range: Option<String>,
    body: Body,
) -> Response {
    let mut builder = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/zstd")
        .header(CONTENT_LENGTH, length)
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, etag(digest, stored));
    if let Some(size) = content {
        builder = builder.header(SIZE_HEADER, size);
    }
    if let Some(range) = range {
        builder = builder.header(CONTENT_RANGE, range);
    }
    builder.body(body).expect("the headers are made of digits and hex")
}

async fn put(
    State(registry): State<Registry>,
    At(digest): At<Digest>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let limit = registry.upload_limit;
    let too_large = move || Failure {
        error: ApiError::new(
            ErrorCode::BadRequest,
            format!("the upload of blob {digest} is larger than the {limit} bytes allowed"),
        )
        .hint("raise the coordinator's upload limit"),
        status: Some(StatusCode::PAYLOAD_TOO_LARGE),
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let (frames, rest) = shared(body, limit);
    if announced.is_some_and(|n| n > limit) {
        rest.drain().await;
        return Err(too_large());
    }
    let stored = registry.blobs().put_compressed(digest, frames).await;
    // A client that is still sending would not read the answer: take the rest of what it sends.
    let within_limit = rest.drain().await;
    match stored {
        Ok(()) => Ok((StatusCode::CREATED, axum::Json(())).into_response()),
        Err(_) if !within_limit => Err(too_large()),
        Err(error) => Err(error.into()),
    }
}

/// A request body that can be taken up again where a reader left it.
struct Rest {
    body: std::sync::Arc<tokio::sync::Mutex<Limited>>,
}

struct Limited {
    stream: axum::body::BodyDataStream,
    left: u64,
    over: bool,
}

impl Limited {
    fn count(&mut self, bytes: usize) {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => self.left = left,
            None => self.over = true,
        }
    }

    async fn next(&mut self) -> Option<Result<bytes::Bytes, axum::BoxError>> {
        let chunk = match self.stream.next().await? {
            Ok(chunk) => chunk,
            Err(e) => return Some(Err(e.into())),
        };
        self.count(chunk.len());
        if self.over {
            return Some(Err("the upload is larger than allowed".into()));
        }
        Some(Ok(chunk))
    }
}

fn shared(body: Body, limit: u64) -> (Frames, Rest) {
    let body =
        std::sync::Arc::new(tokio::sync::Mutex::new(Limited { stream: body.into_data_stream(), left: limit, over: false }));
    let rest = Rest { body: std::sync::Arc::clone(&body) };
    let frames = futures_util::stream::unfold(body, |body| async move {
        let chunk = body.lock().await.next().await?;
        Some((chunk, body))
    });
    (Box::pin(frames), rest)
}

impl Rest {
    /// Reads to the end, or to the first error, or to [`LINGER`] bytes past the limit; returns whether the limit was kept.
    async fn drain(self) -> bool {
        let mut body = self.body.lock().await;
        let mut linger = LINGER;
        while let Some(Ok(chunk)) = body.stream.next().await {
            body.count(chunk.len());
            if body.over {
                linger = linger.saturating_sub(chunk.len());
                if linger == 0 {
                    break;
                }
            }
        }
        !body.over
    }
}

/// A damaged blob is moved aside.
async fn verify(registry: Registry, digest: Digest) -> Result<(), Failure> {
    registry.blobs().verify(digest).await?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    All,
    /// First and last byte.
    Range(u64, u64),
    Unsatisfiable,
}

/// RFC 9110 §14: one range of bytes; anything else is answered with the whole.
fn requested_range(headers: &HeaderMap, etag: &str, length: u64) -> Requested {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(range) = text(RANGE).and_then(|r| r.strip_prefix("bytes=")) else { return Requested::All };
    if text(IF_RANGE).is_some_and(|tag| tag != etag) {
        return Requested::All;
    }
    let Some((first, last)) = range.split_once('-') else { return Requested::All };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(start), "") => (start, length.saturating_sub(1)),
        (Ok(start), last) => match last.parse::<u64>() {
            Ok(end) if end >= start => (start, end.min(length.saturating_sub(1))),
            _ => return Requested::All,
        },
        // The last N bytes.
        (Err(_), last) => match last.parse::<u64>() {
            Ok(n) if first.trim().is_empty() && n > 0 => (length.saturating_sub(n), length.saturating_sub(1)),
            _ => return Requested::All,
        },
    };
    if start >= length { Requested::Unsatisfiable } else { Requested::Range(start, end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let ask = |range: &str, if_range: Option<&str>, length| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            if let Some(tag) = if_range {
                headers.insert(IF_RANGE, tag.parse().unwrap());
            }
            requested_range(&headers, "\"tag\"", length)
        };
        assert_eq!(ask("bytes=0-", None, 10), Requested::Range(0, 9));
        assert_eq!(ask("bytes=3-5", None, 10), Requested::Range(3, 5));
        assert_eq!(ask("bytes=3-500", None, 10), Requested::Range(3, 9));
        assert_eq!(ask("bytes=-4", None, 10), Requested::Range(6, 9));
        assert_eq!(ask("bytes=-40", None, 10), Requested::Range(0, 9));
        assert_eq!(ask("bytes=10-", None, 10), Requested::Unsatisfiable);
        assert_eq!(ask("bytes=0-", None, 0), Requested::Unsatisfiable);
        assert_eq!(ask("bytes=3-", Some("\"tag\""), 10), Requested::Range(3, 9));
        assert_eq!(ask("bytes=3-", Some("\"other\""), 10), Requested::All);
        for odd in [
            "bytes=5-3",
            "bytes=",
            "bytes=-",
            "bytes=-0",
            "bytes=a-b",
            "bytes=0-1,4-5",
            "items=0-1",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(ask(odd, None, 10), Requested::All, "{odd}");
        }
    }
}
