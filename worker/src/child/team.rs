//! The threads that run a kernel, and the clock around them.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aotfarm_abi::kernel::{Call, Kernel};

/// How often a condition is looked at before the core is given to others: about 20 µs.
const SPINS: u32 = 4_000;
/// How often the core is given away before an idle thread sleeps: about a millisecond.
const YIELDS: u32 = 2_000;

/// A persistent team: this thread, which is number 0, and `threads - 1` more.
pub(super) struct Team {
    state: Arc<State>,
    others: Vec<JoinHandle<()>>,
}

struct State {
    threads: usize,
    /// Numbers the runs; a new number calls the others together.
    called: AtomicUsize,
    /// How many of the others have come.
    ready: AtomicUsize,
    /// The number of the run that has been released.
    released: AtomicUsize,
    /// How many of the others have finished.
    done: AtomicUsize,
    stop: AtomicBool,
    job: UnsafeCell<Job>,
    barrier: Barrier,
}

#[derive(Clone, Copy)]
struct Job {
    kernel: Option<Kernel>,
    calls: *const Call,
}

// SAFETY: `job` is written by thread 0 only while all others wait for `called` to change, and read by them only after that
// (release/acquire on `called`); everything else is atomic.
unsafe impl Sync for State {}
// SAFETY: as above; the pointers in `job` are used only during `Team::run`, while their targets are borrowed.
unsafe impl Send for State {}

#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    phase: AtomicUsize,
}

impl Team {
    /// Starts a team of `threads` (at least 1).
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let state = Arc::new(State {
            threads: threads.max(1),
            called: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(Job { kernel: None, calls: std::ptr::null() }),
            barrier: Barrier::default(),
        });
        let start = |thread: usize| {
            let state = state.clone();
            std::thread::Builder::new().name(format!("kernel-{thread}")).spawn(move || state.serve(thread))
        };
        let others = (1..state.threads).map(start).collect::<Result<_, _>>()?;
        Ok(Self { state, others })
    }

    /// What goes into `aotk_call.team`.
    pub(super) fn handle(&self) -> *mut c_void {
        Arc::as_ptr(&self.state).cast_mut().cast()
    }

    /// What goes into `aotk_call.barrier`.
    pub(super) fn barrier() -> unsafe extern "C" fn(*mut c_void, i32) {
        barrier
    }

    /// Runs `kernel` with one call per thread; returns the time from the common start to the end of the last thread.
    ///
    /// # Safety
    /// `kernel` must follow the kernel ABI, and every pointer in `calls` must be valid for it.
    pub(super) unsafe fn run(&mut self, kernel: Kernel, calls: &[Call]) -> Duration {
        let s = &*self.state;
        assert_eq!(calls.len(), s.threads, "one call for each thread");
        s.ready.store(0, Ordering::Relaxed);
        s.done.store(0, Ordering::Relaxed);
        // SAFETY: all others wait for `called`, see `State`.
        unsafe { *s.job.get() = Job { kernel: Some(kernel), calls: calls.as_ptr() } };
        let run = s.called.load(Ordering::Relaxed) + 1;
        s.called.store(run, Ordering::Release);
        for other in &self.others {
            other.thread().unpark();
        }
        wait(|| s.ready.load(Ordering::Acquire) == s.threads - 1);
        let start = Instant::now();
        s.released.store(run, Ordering::Release);
        // SAFETY: promised by the caller.
        unsafe { kernel(&raw const calls[0]) };
        wait(|| s.done.load(Ordering::Acquire) == s.threads - 1);
        start.elapsed()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        for other in self.others.drain(..) {
            other.thread().unpark();
            // A thread of ours does not panic; if it did, there is nothing to save.
            drop(other.join());
        }
    }
}

impl State {
    fn serve(&self, thread: usize) {
        let mut last = 0;
        loop {
            let mut waited = 0u32;
            while self.called.load(Ordering::Acquire) == last {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                waited += 1;
                match waited {
                    0..SPINS => std::hint::spin_loop(),
                    SPINS..YIELDS_END => std::thread::yield_now(),
                    // `unpark` before `park` makes `park` return at once, so no call is missed.
                    _ => std::thread::park(),
                }
            }
            last = self.called.load(Ordering::Acquire);
            // SAFETY: written before `called` changed, and not again until this thread has counted itself as done.
            let job = unsafe { *self.job.get() };
            self.ready.fetch_add(1, Ordering::AcqRel);
            wait(|| self.released.load(Ordering::Acquire) == last);
            if let Some(kernel) = job.kernel {
                // SAFETY: promised by the caller of `Team::run`, who holds the calls until all are done.
                unsafe { kernel(job.calls.add(thread)) };
            }
            self.done.fetch_add(1, Ordering::AcqRel);
        }
    }
}

const YIELDS_END: u32 = SPINS + YIELDS;

/// All threads of the team meet: `aotk_call.barrier`.
unsafe extern "C" fn barrier(team: *mut c_void, _thread: i32) {
    // SAFETY: kernels pass on the `team` that they were given, which is `Team::handle`.
    let state = unsafe { &*team.cast::<State>() };
    let b = &state.barrier;
    let phase = b.phase.load(Ordering::Acquire);
    if b.arrived.fetch_add(1, Ordering::AcqRel) + 1 == state.threads {
        b.arrived.store(0, Ordering::Relaxed);
        b.phase.store(phase.wrapping_add(1), Ordering::Release);
    } else {
        wait(|| b.phase.load(Ordering::Acquire) != phase);
    }
}

/// Spins, then gives the core to others between looks: with more threads than free cores, the awaited one needs it.
fn wait(ready: impl Fn() -> bool) {
    let mut waited = 0u32;
    while !ready() {
        waited = waited.saturating_add(1);
        if waited < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each thread adds its number to every slot, meets the others, and checks that all have added.
    unsafe extern "C" fn add(call: *const Call) {
        // SAFETY: the test passes a valid call whose `shared` is an array of atomics.
        let (call, slots) = unsafe { (&*call, &*(*call).shared.cast::<[AtomicUsize; 8]>()) };
        for slot in slots {
            slot.fetch_add(call.thread as usize + 1, Ordering::Relaxed);
            // SAFETY: the pair comes from the team.
            unsafe { (call.barrier)(call.team, call.thread) };
            let sum: usize = (1..=call.threads as usize).sum();
            if slot.load(Ordering::Relaxed) % sum != 0 {
                slot.fetch_add(1_000_000, Ordering::Relaxed);
            }
            // SAFETY: as above.
            unsafe { (call.barrier)(call.team, call.thread) };
        }
    }

    #[test]
    fn all_threads_run_and_meet_at_barriers() {
        for threads in [1, 2, 5] {
            let mut team = Team::new(threads).unwrap();
            let slots: [AtomicUsize; 8] = Default::default();
            let calls: Vec<Call> = (0..threads)
                .map(|thread| Call {
                    inputs: std::ptr::null(),
                    weights: std::ptr::null(),
                    packed: std::ptr::null(),
                    outputs: std::ptr::null(),
                    shared: (&raw const slots).cast_mut().cast(),
                    scratch: std::ptr::null_mut(),
                    dim: std::ptr::null(),
                    tune: std::ptr::null(),
                    thread: thread as i32,
                    threads: threads as i32,
                    team: team.handle(),
                    barrier: Team::barrier(),
                })
                .collect();
            for _ in 0..20 {
                // SAFETY: `add` uses only what the calls hold.
                unsafe { team.run(add, &calls) };
            }
            let sum: usize = (1..=threads).sum();
            assert!(slots.iter().all(|s| s.load(Ordering::Relaxed) == 20 * sum), "{threads}: {slots:?}");
        }
    }
}
