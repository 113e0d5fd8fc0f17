//! Who may infer now: as many at once as there are cores, in the order they asked.
//!
//! More would share the cores' time and all be late. A worker takes its frame when its turn has come, so what it
//! infers is the newest frame even when many wait.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks at whether the turn is still wanted.
const LOOK: Duration = Duration::from_millis(20);

static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Turns::new(cores)
});

/// Waits for a turn; `None` when it is not wanted any more.
pub fn wait(wanted: impl Fn() -> bool) -> Option<Turn<'static>> {
    TURNS.wait(wanted)
}

struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Who waits, oldest first; each is woken alone.
    queue: VecDeque<Arc<Condvar>>,
}

impl Turns {
    fn new(free: usize) -> Self {
        Self {
            state: Mutex::new(State {
                free,
                queue: VecDeque::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, wanted: impl Fn() -> bool) -> Option<Turn<'_>> {
        let me = Arc::new(Condvar::new());
        let mut state = self.lock();
        state.queue.push_back(me.clone());
        loop {
            let first = state
                .queue
                .front()
                .is_some_and(|first| Arc::ptr_eq(first, &me));
            if first && state.free > 0 {
                state.free -= 1;
                state.queue.pop_front();
                state.wake_first();
                return Some(Turn { turns: self });
            }
            let waited = me.wait_timeout(state, LOOK);
            let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if timeout.timed_out() {
                // Asked without the lock: what it looks at has locks of its own.
                drop(state);
                let wanted = wanted();
                state = self.lock();
                if !wanted {
                    state.queue.retain(|other| !Arc::ptr_eq(other, &me));
                    state.wake_first();
                    return None;
                }
            }
        }
    }
}

impl State {
    fn wake_first(&self) {
        if self.free > 0
            && let Some(first) = self.queue.front()
        {
            first.notify_one();
        }
    }
}

/// The right to infer, until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.free += 1;
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_than_there_are_turns_are_at_it_at_once() {
        let turns = Arc::new(Turns::new(2));
        let (at_it, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (turns, at_it, most) = (turns.clone(), at_it.clone(), most.clone());
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let _turn = turns.wait(|| true).unwrap();
                        most.fetch_max(at_it.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        at_it.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(turns.lock().free, 2);
    }

    #[test]
    fn turns_are_given_in_order_and_who_gives_up_holds_up_nobody() {
        let turns = Arc::new(Turns::new(1));
        let first = turns.wait(|| true).unwrap();
        let (tell, order) = mpsc::channel();
        let mut threads = Vec::new();
        let gone = Arc::new(AtomicBool::new(false));
        for number in 0..3 {
            let (waiting, tell, gone) = (turns.clone(), tell.clone(), gone.clone());
            threads.push(std::thread::spawn(move || {
                // The one in the middle gives up.
                let turn = waiting.wait(|| number != 1 || !gone.load(Ordering::SeqCst));
                tell.send((number, turn.is_some())).unwrap();
            }));
            while turns.lock().queue.len() < number + 1 {
                std::thread::yield_now();
            }
        }
        gone.store(true, Ordering::SeqCst);
        assert_eq!(order.recv(), Ok((1, false)));
        drop(first);
        assert_eq!(order.recv(), Ok((0, true)));
        assert_eq!(order.recv(), Ok((2, true)));
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}
