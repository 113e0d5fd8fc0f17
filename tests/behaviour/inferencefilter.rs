//! `inferencefilter` with the project's own model. A slow model is one whose results somebody holds up: see [`Gate`].

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_check::Harness;
use gstrtcinference::logic::frame_facts::FrameFacts;
use serde_json::Value;

use crate::{
    Overheard,
    inferring::{
        CAPS, Gate, MODEL, PATIENCE, counts, frame, hold, json, named, pipeline, stats, until_eos,
    },
    init,
};

/// The filter, its bus, and what leaves it, in order.
struct Bench {
    filter: gst::Element,
    bus: Overheard,
    left: Left,
    /// Goes last: what is on the bus keeps the element.
    harness: Harness,
}

/// Descriptions of frames and events in the order in which they passed a pad.
#[derive(Clone, Default)]
struct Left(Arc<Mutex<Vec<String>>>);

impl Left {
    fn at(pad: &gst::Pad) -> Left {
        let left = Left::default();
        let seen = left.clone();
        let kinds = gst::PadProbeType::BUFFER
            | gst::PadProbeType::EVENT_DOWNSTREAM
            | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(kinds, move |_, info| {
            let text = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    format!("frame {}", FrameFacts::read(buffer).frame_id.unwrap())
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => {
                        let width: i32 = caps.caps().structure(0).unwrap().get("width").unwrap();
                        format!("caps {width}")
                    }
                    _ => match event.structure() {
                        Some(structure) if event.type_() == gst::EventType::CustomDownstream => {
                            structure.name().to_string()
                        }
                        _ => event.type_().name().to_string(),
                    },
                },
                _ => return gst::PadProbeReturn::Ok,
            };
            seen.0.lock().unwrap().push(text);
            gst::PadProbeReturn::Ok
        });
        left
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// What comes from `first` on.
    #[track_caller]
    fn from(&self, first: &str) -> Vec<String> {
        let all = self.all();
        let at = all.iter().position(|text| text == first);
        all[at.unwrap_or_else(|| panic!("no {first} in {all:?}"))..].to_vec()
    }
}

/// In a harness, whose source is live.
fn bench(properties: &str) -> Bench {
    init();
    let mut harness = Harness::new_parse(&format!("inferencefilter model={MODEL} {properties}"));
    harness.set_caps_str(CAPS, "video/x-raw");
    let element = harness.element().unwrap();
    let filter = match element.clone().downcast::<gst::Bin>() {
        Ok(bin) => bin.iterate_elements().next().unwrap().unwrap(),
        Err(element) => element,
    };
    let bus = Overheard::of(&element);
    let left = Left::at(&harness.sinkpad().unwrap());
    Bench {
        filter,
        bus,
        left,
        harness,
    }
}

impl Bench {
    fn push(&mut self) {
        self.harness.push(frame()).unwrap();
    }

    /// Returns when nothing is pending any more.
    fn settle(&self) {
        let pad = self.harness.srcpad().unwrap();
        // Nobody downstream answers it.
        pad.peer_query(gst::query::Drain::new().query_mut());
        assert_eq!(stats(&self.filter).pending, 0);
    }

    fn end(&mut self) {
        assert!(self.harness.push_event(gst::event::Eos::new()));
    }

    fn messages(&self) -> Vec<gst::Message> {
        self.bus.iter().collect()
    }

    fn frames(&mut self) -> Vec<gst::Buffer> {
        std::iter::from_fn(|| self.harness.try_pull()).collect()
    }

    /// Does it in a thread of its own, which may be held.
    fn apart<R: Send + 'static>(
        &self,
        act: impl FnOnce(&gst::Pad) -> R + Send + 'static,
    ) -> mpsc::Receiver<R> {
        let pad = self.harness.srcpad().unwrap().clone();
        let (done, result) = mpsc::channel();
        thread::spawn(move || done.send(act(&pad)));
        result
    }
}

fn ids(frames: &[gst::Buffer]) -> Vec<u64> {
    frames
        .iter()
        .map(|frame| FrameFacts::read(frame).frame_id.unwrap())
        .collect()
}

/// The frame that the result on this one was computed on.
fn origin(frame: &gst::BufferRef) -> Option<u64> {
    let document: Value = serde_json::from_str(&FrameFacts::read(frame).json?).unwrap();
    document["video_metadata"]["frame_id"].as_u64()
}

/// Has every frame that reaches `out` sent over.
fn collect(pipeline: &gst::Pipeline) -> mpsc::Receiver<gst::Buffer> {
    let pad = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
    let (send, frames) = mpsc::channel();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        send.send(info.buffer().unwrap().copy()).unwrap();
        gst::PadProbeReturn::Ok
    });
    frames
}

fn run(description: &str) -> (Vec<gst::Buffer>, Vec<gst::Message>) {
    let pipeline = pipeline(description);
    let frames = collect(&pipeline);
    pipeline.set_state(gst::State::Playing).unwrap();
    let messages = until_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    (frames.try_iter().collect(), messages)
}

#[test]
fn skip_lets_out_only_frames_with_their_own_result_and_never_holds_upstream() {
    let mut bench = bench("");
    let gate = Gate::on(&bench.bus);
    bench.harness.play();
    bench.push();
    gate.wait_for(1);
    for _ in 0..10 {
        bench.push();
    }
    let busy = stats(&bench.filter);
    assert_eq!((busy.received, busy.pending, busy.busy), (11, 2, 9));
    assert_eq!(bench.harness.buffers_in_queue(), 0);
    gate.open();
    bench.end();
    let end = stats(&bench.filter);
    assert_eq!((end.inferred, end.pending, end.busy), (2, 0, 9));
    let frames = bench.frames();
    assert_eq!(ids(&frames), [1, 11]);
    for frame in &frames {
        let facts = FrameFacts::read(frame);
        assert_eq!(origin(frame), facts.frame_id);
        assert_eq!(facts.result_frame_id, None);
        assert!(facts.results.is_some());
    }
    let discont = |frame: &gst::Buffer| frame.flags().contains(gst::BufferFlags::DISCONT);
    assert_eq!([discont(&frames[0]), discont(&frames[1])], [false, true]);
}

#[test]
fn latest_lets_every_frame_out_at_once_with_the_last_result() {
    let mut bench = bench("when-busy=latest");
    let gate = Gate::on(&bench.bus);
    bench.harness.play();
    bench.push();
    gate.wait_for(1);
    for _ in 0..5 {
        bench.push();
    }
    let busy = stats(&bench.filter);
    assert_eq!((busy.received, busy.pending, busy.busy), (6, 2, 4));
    let early = bench.frames();
    assert_eq!(ids(&early), [1, 2, 3, 4, 5, 6], "while the model is stuck");
    for frame in &early {
        let facts = FrameFacts::read(frame);
        assert_eq!((facts.results, facts.json), (None, None));
    }
    gate.open();
    bench.settle();
    bench.push();
    let frames = bench.frames();
    let facts = FrameFacts::read(&frames[0]);
    assert_eq!((facts.frame_id, facts.result_frame_id), (Some(7), Some(6)));
    assert_eq!(origin(&frames[0]), Some(6));
    assert!(facts.results.is_some());
    bench.end();
    let end = stats(&bench.filter);
    assert_eq!(
        (end.received, end.inferred, end.busy, end.pending),
        (7, 3, 4, 0)
    );
}

#[test]
fn wait_infers_every_frame_of_a_file() {
    let (frames, messages) = run(&format!(
        "videotestsrc num-buffers=40 ! video/x-raw,format=I420,width=320,height=240 \
         ! inferencefilter model={MODEL} engine=rten ! fakesink name=out"
    ));
    assert_eq!(ids(&frames), (1..=40).collect::<Vec<_>>());
    for frame in &frames {
        assert_eq!(origin(frame), FrameFacts::read(frame).frame_id);
    }
    let last = named(&messages, "inference-stats").pop().unwrap();
    let counts = counts(last);
    assert_eq!((counts.received, counts.inferred), (40, 40));
    assert_eq!(last.get::<&str>("engine"), Ok("rten"));
}

#[test]
fn wait_holds_upstream_until_there_is_room() {
    let mut bench = bench("when-busy=wait");
    let gate = Gate::on(&bench.bus);
    let pushed = hold(&mut bench.harness, &gate);
    gate.open();
    assert!(pushed.recv().unwrap().is_ok());
    bench.end();
    assert_eq!(ids(&bench.frames()), [1, 2, 3]);
    let end = stats(&bench.filter);
    assert_eq!((end.inferred, end.dropped, end.pending), (3, 0, 0));
}

#[test]
fn what_is_on_the_frame_is_what_the_json_and_the_message_say() {
    for format in ["I420", "NV12", "RGB", "BGR", "RGBA", "BGRA"] {
        let (frames, messages) = run(&format!(
            "videotestsrc pattern=ball num-buffers=3 ! video/x-raw,format={format},width=640,height=480,framerate=30/1 \
             ! inferencefilter model={MODEL} ! fakesink name=out"
        ));
        let told = named(&messages, "inference-result");
        assert_eq!((frames.len(), told.len()), (3, 3), "{format}");
        let facts = FrameFacts::read(&frames[2]);
        let document = json(told[2]);
        let on_frame: Value = serde_json::from_str(facts.json.as_deref().unwrap()).unwrap();
        assert_eq!(on_frame, document);
        let boxes = document["serialized_output_data"]["predictions"]["predictions"]
            .as_array()
            .unwrap();
        let results = facts.results.unwrap();
        assert_eq!(results.len(), boxes.len());
        assert_eq!(&*results[0].class, "circle", "{format}");
        for (result, told) in results.iter().zip(boxes) {
            let near = |value: f32, key: &str| {
                assert!((f64::from(value) - told[key].as_f64().unwrap()).abs() < 1e-3);
            };
            near(result.x, "x");
            near(result.y, "y");
            near(result.width, "width");
            near(result.height, "height");
            near(result.confidence, "confidence");
            assert_eq!(told["class"], &*result.class);
            assert_eq!(told["class_id"], result.class_id);
        }
        assert_eq!(document["video_metadata"]["frame_id"], 3);
        assert_eq!(facts.frame_id, Some(3));
        assert_eq!((facts.width, facts.height), (Some(640), Some(480)));
        assert_eq!(facts.declared_fps, Some(30.0));
        assert!((facts.measured_fps.unwrap() - 30.0).abs() < 0.01);
        assert_eq!(facts.pts, Some(66_666_666));
        assert!(facts.stream_id.is_some());
    }
}

#[test]
fn pixels_are_never_copied() {
    for mode in ["skip", "latest", "wait"] {
        let mut bench = bench(&format!("when-busy={mode}"));
        bench.harness.play();
        let sent = frame();
        let shared = sent.clone();
        let memory = sent.peek_memory(0).as_ptr();
        bench.harness.push(sent).unwrap();
        bench.end();
        let frames = bench.frames();
        assert_eq!(frames[0].peek_memory(0).as_ptr(), memory, "{mode}");
        let untouched = FrameFacts::read(&shared);
        assert_eq!(untouched, FrameFacts::default(), "{mode}");
    }
}

#[test]
fn a_result_is_told_upstream_as_on_the_bus() {
    let mut bench = bench("output-name=shapes");
    bench.harness.play();
    let mut buffer = frame();
    FrameFacts {
        connection_id: Some("c".into()),
        stream_id: Some("c/0".into()),
        frame_id: Some(812),
        rtp_timestamp: Some(3_120_457_712),
        ..FrameFacts::default()
    }
    .write(buffer.get_mut().unwrap());
    bench.harness.push(buffer).unwrap();
    bench.end();
    let messages = bench.messages();
    let message = named(&messages, "inference-result")[0].to_owned();
    assert_eq!(message.get::<&str>("connection-id"), Ok("c"));
    assert_eq!(message.get::<u64>("frame-id"), Ok(812));
    assert!(json(&message)["serialized_output_data"]["shapes"].is_object());
    let event = loop {
        let event = bench.harness.pull_upstream_event().unwrap();
        if event.type_() == gst::EventType::CustomUpstream {
            break event;
        }
    };
    assert_eq!(event.structure().unwrap(), &*message);
    let facts = FrameFacts::read(&bench.frames()[0]);
    assert_eq!(facts.rtp_timestamp, Some(3_120_457_712));
    assert_eq!(facts.json.as_deref(), message.get::<&str>("json").ok());
}

#[test]
fn a_result_of_an_element_before_is_replaced() {
    let (frames, _) = run(&format!(
        "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=64,height=48 \
         ! inferencefilter model={MODEL} when-busy=latest ! inferencefilter model={MODEL} output-name=second ! fakesink name=out"
    ));
    for frame in &frames {
        let facts = FrameFacts::read(frame);
        assert_eq!(facts.result_frame_id, None);
        assert!(facts.json.unwrap().contains("second"));
    }
    assert_eq!(frames.len(), 3);
}

/// Too few bytes for its caps, so that inference fails.
fn broken_frame() -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(vec![128; 100]);
    FrameFacts {
        result_frame_id: Some(77),
        results: Some(Vec::new()),
        json: Some("of another".into()),
        ..FrameFacts::default()
    }
    .write(buffer.get_mut().unwrap());
    buffer
}

#[test]
fn a_frame_whose_inference_failed_goes_on_in_its_place_and_says_so() {
    for mode in ["skip", "wait"] {
        let mut bench = bench(&format!("when-busy={mode}"));
        bench.harness.play();
        bench.push();
        bench.settle();
        bench.harness.push(broken_frame()).unwrap();
        bench.settle();
        bench.push();
        bench.end();
        let frames = bench.frames();
        assert_eq!(ids(&frames), [1, 2, 3], "{mode}");
        let facts = FrameFacts::read(&frames[1]);
        assert_eq!((facts.results, facts.result_frame_id), (None, None));
        let document: Value = serde_json::from_str(&facts.json.unwrap()).unwrap();
        assert_eq!(document["errors"].as_array().unwrap().len(), 1);
        assert!(document["serialized_output_data"].is_null());
        let messages = bench.messages();
        assert_eq!(json(named(&messages, "inference-result")[1]), document);
        let end = stats(&bench.filter);
        assert_eq!((end.inferred, end.failed, end.pending), (2, 1, 0), "{mode}");
    }
}

#[test]
fn with_latest_frames_after_a_failure_carry_no_boxes_but_say_why() {
    let mut bench = bench("when-busy=latest");
    bench.harness.play();
    bench.push();
    bench.settle();
    bench.harness.push(broken_frame()).unwrap();
    bench.settle();
    bench.push();
    bench.settle();
    bench.push();
    let facts: Vec<_> = bench.frames().iter().map(|f| FrameFacts::read(f)).collect();
    let told: Vec<_> = facts
        .iter()
        .map(|facts| (facts.result_frame_id, facts.results.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (None, false),
            (Some(1), true),
            (Some(2), false),
            (Some(3), true)
        ]
    );
    assert!(facts[2].json.as_ref().unwrap().contains("cannot be read"));
}

#[test]
fn with_latest_no_stream_gets_the_boxes_of_another_nor_of_another_size() {
    let mut bench = bench("when-busy=latest");
    bench.harness.play();
    let mut of = |stream: &str| {
        let mut buffer = frame();
        FrameFacts {
            stream_id: Some(stream.into()),
            ..FrameFacts::default()
        }
        .write(buffer.get_mut().unwrap());
        bench.harness.push(buffer).unwrap();
        bench.settle();
        let frame = bench.harness.pull().unwrap();
        FrameFacts::read(&frame).result_frame_id
    };
    let told = ["a", "b", "a", "b"].map(&mut of);
    assert_eq!(told, [None, None, Some(1), Some(1)]);
    bench.harness.push_event(gst::event::Caps::new(&small()));
    bench.harness.push(small_frame("a")).unwrap();
    bench.settle();
    bench.harness.push(small_frame("a")).unwrap();
    let facts: Vec<_> = bench.frames().iter().map(|f| FrameFacts::read(f)).collect();
    assert_eq!([facts[0].frame_id, facts[1].frame_id], [Some(3), Some(4)]);
    assert_eq!(facts[0].result_frame_id, None);
    assert_eq!(facts[1].result_frame_id, Some(3));
}

fn small() -> gst::Caps {
    "video/x-raw,format=I420,width=32,height=16,framerate=30/1"
        .parse()
        .unwrap()
}

fn small_frame(stream: &str) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(vec![128; 32 * 16 * 3 / 2]);
    FrameFacts {
        stream_id: Some(stream.into()),
        ..FrameFacts::default()
    }
    .write(buffer.get_mut().unwrap());
    buffer
}

#[test]
fn events_and_frames_keep_their_order_and_eos_waits_for_all() {
    for mode in ["skip", "wait"] {
        let mut bench = bench(&format!("when-busy={mode} stats-interval=60000"));
        let gate = Gate::on(&bench.bus);
        bench.harness.play();
        bench.push();
        gate.wait_for(1);
        let done = bench.apart(|pad| {
            pad.push(frame()).unwrap();
            let args = gst::Structure::new_empty("rtc-args");
            assert!(pad.push_event(gst::event::CustomDownstream::new(args)));
            pad.push(frame()).unwrap();
            let mut tags = gst::TagList::new();
            let title = tags.make_mut();
            title.add::<gst::tags::Title>(&"t", gst::TagMergeMode::Append);
            assert!(pad.push_event(gst::event::Tag::new(tags)));
            pad.push(frame()).unwrap();
            assert!(pad.push_event(gst::event::Caps::new(&small())));
            pad.push(small_frame("s")).unwrap();
            assert!(pad.push_event(gst::event::Eos::new()));
        });
        gate.wait_for(1);
        gate.open();
        done.recv().unwrap();
        let order = [
            "frame 1", "frame 2", "rtc-args", "frame 3", "tag", "frame 4", "caps 32", "frame 1",
            "eos",
        ];
        assert_eq!(bench.left.from("frame 1"), order, "{mode}");
        let small = FrameFacts::read(bench.frames().last().unwrap());
        assert_eq!((small.width, small.height), (Some(32), Some(16)));
        let messages = bench.messages();
        let last = counts(named(&messages, "inference-stats").pop().unwrap());
        assert_eq!((last.inferred, last.pending, last.dropped), (5, 0, 0));
    }
}

#[test]
fn with_latest_events_do_not_wait_but_eos_does() {
    let mut bench = bench("when-busy=latest stats-interval=60000");
    let gate = Gate::on(&bench.bus);
    bench.harness.play();
    bench.push();
    gate.wait_for(1);
    let args = gst::Structure::new_empty("rtc-args");
    assert!(
        bench
            .harness
            .push_event(gst::event::CustomDownstream::new(args))
    );
    assert_eq!(bench.left.from("frame 1"), ["frame 1", "rtc-args"]);
    let ended = bench.apart(|pad| pad.push_event(gst::event::Eos::new()));
    gate.open();
    assert!(ended.recv().unwrap());
    let messages = bench.messages();
    let last = counts(named(&messages, "inference-stats").pop().unwrap());
    assert_eq!((last.inferred, last.pending), (1, 0));
}

#[test]
fn a_flush_frees_the_streaming_thread_and_nothing_from_before_comes_after() {
    let mut bench = bench("when-busy=wait");
    let gate = Gate::on(&bench.bus);
    let pushed = hold(&mut bench.harness, &gate);
    bench.harness.push_event(gst::event::FlushStart::new());
    assert_eq!(pushed.recv().unwrap(), Err(gst::FlowError::Flushing));
    // Frame 1 is about to be pushed, and still is when the flush ends.
    let (at_filter, reached) = mpsc::channel();
    let pad = bench.harness.srcpad().unwrap().clone();
    pad.add_probe(gst::PadProbeType::EVENT_FLUSH, move |_, _| {
        at_filter.send(()).unwrap();
        gst::PadProbeReturn::Ok
    });
    let stopped = bench.apart(|pad| pad.push_event(gst::event::FlushStop::new(true)));
    reached.recv().unwrap();
    gate.open();
    assert!(stopped.recv().unwrap());
    bench
        .harness
        .push_event(gst::event::Segment::new(&gst::FormattedSegment::<
            gst::ClockTime,
        >::new()));
    bench.push();
    bench.end();
    let order = ["flush-stop", "segment", "frame 4", "eos"];
    assert_eq!(bench.left.from("flush-stop"), order);
    let end = stats(&bench.filter);
    assert_eq!(
        (end.received, end.inferred, end.flush, end.pending),
        (4, 2, 2, 0)
    );
}

#[test]
fn with_latest_no_result_from_before_a_flush_comes_after_it() {
    let mut bench = bench("when-busy=latest");
    bench.harness.play();
    bench.push();
    bench.settle();
    bench.harness.push_event(gst::event::FlushStart::new());
    bench.harness.push_event(gst::event::FlushStop::new(true));
    bench
        .harness
        .push_event(gst::event::Segment::new(&gst::FormattedSegment::<
            gst::ClockTime,
        >::new()));
    bench.push();
    let facts = FrameFacts::read(bench.frames().last().unwrap());
    assert_eq!((facts.frame_id, facts.json), (Some(2), None));
}

#[test]
fn seeking_while_busy_leaves_the_accounts_exact() {
    let pipeline = pipeline(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 \
         ! inferencefilter name=filter model={MODEL} ! fakesink name=out async=false"
    ));
    let frames = collect(&pipeline);
    let gate = Gate::on(&pipeline.bus().unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    gate.wait_for(1);
    let opener = thread::spawn({
        let gate = gate.clone();
        move || gate.open()
    });
    let flags = gst::SeekFlags::FLUSH;
    pipeline.seek_simple(flags, gst::ClockTime::ZERO).unwrap();
    opener.join().unwrap();
    let messages = until_eos(&pipeline);
    let counts = counts(named(&messages, "inference-stats").pop().unwrap());
    assert_eq!(counts.pending, 0);
    assert_eq!(counts.dropped, counts.flush);
    let ids = ids(&frames.try_iter().collect::<Vec<_>>());
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(ids.len() as u64 <= counts.inferred);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn null_while_busy_ends_after_the_frame_in_work() {
    let mut bench = bench("when-busy=wait");
    let gate = Gate::on(&bench.bus);
    let pushed = hold(&mut bench.harness, &gate);
    let filter = bench.filter.clone();
    let stopping = thread::spawn(move || filter.set_state(gst::State::Null));
    assert!(pushed.recv().unwrap().is_err());
    gate.open();
    stopping.join().unwrap().unwrap();
    let end = stats(&bench.filter);
    assert_eq!((end.inferred, end.closed, end.pending), (1, 2, 0));
}

#[test]
fn each_run_has_its_own_accounts_and_begins_afresh() {
    let pipeline = pipeline(&format!(
        "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=48 \
         ! inferencefilter name=filter model={MODEL} ! fakesink name=out"
    ));
    let filter = pipeline.by_name("filter").unwrap();
    let frames = collect(&pipeline);
    for _ in 0..2 {
        pipeline.set_state(gst::State::Playing).unwrap();
        until_eos(&pipeline);
        pipeline.set_state(gst::State::Ready).unwrap();
        let end = stats(&filter);
        assert_eq!((end.received, end.inferred), (5, 5));
        let frames: Vec<_> = frames.try_iter().collect();
        assert_eq!(ids(&frames), [1, 2, 3, 4, 5]);
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_live_source_with_a_clocked_sink_runs_to_its_end() {
    for mode in ["auto", "latest", "wait"] {
        let (frames, messages) = run(&format!(
            "videotestsrc is-live=true num-buffers=20 ! video/x-raw,format=NV12,framerate=60/1 \
             ! inferencefilter model={MODEL} when-busy={mode} ! fakesink name=out sync=true"
        ));
        let counts = counts(named(&messages, "inference-stats").pop().unwrap());
        assert_eq!((counts.received, counts.pending), (20, 0), "{mode}");
        let out = frames.len() as u64;
        let expected = match mode {
            "auto" => counts.inferred,
            _ => 20,
        };
        assert_eq!(out, expected, "{mode}");
    }
}

/// A filter between two pads of ours.
struct Between {
    filter: gst::Element,
    source: gst::Pad,
    _bus: Overheard,
}

/// A pad before the filter that answers LATENCY; it has begun a stream.
fn between(properties: &str, latency: (bool, u64, Option<u64>)) -> Between {
    init();
    let filter = gst::parse::launch(&format!("inferencefilter model={MODEL} {properties}"));
    let filter = filter.unwrap();
    let bus = Overheard::of(&filter);
    let source = gst::Pad::builder(gst::PadDirection::Src)
        .query_function(move |_, _, query| match query.view_mut() {
            gst::QueryViewMut::Latency(query) => {
                let (live, min, max) = latency;
                let max = max.map(gst::ClockTime::from_mseconds);
                query.set(live, gst::ClockTime::from_mseconds(min), max);
                true
            }
            _ => false,
        })
        .build();
    source.set_active(true).unwrap();
    source
        .link(&filter.static_pad("sink").unwrap())
        .expect("caps are any");
    Between {
        filter,
        source,
        _bus: bus,
    }
}

impl Between {
    fn play(&self) {
        self.filter.set_state(gst::State::Playing).unwrap();
        self.source
            .push_event(gst::event::StreamStart::builder("s").build());
        let caps = CAPS.parse::<gst::Caps>().unwrap();
        self.source.push_event(gst::event::Caps::new(&caps));
        self.segment();
    }

    fn segment(&self) {
        self.source
            .push_event(gst::event::Segment::new(&gst::FormattedSegment::<
                gst::ClockTime,
            >::new()));
    }

    /// Pushes a frame, waits until it has left, and tells what the push came to.
    fn push(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let result = self.source.push(frame());
        self.source.peer_query(gst::query::Drain::new().query_mut());
        result
    }

    fn latency(&self) -> (bool, Option<u64>, Option<u64>) {
        let mut query = gst::query::Latency::new();
        assert!(
            self.filter
                .static_pad("src")
                .unwrap()
                .query(query.query_mut())
        );
        let (live, min, max) = query.result();
        let millis = |time: gst::ClockTime| time.mseconds();
        (live, Some(millis(min)), max.map(millis))
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.filter.set_state(gst::State::Null).unwrap();
        self.source.set_active(false).unwrap();
    }
}

/// A sink pad that answers each frame with what is sent to it, and OK after that.
fn answering(filter: &gst::Element) -> (gst::Pad, Arc<Mutex<Vec<gst::FlowError>>>) {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let given = answers.clone();
    let sink = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, _| match given.lock().unwrap().pop() {
            Some(error) => Err(error),
            None => Ok(gst::FlowSuccess::Ok),
        })
        .event_function(|_, _, _| true)
        .build();
    sink.set_active(true).unwrap();
    filter.static_pad("src").unwrap().link(&sink).unwrap();
    (sink, answers)
}

const OK: Result<gst::FlowSuccess, gst::FlowError> = Ok(gst::FlowSuccess::Ok);

#[test]
fn frames_flow_again_when_downstream_is_linked() {
    for mode in ["skip", "wait"] {
        let between = between(&format!("when-busy={mode}"), (true, 0, None));
        between.play();
        assert_eq!(between.push(), OK);
        assert_eq!(between.push(), Err(gst::FlowError::NotLinked), "{mode}");
        let (sink, _) = answering(&between.filter);
        let left = Left::at(&sink);
        assert_eq!(between.push(), OK);
        assert_eq!(left.from("frame 3"), ["frame 3"]);
        assert_eq!(left.all()[..3], ["stream-start", "caps 64", "segment"]);
        let end = stats(&between.filter);
        assert_eq!((end.received, end.inferred, end.closed), (3, 2, 1));
    }
}

#[test]
fn what_downstream_answers_is_told_with_the_next_frame() {
    for error in [
        gst::FlowError::Eos,
        gst::FlowError::Error,
        gst::FlowError::NotNegotiated,
        gst::FlowError::Flushing,
    ] {
        let between = between("", (true, 0, None));
        let (_sink, answers) = answering(&between.filter);
        between.play();
        answers.lock().unwrap().push(error);
        assert_eq!(between.push(), OK);
        assert_eq!(between.push(), Err(error));
        assert_eq!(between.push(), Err(error), "it stays");
        between.segment();
        let again = between.push();
        let expected = if error == gst::FlowError::Eos {
            OK
        } else {
            Err(error)
        };
        assert_eq!(again, expected, "a segment after it");
        let end = stats(&between.filter);
        assert_eq!((end.received, end.pending), (4, 0));
        between.source.push_event(gst::event::FlushStart::new());
        between.source.push_event(gst::event::FlushStop::new(true));
        between.segment();
        assert_eq!(between.push(), OK, "a flush forgets it");
    }
}

#[test]
fn a_sink_that_has_had_enough_gets_its_eos() {
    for when_busy in ["skip", "wait", "latest"] {
        let pipeline = pipeline(&format!(
            "videotestsrc ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 \
             ! inferencefilter model={MODEL} when-busy={when_busy} ! fakesink async=false num-buffers=3"
        ));
        pipeline.set_state(gst::State::Playing).unwrap();
        until_eos(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn an_error_that_no_frame_can_tell_is_an_element_error() {
    let between = between("", (true, 0, None));
    let (_sink, answers) = answering(&between.filter);
    between.play();
    answers.lock().unwrap().push(gst::FlowError::NotNegotiated);
    assert_eq!(between.push(), OK);
    assert!(!between.source.push_event(gst::event::Eos::new()));
    let error = between
        ._bus
        .pop_filtered(&[gst::MessageType::Error])
        .expect("it is posted before EOS is answered");
    let gst::MessageView::Error(error) = error.view() else {
        unreachable!()
    };
    assert!(
        error.debug().unwrap().contains("not negotiated"),
        "{error:?}"
    );
}

#[test]
fn the_latency_is_that_of_upstream_and_our_own() {
    let given = "processing-latency=40";
    for (properties, upstream, expected) in [
        (given.into(), (true, 10, Some(100)), (50, Some(140))),
        (given.into(), (true, 10, None), (50, None)),
        (given.into(), (false, 10, Some(100)), (10, Some(100))),
        (
            format!("{given} when-busy=latest"),
            (true, 10, Some(100)),
            (10, Some(100)),
        ),
        (
            format!("{given} when-busy=wait"),
            (true, 10, Some(100)),
            (50, Some(140)),
        ),
    ] {
        let between = between(&properties, upstream);
        between.play();
        let (min, max) = expected;
        assert_eq!(
            between.latency(),
            (upstream.0, Some(min), max),
            "{properties} {upstream:?}"
        );
    }
}

#[test]
fn the_latency_is_measured_when_none_is_given() {
    let measured = between("", (true, 10, None));
    measured.play();
    let effective: u32 = measured.filter.property("effective-latency");
    assert!(effective > 0);
    let (_, min, _) = measured.latency();
    // The property is rounded up, the answer here down.
    let added = min.unwrap() - 10;
    assert!(
        [added, added + 1].contains(&effective.into()),
        "{added} {effective}"
    );
    assert_eq!(measured.filter.property::<u32>("processing-latency"), 0);
    let none = between("when-busy=latest", (true, 10, None));
    none.play();
    assert_eq!(none.filter.property::<u32>("effective-latency"), 0);
}

#[test]
fn the_latency_is_raised_when_frames_persistently_take_longer() {
    // A millisecond is less than the model takes on anything.
    let raised = between("processing-latency=1 when-busy=wait", (true, 10, None));
    let (_sink, _) = answering(&raised.filter);
    raised.play();
    assert_eq!(raised.filter.property::<u32>("effective-latency"), 1);
    for _ in 0..19 {
        raised.push().unwrap();
    }
    let latency = [gst::MessageType::Latency];
    assert!(raised._bus.pop_filtered(&latency).is_none(), "not yet");
    raised.push().unwrap();
    let message = raised._bus.timed_pop_filtered(PATIENCE, &latency);
    assert!(message.is_some());
    let effective: u32 = raised.filter.property("effective-latency");
    assert!(effective > 1);
    assert_eq!(
        raised.latency(),
        (true, Some(10 + u64::from(effective)), None)
    );
    assert_eq!(raised.filter.property::<u32>("processing-latency"), 1);
}

#[test]
fn the_latency_is_let_be_where_upstream_is_not_live() {
    let file = between("processing-latency=1", (false, 0, None));
    let (_sink, _) = answering(&file.filter);
    file.play();
    for _ in 0..40 {
        file.push().unwrap();
    }
    let latency = [gst::MessageType::Latency];
    assert!(file._bus.pop_filtered(&latency).is_none());
    assert_eq!(file.filter.property::<u32>("effective-latency"), 1);
}

#[test]
fn allocation_is_asked_downstream_with_room_for_what_is_held() {
    let between = between("", (true, 0, None));
    let sink = gst::Pad::builder(gst::PadDirection::Sink)
        .query_function(|_, _, query| match query.view_mut() {
            gst::QueryViewMut::Allocation(query) => {
                query.add_allocation_pool(None::<&gst::BufferPool>, 4608, 2, 4);
                query.add_allocation_pool(None::<&gst::BufferPool>, 4608, 0, 0);
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                true
            }
            _ => false,
        })
        .build();
    sink.set_active(true).unwrap();
    let src = between.filter.static_pad("src").unwrap();
    src.link(&sink).unwrap();
    between.play();
    let caps = CAPS.parse::<gst::Caps>().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(between.source.peer_query(query.query_mut()));
    let pools: Vec<_> = query
        .allocation_pools()
        .map(|(_, size, min, max)| (size, min, max))
        .collect();
    assert_eq!(pools, [(4608, 4, 6), (4608, 2, 0)]);
    assert!(
        query
            .find_allocation_meta::<gst_video::VideoMeta>()
            .is_some()
    );
}

#[test]
fn only_the_formats_that_it_reads_are_taken() {
    let between = between("", (true, 0, None));
    between.play();
    let (_sink, _) = answering(&between.filter);
    for caps in [
        "video/x-raw,format=YUY2,width=64,height=48,framerate=30/1",
        "audio/x-raw,format=S16LE,rate=48000,channels=1,layout=interleaved",
    ] {
        let caps = caps.parse::<gst::Caps>().unwrap();
        between.source.push_event(gst::event::Caps::new(&caps));
        // The refusal of a sticky event shows in what comes after it.
        let flow = between.source.push(frame());
        assert_eq!(flow, Err(gst::FlowError::NotNegotiated), "{caps}");
    }
}

#[test]
fn frames_without_caps_are_not_negotiated_and_counted() {
    let between = between("", (true, 0, None));
    between.filter.set_state(gst::State::Playing).unwrap();
    between
        .source
        .push_event(gst::event::StreamStart::builder("s").build());
    between.segment();
    assert_eq!(
        between.source.push(frame()),
        Err(gst::FlowError::NotNegotiated)
    );
    let end = stats(&between.filter);
    assert_eq!((end.received, end.closed), (1, 1));
}

#[test]
fn what_is_wrong_with_a_property_is_an_error_that_names_it() {
    for (properties, named) in [
        (String::new(), vec!["model"]),
        (
            "model=/nowhere/missing.onnx".into(),
            vec!["/nowhere/missing.onnx"],
        ),
        (
            format!("model={MODEL} input-size=12by9"),
            vec!["input-size", "12by9", "640x480"],
        ),
    ] {
        let pipeline = pipeline(&format!(
            "videotestsrc ! inferencefilter {properties} ! fakesink"
        ));
        assert!(pipeline.set_state(gst::State::Ready).is_err());
        let bus = pipeline.bus().unwrap();
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        let text = format!("{} {:?}", error.error(), error.debug());
        for name in named {
            assert!(text.contains(name), "{text}");
        }
    }
}

#[test]
fn statistics_come_while_downstream_holds_a_frame() {
    let mut bench = bench("stats-interval=5");
    let gate = Gate::on(&bench.bus);
    bench.harness.play();
    bench.push();
    gate.wait_for(1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let stuck = loop {
        assert!(Instant::now() < deadline, "no statistics came");
        bench.push();
        let message = bench.bus.timed_pop(gst::ClockTime::from_mseconds(1));
        let told = message.as_ref().and_then(|message| message.structure());
        if let Some(stats) = told.filter(|s| s.name() == "inference-stats") {
            let counts = counts(stats);
            if counts.pending == 2 {
                break counts;
            }
        }
    };
    assert_eq!(stuck.inferred, 0);
    gate.open();
}

#[test]
fn the_name_of_a_mode_is_not_that_of_the_sink() {
    init();
    let filter = gst::ElementFactory::make("inferencefilter")
        .build()
        .unwrap();
    let modes = filter.find_property("when-busy").unwrap().value_type();
    assert_eq!(modes.name(), "GstInferenceFilterWhenBusy");
    let modes = gst::glib::EnumClass::with_type(modes).unwrap();
    let nicks: Vec<_> = modes.values().iter().map(|value| value.nick()).collect();
    assert_eq!(nicks, ["auto", "skip", "latest", "wait"]);
    for property in ["stats", "effective-latency"] {
        let spec = filter.find_property(property).unwrap();
        assert!(!spec.flags().contains(gst::glib::ParamFlags::WRITABLE));
    }
}
