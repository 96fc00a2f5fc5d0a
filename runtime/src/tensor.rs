use std::fmt;

use aotfarm_protocol::DType;

/// Why bytes and a shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// A dimension below zero.
    #[error("the shape {0:?} has a negative dimension")]
    Negative(Vec<i64>),
    /// More bytes than can be addressed.
    #[error("the shape {0:?} is too large to address")]
    TooLarge(Vec<i64>),
    /// The wrong number of bytes.
    #[error("a {dtype} tensor of shape {shape:?} has {expected} bytes, but {given} were given")]
    Length {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<i64>,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes that were given.
        given: usize,
    },
}

/// A line of memory: the alignment that artifacts take without a copy.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// An owned tensor: little-endian, row-major, contiguous, 64-byte aligned.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<i64>,
    /// At least one line more than the data takes: an artifact takes such memory without a copy.
    lines: Vec<Line>,
    len: usize,
}

/// A borrowed tensor: little-endian, row-major, contiguous, of any alignment.
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    dtype: DType,
    shape: &'a [i64],
    bytes: &'a [u8],
}

/// Bytes of a tensor; never more than `isize::MAX`.
pub(crate) fn byte_len(dtype: DType, shape: &[i64]) -> Result<usize, TensorError> {
    if shape.iter().any(|&n| n < 0) {
        return Err(TensorError::Negative(shape.to_vec()));
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(dtype.size() as i64, |bytes, &n| bytes.checked_mul(n))
        .and_then(|bytes| isize::try_from(bytes).ok())
        .map(isize::unsigned_abs)
        .ok_or_else(|| TensorError::TooLarge(shape.to_vec()))
}

impl Tensor {
    /// A copy of `bytes` as a tensor.
    pub fn new(dtype: DType, shape: Vec<i64>, bytes: impl AsRef<[u8]>) -> Result<Self, TensorError> {
        let bytes = bytes.as_ref();
        TensorRef::new(dtype, &shape, bytes)?; // before allocating what the shape says
        let mut tensor = Self::zeros(dtype, shape)?;
        tensor.bytes_mut().copy_from_slice(bytes);
        Ok(tensor)
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: Vec<i64>) -> Result<Self, TensorError> {
        let len = byte_len(dtype, &shape)?;
        Ok(Self { dtype, shape, lines: vec![Line([0; 64]); len.div_ceil(64) + 1], len })
    }

    /// An f32 tensor.
    pub fn from_f32(shape: Vec<i64>, values: &[f32]) -> Result<Self, TensorError> {
        Self::new(DType::F32, shape, bytemuck::cast_slice::<f32, u8>(values))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The elements.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The elements, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }

    /// The elements of an f32 tensor, or `None` for another element type.
    pub fn as_f32(&self) -> Option<&[f32]> {
        (self.dtype == DType::F32).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The tensor, borrowed.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl<'a> TensorRef<'a> {
    /// `bytes` as a tensor.
    pub fn new(dtype: DType, shape: &'a [i64], bytes: &'a [u8]) -> Result<Self, TensorError> {
        let expected = byte_len(dtype, shape)?;
        if bytes.len() != expected {
            return Err(TensorError::Length { dtype, shape: shape.to_vec(), expected, given: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &'a [i64] {
        self.shape
    }

    /// The elements.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for TensorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_hold_their_bytes() {
        let t = Tensor::from_f32(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(t.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(t.as_f32().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(format!("{t:?}"), "f32[2, 3]");
        assert_eq!(Tensor::new(DType::I64, vec![], 7i64.to_le_bytes()).unwrap().bytes().len(), 8);
        assert_eq!(Tensor::zeros(DType::F32, vec![0, 1 << 62]).unwrap().bytes().len(), 0);
    }

    #[test]
    fn lying_shapes_are_refused_before_anything_is_allocated() {
        let check = |shape: Vec<i64>, message: &str| {
            assert_eq!(Tensor::new(DType::F32, shape, [0; 8]).unwrap_err().to_string(), message);
        };
        check(vec![3], "a f32 tensor of shape [3] has 12 bytes, but 8 were given");
        check(vec![-1, -2], "the shape [-1, -2] has a negative dimension");
        check(vec![1 << 40, 1 << 40], "the shape [1099511627776, 1099511627776] is too large to address");
        check(vec![1 << 55], "a f32 tensor of shape [36028797018963968] has 144115188075855872 bytes, but 8 were given");
    }
}
