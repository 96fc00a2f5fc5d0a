//! What a Plan is made of.

use std::fmt;

use aotfarm_ir::{Expr, GraphDim, Sym, TensorData};
use aotfarm_protocol::{DType, DimRange, Port, Precision, Segment, Signature, Target};

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
    /// What the state of this position holds when a run begins; only read.
    State(usize),
    /// What it holds when the run has ended: memory of its own, which a state may be read beside.
    Next(usize),
    /// The new contents of the input that the write of this position changes. The caller's tensor gets them when the run has ended, because it is
    /// read until then.
    Back(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(i) => write!(f, "input {i}"),
            Self::Output(i) => write!(f, "output {i}"),
            Self::Slot(k) => write!(f, "slot {k}"),
            Self::State(i) => write!(f, "state {i}"),
            Self::Next(i) => write!(f, "next {i}"),
            Self::Back(i) => write!(f, "write {i}"),
        }
    }
}

impl Place {
    /// Whether no step writes it.
    pub const fn is_read_only(self) -> bool {
        matches!(self, Self::Input(_) | Self::State(_))
    }
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

/// A buffer that outlives a run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanState {
    /// Name and type; its dims are constant.
    pub port: Port,
    /// What it holds in a fresh session.
    pub initial: WeightId,
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
    /// What outlives a run.
    pub states: Vec<PlanState>,
    /// The inputs that a run changes: positions in `inputs`.
    pub writes: Vec<usize>,
    /// How the exported program nests its arguments and results, where the file says so.
    pub signature: Option<Signature>,
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

    /// Where a run must leave something.
    pub fn results(&self) -> impl Iterator<Item = Place> {
        let states = (0..self.states.len()).map(Place::Next);
        (0..self.outputs.len()).map(Place::Output).chain(states).chain((0..self.writes.len()).map(Place::Back))
    }
}
