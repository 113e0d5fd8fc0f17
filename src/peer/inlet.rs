//! Where frames from the network enter: filled from the transport's task, which must not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::branch::BranchOwner;
use super::call::EncodedFrame;
use super::codecs::{Codec, Media};
use super::pump::{Bound, Pump, PumpOwner};
use super::stage::Stage;
use crate::logic::frame_facts::{FrameFacts, TimeBase};
use crate::logic::handoff::{Pushed, WhenFull};
use crate::logic::registry::ConnectionId;
use crate::logic::stream_clock::StreamClock;

/// Encoded frames that may wait for the decoder, a second of video; more means that it does not keep up.
pub const ENCODED: Bound = Bound::Buffers(30);
/// The same where none is to be missed, ten seconds.
const ENCODED_LOSSLESS: Bound = Bound::Buffers(300);

pub fn when_encoded_is_full(media: Media) -> WhenFull {
    match media {
        Media::Video => WhenFull::DropToKey,
        Media::Audio => WhenFull::DropOldest,
    }
}

/// Where frames from the network enter.
pub struct Inlet {
    pub mid: String,
    pub codec: Codec,
    pub stream_id: String,
    pub connection: ConnectionId,
    stage: Arc<dyn Stage>,
    pub caps: gst::Caps,
    clock: Mutex<StreamClock>,
    pub wants_keyframe: Arc<AtomicBool>,
    pub pump: Pump,
}

/// The encoded side has nobody upstream to tell but the call, which asks for a keyframe.
struct EncodedSide {
    mid: String,
    owner: Weak<dyn BranchOwner>,
    wants_keyframe: Arc<AtomicBool>,
}

impl PumpOwner for EncodedSide {
    fn refused(&self, flow: gst::FlowError) {
        if let Some(owner) = self.owner.upgrade() {
            owner.failed(&self.mid, format!("a frame that came was refused: {flow}"));
        }
    }

    fn upstream(&self, event: &gst::Event) -> bool {
        if gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok() {
            self.wants_keyframe.store(true, Ordering::Relaxed);
        }
        true
    }

    fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::ZERO
    }

    fn is_live(&self) -> bool {
        true
    }
}

impl Inlet {
    pub fn new(
        connection: &ConnectionId,
        frame: &EncodedFrame,
        lossless: bool,
        stage: Arc<dyn Stage>,
        owner: Weak<dyn BranchOwner>,
    ) -> Arc<Self> {
        let wants_keyframe = Arc::new(AtomicBool::new(false));
        let mid = frame.mid.to_string();
        let side = EncodedSide {
            mid: mid.clone(),
            owner,
            wants_keyframe: wants_keyframe.clone(),
        };
        Arc::new(Self {
            stream_id: format!("{connection}/{mid}"),
            mid,
            codec: frame.codec,
            connection: connection.clone(),
            stage,
            caps: frame.codec.caps(),
            clock: Mutex::new(StreamClock::new(frame.codec.clock_rate())),
            wants_keyframe,
            pump: Pump::new(
                gst::Pad::builder(gst::PadDirection::Src),
                match lossless {
                    true => ENCODED_LOSSLESS,
                    false => ENCODED,
                },
                when_encoded_is_full(frame.codec.media()),
                Arc::new(side),
            ),
        })
    }

    /// Takes a frame; says whether the stream needs a keyframe to go on.
    pub fn push(&self, frame: EncodedFrame, now: Instant) -> bool {
        let facts = FrameFacts {
            mid: Some(self.mid.clone()),
            ssrc: Some(frame.ssrc),
            rtp_timestamp: Some(frame.rtp_time as u32),
            ..FrameFacts::default()
        };
        let lost = self.take(frame, facts, now);
        self.wants_keyframe.swap(false, Ordering::Relaxed) || lost
    }

    /// Takes a frame that came on no line, with what is known of it.
    pub fn push_known(&self, frame: EncodedFrame, facts: FrameFacts, now: Instant) {
        self.take(frame, facts, now);
    }

    /// Says whether the frame is lost to whoever decodes.
    fn take(&self, frame: EncodedFrame, known: FrameFacts, now: Instant) -> bool {
        let Some(running) = self.stage.running_time() else {
            return true;
        };
        if frame.codec != self.codec {
            return false;
        }
        let age = now.saturating_duration_since(frame.arrival);
        let arrival = Duration::from(running).saturating_sub(age);
        let (pts, ticks) = {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            let pts = clock.running_time(frame.rtp_time, arrival);
            (pts, clock.ticks(frame.rtp_time))
        };
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(age);
        let facts = FrameFacts {
            connection_id: Some(self.connection.to_string()),
            stream_id: Some(self.stream_id.clone()),
            arrival_time: Some(wall.as_nanos() as u64),
            pts: known.pts.or(Some(ticks)),
            time_base: known.time_base.or(Some(TimeBase {
                num: 1,
                den: self.codec.clock_rate() as i32,
            })),
            ..known
        };
        let mut buffer = gst::Buffer::from_slice(frame.data);
        {
            let buffer = buffer.get_mut().expect("it is new");
            buffer.set_pts(gst::ClockTime::try_from(pts).ok());
            if !frame.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            facts.write(buffer);
        }
        // A decoder waits for nothing.
        let at_once = Duration::ZERO;
        let pushed = self
            .pump
            .push(buffer, self.caps.clone(), frame.keyframe, at_once, at_once);
        matches!(pushed, Pushed::NeedsKey(_))
    }

    /// Frames are dropped from now on.
    pub fn close(&self) {
        self.pump.abandon();
    }
}
