//! A user's inputs and the outputs that he expects: which tensor is for which port, and whether outputs are right.

use aotfarm_compiler::interp;
use aotfarm_compiler::ir::Graph;
use aotfarm_protocol::{ArtifactMetadata, Port};
use aotfarm_runtime::{Difference, RunError, Session, Tensor, compare};

use crate::failure::Failure;
use crate::tensors;

/// Which ports tensors are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Input,
    Output,
}

impl Side {
    /// What it is called, and how its positions are.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Input => ("input", "in"),
            Self::Output => ("output", "out"),
        }
    }
}

/// The tensor of each port, whose names are `names`: the one of its name, or `in.<i>` (`out.<i>`); where `by_position` holds, or where there is
/// one of each, the one at its position.
pub(crate) fn ordered<'a>(
    given: &[(String, Tensor)],
    side: Side,
    names: impl ExactSizeIterator<Item = &'a str>,
    by_position: bool,
) -> anyhow::Result<Vec<Tensor>> {
    let (word, prefix) = side.words();
    let by_position = by_position || (given.len() == 1 && names.len() == 1);
    names
        .enumerate()
        .map(|(i, name)| {
            let of = |wanted: &str| given.iter().find(|(n, _)| n == wanted);
            // Two outputs may have one name, so that a position says more.
            let found = of(&format!("{prefix}.{i}")).or_else(|| of(name)).or_else(|| given.get(i).filter(|_| by_position));
            found.map(|(_, t)| t.clone()).ok_or_else(|| {
                let mut have: Vec<_> = given.iter().map(|(n, _)| n.as_str()).collect();
                have.sort_unstable();
                Failure::input(format!("{word} {i} (`{name}`) is missing; the files hold {}", have.join(", ")))
                    .hint(format!("name the tensor `{name}` or `{prefix}.{i}`"))
                    .into()
            })
        })
        .collect()
}

/// [`ordered`] for the ports of an artifact.
pub(crate) fn of_ports(given: &[(String, Tensor)], side: Side, ports: &[Port], by_position: bool) -> anyhow::Result<Vec<Tensor>> {
    ordered(given, side, ports.iter().map(|port| port.name.as_str()), by_position)
}

/// [`ordered`] for the inputs or outputs of a graph.
pub(crate) fn of_graph(given: &[(String, Tensor)], side: Side, graph: &Graph) -> anyhow::Result<Vec<interp::Tensor>> {
    let ids = if side == Side::Input { &graph.inputs } else { &graph.outputs };
    let found = ordered(given, side, ids.iter().map(|id| graph.value(*id).name.as_str()), false)?;
    Ok(found.iter().map(tensors::reference).collect())
}

/// The tensors of each call of a session that a file holds: those of the first have plain names, those of the next the same ones after `1.`.
pub(crate) fn calls(mut given: Vec<(String, Tensor)>) -> Vec<Vec<(String, Tensor)>> {
    let mut later = Vec::new();
    for call in 1.. {
        let prefix = format!("{call}.");
        let of_call = given.extract_if(.., |(name, _)| name.starts_with(&prefix));
        let of_call: Vec<_> = of_call.map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
        if of_call.is_empty() {
            break;
        }
        later.push(of_call);
    }
    std::iter::once(given).chain(later).collect()
}

/// What a call is expected to leave in the inputs that the model writes into: `write.0`, `write.1` …, as far as the file says it.
pub(crate) fn writes(given: &[(String, Tensor)]) -> Vec<Tensor> {
    let write = |k: usize| given.iter().find(|(name, _)| *name == format!("write.{k}")).map(|(_, tensor)| tensor.clone());
    (0..).map_while(write).collect()
}

/// The inputs that a model writes into, with their positions.
fn written(metadata: &ArtifactMetadata) -> impl Iterator<Item = (usize, &Port)> {
    metadata.inputs.iter().enumerate().filter(|(_, port)| port.written)
}

/// Runs a model; what the call leaves: the outputs, and then the inputs that it has written into.
pub(crate) fn run(session: &mut Session, mut inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
    let mut left = session.run_in_place(&mut inputs)?;
    let ports = &session.model().metadata().inputs;
    left.extend(inputs.into_iter().zip(ports).filter(|(_, port)| port.written).map(|(tensor, _)| tensor));
    Ok(left)
}

/// What [`run`] should leave, as a file has it.
pub(crate) fn expected(given: &[(String, Tensor)], metadata: &ArtifactMetadata) -> anyhow::Result<Vec<Tensor>> {
    Ok([of_ports(given, Side::Output, &metadata.outputs, false)?, writes(given)].concat())
}

/// What messages call what [`run`] leaves.
pub(crate) fn places(metadata: &ArtifactMetadata) -> Vec<String> {
    let outputs = metadata.outputs.iter().enumerate().map(|(i, port)| format!("output {i} (`{}`)", port.name));
    outputs.chain(written(metadata).map(|(i, port)| format!("input {i} (`{}`), as it is written", port.name))).collect()
}

/// The names in a file of what [`run`] leaves: those of the ports, and `out.<i>` or `write.<k>` where another one before has the name.
pub(crate) fn file_names(metadata: &ArtifactMetadata) -> Vec<String> {
    let outputs = metadata.outputs.iter().enumerate().map(|(i, port)| (port, format!("out.{i}")));
    let writes = written(metadata).enumerate().map(|(k, (_, port))| (port, format!("write.{k}")));
    let mut names: Vec<String> = Vec::new();
    for (port, other) in outputs.chain(writes) {
        names.push(if names.contains(&port.name) { other } else { port.name.clone() });
    }
    names
}

/// How what a model leaves, called `places`, differs from what it should be. `tolerance` is that of its precision.
pub(crate) fn differences(
    places: &[String],
    left: &[Tensor],
    expected: &[Tensor],
    tolerance: f64,
) -> Result<Vec<Difference>, Failure> {
    let each = places.iter().zip(left.iter().zip(expected));
    each.map(|(place, (got, expected))| {
        compare(got.view(), expected.view(), tolerance).map_err(|e| Failure::failed(format!("{place} {e}")))
    })
    .collect()
}

/// Fails with everything that is wrong.
pub(crate) fn verdict(places: &[String], differences: &[Difference]) -> Result<(), Failure> {
    let wrong = places.iter().zip(differences).filter(|(_, difference)| !difference.is_right());
    let wrong: Vec<String> = wrong.map(|(place, difference)| format!("{place}: {difference}")).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("; "))) }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{DType, Digest, Precision};

    use super::*;

    fn named(names: &[&str]) -> Vec<(String, Tensor)> {
        let tensor = |i: usize| Tensor::from_f32(vec![1], &[i as f32]).unwrap();
        names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), tensor(i))).collect()
    }

    fn found(given: &[&str], side: Side, names: &[&str]) -> Result<Vec<f32>, String> {
        let tensors = ordered(&named(given), side, names.iter().copied(), false).map_err(|e| e.to_string())?;
        Ok(tensors.iter().map(|t| t.as_f32().unwrap()[0]).collect())
    }

    #[test]
    fn tensors_are_found_by_name_or_by_the_number_of_their_port() {
        assert_eq!(found(&["mask", "ids"], Side::Input, &["ids", "mask"]), Ok(vec![1.0, 0.0]));
        assert_eq!(found(&["in.1", "in.0", "out.0"], Side::Input, &["ids", "mask"]), Ok(vec![1.0, 0.0]));
        assert_eq!(found(&["out.1", "out.0"], Side::Output, &["y", "y"]), Ok(vec![1.0, 0.0]));
        assert_eq!(found(&["anything"], Side::Input, &["x"]), Ok(vec![0.0]));
        let error = found(&["ids", "x"], Side::Input, &["ids", "mask"]).unwrap_err();
        assert_eq!(error, "input 1 (`mask`) is missing; the files hold ids, x");
    }

    #[test]
    fn a_file_may_hold_the_calls_of_a_session() {
        let names = |calls: Vec<Vec<(String, Tensor)>>| -> Vec<Vec<String>> {
            calls.into_iter().map(|call| call.into_iter().map(|(name, _)| name).collect()).collect()
        };
        assert_eq!(names(calls(named(&["1.in.0", "in.0", "2.x", "1.out.0"]))), [vec!["in.0"], vec!["in.0", "out.0"], vec!["x"]]);
        assert_eq!(names(calls(named(&["x", "2.x"]))), [["x", "2.x"]]);
    }

    #[test]
    fn what_has_one_name_has_different_ones_in_a_file() {
        let port =
            |name: &str, written| Port { name: name.to_owned(), dtype: DType::F32, dims: Vec::new(), written, range: None };
        let metadata = ArtifactMetadata {
            inputs: vec![port("a", false), port("y", true), port("x", true)],
            outputs: vec![port("y", false), port("z", false), port("y", false)],
            target: "cpu-x86_64-v3".parse().unwrap(),
            graph: Digest::of(b""),
            compiler: String::new(),
            precision: Precision::default(),
            untested: None,
            libraries: Vec::new(),
            dims: Vec::new(),
            states: Vec::new(),
            signature: None,
            steps: Vec::new(),
            segments: Vec::new(),
        };
        assert_eq!(file_names(&metadata), ["y", "z", "out.2", "write.0", "x"]);
        assert_eq!(places(&metadata)[2..4], ["output 2 (`y`)", "input 1 (`y`), as it is written"]);
    }
}
