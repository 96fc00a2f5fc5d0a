//! What a Plan is made of.

use aotfarm_ir::{Expr, GraphDim, Sym, TensorData};
use aotfarm_protocol::{DType, DimRange, Port, Precision, Segment, Target};

use crate::spec::KernelSpec;

/// Index of a buffer in [`Plan::buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// Index of a weight in [`Plan::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub u32);

/// Where a buffer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The caller's input tensor of this position.
    Input(usize),
    /// The caller's output tensor of this position.
    Output(usize),
    /// A slot of the session's arena; buffers that are never alive together share slots.
    Slot(usize),
}

/// An activation buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Elements, halo and padding included, in the plan's symbols.
    pub len: Expr,
    /// Where it lives.
    pub place: Place,
    /// What of it must stay zero, if anything.
    pub plane: Option<Plane>,
}

/// The zeros of an image: its halo, and the lanes past its channels. Buffers of equal geometry can share a zeroed slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plane {
    /// Channels that lie together.
    pub block: u32,
    /// Height and width with the halo; -1 when not known.
    pub padded: [i64; 2],
    /// Zero rows and columns: top, bottom, left, right.
    pub halo: [u32; 4],
    /// The number of channels, where they do not fill the last block.
    pub partial: Option<i64>,
}

/// A slot of the arena.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Bytes: the largest of its buffers (an expression per buffer; the slot takes the maximum at run time).
    pub bytes: Vec<Expr>,
    /// Whether its buffers have a halo. Such a slot holds only buffers of one plane geometry, so that zeroing it when
    /// the arena is made keeps every halo zero for good.
    pub zeroed: bool,
}

/// A constant after folding.
#[derive(Debug, Clone)]
pub struct PlanWeight {
    /// The graph's weight it comes from, for messages.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<i64>,
    /// Elements.
    pub data: TensorData,
}

/// One kernel call.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it computes, for people: the source node and the shapes.
    pub label: String,
    /// Index into [`Plan::specs`]: equal specs are stored once.
    pub spec: usize,
    /// The spec's inputs.
    pub inputs: Vec<BufferId>,
    /// The spec's weights.
    pub weights: Vec<WeightId>,
    /// The spec's outputs.
    pub outputs: Vec<BufferId>,
    /// The values of the spec's dims, in the plan's symbols.
    pub dims: Vec<Expr>,
    /// The value of the graph that each output holds, by name; of a copy, that of what it copies. A rearranged operand has a name that
    /// the graph does not know.
    pub values: Vec<String>,
}

/// The fused, laid-out, memory-planned graph. It never mentions an instruction set beyond the vector width in its layouts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it is made for.
    pub target: Target,
    /// What activations are stored in, and how products are multiplied.
    pub precision: Precision,
    /// Symbolic dimensions with ranges.
    pub dims: Vec<DimRange>,
    /// A typical size of each, when the model names one.
    pub hints: Vec<Option<i64>>,
    /// Model inputs.
    pub inputs: Vec<Port>,
    /// Model outputs.
    pub outputs: Vec<Port>,
    /// Distinct computations.
    pub specs: Vec<KernelSpec>,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Arena slots.
    pub slots: Vec<Slot>,
    /// Constants.
    pub weights: Vec<PlanWeight>,
    /// Kernel calls in order.
    pub steps: Vec<Step>,
    /// Runs of steps that are done for a few images at a time, in order; all other steps are done for the whole batch.
    pub segments: Vec<Segment>,
}

impl Plan {
    /// The symbolic dimensions as a graph has them.
    pub fn graph_dims(&self) -> Vec<GraphDim> {
        let dim = |(d, hint): (&DimRange, &Option<i64>)| GraphDim { sym: Sym::new(&d.name), min: d.min, max: d.max, hint: *hint };
        self.dims.iter().zip(&self.hints).map(dim).collect()
    }
}
