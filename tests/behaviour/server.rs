//! A pipeline with `rtcsessionsrc` in it, its visitors, and everything it says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::clip::{self, Frame};
use crate::init;
use crate::visitor::{self, Manner, Visit};

/// Long enough for a busy machine; nothing waits so long that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Said {
    pub messages: Vec<(Instant, gst::Message)>,
}

/// A pipeline whose every message is kept as it is posted, as by an application's sync handler.
pub struct Server {
    pub pipeline: gst::Pipeline,
    pub said: Arc<Mutex<Said>>,
    news: Mutex<mpsc::Receiver<()>>,
}

pub static CLIP: LazyLock<Vec<Frame>> = LazyLock::new(clip::clip);

impl Server {
    pub fn new(description: &str) -> Self {
        init();
        let pipeline = gst::Pipeline::new();
        let bin = gst::parse::bin_from_description(description, false).unwrap();
        pipeline.add(&bin).unwrap();
        let said = Arc::new(Mutex::new(Said {
            messages: Vec::new(),
        }));
        let (tell, news) = mpsc::channel();
        pipeline.bus().unwrap().set_sync_handler({
            let said = said.clone();
            move |_, message| {
                let entry = (Instant::now(), message.clone());
                said.lock().unwrap().messages.push(entry);
                // Nobody waits any more when the test is over.
                let _ = tell.send(());
                gst::BusSyncReply::Drop
            }
        });
        Self {
            pipeline,
            said,
            news: Mutex::new(news),
        }
    }

    pub fn playing(description: &str) -> Self {
        let server = Self::new(description);
        server.pipeline.set_state(gst::State::Playing).unwrap();
        server
    }

    pub fn named(&self, name: &str) -> Vec<gst::Structure> {
        let said = self.said.lock().unwrap();
        let structures = said.messages.iter().filter_map(|(_, m)| m.structure());
        structures
            .filter(|s| s.has_name(name))
            .map(|s| s.to_owned())
            .collect()
    }

    /// When the first message of a name was posted.
    pub fn said_at(&self, name: &str) -> Instant {
        let said = self.said.lock().unwrap();
        let mut messages = said.messages.iter();
        let found = messages.find(|(_, m)| m.structure().is_some_and(|s| s.has_name(name)));
        found.expect("it was posted").0
    }

    /// Waits until so many messages of a name were posted.
    pub fn wait(&self, name: &str, count: usize) -> Vec<gst::Structure> {
        self.wait_for(name, || {
            Some(self.named(name)).filter(|found| found.len() >= count)
        })
    }

    pub fn wait_for<T>(&self, what: &str, check: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let news = self.news.lock().unwrap();
        loop {
            if let Some(found) = check() {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} in {PATIENCE:?}");
            let _ = news.recv_timeout(left.min(Duration::from_millis(100)));
        }
    }

    pub fn url(&self) -> String {
        let uri: String = self.wait("rtc-listening", 1)[0].get("uri").unwrap();
        uri.trim_end_matches('/').to_owned()
    }

    /// What the property `connections` says.
    pub fn connections(&self) -> Vec<gst::Structure> {
        let source = self.pipeline.iterate_recurse().into_iter().flatten();
        let source = source
            .into_iter()
            .find(|e| e.factory().is_some_and(|f| f.name() == "rtcsessionsrc"));
        let all: gst::Structure = source.unwrap().property("connections");
        let structures = all.iter().map(|(_, value)| value.get().unwrap());
        structures.collect()
    }

    pub fn visitor(&self, manner: Manner) -> Visitor {
        let url = self.url();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || visitor::visit(&url, &CLIP, manner, &stop)
        });
        Visitor { stop, thread }
    }

    /// Every start has one end, every connection one last word, after all its streams' ends.
    pub fn assert_contract(&self) {
        let names: Vec<(String, String)> = {
            let said = self.said.lock().unwrap();
            let structures = said.messages.iter().filter_map(|(_, m)| m.structure());
            let ours = structures.filter(|s| s.name().starts_with("rtc-"));
            ours.filter_map(|s| {
                let id = s.get::<String>("connection-id").ok()?;
                Some((s.name().to_string(), id))
            })
            .collect()
        };
        for created in self.named("rtc-connection-created") {
            let id: String = created.get("connection-id").unwrap();
            let of = |name: &str| {
                let all = names.iter().enumerate();
                let found = all
                    .filter(|(_, (n, i))| n == name && *i == id)
                    .map(|(at, _)| at);
                found.collect::<Vec<_>>()
            };
            let (started, ended) = (of("rtc-stream-started"), of("rtc-stream-ended"));
            assert_eq!(started.len(), ended.len(), "{names:?}");
            let last = of("rtc-connection-ended");
            assert_eq!(last.len(), 1, "{names:?}");
            assert!(ended.iter().all(|end| *end < last[0]), "{names:?}");
            let after = names.iter().skip(last[0] + 1);
            assert_eq!(after.filter(|(_, i)| *i == id).count(), 0, "{names:?}");
        }
    }

    pub fn stop(self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
        self.assert_contract();
    }
}

pub struct Visitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Visit>,
}

impl Visitor {
    pub fn leave(self) -> Visit {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Stays until the server has closed the connection, and with that takes all that was sent before.
    pub fn outstay(self) -> Visit {
        self.thread.join().unwrap()
    }
}

pub fn text(structure: &gst::Structure, field: &str) -> String {
    structure.get(field).unwrap()
}
