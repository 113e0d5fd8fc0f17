//! Raw or encoded frames in, encoded ones out, in the thread that brings them: the way of a stream to its peers.
//!
//! An encoder is made when there are frames and somebody who takes them, and made anew when what is taken changes. Frames
//! that nobody can take, or that the network has no room for, are dropped before they cost anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::codecs::{Codec, Media};
use super::encoders::{AudioTerms, EncoderElements, can_encode};
use super::inline::{Inline, taking_pad};
use super::planar::{Planar, Unfit};
use crate::logic::frame_facts::FrameFacts;
use crate::logic::return_clock::ReturnClock;

/// A bitrate that differs by less than this share is not worth telling the encoder.
const SAME_BITRATE: f64 = 0.05;
/// What a frame is said to last, always the same: libvpx gives each frame bits for the time since the end of the one before, and
/// two ends that fall together where a frame was skipped leave it none for seconds. It counts that time itself as long as it
/// differs from this by a tenth, and else a slow average: so none of the usual rates.
const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(25);

/// A frame as it goes on the wire.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub codec: Codec,
    pub data: Arc<[u8]>,
    /// Extended to 64 bit.
    pub rtp_time: u64,
    /// When what it shows was there.
    pub wallclock: Instant,
    pub keyframe: bool,
}

/// Who encoded frames are for. Asked from the thread that brings frames; must not block.
pub trait Taker: Send + Sync {
    /// What can be taken now, best first; nothing when nobody is there.
    fn codecs(&self) -> Vec<Codec>;
    /// What comes is encoded already, as that; or it is raw.
    fn comes_as(&self, _codec: Option<Codec>) {}
    /// Whether there is room for another frame.
    fn admits(&self) -> bool;
    /// Bits a second.
    fn bitrate(&self) -> u32;
    /// Whether the next frame is to be a keyframe; said once.
    fn take_keyframe_wish(&self) -> bool;
    /// Least time between two keyframes.
    fn keyframe_interval(&self) -> Duration;
    fn take(&self, frame: Encoded);
}

/// What an encoding tells whoever made it; must not block.
pub trait EncodingOwner: Send + Sync {
    /// Running time now, on the clock of the frames.
    fn running_time(&self) -> Option<gst::ClockTime>;
    /// All that came in has come out.
    fn drained(&self);
    /// Frames are dropped because nobody can take them; said once for each reason.
    fn discarded(&self, why: String);
}

pub struct Encoding {
    pad: gst::Pad,
    inner: Arc<Inner>,
}

struct Inner {
    media: Media,
    audio: AudioTerms,
    /// Where encoders live.
    pipeline: gst::Pipeline,
    taker: Arc<dyn Taker>,
    owner: Arc<dyn EncodingOwner>,
    state: Mutex<State>,
    clock: Mutex<ReturnClock>,
}

#[derive(Default)]
struct State {
    segment: Option<gst::Event>,
    encoder: Option<Encoder>,
    /// What comes, and how it is made planar before the encoder sees it, where that is done here.
    planar: Option<(gst::Caps, Option<Arc<Planar>>)>,
    /// When the last keyframe was asked of the encoder, and whether another one is wanted since.
    keyframe_at: Option<Instant>,
    keyframe_wanted: bool,
    /// What came and what was taken, when it was last said that nobody takes it.
    said: Option<(Option<Codec>, Vec<Codec>)>,
    /// What was said last of a frame that no encoder can be given.
    unfit: Option<String>,
    stopped: bool,
}

struct Encoder {
    codec: Codec,
    /// Made for these.
    input: gst::Caps,
    inline: Inline,
    /// Absent where frames pass untouched.
    control: Option<EncoderElements>,
    bitrate: u32,
}

impl Encoding {
    /// `pipeline` plays, and its bus hears of what fails.
    pub fn new(
        media: Media,
        audio: AudioTerms,
        pipeline: &gst::Pipeline,
        taker: Arc<dyn Taker>,
        owner: Arc<dyn EncodingOwner>,
    ) -> Self {
        let rate = match media {
            Media::Video => Codec::Vp8,
            Media::Audio => Codec::Opus,
        };
        let inner = Arc::new(Inner {
            media,
            audio,
            pipeline: pipeline.clone(),
            taker,
            owner,
            state: Mutex::default(),
            clock: Mutex::new(ReturnClock::new(rate.clock_rate(), media == Media::Audio)),
        });
        let for_frames = inner.clone();
        let for_events = inner.clone();
        let for_queries = inner.clone();
        let pad = gst::Pad::builder(gst::PadDirection::Sink)
            .name(format!("return-{}", media.as_str()))
            .chain_function(move |pad, _, buffer| for_frames.chain(pad, buffer))
            .event_function(move |_, _, event| for_events.event(event))
            .query_function(move |pad, parent, query| for_queries.query(pad, parent, query))
            .build();
        // Fails only for a pad whose element refuses, and this one has none.
        let _ = pad.set_active(true);
        Self { pad, inner }
    }

    /// Takes raw frames in system memory, or encoded ones that fit.
    pub fn pad(&self) -> &gst::Pad {
        &self.pad
    }

    /// Frames are dropped from now on, and the encoder goes. No frame may be under way.
    pub fn stop(&self) {
        let encoder = {
            let mut state = self.inner.lock();
            state.stopped = true;
            state.encoder.take()
        };
        let _ = self.pad.set_active(false);
        if let Some(encoder) = encoder {
            encoder.inline.stop();
        }
    }
}

/// What a pad of that kind takes, raw frames first.
pub fn accepted(media: Media) -> gst::Caps {
    let mut caps = gst::Caps::builder(match media {
        Media::Video => "video/x-raw",
        Media::Audio => "audio/x-raw",
    })
    .build();
    let codecs: &[Codec] = match media {
        Media::Video => &Codec::VIDEO,
        Media::Audio => &[Codec::Opus],
    };
    for codec in codecs {
        let mut encoded = codec.caps();
        for structure in encoded.make_mut().iter_mut() {
            // Streams of one channel are as good.
            structure.remove_fields(["channels", "rate"]);
        }
        caps.merge(encoded);
    }
    caps
}

/// Answers what a pad of that kind takes.
pub fn answer_caps(media: Media, query: &mut gst::query::Caps) {
    let all = accepted(media);
    let found = match query.filter_owned() {
        Some(filter) => filter.intersect_with_mode(&all, gst::CapsIntersectMode::First),
        None => all,
    };
    query.set_result(&found);
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn query(
        &self,
        pad: &gst::Pad,
        parent: Option<&impl IsA<gst::Object>>,
        query: &mut gst::QueryRef,
    ) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(caps) => {
                answer_caps(self.media, caps);
                true
            }
            gst::QueryViewMut::AcceptCaps(accept) => {
                let fits = accept.caps_owned().can_intersect(&accepted(self.media));
                accept.set_result(fits);
                true
            }
            gst::QueryViewMut::Allocation(_) => false,
            _ => gst::Pad::query_default(pad, parent, query),
        }
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(_) => self.lock().segment = Some(event.clone()),
            gst::EventView::Eos(_)
            | gst::EventView::FlushStart(_)
            | gst::EventView::FlushStop(_) => {}
            // Caps stay on the pad until a frame comes; the rest is of no use to an encoder.
            _ => return true,
        }
        let over = event.type_() == gst::EventType::Eos;
        let feed = self.lock().feed();
        if let Some(feed) = feed {
            feed.push_event(event);
        }
        if over {
            self.owner.drained();
        }
        true
    }

    fn chain(
        self: &Arc<Self>,
        pad: &gst::Pad,
        mut buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let caps = pad.current_caps().ok_or(gst::FlowError::NotNegotiated)?;
        self.taker.comes_as(encoded_as(&caps));
        let codecs = self.taker.codecs();
        let Some(codec) = self.choose(&caps, &codecs) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let keyframe_wish = self.taker.take_keyframe_wish();
        if keyframe_wish {
            self.lock().keyframe_wanted = true;
        }
        // What is encoded already cannot be skipped here: others may build on it.
        let raw = is_raw(&caps);
        if raw && !self.taker.admits() {
            return Ok(gst::FlowSuccess::Ok);
        }
        let is_picture = raw && self.media == Media::Video;
        let planar = is_picture.then(|| self.planar(&caps)).flatten();
        let told = planar.as_ref().map_or(&caps, |planar| planar.caps());
        let ready = self.encoder_for(pad, told, codec);
        let (feed, ask) = match ready {
            Ok(Some(ready)) => ready,
            // It was stopped meanwhile.
            Ok(None) => return Err(gst::FlowError::Flushing),
            Err(error) => {
                gst::element_error!(self.pipeline, gst::LibraryError::Init, ("{error}"));
                return Err(gst::FlowError::Error);
            }
        };
        if let Some(tail) = ask {
            let event = gst_video::UpstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            tail.push_event(event);
        }
        if raw && self.media == Media::Video {
            set_duration(&mut buffer);
        }
        let running = self.running_time_of(&buffer);
        if let Some(at) = running {
            // What fills in for a frame shows an earlier one at a later time.
            let filler = buffer.flags().contains(gst::BufferFlags::GAP);
            let facts = match filler {
                true => FrameFacts::default(),
                false => FrameFacts::read(&buffer),
            };
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.note(at.into(), &facts);
        }
        match planar.as_ref().map(|planar| planar.convert(&buffer)) {
            None => feed.push(buffer),
            Some(Ok(converted)) => feed.push(converted),
            Some(Err(Unfit::NoBuffer(flow))) => Err(flow),
            // The next one may be whole.
            Some(Err(why)) => {
                let why = format!("{why}: it is dropped");
                if self.lock().unfit.replace(why.clone()).as_ref() != Some(&why) {
                    self.owner.discarded(why);
                }
                Ok(gst::FlowSuccess::Ok)
            }
        }
    }

    fn planar(&self, caps: &gst::Caps) -> Option<Arc<Planar>> {
        let mut state = self.lock();
        match &state.planar {
            Some((known, planar)) if known == caps => planar.clone(),
            _ => {
                let planar = Planar::new(caps).map(Arc::new);
                state.planar = Some((caps.clone(), planar.clone()));
                planar
            }
        }
    }

    /// How the frames are to be encoded; `None` says why they are discarded.
    fn choose(&self, caps: &gst::Caps, codecs: &[Codec]) -> Option<Codec> {
        let found = match encoded_as(caps) {
            Some(codec) => Some(codec).filter(|codec| codecs.contains(codec)),
            None => {
                let chosen = self.lock().encoder.as_ref().map(|encoder| encoder.codec);
                chosen
                    .filter(|codec| codecs.contains(codec))
                    .or_else(|| codecs.iter().copied().find(|codec| can_encode(*codec)))
            }
        };
        if found.is_some() {
            return found;
        }
        let said = (encoded_as(caps), codecs.to_vec());
        if self.lock().said.as_ref() != Some(&said) {
            let names: Vec<_> = codecs.iter().map(|codec| codec.as_str()).collect();
            let why = match (encoded_as(caps), names.as_slice()) {
                (_, []) => format!("the visitor receives no {}", self.media.as_str()),
                (Some(codec), names) => format!(
                    "the visitor takes no {}, only {}",
                    codec.as_str(),
                    names.join(", ")
                ),
                (None, names) => format!("no encoder for {} is installed", names.join(", ")),
            };
            self.lock().said = Some(said);
            self.owner.discarded(why);
        }
        None
    }

    /// The pad that frames go into, and the one to ask for a keyframe on, if that is due. Makes an encoder where there is none
    /// that fits.
    #[allow(clippy::type_complexity)]
    fn encoder_for(
        self: &Arc<Self>,
        pad: &gst::Pad,
        caps: &gst::Caps,
        codec: Codec,
    ) -> Result<Option<(gst::Pad, Option<gst::Pad>)>, gst::glib::BoolError> {
        let old = {
            let mut state = self.lock();
            if state.stopped {
                return Ok(None);
            }
            let fits = state
                .encoder
                .as_ref()
                .is_some_and(|e| e.codec == codec && is_raw(&e.input) == is_raw(caps));
            if fits { None } else { state.encoder.take() }
        };
        if let Some(old) = old {
            old.inline.stop();
        }
        if self.lock().encoder.is_none() {
            let encoder = self.make_encoder(pad, caps, codec)?;
            let mut state = self.lock();
            if state.stopped {
                drop(state);
                encoder.inline.stop();
                return Ok(None);
            }
            // Its first frame is one.
            state.keyframe_wanted = false;
            state.keyframe_at = Some(Instant::now());
            state.encoder = Some(encoder);
        }
        let bits = self.taker.bitrate();
        let mut state = self.lock();
        let now = Instant::now();
        let due = state.keyframe_wanted
            && state
                .keyframe_at
                .is_none_or(|at| now >= at + self.taker.keyframe_interval());
        if due {
            state.keyframe_wanted = false;
            state.keyframe_at = Some(now);
        }
        let Some(encoder) = &mut state.encoder else {
            return Ok(None);
        };
        if let Some(control) = &encoder.control {
            let change = (f64::from(bits) / f64::from(encoder.bitrate.max(1)) - 1.0).abs();
            if change > SAME_BITRATE {
                encoder.bitrate = bits;
                control.set_bitrate(bits);
            }
        }
        let new_caps = (encoder.input != *caps).then(|| encoder.told(caps));
        encoder.input = caps.clone();
        let (feed, tail) = (encoder.inline.feed.clone(), encoder.inline.tail.clone());
        drop(state);
        if let Some(caps) = new_caps {
            feed.push_event(gst::event::Caps::new(&caps));
        }
        Ok(Some((feed, due.then_some(tail))))
    }

    fn make_encoder(
        self: &Arc<Self>,
        pad: &gst::Pad,
        caps: &gst::Caps,
        codec: Codec,
    ) -> Result<Encoder, gst::glib::BoolError> {
        let bits = self.taker.bitrate();
        let failed = |error: &dyn std::fmt::Display| gst::glib::bool_error!("{error}");
        let (elements, control) = match (is_raw(caps), codec) {
            (true, _) => {
                let control =
                    EncoderElements::new(codec, bits, self.audio).map_err(|e| failed(&e))?;
                (control.elements.clone(), Some(control))
            }
            // Whatever its form, frames of it leave as the wire wants them.
            (false, Codec::H264) => {
                let parser = gst::ElementFactory::make("h264parse")
                    .property("config-interval", -1)
                    .build()?;
                let filter = gst::ElementFactory::make("capsfilter")
                    .property("caps", codec.caps())
                    .build()?;
                (vec![parser, filter], None)
            }
            (false, _) => (Vec::new(), None),
        };
        // Upstream of an encoder nobody wants its events; where frames pass untouched, keyframes come from there.
        let upstream = pad.downgrade();
        let feed = gst::Pad::builder(gst::PadDirection::Src)
            .event_function(move |_, _, event| {
                if gst_video::UpstreamForceKeyUnitEvent::parse(&event).is_ok()
                    && let Some(pad) = upstream.upgrade()
                {
                    pad.push_event(event);
                }
                true
            })
            .build();
        let inner = Arc::downgrade(self);
        let whole = control.as_ref().and_then(EncoderElements::piece);
        let tail = taking_pad(move |_, buffer| {
            if let Some(inner) = inner.upgrade() {
                inner.deliver(codec, &buffer, whole);
            }
            Ok(gst::FlowSuccess::Ok)
        });
        let encoder = Encoder {
            codec,
            input: caps.clone(),
            inline: Inline::new(&self.pipeline, feed, tail, elements),
            control,
            bitrate: bits,
        };
        let segment = self.lock().segment.clone();
        if let Err(error) = encoder.inline.start(&encoder.told(caps), segment) {
            encoder.inline.stop();
            return Err(failed(&error));
        }
        Ok(encoder)
    }

    /// `whole` is what a piece lasts if it is not what its buffer says: an encoder takes off the first what it added for itself.
    fn deliver(&self, codec: Codec, buffer: &gst::BufferRef, whole: Option<Duration>) {
        let Ok(map) = buffer.map_readable() else {
            return;
        };
        // What an encoder says of silence it does not want sent.
        if map.is_empty() || (self.audio.dtx && codec == Codec::Opus && map.len() <= 2) {
            return;
        }
        let Some(at) = self.running_time_of(buffer) else {
            return;
        };
        let rtp_time = {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.stamp(at.into(), whole.or(buffer.duration().map(Duration::from)))
        };
        let now = self.owner.running_time().unwrap_or(at);
        let age = Duration::from(now.saturating_sub(at));
        let keyframe = codec.is_audio() || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        self.taker.take(Encoded {
            codec,
            data: map.as_slice().into(),
            rtp_time,
            wallclock: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            keyframe,
        });
    }

    fn running_time_of(&self, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
        let pts = buffer.pts()?;
        let state = self.lock();
        let running = state.segment.as_ref().and_then(|event| match event.view() {
            gst::EventView::Segment(segment) => segment
                .segment()
                .downcast_ref::<gst::ClockTime>()?
                .to_running_time(pts),
            _ => None,
        });
        running.or(Some(pts))
    }
}

/// Encoders want to be told how long a frame lasts; what the frame says itself is a guess.
fn set_duration(buffer: &mut gst::Buffer) {
    buffer.make_mut().set_duration(FRAME);
}

impl State {
    fn feed(&self) -> Option<gst::Pad> {
        self.encoder
            .as_ref()
            .map(|encoder| encoder.inline.feed.clone())
    }
}

impl Encoder {
    /// The caps as the encoder is told them.
    fn told(&self, caps: &gst::Caps) -> gst::Caps {
        let mut told = caps.clone();
        let wants_rate = self.control.as_ref().is_some_and(|c| c.wants_rate());
        let structure = told.structure(0);
        let rate = structure.and_then(|s| s.get::<gst::Fraction>("framerate").ok());
        if wants_rate && rate.is_none_or(|rate| rate.numer() <= 0) {
            told.make_mut().set("framerate", gst::Fraction::new(30, 1));
        }
        told
    }
}

pub fn is_raw(caps: &gst::Caps) -> bool {
    let name = caps.structure(0).map(|structure| structure.name());
    name.is_some_and(|name| name.ends_with("/x-raw"))
}

/// The codec of encoded frames; `None` for raw ones.
fn encoded_as(caps: &gst::Caps) -> Option<Codec> {
    let name = caps.structure(0)?.name();
    [Codec::Vp8, Codec::H264, Codec::Opus]
        .into_iter()
        .find(|codec| codec.caps().structure(0).is_some_and(|s| s.name() == name))
}
