//! The embedded engine alone: `models/shapes.onnx` on every frame of a test source, through `inferencesink`, as
//! fast as it goes. Prints JSON, times in milliseconds a frame.
//!
//! Everything runs on one core where the process is bound to one, as bench/infer does.

use std::time::Instant;

use gst::prelude::*;

const FRAMES: usize = 1000;
/// The first ones pay for what is made once.
const WARM_UP: usize = 50;
const STAGES: [&str; 3] = ["preprocess", "inference", "postprocess"];

fn main() {
    gst::init().expect("GStreamer is installed");
    gstrtcinference::plugin_register_static().expect("it registers");
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,format=I420,width=640,height=480,framerate=30/1 \
         ! inferencesink model=models/shapes.onnx when-busy=wait"
    ))
    .expect("the base plugins are installed");
    let bus = pipeline.bus().expect("a pipeline has one");
    let begin = Instant::now();
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let mut times: [Vec<f64>; STAGES.len()] = Default::default();
    let mut sums = Vec::new();
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            gst::MessageView::Element(said) if said.has_name("inference-result") => {
                let json: String = said
                    .structure()
                    .and_then(|structure| structure.get("json").ok())
                    .expect("a result has its JSON");
                let result: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
                let mut sum = 0.0;
                for (stage, times) in STAGES.iter().zip(&mut times) {
                    let time = result["timing_us"][stage].as_f64().expect("it is told") / 1000.0;
                    times.push(time);
                    sum += time;
                }
                sums.push(sum);
            }
            _ => {}
        }
    }
    let lasted = begin.elapsed().as_secs_f64();
    pipeline.set_state(gst::State::Null).expect("it stops");
    let frames = sums.len();
    let mut rows: serde_json::Map<_, _> = STAGES
        .iter()
        .zip(times)
        .map(|(stage, times)| ((*stage).to_owned(), spread(times)))
        .collect();
    rows.insert("together".into(), spread(sums));
    println!(
        "{:#}",
        serde_json::json!({"bench": "infer", "frames": frames, "frames_per_second": frames as f64 / lasted, "ms": rows})
    );
}

fn spread(mut times: Vec<f64>) -> serde_json::Value {
    let mut times = times.split_off(WARM_UP);
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    serde_json::json!({"median": at(0.5), "p95": at(0.95), "max": at(1.0)})
}
