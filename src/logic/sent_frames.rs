//! What became of the frames that were sent to a remote session, where only its results tell: which were judged, and which were
//! skipped, lost or are late.
//!
//! The server tells its own seconds, of a clock that begins with the first frame it received. A frame and its result are matched
//! as in [`pairing`](crate::logic::pairing); a result that fits nothing is that of the frame that is out longest. In the
//! [`Counts`], `received = inferred + dropped + failed + pending` holds at every moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::logic::admission::{Counts, DropReason};
use crate::logic::pairing::{MISALIGNED, distance};

/// Frames that are out at a time, and those that are remembered.
const MOST: usize = 512;

/// The accounts of one stream that is sent.
#[derive(Debug)]
pub struct SentFrames {
    /// A frame that has no result by then is late; `None` waits for good.
    deadline: Option<Duration>,
    /// Oldest first.
    out: VecDeque<Sent>,
    /// Seconds of frames whose fate is known: a result of theirs is nobody else's.
    gone: VecDeque<f64>,
    /// Of the first frame that had any.
    first: Option<f64>,
    /// Seconds of the server's clock minus those of ours.
    offset: Option<f64>,
    /// Results one after the other that fitted no frame.
    misfits: usize,
    /// `pending` is counted when asked for.
    counts: Counts,
    /// Since the last result.
    dropped_since: u64,
}

#[derive(Debug)]
struct Sent {
    seconds: Option<f64>,
    at: Instant,
}

/// Whose result it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Frame {
        /// From the frame's departure to its result.
        latency: Duration,
        /// Frames dropped since the previous result.
        dropped: u64,
    },
    /// It is of a frame that is late or was skipped, or of none.
    Stray,
}

impl SentFrames {
    pub fn new(deadline: Option<Duration>) -> Self {
        Self {
            deadline,
            out: VecDeque::new(),
            gone: VecDeque::new(),
            first: None,
            offset: None,
            misfits: 0,
            counts: Counts::default(),
            dropped_since: 0,
        }
    }

    /// A frame is on its way.
    pub fn sent(&mut self, seconds: Option<f64>, now: Instant) {
        self.expire(now);
        if self.out.len() == MOST {
            self.drop_oldest(DropReason::Late);
        }
        let seconds = seconds.filter(|seconds| seconds.is_finite());
        self.first = self.first.or(seconds);
        self.counts.received += 1;
        self.out.push_back(Sent { seconds, at: now });
    }

    /// A frame came that is not going to be sent.
    pub fn turned_away(&mut self, reason: DropReason) {
        self.counts.received += 1;
        self.dropped(reason);
    }

    /// A result came, with the server's seconds. Frames that were sent before its own were skipped: the server works in order.
    pub fn result(&mut self, seconds: Option<f64>, failed: bool, now: Instant) -> Match {
        self.expire(now);
        let seconds = seconds.filter(|seconds| seconds.is_finite());
        let Some(index) = self.of(seconds) else {
            return Match::Stray;
        };
        for _ in 0..index {
            self.drop_oldest(DropReason::Busy);
        }
        let Some(sent) = self.take_oldest() else {
            return Match::Stray;
        };
        match failed {
            true => self.counts.failed += 1,
            false => self.counts.inferred += 1,
        }
        Match::Frame {
            latency: now.saturating_duration_since(sent.at),
            dropped: std::mem::take(&mut self.dropped_since),
        }
    }

    /// Gives up the frames whose time is over.
    pub fn expire(&mut self, now: Instant) {
        let Some(deadline) = self.deadline else {
            return;
        };
        let is_late = |sent: &Sent| now.saturating_duration_since(sent.at) >= deadline;
        while self.out.front().is_some_and(is_late) {
            self.drop_oldest(DropReason::Late);
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.out.front()?.at.checked_add(self.deadline?)
    }

    /// No result is waited for: a flush, or the end. Frames that are sent afterwards count as before.
    pub fn close(&mut self, reason: DropReason) {
        while !self.out.is_empty() {
            self.drop_oldest(reason);
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            pending: self.out.len() as u64,
            ..self.counts
        }
    }

    /// The frame that a result is of, among those that are out.
    fn of(&mut self, seconds: Option<f64>) -> Option<usize> {
        let oldest = (!self.out.is_empty()).then_some(0);
        let Some(seconds) = seconds else {
            return oldest;
        };
        // The server's clock begins with the first frame, if that arrived.
        if self.offset.is_none()
            && let Some(first) = self.first
        {
            self.offset = Some(-first);
            let fits = self.at(seconds).is_some() || self.is_gone(seconds);
            if !fits {
                self.align(seconds);
            }
        }
        if let Some(index) = self.at(seconds) {
            self.misfits = 0;
            return Some(index);
        }
        if self.is_gone(seconds) {
            return None;
        }
        self.misfits += 1;
        if self.misfits >= MISALIGNED {
            self.align(seconds);
        }
        oldest
    }

    /// Takes a result for that of the frame that is out longest.
    fn align(&mut self, seconds: f64) {
        if let Some(oldest) = self.out.front().and_then(|sent| sent.seconds) {
            self.offset = Some(seconds - oldest);
            self.misfits = 0;
        }
    }

    /// The nearest frame that is near enough.
    fn at(&self, seconds: f64) -> Option<usize> {
        let ours = seconds - self.offset?;
        let near = self.out.iter().enumerate();
        let near = near.filter_map(|(index, sent)| Some((index, distance(ours, sent.seconds?)?)));
        let (index, _) = near.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(index)
    }

    fn is_gone(&self, seconds: f64) -> bool {
        let ours = self.offset.map(|offset| seconds - offset);
        let mut gone = self.gone.iter().rev();
        ours.is_some_and(|ours| gone.any(|gone| distance(ours, *gone).is_some()))
    }

    fn drop_oldest(&mut self, reason: DropReason) {
        if self.take_oldest().is_some() {
            self.dropped(reason);
        }
    }

    fn take_oldest(&mut self) -> Option<Sent> {
        let sent = self.out.pop_front()?;
        if let Some(seconds) = sent.seconds {
            if self.gone.len() == MOST {
                self.gone.pop_front();
            }
            self.gone.push_back(seconds);
        }
        Some(sent)
    }

    fn dropped(&mut self, reason: DropReason) {
        let dropped = &mut self.counts.dropped;
        let count = match reason {
            DropReason::Busy => &mut dropped.busy,
            DropReason::Late => &mut dropped.late,
            DropReason::Flush => &mut dropped.flush,
            DropReason::Closed => &mut dropped.closed,
        };
        *count += 1;
        self.dropped_since += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::admission::Dropped;
    use proptest::prelude::*;

    const DEADLINE: Duration = Duration::from_secs(2);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn frames() -> (SentFrames, Instant) {
        (SentFrames::new(Some(DEADLINE)), Instant::now())
    }

    fn frame(latency: u64, dropped: u64) -> Match {
        let latency = ms(latency);
        Match::Frame { latency, dropped }
    }

    #[test]
    fn a_result_is_of_the_frame_with_its_time_and_those_before_were_skipped() {
        let (mut sent, now) = frames();
        for n in 0..6 {
            sent.sent(Some(100.0 + n as f64 / 30.0), now + ms(33 * n));
        }
        let now = now + ms(200);
        assert_eq!(sent.result(Some(0.0), false, now), frame(200, 0));
        let third = 3.0 / 30.0 - 1.0 / 90_000.0;
        assert_eq!(sent.result(Some(third), true, now), frame(101, 2));
        assert_eq!(sent.result(Some(third), true, now), Match::Stray);
        let counts = Counts {
            received: 6,
            inferred: 1,
            failed: 1,
            dropped: Dropped {
                busy: 2,
                ..Dropped::default()
            },
            pending: 2,
        };
        assert_eq!(sent.counts(), counts);
    }

    #[test]
    fn a_server_that_skipped_its_first_frames_is_understood() {
        let (mut sent, now) = frames();
        for n in 0..6 {
            sent.sent(Some(7.0 + n as f64), now);
        }
        assert_eq!(sent.result(Some(3.0), false, now), frame(0, 3));
        assert_eq!(sent.result(Some(4.0), false, now), frame(0, 0));
    }

    #[test]
    fn a_clock_of_another_beginning_is_that_of_the_oldest_frame() {
        let (mut sent, now) = frames();
        for n in 0..6 {
            sent.sent(Some(n as f64), now);
        }
        assert_eq!(sent.result(Some(500.25), false, now), frame(0, 0));
        assert_eq!(sent.result(Some(502.25), false, now), frame(0, 1));
    }

    #[test]
    fn what_has_no_result_in_time_is_late_and_its_result_a_stray() {
        let (mut sent, now) = frames();
        sent.sent(Some(0.0), now);
        sent.sent(Some(1.0), now + ms(500));
        assert_eq!(sent.deadline(), Some(now + DEADLINE));
        sent.expire(now + DEADLINE - ms(1));
        assert_eq!(sent.counts().pending, 2);
        sent.expire(now + DEADLINE);
        assert_eq!((sent.counts().pending, sent.counts().dropped.late), (1, 1));
        let late = sent.result(Some(0.0), false, now + DEADLINE);
        assert_eq!(late, Match::Stray);
        let next = sent.result(Some(1.0), false, now + DEADLINE);
        assert_eq!(next, frame(1_500, 1));
        assert_eq!(sent.deadline(), None);
        let mut patient = SentFrames::new(None);
        patient.sent(None, now);
        patient.expire(now + 1_000 * DEADLINE);
        assert_eq!((patient.counts().pending, patient.deadline()), (1, None));
    }

    #[test]
    fn what_does_not_know_its_time_goes_by_turns() {
        let (mut sent, now) = frames();
        for seconds in [None, Some(f64::NAN), Some(2.0), None] {
            sent.sent(seconds, now);
        }
        for seconds in [None, Some(f64::INFINITY)] {
            assert_eq!(sent.result(seconds, false, now), frame(0, 0));
        }
        assert_eq!(sent.result(Some(0.0), false, now), frame(0, 0));
        assert_eq!(sent.result(Some(77.0), false, now), frame(0, 0));
        assert_eq!(sent.result(None, false, now), Match::Stray);
        assert_eq!(sent.result(Some(78.0), false, now), Match::Stray);
    }

    #[test]
    fn a_clock_that_jumps_is_followed_after_a_while() {
        let (mut sent, now) = frames();
        let result = |sent: &mut SentFrames, n: u32, jump: f64| {
            sent.result(Some(f64::from(n) + jump), false, now)
        };
        for n in 0..30 {
            sent.sent(Some(f64::from(n)), now);
        }
        assert_eq!(result(&mut sent, 0, 0.0), frame(0, 0));
        for n in 1..=MISALIGNED as u32 {
            assert_eq!(result(&mut sent, n, 1234.5), frame(0, 0));
        }
        assert_eq!(result(&mut sent, 12, 1234.5), frame(0, 3));
    }

    #[test]
    fn what_is_out_has_an_end() {
        let mut sent = SentFrames::new(None);
        let now = Instant::now();
        for n in 0..2_000 {
            sent.sent(Some(f64::from(n)), now);
        }
        let counts = sent.counts();
        assert_eq!((counts.pending, counts.dropped.late), (512, 1_488));
        assert_eq!((sent.out.len(), sent.gone.len()), (512, 512));
        sent.turned_away(DropReason::Closed);
        sent.close(DropReason::Flush);
        let counts = sent.counts();
        assert_eq!((counts.pending, counts.dropped.flush), (0, 512));
        assert_eq!((counts.dropped.closed, counts.received), (1, 2_001));
        assert_eq!(sent.result(Some(1_999.0), false, now), Match::Stray);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Sent(Option<f64>),
        TurnedAway(DropReason),
        Result(Option<f64>, bool),
        Expire,
        Close(DropReason),
    }

    fn step() -> impl Strategy<Value = Step> {
        let seconds = || prop::option::weighted(0.9, (0u32..200).prop_map(|n| f64::from(n) / 10.0));
        let reason = || {
            prop::sample::select(vec![
                DropReason::Busy,
                DropReason::Late,
                DropReason::Flush,
                DropReason::Closed,
            ])
        };
        prop_oneof![
            8 => seconds().prop_map(Step::Sent),
            6 => (seconds(), prop::bool::ANY).prop_map(|(seconds, failed)| Step::Result(seconds, failed)),
            1 => reason().prop_map(Step::TurnedAway),
            1 => Just(Step::Expire),
            1 => reason().prop_map(Step::Close),
        ]
    }

    proptest! {
        #[test]
        fn the_books_balance_at_every_moment(steps in prop::collection::vec((step(), 0u64..300), 0..300)) {
            let (mut sent, mut now) = frames();
            let (mut received, mut results, mut told_dropped) = (0, 0, 0);
            for (step, after) in steps {
                now += ms(after);
                match step {
                    Step::Sent(seconds) => {
                        sent.sent(seconds, now);
                        received += 1;
                    }
                    Step::TurnedAway(reason) => {
                        sent.turned_away(reason);
                        received += 1;
                    }
                    Step::Result(seconds, failed) => {
                        if let Match::Frame { latency, dropped } = sent.result(seconds, failed, now) {
                            prop_assert!(latency < DEADLINE);
                            results += 1;
                            told_dropped += dropped;
                        }
                    }
                    Step::Expire => sent.expire(now),
                    Step::Close(reason) => sent.close(reason),
                }
                let counts = sent.counts();
                prop_assert_eq!(counts.received, received);
                let known = counts.inferred + counts.failed + counts.dropped.total();
                prop_assert_eq!(counts.received, known + counts.pending);
                prop_assert_eq!(counts.inferred + counts.failed, results);
                prop_assert_eq!(told_dropped + sent.dropped_since, counts.dropped.total());
            }
        }

        #[test]
        fn a_server_that_skips_and_loses_is_accounted_for_frame_by_frame(
            fates in prop::collection::vec((0u8..4, -1i32..=1), 1..300), behind in 0usize..20,
        ) {
            let (mut sent, start) = frames();
            let at = |n: usize| n as f64 / 30.0;
            let mut inferred = 0;
            for n in 0..fates.len() + behind {
                let now = start + Duration::from_secs_f64(at(n));
                if n < fates.len() {
                    sent.sent(Some(50.0 + at(n)), now);
                }
                // The first one is judged, of the others some.
                let Some(judged) = n.checked_sub(behind).filter(|&n| n == 0 || fates[n].0 > 1) else {
                    continue;
                };
                inferred += 1;
                let tick = f64::from(fates[judged].1) / 90_000.0;
                let result = sent.result(Some(at(judged) + tick), false, now);
                let is_right = matches!(result, Match::Frame { latency, .. }
                    if latency.abs_diff(Duration::from_secs_f64(at(behind))) < ms(1));
                prop_assert!(is_right, "{:?}", result);
            }
            prop_assert_eq!(sent.counts().inferred, inferred);
        }
    }
}
