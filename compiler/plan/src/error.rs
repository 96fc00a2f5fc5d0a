//! Why a graph cannot be lowered.

use aotfarm_protocol::{Precision, Target};

use crate::passes::PassError;
use crate::verify::VerifyError;

/// Why a graph cannot be lowered.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A node that no kernel computes.
    #[error("cannot lower `{op}` of node `{node}`: {why}")]
    Unsupported {
        /// The operator.
        op: &'static str,
        /// The node of the source model.
        node: String,
        /// Why, and what to do.
        why: String,
    },
    /// Several nodes that no kernel computes.
    #[error("{} nodes cannot be lowered:{}", .0.len(), .0.iter().map(|e| format!("\n  {e}")).collect::<String>())]
    Several(Vec<PlanError>),
    /// A precision that the target's kernels do not have.
    #[error("{target} computes in fp32 only, not in {precision}: choose a GPU with --device cuda, or --dtype fp32")]
    Precision {
        /// The target.
        target: Target,
        /// What was asked for.
        precision: Precision,
    },
    /// A dimension may be empty, and the target's kernels are never launched for nothing.
    #[error(
        "dimension `{dim}` may be 0, which artifacts for {target} do not run: raise its lower end, as in --dim {dim}=1..{max}"
    )]
    Empty {
        /// The target.
        target: Target,
        /// The dimension.
        dim: String,
        /// Its largest size.
        max: i64,
    },
    /// Attention could not be written as products and a softmax.
    #[error("cannot decompose attention")]
    Decompose(#[from] PassError),
    /// A defect of this module.
    #[error("the plan is inconsistent, which is a defect of the compiler")]
    Verify(#[from] VerifyError),
}
