//! Four times what the machine can infer, for a minute: how late results are, and what is lost. Prints JSON.
//!
//! First one visitor tells what an inference costs. Then so many come that their frames are four times what all
//! cores could infer if they did nothing else. The visitors run in another process, on the same cores.
//! With an argument it lasts so many seconds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use visitor::Manner;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

const SECONDS: u64 = 60;
const TIMES: f64 = 4.0;
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["visitors", url, count] => send(url, count.parse().expect("a number")),
        [seconds] => run(seconds.parse().expect("a number of seconds")),
        _ => run(SECONDS),
    }
}

/// The visitors' process: says when all are there, and stays until its standard input ends.
fn send(url: &str, count: usize) {
    let frames = Arc::new(clip::small_clip());
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(40));
            let (url, frames, stop) = (url.to_owned(), frames.clone(), stop.clone());
            std::thread::spawn(move || visitor::visit(&url, &frames, Manner::Polite, &stop))
        })
        .collect();
    println!("there");
    let _ = std::io::stdin().read_line(&mut String::new());
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let visit = thread.join().expect("nobody panics");
        assert!(visit.refused.is_none(), "{:?}", visit.refused);
    }
}

#[derive(Default)]
struct Seen {
    uri: Option<String>,
    /// Of each result: from the frame's arrival to the result, and the inference alone; milliseconds.
    latencies: Vec<(f64, f64)>,
    /// The last books of each inference element that has gone.
    books: std::collections::HashMap<String, [u64; 5]>,
}

fn run(seconds: u64) {
    gstrtcinference::plugin_register_static().expect("it registers");
    let source = gst::ElementFactory::make("rtcsessionsrc")
        .property("listen", "http://127.0.0.1:0")
        .property(
            "video-chain",
            "framemeta ! inferencesink model=models/shapes.onnx",
        )
        .property("max-connections", 1000u32)
        .property("max-pending", 0u32)
        .build()
        .expect("it is registered");
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source).expect("it is alone");
    let seen = Arc::new(Mutex::new(Seen::default()));
    pipeline
        .bus()
        .expect("a pipeline has one")
        .set_sync_handler({
            let seen = seen.clone();
            move |_, message| {
                note(&mut seen.lock().expect("nobody panics"), message);
                gst::BusSyncReply::Drop
            }
        });
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let url = seen
        .lock()
        .expect("nobody panics")
        .uri
        .clone()
        .expect("it listens");
    let url = url.trim_end_matches('/').to_owned();

    let alone = Crowd::come(&url, 1);
    std::thread::sleep(WARM_UP);
    let inference = percentile(
        std::mem::take(&mut seen.lock().expect("nobody panics").latencies),
        0.5,
        |l| l.1,
    );
    alone.go();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let capacity = cores as f64 * 1000.0 / inference;
    let count = (TIMES * capacity / f64::from(clip::FPS)).ceil() as usize;

    let crowd = Crowd::come(&url, count);
    std::thread::sleep(WARM_UP);
    seen.lock().expect("nobody panics").latencies.clear();
    let frames = clip::small_clip();
    let (begin, before) = (Instant::now(), process::usage());
    let mut middle = before;
    let mut answers: Vec<f64> = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        // A new visitor now and then, who must not have to wait.
        let gone = Arc::new(AtomicBool::new(true));
        answers.push(visitor::visit(&url, &frames, Manner::Polite, &gone).answered_ms);
        std::thread::sleep(Duration::from_secs(5));
        if begin.elapsed() < Duration::from_secs(seconds) / 2 {
            middle = process::usage();
        }
    }
    let after = process::usage();
    let lasted = begin.elapsed().as_secs_f64();
    let latencies = std::mem::take(&mut seen.lock().expect("nobody panics").latencies);
    crowd.go();
    pipeline.set_state(gst::State::Null).expect("it stops");

    let seen = seen.lock().expect("nobody panics");
    let mut sums = [0; 5];
    for books in seen.books.values() {
        sums.iter_mut()
            .zip(books)
            .for_each(|(sum, count)| *sum += count);
    }
    let [received, inferred, dropped, failed, pending] = sums;
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
            "frames": {"received": received, "inferred": inferred, "dropped": dropped, "failed": failed, "pending": pending,
                "add_up": received == inferred + dropped + failed + pending},
        })
    );
}

/// Visitors in a process of their own.
struct Crowd(std::process::Child);

impl Crowd {
    fn come(url: &str, count: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("it runs"))
            .args(["visitors", url, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let out = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says something");
        Self(child)
    }

    fn go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success());
    }
}

fn note(seen: &mut Seen, message: &gst::Message) {
    let Some(said) = message.structure() else {
        return;
    };
    match said.name().as_str() {
        "rtc-listening" => seen.uri = said.get("uri").ok(),
        "inference-result" => {
            let json: serde_json::Value =
                serde_json::from_str(said.get("json").expect("a result has it"))
                    .expect("it is JSON");
            let ms = |what: &str| json["timing_us"][what].as_f64().expect("it is told") / 1000.0;
            seen.latencies.push((ms("total"), ms("inference")));
        }
        "inference-stats" => {
            let count = |what: &str| said.get::<u64>(what).expect("it is counted");
            let books = ["received", "inferred", "dropped", "failed", "pending"].map(count);
            let path = message
                .src()
                .map(|element| element.path_string().to_string());
            seen.books.insert(path.unwrap_or_default(), books);
        }
        _ => {}
    }
}

fn percentile(latencies: Vec<(f64, f64)>, share: f64, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let mut values: Vec<f64> = latencies.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
        .get(((values.len().max(1) - 1) as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
