//! A buffer as the engine reads it, where it lies.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, prelude::*};

use super::desk::Job;
use crate::{
    engine::{
        model::{InferError, Inference, Model, Scratch},
        preprocess::{Colours, Frame, Matrix, PixelFormat, Plane, Range},
    },
    logic::detections::Thresholds,
};

/// What the pad takes.
pub const FORMATS: [VideoFormat; 6] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
];

/// Runs the model on a frame. A failure of any kind, a panic too, is the text of an error.
pub fn infer(
    model: &Arc<Model>,
    job: &Job,
    thresholds: Thresholds,
    scratch: &mut Scratch,
) -> Result<Inference, String> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&job.buffer, &job.info)
        .map_err(|_| "the frame's memory cannot be read".to_owned())?;
    let picture = picture(&frame).ok_or("the frame's format is not known")?;
    catch_unwind(AssertUnwindSafe(|| {
        model.infer(&picture, thresholds, scratch)
    }))
    .map_err(|_| "the engine panicked".to_owned())?
    .map_err(|error| error.to_string())
}

/// How long a frame takes when no other one is before it, measured on a black one of the size of the model's input.
pub fn time_of_one(model: &Model) -> Result<Duration, InferError> {
    let (width, height) = model.info().input;
    let stride = width as usize * 3;
    let pixels = vec![0; stride * height as usize];
    let rows = Plane {
        data: &pixels,
        stride,
    };
    let black = Frame {
        format: PixelFormat::Rgb,
        width,
        height,
        planes: [rows, Plane::default(), Plane::default()],
        colours: Colours {
            matrix: Matrix::Bt601,
            range: Range::Full,
        },
    };
    let mut scratch = Scratch::default();
    let thresholds = Thresholds::default();
    // The first one fills buffers and caches.
    model.infer(&black, thresholds, &mut scratch)?;
    let started = Instant::now();
    model.infer(&black, thresholds, &mut scratch)?;
    Ok(started.elapsed())
}

fn picture<'a>(frame: &'a gst_video::VideoFrameRef<&gst::BufferRef>) -> Option<Frame<'a>> {
    let info = frame.info();
    let format = match info.format() {
        VideoFormat::I420 => PixelFormat::I420,
        VideoFormat::Nv12 => PixelFormat::Nv12,
        VideoFormat::Rgb => PixelFormat::Rgb,
        VideoFormat::Bgr => PixelFormat::Bgr,
        VideoFormat::Rgba => PixelFormat::Rgba,
        VideoFormat::Bgra => PixelFormat::Bgra,
        _ => return None,
    };
    let mut planes = [Plane::default(); 3];
    for (index, plane) in (0..frame.n_planes()).zip(&mut planes) {
        *plane = Plane {
            data: frame.plane_data(index).ok()?,
            stride: usize::try_from(frame.plane_stride()[index as usize]).ok()?,
        };
    }
    Some(Frame {
        format,
        width: frame.width(),
        height: frame.height(),
        planes,
        colours: Colours {
            matrix: match info.colorimetry().matrix() {
                VideoColorMatrix::Bt709 => Matrix::Bt709,
                _ => Matrix::Bt601,
            },
            range: match info.colorimetry().range() {
                VideoColorRange::Range0_255 => Range::Full,
                _ => Range::Limited,
            },
        },
    })
}
