//! How a CUDA kernel is launched.

use serde::{Deserialize, Serialize};

/// The number of blocks along one axis: `times * max(1, ⌈mul * Π dim[k] / div⌉)`.
///
/// The form is a value and not a function, so that workers and artifacts can evaluate it for sizes that are only known at run time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GridAxis {
    /// Blocks for each piece of work.
    pub times: i64,
    /// The constant part of the work.
    pub mul: i64,
    /// Indices of the dynamic sizes that the work grows with.
    pub dims: Vec<usize>,
    /// Work of one piece.
    pub div: i64,
}

impl GridAxis {
    /// So many blocks, whatever the sizes.
    pub const fn fixed(blocks: i64) -> Self {
        Self { times: blocks, mul: 1, dims: Vec::new(), div: 1 }
    }

    /// The number of blocks at the given sizes; saturates.
    pub fn at(&self, dims: &[i64]) -> i64 {
        let work = self.dims.iter().fold(self.mul, |work, k| work.saturating_mul(dims[*k]));
        self.times.saturating_mul(work.saturating_add(self.div - 1).div_euclid(self.div).max(1))
    }
}

/// How a CUDA kernel is launched.
///
/// The kernel takes one parameter, an array of words of 64 bits: pointers to its inputs, weights and outputs, the workspace, the dynamic
/// sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [GridAxis; 3],
    /// Blocks of a cluster along x, y and z; `[1, 1, 1]` for none. Each divides the grid's axis.
    pub cluster: [u32; 3],
    /// Threads of a block, along x.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

impl Launch {
    /// A grid along x alone, without clusters.
    pub const fn linear(blocks: GridAxis, threads: u32, shared_bytes: u32) -> Self {
        Self { grid: [blocks, GridAxis::fixed(1), GridAxis::fixed(1)], cluster: [1; 3], threads, shared_bytes }
    }

    /// The grid at the given sizes.
    pub fn grid_at(&self, dims: &[i64]) -> [i64; 3] {
        self.grid.each_ref().map(|axis| axis.at(dims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_covers_its_work() {
        let axis = GridAxis { times: 4, mul: 49, dims: vec![0], div: 64 };
        assert_eq!([0, 1, 2, 128].map(|n| axis.at(&[n])), [4, 4, 8, 392]);
        assert_eq!(GridAxis::fixed(7).at(&[]), 7);
        assert_eq!(GridAxis { times: 2, mul: i64::MAX, dims: vec![0, 0], div: 1 }.at(&[3]), i64::MAX);
    }
}
