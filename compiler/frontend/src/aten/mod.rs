//! `.pt2` files as `torch.export.save` of torch 2.9 and newer writes them: a zip of a JSON graph and raw weights. Both the exported
//! form and the form after `run_decompositions` are read. The container and schema are those of torch's `torch/export/pt2_archive`
//! and `torch/_export/serde/schema.py`.

mod archive;
mod call;
mod ops;
mod program;
mod promotion;
mod scope;
mod signature;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

use aotfarm_ir::{Graph, TensorData, TensorType, ValueId};
use aotfarm_protocol::Nested;

use self::archive::{Archive, damaged, version};
use self::call::Call;
use self::ops::{Shares, Writes};
use self::program::{Argument, Header, InputSpec, OutputSpec, Program, TensorMeta};
use self::scope::{Bound, Scope, Val};
use self::weights::Weights;
use crate::error::{Failures, ImportError, UnsupportedOp};
use crate::file::SharedBytes;
use crate::semantics::{self, Emit, view};
use crate::storage::ViewId;
use crate::symbols::{self, Declared, Symbols};

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
    let weights = Weights::of(&archive)?;
    // Where the model does not hold at sizes below those that torch exports, the ranges are as the file gives them.
    match import(&weights, &program, name, Symbols::default) {
        Err(ImportError::Node { .. } | ImportError::Graph(_) | ImportError::Several(_))
            if !program.range_constraints.is_empty() =>
        {
            import(&weights, &program, name, || Symbols::default().unwidened()).map(symbols::widened)
        }
        done => done,
    }
}

fn import(weights: &Weights<'_>, program: &Program, name: &str, symbols: fn() -> Symbols) -> Result<Graph, ImportError> {
    // Which buffers a program writes to is known when all of it has been read; then it is read again with those as states.
    let mut states = BTreeSet::new();
    loop {
        match Import::new(weights, program, name, symbols()).run(&states)? {
            Read::Graph(graph) => return Ok(*graph),
            Read::Writes(buffers) => states.extend(buffers),
        }
    }
}

/// The stack trace of each node of a `.pt2` file by its name, as far as the file can be read.
pub fn stack_traces(file: SharedBytes) -> Vec<(String, String)> {
    let traced = |archive: Archive| archive.json::<program::Traced>("models/model.json").ok();
    Archive::open(file).ok().and_then(traced).map(program::Traced::stack_traces).unwrap_or_default()
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

/// What reading a program came to.
enum Read {
    Graph(Box<Graph>),
    /// It writes to these buffers, which were not known to be states.
    Writes(Vec<String>),
}

/// A parameter, buffer or constant.
struct Buffer<'a> {
    name: &'a str,
    argument: &'a str,
    view: ViewId,
    /// Its contents when a run begins, if it is state.
    state: Option<ValueId>,
}

struct Import<'a> {
    weights: &'a Weights<'a>,
    scope: Scope<'a>,
    /// Whether any node writes. If none does, nothing depends on what shares memory with what.
    has_writes: bool,
    buffers: Vec<Buffer<'a>>,
    /// The model's inputs.
    inputs: Vec<(&'a str, ViewId)>,
    /// The leaves of what a caller passes and gets.
    arguments: Vec<Nested>,
    results: Vec<Nested>,
}

impl<'a> Import<'a> {
    fn new(weights: &'a Weights<'a>, program: &'a Program, name: &str, symbols: Symbols) -> Self {
        let writes = |node: &program::Node| ops::find(target(node)).is_some_and(|(_, writes)| writes == Writes::First);
        let has_writes = program.graph_module.graph.nodes.iter().any(writes);
        Self {
            weights,
            scope: Scope::new(program, name, symbols),
            has_writes,
            buffers: Vec::new(),
            inputs: Vec::new(),
            arguments: Vec::new(),
            results: Vec::new(),
        }
    }

    fn run(mut self, states: &BTreeSet<String>) -> Result<Read, ImportError> {
        let program = self.scope.program;
        self.dims()?;
        for spec in &program.graph_module.signature.input_specs {
            self.input(spec, states)?;
        }
        let mut failures = Failures::default();
        for node in &program.graph_module.graph.nodes {
            let results = || node.outputs.iter().flat_map(Argument::names).map(str::to_owned);
            if node.inputs.iter().flat_map(|input| input.arg.names()).any(|name| failures.missing.contains(name)) {
                failures.missing.extend(results());
            } else if let Err(error) = self.node(node) {
                failures.add(error, results());
            }
        }
        failures.finish()?;
        // In the decomposed form, outputs are what they were before the writes that the signature lists.
        for spec in &program.graph_module.signature.output_specs {
            self.output(spec)?;
        }
        for spec in &program.graph_module.signature.output_specs {
            self.mutation(spec)?;
        }
        let written = self.buffers.iter().filter(|buffer| buffer.state.is_none() && self.scope.storages.version(buffer.view) > 0);
        let written: Vec<String> = written.map(|buffer| buffer.name.to_owned()).collect();
        if !written.is_empty() {
            return Ok(Read::Writes(written));
        }
        self.ends()?;
        let module = &program.graph_module;
        if let Some(call) = module.module_call_graph.iter().find(|entry| entry.fqn.is_empty()).and_then(|e| e.signature.as_ref())
        {
            let signature = signature::signature(call, self.arguments, self.results).map_err(|e| damaged("the signature", e))?;
            self.scope.builder.signature(signature);
        }
        Ok(Read::Graph(Box::new(self.scope.builder.finish()?)))
    }

    fn user_inputs(&self) -> impl Iterator<Item = (&'a str, &'a TensorMeta)> + use<'a> {
        let module = &self.scope.program.graph_module;
        module.signature.input_specs.iter().filter_map(move |s| {
            let InputSpec::UserInput { arg } = s else { return None };
            let name = arg.tensor()?;
            Some((name, module.graph.tensor_values.get(name)?))
        })
    }

    /// Declares the symbolic dimensions of the inputs.
    fn dims(&mut self) -> Result<(), ImportError> {
        let mut derived = Vec::new();
        for (input, meta) in self.user_inputs() {
            for (axis, size) in meta.sizes.iter().enumerate() {
                let place = || format!("dimension {axis} of input `{input}`");
                let (size, traced) = program::size(size).map_err(|e| damaged(place(), e))?;
                for sym in size.symbols() {
                    let range = self.scope.program.range_constraints.get(sym.as_str());
                    let end = |of: fn(&program::Range) -> &Option<program::Bound>| range.and_then(|r| of(r).as_ref()?.at());
                    let hint =
                        traced.zip(size.affine()).and_then(|(n, (_, factor, summand))| Some(n.checked_sub(summand)? / factor));
                    let declared = Declared { min: end(|r| &r.min_val), max: end(|r| &r.max_val), hint };
                    // What is a multiple of the symbol is not what it counts.
                    let axis = if size.as_sym().is_some() { axis } else { axis + 1 };
                    self.scope.symbols.declare(&mut self.scope.builder, sym.as_str(), axis, declared)?;
                    derived.push((sym, size.clone(), place()));
                }
            }
        }
        // A run reads the symbols from the inputs' shapes.
        for (sym, size, place) in &derived {
            if !derived.iter().any(|(other, size, _)| other == sym && size.affine().is_some()) {
                let what = format!(
                    "its size is the expression `{size}`, from which `{sym}` cannot be told; give the model an input of that size"
                );
                return Err(ImportError::refused(place.clone(), what));
            }
        }
        Ok(())
    }

    /// What the graph takes: the model's inputs, its weights, and arguments that the export made constants, which no node names.
    fn input(&mut self, spec: &'a InputSpec, states: &BTreeSet<String>) -> Result<(), ImportError> {
        match spec {
            InputSpec::Parameter { arg, parameter_name: name } | InputSpec::Buffer { arg, buffer_name: name } => {
                let weight = self.weights.weight(name)?;
                self.buffer(name, &arg.name, weight, states.contains(name))
            }
            InputSpec::TensorConstant { arg, tensor_constant_name: name } => {
                let constant = self.weights.constant(name)?;
                self.buffer(name, &arg.name, constant, states.contains(name))
            }
            InputSpec::UserInput { arg: Argument::AsTensor(of) } => {
                self.arguments.push(Nested::Tensor(self.inputs.len()));
                self.user_input(&of.name)
            }
            InputSpec::UserInput { arg: value } | InputSpec::ConstantInput { value } => {
                let what =
                    "an input that is neither a tensor nor a constant; pass it as a tensor, or as a constant when exporting";
                let constant = value.constant().ok_or_else(|| ImportError::refused("the signature", what))?;
                self.arguments.push(constant);
                Ok(())
            }
            InputSpec::Other(spec) => Err(match spec.keys().next() {
                Some(kind) => ImportError::refused("the signature", format!("an input of the kind `{kind}`")),
                None => damaged("the signature", "an input specification is empty"),
            }),
        }
    }

    fn buffer(
        &mut self,
        name: &'a str,
        argument: &'a str,
        (ty, data): (TensorType, TensorData),
        is_state: bool,
    ) -> Result<(), ImportError> {
        let builder = &mut self.scope.builder;
        let id = if is_state { builder.state(name, ty, data)? } else { builder.weight(name, ty, data)? };
        let view = self.scope.storages.own(id);
        self.buffers.push(Buffer { name, argument, view, state: is_state.then_some(id) });
        self.scope.names.insert(argument.to_owned(), Bound::Tensor(view));
        Ok(())
    }

    fn user_input(&mut self, name: &'a str) -> Result<(), ImportError> {
        let place = format!("input `{name}`");
        let meta = self.scope.meta(name).ok_or_else(|| damaged(place.clone(), "its type is missing"))?;
        let ty = self.scope.file_type(meta).map_err(|e| ImportError::refused(place, e))?;
        let id = self.scope.builder.input(name, ty)?;
        let view = self.scope.storages.own(id);
        self.inputs.push((name, view));
        self.scope.names.insert(name.to_owned(), Bound::Tensor(view));
        Ok(())
    }

    fn node(&mut self, node: &program::Node) -> Result<(), ImportError> {
        let source = format!("{}: {}", output_name(node).unwrap_or("node"), target(node));
        let (op, writes) = ops::find(target(node)).expect("unsupported operators were refused before");
        self.apply(node, op, writes, &source).map_err(|e| e.at(&source))
    }

    fn apply(&mut self, node: &program::Node, op: &ops::Row, writes: Writes, source: &str) -> semantics::Result<()> {
        for name in node.inputs.iter().flat_map(|input| input.arg.tensors()) {
            self.read(name, source)?;
        }
        let has_writes = self.has_writes;
        let mut call = Call { scope: &mut self.scope, node, source };
        let value = (op.map)(&mut call)?;
        let shared = match (op.shares, &value) {
            (Shares::Always, _) => true,
            (Shares::If(condition), Val::Tensor(value)) if has_writes => condition(&call, *value)?,
            (Shares::If(_) | Shares::Never, _) => false,
        };
        let first = node.inputs.first().and_then(|input| self.scope.view(input.arg.tensor()?));
        let bound = |scope: &mut Scope<'_>, value: ValueId| -> semantics::Result<Bound> {
            let e = &mut Emit { builder: &mut scope.builder, source };
            let view = match (writes, first) {
                (Writes::First, Some(first)) if shared => {
                    if value == scope.storages.last_read(first) {
                        first
                    } else {
                        // The tensor itself now looks at its storage in another way: under all its names.
                        let view = scope.storages.derive(e, first, value)?;
                        let names = scope.names.values_mut();
                        names.filter(|bound| matches!(bound, Bound::Tensor(old) if *old == first)).for_each(|bound| {
                            *bound = Bound::Tensor(view);
                        });
                        view
                    }
                }
                (Writes::First, Some(first)) => {
                    let ty = e.ty(scope.storages.last_read(first)).clone();
                    let value = e.cast(value, ty.dtype)?;
                    let value = view::expand(e, value, ty.shape)?;
                    scope.storages.write(e, first, value)?;
                    first
                }
                (Writes::Nothing, Some(first)) if shared => scope.storages.derive(e, first, value)?,
                (Writes::First, None) => return Err("it writes to an operand that is not a tensor".into()),
                (Writes::Nothing, _) => scope.storages.own(value),
            };
            Ok(Bound::Tensor(view))
        };
        let outputs = node.outputs.as_slice();
        match (value, outputs) {
            (Val::Nothing, _) => {}
            (Val::Tensors(list), [Argument::AsTensors(names)]) => {
                for (of, value) in names.iter().zip(list) {
                    let bound = bound(&mut self.scope, value)?;
                    self.scope.names.insert(of.name.clone(), bound);
                }
            }
            // Results that are of no use in inference, such as the saved statistics of a normalisation, are not computed. A
            // node that reads one of them fails by its name.
            (Val::Tensors(list), outputs) => {
                for (output, value) in outputs.iter().zip(list) {
                    let bound = bound(&mut self.scope, value)?;
                    self.scope.names.insert(result_name(output)?, bound);
                }
            }
            (value, outputs) => {
                let name = result_name(outputs.first().ok_or("it has no output")?)?;
                let bound = match value {
                    Val::Tensor(value) => bound(&mut self.scope, value)?,
                    Val::Size(size) => Bound::Size(size),
                    Val::Tensors(_) | Val::Nothing => unreachable!("they are handled above"),
                };
                self.scope.names.insert(name, bound);
            }
        }
        Ok(())
    }

    /// The present value of a tensor; `None` for names that are none.
    fn read(&mut self, name: &str, source: &str) -> semantics::Result<Option<ValueId>> {
        let Scope { builder, storages, names, .. } = &mut self.scope;
        let Some(Bound::Tensor(view)) = names.get(name) else { return Ok(None) };
        storages.read(&mut Emit { builder, source }, *view).map(Some)
    }

    fn output(&mut self, spec: &OutputSpec) -> Result<(), ImportError> {
        let refused = |what: &str| Err(ImportError::refused("the signature", what));
        match spec {
            OutputSpec::UserOutput { arg: Argument::AsTensor(of) } => {
                let source = format!("{}: output", of.name);
                let Some(id) = self.read(&of.name, &source).map_err(|e| e.at(&source))? else {
                    return refused(&format!("the output `{}` is not a tensor of the graph", of.name));
                };
                self.results.push(Nested::Tensor(self.scope.builder.graph().outputs.len()));
                self.scope.builder.output_named(&of.name, id);
                Ok(())
            }
            OutputSpec::UserOutput { arg: Argument::AsSymInt(program::SymInt::AsName(name)) } => {
                let Some(Bound::Size(size)) = self.scope.names.get(name) else {
                    return refused(&format!("the output `{name}` is not a size that follows from the inputs"));
                };
                self.results.push(Nested::Size(size.to_string()));
                Ok(())
            }
            OutputSpec::UserOutput { arg } => match arg.constant() {
                Some(constant) => {
                    self.results.push(constant);
                    Ok(())
                }
                None => refused("an output that is neither a tensor of the graph nor a constant"),
            },
            OutputSpec::BufferMutation { .. } | OutputSpec::ParameterMutation { .. } | OutputSpec::UserInputMutation { .. } => {
                Ok(())
            }
            OutputSpec::Other(spec) => match spec.keys().next() {
                Some(kind) => refused(&format!("an output of the kind `{kind}`")),
                None => Err(damaged("the signature", "an output specification is empty")),
            },
        }
    }

    /// What the signature of a decomposed program says is written when the run ends.
    fn mutation(&mut self, spec: &OutputSpec) -> Result<(), ImportError> {
        let (arg, name, view) = match spec {
            OutputSpec::BufferMutation { arg, buffer_name: name }
            | OutputSpec::ParameterMutation { arg, parameter_name: name } => {
                (arg, name, self.buffers.iter().find(|buffer| buffer.name == name).map(|buffer| buffer.view))
            }
            OutputSpec::UserInputMutation { arg, user_input_name: name } => {
                (arg, name, self.inputs.iter().find(|(input, _)| input == name).map(|(_, view)| *view))
            }
            OutputSpec::UserOutput { .. } | OutputSpec::Other(_) => return Ok(()),
        };
        let source = format!("{name}: mutation");
        let value = self.read(&arg.name, &source).map_err(|e| e.at(&source))?;
        let (Some(value), Some(view)) = (value, view) else {
            return Err(damaged("the signature", format!("the mutation of `{name}` names no tensor of the graph")));
        };
        let Scope { builder, storages, .. } = &mut self.scope;
        storages.write(&mut Emit { builder, source: &source }, view, value).map_err(|e| e.at(&source))
    }

    /// What the states and the inputs hold when a run has ended.
    fn ends(&mut self) -> Result<(), ImportError> {
        let Scope { builder, storages, .. } = &mut self.scope;
        let mut newest = |name: &str, view| {
            let source = format!("{name}: contents");
            let e = &mut Emit { builder: &mut *builder, source: &source };
            storages.read(e, view).map_err(|error| error.at(&source))
        };
        let mut nexts = Vec::new();
        for buffer in &self.buffers {
            if let Some(state) = buffer.state {
                nexts.push((state, newest(buffer.argument, buffer.view)?));
            }
        }
        let mut writes = Vec::new();
        for (position, (name, view)) in self.inputs.iter().enumerate() {
            writes.push((position, newest(name, *view)?));
        }
        for (state, next) in nexts {
            builder.next(state, next);
        }
        for (position, value) in writes {
            let input = builder.graph().inputs[position];
            if value != input {
                builder.write_back(input, value);
            }
        }
        Ok(())
    }
}

fn result_name(output: &Argument) -> semantics::Result<String> {
    Ok(output.result().ok_or("its output has no name")?.to_owned())
}
