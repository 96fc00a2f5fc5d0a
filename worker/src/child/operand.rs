//! What operands hold: drawing values onto lattices, poisoning outputs, and comparing them with the reference.

use aotfarm_protocol::{DType, Lattice, Operand, Values};
use half::{bf16, f16};

/// Why an operand cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperandError {
    #[error("operand {operand}: a lattice reaches element {element} of {len}")]
    OutOfRange { operand: usize, element: i128, len: u64 },
    #[error("operand {operand}: a lattice has more places than the buffer has elements ({len})")]
    Overlapping { operand: usize, len: u64 },
    #[error("operand {operand}: {len} elements are too many")]
    TooLarge { operand: usize, len: u64 },
}

/// Elements that an operand may have.
const MAX_LEN: u64 = 1 << 34;

/// Checks that every lattice of operand number `operand` lies within its buffer.
pub(crate) fn validate(operand: usize, o: &Operand) -> Result<(), OperandError> {
    let len = o.len;
    if len > MAX_LEN {
        return Err(OperandError::TooLarge { operand, len });
    }
    for lattice in &o.lattices {
        let (mut low, mut high, mut places) = (i128::from(lattice.offset), i128::from(lattice.offset), 1i128);
        if lattice.dims.iter().any(|(size, _)| *size <= 0) {
            continue;
        }
        for &(size, stride) in &lattice.dims {
            let reach = i128::from(size - 1) * i128::from(stride);
            (low, high) = (low + reach.min(0), high + reach.max(0));
            places = places.saturating_mul(i128::from(size));
        }
        for element in [low, high] {
            if !(0..i128::from(len)).contains(&element) {
                return Err(OperandError::OutOfRange { operand, element, len });
            }
        }
        if places > i128::from(len) {
            return Err(OperandError::Overlapping { operand, len });
        }
    }
    Ok(())
}

/// Bytes of the operand's buffer.
pub(crate) fn bytes(o: &Operand) -> u64 {
    o.len * o.dtype.size() as u64
}

/// The dimensions of a lattice, outermost first, in the order of memory, whatever the order in which the lattice names them. Those
/// that lie behind each other are one: rows get long. `None` when there are no places.
pub(crate) fn merged(lattice: &Lattice) -> Option<Vec<(i64, i64)>> {
    if lattice.dims.iter().any(|(size, _)| *size <= 0) {
        return None;
    }
    let mut dims: Vec<(i64, i64)> = lattice.dims.iter().copied().filter(|(size, _)| *size > 1).collect();
    dims.sort_by_key(|&(size, stride)| (std::cmp::Reverse(stride), size));
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(dims.len());
    for (size, stride) in dims {
        match merged.last_mut() {
            Some((outer, outer_stride)) if *outer_stride == size * stride => (*outer, *outer_stride) = (*outer * size, stride),
            _ => merged.push((size, stride)),
        }
    }
    Some(merged)
}

/// Calls `row(first element, elements, stride)` for every innermost row of a valid lattice, in the order of [`merged`].
fn rows(lattice: &Lattice, mut row: impl FnMut(usize, usize, isize)) {
    let Some(merged) = merged(lattice) else { return };
    let Some((&(count, step), outer)) = merged.split_last() else {
        return row(lattice.offset as usize, 1, 1);
    };
    let (mut index, mut at) = (vec![0i64; outer.len()], lattice.offset);
    loop {
        row(at as usize, count as usize, step as isize);
        // Advance like an odometer, the last outer dimension fastest.
        let mut k = outer.len();
        loop {
            let Some(next) = k.checked_sub(1) else { return };
            k = next;
            let (size, stride) = outer[k];
            index[k] += 1;
            at += stride;
            if index[k] < size {
                break;
            }
            at -= size * stride;
            index[k] = 0;
        }
    }
}

/// Calls `f` with the byte range of every place of the lattices, or of a whole row of places without gaps.
fn ranges(o: &Operand, mut f: impl FnMut(std::ops::Range<usize>)) {
    let size = o.dtype.size();
    for lattice in &o.lattices {
        rows(lattice, |first, count, step| {
            if step == 1 {
                return f(first * size..(first + count) * size);
            }
            let mut at = first as isize;
            for _ in 0..count {
                let from = at as usize * size;
                f(from..from + size);
                at += step;
            }
        });
    }
}

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c): one multiplication chain per number, equally good from any seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A value of the distribution. The normal one is approximated by the sum of four uniforms (exact mean and variance,
    /// tails cut at 3.5 deviations), which is what a kernel's arithmetic can tell apart.
    pub(crate) fn draw(&mut self, values: Values) -> f64 {
        let bits = self.next();
        match values {
            Values::Normal { std } => {
                let sum: i64 = (0..4).map(|k| (bits >> (16 * k) & 0xFFFF) as i64).sum();
                // A sum of four uniforms over [0, 65535] has mean 131070 and variance 4 * (65536^2 - 1) / 12.
                (sum - 131_070) as f64 / 37_837.227_245_1 * f64::from(std)
            }
            Values::Uniform { low, high } => low + (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64) * (high - low),
        }
    }
}

/// The seed of the values of operand number `operand`, when that of all is `seed`.
pub(crate) fn seed_of(seed: u64, operand: usize) -> u64 {
    Random::new(seed ^ operand as u64).next()
}

/// Fills a zeroed buffer: values on the lattices, zero elsewhere.
pub(crate) fn fill(o: &Operand, buffer: &mut [u8], random: &mut Random) {
    let size = o.dtype.size();
    ranges(o, |range| buffer[range].chunks_exact_mut(size).for_each(|b| write(o.dtype, b, random.draw(o.values))));
}

/// What unwritten elements of an output consist of. All ones is a NaN in every float format; `salt` varies the pattern of integers.
pub(crate) fn poison_byte(dtype: DType, salt: u8) -> u8 {
    if dtype.is_float() { 0xFF } else { 0xA5 ^ salt }
}

/// Poisons an output: a signalling pattern on the lattices, zero elsewhere.
pub(crate) fn poison(o: &Operand, buffer: &mut [u8], salt: u8) {
    buffer.fill(0);
    let byte = poison_byte(o.dtype, salt);
    ranges(o, |range| buffer[range].fill(byte));
}

/// How many f32 are compared side by side: a sum that waits for the one before each time is slower than memory.
const LANES: usize = 8;

/// What a comparison has seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) difference: f64,
    pub(crate) norm: f64,
    pub(crate) unwritten: u64,
    pub(crate) not_finite: u64,
    pub(crate) total: u64,
}

impl Seen {
    /// Takes in one element of each side. `poison`: the bytes are those of an element that was not written.
    fn element(&mut self, got: f64, reference: f64, poison: bool) {
        self.total += 1;
        if poison {
            self.unwritten += 1;
        } else if !got.is_finite() {
            // Equal infinities agree; a NaN agrees with a NaN.
            self.not_finite += u64::from(got != reference && !(got.is_nan() && reference.is_nan()));
        } else {
            self.difference += (got - reference) * (got - reference);
            self.norm += reference * reference;
        }
    }

    /// Takes in [`LANES`] f32 of each side; `sums` are those of the squared differences and of the squares.
    fn line(&mut self, sums: &mut [[f64; LANES]; 2], got: &[u8; 4 * LANES], reference: &[u8; 4 * LANES]) {
        let floats = |bytes: &[u8; 4 * LANES]| {
            let mut floats = [0f32; LANES];
            floats.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(to, from)| *to = f32::from_ne_bytes(*from));
            floats
        };
        let (g, r) = (floats(got), floats(reference));
        if !g.iter().fold(true, |all, g| all & g.is_finite()) {
            return self.floats(got, reference);
        }
        self.total += LANES as u64;
        for lane in 0..LANES {
            let (g, r) = (f64::from(g[lane]), f64::from(r[lane]));
            sums[0][lane] += (g - r) * (g - r);
            sums[1][lane] += r * r;
        }
    }

    /// Takes in f32 of each side one by one.
    fn floats(&mut self, got: &[u8], reference: &[u8]) {
        for (g, r) in got.as_chunks::<4>().0.iter().zip(reference.as_chunks::<4>().0) {
            self.element(f32::from_ne_bytes(*g).into(), f32::from_ne_bytes(*r).into(), *g == [0xFF; 4]);
        }
    }

    /// The relative L2 error, or what is wrong in words. `outside`: the first element off the lattices that is not zero.
    pub(crate) fn verdict(&self, outside: Option<u64>) -> Result<f64, String> {
        let &Self { difference, norm, unwritten, not_finite, total } = self;
        if unwritten > 0 {
            return Err(format!("{unwritten} of {total} elements were not written"));
        }
        if not_finite > 0 {
            return Err(format!("{not_finite} of {total} elements are not finite"));
        }
        if let Some(at) = outside {
            return Err(format!("the zero padding at element {at} was overwritten"));
        }
        Ok(if norm > 0.0 { (difference / norm).sqrt() } else { difference.sqrt() })
    }
}

/// Compares an output with the reference and wipes it. The error is the relative L2 error, or what is wrong in words.
pub(crate) fn compare(o: &Operand, got: &mut [u8], reference: &[u8]) -> Result<f64, String> {
    let (mut seen, size) = (Seen::default(), o.dtype.size());
    let mut sums = [[0.0; LANES]; 2];
    ranges(o, |range| {
        let (got, reference) = (&mut got[range.clone()], &reference[range]);
        if o.dtype == DType::F32 {
            let (all, rest) = got.as_chunks::<{ 4 * LANES }>();
            let (all_of_reference, rest_of_reference) = reference.as_chunks::<{ 4 * LANES }>();
            all.iter().zip(all_of_reference).for_each(|(g, r)| seen.line(&mut sums, g, r));
            seen.floats(rest, rest_of_reference);
        } else {
            for (g, r) in got.chunks_exact(size).zip(reference.chunks_exact(size)) {
                let poison = o.dtype.is_float() && g.iter().all(|b| *b == 0xFF);
                seen.element(read(o.dtype, g), read(o.dtype, r), poison);
            }
        }
        got.fill(0);
    });
    seen.difference += sums[0].iter().sum::<f64>();
    seen.norm += sums[1].iter().sum::<f64>();
    seen.verdict(first_nonzero(got).map(|at| (at / size) as u64))
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let clean = bytes.as_chunks::<64>().0.iter().take_while(|line| line.iter().fold(0, |any, b| any | b) == 0).count() * 64;
    bytes[clean..].iter().position(|b| *b != 0).map(|at| clean + at)
}

/// Reads one element.
pub(crate) fn read(dtype: DType, b: &[u8]) -> f64 {
    match dtype {
        DType::F16 => f16::from_ne_bytes([b[0], b[1]]).to_f64(),
        DType::Bf16 => bf16::from_ne_bytes([b[0], b[1]]).to_f64(),
        DType::F32 => f64::from(f32::from_ne_bytes([b[0], b[1], b[2], b[3]])),
        DType::F64 => f64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        DType::I8 => f64::from(b[0] as i8),
        DType::I16 => f64::from(i16::from_ne_bytes([b[0], b[1]])),
        DType::I32 => f64::from(i32::from_ne_bytes([b[0], b[1], b[2], b[3]])),
        DType::I64 => i64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f64,
        DType::U8 | DType::Bool => f64::from(b[0]),
    }
}

/// Writes one element; integers are rounded down.
pub(crate) fn write(dtype: DType, b: &mut [u8], value: f64) {
    match dtype {
        DType::F16 => b.copy_from_slice(&f16::from_f64(value).to_ne_bytes()),
        DType::Bf16 => b.copy_from_slice(&bf16::from_f64(value).to_ne_bytes()),
        DType::F32 => b.copy_from_slice(&(value as f32).to_ne_bytes()),
        DType::F64 => b.copy_from_slice(&value.to_ne_bytes()),
        DType::I8 => b[0] = value.floor() as i8 as u8,
        DType::I16 => b.copy_from_slice(&(value.floor() as i16).to_ne_bytes()),
        DType::I32 => b.copy_from_slice(&(value.floor() as i32).to_ne_bytes()),
        DType::I64 => b.copy_from_slice(&(value.floor() as i64).to_ne_bytes()),
        DType::U8 => b[0] = value.floor() as u8,
        DType::Bool => b[0] = u8::from(value >= 1.0),
    }
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::OperandRole;

    use super::*;

    fn operand(dtype: DType, len: u64, lattices: Vec<Lattice>) -> Operand {
        Operand { role: OperandRole::Output, dtype, len, lattices, values: Values::Normal { std: 2.0 } }
    }

    /// A 2x3 image in rows of 5 with a halo of one.
    fn image() -> Operand {
        operand(DType::F32, 20, vec![Lattice { offset: 6, dims: vec![(2, 5), (3, 1)] }])
    }

    #[test]
    fn values_lie_on_the_lattice_and_nowhere_else() {
        let o = image();
        let mut buffer = vec![0; 80];
        fill(&o, &mut buffer, &mut Random::new(1));
        let held: Vec<_> = (0..20).filter(|i| buffer[i * 4..i * 4 + 4] != [0; 4]).collect();
        assert_eq!(held, [6, 7, 8, 11, 12, 13]);
        // The same places, named in another order: `[W][H]`, and rows without gaps that are one.
        let transposed = operand(DType::F32, 20, vec![Lattice { offset: 6, dims: vec![(3, 1), (2, 5)] }]);
        let mut again = vec![0; 80];
        fill(&transposed, &mut again, &mut Random::new(1));
        assert_eq!(again, buffer);
        let mut seen = Vec::new();
        rows(&Lattice { offset: 1, dims: vec![(2, 24), (8, 1), (3, 8)] }, |first, count, step| seen.push((first, count, step)));
        assert_eq!(seen, [(1, 48, 1)]);
        let reversed = operand(DType::F32, 4, vec![Lattice { offset: 3, dims: vec![(4, -1)] }]);
        assert_eq!(validate(0, &reversed), Ok(()));
    }

    #[test]
    fn draws_have_the_asked_moments_and_ranges() {
        let mut random = Random::new(7);
        let draws: Vec<f64> = (0..100_000).map(|_| random.draw(Values::Normal { std: 2.0 })).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let std = (draws.iter().map(|x| x * x).sum::<f64>() / 1e5).sqrt();
        assert!(mean.abs() < 0.03 && (std - 2.0).abs() < 0.03, "{mean} {std}");
        for _ in 0..1000 {
            let x = random.draw(Values::Uniform { low: -3.0, high: 5.0 });
            assert!((-3.0..5.0).contains(&x));
        }
    }

    #[test]
    fn comparison_names_what_is_wrong() {
        let o = image();
        let mut reference = vec![0; 80];
        fill(&o, &mut reference, &mut Random::new(1));
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut got = reference.clone();
            change(&mut got);
            compare(&o, &mut got, &reference)
        };
        assert_eq!(check(&|_| {}), Ok(0.0));
        assert!(check(&|g| write(DType::F32, &mut g[24..28], 100.0)).unwrap() > 1.0);
        assert!(check(&|g| poison(&o, g, 0)).unwrap_err().contains("6 of 6 elements were not written"));
        assert!(
            check(&|g| write(DType::F32, &mut g[24..28], f64::INFINITY)).unwrap_err().contains("1 of 6 elements are not finite")
        );
        assert!(check(&|g| g[4] = 1).unwrap_err().contains("padding at element 1"));
    }

    #[test]
    fn lying_lattices_are_refused() {
        let bad = |lattice| validate(3, &operand(DType::F32, 20, vec![lattice])).unwrap_err();
        assert!(matches!(bad(Lattice { offset: -1, dims: vec![] }), OperandError::OutOfRange { element: -1, .. }));
        assert!(matches!(bad(Lattice { offset: 0, dims: vec![(21, 1)] }), OperandError::OutOfRange { element: 20, .. }));
        assert!(matches!(
            bad(Lattice { offset: 0, dims: vec![(i64::MAX, i64::MAX), (i64::MAX, 1)] }),
            OperandError::OutOfRange { .. }
        ));
        assert!(matches!(
            bad(Lattice { offset: 0, dims: vec![(i64::MAX, 0), (i64::MAX, 0), (i64::MAX, 0)] }),
            OperandError::Overlapping { .. }
        ));
        assert!(matches!(validate(0, &operand(DType::U8, u64::MAX, vec![])), Err(OperandError::TooLarge { .. })));
        assert_eq!(validate(0, &operand(DType::F32, 4, vec![Lattice { offset: 99, dims: vec![(0, 1)] }])), Ok(()));
    }
}
