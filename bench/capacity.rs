//! How many connections this machine holds: each 640×480 at 30 a second, decoded, and ten results a second of
//! models/shapes.onnx on ONNX Runtime. Prints JSON, a row for each count; without arguments it grows until something gives.
//!
//! What gives first are results, which is as it should be and does not count; frames that are missing or late do.
//!
//! The visitors run in another process, on the same cores. A frame's lateness is how much later it is decoded, by its own
//! timestamp, than the earliest of its stream was.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use crowd::Crowd;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use gstrtcinference::engine::onnxruntime::library;
use serde_json::{Value, json};
use server::Server;

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
mod crowd;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod server;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

/// Apart, as visitors come: keyframes of all at once would be a load of their own.
const APART: Duration = Duration::from_millis(237);
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
        ["visitors", url, count] => {
            crowd::be(url, count.parse().expect("a number"), clip::clip(), APART);
        }
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

fn measure(count: usize) -> Value {
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
    let results = Arc::new(AtomicU64::new(0));
    let server = Server::start(&chain, &[], {
        let results = results.clone();
        move |said| {
            if said.has_name("inference-result") {
                results.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let crowd = Crowd::come(&server, count);
    std::thread::sleep(WARM_UP);

    METERS
        .lock()
        .expect("nobody panics")
        .values_mut()
        .for_each(Metered::begin);
    let (begin, before) = (Instant::now(), process::usage());
    let results_before = results.load(Ordering::Relaxed);
    std::thread::sleep(MEASURED);
    let (lasted, after) = (begin.elapsed().as_secs_f64(), process::usage());
    let results = results.load(Ordering::Relaxed) - results_before;
    let meters: Vec<Metered> = METERS
        .lock()
        .expect("nobody panics")
        .values()
        .cloned()
        .collect();

    crowd.go();
    let frames = server.stop();
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
        "frames": frames,
        "holds": meters.len() == count && least_fps >= LEAST_FPS && p95 <= MOST_LATE_MS,
    })
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
