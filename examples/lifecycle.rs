//! What comes with a visitor and goes with them: allocates on `rtc-stream-started`, releases on `rtc-stream-ended`.
//!
//! ```sh
//! cargo run --release --example lifecycle -- http://127.0.0.1:8080
//! ```
//! Prints what happens and the thread that said it. Reads commands: `list`, `end ID [WHY]`, `quit`.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gst::prelude::*;

/// Every so many frames one is told.
const TELL_EACH: u64 = 30;

/// What a stream needs for itself: a file, a model's state, a row in a database.
struct Resource {
    since: Instant,
    frames: u64,
}

/// By stream-id. A stream that started has an entry until it ended, whatever way the visitor went.
type Resources = Arc<Mutex<HashMap<String, Resource>>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gst::init()?;
    gstrtcinference::plugin_register_static()?;
    let listen = std::env::args().nth(1);
    let source = gst::ElementFactory::make("rtcsessionsrc")
        .property_if_some("listen", listen)
        .property("video-chain", "framemeta post-messages=true ! fakesink")
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source)?;
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let resources = Resources::default();
    bus.set_sync_handler({
        let resources = resources.clone();
        // Runs on the thread that posts, so it must not block; an asynchronous watch sees the same messages.
        move |_, message| {
            if let Some(said) = message.structure() {
                on_message(&resources, said);
            }
            gst::BusSyncReply::Pass
        }
    });
    pipeline.set_state(gst::State::Playing)?;

    std::thread::spawn({
        let (source, pipeline) = (source.clone(), pipeline.clone());
        move || obey(&source, &pipeline)
    });
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => return Err(error.error().into()),
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null)?;
    println!(
        "left over: {}",
        resources.lock().expect("nobody panics").len()
    );
    Ok(())
}

fn on_message(resources: &Resources, said: &gst::StructureRef) {
    let text = |name: &str| said.get::<&str>(name).unwrap_or_default();
    let stream = text("stream-id");
    let mut resources = resources.lock().expect("nobody panics");
    match said.name().as_str() {
        "rtc-listening" => tell("listening", text("uri")),
        "rtc-connection-state" => {
            let change = format!("{} → {}", text("old"), text("new"));
            tell("state", &format!("{} {change}", text("connection-id")));
        }
        "rtc-stream-started" => {
            let resource = Resource {
                since: Instant::now(),
                frames: 0,
            };
            resources.insert(stream.to_owned(), resource);
            tell("started", stream);
        }
        "frame-meta" => {
            if let Some(resource) = resources.get_mut(stream) {
                resource.frames += 1;
                if resource.frames % TELL_EACH == 1 {
                    tell("frame", &format!("{stream} {}", resource.frames));
                }
            }
        }
        "rtc-stream-ended" => {
            if let Some(Resource { since, frames }) = resources.remove(stream) {
                let lasted = since.elapsed().as_secs_f64();
                let why = text("reason");
                tell(
                    "ended",
                    &format!("{stream} {why} after {lasted:.1} s and {frames} frames"),
                );
            }
        }
        _ => {}
    }
}

fn tell(what: &str, detail: &str) {
    let thread = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    println!("{what:9} {detail}  [{}]", thread.trim());
}

/// Commands from standard input; its end is left to Ctrl-C.
fn obey(source: &gst::Element, pipeline: &gst::Pipeline) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next()) {
            (Some("list"), _) => {
                let all: gst::Structure = source.property("connections");
                all.iter().for_each(|(id, what)| println!("{id}: {what:?}"));
                println!("{} connections", all.n_fields());
            }
            (Some("end"), Some(id)) => {
                let ended: bool = source.emit_by_name("end-connection", &[&id, &words.next()]);
                println!(
                    "{}",
                    if ended {
                        "ending"
                    } else {
                        "no such connection"
                    }
                );
            }
            (Some("quit"), _) => {
                // EOS ends every visitor first; the pipeline's own EOS comes after the last word.
                pipeline.send_event(gst::event::Eos::new());
            }
            _ => println!("list, end ID [WHY], quit"),
        }
    }
}
