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

use super::coding::{self, Coding};
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
        Some(Coding::of(&self.src)?.media)
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Takes the line of its codec, of those that are left, for its transceiver: as the webrtcbin itself does. Says
    /// whether there was one.
    pub fn take(&self, lines: &mut Vec<GatedLine>) -> bool {
        let transceiver: Option<WebRTCRTPTransceiver> = self.sink.property("transceiver");
        let Some((transceiver, coding)) = transceiver.zip(Coding::of(&self.src)) else {
            return false;
        };
        let of_it = |line: &GatedLine| {
            let mut codecs = line.codecs.iter();
            let codec = codecs.find(|codec| codec.name == coding.name)?;
            (line.kind == coding.media.as_str()).then(|| codec.clone())
        };
        let mut found = lines.iter().enumerate();
        let Some((at, codec)) = found.find_map(|(at, line)| Some((at, of_it(line)?))) else {
            return false;
        };
        let line = lines.remove(at);
        transceiver.set_property("do-nack", coding.media == Media::Video);
        transceiver.set_property("codec-preferences", line.caps(&codec));
        self.agreed.store(codec.payload_type, Ordering::Relaxed);
        true
    }

    /// Somebody is there: with the payload type that was agreed on.
    pub fn open(&self) {
        if self.has_ended() {
            // Then there was nobody whose visit it could end.
            return (self.on_end)();
        }
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
        self.told.store(false, Ordering::Relaxed);
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
    let Some(caps) = Coding::now(pad).map(|coding| coding.caps()) else {
        return gst::PadProbeReturn::Ok;
    };
    match query.view_mut() {
        gst::QueryViewMut::Caps(query) => coding::answer(query, caps),
        gst::QueryViewMut::AcceptCaps(query) => {
            let accepts = query.caps().can_intersect(&caps);
            query.set_result(accepts);
        }
        _ => return gst::PadProbeReturn::Ok,
    }
    gst::PadProbeReturn::Handled
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const AGREED: u8 = 111;

    /// A pad that sends, what guards it, what came out of it as payload types of caps, and how often it has ended.
    fn guarded() -> (gst::Pad, Arc<Source>, Receiver<i32>, Arc<AtomicU32>) {
        gst::init().unwrap();
        let (came, payload_types) = channel();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
            .event_function(move |_, _, event| {
                if let gst::EventView::Caps(caps) = event.view() {
                    let caps = caps.caps().structure(0).unwrap();
                    // Nobody listens any more where the test is over.
                    let _ = came.send(caps.get("payload").unwrap());
                }
                true
            })
            .build();
        let src = gst::Pad::new(gst::PadDirection::Src);
        src.link(&sink).unwrap();
        for pad in [&src, &sink] {
            pad.set_active(true).unwrap();
        }
        let ends = Arc::new(AtomicU32::new(0));
        let counted = ends.clone();
        let on_end = Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let source = Source::guard(&sink, false, on_end).unwrap();
        source.agreed.store(AGREED, Ordering::Relaxed);
        src.push_event(gst::event::StreamStart::new("stream"));
        (src, source, payload_types, ends)
    }

    fn say_caps(src: &gst::Pad, clock_rate: i32) {
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("encoding-name", "VP8")
            .field("clock-rate", clock_rate)
            .field("payload", 96)
            .build();
        src.push_event(gst::event::Caps::new(&caps));
    }

    fn push(src: &gst::Pad) {
        src.push(gst::Buffer::new()).unwrap();
    }

    #[test]
    fn what_goes_before_packets_waits_for_somebody_each_time() {
        let (src, source, payload_types, _) = guarded();
        say_caps(&src, 90_000);
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        src.push_event(gst::event::Segment::new(&segment));
        push(&src);
        source.open();
        push(&src);
        assert_eq!(
            payload_types.try_iter().collect::<Vec<_>>(),
            [i32::from(AGREED)]
        );
        source.close();
        say_caps(&src, 48_000);
        push(&src);
        assert_eq!(payload_types.try_iter().count(), 0);
        source.open();
        push(&src);
        assert_eq!(
            payload_types.try_iter().collect::<Vec<_>>(),
            [i32::from(AGREED)]
        );
    }

    #[test]
    fn whoever_comes_after_the_end_is_told_of_it() {
        let (src, source, _, ends) = guarded();
        src.push_event(gst::event::Eos::new());
        assert_eq!(ends.load(Ordering::Relaxed), 1);
        source.open();
        assert_eq!(ends.load(Ordering::Relaxed), 2);
    }
}
