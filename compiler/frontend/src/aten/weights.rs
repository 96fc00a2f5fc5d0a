//! The weights and constants of an archive.

use aotfarm_ir::{Expr, TensorData, TensorType};
use aotfarm_protocol::DType;

use super::archive::{Archive, damaged, version};
use super::program::{self, Payload, Payloads};
use crate::error::ImportError;

const WEIGHTS: &str = "data/weights/";
const CONSTANTS: &str = "data/constants/";

/// Which tensors an archive holds.
pub(super) struct Weights<'a> {
    archive: &'a Archive,
    weights: Payloads,
    constants: Payloads,
}

impl<'a> Weights<'a> {
    pub(super) fn of(archive: &'a Archive) -> Result<Self, ImportError> {
        let payloads = |entry: String| {
            if archive.contains(&entry) { archive.json(&entry) } else { Ok(Payloads::default()) }
        };
        Ok(Self {
            archive,
            weights: payloads(format!("{WEIGHTS}model_weights_config.json"))?,
            constants: payloads(format!("{CONSTANTS}model_constants_config.json"))?,
        })
    }

    /// A parameter or buffer. Buffers that are not persistent are stored with the constants.
    pub(super) fn weight(&self, name: &str) -> Result<(TensorType, TensorData), ImportError> {
        match self.weights.config.get(name) {
            Some(payload) => self.read(name, payload, WEIGHTS),
            None => self.constant(name),
        }
    }

    /// A tensor constant.
    pub(super) fn constant(&self, name: &str) -> Result<(TensorType, TensorData), ImportError> {
        let payload = self.constants.config.get(name);
        self.read(name, payload.ok_or_else(|| damaged(format!("weight `{name}`"), "its data is missing"))?, CONSTANTS)
    }

    /// `as_strided(sizes, strides, offset)` of the whole storage, made contiguous when it is not.
    fn read(&self, name: &str, payload: &Payload, folder: &str) -> Result<(TensorType, TensorData), ImportError> {
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
        Ok((TensorType { dtype, shape: sizes.into_iter().map(Expr::from).collect() }, data))
    }
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
