//! How many connections this machine holds: each 640×480 at 30 a second, decoded, and ten results a second of
//! models/shapes.onnx on ONNX Runtime. Prints JSON, a row for each count; without arguments it grows until something gives.
//!
//! What gives first are results, which is as it should be and does not count; frames that are missing or late do.
//!
//! The visitors run in another process, on the same cores. A frame's lateness is how much later it is decoded, by its own
//! timestamp, than the earliest of its stream was.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use gstrtcinference::engine::onnxruntime::library;
use serde_json::{Value, json};
use visitor::Manner;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(20);
const RESULTS: f64 = 10.0;
/// What "gives": a stream with fewer frames, or frames that are later.
const LEAST_FPS: f64 = 29.0;
const MOST_LATE_MS: f64 = 50.0;

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["visitors", url, count] => send(url, count.parse().expect("a number")),
        ["one", count] => println!("{}", measure(count.parse().expect("a number"))),
        [] => {
            let mut rows = Vec::new();
            for count in (4..).step_by(4) {
                let row = in_a_process_of_its_own(count);
                let holds = row["holds"] == true;
                rows.push(row);
                if !holds {
                    break;
                }
            }
            print(&rows);
        }
        _ => {
            let counts = arguments
                .iter()
                .map(|count| count.parse().expect("a number"));
            print(&counts.map(in_a_process_of_its_own).collect::<Vec<_>>());
        }
    }
}

fn print(rows: &[Value]) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{:#}",
        json!({"bench": "capacity", "cores": cores, "rows": rows})
    );
}

fn in_a_process_of_its_own(count: usize) -> Value {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["one", &count.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The visitors' process: says when all are there, and stays until its standard input ends.
fn send(url: &str, count: usize) {
    let frames = Arc::new(clip::clip());
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            // Apart, as visitors come: keyframes of all at once would be a load of their own.
            std::thread::sleep(Duration::from_millis(237));
            let (url, frames, stop) = (url.to_owned(), frames.clone(), stop.clone());
            std::thread::spawn(move || visitor::visit(&url, &frames, Manner::Polite, &stop))
        })
        .collect();
    println!("there");
    let _ = std::io::stdin().read_line(&mut String::new());
    stop.store(true, Ordering::Relaxed);
    let mut results = 0;
    for thread in threads {
        let visit = thread.join().expect("nobody panics");
        assert!(visit.refused.is_none(), "{:?}", visit.refused);
        results += visit.results;
    }
    println!("{results}");
}

#[derive(Default)]
struct Seen {
    uri: Option<String>,
    results: u64,
    /// The last books of each inference element that has gone.
    books: HashMap<String, [u64; 5]>,
}

fn measure(count: usize) -> Value {
    gstrtcinference::plugin_register_static().expect("it registers");
    gst::Element::register(None, "meter", gst::Rank::NONE, Meter::static_type())
        .expect("nothing else is called so");
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map(Into::into)
        .or_else(|| library::of_python(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.venv"))));
    let library = library.expect("scripts/setup has installed it");
    let chain = format!(
        "meter ! framemeta ! videorate ! video/x-raw,framerate={RESULTS}/1 \
         ! inferencesink model=models/shapes.onnx engine=onnxruntime runtime-library={}",
        library.display()
    );
    let source = gst::ElementFactory::make("rtcsessionsrc")
        .property("listen", "http://127.0.0.1:0")
        .property("video-chain", chain)
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
    let uri = seen.lock().expect("nobody panics").uri.clone();
    let url = uri.expect("it listens");

    let mut visitors = Command::new(std::env::current_exe().expect("it runs"))
        .args(["visitors", url.trim_end_matches('/'), &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut said = BufReader::new(visitors.stdout.take().expect("it is piped"));
    said.read_line(&mut String::new())
        .expect("it says something");
    std::thread::sleep(WARM_UP);

    METERS
        .lock()
        .expect("nobody panics")
        .values_mut()
        .for_each(Metered::begin);
    let (begin, before) = (Instant::now(), process::usage());
    let results_before = seen.lock().expect("nobody panics").results;
    std::thread::sleep(MEASURED);
    let (lasted, after) = (begin.elapsed().as_secs_f64(), process::usage());
    let results = seen.lock().expect("nobody panics").results - results_before;
    let meters: Vec<Metered> = METERS
        .lock()
        .expect("nobody panics")
        .values()
        .cloned()
        .collect();

    drop(visitors.stdin.take());
    assert!(visitors.wait().expect("it ends").success());
    pipeline.set_state(gst::State::Null).expect("it stops");
    let seen = seen.lock().expect("nobody panics");
    let mut sums = [0; 5];
    for books in seen.books.values() {
        sums.iter_mut()
            .zip(books)
            .for_each(|(sum, count)| *sum += count);
    }
    let [received, inferred, dropped, failed, pending] = sums;
    let fps: Vec<f64> = meters
        .iter()
        .map(|meter| meter.late.len() as f64 / lasted)
        .collect();
    let least_fps = fps.iter().copied().fold(f64::INFINITY, f64::min);
    let mut late: Vec<f64> = meters.iter().flat_map(Metered::lateness_ms).collect();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).copied();
    let p95 = at(0.95).unwrap_or(f64::INFINITY);
    json!({
        "connections": count, "least_fps": least_fps, "lateness_ms": {"p50": at(0.5), "p95": p95, "p99": at(0.99)},
        "results_per_second_each": results as f64 / lasted / count as f64,
        "cpu_percent": (after.cpu - before.cpu).as_secs_f64() / lasted * 100.0, "rss_mb": after.rss_mb,
        "frames": {"received": received, "inferred": inferred, "dropped": dropped, "failed": failed, "pending": pending,
            "add_up": received == inferred + dropped + failed + pending},
        "holds": meters.len() == count && least_fps >= LEAST_FPS && p95 <= MOST_LATE_MS,
    })
}

fn note(seen: &mut Seen, message: &gst::Message) {
    let Some(said) = message.structure() else {
        return;
    };
    match said.name().as_str() {
        "rtc-listening" => seen.uri = said.get("uri").ok(),
        "inference-result" => seen.results += 1,
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

/// Of each meter, by its path.
static METERS: LazyLock<Mutex<HashMap<String, Metered>>> = LazyLock::new(Mutex::default);
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When the frames of one stream came, each against its own timestamp; nanoseconds.
#[derive(Clone, Default)]
struct Metered {
    late: Vec<i64>,
    earliest: i64,
}

impl Metered {
    fn begin(&mut self) {
        self.late.clear();
    }

    fn lateness_ms(&self) -> impl Iterator<Item = f64> {
        let late = self.late.iter();
        late.map(|late| (late - self.earliest) as f64 / 1e6)
    }
}

glib::wrapper! {
    pub struct Meter(ObjectSubclass<imp::Meter>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Notes when frames come through it.
mod imp {
    use super::*;

    #[derive(Default)]
    pub struct Meter;

    #[glib::object_subclass]
    impl ObjectSubclass for Meter {
        const NAME: &'static str = "BenchMeter";
        type Type = super::Meter;
        type ParentType = gst_base::BaseTransform;
    }

    impl ObjectImpl for Meter {}
    impl GstObjectImpl for Meter {}

    impl ElementImpl for Meter {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Meter",
                    "Filter/Analyzer/Video",
                    "Notes when frames come",
                    "The rtcinference authors",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                [
                    ("sink", gst::PadDirection::Sink),
                    ("src", gst::PadDirection::Src),
                ]
                .map(|(name, direction)| {
                    let any = gst::Caps::new_any();
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &any)
                        .expect("the template is valid")
                })
                .into()
            });
            &TEMPLATES
        }
    }

    impl BaseTransformImpl for Meter {
        const MODE: gst_base::subclass::BaseTransformMode =
            gst_base::subclass::BaseTransformMode::AlwaysInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = true;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = true;

        fn transform_ip_passthrough(
            &self,
            buffer: &gst::Buffer,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let now = BEGIN.elapsed().as_nanos() as i64;
            if let Some(pts) = buffer.pts() {
                let late = now - pts.nseconds() as i64;
                let mut meters = METERS.lock().expect("nobody panics");
                let path = self.obj().path_string().to_string();
                let metered = meters.entry(path).or_insert_with(|| Metered {
                    earliest: late,
                    ..Metered::default()
                });
                metered.earliest = metered.earliest.min(late);
                metered.late.push(late);
            }
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
