//! Full-size example models with seeded random weights, so that a newcomer needs no torch.

use aotfarm_protocol::DType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{BuildError, Builder, Expr, Graph, Op, TensorData, TensorType, UnaryOp, ValueId, Window};

/// The names that [`example`] knows.
pub const EXAMPLES: [&str; 3] = ["resnet18", "resnet50", "mobilenet_v2"];

/// The architecture of torchvision of this name, for 224x224 images, batch 1 to 32. Weights are random but always the same, and
/// scaled so that activations stay within a small factor of 1. `None` for a name that is not in [`EXAMPLES`].
pub fn example(name: &str) -> Option<Graph> {
    let build = match name {
        "resnet18" => |net: &mut Net| net.resnet(false, [2, 2, 2, 2]),
        "resnet50" => |net: &mut Net| net.resnet(true, [3, 4, 6, 3]),
        "mobilenet_v2" => Net::mobilenet_v2,
        _ => return None,
    };
    let graph = Net::new(name).and_then(|mut net| {
        let output = build(&mut net)?;
        net.builder.output(output);
        net.builder.finish()
    });
    Some(graph.expect("the examples obey the shape rules"))
}

/// A convolution with `same` padding and the batch norm after it.
#[derive(Clone, Copy)]
struct ConvBn {
    out: i64,
    kernel: i64,
    stride: i64,
    groups: i64,
    /// Factor of the batch norm's scale: below 1 at the end of a residual branch, so that the sums of many blocks do not grow.
    gain: f32,
}

impl ConvBn {
    const fn new(out: i64, kernel: i64, stride: i64) -> Self {
        Self { out, kernel, stride, groups: 1, gain: 1.0 }
    }

    const fn closing_branch(self) -> Self {
        Self { gain: 0.25, ..self }
    }

    const fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }
}

struct Net {
    builder: Builder,
    rng: ChaCha8Rng,
    x: ValueId,
}

impl Net {
    fn new(name: &str) -> Result<Self, BuildError> {
        let mut builder = Builder::new(name);
        let batch = builder.dim("batch", 1, 32, Some(8))?;
        let x = builder.input("x", TensorType::new(DType::F32, [batch, 3.into(), 224.into(), 224.into()]))?;
        Ok(Self { builder, rng: ChaCha8Rng::seed_from_u64(7), x })
    }

    fn channels(&self, x: ValueId) -> i64 {
        self.builder.shape(x)[1].as_const().expect("channels are constant")
    }

    fn weight(
        &mut self,
        name: &str,
        shape: &[i64],
        mut value: impl FnMut(&mut ChaCha8Rng) -> f32,
    ) -> Result<ValueId, BuildError> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value(&mut self.rng)).collect();
        self.builder.weight(name, TensorType::new(DType::F32, shape.iter().copied()), TensorData::from_f32(&values))
    }

    /// A convolution without bias, then a batch norm with random statistics.
    fn conv_bn(&mut self, [conv, bn]: [&str; 2], x: ValueId, layer: ConvBn) -> Result<ValueId, BuildError> {
        let ConvBn { out, kernel, stride, groups, gain: bn_gain } = layer;
        let per_group = self.channels(x) / groups;
        let gain = (1.6 / (per_group * kernel * kernel) as f32).sqrt();
        let weight = self.weight(&format!("{conv}.weight"), &[out, per_group, kernel, kernel], |r| normal(r) * gain)?;
        let pad = kernel / 2;
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [[pad; 2]; 2], dilation: [1, 1] };
        let y = self.builder.push(Op::Conv { window, groups }, &[x, weight], &format!("{conv}: conv2d"))?;
        let scale = self.weight(&format!("{bn}.weight"), &[out], |r| bn_gain * (0.75 + 0.5 * uniform(r)))?;
        let shift = self.weight(&format!("{bn}.bias"), &[out], |r| 0.1 * normal(r))?;
        let mean = self.weight(&format!("{bn}.running_mean"), &[out], |r| 0.1 * normal(r))?;
        let variance = self.weight(&format!("{bn}.running_var"), &[out], |r| 0.5 + uniform(r))?;
        self.builder.push(Op::BatchNorm { eps: 1e-5 }, &[y, scale, shift, mean, variance], &format!("{bn}: batch_norm"))
    }

    fn activation(&mut self, name: &str, function: UnaryOp, x: ValueId) -> Result<ValueId, BuildError> {
        self.builder.push(Op::Unary(function), &[x], &format!("{name}: {}", function.name()))
    }

    fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, BuildError> {
        self.builder.push(Op::Binary(crate::BinaryOp::Add), &[a, b], &format!("{name}: add"))
    }

    /// The mean over the image, then the classifier for 1000 classes.
    fn head(&mut self, name: &str, x: ValueId) -> Result<ValueId, BuildError> {
        let features = self.channels(x);
        let x = self.builder.push(Op::AdaptiveAvgPool { output: [1, 1] }, &[x], "avgpool: adaptive_avg_pool2d")?;
        let shape = vec![self.builder.shape(x)[0].clone(), Expr::from(features)];
        let x = self.builder.push(Op::Reshape { shape }, &[x], "flatten: flatten")?;
        let gain = (1.6 / features as f32).sqrt();
        let weight = self.weight(&format!("{name}.weight"), &[1000, features], |r| normal(r) * gain)?;
        let bias = self.weight(&format!("{name}.bias"), &[1000], |r| 0.1 * normal(r))?;
        self.builder.push(Op::Linear, &[x, weight, bias], &format!("{name}: linear"))
    }

    /// ResNet with basic blocks (two 3x3) or bottlenecks (1x1, 3x3, 1x1 four times as wide).
    fn resnet(&mut self, bottleneck: bool, blocks: [usize; 4]) -> Result<ValueId, BuildError> {
        let x = self.conv_bn(["conv1", "bn1"], self.x, ConvBn::new(64, 7, 2))?;
        let x = self.activation("relu", UnaryOp::Relu, x)?;
        let window = Window { kernel: [3, 3], stride: [2, 2], pad: [[1, 1]; 2], dilation: [1, 1] };
        let mut x = self.builder.push(Op::Pool { op: crate::PoolOp::Max, window }, &[x], "maxpool: max_pool2d")?;
        for (stage, count) in blocks.into_iter().enumerate() {
            let width = 64 << stage;
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let at = format!("layer{}.{block}", stage + 1);
                let step =
                    |net: &mut Self, i: i32, x, layer| net.conv_bn([&format!("{at}.conv{i}"), &format!("{at}.bn{i}")], x, layer);
                let relu = |net: &mut Self, x| net.activation(&format!("{at}.relu"), UnaryOp::Relu, x);
                let (out, y) = if bottleneck {
                    let y = step(self, 1, x, ConvBn::new(width, 1, 1))?;
                    let y = relu(self, y)?;
                    let y = step(self, 2, y, ConvBn::new(width, 3, stride))?;
                    let y = relu(self, y)?;
                    (4 * width, step(self, 3, y, ConvBn::new(4 * width, 1, 1).closing_branch())?)
                } else {
                    let y = step(self, 1, x, ConvBn::new(width, 3, stride))?;
                    let y = relu(self, y)?;
                    (width, step(self, 2, y, ConvBn::new(width, 3, 1).closing_branch())?)
                };
                let shortcut = if stride != 1 || self.channels(x) != out {
                    self.conv_bn([&format!("{at}.downsample.0"), &format!("{at}.downsample.1")], x, ConvBn::new(out, 1, stride))?
                } else {
                    x
                };
                let sum = self.add(&format!("{at}.add"), y, shortcut)?;
                x = relu(self, sum)?;
            }
        }
        self.head("fc", x)
    }

    fn mobilenet_v2(&mut self) -> Result<ValueId, BuildError> {
        const RELU6: UnaryOp = UnaryOp::Clamp { low: 0.0, high: 6.0 };
        // Expansion, output channels, blocks, stride of the first.
        const SETTINGS: [(i64, i64, i64, i64); 7] =
            [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
        let step = |net: &mut Self, at: String, x, layer| {
            let y = net.conv_bn([&format!("{at}.0"), &format!("{at}.1")], x, layer)?;
            net.activation(&format!("{at}.2"), RELU6, y)
        };
        let mut x = step(self, "features.0".into(), self.x, ConvBn::new(32, 3, 2))?;
        let mut index = 1;
        for (expansion, out, count, first_stride) in SETTINGS {
            for block in 0..count {
                let stride = if block == 0 { first_stride } else { 1 };
                let at = format!("features.{index}.conv");
                let input = self.channels(x);
                let hidden = input * expansion;
                let mut y = x;
                let mut part = 0;
                if expansion != 1 {
                    y = step(self, format!("{at}.{part}"), y, ConvBn::new(hidden, 1, 1))?;
                    part += 1;
                }
                y = step(self, format!("{at}.{part}"), y, ConvBn::new(hidden, 3, stride).groups(hidden))?;
                y = self.conv_bn([&format!("{at}.{}", part + 1), &format!("{at}.{}", part + 2)], y, ConvBn::new(out, 1, 1))?;
                x = if stride == 1 && input == out { self.add(&format!("features.{index}.add"), x, y)? } else { y };
                index += 1;
            }
        }
        let x = step(self, format!("features.{index}"), x, ConvBn::new(1280, 1, 1))?;
        self.head("classifier.1", x)
    }
}

/// Uniform in 0..1, with 24 random bits.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// Standard normal, to the accuracy that weights need: twelve uniforms sum to variance 1. Only additions, so that every host makes the
/// same bits.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (mut sum, mut left) = (0u32, 6);
    while left > 0 {
        let bits = rng.next_u32();
        sum += (bits & 0xffff) + (bits >> 16);
        left -= 1;
    }
    (sum as f32 - 12.0 * 32767.5) / 65536.0
}
