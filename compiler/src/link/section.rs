//! The weights: one blob of raw bytes that is the same for every selection, and the section that the artifact's kernels read.

use std::collections::HashMap;

use aotfarm_protocol::{CopyStep, PackStep, Params, Target};

use super::error::{LinkError, MAX_SECTION};
use aotfarm_kernels::{Candidate, FamilyId};
use aotfarm_plan::{Plan, PlanWeight, WeightId};

/// Weights of a CPU artifact start on multiples of this, and kernels may read as many bytes past their end.
const CPU_ALIGN: u64 = 64;
/// The same of a GPU's.
const GPU_ALIGN: u64 = 256;

/// What the section is made of.
pub(super) struct Contents {
    pub(super) bytes: u64,
    pub(super) packs: Vec<PackStep>,
    pub(super) copies: Vec<CopyStep>,
}

/// The section under construction. What is equal is stored once.
pub(super) struct Section<'a> {
    weights: &'a [PlanWeight],
    align: u64,
    /// `(offset, bytes)` of each weight in the blob.
    blob: Vec<(u64, u64)>,
    contents: Contents,
    raw: HashMap<WeightId, u64>,
    packed: HashMap<(Vec<WeightId>, FamilyId, Params, u64), u64>,
}

impl<'a> Section<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let weights = plan.weights.as_slice();
        let align = if matches!(plan.target, Target::Cuda { .. }) { GPU_ALIGN } else { CPU_ALIGN };
        let mut end = 0;
        let blob = weights
            .iter()
            .map(|weight| {
                let (from, bytes) = (end, weight.data.bytes().len() as u64);
                end = (from + bytes).next_multiple_of(CPU_ALIGN);
                (from, bytes)
            })
            .collect();
        let contents = Contents { bytes: 0, packs: Vec::new(), copies: Vec::new() };
        Self { weights, align, blob, contents, raw: HashMap::new(), packed: HashMap::new() }
    }

    /// Offset of the raw weight.
    pub(super) fn raw(&mut self, id: WeightId) -> Result<u64, LinkError> {
        let (from, bytes) = self.in_blob(id)?;
        if let Some(offset) = self.raw.get(&id) {
            return Ok(*offset);
        }
        let to = self.reserve(bytes)?;
        self.contents.copies.push(CopyStep { from, to, bytes });
        self.raw.insert(id, to);
        Ok(to)
    }

    /// Offset of what the candidate's pack function makes of the weights. Steps and tuned points that pack the same share it.
    pub(super) fn packed(&mut self, ids: &[WeightId], candidate: &Candidate) -> Result<u64, LinkError> {
        let inputs = ids.iter().map(|id| self.in_blob(*id)).collect::<Result<_, _>>()?;
        let key = (ids.to_vec(), candidate.family, candidate.packing.clone(), candidate.needs.packed);
        if let Some(offset) = self.packed.get(&key) {
            return Ok(*offset);
        }
        let bytes = candidate.needs.packed;
        let offset = self.reserve(bytes)?;
        self.contents.packs.push(PackStep {
            source: candidate.unit,
            symbol: candidate.source.symbol.clone(),
            tune: candidate.tune.clone(),
            inputs,
            offset,
            bytes,
        });
        self.packed.insert(key, offset);
        Ok(offset)
    }

    /// On multiples of this weights start, and as many bytes may be read past their end.
    pub(super) fn align(&self) -> u64 {
        self.align
    }

    /// Bytes of a raw weight.
    pub(super) fn bytes_of(&self, id: WeightId) -> Result<u64, LinkError> {
        self.in_blob(id).map(|(_, bytes)| bytes)
    }

    fn in_blob(&self, id: WeightId) -> Result<(u64, u64), LinkError> {
        self.blob.get(id.0 as usize).copied().ok_or_else(|| LinkError::Plan(format!("weight {} does not exist", id.0)))
    }

    fn reserve(&mut self, bytes: u64) -> Result<u64, LinkError> {
        let offset = self.contents.bytes;
        let end = offset
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(self.align))
            .and_then(|end| end.checked_add(self.align));
        self.contents.bytes =
            end.filter(|end| *end <= MAX_SECTION).ok_or(LinkError::TooManyWeights { bytes: end.unwrap_or(u64::MAX) })?;
        Ok(offset)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.contents.bytes
    }

    /// The blob and the contents.
    pub(super) fn finish(self) -> Result<(Vec<u8>, Contents), LinkError> {
        let mut blob = Vec::with_capacity(self.blob.last().map_or(0, |(from, bytes)| from + bytes) as usize);
        for (weight, (from, bytes)) in self.weights.iter().zip(&self.blob) {
            let elements = weight.shape.iter().try_fold(weight.dtype.size() as i64, |n, size| n.checked_mul(*size));
            if elements.and_then(|n| u64::try_from(n).ok()) != Some(*bytes) {
                return Err(LinkError::Plan(format!(
                    "weight `{}` has {bytes} bytes, but is {} of shape {:?}",
                    weight.name, weight.dtype, weight.shape
                )));
            }
            blob.resize(*from as usize, 0);
            blob.extend_from_slice(weight.data.bytes());
        }
        Ok((blob, self.contents))
    }
}
