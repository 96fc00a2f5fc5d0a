//! Loop nests: `cuda_loops_naive@1` one element at a time, with sums in double; `cuda_loops@1` in
//! vectors and with shared sums.

use aotfarm_protocol::{Launch, Params};
use minijinja::{Value, context};

use super::shared::geometry::{NAIVE_THREADS, axis, gpu};
use crate::families::shared::loops::Accumulator;
use crate::family::{CandidateFamily, FamilyId, KernelSource, Unsupported};
use crate::headers::{CUDA_MATH, CUDA_TYPES};
use crate::render::{self, Template, Unit};
use crate::scalar::{Dialect, Load, Printer, cast, narrowed};
use crate::task::TuningTask;
use aotfarm_plan::spec::{Index, KernelKind, KernelSpec, Layout, LoopNest, Scalar, Size, TensorSpec};

const TEMPLATE: Template = Template { name: "cuda/loops.cu.j2", text: include_str!("template.cu.j2") };

/// What indices of 32 bits must stay below, with room for the constants that they are shifted by.
const NARROW: i64 = 1 << 30;
/// Threads of the GPU that a first guess should fill.
const PARALLEL: i64 = 1 << 16;

/// One thread computes one element; sums of f32 and narrower are made in double.
pub struct LoopsNaive;

/// Without a reduction, one thread stores `v` neighbouring elements, or `u` far ones. With one,
/// `lanes` threads share the terms of `v` neighbouring outputs: neighbouring threads have
/// neighbouring terms, or neighbouring outputs if `across`.
pub struct Loops;

/// A point, of either family.
#[derive(Debug, Clone, Copy)]
struct Shape {
    vector: i64,
    items: i64,
    lanes: i64,
    across: bool,
    threads: i64,
    /// Sums of f32 in double.
    double: bool,
}

impl Shape {
    const NAIVE: Self = Self { vector: 1, items: 1, lanes: 1, across: true, threads: NAIVE_THREADS as i64, double: true };

    fn of(params: &Params) -> Self {
        let number = |name: &str, default| params.get(name).copied().unwrap_or(default);
        Self {
            vector: number("v", 1),
            items: number("u", 1),
            lanes: number("lanes", 1),
            across: number("across", 1) != 0,
            threads: number("threads", 256),
            double: false,
        }
    }

    fn launch(self, nest: &LoopNest) -> Launch {
        let stored = self.threads / self.lanes * self.vector * self.items;
        Launch::linear(axis(1, 1, &nest.extents, stored), self.threads as u32, 0)
    }
}

fn nest(task: &TuningTask) -> Result<&LoopNest, Unsupported> {
    gpu(task)?;
    match &task.spec.kind {
        KernelKind::Loops(nest) => Ok(nest),
        _ => Err(Unsupported("not a loop nest".into())),
    }
}

impl CandidateFamily for LoopsNaive {
    fn id(&self) -> FamilyId {
        "cuda_loops_naive@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        nest(task).map(|_| ())
    }

    fn enumerate(&self, _: &TuningTask) -> Vec<Params> {
        vec![Params::new()]
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        render_nest(self.id(), task, params, Shape::NAIVE)
    }

    fn launch(&self, task: &TuningTask, _: &Params) -> Option<Launch> {
        nest(task).ok().map(|nest| Shape::NAIVE.launch(nest))
    }
}

impl CandidateFamily for Loops {
    fn id(&self) -> FamilyId {
        "cuda_loops@1"
    }

    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported> {
        nest(task).map(|_| ())
    }

    fn enumerate(&self, task: &TuningTask) -> Vec<Params> {
        let Ok(nest) = nest(task) else { return Vec::new() };
        let points = if nest.reduction.is_some() { reductions(task, nest) } else { chains(task, nest) };
        points.into_iter().map(|point| point.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()).collect()
    }

    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource {
        render_nest(self.id(), task, params, Shape::of(params))
    }

    fn launch(&self, task: &TuningTask, params: &Params) -> Option<Launch> {
        nest(task).ok().map(|nest| Shape::of(params).launch(nest))
    }
}

/// `v`, `u` and `threads`. Starting a block takes as long as moving some kilobytes, so that big
/// tensors want much work for each: the widest vectors that leave enough threads come first.
fn chains(task: &TuningTask, nest: &LoopNest) -> Vec<Vec<(&'static str, i64)>> {
    let elements: i64 = nest.extents.iter().map(|s| s.at(&task.point)).product();
    let whole = 16 / task.spec.outputs[0].dtype.size() as i64;
    let mut vectors: Vec<i64> =
        [2 * whole, whole, whole / 2, whole / 4].into_iter().filter(|v| *v > 1 && vectorises(nest, *v)).collect();
    // A thread for each access of 16 bytes if there is work for all of them, smaller ones if not;
    // two accesses are worth a try.
    let few = |v: i64| elements / v < PARALLEL;
    vectors.sort_by_key(|v| (*v > whole || few(*v), if few(*v) { *v } else { -v }));
    let mut points: Vec<_> = vectors.iter().map(|v| vec![("threads", 256), ("v", *v)]).collect();
    let mut single = vec![vec![("threads", 256), ("u", 1)], vec![("threads", 256), ("u", 4)], vec![("threads", 512), ("u", 8)]];
    if elements / 4 > PARALLEL {
        single.rotate_left(1);
    }
    points.extend(single);
    points.extend(vectors.iter().flat_map(|v| [128, 512].map(|threads| vec![("threads", threads), ("v", *v)])));
    points
}

/// `lanes`, `across` and `v`.
fn reductions(task: &TuningTask, nest: &LoopNest) -> Vec<Vec<(&'static str, i64)>> {
    let Some(reduction) = &nest.reduction else { return Vec::new() };
    let product = |sizes: &[Size]| sizes.iter().map(|s| s.at(&task.point)).product::<i64>();
    let (outputs, terms) = (product(&nest.extents), product(&reduction.extents));
    // Which way the operands lie: along the last loop of the outputs, or along that of the terms.
    let last = nest.extents.len() - 1;
    let (mut along_outputs, mut along_terms) = (0, 0);
    visit(&reduction.element, &mut |s| {
        if let Scalar::Input(_, at) | Scalar::Weight(_, at) = s {
            along_outputs += i64::from(step(at, &Index::Loop(last)) == Some(1));
            along_terms += i64::from(step(at, &Index::ReduceLoop(reduction.extents.len() - 1)) == Some(1));
        }
    });
    let whole = 16 / task.spec.outputs[0].dtype.size() as i64;
    let mut points = Vec::new();
    for across in if along_outputs > along_terms { [1, 0] } else { [0, 1] } {
        let (lanes, vectors): (&[i64], &[i64]) =
            if across == 1 { (&[1, 4, 16, 64, 256], &[whole, 1]) } else { (&[8, 32, 128, 256], &[1]) };
        let mut both: Vec<(i64, i64)> = vectors
            .iter()
            .filter(|v| vectorises(nest, **v))
            .flat_map(|v| lanes.iter().map(move |lanes| (*lanes, *v)))
            .filter(|(lanes, _)| *lanes == 1 || *lanes < 2 * terms)
            .collect();
        both.dedup();
        // Enough threads in all, each with some terms of its own.
        both.sort_by_key(|(lanes, v)| (outputs / v * lanes < PARALLEL && terms > 4 * lanes, (terms / lanes - 16).abs()));
        points.extend(both.into_iter().map(|(lanes, v)| vec![("across", across), ("lanes", lanes), ("threads", 256), ("v", v)]));
    }
    points
}

/// Calls `f` with a scalar and all scalars that it is made of, but for those inside indices.
fn visit<'a>(scalar: &'a Scalar, f: &mut dyn FnMut(&'a Scalar)) {
    f(scalar);
    match scalar {
        Scalar::Unary(_, x) | Scalar::Cast(_, x) => visit(x, f),
        Scalar::Binary(_, a, b) => {
            visit(a, f);
            visit(b, f);
        }
        Scalar::Select(c, a, b) => {
            visit(c, f);
            visit(a, f);
            visit(b, f);
        }
        Scalar::Input(..)
        | Scalar::Weight(..)
        | Scalar::Const(..)
        | Scalar::Index(..)
        | Scalar::Reduced
        | Scalar::InRange(..) => {}
    }
}

/// How much an index grows when the variable grows by one, if that is always the same.
fn step(index: &Index, variable: &Index) -> Option<i64> {
    match index {
        _ if index == variable => Some(1),
        Index::Const(_) | Index::Loop(_) | Index::ReduceLoop(_) | Index::Dim(_) => Some(0),
        Index::Add(a, b) => Some(step(a, variable)? + step(b, variable)?),
        Index::Mul(a, b) => match (step(a, variable)?, step(b, variable)?, &**a, &**b) {
            (0, 0, ..) => Some(0),
            (by, 0, _, Index::Const(n)) | (0, by, Index::Const(n), _) => by.checked_mul(*n),
            _ => None,
        },
        Index::Div(a, b) | Index::Mod(a, b) => (step(a, variable)? == 0 && step(b, variable)? == 0).then_some(0),
        Index::Value(x) => {
            let mut fixed = true;
            visit(x, &mut |s| match s {
                Scalar::Input(_, at) | Scalar::Weight(_, at) | Scalar::Index(at, _) | Scalar::InRange(at, ..) => {
                    fixed &= step(at, variable) == Some(0);
                }
                _ => {}
            });
            fixed.then_some(0)
        }
    }
}

/// Whether an index is a multiple of `n` whenever the variable is.
fn is_multiple(index: &Index, variable: &Index, n: i64) -> bool {
    match index {
        _ if index == variable => true,
        Index::Const(c) => c % n == 0,
        Index::Add(a, b) => is_multiple(a, variable, n) && is_multiple(b, variable, n),
        Index::Mul(a, b) => is_multiple(a, variable, n) || is_multiple(b, variable, n),
        _ => false,
    }
}

/// Whether `v` elements that follow each other in the last loop follow each other in memory, at a
/// multiple of `v`.
fn is_vector(index: &Index, last: usize, v: i64) -> bool {
    let last = Index::Loop(last);
    step(index, &last) == Some(1) && is_multiple(index, &last, v)
}

/// Whether a thread can store `v` elements at once.
fn vectorises(nest: &LoopNest, v: i64) -> bool {
    let last = nest.extents.len() - 1;
    // A chain over one loop may end in a smaller group; else each round must be of whole groups.
    let whole = matches!(nest.extents[last], Size::Const(n) if n % v == 0);
    v == 1 || ((whole || (last == 0 && nest.reduction.is_none())) && is_vector(&nest.store, last, v))
}

/// The loads that can be made for `v` elements at once, whether or not their values are used: those
/// that no condition on an index guards.
fn loads(value: &Scalar, last: usize, v: i64) -> Vec<Load<'_>> {
    fn collect<'a>(scalar: &'a Scalar, last: usize, v: i64, loads: &mut Vec<Load<'a>>) {
        match scalar {
            Scalar::Input(operand, at) | Scalar::Weight(operand, at) => {
                let load = Load { weight: matches!(scalar, Scalar::Weight(..)), operand: *operand, at };
                if is_vector(at, last, v) && !loads.contains(&load) {
                    loads.push(load);
                }
            }
            Scalar::Unary(_, x) | Scalar::Cast(_, x) => collect(x, last, v, loads),
            Scalar::Binary(_, a, b) => {
                collect(a, last, v, loads);
                collect(b, last, v, loads);
            }
            Scalar::Select(c, a, b) => {
                collect(c, last, v, loads);
                let mut guards = false;
                visit(c, &mut |s| guards |= matches!(s, Scalar::InRange(..)));
                if !guards {
                    collect(a, last, v, loads);
                    collect(b, last, v, loads);
                }
            }
            Scalar::Const(..) | Scalar::Index(..) | Scalar::Reduced | Scalar::InRange(..) => {}
        }
    }
    let mut found = Vec::new();
    collect(value, last, v, &mut found);
    found
}

/// A size as a C++ expression of type I where the dims are the variables `d<k>`.
fn extent(size: Size) -> String {
    match size {
        Size::Const(n) => format!("(I){n}"),
        Size::Dim(k) => format!("d{k}"),
    }
}

/// A product of sizes: its constant part, and its dims.
fn product(sizes: impl IntoIterator<Item = Size>) -> (i64, Vec<usize>) {
    sizes.into_iter().fold((1, Vec::new()), |(constant, mut dims): (i64, Vec<usize>), size| match size {
        Size::Const(n) => (constant.saturating_mul(n), dims),
        Size::Dim(k) => {
            dims.push(k);
            (constant, dims)
        }
    })
}

fn product_c((constant, dims): &(i64, Vec<usize>), dim: impl Fn(usize) -> String) -> String {
    dims.iter().fold(constant.to_string(), |text, k| format!("{text} * {}", dim(*k)))
}

/// The elements of a buffer.
fn elements(tensor: &TensorSpec) -> (i64, Vec<usize>) {
    let Layout::Image { block, halo: [top, bottom, left, right] } = tensor.layout else {
        return product(tensor.shape.iter().copied());
    };
    let block = i64::from(block);
    let padded = |size: Size, by: u32| if let Size::Const(n) = size { Size::Const(n + i64::from(by)) } else { size };
    let blocks = |size: Size| if let Size::Const(n) = size { Size::Const((n + block - 1) / block * block) } else { size };
    match tensor.shape[..] {
        [n, c, h, w] => product([n, blocks(c), padded(h, top + bottom), padded(w, left + right)]),
        _ => product(tensor.shape.iter().copied()),
    }
}

/// Whether 32 bits are enough for all indices, as a C++ condition: `0` or `1` if that is known now.
fn narrow(spec: &KernelSpec, nest: &LoopNest) -> String {
    let mut constants = true;
    let mut check = |s: &Scalar| {
        if let Scalar::Input(_, at) | Scalar::Weight(_, at) | Scalar::Index(at, _) | Scalar::InRange(at, ..) = s {
            constants &= small(at);
        }
    };
    visit(&nest.value, &mut check);
    nest.reduction.iter().for_each(|r| visit(&r.element, &mut check));
    if !constants || !small(&nest.store) {
        return "0".to_owned();
    }
    let loops = nest.extents.iter().chain(nest.reduction.iter().flat_map(|r| &r.extents));
    let operands = spec.inputs.iter().chain(&spec.weights).chain(&spec.outputs).map(elements);
    let sizes: Vec<_> = operands.chain([product(loops.copied())]).collect();
    if sizes.iter().any(|(constant, _)| *constant >= NARROW) {
        return "0".to_owned();
    }
    let mut tests: Vec<String> = Vec::new();
    for size in sizes.iter().filter(|(_, dims)| !dims.is_empty()) {
        let test = format!("{} < {NARROW}", product_c(size, |k| format!("AOTK_DIM({k})")));
        if !tests.contains(&test) {
            tests.push(test);
        }
    }
    if tests.is_empty() { "1".to_owned() } else { tests.join(" && ") }
}

/// Whether an index has only constants that fit 32 bits well.
fn small(index: &Index) -> bool {
    match index {
        Index::Const(n) => n.unsigned_abs() < NARROW.unsigned_abs(),
        Index::Add(a, b) | Index::Mul(a, b) | Index::Div(a, b) | Index::Mod(a, b) => small(a) && small(b),
        Index::Value(x) => {
            let mut all = true;
            visit(x, &mut |s| {
                if let Scalar::Input(_, at) | Scalar::Weight(_, at) | Scalar::Index(at, _) | Scalar::InRange(at, ..) = s {
                    all &= small(at);
                }
            });
            all
        }
        Index::Loop(_) | Index::ReduceLoop(_) | Index::Dim(_) => true,
    }
}

fn render_nest(family: FamilyId, task: &TuningTask, params: &Params, shape: Shape) -> KernelSource {
    let nest = nest(task).unwrap_or_else(|e| panic!("{family}: {e}"));
    let spec = &task.spec;
    let last = nest.extents.len() - 1;
    let out = spec.outputs[0].dtype;
    // Where the loop over V elements is: around the terms of a reduction, or around the value.
    let inner = nest.reduction.as_ref().map_or(&nest.value, |r| &r.element);
    let loads = if shape.vector > 1 { loads(inner, last, shape.vector) } else { Vec::new() };
    let value = |loads: &[Load<'_>]| {
        let printer = Printer::in_dialect(Dialect::Cuda, spec, nest, loads);
        let value = cast(printer.dtype(&nest.value), out, &printer.scalar(&nest.value));
        // A cast binds less than what may follow it.
        narrowed(out, &value)
    };
    let printer = Printer::in_dialect(Dialect::Cuda, spec, nest, &[]);
    let from_last = |extents: &[Size], prefix: &str| -> Vec<Value> {
        let loops = extents.iter().enumerate().rev();
        loops.map(|(k, size)| context! { name => format!("{prefix}{k}"), extent => extent(*size) }).collect()
    };
    // The loops with groups of V elements in place of the last one.
    let grouped = |size: Size| match size {
        Size::Const(n) => format!("(I){}", (n + shape.vector - 1) / shape.vector),
        Size::Dim(k) => format!("(d{k} + (V - 1)) / V"),
    };
    let mut groups = from_last(&nest.extents, "l");
    let last_group = grouped(nest.extents[last]);
    groups[0] = context! { name => format!("l{last}"), extent => &last_group };
    let mut total = vec![last_group];
    total.extend(nest.extents[..last].iter().map(|s| extent(*s)));
    let terms = nest.reduction.as_ref().map(|r| product_c(&product(r.extents.iter().copied()), |k| format!("d{k}")));
    let reduce_from_last = nest.reduction.as_ref().map_or_else(Vec::new, |r| from_last(&r.extents, "r"));
    let common = context! {
        threads => shape.threads,
        vector => shape.vector,
        items => shape.items,
        lanes => shape.lanes,
        across => shape.across,
        narrow => narrow(spec, nest),
        declarations => declarations(spec),
        total => total.iter().map(|t| format!("({t})")).collect::<Vec<_>>().join(" * "),
        loops => from_last(&nest.extents, "l"),
        groups,
        terms,
        reduce_from_last,
        last => format!("l{last}"),
        last_extent => extent(nest.extents[last]),
        tail => !matches!(nest.extents[last], Size::Const(n) if n % shape.vector == 0),
        store => printer.index(&nest.store),
        value => value(&[]),
        value_of_loads => value(&loads),
        out_type => Dialect::Cuda.stored(out),
        loads => loads.iter().map(|load| {
            let (name, tensors) = if load.weight { ("weight", &spec.weights) } else { ("in", &spec.inputs) };
            context! {
                type => Dialect::Cuda.stored(tensors[load.operand].dtype),
                operand => format!("{name}{}", load.operand),
                at => printer.index(load.at),
            }
        }).collect::<Vec<_>>(),
    };
    let unit = Unit { family, template: TEMPLATE, headers: &[CUDA_MATH, CUDA_TYPES], task, params, packs: false };
    let loading = Printer::in_dialect(Dialect::Cuda, spec, nest, &loads);
    render::unit(&unit, context! { ..Accumulator::of(nest, &loading, shape.double), ..common })
}

/// Local names of the operands and the dims.
fn declarations(spec: &KernelSpec) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, macro_name, tensors) in [("in", "IN", &spec.inputs), ("weight", "WEIGHT", &spec.weights)] {
        for (k, tensor) in tensors.iter().enumerate() {
            let c = Dialect::Cuda.stored(tensor.dtype);
            lines.push(format!("const {c} *const {name}{k} = (const {c} *)AOTK_{macro_name}({k});"));
        }
    }
    let c = Dialect::Cuda.stored(spec.outputs[0].dtype);
    lines.push(format!("{c} *const out0 = ({c} *)AOTK_OUT(0);"));
    for k in 0..spec.dims {
        lines.push(format!("const I d{k} = (I)AOTK_DIM({k});"));
    }
    lines
}
