//! The engines alone against each other, and the element against its engine alone: one stream and 16, on the same model and
//! frames, taking turns. Prints JSON. Arguments: `--device cuda:0` adds ONNX Runtime there, and `--device cpu` on the cores, with
//! runs shared by the streams of a model that gains from it, compared to loops of whole batches on as many threads.
//!
//! `added_ms` is what one live stream of 640×480 at 30 a second waits beyond the inference of a model of 640×640.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_check::Harness;
use gstrtcinference::engine::choice::{Device, EngineChoice};
use gstrtcinference::engine::model::{Model, ModelOptions};
use gstrtcinference::engine::onnxruntime::library;
use gstrtcinference::engine::tensor::Tensor;
use serde_json::{Value, json};

#[allow(dead_code, reason = "each bench uses some of it")]
mod onnx;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;

const ROUNDS: usize = 7;
const WINDOW: Duration = Duration::from_secs(2);
/// Frames of each stream, on average, that a window lasts for at least, so that one more or less is no great share, up to a limit.
const FRAMES: u64 = 20;
const LONGEST: Duration = Duration::from_secs(15);
const STREAMS: usize = 16;
/// Frames of a shared run: so few that other runs wait meanwhile, and so many that all streams are in the two that go on.
const BATCHES: [usize; 2] = [4, 8];

fn main() {
    gst::init().expect("GStreamer is installed");
    gstrtcinference::plugin_register_static().expect("it registers");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["memory", streams] => println!("{}", memory(streams.parse().expect("a number"))),
        [] => compare(None),
        ["--device", device] => compare(Some(device.parse().expect("cpu, cuda:N or tensorrt:N"))),
        _ => panic!("usage: inference [--device cpu|cuda:N|tensorrt:N]"),
    }
}

fn compare(sharing: Option<Device>) {
    let detector = onnx::detector();
    let shapes = PathBuf::from("models/shapes.onnx");
    let mut engines = Vec::new();
    let mut elements = Vec::new();
    for engine in [EngineChoice::Rten, EngineChoice::OnnxRuntime] {
        for file in [&shapes, &detector] {
            engines.push(alone(file, engine, Device::Cpu, 1));
        }
        elements.push(element(&detector, engine, Device::Cpu, 1));
    }
    if let Some(device) = sharing {
        let engine = EngineChoice::OnnxRuntime;
        let dense = onnx::dense();
        for file in [&shapes, &detector, &dense] {
            engines.push(alone(file, engine, device, BATCHES[1]));
        }
        // On cores the detector gains nothing.
        let gain: &[_] = match device {
            Device::Cpu => &[&dense],
            _ => &[&detector, &dense],
        };
        for file in gain {
            elements.extend(BATCHES.map(|batch| element(file, engine, device, batch)));
        }
    }
    let memory: Vec<Value> = [1, STREAMS].map(in_a_process_of_its_own).into();
    println!(
        "{:#}",
        json!({
            "bench": "inference", "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "engines": engines, "elements": elements, "memory": memory,
        })
    );
}

fn options(path: &Path, engine: EngineChoice, device: Device, batch: usize) -> ModelOptions {
    ModelOptions {
        path: path.into(),
        engine,
        device,
        runtime_library: runtime(engine),
        threads: 1,
        max_batch: batch,
        ..ModelOptions::default()
    }
}

/// What the environment names, else that of the tests' Python clients.
fn runtime(engine: EngineChoice) -> Option<PathBuf> {
    let named = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let found = || library::of_python(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.venv")));
    named
        .or_else(found)
        .filter(|_| engine == EngineChoice::OnnxRuntime)
}

/// Runs of a model, one after the other, on an input that does not change.
struct Loop {
    model: Arc<Model>,
    input: Tensor,
}

impl Loop {
    fn new(options: &ModelOptions, frames: usize) -> Self {
        let model = Model::load(options).expect("it can be loaded");
        let spec = &model.info().input;
        let input = Tensor::zeros(&spec.shape(frames), spec.element);
        Loop { model, input }
    }

    /// Frames a second.
    fn run(&self) -> f64 {
        let frames = self.input.shape[0] as f64;
        let begin = Instant::now();
        let mut runs = 0;
        while begin.elapsed() < WINDOW {
            self.model.run(&self.input, None).expect("it runs");
            runs += 1;
        }
        f64::from(runs) * frames / begin.elapsed().as_secs_f64()
    }

    /// On as many threads at a time as the scheduler has.
    fn run_at_once(&self) -> f64 {
        let threads = match self.model.info().device.as_str() {
            "cpu" => std::thread::available_parallelism().map_or(1, usize::from),
            // One runs and one is made ready.
            _ => 2,
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.run())).collect();
            let rates = running.into_iter().map(|one| one.join().expect("it runs"));
            rates.sum()
        })
    }
}

fn alone(path: &Path, engine: EngineChoice, device: Device, batch: usize) -> Value {
    let options = options(path, engine, device, batch);
    let one = Loop::new(&options, 1);
    let rates: Vec<f64> = (0..ROUNDS).map(|_| one.run()).collect();
    let mut row = json!({
        "engine": one.model.info().engine, "device": one.model.info().device, "model": one.model.info().name,
        "ms": 1000.0 / median(&rates), "ms_between": [1000.0 / most(&rates), 1000.0 / least(&rates)],
    });
    if batch > 1 {
        let several = Loop::new(&options, batch);
        let rates: Vec<f64> = (0..ROUNDS).map(|_| several.run()).collect();
        row["batch"] = json!({"frames": batch, "frames_per_second": median(&rates)});
    }
    row
}

/// Frames into a sink of its own, one after the other, while it is told to.
struct Stream {
    sink: gst::Element,
    go: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    end: Arc<AtomicBool>,
}

impl Stream {
    fn new(properties: &str) -> Self {
        let mut harness = Harness::new_parse(&format!(
            "inferencesink when-busy=wait post-messages=false stats-interval=0 {properties}"
        ));
        harness.set_src_caps_str("video/x-raw,format=I420,width=640,height=480,framerate=30/1");
        let sink = harness.element().expect("it is there");
        let sink = match sink.downcast::<gst::Bin>() {
            Ok(bin) => bin.iterate_sinks().next().expect("one").expect("one"),
            Err(element) => element,
        };
        let (go, end) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = std::thread::spawn({
            let (go, end) = (go.clone(), end.clone());
            move || {
                harness.play();
                let frame = gst::Buffer::from_slice(vec![128; 640 * 480 * 3 / 2]);
                while !end.load(Ordering::Relaxed) {
                    if go.load(Ordering::Relaxed) {
                        harness.push(frame.copy()).expect("it is taken");
                    } else {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        Stream {
            sink,
            go,
            end,
            thread: Some(thread),
        }
    }

    fn inferred(&self) -> u64 {
        let stats: gst::Structure = self.sink.property("stats");
        stats.get("inferred").expect("it is counted")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

/// Frames a second of each.
fn rates(streams: &[Stream]) -> Vec<f64> {
    let go = |go: bool| {
        let all = streams.iter();
        all.for_each(|stream| stream.go.store(go, Ordering::Relaxed));
    };
    go(true);
    std::thread::sleep(Duration::from_millis(300));
    let (begin, before) = (Instant::now(), counts(streams));
    let wanted = FRAMES * streams.len() as u64 + before.iter().sum::<u64>();
    std::thread::sleep(WINDOW);
    while counts(streams).iter().sum::<u64>() < wanted && begin.elapsed() < LONGEST {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (lasted, after) = (begin.elapsed().as_secs_f64(), counts(streams));
    go(false);
    std::thread::sleep(Duration::from_millis(300));
    let counts = after.iter().zip(&before);
    counts
        .map(|(after, before)| (after - before) as f64 / lasted)
        .collect()
}

fn counts(streams: &[Stream]) -> Vec<u64> {
    streams.iter().map(Stream::inferred).collect()
}

fn element(path: &Path, engine: EngineChoice, device: Device, batch: usize) -> Value {
    let options = options(path, engine, device, batch);
    let raw = Loop::new(&options, 1);
    let raw_batch = (batch > 1).then(|| Loop::new(&options, batch));
    let library = options.runtime_library.as_deref().unwrap_or(Path::new(""));
    let nick = match engine {
        EngineChoice::Rten => "rten",
        _ => "onnxruntime",
    };
    let properties = format!(
        "model={} engine={nick} device={device} threads=1 max-batch={batch} runtime-library=\"{}\"",
        path.display(),
        library.display()
    );
    let one = [Stream::new(&properties)];
    let many: Vec<Stream> = (0..STREAMS).map(|_| Stream::new(&properties)).collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let raw = raw.run();
        let raw_batch = raw_batch.as_ref().map(Loop::run_at_once);
        let alone = rates(&one)[0];
        let shares = rates(&many);
        let together: f64 = shares.iter().sum();
        rounds.push(json!({
            "raw": raw, "raw_batch": raw_batch, "one": alone, "many": together,
            "least_share": least(&shares) * STREAMS as f64 / together,
        }));
    }
    drop((one, many));
    let of = |what: &str| -> Vec<f64> {
        let values = rounds.iter().filter_map(|round| round[what].as_f64());
        values.collect()
    };
    let ratio = |of_what: &str, to: &str| -> Value {
        let (above, below) = (of(of_what), of(to));
        let ratios: Vec<f64> = above.iter().zip(&below).map(|(a, b)| a / b).collect();
        match ratios.is_empty() {
            true => Value::Null,
            false => json!({"median": median(&ratios), "between": [least(&ratios), most(&ratios)]}),
        }
    };
    let added: Vec<(f64, f64)> = (0..ROUNDS).map(|_| added_ms(&properties)).collect();
    let medians: Vec<f64> = added.iter().map(|(p50, _)| *p50).collect();
    let tails: Vec<f64> = added.iter().map(|(_, p95)| *p95).collect();
    json!({
        "engine": nick, "device": device.to_string(), "model": raw.model.info().name, "streams": STREAMS, "batch": batch,
        "frames_per_second": {"raw": median(&of("raw")), "one": median(&of("one")), "many": median(&of("many"))},
        "one_to_raw": ratio("one", "raw"), "many_to_one": ratio("many", "one"),
        "many_to_raw_batch": ratio("many", "raw_batch"), "least_share": least(&of("least_share")),
        "added_ms": {"p50": median(&medians), "p50_between": [least(&medians), most(&medians)], "p95": median(&tails)},
    })
}

/// What a live stream's frames take beyond the inference, p50 and p95.
fn added_ms(properties: &str) -> (f64, f64) {
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc is-live=true num-buffers=90 pattern=ball \
         ! video/x-raw,format=I420,width=640,height=480,framerate=30/1 ! inferencesink {properties}"
    ))
    .expect("the base plugins are installed");
    let bus = pipeline.bus().expect("a pipeline has one");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let mut added = Vec::new();
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            gst::MessageView::Element(said) if said.has_name("inference-result") => {
                let json: String = said
                    .structure()
                    .and_then(|structure| structure.get("json").ok())
                    .expect("a result has its JSON");
                let result: Value = serde_json::from_str(&json).expect("it is JSON");
                let ms =
                    |stage: &str| result["timing_us"][stage].as_f64().expect("it is told") / 1000.0;
                added.push(ms("total") - ms("inference"));
            }
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null).expect("it stops");
    // The first ones pay for what is made once.
    let mut added = added.split_off(10);
    added.sort_by(f64::total_cmp);
    (added[added.len() / 2], added[added.len() * 95 / 100])
}

/// Memory in RAM of so many streams of a model of 41 MB, in this process.
fn memory(streams: usize) -> Value {
    let path = onnx::heavy();
    let library = runtime(EngineChoice::OnnxRuntime).expect("scripts/setup has installed it");
    let properties = format!(
        "model={} engine=onnxruntime threads=1 runtime-library={}",
        path.display(),
        library.display()
    );
    let before = process::usage().rss_mb;
    let streams: Vec<Stream> = (0..streams).map(|_| Stream::new(&properties)).collect();
    rates(&streams);
    json!({"streams": streams.len(), "rss_mb": process::usage().rss_mb - before})
}

fn in_a_process_of_its_own(streams: usize) -> Value {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["memory", &streams.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
