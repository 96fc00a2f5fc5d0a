//! One node of the exported graph, with typed access to its arguments. Arguments that are left out have their defaults: those of
//! the operator's schema, which the mapping in `ops` states.

use aotfarm_ir::{BinaryOp, Expr, TensorType, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::program::{self, Argument, OptionalTensor, SymFloat, SymInt};
use super::promotion;
use super::scope::{Bound, Scope};
use crate::semantics::{self, Emit, Refusal, Result, source};
use crate::storage::is_dense;

/// A number argument.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Int(Expr),
    Float(f64),
    Bool(bool),
}

/// A node being mapped.
pub(super) struct Call<'c, 'a> {
    pub(super) scope: &'c mut Scope<'a>,
    pub(super) node: &'c program::Node,
    pub(super) source: &'c str,
}

impl Call<'_, '_> {
    /// The graph under construction, for what this node means.
    pub(super) fn emit(&mut self) -> Emit<'_> {
        Emit { builder: &mut self.scope.builder, source: self.source }
    }

    /// The argument of that name, `None` when left out or None.
    fn argument(&self, name: &str) -> Option<&Argument> {
        let arg = self.node.inputs.iter().find(|a| a.name == name).map(|a| &a.arg)?;
        if let Argument::AsNone(_) = arg { None } else { Some(arg) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.argument(name).is_some()
    }

    fn wrong(&self, name: &str, expected: &str) -> Refusal {
        let json = |arg: &Argument| serde_json::to_string(arg).unwrap_or_default();
        let found = self.argument(name).map_or("nothing".to_owned(), |a| json(a).chars().take(80).collect());
        Refusal::What(format!("argument `{name}` should be {expected}, but is {found}"))
    }

    /// The present value of a tensor of the file, if the name is one's.
    fn lookup(&self, name: &str) -> Result<Option<ValueId>> {
        match self.scope.names.get(name) {
            Some(Bound::Tensor(view)) => Ok(Some(self.scope.storages.last_read(*view))),
            Some(Bound::Size(_)) => Ok(None),
            None => Err(format!("it uses `{name}`, which no earlier node gives").into()),
        }
    }

    pub(super) fn opt_tensor(&self, name: &str) -> Result<Option<ValueId>> {
        let Some(arg) = self.argument(name) else { return Ok(None) };
        if let Argument::AsOptionalTensor(OptionalTensor::AsNone(_)) = arg {
            return Ok(None);
        }
        let tensor = arg.tensor().ok_or_else(|| self.wrong(name, "a tensor"))?;
        self.lookup(tensor)?.map(Some).ok_or_else(|| self.wrong(name, "a tensor"))
    }

    pub(super) fn tensor(&self, name: &str) -> Result<ValueId> {
        self.opt_tensor(name)?.ok_or_else(|| self.wrong(name, "a tensor"))
    }

    pub(super) fn tensors(&self, name: &str) -> Result<Vec<ValueId>> {
        let Some(Argument::AsTensors(list)) = self.argument(name) else { return Err(self.wrong(name, "a list of tensors")) };
        list.iter().map(|of| self.lookup(&of.name)?.ok_or_else(|| self.wrong(name, "a list of tensors"))).collect()
    }

    /// Tensors of which some may be left out.
    pub(super) fn opt_tensors(&self, name: &str) -> Result<Vec<Option<ValueId>>> {
        let wrong = || self.wrong(name, "a list of tensors");
        match self.argument(name) {
            Some(Argument::AsOptionalTensors(list)) => {
                let one = |of: &OptionalTensor| match of {
                    OptionalTensor::AsTensor(of) => self.lookup(&of.name)?.map(Some).ok_or_else(wrong),
                    OptionalTensor::AsNone(_) => Ok(None),
                };
                list.iter().map(one).collect()
            }
            _ => Ok(self.tensors(name)?.into_iter().map(Some).collect()),
        }
    }

    fn symbolic(&self, size: &SymInt) -> Option<Expr> {
        match size {
            SymInt::AsInt(n) => Some(Expr::from(*n)),
            SymInt::AsName(name) => match self.scope.names.get(name)? {
                Bound::Size(expr) => Some(expr.clone()),
                Bound::Tensor(_) => None,
            },
        }
    }

    /// An integer, constant or symbolic.
    fn size_of(&self, arg: &Argument) -> Option<Expr> {
        match arg {
            // The ends of i64 stand for "to the end" in slices; an expression holds only numbers that arithmetic may still be
            // done on.
            Argument::AsInt(n) => Some(Expr::from((*n).clamp(-(1 << 62), 1 << 62))),
            Argument::AsSymInt(size) => self.symbolic(size),
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
        let sizes = match arg {
            Argument::AsInts(ints) => Some(ints.iter().map(|n| Expr::from(*n)).collect()),
            Argument::AsSymInts(list) => list.iter().map(|size| self.symbolic(size)).collect(),
            one => self.size_of(one).map(|size| vec![size]),
        };
        sizes.map(Some).ok_or_else(|| self.wrong(name, "a list of integers"))
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
        let scalar = match arg {
            Argument::AsBool(b) => Some(Scalar::Bool(*b)),
            Argument::AsFloat(f) | Argument::AsSymFloat(SymFloat::AsFloat(f)) => f.value().map(Scalar::Float),
            other => self.size_of(other).map(Scalar::Int),
        };
        scalar.map(Some).ok_or_else(|| self.wrong(name, "a number"))
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
            Some(Argument::AsBool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "a boolean")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        if let Some(Argument::AsString(text)) = self.argument(name) { Some(text) } else { None }
    }

    pub(super) fn opt_dtype(&self, name: &str) -> Result<Option<DType>> {
        match self.argument(name) {
            None => Ok(None),
            Some(Argument::AsScalarType(number)) => Ok(Some(program::dtype(*number)?)),
            Some(_) => Err(self.wrong(name, "an element type")),
        }
    }

    /// The strides of a tensor in elements, as torch lays it out.
    pub(super) fn strides(&self, name: &str) -> Result<Vec<Expr>> {
        let tensor = self.argument(name).and_then(Argument::tensor).ok_or_else(|| self.wrong(name, "a tensor"))?;
        let meta = self.scope.meta(tensor).ok_or("the file does not say how its operand lies in memory")?;
        let strides = meta.strides.iter().map(|stride| self.scope.size(stride)).collect::<std::result::Result<Vec<_>, _>>()?;
        if strides.len() == self.rank(self.tensor(name)?) {
            Ok(strides)
        } else {
            Err("the strides of its operand do not fit its shape".into())
        }
    }

    /// Whether a tensor lies in memory as `memory_format` asks: row-major unless it says otherwise.
    pub(super) fn is_laid_out(&self, name: &str) -> Result<bool> {
        let (shape, strides) = (self.shape(self.tensor(name)?), self.strides(name)?);
        let rank = shape.len();
        // `torch.memory_format` by its number in the schema.
        let order: Vec<usize> = match self.argument("memory_format") {
            Some(Argument::AsMemoryFormat(2)) if rank == 4 => vec![0, 2, 3, 1],
            Some(Argument::AsMemoryFormat(3)) if rank == 5 => vec![0, 2, 3, 4, 1],
            Some(Argument::AsMemoryFormat(4)) => return Ok(true),
            None | Some(Argument::AsMemoryFormat(1)) => (0..rank).collect(),
            Some(_) => return Err(self.wrong("memory_format", "a memory format that fits its rank")),
        };
        Ok(is_dense(&shape, &strides, &order))
    }

    /// An axis, counted from the end when negative.
    pub(super) fn axis(&self, name: &str, rank: usize, default: Option<i64>) -> Result<usize> {
        semantics::axis(self.int(name, default)?, rank)
    }

    /// Sorted, distinct axes; all of them when the argument is left out or empty.
    pub(super) fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        semantics::axes(&self.opt_ints(name)?.unwrap_or_default(), rank)
    }

    pub(super) fn ty(&self, id: ValueId) -> &TensorType {
        self.scope.builder.ty(id)
    }

    pub(super) fn shape(&self, id: ValueId) -> Vec<Expr> {
        self.ty(id).shape.clone()
    }

    pub(super) fn rank(&self, id: ValueId) -> usize {
        self.ty(id).shape.len()
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId> {
        self.emit().unary(op, x)
    }

    pub(super) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        self.emit().cast(x, dtype)
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
        let dtype = promotion::promote(natural, other);
        match scalar {
            Scalar::Bool(b) => self.emit().full(f64::from(u8::from(*b)), dtype),
            Scalar::Float(f) => self.emit().full(*f, dtype),
            Scalar::Int(e) => match e.as_const() {
                Some(n) => self.emit().full(n as f64, dtype),
                None => source::size(&mut self.emit(), e, dtype),
            },
        }
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
        self.emit().binary(op, a, b)
    }

    /// The element type of two tensors together.
    pub(super) fn common(&self, a: ValueId, b: ValueId) -> DType {
        let of = |id: ValueId| (self.ty(id).dtype, self.rank(id) == 0);
        promotion::common(of(a), of(b))
    }
}
