//! Elements that call a server: which here is our own, in the same process.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::inferring::until_eos;
use crate::init;
use crate::server::Server;

const HOUSE: &str = "rtcsessionsrc listen=http://127.0.0.1:0 eos-policy=never video-chain=fakesink";
const FILM: &str = "videotestsrc num-buffers=20 ! video/x-raw,width=64,height=48,framerate=30/1";

fn pipeline(description: &str) -> gst::Pipeline {
    init();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.downcast().unwrap()
}

/// An address where nobody answers.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it does not come"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends what there is, and is stopped; the `visit` of those to the house that had media is this one.
fn send_all(client: &gst::Pipeline, house: &Server, visit: usize) {
    client.set_state(gst::State::Playing).unwrap();
    until_eos(client);
    client.set_state(gst::State::Null).unwrap();
    let ended = house.wait("rtc-stream-ended", visit);
    assert!(ended[visit - 1].get::<u64>("buffers").unwrap() > 0);
}

#[test]
fn a_sink_that_calls_can_be_started_again() {
    let house = Server::playing(HOUSE);
    let client = pipeline(&format!(
        "{FILM} ! rtcsessionsink uri=whip+{}/whip",
        house.url()
    ));
    for visit in 1..=2 {
        send_all(&client, &house, visit);
    }
    house.pipeline.set_state(gst::State::Null).unwrap();
    house.assert_contract();
}

/// It calls before the demuxer has found anything, and could be sent sound, which that server does not take.
#[test]
fn a_file_whose_streams_are_not_known_yet_is_sent() {
    let house = Server::playing(HOUSE);
    let client = pipeline(&format!(
        "filesrc location={}/tests/data/ball.webm ! matroskademux \
         ! rtcsessionsink uri=roboflow+{} options=\"roboflow,workspace=any,workflow-id=any\"",
        env!("CARGO_MANIFEST_DIR"),
        house.url()
    ));
    send_all(&client, &house, 1);
    house.pipeline.set_state(gst::State::Null).unwrap();
}

/// A demuxer's pads come while the server is being called, or before that.
#[test]
fn sound_that_a_server_does_not_take_keeps_no_file_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("sound.webm").display().to_string();
    let recording = pipeline(&format!(
        "{FILM} ! vp8enc ! webmmux name=m ! filesink location={film} audiotestsrc num-buffers=30 ! opusenc ! m."
    ));
    recording.set_state(gst::State::Playing).unwrap();
    until_eos(&recording);
    recording.set_state(gst::State::Null).unwrap();
    let house = Server::playing(HOUSE);
    let client = pipeline(&format!(
        "filesrc location={film} ! matroskademux name=d rtcsessionsink name=k uri=roboflow+{} \
         options=\"roboflow,workspace=any,workflow-id=any\"",
        house.url()
    ));
    let (demuxer, sink) = (client.by_name("d").unwrap(), client.by_name("k").unwrap());
    // The sink's pads stay when it is started again.
    demuxer.connect_pad_added({
        let sink = sink.clone();
        move |_, pad| {
            let name = pad.name();
            let taker = sink.static_pad(&name);
            let taker = taker.or_else(|| sink.request_pad_simple(&name));
            pad.link(&taker.unwrap()).unwrap();
        }
    });
    send_all(&client, &house, 1);
    send_all(&client, &house, 2);
    let (seen, data) = mpsc::channel();
    for pad in sink.sink_pads() {
        let seen = seen.clone();
        // What the sink asks when it has its first buffer.
        pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM, move |_, info| {
            if info
                .query()
                .is_some_and(|q| q.type_() == gst::QueryType::Latency)
            {
                let _ = seen.send(());
            }
            gst::PadProbeReturn::Ok
        });
    }
    client.set_state(gst::State::Paused).unwrap();
    // Of one stream: the demuxer's only thread waits with it for the pipeline to play.
    data.recv_timeout(Duration::from_secs(10)).unwrap();
    send_all(&client, &house, 3);
    house.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_inferencesink_that_calls_can_be_started_again_with_new_accounts() {
    let house = Server::playing(HOUSE);
    let client = pipeline(&format!(
        "{FILM},format=I420 ! inferencesink name=s uri=roboflow+{} options=\"roboflow,workspace=any,workflow-id=any\"",
        house.url()
    ));
    let sink = client.by_name("s").unwrap();
    for visit in 1..=2 {
        client.set_state(gst::State::Playing).unwrap();
        until_eos(&client);
        let stats: gst::Structure = sink.property("stats");
        assert_eq!(stats.get("received"), Ok(20_u64));
        client.set_state(gst::State::Null).unwrap();
        house.wait("rtc-connection-ended", visit);
    }
    house.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_an_inferencesink_sends_after_a_seek_is_sent_at_its_time() {
    // What is sent begins when the server is there; after a seek it is.
    let late = Duration::from_secs(3);
    let house = Server::playing(&format!("{HOUSE} name=house"));
    let source = house.pipeline.by_name("house").unwrap();
    source.connect("authorize", false, move |_| {
        std::thread::sleep(late);
        Some(true.to_value())
    });
    let client = pipeline(&format!(
        "videotestsrc ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 \
         ! inferencesink name=s uri=roboflow+{} options=\"roboflow,workspace=any,workflow-id=any\"",
        house.url()
    ));
    let sink = client.by_name("s").unwrap();
    let received = || {
        let stats: gst::Structure = sink.property("stats");
        stats.get::<u64>("received").unwrap()
    };
    client.set_state(gst::State::Playing).unwrap();
    until(|| received() >= 15);
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    let set = gst::SeekType::Set;
    let (start, stop) = (gst::ClockTime::ZERO, gst::ClockTime::SECOND);
    let before = received();
    let began = Instant::now();
    client.seek(1.0, flags, set, start, set, stop).unwrap();
    until(|| received() >= before + 30);
    // The last of 30 frames comes 29 frames after the first one.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
    assert!(took < late, "{took:?}");
    until_eos(&client);
    client.set_state(gst::State::Null).unwrap();
    house.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_second_receiver_of_a_session_is_refused_and_leaves_the_first_one_alone() {
    let house = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 eos-policy=never video-chain=identity",
    );
    let session = format!("second-{}", std::process::id());
    let client = Server::playing(&format!(
        "videotestsrc is-live=true ! rtcsessionsink uri=offer+{}/offer session={session} \
         rtcsessionsrc session={session}",
        house.url()
    ));
    client.wait("rtc-stream-started", 1);
    let second = Server::new(&format!("rtcsessionsrc session={session}"));
    assert!(second.pipeline.set_state(gst::State::Playing).is_err());
    second.pipeline.set_state(gst::State::Null).unwrap();
    assert!(client.named("rtc-connection-ended").is_empty());
    client.pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(client.named("rtc-connection-ended").len(), 1);
    client.assert_contract();
    house.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_ends_while_no_server_can_be_had_ends_the_pipeline() {
    let client = pipeline(&format!(
        "videotestsrc is-live=true num-buffers=10 ! rtcsessionsink uri=whip+{}/whip reconnect=on-loss",
        nobody()
    ));
    client.set_state(gst::State::Playing).unwrap();
    until_eos(&client);
    client.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_stop_right_after_the_start_takes_no_time() {
    let client = pipeline(&format!(
        "videotestsrc is-live=true ! rtcsessionsink uri=whip+{}/whip reconnect=on-loss",
        nobody()
    ));
    for _ in 0..20 {
        client.set_state(gst::State::Playing).unwrap();
        let began = Instant::now();
        client.set_state(gst::State::Null).unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
