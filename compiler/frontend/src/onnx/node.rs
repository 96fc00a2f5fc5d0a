//! One node of an ONNX graph, with typed access to its operands and attributes.

use aotfarm_ir::{BinaryOp, Def, Expr, Number, Op, UnaryOp, ValueId};
use aotfarm_protocol::DType;

use super::proto::{AttributeProto, NodeProto};
use super::scope::{Known, Scope};
use super::tensor::Sizes;
use crate::semantics::{self, Emit, Result};

/// A node being mapped.
pub(super) struct NodeCall<'c, 'a> {
    pub(super) scope: &'c mut Scope<'a>,
    pub(super) node: &'a NodeProto,
    pub(super) source: &'c str,
}

impl NodeCall<'_, '_> {
    /// The graph under construction, for what this node means.
    pub(super) fn emit(&mut self) -> Emit<'_> {
        Emit { builder: &mut self.scope.builder, source: self.source }
    }

    /// The file's name of operand `i`, if it is given.
    pub(super) fn name(&self, i: usize) -> Option<&str> {
        self.node.input.get(i).map(String::as_str).filter(|n| !n.is_empty())
    }

    pub(super) fn opt_tensor(&mut self, i: usize) -> Result<Option<ValueId>> {
        let Some(name) = self.name(i).map(ToOwned::to_owned) else { return Ok(None) };
        self.scope.tensor(&name).map(Some)
    }

    pub(super) fn tensor(&mut self, i: usize) -> Result<ValueId> {
        self.opt_tensor(i)?.ok_or_else(|| format!("operand {i} is missing").into())
    }

    /// Every given operand.
    pub(super) fn tensors(&mut self) -> Result<Vec<ValueId>> {
        (0..self.node.input.len()).filter_map(|i| self.opt_tensor(i).transpose()).collect()
    }

    /// Operand `i` as known integers.
    pub(super) fn opt_sizes(&mut self, i: usize) -> Option<Sizes> {
        let name = self.name(i)?.to_owned();
        self.scope.sizes(&name)
    }

    /// [`NodeCall::opt_sizes`], also of what operators make of constants alone.
    pub(super) fn folded_sizes(&mut self, i: usize) -> Option<Sizes> {
        let name = self.name(i)?.to_owned();
        self.scope.folded_sizes(&name)
    }

    /// Whether an operand is known to hold a symbolic size.
    pub(super) fn has_symbolic_sizes(&mut self) -> bool {
        let symbolic = |sizes: Sizes| sizes.values.iter().any(|n| n.as_const().is_none());
        (0..self.node.input.len()).any(|i| self.opt_sizes(i).is_some_and(symbolic))
    }

    /// Known integers: of constants that operators make only where another operand is symbolic.
    pub(super) fn sizes_beside_symbolic(&mut self, i: usize) -> Option<Sizes> {
        if self.has_symbolic_sizes() { self.folded_sizes(i) } else { self.opt_sizes(i) }
    }

    pub(super) fn sizes(&mut self, i: usize) -> Result<Vec<Expr>> {
        let known = self.folded_sizes(i).map(|s| s.values);
        known.ok_or_else(|| format!("operand {i} must be known when compiling, but depends on the model's data").into())
    }

    pub(super) fn ints(&mut self, i: usize) -> Result<Option<Vec<i64>>> {
        if self.name(i).is_none() {
            return Ok(None);
        }
        let ints: Option<Vec<i64>> = self.sizes(i)?.iter().map(Expr::as_const).collect();
        ints.map(Some).ok_or_else(|| format!("operand {i} must be constant, but depends on a symbolic dimension").into())
    }

    /// The axes (or sizes) that operand `i` lists, or the attribute that it was in older versions.
    pub(super) fn axes(&mut self, i: usize) -> Result<Option<Vec<i64>>> {
        match self.list("axes") {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.ints(i),
        }
    }

    /// Constant floats of an operand of rank 0 or 1.
    pub(super) fn floats(&mut self, i: usize) -> Result<Option<Vec<f64>>> {
        let Some(name) = self.name(i).map(ToOwned::to_owned) else { return Ok(None) };
        let id = self.scope.tensor(&name)?;
        let value = self.scope.folded(id).ok_or_else(|| format!("operand {i} must be constant numbers"))?;
        let (dtype, bytes) = (value.dtype, &value.data);
        let read = |part: &[u8]| Number::read(dtype, part).map(Number::to_f64);
        let numbers: Option<Vec<f64>> = bytes.chunks(dtype.size()).map(read).collect();
        numbers.map(Some).ok_or_else(|| format!("operand {i} must be constant numbers").into())
    }

    /// Version of the standard operator set that the file is of.
    pub(super) fn opset(&self) -> i64 {
        self.scope.opset
    }

    /// The number of an operand of one element; `None` when it is left out or no constant.
    pub(super) fn constant(&mut self, i: usize) -> Result<Option<Number>> {
        let Some(name) = self.name(i).map(ToOwned::to_owned) else { return Ok(None) };
        if let Some(sizes) = self.scope.sizes(&name).filter(|sizes| !sizes.is_open()) {
            let [one] = sizes.values.as_slice() else { return Ok(None) };
            return Ok(one.as_const().map(Number::from));
        }
        let id = self.scope.tensor(&name)?;
        let graph = self.scope.builder.graph();
        let value = graph.value(id);
        Ok(match &value.def {
            Def::Weight(data) if data.bytes().len() == value.ty.dtype.size() => Number::read(value.ty.dtype, data.bytes()),
            Def::Node(at) => match &graph.nodes[*at].op {
                Op::Full { value, .. } => Some(*value),
                _ => None,
            },
            _ => None,
        })
    }

    /// A constant number of one element.
    pub(super) fn number(&mut self, i: usize) -> Result<Option<Number>> {
        match (self.name(i).is_some(), self.constant(i)?) {
            (true, None) => Err(format!("operand {i} must be a constant number").into()),
            (_, number) => Ok(number),
        }
    }

    /// Whether the file names output `i`.
    pub(super) fn gives(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.attribute(name).map_or(default, |a| a.f))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.attribute(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or_default()
    }

    pub(super) fn list(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// An axis that an attribute names, counted from the end when negative.
    pub(super) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize> {
        semantics::axis(self.int(name, default), rank)
    }

    pub(super) fn shape(&self, id: ValueId) -> Vec<Expr> {
        self.scope.builder.shape(id).to_vec()
    }

    pub(super) fn rank(&self, id: ValueId) -> usize {
        self.scope.builder.shape(id).len()
    }

    pub(super) fn dtype(&self, id: ValueId) -> DType {
        self.scope.builder.ty(id).dtype
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId> {
        self.emit().unary(op, x)
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.emit().binary(op, a, b)
    }
}

/// A node's only result.
pub(super) fn one(id: ValueId) -> Result<Vec<Known>> {
    Ok(vec![Known { tensor: Some(id), sizes: None }])
}

/// A node's only result, as known integers.
pub(super) fn known(values: Vec<Expr>, scalar: bool, dtype: DType) -> Result<Vec<Known>> {
    Ok(vec![Known { tensor: None, sizes: Some(Sizes { values, scalar, dtype }) }])
}
