//! The pixels of a frame into the input of a model: planar RGB from 0 to 1, aspect kept, centred,
//! padded with grey.
//!
//! YUV is converted before it is resized: resizing one picture of four bytes a pixel takes less than
//! resizing planes of one byte, up to 1080p. Resizing happens in bytes, the floats are made last.
//!
//! Trusts nobody about lengths: a plane is measured before it is read.

use std::fmt;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix};

use super::Tensor;
use crate::logic::detections::Letterbox;

/// A picture where it lies, without a copy.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub format: PixelFormat,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// As many as the format has; the rest is not looked at.
    pub planes: [Plane<'a>; 3],
    /// How YUV formats are meant; the others do not look at it.
    pub colours: Colours,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next; the last row too is that long.
    pub stride: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Planes Y, U, V; chroma halved in both directions, rounded up.
    I420,
    /// Planes Y and UV.
    Nv12,
    Rgb,
    Bgr,
    /// Alpha is not looked at.
    Rgba,
    Bgra,
}

/// What the numbers of a YUV picture mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    pub matrix: Matrix,
    pub range: Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    Bt601,
    Bt709,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Luma 16 to 235, chroma 16 to 240.
    Limited,
    /// 0 to 255.
    Full,
}

/// A frame that cannot be read. The caller does the same with all of them: this frame failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {width}x{height} pixels; both sides must be 1 to {MAX_SIDE}")]
    Size { width: u32, height: u32 },
    #[error(
        "plane {plane} of a {format} frame has rows of {stride} bytes, not {need} to {MAX_STRIDE}"
    )]
    Stride {
        format: PixelFormat,
        plane: usize,
        stride: usize,
        need: usize,
    },
    #[error("plane {plane} of a {format} frame has {have} bytes, at least {need} needed")]
    Short {
        format: PixelFormat,
        plane: usize,
        have: usize,
        need: usize,
    },
}

/// Longest side of a frame, pixels.
pub const MAX_SIDE: u32 = 1 << 15;

const MAX_STRIDE: usize = 1 << 20;

/// What surrounds a frame whose shape is not that of the input.
const PADDING: f32 = 114.0 / 255.0;

/// Turns frames into tensors, in buffers that it keeps: after the first frame of a size, only the
/// resizer still allocates, its few kilobytes of weights.
#[derive(Default)]
pub struct Preprocessor {
    resizer: Resizer,
    /// The frame as RGBA, or its rows where they cannot be resized in place.
    whole: Vec<u8>,
    /// The resized frame.
    small: Vec<u8>,
    /// Where the padding in `tensor` is right for.
    laid_out: Option<Letterbox>,
    tensor: Tensor,
}

impl Preprocessor {
    /// The tensor of [1, 3, height, width], and where in it the frame is. `input` is width and
    /// height, both at least 1.
    pub fn run(
        &mut self,
        frame: &Frame<'_>,
        input: (u32, u32),
    ) -> Result<(&Tensor, Letterbox), FrameError> {
        frame.check()?;
        let letterbox = Letterbox::new((frame.width, frame.height), input);
        self.lay_out(letterbox);

        match frame.format {
            PixelFormat::I420 | PixelFormat::Nv12 => {
                self.convert(frame);
                self.resize::<U8x4>(None);
                self.split::<4>(RGB);
            }
            PixelFormat::Rgba => {
                self.resize::<U8x4>(Some(&frame.planes[0]));
                self.split::<4>(RGB);
            }
            PixelFormat::Bgra => {
                self.resize::<U8x4>(Some(&frame.planes[0]));
                self.split::<4>(BGR);
            }
            PixelFormat::Rgb => {
                self.resize::<U8x3>(Some(&frame.planes[0]));
                self.split::<3>(RGB);
            }
            PixelFormat::Bgr => {
                self.resize::<U8x3>(Some(&frame.planes[0]));
                self.split::<3>(BGR);
            }
        }
        Ok((&self.tensor, letterbox))
    }

    /// What `run` made last.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The padding stays from frame to frame, as every frame overwrites the same pixels.
    fn lay_out(&mut self, letterbox: Letterbox) {
        if self.laid_out == Some(letterbox) {
            return;
        }
        let (width, height) = (letterbox.input.0 as usize, letterbox.input.1 as usize);
        self.tensor.shape.clear();
        self.tensor.shape.extend([1, 3, height, width]);
        self.tensor.data.clear();
        self.tensor.data.resize(3 * height * width, PADDING);
        self.laid_out = Some(letterbox);
    }

    /// YUV into `whole`, as RGBA.
    fn convert(&mut self, frame: &Frame<'_>) {
        let [y, u, v] = &frame.planes;
        let (width, height) = (frame.width, frame.height);
        let (range, matrix) = (frame.colours.range.into(), frame.colours.matrix.into());
        let stride = width * 4;
        self.whole.resize(stride as usize * height as usize, 0);
        let converted = if frame.format == PixelFormat::I420 {
            let image = YuvPlanarImage {
                y_plane: y.data,
                y_stride: y.stride as u32,
                u_plane: u.data,
                u_stride: u.stride as u32,
                v_plane: v.data,
                v_stride: v.stride as u32,
                width,
                height,
            };
            yuv::yuv420_to_rgba(&image, &mut self.whole, stride, range, matrix)
        } else {
            let image = YuvBiPlanarImage {
                y_plane: y.data,
                y_stride: y.stride as u32,
                uv_plane: u.data,
                uv_stride: u.stride as u32,
                width,
                height,
            };
            let mode = YuvConversionMode::Balanced;
            yuv::yuv_nv12_to_rgba(&image, &mut self.whole, stride, range, matrix, mode)
        };
        converted.expect(CHECKED);
    }

    /// Resizes the plane into `small`; without one, what `convert` left in `whole`.
    fn resize<P: PixelTrait>(&mut self, plane: Option<&Plane<'_>>) {
        let letterbox = self.laid_out.expect("laid out before resizing");
        let ((width, height), fit) = (letterbox.frame, letterbox.fit);
        let row = width as usize * P::size();

        let (data, across) = match plane {
            Some(Plane { data, stride }) if stride % P::size() == 0 => {
                let rows = &data[..stride * height as usize];
                (rows, (stride / P::size()) as u32)
            }
            Some(Plane { data, stride }) => {
                self.whole.clear();
                for padded in data.chunks(*stride).take(height as usize) {
                    self.whole.extend_from_slice(&padded[..row]);
                }
                (&self.whole[..], width)
            }
            None => (&self.whole[..], width),
        };

        let size = fit.0 as usize * fit.1 as usize * P::size();
        self.small.resize(size, 0);
        let source = TypedImageRef::<P>::from_buffer(across, height, data).expect(CHECKED);
        let source = TypedCroppedImage::from_ref(&source, 0, 0, width, height).expect(CHECKED);
        let mut target =
            TypedImage::<P>::from_buffer(fit.0, fit.1, &mut self.small).expect(CHECKED);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .use_alpha(false);
        self.resizer
            .resize_typed(&source, &mut target, &options)
            .expect(CHECKED);
    }

    /// `small` into the tensor. `shifts` say where in a pixel red, green and blue are, in bits.
    fn split<const PIXEL: usize>(&mut self, shifts: [u32; 3]) {
        let letterbox = self.laid_out.expect("laid out before splitting");
        let (width, height) = (letterbox.input.0 as usize, letterbox.input.1 as usize);
        let (left, top) = (letterbox.left as usize, letterbox.top as usize);
        let (across, down) = (letterbox.fit.0 as usize, letterbox.fit.1 as usize);
        let (pixels, _) = self.small.as_chunks::<PIXEL>();
        let planes = self.tensor.data.chunks_exact_mut(width * height);
        for (plane, shift) in planes.zip(shifts) {
            let rows = plane.chunks_exact_mut(width).skip(top).take(down);
            for (row, pixels) in rows.zip(pixels.chunks_exact(across)) {
                for (value, pixel) in row[left..left + across].iter_mut().zip(pixels) {
                    // A whole word and a shift is what the compiler computes several of at a time.
                    let mut word = [0; 4];
                    word[..PIXEL].copy_from_slice(pixel);
                    let byte = (u32::from_le_bytes(word) >> shift) as u8;
                    *value = f32::from(byte) * (1.0 / 255.0);
                }
            }
        }
    }
}

/// Bits before red, green and blue in a pixel.
const RGB: [u32; 3] = [0, 8, 16];
const BGR: [u32; 3] = [16, 8, 0];

/// Why calls that measure their arguments again cannot fail.
const CHECKED: &str = "the frame was checked";

impl From<Matrix> for YuvStandardMatrix {
    fn from(matrix: Matrix) -> Self {
        match matrix {
            Matrix::Bt601 => YuvStandardMatrix::Bt601,
            Matrix::Bt709 => YuvStandardMatrix::Bt709,
        }
    }
}

impl From<Range> for YuvRange {
    fn from(range: Range) -> Self {
        match range {
            Range::Limited => YuvRange::Limited,
            Range::Full => YuvRange::Full,
        }
    }
}

impl Frame<'_> {
    fn check(&self) -> Result<(), FrameError> {
        let (width, height) = (self.width, self.height);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(FrameError::Size { width, height });
        }
        let (width, height) = (width as usize, height as usize);
        let half = (width.div_ceil(2), height.div_ceil(2));
        // Bytes in a row, and rows, of each plane.
        let planes: &[(usize, usize)] = match self.format {
            PixelFormat::I420 => &[(width, height), half, half],
            PixelFormat::Nv12 => &[(width, height), (half.0 * 2, half.1)],
            PixelFormat::Rgb | PixelFormat::Bgr => &[(width * 3, height)],
            PixelFormat::Rgba | PixelFormat::Bgra => &[(width * 4, height)],
        };
        for (plane, (&(row, rows), given)) in planes.iter().zip(&self.planes).enumerate() {
            let (format, stride, have) = (self.format, given.stride, given.data.len());
            if !(row..=MAX_STRIDE).contains(&stride) {
                let need = row;
                return Err(FrameError::Stride {
                    format,
                    plane,
                    stride,
                    need,
                });
            }
            // The last row too has its padding: `yuv` reads wrong chroma without.
            let need = stride.saturating_mul(rows);
            if have < need {
                return Err(FrameError::Short {
                    format,
                    plane,
                    have,
                    need,
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PixelFormat::I420 => "I420",
            PixelFormat::Nv12 => "NV12",
            PixelFormat::Rgb => "RGB",
            PixelFormat::Bgr => "BGR",
            PixelFormat::Rgba => "RGBA",
            PixelFormat::Bgra => "BGRA",
        })
    }
}

#[cfg(test)]
mod tests;
