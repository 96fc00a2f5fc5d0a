//! Loop nests: `loops@1` prints one as it is; `loops_lanes@1` accumulates the values of a reduction
//! side by side.

use aotfarm_protocol::{Params, Target};
use minijinja::context;

use super::shared::loops::{Accumulator, extent};
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{SIMD, TYPES};
use crate::machine::{Cpu, Machine};
use crate::render::{self, Template, Unit, product};
use crate::scalar::{Printer, narrowed, stored_c};
use crate::task::TuningTask;
use aotfarm_plan::spec::{KernelKind, KernelSpec, LoopNest, Size};

const TEMPLATE: Template = Template { name: "cpu/loops.c.j2", text: include_str!("template.c.j2") };

/// Elements that one piece of work should have: enough to pay for finding out which one it is, few
/// enough to share evenly.
const PIECE: i64 = 1024;
/// What a size that is not known counts in that.
const ASSUMED: i64 = 16;

/// One thread at a time computes one element; sums of f32 are made in double. GCC vectorises the
/// innermost loop.
pub struct Loops;

/// Reductions with `width` accumulators side by side, over neighbouring outputs (`over=0`) or along
/// the innermost reduction loop (`over=1`).
pub struct LoopsLanes;

fn nest(task: &TuningTask) -> Result<&LoopNest, Unsupported> {
    match (&task.spec.kind, task.target) {
        (KernelKind::Loops(nest), Target::Cpu(_)) => Ok(nest),
        (KernelKind::Loops(_), target) => Err(Unsupported(format!("no C code for {target}"))),
        _ => Err(Unsupported("not a loop nest".into())),
    }
}

impl CandidateFamily for Loops {
    fn id(&self) -> FamilyId {
        "loops@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        nest(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        render_nest(self.id(), task, params, Lanes::Nothing, 1)
    }
}

impl CandidateFamily for LoopsLanes {
    fn id(&self) -> FamilyId {
        "loops_lanes@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        match &nest(task)?.reduction {
            Some(_) => Ok(()),
            None => Err(Unsupported("no reduction: nothing to accumulate".into())),
        }
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Machine::Cpu(Cpu { lanes, .. }) = Machine::of(task.target) else { return Vec::new() };
        let known = |size: Option<&Size>| size.map_or(1, |s| s.at(&task.point));
        let Ok(LoopNest { extents, reduction: Some(reduction), .. }) = nest(task) else { return Vec::new() };
        let (outputs, terms) = (known(extents.last()), known(reduction.extents.last()));
        // The longer loop fills more lanes.
        let order = if outputs >= terms.min(lanes) { [0, 1] } else { [1, 0] };
        let mut points = Vec::new();
        for width in [4 * lanes, lanes] {
            for over in order {
                let longest = if over == 0 { outputs } else { terms };
                if longest >= width || width == lanes {
                    points.push(Params::from([("over".to_owned(), over), ("width".to_owned(), width)]));
                }
            }
        }
        points
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        let lanes = if params["over"] == 0 { Lanes::Outputs } else { Lanes::Reduction };
        render_nest(self.id(), task, params, lanes, params["width"])
    }
}

/// Which loop's steps are accumulated side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lanes {
    Nothing,
    Outputs,
    Reduction,
}

impl Lanes {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Outputs => "outputs",
            Self::Reduction => "reduction",
        }
    }
}

fn render_nest(family: FamilyId, task: &TuningTask, params: &Params, lanes: Lanes, width: i64) -> KernelSource {
    let Ok(nest) = nest(task) else { panic!("{family} does not support {:?}", task.spec) };
    let spec = &task.spec;
    let printer = Printer::new(spec, nest);
    let out = spec.outputs[0].dtype;

    // The innermost loops that together have about PIECE elements stay loops; the outer ones are
    // flattened and shared.
    let assumed = |size: &Size| if let Size::Const(n) = size { *n } else { ASSUMED };
    let mut split = nest.extents.len() - 1;
    let mut inside = 1;
    while split > 0 && inside * assumed(&nest.extents[split]) < PIECE {
        inside *= assumed(&nest.extents[split]).max(1);
        split -= 1;
    }
    let work = inside * nest.reduction.iter().flat_map(|r| &r.extents).map(assumed).product::<i64>().max(1);
    let piece = (PIECE / work.max(1)).max(if lanes == Lanes::Outputs && split + 1 == nest.extents.len() { width } else { 1 });
    let outer: Vec<_> =
        (0..split).rev().map(|k| context! { name => format!("l{k}"), extent => extent(nest.extents[k]) }).collect();
    let inner: Vec<_> = (split..nest.extents.len())
        .map(|k| {
            let (from, to) =
                if k == split { ("begin".to_owned(), "end".to_owned()) } else { ("0".to_owned(), extent(nest.extents[k])) };
            context! { name => format!("l{k}"), from, to }
        })
        .collect();
    let last = nest.extents.len() - 1;

    let value = narrowed(out, &crate::scalar::cast(printer.dtype(&nest.value), out, &printer.scalar(&nest.value)));
    // The naive kernel is the one that others are checked against.
    let reduction = Accumulator::of(nest, &printer, lanes == Lanes::Nothing);
    let (names, signature) = parameters(spec, last);
    let common = context! {
        lanes_over => lanes.name(),
        width,
        declarations => declarations(spec),
        split_extent => extent(nest.extents[split]),
        outer_product => product(&nest.extents[..split]),
        piece => format!("(int64_t){piece}"),
        outer,
        inner,
        last => format!("l{last}"),
        store => printer.index(&nest.store),
        value,
        signature,
        arguments => names,
    };
    let unit = Unit { family, template: TEMPLATE, headers: &[SIMD, TYPES], task, params, packs: false };
    render::unit(&unit, context! { ..reduction, ..common })
}

/// Local names of the operands and the dims.
fn declarations(spec: &KernelSpec) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, tensors) in [("in", &spec.inputs), ("weight", &spec.weights)] {
        for (k, tensor) in tensors.iter().enumerate() {
            let c = stored_c(tensor.dtype);
            lines.push(format!("const {c} *restrict const {name}{k} = (const {c} *)c->{name}[{k}];"));
            lines.push(format!("(void){name}{k};"));
        }
    }
    let c = stored_c(spec.outputs[0].dtype);
    lines.push(format!("{c} *restrict const out0 = ({c} *)c->out[0];"));
    for k in 0..spec.dims {
        lines.push(format!("const int64_t d{k} = c->dim[{k}];"));
        lines.push(format!("(void)d{k};"));
    }
    lines
}

/// Arguments and parameters of the function that reduces several outputs at once: all that an
/// expression can name.
fn parameters(spec: &KernelSpec, last: usize) -> (String, String) {
    let mut names = Vec::new();
    let mut typed = Vec::new();
    for (name, tensors) in [("in", &spec.inputs), ("weight", &spec.weights)] {
        for (k, tensor) in tensors.iter().enumerate() {
            names.push(format!("{name}{k}"));
            typed.push(format!("const {} *restrict {name}{k} __attribute__((unused))", stored_c(tensor.dtype)));
        }
    }
    names.push("out0".to_owned());
    typed.push(format!("{} *restrict out0", stored_c(spec.outputs[0].dtype)));
    for k in 0..spec.dims {
        names.push(format!("d{k}"));
        typed.push(format!("int64_t d{k} __attribute__((unused))"));
    }
    for k in 0..last {
        names.push(format!("l{k}"));
        typed.push(format!("int64_t l{k} __attribute__((unused))"));
    }
    names.push(format!("l{last}"));
    typed.push("int64_t first".to_owned());
    (names.join(", "), typed.join(",\n    "))
}
