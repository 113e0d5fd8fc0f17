//! Maps a stream's RTP time to the receiver's running time.
//!
//! The shortest transit seen lately is what the mapping leans on: jitter only ever adds delay. The sender's
//! clock drifts against ours, so the reference is renewed from a window of recent frames and approached
//! slowly, and the result never runs backwards.

use std::time::Duration;

/// Transit times are compared over windows of this length.
const WINDOW: Duration = Duration::from_secs(2);
/// A reference that is this far off is not approached but taken: the sender paused, or its clock jumped.
const JUMP: Duration = Duration::from_millis(500);
/// Most that the reference moves for one frame.
const SLEW_NS: i64 = 200_000;

#[derive(Debug, Clone)]
pub struct StreamClock {
    rate: u32,
    /// RTP time of the first frame.
    first: Option<u64>,
    /// Running time minus media time, nanoseconds, now in use.
    offset: i64,
    /// The smallest offset of the running window, and when that window began.
    window_min: i64,
    window_start: i64,
    last: i64,
}

impl StreamClock {
    /// `rate`: ticks a second of the stream's RTP clock.
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            first: None,
            offset: 0,
            window_min: 0,
            window_start: 0,
            last: 0,
        }
    }

    /// Ticks from the first frame to `rtp_time` (extended to 64 bit), negative for one from before it.
    pub fn ticks(&self, rtp_time: u64) -> i64 {
        let first = self.first.unwrap_or(rtp_time);
        rtp_time.wrapping_sub(first) as i64
    }

    /// Running time in nanoseconds of a frame that arrived at running time `arrival`.
    pub fn running_time(&mut self, rtp_time: u64, arrival: Duration) -> Duration {
        let arrival = arrival.as_nanos() as i64;
        let fresh = self.first.is_none();
        self.first.get_or_insert(rtp_time);
        let media = i128::from(self.ticks(rtp_time)) * 1_000_000_000 / i128::from(self.rate);
        let media = media.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64;
        let offset = arrival - media;
        if fresh || (offset - self.offset).abs() > JUMP.as_nanos() as i64 {
            self.offset = offset;
            self.window_min = offset;
            self.window_start = arrival;
        } else if arrival - self.window_start > WINDOW.as_nanos() as i64 {
            self.offset += (self.window_min - self.offset).clamp(-SLEW_NS, SLEW_NS);
            if (self.window_min - self.offset).abs() < SLEW_NS {
                self.window_min = offset;
                self.window_start = arrival;
            }
        } else {
            self.window_min = self.window_min.min(offset);
            // A frame that was quicker than any before corrects the reference at once.
            self.offset = self.offset.min(offset);
        }
        self.last = self.last.max(media + self.offset).max(0);
        Duration::from_nanos(self.last as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn jitter_does_not_reach_the_timestamps() {
        let mut clock = StreamClock::new(90_000);
        assert_eq!(clock.running_time(1_000, ms(50)), ms(50));
        for n in 1..200u64 {
            let jitter = (n * 7919) % 40;
            let at = clock.running_time(1_000 + n * 3_000, ms(50 + n * 100 / 3 + jitter));
            let ideal = 50_000_000.0 + n as f64 * 1e9 / 30.0;
            assert!(
                (at.as_nanos() as f64 - ideal).abs() < 6e6,
                "frame {n} at {at:?}"
            );
        }
    }

    #[test]
    fn a_drifting_sender_is_followed() {
        // 0.1 % slow: one second in a thousand, far worse than real crystals.
        let mut clock = StreamClock::new(90_000);
        let mut at = Duration::ZERO;
        for n in 0..9_000u64 {
            at = clock.running_time(n * 3_000, Duration::from_micros(n * 33_367));
        }
        let arrival = Duration::from_micros(8_999 * 33_367);
        assert!(arrival.abs_diff(at) < ms(20), "{at:?} for {arrival:?}");
    }

    #[test]
    fn a_jump_is_taken_and_time_never_runs_backwards() {
        let mut clock = StreamClock::new(90_000);
        clock.running_time(0, ms(0));
        let before = clock.running_time(90_000, ms(1_000));
        let after = clock.running_time(90_000 * 100, ms(1_033));
        assert!(after >= before);
        assert!(after <= ms(1_034));
        assert!(clock.running_time(0, ms(1_040)) >= after);
    }

    #[test]
    fn ticks_count_from_the_first_frame() {
        let mut clock = StreamClock::new(90_000);
        clock.running_time(u64::from(u32::MAX), ms(0));
        assert_eq!(clock.ticks(u64::from(u32::MAX) + 3_000), 3_000);
        assert_eq!(clock.ticks(u64::from(u32::MAX) - 10), -10);
    }

    proptest::proptest! {
        #[test]
        fn no_input_overflows_or_goes_back(frames in proptest::collection::vec((proptest::num::u64::ANY, 0u64..u64::MAX / 4), 1..50)) {
            let mut clock = StreamClock::new(90_000);
            let mut last = Duration::ZERO;
            for (rtp, arrival) in frames {
                let at = clock.running_time(rtp, Duration::from_nanos(arrival));
                proptest::prop_assert!(at >= last);
                last = at;
            }
        }
    }
}
