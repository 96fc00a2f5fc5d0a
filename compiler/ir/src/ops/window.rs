//! Sliding windows over images, of convolutions and poolings.

use super::rules::ensure;
use crate::Expr;
use crate::syntax::{NodeText, TextError};

/// A sliding window over the two spatial dimensions of NCHW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [i64; 2],
    /// Steps.
    pub stride: [i64; 2],
    /// `[[top, bottom], [left, right]]`. For pooling with ceil mode the importer has already grown bottom and right.
    pub pad: [[i64; 2]; 2],
    /// Distance between taps.
    pub dilation: [i64; 2],
}

impl Window {
    /// Grows the padding after axis `axis` (0: height, 1: width) of an input of that `size` so that the window takes the outputs
    /// of ceil mode: one more when something is left over, unless it would start in the padding.
    pub fn grow_to_ceil(&mut self, axis: usize, size: i64) {
        let [before, after] = self.pad[axis];
        if self.stride[axis] < 1 {
            return; // the shape rule refuses such a window
        }
        let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
        let span = size + before + after - reach;
        let stride = self.stride[axis];
        let mut outputs = (span + stride - 1).div_euclid(stride) + 1;
        if (outputs - 1) * stride >= size + before {
            outputs -= 1;
        }
        if outputs > span.div_euclid(stride) + 1 {
            self.pad[axis][1] = (outputs - 1) * stride + reach - size - before;
        }
    }

    /// Distance from the first to the last tap along an axis, both included.
    const fn extent(&self, axis: usize) -> i64 {
        self.dilation[axis] * (self.kernel[axis] - 1) + 1
    }

    pub(super) fn check(&self) -> Result<(), String> {
        const MOST: i64 = 1 << 20;
        let positive = [self.kernel, self.stride, self.dilation].iter().flatten().all(|n| (1..=MOST).contains(n));
        let pads = self.pad.iter().flatten().all(|n| (0..=MOST).contains(n));
        ensure(positive && pads, || {
            format!("kernel, stride and dilation must be in 1..={MOST} and padding in 0..={MOST}, got {self:?}")
        })
    }

    /// For pooling, checks that there are elements in every window.
    pub(super) fn check_padding(&self) -> Result<(), String> {
        for (axis, [before, after]) in self.pad.iter().enumerate() {
            let extent = self.extent(axis);
            ensure(*before < extent && *after < extent, || {
                format!("padding {before},{after} leaves windows of {extent} without any element")
            })?;
        }
        Ok(())
    }

    /// Output height and width over the image `x`.
    pub(super) fn slide(&self, x: &[Expr]) -> [Expr; 2] {
        [0, 1].map(|axis| {
            let [before, after] = self.pad[axis];
            (&x[axis + 2] + (before + after - self.extent(axis))).floor_div(&Expr::from(self.stride[axis])) + 1
        })
    }

    /// All but the kernel in the text form.
    pub(super) fn attributes(&self) -> Vec<String> {
        let mut attributes = Vec::new();
        if self.stride != [1, 1] {
            attributes.push(format!("stride={:?}", self.stride));
        }
        if self.pad != [[0, 0], [0, 0]] {
            attributes.push(format!("pad={:?}", self.pad));
        }
        if self.dilation != [1, 1] {
            attributes.push(format!("dilation={:?}", self.dilation));
        }
        attributes
    }

    /// The window of this `kernel` with the attributes of `node`.
    pub(super) fn read(kernel: [i64; 2], node: &mut NodeText<'_>) -> Result<Self, TextError> {
        let pad = node.pairs("pad", Some(vec![[0, 0]; 2]))?;
        Ok(Self {
            kernel,
            stride: node.pair("stride", Some([1, 1]))?,
            pad: pad.try_into().map_err(|_| node.error("`pad` must be [[top, bottom], [left, right]]"))?,
            dilation: node.pair("dilation", Some([1, 1]))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn ceil_mode_adds_a_window_only_where_one_starts_inside() {
        let mut window = Window { kernel: [2, 2], stride: [2, 2], pad: [[0, 0]; 2], dilation: [1, 1] };
        window.grow_to_ceil(0, 5);
        window.grow_to_ceil(1, 4);
        assert_eq!(window.pad, [[0, 1], [0, 0]]);
        let mut window = Window { kernel: [3, 3], stride: [2, 2], pad: [[1, 1]; 2], dilation: [1, 1] };
        window.grow_to_ceil(0, 6);
        assert_eq!(window.pad[0], [1, 2], "a fourth window starts in the last row");
    }
}
