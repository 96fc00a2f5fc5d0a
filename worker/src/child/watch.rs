//! What the child leaves behind when it dies: which candidate it was running, and whether its time was up.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::messages::{AT_CANDIDATE, AT_NOTHING, AT_REFERENCE};

/// The shared word and the alarm. A word in shared memory and a timer of the kernel cost a run nothing, while a message to
/// the worker would wake it on a core that is being measured.
pub(super) struct Watch {
    word: memmap2::MmapMut,
}

/// Ends the watch when dropped.
pub(super) struct Watched<'a>(&'a Watch);

impl Watch {
    /// Maps the shared word.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() < 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the progress file is too short"));
        }
        // SAFETY: the worker made the file for this child alone and does not shorten it.
        let word = unsafe { memmap2::MmapMut::map_mut(&file)? };
        Ok(Self { word })
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, at least 8 bytes long, and accessed by this process only through this atomic.
        unsafe { AtomicU64::from_ptr(self.word.as_ptr().cast_mut().cast()) }
    }

    /// Candidate `i`, or the reference, is run from here on, for at most `limit`: then the process dies by `SIGALRM`.
    pub(super) fn begin(&self, i: Option<usize>, limit: Duration) -> Watched<'_> {
        self.word().store(i.map_or(AT_REFERENCE, |i| AT_CANDIDATE + i as u64), Ordering::Release);
        set_alarm(limit.max(Duration::from_millis(1)));
        Watched(self)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        set_alarm(Duration::ZERO);
        self.0.word().store(AT_NOTHING, Ordering::Release);
    }
}

/// Sets the alarm, or with zero clears it. The signal's default action ends the process.
fn set_alarm(after: Duration) {
    let value = libc::timeval { tv_sec: after.as_secs() as libc::time_t, tv_usec: after.subsec_micros() as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: a plain system call on a local value.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}
