//! Which metadata belongs to which frame, when a server returns frames as video and tells of them on a data channel.
//!
//! Both sides are compared in seconds, of clocks that begin at different moments: that of the frames with the first one that came
//! back, that of the metadata with the first one that the server received. The first of each are taken for a pair, which gives the
//! offset between the clocks. When that was wrong (the first frame was lost, or a clock jumped), frames find no metadata, and the
//! offset that most frames agree on is taken instead. Frames that come as regularly as a clock ticks look alike at many offsets:
//! of those that fit as well, the one with the earliest metadata is taken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A millisecond, and what floats lose. Encoders cut off a tick of 90 kHz here and there; frames are further apart than this.
const TOLERANCE: f64 = 0.001_000_5;
/// So many frames that found no metadata, of those that are remembered, put the offset in doubt.
pub const MISALIGNED: usize = 8;
/// So many frames more must agree on another offset.
const CLEARLY: usize = MISALIGNED / 2;
/// Metadata that waits at most, and that is remembered.
pub const MAX_METADATA: usize = 150;
/// Frames that are remembered.
const MAX_PAST: usize = 32;

/// Frames in the order they came in, each with its metadata if that comes in time.
///
/// What is settled waits for [`poll`](Self::poll), which is to be called until `None` after each other call.
#[derive(Debug)]
pub struct Pairing<F, M> {
    max_frames: usize,
    patience: Duration,
    /// Oldest first; those that are settled wait for an older one.
    frames: VecDeque<Waiting<F, M>>,
    /// Oldest first, with its seconds.
    metadata: VecDeque<(f64, M)>,
    /// What is settled and not handed out.
    out: VecDeque<Out<F, M>>,
    /// Seconds of the first frame.
    first_frame: Option<f64>,
    /// Seconds of the metadata's clock minus those of the frames'.
    offset: Option<f64>,
    /// The latest metadata that found its frame: later frames have later metadata.
    floor: Option<f64>,
    past_frames: VecDeque<Past>,
    past_metadata: VecDeque<Past>,
    counts: Counts,
}

/// What is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out<F, M> {
    Frame(Paired<F, M>),
    /// Metadata whose frame did not come.
    Unpaired(M),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired<F, M> {
    pub frame: F,
    pub metadata: Option<M>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub paired: u64,
    pub frames_alone: u64,
    pub metadata_alone: u64,
    /// How often another offset was found.
    pub realigned: u64,
}

#[derive(Debug)]
struct Waiting<F, M> {
    seconds: Option<f64>,
    frame: F,
    since: Instant,
    fate: Fate<M>,
}

#[derive(Debug)]
enum Fate<M> {
    Open,
    Found(M),
    Alone,
}

/// What is remembered of a frame, or of metadata.
#[derive(Debug, Clone, Copy)]
struct Past {
    seconds: f64,
    paired: bool,
}

impl<F, M> Default for Pairing<F, M> {
    /// Frames are decoded pictures, so few wait, and not for long.
    fn default() -> Self {
        Self::new(8, Duration::from_millis(200))
    }
}

impl<F, M> Pairing<F, M> {
    /// So many frames wait, at least 1, and each so long; then it goes out alone.
    pub fn new(max_frames: usize, patience: Duration) -> Self {
        Self {
            max_frames: max_frames.max(1),
            patience,
            frames: VecDeque::new(),
            metadata: VecDeque::new(),
            out: VecDeque::new(),
            first_frame: None,
            offset: None,
            floor: None,
            past_frames: VecDeque::new(),
            past_metadata: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Metadata whose frame did not come is of no interest, and is not kept for [`poll`](Self::poll).
    pub fn forget_unpaired(&mut self) {
        self.out.retain(|out| matches!(out, Out::Frame(_)));
    }

    /// A frame came back. One that does not know its time goes out alone in its turn.
    pub fn frame(&mut self, seconds: Option<f64>, frame: F, now: Instant) {
        if self.frames.len() == self.max_frames {
            self.give_up_oldest();
        }
        let seconds = seconds.filter(|seconds| seconds.is_finite());
        self.frames.push_back(Waiting {
            seconds,
            frame,
            since: now,
            fate: match seconds {
                Some(_) => Fate::Open,
                None => Fate::Alone,
            },
        });
        if let Some(seconds) = seconds {
            self.first_frame.get_or_insert(seconds);
            self.align();
            self.find_for(self.frames.len() - 1);
        }
        self.settle();
    }

    /// A frame was told of. Metadata that does not know its time stays alone.
    pub fn metadata(&mut self, seconds: Option<f64>, metadata: M, _now: Instant) {
        let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) else {
            return self.alone(metadata);
        };
        let paired = false;
        remember(
            &mut self.past_metadata,
            Past { seconds, paired },
            MAX_METADATA,
        );
        if self.metadata.len() == MAX_METADATA
            && let Some((_, oldest)) = self.metadata.pop_front()
        {
            self.alone(oldest);
        }
        self.metadata.push_back((seconds, metadata));
        self.align();
        let open = self.frames.iter().enumerate().filter_map(|(index, frame)| {
            let seconds_of_frame = frame.open()?;
            Some((index, distance(self.there(seconds_of_frame)?, seconds)?))
        });
        match open.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
            Some((index, _)) => self.pair(index, self.metadata.len() - 1),
            None => self.drop_below_floor(),
        }
        self.settle();
    }

    /// What is settled by now, in order.
    pub fn poll(&mut self, now: Instant) -> Option<Out<F, M>> {
        let patience = self.patience;
        let is_late =
            |frame: &Waiting<F, M>| now.saturating_duration_since(frame.since) >= patience;
        while self.frames.front().is_some_and(is_late) {
            self.give_up_oldest();
        }
        self.out.pop_front()
    }

    /// When `poll` has something to say again if nothing else happens, once it has said `None`.
    pub fn deadline(&self) -> Option<Instant> {
        self.frames.front()?.since.checked_add(self.patience)
    }

    /// Nothing that waits is waited for any more.
    pub fn flush(&mut self) {
        for frame in &mut self.frames {
            if matches!(frame.fate, Fate::Open) {
                frame.fate = Fate::Alone;
            }
        }
        self.settle();
        while let Some((_, metadata)) = self.metadata.pop_front() {
            self.alone(metadata);
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the first frame and the earliest metadata for a pair, as long as nothing better is known.
    fn align(&mut self) {
        if let (None, Some(frame), Some((metadata, _))) =
            (self.offset, self.first_frame, self.metadata.front())
        {
            self.offset = Some(metadata - frame);
        }
    }

    /// A frame's time on the clock of the metadata.
    fn there(&self, seconds: f64) -> Option<f64> {
        Some(seconds + self.offset?)
    }

    /// Pairs a frame with the nearest of the metadata that is near enough.
    fn find_for(&mut self, index: usize) {
        let seconds = self.frames[index].open();
        let Some(at) = seconds.and_then(|seconds| self.there(seconds)) else {
            return;
        };
        let near = self.metadata.iter().enumerate();
        let near = near.filter_map(|(index, (seconds, _))| Some((index, distance(at, *seconds)?)));
        if let Some((found, _)) = near.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
            self.pair(index, found);
        }
    }

    fn pair(&mut self, index: usize, found: usize) {
        let Some((seconds, metadata)) = self.metadata.remove(found) else {
            return;
        };
        let frame = &mut self.frames[index];
        frame.fate = Fate::Found(metadata);
        if let Some(seconds) = frame.seconds {
            let paired = true;
            remember(&mut self.past_frames, Past { seconds, paired }, MAX_PAST);
        }
        let mut past = self.past_metadata.iter_mut().rev();
        if let Some(past) = past.find(|past| past.seconds == seconds) {
            past.paired = true;
        }
        self.floor = Some(self.floor.map_or(seconds, |floor| floor.max(seconds)));
        self.drop_below_floor();
    }

    /// Metadata from before the floor has seen all frames that are older, and found none.
    fn drop_below_floor(&mut self) {
        let Some(floor) = self.floor else {
            return;
        };
        for _ in 0..self.metadata.len() {
            match self.metadata.pop_front() {
                Some((seconds, metadata)) if seconds < floor => self.alone(metadata),
                other => self.metadata.extend(other),
            }
        }
    }

    fn give_up_oldest(&mut self) {
        let Some(frame) = self.frames.front_mut() else {
            return;
        };
        let seconds = frame.open();
        if seconds.is_some() {
            frame.fate = Fate::Alone;
        }
        self.settle();
        let Some(seconds) = seconds.filter(|_| self.offset.is_some()) else {
            return;
        };
        let paired = false;
        remember(&mut self.past_frames, Past { seconds, paired }, MAX_PAST);
        let alone = self.past_frames.iter().filter(|past| !past.paired);
        if alone.count() >= MISALIGNED {
            self.realign();
        }
    }

    /// Takes the offset that most frames agree on since the first that found nothing, if it is clearly better than the present one.
    fn realign(&mut self) {
        let past = self.past_frames.drain(..).skip_while(|past| past.paired);
        let mut frames: Vec<_> = past.map(|past| past.seconds).collect();
        frames.extend(self.frames.iter().filter_map(Waiting::open));
        let mut metadata: Vec<_> = self.past_metadata.iter().copied().collect();
        metadata.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let (Some(offset), [first, .., last]) = (self.offset, &*frames) else {
            return;
        };
        let middle = frames[frames.len() / 2];
        let mut best = (fit(&frames, &metadata, offset), offset);
        let enough = best.0.frames + CLEARLY;
        for frame in [*first, middle, *last] {
            for told in &metadata {
                let offset = told.seconds - frame;
                let fit = fit(&frames, &metadata, offset);
                if fit > best.0 || fit == best.0 && offset < best.1 {
                    best = (fit, offset);
                }
            }
        }
        if best.0.frames < enough {
            return;
        }
        self.offset = Some(best.1);
        self.floor = None;
        self.counts.realigned += 1;
        for index in 0..self.frames.len() {
            self.find_for(index);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let is_settled = |frame: &mut Waiting<F, M>| !matches!(frame.fate, Fate::Open);
        while let Some(Waiting { frame, fate, .. }) = self.frames.pop_front_if(is_settled) {
            let metadata = match fate {
                Fate::Found(metadata) => Some(metadata),
                Fate::Open | Fate::Alone => None,
            };
            match metadata {
                Some(_) => self.counts.paired += 1,
                None => self.counts.frames_alone += 1,
            }
            self.out.push_back(Out::Frame(Paired { frame, metadata }));
        }
    }

    fn alone(&mut self, metadata: M) {
        self.counts.metadata_alone += 1;
        self.out.push_back(Out::Unpaired(metadata));
    }
}

impl<F, M> Waiting<F, M> {
    /// Its seconds, as long as it looks for metadata.
    fn open(&self) -> Option<f64> {
        self.seconds.filter(|_| matches!(self.fate, Fate::Open))
    }
}

/// How well an offset explains what came; the better one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// Frames that find metadata.
    frames: usize,
    /// Those of them whose metadata had found no other frame.
    fresh: usize,
}

/// `metadata` is sorted.
fn fit(frames: &[f64], metadata: &[Past], offset: f64) -> Fit {
    let mut fit = Fit {
        frames: 0,
        fresh: 0,
    };
    for frame in frames {
        let least = frame + offset - TOLERANCE;
        let next = metadata.partition_point(|past| past.seconds < least);
        if let Some(past) = metadata.get(next)
            && distance(frame + offset, past.seconds).is_some()
        {
            fit.frames += 1;
            fit.fresh += usize::from(!past.paired);
        }
    }
    fit
}

/// How far two times are from each other that may be the same.
pub(super) fn distance(a: f64, b: f64) -> Option<f64> {
    Some((a - b).abs()).filter(|distance| *distance <= TOLERANCE)
}

fn remember(past: &mut VecDeque<Past>, one: Past, most: usize) {
    if past.len() == most {
        past.pop_front();
    }
    past.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: f64 = 1.0 / 90_000.0;
    const PATIENCE: Duration = Duration::from_millis(200);

    fn pairing() -> Pairing<usize, usize> {
        Pairing::default()
    }

    fn all(pairing: &mut Pairing<usize, usize>, now: Instant) -> Vec<Out<usize, usize>> {
        std::iter::from_fn(|| pairing.poll(now)).collect()
    }

    fn paired(frame: usize, metadata: impl Into<Option<usize>>) -> Out<usize, usize> {
        let metadata = metadata.into();
        Out::Frame(Paired { frame, metadata })
    }

    #[test]
    fn whichever_comes_first_they_find_each_other() {
        let (mut pairs, now) = (pairing(), Instant::now());
        pairs.metadata(Some(5.0), 0, now);
        assert_eq!(all(&mut pairs, now), []);
        pairs.frame(Some(0.0), 0, now);
        assert_eq!(all(&mut pairs, now), [paired(0, 0)]);
        pairs.frame(Some(0.1), 1, now);
        assert_eq!(all(&mut pairs, now), []);
        assert_eq!(pairs.deadline(), Some(now + PATIENCE));
        pairs.metadata(Some(5.1), 1, now);
        assert_eq!(all(&mut pairs, now), [paired(1, 1)]);
        assert_eq!((pairs.deadline(), pairs.counts().paired), (None, 2));
    }

    #[test]
    fn a_tick_off_is_the_same_frame_and_two_hundred_are_not() {
        for (ticks, is_same) in [
            (0, true),
            (1, true),
            (-1, true),
            (90, true),
            (-90, true),
            (91, false),
            (200, false),
            (-200, false),
        ] {
            let (mut pairs, now) = (pairing(), Instant::now());
            pairs.metadata(Some(0.0), 0, now);
            pairs.frame(Some(0.0), 0, now);
            pairs.metadata(Some(100_000.0), 1, now);
            pairs.frame(Some(100_000.0 + f64::from(ticks) * TICK), 1, now);
            let out = all(&mut pairs, now + PATIENCE);
            assert_eq!(out[1], paired(1, is_same.then_some(1)), "{ticks}");
        }
    }

    #[test]
    fn exact_beats_near() {
        for order in [[1, 2], [2, 1]] {
            let (mut pairs, now) = (pairing(), Instant::now());
            pairs.metadata(Some(0.0), 0, now);
            pairs.frame(Some(0.0), 0, now);
            for id in order {
                pairs.metadata(Some([0.0, 1.0 - TICK, 1.0][id]), id, now);
            }
            pairs.frame(Some(1.0), 1, now);
            let out = all(&mut pairs, now);
            assert_eq!(out, [paired(0, 0), Out::Unpaired(1), paired(1, 2)]);
        }
    }

    #[test]
    fn metadata_from_before_a_match_has_lost_its_frame() {
        let (mut pairs, now) = (pairing(), Instant::now());
        for id in 0..4 {
            pairs.metadata(Some(id as f64), id, now);
        }
        pairs.frame(Some(0.0), 0, now);
        pairs.frame(Some(3.0), 3, now);
        let out = all(&mut pairs, now);
        assert_eq!(out.len(), 4);
        assert!(out.contains(&paired(3, 3)));
        assert!(out.contains(&Out::Unpaired(1)) && out.contains(&Out::Unpaired(2)));
        pairs.metadata(Some(2.5), 4, now);
        assert_eq!(all(&mut pairs, now), [Out::Unpaired(4)]);
    }

    #[test]
    fn a_frame_goes_out_in_its_turn_and_in_time() {
        let (mut pairs, now) = (pairing(), Instant::now());
        let ms = |n| now + Duration::from_millis(n);
        pairs.metadata(Some(0.0), 0, now);
        pairs.frame(Some(0.0), 0, now);
        assert_eq!(all(&mut pairs, now), [paired(0, 0)]);
        pairs.frame(Some(1.0), 1, ms(10));
        pairs.frame(None, 2, ms(20));
        pairs.frame(Some(f64::NAN), 3, ms(25));
        pairs.frame(Some(3.0), 4, ms(30));
        pairs.metadata(Some(3.0), 4, ms(40));
        assert_eq!(all(&mut pairs, ms(209)), []);
        assert_eq!(pairs.deadline(), Some(ms(210)));
        let out = all(&mut pairs, ms(210));
        assert_eq!(
            out,
            [
                paired(1, None),
                paired(2, None),
                paired(3, None),
                paired(4, 4)
            ]
        );
        pairs.metadata(None, 5, now);
        assert_eq!(all(&mut pairs, now), [Out::Unpaired(5)]);
    }

    #[test]
    fn only_so_many_wait() {
        let (mut pairs, now) = (pairing(), Instant::now());
        for id in 0..20 {
            pairs.frame(Some(id as f64), id, now);
            assert!(pairs.frames.len() <= 8);
        }
        let out = all(&mut pairs, now);
        assert_eq!(out, (0..12).map(|id| paired(id, None)).collect::<Vec<_>>());
        let (mut pairs, now) = (pairing(), Instant::now());
        for id in 0..200 {
            pairs.metadata(Some(id as f64), id, now);
        }
        let out = all(&mut pairs, now);
        assert_eq!(out, (0..50).map(Out::Unpaired).collect::<Vec<_>>());
        pairs.flush();
        assert_eq!(all(&mut pairs, now).len(), 150);
    }

    #[test]
    fn a_channel_that_opens_late_is_aligned_with_the_first_frame_of_all() {
        let (mut pairs, now) = (pairing(), Instant::now());
        for id in 0..20 {
            pairs.frame(Some(id as f64 / 30.0), id, now);
        }
        for id in 0..20 {
            pairs.metadata(Some(7.0 + id as f64 / 30.0), id, now);
        }
        let out = all(&mut pairs, now);
        let right = (12..20).filter(|&id| out.contains(&paired(id, id)));
        assert_eq!(right.count(), 8);
    }

    #[test]
    fn a_flush_lets_everything_out() {
        let (mut pairs, now) = (pairing(), Instant::now());
        pairs.metadata(Some(0.0), 0, now);
        for id in 0..4 {
            pairs.frame(Some(id as f64), id, now);
        }
        pairs.metadata(Some(2.0), 2, now);
        pairs.metadata(Some(9.0), 9, now);
        pairs.flush();
        let out = all(&mut pairs, now);
        let frames = [paired(0, 0), paired(1, None), paired(2, 2), paired(3, None)];
        assert_eq!(out[..4], frames);
        assert_eq!(
            (&out[4..], pairs.deadline()),
            (&[Out::Unpaired(9)][..], None)
        );
    }

    #[test]
    fn a_clock_that_jumps_is_found_again() {
        let mut pairs = pairing();
        let start = Instant::now();
        let mut right = 0;
        for id in 0..100usize {
            let seconds = id as f64 / 30.0;
            let now = start + Duration::from_secs_f64(seconds);
            let jump = if id < 40 { 0.0 } else { 1234.567 };
            pairs.metadata(Some(seconds + jump), id, now);
            pairs.frame(Some(seconds), id, now);
            for out in all(&mut pairs, now) {
                match out {
                    Out::Frame(Paired { frame, metadata }) => {
                        assert!(metadata.is_none_or(|metadata| metadata == frame));
                        right += usize::from(metadata.is_some());
                    }
                    Out::Unpaired(_) => {}
                }
            }
        }
        assert_eq!(pairs.counts().realigned, 1);
        assert!(right >= 100 - MISALIGNED, "{right}");
    }

    /// One frame as the server made it: its interval, delays of it and of its metadata, noise of both, and what of it is lost.
    #[derive(Debug, Clone)]
    struct Made {
        interval_ms: f64,
        delays_ms: (u64, u64),
        ticks: (i32, i32),
        lost: (bool, bool),
    }

    prop_compose! {
        fn made()(interval_ms in 33.0f64..99.0, delays_ms in (0u64..190, 0u64..190), ticks in (-1i32..=1, -1i32..=1),
            lost in (prop::bool::weighted(0.1), prop::bool::weighted(0.05))) -> Made {
            Made { interval_ms, delays_ms, ticks, lost }
        }
    }

    enum Event {
        Frame(f64, usize),
        Metadata(f64, usize),
    }

    /// What comes out when all of it arrives as it was made.
    fn run(made: &[Made]) -> (Vec<Out<usize, usize>>, Counts) {
        let start = Instant::now();
        let (mut events, mut at) = (Vec::new(), 0.0);
        let (mut frames, mut told) = (start, start);
        let mut zero = None;
        for (id, made) in made.iter().enumerate() {
            at += made.interval_ms / 1000.0;
            let seconds = |ticks: i32| at + f64::from(ticks) * TICK;
            let after = |ms| start + Duration::from_secs_f64(at) + Duration::from_millis(ms);
            if !made.lost.0 {
                frames = frames.max(after(made.delays_ms.0));
                let seconds = seconds(made.ticks.0);
                let zero = *zero.get_or_insert(seconds);
                events.push((frames, Event::Frame(seconds - zero, id)));
            }
            if !made.lost.1 {
                told = told.max(after(made.delays_ms.1));
                events.push((told, Event::Metadata(seconds(made.ticks.1), id)));
            }
        }
        events.sort_by_key(|(at, _)| *at);
        let (mut pairs, mut out) = (pairing(), Vec::new());
        for (now, event) in events {
            while let Some(deadline) = pairs.deadline().filter(|deadline| *deadline < now) {
                out.extend(all(&mut pairs, deadline));
            }
            match event {
                Event::Frame(seconds, id) => pairs.frame(Some(seconds), id, now),
                Event::Metadata(seconds, id) => pairs.metadata(Some(seconds), id, now),
            }
            assert!(pairs.frames.len() <= 8 && pairs.metadata.len() <= MAX_METADATA);
            out.extend(all(&mut pairs, now));
            assert!(
                pairs
                    .frames
                    .iter()
                    .all(|frame| now - frame.since < PATIENCE)
            );
        }
        pairs.flush();
        out.extend(all(&mut pairs, start));
        (out, pairs.counts())
    }

    fn frames(out: &[Out<usize, usize>]) -> Vec<(usize, Option<usize>)> {
        let frames = out.iter().filter_map(|out| match out {
            Out::Frame(paired) => Some((paired.frame, paired.metadata)),
            Out::Unpaired(_) => None,
        });
        frames.collect()
    }

    fn told(out: &[Out<usize, usize>]) -> Vec<usize> {
        let told = out.iter().filter_map(|out| match out {
            Out::Frame(paired) => paired.metadata,
            Out::Unpaired(metadata) => Some(*metadata),
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    }

    proptest! {
        #[test]
        fn without_loss_every_frame_gets_its_own(mut made in prop::collection::vec(made(), 1..150)) {
            made.iter_mut().for_each(|made| made.lost = (false, false));
            let (out, counts) = run(&made);
            prop_assert!(frames(&out).iter().all(|(frame, metadata)| Some(*frame) == *metadata));
            prop_assert_eq!(counts, Counts { paired: made.len() as u64, ..Counts::default() });
        }

        #[test]
        fn what_is_lost_on_one_side_leaves_the_rest_right(mut made in prop::collection::vec(made(), 1..150)) {
            made[0].lost = (false, false);
            let (out, _) = run(&made);
            let sent: Vec<_> = (0..made.len()).filter(|&id| !made[id].lost.0).collect();
            prop_assert_eq!(frames(&out).iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), sent);
            for (frame, metadata) in frames(&out) {
                prop_assert_eq!(metadata, (!made[frame].lost.1).then_some(frame));
            }
            let all: Vec<_> = (0..made.len()).filter(|&id| !made[id].lost.1).collect();
            prop_assert_eq!(told(&out), all);
        }

        #[test]
        fn a_first_frame_that_was_lost_costs_no_more_than_the_doubt(mut made in prop::collection::vec(made(), 60..150), lost in 1usize..6) {
            made.iter_mut().for_each(|made| made.lost = (false, false));
            made[..lost].iter_mut().for_each(|made| made.lost.0 = true);
            let (out, counts) = run(&made);
            prop_assert_eq!(counts.realigned, 1);
            let wrong = frames(&out).iter().rposition(|(frame, metadata)| Some(*frame) != *metadata);
            // By chance a few find the metadata of others before.
            prop_assert!(wrong.unwrap_or(0) <= 2 * MISALIGNED + 8, "{:?}", wrong);
        }

        #[test]
        fn a_server_that_skips_ticks_of_a_regular_clock_is_aligned_too(steps in prop::collection::vec(1u32..4, 150)) {
            let made: Vec<_> = steps.iter().enumerate().map(|(id, step)| Made {
                interval_ms: f64::from(*step) * 1000.0 / 30.0,
                delays_ms: (60, 20),
                ticks: (0, 0),
                lost: (id == 0, false),
            }).collect();
            let (out, _) = run(&made);
            let wrong = frames(&out).iter().rposition(|(frame, metadata)| Some(*frame) != *metadata);
            prop_assert!(wrong.unwrap_or(0) < 80, "{:?}", wrong);
        }

        #[test]
        fn whatever_comes_nothing_is_lost_doubled_or_reordered(
            events in prop::collection::vec((0u8..4, prop::option::weighted(0.9, -1e3f64..1e3), 0u64..100), 0..400),
            max_frames in 0usize..10,
        ) {
            let mut pairs = Pairing::new(max_frames, PATIENCE);
            let (mut now, mut out) = (Instant::now(), Vec::new());
            let mut sent = (0, 0);
            for (kind, seconds, ms) in events {
                now += Duration::from_millis(ms);
                match kind {
                    0 | 1 => {
                        pairs.frame(seconds.map(f64::round), sent.0, now);
                        sent.0 += 1;
                    }
                    2 => {
                        pairs.metadata(seconds.map(f64::round), sent.1, now);
                        sent.1 += 1;
                    }
                    _ => pairs.metadata(Some(if ms == 0 { f64::INFINITY } else { 1e300 }), { sent.1 += 1; sent.1 - 1 }, now),
                }
                out.extend(all(&mut pairs, now));
                prop_assert!(pairs.frames.len() <= max_frames.max(1) && pairs.metadata.len() <= MAX_METADATA);
                prop_assert!(pairs.past_frames.len() <= MAX_PAST && pairs.past_metadata.len() <= MAX_METADATA);
                prop_assert!(pairs.frames.iter().all(|frame| now - frame.since < PATIENCE));
            }
            pairs.flush();
            out.extend(all(&mut pairs, now));
            let order: Vec<_> = frames(&out).into_iter().map(|(frame, _)| frame).collect();
            prop_assert_eq!(order, (0..sent.0).collect::<Vec<_>>());
            prop_assert_eq!(told(&out), (0..sent.1).collect::<Vec<_>>());
            let counts = pairs.counts();
            prop_assert_eq!(counts.paired + counts.frames_alone, sent.0 as u64);
            prop_assert_eq!(counts.paired + counts.metadata_alone, sent.1 as u64);
        }
    }
}
