//! Whether buffers may go through, and when: of all pads of an element.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::prelude::*;

/// How often a wait for a buffer's time looks at the clock again: it may have been changed.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    playing: bool,
    /// Names of pads that are being flushed.
    flushing: Vec<String>,
    /// As if all of them were, while the element stops and until it starts.
    stopped: bool,
    /// Running time at which a seek began the streams' own time anew: nothing prerolls here for which the pipeline would begin
    /// its time anew as well.
    epoch: gst::ClockTime,
    /// What is not live has waited for the server, and its time begins when that was there.
    met_server: bool,
}

impl Gate {
    pub fn start(&self) {
        self.change(|state| state.stopped = false);
    }

    /// Who waits here waits no longer, and nothing goes through any more.
    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    /// Stopped, and as it was before the first buffer.
    pub fn reset(&self) {
        self.change(|state| {
            *state = State {
                stopped: true,
                ..State::default()
            };
        });
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    pub fn set_playing(&self, playing: bool) {
        self.change(|state| state.playing = playing);
    }

    pub fn is_playing(&self) -> bool {
        self.lock().playing
    }

    pub fn begin_flush(&self, pad: &gst::Pad) {
        self.change(|state| state.flushing.push(pad.name().into()));
    }

    pub fn end_flush(&self, pad: &gst::Pad) {
        let name = pad.name();
        self.change(|state| state.flushing.retain(|flushing| *flushing != name));
    }

    /// Whether nothing of that pad goes through now.
    pub fn shuts(&self, pad: &gst::Pad) -> bool {
        self.lock().shuts(pad)
    }

    /// A seek was made; `now` is running time.
    pub fn begin_anew(&self, now: gst::ClockTime) {
        self.change(|state| {
            state.epoch = match state.playing {
                true => now,
                false => gst::ClockTime::ZERO,
            };
        });
    }

    /// The server is there; the first buffer that waited for it is so `late`.
    pub fn met_server(&self, late: Option<gst::ClockTime>) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.met_server, true)
            && let Some(late) = late
        {
            state.epoch = late;
        }
    }

    /// What is to be added to the running times of buffers; `now` is running time.
    pub fn epoch(&self, now: gst::ClockTime) -> gst::ClockTime {
        let mut state = self.lock();
        // The pipeline has begun its time anew after all.
        if state.playing && now < state.epoch {
            state.epoch = gst::ClockTime::ZERO;
        }
        state.epoch
    }

    /// Waits so long, or until something changes.
    pub fn wait_for(&self, pad: &gst::Pad, long: Duration) -> Result<(), gst::FlowError> {
        let state = self.lock();
        if state.shuts(pad) {
            return Err(gst::FlowError::Flushing);
        }
        drop(self.moved.wait_timeout(state, long));
        Ok(())
    }

    /// Waits until the element plays, and then until that running time, if there is one.
    pub fn wait_until(
        &self,
        pad: &gst::Pad,
        due: Option<gst::ClockTime>,
        now: impl Fn() -> Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        let mut state = self.lock();
        loop {
            if state.shuts(pad) {
                return Err(gst::FlowError::Flushing);
            }
            let mut left = LOOK;
            if state.playing {
                match due.zip(now()).and_then(|(due, now)| due.checked_sub(now)) {
                    Some(early) if !early.is_zero() => left = LOOK.min(early.into()),
                    _ => return Ok(()),
                }
            }
            let waited = self.moved.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shuts(&self, pad: &gst::Pad) -> bool {
        self.stopped || self.flushing.iter().any(|name| pad.name() == **name)
    }
}
