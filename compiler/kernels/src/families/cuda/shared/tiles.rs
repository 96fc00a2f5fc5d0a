//! Tiles of row-major matrices in shared memory, as `include/cuda/tiles.cuh` has them.

/// Bytes from one row of a tile to the next, for rows that ldmatrix reads: `pitch` of the header.
pub const fn pitch(bytes: i64) -> i64 {
    ((bytes / 16) | 1) * 16
}
