//! The JSON of an exported program: the parts of `torch/_export/serde/schema.py` (major version 8) that a graph needs.

use std::collections::BTreeMap;

use aotfarm_ir::Expr;
use aotfarm_protocol::{DType, Nested};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What is read before everything else: a newer schema may fail to parse in confusing ways.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) schema_version: SchemaVersion,
}

#[derive(Deserialize, Default)]
pub(super) struct SchemaVersion {
    pub(super) major: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct Program {
    #[serde(default)]
    pub(super) range_constraints: BTreeMap<String, Range>,
    pub(super) graph_module: GraphModule,
}

/// Ends that are absent or infinite are open.
#[derive(Deserialize)]
pub(super) struct Range {
    pub(super) min_val: Option<Bound>,
    pub(super) max_val: Option<Bound>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Bound {
    At(i64),
    Open(IgnoredAny),
}

impl Bound {
    pub(super) const fn at(&self) -> Option<i64> {
        if let Self::At(n) = self { Some(*n) } else { None }
    }
}

/// What a program tells of the source of its nodes.
#[derive(Deserialize)]
pub(super) struct Traced {
    graph_module: TracedModule,
}

#[derive(Deserialize)]
struct TracedModule {
    graph: TracedNodes,
}

#[derive(Deserialize)]
struct TracedNodes {
    nodes: Vec<TracedNode>,
}

#[derive(Deserialize)]
struct TracedNode {
    #[serde(default)]
    outputs: Vec<Argument>,
    #[serde(default)]
    metadata: BTreeMap<String, Json>,
}

impl Traced {
    /// By the name of a node's first result.
    pub(super) fn stack_traces(self) -> Vec<(String, String)> {
        let of = |node: TracedNode| {
            let name = node.outputs.first()?.result()?.to_owned();
            Some((name, node.metadata.get("stack_trace")?.as_str()?.to_owned()))
        };
        self.graph_module.graph.nodes.into_iter().filter_map(of).collect()
    }
}

#[derive(Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: Nodes,
    pub(super) signature: Signature,
    #[serde(default)]
    pub(super) module_call_graph: Vec<ModuleCallEntry>,
}

/// How a module of the program is called; the program itself has the empty name.
#[derive(Deserialize)]
pub(super) struct ModuleCallEntry {
    pub(super) fqn: String,
    pub(super) signature: Option<ModuleCall>,
}

/// The nesting of arguments and results, as tree specifications.
#[derive(Deserialize)]
pub(super) struct ModuleCall {
    pub(super) in_spec: String,
    pub(super) out_spec: String,
    #[serde(default)]
    pub(super) forward_arg_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    #[serde(default)]
    pub(super) tensor_values: BTreeMap<String, TensorMeta>,
}

#[derive(Deserialize)]
pub(super) struct Node {
    pub(super) target: String,
    #[serde(default)]
    pub(super) inputs: Vec<NamedArgument>,
    #[serde(default)]
    pub(super) outputs: Vec<Argument>,
}

#[derive(Deserialize)]
pub(super) struct NamedArgument {
    pub(super) name: String,
    pub(super) arg: Argument,
}

/// An argument or result of a node. Kinds that no operator here takes are kept as they are, for messages.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Argument {
    AsNone(Json),
    AsTensor(Named),
    AsTensors(Vec<Named>),
    AsOptionalTensor(OptionalTensor),
    AsOptionalTensors(Vec<OptionalTensor>),
    AsInt(i64),
    AsInts(Vec<i64>),
    AsSymInt(SymInt),
    AsSymInts(Vec<SymInt>),
    AsFloat(Float),
    AsFloats(Vec<Float>),
    AsSymFloat(SymFloat),
    AsBool(bool),
    AsString(String),
    AsScalarType(u32),
    AsMemoryFormat(u32),
    #[serde(untagged)]
    Other(Json),
}

#[derive(Deserialize, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OptionalTensor {
    AsTensor(Named),
    AsNone(Json),
}

impl OptionalTensor {
    fn tensor(&self) -> Option<&str> {
        if let Self::AsTensor(of) = self { Some(&of.name) } else { None }
    }
}

/// An integer, or the name of a node that gives one.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SymInt {
    AsInt(i64),
    AsName(String),
}

impl SymInt {
    fn name(&self) -> Option<&str> {
        if let Self::AsName(name) = self { Some(name) } else { None }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SymFloat {
    AsFloat(Float),
    AsName(String),
}

/// JSON has no infinities; they are written as texts.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Float {
    Number(f64),
    Text(String),
}

impl Float {
    pub(super) fn value(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Text(text) => match text.as_str() {
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                "NaN" => Some(f64::NAN),
                _ => None,
            },
        }
    }
}

impl Argument {
    /// The name of the tensor that it is.
    pub(super) fn tensor(&self) -> Option<&str> {
        match self {
            Self::AsTensor(of) | Self::AsOptionalTensor(OptionalTensor::AsTensor(of)) => Some(&of.name),
            _ => None,
        }
    }

    /// The name under which later nodes find it as a result.
    pub(super) fn result(&self) -> Option<&str> {
        match self {
            Self::AsSymInt(SymInt::AsName(name)) | Self::AsSymFloat(SymFloat::AsName(name)) => Some(name),
            Self::AsTensors(list) => list.first().map(|of| of.name.as_str()),
            _ => self.tensor(),
        }
    }

    /// The names of all tensors and numbers of nodes that it is.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::AsSymInt(SymInt::AsName(name)) | Self::AsSymFloat(SymFloat::AsName(name)) => vec![name],
            Self::AsSymInts(list) => list.iter().filter_map(SymInt::name).collect(),
            _ => self.tensors(),
        }
    }

    /// The constant that it is, as a leaf of the signature. JSON has no numbers that are not finite; they stay texts.
    pub(super) fn constant(&self) -> Option<Nested> {
        Some(match self {
            Self::AsNone(_) | Self::AsOptionalTensor(OptionalTensor::AsNone(_)) => Nested::None,
            Self::AsBool(value) => Nested::Bool(*value),
            Self::AsInt(n) | Self::AsSymInt(SymInt::AsInt(n)) => Nested::Int(*n),
            Self::AsFloat(value) | Self::AsSymFloat(SymFloat::AsFloat(value)) => match value {
                Float::Number(value) => Nested::Float(*value),
                Float::Text(text) => Nested::Text(text.clone()),
            },
            Self::AsString(text) => Nested::Text(text.clone()),
            _ => return None,
        })
    }

    /// The names of the tensors that it is.
    pub(super) fn tensors(&self) -> Vec<&str> {
        match self {
            Self::AsTensors(list) => list.iter().map(|of| of.name.as_str()).collect(),
            Self::AsOptionalTensors(list) => list.iter().filter_map(OptionalTensor::tensor).collect(),
            _ => self.tensor().into_iter().collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: u32,
    pub(super) sizes: Vec<Size>,
    #[serde(default)]
    pub(super) strides: Vec<Size>,
    #[serde(default)]
    pub(super) storage_offset: Option<Size>,
}

/// A size, stride or offset.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Size {
    AsInt(i64),
    AsExpr(SymExpr),
    #[serde(untagged)]
    Other(Json),
}

/// sympy's printed form, and the value in the example that was traced.
#[derive(Deserialize, Serialize)]
pub(super) struct SymExpr {
    pub(super) expr_str: String,
    #[serde(default)]
    pub(super) hint: Option<Hint>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hint {
    AsInt(i64),
    #[serde(untagged)]
    Other(Json),
}

#[derive(Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<InputSpec>,
    pub(super) output_specs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputSpec {
    Parameter {
        arg: Named,
        parameter_name: String,
    },
    Buffer {
        arg: Named,
        buffer_name: String,
    },
    TensorConstant {
        arg: Named,
        tensor_constant_name: String,
    },
    UserInput {
        arg: Argument,
    },
    /// An argument that the export made a constant.
    ConstantInput {
        value: Argument,
    },
    #[serde(untagged)]
    Other(BTreeMap<String, Json>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputSpec {
    UserOutput {
        arg: Argument,
    },
    BufferMutation {
        arg: Named,
        buffer_name: String,
    },
    ParameterMutation {
        arg: Named,
        parameter_name: String,
    },
    UserInputMutation {
        arg: Named,
        user_input_name: String,
    },
    #[serde(untagged)]
    Other(BTreeMap<String, Json>),
}

/// `model_weights_config.json` and `model_constants_config.json`.
#[derive(Deserialize, Default)]
pub(super) struct Payloads {
    pub(super) config: BTreeMap<String, Payload>,
}

#[derive(Deserialize)]
pub(super) struct Payload {
    pub(super) path_name: String,
    #[serde(default)]
    pub(super) use_pickle: bool,
    pub(super) tensor_meta: Option<TensorMeta>,
}

/// The element type of torch's `ScalarType` number in the export schema.
pub(super) fn dtype(number: u32) -> Result<DType, String> {
    Ok(match number {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::Bf16,
        9..=11 => return Err("complex elements are not supported".to_owned()),
        other => return Err(format!("element type number {other} is not supported")),
    })
}

/// A size in the file's own symbols, and the value that it had in the example that was traced.
pub(super) fn size(size: &Size) -> Result<(Expr, Option<i64>), String> {
    match size {
        Size::AsInt(n) => Ok((Expr::from(*n), Some(*n))),
        Size::AsExpr(of) => {
            let hint = if let Some(Hint::AsInt(n)) = of.hint { Some(n) } else { None };
            Ok((parse_sympy(&of.expr_str)?, hint))
        }
        Size::Other(json) => Err(format!("`{json}` is not a size")),
    }
}

/// Constant sizes; `None` if one is not.
pub(super) fn constants(sizes: &[Size]) -> Option<Vec<i64>> {
    sizes.iter().map(|size| if let Size::AsInt(n) = size { Some(*n) } else { None }).collect()
}

/// Nesting that real files come nowhere near; a deeper text would overflow the stack.
const MAX_DEPTH: usize = 64;

/// Parses sympy's `srepr`: `Add(Integer(2), Mul(Integer(3), Symbol('s0', positive=True, integer=True)))`.
fn parse_sympy(text: &str) -> Result<Expr, String> {
    let mut parser = Sympy { text, at: 0 };
    let expr = parser.expr(0)?;
    if parser.at != text.len() {
        return Err(format!("`{text}`: unexpected text at {}", parser.at));
    }
    Ok(expr)
}

struct Sympy<'a> {
    text: &'a str,
    at: usize,
}

impl Sympy<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn eat(&mut self, token: &str) -> bool {
        let trimmed = self.rest().trim_start();
        let skipped = self.rest().len() - trimmed.len();
        let found = trimmed.starts_with(token);
        if found {
            self.at += skipped + token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("`{}`: expected `{token}` at {}", self.text, self.at)) }
    }

    fn expr(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err("the size expression is nested too deeply".to_owned());
        }
        self.eat("");
        let head = self.word().to_owned();
        self.expect("(")?;
        match head.as_str() {
            "Integer" => {
                let minus = self.eat("-");
                let digits = self.word().to_owned();
                self.expect(")")?;
                let n: i64 = digits.parse().map_err(|_| format!("`{digits}` is not an integer"))?;
                Ok(Expr::from(if minus { -n } else { n }))
            }
            "Symbol" => {
                self.expect("'")?;
                let name = self.word().to_owned();
                self.expect("'")?;
                // Assumptions follow: `positive=True, integer=True`.
                let end = self.rest().find(')').ok_or_else(|| format!("`{}`: a symbol is not closed", self.text))?;
                self.at += end + 1;
                Ok(Expr::sym(&name))
            }
            _ => {
                let mut arguments = vec![self.expr(depth + 1)?];
                while self.eat(",") {
                    arguments.push(self.expr(depth + 1)?);
                }
                self.expect(")")?;
                combine(&head, &arguments)
            }
        }
    }
}

fn combine(head: &str, arguments: &[Expr]) -> Result<Expr, String> {
    let head = head.rsplit('.').next().unwrap_or(head);
    let binary = |f: fn(&Expr, &Expr) -> Expr| match arguments {
        [a, b] => Ok(f(a, b)),
        _ => Err(format!("{head} takes two arguments")),
    };
    match head {
        "Add" => Ok(arguments.iter().fold(Expr::zero(), |a, b| &a + b)),
        "Mul" => Ok(arguments.iter().fold(Expr::one(), |a, b| &a * b)),
        "Max" => Ok(arguments[1..].iter().fold(arguments[0].clone(), |a, b| a.maximum(b))),
        "Min" => Ok(arguments[1..].iter().fold(arguments[0].clone(), |a, b| a.minimum(b))),
        // A divisor that is not a positive constant would make the later arithmetic partial.
        "FloorDiv" | "CleanDiv" | "Mod" | "PythonMod"
            if arguments.get(1).is_none_or(|d| d.as_const().is_some_and(|d| d <= 0)) =>
        {
            Err(format!("{head} by a number that is not positive"))
        }
        "FloorDiv" | "CleanDiv" => binary(Expr::floor_div),
        "Mod" | "PythonMod" => binary(Expr::modulo),
        "Pow" => match (arguments, arguments.get(1).and_then(Expr::as_const)) {
            ([base, _], Some(power @ 0..=8)) => Ok((0..power).fold(Expr::one(), |a, _| &a * base)),
            _ => Err("a power in a size must be a small constant".to_owned()),
        },
        other => Err(format!("`{other}` in a size is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sympy_sizes_parse() {
        let check = |text: &str, expected: &str| assert_eq!(parse_sympy(text).unwrap(), expected.parse().unwrap(), "{text}");
        check("Symbol('s77', positive=True, integer=True)", "s77");
        check("Mul(Integer(2), Symbol('s0', integer=True))", "2*s0");
        check("Add(Integer(-1), FloorDiv(Symbol('s0', integer=True), Integer(2)))", "s0//2 - 1");
        check("torch.utils._sympy.functions.FloorDiv(Symbol('s0'), Integer(4))", "s0//4");
    }

    #[test]
    fn bad_sizes_are_refused() {
        for bad in [
            "",
            "s0",
            "Symbol('s0'",
            "Integer(x)",
            "Pow(Symbol('s0'), Symbol('s1'))",
            "Integer(1))",
            "FloorDiv(Symbol('a'), Integer(0))",
        ] {
            assert!(parse_sympy(bad).is_err(), "{bad}");
        }
        assert!(parse_sympy(&"Add(".repeat(100_000)).is_err());
    }
}
