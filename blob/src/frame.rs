//! Content to zstd frames and back, hashed on the way.
//!
//! Every frame declares its content size, so a reader knows what it will inflate to before it
//! inflates anything.

use std::io::{self, Read, Write};

use aotfarm_protocol::Digest;
use sha2::{Digest as _, Sha256};

/// Weights hardly compress at any level; kernels' sources do at the first.
const LEVEL: i32 = 1;

/// Buffers of both directions, in bytes.
pub const CHUNK: usize = 128 * 1024;

/// A zstd frame header is at most this long, in bytes
/// (RFC 8878 §3.1.1.1: magic 4, descriptor 1, window 1, dictionary 4, size 8).
pub const HEADER_BYTES: usize = 18;

/// Memory set aside before any byte was seen: a header can lie.
const TRUSTED_BYTES: u64 = 64 << 20;

/// Why compressed bytes were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The source failed.
    #[error("failed to read: {0}")]
    Read(#[source] io::Error),
    /// The sink failed.
    #[error("failed to write: {0}")]
    Write(#[source] io::Error),
    /// What was read is not the content.
    #[error("{0}")]
    Damaged(String),
    /// It would inflate past the limit.
    #[error("it declares {declared} bytes uncompressed, more than the limit of {limit}")]
    TooLarge {
        /// Bytes that the header declares.
        declared: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// The content size that a frame header declares; `None` if it is no header or declares none.
pub fn content_size(header: &[u8]) -> Option<u64> {
    zstd::zstd_safe::get_frame_content_size(header).ok().flatten()
}

/// Compresses exactly `size` bytes of `source` into one frame; returns the digest of the
/// uncompressed bytes.
///
/// # Errors
/// Those of source and sink, and `UnexpectedEof` or `InvalidData` if the source has fewer or more
/// bytes (a file that changes while it is read).
pub fn encode(mut source: impl Read, size: u64, sink: impl Write) -> io::Result<Digest> {
    let mut encoder = zstd::stream::write::Encoder::new(sink, LEVEL)?;
    encoder.set_pledged_src_size(Some(size))?;
    encoder.include_contentsize(true)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    loop {
        let n = retry_interrupted(|| source.read(&mut chunk))?;
        if n == 0 {
            break;
        }
        left = left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("it grew past {size} bytes while being read")))?;
        hasher.update(&chunk[..n]);
        encoder.write_all(&chunk[..n])?;
    }
    if left > 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("it shrank by {left} bytes while being read")));
    }
    encoder.finish()?.flush()?;
    Ok(Digest::from_sha256(hasher.finalize().into()))
}

/// [`encode`] in memory.
///
/// # Errors
/// Those of the compressor.
pub fn encode_bytes(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(zstd::compress_bound(bytes.len()));
    encode(bytes, bytes.len() as u64, &mut out)?;
    Ok(out)
}

/// Inflates `source` into `sink` while checking that the content has the declared size and the
/// digest `expected`; returns the size in bytes. What was written before an error must be thrown
/// away.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(source: impl Read, expected: Digest, limit: u64, sink: &mut impl Write) -> Result<u64, DecodeError> {
    let mut source = Recorded { inner: source, error: None };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    source.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(DecodeError::Read)?;
    let declared = content_size(&header)
        .ok_or_else(|| DecodeError::Damaged("it does not start with a zstd frame that declares its size".into()))?;
    if declared > limit {
        return Err(DecodeError::TooLarge { declared, limit });
    }
    let mut hasher = Sha256::new();
    let mut total = 0;
    let result = inflate(header.chain(&mut source), &mut |chunk: &[u8]| {
        total += chunk.len() as u64;
        if total > declared {
            return Err(DecodeError::Damaged(format!("it inflates past the {declared} bytes that it declares")));
        }
        hasher.update(chunk);
        sink.write_all(chunk).map_err(DecodeError::Write)
    });
    if let Some(error) = source.error {
        return Err(DecodeError::Read(error));
    }
    result?;
    if total != declared {
        return Err(DecodeError::Damaged(format!("it ends after {total} of {declared} bytes")));
    }
    let actual = Digest::from_sha256(hasher.finalize().into());
    if actual != expected {
        return Err(DecodeError::Damaged(format!("its content has the digest {actual}")));
    }
    Ok(total)
}

/// [`decode`] into memory. `hint` is the size in bytes that the header is said to declare.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_bytes(source: impl Read, expected: Digest, limit: u64, hint: u64) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(usize::try_from(hint.min(limit).min(TRUSTED_BYTES)).unwrap_or(0));
    decode(source, expected, limit, &mut out)?;
    Ok(out)
}

fn inflate(source: impl Read, each: &mut dyn FnMut(&[u8]) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
    // The decoder reports its own errors and those of the source alike; `Recorded` tells them
    // apart.
    let damaged = |e: io::Error| DecodeError::Damaged(format!("zstd cannot read it: {e}"));
    let mut decoder = zstd::stream::read::Decoder::new(source).map_err(damaged)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match retry_interrupted(|| decoder.read(&mut chunk)).map_err(damaged)? {
            0 => return Ok(()),
            n => each(&chunk[..n])?,
        }
    }
}

/// Keeps the error of the source, which a decoder would pass on as if it were its own.
struct Recorded<R> {
    inner: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| self.inner.read(buf)).map_err(|e| {
            let twin = e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error);
            self.error = Some(e);
            twin
        })
    }
}

/// Reads again after a signal interrupted the system call.
///
/// # Errors
/// All others of `read`.
pub fn retry_interrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(bytes: &[u8], expected: Digest, limit: u64, reason: &str) {
        let mut sink = Vec::new();
        let error = decode(bytes, expected, limit, &mut sink).unwrap_err();
        assert!(error.to_string().contains(reason), "expected `{reason}` in `{error}`");
        assert!(sink.len() as u64 <= limit, "inflated {} bytes past the limit {limit}", sink.len());
    }

    #[test]
    fn contents_round_trip() {
        let long: Vec<u8> = (0..3 * CHUNK as u32 + 7).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for content in [&b""[..], b"x", b"hello hello hello hello", &long] {
            let packed = encode_bytes(content).unwrap();
            assert_eq!(content_size(&packed), Some(content.len() as u64));
            let unpacked = decode_bytes(&packed[..], Digest::of(content), content.len() as u64, 0).unwrap();
            assert_eq!(unpacked, content);
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_noticed() {
        let content = b"the quick brown fox jumps over the lazy dog, again and again and again";
        let digest = Digest::of(content);
        let packed = encode_bytes(content).unwrap();
        for n in 0..packed.len() {
            assert!(decode_bytes(&packed[..n], digest, 1000, 0).is_err(), "accepted {n} of {} bytes", packed.len());
            let mut flipped = packed.clone();
            flipped[n] ^= 0x41;
            // Some header bits (unused ones, the window) do not change the content; then it must be
            // the right content.
            if let Ok(got) = decode_bytes(&flipped[..], digest, 1000, 0) {
                assert_eq!(got, content, "byte {n}");
            }
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 1 << 20];
        let digest = Digest::of(&zeros);
        let honest = encode_bytes(&zeros).unwrap();
        check_refused(&honest, digest, 1000, "declares 1048576 bytes uncompressed, more than the limit of 1000");
        // A frame without a declared size.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(&zeros).unwrap();
        check_refused(&encoder.finish().unwrap(), digest, 1000, "declares its size");
        // A small first frame, then a large second one.
        let mut two = encode_bytes(b"small").unwrap();
        two.extend_from_slice(&honest);
        check_refused(&two, digest, 1000, "inflates past the 5 bytes");
    }

    #[test]
    fn rubbish_wrong_content_and_trailing_bytes_are_refused() {
        check_refused(b"", Digest::of(b""), 1000, "does not start with a zstd frame");
        check_refused(b"not zstd at all, really not", Digest::of(b""), 1000, "does not start with a zstd frame");
        let packed = encode_bytes(b"abc").unwrap();
        check_refused(&packed, Digest::of(b"abd"), 1000, "its content has the digest sha256:ba7816bf");
        let mut trailing = packed;
        trailing.extend_from_slice(b"trailing");
        check_refused(&trailing, Digest::of(b"abc"), 1000, "zstd cannot read it");
    }

    #[test]
    fn a_source_that_changes_size_is_refused() {
        assert_eq!(encode(&b"abc"[..], 4, Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(encode(&b"abc"[..], 2, Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_error_of_the_source_is_not_called_damage() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer"))
            }
        }
        let packed = encode_bytes(&[7; 100_000]).unwrap();
        let source = packed[..HEADER_BYTES + 1].chain(Failing);
        match decode(source, Digest::of([7; 100_000]), u64::MAX, &mut Vec::new()) {
            Err(DecodeError::Read(e)) => assert_eq!(e.kind(), io::ErrorKind::ConnectionReset),
            other => panic!("{other:?}"),
        }
    }
}
