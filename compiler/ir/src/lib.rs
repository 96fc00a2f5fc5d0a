//! The IR: a Graph of typed nodes over tensors with symbolic dimensions, plus named weights; and the reference interpreter.
//!
//! Pure: no IO, no clock, no async.

mod builder;
pub mod canonical;
mod example;
mod expr;
mod expr_parse;
mod graph;
mod infer;
pub mod interp;
mod names;
mod op;
pub mod safetensors;
mod stats;
pub mod text;
mod verify;

pub use builder::{BuildError, Builder};
pub use example::{EXAMPLES, example};
pub use expr::{Bindings, EXPR_C_HELPERS, EvalError, Expr, ParseExprError, Sym};
pub use graph::{Def, Graph, GraphDim, Node, TensorData, TensorType, Value, ValueId};
pub use infer::{InferError, MAX_ELEMENTS, MAX_RANK, MAX_SIZE, broadcast, check_ranges, check_sizes, infer};
pub use op::{BinaryOp, Op, PoolOp, ReduceOp, UnaryOp, Window};
pub use stats::{Stats, multiply_adds, stats};
pub use verify::{VerifyError, verify};

#[cfg(test)]
mod infer_tests;
