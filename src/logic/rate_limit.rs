//! Lets so many events a second through, with a burst of one second's worth.

use std::time::Instant;

#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: f64,
    left: f64,
    refilled: Instant,
    /// Events that were not let through.
    pub dropped: u64,
}

impl RateLimit {
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second: per_second.into(),
            left: per_second.into(),
            refilled: now,
            dropped: 0,
        }
    }

    pub fn allows(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.refilled = self.refilled.max(now);
        let allowed = self.left >= 1.0;
        match allowed {
            true => self.left -= 1.0,
            false => self.dropped += 1,
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let now = Instant::now();
        let mut limit = RateLimit::new(10, now);
        assert_eq!((0..25).filter(|_| limit.allows(now)).count(), 10);
        assert_eq!(limit.dropped, 15);
        let later = now + Duration::from_millis(500);
        assert_eq!((0..25).filter(|_| limit.allows(later)).count(), 5);
    }
}
