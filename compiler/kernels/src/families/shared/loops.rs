//! How the loop nests of C and of CUDA C++ accumulate.

use aotfarm_protocol::DType;
use minijinja::{Value, context};

use crate::render::product;
use crate::scalar::{Printer, computed_c, constant};
use aotfarm_ir::ReduceOp;
use aotfarm_plan::spec::{LoopNest, Size};

/// A size as a C expression where the dims are the variables `d<k>`.
pub fn extent(size: Size) -> String {
    match size {
        Size::Const(n) => format!("((int64_t){n})"),
        Size::Dim(k) => format!("d{k}"),
    }
}

/// How a reduction accumulates, as template variables.
pub struct Accumulator;

impl Accumulator {
    /// `double`: sums and products of f32 and narrower types are made in f64.
    pub fn of(nest: &LoopNest, printer: &Printer<'_>, double: bool) -> Value {
        let Some(reduction) = &nest.reduction else {
            return context! { reduce_loops => Vec::<String>::new() };
        };
        let dtype = printer.dtype(&reduction.element);
        let wide = double
            && matches!(reduction.op, ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod)
            && matches!(dtype, DType::F16 | DType::Bf16 | DType::F32);
        let acc = match dtype {
            _ if wide => DType::F64,
            DType::F16 | DType::Bf16 => DType::F32,
            other => other,
        };
        let acc_type = computed_c(acc);
        let combined = |a: &str| -> String {
            let float = acc == DType::F32;
            match (reduction.op, acc.is_float()) {
                (ReduceOp::Sum | ReduceOp::Mean, true) => format!("{a} + x"),
                (ReduceOp::Prod, true) => format!("{a} * x"),
                (ReduceOp::Max, true) => format!("{}_max_nan(x, {a})", if float { "s" } else { "d" }),
                (ReduceOp::Min, true) => format!("{}_min_nan(x, {a})", if float { "s" } else { "d" }),
                (ReduceOp::Sum | ReduceOp::Mean, false) => format!("({acc_type})((uint64_t){a} + (uint64_t)x)"),
                (ReduceOp::Prod, false) => format!("({acc_type})((uint64_t){a} * (uint64_t)x)"),
                (ReduceOp::Max, false) => format!("({acc_type})i_max({a}, x)"),
                (ReduceOp::Min, false) => format!("({acc_type})i_min({a}, x)"),
                (ReduceOp::Any, _) => format!("({acc_type})({a} != 0 || x != 0)"),
                (ReduceOp::All, _) => format!("({acc_type})({a} != 0 && x != 0)"),
            }
        };
        let neutral = match reduction.op {
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Any => 0.0,
            ReduceOp::Prod | ReduceOp::All => 1.0,
            // An `as` cast takes the infinities to the ends of i64, and `constant`'s C cast wraps
            // those: take the type's own.
            ReduceOp::Max => {
                if acc.is_float() {
                    f64::NEG_INFINITY
                } else {
                    ends(acc).0
                }
            }
            ReduceOp::Min => {
                if acc.is_float() {
                    f64::INFINITY
                } else {
                    ends(acc).1
                }
            }
        };
        let terms = product(&reduction.extents).replace("c->dim[", "d").replace(']', "");
        let finish = |a: &str| if reduction.op == ReduceOp::Mean { format!("{a} / {terms}") } else { a.to_owned() };
        context! {
            reduce_loops => reduction.extents.iter().map(|s| extent(*s)).collect::<Vec<_>>(),
            acc_type,
            acc_init => constant(neutral.into(), acc),
            reduced_type => computed_c(dtype),
            element => printer.scalar(&reduction.element),
            combine => combined("accs[j]"),
            combine_sum => combined("sum"),
            finish_lane => finish("accs[j]"),
            finish_sum => finish("sum"),
        }
    }
}

/// The least and the largest integer of a type. (Those of i64 are rounded, outwards, and cast back
/// to the exact ones.)
fn ends(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::Bool => (0.0, 1.0),
        _ => (i64::MIN as f64, i64::MAX as f64),
    }
}
