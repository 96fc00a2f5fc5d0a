//! Where in the exported program's source the nodes of a file come from.

use std::collections::BTreeMap;

use crate::file::SharedBytes;
use crate::{aten, onnx};

/// The line of source of each node of a `.pt2` or `.onnx` file, by the name under which messages and [`aotfarm_ir::Node::source`] know it:
/// `model.py:42, in forward: x = self.relu(x)`. Empty for files that tell nothing.
pub fn source_lines(bytes: &SharedBytes) -> BTreeMap<String, String> {
    let content = (**bytes).as_ref();
    let traces = if content.starts_with(b"PK") {
        aten::stack_traces(bytes.clone())
    } else if content.starts_with(&[0x08]) {
        onnx::stack_traces(bytes)
    } else {
        Vec::new()
    };
    traces.into_iter().filter_map(|(name, trace)| Some((name, innermost(&trace)?))).collect()
}

/// Where installed packages lie: calls there are a library's, and the line is the one that called it.
const PACKAGES: [&str; 2] = ["/site-packages/", "/dist-packages/"];

/// The innermost call of a trace as Python prints it: `File "model.py", line 42, in forward`, then the line itself. One in a package
/// only where all are.
fn innermost(trace: &str) -> Option<String> {
    let mut calls: Vec<(&str, &str)> = Vec::new();
    for line in trace.lines().map(str::trim) {
        match (line.strip_prefix("File \""), calls.last_mut()) {
            (Some(place), _) => calls.push((place, "")),
            // Newer versions of Python underline a part of the line that they show first.
            (None, Some((_, text))) if text.is_empty() => *text = line,
            _ => {}
        }
    }
    let own = calls.iter().rfind(|(place, _)| !PACKAGES.iter().any(|folder| place.contains(folder)));
    let (place, text) = *own.or(calls.last())?;
    let (file, rest) = place.split_once("\", line ")?;
    let (line, function) = rest.split_once(", in ").unwrap_or((rest, ""));
    let function = if function.is_empty() { String::new() } else { format!(", in {function}") };
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    Some(format!("{file}:{line}{function}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_call_is_the_line() {
        let trace = "  File \"a.py\", line 3, in <module>\n    run()\n  File \"lib/m.py\", line 42, in forward\n    return self.f(x)\n           ^^^^^^^^^";
        assert_eq!(innermost(trace).unwrap(), "lib/m.py:42, in forward: return self.f(x)");
        let inside = format!(
            "{trace}\n  File \"/x/site-packages/torch/nn/modules/linear.py\", line 9, in forward\n    return F.linear(x)"
        );
        assert_eq!(innermost(&inside), innermost(trace));
        assert_eq!(innermost("File \"/x/site-packages/m.py\", line 7").unwrap(), "/x/site-packages/m.py:7");
        assert_eq!(innermost("nothing of the kind"), None);
        assert_eq!(source_lines(&(std::sync::Arc::new(b"neither".to_vec()) as SharedBytes)), BTreeMap::new());
    }
}
