//! Who may infer now, and in one run with whom: what [`batching`](crate::logic::batching) decides, for threads.
//!
//! A thread waits for its turn and takes its frame only then, so what it infers is the newest one even when many wait. Those
//! of one batch make their frames ready side by side, each in its own slot of the input; who is done last runs the model for
//! all.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::input::Slot;
use super::model::Model;
use super::tensor::Tensor;
use super::{EngineError, Room};
use crate::logic::batching::{Batching, Next, Terms, Ticket};

const LOOK: Duration = Duration::from_millis(20);

/// The share of a run's time for which those who shared one are waited for afterwards.
const MOMENT: u32 = 4;

/// The group of those who share no run, with anybody.
const ALONE: u64 = u64::MAX;

/// What inferences share that must not be too many at once.
pub struct Pool {
    /// Zero of its times.
    started: Instant,
    /// Between two looks at whether the turn is still wanted.
    look: Duration,
    state: Mutex<State>,
}

struct State {
    batching: Batching,
    /// Who waits, to be woken alone.
    waiting: HashMap<Ticket, Arc<Condvar>>,
    /// Whose turn it is, until they look.
    called: HashMap<Ticket, Seat>,
    /// What each is to infer with.
    models: HashMap<Ticket, Arc<Model>>,
    /// When a batch that waits for company closes.
    closes: Option<Duration>,
}

/// What a thread asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// How long it would wait for frames to share a run with.
    pub patience: Duration,
    /// How long from now its result is of use; who has the least comes first.
    pub budget: Duration,
    /// Whether nobody is to share the run.
    pub alone: bool,
}

impl Pool {
    /// For what has such room, alone or with all others on this machine's cores.
    pub fn of(room: Room) -> Arc<Pool> {
        static CORES: LazyLock<Arc<Pool>> = LazyLock::new(|| Arc::new(Pool::new(cores(), LOOK)));
        match room {
            Room::Cores { .. } => CORES.clone(),
            Room::Own(most) => Arc::new(Pool::new(most.max(1), LOOK)),
        }
    }

    fn new(room: usize, look: Duration) -> Self {
        Pool {
            started: Instant::now(),
            look,
            state: Mutex::new(State {
                batching: Batching::new(room),
                waiting: HashMap::new(),
                called: HashMap::new(),
                models: HashMap::new(),
                closes: None,
            }),
        }
    }

    /// Waits for a turn to infer with the model; `None` when it is not wanted any more.
    pub fn wait(
        self: &Arc<Self>,
        model: &Arc<Model>,
        request: Request,
        wanted: impl Fn() -> bool,
    ) -> Option<Seat> {
        let me = Arc::new(Condvar::new());
        let mut state = self.lock();
        let now = self.started.elapsed();
        let terms = Terms {
            group: if request.alone { ALONE } else { model.group() },
            most: if request.alone {
                1
            } else {
                model.most_frames()
            },
            patience: request.patience,
            deadline: now + request.budget,
            // It may well take longer than usual, and a thread wake up later than it should.
            takes: model.takes() * 2 + request.budget / 8,
            weight: weight(model.room()),
        };
        let ticket = state.batching.ask(terms, now);
        state.waiting.insert(ticket, me.clone());
        state.models.insert(ticket, model.clone());
        self.call(&mut state);
        let mut looked = Instant::now();
        loop {
            if let Some(seat) = state.called.remove(&ticket) {
                // It may have been the one who knew.
                state.tell_when_a_batch_closes();
                return Some(seat);
            }
            let rest = state
                .closes
                .map(|closes| closes.saturating_sub(self.started.elapsed()));
            let timeout = rest.map_or(self.look, |rest| rest.min(self.look));
            let waited = me.wait_timeout(state, timeout);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.closes.is_some() {
                self.call(&mut state);
            }
            if looked.elapsed() >= self.look && !state.called.contains_key(&ticket) {
                // Asked without the lock: what it looks at has locks of its own.
                drop(state);
                let wanted = wanted();
                looked = Instant::now();
                state = self.lock();
                if !wanted {
                    let seat = state.forget(ticket);
                    self.call(&mut state);
                    state.tell_when_a_batch_closes();
                    drop(state);
                    // It may have been called meanwhile: the others of its batch go on without it.
                    drop(seat);
                    return None;
                }
            }
        }
    }

    /// Gives turns to those whose they are.
    fn call(self: &Arc<Self>, state: &mut State) {
        loop {
            match state.batching.next(self.started.elapsed()) {
                Next::Start(members) => self.seat(state, &members),
                Next::Until(closes) => {
                    state.closes = Some(closes);
                    return;
                }
                Next::Nothing => {
                    state.closes = None;
                    return;
                }
            }
        }
    }

    fn seat(self: &Arc<Self>, state: &mut State, members: &[Ticket]) {
        let models: Vec<_> = members
            .iter()
            .filter_map(|ticket| state.models.remove(ticket))
            .collect();
        let Some(model) = models.into_iter().next() else {
            return;
        };
        let mut row = model.take_row(members.len());
        let slots: Vec<_> = row.drain(..members.len()).collect();
        let batch = Arc::new(Batch {
            pool: self.clone(),
            weight: weight(model.room()),
            model,
            progress: Mutex::new(Progress {
                slots: members.iter().map(|_| None).collect(),
                rest: row,
                unanswered: members.len(),
                ready: 0,
                until: None,
                outcome: None,
            }),
            ran: Condvar::new(),
        });
        for (index, (&ticket, slot)) in members.iter().zip(slots).enumerate() {
            let seat = Seat {
                batch: batch.clone(),
                index,
                slot: Some(slot),
            };
            state.called.insert(ticket, seat);
            if let Some(waiting) = state.waiting.remove(&ticket) {
                waiting.notify_one();
            }
        }
    }

    /// A run has ended, for so many that are likely to ask again.
    fn finish(self: &Arc<Self>, weight: usize, model: &Model, returning: usize) {
        let mut state = self.lock();
        state.batching.finish(weight);
        let until = self.started.elapsed() + model.takes() / MOMENT;
        state.batching.expect(model.group(), returning, until);
        self.call(&mut state);
        state.tell_when_a_batch_closes();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has one that sleeps look when that is: it may have begun to wait before there was such a time.
    fn tell_when_a_batch_closes(&self) {
        if let (Some(_), Some(waiting)) = (self.closes, self.waiting.values().next()) {
            waiting.notify_one();
        }
    }

    fn forget(&mut self, ticket: Ticket) -> Option<Seat> {
        self.batching.leave(ticket);
        self.waiting.remove(&ticket);
        self.models.remove(&ticket);
        self.called.remove(&ticket)
    }
}

/// One run of a model, for one frame or several.
struct Batch {
    pool: Arc<Pool>,
    model: Arc<Model>,
    weight: usize,
    progress: Mutex<Progress>,
    /// There is an outcome.
    ran: Condvar,
}

struct Progress {
    /// As they are handed in; those of who left stay as they were.
    slots: Vec<Option<Slot>>,
    /// What the row has beyond them.
    rest: Vec<Slot>,
    unanswered: usize,
    /// How many have a frame in it.
    ready: usize,
    /// The latest of all, whoever wants it earlier: what is late for one must not fail the others. The inner `None` is no
    /// limit, the outer one is that nobody has told theirs.
    until: Option<Option<Instant>>,
    outcome: Option<Arc<Outcome>>,
}

struct Outcome {
    outputs: Result<Vec<Tensor>, EngineError>,
    frames: usize,
    took: Duration,
}

/// The right to infer one frame, until it is dropped.
pub struct Seat {
    batch: Arc<Batch>,
    index: usize,
    /// Until it is handed in.
    slot: Option<Slot>,
}

/// What the model gave for the frame of one seat.
pub struct Share {
    outcome: Arc<Outcome>,
    index: usize,
}

impl Seat {
    /// Where the frame goes.
    pub fn slot(&mut self) -> &mut Slot {
        self.slot.get_or_insert_default()
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.batch.model
    }

    /// Takes a slot that was filled already, for the one it has; without a copy where the frame is alone in its run.
    pub fn exchange(&mut self, filled: &mut Slot) {
        let frames = self.batch.lock().slots.len();
        let alone = self.batch.model.fixed_frames().unwrap_or(frames) == 1;
        let own = self.slot();
        if alone || own.bytes.len() != filled.bytes.len() {
            std::mem::swap(own, filled);
        } else {
            own.bytes.copy_from_slice(&filled.bytes);
            own.laid_out = filled.laid_out;
        }
    }

    /// Runs the model when all of the batch are ready, or waits for who does. Not longer than `until`, as far as the engine
    /// can tell.
    pub fn infer(mut self, until: Option<Instant>) -> Result<Share, EngineError> {
        let slot = self.slot.take();
        let outcome = self.batch.answer(self.index, slot, true, until);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.batch.wait(),
        };
        match &outcome.outputs {
            Ok(_) => Ok(Share {
                outcome,
                index: self.index,
            }),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.batch.answer(self.index, Some(slot), false, None);
        }
    }
}

impl Share {
    pub fn outputs(&self) -> &[Tensor] {
        self.outcome.outputs.as_deref().unwrap_or_default()
    }

    /// Where among the frames of the run this one is.
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn frames(&self) -> usize {
        self.outcome.frames
    }

    /// How long the model ran.
    pub fn took(&self) -> Duration {
        self.outcome.took
    }
}

impl Batch {
    /// A slot comes back, with a frame in it or without. Runs the model if it is the last one.
    fn answer(
        &self,
        index: usize,
        slot: Option<Slot>,
        is_ready: bool,
        until: Option<Instant>,
    ) -> Option<Arc<Outcome>> {
        let (row, frames, ready, until) = {
            let mut progress = self.lock();
            if let Some(place) = progress.slots.get_mut(index) {
                *place = slot;
            }
            progress.ready += usize::from(is_ready);
            progress.unanswered -= 1;
            if is_ready {
                let told = progress.until.unwrap_or(until);
                progress.until = Some(told.zip(until).map(|(one, other)| one.max(other)));
            }
            if progress.unanswered > 0 {
                return None;
            }
            let slots = std::mem::take(&mut progress.slots);
            let frames = slots.len();
            let row = slots.into_iter().map(Option::unwrap_or_default);
            let row: Vec<_> = row.chain(std::mem::take(&mut progress.rest)).collect();
            (row, frames, progress.ready, progress.until.flatten())
        };
        let outcome = (ready > 0).then(|| Arc::new(self.run(row, frames, until)));
        let has_worked = outcome.as_ref().is_some_and(|o| o.outputs.is_ok());
        let returning = if has_worked { ready } else { 0 };
        self.pool.finish(self.weight, &self.model, returning);
        self.lock().outcome = outcome.clone();
        self.ran.notify_all();
        outcome
    }

    fn run(&self, mut row: Vec<Slot>, frames: usize, until: Option<Instant>) -> Outcome {
        let started = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let ran = self.model.run_row(&mut row, frames, until);
            self.model.give_row_back(row);
            ran
        }));
        let took = started.elapsed();
        self.model.has_taken(took);
        let panicked = |_| (Err(EngineError::Failed("the engine panicked".into())), 0);
        let (outputs, frames) = ran.unwrap_or_else(panicked);
        Outcome {
            outputs,
            frames,
            took,
        }
    }

    fn wait(&self) -> Arc<Outcome> {
        let mut progress = self.lock();
        loop {
            if let Some(outcome) = &progress.outcome {
                return outcome.clone();
            }
            let waited = self.ran.wait(progress);
            progress = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn weight(room: Room) -> usize {
    match room {
        Room::Cores { threads } => threads.max(1),
        Room::Own(_) => 1,
    }
}

#[cfg(test)]
mod tests;
