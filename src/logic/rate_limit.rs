//! Lets so much a second through, events or bytes, with a burst of one second's worth.

use std::time::Instant;

#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: f64,
    left: f64,
    refilled: Instant,
    /// Times that something was not let through.
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

    pub fn allows(&mut self, now: Instant, amount: usize) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.refilled = self.refilled.max(now);
        let amount = amount as f64;
        let allowed = self.left >= amount;
        match allowed {
            true => self.left -= amount,
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
        assert_eq!((0..25).filter(|_| limit.allows(now, 1)).count(), 10);
        assert_eq!(limit.dropped, 15);
        let later = now + Duration::from_millis(500);
        assert_eq!((0..25).filter(|_| limit.allows(later, 1)).count(), 5);
    }
}
