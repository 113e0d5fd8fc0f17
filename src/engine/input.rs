//! What a model wants of a frame, and the piece of memory that the frame becomes.

use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;

use super::tensor::{Element, Tensor, aligned_zeros};
use crate::logic::detections::Letterbox;

/// How a model takes pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// F32, F16 or U8. Bytes are taken as they are in the picture; floats are made of them with `mean` and `std`.
    pub element: Element,
    pub layout: Layout,
    pub channels: Channels,
    /// What is taken from red, green and blue that are 0 to 1, and what the rest is divided by; no `std` is 0.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub fit: Fit,
}

/// Where in an input a pixel's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// [frames, 3, height, width]: a plane for each.
    #[default]
    Nchw,
    /// [frames, height, width, 3]: next to each other.
    Nhwc,
}

/// Which channel comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Channels {
    #[default]
    Rgb,
    Bgr,
}

/// What is done to a frame whose shape is not that of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// Aspect kept, centred, padded with grey.
    #[default]
    Letterbox,
    /// Width and height scaled each on its own.
    Stretch,
}

impl InputSpec {
    /// Of floats from 0 to 1 in planes red, green and blue.
    pub fn new(size: (u32, u32)) -> Self {
        InputSpec {
            size,
            element: Element::F32,
            layout: Layout::Nchw,
            channels: Channels::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
            fit: Fit::Letterbox,
        }
    }

    /// Of an input of so many frames.
    pub fn shape(&self, frames: usize) -> Vec<usize> {
        let (width, height) = (self.size.0 as usize, self.size.1 as usize);
        match self.layout {
            Layout::Nchw => vec![frames, 3, height, width],
            Layout::Nhwc => vec![frames, height, width, 3],
        }
    }

    /// Of one frame.
    pub fn bytes(&self) -> usize {
        self.shape(1).iter().product::<usize>() * self.element.size()
    }
}

/// A number for each of red, green and blue, as the user wrote it; comparable, so that it can tell one model from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerColour([u32; 3]);

impl PerColour {
    pub fn values(self) -> [f32; 3] {
        self.0.map(f32::from_bits)
    }
}

impl From<[f32; 3]> for PerColour {
    fn from(values: [f32; 3]) -> Self {
        PerColour(values.map(f32::to_bits))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither one number nor three with commas between")]
pub struct NoNumbers;

impl FromStr for PerColour {
    type Err = NoNumbers;

    /// `0.485,0.456,0.406`, or one number for all.
    fn from_str(text: &str) -> Result<Self, NoNumbers> {
        let numbers = text.split(',').map(|number| number.trim().parse::<f32>());
        let numbers = numbers.collect::<Result<Vec<_>, _>>();
        match numbers.map_err(|_| NoNumbers)?[..] {
            [all] if all.is_finite() => Ok([all; 3].into()),
            [r, g, b] if (r + g + b).is_finite() => Ok([r, g, b].into()),
            _ => Err(NoNumbers),
        }
    }
}

impl fmt::Display for PerColour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.values();
        write!(f, "{r},{g},{b}")
    }
}

/// The memory of one frame in an input.
#[derive(Debug, Default)]
pub struct Slot {
    pub bytes: BytesMut,
    /// Where the padding in `bytes` is right for.
    pub laid_out: Option<Letterbox>,
}

impl Slot {
    /// Memory next to each other, a slot for each of `frames`.
    pub fn row(spec: &InputSpec, frames: usize) -> Vec<Slot> {
        let mut bytes = aligned_zeros(spec.bytes() * frames);
        (0..frames)
            .map(|_| Slot {
                bytes: bytes.split_to(spec.bytes()),
                laid_out: None,
            })
            .collect()
    }

    /// The slots of a row as one tensor, without a copy.
    pub fn join(spec: &InputSpec, row: &mut [Slot]) -> Tensor {
        let mut bytes = BytesMut::new();
        for slot in row.iter_mut() {
            bytes.unsplit(std::mem::take(&mut slot.bytes));
        }
        Tensor {
            shape: spec.shape(row.len()),
            element: spec.element,
            bytes,
        }
    }

    /// What [`join`](Self::join) took, back where it was.
    pub fn part(spec: &InputSpec, mut tensor: Tensor, row: &mut [Slot]) {
        for slot in row {
            slot.bytes = tensor.bytes.split_to(spec.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_slots_is_one_tensor_and_back_without_a_copy() {
        let spec = InputSpec::new((4, 2));
        let mut row = Slot::row(&spec, 3);
        for (number, slot) in (1..).zip(&mut row) {
            slot.bytes.fill(number);
        }
        let at = row[0].bytes.as_ptr();
        let tensor = Slot::join(&spec, &mut row);
        assert_eq!(
            (&tensor.shape[..], tensor.bytes.as_ptr()),
            (&[3, 3, 2, 4][..], at)
        );
        assert!(
            tensor.is_whole()
                && tensor
                    .bytes
                    .chunks(96)
                    .zip(1..)
                    .all(|(part, number)| part == [number; 96])
        );
        Slot::part(&spec, tensor, &mut row);
        assert_eq!((row[2].bytes.len(), row[0].bytes.as_ptr()), (96, at));
    }

    #[test]
    fn the_shape_of_an_input_is_that_of_its_layout() {
        let spec = InputSpec {
            layout: Layout::Nhwc,
            element: Element::U8,
            ..InputSpec::new((4, 2))
        };
        assert_eq!((spec.shape(5), spec.bytes()), (vec![5, 2, 4, 3], 24));
    }

    #[test]
    fn one_number_is_for_all_colours_and_nonsense_for_none() {
        let read = |text: &str| text.parse::<PerColour>().map(PerColour::values);
        assert_eq!(read("0.5"), Ok([0.5; 3]));
        assert_eq!(read("0.485, 0.456,0.406"), Ok([0.485, 0.456, 0.406]));
        for nonsense in ["", "a", "1,2", "1,2,3,4", "nan", "1,inf,2", "1;2;3", "1,,2"] {
            assert_eq!(read(nonsense), Err(NoNumbers), "{nonsense}");
        }
    }
}
