//! `framemeta` alone, and what of its meta is left after other elements.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstrtcinference::{logic::frame_facts::FrameFacts, meta};

use crate::{Overheard, init};

/// Runs a description to its end; gives the facts of every buffer that reaches the sink named `out`, and the bus.
fn run(description: &str) -> (Vec<FrameFacts>, Vec<gst::Message>) {
    init();
    let pipeline = gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pad = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let seen = seen.clone();
        move |_, info| {
            let buffer = info.buffer().unwrap();
            let copies = buffer
                .iter_meta::<gst::Meta>()
                .filter(|meta| {
                    meta.try_as_custom_meta()
                        .is_some_and(|meta| meta.has_name(meta::NAME))
                })
                .count();
            seen.lock()
                .unwrap()
                .push((copies, FrameFacts::read(buffer)));
            gst::PadProbeReturn::Ok
        }
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut messages = Vec::new();
    for message in pipeline
        .bus()
        .unwrap()
        .iter_timed(gst::ClockTime::from_seconds(20))
    {
        let end = matches!(message.view(), gst::MessageView::Eos(_));
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{error:?}");
        }
        messages.push(message);
        if end {
            pipeline.set_state(gst::State::Null).unwrap();
            let seen = seen.lock().unwrap();
            assert!(
                seen.iter().all(|(copies, _)| *copies <= 1),
                "several metas on one buffer"
            );
            return (
                seen.iter().map(|(_, facts)| facts.clone()).collect(),
                messages,
            );
        }
    }
    panic!("no EOS from {description}");
}

fn ids(frames: &[FrameFacts]) -> Vec<u64> {
    frames.iter().filter_map(|facts| facts.frame_id).collect()
}

const TWELVE: &str = "videotestsrc num-buffers=12 ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! framemeta";

#[track_caller]
fn survives(chain: &str) {
    let (frames, _) = run(&format!("{TWELVE} ! {chain} ! fakesink name=out"));
    assert_eq!(ids(&frames), (1..=12).collect::<Vec<_>>());
}

#[test]
fn facts_of_a_plain_source_are_complete() {
    let (frames, _) = run(&format!("{TWELVE} ! fakesink name=out"));
    assert_eq!(ids(&frames), (1..=12).collect::<Vec<_>>());
    let last = frames.last().unwrap();
    assert_eq!(last.pts, Some(440_000_000));
    assert_eq!(last.time_base.unwrap().den, 1_000_000_000);
    assert_eq!(last.declared_fps, Some(25.0));
    assert!((last.measured_fps.unwrap() - 25.0).abs() < 0.01);
    assert_eq!((last.width, last.height), (Some(320), Some(240)));
    assert!(!last.stream_id.as_ref().unwrap().is_empty());
    assert_eq!(last.connection_id, None);
    assert_eq!(last.rtp_timestamp, None);
}

#[test]
fn a_variable_rate_declares_none() {
    let (frames, _) = run(
        "videotestsrc num-buffers=2 ! video/x-raw,framerate=25/1 ! capssetter join=true caps=video/x-raw,framerate=0/1 \
         ! framemeta ! fakesink name=out",
    );
    assert_eq!(frames[1].declared_fps, None);
    assert!(frames[1].measured_fps.is_some());
}

#[test]
fn audio_is_counted_too() {
    let (frames, _) = run("audiotestsrc num-buffers=3 ! framemeta ! fakesink name=out");
    assert_eq!(ids(&frames), [1, 2, 3]);
    assert_eq!(frames[0].width, None);
}

#[test]
fn facts_survive_convert_scale_crop_and_flip() {
    survives(
        "videoconvert ! video/x-raw,format=RGB ! videoscale ! video/x-raw,width=160,height=120 ! videocrop left=8 ! videoflip method=horizontal-flip",
    );
}

#[test]
fn facts_survive_vp8_coding() {
    survives("vp8enc deadline=1 ! vp8dec");
}

#[test]
fn facts_survive_h264_coding() {
    survives("openh264enc ! avdec_h264");
}

#[test]
fn facts_survive_vp8_over_rtp() {
    survives(
        "vp8enc deadline=1 target-bitrate=8000000 ! rtpvp8pay mtu=300 ! rtpjitterbuffer ! rtpvp8depay ! vp8dec",
    );
}

#[test]
fn facts_survive_h264_over_rtp() {
    survives(
        "openh264enc bitrate=8000000 ! rtph264pay mtu=300 ! rtpjitterbuffer ! rtph264depay ! avdec_h264",
    );
}

#[test]
fn packets_of_a_frame_share_their_facts() {
    let (packets, messages) = run(
        "videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240,framerate=25/1 ! vp8enc deadline=1 \
         ! rtpvp8pay mtu=200 timestamp-offset=4294960000 ssrc=77 ! framemeta post-messages=true ! fakesink name=out",
    );
    assert!(packets.len() > 10, "mtu makes several packets of a frame");
    let mut frames = packets.clone();
    frames.dedup_by_key(|facts| facts.rtp_timestamp);
    assert_eq!(ids(&frames), [1, 2, 3, 4, 5]);
    let mut by_id = packets.clone();
    by_id.dedup_by_key(|facts| facts.frame_id);
    assert_eq!(by_id.len(), 5);
    let last = frames.last().unwrap();
    assert_eq!(last.ssrc, Some(77));
    assert_eq!(
        last.rtp_timestamp,
        Some(4_294_960_000u32.wrapping_add(4 * 3600))
    );
    assert_eq!(last.pts, Some(4 * 3600));
    assert_eq!(last.time_base.unwrap().den, 90_000);
    assert!(last.arrival_time.unwrap() > 1_700_000_000_000_000_000);
    assert_eq!(
        frame_messages(&messages).len(),
        5,
        "one for each frame, not for each packet"
    );
}

#[test]
fn rtp_facts_reach_the_decoded_frame() {
    let (frames, _) = run(
        "videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240,framerate=25/1 ! vp8enc deadline=1 \
         ! rtpvp8pay ssrc=77 timestamp-offset=1000 ! application/x-rtp,a-mid=(string)cam ! framemeta ! rtpvp8depay ! vp8dec \
         ! framemeta ! fakesink name=out",
    );
    assert_eq!(ids(&frames), [1, 2, 3, 4, 5]);
    let last = frames.last().unwrap();
    assert_eq!(
        (last.ssrc, last.rtp_timestamp),
        (Some(77), Some(1000 + 4 * 3600))
    );
    assert_eq!(last.mid.as_deref(), Some("cam"));
    assert_eq!((last.pts, last.width), (Some(4 * 3600), Some(320)));
    assert!((last.measured_fps.unwrap() - 25.0).abs() < 0.01);
}

#[test]
fn a_packet_can_bring_its_own_mid() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.set_src_caps_str(
        "application/x-rtp,media=video,clock-rate=90000,extmap-3=urn:ietf:params:rtp-hdrext:sdes:mid",
    );
    use gst_rtp::prelude::*;
    let mut packet = gst::Buffer::new_rtp_with_sizes(10, 0, 0).unwrap();
    gst_rtp::RTPBuffer::from_buffer_writable(packet.get_mut().unwrap())
        .unwrap()
        .add_extension_onebyte_header(3, b"v1")
        .unwrap();
    let out = harness.push_and_pull(packet).unwrap();
    assert_eq!(FrameFacts::read(&out).mid.as_deref(), Some("v1"));
}

#[test]
fn what_is_no_rtp_packet_passes_unchanged() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.set_src_caps_str("application/x-rtp,media=video,clock-rate=90000");
    let out = harness
        .push_and_pull(gst::Buffer::from_slice([1, 2, 3]))
        .unwrap();
    assert_eq!(FrameFacts::read(&out), FrameFacts::default());
    assert_eq!(out.size(), 3);
}

#[test]
fn a_buffer_somebody_else_holds_keeps_its_memory_and_stays_unmarked() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.set_src_caps_str("video/x-raw,format=GRAY8,width=2,height=2,framerate=0/1");
    let held = gst::Buffer::from_slice([7; 4]);
    let out = harness.push_and_pull(held.clone()).unwrap();
    assert_eq!(FrameFacts::read(&out).frame_id, Some(1));
    assert_eq!(FrameFacts::read(&held), FrameFacts::default());
    assert_eq!(
        out.map_readable().unwrap().as_ptr(),
        held.map_readable().unwrap().as_ptr()
    );
}

#[test]
fn every_buffer_of_a_list_gets_its_facts() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.set_src_caps_str("video/x-raw");
    let list: gst::BufferList = (0..3).map(|_| gst::Buffer::new()).collect();
    harness.srcpad().unwrap().push_list(list).unwrap();
    let frames = [(); 3].map(|()| FrameFacts::read(&harness.pull().unwrap()));
    assert_eq!(ids(&frames), [1, 2, 3]);
}

#[test]
fn a_funnel_counts_each_stream_for_itself() {
    let (frames, _) = run("funnel name=f ! framemeta ! fakesink name=out \
         videotestsrc num-buffers=4 ! f. videotestsrc num-buffers=6 pattern=ball ! f.");
    let mut streams: Vec<_> = frames
        .iter()
        .map(|facts| facts.stream_id.clone().unwrap())
        .collect();
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), 2);
    let mut counts: Vec<_> = streams
        .iter()
        .map(|stream| {
            let of_stream: Vec<_> = frames
                .iter()
                .filter(|facts| facts.stream_id.as_ref() == Some(stream))
                .cloned()
                .collect();
            let ids = ids(&of_stream);
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
            ids.len()
        })
        .collect();
    counts.sort();
    assert_eq!(counts, [4, 6]);
}

#[test]
fn a_flush_repeats_no_id() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.set_src_caps_str("video/x-raw");
    let id = |harness: &mut gst_check::Harness| {
        FrameFacts::read(&harness.push_and_pull(gst::Buffer::new()).unwrap()).frame_id
    };
    assert_eq!(id(&mut harness), Some(1));
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<
        gst::ClockTime,
    >::new()));
    assert_eq!(id(&mut harness), Some(2));
}

#[test]
fn messages_can_be_switched_while_playing() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    let element = harness.element().unwrap();
    let bus = Overheard::of(&element);
    harness.set_src_caps_str("video/x-raw,width=4,height=2,framerate=5/1");
    harness.push_and_pull(gst::Buffer::new()).unwrap();
    element.set_property("post-messages", true);
    harness.push_and_pull(gst::Buffer::new()).unwrap();
    element.set_property("post-messages", false);
    harness.push_and_pull(gst::Buffer::new()).unwrap();
    let messages: Vec<_> = bus.iter().collect();
    let facts = frame_messages(&messages);
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].get::<u64>("frame-id"), Ok(2));
    assert_eq!(facts[0].get::<i32>("width"), Ok(4));
    assert_eq!(facts[0].get::<f64>("declared-fps"), Ok(5.0));
}

fn frame_messages(messages: &[gst::Message]) -> Vec<gst::Structure> {
    messages
        .iter()
        .filter_map(|message| message.structure())
        .filter(|structure| structure.name() == "frame-meta")
        .map(|structure| structure.to_owned())
        .collect()
}

#[test]
fn upstream_gets_the_pool_of_downstream() {
    init();
    let mut harness = gst_check::Harness::new("framemeta");
    harness.add_propose_allocation_meta(gst_video::VideoMeta::meta_api(), None);
    harness.set_src_caps_str("video/x-raw");
    let caps = gst::Caps::builder("video/x-raw").build();
    let mut query = gst::query::Allocation::new(Some(&caps), false);
    assert!(harness.srcpad().unwrap().peer_query(query.query_mut()));
    assert!(
        query
            .find_allocation_meta::<gst_video::VideoMeta>()
            .is_some()
    );
}
