//! Graph → Plan: one step for every value that gets a buffer.

use std::collections::{HashMap, HashSet};

use aotfarm_protocol::{DType, Dim, DimRange, Port, Precision, Target};

use crate::passes::decompose_attention;
use crate::spec::{
    AttentionSpec, Branch, ConvSpec, EpilogueStep, KernelKind, KernelSpec, Layout, Mask, MatMulSpec, Math, PoolSpec, RowSpec,
    Scalar, Size, TensorSpec, View,
};
use aotfarm_ir::{BinaryOp, Def, Expr, Graph, Node, Op, PoolOp, TensorData, UnaryOp, ValueId};

use super::attention::{self, Strided};
use super::chains::{Chain, ChainStep, Chains, Fusions, Uses};
use super::forms::{Form, forms};
use super::layouts::{Blocking, Layouts};
use super::nest::{Context, Dims, Nest, Operands};
use super::prepare::{Prepared, prepare};
use super::weights::{self, Weights};
use super::{Buffer, BufferId, Place, Plan, PlanError, Plane, Step, WeightId, arena};

/// Fuses, lays out and plans the memory of a graph that went through [`crate::passes::run`]. CPU kernels know only [`Precision::Fp32`].
/// Attention without a kernel of its own becomes products and a softmax.
pub fn lower(graph: Graph, target: Target, precision: Precision) -> Result<Plan, PlanError> {
    let blocking = match target {
        // A vector of f32, and on narrow vectors two of them.
        Target::Cpu(_) => Blocking::Lanes(target.f32_lanes().max(8) as i64),
        Target::Cuda { .. } => Blocking::Whole,
    };
    if blocking != Blocking::Whole && precision != Precision::Fp32 {
        return Err(PlanError::Precision { target, precision });
    }
    let graph = decompose_attention(graph, |graph, node| attention::has_kernel(graph, node, target, precision))?;
    let ports = |ids: &[ValueId]| ids.iter().map(|id| port(&graph, *id)).collect::<Vec<_>>();
    let (inputs, outputs) = (ports(&graph.inputs), ports(&graph.outputs));
    // In exact f32 only the naive kernel would sum them.
    let on_cpu = blocking != Blocking::Whole;
    let fusions = Fusions { branches: precision != Precision::Fp32, gates: on_cpu, means: on_cpu };
    let Prepared { graph, transposed } = prepare(graph, blocking, fusions);
    let uses = Uses::of(&graph);
    let chains = Chains::of(&graph, &uses, fusions);
    let layouts = Layouts::of(&graph, &uses, &chains, blocking);
    let forms = forms(&graph, &uses, &chains, &layouts);
    let mut lowering = Lowering {
        graph: &graph,
        chains: &chains,
        layouts: &layouts,
        forms: &forms,
        transposed: &transposed,
        plan: Plan {
            target,
            precision,
            dims: graph.dims.iter().map(|d| DimRange { name: d.sym.to_string(), min: d.min, max: d.max }).collect(),
            hints: graph.dims.iter().map(|d| d.hint).collect(),
            inputs,
            outputs,
            specs: Vec::new(),
            buffers: Vec::new(),
            slots: Vec::new(),
            weights: Vec::new(),
            steps: Vec::new(),
            segments: Vec::new(),
        },
        buffers: HashMap::new(),
        weights: Weights::default(),
        specs: HashMap::new(),
    };
    lowering.place_ends();
    for n in 0..graph.nodes.len() {
        lowering.node(n)?;
    }
    let mut plan = lowering.plan;
    arena::assign(&mut plan, &graph.dims);
    super::verify::verify(&plan, &graph.dims)?;
    Ok(plan)
}

fn port(graph: &Graph, id: ValueId) -> Port {
    let value = graph.value(id);
    let dim = |size: &Expr| size.as_const().map_or_else(|| Dim::Expr(size.to_string()), Dim::Size);
    Port { name: value.name.clone(), dtype: value.ty.dtype, dims: value.ty.shape.iter().map(dim).collect() }
}

struct Lowering<'a> {
    graph: &'a Graph,
    chains: &'a Chains,
    layouts: &'a Layouts,
    forms: &'a [Form],
    transposed: &'a HashSet<ValueId>,
    plan: Plan,
    buffers: HashMap<ValueId, BufferId>,
    weights: Weights,
    specs: HashMap<String, usize>,
}

/// A task under construction.
struct Task {
    dims: Dims,
    kind: KernelKind,
    inputs: Vec<(ValueId, Vec<Expr>)>,
    weights: Vec<WeightId>,
    outputs: Vec<(ValueId, Vec<Expr>)>,
}

impl<'a> Lowering<'a> {
    /// Buffers for the caller's tensors.
    fn place_ends(&mut self) {
        for (i, id) in self.graph.inputs.iter().enumerate() {
            self.new_buffer(*id, Place::Input(i));
        }
        for (i, id) in self.graph.outputs.iter().enumerate() {
            let root = if let Form::Alias(root) = self.forms[id.index()] { root } else { *id };
            self.new_buffer(root, Place::Output(i));
        }
    }

    fn new_buffer(&mut self, id: ValueId, place: Place) -> BufferId {
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
    fn in_slot(&self, dtype: DType) -> DType {
        if dtype == DType::F32 { weights::storage(self.plan.precision) } else { dtype }
    }

    /// The type in which a value is stored: the caller's buffers hold what the model says.
    fn stored(&self, id: ValueId) -> DType {
        let root = if let Form::Alias(root) = self.forms[id.index()] { root } else { id };
        match self.buffers.get(&root) {
            Some(buffer) => self.plan.buffers[buffer.0 as usize].dtype,
            None => self.in_slot(self.graph.ty(id).dtype),
        }
    }

    /// The buffer that holds a value.
    fn buffer(&mut self, id: ValueId) -> BufferId {
        let id = if let Form::Alias(root) = self.forms[id.index()] { root } else { id };
        match self.buffers.get(&id) {
            Some(buffer) => *buffer,
            None => self.new_buffer(id, Place::Slot(usize::MAX)),
        }
    }

    fn error(&self, node: &Node, why: impl Into<String>) -> PlanError {
        PlanError::Unsupported { op: node.op.name(), node: node.source.clone(), why: why.into() }
    }

    /// Emits the step that ends at a node, if one does.
    fn node(&mut self, n: usize) -> Result<(), PlanError> {
        let node = &self.graph.nodes[n];
        if self.forms[node.output.index()] != Form::Buffer {
            return Ok(());
        }
        if let Some(chain) = self.chains.storing(n) {
            if chain.last != n {
                return Ok(()); // Its step stores this too.
            }
            let anchor = &self.graph.nodes[chain.anchor];
            return match &anchor.op {
                Op::Conv { .. } => self.conv(anchor, chain),
                Op::Linear | Op::MatMul => self.product(anchor, chain),
                Op::Attention { scale, causal } => self.attention(anchor, chain, *scale, *causal),
                _ => self.nest(node, Some(chain)),
            };
        }
        match &node.op {
            Op::Pool { .. } => self.pool(node),
            Op::Softmax { .. } | Op::LayerNorm { .. } => self.rows(node),
            op if super::layouts::is_nestable(op) => self.nest(node, None),
            _ => Err(self.error(node, "the passes should have replaced it; run passes::run before lowering")),
        }
    }

    fn require_f32(&self, node: &Node) -> Result<(), PlanError> {
        let others = node.inputs.iter().chain([&node.output]).map(|id| self.graph.ty(*id).dtype);
        match others.into_iter().find(|dtype| *dtype != DType::F32) {
            None => Ok(()),
            Some(dtype) => Err(self.error(node, format!("kernels compute it from f32 only, not {dtype}; cast the model to f32"))),
        }
    }

    fn constant(&mut self, node: &Node, id: ValueId, what: &str) -> Result<WeightId, PlanError> {
        let (data, shape) = self.constant_data(node, id, what)?;
        let value = self.graph.value(id);
        Ok(self.weights.add(&mut self.plan.weights, &value.name, value.ty.dtype, shape, data))
    }

    fn constant_data(&self, node: &Node, id: ValueId, what: &str) -> Result<(&'a TensorData, Vec<i64>), PlanError> {
        let value = self.graph.value(id);
        match (&value.def, value.ty.const_shape()) {
            (Def::Weight(data), Some(shape)) => Ok((data, shape)),
            _ => Err(self.error(node, format!("its {what} `{}` must be a constant", value.name))),
        }
    }

    /// The weight of a convolution as the target's kernels read it.
    fn filter(&mut self, node: &Node) -> Result<WeightId, PlanError> {
        let Op::Conv { groups, .. } = node.op else { return Err(self.error(node, "not a convolution")) };
        let Target::Cuda { .. } = self.plan.target else { return self.constant(node, node.inputs[1], "weight") };
        let (data, shape) = self.constant_data(node, node.inputs[1], "weight")?;
        let [o, c, kh, kw] = shape[..] else { return Err(self.error(node, "its weight must have rank 4")) };
        let padded = self.layouts.is_image(node.inputs[0]) && groups == 1;
        let channels = if padded { Blocking::Whole.of(c) } else { c };
        let sizes = [o, c, kh, kw].map(|n| n as usize);
        let values = weights::channels_last(&data.to_f32(), sizes, channels as usize);
        Ok(self.multiplied(node.inputs[1], vec![o, kh, kw, channels], &values))
    }

    /// The weight of a product as the target's kernels read it, and whether it is `[N, K]`: always on a GPU.
    fn matrix(&mut self, node: &Node, b_transposed: bool) -> Result<(WeightId, bool), PlanError> {
        let Target::Cuda { .. } = self.plan.target else {
            return Ok((self.constant(node, node.inputs[1], "weight")?, b_transposed));
        };
        let (data, shape) = self.constant_data(node, node.inputs[1], "weight")?;
        let [rows, columns] = shape[..] else { return Err(self.error(node, "its weight must have rank 2")) };
        let values = data.to_f32();
        let id = if b_transposed {
            self.multiplied(node.inputs[1], shape, &values)
        } else {
            let values = weights::transposed(&values, rows as usize, columns as usize);
            self.multiplied(node.inputs[1], vec![columns, rows], &values)
        };
        Ok((id, true))
    }

    /// A weight that GPU kernels multiply.
    fn multiplied(&mut self, id: ValueId, shape: Vec<i64>, values: &[f32]) -> WeightId {
        let (name, precision) = (&self.graph.value(id).name, self.plan.precision);
        let data = weights::converted(values, precision);
        self.weights.add(&mut self.plan.weights, name, weights::storage(precision), shape, &data)
    }

    /// The epilogue of a task, and the operands that it adds.
    fn epilogue(&mut self, chain: &Chain, shape: &[Expr], task: &mut Task) -> Vec<EpilogueStep> {
        let steps = chain.steps.iter().map(|step| match step {
            ChainStep::Unary(op) => EpilogueStep::Unary(*op),
            ChainStep::Residual(op, id) => {
                task.inputs.push((*id, shape.to_vec()));
                EpilogueStep::Residual(*op, task.inputs.len() - 1)
            }
            ChainStep::Bias { name, data } => {
                let shape = vec![(data.bytes().len() / DType::F32.size()) as i64];
                task.weights.push(self.weights.add(&mut self.plan.weights, name, DType::F32, shape, data));
                EpilogueStep::Bias(task.weights.len() - 1)
            }
        });
        steps.collect()
    }

    fn conv(&mut self, node: &Node, chain: &Chain) -> Result<(), PlanError> {
        self.require_f32(node)?;
        let Op::Conv { window, groups } = node.op else { return Err(self.error(node, "not a convolution")) };
        let weight = self.filter(node)?;
        if let Some(bias) = node.inputs.get(2) {
            self.constant(node, *bias, "bias")?;
        }
        let x = chain.gate.map_or(node.inputs[0], |gate| gate.image);
        let result = self.graph.nodes[chain.last].output;
        let shape = self.graph.ty(result).shape.clone();
        let mut task = Task {
            dims: Dims::default(),
            kind: KernelKind::Conv(ConvSpec {
                window,
                groups,
                epilogue: Vec::new(),
                pool: None,
                branch: None,
                gate: None,
                mean: false,
            }),
            inputs: vec![(x, self.graph.ty(x).shape.clone())],
            weights: vec![weight],
            outputs: vec![(result, shape.clone())],
        };
        let mut branch = None;
        if let Some(other) = chain.branch.map(|n| &self.graph.nodes[n])
            && let Op::Conv { window, .. } = other.op
        {
            task.weights.push(self.filter(other)?);
            task.inputs.push((other.inputs[0], self.graph.ty(other.inputs[0]).shape.clone()));
            branch = Some(Branch { input: 1, weight: 1, window });
        }
        let gate = chain.gate.map(|gate| {
            task.inputs.push((gate.factors, self.graph.ty(gate.factors).shape[..2].to_vec()));
            task.inputs.len() - 1
        });
        let mean = chain.mean.map(|node| self.graph.nodes[node].output);
        task.outputs.extend(mean.map(|id| (id, shape[..2].to_vec())));
        let (mean, epilogue) = (mean.is_some(), self.epilogue(chain, &shape, &mut task));
        task.kind = KernelKind::Conv(ConvSpec { window, groups, epilogue, pool: chain.pool, branch, gate, mean });
        self.emit(node, task);
        Ok(())
    }

    fn product(&mut self, node: &Node, chain: &Chain) -> Result<(), PlanError> {
        self.require_f32(node)?;
        let (a, b, result) = (node.inputs[0], node.inputs[1], self.graph.nodes[chain.last].output);
        let shape_of = |id: ValueId| self.graph.ty(id).shape.clone();
        let (a_shape, b_shape, shape) = (shape_of(a), shape_of(b), shape_of(result));
        let mut b_transposed = node.op == Op::Linear || self.transposed.contains(&node.output);
        let b_is_weight = matches!(self.graph.value(b).def, Def::Weight(_));
        if let Some(bias) = node.inputs.get(2) {
            self.constant(node, *bias, "bias")?;
        }
        // Leading dimensions become rows when b is one matrix, else one batch.
        let lead = if b_shape.len() == 2 { 1 } else { 2 };
        let fold = |shape: &[Expr]| {
            let at = shape.len() - lead;
            let mut folded = vec![shape[..at].iter().product::<Expr>()];
            folded.extend_from_slice(&shape[at..]);
            folded
        };
        let mut task = Task {
            dims: Dims::default(),
            kind: KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, epilogue: Vec::new() }),
            inputs: vec![(a, fold(&a_shape))],
            weights: Vec::new(),
            outputs: vec![(result, fold(&shape))],
        };
        if b_is_weight {
            let (weight, transposed) = self.matrix(node, b_transposed)?;
            task.weights.push(weight);
            b_transposed = transposed;
        } else {
            task.inputs.push((b, if b_shape.len() == 2 { b_shape } else { fold(&b_shape) }));
        }
        let folded = fold(&shape);
        let epilogue = self.epilogue(chain, &folded, &mut task);
        task.kind = KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, epilogue });
        self.emit(node, task);
        Ok(())
    }

    fn attention(&mut self, node: &Node, chain: &Chain, scale: f64, causal: bool) -> Result<(), PlanError> {
        let result = self.graph.nodes[chain.last].output;
        let (made, stored) = (&self.graph.ty(node.output).shape, &self.graph.ty(result).shape);
        let operands: Vec<Strided> =
            (0..node.inputs.len()).map(|slot| Strided::of(self.graph, self.chains, self.layouts, node, slot)).collect();
        let mut dims = Dims::default();
        let last = |slot: usize, back: usize| {
            let shape = &self.graph.ty(node.inputs[slot]).shape;
            shape[shape.len() - back].clone()
        };
        let (Some(width), Some(values)) = (last(0, 1).as_const(), last(2, 1).as_const()) else {
            return Err(self.error(node, "the width of its heads is not known"));
        };
        let lead = [dims.size(&made[0]), dims.size(&made[1])];
        let rows = [dims.size(&last(0, 2)), dims.size(&last(1, 2))];
        // Row-major, with heads before or after rows.
        let (row, rest) = (&stored[3], &stored[2] * &stored[3]);
        let [head, row] = if chain.last == chain.anchor { [&rest, row] } else { [row, &rest] };
        let strides = [&stored[1] * &rest, head.clone(), row.clone(), Expr::one()];
        let output = View { offset: Size::Const(0), strides: strides.map(|stride| dims.size(&stride)) };
        let [query, key, value] = [0, 1, 2].map(|slot| operands[slot].view(&mut dims));
        let mut inputs: Vec<_> = operands.iter().map(|o| (o.base, self.graph.ty(o.base).shape.clone())).collect();
        let (mut weights, mut mask) = (Vec::new(), None);
        if let Some(operand) = operands.get(3) {
            let is_weight = matches!(self.graph.value(operand.base).def, Def::Weight(_));
            if is_weight {
                inputs.pop();
                weights.push(self.constant(node, operand.base, "mask")?);
            }
            mask = Some(Mask { is_weight, view: operand.view(&mut dims) });
        }
        let views = [query, key, value, output];
        let kind = KernelKind::Attention(AttentionSpec { lead, rows, widths: [width, values], scale, causal, views, mask });
        self.emit(node, Task { dims, kind, inputs, weights, outputs: vec![(result, stored.clone())] });
        Ok(())
    }

    fn pool(&mut self, node: &Node) -> Result<(), PlanError> {
        self.require_f32(node)?;
        let Op::Pool { op, window } = node.op else { return Err(self.error(node, "not a pooling")) };
        let shape_of = |id: ValueId| (id, self.graph.ty(id).shape.clone());
        let task = Task {
            dims: Dims::default(),
            kind: KernelKind::Pool(PoolSpec { op, window }),
            inputs: vec![shape_of(node.inputs[0])],
            weights: Vec::new(),
            outputs: vec![shape_of(node.output)],
        };
        self.emit(node, task);
        Ok(())
    }

    fn rows(&mut self, node: &Node) -> Result<(), PlanError> {
        self.require_f32(node)?;
        let shape = &self.graph.ty(node.output).shape;
        let rank = shape.len();
        let (spec, axes) = match node.op {
            Op::Softmax { axis } if axis + 1 == rank => (RowSpec::Softmax, 1),
            Op::LayerNorm { axes, eps } => (RowSpec::LayerNorm { eps, affine: node.inputs.len() > 1 }, axes),
            _ => return Err(self.error(node, "only the last axis is normalised; canonicalise moves others there")),
        };
        let mut weights = Vec::new();
        for (id, what) in node.inputs[1..].iter().zip(["scale", "shift"]) {
            weights.push(self.constant(node, *id, what)?);
        }
        let rows = vec![shape[..rank - axes].iter().product(), shape[rank - axes..].iter().product()];
        let task = Task {
            dims: Dims::default(),
            kind: KernelKind::Rows(spec),
            inputs: vec![(node.inputs[0], rows.clone())],
            weights,
            outputs: vec![(node.output, rows)],
        };
        self.emit(node, task);
        Ok(())
    }

    fn nest(&mut self, node: &Node, chain: Option<&Chain>) -> Result<(), PlanError> {
        let context = Context { graph: self.graph, layouts: self.layouts, forms: self.forms };
        let nest = Nest::build(context, node.output, chain).map_err(|why| self.error(node, why))?;
        let shape_of = |id: ValueId| (id, self.graph.ty(id).shape.clone());
        // Operands are collected once without sizes, so that the task's dims come in the order of its operands' shapes.
        let mut operands = Operands::default();
        nest.finish(&mut Dims::default(), &mut operands);
        let mut dims = Dims::default();
        let output = shape_of(node.output);
        let inputs: Vec<_> = operands.inputs.iter().map(|id| shape_of(*id)).collect();
        for size in output.1.iter().chain(inputs.iter().flat_map(|(_, shape)| shape)) {
            dims.size(size);
        }
        let mut weights = Vec::new();
        for id in &operands.weights {
            weights.push(self.constant(node, *id, "operand")?);
        }
        operands.narrow = operands.inputs.iter().copied().filter(|id| self.stored(*id) != self.graph.ty(*id).dtype).collect();
        let mut nest = nest.finish(&mut dims, &mut operands);
        let stored = self.stored(node.output);
        if stored != self.graph.ty(node.output).dtype {
            nest.value = Scalar::Cast(stored, Box::new(nest.value));
        }
        let kind = KernelKind::Loops(nest);
        self.emit(node, Task { dims, kind, inputs, weights, outputs: vec![output] });
        Ok(())
    }

    fn emit(&mut self, node: &Node, task: Task) {
        let Task { mut dims, kind, inputs, weights, outputs } = task;
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
        let key = format!("{spec:?} {:?}", dims.0);
        let spec = *self.specs.entry(key).or_insert_with(|| {
            self.plan.specs.push(spec);
            self.plan.specs.len() - 1
        });
        let inputs = inputs.iter().map(|(id, _)| self.buffer(*id)).collect();
        let outputs = outputs.iter().map(|(id, _)| self.buffer(*id)).collect();
        self.plan.steps.push(Step { label, spec, inputs, weights, outputs, dims: dims.0 });
    }
}

/// `conv 3x3/2 16x28x28 -> 32x14x14 +bias +relu (conv2d_3: …)`, without the batch.
fn label(spec: &KernelSpec, dims: &[Expr], node: &Node) -> String {
    let shape = |tensor: &TensorSpec| {
        let symbolic = |size: &Size| match size {
            Size::Const(n) => n.to_string(),
            Size::Dim(k) => dims.get(*k).map_or_else(|| format!("dim{k}"), ToString::to_string),
        };
        let skip = usize::from(tensor.shape.len() == 4);
        tensor.shape[skip..].iter().map(symbolic).collect::<Vec<_>>().join("x")
    };
    let tail = |steps: &[EpilogueStep]| {
        steps
            .iter()
            .map(|step| match step {
                EpilogueStep::Bias(_) => " +bias".into(),
                EpilogueStep::Residual(BinaryOp::Add, _) => " +residual".into(),
                EpilogueStep::Residual(op, _) => format!(" +{}(residual)", op.name()),
                EpilogueStep::Unary(UnaryOp::Clamp { low, high }) => format!(" +clamp({low}, {high})"),
                EpilogueStep::Unary(op) => format!(" +{}", op.name()),
            })
            .collect::<String>()
    };
    let operands = |tensors: &[TensorSpec]| tensors.iter().map(&shape).collect::<Vec<_>>().join(", ");
    let result = shape(&spec.outputs[0]);
    let what = match &spec.kind {
        KernelKind::Conv(conv) => {
            let [kh, kw] = conv.window.kernel;
            let [sh, sw] = conv.window.stride;
            let stride = if [sh, sw] == [1, 1] {
                String::new()
            } else if sh == sw {
                format!("/{sh}")
            } else {
                format!("/{sh}x{sw}")
            };
            let groups = if conv.groups == 1 { String::new() } else { format!(" groups {}", conv.groups) };
            let pool = conv.pool.map_or(String::new(), |p| format!(" +max pool {}x{}", p.window.kernel[0], p.window.kernel[1]));
            let branch = conv.branch.map_or(String::new(), |b| {
                format!(" +conv {}x{} of {}", b.window.kernel[0], b.window.kernel[1], shape(&spec.inputs[b.input]))
            });
            let gate = if conv.gate.is_some() { " gated" } else { "" };
            let mean = if conv.mean { " +mean" } else { "" };
            let (x, tail) = (shape(&spec.inputs[0]), tail(&conv.epilogue));
            format!("conv {kh}x{kw}{stride}{groups} {x}{gate} -> {result}{branch}{tail}{pool}{mean}")
        }
        KernelKind::MatMul(product) => {
            let b = if product.b_is_weight { &spec.weights[0] } else { &spec.inputs[1] };
            let t = if product.b_transposed { "ᵀ" } else { "" };
            format!("matmul {} * {}{t}{}", shape(&spec.inputs[0]), shape(b), tail(&product.epilogue))
        }
        KernelKind::Attention(attention) => {
            let size = |size: Size| match size {
                Size::Const(n) => n.to_string(),
                Size::Dim(k) => dims.get(k).map_or_else(|| format!("dim{k}"), ToString::to_string),
            };
            let AttentionSpec { lead: [_, heads], rows: [rows, keys], widths: [width, values], causal, mask, .. } = attention;
            let extra = [(*causal, " causal"), (mask.is_some(), " masked")].map(|(is, word)| if is { word } else { "" }).concat();
            format!("attention {}x{}x{width} over {}x{values}{extra}", size(*heads), size(*rows), size(*keys))
        }
        KernelKind::Pool(pool) => {
            let [kh, kw] = pool.window.kernel;
            let op = if pool.op == PoolOp::Max { "max pool" } else { "average pool" };
            format!("{op} {kh}x{kw} {} -> {result}", shape(&spec.inputs[0]))
        }
        KernelKind::Rows(RowSpec::Softmax) => format!("softmax {result}"),
        KernelKind::Rows(RowSpec::LayerNorm { .. }) => format!("layer norm {result}"),
        KernelKind::Loops(nest) => {
            let kind = if nest.reduction.is_some() { "reduction" } else { "loops" };
            format!("{kind} {} -> {result}", operands(&spec.inputs))
        }
    };
    format!("{what} ({})", node.source)
}
