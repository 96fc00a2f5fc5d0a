//! `cuda_conv_stem@1`: row-major f32 input with few channels → NHWC, with a max pool if one
//! follows; see `template.cu.j2`.

use aotfarm_protocol::{DType, GridAxis, Launch, Params};
use minijinja::{Value, context};

use super::shared::geometry::{Conv, Epilogue, axis};
use crate::families::shared::points::{div_up, param, point};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::CUDA_MATH;
use crate::render::{self, Template, Unit};
use crate::task::TuningTask;
use aotfarm_ir::{PoolOp, UnaryOp, Window};
use aotfarm_plan::spec::{EpilogueStep, KernelKind, Math};

const TEMPLATE: Template = Template { name: "cuda/conv_stem.cu.j2", text: include_str!("template.cu.j2") };

/// The most blocks that share a multiprocessor.
const MOST_BLOCKS: i64 = 4;
/// Columns of the convolution that a warp computes, and how many of the pool's they are enough for.
const STRIP: i64 = 16;
const POOLED_STRIP: i64 = 7;

/// The first convolution of a network, on the tensor cores of sm_90.
///
/// A block of `wgs` warpgroups computes units of `rows` output rows by a `split`th of the columns,
/// for `bn` output channels; a warp computes `tall` rows of the convolution together, from `chunk`
/// rows of the input at a time. `blocks` share a multiprocessor. With `runs`, each of these has a
/// run of units and fetches ahead; without, every unit has its block.
pub struct ConvStem;

struct Stem {
    conv: Conv,
    /// The types that wgmma multiplies.
    math: &'static str,
    /// Height and width of the task's output.
    stored: [i64; 2],
    /// Elements of 16 bytes of the output.
    vector: i64,
    /// Whether the last fused step is max(0, x), which the template does its own way.
    relu: bool,
}

impl Stem {
    fn of(task: &TuningTask) -> Result<Self, Unsupported> {
        let refuse = |why: &str| Err(Unsupported(why.to_owned()));
        let mut conv = Conv::of(task)?;
        let math = match (conv.weight_dtype, conv.math) {
            (DType::Bf16, _) => "bf16",
            (DType::F16, _) => "f16",
            (DType::F32, Math::Tf32) => "tf32",
            _ => return refuse("no tensor core multiplies f32 in full"),
        };
        if !conv.machine.wgmma {
            return refuse("wgmma is of sm_90 alone");
        }
        if conv.groups != 1 || conv.window.dilation != [1, 1] || !conv.epilogue.residuals.is_empty() {
            return refuse("groups, dilation or a residual");
        }
        if conv.input.block.is_some() || conv.input.dtype != DType::F32 || conv.input.c > 4 {
            return refuse("the input is not row-major f32 of up to 4 channels");
        }
        if conv.output.block.is_none() {
            return refuse("the output is not NHWC");
        }
        let stored = match conv.pool {
            None => [conv.output.h, conv.output.w],
            Some((pool, image)) => {
                let Window { kernel, stride, pad, dilation } = pool.window;
                let known = pool.op == PoolOp::Max && kernel == [3, 3] && stride == [2, 2] && dilation == [1, 1];
                if !known || pad[0][0] != 1 || !(0..=1).contains(&pad[1][0]) {
                    return refuse("a pool other than the maximum of 3x3 with step 2 and padding 1");
                }
                [image.h, image.w]
            }
        };
        let vector = if conv.output.dtype == DType::F32 { 4 } else { 8 };
        let KernelKind::Conv(spec) = &task.spec.kind else { return refuse("not a convolution") };
        let (steps, relu) = match &spec.epilogue[..] {
            [steps @ .., EpilogueStep::Unary(UnaryOp::Relu)] => (steps, true),
            steps => (steps, false),
        };
        conv.epilogue = Epilogue::of(steps)?;
        Ok(Self { conv, math, stored, vector, relu })
    }

    /// Channels of a pixel in the copy: one more if else not every pixel began with a pair of
    /// elements.
    fn lanes(&self) -> i64 {
        let c = self.conv.input.c;
        if c * self.conv.window.stride[1] % 2 == 0 { c } else { c + c % 2 }
    }

    /// Slots of 8 elements in a row of the window.
    fn row_slots(&self) -> i64 {
        div_up(self.conv.weight[2] * self.lanes(), 8)
    }

    /// Steps of wgmma.
    fn steps(&self) -> i64 {
        div_up(self.conv.weight[1] * self.row_slots(), if self.math == "tf32" { 1 } else { 2 })
    }

    /// Strips of a unit.
    fn strips(&self, split: i64) -> i64 {
        div_up(div_up(self.stored[1], if self.conv.pool.is_some() { POOLED_STRIP } else { STRIP }), split)
    }

    /// Units of an image.
    fn units(&self, rows: i64, split: i64) -> i64 {
        div_up(self.stored[0], rows) * split
    }

    /// How many strips a warp computes of a unit.
    fn iterations(&self, p: &Params) -> i64 {
        let [rows, split, wgs, tall] = ["rows", "split", "wgs", "tall"].map(|name| param(p, name));
        if self.conv.pool.is_some() { rows } else { div_up(div_up(rows, tall) * self.strips(split), 4 * wgs) }
    }

    /// The rows and columns of the convolution that a unit computes.
    fn extent(&self, rows: i64, split: i64, tall: i64) -> [i64; 2] {
        let strips = self.strips(split);
        match self.conv.pool {
            Some(_) => [2 * rows + 2, strips * 2 * POOLED_STRIP + 2],
            None => [div_up(rows, tall) * tall, strips * STRIP],
        }
    }

    /// Whether the input is fetched in aligned fours, and how many pixels before those that are
    /// needed these begin.
    fn alignment(&self, split: i64) -> (bool, i64) {
        let stride = self.conv.window.stride[1];
        let (step, before) = match self.conv.pool {
            Some((pool, _)) => (2 * POOLED_STRIP, pool.window.pad[1][0] * stride),
            None => (STRIP, 0),
        };
        let wide = self.conv.input.w % 4 == 0 && (split == 1 || self.strips(split) * step * stride % 4 == 0);
        (wide, if wide { (-self.conv.window.pad[1][0] - before).rem_euclid(4) } else { 0 })
    }

    /// Rows and fours of pixels of the copy of a unit's input.
    fn copy(&self, p: &Params) -> [i64; 2] {
        let [rows, split, tall] = ["rows", "split", "tall"].map(|name| param(p, name));
        let window = &self.conv.window;
        let [conv_rows, columns] = self.extent(rows, split, tall);
        let (_, shift) = self.alignment(split);
        let width = shift + (columns - 1) * window.stride[1] + div_up(8 * self.row_slots(), self.lanes());
        [(conv_rows - 1) * window.stride[0] + self.conv.weight[1], div_up(width, 4)]
    }

    /// Bytes of shared memory: weights, biases, the copy of a unit's input and perhaps of the next
    /// one's.
    fn shared(&self, p: &Params) -> i64 {
        let [split, bn, runs] = ["split", "bn", "runs"].map(|name| param(p, name));
        let [height, quads] = self.copy(p);
        let (_, shift) = self.alignment(split);
        let pitch = quads * 2 * self.lanes() + shift * self.lanes() % 2;
        let pair = if self.math == "tf32" { 8 } else { 4 };
        self.steps() * 32 * bn + self.conv.epilogue.biases.len() as i64 * bn * 4 + (1 + runs) * height * pitch * pair
    }

    /// Numbers of rows of the input to load together: as many as registers go, or a third of that.
    fn chunks(&self, tall: i64) -> Vec<i64> {
        let height = (tall - 1) * self.conv.window.stride[0] + self.conv.weight[1];
        let registers = self.row_slots() * if self.math == "tf32" { 4 } else { 2 };
        let most = if height * registers <= 112 { height } else { (56 / registers).max(1) };
        if most > 1 { vec![most, div_up(most, 3)] } else { vec![most] }
    }

    /// Output channels of a block: all, or in parts of one of these sizes.
    fn panels(&self) -> Vec<i64> {
        let all = div_up(self.conv.weight[0], 4 * self.vector) * 4 * self.vector;
        if all <= 128 { vec![all] } else { vec![64, 128] }
    }

    /// Whether a point can run and is worth a try.
    fn fits(&self, p: &Params) -> bool {
        let [rows, split, wgs, blocks, tall, bn] = ["rows", "split", "wgs", "blocks", "tall", "bn"].map(|name| param(p, name));
        let strips = self.strips(split);
        // A warp of the pooled kernel keeps its strip. Else every warpgroup shall have something to
        // do.
        let busy = if self.conv.pool.is_some() {
            tall == 2 && strips <= 4 * wgs && strips > 4 * (wgs - 1)
        } else {
            tall <= rows && div_up(rows, tall) * strips > 4 * (wgs - 1)
        };
        // Rows that are computed together must find the operands of a step in the same registers.
        let aligned = tall == 1 || self.math == "tf32" || self.conv.window.stride[0] * self.row_slots() % 2 == 0;
        let machine = self.conv.machine;
        // Accumulators, what is fetched for the next unit in an iteration, and the rest.
        let [height, quads] = self.copy(p);
        let fetched = param(p, "runs") * div_up(height * div_up(quads, 32), self.iterations(p) * 4 * wgs) * self.conv.input.c * 4;
        let registers = tall * bn / 2 + fetched + if self.math == "tf32" { 80 } else { 56 };
        busy && (aligned || self.conv.pool.is_some())
            && (rows == 1 || rows <= self.stored[0])
            && (split == 1 || split <= self.stored[1] / STRIP)
            && fetched <= 36
            && registers * 128 * wgs * blocks <= machine.registers
            && self.shared(p) * blocks <= machine.shared - MOST_BLOCKS * machine.shared_reserved
    }

    /// A guess of the time in cycles, to try the likely points first.
    fn guess(&self, p: &Params, batch: i64) -> i64 {
        let [rows, split, wgs, blocks, tall, bn, runs] =
            ["rows", "split", "wgs", "blocks", "tall", "bn", "runs"].map(|name| param(p, name));
        let processors = self.conv.machine.processors;
        let units = batch * self.units(rows, split) * div_up(self.conv.weight[0], bn);
        let resident = wgs * blocks.min(div_up(units, processors));
        // What a warpgroup keeps the multiprocessor busy with, and how long it takes when it is
        // alone.
        let busy = tall * (self.steps() * bn / 2 + 3 * bn);
        let iteration = (busy * resident).max(busy + 700);
        let start = 2500 + self.shared(p) / (32 * wgs);
        let rounds = div_up(units, processors * blocks);
        let more = i64::from(self.conv.pool.is_some()) * iteration;
        match runs {
            0 => rounds * (start + more + self.iterations(p) * iteration),
            _ => start + more + rounds * self.iterations(p) * iteration,
        }
    }
}

impl CandidateFamily for ConvStem {
    fn id(&self) -> FamilyId {
        "cuda_conv_stem@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        if self.enumerate(task).is_empty() {
            Stem::of(task)?;
            return Err(Unsupported("the input of one row does not fit in shared memory".into()));
        }
        Ok(())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(stem) = Stem::of(task) else { return Vec::new() };
        let mut points = Vec::new();
        for bn in stem.panels() {
            for tall in [2, 1] {
                for chunk in stem.chunks(tall) {
                    for rows in [1, 2, 4, 7, 8, 14] {
                        for (split, wgs) in [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)] {
                            for (blocks, runs) in [(2, 1), (3, 1), (1, 1), (4, 1), (2, 0), (1, 0), (4, 0)] {
                                points.push(point([
                                    ("bn", bn),
                                    ("tall", tall),
                                    ("chunk", chunk),
                                    ("rows", rows),
                                    ("split", split),
                                    ("wgs", wgs),
                                    ("blocks", blocks),
                                    ("runs", runs),
                                ]));
                            }
                        }
                    }
                }
            }
        }
        let (batch, processors) = (stem.conv.batch.at(&task.point), stem.conv.machine.processors);
        points.retain(|p| {
            let room = processors * param(p, "blocks");
            let units = batch * stem.units(param(p, "rows"), param(p, "split"));
            // A run of one unit is none, and what has room needs no more of it.
            stem.fits(p) && (units > room || (param(p, "runs") == 0 && room <= 2 * processors))
        });
        points.sort_by_key(|p| stem.guess(p, batch));
        points
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let stem = Stem::of(task).unwrap_or_else(|e| panic!("conv_stem was asked for a task that it refuses: {e}"));
        let unit = Unit { family: self.id(), template: TEMPLATE, headers: &[CUDA_MATH], task, params, packs: false };
        render::unit(&unit, variables(&stem, params))
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        let stem = Stem::of(task).ok()?;
        let [rows, split, wgs, blocks, bn] = ["rows", "split", "wgs", "blocks", "bn"].map(|name| param(params, name));
        let panels = div_up(stem.conv.weight[0], bn);
        let grid = match param(params, "runs") {
            0 => axis(panels, stem.units(rows, split), &[stem.conv.batch], 1),
            _ => GridAxis::fixed(panels * stem.conv.machine.processors * blocks),
        };
        Some(Launch::linear(grid, 128 * wgs as u32, stem.shared(params) as u32))
    }
}

fn variables(stem: &Stem, params: &Params) -> Value {
    let [rows, split, wgs, blocks, tall, chunk, bn] =
        ["rows", "split", "wgs", "blocks", "tall", "chunk", "bn"].map(|name| param(params, name));
    let (wide, shift) = stem.alignment(split);
    context! {
        rows, split, blocks, tall, chunk, bn, wide, shift,
        relu => stem.relu,
        runs => param(params, "runs") != 0,
        warpgroups => wgs,
        strips => stem.strips(split),
        panels => div_up(stem.conv.weight[0], bn),
        lanes => stem.lanes(),
        math => stem.math,
        stored => stem.stored,
        pool => stem.conv.pool.map(|(pool, _)| context! { pad => pool.window.pad.map(|[before, _]| before) }),
        ..stem.conv.context()
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::Target;

    use super::*;
    use aotfarm_plan::spec::{ConvSpec, KernelSpec, Layout, PoolSpec, Size, TensorSpec};

    /// The first convolution of a ResNet, with the pool that follows.
    fn resnet(batch: i64) -> TuningTask {
        let tensor = |dtype, shape: Vec<Size>, layout| TensorSpec { dtype, shape, layout };
        let sizes = |n: &[i64]| n.iter().map(|n| Size::Const(*n)).collect::<Vec<_>>();
        let image = |chw: [i64; 3]| [vec![Size::Dim(0)], sizes(&chw)].concat();
        let window = Window { kernel: [7; 2], stride: [2; 2], pad: [[3; 2]; 2], dilation: [1; 2] };
        let pool = Window { kernel: [3; 2], stride: [2; 2], pad: [[1; 2]; 2], dilation: [1; 2] };
        let conv = ConvSpec {
            window,
            groups: 1,
            epilogue: vec![EpilogueStep::Bias(1), EpilogueStep::Unary(UnaryOp::Relu)],
            pool: Some(PoolSpec { op: PoolOp::Max, window: pool }),
            branch: None,
            gate: None,
            mean: false,
        };
        let spec = KernelSpec {
            kind: KernelKind::Conv(conv),
            inputs: vec![tensor(DType::F32, image([3, 224, 224]), Layout::Plain)],
            weights: vec![
                tensor(DType::Bf16, sizes(&[64, 7, 7, 3]), Layout::Plain),
                tensor(DType::F32, sizes(&[64]), Layout::Plain),
            ],
            outputs: vec![tensor(DType::Bf16, image([64, 56, 56]), Layout::Image { block: 64, halo: [0; 4] })],
            dims: 1,
            math: Math::Exact,
        };
        TuningTask { spec, target: Target::Cuda { sm: 90 }, point: vec![batch] }
    }

    /// What an H100 took least time with.
    #[test]
    fn points_that_were_fastest_are_tried_early() {
        for (batch, [rows, split, wgs, blocks, runs]) in
            [(1, [1, 2, 1, 2, 0]), (8, [4, 2, 1, 2, 0]), (32, [7, 2, 1, 2, 1]), (128, [4, 2, 1, 2, 1])]
        {
            let known = [("rows", rows), ("split", split), ("wgs", wgs), ("blocks", blocks), ("runs", runs)];
            let points = ConvStem.enumerate(&resnet(batch));
            let place = points.iter().position(|p| known.iter().all(|(name, value)| param(p, name) == *value));
            assert!(place.is_some_and(|place| place < 16), "{known:?} at batch {batch}: {place:?} of {}", points.len());
        }
    }
}
