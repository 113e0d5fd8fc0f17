//! What leaves a webrtcbin by its own pads: known frames, counted, with one EOS at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_webrtc::WebRTCRTPTransceiver;

use super::coding::Coding;
use super::visit::{AtWork, Visit};
use crate::logic::frame_facts::FrameFacts;
use crate::logic::wire::record::StreamRecord;
use crate::meta::rtp::Reader;
use crate::peer::branch::{BranchOwner, Outlet, Passage};
use crate::peer::codecs::Codec;
use crate::peer::connection::Connection;

/// What a flushed branch is given to take EOS after all.
pub const AFTER_FLUSH: Duration = Duration::from_millis(500);

/// One pad.
pub struct Line {
    pad: gst::Pad,
    visit: Weak<Visit>,
    /// What its packets say of themselves, once their caps are known.
    reader: Mutex<Option<(Reader, FrameFacts)>>,
    buffers: AtomicU64,
    /// Packets that came after the end.
    dropped: AtomicU64,
    started: AtomicBool,
    ended: AtomicBool,
}

impl Line {
    /// Watches a pad from its first packet on.
    pub fn watch(pad: &gst::Pad, visit: &Arc<Visit>) -> Arc<Self> {
        let line = Arc::new(Self {
            pad: pad.clone(),
            visit: Arc::downgrade(visit),
            reader: Mutex::default(),
            buffers: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let down = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        let me = Arc::downgrade(&line);
        pad.add_probe(down, move |_, info| match me.upgrade() {
            Some(line) => line.pass(info),
            None => gst::PadProbeReturn::Ok,
        });
        let me = Arc::downgrade(&line);
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let ours = match &info.data {
                Some(gst::PadProbeData::Event(event)) => {
                    me.upgrade().is_some_and(|line| line.upstream(event))
                }
                _ => false,
            };
            match ours {
                true => gst::PadProbeReturn::Handled,
                false => gst::PadProbeReturn::Ok,
            }
        });
        line
    }

    pub fn is_of(&self, pad: &gst::Pad) -> bool {
        self.pad == *pad
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.visit.upgrade()?.connection()
    }

    fn pass(self: &Arc<Self>, info: &mut gst::PadProbeInfo) -> gst::PadProbeReturn {
        let ended = self.ended.load(Ordering::Acquire);
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(_)) if ended => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                gst::PadProbeReturn::Drop
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if !self.started.swap(true, Ordering::Relaxed) {
                    self.start();
                }
                self.buffers.fetch_add(1, Ordering::Relaxed);
                if !self.pad.is_linked() {
                    // For a webrtcbin this would be an error; a pad that nobody links is to do no harm.
                    return gst::PadProbeReturn::Drop;
                }
                self.describe(buffer);
                gst::PadProbeReturn::Ok
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(_) => {
                    *self.reader() = None;
                    gst::PadProbeReturn::Ok
                }
                // It has had the one that is ours. Of an event that is dropped, 1.22 drops a reference too many.
                gst::EventView::Eos(_) if ended => gst::PadProbeReturn::Handled,
                gst::EventView::Eos(_) => {
                    self.ended.store(true, Ordering::Release);
                    gst::PadProbeReturn::Ok
                }
                _ => gst::PadProbeReturn::Ok,
            },
            _ => gst::PadProbeReturn::Ok,
        }
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Option<(Reader, FrameFacts)>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first packet: the stream is there for whoever reads the bus.
    fn start(self: &Arc<Self>) {
        let (Some(connection), Some(coding)) = (self.connection(), Coding::now(&self.pad)) else {
            return;
        };
        let mut known = [Codec::Vp8, Codec::H264, Codec::Opus].into_iter();
        let codec = known.find(|codec| codec.encoding_name() == coding.name);
        let mid = self.mid();
        connection.first_frame(&mid);
        connection.opened(Outlet {
            stream: StreamRecord {
                stream_id: format!("{}/{mid}", connection.id()),
                media: coding.media.as_str(),
                codec: codec.map_or("other", Codec::as_str),
            },
            media: coding.media,
            chain: None,
            pad: Some(self.pad.name()),
            since: Instant::now(),
            passage: self.clone(),
        });
    }

    /// The mid of the m-line that it belongs to.
    fn mid(&self) -> String {
        let transceiver: Option<WebRTCRTPTransceiver> = self.pad.property("transceiver");
        let mid = transceiver.and_then(|transceiver| transceiver.mid());
        mid.map(String::from)
            .unwrap_or_else(|| self.pad.name().into())
    }

    /// Says on a packet whose it is: results of it find their way back by that.
    fn describe(&self, buffer: &mut gst::Buffer) {
        let mut reader = self.reader();
        if reader.is_none() {
            let Some((connection, caps)) = self.connection().zip(self.pad.current_caps()) else {
                return;
            };
            let mid = self.mid();
            let facts = FrameFacts {
                connection_id: Some(connection.id().to_string()),
                stream_id: Some(format!("{}/{mid}", connection.id())),
                mid: Some(mid),
                ..FrameFacts::default()
            };
            *reader = caps.structure(0).map(|caps| (Reader::of(caps), facts));
        }
        let Some((reader, facts)) = reader.as_mut() else {
            return;
        };
        if let Some(packet) = reader.read(buffer) {
            facts.ssrc = Some(packet.ssrc);
            facts.rtp_timestamp = Some(packet.timestamp);
            facts.arrival_time = Some(packet.arrival_time);
        }
        facts.write(buffer.make_mut());
    }

    /// Whether an event that comes up is for the connection and for nobody else.
    fn upstream(&self, event: &gst::Event) -> bool {
        const OURS: [&str; 3] = ["inference-result", "rtc-close", "rtc-interrupt"];
        let ours = event
            .structure()
            .is_some_and(|s| OURS.iter().any(|name| s.has_name(name)));
        ours && self
            .connection()
            .is_some_and(|connection| connection.upstream(event))
    }

    /// Sends EOS down, behind what is being pushed; whoever does not take it until then is flushed.
    pub(super) fn finish(&self, deadline: Instant, at_work: &Arc<AtWork>) -> bool {
        if self.ended.swap(true, Ordering::AcqRel) {
            return true;
        }
        let Some(peer) = self.pad.peer() else {
            return true;
        };
        let (done, over) = std::sync::mpsc::channel();
        let (to, at_work) = (peer.clone(), at_work.clone());
        // A pad that is stuck in what follows it takes no event before it returns.
        let sending = std::thread::Builder::new()
            .name("rtc-eos".into())
            .spawn(move || {
                to.send_event(gst::event::Eos::new());
                drop(at_work);
                let _ = done.send(());
            });
        if sending.is_err() {
            return false;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if over.recv_timeout(left).is_ok() {
            return true;
        }
        peer.send_event(gst::event::FlushStart::new());
        peer.send_event(gst::event::FlushStop::new(false));
        // What was flushed away is said again.
        self.pad.sticky_events_foreach(|event| {
            peer.send_event(event.clone());
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
        peer.send_event(gst::event::Eos::new());
        over.recv_timeout(AFTER_FLUSH).is_ok()
    }
}

impl Passage for Line {
    fn is_idle(&self) -> bool {
        true
    }

    fn counts(&self) -> (u64, u64) {
        let (passed, dropped) = (&self.buffers, &self.dropped);
        (
            passed.load(Ordering::Relaxed),
            dropped.load(Ordering::Relaxed),
        )
    }

    /// Packets that were left out could not be decoded without.
    fn withhold(&self, _withheld: bool) {}

    fn send_args(&self, args: gst::Structure) {
        if let Some(peer) = self.pad.peer() {
            peer.send_event(gst::event::CustomDownstream::new(args));
        }
    }
}
