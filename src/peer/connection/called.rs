//! With a server that we have called: what it says of frames is told to the application and put on the frames that come
//! back, and it goes on when they have been delivered.

use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use str0m::media::Mid;

use super::{Connection, lock};
use crate::logic::connection::EndReason;
use crate::logic::frame_facts::{FrameFacts, TimeBase};
use crate::logic::pairing::{Out, Paired, Pairing};
use crate::logic::rate_limit::RateLimit;
use crate::logic::wire::roboflow_client::{CHANNEL, Frame, Metadata, Said};
use crate::peer::CAT;
use crate::peer::agreement::Called;
use crate::peer::call::EncodedFrame;
use crate::peer::codecs::Codec;
use crate::peer::inlet::Inlet;
use crate::peer::outbox::Waits;

/// How long a frame waits for what is said of it, which servers send first.
const PAIRING: Duration = Duration::from_millis(200);
/// Frames in a row without a word about them, after which none waits any more until one is paired again.
const IN_VAIN: u32 = 3;
/// A frame of which something was said and that has not come after this is lost.
const LOST: Duration = Duration::from_millis(300);
/// Nothing has come for that long: what was sent before the end is here.
const QUIET: Duration = Duration::from_millis(200);
/// How long the rest of a session is waited for while nothing of it moves.
const REST: Duration = Duration::from_secs(2);
const REST_LOSSLESS: Duration = Duration::from_secs(30);
/// Frames that a server may be ahead of what was delivered; it counts them one by one.
const MOST_AHEAD: u64 = 1000;
/// Results a second; a server that says more than that of frames says nothing of use.
const RESULTS_PER_SECOND: u32 = 2000;
const LOOK: Duration = Duration::from_millis(20);

/// What the session keeps of it.
pub(super) struct CalledSide {
    terms: Called,
    pub pairer: Arc<Pairer>,
    /// Where pictures enter that come on a data channel.
    pictures: Mutex<Option<Arc<Inlet>>>,
    inlets: Mutex<Vec<Weak<Inlet>>>,
    news: Mutex<News>,
    /// Why the server says that it has ended.
    pub termination: OnceLock<Option<String>>,
    results: Mutex<RateLimit>,
}

struct News {
    /// When something came last that is media or a message.
    heard: Instant,
    /// The last frame that something was said of, and the last one that was acknowledged.
    said: u64,
    acknowledged: u64,
}

impl CalledSide {
    pub fn new(terms: Called, now: Instant) -> Self {
        Self {
            terms,
            pairer: Arc::default(),
            pictures: Mutex::default(),
            inlets: Mutex::default(),
            news: Mutex::new(News {
                heard: now,
                said: 0,
                acknowledged: 0,
            }),
            termination: OnceLock::new(),
            results: Mutex::new(RateLimit::new(RESULTS_PER_SECOND, now)),
        }
    }

    pub fn opened(&self, inlet: &Arc<Inlet>) {
        lock(&self.inlets).push(Arc::downgrade(inlet));
    }

    fn is_idle(&self) -> bool {
        let inlets = lock(&self.inlets);
        inlets
            .iter()
            .filter_map(Weak::upgrade)
            .all(|inlet| inlet.pump.is_idle())
    }

    fn has_inlets(&self) -> bool {
        !lock(&self.inlets).is_empty()
    }
}

impl Connection {
    /// Something came from the peer.
    pub fn on_heard(&self, now: Instant) {
        if let Some(called) = &self.called {
            lock(&called.news).heard = now;
        }
    }

    /// When something came last from the server that was called.
    pub fn heard_at(&self) -> Option<Instant> {
        self.called.as_ref().map(|called| lock(&called.news).heard)
    }

    /// What the server says of why it has ended.
    pub fn termination(&self) -> Option<&str> {
        self.called.as_ref()?.termination.get()?.as_deref()
    }

    /// A server that has said that it has ended, and then goes, has ended as it said.
    pub(super) fn as_announced(
        &self,
        reason: EndReason,
        detail: Option<String>,
    ) -> (EndReason, Option<String>) {
        let termination = self
            .called
            .as_ref()
            .and_then(|called| called.termination.get());
        match (termination, reason) {
            (Some(why), EndReason::ServerClosed | EndReason::PeerLost) => announced(why.as_deref()),
            _ => (reason, detail),
        }
    }

    /// How long frames are waited for that are here, where none is to be lost.
    pub(super) fn drain_of(&self, reason: EndReason) -> Option<Duration> {
        let ends_well = matches!(reason, EndReason::SourceEnded | EndReason::TimeLimit);
        (self.called.is_some() && self.agreement.lossless && ends_well).then_some(REST_LOSSLESS)
    }

    pub(super) fn on_said(&self, said: Said, now: Instant) {
        let Some(called) = &self.called else { return };
        let cost = match &said {
            Said::Frame(frame) => 1 + frame.errors.len(),
            Said::Broken(_) => 1,
            Said::Over { .. } | Said::Ignored => 0,
        };
        if !self.may_be_told_of(called, cost, now) {
            return;
        }
        match said {
            Said::Frame(frame) => self.on_frame_said(called, *frame, now),
            Said::Over {
                termination_reason,
                errors,
            } => {
                if called.termination.set(termination_reason).is_ok() {
                    self.warn_of(&errors, None);
                    self.end_when_quiet();
                }
            }
            Said::Broken(what) => {
                self.complain(&format!("what the server says is skipped: {what}"))
            }
            Said::Ignored => {}
        }
    }

    /// Whether what the server says is little enough to be told.
    fn may_be_told_of(&self, called: &CalledSide, cost: usize, now: Instant) -> bool {
        let first = {
            let mut rate = lock(&called.results);
            if rate.allows(now, cost) {
                return true;
            }
            rate.dropped == 1
        };
        if first {
            self.complain("the server says more than can be told; the rest is dropped");
        }
        false
    }

    fn on_frame_said(&self, called: &CalledSide, frame: Frame, now: Instant) {
        let Frame {
            id: named,
            metadata,
            json,
            errors,
            detections,
            pictures,
            ..
        } = frame;
        let id = metadata.frame_id;
        self.warn_of(&errors, named);
        if let Some(id) = id {
            let mut news = lock(&called.news);
            if id <= news.acknowledged + MOST_AHEAD {
                news.said = news.said.max(id);
            }
        }
        if metadata.frame_id.is_some() {
            let failed = !errors.is_empty() && detections.is_none();
            self.stage.server_said(metadata.seconds(), failed);
        }
        let said = gst::Structure::builder("inference-result")
            .field("connection-id", self.id.as_str())
            .field("stream-id", format!("{}/{CHANNEL}", self.id))
            .field_if_some("frame-id", named)
            .field("json", &json)
            .build();
        self.stage.post(said);
        let facts = FrameFacts {
            frame_id: id,
            pts: metadata.pts,
            time_base: metadata.time_base.and_then(time_base),
            declared_fps: metadata.declared_fps,
            measured_fps: metadata.measured_fps,
            results: detections,
            json: Some(json),
            ..FrameFacts::default()
        };
        if let Some(picture) = pictures.into_iter().next() {
            self.on_picture_came(called, picture.jpeg, &metadata, facts, now);
        } else if called.terms.pairs {
            called.pairer.said(metadata.seconds(), facts, now);
        } else if let Some(id) = id {
            self.deliver(id);
        }
    }

    /// A picture that came on a data channel is a frame of a stream without an m-line.
    fn on_picture_came(
        &self,
        called: &CalledSide,
        jpeg: Vec<u8>,
        metadata: &Metadata,
        facts: FrameFacts,
        now: Instant,
    ) {
        let ticks =
            metadata.seconds().unwrap_or_default().max(0.0) * f64::from(Codec::Jpeg.clock_rate());
        let frame = EncodedFrame {
            mid: Mid::from(CHANNEL),
            codec: Codec::Jpeg,
            data: jpeg.into(),
            rtp_time: ticks as u64,
            ssrc: 0,
            arrival: now,
            keyframe: true,
        };
        let inlet = {
            let mut inlet = lock(&called.pictures);
            inlet.get_or_insert_with(|| self.open_inlet(&frame)).clone()
        };
        inlet.push_known(frame, facts, now);
    }

    fn warn_of(&self, errors: &[String], frame: Option<u64>) {
        for error in errors {
            let of = frame.map_or_else(|| "the session".into(), |id| format!("frame {id}"));
            self.stage
                .warn(&format!("the server says of {of}: {error}"));
        }
    }

    /// The frame of that id, and what was said of it, are where they were to go.
    pub(super) fn deliver(&self, id: u64) {
        let Some(called) = self
            .called
            .as_ref()
            .filter(|called| called.terms.acknowledges)
        else {
            return;
        };
        {
            let mut news = lock(&called.news);
            let known = news.acknowledged + 1..=news.acknowledged + MOST_AHEAD;
            if !known.contains(&id) {
                return;
            }
            news.acknowledged = id;
        }
        let (said, channel) = {
            let mut dialect = lock(&self.agreement.dialect);
            (dialect.delivered(id), dialect.channel())
        };
        self.say(said.into_iter().collect(), channel, Waits::ForRoom);
    }

    /// A frame of which nothing was said is where it was to go: it counts all the same.
    pub(super) fn deliver_next(&self) {
        if let Some(called) = &self.called {
            let next = lock(&called.news).acknowledged + 1;
            self.deliver(next);
        }
    }

    /// A server that waits for a frame to be delivered would wait for ever for one that was lost.
    pub fn give_up_lost(&self, now: Instant) {
        let Some(called) = self
            .called
            .as_ref()
            .filter(|called| called.terms.acknowledges)
        else {
            return;
        };
        let lost = {
            let news = lock(&called.news);
            let waits =
                news.said > news.acknowledged && now.saturating_duration_since(news.heard) >= LOST;
            waits.then_some(news.said)
        };
        if let Some(id) = lost
            && self.is_idle(called)
        {
            gst::debug!(CAT, "{}: frame {id} has not come", self.id);
            self.deliver(id);
        }
    }

    /// Whether nothing of what came is on its way to whoever takes it.
    fn is_idle(&self, called: &CalledSide) -> bool {
        let outlets = lock(&self.outlets);
        let mut outlets = outlets.iter().flatten().peekable();
        let opened = outlets.peek().is_some() || !called.has_inlets();
        opened && called.is_idle() && outlets.all(|outlet| outlet.passage.is_idle())
    }

    fn moved(&self) -> u64 {
        let outlets = lock(&self.outlets);
        let counts = outlets
            .iter()
            .flatten()
            .map(|outlet| outlet.passage.counts());
        counts.map(|(pushed, dropped)| pushed + dropped).sum()
    }

    /// The server has nothing more: the session ends when what it sent has arrived and was taken.
    fn end_when_quiet(&self) {
        let Some(me) = self.me.upgrade() else { return };
        crate::runtime::runtime().spawn(async move {
            let limit = match me.agreement.lossless {
                true => REST_LOSSLESS,
                false => REST,
            };
            let mut moved = (me.moved(), Instant::now());
            while me.end.get().is_none() {
                let now = Instant::now();
                let Some(called) = &me.called else { break };
                let quiet = now.saturating_duration_since(lock(&called.news).heard) >= QUIET;
                if quiet && me.is_idle(called) {
                    break;
                }
                let count = me.moved();
                if count != moved.0 {
                    moved = (count, now);
                } else if now.saturating_duration_since(moved.1) >= limit {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            let (reason, detail) = announced(me.termination());
            me.end(reason, detail);
        });
    }
}

/// What it means that a server has ended for that reason.
fn announced(why: Option<&str>) -> (EndReason, Option<String>) {
    let reason = match why {
        Some("timeout_reached") => EndReason::TimeLimit,
        _ => EndReason::SourceEnded,
    };
    let detail = match why {
        Some(why) => format!("the server says: {why}"),
        None => "the server has processed everything".into(),
    };
    (reason, Some(detail))
}

/// Seconds of one tick as the fraction that they are.
fn time_base(seconds: f64) -> Option<TimeBase> {
    let den = (1.0 / seconds).round();
    let fits = (1.0..=f64::from(i32::MAX)).contains(&den) && (den * seconds - 1.0).abs() < 1e-6;
    fits.then_some(TimeBase {
        num: 1,
        den: den as i32,
    })
}

/// Gives frames of a line what the server says of them on its channel.
pub struct Pairer {
    state: Mutex<Waiting>,
    said: Condvar,
}

struct Waiting {
    pairing: Pairing<(), FrameFacts>,
    /// Frames in a row of which nothing was said in time.
    in_vain: u32,
}

impl Default for Pairer {
    fn default() -> Self {
        Self {
            state: Mutex::new(Waiting {
                pairing: Pairing::new(1, PAIRING),
                in_vain: 0,
            }),
            said: Condvar::new(),
        }
    }
}

impl Pairer {
    fn said(&self, seconds: Option<f64>, facts: FrameFacts, now: Instant) {
        {
            let mut state = lock(&self.state);
            state.pairing.metadata(seconds, facts, now);
            state.pairing.forget_unpaired();
        }
        self.said.notify_all();
    }

    /// What is said of the frame of that time; waits for it, not long. Called by one thread, frame by frame.
    pub fn meet(&self, seconds: f64) -> Option<FrameFacts> {
        let mut state = lock(&self.state);
        let mut now = Instant::now();
        state.pairing.frame(Some(seconds), (), now);
        loop {
            while let Some(out) = state.pairing.poll(now) {
                if let Out::Frame(Paired { metadata, .. }) = out {
                    match &metadata {
                        Some(_) => state.in_vain = 0,
                        None => state.in_vain = state.in_vain.saturating_add(1),
                    }
                    return metadata;
                }
            }
            if state.in_vain >= IN_VAIN {
                now += PAIRING;
                continue;
            }
            let rest = match state.pairing.deadline() {
                Some(deadline) => deadline.saturating_duration_since(now),
                // It waits for nothing and is not there: it never was.
                None => return None,
            };
            let waited = self
                .said
                .wait_timeout(state, rest.max(Duration::from_millis(1)));
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            now = Instant::now();
        }
    }
}
