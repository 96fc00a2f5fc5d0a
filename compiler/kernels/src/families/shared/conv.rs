//! What the convolution families need to know of a task: sizes, layouts, fused steps.

use aotfarm_protocol::{DType, Target};

use super::points::div_up;
use crate::family::Unsupported;
use crate::machine::Cpu;
use crate::printer::{Width, epilogue_c, epilogue_supported};
use crate::render;
use crate::task::TuningTask;
use aotfarm_ir::{PoolOp, Window};
use aotfarm_plan::spec::{ConvSpec, EpilogueStep, KernelKind, Layout, PoolSpec, Size, TensorSpec};

/// A blocked image: static size and halo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    pub channels: i64,
    pub height: i64,
    pub width: i64,
    pub block: i64,
    /// Top, bottom, left, right.
    pub halo: [i64; 4],
}

impl Image {
    fn of(tensor: &TensorSpec, what: &str) -> Result<Self, Unsupported> {
        let Layout::Image { block, halo } = tensor.layout else {
            return Err(Unsupported(format!("the {what} is not a blocked image")));
        };
        let [_, Size::Const(channels), Size::Const(height), Size::Const(width)] = tensor.shape[..] else {
            return Err(Unsupported(format!("the size of the {what} is not constant")));
        };
        Ok(Self { channels, height, width, block: i64::from(block), halo: halo.map(i64::from) })
    }

    /// Blocks of channels.
    pub fn blocks(&self) -> i64 {
        div_up(self.channels, self.block)
    }

    /// Rows with the halo.
    pub fn rows(&self) -> i64 {
        self.halo[0] + self.height + self.halo[1]
    }

    /// Pixels of a row with the halo.
    pub fn columns(&self) -> i64 {
        self.halo[2] + self.width + self.halo[3]
    }

    /// Pixels before pixel (0, 0) of a plane.
    pub fn origin(&self) -> i64 {
        self.halo[0] * self.columns() + self.halo[2]
    }
}

/// Rows and columns of the window of [`Pool::of_three`], and its stride.
pub const POOL: i64 = 3;
pub const POOL_STRIDE: i64 = 2;

/// A fused max pooling.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub window: Window,
    /// Height and width of what it reads, the convolution's result.
    pub size: [i64; 2],
}

impl Pool {
    fn of(conv: &ConvSpec, input: &TensorSpec) -> Result<Option<Self>, Unsupported> {
        let Some(PoolSpec { op, window }) = conv.pool else { return Ok(None) };
        let [_, _, Size::Const(h), Size::Const(w)] = input.shape[..] else {
            return Err(Unsupported("the size of what is pooled is not constant".into()));
        };
        if op != PoolOp::Max {
            return Err(Unsupported("only a maximum is fused".into()));
        }
        let Window { kernel, stride, pad, dilation } = conv.window;
        let out = |axis: usize, size: i64| {
            (size + pad[axis][0] + pad[axis][1] - dilation[axis] * (kernel[axis] - 1) - 1).div_euclid(stride[axis]) + 1
        };
        Ok(Some(Self { window, size: [out(0, h), out(1, w)] }))
    }

    /// Refuses all but 3x3 at stride 2 with something real in each of the `output` (height, width)
    /// windows.
    pub fn of_three(&self, output: [i64; 2]) -> Result<(), Unsupported> {
        let Window { kernel, stride, pad, dilation } = self.window;
        if (kernel, stride, dilation) != ([POOL; 2], [POOL_STRIDE; 2], [1; 2]) {
            return Err(Unsupported("the fused pooling is not 3x3 at stride 2".into()));
        }
        let first = (0..2).all(|axis| (0..POOL).contains(&pad[axis][0]));
        let last = (0..2).all(|axis| (output[axis] - 1) * POOL_STRIDE - pad[axis][0] < self.size[axis]);
        if first && last { Ok(()) } else { Err(Unsupported("the fused pooling has windows of nothing but padding".into())) }
    }

    /// Columns of the results that the windows of `width` outputs touch, and all that are real.
    pub fn columns(&self, width: i64) -> i64 {
        ((width - 1) * POOL_STRIDE + POOL).max(self.window.pad[1][0] + self.size[1])
    }
}

/// What a convolution may have besides its epilogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// [`Conv::pool`].
    Pool,
    /// [`Conv::gate`].
    Gate,
    /// [`Conv::mean`].
    Mean,
}

/// A convolution of f32 on a CPU.
#[derive(Debug, Clone)]
pub struct Conv<'a> {
    pub input: &'a TensorSpec,
    /// What is stored: after the pooling, if there is one.
    pub output: &'a TensorSpec,
    /// The max pooling of what the epilogue gives.
    pub pool: Option<Pool>,
    /// The input that multiplies the channels of x.
    pub gate: Option<usize>,
    /// Whether the means of what is stored are the second output.
    pub mean: bool,
    pub batch: Size,
    pub window: Window,
    pub groups: i64,
    /// `[O, C/groups, KH, KW]`.
    pub weight: [i64; 4],
    pub epilogue: &'a [EpilogueStep],
    /// What it runs on.
    pub machine: Cpu,
}

impl<'a> Conv<'a> {
    /// The task's convolution, whatever its layouts, if it has nothing besides its epilogue but
    /// what the family `takes`.
    pub fn of(task: &'a TuningTask, takes: &[Extra]) -> Result<Self, Unsupported> {
        let conv = Self::whole(task)?;
        let has = [
            (Extra::Pool, conv.pool.is_some(), "a fused pooling"),
            (Extra::Gate, conv.gate.is_some(), "its input has a gate"),
            (Extra::Mean, conv.mean, "the means of its result are asked for"),
        ];
        match has.into_iter().find(|(extra, has, _)| *has && !takes.contains(extra)) {
            Some((.., what)) => Err(Unsupported(what.into())),
            None => Ok(conv),
        }
    }

    fn whole(task: &'a TuningTask) -> Result<Self, Unsupported> {
        let KernelKind::Conv(conv) = &task.spec.kind else { return Err(Unsupported("not a convolution".into())) };
        let Target::Cpu(isa) = task.target else { return Err(Unsupported(format!("no C code for {}", task.target))) };
        if conv.branch.is_some() {
            return Err(Unsupported("a second convolution is added".into()));
        }
        let spec = &task.spec;
        let operands = spec.inputs.iter().chain(&spec.weights).chain(&spec.outputs);
        if let Some(other) = operands.map(|t| t.dtype).find(|d| *d != DType::F32) {
            return Err(Unsupported(format!("an operand is {}, not f32", other.name())));
        }
        epilogue_supported(&conv.epilogue)?;
        let (Some(input), Some(output), Some(weight)) = (spec.inputs.first(), spec.outputs.first(), spec.weights.first()) else {
            return Err(Unsupported("an operand is missing".into()));
        };
        let [Size::Const(o), Size::Const(i), Size::Const(kh), Size::Const(kw)] = weight.shape[..] else {
            return Err(Unsupported("the weight has no constant size".into()));
        };
        let [batch, ..] = output.shape[..] else { return Err(Unsupported("the output has no dimensions".into())) };
        Ok(Self {
            input,
            output,
            pool: Pool::of(conv, input)?,
            gate: conv.gate,
            mean: conv.mean,
            batch,
            window: conv.window,
            groups: conv.groups,
            weight: [o, i, kh, kw],
            epilogue: &conv.epilogue,
            machine: Cpu::of(isa),
        })
    }

    /// The output as an image whose blocks are whole vectors. Residuals have the output's layout.
    pub fn output_image(&self) -> Result<Image, Unsupported> {
        let image = Image::of(self.output, "output")?;
        if image.block % self.machine.lanes != 0 {
            return Err(Unsupported(format!("a block of {} channels is not a whole number of vectors", image.block)));
        }
        Ok(image)
    }

    /// The input as an image whose halo holds the padding, and whatever `extra` rows and columns at
    /// the bottom and right are read beyond the last tap of the last output.
    pub fn input_image(&self, output: &Image, extra: [i64; 2]) -> Result<Image, Unsupported> {
        let image = Image::of(self.input, "input")?;
        if image.block != output.block {
            return Err(Unsupported("input and output have different blocks".into()));
        }
        let sizes = [image.height, image.width];
        for axis in 0..2 {
            let Window { kernel, stride, pad, dilation } = self.window;
            let out = [output.height, output.width][axis];
            let before = pad[axis][0];
            let after = (out - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] - before - (sizes[axis] - 1) + extra[axis];
            if image.halo[2 * axis] < before || image.halo[2 * axis + 1] < after {
                return Err(Unsupported(format!("the halo {:?} does not hold the padding ({before}, {after})", image.halo)));
            }
        }
        Ok(image)
    }

    /// Indices of the weights that are biases, in order of their steps.
    pub fn biases(&self) -> Vec<usize> {
        self.epilogue.iter().filter_map(|s| if let EpilogueStep::Bias(k) = s { Some(*k) } else { None }).collect()
    }

    /// Indices of the inputs that are residuals, each once.
    pub fn residuals(&self) -> Vec<usize> {
        let mut all: Vec<_> =
            self.epilogue.iter().filter_map(|s| if let EpilogueStep::Residual(_, k) = s { Some(*k) } else { None }).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The fused steps on the C expression `value`. `bias(n)` is the expression of the n-th bias
    /// step's values.
    pub fn epilogue_c(
        &self,
        width: Width,
        value: &str,
        bias: impl Fn(usize) -> String,
        residual: impl Fn(usize) -> String,
    ) -> String {
        let biases = self.biases();
        let nth = |k: usize| biases.iter().position(|b| *b == k).expect("a bias of this epilogue");
        epilogue_c(self.epilogue, width, value, |k| bias(nth(k)), residual)
    }

    /// Cache lines of the weights of one tap, or position, of a block of input channels and `nv`
    /// vectors of output channels.
    pub fn lines(&self, block: i64, nv: i64) -> i64 {
        block * nv * self.machine.lanes * 4 / self.machine.line
    }

    /// Floats that follow packed weights for each output lane: biases, and the mask of real
    /// channels.
    pub fn per_lane(&self, masked: bool) -> i64 {
        self.biases().len() as i64 + i64::from(masked)
    }
}

/// The index of element (n, c, y, x) in the buffer, as the body of a C macro.
pub fn place(tensor: &TensorSpec) -> String {
    let [_, c, h, w] = [0, 1, 2, 3].map(|axis| match tensor.shape[axis] {
        // The `c` of the macro is a channel, not the call.
        Size::Dim(k) => format!("DIM({k})"),
        size => render::size(size),
    });
    match tensor.layout {
        Layout::Plain => format!("(((n) * {c} + (c)) * {h} + (y)) * {w} + (x)"),
        Layout::Image { block, halo: [top, bottom, left, right] } => format!(
            "((((n) * (({c} + {last}) / {block}) + (c) / {block}) * ({h} + {rows}) + (y) + {top}) * ({w} + {columns}) + (x) + {left}) * {block} + (c) % {block}",
            last = block - 1,
            rows = top + bottom,
            columns = left + right,
        ),
    }
}

/// Sizes of products that a Winograd unit holds: at least half of `mr` remains when work is cut
/// evenly, and every second one will do of many.
pub fn product_sizes(mr: i64) -> Vec<i64> {
    ((mr + 1) / 2..=mr).filter(|m| mr <= 8 || (mr - m) % 2 == 0).collect()
}

/// For 0 to `mr` tiles the smallest of [`product_sizes`] that has room for them.
pub fn product_for(mr: i64) -> Vec<i64> {
    let sizes = product_sizes(mr);
    (0..=mr).map(|n| *sizes.iter().find(|s| **s >= n).expect("the largest size is mr")).collect()
}
