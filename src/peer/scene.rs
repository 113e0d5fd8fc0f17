//! What a connection plays: its private pipeline, and its branches from first frame to last.
//!
//! Only the connection's own task touches this, on a thread that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::branch::{Branch, BranchError, BranchOwner};
use super::connection::{Connection, Part};
use super::inlet::Inlet;
use super::supply::{Reel, Supply};
use crate::logic::registry::{ConnectionId, Place};

/// What a connection's elements are given to stop, once EOS has left them or they were flushed.
const TAKE_APART: Duration = Duration::from_secs(1);
/// What flushing them may take before.
const FLUSH: Duration = Duration::from_millis(500);
/// What ending takes at most, beyond the time to drain.
pub const BEYOND_DRAIN: Duration = FLUSH.saturating_add(TAKE_APART);

/// A pipeline whose messages reach the connection and nobody else.
pub fn private_pipeline(id: &ConnectionId, connection: Weak<Connection>) -> gst::Pipeline {
    let pipeline = gst::Pipeline::builder()
        .name(format!("rtc-{id}"))
        .message_forward(true)
        .build();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let of = pipeline.downgrade();
    bus.set_sync_handler(move |_, message| {
        if let Some((connection, pipeline)) = connection.upgrade().zip(of.upgrade()) {
            connection.on_bus(&pipeline, message);
        }
        gst::BusSyncReply::Drop
    });
    pipeline
}

/// Stops an element and removes it from a pipeline that plays on.
///
/// Locked first: a sink that was flushed prerolls again, and the pipeline, when it has, would set all its elements
/// to play, the stopped one too.
pub fn take_out(pipeline: &gst::Pipeline, element: &gst::Element) {
    element.set_locked_state(true);
    let _ = element.set_state(gst::State::Null);
    let _ = pipeline.remove(element);
}

/// What there is to do.
pub enum Job {
    Open(Arc<Inlet>),
    Play(Reel),
    Start(String),
    /// What is on its way to the visitor is of no more use.
    Interrupt,
}

/// The private pipeline and its branches.
pub struct Scene {
    connection: Arc<Connection>,
    pipeline: gst::Pipeline,
    group: gst::GroupId,
    branches: Vec<Branch>,
    playing: bool,
    /// Kept until everything is freed, however late.
    _place: Arc<Place<Arc<Connection>>>,
}

impl Scene {
    pub fn new(connection: &Arc<Connection>, place: Arc<Place<Arc<Connection>>>) -> Self {
        Self {
            connection: connection.clone(),
            pipeline: connection.pipeline().clone(),
            group: gst::GroupId::next(),
            branches: Vec::new(),
            playing: false,
            _place: place,
        }
    }

    /// What fails inside one connection ends it, with its last words said.
    pub fn play_or_fail(&mut self, job: Job) {
        if catch_unwind(AssertUnwindSafe(|| self.play(job))).is_err() {
            self.connection.fail("a stream could not be started".into());
        }
    }

    fn play(&mut self, job: Job) {
        let done = match job {
            Job::Open(inlet) => self.open(Supply::Network(inlet)),
            Job::Play(reel) => self.open(Supply::Reel(reel)),
            Job::Start(mid) => match self.branches.iter_mut().find(|b| b.name.mid == mid) {
                Some(branch) => branch.start(self.group),
                None => Ok(()),
            },
            Job::Interrupt => {
                self.branches.iter().for_each(Branch::interrupt);
                Ok(())
            }
        };
        if let Err(error) = done {
            self.connection.fail(error.to_string());
        }
    }

    fn open(&mut self, supply: Supply) -> Result<(), BranchError> {
        if !self.playing {
            // Started with the first stream: a visitor without media costs no pipeline.
            self.connection.rebase();
            self.pipeline.set_state(gst::State::Playing)?;
            self.playing = true;
        }
        let owner: Weak<dyn BranchOwner> = self.connection.weak();
        let stage = self.connection.stage().clone();
        let terms = self.connection.branch_terms(supply.name().media);
        let branch = Branch::new(supply, &self.pipeline, terms, stage, owner)?;
        self.branches.push(branch);
        Ok(())
    }

    /// EOS down every branch, then everything is freed. What is stuck is left behind on a thread of its own.
    pub fn end(mut self, drain: Duration) {
        let deadline = Instant::now() + drain;
        // Whoever makes the pipeline stop at once has stopped what is behind the pads; chains are still ours.
        let abrupt = self.connection.is_abrupt();
        let drains = |branch: &Branch| !abrupt || branch.has_chain();
        for branch in self.branches.iter().filter(|branch| drains(branch)) {
            branch.finish();
        }
        let stuck: Vec<bool> = self
            .branches
            .iter()
            .map(|branch| {
                let drained = drains(branch)
                    && branch.wait_eos(deadline.saturating_duration_since(Instant::now()))
                    && self.connection.wait_drained(&branch.ends(), deadline);
                !drained
            })
            .collect();
        let limit = match stuck.contains(&true) {
            true => BEYOND_DRAIN,
            false => TAKE_APART,
        };
        let branches = std::mem::take(&mut self.branches);
        let connection = self.connection.clone();
        let of = connection.clone();
        let (done, over) = std::sync::mpsc::channel::<()>();
        // Not even a flush is sure to return: a sink that hangs holds the lock that flushing takes.
        let taking_apart = std::thread::Builder::new()
            .name("rtc-end".into())
            .spawn(move || {
                for (branch, _) in branches.iter().zip(stuck).filter(|(_, stuck)| *stuck) {
                    gst::debug!(super::CAT, "{} is flushed", branch.name.id);
                    branch.flush(!abrupt);
                }
                branches.into_iter().for_each(Branch::stop);
                self.stop_pipeline();
                drop((self, done));
                of.was_taken_apart(Part::Scene);
            });
        if taking_apart.is_err() || over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            connection.was_left_behind(Part::Scene);
        }
    }

    /// For a scene whose connection is over: everything is flushed and freed, however long it takes.
    pub fn abandon(mut self) {
        for branch in std::mem::take(&mut self.branches) {
            branch.flush(false);
            branch.stop();
        }
        self.stop_pipeline();
        self.connection.was_taken_apart(Part::Scene);
    }

    fn stop_pipeline(&self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
    }
}

/// The bin whose EOS a message forwards.
pub fn forwarded_eos(
    pipeline: &gst::Pipeline,
    message: &gst::message::Element,
) -> Option<gst::glib::GString> {
    // A bin within a chain may forward for itself; that is its own business.
    if message.src() != Some(pipeline.upcast_ref()) {
        return None;
    }
    let structure = message.structure()?;
    if !structure.has_name("GstBinForwarded") {
        return None;
    }
    let inner = structure.get::<gst::Message>("message").ok()?;
    matches!(inner.view(), gst::MessageView::Eos(_)).then(|| inner.src().map(|s| s.name()))?
}
