//! Audio goes out a period each period, by media time: whatever the cadence in which it came.
//!
//! ```text
//! start: silence --data--> data --none left--> nothing --longer than the tolerance--> silence --data--> data
//! ```
//! A piece that comes less than a period late is late, and no gap comes of it: it is stamped where the previous one
//! ended. So sources whose pieces are shorter than a period, or come unevenly, have gapless times. And what is left
//! of a period waits for its rest just as long before it is padded.

use std::collections::VecDeque;
use std::time::Duration;

use super::formats::{
    DEFAULT_CHANNELS, DEFAULT_RATE, FormatError, MAX_CHANNELS, MAX_RATE, MIN_RATE,
};
use super::{Drain, END, Tick, nanos};

/// What a caller that is late may send at once, beyond the period that is due. Later than that, it goes on from now:
/// who takes what is sent would have no room for more.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Periods that are a stock to draw on; pieces of a live source, 20 ms or so long, are none.
const STOCK: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTerms {
    /// Frames a second.
    pub rate: u32,
    pub channels: u32,
    /// Length of what goes out at a time. If that is no whole number of frames, some periods have one more.
    pub period: Duration,
    /// How long nothing is sent when the data ends, before silence is.
    pub silence_tolerance: Duration,
    /// Most that waits.
    pub capacity: Duration,
}

impl Default for AudioTerms {
    fn default() -> Self {
        Self {
            rate: DEFAULT_RATE,
            channels: DEFAULT_CHANNELS,
            period: Duration::from_millis(20),
            silence_tolerance: Duration::from_millis(100),
            capacity: Duration::from_secs(10),
        }
    }
}

/// A period of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Interleaved, always a whole period.
    pub samples: Vec<i16>,
    /// How many frames are data; those after them are padding. 0 is silence.
    pub data_frames: usize,
}

impl Period {
    pub fn is_silence(&self) -> bool {
        self.data_frames == 0
    }
}

/// What became of all frames: `taken = sent + cleared` and those that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AudioStats {
    pub queued: Duration,
    pub taken: u64,
    pub sent: u64,
    pub cleared: u64,
    /// Frames of silence that completed a period of data.
    pub padding: u64,
    /// Frames of silence in whole periods.
    pub silence: u64,
}

#[derive(Debug)]
pub struct AudioContinuity {
    terms: AudioTerms,
    samples: VecDeque<i16>,
    /// Where the running timeline began; absent before the first tick or push.
    base: Option<Duration>,
    /// Periods sent since then.
    periods: u64,
    /// Silence goes out.
    silent: bool,
    drain: Drain,
    /// All but `queued`.
    stats: AudioStats,
}

enum Step {
    Send,
    Drained,
    BeginSilence,
}

impl AudioContinuity {
    pub fn new(terms: AudioTerms) -> Result<Self, FormatError> {
        if !(MIN_RATE..=MAX_RATE).contains(&terms.rate) {
            return Err(FormatError::Rate(terms.rate));
        }
        if !(1..=MAX_CHANNELS).contains(&terms.channels) {
            return Err(FormatError::Channels(terms.channels));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&terms.period) {
            return Err(FormatError::Period(terms.period));
        }
        if terms.capacity < terms.period {
            return Err(FormatError::Capacity(terms.capacity, terms.period));
        }
        Ok(Self {
            terms,
            samples: VecDeque::new(),
            base: None,
            periods: 0,
            silent: true,
            drain: Drain::Unfed,
            stats: AudioStats::default(),
        })
    }

    /// Takes as many whole frames as there is room for, and says how many.
    pub fn push(&mut self, samples: &[i16], now: Duration) -> usize {
        let frames = (samples.len() / self.channels()).min(self.room());
        if frames == 0 {
            return 0;
        }
        let gap_at = self.due().saturating_add(self.terms.period);
        if self.samples.is_empty() && (self.base.is_none() || now >= gap_at) {
            self.go_on_from(now);
        }
        self.silent = false;
        self.samples.extend(&samples[..frames * self.channels()]);
        self.stats.taken += frames as u64;
        let stock = (STOCK * self.frames_of_next()).min(self.capacity());
        self.drain.fed(self.queued() >= stock);
        frames
    }

    /// Frames that there is room for.
    pub fn room(&self) -> usize {
        self.capacity() - self.queued()
    }

    /// Empties the queue, and says how many frames went. Silence follows with the next period, without the tolerance of a
    /// gap that nobody wanted: an interruption is to be heard.
    pub fn clear(&mut self) -> u64 {
        let frames = self.queued() as u64;
        self.silent = true;
        self.samples.clear();
        self.stats.cleared += frames;
        self.drain.cleared();
        frames
    }

    /// When [`tick`](Self::tick) has something to say again, unless something is pushed.
    pub fn poll_timeout(&self) -> Duration {
        self.next().0
    }

    pub fn tick(&mut self, now: Duration) -> Tick<Period> {
        if now >= END {
            return Tick::Wait(Duration::MAX);
        }
        loop {
            let (when, step) = self.next();
            if when > now {
                return Tick::Wait(when);
            }
            match step {
                Step::Send => {
                    let late = now.saturating_sub(self.due());
                    if self.base.is_none() || late > self.terms.period + CATCH_UP {
                        self.go_on_from(now);
                    }
                    let at = self.due();
                    let out = self.take_period();
                    return Tick::Send { at, out };
                }
                Step::Drained => {
                    self.drain = Drain::Told;
                    return Tick::Drained;
                }
                Step::BeginSilence => {
                    self.silent = true;
                    self.go_on_from(when);
                }
            }
        }
    }

    pub fn stats(&self) -> AudioStats {
        AudioStats {
            queued: self.time_of(self.queued() as u128),
            ..self.stats
        }
    }

    /// What is done next if nothing is pushed, and when.
    fn next(&self) -> (Duration, Step) {
        let due = self.due();
        let after = |wait| due.saturating_add(wait);
        // Until when a period may still be completed.
        let grace = self.terms.period.min(self.terms.silence_tolerance);
        if self.silent || self.queued() >= self.frames_of_next() {
            (due, Step::Send)
        } else if self.drain == Drain::Armed {
            (due, Step::Drained)
        } else if !self.samples.is_empty() {
            (after(grace), Step::Send)
        } else if self.drain == Drain::Owed {
            (after(grace), Step::Drained)
        } else {
            (after(self.terms.silence_tolerance), Step::BeginSilence)
        }
    }

    fn take_period(&mut self) -> Period {
        let frames = self.frames_of_next();
        let data_frames = frames.min(self.queued());
        let data = self.samples.drain(..data_frames * self.channels());
        let mut samples: Vec<i16> = data.collect();
        samples.resize(frames * self.channels(), 0);
        self.periods += 1;
        self.stats.sent += data_frames as u64;
        let filled = (frames - data_frames) as u64;
        match data_frames {
            0 => self.stats.silence += filled,
            _ => self.stats.padding += filled,
        }
        Period {
            samples,
            data_frames,
        }
    }

    /// The next period begins at this time, which is past the end of the last one.
    fn go_on_from(&mut self, time: Duration) {
        self.base = Some(time);
        self.periods = 0;
    }

    /// Where the last period ended, which is when the next is due.
    fn due(&self) -> Duration {
        let media = self.time_of(self.frames_before(self.periods));
        self.base
            .map_or(Duration::ZERO, |base| base.saturating_add(media))
    }

    /// Frames in the first `periods` of the timeline. Counted from its beginning, so that no remainder is lost.
    fn frames_before(&self, periods: u64) -> u128 {
        u128::from(periods) * self.frame_nanos(self.terms.period) / 1_000_000_000
    }

    fn frames_of_next(&self) -> usize {
        (self.frames_before(self.periods + 1) - self.frames_before(self.periods)) as usize
    }

    fn time_of(&self, frames: u128) -> Duration {
        nanos(frames * 1_000_000_000 / u128::from(self.terms.rate))
    }

    fn capacity(&self) -> usize {
        let frames = self
            .frame_nanos(self.terms.capacity)
            .div_ceil(1_000_000_000);
        // Times the channels it must be a number still.
        usize::try_from(frames).map_or(usize::MAX / 64, |frames| frames.min(usize::MAX / 64))
    }

    /// Frames in so much time, in billionths.
    fn frame_nanos(&self, time: Duration) -> u128 {
        time.as_nanos() * u128::from(self.terms.rate)
    }

    fn queued(&self) -> usize {
        self.samples.len() / self.channels()
    }

    fn channels(&self) -> usize {
        self.terms.channels as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: [u32; 9] = [
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
    ];

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// 1000 frames a second, so that a frame is a millisecond.
    fn terms() -> AudioTerms {
        AudioTerms {
            rate: 1_000,
            channels: 1,
            ..AudioTerms::default()
        }
    }

    fn audio() -> AudioContinuity {
        AudioContinuity::new(terms()).unwrap()
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Seen {
        now: Duration,
        at: Duration,
        data: usize,
        samples: Vec<i16>,
    }

    /// A caller that does as it is told and is never late.
    struct Caller {
        audio: AudioContinuity,
        now: Duration,
        seen: Vec<Seen>,
        drained: Vec<Duration>,
        /// Frames that were taken, each a number of its own.
        pushed: usize,
    }

    impl Caller {
        fn new(audio: AudioContinuity) -> Self {
            Self {
                audio,
                now: Duration::ZERO,
                seen: Vec::new(),
                drained: Vec::new(),
                pushed: 0,
            }
        }

        /// One that is past the silence at the beginning: `frames` went out from 0 on, and nothing waits.
        fn after_data(frames: usize) -> Self {
            let mut caller = Self::new(audio());
            caller.push(frames);
            caller.until(ms(frames as u64));
            caller
        }

        fn tick(&mut self) {
            for _ in 0..100_000 {
                match self.audio.tick(self.now) {
                    Tick::Send { at, out } => self.seen.push(Seen {
                        now: self.now,
                        at,
                        data: out.data_frames,
                        samples: out.samples,
                    }),
                    Tick::Drained => self.drained.push(self.now),
                    Tick::Wait(until) => {
                        assert!(until > self.now);
                        assert_eq!(until, self.audio.poll_timeout());
                        return;
                    }
                }
            }
            panic!("it never waits");
        }

        /// Up to `end`, but not what is due right then.
        fn until(&mut self, end: Duration) {
            while self.now < end && self.audio.poll_timeout() < end {
                self.now = self.now.max(self.audio.poll_timeout());
                self.tick();
            }
            self.now = end.max(self.now);
        }

        fn push(&mut self, frames: usize) -> usize {
            let channels = self.audio.channels();
            let number = |n: usize| ((self.pushed + n / channels) % 30_000 + 1) as i16;
            let samples: Vec<i16> = (0..frames * channels).map(number).collect();
            let taken = self.audio.push(&samples, self.now);
            self.pushed += taken;
            self.tick();
            taken
        }

        fn push_at(&mut self, frames: usize, now: Duration) -> usize {
            self.until(now);
            self.push(frames)
        }

        fn data(&self) -> usize {
            self.seen.iter().map(|seen| seen.data).sum()
        }

        /// When and what, as `time:data frames`.
        fn told(&self, from: Duration) -> String {
            let seen = self.seen.iter().filter(|seen| seen.now >= from);
            let told = seen.map(|seen| {
                assert_eq!(seen.samples.len(), 20 * self.audio.channels());
                format!("{}:{}", seen.at.as_millis(), seen.data)
            });
            told.collect::<Vec<_>>().join(" ")
        }

        /// Each period begins where the one before ended, or later.
        fn times_increase(&self) -> bool {
            let audio = &self.audio;
            let frames = |seen: &Seen| (seen.samples.len() / audio.channels()) as u128;
            self.seen.windows(2).all(|pair| {
                let end = pair[0].at + audio.time_of(frames(&pair[0]));
                pair[1].at > pair[0].at && pair[1].at + Duration::from_nanos(2) >= end
            })
        }
    }

    #[test]
    fn the_golden_sequence_silence_data_nothing_silence_data() {
        let mut caller = Caller::new(audio());
        for n in 0..5 {
            caller.push_at(20, ms(45 + n * 20));
        }
        caller.push_at(20, ms(300));
        caller.push_at(20, ms(320));
        caller.until(ms(360));
        assert_eq!(
            caller.told(ms(0)),
            // Silence, data when the period of silence is over,
            "0:0 20:0 40:0 60:20 80:20 100:20 120:20 140:20 \
             260:0 280:0 300:20 320:20",
            // 160 to 260 nothing, silence from there, data again.
        );
        assert!(caller.seen.iter().all(|seen| seen.now == seen.at));
    }

    #[test]
    fn a1_until_the_first_data_silence_is_sent() {
        let mut caller = Caller::new(audio());
        caller.now = ms(7);
        caller.until(ms(1_007));
        assert_eq!((caller.seen.len(), caller.data()), (50, 0));
        assert_eq!(caller.seen[0].at, ms(7));
        assert!(caller.seen.iter().all(|seen| seen.samples == [0; 20]));
        assert!(caller.audio.tick(ms(1_007)) != Tick::Drained);
    }

    #[test]
    fn a2_within_the_tolerance_nothing_is_sent() {
        let mut caller = Caller::after_data(100);
        assert_eq!(caller.told(ms(0)), "0:20 20:20 40:20 60:20 80:20");
        caller.until(ms(200));
        assert_eq!(caller.seen.len(), 5);
        caller.push_at(40, ms(200));
        caller.until(ms(240));
        assert_eq!(caller.told(ms(100)), "200:20 220:20");
    }

    #[test]
    fn a3_after_the_tolerance_silence_is_sent_until_data_returns() {
        let mut caller = Caller::after_data(20);
        caller.until(ms(1_000));
        assert_eq!(caller.seen[1].at, ms(120));
        assert_eq!((caller.seen.len(), caller.data()), (1 + 44, 20));
        caller.push_at(60, ms(1_000));
        caller.until(ms(1_100));
        assert_eq!(caller.told(ms(1_000)), "1000:20 1020:20 1040:20");
    }

    #[test]
    fn a3_without_tolerance_there_is_always_data_or_silence() {
        let terms = AudioTerms {
            silence_tolerance: Duration::ZERO,
            ..terms()
        };
        let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
        caller.push(30);
        caller.push_at(20, ms(65));
        caller.until(ms(120));
        assert_eq!(caller.told(ms(0)), "0:20 20:10 40:0 60:0 80:20 100:0");
    }

    #[test]
    fn a4_what_is_left_at_a_gap_is_padded_to_a_period() {
        let mut caller = Caller::after_data(25);
        caller.until(ms(130));
        assert_eq!(caller.told(ms(0)), "0:20 20:5");
        assert_eq!(caller.seen[1].samples[..6], [21, 22, 23, 24, 25, 0]);
        assert_eq!(caller.audio.stats().padding, 15);
        // The gap begins where the padding ends.
        caller.until(ms(170));
        assert_eq!(caller.told(ms(130)), "140:0 160:0");
    }

    #[test]
    fn a4_a_piece_less_than_a_period_is_completed_if_the_rest_is_in_time() {
        let mut caller = Caller::new(audio());
        for n in 0..10 {
            caller.push_at(10, ms(n * 10));
        }
        caller.until(ms(99));
        assert_eq!(caller.told(ms(0)), "0:20 20:20 40:20 60:20 80:20");
        assert_eq!(caller.audio.stats().padding, 0);
    }

    #[test]
    fn a4_padding_makes_no_drift() {
        let terms = AudioTerms {
            rate: 11_025,
            ..terms()
        };
        let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
        // 400 times a period and a bit.
        for n in 0..400 {
            caller.push_at(227, ms(n * 60));
        }
        caller.until(ms(24_090));
        let stats = caller.audio.stats();
        assert_eq!((stats.sent, stats.silence), (400 * 227, 220));
        assert!(
            (400 * 213..=400 * 214 + 1).contains(&stats.padding),
            "{stats:?}"
        );
        let last = caller.seen.iter().rfind(|seen| seen.data > 0).unwrap();
        assert!(last.at.abs_diff(ms(399 * 60 + 20)) < ms(1), "{last:?}");
        assert!(caller.times_increase());
    }

    #[test]
    fn a5_data_resumes_at_once_and_all_is_as_before() {
        for gap in [30, 99, 101, 5_000] {
            let mut caller = Caller::after_data(40);
            let back = ms(40 + gap);
            caller.until(back);
            let silence = caller.seen.len();
            caller.push(200);
            caller.until(back + ms(300));
            let data: Vec<_> = caller.seen[silence..]
                .iter()
                .filter(|seen| seen.data > 0)
                .collect();
            assert!(
                data[0].at >= back && data[0].at < back + ms(20),
                "{gap}: {:?}",
                data[0]
            );
            // No silence comes between, and the next gap is tolerated like the first.
            assert_eq!(data.len(), 10);
            let end = data[9].at + ms(20);
            assert_eq!(caller.seen[silence + 9].at, data[9].at);
            caller.until(end + ms(101));
            assert_eq!(caller.seen.last().unwrap().at, end + ms(100));
        }
    }

    #[test]
    fn a6_a_burst_leaves_in_real_time() {
        let mut caller = Caller::new(audio());
        caller.push(3_000);
        assert_eq!(caller.audio.stats().queued, ms(2_980));
        caller.until(ms(3_000));
        assert_eq!((caller.seen.len(), caller.data()), (150, 3_000));
        for (n, seen) in caller.seen.iter().enumerate() {
            assert_eq!((seen.now, seen.at), (ms(n as u64 * 20), ms(n as u64 * 20)));
        }
    }

    #[test]
    fn a6_all_that_is_pushed_is_sent_in_order_whatever_the_cadence() {
        let mut caller = Caller::new(audio());
        let pieces = [7, 1, 90, 20, 3, 333, 12, 60];
        let mut now = 0;
        for n in 0..200 {
            now += [20, 0, 55, 3, 130, 1][n % 6];
            caller.push_at(pieces[n % 8], ms(now as u64));
        }
        caller.until(caller.now + ms(20_000));
        let data = caller
            .seen
            .iter()
            .flat_map(|seen| &seen.samples[..seen.data]);
        assert!(
            data.copied()
                .eq((1..=caller.pushed).map(|n| ((n - 1) % 30_000 + 1) as i16))
        );
        assert!(caller.pushed > 10_000 && caller.audio.queued() == 0);
    }

    #[test]
    fn a6_a_late_caller_catches_up_within_bounds() {
        let mut caller = Caller::new(audio());
        caller.push(2_000);
        caller.now = ms(180);
        caller.tick();
        assert_eq!(caller.seen.len(), 10);
        assert_eq!(caller.seen[9].at, ms(180));
        // It slept for a second: that is not made up for.
        caller.now = ms(1_180);
        caller.tick();
        assert_eq!(caller.seen.len(), 11);
        assert_eq!(caller.seen[10].at, ms(1_180));
        caller.until(ms(4_000));
        assert_eq!(caller.data(), 2_000);
    }

    #[test]
    fn a6_a_piece_that_is_a_little_late_makes_no_gap_in_the_times() {
        let mut caller = Caller::new(audio());
        for n in 0..50 {
            caller.push_at(20, ms(n * 20 + n * 7 % 19));
        }
        let ats = caller.seen.iter().map(|seen| seen.at);
        assert!(ats.eq((0..50).map(|n| ms(n * 20))));
    }

    #[test]
    fn a6_over_hours_no_rate_drifts() {
        let hours = 10u64;
        for rate in RATES {
            for period in [ms(20), ms(10), Duration::from_micros(2_500), ms(60)] {
                let terms = AudioTerms {
                    rate,
                    period,
                    ..terms()
                };
                let mut audio = AudioContinuity::new(terms).unwrap();
                audio.base = Some(Duration::ZERO);
                audio.periods = hours * 3_600_000_000 / period.as_micros() as u64;
                assert_eq!(audio.due(), ms(hours * 3_600_000), "{rate} {period:?}");
                let frames = audio.frames_before(audio.periods);
                assert_eq!(frames, u128::from(rate) * u128::from(hours) * 3_600);
            }
        }
    }

    #[test]
    fn a6_periods_that_are_no_whole_number_of_frames_share_the_rest() {
        for (rate, least, most) in [(11_025, 220, 221), (22_050, 441, 441), (44_100, 882, 882)] {
            let terms = AudioTerms {
                rate,
                ..AudioTerms::default()
            };
            let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
            caller.push(rate as usize * 5);
            caller.until(ms(5_000));
            assert_eq!((caller.seen.len(), caller.data()), (250, rate as usize * 5));
            let sizes = caller.seen.iter().map(|seen| seen.samples.len() / 2);
            assert_eq!(
                (sizes.clone().min(), sizes.max()),
                (Some(least), Some(most))
            );
            for (n, seen) in caller.seen.iter().enumerate() {
                assert!(seen.at.abs_diff(ms(20 * n as u64)) < Duration::from_micros(50));
            }
        }
    }

    #[test]
    fn a7_the_tolerance_is_100_ms_unless_said_otherwise() {
        assert_eq!(AudioTerms::default().silence_tolerance, ms(100));
        let terms = AudioTerms {
            silence_tolerance: ms(35),
            ..terms()
        };
        let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
        caller.push(20);
        caller.until(ms(80));
        assert_eq!(caller.told(ms(0)), "0:20 55:0 75:0");
    }

    #[test]
    fn b1_stats_tell_what_waits_and_what_became_of_all_frames() {
        let mut caller = Caller::new(audio());
        caller.push_at(70, ms(20));
        let stats = caller.audio.stats();
        assert_eq!((stats.queued, stats.taken), (ms(50), 70));
        assert_eq!((stats.sent, stats.silence, stats.padding), (20, 20, 0));
        caller.audio.clear();
        assert_eq!(caller.audio.stats().cleared, 50);
    }

    #[test]
    fn b2_clear_empties_the_queue_and_silence_follows_at_once() {
        let mut caller = Caller::new(audio());
        caller.push(1_000);
        caller.until(ms(50));
        assert_eq!((caller.audio.clear(), caller.audio.clear()), (940, 0));
        assert_eq!(caller.audio.stats().queued, ms(0));
        caller.until(ms(200));
        assert_eq!(
            caller.told(ms(50)),
            "60:0 80:0 100:0 120:0 140:0 160:0 180:0"
        );
        // Nothing was consumed faster than it came.
        assert!(caller.drained.is_empty());
        // What comes after an interruption is heard.
        caller.push(20);
        caller.until(ms(220));
        assert_eq!(caller.told(ms(200)), "200:20");
    }

    #[test]
    fn b3_drained_is_told_when_a_period_is_due_and_not_there() {
        let mut caller = Caller::new(audio());
        caller.push(90);
        caller.until(ms(80));
        assert!(caller.drained.is_empty());
        caller.until(ms(5_000));
        assert_eq!(caller.drained, [ms(80)]);
    }

    #[test]
    fn b3_who_pushes_when_drained_makes_no_gap() {
        let mut caller = Caller::new(audio());
        caller.push(60);
        let mut answered = 0;
        while caller.now < ms(3_000) {
            caller.until(caller.now + ms(1));
            if caller.drained.len() > answered {
                answered = caller.drained.len();
                caller.push(60);
            }
        }
        let ats = caller.seen.iter().map(|seen| seen.at);
        assert!(ats.eq((0..150).map(|n| ms(n * 20))));
        assert_eq!(answered, 49);
    }

    #[test]
    fn b4_a_source_that_is_always_just_in_time_drains_once() {
        let mut caller = Caller::new(audio());
        for n in 0..500 {
            caller.push_at(20, ms(n * 20 + n % 3));
        }
        assert_eq!(caller.drained.len(), 1);
    }

    #[test]
    fn b4_drained_is_told_again_only_after_new_data() {
        let mut caller = Caller::after_data(60);
        caller.until(ms(10_000));
        assert_eq!(caller.drained, [ms(60)]);
        // A stock: told as soon as it is used up.
        caller.push_at(100, ms(10_000));
        caller.until(ms(20_000));
        assert_eq!(caller.drained[1..], [ms(10_100)]);
        // Less than that: when a gap has come of it, so that who waits for it does not wait for ever.
        caller.push_at(20, ms(20_000));
        caller.until(ms(30_000));
        assert_eq!(caller.drained[2..], [ms(20_040)]);
    }

    #[test]
    fn b5_nothing_is_drained_before_the_first_data() {
        let mut caller = Caller::new(audio());
        caller.until(ms(2_000));
        caller.audio.clear();
        caller.until(ms(4_000));
        assert!(caller.drained.is_empty());
    }

    #[test]
    fn b7_what_does_not_fit_is_refused() {
        let terms = AudioTerms {
            capacity: ms(100),
            channels: 2,
            ..terms()
        };
        let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
        caller.tick();
        assert_eq!(caller.push(70), 70);
        assert_eq!((caller.audio.room(), caller.push(70)), (30, 30));
        assert_eq!((caller.audio.room(), caller.push(70)), (0, 0));
        caller.until(ms(21));
        assert_eq!(caller.audio.room(), 20);
        // Half a frame is none.
        assert_eq!(caller.audio.push(&[1; 3], ms(21)), 1);
    }

    #[test]
    fn terms_that_cannot_be_are_refused() {
        let said = |terms| AudioContinuity::new(terms).unwrap_err().to_string();
        assert!(said(AudioTerms { rate: 0, ..terms() }).contains("0 Hz"));
        assert!(
            said(AudioTerms {
                channels: 65,
                ..terms()
            })
            .contains("65 channels")
        );
        let period = Duration::from_micros(999);
        assert!(said(AudioTerms { period, ..terms() }).contains("999µs"));
        assert!(
            said(AudioTerms {
                period: Duration::MAX,
                ..terms()
            })
            .contains("1 ms to 1 s")
        );
        let capacity = ms(19);
        let message = said(AudioTerms {
            capacity,
            ..terms()
        });
        assert_eq!(
            message,
            "a capacity of 19ms does not hold one period of 20ms"
        );
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push(usize),
        /// Time passes, for a caller that is on time.
        Pass(u64),
        /// Time passes, and the caller is late.
        Sleep(u64),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0usize..3_000).prop_map(Op::Push),
            6 => (0u64..300_000).prop_map(Op::Pass),
            1 => (0u64..2_000_000).prop_map(Op::Sleep),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_times_increase_nothing_is_lost_and_the_queue_is_bounded(
            rate in prop::sample::select(RATES.to_vec()),
            channels in 1u32..4,
            period in 1_000u64..100_000,
            silence_tolerance in 0u64..300,
            capacity in 0u64..500,
            ops in prop::collection::vec(op(), 0..60),
        ) {
            let period = Duration::from_micros(period);
            let capacity = period + ms(capacity);
            let silence_tolerance = ms(silence_tolerance);
            let terms = AudioTerms { rate, channels, period, silence_tolerance, capacity };
            let mut caller = Caller::new(AudioContinuity::new(terms).unwrap());
            let mut cleared = 0;
            for op in ops {
                match op {
                    Op::Push(frames) => { caller.push(frames); }
                    Op::Pass(us) => caller.until(caller.now + Duration::from_micros(us)),
                    Op::Sleep(us) => {
                        caller.now += Duration::from_micros(us);
                        caller.tick();
                    }
                    Op::Clear => cleared += caller.audio.clear(),
                }
                let stats = caller.audio.stats();
                prop_assert!(stats.queued <= capacity + Duration::from_secs(1) / rate);
                prop_assert_eq!(stats.taken, caller.pushed as u64);
                prop_assert_eq!((stats.sent, stats.cleared), (caller.data() as u64, cleared));
                prop_assert_eq!(stats.taken, stats.sent + cleared + caller.audio.queued() as u64);
            }
            prop_assert!(caller.times_increase());
            // Nothing goes out before its time.
            prop_assert!(caller.seen.iter().all(|seen| seen.at <= seen.now));
            // Each time the timeline began anew a fraction of a nanosecond was lost.
            let rounded = Duration::from_nanos(caller.seen.len() as u64);
            // One period each period: what went out is never more than the time allows, but for one.
            if let (Some(first), Some(last)) = (caller.seen.first(), caller.seen.last()) {
                let sent: usize = caller.seen.iter().map(|seen| seen.samples.len()).sum();
                let sent = (sent - last.samples.len()) / channels as usize;
                prop_assert!(caller.audio.time_of(sent as u128) <= last.at - first.at + rounded);
            }
        }

        #[test]
        fn no_time_overflows(ops in prop::collection::vec((super::super::any_time(), any::<bool>()), 0..30)) {
            let terms = AudioTerms {
                silence_tolerance: Duration::MAX,
                capacity: Duration::MAX,
                ..AudioTerms::default()
            };
            let mut audio = AudioContinuity::new(terms).unwrap();
            let mut last = None;
            for (now, push) in ops {
                if push { audio.push(&[1; 5_000], now); }
                for _ in 0..40 {
                    match audio.tick(now) {
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
