//! What is known of the host's GPUs without the feature `cuda`: nothing.

use aotfarm_protocol::Target;

/// The CUDA targets whose code this host's GPUs can run: none that is known.
pub fn gpu_targets() -> Vec<Target> {
    Vec::new()
}

/// Why no GPU of this host is known to run code for a compute capability; completes "this host …".
pub(crate) fn why_not(_sm: u32) -> Option<String> {
    Some("is not known to have an NVIDIA GPU, because this program was built without the feature `cuda`".to_owned())
}
