//! Lets only whole pictures through: after a gap nothing passes until a keyframe, and one is asked for.

use std::time::{Duration, Instant};

/// How long a keyframe request is waited for before it is repeated.
const REPEAT: Duration = Duration::from_millis(300);

/// What to do with an encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    DropAndRequestKeyframe,
}

#[derive(Debug, Clone)]
pub struct FrameGate {
    /// Nothing passes until a keyframe comes.
    closed: bool,
    /// When a keyframe was last asked for, since the gate closed.
    asked: Option<Instant>,
    /// Frames dropped.
    pub dropped: u64,
}

impl Default for FrameGate {
    fn default() -> Self {
        Self {
            closed: true,
            asked: None,
            dropped: 0,
        }
    }
}

impl FrameGate {
    pub fn check(&mut self, contiguous: bool, keyframe: bool, now: Instant) -> Verdict {
        if keyframe {
            self.closed = false;
            self.asked = None;
            return Verdict::Pass;
        }
        if contiguous && !self.closed {
            return Verdict::Pass;
        }
        self.closed = true;
        self.dropped += 1;
        match self.ask(now) {
            true => Verdict::DropAndRequestKeyframe,
            false => Verdict::Drop,
        }
    }

    /// Something behind the gate lost a frame: nothing passes until a keyframe. Says whether to ask for it.
    pub fn close(&mut self, now: Instant) -> bool {
        self.closed = true;
        self.ask(now)
    }

    fn ask(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|asked| now >= asked + REPEAT);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// When a request that had no answer is to be repeated.
    pub fn repeat_at(&self) -> Option<Instant> {
        self.asked
            .filter(|_| self.closed)
            .map(|asked| asked + REPEAT)
    }

    /// Says whether a request is to be repeated now.
    pub fn repeat(&mut self, now: Instant) -> bool {
        self.repeat_at().is_some_and(|at| at <= now) && self.ask(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_before_the_first_keyframe() {
        let now = Instant::now();
        let mut gate = FrameGate::default();
        assert_eq!(
            gate.check(true, false, now),
            Verdict::DropAndRequestKeyframe
        );
        assert_eq!(gate.check(true, false, now), Verdict::Drop);
        assert_eq!(gate.check(true, true, now), Verdict::Pass);
        assert_eq!(gate.check(true, false, now), Verdict::Pass);
        assert_eq!(gate.dropped, 2);
    }

    #[test]
    fn a_gap_closes_the_gate_until_a_keyframe() {
        let now = Instant::now();
        let mut gate = FrameGate::default();
        gate.check(true, true, now);
        assert_eq!(
            gate.check(false, false, now),
            Verdict::DropAndRequestKeyframe
        );
        assert_eq!(gate.check(true, false, now), Verdict::Drop);
        assert_eq!(gate.check(false, true, now), Verdict::Pass);
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_an_answered_one_is_not() {
        let now = Instant::now();
        let mut gate = FrameGate::default();
        gate.check(true, false, now);
        assert!(!gate.repeat(now + Duration::from_millis(299)));
        assert!(gate.repeat(now + Duration::from_millis(300)));
        assert!(!gate.repeat(now + Duration::from_millis(301)));
        gate.check(true, true, now + Duration::from_millis(310));
        assert_eq!(gate.repeat_at(), None);
    }
}
