//! The sink without visitors: pads, time, ends and what it says of itself. What reaches visitors is for the real clients.

use std::time::{Duration, Instant};

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use gst::prelude::*;
use str0m::media::MediaData;

use crate::server::{CLIP, Server, text};
use crate::visitor::{self, Door, Manner, Mirror};

/// Counts what comes back.
struct Counting(Arc<AtomicU64>);

impl Mirror for Counting {
    fn sent(&mut self, _number: u64, _position: usize) {}

    fn returned(&mut self, _frame: MediaData) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// A visitor who sends the clip and counts what comes back.
struct Looking {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Looking {
    fn at(server: &Server) -> Self {
        let (count, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = std::thread::spawn({
            let (url, stop, mut mirror) = (server.url(), stop.clone(), Counting(count.clone()));
            move || {
                let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
                visitor::visit_and_look(&url, Door::Offer, local, &CLIP, &mut mirror, &stop);
            }
        });
        Self {
            count,
            stop,
            thread,
        }
    }

    fn has(&self, frames: u64) -> Option<()> {
        (self.count.load(Ordering::Relaxed) >= frames).then_some(())
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

const SOURCE: &str = "rtcsessionsrc listen=http://127.0.0.1:0 eos-policy=never";

#[test]
fn p2_p5_p6_a_publication_begins_with_what_reached_the_visitor_and_ends_once_before_its_last_word()
{
    for to in ["all", "origin"] {
        let server = Server::playing(&format!(
            "{SOURCE} videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1
             ! rtcsessionsink name=k send-to={to}"
        ));
        let sink = server.pipeline.by_name("k").unwrap();
        let visitor = Looking::at(&server);
        // With send-to=origin nothing of the test source is for anybody, and what goes out is black.
        server.wait_for("frames", || visitor.has(20));
        let started = server.wait("rtc-publication-started", 1);
        assert_eq!(text(&started[0], "codec"), "vp8");
        assert_eq!(text(&started[0], "pad"), "video_0");
        assert!(server.named("rtc-publication-ended").is_empty());
        let publishing = |id: &str| {
            let stats = sink.property::<gst::Structure>("buffer-stats");
            stats
                .get::<gst::Structure>("video_0")
                .unwrap()
                .has_field(id)
        };
        let id = match to {
            "all" => to.to_owned(),
            _ => text(&started[0], "connection-id"),
        };
        assert!(publishing(&id));
        visitor.leave();
        server.wait("rtc-connection-ended", 1);
        let ended = server.named("rtc-publication-ended");
        assert_eq!(ended.len(), 1);
        assert_eq!(server.named("rtc-publication-started").len(), 1);
        assert!(ended[0].get::<u64>("buffers").unwrap() >= 20);
        assert_eq!(publishing(&id), to == "all");
        server.stop();
    }
}

#[test]
fn a_chain_may_count_on_how_long_its_frames_last() {
    // videorate aborts where nobody says it.
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"videorate max-rate=15 drop-only=true\"",
    );
    let visitor = Looking::at(&server);
    server.wait_for("frames", || visitor.has(15));
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn p5_stopping_ends_every_publication() {
    let server = Server::playing(&format!(
        "{SOURCE} videotestsrc is-live=true ! rtcsessionsink send-to=all"
    ));
    let visitors = [Looking::at(&server), Looking::at(&server)];
    server.wait("rtc-publication-started", 2);
    server.pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(server.named("rtc-publication-ended").len(), 2);
    server.assert_contract();
    visitors.into_iter().for_each(Looking::leave);
}

#[test]
fn p7_a_visitor_who_receives_nothing_is_named_once_and_others_are_served() {
    for to in ["all", "origin"] {
        let server = Server::playing(&format!(
            "{SOURCE} videotestsrc is-live=true ! rtcsessionsink send-to={to}"
        ));
        let sender = server.visitor(Manner::Polite);
        let named = server.wait("rtc-publication-error", 1);
        assert_eq!(text(&named[0], "error"), "the visitor receives no video");
        assert_eq!(named[0].get::<bool>("fatal"), Ok(false));
        let visitor = Looking::at(&server);
        server.wait_for("frames", || visitor.has(20));
        assert_eq!(server.named("rtc-publication-error").len(), 1);
        assert_eq!(server.named("rtc-publication-started").len(), 1);
        sender.leave();
        visitor.leave();
        server.stop();
    }
}

#[test]
fn many_visitors_come_and_go_and_nothing_of_them_stays() {
    let server = Server::playing(&format!(
        "{SOURCE} max-connections=40 videotestsrc is-live=true ! rtcsessionsink name=k send-to=origin"
    ));
    let sink = server.pipeline.by_name("k").unwrap();
    for round in 1..=3 {
        let visitors: Vec<_> = (0..6).map(|_| Looking::at(&server)).collect();
        for visitor in &visitors {
            server.wait_for("frames", || visitor.has(5));
        }
        visitors.into_iter().for_each(Looking::leave);
        server.wait("rtc-connection-ended", 6 * round);
    }
    assert_eq!(server.named("rtc-publication-started").len(), 18);
    assert_eq!(server.named("rtc-publication-ended").len(), 18);
    let stats = sink.property::<gst::Structure>("buffer-stats");
    let video = stats.get::<gst::Structure>("video_0").unwrap();
    assert_eq!(video.n_fields(), 1, "{video}");
    server.stop();
}

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
fn f8_a_picture_that_is_too_short_is_named() {
    let pipeline = launch(
        "appsrc name=v format=time is-live=true caps=video/x-raw,format=BGR,width=64,height=48,framerate=30/1
         ! rtcsessionsink send-to=all",
    );
    pipeline.set_state(gst::State::Playing).unwrap();
    let source = pipeline.by_name("v").unwrap();
    let short = gst::Buffer::from_slice([0u8; 9_215]);
    let taken: gst::FlowReturn = source.emit_by_name("push-buffer", &[&short]);
    assert_eq!(taken, gst::FlowReturn::Ok);
    let error = outcome(&pipeline).unwrap_err();
    assert!(
        error.contains("9216 bytes") && error.contains("9215"),
        "{error}"
    );
    stop(&pipeline);
}

/// Frames that are encoded and raw ones in turn, through one pad.
#[test]
fn continuity_is_for_raw_frames_whatever_came_before() {
    let pipeline = launch(
        "concat name=c ! rtcsessionsink name=k send-to=all sync=false
         videotestsrc num-buffers=3 ! vp8enc ! c.
         videotestsrc num-buffers=3 ! c.",
    );
    let sink = pipeline.by_name("k").unwrap();
    let (seen, stats) = std::sync::mpsc::channel();
    sink.static_pad("video_0").unwrap().add_probe(
        gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, info| {
            if info
                .event()
                .is_some_and(|e| e.type_() == gst::EventType::Eos)
            {
                let sink = pad.parent_element().unwrap();
                let _ = seen.send(sink.property::<gst::Structure>("buffer-stats"));
            }
            gst::PadProbeReturn::Ok
        },
    );
    pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(outcome(&pipeline), Ok(()));
    let video = stats.recv().unwrap().get::<gst::Structure>("video_0");
    let all = video.unwrap().get::<gst::Structure>("all").unwrap();
    assert_eq!(all.get::<u64>("taken"), Ok(3), "{all}");
    stop(&pipeline);
}

#[test]
fn a_sink_that_waits_for_the_time_of_a_buffer_stops_at_once() {
    let pipeline = launch(
        "videotestsrc timestamp-offset=3600000000000 ! rtcsessionsink send-to=all
         audiotestsrc ! rtcsessionsink name=k send-to=all sync=false",
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
fn a_pad_is_released_while_a_buffer_waits_in_it() {
    for (state, offset) in [
        (gst::State::Paused, 0u64),
        (gst::State::Playing, 3_600_000_000_000),
    ] {
        let pipeline = launch(&format!(
            "videotestsrc name=v timestamp-offset={offset} ! rtcsessionsink name=k send-to=all"
        ));
        let source = pipeline.by_name("v").unwrap();
        let sink = pipeline.by_name("k").unwrap();
        let (arrived, came) = std::sync::mpsc::channel();
        let pad = sink.static_pad("video_0").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = arrived.send(());
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(state).unwrap();
        came.recv_timeout(Duration::from_secs(20)).unwrap();
        source.unlink(&sink);
        let began = Instant::now();
        sink.release_request_pad(&pad);
        assert!(began.elapsed() < Duration::from_secs(2), "{state:?}");
        assert!(sink.static_pad("video_0").is_none());
        stop(&pipeline);
    }
}

#[test]
fn a_handler_of_what_is_said_may_take_the_pad_away() {
    let server = Server::playing(&format!(
        "{SOURCE} videotestsrc name=v is-live=true ! rtcsessionsink name=k send-to=all"
    ));
    let bus = server.pipeline.bus().unwrap();
    let source = server.pipeline.by_name("v").unwrap();
    let sink = server.pipeline.by_name("k").unwrap();
    let said = server.said.clone();
    bus.unset_sync_handler();
    bus.set_sync_handler(move |_, message| {
        let entry = (Instant::now(), message.clone());
        said.lock().unwrap().messages.push(entry);
        let name = message.structure().map(|s| s.name().to_string());
        if name.as_deref() == Some("rtc-publication-started")
            && let Some(pad) = sink.static_pad("video_0")
        {
            source.unlink(&sink);
            sink.release_request_pad(&pad);
        }
        gst::BusSyncReply::Drop
    });
    let visitor = Looking::at(&server);
    server.wait("rtc-publication-ended", 1);
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn a_seek_goes_upstream_and_the_stream_goes_on_after_it_even_after_its_end() {
    let pipeline = launch("videotestsrc ! video/x-raw,framerate=30/1 ! rtcsessionsink send-to=all");
    pipeline.set_state(gst::State::Paused).unwrap();
    let (none, end) = (gst::ClockTime::ZERO, gst::ClockTime::from_mseconds(1_200));
    for round in 0..2 {
        let began = Instant::now();
        let (flags, set) = (gst::SeekFlags::FLUSH, gst::SeekType::Set);
        pipeline.seek(1.0, flags, set, none, set, end).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        assert_eq!(outcome(&pipeline), Ok(()));
        let took = began.elapsed();
        assert!(took > Duration::from_millis(900), "{took:?}, round {round}");
    }
    stop(&pipeline);
}

#[test]
fn the_end_waits_for_audio_that_came_faster_than_it_plays() {
    let pipeline = launch(
        "audiotestsrc num-buffers=150 samplesperbuffer=960 ! audio/x-raw,rate=48000
         ! rtcsessionsink send-to=all sync=false drain-timeout=300",
    );
    let began = Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(outcome(&pipeline), Ok(()));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2_700), "{took:?} for 3 s");
    stop(&pipeline);
}

#[test]
fn audio_is_heard_at_its_time_and_a_held_source_loses_nothing() {
    let pipeline = launch(
        "audiotestsrc timestamp-offset=1000000000 num-buffers=20 samplesperbuffer=9600
         ! audio/x-raw,rate=48000 ! rtcsessionsink name=k send-to=all max-buffer=100",
    );
    let sink = pipeline.by_name("k").unwrap();
    let (seen, stats) = std::sync::mpsc::channel();
    sink.static_pad("audio_0").unwrap().add_probe(
        gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, info| {
            if info
                .event()
                .is_some_and(|e| e.type_() == gst::EventType::Eos)
            {
                let sink = pad.parent_element().unwrap();
                let _ = seen.send(sink.property::<gst::Structure>("buffer-stats"));
            }
            gst::PadProbeReturn::Ok
        },
    );
    let began = Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(outcome(&pipeline), Ok(()));
    // A second before it begins, and four of sound.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(4_700), "{took:?}");
    let audio = stats.recv().unwrap().get::<gst::Structure>("audio_0");
    let all = audio.unwrap().get::<gst::Structure>("all").unwrap();
    assert_eq!(all.get::<u64>("taken"), Ok(20 * 9_600));
    assert_eq!(all.get::<u64>("dropped"), Ok(0));
    stop(&pipeline);
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
    let pipeline = launch(
        "rtcsessionsink name=k send-to=all sync=false audiotestsrc num-buffers=500 ! k.audio_0",
    );
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
    assert!(!sink.emit_by_name::<bool>("clear-buffers", &[&"nobody"]));
    assert!(all().get::<u64>("queued").unwrap() > 4_000_000_000);
    assert!(sink.emit_by_name::<bool>("clear-buffers", &[&""]));
    assert!(all().get::<u64>("cleared").unwrap() > 200_000);
    stop(&pipeline);
}
