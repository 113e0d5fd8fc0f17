//! Which frames get inferred when more come than can be: one is in work, one waits, the rest is dropped and counted.
//!
//! In every [`Counts`], `received = inferred + dropped + failed + pending`.

use crate::logic::per_stream::PerStream;

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
    /// It missed its time, or was outside the segment, before it could enter.
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
    /// Waiting or in work, at most 2.
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

/// The waiting place and the work place of one inference element, with the books.
#[derive(Debug)]
pub struct Admission<F> {
    waiting: Option<(String, F)>,
    work: Option<Work>,
    /// Frames that reached the pad and neither entered nor were given up, of the stream named.
    at_door: (String, u64),
    /// Why frames may not enter now.
    shut: Option<DropReason>,
    /// Of all frames whose fate is known; `pending` is counted when asked for.
    counts: Counts,
    /// Since the last result of each stream.
    dropped_since: PerStream<u64>,
}

#[derive(Debug)]
struct Work {
    stream_id: String,
    /// Nobody wants the result any more.
    abandoned: Option<DropReason>,
}

impl<F> Default for Admission<F> {
    fn default() -> Self {
        Admission {
            waiting: None,
            work: None,
            at_door: Default::default(),
            shut: None,
            counts: Counts::default(),
            dropped_since: PerStream::default(),
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
        if when_busy == WhenBusy::Wait && self.waiting.is_some() {
            return Entry::Full(frame);
        }
        self.received();
        let older = self.waiting.replace((stream_id.to_owned(), frame));
        Entry::Admitted {
            replaced: older.map(|(stream_id, frame)| {
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

    pub fn has_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The frame to work on next. It is in work until [`finish`](Self::finish).
    pub fn take(&mut self) -> Option<F> {
        if self.work.is_some() {
            return None;
        }
        let (stream_id, frame) = self.waiting.take()?;
        self.work = Some(Work {
            stream_id,
            abandoned: None,
        });
        Some(frame)
    }

    /// Whether the result of the frame in work is still wanted.
    pub fn conclude(&mut self) -> Conclusion {
        match &self.work {
            Some(Work {
                stream_id,
                abandoned: None,
            }) => Conclusion::Publish {
                dropped: std::mem::take(self.dropped_since.of(stream_id)),
            },
            _ => Conclusion::Discard,
        }
    }

    /// The frame in work is done with: its result was published, or discarded.
    pub fn finish(&mut self, conclusion: Conclusion, outcome: Outcome) {
        let Some(work) = self.work.take() else {
            return;
        };
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
    pub fn flush(&mut self) -> Option<F> {
        self.shut(DropReason::Flush)
    }

    pub fn reopen(&mut self) {
        self.settle(DropReason::Flush);
        if self.shut == Some(DropReason::Flush) {
            self.shut = None;
        }
    }

    /// Gives back what waited and refuses what comes, for good.
    pub fn close(&mut self) -> Option<F> {
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
        self.waiting.is_none() && self.work.is_none()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            pending: u64::from(self.waiting.is_some()) + u64::from(self.work.is_some()),
            ..self.counts
        }
    }

    fn shut(&mut self, reason: DropReason) -> Option<F> {
        if !self.is_closed() {
            self.shut = Some(reason);
        }
        if let Some(work) = &mut self.work {
            work.abandoned.get_or_insert(reason);
        }
        let (stream_id, frame) = self.waiting.take()?;
        self.drop_received(&stream_id, reason);
        Some(frame)
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
