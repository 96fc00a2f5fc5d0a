//! Files of models and tensors.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use aotfarm_compiler::import::{self, SharedBytes};
use aotfarm_compiler::interp;
use aotfarm_compiler::ir::Graph;
use aotfarm_protocol::DType;
use aotfarm_runtime::Tensor;

use crate::failure::Failure;

/// Maps `file` into memory.
pub(crate) fn map(file: &Path) -> anyhow::Result<memmap2::Mmap> {
    let open = File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
    // A file that another process truncates while it is mapped would end this process; the files are the user's own.
    map_file(&open).with_context(|| format!("failed to read {}", file.display()))
}

#[expect(unsafe_code, reason = "mapping a file is unsafe because others may change it; models are too large to copy")]
fn map_file(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only and private to this process; see the caller for the one hazard.
    unsafe { memmap2::Mmap::map(file) }
}

/// Reads a `.graph`, `.pt2` or `.onnx` file.
pub(crate) fn load_graph(file: &Path) -> anyhow::Result<Graph> {
    if file.is_dir() {
        bail!(Failure::input(format!("{} is a folder, not a model file", file.display())));
    }
    let bytes = map(file)?;
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    // ONNX keeps large weights in files beside the model.
    let beside = move |name: &str| map(&folder.join(name)).map(|m| Arc::new(m) as SharedBytes).map_err(|e| format!("{e:#}"));
    import::load_with(Arc::new(bytes), &file.to_string_lossy(), &beside)
        .map_err(|e| Failure::input(format!("failed to import {}: {e}", file.display())).into())
}

/// The tensor as the reference interpreter takes it.
pub(crate) fn reference(tensor: &Tensor) -> interp::Tensor {
    interp::Tensor {
        dtype: tensor.dtype(),
        shape: tensor.shape().iter().map(|&n| n as usize).collect(),
        data: tensor.bytes().to_vec(),
    }
}

/// A tensor of the reference interpreter as an artifact takes it.
pub(crate) fn from_reference(tensor: &interp::Tensor) -> anyhow::Result<Tensor> {
    Ok(Tensor::new(tensor.dtype, tensor.shape.iter().map(|&n| n as i64).collect(), &tensor.data)?)
}

/// Writes `file` so that it is either whole or absent.
pub(crate) fn write_file(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".aotfarm-").tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(file)?;
        Ok(())
    };
    write().map_err(|e| {
        let folder = folder.display();
        Failure::storage(format!("failed to write {}: {e}", file.display()))
            .hint(format!("{folder} must be a writable folder with free space"))
            .into()
    })
}

/// Reads named tensors: every tensor of a `.safetensors` file, or the one of a `.npy` file under the file's stem.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<(String, Tensor)>> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => parse(&map(file)?, &file.display().to_string()),
        Some("npy") => {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let tensor = read_npy(&map(file)?).map_err(|e| e.of(file))?;
            Ok(vec![(name, tensor)])
        }
        _ => bail!(Failure::input(format!("{} is neither .npy nor .safetensors", file.display()))),
    }
}

/// The tensors of a safetensors file, which comes from `place`.
pub(crate) fn parse(bytes: &[u8], place: &str) -> anyhow::Result<Vec<(String, Tensor)>> {
    let tensors = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|e| Failure::input(format!("{place} is no safetensors file: {e}")))?;
    tensors
        .iter()
        .map(|(name, view)| {
            let dtype = dtype_of(view.dtype()).with_context(|| format!("tensor `{name}` of {place}"))?;
            Ok((name.to_owned(), Tensor::new(dtype, view.shape().iter().map(|&n| n as i64).collect(), view.data())?))
        })
        .collect()
}

/// The array of a `.npy` file. Its header is a Python dict of three entries
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>); nothing is allocated before it is checked.
fn read_npy(bytes: &[u8]) -> Result<Tensor, Failure> {
    let damaged = || Failure::input("this is no whole .npy file").hint("write it with numpy.save");
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(damaged)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]).into(), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(damaged()),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let header = std::str::from_utf8(header).map_err(|_| damaged())?;
    let entry = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    let (descr, order, shape) = (entry("descr"), entry("fortran_order"), entry("shape"));
    let (Some(descr), Some(order), Some(shape)) = (descr, order, shape) else { return Err(damaged()) };
    let Some((kind, _)) = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')) else {
        return Err(Failure::input("the array is of a record type, which no model takes"));
    };
    let dtype = NPY_TYPES.iter().find(|(_, name)| kind == *name);
    let Some((dtype, _)) = dtype else {
        let known: Vec<_> = NPY_TYPES.iter().map(|(_, name)| *name).collect();
        return Err(Failure::input(format!("the element type `{kind}` is not one of {}", known.join(" ")))
            .hint("convert it with x.astype"));
    };
    if !order.starts_with("False") {
        return Err(Failure::input("the array is in Fortran order").hint("save numpy.ascontiguousarray(x)"));
    }
    let sizes = shape.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or_else(damaged)?.0;
    let sizes = sizes.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::parse::<i64>);
    let shape = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| damaged())?;
    Tensor::new(*dtype, shape, data).map_err(|e| Failure::input(e.to_string()))
}

/// What numpy calls the element types.
const NPY_TYPES: [(DType, &str); 9] = [
    (DType::F32, "<f4"),
    (DType::F64, "<f8"),
    (DType::F16, "<f2"),
    (DType::I64, "<i8"),
    (DType::I32, "<i4"),
    (DType::I16, "<i2"),
    (DType::I8, "|i1"),
    (DType::U8, "|u1"),
    (DType::Bool, "|b1"),
];

/// Writes named tensors to a `.safetensors` file, or a single one to a `.npy` file.
pub(crate) fn write(file: &Path, tensors: &[(String, Tensor)]) -> anyhow::Result<()> {
    match (file.extension().and_then(|e| e.to_str()), tensors) {
        (Some("npy"), [(_, tensor)]) => write_file(file, &npy_bytes(tensor)?),
        (Some("npy"), _) => {
            bail!(Failure::input(format!("{} outputs do not fit one .npy file", tensors.len())).hint("write a .safetensors file"))
        }
        (Some("safetensors"), _) => {
            let views: Result<Vec<_>, _> = tensors
                .iter()
                .map(|(name, t)| {
                    let shape = t.shape().iter().map(|&n| n as usize).collect();
                    safetensors::tensor::TensorView::new(safetensors_dtype(t.dtype()), shape, t.bytes())
                        .map(|v| (name.clone(), v))
                })
                .collect();
            write_file(file, &safetensors::serialize(views?, None)?)
        }
        _ => bail!(Failure::input(format!("{} is neither .npy nor .safetensors", file.display()))),
    }
}

fn npy_bytes(tensor: &Tensor) -> anyhow::Result<Vec<u8>> {
    let Some((_, kind)) = NPY_TYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype()) else {
        bail!(Failure::input(format!("numpy has no {}", tensor.dtype())).hint("write a .safetensors file"));
    };
    let shape: String = tensor.shape().iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Format 1.0: the whole header, newline included, is a multiple of 64 bytes long.
    header += &" ".repeat(63 - (10 + header.len()) % 64);
    header.push('\n');
    let length = u16::try_from(header.len()).context("the shape is too long for a .npy header")?;
    Ok([b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), header.as_bytes(), tensor.bytes()].concat())
}

fn dtype_of(dtype: safetensors::Dtype) -> anyhow::Result<DType> {
    use safetensors::Dtype as S;
    Ok(match dtype {
        S::F16 => DType::F16,
        S::BF16 => DType::Bf16,
        S::F32 => DType::F32,
        S::F64 => DType::F64,
        S::I8 => DType::I8,
        S::I16 => DType::I16,
        S::I32 => DType::I32,
        S::I64 => DType::I64,
        S::U8 => DType::U8,
        S::BOOL => DType::Bool,
        other => bail!(Failure::input(format!("element type {other:?} is not supported"))),
    })
}

fn safetensors_dtype(dtype: DType) -> safetensors::Dtype {
    use safetensors::Dtype as S;
    match dtype {
        DType::F16 => S::F16,
        DType::Bf16 => S::BF16,
        DType::F32 => S::F32,
        DType::F64 => S::F64,
        DType::I8 => S::I8,
        DType::I16 => S::I16,
        DType::I32 => S::I32,
        DType::I64 => S::I64,
        DType::U8 => S::U8,
        DType::Bool => S::BOOL,
    }
}
