//! What lowering knows and makes: buffers, weights, specs, steps. The files beside this one lower one kind of kernel each.

use std::collections::{HashMap, HashSet};

use aotfarm_ir::canonical::Canonical as _;
use aotfarm_ir::{Def, Expr, Graph, Node, Op, State, TensorData, Value, ValueId};
use aotfarm_protocol::{DType, Precision};

use super::label::label;
use crate::chains::{Chain, ChainStep, Chains};
use crate::dims::Dims;
use crate::ends::Ends;
use crate::error::PlanError;
use crate::forms::Form;
use crate::layouts::Layouts;
use crate::plan::{Buffer, BufferId, Place, Plan, Plane, Step, WeightId};
use crate::spec::{EpilogueStep, KernelKind, KernelSpec, Layout, Math, Size, TensorSpec};
use crate::weights::{self, Weights};

pub(super) struct Lowering<'a> {
    pub(super) graph: &'a Graph,
    pub(super) chains: &'a Chains,
    pub(super) layouts: &'a Layouts,
    pub(super) forms: &'a [Form],
    pub(super) transposed: &'a HashSet<ValueId>,
    pub(super) plan: Plan,
    pub(super) buffers: HashMap<ValueId, BufferId>,
    pub(super) weights: Weights,
    pub(super) specs: HashMap<String, usize>,
}

/// A kernel call under construction.
pub(super) struct Call {
    pub(super) dims: Dims,
    pub(super) kind: KernelKind,
    pub(super) inputs: Vec<(ValueId, Vec<Expr>)>,
    pub(super) weights: Vec<WeightId>,
    pub(super) outputs: Vec<(ValueId, Vec<Expr>)>,
}

impl<'a> Lowering<'a> {
    /// Buffers for the caller's tensors, and for what outlives a run.
    pub(super) fn place_ends(&mut self, ends: &Ends) {
        for (id, place) in self.graph.inputs.iter().zip(&ends.inputs) {
            self.new_buffer(*id, *place);
        }
        for (id, place) in self.graph.outputs.iter().zip(&ends.outputs) {
            let root = if let Form::Alias(root) = self.forms[id.index()] { root } else { *id };
            self.new_buffer(root, *place);
        }
    }

    /// The constant that a state begins with.
    pub(super) fn initial(&mut self, state: &State) -> WeightId {
        let Value { name, ty, .. } = self.graph.value(state.value);
        let shape = ty.const_shape().expect("a verified state has a constant shape");
        self.weights.add(&mut self.plan.weights, name, ty.dtype, shape, &state.initial)
    }

    pub(super) fn new_buffer(&mut self, id: ValueId, place: Place) -> BufferId {
        let ty = self.graph.ty(id);
        let (len, plane) = match (self.layouts.layout(id), ty.shape.as_slice()) {
            (Layout::Image { block, halo }, [n, c, h, w]) => {
                let [top, bottom, left, right] = halo.map(i64::from);
                let lanes = Expr::from(i64::from(block));
                let (height, width) = (h + (top + bottom), w + (left + right));
                let partial = c.as_const().filter(|c| c % i64::from(block) != 0);
                let plane = (halo != [0; 4] || partial.is_some()).then(|| Plane {
                    block,
                    padded: [&height, &width].map(|size| size.as_const().unwrap_or(-1)),
                    halo,
                    partial,
                });
                (n * (c + (i64::from(block) - 1)).floor_div(&lanes) * height * width * lanes, plane)
            }
            _ => (ty.elements(), None),
        };
        let buffer = BufferId(self.plan.buffers.len() as u32);
        let dtype = if let Place::Slot(_) = place { self.in_slot(ty.dtype) } else { ty.dtype };
        self.plan.buffers.push(Buffer { dtype, len, place, plane });
        self.buffers.insert(id, buffer);
        buffer
    }

    /// The type in which the arena stores values of a type.
    pub(super) fn in_slot(&self, dtype: DType) -> DType {
        if dtype == DType::F32 { weights::storage(self.plan.precision) } else { dtype }
    }

    /// The type in which a value is stored: the caller's buffers, and those that outlive a run, hold what the model says.
    pub(super) fn stored(&self, id: ValueId) -> DType {
        let root = if let Form::Alias(root) = self.forms[id.index()] { root } else { id };
        match self.buffers.get(&root) {
            Some(buffer) => self.plan.buffers[buffer.0 as usize].dtype,
            None => self.in_slot(self.graph.ty(id).dtype),
        }
    }

    /// The buffer that holds a value.
    pub(super) fn buffer(&mut self, id: ValueId) -> BufferId {
        let id = if let Form::Alias(root) = self.forms[id.index()] { root } else { id };
        match self.buffers.get(&id) {
            Some(buffer) => *buffer,
            None => self.new_buffer(id, Place::Slot(usize::MAX)),
        }
    }

    pub(super) fn error(&self, node: &Node, why: impl Into<String>) -> PlanError {
        PlanError::Unsupported { op: node.op.name(), node: node.source.clone(), why: why.into() }
    }

    pub(super) fn require_f32(&self, node: &Node) -> Result<(), PlanError> {
        let others = node.inputs.iter().chain([&node.output]).map(|id| self.graph.ty(*id).dtype);
        match others.into_iter().find(|dtype| *dtype != DType::F32) {
            None => Ok(()),
            Some(dtype) => Err(self.error(node, format!("kernels compute it from f32 only, not {dtype}; cast the model to f32"))),
        }
    }

    pub(super) fn constant(&mut self, node: &Node, id: ValueId, what: &str) -> Result<WeightId, PlanError> {
        let (data, shape) = self.constant_data(node, id, what)?;
        let value = self.graph.value(id);
        Ok(self.weights.add(&mut self.plan.weights, &value.name, value.ty.dtype, shape, data))
    }

    pub(super) fn constant_data(&self, node: &Node, id: ValueId, what: &str) -> Result<(&'a TensorData, Vec<i64>), PlanError> {
        let value = self.graph.value(id);
        match (&value.def, value.ty.const_shape()) {
            (Def::Weight(data), Some(shape)) => Ok((data, shape)),
            _ => Err(self.error(node, format!("its {what} `{}` must be a constant", value.name))),
        }
    }

    /// A weight that GPU kernels multiply.
    pub(super) fn multiplied(&mut self, id: ValueId, shape: Vec<i64>, values: &[f32]) -> WeightId {
        let (name, precision) = (&self.graph.value(id).name, self.plan.precision);
        let data = weights::converted(values, precision);
        self.weights.add(&mut self.plan.weights, name, weights::storage(precision), shape, &data)
    }

    /// The epilogue of a task, and the operands that it adds.
    pub(super) fn epilogue(&mut self, chain: &Chain, shape: &[Expr], call: &mut Call) -> Vec<EpilogueStep> {
        let steps = chain.steps.iter().map(|step| match step {
            ChainStep::Unary(op) => EpilogueStep::Unary(*op),
            ChainStep::Residual(op, id) => {
                call.inputs.push((*id, shape.to_vec()));
                EpilogueStep::Residual(*op, call.inputs.len() - 1)
            }
            ChainStep::Bias { name, data } => {
                let shape = vec![(data.bytes().len() / DType::F32.size()) as i64];
                call.weights.push(self.weights.add(&mut self.plan.weights, name, DType::F32, shape, data));
                EpilogueStep::Bias(call.weights.len() - 1)
            }
        });
        steps.collect()
    }

    /// What a value is a copy of: itself, if it is none.
    fn copied(&self, mut id: ValueId) -> ValueId {
        while let Def::Node(n) = self.graph.value(id).def
            && let Op::Cast(dtype) = self.graph.nodes[n].op
            && self.graph.ty(self.graph.nodes[n].inputs[0]).dtype == dtype
        {
            id = self.graph.nodes[n].inputs[0];
        }
        id
    }

    pub(super) fn emit(&mut self, node: &Node, call: Call) {
        let Call { mut dims, kind, inputs, weights, outputs } = call;
        let mut tensor = |id: ValueId, shape: &[Expr]| TensorSpec {
            dtype: self.stored(id),
            shape: shape.iter().map(|size| dims.size(size)).collect(),
            layout: self.layouts.layout(id),
        };
        let output_specs = outputs.iter().map(|(id, shape)| tensor(*id, shape)).collect();
        let input_specs = inputs.iter().map(|(id, shape)| tensor(*id, shape)).collect();
        let weight_specs = weights
            .iter()
            .map(|id| {
                let weight = &self.plan.weights[id.0 as usize];
                let shape = weight.shape.iter().map(|n| Size::Const(*n)).collect();
                TensorSpec { dtype: weight.dtype, shape, layout: Layout::Plain }
            })
            .collect();
        let multiplies = matches!(kind, KernelKind::Conv(_) | KernelKind::MatMul(_) | KernelKind::Attention(_));
        let math = if multiplies && self.plan.precision == Precision::Tf32 { Math::Tf32 } else { Math::Exact };
        let spec =
            KernelSpec { kind, inputs: input_specs, weights: weight_specs, outputs: output_specs, dims: dims.0.len(), math };
        let label = label(&spec, &dims.0, node);
        // Steps share a spec only if their dims agree too, so that a spec is one task at every point.
        let key = format!("{} {}", spec.canonical(), dims.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        let spec = *self.specs.entry(key).or_insert_with(|| {
            self.plan.specs.push(spec);
            self.plan.specs.len() - 1
        });
        let values = outputs.iter().map(|(id, _)| self.graph.value(self.copied(*id)).name.clone()).collect();
        let inputs = inputs.iter().map(|(id, _)| self.buffer(*id)).collect();
        let outputs = outputs.iter().map(|(id, _)| self.buffer(*id)).collect();
        self.plan.steps.push(Step { label, spec, inputs, weights, outputs, dims: dims.0, values });
    }
}
