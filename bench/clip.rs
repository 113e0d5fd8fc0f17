//! The clip that every bench uses: generated, encoded once, the same for everyone.

use std::time::Duration;

use gst::prelude::*;

pub const FPS: u32 = 30;
/// 640×480, about one megabit a second, with enough movement that the decoder has work to do.
const DESCRIPTION: &str = "videotestsrc num-buffers=300 pattern=zone-plate kx2=12 ky2=12 kt=3 \
    ! video/x-raw,format=I420,width=640,height=480,framerate=30/1 \
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

fn encode(description: &str) -> Vec<Frame> {
    let pipeline = gst::parse::launch(description)
        .expect("base and good plugins are installed")
        .downcast::<gst::Pipeline>()
        .expect("it is a pipeline");
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
