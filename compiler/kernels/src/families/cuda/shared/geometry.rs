//! What the GPU families need to know of a task.

use aotfarm_protocol::{DType, GridAxis, Target};
use minijinja::{Value, context};

use crate::family::Unsupported;
use crate::machine::Gpu;
use crate::printer::{Width, epilogue_c, epilogue_supported};
use crate::task::TuningTask;
use aotfarm_ir::Window;
use aotfarm_plan::spec::{EpilogueStep, KernelKind, KernelSpec, Layout, Math, PoolSpec, Size, TensorSpec};

/// Threads of a block of the naive kernels, unless they say another number.
pub const NAIVE_THREADS: u32 = 128;

/// The GPU that a task is for.
pub fn gpu(task: &TuningTask) -> Result<Gpu, Unsupported> {
    match task.target {
        Target::Cuda { sm } => Ok(Gpu::of(sm)),
        Target::Cpu(_) => Err(Unsupported(format!("no CUDA code for {}", task.target))),
    }
}

/// The C++ type of an element in memory; `None` for those that GPU convolutions and products do not
/// know.
pub fn element(dtype: DType) -> Result<&'static str, Unsupported> {
    match dtype {
        DType::F32 => Ok("float"),
        DType::Bf16 => Ok("aotk_bf16"),
        DType::F16 => Ok("aotk_f16"),
        other => Err(Unsupported(format!("an operand is {other}"))),
    }
}

/// A size as a C++ expression in a kernel.
pub fn size(size: Size) -> String {
    match size {
        Size::Const(n) => format!("((int64_t){n})"),
        Size::Dim(k) => format!("AOTK_DIM({k})"),
    }
}

/// As many blocks as it takes for `work` (the product of sizes and a constant) in pieces of `div`,
/// `times` each.
pub fn axis(times: i64, mul: i64, sizes: &[Size], div: i64) -> GridAxis {
    let mut axis = GridAxis { times, mul, dims: Vec::new(), div };
    for size in sizes {
        match size {
            Size::Const(n) => axis.mul = axis.mul.saturating_mul(*n),
            Size::Dim(k) => axis.dims.push(*k),
        }
    }
    axis
}

/// The fused steps as a template reads them: the expression `epilogue` in `x`, `bias<k>` and
/// `res<k>`, and the lists of those k.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epilogue {
    /// C++ expression of type float.
    pub text: String,
    /// Weights that are biases.
    pub biases: Vec<usize>,
    /// Inputs that are residuals.
    pub residuals: Vec<usize>,
}

impl Epilogue {
    /// Of steps that can be printed.
    pub fn of(steps: &[EpilogueStep]) -> Result<Self, Unsupported> {
        epilogue_supported(steps)?;
        let text = epilogue_c(steps, Width::Scalar, "x", |k| format!("bias{k}"), |k| format!("res{k}"));
        let (mut biases, mut residuals) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                EpilogueStep::Bias(k) if !biases.contains(k) => biases.push(*k),
                EpilogueStep::Residual(_, k) if !residuals.contains(k) => residuals.push(*k),
                _ => {}
            }
        }
        Ok(Self { text, biases, residuals })
    }
}

/// The C++ types of the inputs in memory, by which templates read residuals.
fn input_types(spec: &KernelSpec) -> Result<Vec<&'static str>, Unsupported> {
    spec.inputs.iter().map(|input| element(input.dtype)).collect()
}

/// One image of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Channels.
    pub c: i64,
    /// Channels in memory for NHWC, a multiple of 8; `None` for row-major NCHW.
    pub block: Option<i64>,
    /// Rows.
    pub h: i64,
    /// Columns.
    pub w: i64,
    /// Element type.
    pub dtype: DType,
}

impl Image {
    fn of(tensor: &TensorSpec) -> Result<Self, Unsupported> {
        let [_, Size::Const(c), Size::Const(h), Size::Const(w)] = tensor.shape[..] else {
            return Err(Unsupported("an image without constant channels, height and width".into()));
        };
        let block = match tensor.layout {
            Layout::Plain => None,
            Layout::Image { block, halo: [0, 0, 0, 0] } if i64::from(block) >= c => Some(i64::from(block)),
            Layout::Image { .. } => return Err(Unsupported("an image that is not NHWC".into())),
        };
        element(tensor.dtype)?;
        Ok(Self { c, block, h, w, dtype: tensor.dtype })
    }

    /// The place of an element, as a C++ expression of `n`, `c`, `y`, `x`.
    pub fn place(&self) -> String {
        let Self { c, h, w, .. } = self;
        match self.block {
            Some(block) => format!("((((int64_t)(n) * {h} + (y)) * {w} + (x)) * {block} + (c))"),
            None => format!("((((int64_t)(n) * {c} + (c)) * {h} + (y)) * {w} + (x))"),
        }
    }
}

/// An image and the filters over it: what a convolution sums.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Which input and which weight.
    pub operands: [usize; 2],
    /// The input.
    pub image: Image,
    /// The weight, as in [`Conv`].
    pub weight: [i64; 4],
    /// Geometry.
    pub window: Window,
}

impl Source {
    fn of(spec: &KernelSpec, operands: [usize; 2], window: Window) -> Result<Self, Unsupported> {
        let [input, weight] = operands;
        let (Some(input), Some(weight)) = (spec.inputs.get(input), spec.weights.get(weight)) else {
            return Err(Unsupported("an operand is missing".into()));
        };
        let [Size::Const(o), Size::Const(kh), Size::Const(kw), Size::Const(i)] = weight.shape[..] else {
            return Err(Unsupported("the weight has no constant size".into()));
        };
        element(weight.dtype)?;
        Ok(Self { operands, image: Image::of(input)?, weight: [o, kh, kw, i], window })
    }

    /// Pixels that a filter reads.
    pub fn taps(&self) -> i64 {
        self.weight[1] * self.weight[2]
    }

    /// What templates take of it.
    pub fn context(&self) -> Value {
        let Self { operands: [input, weight], image, weight: [_, kh, kw, wc], window } = self;
        context! {
            input, weight, place => image.place(),
            c => image.c, cp => image.block.unwrap_or(image.c), h => image.h, w => image.w,
            kh, kw, wc,
            sh => window.stride[0], sw => window.stride[1],
            dh => window.dilation[0], dw => window.dilation[1],
            ph => window.pad[0][0], pw => window.pad[1][0],
        }
    }
}

/// A convolution on a GPU.
#[derive(Debug, Clone)]
pub struct Conv {
    /// What it runs on.
    pub machine: Gpu,
    /// x.
    pub input: Image,
    /// What the convolution gives before pooling; equal to the task's output when there is none.
    pub output: Image,
    /// A pooling that follows, with what it gives.
    pub pool: Option<(PoolSpec, Image)>,
    /// Images.
    pub batch: Size,
    /// Geometry.
    pub window: Window,
    /// A second convolution, of one group and of operands of the same types, that is added before
    /// the fused steps.
    pub branch: Option<Source>,
    /// Channel groups.
    pub groups: i64,
    /// `[O, KH, KW, C/groups]`, the last one padded as in the input when that is NHWC and there is
    /// one group.
    pub weight: [i64; 4],
    /// Element type of the weight.
    pub weight_dtype: DType,
    /// How to multiply.
    pub math: Math,
    /// Fused steps.
    pub epilogue: Epilogue,
    /// The C++ types of the inputs in memory.
    pub input_types: Vec<&'static str>,
}

impl Conv {
    /// The task's convolution if it has no branch.
    pub fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let conv = Self::with_branch(task)?;
        if conv.branch.is_some() { Err(Unsupported("a second convolution is added".into())) } else { Ok(conv) }
    }

    /// The task's convolution.
    pub fn with_branch(task: &TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Conv(conv) = &task.spec.kind else { return Err(Unsupported("not a convolution".into())) };
        let machine = gpu(task)?;
        let spec = &task.spec;
        if conv.gate.is_some() || conv.mean {
            return Err(Unsupported("a gate or a mean, which only CPUs have".into()));
        }
        let Some(output) = spec.outputs.first() else { return Err(Unsupported("an operand is missing".into())) };
        let Source { image: input, weight, window, .. } = Source::of(spec, [0, 0], conv.window)?;
        let branch = conv.branch.map(|b| Source::of(spec, [b.input, b.weight], b.window)).transpose()?;
        let weight_dtype = spec.weights[0].dtype;
        if let Some(Source { operands: [_, weight], image, .. }) = branch
            && (image.dtype != input.dtype || spec.weights[weight].dtype != weight_dtype)
        {
            return Err(Unsupported("the second convolution is of another type".into()));
        }
        let (batch, stored) = (output.shape[0], Image::of(output)?);
        let mut result = stored;
        if conv.pool.is_some() {
            let out = |axis: usize, size: i64| {
                let [before, after] = window.pad[axis];
                (size + before + after - window.dilation[axis] * (window.kernel[axis] - 1) - 1).div_euclid(window.stride[axis])
                    + 1
            };
            (result.h, result.w) = (out(0, input.h), out(1, input.w));
        }
        Ok(Self {
            machine,
            input,
            output: result,
            pool: conv.pool.map(|pool| (pool, stored)),
            batch,
            window,
            branch,
            groups: conv.groups,
            weight,
            weight_dtype,
            math: spec.math,
            epilogue: Epilogue::of(&conv.epilogue)?,
            input_types: input_types(spec)?,
        })
    }

    /// Whether it is depthwise: one filter for each channel.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.input.c && self.groups == self.output.c && self.groups > 1
    }

    /// What is summed: the convolution, then its branch.
    pub fn sources(&self) -> Vec<Source> {
        let main = Source { operands: [0, 0], image: self.input, weight: self.weight, window: self.window };
        [main].into_iter().chain(self.branch).collect()
    }

    /// What every template of a convolution takes, as constants: what its first source has, and
    /// `sources`. `round_out`: results are rounded to tf32 as they are stored. `input_types`: the
    /// type of each input, as a residual can differ from the output.
    pub fn context(&self) -> Value {
        let o = self.weight[0];
        let sources: Vec<Value> = self.sources().iter().map(Source::context).collect();
        let element = |image: &Image| element(image.dtype).unwrap_or("float");
        context! {
            batch => size(self.batch),
            o => o, op => self.output.block.unwrap_or(o), oh => self.output.h, ow => self.output.w,
            groups => self.groups,
            in_t => element(&self.input), out_t => element(&self.output),
            weight_t => match self.weight_dtype { DType::Bf16 => "aotk_bf16", DType::F16 => "aotk_f16", _ => "float" },
            epilogue => &self.epilogue.text, biases => &self.epilogue.biases, residuals => &self.epilogue.residuals,
            input_types => &self.input_types,
            round_out => self.rounds_out(),
            sm => self.machine.sm,
            sources => &sources,
            ..sources[0].clone()
        }
    }

    /// Whether results are rounded to tf32: what the next convolution reads needs no rounding
    /// there.
    pub fn rounds_out(&self) -> bool {
        self.math == Math::Tf32 && self.output.block.is_some()
    }
}

/// A matrix product on a GPU, `[batch][m][k]` times `[batch][k][n]`, all row-major.
#[derive(Debug, Clone)]
pub struct Product {
    /// What it runs on.
    pub machine: Gpu,
    /// Leading sizes; none when b is a weight.
    pub batch: Vec<Size>,
    /// Rows of a.
    pub m: Size,
    /// Columns of b.
    pub n: Size,
    /// Columns of a, rows of b.
    pub k: Size,
    /// Whether b is `weight[0]`, not `in[1]`.
    pub b_is_weight: bool,
    /// Whether b is `[…, N, K]`.
    pub b_transposed: bool,
    /// Element types of a, b and the output.
    pub dtypes: [DType; 3],
    /// How to multiply.
    pub math: Math,
    /// Fused steps.
    pub epilogue: Epilogue,
    /// The C++ types of the inputs in memory.
    pub input_types: Vec<&'static str>,
}

impl Product {
    /// The task's product.
    pub fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::MatMul(matmul) = &task.spec.kind else { return Err(Unsupported("not a matrix product".into())) };
        let machine = gpu(task)?;
        let spec = &task.spec;
        let b = if matmul.b_is_weight { spec.weights.first() } else { spec.inputs.get(1) };
        let (Some(a), Some(b), Some(output)) = (spec.inputs.first(), b, spec.outputs.first()) else {
            return Err(Unsupported("an operand is missing".into()));
        };
        if [a, b, output].iter().any(|t| t.layout != Layout::Plain) {
            return Err(Unsupported("an operand is not row-major".into()));
        }
        let ([batch @ .., m, k], [.., n]) = (&a.shape[..], &output.shape[..]) else {
            return Err(Unsupported("a is not a matrix".into()));
        };
        let dtypes = [a, b, output].map(|t| t.dtype);
        for dtype in dtypes {
            element(dtype)?;
        }
        Ok(Self {
            machine,
            batch: batch.to_vec(),
            m: *m,
            n: *n,
            k: *k,
            b_is_weight: matmul.b_is_weight,
            b_transposed: matmul.b_transposed,
            dtypes,
            math: spec.math,
            epilogue: Epilogue::of(&matmul.epilogue)?,
            input_types: input_types(spec)?,
        })
    }

    /// What every template of a product takes.
    pub fn context(&self) -> Value {
        let [a_t, b_t, out_t] = self.dtypes.map(|dtype| element(dtype).unwrap_or("float"));
        context! {
            m => size(self.m), n => size(self.n), k => size(self.k),
            b_is_weight => self.b_is_weight, b_transposed => self.b_transposed,
            a_t, b_t, out_t,
            epilogue => &self.epilogue.text, biases => &self.epilogue.biases, residuals => &self.epilogue.residuals,
            input_types => &self.input_types,
            sm => self.machine.sm,
        }
    }
}
