//! The state of a job on a GPU: operands and their copies on the device, the reference's outputs, loaded candidates.
//!
//! ```text
//! [ set 0 | set 1 | … | outputs of the reference | workspace | results ]      a set: every operand between canaries
//! ```
//!
//! A candidate is checked in set 0. What its run should not have touched is looked at on the device as well, and all findings come
//! back as a few words: checking 100 MB costs a fraction of a millisecond.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aotfarm_protocol::{KernelCall, OperandRole, VendorCall};

use super::driver::{Error, Function, Gpu, Graph, Memory, Module, Region};
use super::launch::Shape;
use super::nvml::Nvml;
use super::tools::{Grid, SEEN_WORDS, Tools};
use super::vendor::{Libraries, Operands, Plan};
use crate::child::measuring::{CANARY, Measuring, REFERENCE_LIMIT, STALE};
use crate::child::messages::{Event, MeasureJob};
use crate::child::operand::{self, Seen};
use crate::child::watch::Watch;

/// Alignment of every buffer, and bytes of canary on each side.
const BORDER: u64 = 256;
/// Copies of the operands at most.
const MAX_COPIES: u64 = 256;
/// Bytes of copies that no last-level cache holds: more make no difference.
const COLD: u64 = 256 << 20;
/// The share of the free memory that a job may take.
const MEMORY_SHARE: f64 = 0.9;
/// A sample lasts at least about so long, in seconds: what begins and ends a graph costs 2 µs.
const SAMPLE: f64 = 200e-6;
/// Launches of a sample go through all copies of the operands, if that takes no longer than this.
const LONG_SAMPLE: f64 = 2e-3;
/// Launches of a sample at most.
const MAX_LAUNCHES: u64 = 512;
/// How long the device is kept busy before a timed run, and in addition for each launch: until the host has handed all in.
const SPIN: (u64, u64) = (20_000, 200);
/// Conditions are told no more often than this.
const CONDITIONS_EVERY: Duration = Duration::from_millis(200);

/// Where something lies in the arena.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u64,
}

impl Place {
    const fn end(self) -> u64 {
        self.offset + self.bytes
    }

    /// The border before it.
    const fn before(self) -> Self {
        Self { offset: self.offset - BORDER, bytes: BORDER }
    }

    /// The same place of an operand in another set.
    const fn shifted(self, by: u64) -> Self {
        Self { offset: self.offset + by, ..self }
    }
}

/// Hands out the arena from its start, each place between borders.
struct Layout(u64);

impl Layout {
    fn place(&mut self, bytes: u64) -> Place {
        let place = Place { offset: self.0 + BORDER, bytes };
        self.0 = place.end().next_multiple_of(BORDER) + BORDER;
        place
    }
}

/// What runs.
enum Code<'h> {
    Kernel { function: Function, shape: Shape, _module: Module },
    Vendor(Plan<'h>),
}

impl Code<'_> {
    fn algorithm(&self) -> Option<i64> {
        match self {
            Self::Kernel { .. } => None,
            Self::Vendor(plan) => Some(plan.algorithm()),
        }
    }
}

/// A candidate whose code is on the device.
struct Loaded<'h> {
    code: Code<'h>,
    /// Seconds of a single run: of the first one that is checked, unless they are known before.
    seconds: Option<f64>,
    /// Some launches in a row, and how many.
    sample: Option<(Graph, u64)>,
}

/// Why a candidate did not pass.
enum Fault {
    Wrong { error: Option<f64>, reason: String },
    NoCode(String),
    Unsupported(String),
    Crashed(String),
}

impl From<Error> for Fault {
    /// An error of the driver: the kernel broke the context, or asks for what the device does not have.
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        if error.is_fatal() { Self::Crashed(reason) } else { Self::Unsupported(reason) }
    }
}

impl Fault {
    fn event(self, candidate: usize) -> Event {
        match self {
            Self::Wrong { error, reason } => {
                Event::Checked { candidate, seconds: 0.0, error, wrong: Some(reason), algorithm: None }
            }
            Self::NoCode(reason) => Event::NoCode { candidate, reason },
            Self::Unsupported(reason) => Event::Unsupported { candidate, reason },
            Self::Crashed(reason) => Event::Crashed { candidate, reason },
        }
    }
}

/// See the module.
pub(super) struct Bench<'h> {
    gpu: &'h Gpu,
    nvml: Option<&'h Nvml>,
    vendors: &'h Libraries,
    job: MeasureJob,
    watch: Rc<Watch>,
    tools: Tools,
    grids: Vec<Grid>,
    /// The operands of set 0, in the order in which kernels take them.
    operands: Vec<Place>,
    /// Bytes from one set to the next.
    stride: u64,
    sets: u64,
    /// The reference's outputs.
    reference: Vec<Place>,
    workspace: Place,
    results: Place,
    /// Checksums of inputs, weights and the reference's outputs.
    sums: Vec<u64>,
    /// By candidate; `None` is the reference.
    loaded: HashMap<Option<usize>, Loaded<'h>>,
    /// When conditions were last told.
    told: Option<Instant>,
    arena: Memory,
}

impl<'h> Bench<'h> {
    /// Lays out and fills the operands. `spare` is memory of an earlier job. The error is the answer to the worker.
    pub(super) fn new(
        gpu: &'h Gpu,
        nvml: Option<&'h Nvml>,
        vendors: &'h Libraries,
        spare: Option<Memory>,
        job: MeasureJob,
        watch: Watch,
    ) -> Result<Self, Event> {
        let broken = |reason: String| Event::Broken { reason };
        let driver = |e: Error| Event::Broken { reason: e.to_string() };
        let spec = &job.spec;
        for (k, o) in spec.operands.iter().enumerate() {
            operand::validate(k, o).map_err(|e| Event::BadReference { reason: e.to_string() })?;
        }
        let grids = spec.operands.iter().map(Grid::of).collect::<Result<Vec<_>, _>>();
        let grids = grids.map_err(|reason| Event::BadReference { reason })?;
        let tools = job.tools.as_deref().ok_or_else(|| broken("the job brings no tools for a GPU".to_owned()))?;
        let tools = Tools::load(gpu, &read(tools).map_err(broken)?).map_err(driver)?;

        // The sizes first, of one set.
        let outputs = || spec.operands.iter().filter(|o| o.role == OperandRole::Output);
        let bytes: u64 = spec.operands.iter().map(operand::bytes).sum();
        let mut layout = Layout(0);
        for o in &spec.operands {
            layout.place(operand::bytes(o));
        }
        let stride = layout.0;
        for o in outputs() {
            layout.place(operand::bytes(o));
        }
        layout.place(8 * Slots::of(&spec.operands).words as u64);
        let fixed = layout.0 + 3 * BORDER;
        let available = gpu.free().map_err(driver)? + spare.as_ref().map_or(0, Memory::bytes);
        let limit = (available as f64 * MEMORY_SHARE) as u64;
        let Some(room) = limit.checked_sub(fixed) else {
            return Err(broken(format!("the operands need {} MiB, but only {} are free", fixed >> 20, available >> 20)));
        };
        // Whoever needs more workspace than there is, is refused by itself.
        let needs = spec.candidates.iter().chain([&spec.reference]).map(|c| c.shared_bytes);
        let workspace = needs.filter(|need| *need <= room).max().unwrap_or(0);
        let copies = spec.protocol.rotate_bytes.min(COLD).div_ceil(bytes.max(1)).clamp(1, MAX_COPIES);
        let sets = copies.min(1 + (room - workspace) / stride);
        let total = fixed + (sets - 1) * stride + workspace.next_multiple_of(BORDER);
        let arena = match spare.filter(|s| s.bytes() >= total) {
            Some(spare) => spare,
            // The spare memory is given back before more is asked for.
            None => gpu.allocate(total.next_multiple_of(64 << 20).min(limit.max(total))).map_err(driver)?,
        };

        let mut layout = Layout(0);
        let operands: Vec<Place> = spec.operands.iter().map(|o| layout.place(operand::bytes(o))).collect();
        layout.0 = sets * stride;
        let reference: Vec<Place> = outputs().map(|o| layout.place(operand::bytes(o))).collect();
        let workspace = layout.place(workspace);
        let results = layout.place(8 * Slots::of(&spec.operands).words as u64);
        let bench = Self {
            gpu,
            nvml,
            vendors,
            watch: Rc::new(watch),
            tools,
            grids,
            operands,
            stride,
            sets,
            reference,
            workspace,
            results,
            sums: Vec::new(),
            loaded: HashMap::new(),
            told: None,
            arena,
            job,
        };
        bench.fill().map_err(driver)?;
        Ok(bench)
    }

    /// Ends the job and gives the memory to the next one.
    pub(super) fn close(self) -> Memory {
        self.arena
    }

    /// What lies at a place of the arena.
    fn region(&self, place: Place) -> Region<'_> {
        self.arena.region().part(place.offset, place.bytes).expect("places are handed out within the arena")
    }

    fn role(&self, k: usize) -> OperandRole {
        self.job.spec.operands[k].role
    }

    /// Numbers of the outputs among the operands.
    fn outputs(&self) -> std::ops::Range<usize> {
        let first = self.job.spec.operands.iter().take_while(|o| o.role != OperandRole::Output).count();
        first..self.job.spec.operands.len()
    }

    /// Canaries, values and copies; what the reference wrote stays.
    fn fill(&self) -> Result<(), Error> {
        let first = Place { offset: 0, bytes: self.stride };
        self.gpu.set(self.region(first), CANARY)?;
        self.gpu.set(self.region(self.workspace.before()), CANARY)?;
        for (k, (place, grid)) in self.operands.iter().zip(&self.grids).enumerate() {
            let region = self.region(*place);
            self.gpu.set(region, 0)?;
            if self.role(k) != OperandRole::Output {
                self.tools.fill(self.gpu, region, grid, operand::seed_of(self.job.spec.seed, k))?;
            }
        }
        for set in 1..self.sets {
            self.gpu.copy(self.region(first.shifted(set * self.stride)), self.region(first))?;
        }
        self.gpu.wait()
    }

    /// Runs the reference and keeps what it writes; returns its time.
    pub(super) fn make_reference(&mut self) -> Result<f64, Event> {
        let bad = |reason: String| Event::BadReference { reason };
        let made = self.run_checked(None);
        let seconds = match made {
            Ok((seconds, _)) => seconds,
            Err(Fault::Wrong { reason, .. } | Fault::NoCode(reason) | Fault::Unsupported(reason) | Fault::Crashed(reason)) => {
                return Err(bad(reason));
            }
        };
        let sums = self.read_only_sums();
        self.sums = sums.map_err(|e| Event::Broken { reason: e.to_string() })?;
        Ok(seconds)
    }

    /// The buffers that no candidate may change, with their names.
    fn read_only(&self) -> impl Iterator<Item = (String, Place)> {
        let name = |k: usize| match self.role(k) {
            OperandRole::Input => format!("input {k}"),
            _ => format!("weight {}", k - self.job.spec.operands.iter().filter(|o| o.role == OperandRole::Input).count()),
        };
        let operands = (0..self.outputs().start).map(move |k| (name(k), self.operands[k]));
        operands.chain(self.reference.iter().map(|place| ("the reference".to_owned(), *place)))
    }

    fn read_only_sums(&self) -> Result<Vec<u64>, Error> {
        let slots = Slots::of(&self.job.spec.operands);
        self.gpu.set(self.region(self.results), 0)?;
        self.put_sums(&slots)?;
        self.results(slots.read_only)
    }

    /// The first words of the results.
    fn results(&self, words: usize) -> Result<Vec<u64>, Error> {
        let bytes = self.gpu.read(self.slots(0, words))?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    fn put_sums(&self, slots: &Slots) -> Result<(), Error> {
        for (n, (_, place)) in self.read_only().enumerate() {
            self.tools.checksum(self.gpu, self.region(place), self.slots(slots.sum(n), 1))?;
        }
        Ok(())
    }

    /// Words of the results.
    fn slots(&self, first: usize, words: usize) -> Region<'_> {
        let (first, words) = (8 * first as u64, 8 * words as u64);
        self.region(Place { offset: self.results.offset + first, bytes: words })
    }

    fn call(&self, i: Option<usize>) -> &KernelCall {
        i.map_or(&self.job.spec.reference, |i| &self.job.spec.candidates[i])
    }

    /// Brings the code of a candidate, or of the reference, to the device.
    fn load(&mut self, i: Option<usize>) -> Result<(), Fault> {
        if self.loaded.contains_key(&i) {
            return Ok(());
        }
        let path = match i {
            None => &self.job.reference_library,
            Some(i) => self.job.libraries[i].as_ref().ok_or_else(|| Fault::NoCode("it has no object".to_owned()))?,
        };
        let call = self.call(i);
        if call.shared_bytes > self.workspace.bytes {
            return Err(Fault::Unsupported(format!("its workspace of {} MiB does not fit", call.shared_bytes >> 20)));
        }
        if let Some(vendor) = &call.vendor {
            let at = self.vendor_operands(vendor, 0)?;
            let missing = || Fault::NoCode("its bias does not exist".to_owned());
            let bias = vendor.bias().map(|k| self.weight(k).ok_or_else(missing)).transpose()?;
            let bias = bias.map(|place| self.region(place));
            let plan = self.vendors.plan(self.gpu, vendor, &call.dims, at, bias).map_err(Fault::Unsupported)?;
            // A call takes the host longer than the spin before a checked run lasts, so that run's time would not be the GPU's.
            let seconds = Some(plan.seconds());
            self.loaded.insert(i, Loaded { code: Code::Vendor(plan), seconds, sample: None });
            return Ok(());
        }
        let shape = Shape::of(call).map_err(Fault::Unsupported)?;
        let module = Module::load(self.gpu, &read(path).map_err(Fault::NoCode)?).map_err(|e| Fault::NoCode(e.to_string()))?;
        let function = module
            .function(&call.symbol)
            .map_err(|e| Fault::NoCode(format!("the object defines no kernel `{}`: {e}", call.symbol)))?;
        function.allow(&shape)?;
        let code = Code::Kernel { function, shape, _module: module };
        self.loaded.insert(i, Loaded { code, seconds: None, sample: None });
        Ok(())
    }

    /// The one parameter of a kernel: its operands in set number `set`, the workspace, the sizes.
    fn words(&self, call: &KernelCall, set: u64) -> Vec<u64> {
        let operands = self.operands.iter().map(|place| place.shifted(set * self.stride));
        operands
            .chain([self.workspace])
            .map(|place| self.region(place).address())
            .chain(call.dims.iter().map(|size| *size as u64))
            .collect()
    }

    fn launch(&self, i: Option<usize>, loaded: &Loaded<'_>, set: u64) -> Result<(), Error> {
        match &loaded.code {
            Code::Kernel { function, shape, .. } => {
                let mut words = self.words(self.call(i), set);
                // SAFETY: the one parameter of a kernel is an array of words, of as many as the
                // call has operands and sizes; they name parts of the arena, which outlives the
                // job. What the kernel does with them is what is being found out, in a process made
                // for it.
                unsafe { self.gpu.launch(function, shape, &mut [words.as_mut_ptr().cast::<c_void>()]) }
            }
            Code::Vendor(plan) => {
                let at = self.call(i).vendor.as_ref().and_then(|vendor| self.vendor_operands(vendor, set).ok());
                let ran = at.is_some_and(|at| plan.run(at).is_ok());
                if ran { Ok(()) } else { Err(Error::unsupported("run the vendor's call")) }
            }
        }
    }

    /// Where weight number `k` lies in set 0.
    fn weight(&self, k: usize) -> Option<Place> {
        let first = self.job.spec.operands.iter().take_while(|o| o.role == OperandRole::Input).count();
        self.operands[..self.outputs().start].get(first + k).copied()
    }

    /// The operands of a vendor's call in set number `set`.
    fn vendor_operands(&self, call: &VendorCall, set: u64) -> Result<Operands<'_>, Fault> {
        let inputs = self.job.spec.operands.iter().take_while(|o| o.role == OperandRole::Input).count();
        let shifted = |place: Place| self.region(place.shifted(set * self.stride));
        let input = |k: usize| self.operands[..inputs].get(k).copied().map(shifted);
        let missing = || Fault::NoCode("it names an operand that does not exist".to_owned());
        Ok(Operands {
            left: input(0).ok_or_else(missing)?,
            right: if call.multiplies_weight() { self.weight(0).map(shifted) } else { input(1) }.ok_or_else(missing)?,
            residual: call.residual().map(|k| input(k).ok_or_else(missing)).transpose()?,
            result: shifted(self.operands[self.outputs().start]),
        })
    }

    /// One run with poisoned outputs and stale workspace of exactly the promised size; nothing else may be written. Returns the seconds
    /// and the largest relative L2 error of any output.
    fn run_checked(&mut self, i: Option<usize>) -> Result<(f64, f64), Fault> {
        let limit = i.map_or(REFERENCE_LIMIT, |_| Duration::from_millis(self.job.spec.protocol.run_limit_ms));
        let watch = Rc::clone(&self.watch);
        let watched = watch.begin(i, limit);
        self.load(i)?;
        let slots = Slots::of(&self.job.spec.operands);
        self.prepare(i, &slots)?;
        self.gpu.mark(false)?;
        self.launch(i, &self.loaded[&i], 0)?;
        self.gpu.mark(true)?;
        self.inspect(i, &slots)?;
        let words = self.results(slots.words)?;
        let elapsed = self.gpu.elapsed()?;
        drop(watched);
        let seconds = self.loaded.get_mut(&i).map_or(elapsed, |loaded| *loaded.seconds.get_or_insert(elapsed));
        let verdict = self.judge(i, &slots, &words);
        if verdict.as_ref().is_err_and(|(_, damage)| *damage) {
            self.fill()?;
        }
        match verdict {
            Ok(error) => Ok((seconds, error)),
            Err((fault, _)) => Err(fault),
        }
    }

    /// Puts on the stream what comes before a checked run.
    fn prepare(&self, i: Option<usize>, slots: &Slots) -> Result<(), Error> {
        for (n, k) in self.outputs().enumerate() {
            self.tools.poison(self.gpu, self.region(self.operands[k]), &self.grids[k], n as u8)?;
        }
        let workspace = Place { bytes: self.call(i).shared_bytes, ..self.workspace };
        self.gpu.set_words(self.region(workspace), STALE)?;
        self.gpu.set(self.region(Place { offset: workspace.end(), bytes: BORDER }), CANARY)?;
        self.gpu.set(self.slots(0, slots.firsts()), 0)?;
        self.gpu.set(self.slots(slots.firsts(), slots.words - slots.firsts()), 0xFF)?;
        self.tools.spin(self.gpu, SPIN.0)
    }

    /// Puts on the stream what looks at the traces of a checked run. The reference's outputs are kept before they are compared, with
    /// themselves.
    fn inspect(&self, i: Option<usize>, slots: &Slots) -> Result<(), Error> {
        if i.is_none() {
            for (kept, k) in self.reference.iter().zip(self.outputs()) {
                self.gpu.copy(self.region(*kept), self.region(self.operands[k]))?;
            }
        }
        self.put_sums(slots)?;
        let workspace = Place { bytes: self.call(i).shared_bytes, ..self.workspace };
        for (n, place) in self.operands.iter().chain([&workspace]).enumerate() {
            let end = place.end();
            // Up to where the next border may begin.
            let bytes = end.next_multiple_of(BORDER) + BORDER - end;
            let bytes = if n == self.operands.len() { BORDER } else { bytes };
            let after = self.region(Place { offset: end, bytes });
            self.tools.differs(self.gpu, self.region(place.before()), CANARY, self.slots(slots.before(n), 1))?;
            self.tools.differs(self.gpu, after, CANARY, self.slots(slots.after(n), 1))?;
        }
        for (n, k) in self.outputs().enumerate() {
            let (got, reference) = (self.region(self.operands[k]), self.region(self.reference[n]));
            self.tools.compare(self.gpu, got, reference, &self.grids[k], self.slots(slots.seen(n), SEEN_WORDS))?;
            self.tools.differs(self.gpu, got, 0, self.slots(slots.outside(n), 1))?;
        }
        Ok(())
    }

    /// What the traces say: the error, or what is wrong, with whether something must be repaired.
    fn judge(&self, i: Option<usize>, slots: &Slots, words: &[u64]) -> Result<f64, (Fault, bool)> {
        let damaged = |reason: String| (Fault::Wrong { error: None, reason }, true);
        let inputs = self.outputs().start;
        let names: Vec<String> = self.read_only().map(|(name, _)| name).collect();
        for (n, sum) in self.sums.iter().enumerate() {
            if words[slots.sum(n)] != *sum {
                if n < inputs {
                    return Err(damaged(format!("{}: overwritten", names[n])));
                }
                return Err((Fault::Crashed("it overwrote memory far from its buffers".to_owned()), false));
            }
        }
        for n in 0..=self.operands.len() {
            let name = match n {
                n if n < inputs => names[n].clone(),
                n if n < self.operands.len() => format!("output {}", n - inputs),
                _ => "workspace".to_owned(),
            };
            for (slot, place) in [(slots.before(n), "before its start"), (slots.after(n), "past its end")] {
                if words[slot] != u64::MAX {
                    return Err(damaged(format!("{name}: written {place}")));
                }
            }
        }
        let mut worst = 0f64;
        for (n, k) in self.outputs().enumerate() {
            let seen = &words[slots.seen(n)..];
            let seen = Seen {
                difference: f64::from_bits(seen[0]),
                norm: f64::from_bits(seen[1]),
                unwritten: seen[2],
                not_finite: seen[3],
                total: self.grids[k].total(),
            };
            let size = self.job.spec.operands[k].dtype.size() as u64;
            let outside = Some(words[slots.outside(n)]).filter(|first| *first != u64::MAX).map(|byte| byte / size);
            let wrong = |error, reason| (Fault::Wrong { error, reason: format!("output {n}: {reason}") }, false);
            let error = seen.verdict(outside).map_err(|reason| wrong(None, reason))?;
            let tolerance = self.job.spec.tolerance;
            if i.is_some() && (error.is_nan() || error > tolerance) {
                let reason = format!("relative L2 error {error:.3e} exceeds {tolerance:.3e}");
                return Err(wrong(error.is_finite().then_some(error), reason));
            }
            worst = worst.max(error);
        }
        Ok(worst)
    }

    /// One sample: seconds of a launch among others of its kind.
    fn sample(&mut self, i: usize) -> Result<f64, Fault> {
        let (key, watch) = (Some(i), Rc::clone(&self.watch));
        let _watched = watch.begin(key, Duration::from_millis(self.job.spec.protocol.run_limit_ms));
        self.load(key)?;
        let loaded = &self.loaded[&key];
        if let Some((graph, launches)) = &loaded.sample {
            return Ok(self.replay(graph, *launches)? / *launches as f64);
        }
        // Not known in a child that replaces another.
        let mut seconds = match loaded.seconds {
            Some(seconds) => seconds,
            None => self.replay(&self.record(i, loaded, 1)?, 1)?,
        };
        loop {
            let launches = self.launches(seconds);
            let graph = self.record(i, loaded, launches)?;
            // The first run of a graph is its warm-up, and tells whether the guess was good: a single run takes longer.
            let took = self.replay(&graph, launches)?;
            let again = self.launches(took / launches as f64);
            if took > SAMPLE / 2.0 || again <= launches {
                let seconds = self.replay(&graph, launches)? / launches as f64;
                if let Some(loaded) = self.loaded.get_mut(&key) {
                    loaded.sample = Some((graph, launches));
                }
                return Ok(seconds);
            }
            seconds = took / launches as f64;
        }
    }

    /// How many launches of so many seconds make a sample.
    fn launches(&self, seconds: f64) -> u64 {
        let within = |limit: f64| (limit / seconds.max(1e-7)) as u64;
        (within(SAMPLE) + 1).max(self.sets.min(within(LONG_SAMPLE))).clamp(1, MAX_LAUNCHES)
    }

    /// Launches in a row as artifacts make them, each with the next copy of the operands.
    fn record(&self, i: usize, loaded: &Loaded<'_>, launches: u64) -> Result<Graph, Fault> {
        let all = || (0..launches).try_for_each(|n| self.launch(Some(i), loaded, n % self.sets));
        Ok(self.gpu.capture(all)?)
    }

    /// Runs a graph; returns seconds.
    fn replay(&self, graph: &Graph, launches: u64) -> Result<f64, Fault> {
        self.tools.spin(self.gpu, SPIN.0 + launches * SPIN.1)?;
        self.gpu.mark(false)?;
        // SAFETY: graphs are recorded from `launch`, with parts of the arena and code that is
        // loaded for the whole job.
        unsafe { self.gpu.replay(graph)? };
        self.gpu.mark(true)?;
        self.gpu.wait()?;
        Ok(self.gpu.elapsed()?)
    }

    /// What the device says about itself, now and then.
    fn conditions(&mut self) -> Option<String> {
        if self.told.is_some_and(|told| told.elapsed() < CONDITIONS_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        self.nvml?.conditions()
    }
}

impl Measuring for Bench<'_> {
    fn candidates(&self) -> usize {
        self.job.spec.candidates.len()
    }

    fn check(&mut self, candidate: usize) -> Event {
        match self.run_checked(Some(candidate)) {
            Ok((seconds, error)) => {
                let algorithm = self.loaded.get(&Some(candidate)).and_then(|loaded| loaded.code.algorithm());
                Event::Checked { candidate, seconds, error: Some(error), wrong: None, algorithm }
            }
            Err(fault) => fault.event(candidate),
        }
    }

    fn round(&mut self, order: &[usize], _rounds: u32) -> Event {
        let mut samples = Vec::with_capacity(order.len());
        for &i in order {
            match self.sample(i) {
                Ok(seconds) => samples.push((i, seconds)),
                Err(fault) => return fault.event(i),
            }
        }
        Event::Ran { samples, conditions: self.conditions() }
    }
}

/// Where in the results what is found: words that begin as 0 and are added to, then words that begin as ones and are lowered.
struct Slots {
    read_only: usize,
    outputs: usize,
    operands: usize,
    words: usize,
}

impl Slots {
    fn of(operands: &[aotfarm_protocol::Operand]) -> Self {
        let outputs = operands.iter().filter(|o| o.role == OperandRole::Output).count();
        let (operands, read_only) = (operands.len(), operands.len());
        // The reference's outputs stand in for the outputs among what is read only.
        let words = read_only + SEEN_WORDS * outputs + 2 * (operands + 1) + outputs;
        Self { read_only, outputs, operands, words }
    }

    const fn sum(&self, n: usize) -> usize {
        n
    }

    const fn seen(&self, output: usize) -> usize {
        self.read_only + SEEN_WORDS * output
    }

    /// The first of the words that are lowered.
    const fn firsts(&self) -> usize {
        self.read_only + SEEN_WORDS * self.outputs
    }

    /// The border before operand `n`; that of the workspace comes after all operands.
    const fn before(&self, n: usize) -> usize {
        self.firsts() + 2 * n
    }

    const fn after(&self, n: usize) -> usize {
        self.before(n) + 1
    }

    const fn outside(&self, output: usize) -> usize {
        self.firsts() + 2 * (self.operands + 1) + output
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("could not read {}: {e}", path.display()))
}
