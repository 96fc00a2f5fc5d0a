//! Plan + Selection + weights → the inputs of a Link item.
//!
//! An artifact is `glue` + kernel objects (cubins for a GPU) + one section of weights. This module writes the glue, a self-contained C file: the
//! C ABI, the session runtime ([`source`](aotfarm_abi::artifact::source)), and the tables of
//! this plan. It also lays out the weight section. The recipe that makes a `.so` of these is the contract of [`aotfarm_protocol::LinkSpec`]; workers follow it
//! without knowing anything of this crate.
//!
//! What the glue holds:
//! * `glue_values`: every size that the artifact needs at run time (dimensions, buffer lengths, kernel dims), computed from the
//!   symbolic dimensions by the canonical expressions of the plan. Tables refer to sizes by their index in it.
//! * for each step one kernel per tuned point; at run time the nearest point wins, by the product of the ratios of the dimensions. On a GPU a
//!   kernel is a function of a cubin, and a launch whose grid is computed from the sizes.
//! * offsets into `aotfarm_weights`, the section that the worker fills by [`Linkage::copies`] and [`Linkage::packs`].
//!
//! The text depends only on the arguments: the same plan, choices and info give the same bytes.

use aotfarm_protocol::{ArtifactMetadata, CopyStep, Digest, PackStep};

use aotfarm_kernels::FAMILIES;
use aotfarm_plan::Plan;

pub use self::choice::SpecChoice;
pub use self::error::LinkError;

use self::choice::NeedsOf;

mod arrays;
mod choice;
mod error;
mod glue;
mod ports;
mod section;
mod states;
mod steps;
mod values;
mod vendor;

/// What an artifact tells of its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactInfo {
    /// Digest of the graph.
    pub graph: Digest,
    /// Version of the compiler.
    pub compiler: String,
    /// Why its kernels were not measured on a device of the target, if they were not.
    pub untested: Option<String>,
}

/// All that a Link item needs, but for the objects' digests.
#[derive(Debug, Clone)]
pub struct Linkage {
    /// The glue: one self-contained C translation unit.
    pub glue: String,
    /// The raw weights, one blob. It depends on the plan alone.
    pub weights: Vec<u8>,
    /// The kernel units whose objects are linked, in order.
    pub units: Vec<Digest>,
    /// Bytes of the weight section.
    pub section_bytes: u64,
    /// Weights that kernels read packed.
    pub packs: Vec<PackStep>,
    /// Weights that kernels read raw.
    pub copies: Vec<CopyStep>,
    /// What the artifact's `metadata` says.
    pub metadata: ArtifactMetadata,
}

/// The digest of the recipe by which workers make a `.so` of a [`Linkage`]: a part of every Link item.
pub fn recipe() -> Digest {
    Digest::from_sha256(aotfarm_abi::link::digest())
}

/// Makes the inputs of the Link item of `plan` with the selected kernels.
pub fn link(plan: &Plan, choices: &[SpecChoice], info: &ArtifactInfo) -> Result<Linkage, LinkError> {
    link_with(plan, choices, info, &|task, candidate, dims| {
        let family = FAMILIES.iter().find(|family| family.id() == candidate.family);
        family.map(|family| family.needs(task, &candidate.params, dims))
    })
}

fn link_with(plan: &Plan, choices: &[SpecChoice], info: &ArtifactInfo, needs: &NeedsOf<'_>) -> Result<Linkage, LinkError> {
    let mut values = values::Values::new(plan.graph_dims());
    let mut section = section::Section::new(plan);
    let ports = ports::Ports::new(plan, &mut values)?;
    let steps = steps::Steps::new(plan, choices, needs, &mut values, &mut section)?;
    let states = states::States::new(plan, &mut section)?;
    let metadata = ArtifactMetadata {
        target: plan.target,
        graph: info.graph,
        compiler: info.compiler.clone(),
        precision: plan.precision,
        untested: info.untested.clone(),
        dims: plan.dims.clone(),
        inputs: plan.inputs.clone(),
        outputs: plan.outputs.clone(),
        states: plan.states.iter().map(|state| state.port.clone()).collect(),
        signature: plan.signature.clone(),
        libraries: steps.libraries(),
        steps: steps.info.clone(),
        segments: plan.segments.clone(),
    };
    let glue = glue::print(plan, &values, &ports, &steps, &states, section.bytes(), &metadata)?;
    let (weights, section) = section.finish()?;
    Ok(Linkage {
        glue,
        weights,
        units: steps.units,
        section_bytes: section.bytes,
        packs: section.packs,
        copies: section.copies,
        metadata,
    })
}

#[cfg(test)]
mod tests;
