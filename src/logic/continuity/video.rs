//! Video goes out at the configured rate: fresh frames when there are any, else the last one, else black.
//!
//! ```text
//! start: black --frame--> fresh --none in time--> repeat --for max_repeat--> black --frame--> fresh
//! ```
//! Fresh frames keep their own time, only what fills in gets an invented one, and times never run backwards.
//!
//! How long a fresh frame is waited for, and how soon one may go out, is told by an [`Account`] of frames that are due
//! rather than by the time since the last frame: a source with jitter has intervals from well below a period to well
//! above, and a source that is a little slow must get its repeats all the same.

use std::time::Duration;

use super::formats::Fps;
use super::{Drain, END, Tick, nanos};

/// How long the last frame is repeated, unless said otherwise.
pub const MAX_REPEAT: Duration = Duration::from_secs(2);
/// How far a frame's time may be off before it is taken for a mistake, or a time of another axis.
const REACH: Duration = Duration::from_secs(1);
/// Least distance of two times: the clock of RTP must tell them apart.
const APART: Duration = Duration::from_millis(1);
/// Of fresh frames in a row, they show that the source keeps up: a slow one, which needs a repeat every few frames,
/// never gets there.
const STOCK: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out<T> {
    Fresh(T),
    /// The last frame once more.
    Repeat(T),
    Black,
}

/// What became of all frames: `taken = sent + dropped + cleared` and the one that waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VideoStats {
    /// A period if a frame waits.
    pub queued: Duration,
    pub taken: u64,
    pub sent: u64,
    /// Frames whose place a newer one took.
    pub dropped: u64,
    pub cleared: u64,
    pub repeated: u64,
    pub black: u64,
}

#[derive(Debug)]
pub struct VideoContinuity<T> {
    period: Duration,
    max_repeat: Duration,
    /// The newest frame, and its own time.
    waiting: Option<(T, Duration)>,
    /// What is repeated.
    shown: Option<T>,
    /// When a fresh frame last went out.
    shown_at: Option<Duration>,
    /// What was sent last; absent before the first tick.
    last: Option<Sent>,
    account: Account,
    /// Fresh frames in a row.
    run: u128,
    drain: Drain,
    /// All but `queued`.
    stats: VideoStats,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    /// The time it was stamped with.
    at: Duration,
    /// When it was due.
    when: Duration,
}

enum Step {
    Send,
    Drained,
}

impl<T: Clone> VideoContinuity<T> {
    pub fn new(fps: Fps, max_repeat: Duration) -> Self {
        Self {
            period: fps.period(),
            max_repeat,
            waiting: None,
            shown: None,
            shown_at: None,
            last: None,
            account: Account::new(fps.period()),
            run: 0,
            drain: Drain::Unfed,
            stats: VideoStats::default(),
        }
    }

    /// Takes a frame; a frame that waits still makes place for it, is counted and given back.
    pub fn push(&mut self, frame: T, pts: Duration) -> Option<T> {
        self.stats.taken += 1;
        self.drain
            .fed(nanos(self.period.as_nanos() * self.run) >= STOCK);
        let (dropped, _) = self.waiting.replace((frame, pts))?;
        self.stats.dropped += 1;
        Some(dropped)
    }

    /// Drops the frame that waits, and says how many that were. Until the next one comes the last is repeated.
    pub fn clear(&mut self) -> u64 {
        let frames = u64::from(self.waiting.take().is_some());
        self.stats.cleared += frames;
        self.drain.cleared();
        frames
    }

    /// When [`tick`](Self::tick) has something to say again, unless something is pushed.
    pub fn poll_timeout(&self) -> Duration {
        self.next().0
    }

    pub fn tick(&mut self, now: Duration) -> Tick<Out<T>> {
        let (when, step) = self.next();
        if when > now {
            return Tick::Wait(when);
        }
        if now >= END {
            return Tick::Wait(Duration::MAX);
        }
        match step {
            Step::Drained => {
                self.drain = Drain::Told;
                Tick::Drained
            }
            Step::Send => match self.waiting.take() {
                Some((frame, pts)) => self.fresh(frame, pts, now),
                None => self.filler(when, now),
            },
        }
    }

    pub fn stats(&self) -> VideoStats {
        VideoStats {
            queued: match self.waiting {
                Some(_) => self.period,
                None => Duration::ZERO,
            },
            ..self.stats
        }
    }

    /// What is done next if nothing is pushed, and when.
    fn next(&self) -> (Duration, Step) {
        if self.waiting.is_some() {
            return (self.account.opens(), Step::Send);
        }
        let due = self.account.closes();
        let dry = self.repeated_until().is_none_or(|until| due > until);
        match self.drain {
            Drain::Armed => (due, Step::Drained),
            Drain::Owed if dry => (due, Step::Drained),
            _ => (due, Step::Send),
        }
    }

    fn fresh(&mut self, frame: T, pts: Duration, now: Duration) -> Tick<Out<T>> {
        let at = match self.last {
            Some(last) => last.then(pts, now),
            None => pts.min(now.saturating_add(REACH)),
        };
        // A new source has a phase of its own: what the fillers left over is not for it to make up for.
        let known = self
            .shown_at
            .is_some_and(|shown| now < shown.saturating_add(STOCK));
        self.account
            .send(now, if known { Kind::Fresh } else { Kind::First });
        self.last = Some(Sent { at, when: now });
        self.shown = Some(frame.clone());
        self.shown_at = Some(now);
        self.run += 1;
        self.stats.sent += 1;
        let out = Out::Fresh(frame);
        Tick::Send { at, out }
    }

    /// What was due at `due`, without the catching up: nobody misses repeats.
    fn filler(&mut self, due: Duration, now: Duration) -> Tick<Out<T>> {
        let period = self.period.as_nanos();
        let skipped = now.saturating_sub(due).as_nanos() / period;
        let (at, when) = match self.last {
            Some(last) => (
                last.at.saturating_add(nanos(period * (skipped + 1))),
                due.saturating_add(nanos(period * skipped)),
            ),
            None => (now, now),
        };
        self.account.send(when, Kind::Filler);
        self.last = Some(Sent { at, when });
        self.run = 0;
        if self.repeated_until().is_none_or(|until| when > until) {
            self.shown = None;
        }
        let out = match &self.shown {
            Some(frame) => {
                self.stats.repeated += 1;
                Out::Repeat(frame.clone())
            }
            None => {
                self.stats.black += 1;
                Out::Black
            }
        };
        Tick::Send { at, out }
    }

    fn repeated_until(&self) -> Option<Duration> {
        Some(self.shown_at?.saturating_add(self.max_repeat))
    }
}

impl Sent {
    /// The time of a fresh frame that follows now: its own, unless that cannot be.
    fn then(self, pts: Duration, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.when);
        let step = if pts > now.saturating_add(REACH) || self.at.saturating_sub(pts) > REACH {
            elapsed
        } else if pts >= self.at.saturating_add(APART) {
            return pts;
        } else {
            // A filler took its time, or the source is late by its latency: the times go slower until the frames'
            // own are reached.
            elapsed / 2
        };
        self.at.saturating_add(step.max(APART))
    }
}

/// How many frames are due, as the time they take: it grows with time, and what is sent takes a period off.
///
/// Where a fresh frame waits it may go out as long as nothing was sent ahead of the rate; a filler must when a period and
/// three quarters are due. What lies between is for jitter: after a first frame the next ones find a period there, and
/// may come three quarters of one later or a whole one earlier without a filler or a delay. Less would make a frame that was
/// filled in for, and came after all, delay all those after it: what is early by a moment is better than late for ever. So
/// any second has at most two frames more or less than the rate.
#[derive(Debug, Clone, Copy)]
struct Account {
    period: i128,
    /// Nanoseconds that were due at `since`.
    due: i128,
    since: Duration,
}

impl Account {
    fn new(period: Duration) -> Self {
        let period = period.as_nanos() as i128;
        Self {
            period,
            due: Self::most(period),
            since: Duration::ZERO,
        }
    }

    /// A filler is sent then, so it never grows beyond.
    fn most(period: i128) -> i128 {
        period * 7 / 4
    }

    fn opens(&self) -> Duration {
        self.reaches(0)
    }

    fn closes(&self) -> Duration {
        self.reaches(Self::most(self.period))
    }

    fn reaches(&self, due: i128) -> Duration {
        let missing = u128::try_from(due - self.due).unwrap_or(0);
        self.since.saturating_add(nanos(missing))
    }

    fn send(&mut self, when: Duration, kind: Kind) {
        let passed = when.saturating_sub(self.since).as_nanos() as i128;
        let due = (self.due + passed).min(Self::most(self.period));
        let due = match kind {
            Kind::Filler => due,
            Kind::First => due.min(self.period),
            // A clock that is off by a little is none to fill in for, or to hold up.
            Kind::Fresh => {
                let drift = self.period * self.period / 16_000_000_000;
                due - (due - self.period).clamp(-drift, drift)
            }
        };
        self.due = due - self.period;
        self.since = when;
    }
}

/// What goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Filler,
    Fresh,
    /// The first fresh one of a source: the only one that was due.
    First,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Duration = Duration::from_nanos(33_333_333);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn video() -> VideoContinuity<u64> {
        VideoContinuity::new(Fps::default(), MAX_REPEAT)
    }

    /// What came out, and when.
    #[derive(Debug, Clone, PartialEq)]
    struct Seen {
        now: Duration,
        at: Duration,
        out: Out<u64>,
    }

    /// A caller that does as it is told and is never late.
    struct Caller {
        video: VideoContinuity<u64>,
        now: Duration,
        seen: Vec<Seen>,
        drained: Vec<Duration>,
    }

    impl Caller {
        fn new(video: VideoContinuity<u64>) -> Self {
            Self {
                video,
                now: Duration::ZERO,
                seen: Vec::new(),
                drained: Vec::new(),
            }
        }

        fn tick(&mut self) -> Duration {
            for _ in 0..100 {
                match self.video.tick(self.now) {
                    Tick::Send { at, out } => self.seen.push(Seen {
                        now: self.now,
                        at,
                        out,
                    }),
                    Tick::Drained => self.drained.push(self.now),
                    Tick::Wait(until) => {
                        assert!(until > self.now);
                        assert_eq!(until, self.video.poll_timeout());
                        return until;
                    }
                }
            }
            panic!("it never waits");
        }

        /// Up to `end`, but not what is due right then.
        fn until(&mut self, end: Duration) {
            while self.now < end && self.video.poll_timeout() < end {
                self.now = self.now.max(self.video.poll_timeout());
                self.tick();
            }
            self.now = end.max(self.now);
        }

        fn push_at(&mut self, frame: u64, pts: Duration, now: Duration) {
            self.until(now);
            self.video.push(frame, pts);
            self.tick();
        }

        /// Frames `first..end` of a source with this interval and this jitter of arrival.
        fn source(
            &mut self,
            from: Duration,
            frames: u64,
            interval: Duration,
            jitter: impl Fn(u64) -> u64,
        ) {
            for n in 0..frames {
                let pts = from + interval * n as u32;
                self.push_at(n, pts, pts + ms(jitter(n)));
            }
        }

        fn kinds(&self) -> String {
            let kind = |seen: &Seen| match seen.out {
                Out::Fresh(_) => 'F',
                Out::Repeat(_) => 'R',
                Out::Black => 'b',
            };
            let mut kinds: Vec<char> = self.seen.iter().map(kind).collect();
            kinds.dedup();
            kinds.into_iter().collect()
        }

        fn count(&self, from: Duration, to: Duration) -> usize {
            self.seen
                .iter()
                .filter(|seen| seen.now >= from && seen.now < to)
                .count()
        }

        fn times_increase(&self) -> bool {
            self.seen
                .windows(2)
                .all(|pair| pair[1].at >= pair[0].at + APART)
        }

        /// The fewest and the most outputs in any second that lies within the time so far.
        fn in_any_second(&self) -> (usize, usize) {
            let second = Duration::from_secs(1);
            let mut starts: Vec<_> = self.seen.iter().map(|seen| seen.now).collect();
            starts.extend(
                self.seen
                    .iter()
                    .map(|seen| seen.now + Duration::from_nanos(1)),
            );
            let last = self.now.saturating_sub(second);
            let counts = starts.iter().filter(|&&start| start <= last);
            let counts = counts.map(|&start| self.count(start, start + second));
            counts.fold((usize::MAX, 0), |(least, most), n| {
                (least.min(n), most.max(n))
            })
        }
    }

    /// Between 0 and 20, without pattern.
    fn jitter(n: u64) -> u64 {
        (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 21
    }

    #[test]
    fn the_golden_sequence_black_frames_repeats_black_frames() {
        let mut caller = Caller::new(video());
        caller.source(ms(1_005), 30, T, |_| 0);
        caller.until(ms(6_000));
        caller.source(ms(6_000), 30, T, |_| 0);
        assert_eq!(caller.kinds(), "bFRbF");
        let first = |kind: &dyn Fn(&Out<u64>) -> bool| {
            caller.seen.iter().find(|seen| kind(&seen.out)).unwrap().now
        };
        assert_eq!(first(&|out| *out == Out::Fresh(0)), ms(1_005));
        let end = ms(1_005) + T * 29;
        let repeat = first(&|out| *out == Out::Repeat(29));
        assert!(repeat > end + T && repeat < end + T * 2, "{repeat:?}");
        let black = caller
            .seen
            .iter()
            .find(|seen| seen.out == Out::Black && seen.now > end);
        let black = black.unwrap().now;
        assert!(black > end + MAX_REPEAT && black < end + MAX_REPEAT + T * 2);
        assert!(caller.times_increase());
        let (least, most) = caller.in_any_second();
        assert!(least >= 28 && most <= 32, "{least} to {most}");
    }

    #[test]
    fn v1_until_the_first_frame_it_is_black() {
        let mut caller = Caller::new(video());
        caller.until(ms(499));
        assert_eq!((caller.kinds().as_str(), caller.seen.len()), ("b", 15));
        assert_eq!(caller.seen[0].at, Duration::ZERO);
        assert_eq!(caller.seen[14].at, T * 14);
    }

    #[test]
    fn v2_with_no_new_frame_the_last_is_repeated_up_to_max_repeat() {
        let mut caller = Caller::new(VideoContinuity::new(Fps::default(), ms(300)));
        caller.push_at(7, ms(0), ms(0));
        caller.until(ms(300));
        let repeats = caller.seen[1..].iter();
        assert!(repeats.clone().all(|seen| seen.out == Out::Repeat(7)));
        assert_eq!(repeats.len(), 8);
        // The repeats are stamped where the missing frames would have been.
        assert_eq!(caller.seen[8].at, T * 8);
    }

    #[test]
    fn v3_after_max_repeat_it_is_black_and_the_stream_stays_alive() {
        let mut caller = Caller::new(VideoContinuity::new(Fps::default(), ms(300)));
        caller.push_at(7, ms(0), ms(0));
        caller.until(ms(60_000));
        assert_eq!(caller.kinds(), "FRb");
        assert!(
            caller
                .seen
                .iter()
                .all(|seen| (seen.out == Out::Black) == (seen.now > ms(300)))
        );
        assert!(caller.count(ms(50_000), ms(60_000)).abs_diff(300) <= 1);
        // The frame itself is let go.
        assert!(caller.video.shown.is_none());
    }

    #[test]
    fn v4_a_new_frame_ends_repeats_and_black_at_once() {
        for gap in [100, 10_000] {
            let mut caller = Caller::new(video());
            caller.push_at(1, ms(0), ms(0));
            caller.until(ms(gap));
            // In the middle between two fillers.
            let now = caller.seen.last().unwrap().now + T / 2;
            caller.push_at(2, now, now);
            let last = caller.seen.last().unwrap();
            assert_eq!((last.now, last.at, &last.out), (now, now, &Out::Fresh(2)));
        }
    }

    #[test]
    fn v5_a_faster_source_goes_out_at_the_rate_and_the_newest_wins() {
        let mut caller = Caller::new(video());
        caller.source(ms(0), 600, T / 2, |_| 0);
        assert_eq!(caller.kinds(), "F");
        let (least, most) = caller.in_any_second();
        assert!(least >= 28 && most <= 32, "{least} to {most}");
        let stats = caller.video.stats();
        assert!(stats.sent.abs_diff(300) <= 2, "{stats:?}");
        assert_eq!(
            stats.dropped,
            600 - stats.sent - u64::from(stats.queued > ms(0))
        );
        // What is sent is never older than a period.
        for seen in &caller.seen {
            assert!(seen.now - seen.at < T, "{seen:?}");
        }
    }

    #[test]
    fn v5_a_frame_that_is_displaced_is_given_back() {
        let mut video = video();
        assert_eq!(video.push(1, ms(0)), None);
        assert_eq!(video.push(2, ms(5)), Some(1));
        assert_eq!(
            video.tick(ms(5)),
            Tick::Send {
                at: ms(5),
                out: Out::Fresh(2)
            }
        );
        assert_eq!(video.stats().dropped, 1);
    }

    #[test]
    fn v5_a_slower_source_is_filled_up_to_the_rate() {
        for (fps, second_ns) in [
            (10, 100_000_000),
            (15, 66_666_667),
            (20, 50_000_000),
            (25, 40_000_000),
            (28, 35_714_286),
        ] {
            let mut caller = Caller::new(video());
            caller.source(ms(0), fps * 20, Duration::from_nanos(second_ns), |n| {
                jitter(n) / 2
            });
            let (least, most) = caller.in_any_second();
            assert!(least >= 28 && most <= 32, "{fps} fps: {least} to {most}");
            let stats = caller.video.stats();
            assert_eq!(stats.dropped, 0);
            assert!(
                caller.seen.len().abs_diff(600) <= 3,
                "{fps} fps: {}",
                caller.seen.len()
            );
        }
    }

    #[test]
    fn v5_a_source_at_the_rate_with_jitter_is_neither_delayed_nor_filled_nor_dropped() {
        for begin in [0, 3, 8, 14, 21, 29] {
            let mut caller = Caller::new(video());
            let from = ms(begin);
            for n in 0..3_000 {
                let pts = from + Duration::from_nanos(1_000_000_000 * n / 30);
                // The first frame is as early as can be, the second as late, then both extremes and all between.
                let late = match n {
                    0 | 3 | 4 => 0,
                    1 | 2 | 5 => 20,
                    _ => jitter(n),
                };
                let now = pts + ms(late);
                if n == 0 {
                    caller.now = now;
                }
                caller.push_at(n, pts, now);
                let last = caller.seen.last().unwrap();
                assert_eq!((last.now, last.at, &last.out), (now, pts, &Out::Fresh(n)));
            }
            assert_eq!(caller.kinds(), "F");
            assert_eq!(caller.video.stats().dropped, 0);
        }
    }

    #[test]
    fn v5_after_black_a_jittering_source_is_neither_filled_nor_dropped_whatever_its_phase() {
        for phase in 0..34 {
            let mut caller = Caller::new(video());
            for n in 0..600 {
                let pts = ms(1_000 + phase) + Duration::from_nanos(1_000_000_000 * n / 30);
                caller.push_at(n, pts, pts + ms(jitter(n)));
            }
            assert_eq!(
                (caller.kinds().as_str(), caller.video.stats().dropped),
                ("bF", 0)
            );
            let (least, most) = caller.in_any_second();
            assert!(least >= 28 && most <= 32, "{phase}: {least} to {most}");
            // Nor is it held for long, once its place is found.
            for seen in caller.seen.iter().skip(500) {
                let Out::Fresh(n) = seen.out else { continue };
                assert!(seen.now - seen.at <= ms(jitter(n)), "{phase}: {seen:?}");
            }
        }
    }

    #[test]
    fn v5_a_source_of_30000_1001_needs_no_repeat_now_and_then() {
        let mut caller = Caller::new(video());
        caller.source(ms(0), 20_000, Duration::from_nanos(33_366_667), jitter);
        assert_eq!(
            (caller.kinds().as_str(), caller.video.stats().dropped),
            ("F", 0)
        );
    }

    #[test]
    fn fresh_frames_keep_their_time_and_repeats_fit_between_them() {
        let mut caller = Caller::new(video());
        let missing = |n: u64| (40..47).contains(&n) || (90..95).contains(&n);
        for n in (0..200u64).filter(|&n| !missing(n)) {
            let pts = Duration::from_nanos(1_000_000_000 * n / 30);
            caller.push_at(n, pts, pts + ms(jitter(n) / 2));
        }
        for seen in &caller.seen {
            if let Out::Fresh(n) = seen.out {
                assert_eq!(seen.at, Duration::from_nanos(1_000_000_000 * n / 30));
            }
        }
        assert!(caller.times_increase());
    }

    #[test]
    fn times_that_jump_back_or_far_ahead_are_replaced_and_go_on_in_real_time() {
        for offset in [ms(3_600_000), ms(0)] {
            let mut caller = Caller::new(video());
            caller.until(ms(10_000));
            caller.source(ms(10_000), 30, T, |_| 0);
            for n in 30..90 {
                caller.push_at(n, offset + T * (n as u32), ms(10_000) + T * (n as u32));
            }
            assert!(caller.times_increase());
            let last = caller.seen.last().unwrap();
            assert!(last.at.abs_diff(last.now) < T, "{last:?}");
        }
    }

    #[test]
    fn times_that_are_late_by_a_latency_are_reached_after_black() {
        let mut caller = Caller::new(video());
        caller.until(ms(1_000));
        for n in 0..60 {
            let pts = ms(850) + T * n as u32;
            caller.push_at(n, pts, pts + ms(150));
        }
        // The phase of this source is that of black: each frame is held a little at first.
        caller.until(caller.now + T / 8);
        let last = caller.seen.last().unwrap();
        assert_eq!((last.at, &last.out), (ms(850) + T * 59, &Out::Fresh(59)));
        assert!(caller.times_increase());
    }

    #[test]
    fn a_late_caller_makes_up_for_no_repeats() {
        let mut caller = Caller::new(video());
        caller.push_at(1, ms(0), ms(0));
        caller.now = ms(1_000);
        caller.tick();
        assert_eq!(caller.seen.len(), 2);
        assert!(caller.seen[1].at > ms(900) && caller.seen[1].at <= ms(1_000));
        caller.until(ms(2_000));
        assert!(caller.seen.len().abs_diff(32) <= 1);
    }

    #[test]
    fn b1_stats_tell_what_waits_and_what_became_of_all_frames() {
        let mut video = video();
        assert_eq!(video.stats(), VideoStats::default());
        video.push(1, ms(0));
        assert_eq!(video.stats().queued, T);
        assert!(matches!(video.tick(ms(0)), Tick::Send { .. }));
        let stats = video.stats();
        assert_eq!((stats.queued, stats.taken, stats.sent), (ms(0), 1, 1));
    }

    #[test]
    fn b2_clear_drops_what_waits_and_counts_it() {
        let mut caller = Caller::new(video());
        caller.push_at(1, ms(0), ms(0));
        caller.video.push(2, ms(1));
        assert_eq!((caller.video.clear(), caller.video.clear()), (1, 0));
        caller.until(ms(3_000));
        assert_eq!(caller.kinds(), "FRb");
        assert_eq!(caller.video.stats().cleared, 1);
        // Nothing was consumed faster than it came.
        assert!(caller.drained.is_empty());
    }

    #[test]
    fn b3_drained_is_told_with_the_first_repeat() {
        let mut caller = Caller::new(video());
        caller.source(ms(0), 5, T, |_| 0);
        caller.until(ms(60_000));
        let repeat = caller
            .seen
            .iter()
            .find(|seen| matches!(seen.out, Out::Repeat(_)));
        assert_eq!(caller.drained, [repeat.unwrap().now]);
    }

    #[test]
    fn b4_a_source_that_needs_repeats_all_the_time_drains_once() {
        let mut caller = Caller::new(video());
        caller.source(ms(0), 500, ms(40), |_| 0);
        assert!(caller.seen.len() > 590);
        assert_eq!(caller.drained.len(), 1);
    }

    #[test]
    fn b4_drained_is_told_again_after_a_second_of_frames_or_when_it_turns_black() {
        let mut caller = Caller::new(video());
        caller.push_at(0, ms(0), ms(0));
        caller.until(ms(200));
        assert_eq!(caller.drained.len(), 1);
        caller.source(ms(200), 32, T, |_| 0);
        caller.until(ms(1_500));
        assert_eq!(caller.drained.len(), 2);
        caller.push_at(0, ms(1_500), ms(1_500));
        caller.until(ms(3_400));
        assert_eq!(caller.drained.len(), 2);
        caller.until(ms(10_000));
        assert_eq!(caller.drained.len(), 3);
        assert!(caller.drained[2] > ms(3_500));
    }

    #[test]
    fn b5_nothing_is_drained_before_the_first_frame() {
        let mut caller = Caller::new(video());
        caller.until(ms(5_000));
        assert!(caller.drained.is_empty());
    }

    #[test]
    fn b7_one_frame_waits_at_most() {
        let mut video = video();
        for n in 0..100 {
            video.push(n, ms(n));
        }
        assert_eq!(video.stats().queued, T);
        assert_eq!(video.stats().dropped, 99);
    }

    #[derive(Debug, Clone)]
    enum Op {
        /// After so many microseconds, with a time that is off by so many milliseconds.
        Push(u64, i64),
        /// The caller is late by so many milliseconds.
        Sleep(u64),
        Clear,
    }

    fn on_time() -> impl Strategy<Value = Op> {
        let off =
            prop_oneof![6 => Just(0), 1 => -2_000i64..2_000, 1 => any::<i32>().prop_map(i64::from)];
        prop_oneof![12 => (0u64..150_000, off).prop_map(|(us, off)| Op::Push(us, off)), 1 => Just(Op::Clear)]
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![8 => on_time(), 1 => (0u64..5_000).prop_map(Op::Sleep)]
    }

    fn run(fps: u32, max_repeat: Duration, ops: &[Op]) -> Caller {
        let (fps, _) = Fps::of_source(fps, 1, 240).unwrap();
        let mut caller = Caller::new(VideoContinuity::new(fps, max_repeat));
        caller.now = Duration::from_secs(10);
        for (n, op) in ops.iter().enumerate() {
            match op {
                Op::Push(us, off) => {
                    let now = caller.now + Duration::from_micros(*us);
                    let off_ms = Duration::from_millis(off.unsigned_abs());
                    let pts = match off {
                        0.. => now + off_ms,
                        _ => now.saturating_sub(off_ms),
                    };
                    caller.push_at(n as u64, pts, now);
                }
                Op::Sleep(late) => {
                    caller.now += ms(*late);
                    caller.tick();
                }
                Op::Clear => {
                    caller.video.clear();
                }
            }
            let stats = caller.video.stats();
            let waits = u64::from(stats.queued > Duration::ZERO);
            assert_eq!(
                stats.taken,
                stats.sent + stats.dropped + stats.cleared + waits
            );
        }
        caller
    }

    proptest! {
        #[test]
        fn whatever_comes_times_increase_and_all_is_counted(
            fps in 1u32..240,
            max_repeat in 0u64..500,
            ops in prop::collection::vec(any_op(), 0..100),
        ) {
            let caller = run(fps, ms(max_repeat), &ops);
            prop_assert!(caller.times_increase());
            prop_assert_eq!(caller.seen.len() as u64, {
                let stats = caller.video.stats();
                stats.sent + stats.repeated + stats.black
            });
        }

        #[test]
        fn whatever_comes_the_rate_is_kept(
            fps in 1u32..60,
            ops in prop::collection::vec(on_time(), 20..150),
        ) {
            let mut caller = run(fps, MAX_REPEAT, &ops);
            caller.until(caller.now + ms(1_000));
            let (least, most) = caller.in_any_second();
            prop_assert!(least as u32 + 2 >= fps && most as u32 <= fps + 2, "{} fps: {} to {}", fps, least, most);
        }

        #[test]
        fn no_time_overflows(pushes in prop::collection::vec((super::super::any_time(), super::super::any_time()), 0..30)) {
            let mut video = video();
            let mut last = None;
            for (pts, now) in pushes {
                video.push(0, pts);
                for _ in 0..4 {
                    match video.tick(now) {
                        Tick::Send { at, .. } => {
                            prop_assert!(last < Some(at));
                            last = Some(at);
                        }
                        Tick::Drained => {}
                        Tick::Wait(until) => {
                            prop_assert!(until > now || now == Duration::MAX);
                            break;
                        }
                    }
                }
            }
        }
    }
}
