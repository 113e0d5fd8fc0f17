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
        EngineError,
        input::Slot,
        model::{InferError, Inference, Model, Scratch},
        preprocess::{Colours, Frame, Matrix, PixelFormat, Plane, Range},
        scheduler::{Request, Seat},
    },
    logic::detections::{Letterbox, Thresholds},
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

/// A frame as a model takes it.
pub struct Prepared {
    pub model: Arc<Model>,
    slot: Slot,
    letterbox: Letterbox,
    pub took: Duration,
}

/// Makes a frame ready before its turn has come. A failure of any kind, a panic too, is the text of an error.
pub fn prepare(model: Arc<Model>, job: &Job, scratch: &mut Scratch) -> Result<Prepared, String> {
    let mut slot = model.take_slot();
    let started = Instant::now();
    let letterbox = fill(&model, job, &mut slot, scratch)?;
    Ok(Prepared {
        took: started.elapsed(),
        model,
        slot,
        letterbox,
    })
}

/// Runs the model on a frame whose turn it is. A failure of any kind, a panic too, is the text of an error.
pub fn infer(
    mut seat: Seat,
    job: &mut Job,
    thresholds: Thresholds,
    scratch: &mut Scratch,
    until: Option<Instant>,
) -> Result<Inference, String> {
    let model = seat.model().clone();
    let prepared = job.prepared.take();
    let prepared = prepared.filter(|prepared| Arc::ptr_eq(&prepared.model, &model));
    let (letterbox, preprocess) = match prepared {
        Some(mut prepared) => {
            seat.exchange(&mut prepared.slot);
            model.give_slot_back(prepared.slot);
            (prepared.letterbox, prepared.took)
        }
        None => {
            let started = Instant::now();
            let letterbox = fill(&model, job, seat.slot(), scratch)?;
            (letterbox, started.elapsed())
        }
    };
    let failed = |error: EngineError| InferError::from(error).to_string();
    let share = seat.infer(until).map_err(failed)?;
    let inferred = Instant::now();
    let (index, frames) = (share.index(), share.frames());
    let inference = catch_unwind(AssertUnwindSafe(|| {
        model.read(
            share.outputs(),
            index,
            frames,
            letterbox,
            thresholds,
            scratch,
        )
    }))
    .map_err(|_| "the decoder panicked".to_owned())?
    .map_err(|error| error.to_string())?;
    Ok(Inference {
        preprocess,
        inference: share.took(),
        postprocess: inferred.elapsed(),
        ..inference
    })
}

fn fill(
    model: &Model,
    job: &Job,
    slot: &mut Slot,
    scratch: &mut Scratch,
) -> Result<Letterbox, String> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&job.buffer, &job.info)
        .map_err(|_| "the frame's memory cannot be read".to_owned())?;
    let picture = picture(&frame).ok_or("the frame's format is not known")?;
    catch_unwind(AssertUnwindSafe(|| model.prepare(&picture, slot, scratch)))
        .map_err(|_| "making the frame ready panicked".to_owned())?
        .map_err(|error| error.to_string())
}

/// How long a frame takes when no other one is before it, measured on a black one of the size of the model's input.
pub fn time_of_one(model: &Arc<Model>) -> Result<Duration, InferError> {
    // Beside others that infer it would take longer.
    let request = Request {
        patience: Duration::ZERO,
        budget: Duration::ZERO,
        alone: true,
    };
    let _seat = model.wait(request, || true);
    let (width, height) = model.info().input.size;
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
