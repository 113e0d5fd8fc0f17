//! Our received connection: the floor's clip over WebRTC into a chain, at 1, 10 and 20 connections. Prints JSON.
//!
//! The server runs in a process of its own for each count; the visitors run in another, whose cost does not
//! count.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use server::Server;
use visitor::Manner;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod server;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["visitors", url, count] => send(url, count.parse().expect("a number")),
        [count] => println!("{}", measure(count.parse().expect("a number"))),
        _ => {
            println!("{:#}", process::rounds("receive", &[1, 10, 20]));
        }
    }
}

/// The visitors' process.
fn send(url: &str, count: usize) {
    let frames = Arc::new(clip::clip());
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            // Apart, as visitors come, so that each answer is measured alone.
            std::thread::sleep(Duration::from_millis(40));
            let (url, frames, stop) = (url.to_owned(), frames.clone(), stop.clone());
            std::thread::spawn(move || visitor::visit(&url, &frames, Manner::Polite, &stop))
        })
        .collect();
    std::thread::sleep(WARM_UP + MEASURED + Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let visits: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("it ends"))
        .map(|v| {
            serde_json::json!({"pc_id": v.pc_id, "posted_at": v.posted_at, "answered_ms": v.answered_ms, "closed_at": v.closed_at_epoch,
                "connected_ms": v.connected_ms, "results": v.results})
        })
        .collect();
    println!("{}", serde_json::Value::Array(visits));
}

#[derive(Default)]
struct Seen {
    /// When each connection's first decoded frame was said, nanoseconds since the epoch.
    first_frame: HashMap<String, u64>,
    frames: HashMap<String, u64>,
    /// When the last word about each was said, the same.
    ended: HashMap<String, u64>,
}

fn measure(count: usize) -> serde_json::Value {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let server = Server::start("fakesink sync=false", &[], {
        let seen = seen.clone();
        move |said| note(&mut seen.lock().expect("nobody panicked"), said)
    });
    let before = process::usage();
    let visitors = server
        .visitors(count)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    while seen.lock().expect("nobody panicked").first_frame.len() < count {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(WARM_UP);
    let (since, warm) = (Instant::now(), process::usage());
    std::thread::sleep(MEASURED);
    let (lasted, after) = (since.elapsed().as_secs_f64(), process::usage());
    let output = visitors.wait_with_output().expect("they end");
    let visits: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).expect("they print JSON");
    server.stop();
    let seen = seen.lock().expect("nobody panicked");
    let since = |what: &str, of: &HashMap<String, u64>| -> Vec<f64> {
        let times = visits.iter().filter_map(|visit| {
            let at = of.get(visit["pc_id"].as_str()?)?;
            Some((*at as f64 - visit[what].as_f64()?) / 1e6)
        });
        times.collect()
    };
    let (first, ended) = (
        since("posted_at", &seen.first_frame),
        since("closed_at", &seen.ended),
    );
    let answered = visits
        .iter()
        .filter_map(|visit| visit["answered_ms"].as_f64())
        .collect();
    let share = (after.cpu - warm.cpu).as_secs_f64() / lasted * 100.0;
    serde_json::json!({
        "connections": count,
        "cpu_percent_each": share / count as f64,
        "rss_mb_each": (after.rss_mb - before.rss_mb) / count as f64,
        "threads_each": f64::from(after.threads - before.threads) / count as f64,
        "answer_ms": spread(answered),
        "first_frame_ms": spread(first),
        "end_ms": spread(ended),
        "frames": seen.frames.values().sum::<u64>(),
    })
}

fn note(seen: &mut Seen, structure: &gst::StructureRef) {
    let text = |name: &str| structure.get::<String>(name).unwrap_or_default();
    match structure.name().as_str() {
        "rtc-stream-started" => {
            seen.first_frame
                .insert(text("connection-id"), visitor::epoch());
        }
        "rtc-stream-ended" => {
            let frames = structure.get("buffers").unwrap_or_default();
            seen.frames.insert(text("connection-id"), frames);
        }
        "rtc-connection-ended" => {
            seen.ended.insert(text("connection-id"), visitor::epoch());
        }
        _ => {}
    }
}

/// First, median and largest: the first visitor pays for what is made once.
fn spread(values: Vec<f64>) -> serde_json::Value {
    let first = values.first().copied();
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    serde_json::json!({
        "first": first,
        "median": sorted.get(sorted.len() / 2),
        "max": sorted.last(),
    })
}
