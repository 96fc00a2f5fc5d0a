//! A model with what others computed of it, and the comparison with that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aotfarm_compiler::import;
use aotfarm_compiler::interp::{self, Case, Tensor};
use aotfarm_compiler::ir::{Bindings, Graph};
use aotfarm_protocol::DType;

/// What came of judging a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// All outputs of all cases are as they should be.
    Right,
    /// The importer or the lowering says why not.
    Refused(String),
    /// An output is not what it should be, or there is none.
    Wrong(String),
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Refused(_) => "refused",
            Self::Wrong(_) => "wrong",
        }
    }

    pub fn what(&self) -> &str {
        match self {
            Self::Right => "",
            Self::Refused(what) | Self::Wrong(what) => what,
        }
    }
}

/// A verdict on a folder.
#[derive(Debug, Clone)]
pub struct Judged {
    pub folder: PathBuf,
    pub verdict: Verdict,
}

/// The model of a folder.
pub fn model(folder: &Path) -> Option<PathBuf> {
    ["model.pt2", "model.onnx", "model.graph"].map(|name| folder.join(name)).into_iter().find(|path| path.exists())
}

/// Inputs, and what comes of them.
pub struct Expectation {
    pub case: Case,
    /// The outputs as float64 computes them.
    exact: Option<Vec<Tensor>>,
    rtol: Option<f64>,
}

/// A model with its cases.
pub struct Pair {
    pub folder: PathBuf,
    pub graph: Graph,
    pub expectations: Vec<Expectation>,
    /// The sizes of the symbolic dimensions in each case.
    bindings: Vec<Bindings>,
}

impl Pair {
    /// Reads the files of a folder and imports the model.
    pub fn read(folder: &Path, rtol: Option<f64>) -> Result<Self, Verdict> {
        let broken = |what: String| Verdict::Wrong(format!("the folder cannot be used: {what}"));
        let path = model(folder).ok_or_else(|| broken("it holds no model".to_owned()))?;
        let bytes = fs::read(&path).map_err(|e| broken(e.to_string()))?;
        let graph = import::load(Arc::new(bytes), &path.to_string_lossy()).map_err(|e| Verdict::Refused(e.to_string()))?;
        let mut expectations = Vec::new();
        let entries = fs::read_dir(folder).map_err(|e| broken(e.to_string()))?;
        let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        for suffix in names.iter().filter_map(|name| name.strip_prefix("case")) {
            let read = |name: String| -> Result<Case, Verdict> {
                let bytes = fs::read(folder.join(&name)).map_err(|e| broken(format!("{name}: {e}")))?;
                Case::read(&bytes).map_err(|e| broken(format!("{name}: {e}")))
            };
            let exact = format!("exact{suffix}");
            let exact = names.contains(&exact).then(|| read(exact)).transpose()?.map(|case| case.outputs);
            expectations.push(Expectation { case: read(format!("case{suffix}"))?, exact, rtol });
        }
        Ok(Self { folder: folder.to_owned(), graph, expectations, bindings: Vec::new() })
    }

    /// Runs all cases by the interpreter, each in a fresh session.
    pub fn interpreted(mut self) -> Result<Self, Verdict> {
        for expectation in &self.expectations {
            let failed = |e: interp::InterpError| Verdict::Wrong(format!("interpreter: {e}"));
            self.bindings.push(interp::bind(&self.graph, &expectation.case.inputs).map_err(failed)?);
            let outputs = interp::run(&self.graph, &expectation.case.inputs).map_err(failed)?;
            expectation.compare(&outputs).map_err(|what| Verdict::Wrong(format!("interpreter: {what}")))?;
        }
        Ok(self)
    }

    /// What models must have in common to be joined: the symbolic dimensions, and their sizes in each case.
    pub fn sizes(&self) -> String {
        format!("{:?} {:?}", self.graph.dims, self.bindings)
    }
}

impl Expectation {
    /// Says what is wrong with the outputs, if anything is.
    pub fn compare(&self, outputs: &[Tensor]) -> Result<(), String> {
        let wanted = &self.case.outputs;
        if outputs.len() != wanted.len() {
            return Err(format!("{} outputs, not {}", outputs.len(), wanted.len()));
        }
        for (at, (ours, wanted)) in outputs.iter().zip(wanted).enumerate() {
            let exact = self.exact.as_ref().and_then(|exact| exact.get(at)).filter(|exact| exact.dtype.is_float());
            compare(ours, wanted, exact, self.rtol).map_err(|what| format!("output {at}: {what}"))?;
        }
        Ok(())
    }
}

/// The spacing of numbers near 1.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 2f64.powi(-7),
        DType::F16 => 2f64.powi(-10),
        DType::F32 => 2f64.powi(-23),
        _ => 2f64.powi(-52),
    }
}

/// The largest number, below which a float64 has a counterpart.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::F64 => f64::MAX,
        _ => f32::MAX.into(),
    }
}

/// The smallest normal number; half-precision sums are held in f32, whose kernels may flush what is below.
fn smallest(dtype: DType) -> f64 {
    if dtype == DType::F16 { 2f64.powi(-14) } else { f32::MIN_POSITIVE.into() }
}

/// Roundings that a result may be off beside what torch is. Half-precision numbers are computed in f32 and rounded once.
fn roundings(dtype: DType) -> f64 {
    if dtype == DType::F32 || dtype == DType::F64 { 16.0 } else { 2.0 }
}

/// Integers are equal. A float is as torch has it, or no further from the exact value than twice torch's own error (at this element,
/// and over all elements on average), plus roundings of this element and of one of average size, or 1 where that is larger. Without
/// exact values torch's stand for them. With `rtol` that alone decides.
fn compare(ours: &Tensor, wanted: &Tensor, exact: Option<&Tensor>, rtol: Option<f64>) -> Result<(), String> {
    if (ours.dtype, &ours.shape) != (wanted.dtype, &wanted.shape) {
        return Err(format!("is {}{:?}, not {}{:?}", ours.dtype, ours.shape, wanted.dtype, wanted.shape));
    }
    let (dtype, values, torch) = (ours.dtype, ours.to_f64(), wanted.to_f64());
    let exact = exact.map_or_else(|| torch.clone(), Tensor::to_f64);
    let wrong = |at: usize| format!("element {at} of {}{:?} is {:e}, not {:e}", dtype, ours.shape, values[at], exact[at]);
    if !dtype.is_float() {
        let size = dtype.size();
        let at = ours.data.chunks(size).zip(wanted.data.chunks(size)).position(|(a, b)| a != b);
        return at
            .map_or(Ok(()), |at| Err(format!("element {at} of {}{:?} is {}, not {}", dtype, ours.shape, values[at], torch[at])));
    }
    let errors: Vec<f64> =
        torch.iter().zip(&exact).map(|(t, e)| (t - e).abs()).map(|e| if e.is_finite() { e } else { 0.0 }).collect();
    let mean = |values: &[f64]| (values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64).sqrt();
    let (error, size) = (mean(&errors), mean(&exact).min(1.0));
    let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    let right = |at: usize| {
        if let Some(rtol) = rtol {
            return same(values[at], torch[at]) || (values[at] - torch[at]).abs() <= rtol * torch[at].abs() + 1e-7;
        }
        let rounding = roundings(dtype) * epsilon(dtype) * (exact[at].abs() + size) + smallest(dtype);
        same(values[at], torch[at])
            || (values[at] - exact[at]).abs() <= 2.0 * (errors[at] + error) + rounding
            || values[at].is_infinite() && exact[at].abs() > largest(dtype) && values[at].signum() == exact[at].signum()
    };
    (0..values.len()).find(|at| !right(*at)).map_or(Ok(()), |at| Err(wrong(at)))
}
