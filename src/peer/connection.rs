//! One connection's own task: its streams start and end in order, exactly once.
//!
//! Everything that happens to a connection reaches this task as a [`Job`] or as its end; it alone touches the
//! branches and the private pipeline, on a thread that may block. So no start can overtake an end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use super::agreement::{Agreement, VideoSource, Visitor};
use super::args::{Args, ArgsError};
use super::branch::{BranchOwner, BranchTerms, Counters, Outlet};
use super::call::EncodedFrame;
use super::chain::Chain;
use super::codecs::Media;
use super::encoders::AudioTerms;
use super::inlet::Inlet;
use super::lane::{Lane, Lanes};
use super::outbox::{Message, Outbox, Waits};
use super::scene::{Job, Scene, forwarded_eos, private_pipeline};
use super::stage::Stage;
use super::supply::{From, NO_LINE, REEL, Reel};
use super::transport::Transport;
use crate::logic::bandwidth::Limits;
use crate::logic::connection::{EndReason, Phase};
use crate::logic::frame_facts::FrameFacts;
use crate::logic::metrics::Metrics;
use crate::logic::rate_limit::RateLimit;
use crate::logic::registry::{ConnectionId, Place};
use crate::logic::return_lines::{Returns, Source};
use crate::logic::wire::dialect::{News, Payload, Pieces};
use crate::logic::wire::record::ConnectionRecord;
use crate::logic::wire::roboflow_client::UPLOAD_CHANNEL;

mod books;
mod called;
mod ending;
mod receiving;
mod telling;
mod uploading;

use books::Books;
use called::CalledSide;
pub use called::Pairer;
pub use ending::Part;
use ending::{Apart, End, Remains};
use receiving::Receiving;

/// Jobs that may wait; a connection has far fewer tracks.
const JOBS: usize = 64;
/// Messages a second that one peer may put on the application's bus.
const DATA_PER_SECOND: u32 = 500;
/// Bytes a second, the same.
const DATA_BYTES_PER_SECOND: u32 = 1 << 20;
/// Candidates and restarts of ICE a second that one peer may send: all visitors share the task that takes them.
const TOLD_PER_SECOND: u32 = 100;
/// Results that wait for a reader of `/outputs`; of a slower one the oldest are dropped.
const OUTPUTS: usize = 64;

const CHAIN_ENDED: &str = "the chain ended by itself";

/// What every connection of a session is held to.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub drain_timeout: Duration,
    /// How long a visit may last, from the moment the connection stands.
    pub time_limit: Option<Duration>,
    /// Bits a second of each stream of video that is sent.
    pub bitrate: Limits,
    pub audio: AudioTerms,
}

/// What every connection of a session is given.
#[derive(Clone)]
pub struct Shared {
    pub stage: Arc<dyn Stage>,
    pub transport: Transport,
    pub terms: Terms,
    pub metrics: Arc<Metrics>,
    /// What visitors are asked to do.
    pub wish: watch::Receiver<Option<bool>>,
}

/// What a reader of a connection's results gets.
#[derive(Debug, Clone)]
pub enum Output {
    Result(Arc<str>),
    /// The last one.
    Ended(Arc<str>),
}

/// Results that a visitor was told, and those that it has acknowledged.
#[derive(Default)]
struct Pace {
    told: u64,
    acknowledged: u64,
}

pub struct Connection {
    id: ConnectionId,
    visitor: Visitor,
    agreement: Agreement,
    /// Nanoseconds since the epoch.
    created_at: u64,
    stage: Arc<dyn Stage>,
    metrics: Arc<Metrics>,
    transport: Transport,
    outbox: Arc<Outbox>,
    /// What is sent to the visitor.
    lanes: Arc<Lanes>,
    audio: AudioTerms,
    me: Weak<Connection>,
    jobs: mpsc::Sender<Job>,
    /// Set once; whoever comes second changes nothing.
    end: OnceLock<End>,
    ending: Notify,
    connected: Notify,
    phase: Mutex<Phase>,
    /// Pads are flushed instead of given EOS.
    abrupt: AtomicBool,
    had_media: AtomicBool,
    /// The visitor was told that it is over.
    over: AtomicBool,
    pace: Mutex<Pace>,
    /// Messages and bytes that the visitor puts on the bus.
    data_rate: Mutex<(RateLimit, RateLimit)>,
    /// What its client says of it by HTTP.
    told_rate: Mutex<RateLimit>,
    /// Absent when the last output was said.
    outputs: Mutex<Option<broadcast::Sender<Output>>>,
    /// With a server that we have called.
    called: Option<CalledSide>,
    /// The file that it is to be sent, until that begins.
    uploading: Mutex<Option<PathBuf>>,
    /// The last word was said.
    over_at_last: watch::Sender<bool>,
    /// The visitor's file, while it comes.
    receiving: Mutex<Option<Receiving>>,
    /// What the application has set so far, for streams that start later.
    args: Mutex<Args>,
    /// Streams that have started; absent when their ends were said.
    outlets: Mutex<Option<Vec<Outlet>>>,
    books: Books,
    /// The most that draining may take, once the whole server stops.
    hurry: OnceLock<Duration>,
    /// By [`Part`].
    apart: Mutex<[Apart; 2]>,
    /// What visitors are asked to do.
    wish: watch::Receiver<Option<bool>>,
    /// Where EOS came out of a chain: its sinks by the bin's name, its src pad by that and `.src`.
    drained: Mutex<Vec<gst::glib::GString>>,
    drained_more: Condvar,
    /// Decoders and chains; empty until the first stream.
    pipeline: gst::Pipeline,
}

/// What the task needs and nobody else.
pub struct Life {
    jobs: mpsc::Receiver<Job>,
    pub place: Place<Arc<Connection>>,
    pub terms: Terms,
    /// Dropped when everything is over: whoever waits for all connections waits for this.
    pub alive: std::sync::mpsc::Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub fn new(
        visitor: Visitor,
        agreement: Agreement,
        shared: Shared,
        place: Place<Arc<Connection>>,
        alive: std::sync::mpsc::Sender<()>,
    ) -> (Arc<Self>, Life) {
        let Shared {
            stage,
            transport,
            terms,
            metrics,
            wish,
        } = shared;
        let (jobs, receiver) = mpsc::channel(JOBS);
        let now = Instant::now();
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let connection = Arc::new_cyclic(|me| Self {
            id: place.id().clone(),
            receiving: Mutex::new(match agreement.source {
                VideoSource::Upload(limit) => Some(Receiving::new(limit)),
                _ => None,
            }),
            called: agreement.called.map(|terms| CalledSide::new(terms, now)),
            uploading: Mutex::new(agreement.upload.clone()),
            over_at_last: watch::Sender::new(false),
            args: Mutex::new(
                agreement
                    .args
                    .as_deref()
                    .map(Args::read)
                    .unwrap_or_default(),
            ),
            visitor,
            agreement,
            created_at: wall.as_nanos() as u64,
            stage,
            outbox: Arc::new(Outbox::new(metrics.clone())),
            lanes: Arc::new(Lanes::new(
                place.id().clone(),
                transport.clone(),
                metrics.clone(),
                terms.bitrate,
            )),
            audio: terms.audio,
            books: Books::new(metrics.clone()),
            metrics,
            transport,
            me: me.clone(),
            jobs,
            end: OnceLock::new(),
            ending: Notify::new(),
            connected: Notify::new(),
            phase: Mutex::new(Phase::Signalling),
            abrupt: AtomicBool::new(false),
            had_media: AtomicBool::new(false),
            over: AtomicBool::new(false),
            pace: Mutex::default(),
            data_rate: Mutex::new((
                RateLimit::new(DATA_PER_SECOND, now),
                RateLimit::new(DATA_BYTES_PER_SECOND, now),
            )),
            told_rate: Mutex::new(RateLimit::new(TOLD_PER_SECOND, now)),
            outputs: Mutex::new(Some(broadcast::Sender::new(OUTPUTS))),
            outlets: Mutex::new(Some(Vec::new())),
            hurry: OnceLock::new(),
            apart: Mutex::new([Apart::NotYet; 2]),
            wish,
            drained: Mutex::default(),
            drained_more: Condvar::new(),
            pipeline: private_pipeline(place.id(), me.clone()),
        });
        let life = Life {
            jobs: receiver,
            place,
            terms,
            alive,
        };
        (connection, life)
    }

    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    pub fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    pub fn stage(&self) -> &Arc<dyn Stage> {
        &self.stage
    }

    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    /// The id that the client brought, if any.
    pub fn external_id(&self) -> Option<&str> {
        self.visitor.external_id.as_deref()
    }

    /// Where it came in.
    pub fn door(&self) -> &'static str {
        self.visitor.door
    }

    pub fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// What the session has for it.
    pub fn returns(&self) -> Returns {
        self.agreement.returns(&*self.stage)
    }

    /// The chain for that kind of stream; without one its streams get pads.
    pub fn chain(&self, media: Media) -> Option<Chain> {
        self.agreement.chain(&*self.stage, media)
    }

    /// What holds for a stream of that kind.
    pub fn branch_terms(&self, media: Media) -> BranchTerms {
        let called = self.agreement.called;
        let pairs = called.is_some_and(|called| called.pairs) && media == Media::Video;
        BranchTerms {
            chain: self.chain(media),
            lossless: self.agreement.lossless,
            pictures: self.agreement.pictures,
            counters: self.counters(media),
            max_buffers: called.map(|called| called.max_buffers),
            pairer: self
                .called
                .as_ref()
                .filter(|_| pairs)
                .map(|called| called.pairer.clone()),
            acknowledges: called.is_some_and(|called| called.acknowledges) && media == Media::Video,
        }
    }

    /// The visitor's file is whole.
    fn on_file(&self, file: tempfile::NamedTempFile) {
        self.play(From::File(file));
    }

    fn play(&self, from: From) {
        self.job(Job::Play(Reel {
            connection: self.id.clone(),
            from,
            realtime: !self.agreement.lossless,
        }));
    }

    /// What counts the items of its streams.
    fn counters(&self, media: Media) -> Counters {
        Counters {
            decoded: self.metrics.decoded(media.as_str()),
            dropped: self.metrics.handoff_dropped(media.as_str()),
        }
    }

    pub fn is_abrupt(&self) -> bool {
        self.abrupt.load(Ordering::Relaxed)
    }

    pub fn end_reason(&self) -> Option<EndReason> {
        self.end.get().map(|end| end.reason)
    }

    pub fn end_detail(&self) -> Option<String> {
        self.end.get().and_then(|end| end.detail.clone())
    }

    pub fn record(&self) -> ConnectionRecord {
        let streams = lock(&self.outlets);
        ConnectionRecord {
            connection_id: self.id.to_string(),
            external_id: self.visitor.external_id.clone(),
            door: self.visitor.door,
            state: lock(&self.phase).as_str(),
            remote_address: self.visitor.remote.to_string(),
            created_at: self.created_at,
            had_media: self.had_media.load(Ordering::Relaxed),
            streams: streams
                .iter()
                .flatten()
                .map(|outlet| outlet.stream.clone())
                .collect(),
            data: self.visitor.data.clone(),
        }
    }

    /// Whether what its client says of it comes slowly enough to be taken.
    pub fn may_be_told(&self, now: Instant) -> bool {
        lock(&self.told_rate).allows(now, 1)
    }

    /// A data channel has opened: the visitor can be told something from now on.
    pub fn on_channel(&self, label: &str) {
        self.tell(News::Channel(label));
        if label == UPLOAD_CHANNEL {
            self.upload(label);
        }
        let wish = *self.wish.borrow();
        if let Some(playing) = wish {
            self.ask_to_play(playing);
        }
    }

    /// Sends something on the channel of that label, or on the oldest open one; what finds no way is told on
    /// the bus. Says whether it is on its way.
    pub fn send_data(&self, channel: Option<String>, payload: Payload) -> bool {
        let message = Message {
            channel,
            pieces: vec![payload],
            tell: true,
            waits: Waits::Not,
        };
        self.transport.send_message(&self.id, message, &self.outbox)
    }

    /// Says it to the visitor, in the words of its door.
    fn tell(&self, news: News<'_>) {
        let is_last = matches!(news, News::Over { .. });
        let (said, channel) = {
            let mut dialect = lock(&self.agreement.dialect);
            // Under its lock, so that nothing follows the last word.
            if self.over.fetch_or(is_last, Ordering::Relaxed) && !is_last {
                return;
            }
            (dialect.tell(news), dialect.channel())
        };
        let waits = match self.agreement.lossless {
            _ if is_last => Waits::ForRoom,
            true => Waits::ForChannel,
            false => Waits::Not,
        };
        self.say(said, channel, waits);
    }

    fn say(&self, said: Vec<Pieces>, channel: Option<String>, waits: Waits) {
        for pieces in said {
            let message = Message {
                channel: channel.clone(),
                pieces,
                tell: false,
                waits,
            };
            self.transport.send_message(&self.id, message, &self.outbox);
        }
    }

    /// Asks the visitor to start or to stop.
    pub fn ask_to_play(&self, playing: bool) {
        self.tell(News::Playing(playing));
    }

    /// Sets properties of the chains' elements and sends the rest down every stream; all of it or nothing.
    pub fn set_args(&self, args: &gst::StructureRef) -> Result<(), ArgsError> {
        let given = Args::read(args);
        let outlets = lock(&self.outlets).clone().unwrap_or_default();
        let mut waiting = Vec::new();
        for media in [Media::Video, Media::Audio] {
            let started = outlets
                .iter()
                .any(|o| o.media == media && o.chain.is_some());
            if !started && let Some(chain) = self.chain(media) {
                // What it will be, to know whether the arguments fit.
                waiting.extend(chain.make());
            }
        }
        let chains = |outlets: &[Outlet]| -> Vec<_> {
            outlets.iter().filter_map(|o| o.chain.clone()).collect()
        };
        given.check(&[chains(&outlets), waiting].concat())?;
        {
            let mut kept = lock(&self.args);
            *kept = kept.with(&given)?;
        }
        // Those too that have started meanwhile: each stream reads what is kept when it is in the list.
        let outlets = lock(&self.outlets).clone().unwrap_or_default();
        for outlet in &outlets {
            outlet.give(&given);
        }
        Ok(())
    }

    /// What waits to be sent to the visitor is of no more use: somebody speaks in between.
    pub fn interrupt(&self) {
        self.stage.interrupt(&self.id);
        // More of them than can wait change nothing.
        let _ = self.jobs.try_send(Job::Interrupt);
    }

    /// A reader of its results from now on.
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Output>> {
        Some(lock(&self.outputs).as_ref()?.subscribe())
    }

    /// Whoever acknowledges results gets no more before it has the last one.
    fn pace(&self, more_told: u64, acknowledged: u64) {
        // Held until it is obeyed, so that what was true before does not come last.
        let mut pace = lock(&self.pace);
        pace.told += more_told;
        pace.acknowledged = pace.acknowledged.max(acknowledged);
        if pace.acknowledged > 0 {
            for outlet in lock(&self.outlets).iter().flatten() {
                outlet.withhold(pace.told > pace.acknowledged);
            }
        }
    }

    /// Something failed inside it that it survives.
    pub fn complain(&self, error: &str) {
        self.say_error(error, false);
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
        self.connected.notify_one();
    }

    /// The place where frames of a new track enter.
    pub fn open_inlet(&self, frame: &EncodedFrame) -> Arc<Inlet> {
        let owner: Weak<dyn BranchOwner> = self.me.clone();
        let inlet = Inlet::new(
            &self.id,
            frame,
            self.agreement.lossless,
            self.stage.clone(),
            owner,
        );
        if let Some(called) = &self.called {
            called.opened(&inlet);
        }
        self.job(Job::Open(inlet.clone()));
        inlet
    }

    /// Waits for the last word.
    pub async fn over(&self) {
        // The sender is ours, and lives as long as we do.
        let _ = self.over_at_last.subscribe().wait_for(|over| *over).await;
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
        let since = Instant::now();
        let mut time_limit = None;
        let place = Arc::new(life.place);
        // Absent while a job has it, and for good when that job does not come back.
        let mut scene = Some(Scene::new(&self, place.clone()));
        let mut at_work: Option<oneshot::Receiver<Scene>> = None;
        while self.end.get().is_none() {
            tokio::select! {
                biased;
                () = self.ending.notified() => break,
                () = reached(time_limit) => {
                    self.end(EndReason::TimeLimit, None);
                }
                () = self.connected.notified() => {
                    time_limit = life.terms.time_limit.and_then(|limit| Instant::now().checked_add(limit));
                    place.connected();
                    self.enter(Phase::Playing);
                    self.stage.visitor_joined(&self);
                    if let VideoSource::Pull(server) = &self.agreement.source {
                        self.play(From::Server(server.clone()));
                    }
                }
                back = returned(&mut at_work) => scene = back,
                Some(job) = life.jobs.recv(), if scene.is_some() => {
                    if let Some(mut scene) = scene.take() {
                        at_work = Some(on_a_thread(move |done| {
                            scene.play_or_fail(job);
                            if let Err(scene) = done.send(scene) {
                                scene.abandon();
                            }
                        }));
                    }
                }
            }
        }
        let remains = Remains {
            scene,
            at_work,
            place,
            since,
            drain_timeout: life.terms.drain_timeout,
            alive: life.alive,
        };
        self.come_to_its_end(remains).await;
    }

    /// What elements of the private pipeline say.
    pub fn on_bus(&self, pipeline: &gst::Pipeline, message: &gst::Message) {
        use gst::MessageView::*;
        match message.view() {
            // Of what it pulls, a source tells the headers it sent.
            Element(_) if of_reel(message) => {}
            Error(error) => {
                let at = error.src().map(|s| s.name()).unwrap_or_default();
                let detail = format!("{at}: {}", error.error());
                gst::warning!(super::CAT, "{}: {detail} ({:?})", self.id, error.debug());
                self.fail(detail);
            }
            Element(element) => match forwarded_eos(pipeline, element) {
                Some(source) => self.on_chain_eos(source),
                None if element.has_name("GstBinForwarded") => {}
                None => {
                    if element.has_name("inference-stats")
                        && let (Some(source), Some(said)) = (element.src(), element.structure())
                    {
                        self.books.keep(source.path_string(), said);
                    }
                    self.stage.repost(message.clone());
                }
            },
            Warning(_) | NeedContext(_) | HaveContext(_) => self.stage.repost(message.clone()),
            Latency(_) => pipeline.call_async(|pipeline| {
                let _ = pipeline.recalculate_latency();
            }),
            _ => {}
        }
    }

    fn on_chain_eos(&self, chain: gst::glib::GString) {
        lock(&self.drained).push(chain);
        self.drained_more.notify_all();
        // While it is being ended this changes nothing: the first reason counts.
        self.end(EndReason::SourceEnded, Some(CHAIN_ENDED.into()));
    }

    /// Waits until EOS has come out of all of these.
    pub fn wait_drained(&self, ends: &[gst::glib::GString], deadline: Instant) -> bool {
        let mut drained = lock(&self.drained);
        while !ends.iter().all(|end| drained.contains(end)) {
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

    pub fn fail(&self, detail: String) {
        if self.end.get().is_none() {
            self.say_error(&detail, true);
        }
        self.end(EndReason::HandlerError, Some(detail));
    }
}

impl BranchOwner for Connection {
    fn opened(&self, outlet: Outlet) -> bool {
        match lock(&self.outlets).as_mut() {
            Some(outlets) => outlets.push(outlet.clone()),
            None => return false,
        }
        self.stage.post(
            gst::Structure::builder("rtc-stream-started")
                .field("connection-id", self.id.as_str())
                .field("stream-id", &outlet.stream.stream_id)
                .field("media", outlet.stream.media)
                .field("codec", outlet.stream.codec)
                .field_if_some("pad", outlet.pad.as_deref())
                .build(),
        );
        let args = lock(&self.args).clone();
        if !args.is_empty() {
            outlet.give(&args);
        }
        true
    }

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

    fn lane(&self, mid: &str, media: Media) -> (Arc<Lane>, AudioTerms) {
        let source = match mid {
            NO_LINE => Source::Published(media, 0),
            mid => Source::Stream(mid.to_owned()),
        };
        (self.lanes.open(source, media, None), self.audio)
    }

    fn drained(&self, chain: gst::glib::GString) {
        self.on_chain_eos(chain);
    }

    fn picture(&self, facts: FrameFacts, size: (u32, u32), jpeg: &[u8]) {
        self.on_picture(&facts, size, jpeg);
    }

    fn delivered(&self, frame_id: Option<u64>) {
        match frame_id {
            Some(id) => self.deliver(id),
            None => self.deliver_next(),
        }
    }

    fn discarded(&self, why: String) {
        // A visitor who wants nothing back misses nothing.
        if !self.agreement.sends_back {
            return;
        }
        self.say_error(&format!("nothing is sent back: {why}"), false);
    }

    fn upstream(&self, event: &gst::Event) -> bool {
        let Some(structure) = event.structure() else {
            return false;
        };
        // A funnel sends events up every branch: what names another connection is not ours.
        let ours = match structure.get::<&str>("connection-id") {
            Ok(id) => id == self.id.as_str(),
            Err(_) => structure.has_name("rtc-close") || structure.has_name("rtc-interrupt"),
        };
        match structure.name().as_str() {
            "inference-result" if ours => self.on_result(structure),
            "rtc-close" if ours => {
                let message = structure.get::<String>("message").ok();
                self.end(EndReason::ClosedByApplication, message);
            }
            "rtc-interrupt" if ours => self.interrupt(),
            "inference-result" | "rtc-close" | "rtc-interrupt" => {}
            // What else comes up (latency, quality of service, seeks) means nothing to a live peer.
            _ => return !matches!(event.view(), gst::EventView::Seek(_)),
        }
        true
    }
}

/// Whether it is said by what plays a file or pulls from a server.
fn of_reel(message: &gst::Message) -> bool {
    let mut at = message.src().cloned();
    while let Some(object) = at {
        if object.name() == REEL {
            return true;
        }
        at = object.parent();
    }
    false
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The scene that a job gives back; for ever nothing where no job is at work.
async fn returned(at_work: &mut Option<oneshot::Receiver<Scene>>) -> Option<Scene> {
    match at_work {
        Some(job) => {
            let scene = job.await.ok();
            *at_work = None;
            scene
        }
        None => std::future::pending().await,
    }
}

/// Does something that may block, on a thread of its own: no pool that others could have used up.
fn on_a_thread<R: Send + 'static>(
    work: impl FnOnce(oneshot::Sender<R>) + Send + 'static,
) -> oneshot::Receiver<R> {
    let (done, over) = oneshot::channel();
    // Without a thread the receiver is told that nothing comes.
    let _ = std::thread::Builder::new()
        .name("rtc-scene".into())
        .spawn(move || work(done));
    over
}
