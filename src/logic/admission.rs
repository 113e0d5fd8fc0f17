//! Which frames get inferred when more come than can be: of each stream one is in work and one waits, the rest is dropped
//! and counted.
//!
//! In every [`Counts`], `received = inferred + dropped + failed + pending`.

use std::collections::VecDeque;

use crate::logic::per_stream::{self, PerStream};

/// What happens to a frame that comes while another one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It takes the place of the one that waits: for sources that go on by themselves.
    Latest,
    /// It is held until there is room: for sources that can be held.
    Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// A newer frame took its place.
    Busy,
    /// It missed its time, or was outside the segment, before it could enter; or its deadline passed before its turn came.
    Late,
    /// A flush came over it.
    Flush,
    /// The element stopped.
    Closed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    pub busy: u64,
    pub late: u64,
    pub flush: u64,
    pub closed: u64,
}

impl Dropped {
    pub fn total(&self) -> u64 {
        self.busy + self.late + self.flush + self.closed
    }

    fn of(&mut self, reason: DropReason) -> &mut u64 {
        match reason {
            DropReason::Busy => &mut self.busy,
            DropReason::Late => &mut self.late,
            DropReason::Flush => &mut self.flush,
            DropReason::Closed => &mut self.closed,
        }
    }
}

/// What became of all frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub inferred: u64,
    pub failed: u64,
    pub dropped: Dropped,
    /// Waiting or in work, at most 2 of each stream.
    pub pending: u64,
}

/// What became of a frame that asked to enter.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<F> {
    /// It waits, in the place of one that waited, if one is given back.
    Admitted { replaced: Option<F> },
    /// There is no room, and it may not take another's place: ask again, or [give up](Admission::give_up).
    Full(F),
    /// It is dropped, and counted.
    Refused(DropReason),
}

/// What is to be done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Publish {
        /// Frames of the same stream dropped since its previous result.
        dropped: u64,
    },
    /// A flush or the end came over the frame while it was in work.
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Inferred,
    Failed,
}

/// Names a frame in work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// The waiting places and the work places of one inference element, with the books.
#[derive(Debug)]
pub struct Admission<F> {
    /// One of each stream at most; the stream that began to wait first comes first.
    waiting: VecDeque<(String, F)>,
    /// One of each stream at most.
    work: Vec<Work>,
    /// Frames that reached the pad and neither entered nor were given up, of the stream named.
    at_door: (String, u64),
    /// Why frames may not enter now.
    shut: Option<DropReason>,
    /// Of all frames whose fate is known; `pending` is counted when asked for.
    counts: Counts,
    /// Since the last result of each stream.
    dropped_since: PerStream<u64>,
    /// The last ticket's number.
    issued: u64,
}

#[derive(Debug)]
struct Work {
    ticket: Ticket,
    stream_id: String,
    /// Nobody wants the result any more.
    abandoned: Option<DropReason>,
}

impl<F> Default for Admission<F> {
    fn default() -> Self {
        Admission {
            waiting: VecDeque::new(),
            work: Vec::new(),
            at_door: Default::default(),
            shut: None,
            counts: Counts::default(),
            dropped_since: PerStream::default(),
            issued: 0,
        }
    }
}

impl<F> Admission<F> {
    /// Frames reached the pad. Those still at the door did not make it to [`enter`](Self::enter): they were late.
    pub fn approach(&mut self, stream_id: &str, frames: u64) {
        self.settle(DropReason::Late);
        self.at_door = (stream_id.to_owned(), frames);
    }

    /// A frame asks to be worked on.
    pub fn enter(&mut self, stream_id: &str, frame: F, when_busy: WhenBusy) -> Entry<F> {
        if let Some(reason) = self.shut {
            self.give_up(stream_id, reason);
            return Entry::Refused(reason);
        }
        let older = self.waiting.iter_mut().find(|(id, _)| id == stream_id);
        if when_busy == WhenBusy::Wait && older.is_some() {
            return Entry::Full(frame);
        }
        let replaced = match older {
            Some((_, older)) => Some((stream_id.to_owned(), std::mem::replace(older, frame))),
            None => {
                let full = self.waiting.len() == per_stream::MOST;
                let oldest = full.then(|| self.waiting.pop_front()).flatten();
                self.waiting.push_back((stream_id.to_owned(), frame));
                oldest
            }
        };
        self.received();
        Entry::Admitted {
            replaced: replaced.map(|(stream_id, frame)| {
                self.drop_received(&stream_id, DropReason::Busy);
                frame
            }),
        }
    }

    /// A frame that found no room will not ask again.
    pub fn give_up(&mut self, stream_id: &str, reason: DropReason) {
        self.received();
        self.drop_received(stream_id, reason);
    }

    /// No frame at the door is going to enter any more.
    pub fn settle(&mut self, reason: DropReason) {
        let (stream_id, frames) = std::mem::take(&mut self.at_door);
        for _ in 0..frames {
            self.counts.received += 1;
            self.drop_received(&stream_id, reason);
        }
    }

    /// How many frames wait that could be taken: of a stream one is in work at a time.
    pub fn ready(&self) -> usize {
        let is_ready = |(id, _): &&(String, F)| !self.is_in_work(id);
        self.waiting.iter().filter(is_ready).count()
    }

    /// The frame that is taken next when so many others are taken before.
    pub fn peek(&self, before: usize) -> Option<&F> {
        let ready = self.waiting.iter().filter(|(id, _)| !self.is_in_work(id));
        ready.map(|(_, frame)| frame).nth(before)
    }

    /// How many frames are in work.
    pub fn in_work(&self) -> usize {
        self.work.len()
    }

    /// The frame to work on next. It is in work until [`finish`](Self::finish).
    pub fn take(&mut self) -> Option<(Ticket, F)> {
        let mut waiting = self.waiting.iter();
        let next = waiting.position(|(id, _)| !self.is_in_work(id))?;
        let (stream_id, frame) = self.waiting.remove(next)?;
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.work.push(Work {
            ticket,
            stream_id,
            abandoned: None,
        });
        Some((ticket, frame))
    }

    /// A frame in work is to have no result.
    pub fn abandon(&mut self, ticket: Ticket, reason: DropReason) {
        let mut work = self.work.iter_mut();
        if let Some(work) = work.find(|work| work.ticket == ticket) {
            work.abandoned.get_or_insert(reason);
        }
    }

    /// Whether the result of a frame in work is still wanted.
    pub fn conclude(&mut self, ticket: Ticket) -> Conclusion {
        match self.work.iter().find(|work| work.ticket == ticket) {
            Some(Work {
                stream_id,
                abandoned: None,
                ..
            }) => Conclusion::Publish {
                dropped: std::mem::take(self.dropped_since.of(stream_id)),
            },
            _ => Conclusion::Discard,
        }
    }

    /// A frame in work is done with: its result was published, or discarded.
    pub fn finish(&mut self, ticket: Ticket, conclusion: Conclusion, outcome: Outcome) {
        let Some(at) = self.work.iter().position(|work| work.ticket == ticket) else {
            return;
        };
        let work = self.work.swap_remove(at);
        match (conclusion, outcome) {
            (Conclusion::Publish { .. }, Outcome::Inferred) => self.counts.inferred += 1,
            (Conclusion::Publish { .. }, Outcome::Failed) => self.counts.failed += 1,
            (Conclusion::Discard, _) => {
                let reason = work.abandoned.unwrap_or(DropReason::Closed);
                self.drop_received(&work.stream_id, reason);
            }
        }
    }

    /// Gives back what waited and refuses what comes, until [`reopen`](Self::reopen).
    pub fn flush(&mut self) -> Vec<F> {
        self.shut(DropReason::Flush)
    }

    pub fn reopen(&mut self) {
        self.settle(DropReason::Flush);
        if self.shut == Some(DropReason::Flush) {
            self.shut = None;
        }
    }

    /// Gives back what waited and refuses what comes, for good.
    pub fn close(&mut self) -> Vec<F> {
        self.shut(DropReason::Closed)
    }

    pub fn is_closed(&self) -> bool {
        self.shut == Some(DropReason::Closed)
    }

    /// Why frames are refused, if they are.
    pub fn refuses(&self) -> Option<DropReason> {
        self.shut
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.work.is_empty()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            pending: (self.waiting.len() + self.work.len()) as u64,
            ..self.counts
        }
    }

    fn is_in_work(&self, stream_id: &str) -> bool {
        self.work.iter().any(|work| work.stream_id == stream_id)
    }

    fn shut(&mut self, reason: DropReason) -> Vec<F> {
        if !self.is_closed() {
            self.shut = Some(reason);
        }
        for work in &mut self.work {
            work.abandoned.get_or_insert(reason);
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting
            .map(|(stream_id, frame)| {
                self.drop_received(&stream_id, reason);
                frame
            })
            .collect()
    }

    fn received(&mut self) {
        self.counts.received += 1;
        self.at_door.1 = self.at_door.1.saturating_sub(1);
    }

    fn drop_received(&mut self, stream_id: &str, reason: DropReason) {
        *self.counts.dropped.of(reason) += 1;
        *self.dropped_since.of(stream_id) += 1;
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
