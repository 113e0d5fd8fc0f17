//! One connection's own task: its streams start and end in order, exactly once.
//!
//! Everything that happens to a connection reaches this task as a [`Job`] or as its end; it alone touches the
//! branches and the private pipeline, on a thread that may block. So no start can overtake an end.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;
use tokio::sync::{Notify, mpsc};

use super::branch::{Branch, BranchOwner, Inlet};
use super::call::EncodedFrame;
use super::stage::Stage;
use super::transport::{Command, Outbox, Transport};
use crate::logic::connection::{EndReason, Phase};
use crate::logic::rate_limit::RateLimit;
use crate::logic::registry::{ConnectionId, Place};

/// Jobs that may wait; a connection has far fewer tracks.
const JOBS: usize = 64;
/// Messages a second that one peer may put on the application's bus.
const DATA_PER_SECOND: u32 = 500;
/// Bytes a second, the same.
const DATA_BYTES_PER_SECOND: u32 = 1 << 20;

const CHAIN_ENDED: &str = "the chain ended by itself";

/// Who came, by which door.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub door: &'static str,
    pub external_id: Option<String>,
    pub remote: SocketAddr,
    /// The client's own data, as JSON; empty where there was none.
    pub data: String,
}

enum Job {
    Connected,
    Open(Arc<Inlet>),
    Start(String),
}

#[derive(Debug, Clone)]
struct End {
    reason: EndReason,
    detail: Option<String>,
}

pub struct Connection {
    id: ConnectionId,
    visitor: Visitor,
    stage: Arc<dyn Stage>,
    transport: Transport,
    outbox: Arc<Outbox>,
    me: Weak<Connection>,
    jobs: mpsc::Sender<Job>,
    /// Set once; whoever comes second changes nothing.
    end: OnceLock<End>,
    ending: Notify,
    /// Pads are flushed instead of given EOS.
    abrupt: AtomicBool,
    had_media: AtomicBool,
    /// Messages and bytes that the visitor puts on the bus.
    data_rate: Mutex<(RateLimit, RateLimit)>,
    /// Chains whose EOS came, by the bin's name.
    drained: Mutex<Vec<gst::glib::GString>>,
    drained_more: Condvar,
    /// Decoders and chains; empty until the first stream.
    pipeline: gst::Pipeline,
}

/// What the task needs and nobody else.
pub struct Life {
    jobs: mpsc::Receiver<Job>,
    pub place: Place<Arc<Connection>>,
    pub drain_timeout: Duration,
    /// Dropped when everything is over: whoever waits for all connections waits for this.
    pub alive: std::sync::mpsc::Sender<()>,
}

impl Connection {
    pub fn new(
        visitor: Visitor,
        stage: Arc<dyn Stage>,
        transport: Transport,
        place: Place<Arc<Connection>>,
        drain_timeout: Duration,
        alive: std::sync::mpsc::Sender<()>,
    ) -> (Arc<Self>, Life) {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let connection = Arc::new_cyclic(|me| Self {
            id: place.id().clone(),
            visitor,
            stage,
            transport,
            outbox: Arc::default(),
            me: me.clone(),
            jobs,
            end: OnceLock::new(),
            ending: Notify::new(),
            abrupt: AtomicBool::new(false),
            had_media: AtomicBool::new(false),
            data_rate: Mutex::new((
                RateLimit::new(DATA_PER_SECOND, Instant::now()),
                RateLimit::new(DATA_BYTES_PER_SECOND, Instant::now()),
            )),
            drained: Mutex::default(),
            drained_more: Condvar::new(),
            pipeline: private_pipeline(place.id(), me.clone()),
        });
        let life = Life {
            jobs: receiver,
            place,
            drain_timeout,
            alive,
        };
        (connection, life)
    }

    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Ends the connection; only the first reason counts.
    pub fn end(&self, reason: EndReason, detail: Option<String>) {
        if self.end.set(End { reason, detail }).is_ok() {
            self.ending.notify_one();
        }
    }

    /// Ends it without waiting for what is behind its pads.
    pub fn end_abruptly(&self, reason: EndReason) {
        self.abrupt.store(true, Ordering::Relaxed);
        self.end(reason, None);
    }

    /// Takes over the element's clock and base time, which change when it is paused and goes on.
    pub fn rebase(&self) {
        if let Some((clock, base)) = self.stage.clock() {
            self.pipeline.use_clock(Some(&clock));
            self.pipeline.set_start_time(gst::ClockTime::NONE);
            self.pipeline.set_base_time(base);
            // A pipeline that plays already hands it down no more.
            for element in self.pipeline.iterate_recurse().into_iter().flatten() {
                let _ = element.set_clock(Some(&clock));
                element.set_base_time(base);
            }
        }
    }

    pub fn on_connected(&self) {
        self.job(Job::Connected);
    }

    /// The place where frames of a new track enter.
    pub fn open_inlet(&self, frame: &EncodedFrame) -> (Arc<Inlet>, Arc<AtomicBool>) {
        let owner: Weak<dyn BranchOwner> = self.me.clone();
        let (inlet, wants_keyframe) = Inlet::new(&self.id, frame, self.stage.clone(), owner);
        self.job(Job::Open(inlet.clone()));
        (inlet, wants_keyframe)
    }

    pub fn on_message(&self, label: String, data: Vec<u8>, binary: bool, now: Instant) {
        let allowed = {
            let mut rate = self
                .data_rate
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let (messages, bytes) = &mut *rate;
            let allowed = messages.allows(now, 1) && bytes.allows(now, data.len());
            if !allowed && messages.dropped + bytes.dropped == 1 {
                gst::warning!(
                    super::CAT,
                    "{}: more than {DATA_PER_SECOND} messages a second are dropped",
                    self.id
                );
            }
            allowed
        };
        if !allowed {
            return;
        }
        let message = gst::Structure::builder("rtc-data")
            .field("connection-id", self.id.as_str())
            .field("channel", label.replace('\0', "\u{fffd}"));
        let message = match String::from_utf8(data) {
            // A GStreamer string ends with the first NUL.
            Ok(text) if !binary && !text.contains('\0') => message.field("text", text),
            Ok(text) => message.field("bytes", gst::glib::Bytes::from_owned(text.into_bytes())),
            Err(error) => message.field("bytes", gst::glib::Bytes::from_owned(error.into_bytes())),
        };
        self.stage.post(message.build());
    }

    fn job(&self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            self.end(
                EndReason::HandlerError,
                Some("its streams start faster than they can be served".into()),
            );
        }
    }

    /// Lives the connection's life, from the handed-out answer to the last word.
    pub async fn live(self: Arc<Self>, mut life: Life) {
        let mut scene = Scene::new(&self);
        let mut connected = false;
        while self.end.get().is_none() {
            let job = tokio::select! {
                biased;
                () = self.ending.notified() => break,
                Some(job) = life.jobs.recv() => job,
            };
            if matches!(job, Job::Connected) {
                connected = true;
                self.say_state(Phase::Connecting, Phase::Playing);
            }
            scene = on_a_blocking_thread(move || {
                scene.play_or_fail(job);
                scene
            })
            .await;
        }
        self.say_state(
            match connected {
                true => Phase::Playing,
                false => Phase::Connecting,
            },
            Phase::Ending,
        );
        let end = self.end.get().expect("the loop ends with it");
        if let (EndReason::HandlerError, Some(detail)) = (end.reason, &end.detail) {
            let text = serde_json::json!({ "errors": [detail], "processing_complete": true });
            self.transport
                .send_text(&self.id, text.to_string(), &self.outbox);
        }
        self.transport.send(Command::Close(self.id.clone())).await;
        let (lasted, alive) = on_a_blocking_thread(move || scene.end(life)).await;
        self.say_end(end, lasted);
        self.stage.visitor_left(&self.id);
        drop(alive);
    }

    /// Says that the answer was handed out.
    pub fn say_created(&self) {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.stage.post(
            gst::Structure::builder("rtc-connection-created")
                .field("connection-id", self.id.as_str())
                .field_if_some("external-id", self.visitor.external_id.as_deref())
                .field("door", self.visitor.door)
                .field("remote-address", self.visitor.remote.to_string())
                .field("created-at", wall.as_nanos() as u64)
                .field("data", &self.visitor.data)
                .build(),
        );
        self.say_state(Phase::Signalling, Phase::Connecting);
    }

    fn say_state(&self, old: Phase, new: Phase) {
        self.stage.post(
            gst::Structure::builder("rtc-connection-state")
                .field("connection-id", self.id.as_str())
                .field("old", old.as_str())
                .field("new", new.as_str())
                .field("signalling", new == Phase::Signalling)
                .field("playing", new == Phase::Playing)
                .build(),
        );
    }

    fn say_end(&self, end: &End, lasted: Duration) {
        self.say_state(Phase::Ending, Phase::Ended);
        self.stage.post(
            gst::Structure::builder("rtc-connection-ended")
                .field("connection-id", self.id.as_str())
                .field_if_some("external-id", self.visitor.external_id.as_deref())
                .field("door", self.visitor.door)
                .field("reason", end.reason.as_str())
                .field_if_some("detail", end.detail.as_deref())
                .field("duration", lasted.as_nanos() as u64)
                .field("had-media", self.had_media.load(Ordering::Relaxed))
                .build(),
        );
        let (sent, dropped) = self.outbox.counts();
        gst::info!(
            super::CAT,
            "{} ended: {}, {sent} texts sent, {dropped} dropped",
            self.id,
            end.reason.as_str()
        );
    }

    /// What elements of the private pipeline say.
    fn on_bus(&self, pipeline: &gst::Pipeline, message: &gst::Message) {
        use gst::MessageView::*;
        match message.view() {
            Error(error) => {
                let at = error.src().map(|s| s.name()).unwrap_or_default();
                let detail = format!("{at}: {}", error.error());
                gst::warning!(super::CAT, "{}: {detail} ({:?})", self.id, error.debug());
                self.fail(detail);
            }
            Element(element) => match forwarded_eos(element) {
                Some(source) => self.on_chain_eos(source),
                None if element.has_name("GstBinForwarded") => {}
                None => self.stage.repost(message.clone()),
            },
            Warning(_) | NeedContext(_) | HaveContext(_) => self.stage.repost(message.clone()),
            Latency(_) => pipeline.call_async(|pipeline| {
                let _ = pipeline.recalculate_latency();
            }),
            _ => {}
        }
    }

    fn on_chain_eos(&self, chain: gst::glib::GString) {
        self.drained
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(chain);
        self.drained_more.notify_all();
        // While it is being ended this changes nothing: the first reason counts.
        self.end(EndReason::SourceEnded, Some(CHAIN_ENDED.into()));
    }

    /// Waits for the EOS of a chain.
    fn wait_drained(&self, chain: &gst::Bin, deadline: Instant) -> bool {
        let name = chain.name();
        let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        while !drained.contains(&name) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            drained = self
                .drained_more
                .wait_timeout(drained, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    fn fail(&self, detail: String) {
        if self.end.get().is_none() {
            self.stage.post(
                gst::Structure::builder("rtc-connection-error")
                    .field("connection-id", self.id.as_str())
                    .field("error", &detail)
                    .field("fatal", true)
                    .build(),
            );
        }
        self.end(EndReason::HandlerError, Some(detail));
    }
}

impl BranchOwner for Connection {
    fn first_frame(&self, mid: &str) {
        self.had_media.store(true, Ordering::Relaxed);
        self.job(Job::Start(mid.to_owned()));
    }

    fn ended(&self, _mid: &str) {
        self.end(EndReason::SourceEnded, Some(CHAIN_ENDED.into()));
    }

    fn failed(&self, _mid: &str, detail: String) {
        self.fail(detail);
    }

    fn upstream(&self, event: &gst::Event) -> bool {
        let Some(structure) = event.structure() else {
            return false;
        };
        if !structure.has_name("inference-result") {
            // What else comes up (latency, quality of service, seeks) means nothing to a live peer.
            return !matches!(event.view(), gst::EventView::Seek(_));
        }
        // A funnel sends events up every branch: only our own frames' results are ours.
        if structure.get::<&str>("connection-id").ok() == Some(self.id.as_str())
            && let Ok(json) = structure.get::<String>("json")
        {
            self.transport.send_text(&self.id, json, &self.outbox);
        }
        true
    }
}

/// A pipeline whose messages reach the connection and nobody else.
fn private_pipeline(id: &ConnectionId, connection: Weak<Connection>) -> gst::Pipeline {
    let pipeline = gst::Pipeline::builder()
        .name(format!("rtc-{id}"))
        .message_forward(true)
        .build();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let of = pipeline.downgrade();
    bus.set_sync_handler(move |_, message| {
        if let Some((connection, pipeline)) = connection.upgrade().zip(of.upgrade()) {
            connection.on_bus(&pipeline, message);
        }
        gst::BusSyncReply::Drop
    });
    pipeline
}

/// The private pipeline and its branches.
struct Scene {
    connection: Arc<Connection>,
    pipeline: gst::Pipeline,
    group: gst::GroupId,
    branches: Vec<Branch>,
    since: Instant,
    playing: bool,
}

impl Scene {
    fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
            pipeline: connection.pipeline.clone(),
            group: gst::GroupId::next(),
            branches: Vec::new(),
            since: Instant::now(),
            playing: false,
        }
    }

    /// What fails inside one connection ends it, with its last words said.
    fn play_or_fail(&mut self, job: Job) {
        if catch_unwind(AssertUnwindSafe(|| self.play(job))).is_err() {
            self.connection.fail("a stream could not be started".into());
        }
    }

    fn play(&mut self, job: Job) {
        let done = match job {
            Job::Connected => Ok(()),
            Job::Open(inlet) => self.open(inlet),
            Job::Start(mid) => match self.branches.iter_mut().find(|b| b.inlet.mid == mid) {
                Some(branch) => branch.start(self.group),
                None => Ok(()),
            },
        };
        if let Err(error) = done {
            self.connection.fail(error.to_string());
        }
    }

    fn open(&mut self, inlet: Arc<Inlet>) -> Result<(), super::branch::BranchError> {
        if !self.playing {
            // Started with the first stream: a visitor without media costs no pipeline.
            self.connection.rebase();
            self.pipeline.set_state(gst::State::Playing)?;
            self.playing = true;
        }
        let owner: Weak<dyn BranchOwner> = self.connection.me.clone();
        let stage = self.connection.stage.clone();
        let branch = Branch::new(inlet, &self.pipeline, stage, owner)?;
        self.branches.push(branch);
        Ok(())
    }

    /// EOS down every branch, then everything is freed. Says how long the connection lasted; what keeps the
    /// session waiting is dropped after the last word.
    fn end(mut self, life: Life) -> (Duration, std::sync::mpsc::Sender<()>) {
        let lasted = self.since.elapsed();
        let reason = self
            .connection
            .end
            .get()
            .map_or("", |end| end.reason.as_str());
        let deadline = Instant::now() + life.drain_timeout;
        // Whoever makes the pipeline stop at once has stopped what is behind the pads; chains are still ours.
        let abrupt = self.connection.abrupt.load(Ordering::Relaxed);
        let drains = |branch: &Branch| !abrupt || branch.chain().is_some();
        for branch in self.branches.iter().filter(|branch| drains(branch)) {
            branch.finish();
        }
        for branch in &self.branches {
            let drained = drains(branch)
                && branch.wait_eos(deadline.saturating_duration_since(Instant::now()))
                && branch
                    .chain()
                    .is_none_or(|chain| self.connection.wait_drained(chain, deadline));
            if !drained {
                gst::debug!(super::CAT, "{} is flushed", branch.inlet.stream_id);
                branch.flush(!abrupt);
            }
        }
        for branch in std::mem::take(&mut self.branches) {
            branch.stop(reason);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
        drop(life.place);
        (lasted, life.alive)
    }
}

/// The bin whose EOS a message forwards.
fn forwarded_eos(message: &gst::message::Element) -> Option<gst::glib::GString> {
    let structure = message.structure()?;
    if !structure.has_name("GstBinForwarded") {
        return None;
    }
    let inner = structure.get::<gst::Message>("message").ok()?;
    matches!(inner.view(), gst::MessageView::Eos(_)).then(|| inner.src().map(|s| s.name()))?
}

async fn on_a_blocking_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match crate::runtime::runtime().spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
