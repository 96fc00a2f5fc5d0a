//! A user's inputs and the outputs that he expects: which tensor is for which port, and whether outputs are right.

use std::path::Path;

use aotfarm_compiler::interp;
use aotfarm_compiler::ir::Graph;
use aotfarm_protocol::Port;
use aotfarm_runtime::{Difference, Tensor, compare};

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

/// The tensors of a file for the inputs or outputs of a graph.
pub(crate) fn of_graph(file: &Path, side: Side, graph: &Graph) -> anyhow::Result<Vec<interp::Tensor>> {
    let ids = if side == Side::Input { &graph.inputs } else { &graph.outputs };
    let found = ordered(&tensors::read(file)?, side, ids.iter().map(|id| graph.value(*id).name.as_str()), false)?;
    Ok(found.iter().map(tensors::reference).collect())
}

/// The names of outputs in a file: those of the ports, and `out.<i>` where another one before has the name.
pub(crate) fn file_names(ports: &[Port]) -> Vec<String> {
    let repeated = |i: usize| ports[..i].iter().any(|port| port.name == ports[i].name);
    let name = |i: usize| if repeated(i) { format!("out.{i}") } else { ports[i].name.clone() };
    (0..ports.len()).map(name).collect()
}

/// How the outputs of a model differ from what they should be. `tolerance` is that of its precision.
pub(crate) fn differences(
    ports: &[Port],
    outputs: &[Tensor],
    expected: &[Tensor],
    tolerance: f64,
) -> Result<Vec<Difference>, Failure> {
    let pairs = outputs.iter().zip(expected).enumerate();
    let of = |(i, (got, expected)): (usize, (&Tensor, &Tensor))| {
        compare(got.view(), expected.view(), tolerance)
            .map_err(|e| Failure::failed(format!("output {i} (`{}`) {e}", ports[i].name)))
    };
    pairs.map(of).collect()
}

/// Fails with every output that is wrong.
pub(crate) fn verdict(ports: &[Port], differences: &[Difference]) -> Result<(), Failure> {
    let wrong = differences.iter().enumerate().filter(|(_, difference)| !difference.is_right());
    let wrong: Vec<String> = wrong.map(|(i, difference)| format!("output {i} (`{}`): {difference}", ports[i].name)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("; "))) }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::DType;

    use super::*;

    fn named(names: &[&str]) -> Vec<(String, Tensor)> {
        let tensor = |i: usize| Tensor::from_f32(vec![1], &[i as f32]).unwrap();
        names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), tensor(i))).collect()
    }

    fn places(given: &[&str], side: Side, names: &[&str]) -> Result<Vec<f32>, String> {
        let found = ordered(&named(given), side, names.iter().copied(), false).map_err(|e| e.to_string())?;
        Ok(found.iter().map(|t| t.as_f32().unwrap()[0]).collect())
    }

    #[test]
    fn tensors_are_found_by_name_or_by_the_number_of_their_port() {
        assert_eq!(places(&["mask", "ids"], Side::Input, &["ids", "mask"]), Ok(vec![1.0, 0.0]));
        assert_eq!(places(&["in.1", "in.0", "out.0"], Side::Input, &["ids", "mask"]), Ok(vec![1.0, 0.0]));
        assert_eq!(places(&["out.1", "out.0"], Side::Output, &["y", "y"]), Ok(vec![1.0, 0.0]));
        assert_eq!(places(&["anything"], Side::Input, &["x"]), Ok(vec![0.0]));
        let error = places(&["ids", "x"], Side::Input, &["ids", "mask"]).unwrap_err();
        assert_eq!(error, "input 1 (`mask`) is missing; the files hold ids, x");
    }

    #[test]
    fn outputs_of_one_name_have_different_ones_in_a_file() {
        let port = |name: &str| Port { name: name.to_owned(), dtype: DType::F32, dims: Vec::new() };
        assert_eq!(file_names(&[port("y"), port("z"), port("y")]), ["y", "z", "out.2"]);
    }
}
