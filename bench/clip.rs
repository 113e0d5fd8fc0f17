//! The clip that every bench uses: generated, encoded once, the same for everyone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gst::prelude::*;

pub const FPS: u32 = 30;
/// 640×480, about one megabit a second, with enough movement that the decoder has work to do.
const DESCRIPTION: &str = "videotestsrc num-buffers=300 pattern=zone-plate kx2=12 ky2=12 kt=3 \
    ! video/x-raw,format=I420,width=640,height=480,framerate=30/1 ! identity name=paint \
    ! vp8enc deadline=1 cpu-used=-6 end-usage=cbr target-bitrate=1000000 keyframe-max-dist=300 \
    ! appsink name=out sync=false";
/// A quarter of it, for many visitors at once: what costs is then the inference, not the decoders.
const SMALL: &str = "videotestsrc num-buffers=300 pattern=ball \
    ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 \
    ! vp8enc deadline=1 cpu-used=-6 end-usage=cbr target-bitrate=200000 keyframe-max-dist=300 \
    ! appsink name=out sync=false";

pub struct Frame {
    pub data: Vec<u8>,
}

/// Ten seconds, the first frame a keyframe.
pub fn clip() -> Vec<Frame> {
    encode(DESCRIPTION)
}

pub fn small_clip() -> Vec<Frame> {
    encode(SMALL)
}

/// The same with each frame's number painted into it, for [`number`] to read.
pub fn numbered_clip() -> Vec<Frame> {
    let pipeline = parse(DESCRIPTION);
    let pad = pipeline.by_name("paint").expect("it is named");
    let pad = pad.static_pad("src").expect("it has one");
    let next = AtomicUsize::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let mut luma = buffer.make_mut().map_writable().expect("it is ours");
            paint(&mut luma, next.fetch_add(1, Ordering::Relaxed));
        }
        gst::PadProbeReturn::Ok
    });
    run(&pipeline)
}

/// A number is so many black and white blocks in the uppermost rows, the last six of them a check.
const BLOCKS: usize = 16;
const NUMBER_BITS: usize = 10;
const BLOCK: (usize, usize) = (WIDTH / BLOCKS, 32);
const WIDTH: usize = 640;

fn painted(number: usize) -> usize {
    number | (number * 37 % 61) << NUMBER_BITS
}

fn paint(luma: &mut [u8], number: usize) {
    let bits = painted(number);
    for row in luma.chunks_mut(WIDTH).take(BLOCK.1) {
        for (bit, block) in row.chunks_mut(BLOCK.0).enumerate() {
            block.fill(if bits >> bit & 1 == 1 { 235 } else { 16 });
        }
    }
}

/// The number in a picture, whatever encoders have done to it; `None` where it cannot be read.
pub fn number(luma: &[u8], stride: usize) -> Option<usize> {
    let inner = |length: usize| length / 4..length * 3 / 4;
    let mut bits = 0;
    for bit in 0..BLOCKS {
        let rows = inner(BLOCK.1).map(|row| row * stride + bit * BLOCK.0);
        let pixels = rows.flat_map(|row| inner(BLOCK.0).map(move |column| row + column));
        let (mut sum, mut count) = (0, 0);
        for pixel in pixels {
            sum += u32::from(*luma.get(pixel)?);
            count += 1;
        }
        bits |= usize::from(sum / count >= 126) << bit;
    }
    let number = bits & ((1 << NUMBER_BITS) - 1);
    (painted(number) == bits).then_some(number)
}

fn encode(description: &str) -> Vec<Frame> {
    run(&parse(description))
}

fn parse(description: &str) -> gst::Pipeline {
    gst::parse::launch(description)
        .expect("base and good plugins are installed")
        .downcast::<gst::Pipeline>()
        .expect("it is a pipeline")
}

fn run(pipeline: &gst::Pipeline) -> Vec<Frame> {
    let sink = pipeline.by_name("out").expect("it is named");
    let sink = sink.downcast::<gst_app::AppSink>().expect("it is one");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let mut frames = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().expect("a sample has one");
        frames.push(Frame {
            data: buffer.map_readable().expect("it is readable").to_vec(),
        });
    }
    pipeline.set_state(gst::State::Null).expect("it stops");
    frames
}

/// When the frame of that number is due.
pub fn due(number: u64) -> Duration {
    Duration::from_nanos(number * 1_000_000_000 / u64::from(FPS))
}
