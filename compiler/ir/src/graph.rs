use std::fmt;
use std::sync::Arc;

use aotfarm_protocol::Signature;

use super::{GraphDim, Op, TensorType};

/// Index of a value in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The elements of a weight or of a state's first contents: little-endian, row-major, contiguous. Cheap to clone.
#[derive(Clone)]
pub struct TensorData {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    len: usize,
}

impl TensorData {
    /// Owns `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes: Arc::new(bytes), start: 0, len }
    }

    /// A part of a larger shared buffer, such as a mapped file. Panics when the range is outside.
    pub fn slice_of(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, start: usize, len: usize) -> Self {
        assert!(start.checked_add(len).is_some_and(|end| end <= (*bytes).as_ref().len()), "a weight outside its buffer");
        Self { bytes, start, len }
    }

    /// A part of this data, shared with it. Panics when the range is outside.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len), "a part outside its data");
        Self { bytes: self.bytes.clone(), start: self.start + start, len }
    }

    /// From f32 values.
    pub fn from_f32(values: &[f32]) -> Self {
        Self::new(bytemuck::cast_slice(values).to_vec())
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.start..self.start + self.len]
    }

    /// The values of an f32 tensor (copied, as the bytes may be unaligned).
    pub fn to_f32(&self) -> Vec<f32> {
        self.bytes().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorData({} bytes)", self.len)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Def {
    /// The model's input of this position.
    Input(usize),
    /// A named weight or constant; the value's name is the weight's.
    Weight(TensorData),
    /// What the state of this position in [`Graph::states`] holds when a run begins; the value's name is the state's.
    State(usize),
    /// The output of the node of this index in [`Graph::nodes`].
    Node(usize),
}

/// A tensor of the graph.
#[derive(Debug, Clone)]
pub struct Value {
    /// Unique in the graph.
    pub name: String,
    /// Type.
    pub ty: TensorType,
    /// Origin.
    pub def: Def,
}

/// One operator application. Every node has one output.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Operands in the order that [`Op`] documents.
    pub inputs: Vec<ValueId>,
    /// The result.
    pub output: ValueId,
    /// The node of the source model it came from (`conv2d_3: aten.conv2d.default`), for messages.
    pub source: String,
}

/// A buffer that outlives a run: a session owns it, each run reads what the run before it left.
#[derive(Debug, Clone)]
pub struct State {
    /// Its contents when a run begins, of constant shape ([`Def::State`]).
    pub value: ValueId,
    /// Its contents in a fresh session, and after a reset.
    pub initial: TensorData,
    /// Its contents when the run has ended, of the same type; `value` itself where no run changes them.
    pub next: ValueId,
}

/// An input that the model changes: what the caller's tensor holds when the run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBack {
    /// Position in [`Graph::inputs`]; an input is written at most once.
    pub input: usize,
    /// The new contents, of the input's type.
    pub value: ValueId,
}

/// The imported model. Nodes are in topological order: a node uses only inputs, states, weights and outputs of earlier nodes.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The model's name, from the file.
    pub name: String,
    /// Symbolic dimensions.
    pub dims: Vec<GraphDim>,
    /// All tensors.
    pub values: Vec<Value>,
    /// Operators in order.
    pub nodes: Vec<Node>,
    /// The model's inputs, in order.
    pub inputs: Vec<ValueId>,
    /// The model's outputs, in order; one value may be several.
    pub outputs: Vec<ValueId>,
    /// What callers know the outputs by: distinct names, one for each.
    pub output_names: Vec<String>,
    /// What outlives a run.
    pub states: Vec<State>,
    /// The inputs that a run changes.
    pub writes: Vec<WriteBack>,
    /// How the exported program nests its arguments and results, where the file says so.
    pub signature: Option<Signature>,
}

impl Graph {
    /// A tensor.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A tensor's type.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }

    /// All that a run must compute: the outputs, then what the states hold afterwards, then what is written back into inputs.
    pub fn results(&self) -> impl Iterator<Item = ValueId> {
        let states = self.states.iter().map(|state| state.next);
        self.outputs.iter().copied().chain(states).chain(self.writes.iter().map(|write| write.value))
    }
}
