//! The IR: a Graph of typed nodes over tensors with symbolic dimensions, plus named weights; and the reference interpreter.
//!
//! Pure: no IO, no clock, no async.

mod array;
mod builder;
pub mod canonical;
mod dims;
mod example;
mod expr;
mod expr_parse;
mod graph;
mod indices;
pub mod interp;
mod number;
mod ops;
pub mod safetensors;
mod stats;
mod syntax;
mod tensor;
pub mod text;
mod types;
mod verify;

pub use builder::{BuildError, Builder};
pub use dims::{Bindings, GraphDim, MAX_SIZE, Sym};
pub use example::{EXAMPLES, example};
pub use expr::{EXPR_C_HELPERS, EvalError, Expr};
pub use expr_parse::ParseExprError;
pub use graph::{Def, Graph, Node, State, TensorData, Value, ValueId, WriteBack};
pub use indices::{constant_ends, index_ranges};
pub use number::Number;
pub use ops::{BinaryOp, Class, Domain, InferError, Op, PoolOp, ReduceOp, UnaryOp, Window, broadcast, check_ranges, infer};
pub use stats::{Stats, multiply_adds, stats};
pub use types::{MAX_ELEMENTS, MAX_RANK, TensorType, check_sizes};
pub use verify::{VerifyError, verify};

#[cfg(test)]
mod graph_tests;
