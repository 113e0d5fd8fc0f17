//! Visitors who come and go: 1,000 against one process, a tenth of them killed. Prints JSON.
//!
//! The visitors run in another process, so that what they leave behind does not count. With an argument it is so
//! many visitors.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

const VISITORS: usize = 1000;
/// At a time.
const TOGETHER: usize = 8;
/// Every so many one vanishes.
const VANISHING: usize = 10;
const STAY: Duration = Duration::from_millis(150);
/// What is idle is given back after a while: the threads of a pool, the stacks of threads.
const REST: Duration = Duration::from_secs(20);

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["visitors", url, count] => come_and_go(url, count.parse().expect("a number")),
        [count] => run(count.parse().expect("a number")),
        _ => run(VISITORS),
    }
}

/// The visitors' process.
fn come_and_go(url: &str, count: usize) {
    let frames = Arc::new(clip::clip());
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..TOGETHER)
        .map(|_| {
            let (url, frames, next) = (url.to_owned(), frames.clone(), next.clone());
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let manner = match number % VANISHING {
                        0 => Manner::Vanishing,
                        _ => Manner::Polite,
                    };
                    let stop = Arc::new(AtomicBool::new(false));
                    let timer = stop.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(STAY);
                        timer.store(true, Ordering::Relaxed);
                    });
                    let visit = visitor::visit(&url, &frames, manner, &stop);
                    assert!(visit.refused.is_none(), "{:?}", visit.refused);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("nobody panics");
    }
}

#[derive(Default)]
struct Seen {
    reasons: std::collections::BTreeMap<String, usize>,
    ended: usize,
}

fn run(count: usize) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let server = Server::start("framemeta ! fakesink", &[("disconnect-timeout", 1000)], {
        let seen = seen.clone();
        move |said| {
            if said.has_name("rtc-connection-ended") {
                let reason = said.get("reason").expect("an end has one");
                let mut seen = seen.lock().expect("nobody panics");
                *seen.reasons.entry(reason).or_default() += 1;
                seen.ended += 1;
            }
        }
    });
    let visitors = |count: usize| {
        let mut visitors = server.visitors(count);
        visitors.stdout(Stdio::null()).status().expect("it runs")
    };
    let wait = |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while seen.lock().expect("nobody panics").ended < count {
            assert!(Instant::now() < deadline, "not everyone ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(REST);
        process::usage()
    };
    // The first fifth makes what is made once.
    let early = count / 5;
    assert!(visitors(1).success());
    let start = wait(1);
    assert!(visitors(early).success());
    let before = wait(1 + early);
    assert!(visitors(count - early).success());
    let after = wait(1 + count);
    let tell = |usage: process::Usage| {
        serde_json::json!({
            "threads": usage.threads, "descriptors": usage.descriptors, "rss_mb": usage.rss_mb,
        })
    };
    let reasons = seen.lock().expect("nobody panics").reasons.clone();
    println!(
        "{:#}",
        serde_json::json!({
            "bench": "churn", "connections": count, "ended": reasons,
            "after_one": tell(start), "after_a_fifth": tell(before), "after_all": tell(after),
            "rss_growth_percent": (after.rss_mb / before.rss_mb - 1.0) * 100.0,
        })
    );
    server.stop();
}
