//! Numbers in rows, as engines take and give them: bytes of one kind of number, aligned for it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytemuck::{AnyBitPattern, NoUninit};
use bytes::{Buf, BytesMut};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows of numbers, the last dimension next to each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub element: Element,
    /// As many numbers as the product of `shape`, in the machine's own byte order.
    pub bytes: BytesMut,
}

/// The kinds of numbers that models take and give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Element {
    #[default]
    F32,
    F16,
    F64,
    U8,
    I8,
    I32,
    I64,
    Bool,
}

/// A Rust type that is one of the kinds.
pub trait Number: NoUninit + AnyBitPattern {
    const ELEMENT: Element;
}

macro_rules! numbers {
    ($($kind:ty => $element:ident),*) => {
        $(impl Number for $kind {
            const ELEMENT: Element = Element::$element;
        })*
    };
}
numbers!(f32 => F32, f16 => F16, f64 => F64, u8 => U8, i8 => I8, i32 => I32, i64 => I64);

impl Element {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 => 2,
            Element::U8 | Element::I8 | Element::Bool => 1,
        }
    }

    /// As the KServe protocol writes it, version 2.
    pub fn datatype(self) -> &'static str {
        match self {
            Element::F32 => "FP32",
            Element::F16 => "FP16",
            Element::F64 => "FP64",
            Element::U8 => "UINT8",
            Element::I8 => "INT8",
            Element::I32 => "INT32",
            Element::I64 => "INT64",
            Element::Bool => "BOOL",
        }
    }

    /// The kind that the KServe protocol writes so.
    pub fn of_datatype(datatype: &str) -> Option<Element> {
        use Element::*;
        let all = [F32, F16, F64, U8, I8, I32, I64, Bool];
        all.into_iter()
            .find(|element| element.datatype() == datatype)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.datatype())
    }
}

impl Tensor {
    pub fn zeros(shape: &[usize], element: Element) -> Self {
        Tensor {
            shape: shape.to_vec(),
            element,
            bytes: aligned_zeros(shape.iter().product::<usize>() * element.size()),
        }
    }

    /// `numbers` are as many as the product of `shape`.
    pub fn new<T: Number>(shape: &[usize], numbers: &[T]) -> Self {
        Tensor::of_bytes(shape, T::ELEMENT, bytemuck::cast_slice(numbers))
    }

    /// `bytes` are those of as many numbers as the product of `shape`.
    pub fn of_bytes(shape: &[usize], element: Element, bytes: &[u8]) -> Self {
        let mut aligned = aligned_zeros(bytes.len());
        aligned.copy_from_slice(bytes);
        Tensor {
            shape: shape.to_vec(),
            element,
            bytes: aligned,
        }
    }

    /// Whether it has as many numbers as its shape says.
    pub fn is_whole(&self) -> bool {
        let sides = self
            .shape
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        sides.and_then(|count| count.checked_mul(self.element.size())) == Some(self.bytes.len())
    }

    /// The shape of what belongs to the frame at `index` of so many `frames`, and where among the bytes it is. `None` where
    /// the first dimension is not that of the frames; all of it belongs to a frame that is alone.
    pub fn share_of(&self, index: usize, frames: usize) -> Option<(Vec<usize>, Range<usize>)> {
        if !self.is_whole() || index >= frames {
            return None;
        }
        if frames == 1 {
            return Some((self.shape.clone(), 0..self.bytes.len()));
        }
        let (&first, rest) = self.shape.split_first()?;
        let length = self.bytes.len() / frames;
        let share = index * length..(index + 1) * length;
        (first == frames).then(|| ([&[1], rest].concat(), share))
    }

    /// A copy of what belongs to one frame, as [`share_of`](Self::share_of) tells it.
    pub fn share(&self, index: usize, frames: usize) -> Option<Tensor> {
        let (shape, share) = self.share_of(index, frames)?;
        Some(Tensor::of_bytes(&shape, self.element, &self.bytes[share]))
    }

    /// The numbers, where they are of that kind.
    pub fn numbers<T: Number>(&self) -> Option<&[T]> {
        let same = self.element == T::ELEMENT;
        bytemuck::try_cast_slice(&self.bytes).ok().filter(|_| same)
    }

    /// The numbers as floats, whatever kind they are of; large integers lose their last digits.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        fn converted<T: Number>(tensor: &Tensor, float: impl Fn(T) -> f32) -> Cow<'_, [f32]> {
            let numbers = tensor.numbers::<T>().unwrap_or_default();
            numbers.iter().map(|&number| float(number)).collect()
        }
        match self.element {
            Element::F32 => self.numbers::<f32>().unwrap_or_default().into(),
            Element::F16 => {
                let numbers = self.numbers::<f16>().unwrap_or_default();
                let mut floats = vec![0.0; numbers.len()];
                // Most processors make several at once of them.
                numbers.convert_to_f32_slice(&mut floats);
                floats.into()
            }
            Element::F64 => converted(self, |number: f64| number as f32),
            Element::I8 => converted(self, |number: i8| number.into()),
            Element::I32 => converted(self, |number: i32| number as f32),
            Element::I64 => converted(self, |number: i64| number as f32),
            Element::U8 | Element::Bool => self.bytes.iter().map(|&byte| byte.into()).collect(),
        }
    }
}

/// Zeros that start where a number of any kind may.
pub fn aligned_zeros(length: usize) -> BytesMut {
    const ALIGNMENT: usize = 64;
    let mut bytes = BytesMut::zeroed(length + ALIGNMENT);
    bytes.advance(bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT));
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_and_as_floats() {
        let halves = [0.5, -2.0, 65504.0].map(f16::from_f32);
        let tensor = Tensor::new(&[3], &halves);
        assert_eq!(tensor.numbers::<f16>(), Some(&halves[..]));
        assert_eq!(tensor.numbers::<f32>(), None);
        assert_eq!(*tensor.floats(), [0.5, -2.0, 65504.0]);
        assert_eq!(*Tensor::new(&[2], &[-1_i64, 9]).floats(), [-1.0, 9.0]);
        assert_eq!(*Tensor::new(&[2], &[0_u8, 255]).floats(), [0.0, 255.0]);
    }

    #[test]
    fn a_tensor_that_lacks_a_byte_is_not_whole() {
        let mut tensor = Tensor::zeros(&[2, 3], Element::F32);
        assert!(tensor.is_whole());
        tensor.bytes.truncate(23);
        assert!(!tensor.is_whole());
        tensor.shape = vec![usize::MAX, 2];
        assert!(!tensor.is_whole());
    }

    #[test]
    fn each_frame_has_its_share_and_none_has_more_than_there_is() {
        let tensor = Tensor::new(&[2, 3], &[1_u8, 2, 3, 4, 5, 6]);
        assert_eq!(
            tensor.share(1, 2),
            Some(Tensor::new(&[1, 3], &[4_u8, 5, 6]))
        );
        assert_eq!(tensor.share(2, 2), None);
        assert_eq!(tensor.share(0, 3), None);
        assert_eq!(tensor.share(0, 1), Some(tensor));
    }

    #[test]
    fn every_length_is_aligned() {
        for length in 0..200 {
            let bytes = aligned_zeros(length);
            assert_eq!((bytes.len(), bytes.as_ptr().align_offset(64)), (length, 0));
        }
    }
}
