//! Numbers the frames of each stream and completes what is known about them.
//!
//! What a frame already says about its identity is kept: the first to see it was right.

use std::{borrow::Cow, collections::VecDeque, time::Duration};

use crate::logic::{
    frame_facts::{FrameFacts, TimeBase},
    frame_rate::FrameRate,
    per_stream::PerStream,
};

/// RTP frames remembered, so that a packet that comes late finds its own.
const RECENT: usize = 32;

/// What can be seen of a buffer besides the facts it carries.
#[derive(Debug, Clone, Default)]
pub struct Sighting<'a> {
    /// The stream-id of STREAM_START.
    pub stream_id: Option<&'a str>,
    /// The buffer's own timestamp.
    pub pts: Option<Duration>,
    pub declared_fps: Option<f64>,
    pub width: Option<i32>,
    pub height: Option<i32>,
    /// Set when the buffer is an RTP packet.
    pub packet: Option<Packet<'a>>,
}

/// What the header of an RTP packet and its caps say.
#[derive(Debug, Clone)]
pub struct Packet<'a> {
    pub ssrc: u32,
    pub timestamp: u32,
    /// Of the payload type's clock, hertz; 0 is unknown.
    pub clock_rate: i32,
    pub mid: Option<Cow<'a, str>>,
    /// Nanoseconds of unix time.
    pub arrival_time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The first buffer of a frame.
    NewFrame,
    /// A further packet of a frame already counted.
    SameFrame,
}

/// Counts the frames of every stream that passes one place.
#[derive(Debug, Default)]
pub struct FrameCount {
    streams: PerStream<Stream>,
}

impl FrameCount {
    /// Fills in what `facts` lacks; width, height and rates are always those of this place.
    pub fn complete(&mut self, facts: &mut FrameFacts, seen: &Sighting) -> Seen {
        if facts.stream_id.is_none() {
            facts.stream_id = seen.stream_id.map(str::to_owned);
        }
        facts.declared_fps = seen.declared_fps.or(facts.declared_fps);
        facts.width = seen.width.or(facts.width);
        facts.height = seen.height.or(facts.height);
        let stream = self.streams.of(facts.stream_id.as_deref().unwrap_or(""));
        match &seen.packet {
            Some(packet) => stream.packet(facts, packet),
            None => {
                stream.frame(facts, seen.pts);
                Seen::NewFrame
            }
        }
    }

    /// A seek: ids go on, so that none comes twice, what is measured starts anew.
    pub fn flush(&mut self) {
        for stream in self.streams.values_mut() {
            stream.rate = FrameRate::default();
            stream.recent.clear();
        }
    }
}

#[derive(Debug, Default)]
struct Stream {
    /// Highest id given or seen, 0 before the first.
    last_id: u64,
    rate: FrameRate,
    clock: Option<RtpClock>,
    /// Frames whose packets may still come, oldest first.
    recent: VecDeque<RtpFrame>,
}

impl Stream {
    fn frame(&mut self, facts: &mut FrameFacts, pts: Option<Duration>) {
        self.number(facts);
        if facts.pts.is_none()
            && let Some(nanoseconds) = pts.and_then(|pts| i64::try_from(pts.as_nanos()).ok())
        {
            facts.pts = Some(nanoseconds);
            facts.time_base = Some(TimeBase::NANOSECONDS);
        }
        self.measure(facts, pts);
    }

    fn packet(&mut self, facts: &mut FrameFacts, packet: &Packet) -> Seen {
        facts.ssrc.get_or_insert(packet.ssrc);
        facts.rtp_timestamp.get_or_insert(packet.timestamp);
        if facts.mid.is_none() {
            facts.mid = packet.mid.as_deref().map(str::to_owned);
        }
        let known = self
            .recent
            .iter()
            .rfind(|frame| frame.ssrc == packet.ssrc && frame.timestamp == packet.timestamp);
        if let Some(frame) = known {
            frame.tell(facts);
            return Seen::SameFrame;
        }
        facts.arrival_time.get_or_insert(packet.arrival_time);
        self.number(facts);
        let ticks = RtpClock::ticks(&mut self.clock, packet);
        if facts.pts.is_none() {
            facts.pts = Some(ticks);
            facts.time_base = TimeBase::of_clock_rate(packet.clock_rate);
        }
        self.measure(facts, None);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(RtpFrame {
            ssrc: packet.ssrc,
            timestamp: packet.timestamp,
            first: FrameFacts {
                arrival_time: facts.arrival_time,
                frame_id: facts.frame_id,
                pts: facts.pts,
                time_base: facts.time_base,
                measured_fps: facts.measured_fps,
                ..FrameFacts::default()
            },
        });
        Seen::NewFrame
    }

    fn number(&mut self, facts: &mut FrameFacts) {
        let id = *facts.frame_id.get_or_insert(self.last_id.saturating_add(1));
        self.last_id = self.last_id.max(id);
    }

    /// The sender's own timestamps tell its rate free of jitter; arrival is the next best.
    fn measure(&mut self, facts: &mut FrameFacts, buffer_pts: Option<Duration>) {
        let sent = facts
            .pts
            .zip(facts.time_base)
            .and_then(|(pts, base)| Duration::try_from_secs_f64(pts as f64 * base.seconds()).ok());
        let arrived = facts.arrival_time.map(Duration::from_nanos);
        if let Some(time) = sent.or(buffer_pts).or(arrived) {
            facts.measured_fps = self.rate.frame_at(time);
        }
    }
}

#[derive(Debug)]
struct RtpFrame {
    ssrc: u32,
    timestamp: u32,
    /// What its first packet got.
    first: FrameFacts,
}

impl RtpFrame {
    fn tell(&self, facts: &mut FrameFacts) {
        facts.arrival_time = facts.arrival_time.or(self.first.arrival_time);
        facts.frame_id = facts.frame_id.or(self.first.frame_id);
        if facts.pts.is_none() {
            facts.pts = self.first.pts;
            facts.time_base = self.first.time_base;
        }
        facts.measured_fps = self.first.measured_fps;
    }
}

/// Ticks since the stream's first frame, over the wrap of 32 bits and over a new ssrc.
#[derive(Debug)]
struct RtpClock {
    ssrc: u32,
    timestamp: u32,
    ticks: i64,
    /// Between the last two frames; what a new ssrc is taken to follow by.
    step: i64,
}

impl RtpClock {
    fn ticks(clock: &mut Option<RtpClock>, packet: &Packet) -> i64 {
        let clock = clock.get_or_insert(RtpClock {
            ssrc: packet.ssrc,
            timestamp: packet.timestamp,
            ticks: 0,
            step: 1,
        });
        if clock.ssrc != packet.ssrc {
            clock.ssrc = packet.ssrc;
            clock.timestamp = packet.timestamp;
            clock.ticks += clock.step;
            return clock.ticks;
        }
        let step = i64::from(packet.timestamp.wrapping_sub(clock.timestamp) as i32);
        if step <= 0 {
            // Reordered: the clock does not go back for it.
            return clock.ticks + step;
        }
        clock.timestamp = packet.timestamp;
        clock.ticks += step;
        clock.step = step;
        clock.ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(count: &mut FrameCount, stream: &str, pts_ms: u64) -> FrameFacts {
        let mut facts = FrameFacts::default();
        count.complete(
            &mut facts,
            &Sighting {
                stream_id: Some(stream),
                pts: Some(Duration::from_millis(pts_ms)),
                ..Sighting::default()
            },
        );
        facts
    }

    fn packet(count: &mut FrameCount, ssrc: u32, timestamp: u32) -> (FrameFacts, Seen) {
        let mut facts = FrameFacts::default();
        let seen = count.complete(
            &mut facts,
            &Sighting {
                stream_id: Some("s"),
                packet: Some(Packet {
                    ssrc,
                    timestamp,
                    clock_rate: 90_000,
                    mid: Some("0".into()),
                    arrival_time: 7,
                }),
                ..Sighting::default()
            },
        );
        (facts, seen)
    }

    #[test]
    fn frames_count_from_one_in_each_stream() {
        let mut count = FrameCount::default();
        let ids = ["a", "b", "a", "a", "b"].map(|stream| raw(&mut count, stream, 0).frame_id);
        assert_eq!(ids, [1, 1, 2, 3, 2].map(Some));
    }

    #[test]
    fn an_id_a_frame_has_is_kept_and_the_next_follows_it() {
        let mut count = FrameCount::default();
        let mut facts = FrameFacts {
            frame_id: Some(40),
            ..FrameFacts::default()
        };
        count.complete(&mut facts, &Sighting::default());
        assert_eq!(facts.frame_id, Some(40));
        let mut next = FrameFacts::default();
        count.complete(&mut next, &Sighting::default());
        assert_eq!(next.frame_id, Some(41));
    }

    #[test]
    fn a_raw_frame_without_pts_counts_in_nanoseconds() {
        let facts = raw(&mut FrameCount::default(), "a", 40);
        assert_eq!(facts.pts, Some(40_000_000));
        assert_eq!(facts.time_base, Some(TimeBase::NANOSECONDS));
    }

    #[test]
    fn rtp_ticks_a_frame_has_are_kept() {
        let mut facts = FrameFacts {
            pts: Some(3000),
            time_base: TimeBase::of_clock_rate(90_000),
            ..FrameFacts::default()
        };
        FrameCount::default().complete(
            &mut facts,
            &Sighting {
                pts: Some(Duration::from_secs(9)),
                ..Sighting::default()
            },
        );
        assert_eq!(facts.pts, Some(3000));
        assert_eq!(facts.time_base, TimeBase::of_clock_rate(90_000));
    }

    #[test]
    fn a_flush_starts_the_measurement_anew_but_repeats_no_id() {
        let mut count = FrameCount::default();
        raw(&mut count, "a", 0);
        assert_eq!(raw(&mut count, "a", 100).measured_fps, Some(10.0));
        count.flush();
        let after = raw(&mut count, "a", 5000);
        assert_eq!((after.frame_id, after.measured_fps), (Some(3), None));
    }

    #[test]
    fn packets_of_one_timestamp_are_one_frame() {
        let mut count = FrameCount::default();
        let seen = [100, 100, 3100, 3100, 3100].map(|timestamp| packet(&mut count, 1, timestamp));
        let ids = seen.each_ref().map(|(facts, _)| facts.frame_id.unwrap());
        assert_eq!(ids, [1, 1, 2, 2, 2]);
        let new = seen.each_ref().map(|(_, seen)| *seen == Seen::NewFrame);
        assert_eq!(new, [true, false, true, false, false]);
        assert_eq!(seen[4].0.pts, Some(3000));
        assert!((seen[4].0.measured_fps.unwrap() - 30.0).abs() < 0.001);
    }

    #[test]
    fn a_late_packet_finds_its_own_frame() {
        let mut count = FrameCount::default();
        packet(&mut count, 1, 100);
        packet(&mut count, 1, 3100);
        let (late, seen) = packet(&mut count, 1, 100);
        assert_eq!((late.frame_id, late.pts), (Some(1), Some(0)));
        assert_eq!(seen, Seen::SameFrame);
    }

    #[test]
    fn a_reordered_frame_has_the_ticks_of_its_timestamp() {
        let mut count = FrameCount::default();
        packet(&mut count, 1, 0);
        packet(&mut count, 1, 6000);
        assert_eq!(packet(&mut count, 1, 3000).0.pts, Some(3000));
        assert_eq!(packet(&mut count, 1, 9000).0.pts, Some(9000));
    }

    #[test]
    fn ticks_go_on_over_the_wrap_of_the_timestamp() {
        let mut count = FrameCount::default();
        packet(&mut count, 1, u32::MAX - 999);
        assert_eq!(packet(&mut count, 1, 2000).0.pts, Some(3000));
    }

    #[test]
    fn ticks_go_on_over_a_new_ssrc() {
        let mut count = FrameCount::default();
        packet(&mut count, 1, 0);
        packet(&mut count, 1, 3000);
        assert_eq!(packet(&mut count, 2, 777_000).0.pts, Some(6000));
        assert_eq!(packet(&mut count, 2, 780_000).0.pts, Some(9000));
    }
}
