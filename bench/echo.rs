//! Video goes in, the same video comes back: ours beside FastRTC and bare aiortc, on the same clip in turn. Prints JSON.
//!
//! Each server decodes and encodes again, in a process of its own; but for our untouched pass-through, reported beside it. The visitors share the machine with it and cost little:
//! they count what comes back without decoding it, but for the first frames of each, whose painted numbers say which RTP time
//! belongs to which frame, and all frames of one visitor, whose pictures are compared with what was sent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_video::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use str0m::media::MediaData;
use visitor::{Door, Mirror};

#[allow(dead_code, reason = "each bench uses some of it")]
mod clip;
#[allow(dead_code, reason = "each bench uses some of it")]
mod process;
#[allow(dead_code, reason = "each bench uses some of it")]
mod server;
#[allow(dead_code, reason = "each bench uses some of it")]
mod visitor;

/// Until every visitor got a frame back; those who have none by then count as they are.
const PATIENCE: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(8);
/// A server that is silent for longer is stuck.
const SILENCE: Duration = Duration::from_secs(60);
/// A connection that gets fewer frames a second is not held.
const HELD_FPS: f64 = 28.0;
/// Frames that tell a visitor which RTP time is which frame.
const FIRST_FRAMES: usize = 20;
/// Between two requests for a keyframe.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// RTP time from one frame to the next.
const TICKS: u64 = 90_000 / clip::FPS as u64;
/// What a server that counts in other units may be off by.
const ROUNDING: u64 = 3;

const USAGE: &str = "bench/echo [ours|ours-untouched|fastrtc|fastrtc-uncalled|aiortc ...] [--connections 1,4,8] [--rounds 3] \
    [--bitrate 1000000|default]";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Ours,
    /// Sends back the frames that come, without decoding them.
    OursUntouched,
    FastRtc,
    /// Without an input, FastRTC converts each frame and does not call its handler.
    FastRtcUncalled,
    Aiortc,
}

impl Server {
    const ALL: [Self; 5] = [
        Self::Ours,
        Self::OursUntouched,
        Self::Aiortc,
        Self::FastRtc,
        Self::FastRtcUncalled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursUntouched => "ours-untouched",
            Self::FastRtc => "fastrtc",
            Self::FastRtcUncalled => "fastrtc-uncalled",
            Self::Aiortc => "aiortc",
        }
    }

    fn door(self) -> Door {
        match self {
            Self::Ours | Self::OursUntouched | Self::Aiortc => Door::Offer,
            Self::FastRtc => Door::FastRtc { input: true },
            Self::FastRtcUncalled => Door::FastRtc { input: false },
        }
    }

    /// That of one of ours.
    fn chain(self) -> &'static str {
        match self {
            Self::OursUntouched => "capsfilter caps=video/x-vp8",
            _ => "identity",
        }
    }

    fn command(self, bitrate: Option<u32>) -> Command {
        let python = |script: &str| {
            let mut command = Command::new("target/echo-venv/bin/python");
            command.arg(format!("bench/echo_servers/{script}"));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            bitrate.iter().for_each(|bits| {
                command.args(["--bitrate", &bits.to_string()]);
            });
            command
        };
        match self {
            Self::Ours | Self::OursUntouched => {
                let mut command = Command::new(std::env::current_exe().expect("it runs"));
                command.args(["serve", self.chain()]);
                command.args(bitrate.iter().map(u32::to_string));
                command
            }
            Self::FastRtc | Self::FastRtcUncalled => python("fastrtc_server.py"),
            Self::Aiortc => python("aiortc_server.py"),
        }
    }
}

struct Plan {
    servers: Vec<Server>,
    connections: Vec<usize>,
    rounds: usize,
    /// Bits a second of what each server sends; absent: as it comes.
    bitrate: Option<u32>,
}

impl Plan {
    fn read(arguments: &[&str]) -> Option<Self> {
        let mut plan = Self {
            servers: Vec::new(),
            connections: vec![1, 4, 8, 12, 16, 20],
            rounds: 3,
            bitrate: Some(1_000_000),
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            match argument {
                "--connections" => {
                    let counts = arguments.next()?.split(',').map(str::parse);
                    plan.connections = counts.collect::<Result<_, _>>().ok()?;
                }
                "--rounds" => plan.rounds = arguments.next()?.parse().ok()?,
                "--bitrate" => {
                    plan.bitrate = match *arguments.next()? {
                        "default" => None,
                        bits => Some(bits.parse().ok()?),
                    }
                }
                name => {
                    let server = Server::ALL.into_iter().find(|s| s.name() == name)?;
                    plan.servers.push(server);
                }
            }
        }
        if plan.servers.is_empty() {
            plan.servers = vec![
                Server::Ours,
                Server::Aiortc,
                Server::FastRtc,
                Server::OursUntouched,
            ];
        }
        let fits = plan.rounds > 0 && plan.connections.iter().all(|n| (1..=50).contains(n));
        fits.then_some(plan)
    }
}

fn main() {
    gst::init().expect("GStreamer is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", chain] => serve(chain, None),
        ["serve", chain, bits] => serve(chain, Some(bits.parse().expect("a number"))),
        arguments => match Plan::read(arguments) {
            Some(plan) => println!("{:#}", compare(&plan)),
            None => {
                eprintln!("{USAGE}");
                std::process::exit(2);
            }
        },
    }
}

/// All of it so many times, the servers in turn, since other work on the machine comes and goes. A row is the run of median CPU.
fn compare(plan: &Plan) -> Value {
    let clip = Arc::new(Clip::new());
    let mut runs: HashMap<(usize, usize), Vec<Value>> = HashMap::new();
    for round in 1..=plan.rounds {
        for (c, &count) in plan.connections.iter().enumerate() {
            for (s, &server) in plan.servers.iter().enumerate() {
                let row = measure(server, count, plan.bitrate, &clip);
                eprintln!("{round}/{}: {row}", plan.rounds);
                runs.entry((s, c)).or_default().push(row);
            }
        }
    }
    let mut rows = Vec::new();
    let mut held = serde_json::Map::new();
    for (s, server) in plan.servers.iter().enumerate() {
        let mut holds = true;
        held.insert(server.name().into(), 0.into());
        for (c, &count) in plan.connections.iter().enumerate() {
            let row = median(runs.remove(&(s, c)).expect("it was run"));
            holds &= row["fps"]["min"].as_f64().is_some_and(|f| f >= HELD_FPS);
            if holds {
                held.insert(server.name().into(), count.into());
            }
            rows.push(row);
        }
    }
    json!({
        "bench": "echo",
        "clip_kbit_s": clip.kbit_s(),
        "bitrate": plan.bitrate,
        "seconds": MEASURED.as_secs(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "rows": rows,
        format!("most_connections_at_{HELD_FPS}_fps"): held,
    })
}

fn median(mut runs: Vec<Value>) -> Value {
    let cpu = |row: &Value| row["cpu_percent_each"].as_f64().unwrap_or(f64::NAN);
    runs.sort_by(|a, b| cpu(a).total_cmp(&cpu(b)));
    let between = [cpu(&runs[0]), cpu(&runs[runs.len() - 1])];
    let middle = runs.len() / 2;
    let mut row = runs.swap_remove(middle);
    row["cpu_percent_each_between"] = json!(between);
    row
}

/// The server's process, when it is ours: see `echo_servers/serving.py` for what it says.
fn serve(chain: &str, bitrate: Option<u32>) {
    let both = bitrate.map(|bitrate| [("min-bitrate", bitrate), ("max-bitrate", bitrate)]);
    let properties = both.as_ref().map_or(&[][..], |both| both);
    let server = server::Server::start(chain, properties, |_| ());
    println!("{}", json!({ "uri": server.url() }));
    for _ in std::io::stdin().lines() {
        let usage = process::usage();
        let at = clock_gettime(ClockId::Monotonic);
        let at = Duration::new(at.tv_sec as u64, at.tv_nsec as u32);
        let said = json!({
            "cpu_ns": usage.cpu.as_nanos() as u64, "at_ns": at.as_nanos() as u64, "rss_mb": usage.rss_mb,
            "threads": usage.threads,
        });
        println!("{said}");
    }
    server.stop();
}

/// A server's process, ended with this.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Value>,
    url: String,
}

impl Running {
    fn start(server: Server, bitrate: Option<u32>) -> Self {
        let mut child = server
            .command(bitrate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is installed: bench/echo sees to it");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (says, said) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Libraries may greet.
                if let Ok(value) = serde_json::from_str(&line) {
                    let _ = says.send(value);
                }
            }
        });
        let mut running = Self {
            stdin: child.stdin.take(),
            child,
            said,
            url: String::new(),
        };
        let uri = running.hear()["uri"]
            .as_str()
            .expect("it says it")
            .to_owned();
        running.url = uri.trim_end_matches('/').to_owned();
        running
    }

    fn hear(&self) -> Value {
        let said = self.said.recv_timeout(SILENCE);
        said.expect("the server runs and is not stuck")
    }

    /// CPU time and the moment, in seconds; resident memory in MB.
    fn usage(&mut self) -> [f64; 3] {
        let stdin = self.stdin.as_mut().expect("it is open until the end");
        writeln!(stdin).expect("the server runs");
        let said = self.hear();
        let number = |what: &str| said[what].as_f64().expect("a number");
        [
            number("cpu_ns") / 1e9,
            number("at_ns") / 1e9,
            number("rss_mb"),
        ]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let begin = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begin.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn measure(server: Server, count: usize, bitrate: Option<u32>, clip: &Arc<Clip>) -> Value {
    let mut running = Running::start(server, bitrate);
    let stop = Arc::new(AtomicBool::new(false));
    let local = address();
    let mut threads = Vec::new();
    let mut returned = Vec::new();
    for n in 0..count {
        // Apart, as visitors come.
        std::thread::sleep(Duration::from_millis(47));
        let (url, clip, stop) = (running.url.clone(), clip.clone(), stop.clone());
        let (begun, all_pictures) = (Arc::new(AtomicU64::new(0)), n == 0);
        returned.push(begun.clone());
        threads.push(std::thread::spawn(move || {
            let mut watch = Watch::new(clip.clone(), all_pictures, begun);
            let frames = &clip.frames;
            let visit =
                visitor::visit_and_look(&url, server.door(), local, frames, &mut watch, &stop);
            (watch.finish(), visit)
        }));
    }
    let begin = Instant::now();
    let waiting = || returned.iter().any(|n| n.load(Ordering::Relaxed) == 0);
    while waiting() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(WARM_UP);
    let (server_before, own_before, since) = (running.usage(), process::usage(), Instant::now());
    std::thread::sleep(MEASURED);
    let (server_after, own_after, until) = (running.usage(), process::usage(), Instant::now());
    stop.store(true, Ordering::Relaxed);
    let visits: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("nobody panics"))
        .collect();
    drop(running);

    let lasted = (until - since).as_secs_f64();
    let share = 100.0 / (server_after[1] - server_before[1]);
    let load = (own_after.cpu - own_before.cpu).as_secs_f64() / lasted * 100.0;
    let connected = visits.iter().filter(|(_, v)| v.connected_ms.is_some());
    let reports: Vec<Report> = visits
        .iter()
        .map(|(seen, _)| seen.report(since, until))
        .collect();
    let over = |of: &dyn Fn(&Report) -> f64| sorted(reports.iter().map(of).collect());
    let fps = over(&|r| r.frames as f64 / lasted);
    let kbit_s = over(&|r| r.bytes as f64 * 8.0 / 1000.0 / lasted);
    let sent: u64 = reports.iter().map(|r| r.sent).sum();
    let frames: u64 = reports.iter().map(|r| r.frames).sum();
    let latencies = |from: f64, to: f64| {
        let all = reports.iter().flat_map(|r| &r.latencies);
        let within = all.filter(|(at, _)| (from..to).contains(&(at / lasted)));
        sorted(within.map(|(_, ms)| *ms).collect())
    };
    let all = latencies(0.0, 1.0);
    let (first, last) = (latencies(0.0, 0.25), latencies(0.75, 1.0));
    let psnr = sorted(reports.iter().flat_map(|r| r.psnr.clone()).collect());
    json!({
        "server": server.name(),
        "connections": count,
        "connected": connected.count(),
        "cpu_percent_each": (server_after[0] - server_before[0]) * share / count as f64,
        "cpu_ms_a_frame": (server_after[0] - server_before[0]) * 1000.0 / frames as f64,
        "cpu_percent_visitors": load,
        "rss_mb": server_after[2],
        "fps": {"min": at(&fps, 0.0), "median": at(&fps, 0.5), "held": fps.iter().filter(|f| **f >= HELD_FPS).count()},
        "returned_percent": frames as f64 / sent as f64 * 100.0,
        "latency_ms": {"p50": at(&all, 0.5), "p95": at(&all, 0.95),
            "p50_first_quarter": at(&first, 0.5), "p50_last_quarter": at(&last, 0.5)},
        "psnr_y_db": {"mean": mean(&psnr), "p5": at(&psnr, 0.05), "frames": psnr.len()},
        "kbit_s": {"min": at(&kbit_s, 0.0), "median": at(&kbit_s, 0.5), "max": at(&kbit_s, 1.0)},
        "gaps": reports.iter().map(|r| r.gaps).sum::<u64>(),
        // What a server makes of frames whose predecessors it lost; else both 0, or latency and quality are not to be believed.
        "broken_pictures": {"unreadable": reports.iter().map(|r| r.unread).sum::<u64>(),
            "stale": reports.iter().map(|r| r.stale).sum::<u64>()},
    })
}

/// Where aiortc, which never uses 127.0.0.1, and the visitors meet.
fn address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("there is a network");
    // Nothing is sent: this only looks up which address a packet to elsewhere would leave from.
    let found = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    match found {
        Ok(address) if !address.ip().is_loopback() => address.ip(),
        _ => std::env::var("ECHO_ADDRESS")
            .ok()
            .and_then(|address| address.parse().ok())
            .expect("a route to elsewhere, or ECHO_ADDRESS: an address of this machine other than 127.0.0.1"),
    }
}

/// What is sent, encoded and as it looks.
struct Clip {
    frames: Vec<clip::Frame>,
    /// Decoded luma, without padding.
    luma: Vec<Vec<u8>>,
}

impl Clip {
    fn new() -> Self {
        let frames = clip::numbered_clip();
        let luma = Arc::new(Mutex::new(Vec::new()));
        let decoder = Decoder::new({
            let luma = luma.clone();
            move |_, picture| luma.lock().expect("nobody panics").push(picture.to_vec())
        });
        for (n, frame) in frames.iter().enumerate() {
            decoder.push(n as u64, &frame.data);
        }
        decoder.finish();
        let luma = std::mem::take(&mut *luma.lock().expect("nobody panics"));
        for (n, picture) in luma.iter().enumerate() {
            assert_eq!(clip::number(picture, WIDTH), Some(n), "it can be read");
        }
        assert_eq!(luma.len(), frames.len());
        Self { frames, luma }
    }

    fn kbit_s(&self) -> f64 {
        let bytes: usize = self.frames.iter().map(|frame| frame.data.len()).sum();
        bytes as f64 * 8.0 / 1000.0 * f64::from(clip::FPS) / self.frames.len() as f64
    }
}

const WIDTH: usize = 640;

/// Tells the luma of each frame that it is given, in a thread of its own.
struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl Decoder {
    fn new(mut seen: impl FnMut(u64, &[u8]) + Send + 'static) -> Self {
        let pipeline = gst::parse::launch(
            "appsrc name=in format=time caps=video/x-vp8 max-bytes=0 ! vp8dec threads=1 \
            ! video/x-raw,format=I420 ! appsink name=out sync=false",
        )
        .expect("base and good plugins are installed")
        .downcast::<gst::Pipeline>()
        .expect("it is a pipeline");
        let by_name = |name| pipeline.by_name(name).expect("it is named");
        let sink: gst_app::AppSink = by_name("out").downcast().expect("it is one");
        let source = by_name("in").downcast().expect("it is one");
        let new_sample = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let caps = sample.caps().expect("it has caps");
            let info = gst_video::VideoInfo::from_caps(caps).expect("it is video");
            let buffer = sample.buffer().expect("a sample has one");
            let number = buffer.pts().expect("it was given one").nseconds();
            let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
                .expect("it is readable");
            let stride = frame.plane_stride()[0] as usize;
            let plane = frame.plane_data(0).expect("it has luma");
            let rows = plane.chunks(stride).take(info.height() as usize);
            let luma: Vec<u8> = rows.flat_map(|row| &row[..WIDTH]).copied().collect();
            seen(number, &luma);
            Ok(gst::FlowSuccess::Ok)
        };
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(new_sample);
        sink.set_callbacks(callbacks.build());
        pipeline.set_state(gst::State::Playing).expect("it starts");
        Self { pipeline, source }
    }

    fn push(&self, number: u64, data: &[u8]) {
        let mut buffer = gst::Buffer::from_slice(data.to_vec());
        let fresh = buffer.get_mut().expect("it is new");
        fresh.set_pts(gst::ClockTime::from_nseconds(number));
        // What cannot be decoded is not seen.
        let _ = self.source.push_buffer(buffer);
    }

    /// Waits until all of it was seen.
    fn finish(self) {
        let _ = self.source.end_of_stream();
        let bus = self.pipeline.bus().expect("a pipeline has one");
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &wanted);
        self.pipeline.set_state(gst::State::Null).expect("it stops");
    }
}

/// A frame that came back.
struct Back {
    at: Instant,
    rtp: u64,
    bytes: usize,
}

/// What it looked like.
struct Picture {
    rtp: u64,
    /// Its place in the clip, as painted.
    number: Option<usize>,
    /// Against what was sent.
    psnr: f64,
}

/// One visitor's account of frames.
struct Watch {
    all_pictures: bool,
    begun: Arc<AtomicU64>,
    decoder: Option<Decoder>,
    pictures: Arc<Mutex<Vec<Picture>>>,
    given: usize,
    /// When each frame was given to the sender, and its place in the clip.
    sent: Vec<(Instant, usize)>,
    back: Vec<Back>,
    gaps: Vec<Instant>,
    /// Nothing can be made of what comes but of a keyframe, which was asked for then.
    lost_since: Option<Instant>,
}

impl Watch {
    fn new(clip: Arc<Clip>, all_pictures: bool, begun: Arc<AtomicU64>) -> Self {
        let pictures = Arc::new(Mutex::new(Vec::new()));
        let decoder = Decoder::new({
            let pictures = pictures.clone();
            move |rtp, luma| {
                let number = clip::number(luma, WIDTH);
                let sent = number.and_then(|number| clip.luma.get(number));
                let psnr = sent.map_or(f64::NAN, |sent| psnr(sent, luma));
                let picture = Picture { rtp, number, psnr };
                pictures.lock().expect("nobody panics").push(picture);
            }
        });
        Self {
            all_pictures,
            begun,
            decoder: Some(decoder),
            pictures,
            given: 0,
            sent: Vec::new(),
            back: Vec::new(),
            gaps: Vec::new(),
            lost_since: None,
        }
    }

    fn finish(mut self) -> Seen {
        if let Some(decoder) = self.decoder.take() {
            decoder.finish();
        }
        let pictures = std::mem::take(&mut *self.pictures.lock().expect("nobody panics"));
        Seen {
            pictures,
            sent: self.sent,
            back: self.back,
            gaps: self.gaps,
        }
    }
}

impl Mirror for Watch {
    fn sent(&mut self, number: u64, position: usize) {
        debug_assert_eq!(number, self.sent.len() as u64);
        self.sent.push((Instant::now(), position));
    }

    fn returned(&mut self, frame: MediaData) -> bool {
        let now = Instant::now();
        let keyframe = frame.is_keyframe();
        let first = self.back.is_empty();
        if (first || !frame.contiguous) && !keyframe && self.lost_since.is_none() {
            self.gaps.push(now);
            self.lost_since = Some(now);
            return true;
        }
        if let Some(since) = self.lost_since.filter(|_| !keyframe) {
            let again = now >= since + ASK_AGAIN;
            if again {
                self.lost_since = Some(now);
            }
            return again;
        }
        self.lost_since = None;
        self.begun.fetch_add(1, Ordering::Relaxed);
        let rtp = frame.time.numer();
        if let Some(decoder) = &self.decoder {
            decoder.push(rtp, &frame.data);
            self.given += 1;
        }
        if self.given == FIRST_FRAMES
            && !self.all_pictures
            && let Some(decoder) = self.decoder.take()
        {
            // Waiting for it would hold up what comes.
            std::thread::spawn(move || decoder.finish());
        }
        self.back.push(Back {
            at: now,
            rtp,
            bytes: frame.data.len(),
        });
        false
    }
}

/// The whole account, afterwards.
struct Seen {
    sent: Vec<(Instant, usize)>,
    back: Vec<Back>,
    pictures: Vec<Picture>,
    gaps: Vec<Instant>,
}

/// What happened in the time that counts.
struct Report {
    sent: u64,
    frames: u64,
    bytes: usize,
    gaps: u64,
    /// Seconds since the beginning, and milliseconds.
    latencies: Vec<(f64, f64)>,
    psnr: Vec<f64>,
    unread: u64,
    /// They show another frame than their RTP time says.
    stale: u64,
}

impl Seen {
    /// RTP time of the first frame that was sent: what most pictures agree on.
    fn origin(&self) -> Option<u64> {
        let came: HashMap<u64, Instant> = self.back.iter().map(|b| (b.rtp, b.at)).collect();
        let mut votes: HashMap<u64, u32> = HashMap::new();
        for picture in &self.pictures {
            let (Some(number), Some(came)) = (picture.number, came.get(&picture.rtp)) else {
                continue;
            };
            let sent = self.sent.iter().enumerate();
            // The clip repeats, but nothing comes back before it is sent.
            for (n, _) in sent.filter(|(_, (at, place))| *place == number && at <= came) {
                *votes
                    .entry(picture.rtp.wrapping_sub(n as u64 * TICKS))
                    .or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, votes)| *votes)
            .map(|(origin, _)| origin)
    }

    fn report(&self, since: Instant, until: Instant) -> Report {
        let within = |at: &Instant| (since..until).contains(at);
        let origin = self.origin();
        let source = |rtp: u64| {
            let ticks = rtp.wrapping_sub(origin?).wrapping_add(ROUNDING);
            let fits = ticks % TICKS <= 2 * ROUNDING;
            let number = usize::try_from(ticks / TICKS).ok()?;
            self.sent.get(number).filter(|_| fits)
        };
        let back: Vec<&Back> = self.back.iter().filter(|b| within(&b.at)).collect();
        let latencies = back.iter().filter_map(|back| {
            let (sent, _) = source(back.rtp)?;
            let late = back.at.saturating_duration_since(*sent);
            Some(((back.at - since).as_secs_f64(), late.as_secs_f64() * 1000.0))
        });
        let times: HashMap<u64, Instant> = back.iter().map(|b| (b.rtp, b.at)).collect();
        let counted = self.pictures.iter().filter(|p| times.contains_key(&p.rtp));
        let stale = self.pictures.iter().filter(|picture| {
            let told = source(picture.rtp).map(|(_, place)| *place);
            picture.number.is_some() && told != picture.number
        });
        let unread = self.pictures.iter().filter(|p| p.number.is_none());
        Report {
            sent: self.sent.iter().filter(|(at, _)| within(at)).count() as u64,
            frames: back.len() as u64,
            bytes: back.iter().map(|b| b.bytes).sum(),
            gaps: self.gaps.iter().filter(|at| within(at)).count() as u64,
            latencies: latencies.collect(),
            psnr: counted
                .map(|p| p.psnr)
                .filter(|db| db.is_finite())
                .collect(),
            unread: unread.count() as u64,
            stale: stale.count() as u64,
        }
    }
}

fn psnr(sent: &[u8], came: &[u8]) -> f64 {
    let squares = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b)).pow(2);
    let sum: u64 = sent.iter().zip(came).map(squares).sum();
    10.0 * (255.0 * 255.0 * sent.len() as f64 / sum.max(1) as f64).log10()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value that such a share of them is below.
fn at(sorted: &[f64], share: f64) -> Option<f64> {
    let place = (sorted.len().max(1) - 1) as f64 * share;
    sorted.get(place.round() as usize).copied()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
