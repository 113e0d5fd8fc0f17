//! What most benches measure: `rtcsessionsrc` in a pipeline of its own, in this process. Its visitors run in another.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use gst::glib;
use gst::prelude::*;
use serde_json::{Value, json};

pub struct Server {
    pipeline: gst::Pipeline,
    url: String,
    books: Arc<Mutex<Books>>,
}

/// The last books of each inference element, by its path.
type Books = HashMap<glib::GString, [u64; 5]>;
const BOOKS: [&str; 5] = ["received", "inferred", "dropped", "failed", "pending"];

impl Server {
    /// Takes in as many visitors as come, with this video chain; `hear` is told what the elements say.
    pub fn start(
        chain: &str,
        properties: &[(&str, u32)],
        hear: impl Fn(&gst::StructureRef) + Send + Sync + 'static,
    ) -> Self {
        gstrtcinference::plugin_register_static().expect("it registers");
        let mut source = gst::ElementFactory::make("rtcsessionsrc")
            .property("listen", "http://127.0.0.1:0")
            .property("video-chain", chain)
            .property("max-connections", 1000u32)
            .property("max-pending", 0u32);
        for (name, value) in properties {
            source = source.property(name, value);
        }
        let pipeline = gst::Pipeline::new();
        pipeline
            .add(&source.build().expect("it is registered"))
            .expect("it is alone");
        let (uri, books) = (Arc::new(OnceLock::new()), Arc::<Mutex<Books>>::default());
        let bus = pipeline.bus().expect("a pipeline has one");
        bus.set_sync_handler({
            let (uri, books) = (uri.clone(), books.clone());
            move |_, message| {
                if let Some(said) = message.structure() {
                    match said.name().as_str() {
                        "rtc-listening" => {
                            let _ = uri.set(said.get::<String>("uri").expect("it is said"));
                        }
                        "inference-stats" => {
                            let count = BOOKS.map(|what| said.get(what).expect("it is counted"));
                            let path = message.src().expect("an element says it").path_string();
                            books.lock().expect("nobody panics").insert(path, count);
                        }
                        _ => hear(said),
                    }
                }
                gst::BusSyncReply::Drop
            }
        });
        pipeline.set_state(gst::State::Playing).expect("it starts");
        let url: &String = uri.get().expect("it listens");
        let url = url.trim_end_matches('/').to_owned();
        Self {
            pipeline,
            url,
            books,
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// This program once more, as so many visitors of it.
    pub fn visitors(&self, count: usize) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(["visitors", &self.url, &count.to_string()]);
        command
    }

    /// Ends it, and says what became of the frames.
    pub fn stop(self) -> Value {
        self.pipeline.set_state(gst::State::Null).expect("it stops");
        let books = self.books.lock().expect("nobody panics");
        let sums: [u64; 5] = std::array::from_fn(|at| books.values().map(|books| books[at]).sum());
        let named = BOOKS.iter().zip(sums);
        let mut frames: serde_json::Map<_, _> = named
            .map(|(what, count)| ((*what).to_owned(), count.into()))
            .collect();
        let add_up = sums[0] == sums[1..].iter().sum::<u64>();
        frames.insert("add_up".into(), json!(add_up));
        frames.into()
    }
}
