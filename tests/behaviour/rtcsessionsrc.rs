//! `rtcsessionsrc` with visitors over real sockets: what an application sees, to the last word.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use str0m::media::MediaData;

use crate::server::{CLIP, PATIENCE, Server, text};
use crate::visitor::{self, Door, Manner, Mirror};

#[test]
fn setting_null_says_every_end_before_it_returns() {
    for chain in [
        "name=s s.video_0 ! queue ! fakesink sync=true",
        "video-chain=\"fakesink sync=true\"",
    ] {
        let server = Server::playing(&format!("rtcsessionsrc listen=http://127.0.0.1:0 {chain}"));
        let visitors = [
            server.visitor(Manner::Polite),
            server.visitor(Manner::Polite),
        ];
        server.wait("rtc-stream-started", 2);
        let asked = Instant::now();
        server.pipeline.set_state(gst::State::Null).unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(4),
            "{:?}",
            asked.elapsed()
        );
        let ended = server.named("rtc-connection-ended");
        assert_eq!(ended.len(), 2);
        assert!(ended.iter().all(|e| text(e, "reason") == "server-shutdown"));
        server.assert_contract();
        visitors
            .into_iter()
            .for_each(|visitor| drop(visitor.leave()));
    }
}

#[test]
fn eos_ends_every_visitor_and_comes_after_the_last_word() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"fakesink sync=true\"",
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    server.pipeline.send_event(gst::event::Eos::new());
    server.wait_for("EOS", || {
        let said = server.said.lock().unwrap();
        let is_eos = |(_, m): &(Instant, gst::Message)| {
            m.type_() == gst::MessageType::Eos && m.src().is_some_and(|s| *s == server.pipeline)
        };
        said.messages.iter().any(is_eos).then_some(())
    });
    assert_eq!(server.named("rtc-connection-ended").len(), 1);
    visitor.leave();
    server.stop();
}

#[test]
fn an_application_builds_a_branch_for_each_visitor() {
    let server = Server::new("rtcsessionsrc name=s listen=http://127.0.0.1:0 eos-policy=never");
    let source = server.pipeline.by_name("s").unwrap();
    let names = Arc::new(Mutex::new(Vec::new()));
    source.connect_pad_added({
        let names = names.clone();
        move |source, pad| {
            let bin = source.parent().unwrap().downcast::<gst::Bin>().unwrap();
            let sink = gst::ElementFactory::make("fakesink").build().unwrap();
            bin.add(&sink).unwrap();
            sink.sync_state_with_parent().unwrap();
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
            names.lock().unwrap().push(pad.name().to_string());
        }
    });
    server.pipeline.set_state(gst::State::Playing).unwrap();
    let first = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let second = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 2);
    first.leave();
    server.wait("rtc-connection-ended", 1);
    let third = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 3);
    assert_eq!(*names.lock().unwrap(), ["video_0", "video_1", "video_0"]);
    second.leave();
    third.leave();
    for ended in server.wait("rtc-connection-ended", 3) {
        assert_eq!(text(&ended, "reason"), "client-closed");
    }
    assert_eq!(source.num_src_pads(), 0);
    server.stop();
}

#[test]
fn a_failing_chain_ends_its_own_connection_and_nothing_else() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"identity error-after=5 ! fakesink\"",
    );
    let visitor = server.visitor(Manner::Polite);
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "handler-error");
    assert!(text(&ended[0], "detail").contains("identity"), "{ended:?}");
    let visit = visitor.outstay();
    assert_eq!(visit.results, 1, "the peer is told");
    assert_eq!(server.named("rtc-connection-error").len(), 1);
    let errors = server.said.lock().unwrap();
    assert!(
        errors
            .messages
            .iter()
            .all(|(_, m)| m.type_() != gst::MessageType::Error)
    );
    drop(errors);
    let again = server.visitor(Manner::Polite);
    server.wait("rtc-connection-ended", 2);
    again.leave();
    server.stop();
}

#[test]
fn a_chain_that_ends_by_itself_ends_its_connection() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"identity eos-after=5 ! fakesink\"",
    );
    let visitor = server.visitor(Manner::Polite);
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "source-ended");
    visitor.leave();
    server.stop();
}

#[test]
fn a_slow_chain_gets_new_frames_and_is_not_waited_for_beyond_drain_timeout() {
    // Half a second a frame: of fifteen frames that arrive meanwhile, two wait.
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 drain-timeout=100 \
         video-chain=\"identity sleep-time=500000 ! fakesink\"",
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    std::thread::sleep(Duration::from_secs(3));
    let asked = Instant::now();
    visitor.leave();
    let ended = server.wait("rtc-stream-ended", 1);
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let (buffers, dropped): (u64, u64) = (
        ended[0].get("buffers").unwrap(),
        ended[0].get("dropped").unwrap(),
    );
    assert!(buffers <= 9, "{buffers} frames went through");
    assert!(dropped >= 40, "{dropped} frames were dropped");
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn a_chain_that_does_not_stop_holds_up_neither_the_last_word_nor_the_place() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 drain-timeout=300 max-connections=1 \
         video-chain=\"identity sleep-time=20000000 ! fakesink\"",
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let left = Instant::now();
    visitor.leave();
    let ended = server.wait("rtc-connection-ended", 1);
    assert!(
        left.elapsed() < Duration::from_secs(7),
        "{:?}",
        left.elapsed()
    );
    assert_eq!(text(&ended[0], "reason"), "client-closed");
    server.assert_contract();
    let next = server.visitor(Manner::Polite);
    server.wait("rtc-connection-created", 2);
    next.leave();
    server.wait("rtc-connection-ended", 2);
    server.stop();
}

#[test]
fn stopping_frees_its_ports_for_the_next_start() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = Server::new(&format!(
        "rtcsessionsrc listen=http://127.0.0.1:{port} ice-addresses=127.0.0.1 udp-port={port} video-chain=fakesink"
    ));
    for _ in 0..10 {
        server.pipeline.set_state(gst::State::Playing).unwrap();
        server.pipeline.set_state(gst::State::Null).unwrap();
    }
    server.stop();
}

#[test]
fn a_visitor_that_vanishes_or_never_connects_is_ended() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 disconnect-timeout=700 setup-timeout=600 video-chain=fakesink",
    );
    let silent = server.visitor(Manner::Silent);
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "setup-timeout");
    assert!(!ended[0].get::<bool>("had-media").unwrap());
    silent.leave();
    let vanishing = server.visitor(Manner::Vanishing);
    server.wait("rtc-stream-started", 1);
    vanishing.leave();
    let ended = server.wait("rtc-connection-ended", 2);
    assert_eq!(text(&ended[1], "reason"), "peer-lost");
    server.stop();
}

#[test]
fn who_never_connects_takes_few_places_and_others_come_in_when_one_is_free() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 max-pending=2 setup-timeout=0 video-chain=fakesink",
    );
    // Those that stand do not count.
    let standing = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let silent = [
        server.visitor(Manner::Silent),
        server.visitor(Manner::Silent),
    ];
    server.wait("rtc-connection-created", 3);
    let (status, body) = server.visitor(Manner::Polite).leave().refused.unwrap();
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("too-many-pending"), "{body}");
    assert!(body.contains("max-pending"), "{body}");
    assert_eq!(server.named("rtc-connection-rejected").len(), 1);
    let id = text(&server.named("rtc-connection-created")[2], "connection-id");
    let url = format!("{}/connections/{id}", server.url());
    assert_eq!(minreq::delete(url).send().unwrap().status_code, 204);
    server.wait("rtc-connection-ended", 1);
    let late = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 2);
    for visitor in silent.into_iter().chain([standing, late]) {
        visitor.leave();
    }
    server.stop();
}

#[test]
fn messages_of_a_visitor_reach_the_bus_up_to_a_limit() {
    let server = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Chatty(3));
    let heard: Vec<String> = server
        .wait("rtc-data", 3)
        .iter()
        .map(|d| text(d, "text"))
        .collect();
    assert_eq!(heard, ["3", "2", "1"]);
    visitor.leave();
    let flood = server.visitor(Manner::Chatty(20_000));
    server.wait("rtc-data", 403);
    std::thread::sleep(Duration::from_secs(1));
    let heard = server.named("rtc-data").len();
    assert!(heard < 4_000, "{heard} messages of a flood reached the bus");
    flood.leave();
    server.wait("rtc-connection-ended", 2);
    server.stop();
}

#[test]
fn frames_flow_again_after_a_pause() {
    for sink in [
        "name=s s.video_0 ! fakesink name=end sync=true",
        "video-chain=\"framemeta post-messages=true ! fakesink sync=true\"",
    ] {
        let server = Server::playing(&format!("rtcsessionsrc listen=http://127.0.0.1:0 {sink}"));
        let frames = Arc::new(AtomicU64::new(0));
        if let Some(end) = server.pipeline.by_name("end") {
            let frames = frames.clone();
            let pad = end.static_pad("sink").unwrap();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                frames.fetch_add(1, Ordering::Relaxed);
                gst::PadProbeReturn::Ok
            });
        }
        let count = || frames.load(Ordering::Relaxed) as usize + server.named("frame-meta").len();
        let visitor = server.visitor(Manner::Polite);
        server.wait_for("frames", || (count() > 10).then_some(()));
        server.pipeline.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let before = count();
        server.pipeline.set_state(gst::State::Playing).unwrap();
        server.wait_for("frames after the pause", || {
            (count() > before + 60).then_some(())
        });
        assert!(server.named("rtc-connection-ended").is_empty());
        visitor.leave();
        server.wait("rtc-connection-ended", 1);
        server.stop();
    }
}

#[test]
fn the_latency_query_says_live_and_how_long_gaps_are_waited_for() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 latency=70 s.video_0 ! fakesink name=end",
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let mut query = gst::query::Latency::new();
    let sink = server.pipeline.by_name("end").unwrap();
    assert!(sink.static_pad("sink").unwrap().peer_query(&mut query));
    assert!(query.result().0);
    assert_eq!(query.result().1, gst::ClockTime::from_mseconds(70));
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

/// A server that says to everyone that they come from 203.0.113.7:7; a real one would need a NAT in between.
#[test]
fn what_a_stun_server_says_is_offered_as_a_candidate() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stun = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            assert_eq!(bytes[..2], [0, 1], "a binding request of {length} bytes");
            // RFC 8489: a success response with one XOR-MAPPED-ADDRESS, port and address over the magic cookie.
            let mut reply = vec![0x01, 0x01, 0, 12];
            reply.extend_from_slice(&bytes[4..20]);
            reply.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
            let seen = [0, 7, 203, 0, 113, 7];
            let cookie = [0x21, 0x12, 0x21, 0x12, 0xa4, 0x42];
            reply.extend(seen.iter().zip(cookie).map(|(byte, mask)| byte ^ mask));
            socket.send_to(&reply, from).unwrap();
        }
    });
    let server = Server::playing(&format!(
        "rtcsessionsrc listen=http://127.0.0.1:0 ice-addresses=127.0.0.1 stun-server=stun://127.0.0.1:9,stun://{stun} max-connections=1000 max-pending=0 video-chain=fakesink"
    ));
    let url = server.url();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stop = Arc::new(AtomicBool::new(true));
        let visit = visitor::visit(&url, &CLIP, Manner::Polite, &stop);
        if visit.answer.contains(" 203.0.113.7 7 typ srflx") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", visit.answer);
        std::thread::sleep(Duration::from_millis(20));
    }
    server.stop();
}

#[test]
fn impossible_settings_are_named_before_ready() {
    for (setting, named) in [
        ("listen=nonsense", "nonsense"),
        ("doors=page,window", "window"),
        ("video-codecs=theora", "theora"),
        (
            "video-codecs=vp8 video-chain=\"h264parse ! fakesink\"",
            "video/x-h264",
        ),
        ("ice-addresses=1.2.3", "1.2.3"),
        ("video-chain=\"fakesink ! nothing\"", "nothing"),
        (
            "video-chain=\"tee name=t t. ! queue t. ! queue\"",
            "2 unlinked src pads",
        ),
        (
            "video-chain=identity audio-chain=\"audioconvert ! wavescope\"",
            "wavescope",
        ),
        ("min-bitrate=300000 max-bitrate=200000", "300000"),
        ("video-chain=\"videotestsrc ! fakesink\"", "videotestsrc"),
        ("video-chain=@/nowhere.launch", "/nowhere.launch"),
        ("audio-chain=\"filesrc ! fakesink\"", "filesrc"),
    ] {
        let server = Server::new(&format!(
            "rtcsessionsrc listen=http://127.0.0.1:0 {setting}"
        ));
        assert!(
            server.pipeline.set_state(gst::State::Ready).is_err(),
            "{setting}"
        );
        let said = server.said.lock().unwrap();
        let error = said.messages.iter().find_map(|(_, m)| match m.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        });
        let error = error.expect("an error message");
        assert!(error.contains(named), "{setting}: {error}");
        drop(said);
        server.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Keeps what was sent and what came back, asks once for a keyframe, and is content some time after that.
#[derive(Default)]
struct Kept {
    positions: Vec<usize>,
    returned: Vec<(u64, Arc<[u8]>)>,
    asked_at: Option<usize>,
    content: Arc<AtomicBool>,
}

impl Mirror for Kept {
    fn sent(&mut self, _number: u64, position: usize) {
        self.positions.push(position);
    }

    fn returned(&mut self, frame: MediaData) -> bool {
        self.returned
            .push((frame.time.numer(), frame.data[..].into()));
        let asks = self.returned.len() == 30;
        if asks {
            self.asked_at = Some(self.positions.len());
        }
        if self.returned.len() == 60 {
            self.content.store(true, Ordering::Relaxed);
        }
        asks
    }
}

#[test]
fn a_chain_that_takes_encoded_frames_sends_them_back_as_they_came() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"capsfilter caps=video/x-vp8\"",
    );
    let content = Arc::new(AtomicBool::new(false));
    let mut kept = Kept {
        content: content.clone(),
        ..Kept::default()
    };
    let (began, url) = (Instant::now(), server.url());
    let visit = std::thread::scope(|scope| {
        scope.spawn(|| {
            while began.elapsed() < PATIENCE && !content.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            content.store(true, Ordering::Relaxed);
        });
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        visitor::visit_and_look(&url, Door::Offer, local, &CLIP, &mut kept, &content)
    });
    let began_again = kept.asked_at.is_some_and(|at| {
        let mut later = kept.positions[at..].windows(2);
        later.any(|pair| pair[1] == 0 && pair[0] + 1 < CLIP.len())
    });
    assert!(
        began_again,
        "nobody was asked for a keyframe: {:?}",
        kept.positions
    );
    let (first, _) = kept.returned[0];
    let fits = |from: usize| {
        kept.returned.iter().all(|(time, data)| {
            let number = from + ((time - first) / 3_000) as usize;
            let sent = kept.positions.get(number).map(|at| &CLIP[*at].data);
            sent.is_some_and(|sent| sent[..] == data[..])
        })
    };
    let keyframes = (0..kept.positions.len()).filter(|n| kept.positions[*n] == 0);
    assert!(keyframes.into_iter().any(fits), "{:?}", kept.positions);
    assert!(visit.answer.contains("VP8") && !visit.answer.contains("H264"));
    server.stop();
}
