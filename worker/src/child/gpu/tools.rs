//! The kernels that fill, poison and compare operands on the device, and what they take.

use std::ffi::c_void;

use aotfarm_protocol::{DType, Lattice, Operand, Values};

use super::driver::{Error, Function, Gpu, Module, Region};
use super::launch::Shape;
use crate::child::operand;

/// Dimensions that a lattice may have after those that lie behind each other have become one.
const RANK: usize = 8;
/// Threads of a block of the tools.
const THREADS: u32 = 256;
/// Blocks at most; more places go to the same threads.
const BLOCKS: u64 = 4096;

/// `lattice` of tools.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Places {
    offset: i64,
    places: i64,
    size: [i64; RANK],
    stride: [i64; RANK],
    rank: i64,
}

/// Words of `seen` of tools.cu.
pub(super) const SEEN_WORDS: usize = 4;

/// See the module.
pub(super) struct Tools {
    fill: Function,
    poison: Function,
    compare: Function,
    checksum: Function,
    differs: Function,
    spin: Function,
    _module: Module,
}

/// An operand with its lattices as the tools take them.
pub(super) struct Grid {
    dtype: DType,
    values: Values,
    places: Vec<Places>,
}

impl Grid {
    pub(super) fn of(operand: &Operand) -> Result<Self, String> {
        let places = operand.lattices.iter().filter_map(|lattice| places(lattice).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { dtype: operand.dtype, values: operand.values, places })
    }

    /// Places of all lattices.
    pub(super) fn total(&self) -> u64 {
        self.places.iter().map(|at| at.places as u64).sum()
    }

    fn size(&self) -> i32 {
        self.dtype.size() as i32
    }

    fn code(&self) -> i32 {
        DType::ALL.iter().position(|d| *d == self.dtype).unwrap_or(0) as i32
    }
}

/// `None` for a lattice without places.
fn places(lattice: &Lattice) -> Result<Option<Places>, String> {
    let Some(dims) = operand::merged(lattice) else { return Ok(None) };
    if dims.len() > RANK {
        return Err(format!("a lattice of {} dimensions: at most {RANK} can be walked on a GPU", dims.len()));
    }
    let mut at = Places { offset: lattice.offset, places: 1, size: [1; RANK], stride: [0; RANK], rank: dims.len() as i64 };
    for (d, (size, stride)) in dims.into_iter().enumerate() {
        at.places *= size;
        (at.size[d], at.stride[d]) = (size, stride);
    }
    Ok(Some(at))
}

/// Pointers to parameters, as a launch takes them.
macro_rules! parameters {
    ($($value:expr),*) => { &mut [$((&raw const $value).cast_mut().cast::<c_void>()),*] };
}

impl Tools {
    pub(super) fn load(gpu: &Gpu, cubin: &[u8]) -> Result<Self, Error> {
        let module = Module::load(gpu, cubin)?;
        let tool = |name: &str| module.function(&format!("aotk_tools_{name}"));
        Ok(Self {
            fill: tool("fill")?,
            poison: tool("poison")?,
            compare: tool("compare")?,
            checksum: tool("checksum")?,
            differs: tool("differs")?,
            spin: tool("spin")?,
            _module: module,
        })
    }

    /// Puts the values that belong to `seed` on the lattices.
    pub(super) fn fill(&self, gpu: &Gpu, operand: Region<'_>, grid: &Grid, seed: u64) -> Result<(), Error> {
        let (normal, a, b) = match grid.values {
            Values::Normal { std } => (1i32, f64::from(std), 0.0),
            Values::Uniform { low, high } => (0i32, low, high),
        };
        let (at, dtype, mut first) = (operand.address(), grid.code(), 0u64);
        for places in &grid.places {
            let parameters = parameters![at, dtype, *places, seed, first, normal, a, b];
            // SAFETY: the parameters of `aotk_tools_fill`; lattices lie within their operand
            // (`operand::validate`).
            unsafe { gpu.launch(&self.fill, &shape(places.places as u64), parameters)? };
            first += places.places as u64;
        }
        Ok(())
    }

    /// Makes an output what it never is after a run: a pattern on the lattices (NaN where there is one), zero elsewhere.
    pub(super) fn poison(&self, gpu: &Gpu, output: Region<'_>, grid: &Grid, salt: u8) -> Result<(), Error> {
        gpu.set(output, 0)?;
        let (at, size, byte) = (output.address(), grid.size(), i32::from(operand::poison_byte(grid.dtype, salt)));
        for places in &grid.places {
            let parameters = parameters![at, size, byte, *places];
            // SAFETY: the parameters of `aotk_tools_poison`; lattices lie within their operand
            // (`operand::validate`).
            unsafe { gpu.launch(&self.poison, &shape(places.places as u64), parameters)? };
        }
        Ok(())
    }

    /// Adds to the [`SEEN_WORDS`] at `seen` how an output differs from the reference, and wipes its places.
    pub(super) fn compare(
        &self,
        gpu: &Gpu,
        got: Region<'_>,
        reference: Region<'_>,
        grid: &Grid,
        seen: Region<'_>,
    ) -> Result<(), Error> {
        let (got, reference, seen) = (got.address(), reference.address(), seen.address());
        let (dtype, size) = (grid.code(), grid.size());
        for places in &grid.places {
            let parameters = parameters![got, reference, dtype, size, *places, seen];
            // SAFETY: the parameters of `aotk_tools_compare`; lattices lie within their operand
            // (`operand::validate`), of which both regions are copies.
            unsafe { gpu.launch(&self.compare, &shape(places.places as u64), parameters)? };
        }
        Ok(())
    }

    /// Adds a checksum of a buffer to the word at `sum`.
    pub(super) fn checksum(&self, gpu: &Gpu, buffer: Region<'_>, sum: Region<'_>) -> Result<(), Error> {
        let (at, bytes, sum) = (buffer.address(), buffer.bytes(), sum.address());
        // SAFETY: the parameters of `aotk_tools_checksum`, which reads `bytes` bytes and writes one
        // word.
        unsafe { gpu.launch(&self.checksum, &shape(bytes / 8), parameters![at, bytes, sum]) }
    }

    /// Lowers the word at `first` to the number of the first byte that is not `value`.
    pub(super) fn differs(&self, gpu: &Gpu, buffer: Region<'_>, value: u8, first: Region<'_>) -> Result<(), Error> {
        let (at, bytes, value, first) = (buffer.address(), buffer.bytes(), i32::from(value), first.address());
        // SAFETY: the parameters of `aotk_tools_differs`, which reads `bytes` bytes and writes one
        // word.
        unsafe { gpu.launch(&self.differs, &shape(bytes / 8), parameters![at, bytes, value, first]) }
    }

    /// Keeps the device busy while the host hands in what follows.
    pub(super) fn spin(&self, gpu: &Gpu, nanoseconds: u64) -> Result<(), Error> {
        // SAFETY: the parameter of `aotk_tools_spin`, which touches no memory.
        unsafe { gpu.launch(&self.spin, &Shape::plain(1, 32), parameters![nanoseconds]) }
    }
}

/// A grid for so many pieces of work.
fn shape(work: u64) -> Shape {
    Shape::plain(work.div_ceil(u64::from(THREADS)).clamp(1, BLOCKS) as u32, THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lattices_are_walked_in_the_order_of_memory() {
        let of = |dims: Vec<(i64, i64)>| places(&Lattice { offset: 6, dims });
        let at = of(vec![(3, 1), (2, 5)]).unwrap().unwrap();
        assert_eq!((at.offset, at.places, at.rank), (6, 6, 2));
        assert_eq!((&at.size[..2], &at.stride[..2]), (&[2, 3][..], &[5, 1][..]));
        assert_eq!(of(vec![(4, 8), (8, 1)]).unwrap().unwrap().rank, 1, "rows without gaps are one");
        assert!(of(vec![(0, 1)]).unwrap().is_none());
        let many = (0..9).map(|k| (2, 3i64.pow(k))).collect();
        assert!(of(many).unwrap_err().contains("9 dimensions"));
    }
}
