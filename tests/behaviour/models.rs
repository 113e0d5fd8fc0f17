//! The model that comes along, on what every GStreamer has: `videotestsrc pattern=ball`.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstrtcinference::logic::detections::Corners;

use crate::init;

const FRAMES: u64 = 200;
const BALL: &str = "videotestsrc pattern=ball num-buffers=200 \
    ! video/x-raw,format=I420,width=640,height=480,framerate=30/1";

/// Where the ball is in each frame: around all that is bright.
fn truth() -> Vec<Corners> {
    let boxes = Arc::new(Mutex::new(Vec::new()));
    let pipeline = gst::parse::launch(&format!("{BALL} ! fakesink name=end"))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let pad = pipeline.by_name("end").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let boxes = boxes.clone();
        move |_, info| {
            let map = info.buffer().unwrap().map_readable().unwrap();
            let bright = (0..640 * 480).filter(|at| map[*at] > 128);
            let mut around = [f32::MAX, f32::MAX, 0.0_f32, 0.0_f32];
            for at in bright {
                let (x, y) = ((at % 640) as f32, (at / 640) as f32);
                around[0] = around[0].min(x);
                around[1] = around[1].min(y);
                around[2] = around[2].max(x + 1.0);
                around[3] = around[3].max(y + 1.0);
            }
            let [x0, y0, x1, y1] = around;
            boxes.lock().unwrap().push(Corners { x0, y0, x1, y1 });
            gst::PadProbeReturn::Ok
        }
    });
    wait_for_eos(&pipeline);
    // The probe keeps its half for as long as the pipeline lives.
    std::mem::take(&mut *boxes.lock().unwrap())
}

fn wait_for_eos(pipeline: &gst::Pipeline) -> Vec<gst::Message> {
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut messages = Vec::new();
    for message in pipeline
        .bus()
        .unwrap()
        .iter_timed(gst::ClockTime::from_seconds(120))
    {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            _ => messages.push(message),
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    messages
}

/// Frames whose best box is a circle around the ball.
fn found(between: &str) -> usize {
    init();
    let truth = truth();
    assert_eq!(truth.len() as u64, FRAMES);
    let description = format!(
        "{BALL} {between} ! framemeta ! inferencesink model=models/shapes.onnx when-busy=wait"
    );
    let pipeline = gst::parse::launch(&description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let mut found = 0;
    for message in wait_for_eos(&pipeline) {
        let Some(result) = message
            .structure()
            .filter(|s| s.has_name("inference-result"))
        else {
            continue;
        };
        let frame = result.get::<u64>("frame-id").unwrap() as usize;
        let json: serde_json::Value =
            serde_json::from_str(&result.get::<String>("json").unwrap()).unwrap();
        let best = &json["serialized_output_data"]["predictions"]["predictions"][0];
        if best["class"] != "circle" {
            continue;
        }
        let number = |name: &str| best[name].as_f64().unwrap() as f32;
        let (x, y, w, h) = (number("x"), number("y"), number("width"), number("height"));
        let seen = Corners {
            x0: x - w / 2.0,
            y0: y - h / 2.0,
            x1: x + w / 2.0,
            y1: y + h / 2.0,
        };
        found += usize::from(seen.iou(&truth[frame - 1]) >= 0.5);
    }
    found
}

#[test]
fn the_ball_is_found_as_a_circle() {
    let found = found("");
    assert!(found >= 190, "{found} of {FRAMES}");
}

#[test]
fn the_ball_is_found_after_vp8_at_500_kbit_too() {
    let found = found("! vp8enc deadline=1 target-bitrate=500000 end-usage=cbr ! vp8dec");
    assert!(found >= 190, "{found} of {FRAMES}");
}
