//! The files of a blob store, with blocking calls.
//!
//! A blob is `<root>/blobs/sha256/ab/<hex>.zst`. It comes to be by writing
//! `<root>/blobs/tmp/<random>`, syncing it, renaming it and syncing the folder, so its path never
//! holds half of it, and it is never changed afterwards.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aotfarm_blob::file::{READ, hash, persist, sync_dir, temp_in, write_atomically};
use aotfarm_blob::frame::{self, DecodeError};
use aotfarm_protocol::Digest;
use tempfile::NamedTempFile;

use crate::blobs::BlobError;

type Result<T> = std::result::Result<T, BlobError>;

/// A blob that was used this recently is not marked as used again, to spare the disk.
const MARK_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A folder of blobs.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Most bytes that a blob may have uncompressed.
    limit: u64,
}

impl Disk {
    pub(super) fn open(root: PathBuf, limit: u64) -> Result<Self> {
        let disk = Self { root, limit };
        for dir in [disk.tmp_dir(), disk.blobs_dir()] {
            fs::create_dir_all(&dir).map_err(BlobError::io("create", &dir))?;
        }
        Ok(disk)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("blobs/tmp")
    }

    fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs_dir().join(&hex[..2]).join(format!("{hex}.zst"))
    }

    fn missing(&self, digest: Digest) -> BlobError {
        BlobError::Missing { digest, store: self.root.display().to_string() }
    }

    /// Stores `content`, whose digest is `digest`.
    pub(super) fn put(&self, digest: Digest, content: &[u8]) -> Result<()> {
        self.check_size(digest, content.len() as u64)?;
        if self.contains(digest)? {
            return Ok(());
        }
        let mut temp = self.temp()?;
        let path = temp.path().to_owned();
        frame::encode(content, content.len() as u64, temp.as_file_mut()).map_err(BlobError::io("write", &path))?;
        self.commit(temp, digest)
    }

    /// Stores the content of the file at `source`. A file that is stored already is read only once.
    pub(super) fn put_file(&self, source: &Path) -> Result<(Digest, u64)> {
        let open = || File::open(source).map_err(BlobError::io(READ, source));
        let (digest, size) = hash(open()?).map_err(BlobError::io(READ, source))?;
        self.check_size(digest, size)?;
        if self.contains(digest)? {
            return Ok((digest, size));
        }
        let mut temp = self.temp()?;
        let path = temp.path().to_owned();
        let mut failed_read = None;
        let reader = ReadErrors { inner: open()?, error: &mut failed_read };
        let written = frame::encode(reader, size, temp.as_file_mut());
        if let Some(error) = failed_read {
            return Err(BlobError::io(READ, source)(error));
        }
        let written = written.map_err(BlobError::io("write", &path))?;
        if written != digest {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it changed while being read");
            return Err(BlobError::io(READ, source)(error));
        }
        self.commit(temp, digest)?;
        Ok((digest, size))
    }

    /// Stores the zstd frames that `source` gives, if their content is `digest`; else nothing is
    /// left behind.
    pub(super) fn put_compressed(&self, digest: Digest, source: impl Read) -> Result<()> {
        let mut temp = self.temp()?;
        let path = temp.path().to_owned();
        let mut write_error = None;
        let tee = Tee { source, copy: temp.as_file_mut(), error: &mut write_error };
        let result = frame::decode(tee, digest, self.limit, &mut io::sink());
        if let Some(error) = write_error {
            return Err(BlobError::io("write", &path)(error));
        }
        match result {
            Ok(_) => self.commit(temp, digest),
            Err(DecodeError::Read(source)) => Err(BlobError::BrokeOff { digest, source }),
            Err(DecodeError::Write(source)) => Err(BlobError::io("write", &path)(source)),
            Err(DecodeError::TooLarge { .. }) => Err(self.too_large(digest, &result)),
            Err(DecodeError::Damaged(reason)) => Err(BlobError::Refused { digest, reason }),
        }
    }

    fn check_size(&self, digest: Digest, size: u64) -> Result<()> {
        if size > self.limit {
            return Err(self.too_large(digest, &Err(DecodeError::TooLarge { declared: size, limit: self.limit })));
        }
        Ok(())
    }

    fn too_large(&self, digest: Digest, result: &std::result::Result<u64, DecodeError>) -> BlobError {
        let reason = result.as_ref().err().map_or_else(String::new, ToString::to_string);
        BlobError::TooLarge { digest, reason }
    }

    fn temp(&self) -> Result<NamedTempFile> {
        Ok(temp_in(&self.tmp_dir())?)
    }

    fn commit(&self, temp: NamedTempFile, digest: Digest) -> Result<()> {
        let path = self.path(digest);
        let dir = path.parent().expect("a blob's path has a folder");
        if !dir.is_dir() {
            fs::create_dir_all(dir).map_err(BlobError::io("create", dir))?;
            sync_dir(&self.blobs_dir())?;
        }
        Ok(persist(temp, &path)?)
    }

    /// Whether the blob is here; marks it as used, so that a sweep for unreferenced blobs keeps it
    /// a while longer.
    pub(super) fn contains(&self, digest: Digest) -> Result<bool> {
        let path = self.path(digest);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(BlobError::io(READ, &path)(e)),
        };
        if metadata.modified().is_ok_and(|at| age(at) > MARK_AGAIN_AFTER) {
            // On a read-only disk nothing is swept either.
            let _ = File::options().append(true).open(&path).and_then(|f| f.set_times(FileTimes::new().set_modified(now())));
        }
        Ok(true)
    }

    /// The stored file and its length.
    pub(super) fn open_stored(&self, digest: Digest) -> Result<(File, u64)> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.missing(digest),
            _ => BlobError::io(READ, &path)(e),
        })?;
        let length = file.metadata().map_err(BlobError::io(READ, &path))?.len();
        Ok((file, length))
    }

    /// Bytes of the content, from the frame header.
    pub(super) fn size(&self, digest: Digest) -> Result<u64> {
        let (file, _) = self.open_stored(digest)?;
        let mut header = Vec::with_capacity(frame::HEADER_BYTES);
        file.take(frame::HEADER_BYTES as u64).read_to_end(&mut header).map_err(BlobError::io(READ, &self.path(digest)))?;
        frame::content_size(&header).ok_or_else(|| self.damaged(digest, "its header declares no size".into()))
    }

    /// The content.
    pub(super) fn get(&self, digest: Digest) -> Result<Vec<u8>> {
        let size = self.size(digest)?;
        let (file, _) = self.open_stored(digest)?;
        frame::decode_bytes(file, digest, self.limit, size).map_err(|e| self.failed_get(digest, e, None))
    }

    /// Checks the content.
    pub(super) fn verify(&self, digest: Digest) -> Result<u64> {
        let (file, _) = self.open_stored(digest)?;
        frame::decode(file, digest, self.limit, &mut io::sink()).map_err(|e| self.failed_get(digest, e, None))
    }

    /// Writes the content to `path`, which is replaced in one step.
    pub(super) fn get_to_file(&self, digest: Digest, path: &Path) -> Result<u64> {
        let (file, _) = self.open_stored(digest)?;
        write_atomically(path, |out| {
            frame::decode(file, digest, self.limit, out).map_err(|e| self.failed_get(digest, e, Some(path)))
        })
    }

    /// The content in a file without a name, at its start.
    pub(super) fn unpack(&self, digest: Digest) -> Result<File> {
        let (stored, _) = self.open_stored(digest)?;
        let mut file = self.temp()?.into_file();
        frame::decode(stored, digest, self.limit, &mut file).map_err(|e| self.failed_get(digest, e, None))?;
        file.rewind().map_err(BlobError::io(READ, &self.tmp_dir()))?;
        Ok(file)
    }

    fn failed_get(&self, digest: Digest, error: DecodeError, target: Option<&Path>) -> BlobError {
        match error {
            DecodeError::Read(e) => BlobError::io(READ, &self.path(digest))(e),
            DecodeError::Write(e) => BlobError::io("write", target.unwrap_or(&self.root))(e),
            DecodeError::TooLarge { .. } => self.too_large(digest, &Err(error)),
            DecodeError::Damaged(reason) => self.damaged(digest, reason),
        }
    }

    /// Moves the blob's file aside.
    fn damaged(&self, digest: Digest, reason: String) -> BlobError {
        let path = self.path(digest);
        let to = path.with_extension("zst.damaged");
        let moved = fs::rename(&path, &to).is_ok().then(|| to.display().to_string());
        BlobError::Damaged { place: path.display().to_string(), reason, moved }
    }

    /// Every blob and its stored bytes, in the order of digests.
    pub(super) fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let mut all = Vec::new();
        for (path, metadata) in self.files()? {
            if let Some(digest) = digest_of(&path) {
                all.push((digest, metadata.len()));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Removes what is not in `keep` and was not used for `min_age`; returns how many files and
    /// bytes.
    pub(super) fn sweep(&self, keep: &HashSet<Digest>, min_age: Duration) -> Result<(u64, u64)> {
        let mut removed = (0, 0);
        let mut files = self.files()?;
        files.extend(entries(&self.tmp_dir())?);
        for (path, metadata) in files {
            let old = metadata.modified().is_ok_and(|at| age(at) >= min_age);
            if !old || digest_of(&path).is_some_and(|d| keep.contains(&d)) {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => removed = (removed.0 + 1, removed.1 + metadata.len()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(BlobError::io("remove", &path)(e)),
            }
        }
        Ok(removed)
    }

    fn files(&self) -> Result<Vec<(PathBuf, fs::Metadata)>> {
        let mut all = Vec::new();
        for (dir, metadata) in entries(&self.blobs_dir())? {
            if metadata.is_dir() {
                all.extend(entries(&dir)?);
            }
        }
        Ok(all)
    }
}

/// The digest that a file of the store is named after; `None` for damaged and temporary ones.
fn digest_of(path: &Path) -> Option<Digest> {
    let hex = path.file_name()?.to_str()?.strip_suffix(".zst")?;
    format!("sha256:{hex}").parse().ok()
}

fn entries(dir: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(BlobError::io(READ, dir))? {
        let entry = entry.map_err(BlobError::io(READ, dir))?;
        // What another process removes meanwhile is not there.
        if let Ok(metadata) = entry.metadata() {
            all.push((entry.path(), metadata));
        }
    }
    Ok(all)
}

fn age(at: SystemTime) -> Duration {
    now().duration_since(at).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "files are aged by the clock that stamps them")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Keeps the error of a source apart from those of the sink.
struct ReadErrors<'a, R> {
    inner: R,
    error: &'a mut Option<io::Error>,
}

impl<R: Read> Read for ReadErrors<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        keep_error(frame::retry_interrupted(|| self.inner.read(buf)), self.error)
    }
}

/// Copies what is read from `source` to `copy`.
struct Tee<'a, R> {
    source: R,
    copy: &'a mut File,
    error: &'a mut Option<io::Error>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = frame::retry_interrupted(|| self.source.read(buf))?;
        keep_error(self.copy.write_all(&buf[..n]), self.error)?;
        Ok(n)
    }
}

fn keep_error<T>(result: io::Result<T>, slot: &mut Option<io::Error>) -> io::Result<T> {
    result.map_err(|e| {
        let kind = e.kind();
        *slot = Some(e);
        kind.into()
    })
}
