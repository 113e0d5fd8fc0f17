//! Where the streaming thread leaves frames and the worker takes them; all counting is done under its one lock.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::logic::{
    admission::{Admission, Conclusion, Counts, DropReason, Entry, Outcome, WhenBusy},
    frame_facts::FrameFacts,
    stats::{Latencies, Percentiles, ReportTimer},
};

/// A frame to be inferred.
pub struct Job {
    /// Held, not copied: at most one waits and one is in work.
    pub buffer: gst::Buffer,
    pub info: Arc<gst_video::VideoInfo>,
    pub facts: FrameFacts,
    /// When it came, nanoseconds of unix time.
    pub received_at: u64,
    /// The same moment, to measure from.
    pub entered: Instant,
}

impl Job {
    pub fn stream_id(&self) -> &str {
        self.facts.stream_id.as_deref().unwrap_or("")
    }
}

/// What became of a frame that was offered.
pub enum Offer {
    Admitted,
    /// There was no room, and the wait for it was aborted.
    Unlocked(Box<Job>),
    /// A flush or the end is in progress; the frame is counted as dropped.
    Refused,
}

/// What the worker does next.
pub enum Next {
    /// A frame waits: see [`Desk::take`].
    Infer,
    Report(Snapshot),
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
    /// Unknown before the first result.
    pub latency: Option<Percentiles>,
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
    latencies: Latencies,
    timer: ReportTimer,
    /// Waits of the streaming thread are to be aborted.
    unlocked: bool,
    /// The worker is at telling a result, and will not look again whether it is still wanted.
    publishing: bool,
}

impl Inner {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: self.admission.counts(),
            latency: self.latencies.percentiles(),
        }
    }
}

impl Desk {
    pub fn new(stats_interval: Option<Duration>) -> Desk {
        Desk {
            started: Instant::now(),
            inner: Mutex::new(Inner {
                admission: Admission::default(),
                latencies: Latencies::default(),
                timer: ReportTimer::new(stats_interval, Duration::ZERO),
                unlocked: false,
                publishing: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Frames reached the pad.
    pub fn approach(&self, stream_id: &str, frames: u64) {
        self.lock().admission.approach(stream_id, frames);
    }

    /// Leaves a frame for the worker; with `Wait` it may take until there is room.
    pub fn offer(&self, mut job: Box<Job>, when_busy: WhenBusy) -> Offer {
        // Given back by the lock's scope, so that no buffer is released under the lock.
        let _replaced;
        let stream_id = job.stream_id().to_owned();
        let mut inner = self.lock();
        loop {
            match inner.admission.enter(&stream_id, job, when_busy) {
                Entry::Admitted { replaced } => {
                    _replaced = replaced;
                    drop(inner);
                    self.changed.notify_all();
                    return Offer::Admitted;
                }
                Entry::Refused(_) => return Offer::Refused,
                Entry::Full(full) if inner.unlocked => return Offer::Unlocked(full),
                Entry::Full(full) => job = full,
            }
            inner = self.changed.wait(inner).unwrap();
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
                return Next::Report(inner.snapshot());
            }
            if inner.admission.has_waiting() {
                return Next::Infer;
            }
            inner = match inner.timer.rest(now) {
                Some(rest) => self.changed.wait_timeout(inner, rest).unwrap().0,
                None => self.changed.wait(inner).unwrap(),
            };
        }
    }

    /// The frame that waits, to be worked on until [`Desk::finish`].
    pub fn take(&self) -> Option<Box<Job>> {
        let job = self.lock().admission.take();
        self.changed.notify_all();
        job
    }

    pub fn is_closed(&self) -> bool {
        self.lock().admission.is_closed()
    }

    /// Whether the result of the frame in work is still wanted.
    pub fn conclude(&self) -> Conclusion {
        let inner = &mut *self.lock();
        let conclusion = inner.admission.conclude();
        inner.publishing = conclusion != Conclusion::Discard;
        conclusion
    }

    /// Waits until no result is being told. After a flush none from before it will be.
    pub fn wait_published(&self) {
        let inner = self.lock();
        drop(self.changed.wait_while(inner, |inner| inner.publishing));
    }

    /// The frame in work is done with.
    pub fn finish(&self, conclusion: Conclusion, outcome: Outcome, latency: Duration) {
        {
            let inner = &mut *self.lock();
            inner.publishing = false;
            inner.admission.finish(conclusion, outcome);
            if conclusion != Conclusion::Discard && outcome == Outcome::Inferred {
                inner.latencies.record(latency);
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
