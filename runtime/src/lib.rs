//! Loads artifacts and runs them: a safe layer over the C ABI of `abi/include/aotfarm.h`.
//!
//! ```no_run
//! use aotfarm_runtime::{Model, Session, Tensor};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("resnet18.so".as_ref())?;
//! let mut session = Session::new(&model, 0)?;
//! let image = Tensor::from_f32(vec![1, 3, 224, 224], &vec![0.5; 3 * 224 * 224])?;
//! let outputs = session.run(&[image.view()])?;
//! println!("{:?}", outputs[0].shape());
//! # Ok(())
//! # }
//! ```
//!
//! The feature `cuda` adds what the host itself knows of its GPUs: which there are, and tensors in
//! their memory.

mod bench;
mod compare;
mod ffi;
#[cfg(feature = "cuda")]
mod gpu;
mod host;
mod model;
#[cfg(not(feature = "cuda"))]
mod no_gpu;
mod session;
mod tensor;

pub use bench::bench;
pub use compare::{Difference, Mismatch, Worst, compare};
#[cfg(feature = "cuda")]
pub use gpu::{DeviceTensor, Gpu, GpuError, gpu_architectures, gpu_targets};
pub use host::{all_targets, host_targets, why_not};
pub use model::{LoadError, Model};
#[cfg(not(feature = "cuda"))]
pub use no_gpu::gpu_targets;
pub use session::{RunError, RunErrorKind, Session, SessionOptions, StepResult};
pub use tensor::{Tensor, TensorError, TensorRef};

/// The C header that artifacts implement, as text.
pub use aotfarm_abi::artifact::AOTFARM_H;
