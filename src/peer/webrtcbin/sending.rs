//! What enters a webrtcbin by its own pads, to be sent: held back until somebody is there, then called what they call it.
//!
//! Whoever writes a launch line cannot know which payload type a visitor gives a codec, and a webrtcbin neither
//! answers for another one nor sends it. So it is not told the line's own, and packets are marked with the visitor's.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use gst::prelude::*;
use gst_rtp::RTPBuffer;
use gst_webrtc::WebRTCRTPTransceiver;

use super::lines::media_of;
use crate::logic::media::Media;
use crate::logic::wire::sdp_gate::{GatedLine, Offered, TRANSPORT_CC};

/// Instead of a payload type: nobody is there; and: things pass as they are, to be offered.
const CLOSED: u8 = u8::MAX;
const AS_IT_IS: u8 = 254;

/// One pad of a webrtcbin that something is linked to.
pub struct Source {
    /// The webrtcbin's.
    sink: gst::Pad,
    /// What is linked to it.
    src: gst::Pad,
    payload_type: AtomicU8,
    /// What it is to be.
    agreed: AtomicU8,
    /// Whether the webrtcbin has been told what goes before the packets, with that payload type.
    told: AtomicBool,
    ended: AtomicBool,
    on_end: Box<dyn Fn() + Send + Sync>,
}

impl Source {
    /// Watches what comes, and holds it back where it is not for an offer. `on_end` is called when no more comes.
    pub fn guard(
        sink: &gst::Pad,
        offers: bool,
        on_end: Box<dyn Fn() + Send + Sync>,
    ) -> Option<Arc<Self>> {
        let source = Arc::new(Self {
            sink: sink.clone(),
            src: sink.peer()?,
            on_end,
            payload_type: AtomicU8::new(if offers { AS_IT_IS } else { CLOSED }),
            agreed: AtomicU8::new(CLOSED),
            told: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM
            | gst::PadProbeType::QUERY_UPSTREAM;
        let me = Arc::downgrade(&source);
        source
            .src
            .add_probe(mask, move |pad, info| match me.upgrade() {
                Some(source) => source.pass(pad, info),
                None => gst::PadProbeReturn::Remove,
            });
        let me = Arc::downgrade(&source);
        let asked = gst::PadProbeType::QUERY_DOWNSTREAM;
        sink.add_probe(asked, move |_, info| match (me.upgrade(), &mut info.data) {
            (None, _) => gst::PadProbeReturn::Remove,
            (Some(source), Some(gst::PadProbeData::Query(query))) if !source.is_as_it_is() => {
                without_payload_type(&source.src, query)
            }
            _ => gst::PadProbeReturn::Ok,
        });
        Some(source)
    }

    fn is_as_it_is(&self) -> bool {
        self.payload_type.load(Ordering::Acquire) == AS_IT_IS
    }

    pub fn is_of(&self, sink: &gst::Pad) -> bool {
        self.sink == *sink && sink.peer().as_ref() == Some(&self.src)
    }

    pub fn media(&self) -> Option<Media> {
        media_of(&self.src)
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Takes the line of its codec, of those that are left, for its transceiver: as the webrtcbin itself does.
    pub fn take(&self, lines: &mut Vec<GatedLine>) -> Option<()> {
        let (media, name) = (self.media()?, encoding_of(&self.src)?);
        let transceiver: Option<WebRTCRTPTransceiver> = self.sink.property("transceiver");
        let of_kind = |line: &GatedLine| {
            line.kind == media.as_str() && line.codecs.iter().any(|codec| codec.name == name)
        };
        let line = lines.remove(lines.iter().position(of_kind)?);
        let codec: &Offered = line.codecs.iter().find(|codec| codec.name == name)?;
        let transceiver = transceiver?;
        transceiver.set_property("do-nack", media == Media::Video);
        transceiver.set_property("codec-preferences", line.caps(codec));
        self.agreed.store(codec.payload_type, Ordering::Relaxed);
        Some(())
    }

    /// Somebody is there: with the payload type that was agreed on.
    pub fn open(&self) {
        self.told.store(false, Ordering::Relaxed);
        let agreed = self.agreed.load(Ordering::Relaxed);
        self.payload_type.store(agreed, Ordering::Release);
        // What was dropped is of no use to somebody new.
        let keyframe = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true);
        self.src.send_event(keyframe.build());
    }

    /// Nobody is there any more.
    pub fn close(&self) {
        let closed = |payload_type| (payload_type != AS_IT_IS).then_some(CLOSED);
        let _ = self
            .payload_type
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, closed);
    }

    fn pass(&self, pad: &gst::Pad, info: &mut gst::PadProbeInfo) -> gst::PadProbeReturn {
        let payload_type = self.payload_type.load(Ordering::Acquire);
        let Some(data) = &mut info.data else {
            return gst::PadProbeReturn::Ok;
        };
        if let gst::PadProbeData::Event(event) = data
            && event.type_() == gst::EventType::Eos
        {
            self.ended.store(true, Ordering::Relaxed);
            (self.on_end)();
        }
        match data {
            _ if payload_type == AS_IT_IS => {}
            gst::PadProbeData::Query(query) => return without_payload_type(pad, query),
            // The pad keeps them. Of an event that is dropped, 1.22 drops a reference too many.
            gst::PadProbeData::Event(event)
                if event.is_sticky() && !self.told.load(Ordering::Relaxed) =>
            {
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeData::Event(event) => *event = with_payload_type(event, payload_type),
            _ if payload_type == CLOSED => return gst::PadProbeReturn::Drop,
            data => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    pad.sticky_events_foreach(|event| {
                        self.sink.send_event(with_payload_type(event, payload_type));
                        ControlFlow::Continue(gst::EventForeachAction::Keep)
                    });
                }
                mark(data, payload_type);
            }
        }
        gst::PadProbeReturn::Ok
    }
}

impl GatedLine {
    /// What is asked of a peer that offers a codec on it.
    pub(super) fn caps(&self, codec: &Offered) -> gst::Caps {
        let mut caps = gst::Structure::builder("application/x-rtp")
            .field("media", &self.kind)
            .field("encoding-name", &codec.name)
            .field("clock-rate", codec.clock_rate as i32)
            .field("payload", i32::from(codec.payload_type))
            .build();
        for feedback in ["nack", "nack pli", "ccm fir", "transport-cc"] {
            if codec.feedback.iter().any(|said| said == feedback) {
                caps.set(format!("rtcp-fb-{}", feedback.replace(' ', "-")), true);
            }
        }
        if let Some(id) = self.transport_cc {
            caps.set(format!("extmap-{id}"), TRANSPORT_CC);
        }
        gst::Caps::from(caps)
    }
}

/// The event itself, or the caps that say so.
fn with_payload_type(event: &gst::Event, payload_type: u8) -> gst::Event {
    let gst::EventView::Caps(caps) = event.view() else {
        return event.clone();
    };
    let mut caps = caps.caps_owned();
    caps.make_mut().set("payload", i32::from(payload_type));
    gst::event::Caps::new(&caps)
}

/// Answers for both sides as if no payload type had been chosen: neither learns of the other's.
fn without_payload_type(pad: &gst::Pad, query: &mut gst::QueryRef) -> gst::PadProbeReturn {
    let Some(caps) = pad.current_caps().and_then(|caps| coding(&caps)) else {
        return gst::PadProbeReturn::Ok;
    };
    match query.view_mut() {
        gst::QueryViewMut::Caps(query) => {
            let caps = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
                None => caps,
            };
            query.set_result(&caps);
        }
        gst::QueryViewMut::AcceptCaps(query) => {
            let accepts = query.caps().can_intersect(&caps);
            query.set_result(accepts);
        }
        _ => return gst::PadProbeReturn::Ok,
    }
    gst::PadProbeReturn::Handled
}

/// What is coded how, and nothing else.
fn coding(caps: &gst::Caps) -> Option<gst::Caps> {
    let caps = caps.structure(0)?;
    let coding = gst::Caps::builder("application/x-rtp")
        .field("media", caps.get::<String>("media").ok()?)
        .field("encoding-name", caps.get::<String>("encoding-name").ok()?)
        .field("clock-rate", caps.get::<i32>("clock-rate").ok()?);
    Some(coding.build())
}

fn encoding_of(pad: &gst::Pad) -> Option<String> {
    encoding_in(&pad.current_caps().unwrap_or_else(|| pad.query_caps(None)))
}

fn encoding_in(caps: &gst::Caps) -> Option<String> {
    let name: String = caps.structure(0)?.get("encoding-name").ok()?;
    Some(name.to_ascii_uppercase())
}

fn mark(data: &mut gst::PadProbeData, payload_type: u8) {
    // What is no RTP packet is none of ours.
    let mark = |buffer: &mut gst::BufferRef| {
        if let Ok(mut packet) = RTPBuffer::from_buffer_writable(buffer) {
            packet.set_payload_type(payload_type);
        }
    };
    match data {
        gst::PadProbeData::Buffer(buffer) => mark(buffer.make_mut()),
        gst::PadProbeData::BufferList(list) => {
            list.make_mut().foreach_mut(|mut buffer, _| {
                mark(buffer.make_mut());
                ControlFlow::Continue(Some(buffer))
            });
        }
        _ => {}
    }
}
