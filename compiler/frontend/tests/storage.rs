//! Random programs of views, copies and writes, as an export that is not decomposed holds them, against a reference whose tensors
//! are strided views of real memory.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use aotfarm_ir::interp::{self, Tensor};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Every program is run at both sizes of its symbolic dimension; what differs between the two is a multiple of it.
const BATCHES: [usize; 2] = [2, 3];

/// A strided view of memory.
#[derive(Clone)]
struct Strided {
    memory: Rc<RefCell<Vec<f32>>>,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    /// Whether it was seen through an expansion, through which nothing can be written.
    expanded: bool,
}

impl Strided {
    fn dense(shape: &[usize], values: Vec<f32>) -> Self {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        Self { memory: Rc::new(RefCell::new(values)), shape: shape.to_vec(), strides, offset: 0, expanded: false }
    }

    /// Where each element lies, in row-major order.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![self.offset];
        for (size, stride) in self.shape.iter().zip(&self.strides) {
            places = places.iter().flat_map(|at| (0..*size).map(move |i| at + i * stride)).collect();
        }
        places
    }

    fn values(&self) -> Vec<f32> {
        let memory = self.memory.borrow();
        self.places().into_iter().map(|at| memory[at]).collect()
    }

    fn write(&self, values: &[f32]) {
        let mut memory = self.memory.borrow_mut();
        self.places().into_iter().zip(values).for_each(|(at, value)| memory[at] = *value);
    }

    /// A view of the same memory, if there are strides by which it has these elements in this order.
    fn viewed(&self, shape: &[usize]) -> Option<Self> {
        let places = self.places();
        let mut view = Self { shape: shape.to_vec(), strides: Vec::new(), ..self.clone() };
        let mut inner = places.len();
        for size in shape {
            inner /= size;
            // An axis of size 1 never moves; torch gives it what would move on to the next block.
            view.strides.push(if *size == 1 { inner.max(1) } else { places[inner].checked_sub(places[0])? });
        }
        (view.places() == places).then_some(view)
    }

    fn copied(&self) -> Self {
        Self::dense(&self.shape, self.values())
    }

    fn is_dense(&self) -> bool {
        let dense = Self::dense(&self.shape, Vec::new()).strides;
        (0..self.shape.len()).all(|axis| self.shape[axis] == 1 || self.strides[axis] == dense[axis])
    }
}

/// One tensor at both sizes.
type Pair = [Strided; 2];

/// A program under construction.
struct Program {
    tensors: Vec<(String, Pair)>,
    nodes: Vec<Json>,
    types: serde_json::Map<String, Json>,
}

fn map(pair: &Pair, f: impl Fn(&Strided) -> Strided) -> Pair {
    [f(&pair[0]), f(&pair[1])]
}

fn try_map(pair: &Pair, f: impl Fn(&Strided) -> Option<Strided>) -> Option<Pair> {
    Some([f(&pair[0])?, f(&pair[1])?])
}

/// A number that is affine in the symbolic dimension, as the schema writes it.
fn number(at: [usize; 2]) -> Json {
    if at[0] == at[1] {
        return json!({ "as_int": at[0] });
    }
    let times = (at[1] - at[0]) / (BATCHES[1] - BATCHES[0]);
    let rest = at[0] as i64 - (times * BATCHES[0]) as i64;
    let expr = format!("Add(Integer({rest}), Mul(Integer({times}), Symbol('s0', positive=True, integer=True)))");
    json!({ "as_expr": { "expr_str": expr, "hint": { "as_int": at[0] } } })
}

fn int(name: &str, n: usize) -> Json {
    json!({ "name": name, "arg": { "as_int": n }, "kind": 1 })
}

fn float(name: &str, value: f32) -> Json {
    json!({ "name": name, "arg": { "as_float": value }, "kind": 1 })
}

impl Program {
    fn new() -> Self {
        let mut program = Self { tensors: Vec::new(), nodes: Vec::new(), types: serde_json::Map::new() };
        for (name, rest) in [("a", &[4, 6][..]), ("b", &[3, 2, 2])] {
            let input = BATCHES.map(|batch| {
                let shape = [&[batch], rest].concat();
                let count: usize = shape.iter().product();
                Strided::dense(&shape, (0..count).map(|i| i as f32 - 7.0).collect())
            });
            program.declare(name, &input);
            program.tensors.push((name.to_owned(), input));
        }
        program
    }

    fn declare(&mut self, name: &str, pair: &Pair) {
        let list = |of: fn(&Strided) -> &Vec<usize>| -> Vec<Json> {
            of(&pair[0]).iter().zip(of(&pair[1])).map(|(a, b)| number([*a, *b])).collect()
        };
        let ty = json!({ "dtype": 7, "sizes": list(|t| &t.shape), "strides": list(|t| &t.strides) });
        self.types.insert(name.to_owned(), ty);
    }

    /// Adds a node whose first operand is tensor `of`.
    fn node(&mut self, op: &str, of: usize, arguments: Vec<Json>, results: Vec<Pair>) {
        let operand = if op.contains("dropout") { "input" } else { "self" };
        let tensor = json!({ "name": operand, "arg": { "as_tensor": { "name": self.tensors[of].0 } }, "kind": 1 });
        let names: Vec<String> = (0..results.len()).map(|i| format!("t{}_{i}", self.nodes.len())).collect();
        let named: Vec<Json> = names.iter().map(|name| json!({ "name": name })).collect();
        let outputs = if ["aten.chunk.default", "aten.unbind.int"].contains(&op) {
            json!([{ "as_tensors": named }])
        } else {
            json!([{ "as_tensor": named[0] }])
        };
        let inputs: Vec<Json> = std::iter::once(tensor).chain(arguments).collect();
        self.nodes.push(json!({ "target": format!("torch.ops.{op}"), "inputs": inputs, "outputs": outputs, "metadata": {} }));
        for (name, result) in names.into_iter().zip(results) {
            self.declare(&name, &result);
            self.tensors.push((name, result));
        }
    }

    /// One step, as a few random numbers choose it; nothing where they choose what torch refuses.
    fn step(&mut self, choice: [usize; 4]) {
        let of = choice[1] % self.tensors.len();
        let x = self.tensors[of].1.clone();
        let rank = x[0].shape.len();
        if x.iter().any(|x| x.shape.iter().product::<usize>() > 2000) {
            return;
        }
        let axis = if rank == 0 { 0 } else { choice[2] % rank };
        let constant = rank > 0 && x[0].shape[axis] == x[1].shape[axis];
        let size = if rank == 0 { 1 } else { x[0].shape[axis] };
        match choice[0] % 26 {
            0 if rank > 1 => {
                let other = (axis + 1 + choice[3] % (rank - 1)) % rank;
                let result = map(&x, |x| {
                    let mut view = x.clone();
                    view.shape.swap(axis, other);
                    view.strides.swap(axis, other);
                    view
                });
                self.node("aten.transpose.int", of, vec![int("dim0", axis), int("dim1", other)], vec![result]);
            }
            1 if constant => {
                let index = choice[3] % size;
                let result = map(&x, |x| select(x, axis, index));
                self.node("aten.select.int", of, vec![int("dim", axis), int("index", index)], vec![result]);
            }
            2 | 3 if constant => {
                let (start, step) = (choice[3] % size, 1 + choice[3] / 7 % 3);
                let end = start + 1 + choice[3] / 31 % (size - start);
                let result = map(&x, |x| slice(x, axis, start, end, step));
                let arguments = vec![int("dim", axis), int("start", start), int("end", end), int("step", step)];
                self.node("aten.slice.Tensor", of, arguments, vec![result]);
            }
            4 if rank < 5 => {
                let result = map(&x, |x| {
                    let mut view = x.clone();
                    view.shape.insert(axis, 1);
                    view.strides.insert(axis, x.shape.get(axis).map_or(1, |size| size * x.strides[axis]));
                    view
                });
                self.node("aten.unsqueeze.default", of, vec![int("dim", axis)], vec![result]);
            }
            5 if rank > 0 => {
                let result = map(&x, |x| if x.shape[axis] == 1 { select(x, axis, 0) } else { x.clone() });
                self.node("aten.squeeze.dim", of, vec![int("dim", axis)], vec![result]);
            }
            6 if constant && size == 1 => {
                let result = map(&x, |x| {
                    let mut view = x.clone();
                    (view.shape[axis], view.strides[axis], view.expanded) = (3, 0, true);
                    view
                });
                let sizes: Vec<Json> = (0..rank).map(|i| if i == axis { 3 } else { -1 }).map(|n| json!(n)).collect();
                let sizes = json!({ "name": "size", "arg": { "as_ints": sizes }, "kind": 1 });
                self.node("aten.expand.default", of, vec![sizes], vec![result]);
            }
            7 if constant => {
                let part = size.div_ceil(2);
                let parts = (0..size).step_by(part).map(|at| map(&x, |x| slice(x, axis, at, (at + part).min(size), 1)));
                let parts = parts.collect();
                self.node("aten.chunk.default", of, vec![int("chunks", 2), int("dim", axis)], parts);
            }
            8 if constant => {
                let parts = (0..size).map(|at| map(&x, |x| select(x, axis, at))).collect();
                self.node("aten.unbind.int", of, vec![int("dim", axis)], parts);
            }
            9 if rank > 1 => {
                let other = (axis + 1) % rank;
                if constant && x[0].shape[other] == x[1].shape[other] {
                    let offset = choice[3] % x[0].shape[other];
                    let result = map(&x, |x| diagonal(x, offset, axis, other));
                    let arguments = vec![int("offset", offset), int("dim1", axis), int("dim2", other)];
                    self.node("aten.diagonal.default", of, arguments, vec![result]);
                }
            }
            10 | 11 if rank > 1 && axis + 1 < rank => {
                let merged = |x: &Strided| {
                    let mut shape = x.shape.clone();
                    let inner = shape.remove(axis + 1);
                    shape[axis] *= inner;
                    shape
                };
                self.reshape(of, &x, merged, choice[3]);
            }
            12 if constant && size.is_multiple_of(2) => {
                let cut = |x: &Strided| {
                    let mut shape = x.shape.clone();
                    shape[axis] = 2;
                    shape.insert(axis + 1, size / 2);
                    shape
                };
                self.reshape(of, &x, cut, choice[3]);
            }
            13 => self.node("aten.clone.default", of, vec![], vec![map(&x, Strided::copied)]),
            14 => {
                let result = map(&x, |x| if x.is_dense() { x.clone() } else { x.copied() });
                self.node("aten.contiguous.default", of, vec![], vec![result]);
            }
            15 => {
                let copy = choice[3].is_multiple_of(2);
                let arguments = vec![
                    json!({ "name": "dtype", "arg": { "as_scalar_type": 7 }, "kind": 1 }),
                    json!({ "name": "copy", "arg": { "as_bool": copy }, "kind": 1 }),
                ];
                self.node("aten.to.dtype", of, arguments, vec![map(&x, |x| if copy { x.copied() } else { x.clone() })]);
            }
            16 => self.node("aten.pow.Tensor_Scalar", of, vec![float("exponent", 1.0)], vec![map(&x, Strided::copied)]),
            17 => self.node("aten.detach.default", of, vec![], vec![x]),
            18 => self.node("aten.dropout.default", of, vec![float("p", 0.5)], vec![x]),
            19 => {
                let result = map(&x, |x| Strided::dense(&x.shape, x.values().iter().map(|v| v + 0.5).collect()));
                self.node("aten.add.Tensor", of, vec![float("other", 0.5)], vec![result]);
            }
            // What follows writes.
            _ if x[0].expanded => {}
            20 | 21 => self.write("aten.add_.Tensor", of, x, vec![float("other", 1.0)], |v| v + 1.0),
            22 => self.write("aten.mul_.Tensor", of, x, vec![float("other", -2.0)], |v| v * -2.0),
            23 => self.write("aten.relu_.default", of, x, vec![], |v| v.max(0.0)),
            24 => self.write("aten.fill_.Scalar", of, x, vec![float("value", 5.0)], |_| 5.0),
            25 => {
                let fits = |other: &Pair| other.iter().zip(&x).all(|(a, b)| a.shape == b.shape);
                let fitting: Vec<_> = self.tensors.iter().filter(|(_, other)| fits(other)).collect();
                let (name, source) = fitting[choice[3] % fitting.len()];
                let argument = json!({ "name": "src", "arg": { "as_tensor": { "name": name } }, "kind": 1 });
                x.iter().zip(source.clone()).for_each(|(x, source)| x.write(&source.values()));
                self.node("aten.copy_.default", of, vec![argument], vec![x]);
            }
            _ => {}
        }
    }

    /// As a view where torch has one; `aten.view` is asked for only where there is.
    fn reshape(&mut self, of: usize, x: &Pair, shape: impl Fn(&Strided) -> Vec<usize>, choice: usize) {
        let viewed = try_map(x, |x| x.viewed(&shape(x)));
        let sizes: Vec<Json> =
            shape(&x[0]).iter().zip(shape(&x[1])).map(|(a, b)| if *a == b { json!(*a) } else { json!(-1) }).collect();
        let sizes = |name: &str| json!({ "name": name, "arg": { "as_ints": sizes }, "kind": 1 });
        match viewed {
            Some(viewed) if choice.is_multiple_of(2) => self.node("aten.view.default", of, vec![sizes("size")], vec![viewed]),
            viewed => {
                let result = viewed.unwrap_or_else(|| map(x, |x| Strided::dense(&shape(x), x.values())));
                self.node("aten.reshape.default", of, vec![sizes("shape")], vec![result]);
            }
        }
    }

    fn write(&mut self, op: &str, of: usize, x: Pair, arguments: Vec<Json>, f: impl Fn(f32) -> f32) {
        for x in &x {
            x.write(&x.values().into_iter().map(&f).collect::<Vec<_>>());
        }
        self.node(op, of, arguments, vec![x]);
    }

    /// The file, with every tensor but the inputs as an output.
    fn file(&self) -> Vec<u8> {
        let input = |name: &str| json!({ "user_input": { "arg": { "as_tensor": { "name": name } } } });
        let output = |(name, _): &(String, Pair)| json!({ "user_output": { "arg": { "as_tensor": { "name": name } } } });
        let outputs: Vec<Json> = self.tensors[2..].iter().map(output).collect();
        let model = json!({
            "schema_version": { "major": 8, "minor": 0 },
            "range_constraints": { "s0": { "min_val": 2, "max_val": 9 } },
            "graph_module": {
                "graph": { "nodes": self.nodes, "tensor_values": self.types },
                "signature": { "input_specs": [input("a"), input("b")], "output_specs": outputs },
            },
        });
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("m/models/model.json", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(model.to_string().as_bytes()).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn text(&self) -> String {
        self.nodes.iter().fold(String::new(), |mut text, node| {
            let _ = writeln!(text, "{} {} -> {}", node["target"], node["inputs"], node["outputs"]);
            text
        })
    }
}

fn select(x: &Strided, axis: usize, index: usize) -> Strided {
    let mut view = x.clone();
    view.offset += index * x.strides[axis];
    view.shape.remove(axis);
    view.strides.remove(axis);
    view
}

fn slice(x: &Strided, axis: usize, start: usize, end: usize, step: usize) -> Strided {
    let mut view = x.clone();
    view.offset += start * x.strides[axis];
    view.shape[axis] = (end - start).div_ceil(step);
    view.strides[axis] *= step;
    view
}

fn diagonal(x: &Strided, offset: usize, rows: usize, columns: usize) -> Strided {
    let mut view = x.clone();
    let count = x.shape[rows].min(x.shape[columns] - offset);
    view.offset += offset * x.strides[columns];
    for axis in [rows.max(columns), rows.min(columns)] {
        view.shape.remove(axis);
        view.strides.remove(axis);
    }
    view.shape.push(count);
    view.strides.push(x.strides[rows] + x.strides[columns]);
    view
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_write_reaches_every_view_of_its_storage(choices in prop::collection::vec(any::<[u16; 4]>(), 1..30)) {
        let mut program = Program::new();
        let before: Vec<Vec<Vec<f32>>> = (0..2).map(|b| program.tensors.iter().map(|(_, x)| x[b].values()).collect()).collect();
        choices.into_iter().for_each(|choice| program.step(choice.map(usize::from)));
        prop_assume!(!program.nodes.is_empty());
        let graph = aotfarm_frontend::load(Arc::new(program.file()), "m.pt2").map_err(|e| TestCaseError::fail(e.to_string()));
        let graph = graph.map_err(|e| TestCaseError::fail(format!("{e}\n{}", program.text())))?;
        for (b, batch) in BATCHES.into_iter().enumerate() {
            let inputs: Vec<Tensor> = program.tensors[..2]
                .iter()
                .zip(&before[b])
                .map(|((_, x), values)| Tensor::from_f32(&x[b].shape, values))
                .collect();
            let outputs = interp::run(&graph, &inputs).unwrap();
            for ((name, wanted), got) in program.tensors[2..].iter().zip(&outputs) {
                let wanted = &wanted[b];
                prop_assert_eq!(&got.shape, &wanted.shape, "{} at batch {}\n{}", name, batch, program.text());
                prop_assert_eq!(got.to_f32(), wanted.values(), "{} at batch {}\n{}", name, batch, program.text());
            }
        }
    }
}
