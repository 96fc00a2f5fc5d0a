//! One node of the exported graph, with typed access to its arguments. Arguments that are left out have their defaults: those of
//! the operator's schema, which the mapping in `ops` states.

use aotfarm_protocol::DType;
use serde_json::Value as Json;

use super::super::ImportError;
use super::{Import, program};
use aotfarm_ir::{BinaryOp, BuildError, Expr, Op, TensorType, UnaryOp, ValueId};

/// What a name of the exported graph stands for.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Tensor(ValueId),
    Tensors(Vec<ValueId>),
    Size(Expr),
    /// Of nodes that only assert.
    Nothing,
}

/// A number argument.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Int(Expr),
    Float(f64),
    Bool(bool),
}

/// Why a node cannot be mapped.
pub(super) enum CallError {
    Argument(String),
    Build(BuildError),
}

impl CallError {
    pub(super) fn at(self, source: &str) -> ImportError {
        match self {
            Self::Argument(what) => ImportError::Node { node: source.to_owned(), what },
            Self::Build(error) => error.into(),
        }
    }
}

impl From<BuildError> for CallError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<String> for CallError {
    fn from(what: String) -> Self {
        Self::Argument(what)
    }
}

impl From<&str> for CallError {
    fn from(what: &str) -> Self {
        Self::Argument(what.to_owned())
    }
}

pub(super) type Result<T> = std::result::Result<T, CallError>;

/// A node being mapped.
pub(super) struct Call<'c, 'a> {
    pub(super) import: &'c mut Import<'a>,
    pub(super) node: &'c program::Node,
    pub(super) source: &'c str,
}

impl Call<'_, '_> {
    /// The argument of that name, `None` when left out or None.
    fn argument(&self, name: &str) -> Option<&Json> {
        let arg = self.node.inputs.iter().find(|a| a.name == name).map(|a| &a.arg)?;
        if arg.get("as_none").is_some() { None } else { Some(arg) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.argument(name).is_some()
    }

    fn wrong(&self, name: &str, expected: &str) -> CallError {
        let found = self.argument(name).map_or("nothing".to_owned(), |a| a.to_string().chars().take(80).collect());
        CallError::Argument(format!("argument `{name}` should be {expected}, but is {found}"))
    }

    fn lookup(&self, name: &str) -> Result<&Val> {
        self.import.names.get(name).ok_or_else(|| format!("it uses `{name}`, which no earlier node gives").into())
    }

    pub(super) fn opt_tensor(&self, name: &str) -> Result<Option<ValueId>> {
        let Some(arg) = self.argument(name) else { return Ok(None) };
        let of = arg.pointer("/as_tensor/name").or_else(|| arg.pointer("/as_optional_tensor/as_tensor/name"));
        let of = of.and_then(Json::as_str).ok_or_else(|| self.wrong(name, "a tensor"))?;
        match self.lookup(of)? {
            Val::Tensor(id) => Ok(Some(*id)),
            _ => Err(self.wrong(name, "a tensor")),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Result<ValueId> {
        self.opt_tensor(name)?.ok_or_else(|| self.wrong(name, "a tensor"))
    }

    pub(super) fn tensors(&self, name: &str) -> Result<Vec<ValueId>> {
        let list = self.argument(name).and_then(|a| a.get("as_tensors")).and_then(Json::as_array);
        let list = list.ok_or_else(|| self.wrong(name, "a list of tensors"))?;
        list.iter()
            .map(|t| match self.lookup(t.get("name").and_then(Json::as_str).unwrap_or_default())? {
                Val::Tensor(id) => Ok(*id),
                _ => Err(self.wrong(name, "a list of tensors")),
            })
            .collect()
    }

    /// An integer, constant or symbolic.
    fn size_of(&self, arg: &Json) -> Option<Expr> {
        if let Some(n) = arg.get("as_int").and_then(Json::as_i64) {
            // The ends of i64 stand for "to the end" in slices; an expression holds only numbers that arithmetic may still be done on.
            return Some(Expr::from(n.clamp(-(1 << 62), 1 << 62)));
        }
        let sym = arg.get("as_sym_int").unwrap_or(arg);
        if let Some(n) = sym.get("as_int").and_then(Json::as_i64) {
            return Some(Expr::from(n));
        }
        match self.import.names.get(sym.get("as_name")?.as_str()?)? {
            Val::Size(expr) => Some(expr.clone()),
            _ => None,
        }
    }

    pub(super) fn opt_size(&self, name: &str) -> Result<Option<Expr>> {
        self.argument(name).map(|a| self.size_of(a).ok_or_else(|| self.wrong(name, "an integer"))).transpose()
    }

    pub(super) fn int(&self, name: &str, default: Option<i64>) -> Result<i64> {
        match self.opt_size(name)? {
            Some(e) => e.as_const().ok_or_else(|| self.wrong(name, "a constant integer")),
            None => default.ok_or_else(|| self.wrong(name, "an integer")),
        }
    }

    pub(super) fn opt_sizes(&self, name: &str) -> Result<Option<Vec<Expr>>> {
        let Some(arg) = self.argument(name) else { return Ok(None) };
        if let Some(ints) = arg.get("as_ints").and_then(Json::as_array) {
            return Ok(Some(ints.iter().filter_map(Json::as_i64).map(Expr::from).collect()));
        }
        let list = arg.get("as_sym_ints").and_then(Json::as_array);
        let sizes = list.and_then(|l| l.iter().map(|s| self.size_of(s)).collect::<Option<Vec<_>>>());
        let one = || self.size_of(arg).map(|e| vec![e]);
        sizes.or_else(one).map(Some).ok_or_else(|| self.wrong(name, "a list of integers"))
    }

    pub(super) fn sizes(&self, name: &str) -> Result<Vec<Expr>> {
        self.opt_sizes(name)?.ok_or_else(|| self.wrong(name, "a list of integers"))
    }

    pub(super) fn opt_ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(sizes) = self.opt_sizes(name)? else { return Ok(None) };
        let ints: Option<Vec<i64>> = sizes.iter().map(Expr::as_const).collect();
        ints.map(Some).ok_or_else(|| self.wrong(name, "a list of constant integers"))
    }

    /// Height and width: a pair, one number for both, or (an empty list or nothing) the default.
    pub(super) fn pair(&self, name: &str, default: [i64; 2]) -> Result<[i64; 2]> {
        match self.opt_ints(name)?.unwrap_or_default().as_slice() {
            [] => Ok(default),
            [both] => Ok([*both; 2]),
            [h, w] => Ok([*h, *w]),
            _ => Err(self.wrong(name, "one or two integers (only two spatial dimensions are supported)")),
        }
    }

    fn opt_scalar(&self, name: &str) -> Result<Option<Scalar>> {
        let Some(arg) = self.argument(name) else { return Ok(None) };
        if let Some(b) = arg.get("as_bool").and_then(Json::as_bool) {
            return Ok(Some(Scalar::Bool(b)));
        }
        if let Some(f) = arg.get("as_float").or_else(|| arg.pointer("/as_sym_float/as_float")) {
            // JSON has no infinities; they are written as texts.
            let value = match (f.as_f64(), f.as_str()) {
                (Some(v), _) => Some(v),
                (None, Some("Infinity")) => Some(f64::INFINITY),
                (None, Some("-Infinity")) => Some(f64::NEG_INFINITY),
                (None, Some("NaN")) => Some(f64::NAN),
                _ => None,
            };
            return value.map(|v| Some(Scalar::Float(v))).ok_or_else(|| self.wrong(name, "a number"));
        }
        self.size_of(arg).map(|e| Some(Scalar::Int(e))).ok_or_else(|| self.wrong(name, "a number"))
    }

    pub(super) fn scalar(&self, name: &str) -> Result<Scalar> {
        self.opt_scalar(name)?.ok_or_else(|| self.wrong(name, "a number"))
    }

    pub(super) fn opt_float(&self, name: &str) -> Result<Option<f64>> {
        match self.opt_scalar(name)? {
            None => Ok(None),
            Some(Scalar::Float(f)) => Ok(Some(f)),
            Some(Scalar::Bool(b)) => Ok(Some(f64::from(u8::from(b)))),
            Some(Scalar::Int(e)) => e.as_const().map(|n| Some(n as f64)).ok_or_else(|| self.wrong(name, "a constant number")),
        }
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.argument(name) {
            None => Ok(default),
            Some(arg) => arg.get("as_bool").and_then(Json::as_bool).ok_or_else(|| self.wrong(name, "a boolean")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.argument(name)?.get("as_string")?.as_str()
    }

    pub(super) fn opt_dtype(&self, name: &str) -> Result<Option<DType>> {
        let Some(arg) = self.argument(name) else { return Ok(None) };
        let number = arg.get("as_scalar_type").and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
        Ok(Some(program::dtype(number.ok_or_else(|| self.wrong(name, "an element type"))?)?))
    }

    /// An axis, counted from the end when negative.
    pub(super) fn axis(&self, name: &str, rank: usize, default: Option<i64>) -> Result<usize> {
        axis(self.int(name, default)?, rank)
    }

    /// Sorted, distinct axes; all of them when the argument is left out or empty.
    pub(super) fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        let list = self.opt_ints(name)?.unwrap_or_default();
        let mut axes = list.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(if axes.is_empty() { (0..rank).collect() } else { axes })
    }

    pub(super) fn ty(&self, id: ValueId) -> &TensorType {
        self.import.builder.ty(id)
    }

    pub(super) fn shape(&self, id: ValueId) -> Vec<Expr> {
        self.ty(id).shape.clone()
    }

    pub(super) fn rank(&self, id: ValueId) -> usize {
        self.ty(id).shape.len()
    }

    pub(super) fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.import.builder.push(op, inputs, self.source)?)
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId> {
        self.push(Op::Unary(op), &[x])
    }

    pub(super) fn reshape(&mut self, x: ValueId, shape: Vec<Expr>) -> Result<ValueId> {
        if self.ty(x).shape == shape { Ok(x) } else { self.push(Op::Reshape { shape }, &[x]) }
    }

    pub(super) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        if self.ty(x).dtype == dtype { Ok(x) } else { self.push(Op::Cast(dtype), &[x]) }
    }

    /// A constant of rank 0.
    pub(super) fn full(&mut self, value: f64, dtype: DType) -> Result<ValueId> {
        self.push(Op::Full { value, shape: Vec::new(), dtype }, &[])
    }

    /// A number as a tensor of rank 0, with the element type that torch gives it beside a tensor of `other`.
    pub(super) fn number(&mut self, scalar: &Scalar, other: DType) -> Result<ValueId> {
        let natural = match scalar {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) if other == DType::Bool => DType::I64,
            Scalar::Int(_) => other,
            Scalar::Float(_) if other.is_float() => other,
            Scalar::Float(_) => DType::F32,
        };
        let dtype = promote(natural, other);
        match scalar {
            Scalar::Bool(b) => self.full(f64::from(u8::from(*b)), dtype),
            Scalar::Float(f) => self.full(*f, dtype),
            Scalar::Int(e) => match e.as_const() {
                Some(n) => self.full(n as f64, dtype),
                None => self.size_tensor(e, dtype),
            },
        }
    }

    /// A symbolic size as a tensor of rank 0: the last element of 0, 1, …, n.
    fn size_tensor(&mut self, size: &Expr, dtype: DType) -> Result<ValueId> {
        let length = size + &Expr::one();
        let iota = self.push(Op::Iota { length: length.clone(), start: 0, step: 1, dtype: DType::I64 }, &[])?;
        let last = self.push(Op::Slice { axis: 0, start: size.clone(), end: length, step: 1 }, &[iota])?;
        let scalar = self.reshape(last, Vec::new())?;
        self.cast(scalar, dtype)
    }

    /// An operand that is a tensor or a number.
    pub(super) fn operand(&mut self, name: &str, beside: DType) -> Result<ValueId> {
        match self.opt_tensor(name) {
            Ok(Some(id)) => Ok(id),
            _ => {
                let scalar = self.scalar(name)?;
                self.number(&scalar, beside)
            }
        }
    }

    /// An element-wise function of two tensors after torch's type promotion.
    pub(super) fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> Result<ValueId> {
        let mut dtype = self.common(a, b);
        if op == BinaryOp::Div && !dtype.is_float() {
            dtype = DType::F32;
        }
        let (a, b) = (self.cast(a, dtype)?, self.cast(b, dtype)?);
        self.push(Op::Binary(op), &[a, b])
    }

    /// The element type of two tensors together: one of rank 0 only widens the other across kinds.
    pub(super) fn common(&self, a: ValueId, b: ValueId) -> DType {
        let (ta, tb) = (self.ty(a), self.ty(b));
        match (ta.shape.is_empty(), tb.shape.is_empty()) {
            (false, true) if kind(tb.dtype) <= kind(ta.dtype) => ta.dtype,
            (true, false) if kind(ta.dtype) <= kind(tb.dtype) => tb.dtype,
            _ => promote(ta.dtype, tb.dtype),
        }
    }
}

pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let n = rank.max(1) as i64;
    if (-n..n).contains(&axis) {
        Ok(axis.rem_euclid(n) as usize)
    } else {
        Err(format!("axis {axis} is outside a tensor of rank {rank}").into())
    }
}

/// Boolean, integer, floating point.
fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        _ if dtype.is_float() => 2,
        _ => 1,
    }
}

/// torch's promotion of element types.
pub(super) fn promote(a: DType, b: DType) -> DType {
    if a == b {
        return a;
    }
    match kind(a).cmp(&kind(b)) {
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Equal => match (a, b) {
            (DType::F16, DType::Bf16) | (DType::Bf16, DType::F16) => DType::F32,
            (DType::U8, DType::I8) | (DType::I8, DType::U8) => DType::I16,
            _ if a.size() >= b.size() => a,
            _ => b,
        },
    }
}
