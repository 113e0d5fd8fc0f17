//! The floor: a decoder alone, fed with the clip at its pace, at 1, 10 and 20 streams. Prints JSON.

use std::time::{Duration, Instant};

use gst::prelude::*;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;

const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().and_then(|a| a.parse::<usize>().ok()) {
        Some(count) => println!("{}", measure(count)),
        None => {
            println!("{:#}", process::rounds("floor", &[1, 10, 20]));
        }
    }
}

fn measure(count: usize) -> serde_json::Value {
    let frames = clip::clip();
    let before = process::usage();
    let streams: Vec<(gst::Pipeline, gst_app::AppSrc)> = (0..count).map(|_| stream()).collect();
    let start = Instant::now();
    let mut warm = None;
    for number in 0u64.. {
        let due = clip::due(number);
        if due > WARM_UP + MEASURED {
            break;
        }
        if due > WARM_UP && warm.is_none() {
            warm = Some((Instant::now(), process::usage()));
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let frame = &frames[number as usize % frames.len()];
        for (_, source) in &streams {
            let mut buffer = gst::Buffer::from_slice(frame.data.clone());
            buffer
                .get_mut()
                .expect("it is new")
                .set_pts(gst::ClockTime::try_from(due).ok());
            source.push_buffer(buffer).expect("it flows");
        }
    }
    let (since, warm) = warm.expect("it ran long enough");
    let after = process::usage();
    let share = (after.cpu - warm.cpu).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    for (pipeline, _) in &streams {
        pipeline.set_state(gst::State::Null).expect("it stops");
    }
    serde_json::json!({
        "connections": count,
        "cpu_percent_each": share / count as f64,
        "rss_mb_each": (after.rss_mb - before.rss_mb) / count as f64,
        "threads_each": f64::from(after.threads - before.threads) / count as f64,
    })
}

fn stream() -> (gst::Pipeline, gst_app::AppSrc) {
    let pipeline = gst::parse::launch(
        "appsrc name=in format=time caps=video/x-vp8 ! vp8dec threads=1 ! fakesink sync=false",
    )
    .expect("base and good plugins are installed")
    .downcast::<gst::Pipeline>()
    .expect("it is a pipeline");
    let source = pipeline.by_name("in").expect("it is named");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    (pipeline, source.downcast().expect("it is one"))
}
