//! The sink without visitors: pads, time, ends and what it says of itself. What reaches visitors is for the real clients.

use std::time::{Duration, Instant};

use gst::prelude::*;

fn launch(description: &str) -> gst::Pipeline {
    super::init();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.downcast().unwrap()
}

/// Waits for EOS or an error, which is the result.
fn outcome(pipeline: &gst::Pipeline) -> Result<(), String> {
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds)
        .expect("it ends");
    match message.view() {
        gst::MessageView::Error(error) => Err(error.error().to_string()),
        _ => Ok(()),
    }
}

fn stop(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_source_that_is_not_live_takes_its_time_and_ends_the_pipeline() {
    for (source, pad) in [
        (
            "videotestsrc num-buffers=31 ! video/x-raw,framerate=30/1",
            "video_0",
        ),
        (
            "audiotestsrc num-buffers=50 samplesperbuffer=960 ! audio/x-raw,rate=48000",
            "audio_0",
        ),
    ] {
        let pipeline = launch(&format!(
            "{source} ! k.{pad} rtcsessionsink name=k send-to=all"
        ));
        let began = Instant::now();
        pipeline.set_state(gst::State::Playing).unwrap();
        assert_eq!(outcome(&pipeline), Ok(()));
        let took = began.elapsed();
        assert!(took > Duration::from_millis(900), "{source}: {took:?}");
        stop(&pipeline);
    }
}

#[test]
fn the_end_comes_when_every_pad_had_its_own_and_again_after_another_start() {
    let pipeline = launch(
        "videotestsrc num-buffers=1 ! rtcsessionsink name=k send-to=all sync=false
         audiotestsrc num-buffers=10 ! k.audio_0",
    );
    for _ in 0..2 {
        pipeline.set_state(gst::State::Playing).unwrap();
        assert_eq!(outcome(&pipeline), Ok(()));
        pipeline.set_state(gst::State::Ready).unwrap();
    }
    stop(&pipeline);
}

#[test]
fn without_anything_to_show_it_is_black_and_silent_at_the_rate() {
    let pipeline = launch(
        "rtcsessionsink name=k send-to=all
         appsrc name=v is-live=true ! k.video_0 appsrc name=a is-live=true ! k.audio_0",
    );
    let sink = pipeline.by_name("k").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let of = |pad: &str, field: &str| -> u64 {
        let stats = sink.property::<gst::Structure>("buffer-stats");
        let pad = stats.get::<gst::Structure>(pad).unwrap();
        let all = pad.get::<gst::Structure>("all").unwrap();
        all.get(field).unwrap()
    };
    let began = Instant::now();
    while of("video_0", "black") < 30 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?} for 30 frames");
    // A second of it, or a little less.
    assert!(of("audio_0", "silence") > 30_000);
    stop(&pipeline);
}

#[test]
fn a_format_that_cannot_be_is_named() {
    let pipeline = launch(
        "appsrc name=v format=time is-live=true caps=video/x-raw,format=I420,width=40000,height=40000,framerate=30/1
         ! rtcsessionsink send-to=all",
    );
    pipeline.set_state(gst::State::Playing).unwrap();
    let source = pipeline.by_name("v").unwrap();
    let _ = source
        .emit_by_name::<gst::FlowReturn>("push-buffer", &[&gst::Buffer::from_slice([0u8; 4])]);
    let error = outcome(&pipeline).unwrap_err();
    assert!(error.contains("40000"), "{error}");
    stop(&pipeline);
}

#[test]
fn a_sink_that_waits_for_the_time_of_a_buffer_stops_at_once() {
    let pipeline = launch(
        "videotestsrc timestamp-offset=3600000000000 ! rtcsessionsink name=k send-to=all
         audiotestsrc num-buffers=2000 ! k.audio_0",
    );
    pipeline.set_state(gst::State::Playing).unwrap();
    let sink = pipeline.by_name("k").unwrap();
    // Until the audio that may wait is full and its source is held.
    let began = Instant::now();
    loop {
        let stats = sink.property::<gst::Structure>("buffer-stats");
        let audio = stats.get::<gst::Structure>("audio_0").unwrap();
        let all = audio.get::<gst::Structure>("all").unwrap();
        if all.get::<u64>("queued").unwrap() > 5_000_000_000 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    stop(&pipeline);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn pads_are_named_as_asked_or_by_the_lowest_free_number() {
    super::init();
    let sink = gst::ElementFactory::make("rtcsessionsink").build().unwrap();
    let name = |pad: Option<gst::Pad>| pad.map(|pad| pad.name().to_string());
    let first = sink.request_pad_simple("video_%u");
    assert_eq!(name(first.clone()), Some("video_0".into()));
    assert_eq!(
        name(sink.request_pad_simple("video_%u")),
        Some("video_1".into())
    );
    assert_eq!(
        name(sink.request_pad_simple("audio_3")),
        Some("audio_3".into())
    );
    assert_eq!(
        name(sink.request_pad_simple("audio_%u")),
        Some("audio_0".into())
    );
    sink.release_request_pad(&first.unwrap());
    assert_eq!(
        name(sink.request_pad_simple("video_%u")),
        Some("video_0".into())
    );
    assert_eq!(sink.pads().len(), 4);
}

#[test]
fn clearing_drops_what_waits_and_says_whether_anybody_was_there() {
    let pipeline =
        launch("rtcsessionsink name=k send-to=all audiotestsrc num-buffers=500 ! k.audio_0");
    let sink = pipeline.by_name("k").unwrap();
    assert!(!sink.emit_by_name::<bool>("clear-buffers", &[&""]));
    pipeline.set_state(gst::State::Playing).unwrap();
    let all = || -> gst::Structure {
        let stats = sink.property::<gst::Structure>("buffer-stats");
        let audio = stats.get::<gst::Structure>("audio_0").unwrap();
        audio.get("all").unwrap()
    };
    let began = Instant::now();
    while all().get::<u64>("queued").unwrap() < 5_000_000_000 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(sink.emit_by_name::<bool>("clear-buffers", &[&""]));
    assert!(all().get::<u64>("cleared").unwrap() > 200_000);
    stop(&pipeline);
}
