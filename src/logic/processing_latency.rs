//! What an element says it delays frames by: never less than before, more when frames persistently took longer.

use std::{collections::VecDeque, time::Duration};

/// Frames looked at together; one slow frame is no reason to delay all that follow.
const WINDOW: usize = 20;
/// Of a full window, how many may have taken longer than what is said.
const SLOW: usize = 2;
/// More than that is not waited for.
pub const MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct ProcessingLatency {
    effective: Duration,
    /// What the last frames took since the latency was set.
    took: VecDeque<Duration>,
}

impl ProcessingLatency {
    pub fn new(initial: Duration) -> ProcessingLatency {
        ProcessingLatency {
            effective: initial.min(MOST),
            took: VecDeque::with_capacity(WINDOW),
        }
    }

    pub fn effective(&self) -> Duration {
        self.effective
    }

    /// A frame took that long. Tells the new latency when it has to be raised.
    pub fn record(&mut self, took: Duration) -> Option<Duration> {
        if self.took.len() == WINDOW {
            self.took.pop_front();
        }
        self.took.push_back(took);
        if self.took.len() < WINDOW {
            return None;
        }
        let mut sorted: Vec<_> = self.took.iter().copied().collect();
        sorted.sort();
        let nine_in_ten = sorted[WINDOW - 1 - SLOW];
        let raised = with_headroom(nine_in_ten).min(MOST);
        if nine_in_ten <= self.effective || raised <= self.effective {
            return None;
        }
        self.took.clear();
        self.effective = raised;
        Some(raised)
    }
}

/// A tenth more, in whole milliseconds, so that it is not raised again and again by a little.
fn with_headroom(took: Duration) -> Duration {
    let micros = took.min(MOST).as_micros() as u64;
    Duration::from_millis((micros + micros / 10).div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What the latency was raised to, one after the other.
    fn raises(latency: &mut ProcessingLatency, took: impl IntoIterator<Item = u64>) -> Vec<u64> {
        took.into_iter()
            .filter_map(|took| latency.record(millis(took)))
            .map(|raised| raised.as_millis() as u64)
            .collect()
    }

    #[test]
    fn it_is_raised_once_when_frames_go_on_to_take_longer() {
        let mut latency = ProcessingLatency::new(millis(10));
        assert_eq!(raises(&mut latency, [30; 200]), [33]);
        assert_eq!(latency.effective(), millis(33));
    }

    #[test]
    fn a_few_slow_frames_are_borne() {
        let mut latency = ProcessingLatency::new(millis(10));
        let took = (0..200).map(|frame| if frame % 10 == 0 { 500 } else { 9 });
        assert!(raises(&mut latency, took).is_empty());
    }

    #[test]
    fn the_first_frames_alone_prove_nothing() {
        let mut latency = ProcessingLatency::new(millis(10));
        assert!(raises(&mut latency, [500; WINDOW - 1]).is_empty());
        assert_eq!(raises(&mut latency, [500]), [550]);
    }

    #[test]
    fn it_is_never_lowered() {
        let mut latency = ProcessingLatency::new(millis(50));
        assert!(raises(&mut latency, [1; 100]).is_empty());
        assert_eq!(latency.effective(), millis(50));
    }

    #[test]
    fn it_stays_below_a_minute() {
        let mut latency = ProcessingLatency::new(Duration::ZERO);
        assert_eq!(raises(&mut latency, [10_000_000; 100]), [60_000]);
        assert_eq!(ProcessingLatency::new(Duration::MAX).effective(), MOST);
    }
}
