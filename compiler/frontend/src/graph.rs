//! The `.graph` format: a safetensors file with the weights and the first contents of states as tensors, and the graph's text in
//! `__metadata__`.
//!
//! Keys of `__metadata__`: [`FORMAT_KEY`] (the version of the text, [`FORMAT_VERSION`]), [`TEXT_KEY`] (see [`aotfarm_ir::text`]) and,
//! where the exporter told it, [`SIGNATURE_KEY`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};

use aotfarm_protocol::{Nested, Signature};

use aotfarm_ir::safetensors::to_safetensors;

use crate::error::ImportError;
use crate::file::SharedBytes;
use aotfarm_ir::{Def, Expr, Graph, TensorData, TensorType, text};

/// The `__metadata__` key of the format's version.
pub const FORMAT_KEY: &str = "aotfarm.format";
/// The `__metadata__` key of the graph's text.
pub const TEXT_KEY: &str = "aotfarm.ir";
/// The `__metadata__` key of the signature, the JSON of [`aotfarm_protocol::Signature`].
pub const SIGNATURE_KEY: &str = "aotfarm.signature";
/// The version that this build writes and reads.
pub const FORMAT_VERSION: &str = "1";

/// Bytes before the header: its length.
const PREFIX: usize = 8;

/// Whether the content starts like a safetensors file: a length, then a JSON object.
pub(super) fn looks_like(content: &[u8]) -> bool {
    content.get(PREFIX) == Some(&b'{')
        && content.first_chunk::<PREFIX>().is_some_and(|length| u64::from_le_bytes(*length) < 1 << 32)
}

/// Reads a `.graph` file. Weights stay slices of `bytes`.
pub fn read(bytes: &SharedBytes) -> Result<Graph, ImportError> {
    let content = (**bytes).as_ref();
    let (header, tensors) =
        SafeTensors::read_metadata(content).map_err(|error| ImportError::damaged(error.to_string(), "the safetensors header"))?;
    let entry = |key: &str| tensors.metadata().as_ref().and_then(|metadata| metadata.get(key));
    let Some(text) = entry(TEXT_KEY) else {
        let what = format!("`__metadata__` has no entry `{TEXT_KEY}`: a safetensors file, but not a graph");
        return Err(ImportError::damaged(what, "the safetensors header"));
    };
    let found = entry(FORMAT_KEY).map_or("without version", String::as_str);
    if found != FORMAT_VERSION {
        let remedy =
            format!("this build reads version {FORMAT_VERSION}; import the model again, or use the build that wrote the file");
        return Err(ImportError::Version { format: "the graph format", found: found.to_owned(), remedy });
    }
    let data = PREFIX + header;
    let mut graph = text::parse_with(text, &mut |name, ty| weight(bytes, data, &tensors, name, ty))
        .map_err(|error| ImportError::damaged(error.to_string(), format!("the graph text, `{TEXT_KEY}`")))?;
    if let Some(text) = entry(SIGNATURE_KEY) {
        let place = format!("the signature, `{SIGNATURE_KEY}`");
        let signature: Signature = serde_json::from_str(text).map_err(|e| ImportError::damaged(e.to_string(), place.clone()))?;
        let arguments = signature.arguments.iter().map(|argument| &argument.value);
        let fits = arguments.flat_map(Nested::tensors).all(|at| at < graph.inputs.len())
            && signature.result.tensors().all(|at| at < graph.outputs.len());
        if !fits {
            return Err(ImportError::damaged("it names an input or output that the graph does not have", place));
        }
        graph.signature = Some(signature);
    }
    Ok(graph)
}

fn weight(bytes: &SharedBytes, data: usize, tensors: &Metadata, name: &str, ty: &TensorType) -> Result<TensorData, String> {
    let info: &TensorInfo = tensors.info(name).ok_or("the file has no such tensor")?;
    let shape: Option<Vec<usize>> = ty.shape.iter().map(|s| s.as_const().and_then(|n| n.try_into().ok())).collect();
    if info.dtype != to_safetensors(ty.dtype) || Some(&info.shape) != shape.as_ref() {
        return Err(format!("declared {ty}, but the file holds {:?} of {:?}", info.shape, info.dtype));
    }
    // `read_metadata` has checked that the offsets are ordered and end with the file.
    let (start, end) = info.data_offsets;
    Ok(TensorData::slice_of(bytes.clone(), data + start, end - start))
}

/// The bytes of a `.graph` file. The same graph gives the same bytes.
pub fn write(graph: &Graph) -> Vec<u8> {
    let mut weights: Vec<(&str, &TensorType, &TensorData)> = graph
        .values
        .iter()
        .filter_map(|value| match &value.def {
            Def::Weight(data) => Some((value.name.as_str(), &value.ty, data)),
            Def::State(position) => Some((value.name.as_str(), &value.ty, &graph.states[*position].initial)),
            Def::Input(_) | Def::Node(_) => None,
        })
        .collect();
    // Larger elements first, so that each tensor is aligned to its element.
    weights.sort_by_key(|(name, ty, _)| (Reverse(ty.dtype.size()), *name));

    let text = text::print(graph);
    let mut metadata = BTreeMap::from([(FORMAT_KEY, FORMAT_VERSION.to_owned()), (TEXT_KEY, text)]);
    if let Some(signature) = &graph.signature {
        metadata.insert(SIGNATURE_KEY, json(signature));
    }
    let mut header = format!("{{\"__metadata__\":{}", json(&metadata));
    let mut at = 0;
    for (name, ty, data) in &weights {
        let info = TensorInfo {
            dtype: to_safetensors(ty.dtype),
            shape: ty.shape.iter().filter_map(Expr::as_const).map(|n| n as usize).collect(),
            data_offsets: (at, at + data.bytes().len()),
        };
        at = info.data_offsets.1;
        write!(header, ",{}:{}", json(name), json(&info)).expect("writing to a String cannot fail");
    }
    header.push('}');
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(PREFIX) - header.len()));

    let mut file = Vec::with_capacity(PREFIX + header.len() + at);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    for (.., data) in &weights {
        file.extend(data.bytes());
    }
    file
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("strings and numbers are always JSON")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aotfarm_protocol::DType;

    use super::*;
    use crate::load;
    use aotfarm_ir::{Builder, Op, UnaryOp};

    fn sample() -> Graph {
        let mut b = Builder::new("sample");
        let batch = b.dim("batch", 1, 4, Some(2)).unwrap();
        let x = b.input("x", TensorType::new(DType::F32, [batch, 3.into()])).unwrap();
        let ids = b.weight("ids", TensorType::new(DType::I64, [1]), TensorData::new(7i64.to_le_bytes().to_vec())).unwrap();
        let w = b
            .weight("layer.weight", TensorType::new(DType::F32, [2, 3]), TensorData::from_f32(&[1., 2., 3., 4., 5., 6.]))
            .unwrap();
        let y = b.push(Op::Linear, &[x, w], "layer: linear").unwrap();
        let z = b.push(Op::Unary(UnaryOp::Relu), &[y], "relu: relu").unwrap();
        b.output(z);
        b.output(ids);
        b.finish().unwrap()
    }

    fn error(bytes: Vec<u8>) -> String {
        load(Arc::new(bytes), "sample.graph").unwrap_err().to_string()
    }

    /// A file with this header and `data` bytes.
    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    }

    fn with_text(text: &str, tensors: &str, data: usize) -> Vec<u8> {
        let metadata = BTreeMap::from([(FORMAT_KEY, FORMAT_VERSION), (TEXT_KEY, text)]);
        file(&format!("{{\"__metadata__\":{}{tensors}}}", json(&metadata)), data)
    }

    #[test]
    fn a_graph_survives_the_file_and_the_bytes_are_stable() {
        let graph = sample();
        let bytes = write(&graph);
        let back = load(Arc::new(bytes.clone()), "sample.graph").unwrap();
        assert_eq!(text::print(&back), text::print(&graph));
        assert_eq!(write(&back), bytes);
        let weight = back.values.iter().find(|v| v.name == "layer.weight").unwrap();
        assert!(matches!(&weight.def, Def::Weight(data) if data.to_f32() == [1., 2., 3., 4., 5., 6.]));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = write(&sample());
        for length in 0..bytes.len() {
            assert!(load(Arc::new(bytes[..length].to_vec()), "sample.graph").is_err(), "{length} bytes were accepted");
        }
    }

    #[test]
    fn every_flipped_byte_is_read_or_refused() {
        let bytes = write(&sample());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            let _ = load(Arc::new(damaged), "sample.graph");
        }
    }

    #[test]
    fn lying_headers_are_refused_with_a_reason() {
        let relu = "graph g\ninput %x : f32[2]\nweight %w : f32[2]\n%y = add %x, %w : f32[2]\noutput %y\n";
        let w = |offsets: &str| format!(r#","w":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        let mut long = write(&sample());
        long[..8].copy_from_slice(&(1u64 << 31).to_le_bytes());
        let cases = [
            (vec![], "the file is empty"),
            (b"not a model at all".to_vec(), "is not a model"),
            (long, "damaged"),
            (file(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8), "not a graph"),
            (file("{\"__metadata__\":{\"a\":\"\u{fffd}\"}}", 0), "not a graph"),
            (file(r#"{"__metadata__":{"aotfarm.ir":"graph g"}}"#, 0), "without version is not supported"),
            (file(r#"{"__metadata__":{"aotfarm.ir":"graph g","aotfarm.format":"99"}}"#, 0), "99 is not supported"),
            (with_text(relu, "", 0), "line 3, column 1: weight `w`: the file has no such tensor"),
            (with_text(relu, &w("[0,8]"), 4), "damaged"),
            (with_text(relu, &w("[0,12]"), 12), "damaged"),
            (with_text(relu, &w("[4,12]"), 12), "damaged"),
            (with_text(relu, &w("[18446744073709551608,0]"), 8), "damaged"),
            (
                with_text(relu, &format!(r#"{},"v":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, w("[0,8]")), 12),
                "damaged",
            ),
            (
                with_text(relu, r#","w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}"#, 8),
                "declared f32[2], but the file holds [1, 2]",
            ),
            (
                with_text(relu, r#","w":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}"#, 8),
                "declared f32[2], but the file holds [2] of I32",
            ),
            (with_text("graph g\n%y = relu %y : f32[2]\noutput %y", "", 0), "line 2, column 11: `%y` is not defined above"),
            (with_text("graph g\nweight %w : f32[1000000000000, 1000000]\noutput %w", "", 0), "may have more than"),
        ];
        for (bytes, wanted) in cases {
            let message = error(bytes);
            assert!(message.contains(wanted), "expected `{wanted}` in `{message}`");
        }
        let mut binary = with_text(relu, &w("[0,8]"), 8);
        binary[40] = 0xff;
        assert!(error(binary).contains("damaged"));
    }
}
