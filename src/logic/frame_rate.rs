//! Frames per second as they really come, over a window that slides with them.

use std::{collections::VecDeque, time::Duration};

/// How far back the measurement looks.
const WINDOW: Duration = Duration::from_secs(2);
/// Enough for 120 frames a second; a faster stream is measured over a shorter time.
const MOST: usize = 240;

#[derive(Debug, Default)]
pub struct FrameRate {
    times: VecDeque<Duration>,
}

impl FrameRate {
    /// Takes the time of the next frame and tells the rate, unknown until two frames at different times came.
    ///
    /// Frames out of order (B-frames, reordered packets) count in their place. A time that goes back further than the
    /// window (a seek, a new source) starts the measurement anew.
    pub fn frame_at(&mut self, time: Duration) -> Option<f64> {
        if self
            .times
            .front()
            .is_some_and(|&oldest| time + WINDOW < oldest)
        {
            self.times.clear();
        }
        let place = self.times.partition_point(|&earlier| earlier <= time);
        self.times.insert(place, time);
        let newest = *self.times.back()?;
        // Two are kept however old, so that a time-lapse has a rate too.
        while self.times.len() > MOST
            || self.times.len() > 2 && newest.saturating_sub(self.times[0]) > WINDOW
        {
            self.times.pop_front();
        }
        let span = newest.saturating_sub(*self.times.front()?).as_secs_f64();
        (span > 0.0).then(|| (self.times.len() - 1) as f64 / span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate_of(times_ms: impl IntoIterator<Item = u64>) -> Option<f64> {
        let mut rate = FrameRate::default();
        times_ms
            .into_iter()
            .map(|time| rate.frame_at(Duration::from_millis(time)))
            .last()
            .flatten()
    }

    #[test]
    fn one_frame_has_no_rate() {
        assert_eq!(rate_of([5]), None);
    }

    #[test]
    fn frames_at_one_instant_have_no_rate() {
        assert_eq!(rate_of([5, 5, 5]), None);
    }

    #[test]
    fn steady_frames_give_their_rate() {
        assert_eq!(rate_of((0..100).map(|frame| frame * 40)), Some(25.0));
    }

    #[test]
    fn a_slower_source_is_seen_after_the_window() {
        let fast = (0..50).map(|frame| frame * 20);
        let slow = (0..30).map(|frame| 1000 + frame * 100);
        assert_eq!(rate_of(fast.chain(slow)), Some(10.0));
    }

    #[test]
    fn a_time_lapse_slower_than_the_window_has_a_rate() {
        assert_eq!(rate_of([0, 10_000, 20_000]), Some(0.1));
    }

    #[test]
    fn frames_out_of_order_count_in_their_place() {
        assert_eq!(rate_of([0, 300, 100, 200, 600, 400, 500]), Some(10.0));
    }

    #[test]
    fn time_that_goes_far_back_starts_anew() {
        assert_eq!(rate_of([9000, 9100, 50]), None);
        assert_eq!(rate_of([9000, 9100, 50, 100]), Some(20.0));
    }

    #[test]
    fn the_window_does_not_grow_without_bound() {
        let mut rate = FrameRate::default();
        for frame in 0..10_000 {
            rate.frame_at(Duration::from_micros(frame));
        }
        assert!(rate.times.len() <= MOST);
    }
}
