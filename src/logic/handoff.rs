//! A bounded queue between two threads: what is new wins over what waits.
//!
//! Only the rule lives here; who locks and who waits is the caller's business.

use std::collections::VecDeque;

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
pub struct Handoff<T> {
    items: VecDeque<(T, u64)>,
    /// Sum of the costs of what waits.
    cost: u64,
    limit: u64,
    when_full: WhenFull,
    needs_key: bool,
    /// Items dropped since the beginning.
    pub dropped: u64,
}

impl<T> Handoff<T> {
    /// A queue of at most `limit` units of cost: 1 a frame, or an item's duration.
    pub fn new(limit: u64, when_full: WhenFull) -> Self {
        Self {
            items: VecDeque::new(),
            cost: 0,
            limit,
            when_full,
            needs_key: false,
            dropped: 0,
        }
    }

    pub fn push(&mut self, item: T, cost: u64, key: bool) -> Pushed {
        let mut dropped = 0;
        if self.needs_key && !key {
            self.dropped += 1;
            return Pushed::NeedsKey(1);
        }
        self.needs_key = false;
        while !self.items.is_empty() && self.cost + cost > self.limit {
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
        self.items.push_back((item, cost));
        self.cost += cost;
        self.dropped += dropped;
        match dropped {
            0 => Pushed::Queued,
            n => Pushed::Displaced(n),
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        let (item, cost) = self.items.pop_front()?;
        self.cost -= cost;
        Some(item)
    }

    /// Empties the queue without counting; says how many items went.
    pub fn clear(&mut self) -> u64 {
        self.cost = 0;
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

    #[test]
    fn the_newest_frame_wins() {
        let mut queue = Handoff::new(2, WhenFull::DropOldest);
        assert_eq!(queue.push(1, 1, true), Pushed::Queued);
        assert_eq!(queue.push(2, 1, true), Pushed::Queued);
        assert_eq!(queue.push(3, 1, true), Pushed::Displaced(1));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(2), Some(3), None)
        );
        assert_eq!(queue.dropped, 1);
    }

    #[test]
    fn encoded_frames_wait_for_a_key_after_an_overflow() {
        let mut queue = Handoff::new(2, WhenFull::DropToKey);
        queue.push(1, 1, true);
        queue.push(2, 1, false);
        assert_eq!(queue.push(3, 1, false), Pushed::NeedsKey(3));
        assert_eq!(queue.push(4, 1, false), Pushed::NeedsKey(1));
        assert_eq!(queue.push(5, 1, true), Pushed::Queued);
        assert_eq!(queue.pop(), Some(5));
        assert_eq!(queue.dropped, 4);
    }

    #[test]
    fn a_key_displaces_what_waits() {
        let mut queue = Handoff::new(1, WhenFull::DropToKey);
        queue.push(1, 1, true);
        assert_eq!(queue.push(2, 1, true), Pushed::Displaced(1));
        assert_eq!(queue.pop(), Some(2));
    }

    #[test]
    fn one_item_over_the_limit_still_passes() {
        let mut queue = Handoff::new(200, WhenFull::DropOldest);
        assert_eq!(queue.push('a', 500, true), Pushed::Queued);
        assert_eq!(queue.push('b', 20, true), Pushed::Displaced(1));
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
                else { queue.push((), 1, key); pushed += 1; }
                proptest::prop_assert!(queue.len() as u64 <= limit);
                proptest::prop_assert_eq!(pushed, popped + queue.dropped + queue.len() as u64);
            }
        }
    }
}
