//! What GPU families of one kind share.

pub mod attention;
pub mod geometry;
pub mod mma;
pub mod pool;
pub mod rows;
pub mod tiles;
