//! What the inference elements of a connection's chains say of themselves, added up in the figures of the session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::logic::admission::{Counts, Dropped};
use crate::logic::metrics::Metrics;

/// Inference elements of one connection whose books are kept.
const MAX_BOOKS: usize = 64;

pub struct Books {
    metrics: Arc<Metrics>,
    /// What each element has said last, by its path; absent when they were closed.
    last: Mutex<Option<HashMap<gst::glib::GString, Counts>>>,
}

impl Books {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            last: Mutex::new(Some(HashMap::new())),
        }
    }

    /// An inference element of a chain says `inference-stats`.
    pub fn keep(&self, element: gst::glib::GString, said: &gst::StructureRef) {
        let count = |name: &str| said.get::<u64>(name).unwrap_or_default();
        let now = Counts {
            received: count("received"),
            inferred: count("inferred"),
            failed: count("failed"),
            dropped: Dropped {
                busy: count("dropped-busy"),
                late: count("dropped-late"),
                flush: count("dropped-flush"),
                closed: count("dropped-closed"),
            },
            pending: count("pending"),
        };
        let mut last = lock(&self.last);
        let Some(last) = last.as_mut() else {
            return;
        };
        if last.len() < MAX_BOOKS || last.contains_key(&element) {
            let before = last.insert(element, now).unwrap_or_default();
            self.metrics.inference(&before, &now);
        }
    }

    /// What an element that was left behind still had is lost.
    pub fn close(&self) {
        let last = lock(&self.last).take();
        for last in last.into_iter().flatten().map(|(_, last)| last) {
            let mut closed = last;
            closed.dropped.closed += closed.pending;
            closed.pending = 0;
            self.metrics.inference(&last, &closed);
        }
    }
}
