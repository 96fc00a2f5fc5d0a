//! Runs on tensors in the memory of a GPU.

use std::ptr;

use aotfarm_protocol::{Port, Target};

use super::{RunError, RunErrorKind, Session, Tensors, dl_tensor, memory};
use crate::ffi::{DL_CUDA, DlDevice, DlTensor};
use crate::gpu::{DeviceTensor, Gpu, GpuError};

impl Session {
    /// Runs the model on tensors of the session's GPU; the outputs have the shapes that
    /// [`Session::device_outputs_for`] gives. It writes into those inputs whose ports say [`written`](Port::written).
    pub fn run_on_device(&mut self, inputs: &[DeviceTensor], outputs: &mut [DeviceTensor]) -> Result<(), RunError> {
        let (ins, outs) = (Tensors::new(inputs.iter().map(on_device)), Tensors::new(outputs.iter().map(on_device)));
        self.call(&ins, &outs, None)
    }

    /// The session's GPU, when the model is for one.
    pub fn gpu(&self) -> Result<Option<Gpu>, GpuError> {
        match self.model.metadata().target {
            Target::Cpu(_) => Ok(None),
            Target::Cuda { .. } => Gpu::open(self.device).map(Some),
        }
    }

    /// Zeroed outputs on the session's GPU of the shapes that these inputs lead to.
    pub fn device_outputs_for(&self, inputs: &[DeviceTensor]) -> Result<Vec<DeviceTensor>, RunError> {
        let gpu = match self.gpu() {
            Ok(Some(gpu)) => gpu,
            Ok(None) => {
                let message = format!("an artifact for {} has no tensors on a GPU", self.model.metadata().target);
                return Err(RunError { kind: RunErrorKind::Argument, message });
            }
            Err(error) => return Err(RunError { kind: RunErrorKind::System, message: error.to_string() }),
        };
        let new = |port: &Port, shape| DeviceTensor::zeros(&gpu, port.dtype, shape).map_err(|e| memory("output", port, &e));
        self.shapes(&Tensors::new(inputs.iter().map(on_device)), new)
    }
}

fn on_device(t: &DeviceTensor) -> DlTensor {
    let device = DlDevice { device_type: DL_CUDA, device_id: t.gpu().index() };
    dl_tensor(t.dtype(), t.shape(), device, ptr::with_exposed_provenance_mut(t.address() as usize))
}
