//! Sessions with servers that somebody in this process calls: elements that name the same one share its connection.
//!
//! One element has the address and calls; others send to the session, and one may take what comes back. They find each other
//! by the session's name, whichever of them is there first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::session::SessionConfig;
use super::stage::Stage;

/// Takes what the server sends.
pub struct Receiver {
    pub stage: Arc<dyn Stage>,
    pub config: SessionConfig,
    /// Decoded frames that may wait.
    pub max_buffers: u32,
    /// Whether the oldest one makes room when there are more, or the server waits.
    pub drop: bool,
    /// Told when the session is over for good, and whether there is nothing to complain of.
    pub over: Box<dyn FnOnce(bool) + Send>,
}

/// A session that is, or is to be, with a server.
pub struct Dialled {
    name: String,
    state: Mutex<State>,
    inputs_over: AtomicBool,
    /// Whether a session that is lost is followed by another one.
    reconnects: AtomicBool,
    args: Mutex<Option<ArgsTaker>>,
    changed: Notify,
    /// The session is over.
    over: Condvar,
}

/// Takes what an application sets for the session; says whether that is of any use.
pub type ArgsTaker = Box<dyn Fn(Map<String, Value>) -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    receiver: Option<Receiver>,
    over: Option<Box<dyn FnOnce(bool) + Send>>,
    closing: bool,
    is_over: bool,
    /// Nobody calls: what comes waits for the next session.
    rests: bool,
}

static DIALLED: Mutex<Vec<Weak<Dialled>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The session of that name is one with a server as long as what is returned lives. Without a name nobody else finds it.
pub fn announce(name: &str) -> Arc<Dialled> {
    let name = match name {
        "" => format!("dialled-{}", uuid::Uuid::new_v4()),
        name => name.to_owned(),
    };
    let dialled = Arc::new(Dialled {
        name,
        state: Mutex::default(),
        inputs_over: AtomicBool::new(false),
        reconnects: AtomicBool::new(false),
        args: Mutex::default(),
        changed: Notify::new(),
        over: Condvar::new(),
    });
    let mut all = lock(&DIALLED);
    all.retain(|dialled| dialled.strong_count() > 0);
    all.push(Arc::downgrade(&dialled));
    dialled
}

/// The session of that name, if somebody calls a server for it: who announced it first.
pub fn find(name: &str) -> Option<Arc<Dialled>> {
    if name.is_empty() {
        return None;
    }
    let all = lock(&DIALLED);
    all.iter()
        .filter_map(Weak::upgrade)
        .find(|dialled| dialled.name == name)
}

impl Dialled {
    /// By which what is published to it finds it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn set_reconnects(&self, reconnects: bool) {
        self.reconnects.store(reconnects, Ordering::Relaxed);
    }

    pub fn reconnects(&self) -> bool {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Begins anew.
    pub fn open(&self) {
        let mut state = lock(&self.state);
        (state.closing, state.is_over, state.rests) = (false, false, false);
        self.inputs_over.store(false, Ordering::Relaxed);
    }

    /// What comes back is for this one; `None` is nobody any more. Says whether nobody took it before.
    pub fn receive(&self, receiver: Option<Receiver>) -> bool {
        let mut state = lock(&self.state);
        if receiver.is_some() && (state.receiver.is_some() || state.over.is_some()) {
            return false;
        }
        state.over = None;
        state.receiver = receiver;
        true
    }

    pub fn has_receiver(&self) -> bool {
        let state = lock(&self.state);
        state.receiver.is_some() || state.over.is_some()
    }

    /// Who takes what comes back, for whoever calls.
    pub fn take_receiver(&self) -> Option<Receiver> {
        let mut state = lock(&self.state);
        let mut receiver = state.receiver.take()?;
        state.over = Some(std::mem::replace(&mut receiver.over, Box::new(|_| ())));
        Some(receiver)
    }

    /// Who takes what an application sets, while there is a session.
    pub fn take_args(&self, taker: Option<ArgsTaker>) {
        *lock(&self.args) = taker;
    }

    /// Tells the server what an application sets; says whether it takes any.
    pub fn send_args(&self, args: Map<String, Value>) -> bool {
        lock(&self.args).as_ref().is_some_and(|take| take(args))
    }

    /// Nothing more is sent: the session ends when nothing comes back any more.
    pub fn inputs_are_over(&self) {
        self.inputs_over.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub fn are_inputs_over(&self) -> bool {
        self.inputs_over.load(Ordering::Relaxed)
    }

    /// Somebody of the session stops: it is to end.
    pub fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_waiters();
    }

    pub fn is_closing(&self) -> bool {
        lock(&self.state).closing
    }

    /// Waits for something of it to change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// It is over for good: whoever takes what comes back is told.
    pub fn say_over(&self, well: bool) {
        let over = {
            let mut state = lock(&self.state);
            state.is_over = true;
            state.over.take()
        };
        if let Some(over) = over {
            over(well);
        }
        self.over.notify_all();
        self.changed.notify_waiters();
    }

    /// Waits until it is over or nobody calls, at most `limit`; says whether that is so.
    pub fn wait_over(&self, limit: Duration) -> bool {
        let goes_on = |state: &mut State| !state.is_over && !state.rests;
        let waited = self
            .over
            .wait_timeout_while(lock(&self.state), limit, goes_on);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        !goes_on(&mut state)
    }

    /// Whoever called has stopped.
    pub fn rest(&self) {
        {
            let mut state = lock(&self.state);
            (state.is_over, state.rests) = (false, true);
        }
        self.over.notify_all();
    }

    pub fn is_over(&self) -> bool {
        lock(&self.state).is_over
    }
}
