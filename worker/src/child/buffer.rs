//! Memory that notices when a kernel writes beside it.

use std::io;

use aotfarm_abi::link::HUGE_PAGE;

use super::measuring::CANARY;

/// Alignment of every kernel buffer, and how far past its end a kernel may read.
const SLACK: usize = 64;

/// A 64-byte aligned, zeroed buffer with canaries on both sides and an unmapped page after the readable slack, so that
/// an overrun is either seen afterwards or a fault at once.
#[derive(Debug)]
pub(super) struct Buffer {
    map: *mut u8,
    map_len: usize,
    data: *mut u8,
    len: usize,
}

// SAFETY: the mapping is owned by the value, and shared access is read-only.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` bytes. Fails when the address space or memory limit is reached.
    pub(super) fn new(len: u64) -> io::Result<Self> {
        let page = page_size();
        let too_big = || io::Error::new(io::ErrorKind::OutOfMemory, format!("{len} bytes are too many"));
        let len = usize::try_from(len).ok().filter(|l| *l <= 1 << 46).ok_or_else(too_big)?;
        // [guard page][canary][data][slack with canary, up to 2 * SLACK - 1 bytes][guard page]
        let body = (SLACK + len.next_multiple_of(SLACK) + SLACK).next_multiple_of(page);
        let map_len = body + 2 * page;
        // SAFETY: an anonymous private mapping at an address of the system's choice touches nothing else.
        let map =
            unsafe { libc::mmap(std::ptr::null_mut(), map_len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = map.cast::<u8>();
        // SAFETY: the offsets lie within the mapping.
        let data = unsafe { map.add(page + body - SLACK - len.next_multiple_of(SLACK)) };
        let mut buffer = Self { map, map_len, data, len };
        // SAFETY: the range is the inner part of our own mapping.
        if unsafe { libc::mprotect(map.add(page).cast(), body, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if body as u64 >= HUGE_PAGE {
            // As artifacts do with theirs; with small pages, faults would cost more than the runs. Only faster, never required.
            // SAFETY: as above.
            unsafe { libc::madvise(map.add(page).cast(), body, libc::MADV_HUGEPAGE) };
        }
        buffer.restore();
        Ok(buffer)
    }

    /// The first byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.data
    }

    /// The content.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `data` is valid for `len` bytes as long as `self`; kernels run only while no such borrow lives.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// The content.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }

    /// Where something was written beside the buffer, if so.
    pub(super) fn damage(&self) -> Option<&'static str> {
        let (before, after) = self.borders();
        if before.iter().any(|b| *b != CANARY) {
            Some("before its start")
        } else if after.iter().any(|b| *b != CANARY) {
            Some("past its end")
        } else {
            None
        }
    }

    /// Writes the canaries anew.
    pub(super) fn restore(&mut self) {
        let (before, after) = self.borders();
        let ranges = [(before.as_ptr(), before.len()), (after.as_ptr(), after.len())];
        for (start, len) in ranges {
            // SAFETY: both ranges lie in our own writable mapping beside the data; the borrows above have ended.
            unsafe { start.cast_mut().write_bytes(CANARY, len) };
        }
    }

    fn borders(&self) -> (&[u8], &[u8]) {
        let page = page_size();
        let (start, end) = (self.map as usize + page, self.map as usize + self.map_len - page);
        let data = self.data as usize;
        // SAFETY: both ranges lie in the readable part of the mapping.
        unsafe {
            (
                std::slice::from_raw_parts(self.map.add(page), data - start),
                std::slice::from_raw_parts(self.data.add(self.len), end - data - self.len),
            )
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}

/// Bytes of a page.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_notice_writes_beside_them() {
        for len in [0u64, 1, 63, 64, 65, 4096, 5000] {
            let mut buffer = Buffer::new(len).unwrap();
            assert_eq!(buffer.as_ptr() as usize % SLACK, 0);
            assert!(buffer.bytes().len() as u64 == len && buffer.bytes().iter().all(|b| *b == 0));
            buffer.bytes_mut().fill(7);
            assert_eq!(buffer.damage(), None);
            // SAFETY: the slack of SLACK bytes after the data and before it is part of the mapping.
            unsafe { buffer.as_ptr().add(len as usize + SLACK - 1).write(1) };
            assert_eq!(buffer.damage(), Some("past its end"));
            buffer.restore();
            // SAFETY: as above.
            unsafe { buffer.as_ptr().sub(1).write(1) };
            assert_eq!(buffer.damage(), Some("before its start"));
        }
        assert!(Buffer::new(u64::MAX).is_err() && Buffer::new(1 << 45).is_err());
    }
}
