//! Where in the exported program's source the nodes of a file come from.

use std::collections::BTreeMap;

use crate::file::SharedBytes;
use crate::{aten, onnx};

/// The line of source of each node of a `.pt2` or `.onnx` file, by the name under which messages and [`aotfarm_ir::Node::source`] know it:
/// `model.py:42, in forward: x = self.relu(x)`. Empty for files that tell nothing.
pub fn source_lines(bytes: SharedBytes) -> BTreeMap<String, String> {
    let content = (*bytes).as_ref();
    let traces = if content.starts_with(b"PK") {
        aten::stack_traces(bytes.clone())
    } else if content.starts_with(&[0x08]) {
        onnx::stack_traces(&bytes)
    } else {
        Vec::new()
    };
    traces.into_iter().filter_map(|(name, trace)| Some((name, innermost(&trace)?))).collect()
}

/// The innermost call of a trace as Python prints it: `File "model.py", line 42, in forward`, then the line itself.
fn innermost(trace: &str) -> Option<String> {
    let mut lines = trace.lines().map(str::trim).rev();
    let mut text = "";
    let place = lines.find_map(|line| match line.strip_prefix("File \"") {
        Some(place) => Some(place),
        None => {
            // Newer versions of Python underline a part of the line.
            if !line.is_empty() && !line.chars().all(|c| matches!(c, '^' | '~' | ' ')) {
                text = line;
            }
            None
        }
    })?;
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
        assert_eq!(innermost("File \"m.py\", line 7").unwrap(), "m.py:7");
        assert_eq!(innermost("nothing of the kind"), None);
        assert_eq!(source_lines(std::sync::Arc::new(b"neither".to_vec())), BTreeMap::new());
    }
}
