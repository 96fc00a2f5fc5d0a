//! Text → Graph.

use std::collections::HashMap;

use crate::syntax::{Attributes, Cursor, TextError};
use crate::types::check_weight;
use crate::{
    Def, Graph, GraphDim, Node, Op, State, Sym, TensorData, TensorType, Value, ValueId, WriteBack, check_ranges, check_sizes,
    infer, verify,
};

/// Most bytes of weights that [`parse`] makes up.
const MAX_ZEROS: usize = 1 << 30;

/// Parses and verifies a graph whose weights and states are all zero (a text holds none): for tests and for looking at a graph.
pub fn parse(text: &str) -> Result<Graph, TextError> {
    let mut left = MAX_ZEROS;
    parse_with(text, &mut |_, ty| {
        let bytes = ty.elements().as_const().and_then(|n| usize::try_from(n).ok()?.checked_mul(ty.dtype.size()));
        left = bytes
            .and_then(|n| left.checked_sub(n))
            .ok_or_else(|| format!("weights of more than {MAX_ZEROS} bytes without data"))?;
        Ok(TensorData::new(vec![0; bytes.unwrap_or(0)]))
    })
}

/// Parses and verifies a graph. `weights` gives the data of each weight, and the first contents of each state, by name and type, or
/// says why it cannot.
pub fn parse_with(
    text: &str,
    weights: &mut dyn FnMut(&str, &TensorType) -> Result<TensorData, String>,
) -> Result<Graph, TextError> {
    let mut parser = Parser { graph: Graph::default(), by_name: HashMap::new(), weights };
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with(';')
    });
    let (number, first) = lines.next().ok_or_else(|| whole("the text is empty"))?;
    let mut cursor = Cursor::new(first, number);
    cursor.expect("graph ")?;
    parser.graph.name = cursor.name()?;
    cursor.end()?;
    for (number, line) in lines {
        parser.line(Cursor::new(line, number))?;
    }
    verify(&parser.graph).map_err(|error| whole(error.to_string()))?;
    Ok(parser.graph)
}

fn whole(what: impl Into<String>) -> TextError {
    TextError { line: 0, column: 0, what: what.into() }
}

struct Parser<'w> {
    graph: Graph,
    by_name: HashMap<String, ValueId>,
    weights: &'w mut dyn FnMut(&str, &TensorType) -> Result<TensorData, String>,
}

impl Parser<'_> {
    fn line(&mut self, mut cursor: Cursor<'_>) -> Result<(), TextError> {
        if cursor.peek("%") {
            return self.node(cursor);
        }
        let start = cursor.mark();
        match cursor.word()? {
            "dim" => self.dim(&mut cursor)?,
            "input" => {
                let (name, ty) = self.declaration(&mut cursor)?;
                check_sizes(&ty, &self.graph.dims).map_err(|what| cursor.error_at(start, what))?;
                let id = self.define(&cursor, start, name, ty, Def::Input(self.graph.inputs.len()))?;
                self.graph.inputs.push(id);
            }
            "weight" => {
                let (name, ty, data) = self.stored(&mut cursor, start, "weight")?;
                self.define(&cursor, start, name, ty, Def::Weight(data))?;
            }
            "state" => {
                let (name, ty, initial) = self.stored(&mut cursor, start, "state")?;
                let value = self.define(&cursor, start, name, ty, Def::State(self.graph.states.len()))?;
                self.graph.states.push(State { value, initial, next: value });
            }
            "output" => {
                let id = self.operand(&mut cursor)?;
                let name = if cursor.eat("as") { cursor.value()? } else { self.graph.value(id).name.clone() };
                if self.graph.output_names.contains(&name) {
                    return Err(cursor.error_at(start, format!("another output has the name `{name}`")));
                }
                self.graph.output_names.push(name);
                self.graph.outputs.push(id);
            }
            "next" => {
                let (id, next) = self.change(&mut cursor)?;
                let Def::State(position) = self.graph.value(id).def else {
                    return Err(cursor.error_at(start, format!("`%{}` is not a state", self.graph.value(id).name)));
                };
                self.graph.states[position].next = next;
            }
            "write" => {
                let (id, value) = self.change(&mut cursor)?;
                let Def::Input(input) = self.graph.value(id).def else {
                    return Err(cursor.error_at(start, format!("`%{}` is not an input", self.graph.value(id).name)));
                };
                self.graph.writes.push(WriteBack { input, value });
            }
            other => {
                let what = "expected dim, input, state, weight, output, next, write or `%name = …`";
                return Err(cursor.error_at(start, format!("{what}, found `{other}`")));
            }
        }
        cursor.end()
    }

    fn dim(&mut self, cursor: &mut Cursor<'_>) -> Result<(), TextError> {
        let start = cursor.mark();
        let name = cursor.name()?;
        let sym = Sym::new(&name);
        cursor.expect("=")?;
        let range: String = cursor.until(&['h'], "a range")?;
        let ends = range.split_once("..").and_then(|(min, max)| Some((min.trim().parse().ok()?, max.trim().parse().ok()?)));
        let (min, max) =
            ends.ok_or_else(|| cursor.error_at(start, format!("expected a range such as 1..32, found `{range}`")))?;
        let hint = if cursor.eat("hint") { Some(cursor.until(&[' '], "a size")?) } else { None };
        let dim = GraphDim { sym, min, max, hint };
        dim.check().map_err(|what| cursor.error_at(start, what))?;
        if dim.sym.as_str() != name || self.graph.dims.iter().any(|d| d.sym == dim.sym) {
            return Err(cursor.error_at(start, format!("`{name}` is not a symbol, or is declared twice")));
        }
        self.graph.dims.push(dim);
        Ok(())
    }

    fn declaration(&mut self, cursor: &mut Cursor<'_>) -> Result<(String, TensorType), TextError> {
        let name = cursor.value()?;
        cursor.expect(":")?;
        Ok((name, cursor.ty()?))
    }

    /// The declaration of a `weight` or `state`, and its data.
    fn stored(&mut self, cursor: &mut Cursor<'_>, at: usize, kind: &str) -> Result<(String, TensorType, TensorData), TextError> {
        let (name, ty) = self.declaration(cursor)?;
        let data = check_sizes(&ty, &[]).and_then(|()| (self.weights)(&name, &ty)).and_then(|data| {
            check_weight(&ty, data.bytes().len())?;
            Ok(data)
        });
        let data = data.map_err(|what| cursor.error_at(at, format!("{kind} `{name}`: {what}")))?;
        Ok((name, ty, data))
    }

    /// `%what = %new contents`.
    fn change(&self, cursor: &mut Cursor<'_>) -> Result<(ValueId, ValueId), TextError> {
        let id = self.operand(cursor)?;
        cursor.expect("=")?;
        Ok((id, self.operand(cursor)?))
    }

    fn define(&mut self, cursor: &Cursor<'_>, at: usize, name: String, ty: TensorType, def: Def) -> Result<ValueId, TextError> {
        let id = ValueId(u32::try_from(self.graph.values.len()).map_err(|_| cursor.error_at(at, "too many values"))?);
        if self.by_name.insert(name.clone(), id).is_some() {
            return Err(cursor.error_at(at, format!("`%{name}` is defined twice")));
        }
        self.graph.values.push(Value { name, ty, def });
        Ok(id)
    }

    fn operand(&self, cursor: &mut Cursor<'_>) -> Result<ValueId, TextError> {
        let at = cursor.mark();
        let name = cursor.value()?;
        let unknown =
            || cursor.error_at(at, format!("`%{name}` is not defined above: it is missing, defined later, or part of a cycle"));
        self.by_name.get(&name).copied().ok_or_else(unknown)
    }

    fn node(&mut self, mut cursor: Cursor<'_>) -> Result<(), TextError> {
        let name = cursor.value()?;
        cursor.expect("=")?;
        let op_at = cursor.mark();
        let word = cursor.word()?;
        let mut inputs = Vec::new();
        if cursor.peek("%") {
            inputs.push(self.operand(&mut cursor)?);
            while cursor.eat(",") {
                inputs.push(self.operand(&mut cursor)?);
            }
        }
        let attributes = Attributes::read(&mut cursor)?;
        cursor.expect(":")?;
        let ty = cursor.ty()?;
        let operands: Vec<&TensorType> = inputs.iter().map(|&id| self.graph.ty(id)).collect();
        let op = Op::read(word, attributes.of_node(&cursor, &operands, &ty))?;
        let source = match cursor.eat(";") {
            true if cursor.peek("\"") => cursor.quoted()?,
            true => cursor.tail().to_owned(),
            false => String::new(),
        };
        cursor.end()?;
        let rule = |error: crate::InferError| cursor.error_at(op_at, error.to_string());
        let inferred = infer(&op, &operands).map_err(rule)?;
        check_ranges(&op, &operands, &inferred, &self.graph.dims).map_err(rule)?;
        if inferred != ty {
            return Err(cursor.error_at(op_at, format!("the result is declared {ty}, but the operands give {inferred}")));
        }
        let output = self.define(&cursor, 0, name, ty, Def::Node(self.graph.nodes.len()))?;
        self.graph.nodes.push(Node { op, inputs, output, source });
        Ok(())
    }
}
