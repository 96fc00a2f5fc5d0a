//! Values that can be kept as images.

use aotfarm_ir::{Graph, ValueId};
use aotfarm_protocol::DType;

/// Most channels that a convolution reads row-major, as a model's first one does: as an image they would be mostly padding.
pub(super) const FEW_CHANNELS: i64 = 4;

/// C, H and W of an f32 value of rank 4, when they are constant.
pub(super) fn image_size(graph: &Graph, id: ValueId) -> Option<[i64; 3]> {
    let ty = graph.ty(id);
    match ty.shape.as_slice() {
        [_, c, h, w] if ty.dtype == DType::F32 => Some([c.as_const()?, h.as_const()?, w.as_const()?]),
        _ => None,
    }
}
