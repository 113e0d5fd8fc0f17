//! What is said to a peer's data channel, and how much of it waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::logic::metrics::Metrics;
use crate::logic::wire::dialect::Payload;

/// So many messages that wait are few.
const FEW: u32 = 8;
/// How often whoever waits for room looks whether that is still of use.
const GIVEN_UP_YET: Duration = Duration::from_millis(100);

/// What goes to a peer's data channel.
pub struct Message {
    /// The channel's label; without one it is the oldest open channel.
    pub channel: Option<String>,
    /// It goes out whole or not at all.
    pub pieces: Vec<Payload>,
    /// Whether the application is told of what finds no way.
    pub tell: bool,
    pub waits: Waits,
}

/// What a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It is dropped when it cannot go at once.
    Not,
    /// For room in a channel that is open.
    ForRoom,
    /// For a channel, too.
    ForChannel,
}

/// A message that is on its way; what is dropped is counted.
pub struct Waiting {
    pub message: Message,
    pub outbox: Arc<Outbox>,
    pub sent: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.outbox.settle(self.sent);
    }
}

/// Counts what waits for one peer's data channel.
pub struct Outbox {
    pub(super) pending: AtomicU32,
    sent: AtomicU64,
    dropped: AtomicU64,
    room: Mutex<()>,
    more_room: Condvar,
    metrics: Arc<Metrics>,
}

impl Outbox {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            pending: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            room: Mutex::default(),
            more_room: Condvar::new(),
            metrics,
        }
    }

    /// Waits until few messages wait, or whoever says them is told to give up.
    pub fn wait_for_room(&self, given_up: impl Fn() -> bool) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        while self.pending.load(Ordering::Acquire) >= FEW && !given_up() {
            let waited = self.more_room.wait_timeout(room, GIVEN_UP_YET);
            room = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A message that waited waits no longer.
    pub fn settle(&self, sent: bool) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
        self.count(sent);
        // Under the lock that waiting begins with, so that nobody begins to wait in between.
        drop(self.room.lock());
        self.more_room.notify_all();
    }

    pub(super) fn count(&self, sent: bool) {
        let count = if sent { &self.sent } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
        self.metrics.message(sent);
    }

    /// Texts given to the channel, and dropped because nobody took them.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.dropped.load(Ordering::Relaxed),
        )
    }
}
