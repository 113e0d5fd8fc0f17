//! What hosts of real-time AI get wrong, row by row (reference/fastrtc.md 1.2 and 2.5), with our outcome.
//!
//! Everything that starts ends once, with its reason; a slot is free as soon as its visitor is on the way out.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;

use crate::server::{Server, text};
use crate::visitor::{Manner, Visit};

/// What is promised, five times over: the machine may be busy.
const CLEAN_CLOSE: Duration = Duration::from_millis(5 * 100);

fn source(server: &Server) -> gst::Element {
    server.pipeline.by_name("s").unwrap()
}

fn end(server: &Server, id: &str, detail: Option<&str>) -> bool {
    source(server).emit_by_name("end-connection", &[&id, &detail])
}

fn id_of(server: &Server, number: usize) -> String {
    text(
        &server.wait("rtc-connection-created", number + 1)[number],
        "connection-id",
    )
}

fn status(method: minreq::Method, url: String, body: &str) -> i32 {
    minreq::Request::new(method, url)
        .with_body(body)
        .send()
        .unwrap()
        .status_code
}

/// The last thing that the visitor was told.
fn farewell(visit: &Visit) -> serde_json::Value {
    serde_json::from_str(visit.texts.back().expect("a text")).unwrap()
}

#[test]
fn a_client_that_closes_is_told_of_at_once() {
    let server = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let visit = visitor.leave();
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "client-closed");
    let took = server.said_at("rtc-connection-ended") - visit.closed_at.unwrap();
    assert!(took < CLEAN_CLOSE, "{took:?}");
    server.stop();
}

#[test]
fn wrong_kinds_and_garbage_take_no_slot() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 max-connections=1 video-chain=fakesink",
    );
    let data_only = "v=0\\r\\no=- 1 2 IN IP4 127.0.0.1\\r\\ns=-\\r\\nt=0 0\\r\\na=ice-ufrag:user\\r\\n\
        a=ice-pwd:twentytwocharacterslong\\r\\na=fingerprint:sha-256 00\\r\\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\\r\\na=mid:0\\r\\n";
    for sdp in [data_only, "hello", ""] {
        let body = format!(r#"{{"type":"offer","sdp":"{sdp}"}}"#);
        let url = format!("{}/offer", server.url());
        assert_eq!(status(minreq::Method::Post, url, &body), 400, "{sdp}");
    }
    assert_eq!(server.named("rtc-connection-rejected").len(), 3);
    assert!(server.named("rtc-connection-created").is_empty());
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn an_application_that_ends_twice_ends_once() {
    let server =
        Server::playing("rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let id = id_of(&server, 0);
    assert!(!end(&server, "nobody", None));
    assert!(end(&server, &id, Some("enough")));
    assert!(!end(&server, &id, Some("again")));
    let visit = visitor.outstay();
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "closed-by-application");
    assert_eq!(text(&ended[0], "detail"), "enough");
    assert_eq!(
        text(&server.named("rtc-stream-ended")[0], "reason"),
        "closed-by-application"
    );
    let told = farewell(&visit);
    assert_eq!(told["termination_reason"], "closed-by-application");
    assert_eq!(told["detail"], "enough");
    assert_eq!(told["processing_complete"], true);
    server.stop();
}

#[test]
fn one_ended_before_media_flowed_has_no_streams_and_one_end() {
    let server =
        Server::playing("rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Silent);
    assert!(end(&server, &id_of(&server, 0), None));
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "closed-by-application");
    assert!(!ended[0].get::<bool>("had-media").unwrap());
    assert!(server.named("rtc-stream-started").is_empty());
    visitor.leave();
    server.stop();
}

#[test]
fn a_stream_that_nobody_pulls_starts_and_ends_all_the_same() {
    let server = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0");
    let visitor = server.visitor(Manner::Mute);
    server.wait("rtc-stream-started", 1);
    visitor.leave();
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "client-closed");
    assert_eq!(server.named("rtc-stream-ended").len(), 1);
    server.stop();
}

#[test]
fn a_slow_frame_in_flight_holds_up_neither_the_slot_nor_others() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 max-connections=1 drain-timeout=2000 \
         video-chain=\"identity sleep-time=3000000 ! fakesink\"",
    );
    let slow = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let left = slow.leave().closed_at.unwrap();
    server.wait_for("the end to begin", || {
        let states = server.named("rtc-connection-state");
        states
            .iter()
            .any(|s| text(s, "new") == "ending")
            .then_some(())
    });
    let next = server.visitor(Manner::Polite);
    server.wait("rtc-connection-created", 2);
    assert!(left.elapsed() < 2 * CLEAN_CLOSE, "{:?}", left.elapsed());
    assert!(
        server.named("rtc-connection-ended").is_empty(),
        "its thread is waited for"
    );
    server.wait("rtc-connection-ended", 1);
    // drain-timeout, then a second for what hangs in it.
    assert!(
        left.elapsed() < Duration::from_secs(5),
        "{:?}",
        left.elapsed()
    );
    next.leave();
    server.wait("rtc-connection-ended", 2);
    server.stop();
}

#[test]
fn a_visit_is_over_when_its_time_is_up() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 connection-timeout=700 video-chain=fakesink",
    );
    let visit = server.visitor(Manner::Polite).outstay();
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "time-limit");
    let duration = Duration::from_nanos(ended[0].get("duration").unwrap());
    assert!(
        duration >= Duration::from_millis(700) && duration < Duration::from_secs(4),
        "{duration:?}"
    );
    assert_eq!(farewell(&visit)["termination_reason"], "time-limit");
    server.stop();
}

#[test]
fn visitors_are_told_that_the_server_shuts_down() {
    let server = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    server.pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(
        farewell(&visitor.outstay())["termination_reason"],
        "server-shutdown"
    );
    server.stop();
}

#[test]
fn what_is_built_behind_a_pad_can_ask_to_close() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 eos-policy=never s.video_0 ! fakesink name=end",
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    let sink = server
        .pipeline
        .by_name("end")
        .unwrap()
        .static_pad("sink")
        .unwrap();
    let ask = |fields: gst::Structure| sink.push_event(gst::event::CustomUpstream::new(fields));
    let close = gst::Structure::builder("rtc-close").field("message", "not this visitor");
    // A funnel sends events up every branch.
    assert!(ask(close.field("connection-id", "somebody else").build()));
    let close = gst::Structure::builder("rtc-close").field("message", "that was all");
    assert!(ask(close.build()));
    let visit = visitor.outstay();
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "closed-by-application");
    assert_eq!(text(&ended[0], "detail"), "that was all");
    assert_eq!(farewell(&visit)["detail"], "that was all");
    server.stop();
}

#[test]
fn arguments_reach_a_chain_while_it_plays_and_wrong_ones_are_refused_whole() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 \
         video-chain=\"videocrop name=crop ! framemeta post-messages=true ! fakesink\"",
    );
    let visitor = server.visitor(Manner::Polite);
    let id = id_of(&server, 0);
    let set = |args: &str| -> bool {
        let args: gst::Structure = args.parse().unwrap();
        source(&server).emit_by_name("set-args", &[&id, &args])
    };
    let width = |width: i32| {
        server.wait_for("that width", || {
            let frames = server.named("frame-meta");
            let last = frames.last()?;
            (last.get::<i32>("width") == Ok(width)).then_some(())
        });
    };
    // Before the first frame or after it, whichever comes first.
    assert!(set("args, crop.left=(string)40"));
    width(600);
    assert!(set("args, crop.left=100"));
    width(540);
    for (args, named) in [
        ("args, crop.left=0, nobody.left=1", "nobody"),
        ("args, crop.left=0, crop.colour=1", "colour"),
        ("args, crop.left=0, crop.top=(string)high", "high"),
    ] {
        assert!(!set(args), "{args}");
        let errors = server.named("rtc-connection-error");
        let last = errors.last().unwrap();
        assert!(text(last, "error").contains(named), "{last}");
        assert!(!last.get::<bool>("fatal").unwrap());
    }
    let seen = server.named("frame-meta").len();
    server.wait("frame-meta", seen + 5);
    width(540);
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    assert!(!set("args, crop.left=0"), "nobody is there");
    server.stop();
}

#[test]
fn bare_arguments_come_down_in_order_as_an_event() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 eos-policy=never s.video_0 ! fakesink name=end",
    );
    let sink = server
        .pipeline
        .by_name("end")
        .unwrap()
        .static_pad("sink")
        .unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    sink.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, {
        let heard = heard.clone();
        move |_, info| {
            let structure = info.event().and_then(|event| event.structure());
            if let Some(args) = structure.filter(|s| s.has_name("rtc-args")) {
                heard.lock().unwrap().push(args.to_owned());
            }
            gst::PadProbeReturn::Ok
        }
    });
    let visitor = server.visitor(Manner::Polite);
    let id = id_of(&server, 0);
    let args = gst::Structure::builder("anything")
        .field("strength", 0.5)
        .field("mode", "edges")
        .build();
    assert!(source(&server).emit_by_name::<bool>("set-args", &[&id, &args]));
    let event = server.wait_for("the event", || heard.lock().unwrap().first().cloned());
    assert_eq!(event.get::<f64>("strength"), Ok(0.5));
    assert_eq!(event.get::<&str>("mode"), Ok("edges"));
    visitor.leave();
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn an_application_reads_the_list_and_sends_data() {
    let server =
        Server::playing("rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink");
    let visitor = server.visitor(Manner::Chatty(1));
    server.wait("rtc-stream-started", 1);
    server.wait("rtc-data", 1);
    let id = id_of(&server, 0);
    let [listed] = server.connections().try_into().unwrap();
    let one: gst::Structure = source(&server).emit_by_name("get-connection", &[&id]);
    assert_eq!(one, listed);
    for (field, value) in [
        ("connection-id", id.as_str()),
        ("door", "offer"),
        ("state", "playing"),
    ] {
        assert_eq!(text(&one, field), value);
    }
    assert!(one.get::<u64>("created-at").unwrap() > 0);
    let streams = one.get::<gst::Array>("streams").unwrap();
    let stream = streams[0].get::<gst::Structure>().unwrap();
    assert_eq!(
        text(&stream, "stream-id"),
        text(&server.named("rtc-stream-started")[0], "stream-id")
    );
    assert!(
        source(&server)
            .emit_by_name::<Option<gst::Structure>>("get-connection", &[&"nobody"])
            .is_none()
    );

    let send = |id: &str, channel: Option<&str>, data: glib::Value| -> bool {
        source(&server).emit_by_name("send-data", &[&id, &channel, &glib::BoxedValue(data)])
    };
    assert!(send(&id, None, "to the oldest".to_value()));
    assert!(send(
        &id,
        Some("results"),
        glib::Bytes::from_static(b"\xff\x00").to_value()
    ));
    assert!(!send("nobody", None, "lost".to_value()));
    assert!(!send(&id, None, 7.to_value()));
    assert!(send(&id, Some("no such channel"), "lost".to_value()));
    let error = &server.wait("rtc-connection-error", 1)[0];
    assert!(
        text(error, "error").contains("no such channel") && !error.get::<bool>("fatal").unwrap()
    );
    assert!(end(&server, &id, None));
    let visit = visitor.outstay();
    assert_eq!(visit.texts[0], "to the oldest");
    assert_eq!(visit.bytes, [b"\xff\x00"]);
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn an_application_decides_who_comes_in_and_by_which_servers() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 max-connections=1 video-chain=fakesink",
    );
    let asked = Arc::new(Mutex::new(Vec::new()));
    source(&server).connect("authorize", false, {
        let asked = asked.clone();
        move |args| {
            let visitor: gst::Structure = args[1].get().unwrap();
            let mut asked = asked.lock().unwrap();
            asked.push(visitor);
            Some((asked.len() > 1).to_value())
        }
    });
    let refused = server.visitor(Manner::Polite).leave();
    assert_eq!(refused.refused.unwrap().0, 403);
    let rejected = &server.wait("rtc-connection-rejected", 1)[0];
    assert!(
        text(rejected, "error").contains("application"),
        "{rejected}"
    );
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    assert_eq!(text(&asked.lock().unwrap()[0], "door"), "offer");
    visitor.leave();

    let servers = || -> serde_json::Value {
        let answer = minreq::get(format!("{}/rtc-config", server.url()));
        let mut config: serde_json::Value = answer.send().unwrap().json().unwrap();
        assert_eq!(config["iceTransportPolicy"], "all");
        config["iceServers"].take()
    };
    assert_eq!(servers(), serde_json::json!([]));
    let answer = Arc::new(Mutex::new(
        r#"[{"urls":"turn:192.0.2.1","username":"u","credential":"c"}]"#,
    ));
    source(&server).connect("request-ice-servers", false, {
        let answer = answer.clone();
        move |_| Some(Some(*answer.lock().unwrap()).to_value())
    });
    assert_eq!(servers()[0]["username"], "u");
    for wrong in [
        "no JSON",
        "{}",
        r#"[{"url":"turn:old"}]"#,
        r#"[{"urls":[]}]"#,
    ] {
        *answer.lock().unwrap() = wrong;
        assert_eq!(servers(), serde_json::json!([]), "{wrong}");
    }
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

#[test]
fn two_sources_in_one_process_know_nothing_of_each_other() {
    let [one, other] = [(); 2].map(|()| {
        Server::playing(
            "rtcsessionsrc name=s listen=http://127.0.0.1:0 max-connections=1 video-chain=fakesink",
        )
    });
    let visitors = [&one, &other].map(|server| {
        let visitor = server.visitor(Manner::Polite);
        server.wait("rtc-stream-started", 1);
        visitor
    });
    let id = id_of(&one, 0);
    assert!(!end(&other, &id, None));
    assert_eq!((one.connections().len(), other.connections().len()), (1, 1));
    assert!(end(&one, &id, None));
    one.wait("rtc-connection-ended", 1);
    assert_eq!(other.connections().len(), 1);
    for visitor in visitors {
        visitor.leave();
    }
    one.stop();
    other.stop();
}

/// Lines of a response that does not end.
fn lines(server: &Server, path: &str) -> impl Iterator<Item = String> + use<> {
    let address = server.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    BufReader::new(stream).lines().map_while(Result::ok)
}

#[test]
fn results_are_read_as_they_happen_and_so_is_the_end() {
    let server = Server::playing(&format!(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"framemeta ! inferencesink model={}\"",
        concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes.onnx")
    ));
    let visitor = server.visitor(Manner::Mute);
    server.wait("rtc-stream-started", 1);
    let id = id_of(&server, 0);
    let mut lines = lines(&server, &format!("/outputs?webrtc_id={id}"));
    let mut next = || -> (String, serde_json::Value) {
        let found = lines
            .find(|line| line.starts_with("event: "))
            .expect("an event");
        let data = lines.next().expect("its data");
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (found.replace("event: ", ""), data)
    };
    let frame = |(name, data): (String, serde_json::Value)| {
        assert_eq!(name, "output");
        data["video_metadata"]["frame_id"].as_u64().unwrap()
    };
    let first = frame(next());
    assert!(frame(next()) > first);
    let url = |path: &str| format!("{}{path}", server.url());
    let listed: serde_json::Value = minreq::get(url("/connections"))
        .send()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(listed[0]["connection_id"], id.as_str());
    assert_eq!(listed[0]["streams"][0]["media"], "video");
    assert_eq!(
        status(
            minreq::Method::Delete,
            url(&format!("/connections/{id}")),
            ""
        ),
        204
    );
    let last = loop {
        let (name, data) = next();
        if name == "end" {
            break data;
        }
    };
    assert_eq!(last["termination_reason"], "closed-by-application");
    visitor.outstay();
    server.wait("rtc-connection-ended", 1);
    assert_eq!(
        status(
            minreq::Method::Delete,
            url(&format!("/connections/{id}")),
            ""
        ),
        404
    );
    assert_eq!(
        status(
            minreq::Method::Get,
            url(&format!("/outputs?webrtc_id={id}")),
            ""
        ),
        404
    );
    assert_eq!(status(minreq::Method::Get, url("/outputs"), ""), 400);
    assert_eq!(status(minreq::Method::Get, url("/healthz"), ""), 200);
    let figures = minreq::get(url("/metrics")).send().unwrap();
    let figures = figures.as_str().unwrap();
    let value = |sample: &str| -> u64 {
        let found = figures
            .lines()
            .find_map(|line| line.strip_prefix(&format!("rtcinference_{sample} ")));
        found
            .unwrap_or_else(|| panic!("no {sample} in {figures}"))
            .parse()
            .unwrap()
    };
    assert_eq!(
        value("connections_ended_total{reason=\"closed-by-application\"}"),
        1
    );
    let frames = |what: &str| value(&format!("inference_frames_{what}"));
    let reasons = ["busy", "late", "flush", "closed"];
    let dropped: u64 = reasons
        .iter()
        .map(|r| frames(&format!("dropped_total{{reason=\"{r}\"}}")))
        .sum();
    assert!(frames("received_total") > 0);
    assert_eq!(
        frames("received_total"),
        frames("inferred_total") + frames("failed_total") + dropped + frames("pending")
    );
    assert_eq!(frames("pending"), 0);
    assert_eq!(
        value("inference_latency_seconds_count"),
        frames("inferred_total")
    );
    server.stop();
}

#[test]
fn visitors_are_asked_to_start_or_to_stop() {
    let server =
        Server::playing("rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink");
    let mut wishes = lines(&server, "/desired-playing-state")
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    assert_eq!(wishes.next().unwrap(), "null");
    let visitor = server.visitor(Manner::Chatty(1));
    server.wait("rtc-data", 1);
    source(&server).set_property_from_str("desired-playing-state", "stopped");
    assert_eq!(wishes.next().unwrap(), "false");
    source(&server).set_property_from_str("desired-playing-state", "playing");
    assert_eq!(wishes.next().unwrap(), "true");
    let asked = Instant::now();
    assert!(end(&server, &id_of(&server, 0), None));
    let visit = visitor.outstay();
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(visit.texts[0], r#"{"desired_playing_state":false}"#);
    assert_eq!(visit.texts[1], r#"{"desired_playing_state":true}"#);
    server.wait("rtc-connection-ended", 1);
    server.stop();
}

/// A named pipe that nobody reads: who opens it for writing hangs, and so does who writes when it is full.
struct Pipe(std::path::PathBuf);

impl Pipe {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        Self(path)
    }

    /// Opened at both ends: nobody hangs who opens it.
    fn open(&self) -> std::fs::File {
        let mut both = std::fs::File::options();
        both.read(true).write(true).open(&self.0).unwrap()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Lets go who still hangs.
        drop(self.open());
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_sink_that_hangs_while_it_writes_holds_up_no_end() {
    let pipe = Pipe::new("hanging-render");
    let held = pipe.open();
    let server = Server::playing(&format!(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 drain-timeout=300 \
         video-chain=\"filesink buffer-mode=unbuffered location={}\"",
        pipe.0.display()
    ));
    let visitor = server.visitor(Manner::Polite);
    server.wait("rtc-stream-started", 1);
    // Long enough for the pipe to be full: it takes no frame as a whole.
    let metrics = format!("{}/metrics", server.url());
    server.wait_for("a full pipe", || {
        let figures = minreq::get(&metrics).send().unwrap();
        let mut lines = figures.as_str().unwrap().lines();
        let dropped = "rtcinference_stream_frames_dropped_total{media=\"video\"} ";
        let count: u64 = lines.find_map(|l| l.strip_prefix(dropped)?.parse().ok())?;
        (count > 5).then_some(())
    });
    let asked = Instant::now();
    assert!(end(&server, &id_of(&server, 0), None));
    let ended = server.wait("rtc-connection-ended", 1);
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(text(&ended[0], "reason"), "closed-by-application");
    assert_eq!(server.named("rtc-stream-ended").len(), 1);
    assert!(server.connections().is_empty());
    visitor.outstay();
    server.assert_contract();
    drop(held);
    drop(pipe);
    server.stop();
}

#[test]
fn a_chain_that_hangs_while_it_starts_holds_up_no_end() {
    let pipe = Pipe::new("hanging-start");
    let held = pipe.open();
    let server = Server::playing(&format!(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 drain-timeout=300 connection-timeout=800 max-connections=1 \
         video-chain=\"filesink location={}\"",
        pipe.0.display()
    ));
    // The one that stands by has opened it; from here on whoever does waits for a reader.
    drop(held);
    let stuck = server.visitor(Manner::Polite);
    let ended = server.wait("rtc-connection-ended", 1);
    assert_eq!(text(&ended[0], "reason"), "time-limit");
    assert_eq!(
        farewell(&stuck.outstay())["termination_reason"],
        "time-limit"
    );
    // The slot is free though the chain still hangs.
    let next = server.visitor(Manner::Silent);
    server.wait("rtc-connection-created", 2);
    next.leave();
    let asked = Instant::now();
    server.pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    server.assert_contract();
    drop(pipe);
    server.stop();
}

#[test]
fn offers_that_are_given_up_take_no_more_than_their_places() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 max-connections=2 video-chain=fakesink",
    );
    let (asked, answer) = (
        Arc::new(Mutex::new(0)),
        Arc::new(std::sync::Barrier::new(3)),
    );
    source(&server).connect("authorize", false, {
        let (asked, answer) = (asked.clone(), answer.clone());
        move |_| {
            *asked.lock().unwrap() += 1;
            answer.wait();
            Some(false.to_value())
        }
    });
    let offer = {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let other = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0");
        let offer = crate::visitor::visit(&other.url(), &[], Manner::Mute, &stop).offer;
        other.stop();
        offer
    };
    let address = server.url().replace("http://", "");
    let give_up = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let length = offer.len();
        let head =
            format!("POST /offer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &offer).as_bytes()).unwrap();
        stream
    };
    let waiting = [give_up(), give_up()];
    server.wait_for("two questions", || {
        (*asked.lock().unwrap() == 2).then_some(())
    });
    drop(waiting);
    server.wait("rtc-connection-rejected", 2);
    // Their places are taken as long as the application has not answered.
    let refused = server.visitor(Manner::Polite).leave();
    assert_eq!(refused.refused.unwrap().0, 503);
    assert_eq!(*asked.lock().unwrap(), 2);
    answer.wait();
    server.stop();
}

#[test]
fn figures_of_like_named_elements_add_up() {
    let server = Server::playing(&format!(
        "rtcsessionsrc listen=http://127.0.0.1:0 video-chain=\"framemeta ! inferencesink name=same model={}\"",
        concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes.onnx")
    ));
    let visitors = [
        server.visitor(Manner::TwoTracks),
        server.visitor(Manner::Polite),
    ];
    server.wait("rtc-stream-started", 3);
    server.wait("inference-result", 60);
    visitors
        .into_iter()
        .for_each(|visitor| drop(visitor.leave()));
    server.wait("rtc-connection-ended", 2);
    let mut books = std::collections::HashMap::new();
    for (_, message) in &server.said.lock().unwrap().messages {
        if let Some(stats) = message
            .structure()
            .filter(|s| s.has_name("inference-stats"))
        {
            let received: u64 = stats.get("received").unwrap();
            books.insert(message.src().unwrap().clone(), received);
        }
    }
    assert_eq!(books.len(), 3);
    let figures = minreq::get(format!("{}/metrics", server.url()))
        .send()
        .unwrap();
    let received = format!(
        "rtcinference_inference_frames_received_total {}\n",
        books.values().sum::<u64>()
    );
    assert!(
        figures.as_str().unwrap().contains(&received),
        "{books:?}, {}",
        figures.as_str().unwrap()
    );
    server.stop();
}
