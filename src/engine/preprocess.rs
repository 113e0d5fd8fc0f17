//! The pixels of a frame into the input of a model, in the layout, the order of channels and the kind of numbers that it
//! takes; aspect kept, centred and padded with grey, or stretched.
//!
//! YUV is converted before it is resized: resizing one picture of four bytes a pixel takes less than
//! resizing planes of one byte, up to 1080p. Resizing happens in bytes, bilinear with half-pixel centres, over as many
//! pixels as become one; the floats are made last. A frame of the input's own size is not resized at all.
//!
//! All of it happens band by band, so that what lies between two steps stays in the processor's cache, and none of it is as large
//! as a frame.
//!
//! Trusts nobody about lengths: a plane is measured before it is read.

use std::fmt;
use std::ops::Range as Rows;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use half::f16;
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix};

use super::input::{Channels, Fit, InputSpec, Layout, Slot};
use super::tensor::Element;
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
const PADDING: u8 = 114;

/// Bytes of a frame, as RGBA, that a band is made of.
const BAND: usize = 1 << 18;

/// A band has at least that many rows: each is resized with a few rows above and below it.
const MIN_BAND: u32 = 8;

/// Turns frames into tensors, in buffers that it keeps: after the first frame of a size, only the
/// resizer still allocates, its few kilobytes of weights.
pub struct Preprocessor {
    resizer: Resizer,
    band: usize,
    /// Rows of the frame as RGBA, or where they cannot be resized in place.
    whole: Vec<u8>,
    /// The resized rows.
    small: Vec<u8>,
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self {
            resizer: Resizer::default(),
            band: BAND,
            whole: Vec::new(),
            small: Vec::new(),
        }
    }
}

impl Preprocessor {
    /// Fills the slot of an input that is as `spec` says, and tells where in it the frame is.
    pub fn run(
        &mut self,
        frame: &Frame<'_>,
        spec: &InputSpec,
        slot: &mut Slot,
    ) -> Result<Letterbox, FrameError> {
        frame.check()?;
        let place = match spec.fit {
            Fit::Letterbox => Letterbox::new,
            Fit::Stretch => Letterbox::stretched,
        };
        let letterbox = place((frame.width, frame.height), spec.size);
        match frame.format {
            PixelFormat::I420 | PixelFormat::Nv12 | PixelFormat::Rgba => {
                self.fill::<U8x4, 4>(frame, letterbox, RGB, spec, slot)
            }
            PixelFormat::Bgra => self.fill::<U8x4, 4>(frame, letterbox, BGR, spec, slot),
            PixelFormat::Rgb => self.fill::<U8x3, 3>(frame, letterbox, RGB, spec, slot),
            PixelFormat::Bgr => self.fill::<U8x3, 3>(frame, letterbox, BGR, spec, slot),
        }
        Ok(letterbox)
    }

    /// The frame into the slot. `shifts` say where in a pixel of `PIXEL` bytes red, green and blue are, in bits.
    fn fill<P: PixelTrait, const PIXEL: usize>(
        &mut self,
        frame: &Frame<'_>,
        letterbox: Letterbox,
        shifts: [u32; 3],
        spec: &InputSpec,
        slot: &mut Slot,
    ) {
        let scale = spec.std.map(|std| 1.0 / (255.0 * std));
        let offset = [0, 1, 2].map(|colour| -spec.mean[colour] / spec.std[colour]);
        let float = |colour: usize| {
            let (scale, offset) = (scale[colour], offset[colour]);
            move |byte: u8| f32::from(byte) * scale + offset
        };
        // Most processors take long to make one of these.
        let halves = (spec.element == Element::F16).then(|| {
            [0, 1, 2].map(|colour| {
                let float = float(colour);
                std::array::from_fn::<_, 256, _>(|byte| f16::from_f32(float(byte as u8)))
            })
        });
        // The padding stays from frame to frame, as every frame overwrites the same pixels.
        let pads = slot.laid_out.replace(letterbox) != Some(letterbox);
        let bytes = &mut slot.bytes[..];
        for band in bands(letterbox, self.band) {
            let (rows, stride) = self.rows::<P>(frame, letterbox, &band);
            let laying = Laying::<PIXEL> {
                rows,
                stride,
                letterbox,
                pads: pads && band.start == 0,
                band,
                shifts,
                spec,
            };
            match (spec.element, &halves) {
                (Element::U8, _) => laying.lay(bytes, |_| |byte| byte),
                (_, Some(halves)) => laying.lay(bytemuck::cast_slice_mut(bytes), |colour| {
                    move |byte: u8| halves[colour][byte as usize]
                }),
                _ => laying.lay(bytemuck::cast_slice_mut(bytes), float),
            }
        }
    }

    /// Those rows of the frame as it is to be laid, and the bytes from one to the next.
    fn rows<'r, P: PixelTrait>(
        &'r mut self,
        frame: &Frame<'r>,
        letterbox: Letterbox,
        band: &Rows<u32>,
    ) -> (&'r [u8], usize) {
        let as_it_is = letterbox.fit == letterbox.frame;
        let source = match as_it_is {
            true => band.clone(),
            false => rows_behind(letterbox, band),
        };
        if frame.format.is_yuv() {
            self.convert(frame, &source);
        }
        let plane = frame.planes[0];
        match (as_it_is, frame.format.is_yuv()) {
            (true, true) => {
                let stride = frame.width as usize * P::size();
                let before = (source.start % 2) as usize;
                (&self.whole[before * stride..], stride)
            }
            (true, false) => (
                &plane.data[source.start as usize * plane.stride..],
                plane.stride,
            ),
            (false, _) => {
                self.resize::<P>(frame, letterbox, band, &source);
                (&self.small[..], letterbox.fit.0 as usize * P::size())
            }
        }
    }

    /// Rows of a YUV frame into `whole`, as RGBA. Two rows have one row of chroma, so an even one is the first.
    fn convert(&mut self, frame: &Frame<'_>, rows: &Rows<u32>) {
        let first = rows.start - rows.start % 2;
        let (width, height) = (frame.width, rows.end - first);
        let [y, u, v] = &frame.planes;
        let (range, matrix) = (frame.colours.range.into(), frame.colours.matrix.into());
        let stride = width * 4;
        self.whole.resize(stride as usize * height as usize, 0);
        let converted = if frame.format == PixelFormat::I420 {
            let image = YuvPlanarImage {
                y_plane: y.rows(first, height),
                y_stride: y.stride as u32,
                u_plane: u.rows(first / 2, height.div_ceil(2)),
                u_stride: u.stride as u32,
                v_plane: v.rows(first / 2, height.div_ceil(2)),
                v_stride: v.stride as u32,
                width,
                height,
            };
            yuv::yuv420_to_rgba(&image, &mut self.whole, stride, range, matrix)
        } else {
            let image = YuvBiPlanarImage {
                y_plane: y.rows(first, height),
                y_stride: y.stride as u32,
                uv_plane: u.rows(first / 2, height.div_ceil(2)),
                uv_stride: u.stride as u32,
                width,
                height,
            };
            let mode = YuvConversionMode::Balanced;
            yuv::yuv_nv12_to_rgba(&image, &mut self.whole, stride, range, matrix, mode)
        };
        converted.expect(CHECKED);
    }

    /// Resizes a band into `small`, out of those rows of the frame; those of YUV `convert` left in `whole`.
    fn resize<P: PixelTrait>(
        &mut self,
        frame: &Frame<'_>,
        letterbox: Letterbox,
        band: &Rows<u32>,
        source: &Rows<u32>,
    ) {
        let (width, fit) = (frame.width, letterbox.fit);
        let row = width as usize * P::size();
        let Plane { data, stride } = frame.planes[0];
        let mut first = source.start;
        let (data, across) = if frame.format.is_yuv() {
            first -= first % 2;
            (&self.whole[..], width)
        } else {
            let rows = &data[first as usize * stride..source.end as usize * stride];
            if stride % P::size() == 0 {
                (rows, (stride / P::size()) as u32)
            } else {
                self.whole.clear();
                for padded in rows.chunks(stride) {
                    self.whole.extend_from_slice(&padded[..row]);
                }
                (&self.whole[..], width)
            }
        };
        let height = source.end - first;

        let down = band.end - band.start;
        let size = fit.0 as usize * down as usize * P::size();
        self.small.resize(size, 0);
        let image = TypedImageRef::<P>::from_buffer(across, height, data).expect(CHECKED);
        let image = TypedCroppedImage::from_ref(&image, 0, 0, width, height).expect(CHECKED);
        let mut target = TypedImage::<P>::from_buffer(fit.0, down, &mut self.small).expect(CHECKED);
        let scale = scale_down(letterbox);
        let top = f64::from(band.start) * scale - f64::from(first);
        // The last band may end a rounding error below the frame.
        let tall = (f64::from(down) * scale).min(f64::from(height) - top);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(0.0, top, f64::from(width), tall)
            .use_alpha(false);
        self.resizer
            .resize_typed(&image, &mut target, &options)
            .expect(CHECKED);
    }
}

/// Rows of the frame that become one.
fn scale_down(letterbox: Letterbox) -> f64 {
    f64::from(letterbox.frame.1) / f64::from(letterbox.fit.1)
}

/// The picture in the input, from top to bottom.
fn bands(letterbox: Letterbox, bytes: usize) -> impl Iterator<Item = Rows<u32>> {
    let height = letterbox.fit.1;
    let row = f64::from(letterbox.frame.0) * 4.0 * scale_down(letterbox);
    let rows = ((bytes as f64 / row) as u32).max(MIN_BAND);
    (0..height)
        .step_by(rows as usize)
        .map(move |start| start..height.min(start.saturating_add(rows)))
}

/// The rows of the frame that have a say in a band: those whose centres are not farther than what one row is made of, or the
/// neighbour where rows are made up.
fn rows_behind(letterbox: Letterbox, band: &Rows<u32>) -> Rows<u32> {
    let scale = scale_down(letterbox);
    let around = scale.max(1.0) + 1.0;
    let first = (f64::from(band.start) * scale - around).floor().max(0.0);
    let end = (f64::from(band.end) * scale + around).ceil();
    first as u32..(end as u32).min(letterbox.frame.1)
}

/// A band of a picture of the right size on its way into an input.
struct Laying<'a, const PIXEL: usize> {
    rows: &'a [u8],
    stride: usize,
    letterbox: Letterbox,
    /// Which of the picture's rows these are.
    band: Rows<u32>,
    shifts: [u32; 3],
    /// Whether what surrounds it is to be written too.
    pads: bool,
    spec: &'a InputSpec,
}

impl<const PIXEL: usize> Laying<'_, PIXEL> {
    /// `value_of` tells for a colour, red 0, green 1 and blue 2, what becomes of a byte.
    fn lay<T: Copy, F: Fn(u8) -> T>(&self, input: &mut [T], value_of: impl Fn(usize) -> F) {
        let order = match self.spec.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        // Of each channel of the input: its bits in a pixel, and what becomes of them.
        let channels = order.map(|colour| (self.shifts[colour], value_of(colour)));
        match self.spec.layout {
            Layout::Nchw => self.planes(input, &channels),
            Layout::Nhwc => self.pixels(input, &channels),
        }
    }

    fn planes<T: Copy>(&self, input: &mut [T], channels: &[(u32, impl Fn(u8) -> T); 3]) {
        let (width, height) = self.spec.size;
        let (width, height) = (width as usize, height as usize);
        let left = self.letterbox.left as usize;
        let planes = input.chunks_exact_mut(width * height);
        for (plane, (shift, value)) in planes.zip(channels) {
            if self.pads {
                plane.fill(value(PADDING));
            }
            for (row, pixels) in self.targets(plane, width).zip(self.sources()) {
                for (target, pixel) in row[left..].iter_mut().zip(pixels) {
                    *target = value(byte(pixel, *shift));
                }
            }
        }
    }

    fn pixels<T: Copy>(&self, input: &mut [T], channels: &[(u32, impl Fn(u8) -> T); 3]) {
        let left = self.letterbox.left as usize;
        let [(first, one), (second, two), (third, three)] = channels;
        let (targets, _) = input.as_chunks_mut::<3>();
        if self.pads {
            targets.fill([one(PADDING), two(PADDING), three(PADDING)]);
        }
        let width = self.spec.size.0 as usize;
        for (row, pixels) in self.targets(targets, width).zip(self.sources()) {
            for (target, pixel) in row[left..].iter_mut().zip(pixels) {
                *target = [
                    one(byte(pixel, *first)),
                    two(byte(pixel, *second)),
                    three(byte(pixel, *third)),
                ];
            }
        }
    }

    /// The rows of a plane that the band is for.
    fn targets<'t, T>(
        &self,
        plane: &'t mut [T],
        width: usize,
    ) -> impl Iterator<Item = &'t mut [T]> {
        let top = self.letterbox.top + self.band.start;
        let rows = plane.chunks_exact_mut(width).skip(top as usize);
        rows.take(self.band.len())
    }

    fn sources(&self) -> impl Iterator<Item = &[[u8; PIXEL]]> {
        let across = self.letterbox.fit.0 as usize;
        let rows = self.rows.chunks(self.stride);
        rows.map(move |row| &row.as_chunks::<PIXEL>().0[..across])
    }
}

/// A whole word and a shift is what the compiler computes several of at a time.
fn byte<const PIXEL: usize>(pixel: &[u8; PIXEL], shift: u32) -> u8 {
    let mut word = [0; 4];
    word[..PIXEL].copy_from_slice(pixel);
    (u32::from_le_bytes(word) >> shift) as u8
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

impl<'a> Plane<'a> {
    /// So many rows and no more: `yuv` takes the last one of odd ones from the end of what it is given.
    fn rows(&self, first: u32, count: u32) -> &'a [u8] {
        &self.data[first as usize * self.stride..][..count as usize * self.stride]
    }
}

impl PixelFormat {
    fn is_yuv(self) -> bool {
        matches!(self, Self::I420 | Self::Nv12)
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
