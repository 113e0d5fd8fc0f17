//! Models that many streams share, and that change while they run.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_check::Harness;

use crate::{
    Overheard,
    inferring::{CAPS, Gate, MODEL, PATIENCE, counts, frame, named, pipeline, stats, until_eos},
    init,
};

const ONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/colours.onnx");
const OTHER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/colours_unnamed.onnx"
);
const ENDLESS: &str = "videotestsrc ! video/x-raw,format=I420,width=64,height=32,framerate=30/1";

fn hash(sink: &gst::Element) -> String {
    sink.property::<Option<String>>("model-hash").unwrap()
}

/// Waits until each of these notifies of a model it takes over.
fn watch(sinks: &[gst::Element]) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    for sink in sinks {
        let tell = tell.clone();
        sink.connect_notify(Some("model-hash"), move |sink, _| {
            // Nobody listens when it is let go.
            let _ = tell.send(
                sink.property::<Option<String>>("model-hash")
                    .unwrap_or_default(),
            );
        });
    }
    told
}

/// Memory of this process that is in RAM, MiB.
fn rss() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096 / (1 << 20)
}

/// Threads of ours that load or infer.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = ["inferencesink", "model-loader"];
    names.filter(|name| ours.contains(&name.trim())).count()
}

/// What the results of each sink said, by its name.
#[derive(Default)]
struct Heard {
    last_frame: HashMap<String, u64>,
    hashes: HashSet<String>,
    results: u64,
}

impl Heard {
    fn on(pipeline: &gst::Pipeline) -> Arc<Mutex<Heard>> {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let bus = pipeline.bus().unwrap();
        bus.set_sync_handler({
            let heard = heard.clone();
            move |_, message| match message.structure() {
                Some(said) if said.has_name("inference-result") => {
                    heard.lock().unwrap().hear(message, said);
                    gst::BusSyncReply::Drop
                }
                Some(said) if said.has_name("inference-stats") => {
                    counts(said);
                    gst::BusSyncReply::Drop
                }
                _ => gst::BusSyncReply::Pass,
            }
        });
        heard
    }

    fn hear(&mut self, message: &gst::Message, said: &gst::StructureRef) {
        let name = message.src().unwrap().name().to_string();
        let frame: u64 = said.get("frame-id").unwrap();
        let before = self.last_frame.insert(name, frame).unwrap_or(0);
        assert_eq!(frame, before + 1, "a frame is missing, or came too early");
        let json: &str = said.get("json").unwrap();
        let at = json.find("sha256:").expect("a result names its model");
        self.hashes.insert(json[at..at + 71].to_owned());
        self.results += 1;
    }
}

#[test]
fn a_model_that_changes_under_eight_streams_loses_no_frame_and_leaks_nothing() {
    let branches: String = (0..8)
        .map(|stream| {
            format!("{ENDLESS} ! inferencesink name=s{stream} model={ONE} engine=rten when-busy=wait stats-interval=50 ")
        })
        .collect();
    let pipeline = pipeline(&branches);
    let heard = Heard::on(&pipeline);
    let sinks: Vec<_> = (0..8)
        .map(|stream| pipeline.by_name(&format!("s{stream}")).unwrap())
        .collect();
    pipeline.set_state(gst::State::Playing).unwrap();
    // Each has a thread of its own, which is there when it has inferred.
    while sinks.iter().any(|sink| stats(sink).inferred == 0) {
        thread::yield_now();
    }
    assert_eq!(threads(), 8);
    let told = watch(&sinks);
    let mut level = 0;
    for swap in 0..100 {
        let model = if swap % 2 == 0 { OTHER } else { ONE };
        let old = hash(&sinks[0]);
        for sink in &sinks {
            sink.set_property("model", model);
        }
        for _ in &sinks {
            let new = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_ne!(new, old);
        }
        if swap == 20 {
            level = rss();
        }
    }
    let grown = rss().saturating_sub(level);
    assert!(pipeline.send_event(gst::event::Eos::new()));
    until_eos(&pipeline);
    for sink in &sinks {
        let counts = stats(sink);
        assert_eq!((counts.failed, counts.dropped, counts.pending), (0, 0, 0));
        assert_eq!(
            heard.lock().unwrap().last_frame[sink.name().as_str()],
            counts.inferred
        );
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.hashes.len(), 2);
    // A model is a few kilobytes; what 80 of them would leave behind if they did is its buffers.
    assert!(grown < 8, "{grown} MiB more after 80 changes");
    assert_eq!(threads(), 0);
}

#[test]
fn a_bad_new_model_leaves_the_old_one_running_and_says_so() {
    let pipeline = pipeline(&format!(
        "{ENDLESS} ! inferencesink name=s model={ONE} engine=rten when-busy=wait"
    ));
    let sink = pipeline.by_name("s").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let old = hash(&sink);
    let bus = pipeline.bus().unwrap();
    for (property, value, said) in [
        ("model", "/nowhere/else.onnx", "/nowhere/else.onnx"),
        (
            "model",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/truncated.onnx"),
            "truncated.onnx",
        ),
        ("decoder", "yolov5000", "yolov5000"),
    ] {
        sink.set_property(property, value);
        let warning = bus
            .timed_pop_filtered(PATIENCE, &[gst::MessageType::Warning])
            .expect("it says so");
        let gst::MessageView::Warning(warning) = warning.view() else {
            unreachable!()
        };
        let text = warning.error().to_string();
        assert!(
            text.contains(said)
                && text.ends_with("; model \"colours\" goes on")
                && !text.contains("src/"),
            "{text}"
        );
        assert_eq!(hash(&sink), old);
    }
    let told = watch(std::slice::from_ref(&sink));
    // Both at once: neither fits what the other was before.
    sink.set_properties(&[("model", &OTHER), ("decoder", &"auto")]);
    assert_ne!(told.recv_timeout(Duration::from_secs(20)).unwrap(), old);
    let before = stats(&sink).inferred;
    let began = Instant::now();
    while stats(&sink).inferred == before {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(pipeline.send_event(gst::event::Eos::new()));
    until_eos(&pipeline);
    let after = stats(&sink);
    assert_eq!((after.failed, after.dropped), (0, 0));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_filter_goes_on_with_another_model_and_pushes_every_frame() {
    let pipeline = pipeline(&format!(
        "{ENDLESS} ! inferencefilter name=s model={ONE} engine=rten ! fakesink name=end"
    ));
    let heard = Heard::on(&pipeline);
    let filter = pipeline.by_name("s").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    // A source that is told of the end before the pipeline plays waits for a push that waits for that, with the lock that
    // playing takes.
    assert_eq!(pipeline.state(PATIENCE).1, gst::State::Playing);
    let told = watch(std::slice::from_ref(&filter));
    for model in [OTHER, ONE, OTHER] {
        filter.set_property("model", model);
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    assert!(pipeline.send_event(gst::event::Eos::new()));
    until_eos(&pipeline);
    let counts = stats(&filter);
    assert_eq!((counts.failed, counts.dropped), (0, 0));
    let end = pipeline.by_name("end").unwrap();
    let stats = end.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("rendered"), Ok(counts.inferred));
    assert_eq!(heard.lock().unwrap().results, counts.inferred);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn streams_of_one_model_have_equal_shares_of_it() {
    const STREAMS: usize = 16;
    let branches: String = (0..STREAMS)
        .map(|stream| {
            format!("{ENDLESS} ! inferencesink name=s{stream} model={MODEL} engine=rten when-busy=wait post-messages=false ")
        })
        .collect();
    let pipeline = pipeline(&branches);
    pipeline.set_state(gst::State::Playing).unwrap();
    let sinks: Vec<_> = (0..STREAMS)
        .map(|stream| pipeline.by_name(&format!("s{stream}")).unwrap())
        .collect();
    let inferred = || -> Vec<u64> { sinks.iter().map(|sink| stats(sink).inferred).collect() };
    // Enough that one more or less is no matter.
    while inferred().iter().sum::<u64>() < 60 * STREAMS as u64 {
        thread::yield_now();
        thread::sleep(Duration::from_millis(5));
    }
    let shares = inferred();
    pipeline.set_state(gst::State::Null).unwrap();
    let fair = shares.iter().sum::<u64>() as f64 / STREAMS as f64;
    let least = *shares.iter().min().unwrap() as f64;
    assert!(least >= 0.8 * fair, "{shares:?}");
}

#[test]
fn threads_that_infer_are_less_urgent_than_those_that_decode() {
    let pipeline = pipeline(&format!(
        "{ENDLESS} ! inferencesink name=s model={ONE} engine=rten"
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let sink = pipeline.by_name("s").unwrap();
    while stats(&sink).inferred == 0 {
        thread::yield_now();
    }
    let mut niceness = HashMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (head, fields) = stat.rsplit_once(')').unwrap();
        let name = head.split_once('(').unwrap().1.to_owned();
        let nice: i32 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        niceness.insert(name, nice);
    }
    let own = niceness.remove("inferencesink").unwrap();
    assert!(
        niceness.values().all(|other| *other < own),
        "{own} {niceness:?}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn streams_of_a_funnel_have_places_of_their_own() {
    let pipeline = pipeline(&format!(
        "funnel name=f ! inferencesink name=s model={MODEL} engine=rten when-busy=latest \
         videotestsrc num-buffers=40 ! {CAPS} ! framemeta ! f. \
         videotestsrc num-buffers=40 ! {CAPS} ! framemeta ! f."
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let messages = until_eos(&pipeline);
    let sink = pipeline.by_name("s").unwrap();
    let counts = stats(&sink);
    assert_eq!((counts.received, counts.pending), (80, 0));
    let results = named(&messages, "inference-result");
    let id = |said: &gst::StructureRef| said.get::<String>("stream-id").unwrap();
    let streams: HashSet<String> = results.iter().map(|said| id(said)).collect();
    assert_eq!(streams.len(), 2);
    for stream in streams {
        let of_stream = results.iter().filter(|said| id(said) == stream);
        let ids: Vec<u64> = of_stream
            .map(|said| said.get("frame-id").unwrap())
            .collect();
        // The last frame of a stream is never dropped for one of another.
        assert_eq!(ids.last(), Some(&40), "{stream} {ids:?}");
        assert!(ids.is_sorted(), "{stream} {ids:?}");
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_frame_whose_deadline_passes_while_it_waits_is_late() {
    init();
    let mut harness = Harness::new_parse(&format!(
        "inferencesink model={MODEL} engine=rten when-busy=latest deadline=30"
    ));
    harness.set_src_caps_str(CAPS);
    let bus = Overheard::of(&harness.element().unwrap());
    let gate = Gate::on(&bus);
    harness.play();
    harness.push(frame()).unwrap();
    gate.wait_for(1);
    harness.push(frame()).unwrap();
    thread::sleep(Duration::from_millis(60));
    gate.open();
    assert!(harness.push_event(gst::event::Eos::new()));
    let sink = harness.element().unwrap();
    let sink = match sink.downcast::<gst::Bin>() {
        Ok(bin) => bin.iterate_sinks().next().unwrap().unwrap(),
        Err(element) => element,
    };
    let counts = stats(&sink);
    assert_eq!((counts.inferred, counts.late, counts.pending), (1, 1, 0));
}

#[test]
fn a_frame_that_waits_for_company_is_judged_before_its_deadline() {
    let pipeline = pipeline(&format!(
        "videotestsrc is-live=true num-buffers=4 ! video/x-raw,format=I420,width=64,height=32,framerate=2/1 \
         ! inferencesink name=s model={ONE} engine=rten max-batch=4 batch-latency=1000 deadline=400"
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    until_eos(&pipeline);
    let counts = stats(&pipeline.by_name("s").unwrap());
    // A machine that is busy may be late for one.
    assert!(counts.inferred >= 3 && counts.received == 4, "{counts:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_happens_when_busy_changes_while_playing() {
    init();
    let mut harness = Harness::new_parse(&format!(
        "inferencesink name=s model={MODEL} engine=rten when-busy=wait"
    ));
    harness.set_src_caps_str(CAPS);
    let bus = Overheard::of(&harness.element().unwrap());
    let gate = Gate::on(&bus);
    harness.play();
    harness.push(frame()).unwrap();
    gate.wait_for(1);
    harness.push(frame()).unwrap();
    let sink = match harness.element().unwrap().downcast::<gst::Bin>() {
        Ok(bin) => bin.by_name("s").unwrap(),
        Err(element) => element,
    };
    let pusher = thread::spawn({
        move || {
            let flow = harness.push(frame());
            (harness, flow)
        }
    });
    // Held, until the frame that waits may be replaced.
    thread::sleep(Duration::from_millis(30));
    assert_eq!(stats(&sink).received, 2);
    sink.set_property_from_str("when-busy", "latest");
    let (mut harness, flow) = pusher.join().unwrap();
    assert_eq!(flow, Ok(gst::FlowSuccess::Ok));
    assert_eq!((stats(&sink).received, stats(&sink).busy), (3, 1));
    gate.open();
    assert!(harness.push_event(gst::event::Eos::new()));
    assert_eq!(stats(&sink).inferred, 2);
}
