//! Templates → translation units.
//!
//! A unit is a banner, two `#define`s with its symbols, the headers, and the rendered template.
//! Templates are nearly C: they name their kernel `AOTK_SYMBOL` and their pack function
//! `AOTK_PACK`, and take as variables what their family hands in. What only packs weights stands
//! outside `#ifndef AOTK_PACK_ONLY`, so that a link host of any architecture can compile it.

use std::fmt::Write as _;

use aotfarm_abi::kernel::{AOTK_CUH, AOTK_H};
use aotfarm_protocol::{CpuIsa, DType, Digest, Params, Target};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value};

use crate::family::{FamilyId, KernelSource};
use crate::printer;
use crate::task::TuningTask;
use aotfarm_plan::spec::{EpilogueStep, KernelKind, Math, Size};

/// A template of a family, or a header, embedded.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// Its label, such as `cpu/conv_direct.c.j2`. Not a path: it stands in each unit that is made
    /// of the template, and so is part of the digests by which build results and measurements are
    /// stored. A template that moves keeps its label.
    pub name: &'static str,
    /// Contents.
    pub text: &'static str,
}

/// What a unit is made of, besides the variables of its template.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// `name@version`.
    pub family: FamilyId,
    /// The body.
    pub template: Template,
    /// Headers between the ABI and the body, in order; left out when only the pack function is
    /// compiled.
    pub headers: &'a [Template],
    /// The task.
    pub task: &'a TuningTask,
    /// The compile-time parameters, and only those: units that differ in run-time integers must be
    /// the same text.
    pub params: &'a Params,
    /// Whether the body defines `AOTK_PACK`.
    pub packs: bool,
}

/// Renders a unit with the variables `context` (a map). `lanes` (f32 lanes of a vector) is always
/// there.
///
/// # Panics
/// When the template and its family do not fit each other: that is a bug that the conformance tests
/// show.
pub fn unit(unit: &Unit<'_>, context: Value) -> KernelSource {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("only whitespace options differ from the default syntax"));
    let body = environment
        .render_named_str(unit.template.name, unit.template.text, context)
        .unwrap_or_else(|e| panic!("template {} of {}: {e:#}", unit.template.name, unit.family));

    let mut params = String::new();
    for (name, value) in unit.params {
        let _ = write!(params, " {name}={value}");
    }
    let mut rest = String::new();
    let headers = unit.headers.iter().map(|header| format!("/* {} */\n{}\n", header.name, header.text));
    let headers: String = headers.chain([printer::definitions(unit.task.target, &body)]).collect();
    match unit.task.target {
        Target::Cpu(_) => {
            let _ = writeln!(rest, "#define AOTK_LANES {}\n{AOTK_H}", unit.task.target.f32_lanes());
            if !headers.is_empty() {
                let _ = write!(rest, "#ifndef AOTK_PACK_ONLY\n{headers}#endif /* AOTK_PACK_ONLY */\n\n");
            }
        }
        Target::Cuda { sm } => {
            let spec = &unit.task.spec;
            let narrow = spec.math == Math::Tf32 || spec.outputs.iter().all(|o| matches!(o.dtype, DType::F16 | DType::Bf16));
            let counts = [
                ("SM", sm as usize),
                ("NARROW", usize::from(narrow)),
                ("INPUTS", spec.inputs.len()),
                ("WEIGHTS", spec.weights.len()),
                ("OUTPUTS", spec.outputs.len()),
                ("DIMS", spec.dims),
            ];
            for (name, count) in counts {
                let _ = writeln!(rest, "#define AOTK_{name} {count}");
            }
            let _ = writeln!(rest, "{AOTK_CUH}\n{headers}");
        }
    }
    rest.push_str("/* end of the headers */\n");
    rest.push_str(&body);
    let opening = format!("/* {}{params} for {}, from {} */\n", unit.family, unit.task.target, unit.template.name);
    let digest = Digest::of(format!("{opening}{rest}"));

    let symbol = symbol(unit, &digest);
    let mut text = format!("{opening}#define AOTK_SYMBOL {symbol}\n");
    if let Target::Cpu(_) = unit.task.target {
        let _ = writeln!(text, "#define AOTK_PACK {symbol}_pack");
    }
    text.push_str(&rest);
    KernelSource { text, symbol, packs: unit.packs }
}

/// `aot_<dtype>_<family>[_<fused>…]__<params>__<isa>_<8 digits of the text's digest>`.
fn symbol(unit: &Unit<'_>, digest: &Digest) -> String {
    let spec = &unit.task.spec;
    let dtype = spec.outputs.first().map_or("none", |o| o.dtype.name());
    let family = unit.family.split('@').next().unwrap_or(unit.family);
    let mut name = format!("aot_{dtype}_{family}");
    for step in epilogue(&spec.kind) {
        let word = match step {
            EpilogueStep::Bias(_) => "bias".to_owned(),
            EpilogueStep::Residual(op, _) => format!("{op:?}").to_lowercase(),
            // The variant's name without its fields.
            EpilogueStep::Unary(op) => format!("{op:?}").split([' ', '{']).next().unwrap_or("").to_lowercase(),
        };
        let _ = write!(name, "_{word}");
    }
    if !unit.params.is_empty() {
        name.push('_');
        for (key, value) in unit.params {
            let _ = write!(name, "_{key}{}", value.to_string().replace('-', "n"));
        }
    }
    let isa = match unit.task.target {
        Target::Cpu(CpuIsa::X86_64V3) => "x86v3".to_owned(),
        Target::Cpu(CpuIsa::X86_64V4) => "x86v4".to_owned(),
        Target::Cpu(CpuIsa::Aarch64) => "aarch64".to_owned(),
        Target::Cuda { sm } => format!("sm{sm}"),
    };
    format!("{name}__{isa}_{}", &digest.hex()[..8])
}

/// The fused steps of a kind that has them.
pub fn epilogue(kind: &KernelKind) -> &[EpilogueStep] {
    match kind {
        KernelKind::Conv(conv) => &conv.epilogue,
        KernelKind::MatMul(matmul) => &matmul.epilogue,
        KernelKind::Attention(_) | KernelKind::Pool(_) | KernelKind::Rows(_) | KernelKind::Loops(_) => &[],
    }
}

/// A size as a C expression of type `int64_t` in a function whose parameter is `const aotk_call
/// *c`.
pub fn size(size: Size) -> String {
    match size {
        Size::Const(n) => format!("((int64_t){n})"),
        Size::Dim(k) => format!("c->dim[{k}]"),
    }
}

/// The product of sizes as a C expression, constants folded.
pub fn product(sizes: &[Size]) -> String {
    let mut constant: i64 = 1;
    let mut text = String::new();
    for s in sizes {
        match s {
            Size::Const(n) => constant = constant.saturating_mul(*n),
            Size::Dim(k) => {
                let _ = write!(text, " * c->dim[{k}]");
            }
        }
    }
    format!("(((int64_t){constant}){text})")
}
