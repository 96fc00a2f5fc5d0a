//! One node of the exported graph, with typed access to its arguments. Arguments that are left out have their defaults: those of
//! the operator's schema, which the mapping in `ops` states.

use aotfarm_ir::{BinaryOp, Expr, Number, TensorType, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::program::{self, Argument, OptionalTensor, SymFloat, SymInt};
use super::promotion::{self, Priority};
use super::scope::{Bound, Scope};
use crate::semantics::{self, Emit, Refusal, Result, pointwise, source};
use crate::storage::is_dense;

/// A number argument.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Int(i64),
    Size(Expr),
    Float(f64),
    Bool(bool),
}

impl Scalar {
    /// The number, if it is known.
    pub(super) fn number(&self) -> Option<Number> {
        match self {
            Self::Int(n) => Some(Number::from(*n)),
            Self::Size(size) => size.as_const().map(Number::from),
            Self::Float(f) => Some(Number::from(*f)),
            Self::Bool(b) => Some(Number::from(*b)),
        }
    }

    /// The element type of a tensor that is made of it alone.
    pub(super) const fn dtype(&self) -> DType {
        match self {
            Self::Int(_) | Self::Size(_) => DType::I64,
            Self::Float(_) => DType::F32,
            Self::Bool(_) => DType::Bool,
        }
    }
}

/// An operand that is a tensor or a number.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Tensor(ValueId),
    Number(Scalar),
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
            Argument::AsInt(n) | Argument::AsSymInt(SymInt::AsInt(n)) => Some(Scalar::Int(*n)),
            Argument::AsFloat(f) | Argument::AsSymFloat(SymFloat::AsFloat(f)) => f.value().map(Scalar::Float),
            other => self.size_of(other).map(Scalar::Size),
        };
        scalar.map(Some).ok_or_else(|| self.wrong(name, "a number"))
    }

    pub(super) fn scalar(&self, name: &str) -> Result<Scalar> {
        self.opt_scalar(name)?.ok_or_else(|| self.wrong(name, "a number"))
    }

    pub(super) fn opt_number(&self, name: &str) -> Result<Option<Number>> {
        let known = |scalar: Scalar| scalar.number().ok_or_else(|| self.wrong(name, "a constant number"));
        self.opt_scalar(name)?.map(known).transpose()
    }

    pub(super) fn number(&self, name: &str, default: Number) -> Result<Number> {
        Ok(self.opt_number(name)?.unwrap_or(default))
    }

    pub(super) fn opt_float(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.opt_number(name)?.map(Number::to_f64))
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }

    pub(super) fn opt_floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        match self.argument(name) {
            None => Ok(None),
            Some(Argument::AsFloats(list)) => {
                let values: Option<Vec<f64>> = list.iter().map(program::Float::value).collect();
                values.map(Some).ok_or_else(|| self.wrong(name, "a list of numbers"))
            }
            Some(_) => Err(self.wrong(name, "a list of numbers")),
        }
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

    pub(super) fn opt_operand(&self, name: &str) -> Result<Option<Operand>> {
        match self.opt_tensor(name) {
            Ok(Some(id)) => Ok(Some(Operand::Tensor(id))),
            _ => Ok(self.opt_scalar(name)?.map(Operand::Number)),
        }
    }

    pub(super) fn operand(&self, name: &str) -> Result<Operand> {
        self.opt_operand(name)?.ok_or_else(|| self.wrong(name, "a tensor or a number"))
    }

    /// The element type of operands together.
    pub(super) fn common<'o>(&self, operands: impl IntoIterator<Item = &'o Operand>) -> DType {
        let types = operands.into_iter().map(|operand| match operand {
            Operand::Tensor(id) if self.rank(*id) == 0 => (self.ty(*id).dtype, Priority::Scalar),
            Operand::Tensor(id) => (self.ty(*id).dtype, Priority::Dimensioned),
            Operand::Number(scalar) => (scalar.dtype(), Priority::Number),
        });
        promotion::result_type(types).expect("every operator has an operand")
    }

    /// An operand as a tensor of that element type; a number has rank 0.
    pub(super) fn typed(&mut self, operand: &Operand, dtype: DType) -> Result<ValueId> {
        let scalar = match operand {
            Operand::Tensor(id) => return self.cast(*id, dtype),
            Operand::Number(scalar) => scalar,
        };
        match (scalar.number(), scalar) {
            (Some(number), _) => self.emit().full(number, dtype),
            (None, Scalar::Size(size)) => source::size(&mut self.emit(), size, dtype),
            (None, _) => Err("a number that is not known".into()),
        }
    }

    /// Two operands of one element type.
    pub(super) fn typed_pair(&mut self, a: &Operand, b: &Operand, dtype: DType) -> Result<(ValueId, ValueId)> {
        // A number is the node before the conversion of a tensor.
        if let Operand::Number(_) = b {
            let b = self.typed(b, dtype)?;
            return Ok((self.typed(a, dtype)?, b));
        }
        Ok((self.typed(a, dtype)?, self.typed(b, dtype)?))
    }

    /// An element-wise function of two operands after torch's type promotion.
    pub(super) fn binary(&mut self, op: BinaryOp, a: &Operand, b: &Operand) -> Result<ValueId> {
        let common = self.common([a, b]);
        let (op, dtype) = match (op, common) {
            (BinaryOp::Div, _) if !common.is_float() => (op, DType::F32),
            // Of truth values, arithmetic is logic, and false is less than true.
            (BinaryOp::Add | BinaryOp::Max, DType::Bool) => (BinaryOp::Or, common),
            (BinaryOp::Mul | BinaryOp::Min, DType::Bool) => (BinaryOp::And, common),
            (BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge, DType::Bool) => (op, DType::U8),
            _ => (op, common),
        };
        let (a, b) = self.typed_pair(a, b, dtype)?;
        self.emit().binary(op, a, b)
    }

    /// Whether the elements of an operand differ from zero.
    pub(super) fn truth(&mut self, operand: &Operand) -> Result<ValueId> {
        let dtype = self.common([operand]);
        let x = self.typed(operand, dtype)?;
        pointwise::truth(&mut self.emit(), x)
    }
}
