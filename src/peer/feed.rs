//! One published stream on its way to whoever it is for: a bounded queue, what keeps it continuous, and a thread that encodes.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use gst::prelude::*;

use super::codecs::Media;
use super::encoders;
use super::encoding::{Encoding, EncodingOwner, Taker, is_raw};
use super::inline::{Inline, taking_pad};
use super::lane::Lane;
use crate::logic::continuity::Tick;
use crate::logic::continuity::audio::{AudioContinuity, AudioTerms};
use crate::logic::continuity::formats::{DEFAULT_SIZE, Fps, S16};
use crate::logic::continuity::video::{Out, VideoContinuity};
use crate::logic::handoff::{Handoff, WhenFull};
use crate::logic::registry::ConnectionId;

/// Without continuity: frames that may wait for the encoder, and samples.
const WAITING_FRAMES: u64 = 2;
const WAITING_AUDIO: Duration = Duration::from_millis(200);
/// Encoded frames build on each other.
const WAITING_ENCODED: u64 = 60;
/// How often a feed without anything to do looks whether it is paused still.
const IDLE: Duration = Duration::from_millis(200);

/// How a stream is kept continuous.
#[derive(Debug, Clone, Copy)]
pub struct FeedTerms {
    pub media: Media,
    /// `None`: it is sent as it comes.
    pub continuity: Option<ContinuityTerms>,
    pub coding: encoders::AudioTerms,
    /// It goes to a server that was called: each frame counts of what can wait, and nothing is made up before the first.
    pub to_server: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct ContinuityTerms {
    pub fps: Fps,
    pub max_repeat: Duration,
    pub silence_tolerance: Duration,
    /// Most audio that waits.
    pub capacity: Duration,
}

/// What a feed tells whoever made it; from the feed's own thread.
pub trait FeedOwner: Send + Sync {
    /// Running time; `None` while nothing is to be sent.
    fn running_time(&self) -> Option<gst::ClockTime>;
    /// What was queued is used up.
    fn drained(&self, to: Option<&ConnectionId>, stats: &gst::StructureRef);
    /// The first frame has gone to a peer.
    fn started(&self, lane: &Arc<Lane>);
    /// Something is discarded, and why; said once for each reason.
    fn discarded(&self, to: Option<&ConnectionId>, why: String);
    /// Elements of the feed failed: nothing more comes of it.
    fn failed(&self, to: Option<&ConnectionId>, error: String);
}

/// A piece of media and what it is.
type Piece = (gst::Buffer, gst::Caps);

/// What waits, and by which rule it leaves.
enum Flow {
    Video(VideoContinuity<Piece>),
    Audio(AudioContinuity),
    AsItComes(Handoff<Piece>),
}

struct State {
    flow: Flow,
    /// Caps of the frames that came last, and black for them.
    caps: Option<gst::Caps>,
    black: Option<Piece>,
    /// Frames of audio that found no room.
    dropped: u64,
    closed: bool,
    /// Nothing is sent before something has come.
    holds_back: bool,
    /// Everything that waits is to leave, then the feed closes.
    finishing: bool,
    /// What does not fit is waited for no longer.
    flushing: bool,
    /// Everything of it is freed.
    apart: bool,
}

struct Shared {
    terms: FeedTerms,
    to: Option<ConnectionId>,
    owner: Arc<dyn FeedOwner>,
    state: Mutex<State>,
    wake: Condvar,
    failed: AtomicBool,
    /// Whether audio that does not fit is waited for.
    waits: AtomicBool,
    /// What was said last of what is discarded.
    said: Mutex<Option<String>>,
}

pub struct Feed {
    shared: Arc<Shared>,
    /// Makes raw audio what continuity works on.
    front: Mutex<Option<Front>>,
    pipeline: gst::Pipeline,
    thread: OnceLock<ThreadId>,
}

struct Front {
    input: gst::Caps,
    inline: Inline,
}

/// What continuity of audio works on.
fn samples_caps(stereo: bool) -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", S16)
        .field("layout", "interleaved")
        .field("rate", 48_000)
        .field("channels", if stereo { 2 } else { 1 })
        .build()
}

impl Feed {
    /// `takers` get what is encoded, each an encoder of its own; `lanes` says who was reached.
    pub fn start(
        terms: FeedTerms,
        to: Option<ConnectionId>,
        takers: Vec<Arc<dyn Taker>>,
        lanes: impl Fn() -> Vec<Arc<Lane>> + Send + 'static,
        owner: Arc<dyn FeedOwner>,
    ) -> Result<Arc<Self>, gst::glib::BoolError> {
        let shared = Arc::new(Shared {
            terms,
            to,
            owner,
            state: Mutex::new(State {
                flow: flow(&terms, true),
                caps: None,
                black: None,
                dropped: 0,
                closed: false,
                holds_back: terms.to_server,
                finishing: false,
                flushing: false,
                apart: false,
            }),
            wake: Condvar::new(),
            failed: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            said: Mutex::default(),
        });
        let pipeline = pipeline(&shared);
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| gst::glib::bool_error!("{error}"))?;
        let outlets: Vec<Outlet> = takers
            .into_iter()
            .map(|taker| Outlet::new(&shared, &pipeline, taker))
            .collect();
        let feed = Arc::new(Self {
            shared: shared.clone(),
            front: Mutex::default(),
            pipeline,
            thread: OnceLock::new(),
        });
        // Taken apart by the thread, when everybody has let go of it: whoever closes a feed must not wait.
        let whole = feed.clone();
        let thread = std::thread::Builder::new()
            .name("rtc-feed".into())
            .spawn(move || {
                let run = AssertUnwindSafe(|| shared.run(&outlets, &lanes));
                if catch_unwind(run).is_err() {
                    shared.fail("the thread that encodes panicked".into());
                }
                whole.take_apart(outlets);
            })
            .map_err(|error| gst::glib::bool_error!("no thread to encode in: {error}"))?;
        let _ = feed.thread.set(thread.thread().id());
        Ok(feed)
    }

    /// Takes a buffer that is to be seen or heard at running time `at`. With `wait` it waits for room, until the feed closes
    /// or is flushed; else what does not fit is dropped and counted. `false` where that wait was [aborted](Self::set_unlocked).
    pub fn push(&self, buffer: gst::Buffer, caps: &gst::Caps, at: Duration, wait: bool) -> bool {
        let raw = is_raw(caps);
        {
            let mut state = self.shared.lock();
            if state.closed || state.finishing {
                return true;
            }
            if state.caps.as_ref() != Some(caps) {
                // Before anything came it was taken for raw. What is encoded already nobody can fill in for.
                if state.caps.as_ref().is_none_or(is_raw) != raw {
                    state.flow = flow(&self.shared.terms, raw);
                }
                state.caps = Some(caps.clone());
                state.black = None;
            }
            state.holds_back = false;
            if wait && raw && self.shared.terms.to_server && is_full(&state.flow) {
                drop(state);
                return self.shared.wait_for_a_place() && self.push(buffer, caps, at, wait);
            }
            match &mut state.flow {
                Flow::Video(video) => {
                    video.push((buffer, caps.clone()), at);
                }
                Flow::AsItComes(queue) => {
                    let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    let cost = match self.shared.terms.media {
                        Media::Audio if raw => {
                            buffer.duration().map_or(0, gst::ClockTime::nseconds)
                        }
                        _ => 1,
                    };
                    let buffer = stamped(buffer, at, false);
                    queue.push(
                        (buffer, caps.clone()),
                        cost,
                        key,
                        Duration::ZERO,
                        Duration::ZERO,
                    );
                }
                Flow::Audio(_) => {
                    drop(state);
                    self.push_samples(buffer, caps, wait);
                    return true;
                }
            }
        }
        self.shared.wake.notify_all();
        true
    }

    fn push_samples(&self, buffer: gst::Buffer, caps: &gst::Caps, wait: bool) {
        let stereo = self.shared.terms.coding.stereo;
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if front.as_ref().is_none_or(|front| front.input != *caps) {
            if let Some(old) = front.take() {
                old.inline.stop();
            }
            match Front::new(&self.shared, &self.pipeline, caps, stereo) {
                Ok(new) => *front = Some(new),
                Err(error) => return self.shared.fail(error.to_string()),
            }
        }
        let Some(front) = front.as_ref() else {
            return;
        };
        self.shared.waits.store(wait, Ordering::Relaxed);
        // The pad's chain function takes it from there, in this thread.
        match front.inline.feed.push(buffer) {
            Ok(_) | Err(gst::FlowError::Flushing | gst::FlowError::Eos) => {}
            Err(flow) => self
                .shared
                .say_discarded(format!("audio of {caps} is refused: {flow}")),
        }
    }

    /// What waits is of no more use.
    pub fn clear(&self) {
        match &mut self.shared.lock().flow {
            // They count it themselves.
            Flow::Video(video) => drop(video.clear()),
            Flow::Audio(audio) => drop(audio.clear()),
            Flow::AsItComes(queue) => queue.dropped += queue.clear(),
        }
        self.shared.wake.notify_all();
    }

    /// Whoever waits for room waits no longer, until told otherwise.
    pub fn set_flushing(&self, flushing: bool) {
        self.shared.lock().flushing = flushing;
        self.shared.wake.notify_all();
        if flushing {
            self.clear();
        }
    }

    /// Whoever waits for room waits no longer, until told otherwise; what waits stays.
    pub fn set_unlocked(&self, unlocked: bool) {
        self.shared.lock().flushing = unlocked;
        self.shared.wake.notify_all();
    }

    /// Lets out what waits, then closes.
    pub fn finish(&self) {
        self.shared.lock().finishing = true;
        self.shared.wake.notify_all();
    }

    /// Nothing more is sent; does not wait.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }

    /// Waits until nothing more is sent, at most `limit`.
    pub fn wait_closed(&self, limit: Duration) {
        self.wait_while(limit, |state| !state.closed);
    }

    /// Nothing comes of it any more.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// How much waits.
    pub fn queued(&self) -> Duration {
        self.shared.lock().waiting()
    }

    /// Waits until everything of it is freed, at most `limit`; not from a handler of what it says.
    pub fn wait_apart(&self, limit: Duration) {
        if self.thread.get() == Some(&std::thread::current().id()) {
            return;
        }
        self.wait_while(limit, |state| !state.apart);
    }

    fn wait_while(&self, limit: Duration, condition: fn(&mut State) -> bool) {
        let state = self.shared.lock();
        let waited = self.shared.wake.wait_timeout_while(state, limit, condition);
        drop(waited);
    }

    /// Looks again whether there is something to do: it was paused, or goes on.
    pub fn wake(&self) {
        self.shared.wake.notify_all();
    }

    pub fn stats(&self) -> gst::Structure {
        self.shared.lock().stats()
    }

    fn take_apart(&self, outlets: Vec<Outlet>) {
        let front = self
            .front
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(front) = front {
            front.inline.stop();
        }
        for outlet in outlets {
            outlet.encoding.stop();
            let _ = outlet.pad.set_active(false);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
        self.shared.lock().apart = true;
        self.shared.wake.notify_all();
    }
}

/// Whether another frame would make one go that waits.
fn is_full(flow: &Flow) -> bool {
    match flow {
        Flow::AsItComes(queue) => queue.is_full(),
        Flow::Video(video) => !video.stats().queued.is_zero(),
        // It has a wait of its own.
        Flow::Audio(_) => false,
    }
}

/// By which rule a stream leaves; `raw` frames are those that something can fill in for.
fn flow(terms: &FeedTerms, raw: bool) -> Flow {
    let continuity = terms.continuity.filter(|_| raw);
    match (terms.media, continuity) {
        (Media::Video, Some(continuity)) => {
            Flow::Video(VideoContinuity::new(continuity.fps, continuity.max_repeat))
        }
        (Media::Audio, Some(continuity)) => {
            let terms = AudioTerms {
                rate: 48_000,
                channels: if terms.coding.stereo { 2 } else { 1 },
                silence_tolerance: continuity.silence_tolerance,
                capacity: continuity.capacity,
                ..AudioTerms::default()
            };
            match AudioContinuity::new(terms) {
                Ok(audio) => Flow::Audio(audio),
                Err(_) => unreachable!("the element checks its capacity, and the rest is ours"),
            }
        }
        (Media::Audio, None) if raw => Flow::AsItComes(Handoff::new(
            WAITING_AUDIO.as_nanos() as u64,
            WhenFull::DropOldest,
        )),
        (Media::Video, None) if raw => {
            Flow::AsItComes(Handoff::new(WAITING_FRAMES, WhenFull::DropOldest))
        }
        _ => Flow::AsItComes(Handoff::new(WAITING_ENCODED, WhenFull::DropToKey)),
    }
}

/// Its messages reach the feed's owner and nobody else.
fn pipeline(shared: &Arc<Shared>) -> gst::Pipeline {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let shared = Arc::downgrade(shared);
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view()
            && let Some(shared) = Weak::upgrade(&shared)
        {
            let at = error.src().map(|s| s.name()).unwrap_or_default();
            shared.fail(format!("{at}: {}", error.error()));
        }
        gst::BusSyncReply::Drop
    });
    pipeline
}

impl Front {
    fn new(
        shared: &Arc<Shared>,
        pipeline: &gst::Pipeline,
        caps: &gst::Caps,
        stereo: bool,
    ) -> Result<Self, gst::glib::BoolError> {
        let filter = gst::ElementFactory::make("capsfilter")
            .property("caps", samples_caps(stereo))
            .build()?;
        let elements = vec![
            gst::ElementFactory::make("audioconvert").build()?,
            gst::ElementFactory::make("audioresample").build()?,
            filter,
        ];
        let shared = shared.clone();
        let tail = taking_pad(move |_, buffer| {
            shared.take_samples(&buffer);
            Ok(gst::FlowSuccess::Ok)
        });
        let feed = gst::Pad::builder(gst::PadDirection::Src).build();
        let inline = Inline::new(pipeline, feed, tail, elements);
        if let Err(error) = inline.start(caps, None) {
            inline.stop();
            return Err(gst::glib::bool_error!("{error}"));
        }
        Ok(Self {
            input: caps.clone(),
            inline,
        })
    }
}

/// One encoder and the pad that feeds it.
struct Outlet {
    pad: gst::Pad,
    encoding: Encoding,
}

impl Outlet {
    fn new(shared: &Arc<Shared>, pipeline: &gst::Pipeline, taker: Arc<dyn Taker>) -> Self {
        let pad = gst::Pad::builder(gst::PadDirection::Src).build();
        // Fails only for a pad whose element refuses, and this one has none.
        let _ = pad.set_active(true);
        let FeedTerms { media, coding, .. } = shared.terms;
        let encoding = Encoding::new(media, coding, pipeline, taker, shared.clone());
        pad.link_full(encoding.pad(), gst::PadLinkCheck::empty())
            .expect("both are new and ours");
        pad.push_event(gst::event::StreamStart::new("feed"));
        Self { pad, encoding }
    }

    fn push(&self, buffer: gst::Buffer, caps: &gst::Caps) -> Result<(), gst::FlowError> {
        if self.pad.current_caps().as_ref() != Some(caps) {
            self.pad.push_event(gst::event::Caps::new(caps));
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            self.pad.push_event(gst::event::Segment::new(&segment));
        }
        self.pad.push(buffer).map(|_| ())
    }
}

/// What the thread does next.
enum Next {
    Push(gst::Buffer, gst::Caps),
    Drained(gst::Structure),
    Wait(Duration),
    Close,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, outlets: &[Outlet], lanes: &dyn Fn() -> Vec<Arc<Lane>>) {
        let mut reached = HashSet::new();
        loop {
            let now = self.owner.running_time().map(Duration::from);
            let next = {
                let mut state = self.lock();
                let next = state.next(now, self.terms.coding.stereo);
                if let Next::Wait(time) = next {
                    // What was pushed or said meanwhile has woken nobody: the lock was held.
                    let _ = self.wake.wait_timeout(state, time);
                    continue;
                }
                next
            };
            match next {
                Next::Push(buffer, caps) => {
                    // There is room again.
                    self.wake.notify_all();
                    for outlet in outlets {
                        match outlet.push(buffer.clone(), &caps) {
                            Ok(()) | Err(gst::FlowError::Flushing | gst::FlowError::Eos) => {}
                            Err(flow) => self.fail(format!("the encoder refused a frame: {flow}")),
                        }
                    }
                    let lanes = lanes();
                    // Of a crowd that comes and goes only those who are there are remembered.
                    reached.retain(|id| lanes.iter().any(|lane| lane.connection() == id));
                    for lane in lanes {
                        let id = lane.connection();
                        if lane.sent() > 0 && !reached.contains(id) {
                            reached.insert(id.clone());
                            self.owner.started(&lane);
                        }
                    }
                }
                Next::Drained(stats) => self.owner.drained(self.to.as_ref(), &stats),
                Next::Wait(_) => {}
                Next::Close => break,
            }
        }
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn take_samples(&self, buffer: &gst::BufferRef) {
        let Some(now) = self.owner.running_time() else {
            return;
        };
        let Ok(map) = buffer.map_readable() else {
            return;
        };
        let samples: Vec<i16> = map
            .chunks_exact(2)
            .map(|bytes| i16::from_ne_bytes([bytes[0], bytes[1]]))
            .collect();
        let channels = if self.terms.coding.stereo { 2 } else { 1 };
        let waits = self.waits.load(Ordering::Relaxed);
        let mut rest = samples.as_slice();
        while !rest.is_empty() {
            let taken = {
                let mut state = self.lock();
                let State { flow, dropped, .. } = &mut *state;
                let Flow::Audio(audio) = flow else {
                    return;
                };
                let now = self.owner.running_time().unwrap_or(now);
                let taken = audio.push(rest, now.into()) * channels;
                if !waits {
                    *dropped += ((rest.len() - taken) / channels) as u64;
                }
                taken
            };
            self.wake.notify_all();
            rest = &rest[taken..];
            if !waits || rest.len() < channels || !self.wait_for_room() {
                return;
            }
        }
    }

    fn say_discarded(&self, why: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != Some(&why) {
            *said = Some(why.clone());
            drop(said);
            self.owner.discarded(self.to.as_ref(), why);
        }
    }

    /// Until one more fits; `false` when nobody wants to wait any more.
    fn wait_for_a_place(&self) -> bool {
        let full = |state: &mut State| is_full(&state.flow) && !state.closed && !state.flushing;
        let state = self.wake.wait_while(self.lock(), full);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        !state.closed && !state.flushing
    }

    /// Until half of what fits is free; `false` when nobody wants to wait any more.
    fn wait_for_room(&self) -> bool {
        let full = |state: &mut State| match &state.flow {
            Flow::Audio(audio) if !state.closed && !state.flushing => {
                let capacity = self.terms.continuity.map(|terms| terms.capacity);
                audio.stats().queued > capacity.unwrap_or_default() / 2
            }
            _ => false,
        };
        let state = self.lock();
        let state = self
            .wake
            .wait_while(state, full)
            .unwrap_or_else(PoisonError::into_inner);
        !state.closed && !state.flushing
    }

    fn fail(&self, error: String) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.owner.failed(self.to.as_ref(), error);
        }
        // From a thread of the feed's own elements: only what never waits.
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

impl EncodingOwner for Shared {
    fn running_time(&self) -> Option<gst::ClockTime> {
        self.owner.running_time()
    }

    fn drained(&self) {}

    fn discarded(&self, why: String) {
        self.owner.discarded(self.to.as_ref(), why);
    }
}

impl State {
    fn next(&mut self, now: Option<Duration>, stereo: bool) -> Next {
        if self.closed || (self.finishing && self.waiting().is_zero()) {
            return Next::Close;
        }
        let Some(now) = now.filter(|_| !self.holds_back) else {
            return Next::Wait(IDLE);
        };
        let until = |at: Duration| Next::Wait(at.saturating_sub(now).min(IDLE));
        match &mut self.flow {
            Flow::AsItComes(queue) => match queue.pop() {
                Some((buffer, caps)) => Next::Push(buffer, caps),
                None => Next::Wait(IDLE),
            },
            Flow::Video(video) => match video.tick(now) {
                Tick::Wait(at) => until(at),
                Tick::Drained => Next::Drained(self.stats()),
                Tick::Send { at, out } => {
                    let (buffer, caps, filler) = match out {
                        Out::Fresh((buffer, caps)) => (buffer, caps, false),
                        Out::Repeat((buffer, caps)) => (buffer, caps, true),
                        Out::Black => {
                            let (buffer, caps) = self.black();
                            (buffer, caps, true)
                        }
                    };
                    Next::Push(stamped(buffer, at, filler), caps)
                }
            },
            Flow::Audio(audio) => match audio.tick(now) {
                Tick::Wait(at) => until(at),
                Tick::Drained => Next::Drained(self.stats()),
                Tick::Send { at, out } => {
                    let bytes: Vec<u8> = out.samples.iter().flat_map(|s| s.to_ne_bytes()).collect();
                    let frames = out.samples.len() as u64 / if stereo { 2 } else { 1 };
                    let mut buffer = gst::Buffer::from_slice(bytes);
                    {
                        let buffer = buffer.get_mut().expect("it is new");
                        buffer.set_duration(gst::ClockTime::from_nseconds(
                            frames * 1_000_000_000 / 48_000,
                        ));
                    }
                    Next::Push(stamped(buffer, at, false), samples_caps(stereo))
                }
            },
        }
    }

    /// How much waits.
    fn waiting(&self) -> Duration {
        match &self.flow {
            Flow::Video(video) => video.stats().queued,
            Flow::Audio(audio) => audio.stats().queued,
            Flow::AsItComes(queue) => Duration::from_nanos(queue.len() as u64),
        }
    }

    /// Black of the size and format that came last.
    fn black(&mut self) -> Piece {
        if let Some(black) = &self.black {
            return black.clone();
        }
        let black = black_like(self.caps.as_ref());
        self.black = Some(black.clone());
        black
    }

    fn stats(&self) -> gst::Structure {
        let stats = gst::Structure::builder("rtc-buffer-stats");
        let nanoseconds = |time: Duration| time.as_nanos() as u64;
        match &self.flow {
            Flow::Video(video) => {
                let s = video.stats();
                stats
                    .field("queued", nanoseconds(s.queued))
                    .field("taken", s.taken)
                    .field("sent", s.sent)
                    .field("dropped", s.dropped)
                    .field("cleared", s.cleared)
                    .field("repeated", s.repeated)
                    .field("black", s.black)
            }
            Flow::Audio(audio) => {
                let s = audio.stats();
                stats
                    .field("queued", nanoseconds(s.queued))
                    .field("taken", s.taken)
                    .field("sent", s.sent)
                    .field("dropped", self.dropped)
                    .field("cleared", s.cleared)
                    .field("silence", s.silence)
                    .field("padding", s.padding)
            }
            Flow::AsItComes(queue) => stats
                .field("waiting", queue.len() as u64)
                .field("dropped", queue.dropped),
        }
        .build()
    }
}

/// A copy with that time; what fills in is marked, so that nobody takes it for the frame it shows.
fn stamped(mut buffer: gst::Buffer, at: Duration, filler: bool) -> gst::Buffer {
    let writable = buffer.make_mut();
    writable.set_pts(gst::ClockTime::try_from(at).ok());
    writable.set_dts(gst::ClockTime::NONE);
    if filler {
        writable.set_flags(gst::BufferFlags::GAP);
    }
    buffer
}

fn black_like(caps: Option<&gst::Caps>) -> Piece {
    let like = caps.and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
    let (width, height) = like
        .as_ref()
        .map_or(DEFAULT_SIZE, |i| (i.width(), i.height()));
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height)
        .build()
        .expect("every size has I420");
    let mut buffer = gst::Buffer::with_size(info.size()).expect("memory for one frame");
    {
        let buffer = buffer.get_mut().expect("it is new");
        let mut map = buffer.map_writable().expect("it is new");
        let luma = info.offset()[1];
        map[..luma].fill(16);
        map[luma..].fill(128);
    }
    let caps = info.to_caps().expect("it is a format");
    (buffer, caps)
}
