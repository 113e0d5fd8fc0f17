//! One stream's way: encoded frames → decoder → pad or chain, each step bounded.
//!
//! Everything here happens on the connection's own thread of work, in order; frames go through by themselves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;
use prometheus_client::metrics::counter::Counter;

use super::args::Args;
use super::chain::{Chain, ChainError};
use super::codecs::{Media, MissingDecoder};
use super::connection::Pairer;
use super::encoders::AudioTerms;
use super::encoding::{Encoding, EncodingOwner};
use super::inlet::{ENCODED, when_encoded_is_full};
use super::inline::InlineError;
use super::lane::Lane;
use super::pictures::{Pictures, PicturesOwner};
use super::pump::{Bound, Pump, PumpOwner};
use super::scene::take_out;
use super::stage::Stage;
use super::supply::{StreamName, Supply};
use crate::logic::frame_facts::{FrameFacts, TimeBase};
use crate::logic::handoff::{Pushed, WhenFull};
use crate::logic::wire::record::StreamRecord;

/// Decoded frames that may wait for what the user built.
const DECODED_VIDEO: Bound = Bound::Buffers(2);
const DECODED_AUDIO: Bound = Bound::Duration(gst::ClockTime::from_mseconds(200));

/// The label of a frame that has no id; those count from 1.
const UNKNOWN: u64 = 0;
/// How long a first frame is said to last.
const FRAME: gst::ClockTime = gst::ClockTime::from_nseconds(1_000_000_000 / 30);

/// What a flushed branch is given to take EOS after all.
const AFTER_FLUSH: Duration = Duration::from_millis(500);

/// What a branch tells its connection; called from any thread, must not block.
pub trait BranchOwner: Send + Sync {
    /// A stream goes to a pad or a chain from now on; its first frame comes when this returns. Not if it comes
    /// too late: everything was said of the connection.
    fn opened(&self, outlet: Outlet) -> bool;
    /// The first frame was decoded: the branch can be opened towards the user.
    fn first_frame(&self, mid: &str);
    /// What the user built takes nothing more, and says so without an error.
    fn ended(&self, mid: &str);
    /// The branch cannot go on.
    fn failed(&self, mid: &str, detail: String);
    /// An event came up from what the user built.
    fn upstream(&self, event: &gst::Event) -> bool;
    /// Where what is made of a stream goes to its visitor, and as what.
    fn lane(&self, mid: &str, media: Media) -> (Arc<Lane>, AudioTerms);
    /// All that entered a chain has left it, towards the visitor.
    fn drained(&self, chain: gst::glib::GString);
    /// A frame that left a chain, for a visitor who reads pictures on its channel; may wait.
    fn picture(&self, facts: FrameFacts, size: (u32, u32), jpeg: &[u8]);
    /// What leaves a chain cannot be sent.
    fn discarded(&self, why: String);
    /// A frame is where it was to go; without an id nothing is known of it.
    fn delivered(&self, frame_id: Option<u64>);
}

/// What counts the items of a stream.
#[derive(Debug, Clone)]
pub struct Counters {
    pub decoded: Counter,
    /// In front of a slow chain or pad.
    pub dropped: Counter,
}

/// Where frames leave towards the user: what arguments are given to.
#[derive(Clone)]
pub struct Outlet {
    pub stream: StreamRecord,
    pub media: Media,
    pub chain: Option<gst::Bin>,
    pub pad: Option<gst::glib::GString>,
    pub since: Instant,
    pub passage: Arc<dyn Passage>,
}

/// What its frames go through last.
pub trait Passage: Send + Sync {
    /// What went through, and what did not.
    fn counts(&self) -> (u64, u64);
    /// Whether nothing goes through for the time being.
    fn withhold(&self, withheld: bool);
    /// Sends an event of these fields before what comes next.
    fn send_args(&self, args: gst::Structure);
    /// Whether nothing waits and nothing goes through at the moment.
    fn is_idle(&self) -> bool;
}

impl Passage for Pump {
    fn counts(&self) -> (u64, u64) {
        self.counts()
    }

    fn withhold(&self, withheld: bool) {
        self.withhold(withheld);
    }

    fn send_args(&self, args: gst::Structure) {
        self.send_args(args);
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }
}

impl Outlet {
    /// What went through, what did not, and how long it lasted.
    pub fn account(&self) -> (u64, u64, Duration) {
        let (buffers, dropped) = self.passage.counts();
        (buffers, dropped, self.since.elapsed())
    }

    /// Whether frames of its video wait for the time being.
    pub fn withhold(&self, withheld: bool) {
        if self.media == Media::Video {
            self.passage.withhold(withheld);
        }
    }

    /// Sets what is meant for elements of its chain and sends the rest down the stream.
    pub fn give(&self, args: &Args) {
        if let Some(chain) = &self.chain {
            args.apply(chain);
        }
        if let Some(event) = args.event() {
            self.passage.send_args(event);
        }
    }
}

/// What holds for a stream of a connection.
pub struct BranchTerms {
    /// Without one there is a pad.
    pub chain: Option<Chain>,
    /// Whether frames wait for what the user built instead of making room for newer ones.
    pub lossless: bool,
    /// Whether what leaves the chain is told as pictures instead of being sent as video.
    pub pictures: bool,
    pub counters: Counters,
    /// Decoded frames that may wait for what the user built, where that is not as usual.
    pub max_buffers: Option<u32>,
    /// Knows what is said elsewhere of its frames.
    pub pairer: Option<Arc<Pairer>>,
    /// Whether it is to be told when frames are where they were to go.
    pub acknowledges: bool,
}

/// Why a branch does not come to be.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    #[error(transparent)]
    Decoder(#[from] MissingDecoder),
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
    #[error("{0}")]
    State(#[from] gst::StateChangeError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Inline(#[from] InlineError),
}

/// The user's side: between the decoder, where there is one, and what the user built.
struct RawSide {
    mid: String,
    /// Where a keyframe is asked for, if frames pass undecoded; else a decoder asks when it needs one.
    wants_keyframe: Option<Arc<AtomicBool>>,
    /// Whether a chain follows, or a pad.
    chained: bool,
    /// Whether frames wait for what the user built.
    lossless: bool,
    /// Whether the owner wants to know which frames were taken.
    acknowledges: bool,
    stage: Arc<dyn Stage>,
    owner: Weak<dyn BranchOwner>,
}

impl PumpOwner for RawSide {
    fn refused(&self, flow: gst::FlowError) {
        let Some(owner) = self.owner.upgrade() else {
            return;
        };
        match flow {
            // A chain that ended by itself ends its connection; beside a pad that did, others may go on.
            gst::FlowError::Eos if self.chained => owner.ended(&self.mid),
            gst::FlowError::Eos => {}
            // An element that posted an error has said it better.
            gst::FlowError::Error => {}
            flow => owner.failed(&self.mid, format!("the stream was refused: {flow}")),
        }
    }

    fn upstream(&self, event: &gst::Event) -> bool {
        if let Some(wanted) = &self.wants_keyframe
            && gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok()
        {
            wanted.store(true, Ordering::Relaxed);
            return true;
        }
        self.owner.upgrade().is_some_and(|o| o.upstream(event))
    }

    fn latency(&self) -> gst::ClockTime {
        self.stage.latency()
    }

    fn is_live(&self) -> bool {
        !self.lossless
    }

    fn label(&self, buffer: &gst::BufferRef) -> Option<u64> {
        match self.acknowledges {
            true => Some(FrameFacts::read(buffer).frame_id.unwrap_or(UNKNOWN)),
            false => None,
        }
    }

    fn delivered(&self, label: u64) {
        if let Some(owner) = self.owner.upgrade() {
            owner.delivered(Some(label).filter(|label| *label != UNKNOWN));
        }
    }
}

/// The far side of a chain: what leaves it is sent back.
struct ReturnSide {
    chain: gst::glib::GString,
    stage: Arc<dyn Stage>,
    owner: Weak<dyn BranchOwner>,
}

impl PicturesOwner for ReturnSide {
    fn picture(&self, facts: FrameFacts, size: (u32, u32), jpeg: &[u8]) {
        if let Some(owner) = self.owner.upgrade() {
            owner.picture(facts, size, jpeg);
        }
    }

    fn drained(&self) {
        EncodingOwner::drained(self);
    }
}

impl EncodingOwner for ReturnSide {
    fn running_time(&self) -> Option<gst::ClockTime> {
        self.stage.running_time()
    }

    fn drained(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.drained(self.chain.clone());
        }
    }

    fn discarded(&self, why: String) {
        if let Some(owner) = self.owner.upgrade() {
            owner.discarded(why);
        }
    }
}

pub struct Branch {
    pub name: StreamName,
    supply: Supply,
    pictures: bool,
    pipeline: gst::Pipeline,
    /// Without one there is a pad.
    chain: Option<Chain>,
    stage: Arc<dyn Stage>,
    owner: Weak<dyn BranchOwner>,
    raw: Arc<Pump>,
    /// What decodes; nothing where frames pass undecoded.
    elements: Vec<gst::Element>,
    /// Takes what leaves it, or the inlet.
    tail: gst::Pad,
    started: Option<Started>,
}

struct Started {
    chain: Option<Joined>,
}

/// A chain in the pipeline.
struct Joined {
    bin: gst::Bin,
    /// What leaves its src pad, where it has one.
    way_back: Option<WayBack>,
}

enum WayBack {
    Encoding(Encoding),
    Pictures(Pictures),
}

impl WayBack {
    fn pad(&self) -> &gst::Pad {
        match self {
            Self::Encoding(encoding) => encoding.pad(),
            Self::Pictures(pictures) => pictures.pad(),
        }
    }

    fn stop(self) {
        match self {
            Self::Encoding(encoding) => encoding.stop(),
            Self::Pictures(pictures) => pictures.stop(),
        }
    }
}

impl Branch {
    /// Puts a decoder behind the supply, if what follows needs one.
    pub fn new(
        supply: Supply,
        pipeline: &gst::Pipeline,
        terms: BranchTerms,
        stage: Arc<dyn Stage>,
        owner: Weak<dyn BranchOwner>,
    ) -> Result<Self, BranchError> {
        let name = supply.name();
        let media = name.media;
        let BranchTerms {
            chain,
            lossless,
            pictures,
            counters,
            max_buffers,
            pairer,
            acknowledges,
        } = terms;
        let wants_encoded = chain.as_ref().is_some_and(|c| c.encoded().is_some());
        let wants_keyframe = match &supply {
            Supply::Network(inlet) if wants_encoded => Some(inlet.wants_keyframe.clone()),
            _ => None,
        };
        let undecoded = wants_keyframe.is_some();
        let elements = supply.elements(undecoded)?;
        pipeline.add_many(&elements)?;
        let builder = match &chain {
            Some(_) => gst::Pad::builder(gst::PadDirection::Src),
            None => stage.pad_builder(media),
        };
        let side = RawSide {
            mid: name.mid.clone(),
            wants_keyframe,
            chained: chain.is_some(),
            lossless,
            acknowledges,
            stage: stage.clone(),
            owner: owner.clone(),
        };
        let decoded = max_buffers.map_or(DECODED_VIDEO, |most| Bound::Buffers(most.max(1).into()));
        let (bound, when_full) = match media {
            _ if undecoded => (ENCODED, when_encoded_is_full(media)),
            Media::Video => (decoded, WhenFull::DropOldest),
            Media::Audio => (DECODED_AUDIO, WhenFull::DropOldest),
        };
        let raw = Arc::new(Pump::new(builder, bound, when_full, Arc::new(side)));
        let tail = Tail {
            name: name.clone(),
            from_reel: matches!(supply, Supply::Reel(_)),
            raw: raw.clone(),
            lossless,
            pairer,
            stage: stage.clone(),
            owner: owner.clone(),
            counters,
        };
        let tail = tail.pad(media);
        if let Err(error) = connect(&supply, &elements, &tail) {
            if chain.is_none() {
                stage.forget_pad(raw.pad());
            }
            return Err(error);
        }
        let branch = Self {
            name,
            pictures,
            pipeline: pipeline.clone(),
            chain,
            stage,
            owner,
            raw,
            elements,
            tail,
            started: None,
            supply,
        };
        branch.supply.start()?;
        Ok(branch)
    }

    /// Opens towards the user, once the first frame was decoded.
    pub fn start(&mut self, group: gst::GroupId) -> Result<(), BranchError> {
        if self.started.is_some() {
            return Ok(());
        }
        let media = self.name.media;
        let caps = self.tail.current_caps();
        let caps = caps.ok_or_else(|| gst::glib::bool_error!("a decoder that says no caps"))?;
        let stream_start = gst::event::StreamStart::builder(&self.name.id)
            .group_id(group)
            .build();
        let mut pad = None;
        let chain = match &self.chain {
            Some(chain) => Some(self.join_chain(chain, stream_start, &caps)?),
            None => {
                self.raw.open(stream_start, &caps);
                pad = Some(self.stage.add_pad(self.raw.pad()));
                None
            }
        };
        let opened = self.owner.upgrade().is_some_and(|owner| {
            owner.opened(Outlet {
                stream: StreamRecord {
                    stream_id: self.name.id.clone(),
                    media: media.as_str(),
                    codec: self.name.codec,
                },
                media,
                chain: chain.as_ref().map(|chain: &Joined| chain.bin.clone()),
                pad,
                since: Instant::now(),
                passage: self.raw.clone(),
            })
        });
        self.started = Some(Started { chain });
        if !opened {
            return Err(gst::glib::bool_error!("the connection is over").into());
        }
        self.say_stays();
        self.raw.start()?;
        Ok(())
    }

    fn join_chain(
        &self,
        chain: &Chain,
        stream_start: gst::Event,
        caps: &gst::Caps,
    ) -> Result<Joined, BranchError> {
        let bin = chain.make()?;
        self.pipeline.add(&bin)?;
        let way_back = self.send_back(chain, &bin)?;
        let sink = bin.static_pad("sink").expect("a chain has one");
        self.raw
            .pad()
            .link_full(&sink, gst::PadLinkCheck::empty())
            .map_err(|error| gst::glib::bool_error!("the chain does not link: {error}"))?;
        self.raw.open(stream_start, caps);
        bin.sync_state_with_parent()?;
        Ok(Joined { bin, way_back })
    }

    /// Links what encodes what leaves the chain, if anything does.
    fn send_back(&self, chain: &Chain, bin: &gst::Bin) -> Result<Option<WayBack>, BranchError> {
        let returns = chain.returns(self.name.media);
        let Some((media, src)) = returns.zip(bin.static_pad("src")) else {
            return Ok(None);
        };
        let Some(owner) = self.owner.upgrade() else {
            return Ok(None);
        };
        let side = ReturnSide {
            chain: format!("{}.src", bin.name()).into(),
            stage: self.stage.clone(),
            owner: self.owner.clone(),
        };
        let side = Arc::new(side);
        let way_back = match self.pictures && media == Media::Video {
            true => WayBack::Pictures(Pictures::new(&self.pipeline, side)?),
            false => {
                let (lane, audio) = owner.lane(&self.name.mid, media);
                let lane = Arc::new(lane);
                WayBack::Encoding(Encoding::new(media, audio, &self.pipeline, lane, side))
            }
        };
        src.link_full(way_back.pad(), gst::PadLinkCheck::empty())
            .map_err(|error| gst::glib::bool_error!("what leaves the chain: {error}"))?;
        Ok(Some(way_back))
    }

    pub fn has_chain(&self) -> bool {
        self.chain().is_some()
    }

    fn chain(&self) -> Option<&Joined> {
        self.started.as_ref()?.chain.as_ref()
    }

    /// Whose EOS says that the chain is drained: that of its sinks, and what leaves it.
    pub fn ends(&self) -> Vec<gst::glib::GString> {
        let Some(Joined { bin, way_back }) = self.chain() else {
            return Vec::new();
        };
        let has_sinks = bin.element_flags().contains(gst::ElementFlags::SINK);
        let sinks = has_sinks.then(|| bin.name());
        let src = way_back
            .as_ref()
            .map(|_| format!("{}.src", bin.name()).into());
        sinks.into_iter().chain(src).collect()
    }

    /// Drops what is on its way to be sent back, if anything is sent back of this stream.
    pub fn interrupt(&self) {
        if self.chain().is_some_and(|chain| chain.way_back.is_some()) {
            self.raw.restart(AFTER_FLUSH);
        }
    }

    /// EOS goes down the branch; [`Branch::wait_eos`] waits for it.
    pub fn finish(&self) {
        self.supply.close();
        if self.started.is_some() {
            self.raw.finish();
        }
    }

    /// Waits until EOS was pushed, at most `limit`.
    pub fn wait_eos(&self, limit: Duration) -> bool {
        self.started.is_none() || self.raw.wait_finished(limit)
    }

    /// What hangs downstream is unblocked and dropped; what is behind a pad is given EOS once more.
    pub fn flush(&self, then_eos: bool) {
        let Some(started) = &self.started else {
            return;
        };
        self.raw.flush();
        if then_eos && started.chain.is_none() && !self.raw.finish_flushed(AFTER_FLUSH) {
            self.raw.flush();
        }
    }

    /// Takes everything apart, waiting for a push under way.
    pub fn stop(mut self) {
        self.supply.close();
        self.raw.stop();
        self.say_stays();
        match self.started.take() {
            Some(Started { chain: Some(chain) }) => {
                take_out(&self.pipeline, chain.bin.upcast_ref());
                if let Some(way_back) = chain.way_back {
                    way_back.stop();
                }
            }
            Some(_) => self.stage.remove_pad(self.raw.pad()),
            None if self.chain.is_none() => self.stage.forget_pad(self.raw.pad()),
            None => {}
        }
        self.supply.stop();
        let _ = self.tail.set_active(false);
        for element in &self.elements {
            take_out(&self.pipeline, element);
        }
    }

    /// A pad may be linked at any time, so this is asked at the beginning and at the end.
    fn say_stays(&self) {
        if self.started.is_some() && self.raw.pad().is_linked() {
            self.stage.visitor_stays(&self.name.connection);
        }
    }
}

/// Links the supply, the decoder and what takes its frames.
fn connect(supply: &Supply, elements: &[gst::Element], tail: &gst::Pad) -> Result<(), BranchError> {
    tail.set_active(true)?;
    supply.link(elements, tail)?;
    for element in elements.iter().rev() {
        element.sync_state_with_parent()?;
    }
    Ok(())
}

/// Decoders do not say how long a frame lasts, and there are elements that abort where nobody does: as long as the one before.
fn give_duration(buffer: &mut gst::Buffer, last: Option<gst::ClockTime>) {
    if buffer.duration().is_none() {
        let since = last.and_then(|last| buffer.pts()?.checked_sub(last));
        let shortest = gst::ClockTime::from_mseconds(1);
        let duration = since.map_or(FRAME, |since| since.clamp(shortest, gst::ClockTime::SECOND));
        buffer.make_mut().set_duration(duration);
    }
}

/// Puts on a frame what is said of it elsewhere, where that is known in time.
fn pair(pairer: &Pairer, buffer: &mut gst::Buffer) {
    let own = FrameFacts::read(buffer);
    let Some((pts, base)) = own.pts.zip(own.time_base).filter(|_| own.json.is_none()) else {
        return;
    };
    if let Some(said) = pairer.meet(pts as f64 * base.seconds()) {
        // Its time is that of the line it came on.
        let known = FrameFacts {
            frame_id: said.frame_id,
            declared_fps: said.declared_fps,
            measured_fps: said.measured_fps,
            results: said.results,
            json: said.json,
            ..own
        };
        known.write(buffer.make_mut());
    }
}

/// Frames that are played begin when the first one comes, and count from there.
#[derive(Default)]
struct ReelClock {
    /// The first frame's own time, and when that was.
    first: Option<(gst::ClockTime, gst::ClockTime)>,
}

impl ReelClock {
    fn stamp(&mut self, buffer: &mut gst::Buffer, name: &StreamName, now: gst::ClockTime) {
        let own = buffer.pts().unwrap_or_default();
        let (first, began) = *self.first.get_or_insert((own, now));
        let since = own.saturating_sub(first);
        let buffer = buffer.make_mut();
        buffer.set_pts(began + since);
        let facts = FrameFacts {
            connection_id: Some(name.connection.to_string()),
            stream_id: Some(name.id.clone()),
            pts: i64::try_from(since.nseconds()).ok(),
            time_base: TimeBase::of_clock_rate(1_000_000_000),
            ..FrameFacts::default()
        };
        facts.write(buffer);
    }
}

/// What is behind the decoder, if there is one: hands frames over, and waits only where none is to be missed.
struct Tail {
    name: StreamName,
    from_reel: bool,
    raw: Arc<Pump>,
    lossless: bool,
    pairer: Option<Arc<Pairer>>,
    stage: Arc<dyn Stage>,
    owner: Weak<dyn BranchOwner>,
    counters: Counters,
}

impl Tail {
    fn pad(self, media: Media) -> gst::Pad {
        let last_pts = Mutex::new(None);
        let reel_clock = Mutex::new(ReelClock::default());
        let (raw, owner, mid) = (self.raw.clone(), self.owner.clone(), self.name.mid.clone());
        let from_reel = self.from_reel;
        let first = Arc::new(AtomicBool::new(true));
        let none_yet = first.clone();
        gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |pad, _, mut buffer| {
                if self.from_reel {
                    let now = self.stage.running_time().unwrap_or_default();
                    let mut clock = reel_clock.lock().unwrap_or_else(PoisonError::into_inner);
                    clock.stamp(&mut buffer, &self.name, now);
                }
                if media == Media::Video {
                    let mut last = last_pts.lock().unwrap_or_else(PoisonError::into_inner);
                    give_duration(&mut buffer, last.take());
                    *last = buffer.pts();
                }
                if let Some(pairer) = &self.pairer {
                    pair(pairer, &mut buffer);
                }
                let caps = pad.current_caps().ok_or(gst::FlowError::NotNegotiated)?;
                // What waits for room may wait for the first frame to be told of.
                if first.swap(false, Ordering::Relaxed)
                    && let Some(owner) = self.owner.upgrade()
                {
                    owner.first_frame(&self.name.mid);
                }
                self.hand_over(pad, buffer, caps);
                Ok(gst::FlowSuccess::Ok)
            })
            // Events end here: caps stay on the pad, and the branch's own end is decided elsewhere, but for that of what is played.
            .event_function(move |_, _, event| {
                if from_reel && event.type_() == gst::EventType::Eos {
                    raw.finish();
                    if none_yet.load(Ordering::Relaxed)
                        && let Some(owner) = owner.upgrade()
                    {
                        owner.failed(&mid, "there is no video in it".into());
                    }
                }
                true
            })
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Allocation(_) => false,
                gst::QueryViewMut::AcceptCaps(accept) => {
                    accept.set_result(true);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build()
    }

    fn hand_over(&self, pad: &gst::Pad, buffer: gst::Buffer, caps: gst::Caps) {
        self.counters.decoded.inc();
        let pushed = match self.lossless {
            true => self.raw.push_when_room(buffer, caps),
            false => {
                let now = self.stage.running_time().unwrap_or_default();
                let due = buffer.pts().unwrap_or_default() + self.stage.latency();
                let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                self.raw.push(buffer, caps, key, due.into(), now.into())
            }
        };
        match pushed {
            Pushed::Queued => {}
            Pushed::Displaced(frames) => {
                self.counters.dropped.inc_by(frames);
            }
            Pushed::NeedsKey(frames) => {
                self.counters.dropped.inc_by(frames);
                pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().build());
            }
        }
    }
}
