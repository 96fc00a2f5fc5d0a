//! The Plan as text, for people and golden files.

use std::fmt::{self, Display, Write as _};

use aotfarm_protocol::{Dim, Port};

use crate::spec::{
    AttentionSpec, EpilogueStep, Index, KernelKind, KernelSpec, Layout, LoopNest, RowSpec, Scalar, Size, TensorSpec, View,
};

use crate::plan::{Place, Plan};

impl Plan {
    /// Every buffer, slot and step, one per line; loop nests with their arithmetic.
    pub fn print(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        _ = self.write(&mut text);
        text
    }

    fn write(&self, f: &mut String) -> fmt::Result {
        writeln!(f, "plan for {}", self.target)?;
        for (dim, hint) in self.dims.iter().zip(&self.hints) {
            let hint = hint.map_or_else(String::new, |hint| format!(", typically {hint}"));
            writeln!(f, "dim {}: {}..{}{hint}", dim.name, dim.min, dim.max)?;
        }
        for (i, port) in self.inputs.iter().enumerate() {
            writeln!(f, "input {i}: {}", port_text(port))?;
        }
        for (i, port) in self.outputs.iter().enumerate() {
            writeln!(f, "output {i}: {}", port_text(port))?;
        }
        for (i, state) in self.states.iter().enumerate() {
            writeln!(f, "state {i}: {}", port_text(&state.port))?;
        }
        for (i, input) in self.writes.iter().enumerate() {
            writeln!(f, "write {i}: into input {input}")?;
        }
        for (k, slot) in self.slots.iter().enumerate() {
            let sizes: Vec<String> = slot.bytes.iter().map(ToString::to_string).collect();
            writeln!(f, "slot {k}: {} bytes{}", sizes.join(" or "), if slot.zeroed { ", zeroed" } else { "" })?;
        }
        for (s, step) in self.steps.iter().enumerate() {
            if let Some(segment) = self.segments.iter().find(|segment| segment.steps.start == s) {
                writeln!(f, "for {} images at a time, the next {} steps:", segment.images, segment.steps.len())?;
            }
            let spec = &self.specs[step.spec];
            writeln!(f, "step {}", step.label)?;
            if !step.dims.is_empty() {
                let dims: Vec<String> = step.dims.iter().enumerate().map(|(k, d)| format!("d{k} = {d}")).collect();
                writeln!(f, "  {}", dims.join(", "))?;
            }
            for (k, (tensor, buffer)) in spec.inputs.iter().zip(&step.inputs).enumerate() {
                writeln!(f, "  in{k}: {} of {}", tensor_text(tensor), self.buffer_text(buffer.0))?;
            }
            for (k, (tensor, weight)) in spec.weights.iter().zip(&step.weights).enumerate() {
                writeln!(f, "  w{k}: {} of {}", tensor_text(tensor), self.weights[weight.0 as usize].name)?;
            }
            for (k, (tensor, buffer)) in spec.outputs.iter().zip(&step.outputs).enumerate() {
                writeln!(f, "  out{k}: {} of {}", tensor_text(tensor), self.buffer_text(buffer.0))?;
            }
            writeln!(f, "  {}", task_text(spec))?;
        }
        Ok(())
    }

    fn buffer_text(&self, buffer: u32) -> String {
        match self.buffers[buffer as usize].place {
            place @ Place::Slot(_) => format!("b{buffer} in {place}"),
            place => place.to_string(),
        }
    }
}

fn port_text(port: &Port) -> String {
    let dims: Vec<String> = port
        .dims
        .iter()
        .map(|dim| match dim {
            Dim::Size(n) => n.to_string(),
            Dim::Expr(text) => text.clone(),
        })
        .collect();
    format!("{} {}[{}]", port.name, port.dtype, dims.join(", "))
}

fn tensor_text(tensor: &TensorSpec) -> String {
    let shape: Vec<String> = tensor.shape.iter().map(|size| SizeText(*size).to_string()).collect();
    let layout = match tensor.layout {
        Layout::Plain => String::new(),
        Layout::Image { block, halo: [0, 0, 0, 0] } => format!(" image{block}"),
        Layout::Image { block, halo: [top, bottom, left, right] } => format!(" image{block} halo {top} {bottom} {left} {right}"),
    };
    format!("{}[{}]{layout}", tensor.dtype, shape.join(", "))
}

fn task_text(spec: &KernelSpec) -> String {
    let epilogue = |steps: &[EpilogueStep]| {
        steps
            .iter()
            .map(|step| match step {
                EpilogueStep::Bias(k) => format!(", + w{k}"),
                EpilogueStep::Residual(op, k) => format!(", {}(·, in{k})", op.name()),
                EpilogueStep::Unary(op) => format!(", {op:?}"),
            })
            .collect::<String>()
    };
    match &spec.kind {
        KernelKind::Conv(conv) => {
            let w = conv.window;
            let dense = if conv.groups == 1 { String::new() } else { format!(" groups {}", conv.groups) };
            let mean = if conv.mean { ", mean to out1" } else { "" };
            let fused = epilogue(&conv.epilogue) + mean;
            format!("conv stride {:?} pad {:?} dilation {:?}{dense}{fused}", w.stride, w.pad, w.dilation)
        }
        KernelKind::MatMul(product) => {
            let b = if product.b_is_weight { "w0" } else { "in1" };
            format!("in0 * {b}{}{}", if product.b_transposed { "ᵀ" } else { "" }, epilogue(&product.epilogue))
        }
        KernelKind::Attention(spec) => attention_text(spec),
        KernelKind::Pool(pool) => {
            let w = pool.window;
            format!("{:?} of {:?} stride {:?} pad {:?} dilation {:?}", pool.op, w.kernel, w.stride, w.pad, w.dilation)
        }
        KernelKind::Rows(RowSpec::Softmax) => "softmax of rows".into(),
        KernelKind::Rows(RowSpec::LayerNorm { eps, affine }) => {
            format!("layer norm of rows, eps {eps:e}{}", if *affine { ", * w0 + w1" } else { "" })
        }
        KernelKind::Loops(nest) => nest_text(nest),
    }
}

fn attention_text(spec: &AttentionSpec) -> String {
    let view = |view: &View| {
        let strides: Vec<String> = view.strides.iter().map(|size| SizeText(*size).to_string()).collect();
        let offset = if view.offset == Size::Const(0) { String::new() } else { format!("{} + ", SizeText(view.offset)) };
        format!("[{offset}{}]", strides.join(", "))
    };
    let [q, k, v, out] = spec.views.each_ref().map(view);
    let mask = spec
        .mask
        .as_ref()
        .map_or_else(String::new, |mask| format!(", mask {}{}", if mask.is_weight { "w0" } else { "in3" }, view(&mask.view)));
    let causal = if spec.causal { ", causal" } else { "" };
    format!("attention of in0{q}, in1{k}, in2{v} to out0{out}, scale {:?}{causal}{mask}", spec.scale)
}

fn nest_text(nest: &LoopNest) -> String {
    let extents = |letter: char, sizes: &[Size]| {
        let loops: Vec<String> = sizes.iter().enumerate().map(|(k, s)| format!("{letter}{k} < {}", SizeText(*s))).collect();
        loops.join(", ")
    };
    let reduction = nest.reduction.as_ref().map_or_else(String::new, |r| {
        let loops = extents('r', &r.extents);
        format!("; reduced = {} over {loops}: {}", r.op.name(), ScalarText(&r.element))
    });
    format!("for {}{reduction}: out0[{}] = {}", extents('i', &nest.extents), IndexText(&nest.store), ScalarText(&nest.value))
}

struct SizeText(Size);

impl Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Size::Const(n) => write!(f, "{n}"),
            Size::Dim(k) => write!(f, "d{k}"),
        }
    }
}

struct IndexText<'a>(&'a Index);

impl Display for IndexText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |index| match index {
            &Index::Add(..) | &Index::Div(..) | &Index::Mod(..) => format!("({})", IndexText(index)),
            _ => IndexText(index).to_string(),
        };
        match self.0 {
            Index::Const(n) => write!(f, "{n}"),
            Index::Loop(k) => write!(f, "i{k}"),
            Index::ReduceLoop(k) => write!(f, "r{k}"),
            Index::Dim(k) => write!(f, "d{k}"),
            Index::Add(a, b) => write!(f, "{} + {}", Self(a), Self(b)),
            Index::Mul(a, b) => write!(f, "{}*{}", group(a), group(b)),
            Index::Div(a, b) => write!(f, "{}/{}", group(a), group(b)),
            Index::Mod(a, b) => write!(f, "{}%{}", group(a), group(b)),
            Index::Value(scalar) => write!(f, "int({})", ScalarText(scalar)),
        }
    }
}

struct ScalarText<'a>(&'a Scalar);

impl Display for ScalarText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Scalar::Input(k, index) => write!(f, "in{k}[{}]", IndexText(index)),
            Scalar::Weight(k, index) => write!(f, "w{k}[{}]", IndexText(index)),
            Scalar::Const(value, _) => write!(f, "{value:?}"),
            Scalar::Index(index, dtype) => write!(f, "{dtype}({})", IndexText(index)),
            Scalar::Reduced => write!(f, "reduced"),
            Scalar::Unary(op, x) => write!(f, "{}({})", op.name(), Self(x)),
            Scalar::Binary(op, a, b) => write!(f, "{}({}, {})", op.name(), Self(a), Self(b)),
            Scalar::Select(c, a, b) => write!(f, "({} ? {} : {})", Self(c), Self(a), Self(b)),
            Scalar::Cast(dtype, x) => write!(f, "{dtype}({})", Self(x)),
            Scalar::InRange(index, low, high) => write!(f, "{low} <= {} < {}", IndexText(index), SizeText(*high)),
        }
    }
}
