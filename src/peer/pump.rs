//! A source pad, the bounded queue in front of it, and the thread that pushes.
//!
//! This is what keeps two sides apart: whoever fills the queue never waits, and flow errors, EOS and latency of
//! what is linked to the pad never reach it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::logic::handoff::{Handoff, Pushed, WhenFull};

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    Buffers(u64),
    Duration(gst::ClockTime),
}

impl Bound {
    fn cost(self, buffer: &gst::BufferRef) -> u64 {
        match self {
            Self::Buffers(_) => 1,
            Self::Duration(_) => buffer.duration().map_or(0, gst::ClockTime::nseconds),
        }
    }
}

/// Told from the pushing thread; must not block.
pub trait PumpOwner: Send + Sync {
    /// What is linked to the pad refuses for good.
    fn refused(&self, flow: gst::FlowError);
    /// An event came up the pad; whether it was taken.
    fn upstream(&self, event: &gst::Event) -> bool;
    /// What the LATENCY query says, the element's own part and all before it.
    fn latency(&self) -> gst::ClockTime;
    /// Whether what is pushed goes on by itself, and who is slow must miss some of it.
    fn is_live(&self) -> bool;
    /// By what [`delivered`](Self::delivered) knows a buffer; `None` where nobody wants to know.
    fn label(&self, _buffer: &gst::BufferRef) -> Option<u64> {
        None
    }
    /// What is linked to the pad has had the buffer of that label.
    fn delivered(&self, _label: u64) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// EOS follows what waits.
    Finishing,
    /// Nothing is pushed any more.
    Closed,
}

struct State {
    queue: Handoff<(gst::Buffer, gst::Caps)>,
    /// Fields that go down as an event before the next buffer; newer ones win.
    args: Option<gst::Structure>,
    phase: Phase,
    /// EOS was pushed, or can no longer be.
    finished: bool,
    /// Downstream takes nothing more.
    refused: bool,
    /// Nothing is to be pushed just now; and whether something is being pushed still.
    held: bool,
    pushing: bool,
    pushed: u64,
    /// Nothing is to be pushed before the end, for the time being.
    withheld: bool,
}

struct Shared {
    bound: Bound,
    state: Mutex<State>,
    wake: Condvar,
    owner: Arc<dyn PumpOwner>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Pump {
    shared: Arc<Shared>,
    pad: gst::Pad,
}

impl Pump {
    /// `builder` makes the pad; it is activated, but nothing is pushed before [`Pump::start`].
    pub fn new(
        builder: gst::PadBuilder<gst::Pad>,
        bound: Bound,
        when_full: WhenFull,
        owner: Arc<dyn PumpOwner>,
    ) -> Self {
        let shared = Arc::new(Shared {
            bound,
            state: Mutex::new(State {
                queue: match bound {
                    Bound::Buffers(limit) => Handoff::of_items(limit, when_full),
                    Bound::Duration(limit) => Handoff::new(limit.nseconds(), when_full),
                },
                args: None,
                phase: Phase::Running,
                finished: false,
                refused: false,
                held: false,
                pushing: false,
                pushed: 0,
                withheld: false,
            }),
            wake: Condvar::new(),
            owner,
        });
        let for_events = Arc::downgrade(&shared);
        let for_queries = Arc::downgrade(&shared);
        let pad = builder
            .event_function(move |_, _, event| {
                for_events
                    .upgrade()
                    .is_some_and(|shared| shared.owner.upstream(&event))
            })
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    let owner = for_queries.upgrade().map(|s| s.owner.clone());
                    let own = owner.as_ref().map(|o| o.latency()).unwrap_or_default();
                    let live = owner.is_none_or(|owner| owner.is_live());
                    latency.set(live, own, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        Self { shared, pad }
    }

    pub fn pad(&self) -> &gst::Pad {
        &self.pad
    }

    /// Activates the pad and gives it what every stream begins with; what is linked sees it before any buffer.
    pub fn open(&self, stream_start: gst::Event, caps: &gst::Caps) {
        // Fails only for a pad whose element refuses, and ours do not.
        let _ = self.pad.set_active(true);
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        self.pad.push_event(stream_start);
        self.pad.push_event(gst::event::Caps::new(caps));
        self.pad.push_event(gst::event::Segment::new(&segment));
    }

    /// Starts the thread that pushes.
    pub fn start(&self) -> Result<(), gst::glib::BoolError> {
        let shared = self.shared.clone();
        let pad = self.pad.downgrade();
        self.pad.start_task(move || {
            if let Some(pad) = pad.upgrade() {
                step(&shared, &pad);
            }
        })
    }

    /// Adds a buffer that is wanted at `due`, on the same clock as `now`; never waits.
    pub fn push(
        &self,
        buffer: gst::Buffer,
        caps: gst::Caps,
        key: bool,
        due: Duration,
        now: Duration,
    ) -> Pushed {
        let cost = self.shared.bound.cost(&buffer);
        let mut state = self.shared.lock();
        if state.phase != Phase::Running || state.refused {
            state.queue.dropped += 1;
            return Pushed::Displaced(1);
        }
        let pushed = state.queue.push((buffer, caps), cost, key, due, now);
        self.shared.wake.notify_all();
        pushed
    }

    /// Adds a buffer when there is room for it, and waits until then.
    pub fn push_when_room(&self, buffer: gst::Buffer, caps: gst::Caps) -> Pushed {
        let state = self.shared.lock();
        let full = |state: &mut State| {
            state.phase == Phase::Running && !state.refused && state.queue.is_full()
        };
        let state = self.shared.wake.wait_while(state, full);
        drop(state.unwrap_or_else(PoisonError::into_inner));
        self.push(buffer, caps, true, Duration::ZERO, Duration::ZERO)
    }

    /// Whether what comes waits for the time being. When the end comes, it goes first.
    pub fn withhold(&self, withheld: bool) {
        self.shared.lock().withheld = withheld;
        self.shared.wake.notify_all();
    }

    /// Sends the fields down as an event, before the next buffer; never waits.
    pub fn send_args(&self, newer: gst::Structure) {
        let mut state = self.shared.lock();
        match &mut state.args {
            Some(args) => newer.iter().for_each(|(name, value)| {
                args.set_value(name.as_str(), value.clone());
            }),
            None => state.args = Some(newer),
        }
        self.shared.wake.notify_all();
    }

    /// Drops what waits here and downstream, then goes on. For a push that does not return within `limit` it waits no longer.
    pub fn restart(&self, limit: Duration) {
        {
            let mut state = self.shared.lock();
            if state.phase != Phase::Running || state.held {
                return;
            }
            state.held = true;
            let left = state.queue.clear();
            state.queue.dropped += left;
        }
        self.pad.push_event(gst::event::FlushStart::new());
        let state = self.shared.lock();
        drop(
            self.shared
                .wake
                .wait_timeout_while(state, limit, |state| state.pushing),
        );
        self.pad.push_event(gst::event::FlushStop::new(false));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        self.pad.push_event(gst::event::Segment::new(&segment));
        self.shared.lock().held = false;
        self.shared.wake.notify_all();
    }

    /// EOS follows what waits.
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Finishing;
        }
        self.shared.wake.notify_all();
    }

    /// Waits until EOS was pushed, at most `limit`.
    pub fn wait_finished(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .shared
                .wake
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Unblocks and drops what is downstream, so that a push that hangs there returns.
    pub fn flush(&self) {
        self.abandon();
        self.pad.push_event(gst::event::FlushStart::new());
    }

    /// After a flush: EOS for whoever takes it within `limit`.
    pub fn finish_flushed(&self, limit: Duration) -> bool {
        if !self.wait_finished(limit) {
            return false;
        }
        self.pad.push_event(gst::event::FlushStop::new(false));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        self.pad.push_event(gst::event::Segment::new(&segment));
        {
            let mut state = self.shared.lock();
            state.finished = false;
            state.phase = Phase::Finishing;
        }
        self.start().is_ok() && self.wait_finished(limit)
    }

    /// Nothing more is pushed; does not wait for a push under way.
    pub fn abandon(&self) {
        let mut state = self.shared.lock();
        state.phase = Phase::Closed;
        let left = state.queue.clear();
        state.queue.dropped += left;
        self.shared.wake.notify_all();
    }

    /// Stops the thread, waiting for a push under way. Never called from it.
    pub fn stop(&self) {
        self.abandon();
        let _ = self.pad.set_active(false);
        let _ = self.pad.stop_task();
    }

    /// Whether nothing waits and nothing is being pushed.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.phase == Phase::Closed || (state.queue.is_empty() && !state.pushing)
    }

    /// Buffers pushed, and dropped because downstream was slow.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.pushed, state.queue.dropped)
    }
}

enum Next {
    Args(gst::Structure),
    Buffer(gst::Buffer, gst::Caps),
    End,
}

/// One turn of the pushing thread.
fn step(shared: &Shared, pad: &gst::Pad) {
    let next = {
        let mut state = shared.lock();
        loop {
            if state.phase == Phase::Closed {
                break Next::End;
            }
            if !state.held {
                if let Some(args) = state.args.take() {
                    break Next::Args(args);
                }
                if (!state.withheld || state.phase == Phase::Finishing)
                    && let Some((buffer, caps)) = state.queue.pop()
                {
                    state.pushing = true;
                    // Somebody may wait for room.
                    shared.wake.notify_all();
                    break Next::Buffer(buffer, caps);
                }
            }
            // What waits for leave goes before the end does.
            if state.phase == Phase::Finishing && state.queue.is_empty() {
                break Next::End;
            }
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    };
    match next {
        Next::Args(args) => {
            pad.push_event(gst::event::CustomDownstream::new(args));
        }
        Next::Buffer(buffer, caps) => {
            if pad.current_caps().as_ref() != Some(&caps) {
                pad.push_event(gst::event::Caps::new(&caps));
            }
            let label = shared.owner.label(&buffer);
            let flow = pad.push(buffer);
            if let Some(label) = label {
                shared.owner.delivered(label);
            }
            let refused = {
                let mut state = shared.lock();
                state.pushing = false;
                shared.wake.notify_all();
                match flow {
                    Ok(_) => {
                        state.pushed += 1;
                        None
                    }
                    Err(gst::FlowError::NotLinked | gst::FlowError::Flushing) => {
                        state.queue.dropped += 1;
                        None
                    }
                    Err(flow) if !state.refused => {
                        state.refused = true;
                        state.queue.dropped += 1 + state.queue.clear();
                        Some(flow)
                    }
                    Err(_) => None,
                }
            };
            if let Some(flow) = refused {
                shared.owner.refused(flow);
            }
        }
        Next::End => {
            let finishing = shared.lock().phase == Phase::Finishing;
            if finishing {
                pad.push_event(gst::event::Eos::new());
            }
            let mut state = shared.lock();
            state.finished = true;
            state.phase = Phase::Closed;
            shared.wake.notify_all();
            drop(state);
            let _ = pad.pause_task();
        }
    }
}
