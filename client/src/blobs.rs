//! Blobs over HTTP: compressed on the way, verified on arrival, resumed after a break.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aotfarm_blob::file::{self, FileError, READ, blocking};
use aotfarm_blob::frame::{self, DecodeError};
use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use reqwest::{Body, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::error::ClientError;
use crate::http::{ANSWER_TIMEOUT, Client, Result, STALL_TIMEOUT, answer, passing, refusal};
use crate::retry::{Failed, Tries};

/// Contents below this many bytes are sent without asking first whether they are there: the question costs as much.
const ASK_FROM: usize = 16 * 1024;

/// How long a whole upload or download of one stretch may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Chunks of a compressed file that wait to be sent.
const CHUNKS_AHEAD: usize = 4;

/// Told `(bytes received, bytes in all)`, compressed, as a download goes on.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl Client {
    /// Whether the store has the blob.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn has_blob(&self, digest: Digest) -> Result<bool> {
        let url = self.url(&registry::BLOB_HEAD.request(digest));
        let mut tries = Tries::new(self.retry, &url);
        loop {
            match self.http.head(&url).timeout(ANSWER_TIMEOUT).send().await {
                Ok(r) if r.status().is_success() => return Ok(true),
                Ok(r) if r.status() == StatusCode::NOT_FOUND => return Ok(false),
                // An answer to HEAD has no body to explain it.
                Ok(r) => tries.again(refusal(&url, r.status(), b"")).await?,
                Err(e) => tries.again(passing(&e)).await?,
            }
        }
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_blob(&self, content: impl Into<Bytes>) -> Result<Digest> {
        let content = content.into();
        let digest = Digest::of(&content);
        if content.len() >= ASK_FROM && self.has_blob(digest).await? {
            return Ok(digest);
        }
        let packed =
            blocking(move || frame::encode_bytes(&content).map_err(FileError::io("compress", Path::new("a blob")))).await?;
        let packed = Bytes::from(packed);
        self.upload(digest, || Body::from(packed.clone())).await?;
        Ok(digest)
    }

    /// Stores the content of a file, which is compressed on the way and never held in memory; returns digest and size.
    ///
    /// # Errors
    /// [`ClientError`]; with [`ErrorCode::Storage`] if the file cannot be read.
    pub async fn put_blob_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let source = path.to_owned();
        let (digest, size) = {
            let source = source.clone();
            blocking(move || File::open(&source).and_then(file::hash).map_err(FileError::io(READ, &source))).await?
        };
        self.put_blob_file_as(digest, path).await?;
        Ok((digest, size))
    }

    /// [`Self::put_blob_file`] of a file whose digest is known; the server refuses one that has another content.
    ///
    /// # Errors
    /// [`ClientError`]; with [`ErrorCode::Storage`] if the file cannot be read.
    pub async fn put_blob_file_as(&self, digest: Digest, path: &Path) -> Result<()> {
        if self.has_blob(digest).await? {
            return Ok(());
        }
        let size = fs::metadata(path).map_err(FileError::io(READ, path))?.len();
        self.upload(digest, || Body::wrap_stream(compressed(path.to_owned(), size))).await
    }

    async fn upload(&self, digest: Digest, body: impl Fn() -> Body) -> Result<()> {
        let url = self.url(&registry::BLOB_PUT.request(digest));
        let mut tries = Tries::new(self.retry, &url);
        loop {
            let request = self.http.put(&url).timeout(TRANSFER_TIMEOUT).header(CONTENT_TYPE, "application/zstd").body(body());
            match answer(request).await {
                Ok(_) => return Ok(()),
                Err(failed) => tries.again(failed).await?,
            }
        }
    }

    /// The verified content of a blob, in memory.
    ///
    /// # Errors
    /// [`ClientError`]; with [`ErrorCode::Damaged`] if the server's bytes are not the content.
    pub async fn blob(&self, digest: Digest) -> Result<Bytes> {
        let limit = self.limit;
        let mut again = false;
        loop {
            let mut packed = Vec::new();
            self.download(digest, &mut packed, &|_, _| ()).await?;
            let result = tokio::task::spawn_blocking(move || {
                let size = frame::content_size(&packed[..packed.len().min(frame::HEADER_BYTES)]).unwrap_or(0);
                frame::decode_bytes(&packed[..], digest, limit, size)
            });
            match joined(result.await)? {
                Ok(content) => return Ok(content.into()),
                Err(error) => self.explain(digest, error, &mut again, None).await?,
            }
        }
    }

    /// Writes the verified content of a blob to `path`, whose folder must exist; the file is replaced in one step. What was
    /// received of it is kept beside it until all is there, so that a later call goes on where an interrupted one ended.
    /// Returns the size.
    ///
    /// # Errors
    /// [`ClientError`]; with [`ErrorCode::Damaged`] if the server's bytes are not the content, with [`ErrorCode::Storage`] if
    /// the file cannot be written, with [`ErrorCode::Conflict`] if another process is downloading to it.
    pub async fn blob_to_file(&self, digest: Digest, path: &Path, progress: Progress<'_>) -> Result<u64> {
        let limit = self.limit;
        let mut again = false;
        loop {
            let mut part = Part::open(path, digest).await?;
            let received = self.download(digest, &mut part, progress).await;
            // Also when it failed: what came belongs to the next call, which may come at once.
            part.flush().await?;
            received?;
            let target = path.to_owned();
            let (mut file, part_path) = part.into_file().await;
            let result = tokio::task::spawn_blocking(move || {
                let result = file.rewind().map_err(DecodeError::Read).and_then(|()| unpack(&file, digest, limit, &target));
                // Right or wrong, it is of no more use. `file` holds its lock until here.
                let _ = fs::remove_file(part_path);
                result
            });
            match joined(result.await)? {
                Ok(size) => return Ok(size),
                Err(error) => self.explain(digest, error, &mut again, Some(path)).await?,
            }
        }
    }

    /// Decides what to do about bytes that are not the blob: the first time, asks the server to look at its copy, and lets the
    /// caller fetch it again if that is right.
    async fn explain(&self, digest: Digest, error: DecodeError, again: &mut bool, path: Option<&Path>) -> Result<()> {
        let api = |code, message: String| Err(ClientError::Api(ApiError::new(code, message)));
        match error {
            DecodeError::Damaged(_) if !*again => {
                *again = true;
                self.call(registry::BLOB_VERIFY.request(digest)).await
            }
            DecodeError::Damaged(reason) => {
                api(ErrorCode::Damaged, format!("blob {digest} arrives damaged from {}: {reason}", self.base()))
            }
            DecodeError::TooLarge { .. } => api(ErrorCode::BadRequest, format!("blob {digest} is refused: {error}")),
            DecodeError::Read(e) => Err(FileError::io(READ, path.unwrap_or(Path::new("a blob")))(e).into()),
            DecodeError::Write(e) => Err(FileError::io("write", path.unwrap_or(Path::new("a blob")))(e).into()),
        }
    }

    /// Receives the compressed bytes that `sink` does not have yet.
    async fn download(&self, digest: Digest, sink: &mut impl Sink, progress: Progress<'_>) -> Result<()> {
        let url = self.url(&registry::BLOB.request(digest));
        let mut tries = Tries::new(self.retry, &url);
        let mut etag: Option<String> = None;
        loop {
            let had = sink.len();
            match self.stretch(&url, sink, &mut etag, progress).await {
                Ok(()) => return Ok(()),
                Err(failed) => {
                    if sink.len() > had {
                        tries.progressed();
                    }
                    tries.again(failed).await?;
                }
            }
        }
    }

    async fn stretch(
        &self,
        url: &str,
        sink: &mut impl Sink,
        etag: &mut Option<String>,
        progress: Progress<'_>,
    ) -> std::result::Result<(), Failed> {
        let mut request = self.http.get(url).timeout(TRANSFER_TIMEOUT);
        if sink.len() > 0 {
            request = request.header(RANGE, format!("bytes={}-", sink.len()));
        }
        let response = request.send().await.map_err(|e| passing(&e))?;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            // We have all of it, or more than there is.
            if total_of(&response) == Some(sink.len()) {
                return Ok(());
            }
            sink.clear().await?;
            return Err(Failed::Passing("what was kept of an earlier download is longer than the blob".into()));
        }
        if !status.is_success() {
            let body = response.bytes().await.map_err(|e| passing(&e))?;
            return Err(refusal(url, status, &body));
        }
        let tag = response.headers().get(ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let changed = etag.is_some() && *etag != tag;
        *etag = tag;
        if status != StatusCode::PARTIAL_CONTENT {
            sink.clear().await?;
        } else if changed {
            sink.clear().await?;
            return Err(Failed::Passing("the stored form of the blob changed meanwhile".into()));
        }
        let total = total_of(&response).or_else(|| response.content_length()).unwrap_or(0);
        let mut stream = response.bytes_stream();
        loop {
            match tokio::time::timeout(STALL_TIMEOUT, stream.next()).await {
                Err(_) => return Err(Failed::Passing(format!("nothing came for {} s", STALL_TIMEOUT.as_secs()))),
                Ok(None) => break,
                Ok(Some(Err(e))) => return Err(passing(&e)),
                Ok(Some(Ok(chunk))) => {
                    sink.append(&chunk).await?;
                    progress(sink.len(), total);
                }
            }
        }
        if sink.len() < total {
            return Err(Failed::Passing(format!("the connection was closed after {} of {total} bytes", sink.len())));
        }
        Ok(sink.flush().await?)
    }
}

fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(ClientError::Api(ApiError::new(ErrorCode::Internal, "the program is shutting down"))),
    }
}

/// Bytes of the whole blob, from `Content-Range: bytes 10-99/100` or `bytes */100`.
fn total_of(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
}

fn unpack(file: &File, digest: Digest, limit: u64, path: &Path) -> std::result::Result<u64, DecodeError> {
    file::write_atomically(path, |out| frame::decode(file, digest, limit, out).map_err(Unpack::Decode)).map_err(|e| match e {
        Unpack::Decode(error) => error,
        Unpack::File(error) => DecodeError::Write(error.into_source()),
    })
}

/// What can go wrong while a blob becomes a file.
enum Unpack {
    Decode(DecodeError),
    File(FileError),
}

impl From<FileError> for Unpack {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The compressed content of a file, as a thread of its own makes it.
fn compressed(path: PathBuf, size: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    struct Sender(mpsc::Sender<io::Result<Bytes>>);
    impl Write for Sender {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended");
            self.0.blocking_send(Ok(Bytes::copy_from_slice(buf))).map_err(gone)?;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (tx, rx) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let sink = io::BufWriter::with_capacity(frame::CHUNK, Sender(tx.clone()));
        if let Err(error) = File::open(&path).and_then(|file| frame::encode(file, size, sink)) {
            // If the upload has ended, there is nobody to tell.
            let _ = tx.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|chunk| (chunk, rx)) })
}

/// Where compressed bytes are gathered.
trait Sink: Send {
    fn len(&self) -> u64;
    fn append(&mut self, chunk: &Bytes) -> impl Future<Output = std::result::Result<(), FileError>> + Send;
    fn clear(&mut self) -> impl Future<Output = std::result::Result<(), FileError>> + Send;
    fn flush(&mut self) -> impl Future<Output = std::result::Result<(), FileError>> + Send;
}

impl Sink for Vec<u8> {
    fn len(&self) -> u64 {
        self.len() as u64
    }
    async fn append(&mut self, chunk: &Bytes) -> std::result::Result<(), FileError> {
        self.extend_from_slice(chunk);
        Ok(())
    }
    async fn clear(&mut self) -> std::result::Result<(), FileError> {
        Self::clear(self);
        Ok(())
    }
    async fn flush(&mut self) -> std::result::Result<(), FileError> {
        Ok(())
    }
}

/// A partial download on disk: `<file>.<digest>.part`, locked while a process works on it.
struct Part {
    file: tokio::fs::File,
    path: PathBuf,
    len: u64,
}

impl Part {
    async fn open(target: &Path, digest: Digest) -> Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", digest.short()));
        let path = target.with_file_name(name);
        let opened = {
            let path = path.clone();
            blocking(move || {
                let file =
                    File::options().create(true).read(true).append(true).open(&path).map_err(FileError::io("write", &path))?;
                let free = file.try_lock().is_ok();
                let len = file.metadata().map_err(FileError::io(READ, &path))?.len();
                Ok::<_, FileError>((file, len, free))
            })
        };
        let (file, len, free) = opened.await?;
        if !free {
            let message = format!("another process is downloading to {}", target.display());
            return Err(ClientError::Api(ApiError::new(ErrorCode::Conflict, message).hint("wait for it to finish")));
        }
        Ok(Self { file: tokio::fs::File::from_std(file), path, len })
    }

    async fn into_file(self) -> (File, PathBuf) {
        (self.file.into_std().await, self.path)
    }
}

impl Sink for Part {
    fn len(&self) -> u64 {
        self.len
    }
    async fn append(&mut self, chunk: &Bytes) -> std::result::Result<(), FileError> {
        self.file.write_all(chunk).await.map_err(FileError::io("write", &self.path))?;
        self.len += chunk.len() as u64;
        Ok(())
    }
    async fn clear(&mut self) -> std::result::Result<(), FileError> {
        self.file.flush().await.map_err(FileError::io("write", &self.path))?;
        self.file.set_len(0).await.map_err(FileError::io("write", &self.path))?;
        self.len = 0;
        Ok(())
    }
    async fn flush(&mut self) -> std::result::Result<(), FileError> {
        self.file.flush().await.map_err(FileError::io("write", &self.path))
    }
}
