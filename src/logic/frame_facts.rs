//! What is known about one frame, in plain fields. `meta` carries it on buffers.

use crate::logic::detections::Detection;

/// Seconds in one tick of `pts`, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBase {
    pub num: i32,
    pub den: i32,
}

impl TimeBase {
    /// What frames count in that came over no RTP.
    pub const NANOSECONDS: TimeBase = TimeBase {
        num: 1,
        den: 1_000_000_000,
    };

    /// One tick of an RTP clock; `None` for a rate that is none.
    pub fn of_clock_rate(hertz: i32) -> Option<TimeBase> {
        (hertz > 0).then_some(TimeBase { num: 1, den: hertz })
    }

    /// Seconds in one tick.
    pub fn seconds(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }
}

/// Everything known about one frame; `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrameFacts {
    /// The connection the frame came over; unguessable, ours.
    pub connection_id: Option<String>,
    /// `<connection-id>/<mid>` for RTC, else the stream-id of STREAM_START.
    pub stream_id: Option<String>,
    /// Media identification of the SDP section.
    pub mid: Option<String>,
    pub ssrc: Option<u32>,
    /// As on the wire: the key by which a browser pairs a frame with its result.
    pub rtp_timestamp: Option<u32>,
    /// When the frame's first packet arrived, nanoseconds of unix time.
    pub arrival_time: Option<u64>,
    /// Counts from 1 in each stream.
    pub frame_id: Option<u64>,
    /// RTC: ticks of the stream's RTP clock from its first frame; else nanoseconds.
    pub pts: Option<i64>,
    pub time_base: Option<TimeBase>,
    /// What the caps promise, frames per second.
    pub declared_fps: Option<f64>,
    /// What came lately, frames per second.
    pub measured_fps: Option<f64>,
    /// Pixels of the frame in this buffer.
    pub width: Option<i32>,
    pub height: Option<i32>,
    /// The frame that `results` was computed on, when it is an earlier one.
    pub result_frame_id: Option<u64>,
    pub results: Option<Vec<Detection>>,
    /// The whole result as it goes on the wire.
    pub json: Option<String>,
}
