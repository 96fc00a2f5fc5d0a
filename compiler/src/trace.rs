//! What the steps of an artifact should have written: which values of its model they hold, how those lie there, and what the
//! reference interpreter makes of them.

use std::collections::HashMap;

use aotfarm_ir::interp::{self, InterpError, Tensor};
use aotfarm_ir::{Graph, ValueId};
use aotfarm_plan::passes::{self, PassError};
use aotfarm_plan::{Plan, PlanError, lower};
use aotfarm_protocol::{ArtifactMetadata, DType};

use crate::ranges::{RangeError, with_ranges};

/// Why an artifact cannot be traced by a graph.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The graph does not have the artifact's dimensions.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The passes failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph cannot be lowered.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The interpreter cannot run it on these inputs.
    #[error(transparent)]
    Interp(#[from] InterpError),
    /// The graph has another plan than the artifact.
    #[error("the model leads to {planned}, and the artifact, of compiler {compiler}, has {found}")]
    OtherPlan {
        /// Steps, or the first that is another.
        planned: String,
        /// Likewise.
        found: String,
        /// The compiler of the artifact.
        compiler: String,
    },
    /// A result does not have the bytes that the plan says.
    #[error("step `{step}` wrote {got} bytes, and the plan says {expected}")]
    Bytes {
        /// The step's label.
        step: String,
        /// As the artifact tells.
        got: usize,
        /// As planned.
        expected: usize,
    },
}

/// The plan of an artifact, with the values of its model that the steps hold.
pub struct Trace {
    plan: Plan,
    held: HashMap<String, Held>,
}

/// A value that a step holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its name in the graph.
    pub name: String,
    /// The name of the exporter's node that gives it, when it is what that node gives and not a part of how it is computed.
    pub export: Option<String>,
    /// The node that it comes from: `conv2d_3: aten.conv2d.default`.
    pub source: String,
    /// What the reference interpreter makes of it.
    pub reference: Tensor,
}

impl Trace {
    /// The trace of the artifact with this metadata, which was compiled from `graph`, on these inputs.
    ///
    /// # Errors
    /// When the graph leads to another plan, or cannot be interpreted on the inputs.
    pub fn new(graph: Graph, metadata: &ArtifactMetadata, inputs: &[Tensor]) -> Result<Self, TraceError> {
        let graph = with_ranges(graph, &metadata.dims)?;
        let passed = passes::run(graph.clone(), None)?;
        let plan = lower(passed.clone(), metadata.target, metadata.precision)?;
        let labels = |a: &dyn ToString, b: &dyn ToString| TraceError::OtherPlan {
            planned: a.to_string(),
            found: b.to_string(),
            compiler: metadata.compiler.clone(),
        };
        if plan.steps.len() != metadata.steps.len() {
            let count = |n: usize| format!("{n} steps");
            return Err(labels(&count(plan.steps.len()), &count(metadata.steps.len())));
        }
        if let Some((own, theirs)) = plan.steps.iter().zip(&metadata.steps).find(|(own, theirs)| own.label != theirs.label) {
            return Err(labels(&format!("the step `{}`", own.label), &format!("`{}`", theirs.label)));
        }
        let mut names: Vec<&String> = plan.steps.iter().flat_map(|step| &step.values).collect();
        let mut held: HashMap<String, Held> = values(&graph, &names, inputs)?.into_iter().collect();
        // What only the passes have made, they say themselves; what lowering splits attention into has the names that this gives it.
        names.retain(|name| !held.contains_key(name.as_str()));
        if !names.is_empty() {
            let split = passes::decompose_attention(passed, |_, _| false)?;
            held.extend(values(&split, &names, inputs)?);
        }
        let exports = exported(&graph);
        for value in held.values_mut() {
            value.export = exports.get(value.name.as_str()).map(|name| (*name).to_owned());
        }
        Ok(Self { plan, held })
    }

    /// The label of a step.
    pub fn label(&self, step: usize) -> &str {
        &self.plan.steps[step].label
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.plan.steps.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.plan.steps.is_empty()
    }

    /// The value that an output of a step holds; `None` of what kernels have in another order than the model.
    pub fn held(&self, step: usize, output: usize) -> Option<&Held> {
        self.held.get(self.plan.steps.get(step)?.values.get(output)?)
    }

    /// The elements of an output's buffer, in row-major order of the value, as bytes of its type `dtype`. Of a step that was called for
    /// some images, `dims` and `bytes` are of those, and so are the elements.
    ///
    /// # Errors
    /// When the buffer is of another size than the plan says.
    pub fn elements(
        &self,
        (step, output): (usize, usize),
        dims: &[i64],
        bytes: &[u8],
        dtype: DType,
    ) -> Result<Vec<u8>, TraceError> {
        let planned = &self.plan.steps[step];
        let spec = &self.plan.specs[planned.spec].outputs[output];
        let size = spec.dtype.size();
        let expected = if dims.len() == planned.dims.len() { spec.len_at(dims).unsigned_abs() as usize * size } else { 0 };
        if bytes.len() != expected {
            return Err(TraceError::Bytes { step: planned.label.clone(), got: bytes.len(), expected });
        }
        let data: Vec<u8> = spec.places_at(dims).into_iter().flat_map(|at| &bytes[at * size..(at + 1) * size]).copied().collect();
        // Only f32 is stored as something else: as what a GPU multiplies.
        if spec.dtype == dtype || dtype != DType::F32 {
            return Ok(data);
        }
        let narrow = Tensor { dtype: spec.dtype, shape: Vec::new(), data };
        Ok(narrow.to_f32().into_iter().flat_map(f32::to_le_bytes).collect())
    }
}

/// The values of a graph that have one of `names`, as the interpreter computes them.
fn values(graph: &Graph, names: &[&String], inputs: &[Tensor]) -> Result<Vec<(String, Held)>, TraceError> {
    let by_name: HashMap<&str, usize> =
        graph.nodes.iter().enumerate().map(|(n, node)| (graph.value(node.output).name.as_str(), n)).collect();
    let found: Vec<usize> = names.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect();
    let ids: Vec<ValueId> = found.iter().map(|n| graph.nodes[*n].output).collect();
    // With them as outputs the interpreter keeps them.
    let results = interp::run(&Graph { outputs: ids, ..graph.clone() }, inputs)?;
    let held = |(n, reference): (usize, Tensor)| {
        let node = &graph.nodes[n];
        let name = graph.value(node.output).name.clone();
        (name.clone(), Held { name, export: None, source: node.source.clone(), reference })
    };
    Ok(found.into_iter().zip(results).map(held).collect())
}

/// By value, the name of the exporter's node that gives it: the last of those that a node was imported to.
fn exported(graph: &Graph) -> HashMap<&str, &str> {
    let mut last: HashMap<&str, &str> = HashMap::new();
    for node in &graph.nodes {
        if let Some((name, _)) = node.source.split_once(':') {
            last.insert(name, &graph.value(node.output).name);
        }
    }
    last.into_iter().map(|(export, value)| (value, export)).collect()
}
