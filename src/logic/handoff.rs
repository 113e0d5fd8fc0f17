//! A bounded queue between two threads: what is new wins over what waits.
//!
//! What is not due yet waits free of charge, for whoever takes it may have to wait as well: a sink that shows
//! frames at their time. What is overdue waits because its taker is slow, and of that only so much is kept.
//! Only the rule lives here; who locks and who waits is the caller's business.

use std::collections::VecDeque;
use std::time::Duration;

/// Most items that wait, due or not, where not more may be overdue.
const MOST: usize = 64;

/// What is done when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest item makes room. For what stands alone: decoded frames, samples.
    DropOldest,
    /// Everything that waits goes, and the newcomer too unless it is a key item. For what builds on its
    /// predecessors: encoded frames.
    DropToKey,
}

/// What became of a pushed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// This many items were dropped to keep the bound; the newcomer waits.
    Displaced(u64),
    /// This many items were dropped, the newcomer among them; a key item is needed.
    NeedsKey(u64),
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    cost: u64,
    due: Duration,
}

#[derive(Debug)]
pub struct Handoff<T> {
    items: VecDeque<Waiting<T>>,
    /// Most cost of what is overdue.
    limit: u64,
    /// Most items, due or not.
    most: usize,
    when_full: WhenFull,
    needs_key: bool,
    /// Items dropped since the beginning.
    pub dropped: u64,
}

impl<T> Handoff<T> {
    /// A queue of at most `limit` units of overdue cost: 1 a frame, or an item's duration.
    pub fn new(limit: u64, when_full: WhenFull) -> Self {
        Self {
            items: VecDeque::new(),
            limit,
            most: MOST,
            when_full,
            needs_key: false,
            dropped: 0,
        }
    }

    /// A queue of at most `limit` overdue items.
    pub fn of_items(limit: u64, when_full: WhenFull) -> Self {
        let most = usize::try_from(limit).map_or(usize::MAX, |limit| limit.max(MOST));
        Self {
            most,
            ..Self::new(limit, when_full)
        }
    }

    /// Whether one more would displace another, if all that waits is overdue.
    pub fn is_full(&self) -> bool {
        let cost: u64 = self.items.iter().map(|waiting| waiting.cost).sum();
        cost >= self.limit || self.items.len() >= self.most
    }

    /// Adds an item that its taker wants at `due`, on the same clock as `now`.
    pub fn push(&mut self, item: T, cost: u64, key: bool, due: Duration, now: Duration) -> Pushed {
        let mut dropped = 0;
        if self.needs_key && !key {
            self.dropped += 1;
            return Pushed::NeedsKey(1);
        }
        self.needs_key = false;
        let new = if due <= now { cost } else { 0 };
        while !self.items.is_empty()
            && (self.overdue(now) + new > self.limit || self.items.len() >= self.most)
        {
            match self.when_full {
                WhenFull::DropOldest => {
                    self.pop();
                    dropped += 1;
                }
                WhenFull::DropToKey => {
                    dropped += self.clear();
                    if !key {
                        self.needs_key = true;
                        self.dropped += dropped + 1;
                        return Pushed::NeedsKey(dropped + 1);
                    }
                }
            }
        }
        self.items.push_back(Waiting { item, cost, due });
        self.dropped += dropped;
        match dropped {
            0 => Pushed::Queued,
            n => Pushed::Displaced(n),
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front().map(|waiting| waiting.item)
    }

    fn overdue(&self, now: Duration) -> u64 {
        let overdue = self.items.iter().filter(|waiting| waiting.due <= now);
        overdue.map(|waiting| waiting.cost).sum()
    }

    /// Empties the queue without counting; says how many items went.
    pub fn clear(&mut self) -> u64 {
        self.items.drain(..).count() as u64
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_not_due_yet_waits_free_of_charge_up_to_a_bound() {
        let later = NOW + Duration::from_millis(150);
        let mut queue = Handoff::new(2, WhenFull::DropOldest);
        for n in 0..MOST {
            assert_eq!(queue.push(n, 1, true, later, NOW), Pushed::Queued);
        }
        assert_eq!(queue.push(MOST, 1, true, later, NOW), Pushed::Displaced(1));
        // When their time has passed, only the newest are worth keeping.
        let dropped = MOST as u64 - 1;
        assert_eq!(
            queue.push(0, 1, true, later, later),
            Pushed::Displaced(dropped)
        );
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn the_newest_frame_wins() {
        let mut queue = Handoff::new(2, WhenFull::DropOldest);
        assert_eq!(queue.push(1, 1, true, NOW, NOW), Pushed::Queued);
        assert_eq!(queue.push(2, 1, true, NOW, NOW), Pushed::Queued);
        assert_eq!(queue.push(3, 1, true, NOW, NOW), Pushed::Displaced(1));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(2), Some(3), None)
        );
        assert_eq!(queue.dropped, 1);
    }

    #[test]
    fn encoded_frames_wait_for_a_key_after_an_overflow() {
        let mut queue = Handoff::new(2, WhenFull::DropToKey);
        queue.push(1, 1, true, NOW, NOW);
        queue.push(2, 1, false, NOW, NOW);
        assert_eq!(queue.push(3, 1, false, NOW, NOW), Pushed::NeedsKey(3));
        assert_eq!(queue.push(4, 1, false, NOW, NOW), Pushed::NeedsKey(1));
        assert_eq!(queue.push(5, 1, true, NOW, NOW), Pushed::Queued);
        assert_eq!(queue.pop(), Some(5));
        assert_eq!(queue.dropped, 4);
    }

    #[test]
    fn a_key_displaces_what_waits() {
        let mut queue = Handoff::new(1, WhenFull::DropToKey);
        queue.push(1, 1, true, NOW, NOW);
        assert_eq!(queue.push(2, 1, true, NOW, NOW), Pushed::Displaced(1));
        assert_eq!(queue.pop(), Some(2));
    }

    #[test]
    fn one_item_over_the_limit_still_passes() {
        let mut queue = Handoff::new(200, WhenFull::DropOldest);
        assert_eq!(queue.push('a', 500, true, NOW, NOW), Pushed::Queued);
        assert_eq!(queue.push('b', 20, true, NOW, NOW), Pushed::Displaced(1));
        assert_eq!(queue.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_uncounted(
            ops in proptest::collection::vec((0u8..3, proptest::bool::ANY), 0..200),
            limit in 1u64..5,
            to_key in proptest::bool::ANY,
        ) {
            let rule = if to_key { WhenFull::DropToKey } else { WhenFull::DropOldest };
            let mut queue = Handoff::new(limit, rule);
            let (mut pushed, mut popped) = (0u64, 0u64);
            for (op, key) in ops {
                if op == 0 { popped += queue.pop().is_some() as u64; }
                else { queue.push((), 1, key, NOW, NOW); pushed += 1; }
                proptest::prop_assert!(queue.len() as u64 <= limit);
                proptest::prop_assert_eq!(pushed, popped + queue.dropped + queue.len() as u64);
            }
        }
    }
}
