//! Inputs, outputs and states, and how the symbolic dimensions follow from the inputs.

use aotfarm_protocol::{Dim, Port};

use super::error::LinkError;
use super::values::Values;
use aotfarm_ir::{Expr, GraphDim};
use aotfarm_plan::{Place, Plan};

/// One dimension of an input, output or state.
pub(super) struct PortDim {
    /// The size when it is constant.
    pub(super) constant: Option<i64>,
    /// Text for people.
    pub(super) text: String,
    /// Index of its size.
    pub(super) value: u32,
    /// Index of the symbol that it is, if it is just one.
    pub(super) symbol: Option<usize>,
}

/// `size of input dimension = scale * symbol + offset`.
pub(super) struct Source {
    pub(super) input: usize,
    pub(super) axis: usize,
    pub(super) scale: i64,
    pub(super) offset: i64,
}

pub(super) struct Ports {
    pub(super) inputs: Vec<Vec<PortDim>>,
    pub(super) outputs: Vec<Vec<PortDim>>,
    pub(super) states: Vec<Vec<PortDim>>,
    /// For each symbolic dimension of the plan; `None` when nothing depends on it.
    pub(super) sources: Vec<Option<Source>>,
}

impl Ports {
    pub(super) fn new(plan: &Plan, values: &mut Values) -> Result<Self, LinkError> {
        let inputs = shapes("input", &plan.inputs)?;
        let outputs = shapes("output", &plan.outputs)?;
        let state_ports: Vec<Port> = plan.states.iter().map(|state| state.port.clone()).collect();
        let states = shapes("state", &state_ports)?;
        for buffer in &plan.buffers {
            let (port, shape) = match buffer.place {
                Place::Input(i) => (plan.inputs.get(i), inputs.get(i)),
                Place::Output(i) => (plan.outputs.get(i), outputs.get(i)),
                Place::State(i) | Place::Next(i) => (state_ports.get(i), states.get(i)),
                Place::Back(i) => plan.writes.get(i).map_or((None, None), |i| (plan.inputs.get(*i), inputs.get(*i))),
                Place::Slot(_) => continue,
            };
            let (Some(port), Some(shape)) = (port, shape) else {
                return Err(LinkError::Plan(format!("a buffer lies at {}, which does not exist", buffer.place)));
            };
            // Kernels read and write the caller's memory by the buffer's length, and the caller was checked by the port's shape.
            let elements: Expr = shape.iter().product();
            if elements != buffer.len || port.dtype != buffer.dtype {
                let (len, dtype) = (&buffer.len, buffer.dtype);
                return Err(LinkError::Plan(format!(
                    "the buffer of `{}` has {len} {dtype} elements, but its shape says {elements}",
                    port.name
                )));
            }
        }
        let sources = values.dims().to_vec().iter().map(|dim| source(dim, &inputs)).collect();
        let mut index = |kind: &str, ports: &[Port], shapes: &[Vec<Expr>]| -> Result<Vec<Vec<PortDim>>, LinkError> {
            let port = |(port, shape): (&Port, &Vec<Expr>)| {
                let dim = |(axis, expr): (usize, &Expr)| {
                    let value = values.index(expr, || format!("dimension {axis} of {kind} `{}`", port.name))?;
                    let symbol = expr.as_sym().and_then(|sym| values.dims().iter().position(|d| d.sym == *sym));
                    Ok(PortDim { constant: expr.as_const(), text: expr.to_string(), value, symbol })
                };
                shape.iter().enumerate().map(dim).collect()
            };
            ports.iter().zip(shapes).map(port).collect()
        };
        let (inputs, outputs) = (index("input", &plan.inputs, &inputs)?, index("output", &plan.outputs, &outputs)?);
        Ok(Self { inputs, outputs, states: index("state", &state_ports, &states)?, sources })
    }
}

fn shapes(kind: &str, ports: &[Port]) -> Result<Vec<Vec<Expr>>, LinkError> {
    let dim = |port: &Port, dim: &Dim| match dim {
        Dim::Size(n) => Ok(Expr::from(*n)),
        Dim::Expr(text) => {
            text.parse().map_err(|e| LinkError::Plan(format!("the size `{text}` of {kind} `{}` does not parse: {e}", port.name)))
        }
    };
    ports.iter().map(|port| port.dims.iter().map(|d| dim(port, d)).collect()).collect()
}

/// Where the symbol can be read: the first input dimension that is the symbol itself, else the first that is affine in it.
fn source(dim: &GraphDim, inputs: &[Vec<Expr>]) -> Option<Source> {
    let all =
        || inputs.iter().enumerate().flat_map(|(input, shape)| shape.iter().enumerate().map(move |(axis, e)| (input, axis, e)));
    let sym = Expr::from(&dim.sym);
    let bare = all().find(|(_, _, e)| **e == sym).map(|(input, axis, _)| Source { input, axis, scale: 1, offset: 0 });
    bare.or_else(|| {
        all().find_map(|(input, axis, e)| {
            let (_, scale, offset) = e.affine().filter(|(sym, ..)| **sym == dim.sym)?;
            Some(Source { input, axis, scale, offset })
        })
    })
}
