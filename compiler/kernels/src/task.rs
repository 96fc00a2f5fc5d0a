//! TuningTasks: one kernel spec at given sizes for a target. Equal work in other models is the same task.

use std::collections::BTreeMap;

use aotfarm_ir::canonical::Canonical as _;
use aotfarm_ir::{Bindings, EvalError};
use aotfarm_plan::Plan;
use aotfarm_plan::spec::{ConvSpec, KernelKind, KernelSpec, MatMulSpec, TensorSpec};
use aotfarm_protocol::{Digest, KeyHasher, Likeness, Target, TaskKey};

/// A KernelSpec with a target and the sizes to tune at.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningTask {
    /// The computation.
    pub spec: KernelSpec,
    /// What code is made for.
    pub target: Target,
    /// The values of `dim[..]`.
    pub point: Vec<i64>,
}

/// A TuningTask of a plan at one point.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTask {
    /// Index into [`Plan::specs`].
    pub spec: usize,
    /// The spec with its target and the sizes to tune at.
    pub task: TuningTask,
    /// How many steps compute it.
    pub calls: u32,
}

/// The tasks of a plan at a point, one for each spec in order. A spec without dims gives the same task at every point.
///
/// # Errors
/// When a size of the plan cannot be computed at the point.
pub fn tasks(plan: &Plan, point: &Bindings) -> Result<Vec<PlannedTask>, EvalError> {
    let mut tasks: BTreeMap<usize, PlannedTask> = BTreeMap::new();
    for step in &plan.steps {
        if let Some(known) = tasks.get_mut(&step.spec) {
            known.calls += 1;
            continue;
        }
        let point = step.dims.iter().map(|d| d.eval(point)).collect::<Result<_, _>>()?;
        let task = TuningTask { spec: plan.specs[step.spec].clone(), target: plan.target, point };
        tasks.insert(step.spec, PlannedTask { spec: step.spec, task, calls: 1 });
    }
    Ok(tasks.into_values().collect())
}

impl TuningTask {
    /// The key that TuningRecords are filed under: a digest of the canonical text of all fields.
    pub fn key(&self) -> TaskKey {
        let key = KeyHasher::new("task").field(self.spec.canonical()).field(self.target.to_string());
        TaskKey(key.field(self.point.canonical()).finish())
    }
}

impl TuningTask {
    /// The core computation: what tasks have in common whose kernels differ only in the fused steps and the halos. What is fast for one is fast for the other.
    /// `None` for kinds in which the fused steps are most of the work.
    pub fn core(&self) -> Option<Digest> {
        let spec = &self.spec;
        let main = match &spec.kind {
            KernelKind::Conv(conv) => {
                let ConvSpec { window, groups, epilogue: _, pool, branch, gate, mean } = conv;
                let parts = [window.canonical(), groups.to_string(), pool.canonical(), branch.canonical()];
                format!("conv {} {} {mean}", parts.join(" "), gate.is_some())
            }
            KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, .. }) => format!("matmul {b_is_weight} {b_transposed}"),
            KernelKind::Attention(_) | KernelKind::Pool(_) | KernelKind::Rows(_) | KernelKind::Loops(_) => return None,
        };
        let shapes: Vec<String> = self.multiplied().map(|t| format!("{} {}", t.dtype.canonical(), t.shape.canonical())).collect();
        let key = KeyHasher::new("kin").field(main).list(shapes).field(self.target.to_string());
        Some(key.field(spec.math.canonical()).field(self.point.canonical()).finish())
    }

    /// What it is like: `None` for kinds without [core](Self::core).
    pub fn likeness(&self) -> Option<Likeness> {
        let spec = &self.spec;
        let class = match &spec.kind {
            KernelKind::Conv(conv) => {
                // A group with one channel is another kernel than a dense convolution; how many there are is a size.
                let channels = spec.weights.first().and_then(|w| w.shape.get(1)).map(|c| c.at(&self.point));
                let groups = format!("({}, {})", conv.groups > 1, channels == Some(1));
                let branch = conv.branch.map(|b| b.window);
                let parts = [conv.window.canonical(), groups, conv.pool.canonical(), branch.canonical()];
                format!("conv {} {} {}", parts.join(" "), conv.gate.is_some(), conv.mean)
            }
            KernelKind::MatMul(MatMulSpec { b_is_weight, b_transposed, .. }) => format!("matmul {b_is_weight} {b_transposed}"),
            KernelKind::Attention(_) | KernelKind::Pool(_) | KernelKind::Rows(_) | KernelKind::Loops(_) => return None,
        };
        let types: Vec<String> = self.multiplied().map(|t| format!("{} {}", t.dtype.canonical(), t.shape.len())).collect();
        let class = KeyHasher::new("likeness").field(class).list(types).field(self.target.to_string());
        let sizes = self.multiplied().flat_map(|t| t.shape.iter().map(|size| size.at(&self.point))).collect();
        Some(Likeness { class: class.field(spec.math.canonical()).finish(), sizes })
    }

    /// The operands that are multiplied, and what comes out.
    fn multiplied(&self) -> impl Iterator<Item = &TensorSpec> {
        let factors = match &self.spec.kind {
            KernelKind::Conv(ConvSpec { branch: Some(_), .. }) => 2,
            _ => 1,
        };
        self.spec.inputs.iter().take(factors).chain(self.spec.weights.iter().take(factors)).chain(&self.spec.outputs)
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_plan::{lower, passes};
    use aotfarm_protocol::{CpuIsa, Precision};

    use super::*;

    #[test]
    fn every_spec_of_a_plan_is_one_task_and_every_step_a_call() {
        let graph = passes::run(aotfarm_ir::example("mobilenet_v2").expect("an example"), None).expect("passes");
        let plan = lower(graph, Target::Cpu(CpuIsa::X86_64V3), Precision::Fp32).expect("a plan");
        let tasks = tasks(&plan, &plan.tune_points(&[3])[0]).expect("sizes");
        assert_eq!(tasks.len(), plan.specs.len());
        assert_eq!(tasks.iter().map(|t| t.calls as usize).sum::<usize>(), plan.steps.len());
        assert!(tasks.iter().all(|t| t.task.point.len() == t.task.spec.dims));
    }
}
