//! `.pt2` files as `torch.export.save` of torch 2.9 and newer writes them: a zip of a JSON graph and raw weights. Both the exported
//! form and the form after `run_decompositions` are read. The container and schema are those of torch's `torch/export/pt2_archive`
//! and `torch/_export/serde/schema.py`.

mod archive;
mod call;
mod ops;
mod program;
mod promotion;
mod scope;

use std::collections::{BTreeMap, HashMap};

use aotfarm_ir::{Builder, Expr, Graph, TensorData, TensorType, ValueId};
use aotfarm_protocol::DType;

use self::archive::{Archive, damaged};
use self::call::Call;
use self::program::{Argument, Bound, Header, InputSpec, OutputSpec, Payload, Payloads, Program, TensorMeta};
use self::scope::{Scope, Val};
use crate::error::{Failures, ImportError, UnsupportedOp};
use crate::file::SharedBytes;
use crate::symbols::{Declared, Symbols};

/// Reads a `.pt2` file; `name` is the model's.
pub fn read(file: SharedBytes, name: &str) -> Result<Graph, ImportError> {
    let archive = Archive::open(file)?;
    if !archive.contains("models/model.json") {
        if archive.contains("serialized_exported_program.json") {
            return Err(version("of torch 2.7 or older", "export it again with torch 2.9 or newer"));
        }
        return Err(damaged("the archive", "it holds no `models/model.json`, so it is not a file of torch.export.save"));
    }
    if archive.contains("byteorder") && archive.data("byteorder")?.bytes() != b"little" {
        return Err(version("with big-endian weights", "export it again on a little-endian machine"));
    }
    let header: Header = archive.json("models/model.json")?;
    let major = header.schema_version.major;
    if major != Some(8) {
        let found = major.map_or("none".to_owned(), |m| m.to_string());
        return Err(version(
            format!("of schema version {found}"),
            "version 8 is understood; export it again with torch 2.9 or newer, or update aotfarm",
        ));
    }
    let program: Program = archive.json("models/model.json")?;
    let missing = unsupported(&program);
    if !missing.is_empty() {
        return Err(ImportError::Unsupported { ops: missing });
    }
    Import::new(&archive, &program, name)?.run()
}

/// The stack trace of each node of a `.pt2` file by its name, as far as the file can be read.
pub fn stack_traces(file: SharedBytes) -> Vec<(String, String)> {
    let traced = |archive: Archive| archive.json::<program::Traced>("models/model.json").ok();
    Archive::open(file).ok().and_then(traced).map(program::Traced::stack_traces).unwrap_or_default()
}

fn version(found: impl Into<String>, remedy: impl Into<String>) -> ImportError {
    ImportError::Version { format: "the .pt2 file", found: found.into(), remedy: remedy.into() }
}

/// The operator's name as torch's documentation has it: `aten.conv2d.default`.
fn target(node: &program::Node) -> &str {
    node.target.strip_prefix("torch.ops.").unwrap_or(&node.target)
}

/// Every operator of the file that has no mapping, with the nodes that use it.
fn unsupported(program: &Program) -> Vec<UnsupportedOp> {
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in program.graph_module.graph.nodes.iter().filter(|n| ops::find(target(n)).is_none()) {
        missing.entry(target(node)).or_default().push(output_name(node).unwrap_or("?").to_owned());
    }
    missing.into_iter().map(|(op, nodes)| UnsupportedOp { op: op.to_owned(), nodes }).collect()
}

fn output_name(node: &program::Node) -> Option<&str> {
    node.outputs.first()?.result()
}

struct Import<'a> {
    archive: &'a Archive,
    program: &'a Program,
    scope: Scope,
    /// The tensor that a view was taken of.
    view_of: HashMap<ValueId, ValueId>,
    /// Our symbols (`batch`) by torch's (`s77`).
    symbols: Symbols,
}

impl<'a> Import<'a> {
    fn new(archive: &'a Archive, program: &'a Program, name: &str) -> Result<Self, ImportError> {
        let scope = Scope { builder: Builder::new(name), names: HashMap::new() };
        Ok(Self { archive, program, scope, view_of: HashMap::new(), symbols: Symbols::default() })
    }

    fn run(mut self) -> Result<Graph, ImportError> {
        self.dims()?;
        self.inputs()?;
        let mut failures = Failures::default();
        for (index, node) in self.program.graph_module.graph.nodes.iter().enumerate() {
            let results = || node.outputs.iter().flat_map(Argument::results).map(str::to_owned);
            if failures.missing.iter().any(|name| uses(std::slice::from_ref(node), name)) {
                failures.missing.extend(results());
            } else if let Err(error) = self.node(index, node) {
                failures.add(error, results());
            }
        }
        failures.finish()?;
        for spec in &self.program.graph_module.signature.output_specs {
            self.output(spec)?;
        }
        Ok(self.scope.builder.finish()?)
    }

    fn user_inputs(&self) -> impl Iterator<Item = (&'a str, &'a TensorMeta)> + use<'a> {
        let graph = &self.program.graph_module.graph;
        let specs = &self.program.graph_module.signature.input_specs;
        specs.iter().filter_map(move |s| {
            let InputSpec::UserInput { arg } = s else { return None };
            let name = arg.tensor()?;
            Some((name, graph.tensor_values.get(name)?))
        })
    }

    /// Declares the symbolic dimensions of the inputs.
    fn dims(&mut self) -> Result<(), ImportError> {
        for (input, meta) in self.user_inputs() {
            for (axis, size) in meta.sizes.iter().enumerate() {
                let place = || format!("dimension {axis} of input `{input}`");
                let (size, hint) = program::size(size).map_err(|e| damaged(place(), e))?;
                let Some(sym) = size.as_sym() else {
                    if size.as_const().is_none() {
                        return Err(ImportError::refused(place(), format!("its size is the expression `{size}`, not a symbol")));
                    }
                    continue;
                };
                let range = self.program.range_constraints.get(sym.as_str());
                let end = |of: fn(&program::Range) -> &Option<Bound>| range.and_then(|r| of(r).as_ref()?.at());
                let declared = Declared { min: end(|r| &r.min_val), max: end(|r| &r.max_val), hint };
                self.symbols.declare(&mut self.scope.builder, sym.as_str(), axis, declared)?;
            }
        }
        Ok(())
    }

    /// A size of the file in our symbols.
    fn size(&self, size: &program::Size) -> Result<Expr, String> {
        let (size, _) = program::size(size)?;
        if let Some(unknown) = size.symbols().into_iter().find(|s| self.symbols.get(s.as_str()).is_none()) {
            return Err(format!("it uses the symbol `{unknown}`, which is the size of no input"));
        }
        Ok(size.substitute(&|s| self.symbols.get(s.as_str()).cloned()))
    }

    fn inputs(&mut self) -> Result<(), ImportError> {
        let weights: Payloads = self.payloads("data/weights/model_weights_config.json")?;
        let constants: Payloads = self.payloads("data/constants/model_constants_config.json")?;
        for spec in &self.program.graph_module.signature.input_specs {
            let (argument, weight) = match spec {
                InputSpec::Parameter { arg, parameter_name } => (&arg.name, Some((parameter_name, "data/weights/"))),
                InputSpec::Buffer { arg, buffer_name } => (&arg.name, Some((buffer_name, "data/weights/"))),
                InputSpec::TensorConstant { arg, tensor_constant_name } => {
                    (&arg.name, Some((tensor_constant_name, "data/constants/")))
                }
                InputSpec::UserInput { arg: Argument::AsTensor(of) } => (&of.name, None),
                InputSpec::UserInput { .. } => {
                    let what = "an input that is not a tensor; pass it as a constant when exporting";
                    return Err(ImportError::refused("the signature", what));
                }
                InputSpec::Other(spec) => {
                    return Err(match spec.keys().next() {
                        Some(kind) => ImportError::refused("the signature", format!("an input of the kind `{kind}`")),
                        None => damaged("the signature", "an input specification is empty"),
                    });
                }
            };
            let id = match weight {
                Some((name, folder)) => {
                    // Buffers that are not persistent are stored with the constants.
                    let found = weights.config.get(name).map(|p| (p, folder));
                    let found = found.or_else(|| constants.config.get(name).map(|p| (p, "data/constants/")));
                    let (payload, folder) = found.ok_or_else(|| damaged(format!("weight `{name}`"), "its data is missing"))?;
                    self.weight(name, payload, folder)?
                }
                None => self.user_input(argument)?,
            };
            self.scope.names.insert(argument.clone(), Val::Tensor(id));
        }
        Ok(())
    }

    fn payloads(&self, entry: &str) -> Result<Payloads, ImportError> {
        if self.archive.contains(entry) { self.archive.json(entry) } else { Ok(Payloads::default()) }
    }

    fn user_input(&mut self, name: &str) -> Result<ValueId, ImportError> {
        let place = format!("input `{name}`");
        let meta = self.program.graph_module.graph.tensor_values.get(name);
        let meta = meta.ok_or_else(|| damaged(place.clone(), "its type is missing"))?;
        let dtype = program::dtype(meta.dtype).map_err(|e| ImportError::refused(place.clone(), e))?;
        let shape: Result<Vec<Expr>, String> = meta.sizes.iter().map(|s| self.size(s)).collect();
        let shape = shape.map_err(|e| damaged(place, e))?;
        Ok(self.scope.builder.input(name, TensorType { dtype, shape })?)
    }

    /// A weight: `as_strided(sizes, strides, offset)` of its whole storage, made contiguous when it is not.
    fn weight(&mut self, name: &str, payload: &Payload, folder: &str) -> Result<ValueId, ImportError> {
        let place = format!("weight `{name}`");
        if payload.use_pickle {
            return Err(version(
                format!("with the pickled {place}, as torch 2.8 wrote it,"),
                "export it again with torch 2.9 or newer",
            ));
        }
        let meta = payload.tensor_meta.as_ref().ok_or_else(|| damaged(place.clone(), "its type is missing"))?;
        let dtype = program::dtype(meta.dtype).map_err(|e| ImportError::refused(place.clone(), e))?;
        let storage = self.archive.data(&format!("{folder}{}", payload.path_name))?;
        let sizes = program::constants(&meta.sizes).ok_or_else(|| damaged(place.clone(), "its shape is not constant"))?;
        let offset = match &meta.storage_offset {
            None => Some(0),
            Some(program::Size::AsInt(n)) => Some(*n),
            Some(_) => None,
        };
        let strides = program::constants(&meta.strides).filter(|s| s.len() == sizes.len());
        let (Some(offset), Some(strides)) = (offset, strides) else {
            return Err(damaged(place, "its strides do not fit its shape"));
        };
        let data = contiguous(&storage, dtype, &sizes, &strides, offset).map_err(|e| damaged(place, e))?;
        let shape = sizes.into_iter().map(Expr::from).collect();
        Ok(self.scope.builder.weight(name, TensorType { dtype, shape }, data)?)
    }

    fn node(&mut self, index: usize, node: &program::Node) -> Result<(), ImportError> {
        let source = format!("{}: {}", output_name(node).unwrap_or("node"), target(node));
        let op = ops::find(target(node)).expect("unsupported operators were refused before");
        let mut call = Call { scope: &mut self.scope, node, source: &source };
        let value = (op.map)(&mut call).map_err(|e| e.at(&source))?;
        if op.in_place {
            self.write_in_place(index, node, &value, &source)?;
        }
        if let (Val::Tensor(result), true) = (&value, op.view)
            && let Some(base) = node.inputs.first().and_then(|a| self.tensor_named(&a.arg))
        {
            let root = self.view_of.get(&base).copied().unwrap_or(base);
            self.view_of.insert(*result, root);
        }
        self.bind(node, value, &source)
    }

    /// An in-place operator gives its first operand a new value under every name that it has. Writing through a view would have
    /// to reach the tensor behind it; that is refused when anything would see the difference.
    fn write_in_place(&mut self, index: usize, node: &program::Node, value: &Val, source: &str) -> Result<(), ImportError> {
        let Some(old) = node.inputs.first().and_then(|a| self.tensor_named(&a.arg)) else { return Ok(()) };
        let root = self.view_of.get(&old).copied().unwrap_or(old);
        let shares = |id: ValueId| id != old && (id == root || self.view_of.get(&id) == Some(&root));
        let later = &self.program.graph_module.graph.nodes[index + 1..];
        let seen = self.scope.names.iter().any(|(name, v)| matches!(v, Val::Tensor(id) if shares(*id)) && uses(later, name));
        if seen {
            return Err(ImportError::Node {
                node: source.to_owned(),
                what: "it writes into a tensor through a view of it; call run_decompositions() before saving".to_owned(),
            });
        }
        for bound in self.scope.names.values_mut() {
            if matches!(bound, Val::Tensor(id) if *id == old) {
                *bound = value.clone();
            }
        }
        Ok(())
    }

    fn tensor_named(&self, arg: &Argument) -> Option<ValueId> {
        match self.scope.names.get(arg.tensor()?)? {
            Val::Tensor(id) => Some(*id),
            _ => None,
        }
    }

    /// Names the results of a node.
    fn bind(&mut self, node: &program::Node, value: Val, source: &str) -> Result<(), ImportError> {
        match (value, node.outputs.as_slice()) {
            (Val::Nothing, _) => {}
            (Val::Tensors(list), [Argument::AsTensors(names)]) => {
                self.scope.names.extend(names.iter().zip(list).map(|(of, id)| (of.name.clone(), Val::Tensor(id))));
            }
            // Only the first of several results is computed: the saved statistics of a normalisation, the indices of a pooling
            // are of no use in inference. A node that reads one of them fails by its name.
            (value, outputs) => {
                let Some(first) = outputs.first() else {
                    return Err(damaged(format!("node `{source}`"), "it has no output"));
                };
                let name = first.result().ok_or_else(|| damaged(format!("node `{source}`"), "its output has no name"))?;
                self.scope.names.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn output(&mut self, spec: &OutputSpec) -> Result<(), ImportError> {
        let refused = |what: &str| Err(ImportError::refused("the signature", what));
        match spec {
            OutputSpec::UserOutput { arg } => match self.tensor_named(arg) {
                Some(id) => {
                    self.scope.builder.output(id);
                    Ok(())
                }
                None => refused("an output that is not a tensor of the graph"),
            },
            // State that a call leaves behind (a counter, a cache) has no place in an artifact.
            OutputSpec::BufferMutation(_) | OutputSpec::UserInputMutation(_) | OutputSpec::ParameterMutation(_) => {
                refused("the model changes its own state when it runs; export it in eval mode")
            }
            OutputSpec::Other(spec) => match spec.keys().next() {
                Some(kind) => refused(&format!("an output of the kind `{kind}`")),
                None => Err(damaged("the signature", "an output specification is empty")),
            },
        }
    }
}

fn uses(nodes: &[program::Node], name: &str) -> bool {
    nodes.iter().any(|n| n.inputs.iter().any(|a| a.arg.mentions(name)))
}

/// The elements `sizes` at `strides` from `offset` of a storage, row-major.
fn contiguous(storage: &TensorData, dtype: DType, sizes: &[i64], strides: &[i64], offset: i64) -> Result<TensorData, String> {
    let unit = dtype.size();
    let overflow = || "its shape overflows".to_owned();
    if sizes.iter().chain(strides).any(|&n| n < 0) || offset < 0 {
        return Err("its shape, strides or offset are negative".to_owned());
    }
    let count = sizes.iter().try_fold(1i64, |n, &s| n.checked_mul(s)).ok_or_else(overflow)?;
    if count == 0 {
        return Ok(TensorData::new(Vec::new()));
    }
    let last = sizes
        .iter()
        .zip(strides)
        .try_fold(offset, |at, (&n, &s)| at.checked_add((n - 1).checked_mul(s)?))
        .ok_or_else(overflow)?;
    let end = last.checked_add(1).and_then(|e| e.checked_mul(unit as i64)).ok_or_else(overflow)?;
    let stored = storage.bytes().len();
    if end as u64 > stored as u64 {
        return Err(format!("it needs {end} bytes of a storage that has {stored}"));
    }
    let row_major =
        sizes.iter().zip(strides).rev().try_fold(1, |want, (&n, &s)| (n == 1 || s == want).then_some(want * n)).is_some();
    if row_major {
        return Ok(storage.slice(offset as usize * unit, count as usize * unit));
    }
    // An expanded tensor repeats elements; the copy is as large as its shape says, not as its storage.
    if count as u64 > stored as u64 * 64 {
        return Err(format!("its shape has {count} elements, but its storage only {stored} bytes"));
    }
    let mut bytes = Vec::with_capacity(count as usize * unit);
    let mut index = vec![0i64; sizes.len()];
    for _ in 0..count {
        let at = (offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<i64>()) as usize * unit;
        bytes.extend_from_slice(&storage.bytes()[at..at + unit]);
        for axis in (0..sizes.len()).rev() {
            index[axis] += 1;
            if index[axis] < sizes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(TensorData::new(bytes))
}
