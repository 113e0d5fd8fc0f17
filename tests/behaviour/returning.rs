//! What becomes of frames on their way to a peer, with a peer that takes notes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtcinference::logic::frame_facts::{FrameFacts, TimeBase};
use gstrtcinference::logic::media::Media;
use gstrtcinference::peer::chain::Chain;
use gstrtcinference::peer::codecs::Codec;
use gstrtcinference::peer::encoders::AudioTerms;
use gstrtcinference::peer::encoding::{Encoded, Encoding, EncodingOwner, Taker};

const INTERVAL: Duration = Duration::from_millis(200);
const FRAME: gst::ClockTime = gst::ClockTime::from_nseconds(1_000_000_000 / 30);

struct Peer {
    codecs: Mutex<Vec<Codec>>,
    admits: AtomicBool,
    asked: AtomicUsize,
    bitrate: AtomicU32,
    wish: AtomicBool,
    got: Mutex<Vec<(Instant, Encoded)>>,
}

impl Taker for Peer {
    fn codecs(&self) -> Vec<Codec> {
        self.codecs.lock().unwrap().clone()
    }

    fn admits(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.admits.load(Ordering::Relaxed)
    }

    fn bitrate(&self) -> u32 {
        self.bitrate.load(Ordering::Relaxed)
    }

    fn take_keyframe_wish(&self) -> bool {
        self.wish.swap(false, Ordering::Relaxed)
    }

    fn keyframe_interval(&self) -> Duration {
        INTERVAL
    }

    fn take(&self, frame: Encoded) {
        self.got.lock().unwrap().push((Instant::now(), frame));
    }
}

#[derive(Default)]
struct Owner {
    drained: AtomicBool,
    discarded: Mutex<Vec<String>>,
}

impl EncodingOwner for Owner {
    fn running_time(&self) -> Option<gst::ClockTime> {
        None
    }

    fn drained(&self) {
        self.drained.store(true, Ordering::Relaxed);
    }

    fn discarded(&self, why: String) {
        self.discarded.lock().unwrap().push(why);
    }
}

struct Way {
    pipeline: gst::Pipeline,
    pad: gst::Pad,
    encoding: Encoding,
    peer: Arc<Peer>,
    owner: Arc<Owner>,
    count: u64,
    /// Events that came up the pad.
    upstream: Arc<Mutex<Vec<gst::Event>>>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.encoding.stop();
        let _ = self.pad.set_active(false);
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

const STEREO: AudioTerms = AudioTerms {
    stereo: true,
    dtx: false,
};

impl Way {
    fn new(media: Media, audio: AudioTerms, codecs: &[Codec], caps: &str) -> Self {
        super::init();
        let pipeline = gst::Pipeline::new();
        pipeline.set_state(gst::State::Playing).unwrap();
        let peer = Arc::new(Peer {
            codecs: Mutex::new(codecs.to_vec()),
            admits: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
            bitrate: AtomicU32::new(1_000_000),
            wish: AtomicBool::new(false),
            got: Mutex::default(),
        });
        let owner = Arc::new(Owner::default());
        let encoding = Encoding::new(media, audio, &pipeline, peer.clone(), owner.clone());
        let upstream = Arc::new(Mutex::new(Vec::new()));
        let events = upstream.clone();
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .event_function(move |_, _, event| {
                events.lock().unwrap().push(event);
                true
            })
            .build();
        pad.set_active(true).unwrap();
        pad.link_full(encoding.pad(), gst::PadLinkCheck::empty())
            .unwrap();
        pad.push_event(gst::event::StreamStart::new("test"));
        pad.push_event(gst::event::Caps::new(&caps.parse().unwrap()));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        pad.push_event(gst::event::Segment::new(&segment));
        Self {
            pipeline,
            pad,
            encoding,
            peer,
            owner,
            count: 0,
            upstream,
        }
    }

    fn video(codecs: &[Codec]) -> Self {
        let caps = "video/x-raw,format=I420,width=320,height=240,framerate=0/1";
        Self::new(Media::Video, STEREO, codecs, caps)
    }

    /// A frame with some noise: no encoder has an easy life, and none an impossible one.
    fn push(&mut self) {
        let mut random = fastrand::Rng::with_seed(self.count);
        let bytes: Vec<u8> = (0..320 * 240 * 3 / 2)
            .map(|_| random.u8(120..136))
            .collect();
        self.push_bytes(bytes, FRAME, None);
    }

    fn push_bytes(&mut self, bytes: Vec<u8>, duration: gst::ClockTime, facts: Option<FrameFacts>) {
        let mut buffer = gst::Buffer::from_slice(bytes);
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(duration * self.count);
            if let Some(facts) = facts {
                facts.write(buffer);
            }
        }
        self.count += 1;
        self.pad.push(buffer).unwrap();
    }

    fn got(&self) -> Vec<Encoded> {
        let got = self.peer.got.lock().unwrap();
        got.iter().map(|(_, frame)| frame.clone()).collect()
    }
}

#[test]
fn frames_are_encoded_as_what_the_peer_takes_first_beginning_with_a_keyframe() {
    for codecs in [[Codec::Vp8, Codec::H264], [Codec::H264, Codec::Vp8]] {
        let mut way = Way::video(&codecs);
        (0..10).for_each(|_| way.push());
        let got = way.got();
        assert!(got.len() >= 9, "{}", got.len());
        assert!(got.iter().all(|frame| frame.codec == codecs[0]));
        assert!(got[0].keyframe && got[1..].iter().all(|frame| !frame.keyframe));
    }
}

#[test]
fn a_keyframe_comes_when_it_is_wished_for_and_not_more_often_than_the_interval() {
    let mut way = Way::video(&[Codec::Vp8]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let keyframes = |way: &Way| -> Vec<Instant> {
        let got = way.peer.got.lock().unwrap();
        let keys = got.iter().filter(|(_, frame)| frame.keyframe);
        keys.map(|(at, _)| *at).collect()
    };
    while keyframes(&way).len() < 3 {
        assert!(
            Instant::now() < deadline,
            "{} keyframes",
            keyframes(&way).len()
        );
        way.peer.wish.store(true, Ordering::Relaxed);
        way.push();
    }
    let keyframes = keyframes(&way);
    // From the first to the second, too: making an encoder is asking for one.
    for (one, next) in keyframes.iter().zip(&keyframes[1..]) {
        let apart = *next - *one;
        assert!(apart + Duration::from_millis(20) > INTERVAL, "{apart:?}");
    }
    assert!(way.count > 6);
}

#[test]
fn a_lower_bitrate_makes_smaller_frames_at_once() {
    for codec in Codec::VIDEO {
        let mut way = Way::video(&[codec]);
        let bytes = |way: &mut Way| {
            let before = way.got().len();
            (0..60).for_each(|_| way.push());
            let got = way.got();
            let frames = &got[before + 20..];
            frames.iter().map(|frame| frame.data.len()).sum::<usize>()
        };
        way.peer.bitrate.store(3_000_000, Ordering::Relaxed);
        let many = bytes(&mut way);
        way.peer.bitrate.store(300_000, Ordering::Relaxed);
        let few = bytes(&mut way);
        assert!(
            few * 2 < many,
            "{}: {many} then {few} bytes",
            codec.as_str()
        );
    }
}

/// Bits of a frame, after the first ones, of a stream that lacks those frames.
fn bits_a_frame(frames: u64, skipped: impl Fn(u64) -> bool) -> f64 {
    let mut way = Way::video(&[Codec::Vp8]);
    way.peer.bitrate.store(300_000, Ordering::Relaxed);
    let mut noise = fastrand::Rng::with_seed(7);
    for number in (0..frames).filter(|n| !skipped(*n)) {
        let mut bytes = vec![128; 320 * 240 * 3 / 2];
        bytes[..320 * 240].fill_with(|| noise.u8(122..134));
        way.count = number;
        way.push_bytes(bytes, FRAME, None);
    }
    let got = way.got();
    let after = &got[15..];
    let bytes: usize = after.iter().map(|frame| frame.data.len()).sum();
    bytes as f64 * 8.0 / after.len() as f64
}

#[test]
fn a_frame_that_was_skipped_does_not_starve_those_after_it() {
    let whole = bits_a_frame(90, |_| false);
    for skipped in 12..30 {
        let share = bits_a_frame(90, |n| n == skipped) / whole;
        assert!(
            (0.9..1.1).contains(&share),
            "{share} without frame {skipped}"
        );
    }
}

#[test]
fn frames_that_come_less_often_have_more_bits_each() {
    let share = bits_a_frame(120, |n| n % 2 == 1) / bits_a_frame(120, |_| false);
    assert!(share > 1.5, "{share}");
}

#[test]
fn what_the_network_has_no_room_for_is_never_encoded() {
    let mut way = Way::video(&[Codec::Vp8]);
    way.push();
    way.peer.admits.store(false, Ordering::Relaxed);
    (0..10).for_each(|_| way.push());
    assert_eq!(way.got().len(), 1);
    way.peer.admits.store(true, Ordering::Relaxed);
    way.push();
    assert_eq!(way.got().len(), 2);
    assert_eq!(way.peer.asked.load(Ordering::Relaxed), 12);
}

#[test]
fn another_codec_is_taken_when_the_peer_changes_its_mind() {
    let mut way = Way::video(&[Codec::Vp8]);
    (0..3).for_each(|_| way.push());
    *way.peer.codecs.lock().unwrap() = vec![Codec::H264];
    (0..3).for_each(|_| way.push());
    let got = way.got();
    let first = got.iter().find(|frame| frame.codec == Codec::H264).unwrap();
    assert!(first.keyframe);
    assert!(got.iter().is_sorted_by_key(|frame| frame.rtp_time));
}

#[test]
fn what_nobody_takes_is_dropped_and_said_once() {
    let mut way = Way::video(&[]);
    (0..5).for_each(|_| way.push());
    assert_eq!(
        *way.owner.discarded.lock().unwrap(),
        ["the visitor receives no video"]
    );
    *way.peer.codecs.lock().unwrap() = vec![Codec::Vp8];
    way.push();
    assert_eq!(way.got().len(), 1);
}

#[test]
fn encoded_frames_that_fit_pass_untouched_and_keyframes_are_asked_for_upstream() {
    let mut way = Way::new(Media::Video, STEREO, &[Codec::Vp8], "video/x-vp8");
    for n in 0..5u8 {
        way.push_bytes(vec![n; 100], FRAME, None);
    }
    let data: Vec<_> = way.got().iter().map(|frame| frame.data.to_vec()).collect();
    assert_eq!(data, (0..5u8).map(|n| vec![n; 100]).collect::<Vec<_>>());
    let began = Instant::now();
    way.peer.wish.store(true, Ordering::Relaxed);
    let asked = |way: &Way| {
        let upstream = way.upstream.lock().unwrap();
        let asked = upstream.iter();
        asked
            .filter(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok())
            .count()
    };
    while asked(&way) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        way.push_bytes(vec![9; 100], FRAME, None);
    }
    way.push_bytes(vec![9; 100], FRAME, None);
    assert_eq!(asked(&way), 1);
}

#[test]
fn encoded_frames_that_do_not_fit_are_dropped_and_said_once() {
    let mut way = Way::new(Media::Video, STEREO, &[Codec::H264], "video/x-vp8");
    (0..3).for_each(|_| way.push_bytes(vec![0; 100], FRAME, None));
    assert!(way.got().is_empty());
    assert_eq!(
        *way.owner.discarded.lock().unwrap(),
        ["the visitor takes no vp8, only h264"]
    );
}

#[test]
fn a_frame_keeps_the_rtp_time_of_the_one_it_was_made_of() {
    let mut way = Way::video(&[Codec::Vp8]);
    let first = 4_000_000_000u32;
    for n in 0..5i64 {
        // Jitter is in the buffer's time, not in the frame's own.
        way.count += 1;
        let facts = FrameFacts {
            rtp_timestamp: Some(first.wrapping_add(n as u32 * 3_000)),
            pts: Some(n * 3_000),
            time_base: TimeBase::of_clock_rate(90_000),
            ..FrameFacts::default()
        };
        way.push_bytes(vec![n as u8 * 40; 320 * 240 * 3 / 2], FRAME, Some(facts));
    }
    let times: Vec<u64> = way.got().iter().map(|frame| frame.rtp_time).collect();
    let expected: Vec<u64> = (0..5).map(|n| u64::from(first) + n * 3_000).collect();
    assert_eq!(times, expected);
}

#[test]
fn sound_of_any_kind_becomes_opus_in_pieces_that_join() {
    let caps = "audio/x-raw,format=F32LE,layout=interleaved,rate=44100,channels=1";
    let mut way = Way::new(Media::Audio, STEREO, &[Codec::Opus], caps);
    // 10 ms of 44100 Hz; a tone, so that nobody could take it for silence.
    for piece in 0..100u32 {
        let tone = (0..441).flat_map(|n| {
            let at = (piece * 441 + n) as f32 / 44_100.0;
            (at * 440.0 * std::f32::consts::TAU).sin().to_ne_bytes()
        });
        way.push_bytes(tone.collect(), gst::ClockTime::from_mseconds(10), None);
    }
    let got = way.got();
    assert!((45..=50).contains(&got.len()), "{}", got.len());
    let steps: Vec<u64> = got
        .windows(2)
        .map(|w| w[1].rtp_time - w[0].rtp_time)
        .collect();
    assert!(steps.iter().all(|step| *step == 960), "{steps:?}");
}

#[test]
fn p9_stereo_decides_the_coded_channels_whatever_comes_in() {
    for stereo in [false, true] {
        for channels in [1usize, 2] {
            let audio = AudioTerms { stereo, dtx: false };
            let caps = format!(
                "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels={channels}"
            );
            let mut way = Way::new(Media::Audio, audio, &[Codec::Opus], &caps);
            let mut noise = fastrand::Rng::with_seed(3);
            for _ in 0..10 {
                let bytes = (0..1920 * channels).map(|_| noise.u8(..)).collect();
                way.push_bytes(bytes, gst::ClockTime::from_mseconds(20), None);
            }
            // The bit of the table-of-contents byte that RFC 6716 gives to it.
            let coded: Vec<bool> = way.got().iter().map(|f| f.data[0] & 4 != 0).collect();
            assert!(!coded.is_empty());
            assert!(
                coded.iter().all(|two| *two == stereo),
                "{stereo} {channels} {coded:?}"
            );
        }
    }
}

#[test]
fn p8_with_dtx_silence_is_not_sent() {
    for dtx in [false, true] {
        let audio = AudioTerms { stereo: false, dtx };
        let caps = "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels=1";
        let mut way = Way::new(Media::Audio, audio, &[Codec::Opus], caps);
        for _ in 0..250 {
            way.push_bytes(vec![0; 1920], gst::ClockTime::from_mseconds(20), None);
        }
        let sent = way.got().len();
        assert_eq!(dtx, sent < 60, "dtx={dtx}: {sent} packets of 250");
        assert!(dtx || sent >= 245);
    }
}

#[test]
fn the_end_comes_out_behind_the_last_frame() {
    let mut way = Way::video(&[Codec::Vp8]);
    way.push();
    way.pad.push_event(gst::event::Eos::new());
    assert!(way.owner.drained.load(Ordering::Relaxed));
    assert_eq!(way.got().len(), 1);
}

#[test]
fn what_a_chain_sends_back_is_told_by_its_caps() {
    super::init();
    for (description, of_video, of_audio) in [
        ("fakesink", None, None),
        ("identity", Some(Media::Video), Some(Media::Audio)),
        ("videoconvert", Some(Media::Video), Some(Media::Video)),
        (
            "audioconvert ! wavescope",
            Some(Media::Video),
            Some(Media::Video),
        ),
        ("audioconvert", Some(Media::Audio), Some(Media::Audio)),
        (
            "tee name=t t. ! queue ! fakesink t. ! queue",
            Some(Media::Video),
            Some(Media::Audio),
        ),
    ] {
        let chain: Chain = description.parse().unwrap();
        assert_eq!(chain.returns(Media::Video), of_video, "{description}");
        assert_eq!(chain.returns(Media::Audio), of_audio, "{description}");
    }
    let text = "identity ! capsfilter caps=text/x-raw"
        .parse::<Chain>()
        .unwrap_err();
    assert!(text.to_string().contains("text/x-raw"), "{text}");
}
