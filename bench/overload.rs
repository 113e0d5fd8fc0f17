//! Four times what the machine can infer, for a minute: how late results are, and what is lost. Prints JSON.
//!
//! First one visitor tells what an inference costs. Then so many come that their frames are four times what all
//! cores could infer if they did nothing else. The visitors run in another process, on the same cores.
//! With an argument it lasts so many seconds.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crowd::Crowd;
use server::Server;
use visitor::Manner;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
mod crowd;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod server;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

const SECONDS: u64 = 60;
const TIMES: f64 = 4.0;
const APART: Duration = Duration::from_millis(40);
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["visitors", url, count] => {
            crowd::be(
                url,
                count.parse().expect("a number"),
                clip::small_clip(),
                APART,
            );
        }
        [seconds] => run(seconds.parse().expect("a number of seconds")),
        _ => run(SECONDS),
    }
}

fn run(seconds: u64) {
    // Of each result: from the frame's arrival to the result, and the inference alone; milliseconds.
    let latencies = Arc::new(Mutex::new(Vec::<(f64, f64)>::new()));
    let server = Server::start("framemeta ! inferencesink model=models/shapes.onnx", &[], {
        let latencies = latencies.clone();
        move |said| {
            if said.has_name("inference-result") {
                latencies.lock().expect("nobody panics").push(latency(said));
            }
        }
    });

    let alone = Crowd::come(&server, 1);
    std::thread::sleep(WARM_UP);
    let inference = percentile(
        std::mem::take(&mut latencies.lock().expect("nobody panics")),
        0.5,
        |l| l.1,
    );
    alone.go();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let capacity = cores as f64 * 1000.0 / inference;
    let count = (TIMES * capacity / f64::from(clip::FPS)).ceil() as usize;

    let crowd = Crowd::come(&server, count);
    std::thread::sleep(WARM_UP);
    latencies.lock().expect("nobody panics").clear();
    let clip = clip::small_clip();
    let (begin, before) = (Instant::now(), process::usage());
    let mut middle = before;
    let mut answers: Vec<f64> = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        // A new visitor now and then, who must not have to wait.
        let gone = Arc::new(AtomicBool::new(true));
        answers.push(visitor::visit(server.url(), &clip, Manner::Polite, &gone).answered_ms);
        std::thread::sleep(Duration::from_secs(5));
        if begin.elapsed() < Duration::from_secs(seconds) / 2 {
            middle = process::usage();
        }
    }
    let after = process::usage();
    let lasted = begin.elapsed().as_secs_f64();
    let latencies = std::mem::take(&mut *latencies.lock().expect("nobody panics"));
    crowd.go();
    let frames = server.stop();
    println!(
        "{:#}",
        serde_json::json!({
            "bench": "overload", "seconds": lasted, "visitors": count, "cores": cores,
            "inference_ms": inference, "capacity_fps": capacity, "offered_fps": count as f64 * f64::from(clip::FPS),
            "results_per_second": latencies.len() as f64 / lasted,
            "latency_ms": {
                "p50": percentile(latencies.clone(), 0.5, |l| l.0), "p99": percentile(latencies.clone(), 0.99, |l| l.0),
                "bound": inference + 2000.0 / f64::from(clip::FPS),
            },
            "inference_ms_in_the_crowd": percentile(latencies, 0.5, |l| l.1),
            "answer_ms_most": answers.iter().copied().fold(0.0, f64::max),
            "rss_mb": {"begin": before.rss_mb, "middle": middle.rss_mb, "end": after.rss_mb},
            "frames": frames,
        })
    );
}

fn latency(result: &gst::StructureRef) -> (f64, f64) {
    let json: serde_json::Value =
        serde_json::from_str(result.get("json").expect("a result has it")).expect("it is JSON");
    let ms = |what: &str| json["timing_us"][what].as_f64().expect("it is told") / 1000.0;
    (ms("total"), ms("inference"))
}

fn percentile(latencies: Vec<(f64, f64)>, share: f64, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let mut values: Vec<f64> = latencies.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
        .get(((values.len().max(1) - 1) as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
