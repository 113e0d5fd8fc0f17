//! A mapped frame as something to draw on.

use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, prelude::*};

use super::{
    canvas::{
        Canvas,
        Channel::{self, *},
        Plane, Yuv,
    },
    glyphs::Glyphs,
};
use crate::logic::overlay::Scene;

/// What the pads take.
pub const FORMATS: [VideoFormat; 8] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
    VideoFormat::Rgbx,
    VideoFormat::Bgrx,
];

/// The bytes of a sample in each plane of a format.
fn planes(format: VideoFormat) -> &'static [&'static [Channel]] {
    match format {
        VideoFormat::I420 => &[&[Luma], &[Cb], &[Cr]],
        VideoFormat::Nv12 => &[&[Luma], &[Cb, Cr]],
        VideoFormat::Rgb => &[&[Red, Green, Blue]],
        VideoFormat::Bgr => &[&[Blue, Green, Red]],
        VideoFormat::Rgba | VideoFormat::Rgbx => &[&[Red, Green, Blue, Opaque]],
        VideoFormat::Bgra | VideoFormat::Bgrx => &[&[Blue, Green, Red, Opaque]],
        _ => &[],
    }
}

pub fn draw(
    scene: &Scene,
    glyphs: &mut Glyphs,
    frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
) {
    let mut canvas = canvas(frame);
    for outline in &scene.outlines {
        canvas.ring(outline.outer, outline.inner, outline.colour);
    }
    for label in &scene.labels {
        canvas.fill(label.area, label.colour);
        let (left, top) = label.start;
        glyphs.spell(&label.text, scene.text_height, left, |glyph, left| {
            canvas.letter(glyph, (left, top), label.area, label.ink);
        });
    }
}

fn canvas<'a>(frame: &'a mut gst_video::VideoFrameRef<&mut gst::BufferRef>) -> Canvas<'a> {
    let colorimetry = frame.info().colorimetry();
    let (kr, kb) = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => (0.2126, 0.0722),
        VideoColorMatrix::Bt2020 => (0.2627, 0.0593),
        VideoColorMatrix::Smpte240m => (0.212, 0.087),
        VideoColorMatrix::Fcc => (0.3, 0.11),
        _ => (0.299, 0.114),
    };
    let limited = colorimetry.range() != VideoColorRange::Range0_255;
    let (width, height) = (frame.width(), frame.height());
    let strides: [i32; 4] =
        std::array::from_fn(|plane| frame.plane_stride().get(plane).copied().unwrap_or(0));
    let samples = planes(frame.format());
    Canvas {
        width,
        height,
        yuv: Yuv { kr, kb, limited },
        planes: frame
            .planes_data_mut()
            .into_iter()
            .zip(strides)
            .zip(samples)
            .filter_map(|((data, stride), &sample)| {
                Some(Plane {
                    data,
                    // Rows that go upwards are nothing that decoders or sources make.
                    stride: usize::try_from(stride).ok()?,
                    halved: !matches!(sample[0], Luma | Red | Blue),
                    sample,
                })
            })
            .collect(),
    }
}
