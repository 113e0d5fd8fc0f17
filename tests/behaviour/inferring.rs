//! What the tests of both elements that infer need.

use std::{
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_check::Harness;
use serde_json::Value;

use crate::init;

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes.onnx");
pub const CAPS: &str = "video/x-raw,format=I420,width=64,height=48,framerate=30/1";
const LONG: Duration = Duration::from_secs(20);
pub const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(20);

pub fn frame() -> gst::Buffer {
    gst::Buffer::from_slice(vec![128; 64 * 48 * 3 / 2])
}

/// Holds every result up between its making and its end, so that the model seems slow.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(bool, u64)>, Condvar)>);

impl Gate {
    /// Closed, in front of the results of everything on this bus.
    pub fn on(bus: &gst::Bus) -> Gate {
        let gate = Gate::default();
        let handler = gate.clone();
        bus.set_sync_handler(move |_, message| {
            if message
                .structure()
                .is_some_and(|s| s.name() == "inference-result")
            {
                handler.pass();
            }
            gst::BusSyncReply::Pass
        });
        gate
    }

    fn pass(&self) {
        let (lock, changed) = &*self.0;
        let mut state = lock.lock().unwrap();
        state.1 += 1;
        changed.notify_all();
        // Not for ever, so that a test that failed with the gate closed comes to its end.
        drop(changed.wait_timeout_while(state, LONG, |(open, _)| !*open));
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    /// Waits until that many results came to the gate.
    pub fn wait_for(&self, results: u64) {
        let (lock, changed) = &*self.0;
        let state = lock.lock().unwrap();
        let (_state, timeout) = changed
            .wait_timeout_while(state, LONG, |(_, seen)| *seen < results)
            .unwrap();
        assert!(!timeout.timed_out(), "no result came");
    }
}

/// Fills work place and waiting place, and has a third frame wait for room in a thread of its own, whose push it gives.
pub fn hold(
    harness: &mut Harness,
    gate: &Gate,
) -> mpsc::Receiver<Result<gst::FlowSuccess, gst::FlowError>> {
    harness.play();
    harness.push(frame()).unwrap();
    gate.wait_for(1);
    harness.push(frame()).unwrap();
    let pad = harness.srcpad().unwrap().clone();
    let (done, result) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        tell.send(fs::read_link("/proc/thread-self").unwrap())
            .unwrap();
        done.send(pad.push(frame())).unwrap();
    });
    wait_asleep(&Path::new("/proc").join(told.recv().unwrap()));
    assert!(result.try_recv().is_err(), "it is held");
    result
}

/// Returns when a thread, named by its folder, has done nothing for a while: it has come to what holds it.
fn wait_asleep(thread: &Path) {
    let begun = Instant::now();
    let mut asleep = 0;
    while asleep < 10 {
        assert!(begun.elapsed() < LONG, "it is busy");
        // What comes after the name, which is in brackets.
        let line = fs::read_to_string(thread.join("stat")).expect("it is held");
        let is_asleep = line.rsplit_once(") ").unwrap().1.starts_with('S');
        asleep = if is_asleep { asleep + 1 } else { 0 };
        thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub inferred: u64,
    pub failed: u64,
    pub pending: u64,
    pub dropped: u64,
    pub busy: u64,
    pub late: u64,
    pub flush: u64,
    pub closed: u64,
}

pub fn counts(structure: &gst::StructureRef) -> Counts {
    let number = |name: &str| structure.get::<u64>(name).unwrap();
    let counts = Counts {
        received: number("received"),
        inferred: number("inferred"),
        failed: number("failed"),
        pending: number("pending"),
        dropped: number("dropped"),
        busy: number("dropped-busy"),
        late: number("dropped-late"),
        flush: number("dropped-flush"),
        closed: number("dropped-closed"),
    };
    assert_eq!(
        counts.received,
        counts.inferred + counts.failed + counts.pending + counts.dropped
    );
    assert_eq!(
        counts.dropped,
        counts.busy + counts.late + counts.flush + counts.closed
    );
    counts
}

pub fn stats(sink: &gst::Element) -> Counts {
    counts(&sink.property::<gst::Structure>("stats"))
}

pub fn named<'a>(messages: &'a [gst::Message], name: &str) -> Vec<&'a gst::StructureRef> {
    messages
        .iter()
        .filter_map(|message| message.structure())
        .filter(|structure| structure.name() == name)
        .collect()
}

pub fn json(result: &gst::StructureRef) -> Value {
    serde_json::from_str(result.get("json").unwrap()).unwrap()
}

pub fn pipeline(description: &str) -> gst::Pipeline {
    init();
    gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap()
}

/// All messages up to the pipeline's EOS.
pub fn until_eos(pipeline: &gst::Pipeline) -> Vec<gst::Message> {
    let mut messages = Vec::new();
    for message in pipeline.bus().unwrap().iter_timed(PATIENCE) {
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{error:?}");
        }
        let end = matches!(message.view(), gst::MessageView::Eos(_));
        messages.push(message);
        if end {
            return messages;
        }
    }
    panic!("no EOS");
}
