//! What a launch looks like at given sizes, and whether it can be done at all.

use aotfarm_protocol::{KernelCall, Launch};

/// A launch at given sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Blocks along each axis.
    pub(super) grid: [u32; 3],
    /// Blocks of a cluster along each axis.
    pub(super) cluster: [u32; 3],
    /// Threads of a block.
    pub(super) threads: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
    /// Whether it may begin while the kernel before it still runs: the kernel waits itself.
    pub(super) programmatic: bool,
}

impl Shape {
    /// Of a tool: blocks along x.
    pub(super) fn plain(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], cluster: [1; 3], threads, shared_bytes: 0, programmatic: false }
    }

    /// Of a candidate. The error says what cannot be launched.
    pub(super) fn of(call: &KernelCall) -> Result<Self, String> {
        let launch = call.launch.as_ref().ok_or("it does not say how it is launched")?;
        check_launch(launch, call.dims.len())?;
        let grid = launch.grid_at(&call.dims);
        let limits = [i64::from(i32::MAX), 65_535, 65_535];
        for axis in 0..3 {
            if !(1..=limits[axis]).contains(&grid[axis]) {
                return Err(format!("a grid of {grid:?} blocks cannot be launched: axis {axis} allows 1 to {}", limits[axis]));
            }
            if grid[axis] % i64::from(launch.cluster[axis]) != 0 {
                return Err(format!("a grid of {grid:?} blocks does not consist of clusters of {:?}", launch.cluster));
            }
        }
        Ok(Self {
            grid: grid.map(|n| n as u32),
            cluster: launch.cluster,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            programmatic: true,
        })
    }
}

/// A launch from a work item must not make its evaluation fail.
fn check_launch(launch: &Launch, dims: usize) -> Result<(), String> {
    for axis in &launch.grid {
        if axis.div < 1 || axis.dims.iter().any(|k| *k >= dims) {
            return Err(format!("the grid {axis:?} cannot be evaluated with {dims} sizes"));
        }
    }
    match launch.cluster.contains(&0) {
        true => Err("a cluster has no blocks along an axis".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{CandidateId, Digest, GridAxis};

    use super::*;

    #[test]
    fn launches_that_no_device_can_do_are_refused_in_words() {
        let call = |launch: Launch| KernelCall {
            candidate: CandidateId(Digest::of("c")),
            label: String::new(),
            object: Digest::of("o"),
            symbol: "k".to_owned(),
            dims: vec![3],
            tune: vec![],
            packed_bytes: 0,
            shared_bytes: 0,
            thread_bytes: 0,
            launch: Some(launch),
            vendor: None,
        };
        let axis = |times, dims, div| GridAxis { times, mul: 1, dims, div };
        let launch = |axis| Launch::linear(axis, 128, 0);
        assert_eq!(Shape::of(&call(launch(axis(2, vec![0], 2)))).unwrap().grid, [4, 1, 1]);
        let refused = |launch, words: &str| {
            let reason = Shape::of(&call(launch)).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        };
        refused(launch(axis(1, vec![1], 1)), "cannot be evaluated");
        refused(launch(axis(1, vec![0], 0)), "cannot be evaluated");
        refused(launch(axis(0, vec![0], 1)), "cannot be launched");
        refused(Launch { cluster: [2, 1, 1], ..launch(axis(1, vec![0], 1)) }, "clusters of [2, 1, 1]");
        refused(
            Launch { grid: [axis(1, vec![], 1), axis(70_000, vec![], 1), axis(1, vec![], 1)], ..launch(axis(1, vec![], 1)) },
            "axis 1",
        );
        let none = KernelCall { launch: None, ..call(launch(axis(1, vec![], 1))) };
        assert!(Shape::of(&none).is_err());
    }
}
