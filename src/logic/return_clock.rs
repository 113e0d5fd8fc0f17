//! RTP time of what is sent to a peer.
//!
//! What was made of a peer's own frame keeps that frame's time: the same clock, and a constant offset where it is another
//! kind of stream. What has no such origin follows the running time.

use std::time::Duration;

use crate::logic::frame_facts::FrameFacts;

/// A piece of audio that begins this near to the end of the one before follows it without a gap.
const SEAMLESS: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub struct ReturnClock {
    /// Ticks a second of the outgoing clock.
    rate: u32,
    /// Whether pieces follow each other without gaps, as audio does.
    seamless: bool,
    /// Running time and outgoing RTP time of the frame that was last told of.
    noted: Option<(i128, i128)>,
    /// The stream that frames were made of last, and how far its clock is from ours.
    origin: Option<(String, i128)>,
    last: Option<i128>,
    /// Where the next piece begins if there is no gap.
    next: Option<i128>,
}

impl ReturnClock {
    pub fn new(rate: u32, seamless: bool) -> Self {
        Self {
            rate,
            seamless,
            noted: None,
            origin: None,
            last: None,
            next: None,
        }
    }

    /// A frame at that running time goes into the encoder.
    pub fn note(&mut self, at: Duration, facts: &FrameFacts) {
        let at = at.as_nanos() as i128;
        let ticks = match origin(facts, self.rate) {
            Some(theirs) => theirs + self.offset(facts, theirs, at),
            // Goes on from the last frame that had an origin.
            None => self.ticks(at),
        };
        self.noted = Some((at, ticks));
    }

    /// None for the first stream. One that takes over from another, or from what filled in, goes on where that is by running
    /// time: its own clock began anywhere.
    fn offset(&mut self, facts: &FrameFacts, theirs: i128, at: i128) -> i128 {
        let name = facts.stream_id.as_deref().unwrap_or_default();
        if let Some((known, offset)) = &self.origin
            && known == name
        {
            return *offset;
        }
        let offset = match self.last {
            Some(_) => self.ticks(at) - theirs,
            None => 0,
        };
        self.origin = Some((name.to_owned(), offset));
        offset
    }

    /// RTP time of an encoded frame; always later than that of the one before.
    pub fn stamp(&mut self, at: Duration, duration: Option<Duration>) -> u64 {
        let mut ticks = self.ticks(at.as_nanos() as i128);
        if let Some(next) = self.next
            && self.seamless
            && (ticks - next).abs() <= self.in_ticks(SEAMLESS.as_nanos() as i128)
        {
            ticks = next;
        }
        if let Some(last) = self.last {
            ticks = ticks.max(last + 1);
        }
        self.last = Some(ticks);
        self.next = duration.map(|d| ticks + self.in_ticks(d.as_nanos() as i128));
        // Clocks that began before zero wrap, as RTP time does.
        ticks.rem_euclid(1 << 64) as u64
    }

    fn ticks(&self, at: i128) -> i128 {
        let (since, ticks) = self.noted.unwrap_or_default();
        ticks + self.in_ticks(at - since)
    }

    fn in_ticks(&self, nanoseconds: i128) -> i128 {
        // To the nearest: times were cut to whole nanoseconds before.
        (nanoseconds * i128::from(self.rate) + 500_000_000).div_euclid(1_000_000_000)
    }
}

/// RTP time of the frame it was made of, on a clock of `rate` ticks a second.
fn origin(facts: &FrameFacts, rate: u32) -> Option<i128> {
    let (stamp, pts, base) = (facts.rtp_timestamp?, facts.pts?, facts.time_base?);
    if base.den <= 0 || base.num <= 0 {
        return None;
    }
    // The stream's first time stamp, and what has passed since, which does not wrap.
    let first = stamp.wrapping_sub(pts as u32);
    let passed = i128::from(pts) * i128::from(base.num) * i128::from(rate);
    Some(i128::from(first) + passed.div_euclid(i128::from(base.den)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::frame_facts::TimeBase;

    fn facts(first: u32, ticks: i64, rate: i32) -> FrameFacts {
        FrameFacts {
            rtp_timestamp: Some(first.wrapping_add(ticks as u32)),
            pts: Some(ticks),
            time_base: TimeBase::of_clock_rate(rate),
            ..FrameFacts::default()
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_frame_that_comes_back_keeps_its_time_whatever_the_jitter() {
        let mut clock = ReturnClock::new(90_000, false);
        let first = u32::MAX - 9_000;
        for n in 0..100u64 {
            let at = ms(1_000 + n * 33 + (n * 7) % 20);
            clock.note(at, &facts(first, n as i64 * 3_000, 90_000));
            let stamp = clock.stamp(at, None);
            assert_eq!(stamp as u32, first.wrapping_add(n as u32 * 3_000));
            assert_eq!(stamp, u64::from(first) + n * 3_000);
        }
    }

    #[test]
    fn audio_that_becomes_video_has_a_constant_offset() {
        let mut clock = ReturnClock::new(90_000, false);
        for n in 0..100u64 {
            clock.note(ms(n * 20), &facts(7_000, n as i64 * 960, 48_000));
            assert_eq!(clock.stamp(ms(n * 20), None), 7_000 + n * 1_800);
        }
    }

    #[test]
    fn without_an_origin_running_time_counts() {
        let mut clock = ReturnClock::new(90_000, false);
        for n in 0..10u64 {
            clock.note(ms(500 + n * 100), &FrameFacts::default());
            assert_eq!(clock.stamp(ms(500 + n * 100), None), (500 + n * 100) * 90);
        }
    }

    #[test]
    fn a_frame_without_an_origin_goes_on_from_one_that_had_it() {
        let mut clock = ReturnClock::new(90_000, false);
        clock.note(ms(100), &facts(50, 0, 90_000));
        clock.stamp(ms(100), None);
        clock.note(ms(200), &FrameFacts::default());
        assert_eq!(clock.stamp(ms(200), None), 50 + 9_000);
    }

    #[test]
    fn a_stream_that_takes_over_goes_on_by_running_time() {
        let mut clock = ReturnClock::new(90_000, false);
        let of = |stream: &str, first, ticks| FrameFacts {
            stream_id: Some(stream.into()),
            ..facts(first, ticks, 90_000)
        };
        // Black first, then frames of one stream and of another in turn, whose clocks are far apart.
        clock.note(ms(0), &FrameFacts::default());
        assert_eq!(clock.stamp(ms(0), None), 0);
        for (n, stream, first) in [
            (1, "a", 4_000_000_000),
            (2, "a", 4_000_000_000),
            (3, "b", 7),
        ] {
            let ticks = n as i64 * 9_000;
            clock.note(ms(n * 100), &of(stream, first, ticks));
            assert_eq!(clock.stamp(ms(n * 100), None), n * 9_000);
        }
        clock.note(ms(400), &of("b", 7, 36_000));
        assert_eq!(clock.stamp(ms(400), None), 36_000);
    }

    #[test]
    fn pieces_of_audio_join_and_a_gap_is_kept() {
        let mut clock = ReturnClock::new(48_000, true);
        let piece = Some(ms(20));
        clock.note(ms(0), &FrameFacts::default());
        assert_eq!(clock.stamp(ms(0), piece), 0);
        // The receiver's idea of the sender's clock moves a little.
        assert_eq!(clock.stamp(ms(21), piece), 960);
        assert_eq!(clock.stamp(ms(38), piece), 1_920);
        assert_eq!(clock.stamp(ms(140), piece), 6_720);
    }

    proptest::proptest! {
        #[test]
        fn time_never_stands_still_or_goes_back(
            frames in proptest::collection::vec(
                (0u64..u64::MAX / 4, proptest::option::of((proptest::num::u32::ANY, proptest::num::i64::ANY, 1i32..200_000))), 1..40),
            seamless in proptest::bool::ANY,
        ) {
            let mut clock = ReturnClock::new(90_000, seamless);
            let mut last = None;
            for (at, from) in frames {
                let at = Duration::from_nanos(at);
                let facts = from.map_or(FrameFacts::default(), |(first, ticks, rate)| facts(first, ticks, rate));
                clock.note(at, &facts);
                clock.stamp(at, Some(ms(20)));
                proptest::prop_assert!(last.is_none_or(|last| clock.last.unwrap() > last));
                last = clock.last;
            }
        }
    }
}
