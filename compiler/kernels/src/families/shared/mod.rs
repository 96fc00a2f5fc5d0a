//! What families of one kind share: the geometry of their tasks, and how points are written.

pub mod conv;
pub mod loops;
pub mod matmul;
pub mod points;
pub mod pool;
pub mod rows;
