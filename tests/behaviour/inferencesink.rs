//! `inferencesink` with the project's own model. A slow model is one whose results somebody holds up: see [`Gate`].

use std::{
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_check::Harness;
use gstrtcinference::logic::frame_facts::FrameFacts;

use crate::{
    Overheard,
    inferring::{
        CAPS, Gate, MODEL, PATIENCE, counts, frame, hold, json, named, pipeline, stats, until_eos,
    },
    init,
};

fn harness(properties: &str) -> Harness {
    init();
    let mut harness = Harness::new_parse(&format!("inferencesink model={MODEL} {properties}"));
    harness.set_src_caps_str(CAPS);
    harness
}

/// The sink itself, inside or outside of a bin.
fn sink_of(harness: &Harness) -> gst::Element {
    let element = harness.element().unwrap();
    match element.downcast::<gst::Bin>() {
        Ok(bin) => bin.iterate_sinks().next().unwrap().unwrap(),
        Err(element) => element,
    }
}

fn with_bus(harness: &Harness) -> Overheard {
    Overheard::of(&harness.element().unwrap())
}

fn run(description: &str) -> Vec<gst::Message> {
    let pipeline = pipeline(description);
    pipeline.set_state(gst::State::Playing).unwrap();
    let messages = until_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    messages
}

#[test]
fn every_frame_of_a_file_is_inferred_and_told_before_eos() {
    let messages = run(&format!(
        "videotestsrc num-buffers=40 ! video/x-raw,width=320,height=240 ! inferencesink model={MODEL} engine=rten"
    ));
    let ids: Vec<_> = named(&messages, "inference-result")
        .iter()
        .map(|result| result.get::<u64>("frame-id").unwrap())
        .collect();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    let last = named(&messages, "inference-stats").pop().unwrap();
    let counts = counts(last);
    assert_eq!((counts.received, counts.inferred), (40, 40));
    assert_eq!(last.get::<&str>("engine"), Ok("rten"));
    assert_eq!(last.get::<&str>("device"), Ok("cpu"));
    let p50: u64 = last.get("latency-p50").unwrap();
    assert!(p50 > 0 && p50 <= last.get::<u64>("latency-p99").unwrap());
}

#[test]
fn a_ball_is_found_in_every_format() {
    for format in ["I420", "NV12", "RGB", "BGR", "RGBA", "BGRA"] {
        let messages = run(&format!(
            "videotestsrc pattern=ball num-buffers=3 ! video/x-raw,format={format},width=640,height=480,framerate=30/1 \
             ! framemeta ! inferencesink model={MODEL}"
        ));
        let results = named(&messages, "inference-result");
        assert_eq!(results.len(), 3, "{format}");
        let document = json(results[2]);
        let output = &document["serialized_output_data"]["predictions"];
        assert_eq!(output["image"]["width"], 640);
        assert_eq!(
            output["predictions"][0]["class"], "circle",
            "{format}: {document}"
        );
        assert_eq!(document["video_metadata"]["frame_id"], 3);
        assert_eq!(document["video_metadata"]["pts"], 66_666_666);
        assert_eq!(document["video_metadata"]["declared_fps"], 30.0);
        assert_eq!(document["model"]["name"], "shapes");
        let id = output["predictions"][0]["detection_id"].as_str().unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "a random uuid");
    }
}

#[test]
fn a_live_source_is_never_held_by_a_slow_model() {
    let mut harness = harness("");
    let bus = with_bus(&harness);
    let gate = Gate::on(&bus);
    harness.play();
    harness.push(frame()).unwrap();
    gate.wait_for(1);
    for _ in 0..10 {
        harness.push(frame()).unwrap();
    }
    let sink = sink_of(&harness);
    let busy = stats(&sink);
    assert_eq!((busy.received, busy.pending, busy.busy), (11, 2, 9));
    gate.open();
    assert!(harness.push_event(gst::event::Eos::new()));
    let end = stats(&sink);
    assert_eq!((end.inferred, end.pending, end.busy), (2, 0, 9));
    let messages: Vec<_> = bus.iter().collect();
    let results = named(&messages, "inference-result");
    let told = [0, 1].map(|at| {
        let document = json(results[at]);
        (
            document["video_metadata"]["frame_id"].as_u64(),
            document["dropped"].as_u64(),
        )
    });
    assert_eq!(told, [(Some(1), Some(0)), (Some(11), Some(9))]);
}

#[test]
fn the_last_statistics_come_before_eos() {
    let messages = run(&format!(
        "videotestsrc is-live=true num-buffers=20 ! video/x-raw,framerate=60/1 ! inferencesink model={MODEL} stats-interval=60000"
    ));
    let last = named(&messages, "inference-stats").pop().unwrap();
    let counts = counts(last);
    assert_eq!((counts.received, counts.pending), (20, 0));
    assert_eq!(
        counts.inferred as usize,
        named(&messages, "inference-result").len()
    );
}

#[test]
fn no_statistics_and_no_results_are_posted_when_not_wanted() {
    let messages = run(&format!(
        "videotestsrc num-buffers=2 ! inferencesink model={MODEL} stats-interval=0 post-messages=false"
    ));
    assert!(named(&messages, "inference-stats").is_empty());
    assert!(named(&messages, "inference-result").is_empty());
}

#[test]
fn statistics_come_while_the_model_is_stuck() {
    let mut harness = harness("stats-interval=5");
    let bus = with_bus(&harness);
    let gate = Gate::on(&bus);
    harness.play();
    harness.push(frame()).unwrap();
    gate.wait_for(1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let stuck = loop {
        assert!(Instant::now() < deadline, "no statistics came");
        harness.push(frame()).unwrap();
        let messages: Vec<_> = bus.iter().collect();
        if let Some(stats) = named(&messages, "inference-stats").pop() {
            let counts = counts(stats);
            if counts.pending == 2 {
                break counts;
            }
        }
        thread::yield_now();
    };
    assert_eq!(stuck.inferred, 0);
    gate.open();
}

#[test]
fn when_held_by_pause_no_frame_is_lost() {
    let pipeline = pipeline(&format!(
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48 ! inferencesink name=sink model={MODEL}"
    ));
    let gate = Gate::on(&pipeline.bus().unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    gate.wait_for(1);
    pipeline.set_state(gst::State::Paused).unwrap();
    gate.open();
    pipeline.set_state(gst::State::Playing).unwrap();
    let messages = until_eos(&pipeline);
    assert_eq!(named(&messages, "inference-result").len(), 10);
    let counts = stats(&pipeline.by_name("sink").unwrap());
    assert_eq!((counts.inferred, counts.dropped), (10, 0));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_flush_frees_the_streaming_thread_and_is_counted() {
    let mut harness = harness("when-busy=wait");
    let bus = with_bus(&harness);
    let gate = Gate::on(&bus);
    let pushed = hold(&mut harness, &gate);
    harness.push_event(gst::event::FlushStart::new());
    assert_eq!(pushed.recv().unwrap(), Err(gst::FlowError::Flushing));
    gate.open();
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<
        gst::ClockTime,
    >::new()));
    harness.push(frame()).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    let counts = stats(&sink_of(&harness));
    assert_eq!((counts.received, counts.inferred, counts.flush), (4, 2, 2));
    let messages: Vec<_> = bus.iter().collect();
    let results = named(&messages, "inference-result");
    assert_eq!(results[1].get::<u64>("frame-id"), Ok(4));
    assert_eq!(json(results[1])["dropped"], 2);
}

#[test]
fn seeking_while_busy_leaves_the_accounts_exact() {
    let pipeline = pipeline(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! inferencesink name=sink model={MODEL}"
    ));
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
    let mut ids: Vec<_> = named(&messages, "inference-result")
        .iter()
        .map(|result| result.get::<u64>("frame-id").unwrap())
        .collect();
    assert_eq!(ids.len() as u64, counts.inferred);
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "no id comes twice");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn null_while_busy_ends_after_the_frame_in_work() {
    let mut harness = harness("when-busy=wait");
    let bus = with_bus(&harness);
    let gate = Gate::on(&bus);
    let pushed = hold(&mut harness, &gate);
    let sink = sink_of(&harness);
    let stopping = thread::spawn({
        let sink = sink.clone();
        move || sink.set_state(gst::State::Null)
    });
    assert!(pushed.recv().unwrap().is_err());
    gate.open();
    stopping.join().unwrap().unwrap();
    let counts = stats(&sink);
    assert_eq!((counts.inferred, counts.closed, counts.pending), (1, 2, 0));
    let messages: Vec<_> = bus.iter().collect();
    assert_eq!(named(&messages, "inference-result").len(), 1);
}

#[test]
fn the_last_statistics_come_before_the_element_has_stopped() {
    let mut harness = harness("stats-interval=60000");
    let bus = with_bus(&harness);
    harness.play();
    harness.push(frame()).unwrap();
    sink_of(&harness).set_state(gst::State::Ready).unwrap();
    let messages: Vec<_> = bus.iter().collect();
    let last = named(&messages, "inference-stats");
    assert_eq!(last.len(), 1);
    assert_eq!(counts(last[0]).received, 1);
}

#[test]
fn each_run_has_its_own_accounts() {
    let mut harness = harness("");
    let sink = sink_of(&harness);
    harness.play();
    harness.push(frame()).unwrap();
    sink.set_state(gst::State::Ready).unwrap();
    assert_eq!(stats(&sink).received, 1);
    sink.set_state(gst::State::Playing).unwrap();
    assert_eq!(stats(&sink).received, 0);
}

#[test]
fn frames_that_missed_their_time_are_counted_as_late() {
    let mut harness = harness("max-lateness=0");
    // The harness switches it off.
    sink_of(&harness).set_property("sync", true);
    harness.set_time(gst::ClockTime::from_seconds(10)).unwrap();
    harness.play();
    for _ in 0..3 {
        let mut late = frame();
        late.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        late.get_mut()
            .unwrap()
            .set_duration(gst::ClockTime::from_mseconds(33));
        harness.push(late).unwrap();
    }
    assert!(harness.push_event(gst::event::Eos::new()));
    let counts = stats(&sink_of(&harness));
    assert_eq!((counts.received, counts.late), (3, 3));
}

#[test]
fn a_result_names_its_frame_on_the_bus_and_upstream() {
    let mut harness = harness("output-name=shapes");
    let bus = with_bus(&harness);
    harness.play();
    let mut buffer = frame();
    FrameFacts {
        connection_id: Some("c".into()),
        stream_id: Some("c/0".into()),
        frame_id: Some(812),
        rtp_timestamp: Some(3_120_457_712),
        mid: Some("0".into()),
        ..FrameFacts::default()
    }
    .write(buffer.get_mut().unwrap());
    harness.push(buffer).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    let messages: Vec<_> = bus.iter().collect();
    let message = named(&messages, "inference-result")[0].to_owned();
    assert_eq!(message.get::<&str>("connection-id"), Ok("c"));
    assert_eq!(message.get::<&str>("stream-id"), Ok("c/0"));
    assert_eq!(message.get::<u64>("frame-id"), Ok(812));
    let document = json(&message);
    assert_eq!(
        document["video_metadata"]["rtp_timestamp"],
        3_120_457_712u32
    );
    assert_eq!(document["video_metadata"]["mid"], "0");
    assert!(document["serialized_output_data"]["shapes"].is_object());
    let event = loop {
        let event = harness.pull_upstream_event().unwrap();
        if event.type_() == gst::EventType::CustomUpstream {
            break event;
        }
    };
    assert_eq!(event.structure().unwrap(), &*message);
}

#[test]
fn a_funnel_does_not_mix_streams_up() {
    let messages = run(&format!(
        "funnel name=f ! inferencesink model={MODEL} \
         videotestsrc num-buffers=8 ! video/x-raw,format=I420,width=64,height=48 ! framemeta ! f. \
         videotestsrc num-buffers=12 ! video/x-raw,format=I420,width=64,height=48 ! framemeta ! f."
    ));
    let results = named(&messages, "inference-result");
    let mut streams: Vec<&str> = results
        .iter()
        .map(|s| s.get("stream-id").unwrap())
        .collect();
    streams.sort();
    streams.dedup();
    let mut frames = streams
        .iter()
        .map(|stream| {
            let ids: Vec<u64> = results
                .iter()
                .filter(|result| result.get::<&str>("stream-id") == Ok(stream))
                .map(|result| result.get("frame-id").unwrap())
                .collect();
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
            ids.len()
        })
        .collect::<Vec<_>>();
    frames.sort();
    assert_eq!(frames, [8, 12]);
}

#[test]
fn raw_outputs_are_told_as_numbers_or_as_bytes() {
    let run = |format: &str| {
        let messages = run(&format!(
            "videotestsrc num-buffers=1 ! {CAPS} ! inferencesink model={MODEL} engine=rten decoder=raw tensor-format={format}"
        ));
        let result = named(&messages, "inference-result")[0].to_owned();
        let tensors = &json(&result)["serialized_output_data"]["predictions"]["tensors"];
        (result.clone(), tensors[0].clone())
    };
    let (result, tensor) = run("json");
    assert!(!result.has_field("tensors"));
    assert_eq!(
        (tensor["name"].as_str(), tensor["datatype"].as_str()),
        (Some("output0"), Some("FP32"))
    );
    let numbers: Vec<f32> = serde_json::from_value(tensor["data"].clone()).unwrap();
    let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
    assert_eq!(numbers.len(), shape.iter().product::<usize>());

    let (result, bare) = run("bytes");
    assert_eq!((&bare["shape"], bare.get("data")), (&tensor["shape"], None));
    let tensors: gst::Array = result.get("tensors").unwrap();
    let tensor: gst::Structure = tensors[0].get().unwrap();
    assert_eq!(tensor.get::<&str>("name"), Ok("output0"));
    let sides: gst::Array = tensor.get("shape").unwrap();
    let sides: Vec<u64> = sides.iter().map(|side| side.get().unwrap()).collect();
    assert_eq!(
        sides.iter().map(|&side| side as usize).collect::<Vec<_>>(),
        shape
    );
    let bytes: gst::glib::Bytes = tensor.get("data").unwrap();
    let (words, _) = bytes.as_chunks::<4>();
    let told: Vec<f32> = words.iter().map(|word| f32::from_ne_bytes(*word)).collect();
    assert_eq!(told, numbers);
}

#[test]
fn what_each_stage_takes_is_told_with_the_result_and_in_the_statistics() {
    let messages = run(&format!(
        "videotestsrc num-buffers=5 ! {CAPS} ! inferencesink model={MODEL} engine=rten"
    ));
    let stages = ["queue", "preprocess", "inference", "postprocess"];
    for result in named(&messages, "inference-result") {
        let took = |stage: &str| result.get::<u64>(stage).unwrap();
        let sum: u64 = stages.iter().map(|stage| took(stage)).sum();
        assert!(
            took("inference") > 0 && sum <= took("latency"),
            "{result:?}"
        );
    }
    let last = named(&messages, "inference-stats").pop().unwrap();
    for stage in stages.iter().chain(&["latency"]) {
        let at = |share: &str| last.get::<u64>(&format!("{stage}-{share}")).unwrap();
        assert!(at("p50") <= at("p95") && at("p95") <= at("p99"), "{last:?}");
    }
}

#[test]
fn the_threshold_can_be_changed_while_playing() {
    let mut harness = harness("when-busy=wait threshold=1.0");
    let bus = with_bus(&harness);
    harness.play();
    let mut boxes = |threshold: f32| {
        sink_of(&harness).set_property("threshold", threshold);
        harness.push(frame()).unwrap();
        loop {
            let message = bus.timed_pop(PATIENCE).expect("a result comes");
            let result = message
                .structure()
                .filter(|s| s.name() == "inference-result");
            if let Some(result) = result {
                let output = &json(result)["serialized_output_data"]["predictions"];
                break output["predictions"].as_array().unwrap().len();
            }
        }
    };
    assert_eq!(boxes(1.0), 0);
    assert_ne!(boxes(0.0), 0);
    assert_eq!(boxes(1.0), 0);
}

/// The error that keeps a description from becoming READY.
#[track_caller]
fn refused(properties: &str) -> Refusal {
    init();
    let pipeline = pipeline(&format!("videotestsrc ! inferencesink {properties}"));
    assert!(pipeline.set_state(gst::State::Ready).is_err());
    let message = pipeline
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Error])
        .expect("the error is there before PLAYING");
    pipeline.set_state(gst::State::Null).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    Refusal {
        kind: error.error().kind::<gst::ResourceError>().unwrap(),
        text: format!("{} {}", error.error(), error.debug().unwrap_or_default()),
    }
}

struct Refusal {
    kind: gst::ResourceError,
    text: String,
}

#[test]
fn a_missing_model_is_an_error_that_names_the_file() {
    let refusal = refused("model=/nowhere/missing.onnx");
    assert_eq!(refusal.kind, gst::ResourceError::NotFound);
    assert!(
        refusal.text.contains("/nowhere/missing.onnx"),
        "{}",
        refusal.text
    );
}

#[test]
fn a_broken_model_is_an_error_that_names_the_file() {
    let broken = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE");
    let short = std::env::temp_dir().join(format!("broken-{}.onnx", std::process::id()));
    std::fs::write(&short, b"no model").unwrap();
    for file in [broken, short.to_str().unwrap()] {
        let refusal = refused(&format!("model={file}"));
        assert_eq!(refusal.kind, gst::ResourceError::OpenRead);
        assert!(refusal.text.contains(file), "{}", refusal.text);
    }
    std::fs::remove_file(short).unwrap();
}

#[test]
fn an_impossible_property_is_an_error_that_names_its_value() {
    let refusal = refused("");
    assert_eq!(refusal.kind, gst::ResourceError::Settings);
    assert!(refusal.text.contains("model"), "{}", refusal.text);
    for (property, value) in [("input-size", "12by9"), ("decoder", "crystal-ball")] {
        let refusal = refused(&format!("model={MODEL} {property}={value}"));
        assert_eq!(refusal.kind, gst::ResourceError::Settings);
        assert!(refusal.text.contains(property), "{}", refusal.text);
        assert!(refusal.text.contains(value), "{}", refusal.text);
    }
}

#[test]
fn a_model_changed_in_ready_is_the_one_that_runs() {
    init();
    let sink = gst::ElementFactory::make("inferencesink")
        .property("model", MODEL)
        .build()
        .unwrap();
    sink.set_state(gst::State::Ready).unwrap();
    sink.set_property("model", "/nowhere/missing.onnx");
    assert!(sink.set_state(gst::State::Paused).is_err());
    sink.set_property("model", MODEL);
    sink.set_state(gst::State::Paused).unwrap();
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn frames_without_caps_are_not_negotiated() {
    init();
    let mut harness = Harness::new_parse(&format!("inferencesink model={MODEL}"));
    harness.play();
    harness.push_event(gst::event::StreamStart::new("s"));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<
        gst::ClockTime,
    >::new()));
    assert_eq!(harness.push(frame()), Err(gst::FlowError::NotNegotiated));
}

#[test]
fn it_neither_syncs_nor_prerolls_nor_sends_qos_nor_keeps_a_frame_unless_told() {
    init();
    let sink = gst::ElementFactory::make("inferencesink").build().unwrap();
    for property in ["sync", "async", "qos", "enable-last-sample"] {
        assert!(!sink.property::<bool>(property), "{property}");
    }
}
