//! What a connection plays: its private pipeline, and its branches from first frame to last.
//!
//! Only the connection's own task touches this, on a thread that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::branch::{Branch, BranchError, BranchOwner, Inlet};
use super::connection::{Connection, Life};
use crate::logic::registry::ConnectionId;

/// What a connection's elements are given to stop, once EOS has left them or they were flushed.
const TAKE_APART: Duration = Duration::from_secs(1);

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

/// What there is to do.
pub enum Job {
    Connected,
    Open(Arc<Inlet>),
    Start(String),
}

/// The private pipeline and its branches.
pub struct Scene {
    connection: Arc<Connection>,
    pipeline: gst::Pipeline,
    group: gst::GroupId,
    branches: Vec<Branch>,
    since: Instant,
    playing: bool,
}

impl Scene {
    pub fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
            pipeline: connection.pipeline().clone(),
            group: gst::GroupId::next(),
            branches: Vec::new(),
            since: Instant::now(),
            playing: false,
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
            Job::Connected => Ok(()),
            Job::Open(inlet) => self.open(inlet),
            Job::Start(mid) => match self.branches.iter_mut().find(|b| b.inlet.mid == mid) {
                Some(branch) => branch.start(self.group),
                None => Ok(()),
            },
        };
        if let Err(error) = done {
            self.connection.fail(error.to_string());
        }
    }

    fn open(&mut self, inlet: Arc<Inlet>) -> Result<(), BranchError> {
        if !self.playing {
            // Started with the first stream: a visitor without media costs no pipeline.
            self.connection.rebase();
            self.pipeline.set_state(gst::State::Playing)?;
            self.playing = true;
        }
        let owner: Weak<dyn BranchOwner> = self.connection.weak();
        let stage = self.connection.stage().clone();
        let counters = self.connection.counters(inlet.codec.media());
        let branch = Branch::new(inlet, &self.pipeline, stage, owner, counters)?;
        self.branches.push(branch);
        Ok(())
    }

    /// EOS down every branch, then everything is freed. Says how long the connection lasted; what keeps the
    /// session waiting is dropped after the last word.
    pub fn end(mut self, life: Life) -> (Duration, Sender<()>) {
        let lasted = self.since.elapsed();
        let reason = self.connection.end_reason().map_or("", |r| r.as_str());
        let deadline = Instant::now() + life.terms.drain_timeout;
        // Whoever makes the pipeline stop at once has stopped what is behind the pads; chains are still ours.
        let abrupt = self.connection.is_abrupt();
        let drains = |branch: &Branch| !abrupt || branch.chain().is_some();
        for branch in self.branches.iter().filter(|branch| drains(branch)) {
            branch.finish();
        }
        for branch in &self.branches {
            let drained = drains(branch)
                && branch.wait_eos(deadline.saturating_duration_since(Instant::now()))
                && branch
                    .chain()
                    .is_none_or(|chain| self.connection.wait_drained(chain, deadline));
            if !drained {
                gst::debug!(super::CAT, "{} is flushed", branch.inlet.stream_id);
                branch.flush(!abrupt);
            }
        }
        let branches = std::mem::take(&mut self.branches);
        let farewells: Vec<_> = branches.iter().filter_map(|b| b.farewell(reason)).collect();
        let pipeline = self.pipeline.clone();
        let (done, over) = std::sync::mpsc::channel::<()>();
        // On a thread of its own: what a stuck chain never gives back must not hold up the last word.
        let taking_apart = std::thread::Builder::new()
            .name("rtc-end".into())
            .spawn(move || {
                branches.into_iter().for_each(Branch::stop);
                let _ = pipeline.set_state(gst::State::Null);
                if let Some(bus) = pipeline.bus() {
                    bus.unset_sync_handler();
                    bus.set_flushing(true);
                }
                drop(done);
            });
        if taking_apart.is_err() || over.recv_timeout(TAKE_APART) == Err(RecvTimeoutError::Timeout)
        {
            gst::warning!(
                super::CAT,
                "{}: something of it does not stop and is left behind",
                self.connection.id()
            );
        }
        for farewell in farewells {
            self.connection.stage().post(farewell);
        }
        drop(life.place);
        (lasted, life.alive)
    }
}

/// The bin whose EOS a message forwards.
pub fn forwarded_eos(message: &gst::message::Element) -> Option<gst::glib::GString> {
    let structure = message.structure()?;
    if !structure.has_name("GstBinForwarded") {
        return None;
    }
    let inner = structure.get::<gst::Message>("message").ok()?;
    matches!(inner.view(), gst::MessageView::Eos(_)).then(|| inner.src().map(|s| s.name()))?
}
