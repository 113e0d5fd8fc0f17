//! How many bits a second a connection's video may have, from what its network and its peer say.
//!
//! An estimate of the transport's own counts most. A peer that only says how much it can receive, or only what it lost,
//! is believed as far as that goes: its rate falls with loss and climbs back slowly without.

use std::time::{Duration, Instant};

/// Of an estimate, what encoders are given: the rest is for headers, repairs and what an encoder overshoots.
const SHARE: f64 = 0.85;
/// Loss below this is what networks do; above the other, the network has too much.
const LITTLE_LOSS: f64 = 0.02;
const MUCH_LOSS: f64 = 0.10;
/// Without losses the rate climbs by this each second.
const CLIMB: f64 = 1.08;
/// Reports that come faster change nothing.
const STEP: Duration = Duration::from_millis(900);
/// What may wait to be sent before frames are skipped.
const BACKLOG: Duration = Duration::from_millis(200);

/// Bits a second that every stream of video has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub min: u64,
    pub max: u64,
}

impl Limits {
    fn clamp(self, rate: f64) -> u64 {
        (rate as u64).clamp(self.min, self.max.max(self.min))
    }
}

#[derive(Debug, Clone)]
pub struct Bandwidth {
    /// Of each stream, and how many there are.
    each: Limits,
    streams: u64,
    /// What the transport estimates.
    estimate: Option<f64>,
    /// What the peer says it can receive.
    remb: Option<f64>,
    /// What losses leave.
    by_loss: f64,
    stepped: Option<Instant>,
    /// Bytes that wait to be sent, as they were at that time.
    backlog: f64,
    drained: Option<Instant>,
}

impl Bandwidth {
    pub fn new(limits: Limits) -> Self {
        Self {
            each: limits,
            streams: 1,
            estimate: None,
            remb: None,
            by_loss: limits.max as f64,
            stepped: None,
            backlog: 0.0,
            drained: None,
        }
    }

    /// How many streams of video share what there is.
    pub fn share_among(&mut self, streams: usize) {
        let before = self.streams;
        self.streams = streams.max(1) as u64;
        self.by_loss *= self.streams as f64 / before as f64;
    }

    /// Of all streams together.
    fn limits(&self) -> Limits {
        Limits {
            min: self.each.min * self.streams,
            max: self.each.max * self.streams,
        }
    }

    /// Bits a second for each stream of video.
    pub fn target_each(&self) -> u64 {
        self.target() / self.streams
    }

    /// Bits a second for all video together.
    pub fn target(&self) -> u64 {
        let told = self.estimate.or(self.remb);
        let rate = told.map_or(f64::INFINITY, |told| told * SHARE);
        // An estimate has counted the losses.
        let by_loss = match self.estimate {
            Some(_) => f64::INFINITY,
            None => self.by_loss,
        };
        self.limits().clamp(rate.min(by_loss))
    }

    /// The transport has a new estimate, or no longer any.
    pub fn on_estimate(&mut self, bits: Option<u64>) {
        self.estimate = bits.map(|bits| bits as f64);
    }

    /// The peer says how much it can receive.
    pub fn on_remb(&mut self, bits: u64) {
        self.remb = Some(bits as f64);
    }

    /// The peer says which share of the packets it lost lately.
    pub fn on_loss(&mut self, loss: f64, now: Instant) {
        if self.stepped.is_some_and(|last| now < last + STEP) {
            return;
        }
        self.stepped = Some(now);
        let rate = match loss {
            loss if loss > MUCH_LOSS => self.by_loss * (1.0 - loss.min(1.0) / 2.0),
            loss if loss < LITTLE_LOSS => self.by_loss * CLIMB,
            _ => self.by_loss,
        };
        self.by_loss = self.limits().clamp(rate) as f64;
    }

    /// Whether another frame may be made; else the network is behind, and making it would only add to the queue.
    pub fn admits(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate() else {
            // Nobody holds packets back where nobody estimates.
            return true;
        };
        self.drain(now, rate);
        self.backlog * 8.0 <= rate * BACKLOG.as_secs_f64()
    }

    /// That many bytes were given to the network.
    pub fn on_sent(&mut self, bytes: usize, now: Instant) {
        if let Some(rate) = self.rate() {
            self.drain(now, rate);
            self.backlog += bytes as f64;
        }
    }

    /// Bits a second that leave, where somebody holds back more.
    fn rate(&self) -> Option<f64> {
        // The least is sent whatever is estimated, with what comes on top of it: else its frames would be skipped for ever.
        Some(self.estimate?.max(self.limits().min as f64 / SHARE))
    }

    fn drain(&mut self, now: Instant, rate: f64) {
        let last = self.drained.replace(now).unwrap_or(now);
        let gone = rate / 8.0 * now.saturating_duration_since(last).as_secs_f64();
        self.backlog = (self.backlog - gone).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        min: 100_000,
        max: 2_000_000,
    };

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn an_estimate_is_followed_within_the_limits() {
        let mut bandwidth = Bandwidth::new(LIMITS);
        assert_eq!(bandwidth.target(), 2_000_000);
        for (estimate, target) in [
            (1_000_000, 850_000),
            (90_000_000, 2_000_000),
            (1_000, 100_000),
        ] {
            bandwidth.on_estimate(Some(estimate));
            assert_eq!(bandwidth.target(), target);
        }
        bandwidth.on_estimate(None);
        assert_eq!(bandwidth.target(), 2_000_000);
    }

    #[test]
    fn what_a_peer_says_it_can_take_counts_where_nothing_is_estimated() {
        let mut bandwidth = Bandwidth::new(LIMITS);
        bandwidth.on_remb(400_000);
        assert_eq!(bandwidth.target(), 340_000);
        bandwidth.on_estimate(Some(1_000_000));
        assert_eq!(bandwidth.target(), 850_000);
    }

    #[test]
    fn losses_take_and_quiet_gives_back() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(LIMITS);
        for second in 0..5 {
            bandwidth.on_loss(0.2, start + seconds(f64::from(second)));
        }
        let low = bandwidth.target();
        assert!((1_100_000..1_300_000).contains(&low), "{low}");
        // A report that comes at once is about the same packets.
        bandwidth.on_loss(0.2, start + seconds(4.1));
        assert_eq!(bandwidth.target(), low);
        bandwidth.on_loss(0.05, start + seconds(5.0));
        assert_eq!(bandwidth.target(), low);
        for second in 6..20 {
            bandwidth.on_loss(0.0, start + seconds(f64::from(second)));
        }
        assert_eq!(bandwidth.target(), 2_000_000);
    }

    #[test]
    fn several_streams_share_and_each_has_its_own_limits() {
        let mut bandwidth = Bandwidth::new(LIMITS);
        bandwidth.share_among(2);
        assert_eq!(bandwidth.target_each(), 2_000_000);
        bandwidth.on_estimate(Some(2_000_000));
        assert_eq!(bandwidth.target_each(), 850_000);
        bandwidth.on_estimate(Some(1_000));
        assert_eq!(bandwidth.target_each(), 100_000);
        bandwidth.share_among(0);
        assert_eq!(bandwidth.target_each(), 100_000);
    }

    #[test]
    fn frames_are_skipped_while_the_network_is_behind() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(LIMITS);
        bandwidth.on_sent(1_000_000, start);
        assert!(bandwidth.admits(start), "nothing is known of the network");
        bandwidth.on_estimate(Some(800_000));
        bandwidth.on_sent(50_000, start);
        assert!(!bandwidth.admits(start));
        assert!(!bandwidth.admits(start + seconds(0.29)));
        assert!(bandwidth.admits(start + seconds(0.31)));
    }

    #[test]
    fn a_stream_that_keeps_to_the_least_is_not_skipped() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(LIMITS);
        bandwidth.on_estimate(Some(1_000));
        for frame in 0..3000 {
            let now = start + seconds(f64::from(frame) / 30.0);
            assert!(bandwidth.admits(now), "frame {frame}");
            // An encoder overshoots a little.
            bandwidth.on_sent(bandwidth.target() as usize / 8 / 30 * 110 / 100, now);
        }
    }
}
