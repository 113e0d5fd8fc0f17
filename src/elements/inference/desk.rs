//! Where the streaming thread leaves frames and the workers take them; all counting is done under its one lock.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::frame::Prepared;
use crate::logic::{
    admission::{Admission, Conclusion, Counts, DropReason, Entry, Outcome, Ticket, WhenBusy},
    frame_facts::FrameFacts,
    stats::{Percentiles, ReportTimer, Stage, Stages},
    wire::result::Timing,
};

/// Threads of one element that infer, one for each stream that comes through it at the same time.
const MOST_WORKERS: usize = 16;

/// A frame to be inferred.
pub struct Job {
    /// Held, not copied: of each stream at most one waits and one is in work.
    pub buffer: gst::Buffer,
    pub info: Arc<gst_video::VideoInfo>,
    pub facts: FrameFacts,
    /// When it came, nanoseconds of unix time.
    pub received_at: u64,
    /// The same moment, to measure from.
    pub entered: Instant,
    /// When its result is of no use any more, for frames that come from something live.
    pub until: Option<Instant>,
    /// What the model is to be given, where the streaming thread has made it already.
    pub prepared: Option<Prepared>,
}

impl Job {
    pub fn stream_id(&self) -> &str {
        self.facts.stream_id.as_deref().unwrap_or("")
    }
}

/// What became of a frame that was offered.
pub enum Offer {
    Admitted {
        /// One more worker is needed, and counted on.
        shorthanded: bool,
    },
    /// There was no room, and the wait for it was aborted.
    Unlocked(Box<Job>),
    /// A flush or the end is in progress; the frame is counted as dropped.
    Refused,
}

/// What the worker does next.
pub enum Next {
    /// A frame waits, and is left to this worker: see [`Desk::take`] and [`Desk::unclaim`].
    Infer {
        /// Until when the result of the frame that waits longest is of use.
        until: Option<Instant>,
    },
    /// Statistics are due: see [`Desk::snapshot`].
    Report,
    Stop,
}

/// How a wait for idleness ended.
pub enum Idle {
    Reached,
    Unlocked,
    Refused,
}

/// All counts at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub counts: Counts,
    /// By stage, in the order of [`Stage::ALL`]; unknown before the first result.
    pub stages: [Option<Percentiles>; Stage::ALL.len()],
}

pub struct Desk {
    /// Zero of the timer.
    started: Instant,
    inner: Mutex<Inner>,
    /// Something in `inner` changed that somebody may wait for.
    changed: Condvar,
}

struct Inner {
    admission: Admission<Box<Job>>,
    stages: Stages,
    timer: ReportTimer,
    /// Waits of the streaming thread are to be aborted.
    unlocked: bool,
    /// How often what happens when busy was changed.
    reconsidered: u64,
    /// Workers that are at telling a result, and will not look again whether it is still wanted.
    publishing: usize,
    /// Workers that there are.
    workers: usize,
    /// Workers that are going to take a frame when their turn has come.
    claims: usize,
}

impl Inner {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: self.admission.counts(),
            stages: self.stages.percentiles(),
        }
    }

    /// Frames that wait and that no worker is going to take.
    fn unclaimed(&self) -> usize {
        self.admission.ready().saturating_sub(self.claims)
    }

    /// Whether one more worker would be of use; it then counts.
    fn hire(&mut self) -> bool {
        let busy = self.admission.in_work() + self.claims;
        let idle = self.workers.saturating_sub(busy);
        let shorthanded = self.workers < MOST_WORKERS && self.unclaimed() > idle;
        self.workers += usize::from(shorthanded);
        shorthanded
    }
}

impl Desk {
    pub fn new(stats_interval: Option<Duration>) -> Desk {
        Desk {
            started: Instant::now(),
            inner: Mutex::new(Inner {
                admission: Admission::default(),
                stages: Stages::default(),
                timer: ReportTimer::new(stats_interval, Duration::ZERO),
                unlocked: false,
                reconsidered: 0,
                publishing: 0,
                workers: 1,
                claims: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Frames reached the pad.
    pub fn approach(&self, stream_id: &str, frames: u64) {
        self.lock().admission.approach(stream_id, frames);
    }

    /// Leaves a frame for a worker; with `Wait` it may take until there is room. What happens when busy is asked again
    /// whenever there may be room.
    pub fn offer(&self, mut job: Box<Job>, when_busy: impl Fn() -> WhenBusy) -> Offer {
        let stream_id = job.stream_id().to_owned();
        loop {
            let asked = self.lock().reconsidered;
            // It may ask upstream.
            let when_busy = when_busy();
            // Given back by the lock's scope, so that no buffer is released under the lock.
            let _replaced;
            let mut inner = self.lock();
            match inner.admission.enter(&stream_id, job, when_busy) {
                Entry::Admitted { replaced } => {
                    _replaced = replaced;
                    let shorthanded = inner.hire();
                    drop(inner);
                    self.changed.notify_all();
                    return Offer::Admitted { shorthanded };
                }
                Entry::Refused(_) => return Offer::Refused,
                Entry::Full(full) if inner.unlocked => return Offer::Unlocked(full),
                Entry::Full(full) => job = full,
            }
            if inner.reconsidered == asked {
                drop(self.changed.wait(inner).unwrap());
            }
        }
    }

    /// An unlocked frame will not be offered again.
    pub fn give_up(&self, job: Box<Job>) {
        let mut inner = self.lock();
        let reason = inner.admission.refuses().unwrap_or(DropReason::Flush);
        inner.admission.give_up(job.stream_id(), reason);
    }

    /// A frame that reached the pad is not offered at all.
    pub fn turn_away(&self, stream_id: &str, reason: DropReason) {
        let mut inner = self.lock();
        let reason = inner.admission.refuses().unwrap_or(reason);
        inner.admission.give_up(stream_id, reason);
    }

    /// No frame that reached the pad is going to be offered any more.
    pub fn settle(&self, reason: DropReason) {
        self.lock().admission.settle(reason);
    }

    /// Waits until nothing waits and nothing is in work.
    pub fn wait_idle(&self) -> Idle {
        let mut inner = self.lock();
        loop {
            if inner.admission.refuses().is_some() {
                return Idle::Refused;
            }
            if inner.admission.is_idle() {
                return Idle::Reached;
            }
            if inner.unlocked {
                return Idle::Unlocked;
            }
            inner = self.changed.wait(inner).unwrap();
        }
    }

    /// What happens when busy was changed.
    pub fn reconsider(&self) {
        // Counted, for whoever has just asked and does not wait yet.
        self.lock().reconsidered += 1;
        self.changed.notify_all();
    }

    /// Aborts the waits of the streaming thread, until told otherwise.
    pub fn set_unlocked(&self, unlocked: bool) {
        self.lock().unlocked = unlocked;
        self.changed.notify_all();
    }

    pub fn flush(&self) {
        let dropped = self.lock().admission.flush();
        self.changed.notify_all();
        drop(dropped);
    }

    pub fn reopen(&self) {
        self.lock().admission.reopen();
    }

    /// Ends all waits, and the worker after the frame it is at.
    pub fn close(&self) {
        let dropped = self.lock().admission.close();
        self.changed.notify_all();
        drop(dropped);
    }

    /// Waits for what the worker is to do.
    pub fn next(&self) -> Next {
        let mut inner = self.lock();
        loop {
            if inner.admission.is_closed() {
                return Next::Stop;
            }
            let now = self.started.elapsed();
            if inner.timer.is_due(now) {
                return Next::Report;
            }
            if inner.unclaimed() > 0 {
                let next = inner.admission.peek(inner.claims);
                let until = next.and_then(|job| job.until);
                inner.claims += 1;
                return Next::Infer { until };
            }
            inner = match inner.timer.rest(now) {
                Some(rest) => self.changed.wait_timeout(inner, rest).unwrap().0,
                None => self.changed.wait(inner).unwrap(),
            };
        }
    }

    /// The frame that waits longest, to be worked on until [`Desk::finish`]; what was claimed may have been flushed meanwhile.
    pub fn take(&self) -> Option<(Ticket, Box<Job>)> {
        let taken = {
            let inner = &mut *self.lock();
            inner.claims -= 1;
            inner.admission.take()
        };
        self.changed.notify_all();
        taken
    }

    /// A frame that was claimed is not going to be taken.
    pub fn unclaim(&self) {
        self.lock().claims -= 1;
        self.changed.notify_all();
    }

    /// A worker that was counted on could not be had.
    pub fn dismiss(&self) {
        self.lock().workers -= 1;
    }

    pub fn is_closed(&self) -> bool {
        self.lock().admission.is_closed()
    }

    /// The time of a frame in work has passed.
    pub fn is_late(&self, ticket: Ticket) {
        self.lock().admission.abandon(ticket, DropReason::Late);
    }

    /// Whether the result of a frame in work is still wanted.
    pub fn conclude(&self, ticket: Ticket) -> Conclusion {
        let inner = &mut *self.lock();
        let conclusion = inner.admission.conclude(ticket);
        inner.publishing += usize::from(conclusion != Conclusion::Discard);
        conclusion
    }

    /// Waits until no result is being told. After a flush none from before it will be.
    pub fn wait_published(&self) {
        let inner = self.lock();
        drop(self.changed.wait_while(inner, |inner| inner.publishing > 0));
    }

    /// A frame in work is done with.
    pub fn finish(
        &self,
        ticket: Ticket,
        conclusion: Conclusion,
        outcome: Outcome,
        timing: &Timing,
    ) {
        {
            let inner = &mut *self.lock();
            inner.publishing -= usize::from(conclusion != Conclusion::Discard);
            inner.admission.finish(ticket, conclusion, outcome);
            if let (true, Outcome::Inferred, Some(steps)) =
                (conclusion != Conclusion::Discard, outcome, timing.steps)
            {
                for (stage, took) in [
                    (Stage::Queue, timing.queue),
                    (Stage::Preprocess, steps.preprocess),
                    (Stage::Inference, steps.inference),
                    (Stage::Postprocess, steps.postprocess),
                    (Stage::Total, timing.total),
                ] {
                    inner.stages.record(stage, took);
                }
            }
        }
        self.changed.notify_all();
    }

    /// What to report, when it is time: asked by the streaming thread too, since the worker may be long at one frame.
    pub fn report_if_due(&self) -> Option<Snapshot> {
        let inner = &mut *self.lock();
        let now = self.started.elapsed();
        inner.timer.is_due(now).then(|| inner.snapshot())
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}
