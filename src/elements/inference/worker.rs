//! The threads that infer. They hold no lock while they do, nor while they tell a result.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use rustix::process::setpriority_process;

use super::{
    desk::{Desk, Job, Next},
    frame,
    inferrer::InferenceElement,
};
use crate::{
    engine::{
        model::{Inference, Model, Scratch},
        scheduler::Seat,
    },
    logic::{
        admission::{Conclusion, Outcome, Ticket},
        frame_facts::FrameFacts,
        wire::result::{Steps, Timing},
    },
};

/// What inference said about one frame.
pub struct Findings {
    pub facts: FrameFacts,
    /// Of the frame, pixels.
    pub width: u32,
    pub height: u32,
    /// Nanoseconds of unix time.
    pub received_at: u64,
    pub timing: Timing,
    /// The boxes, or why there are none.
    pub inference: Result<Inference, String>,
    /// Frames of the stream dropped since its previous result.
    pub dropped: u64,
    /// What judged it.
    pub model: Arc<Model>,
}

/// How much less urgent than others the threads are: when there is too much to do, results become fewer before decoders,
/// whose frames cannot be left out, become late.
const NICENESS: i32 = 5;

struct Worker<E: InferenceElement> {
    desk: Arc<Desk>,
    element: glib::WeakRef<E::Type>,
    scratch: Scratch,
}

/// Starts a thread. It ends when `desk` is closed.
pub fn spawn<E: InferenceElement>(
    desk: Arc<Desk>,
    element: &E::Type,
) -> std::io::Result<JoinHandle<()>> {
    let name = element.upcast_ref::<gst::Element>().factory();
    let mut worker = Worker::<E> {
        desk,
        element: element.downgrade(),
        scratch: Scratch::default(),
    };
    thread::Builder::new()
        .name(name.map_or_else(|| "inference".into(), |factory| factory.name().into()))
        .spawn(move || worker.run())
}

impl<E: InferenceElement> Worker<E> {
    fn run(&mut self) {
        // Where it is refused, inferences are as urgent as all else.
        let _ = setpriority_process(None, NICENESS);
        loop {
            match self.desk.next() {
                Next::Infer { until } => match self.wait_for_turn(until) {
                    Some(seat) => {
                        // What waited may have been flushed meanwhile, and is the newest frame of its stream if not.
                        if let Some((ticket, job)) = self.desk.take() {
                            self.work(ticket, *job, seat);
                        }
                    }
                    None => self.desk.unclaim(),
                },
                Next::Report => {
                    if let Some(element) = self.element.upgrade() {
                        E::from_obj(&element).post_stats(self.desk.snapshot());
                    }
                }
                Next::Stop => return,
            }
        }
    }

    /// `None` when the element is stopping.
    fn wait_for_turn(&self, until: Option<Instant>) -> Option<Seat> {
        let (model, request) = {
            let element = self.element.upgrade()?;
            let inferrer = E::from_obj(&element).inferrer();
            (inferrer.model()?, inferrer.request(until))
        };
        model.wait(request, || !self.desk.is_closed())
    }

    fn work(&mut self, ticket: Ticket, mut job: Job, seat: Seat) {
        let mut timing = Timing {
            queue: job.waited(),
            ..Timing::default()
        };
        let (desk, scratch) = (&self.desk, &mut self.scratch);
        let discard =
            |timing: &Timing| desk.finish(ticket, Conclusion::Discard, Outcome::Failed, timing);
        let Some(element) = self.element.upgrade() else {
            return discard(&timing);
        };
        let element = E::from_obj(&element);
        if job.until.is_some_and(|until| until < Instant::now()) {
            desk.is_late(ticket);
            return discard(&timing);
        }
        let (thresholds, deadline) = element.inferrer().limits();
        let until = job.until.or_else(|| Some(Instant::now() + deadline?));
        let model = seat.model().clone();
        let inference = frame::infer(seat, &mut job, thresholds, scratch, until);
        timing.total = job.entered.elapsed();
        timing.steps = inference.as_ref().ok().map(|inference| Steps {
            preprocess: inference.preprocess,
            inference: inference.inference,
            postprocess: inference.postprocess,
        });
        let outcome = match inference {
            Ok(_) => Outcome::Inferred,
            Err(_) => Outcome::Failed,
        };
        let conclusion = desk.conclude(ticket);
        if let Conclusion::Publish { dropped } = conclusion {
            let Job {
                buffer,
                info,
                facts,
                received_at,
                ..
            } = job;
            let findings = Findings {
                facts,
                width: info.width(),
                height: info.height(),
                received_at,
                timing,
                inference,
                dropped,
                model,
            };
            // A panic downstream must not keep the frame in work for ever.
            element.catch_panic(|| (), |element| element.publish(findings, buffer));
        }
        desk.finish(ticket, conclusion, outcome, &timing);
    }
}

impl Job {
    /// How long it has waited until now; making it ready is no waiting.
    fn waited(&self) -> Duration {
        let prepared = self.prepared.as_ref().map(|prepared| prepared.took);
        let waited = self.entered.elapsed();
        waited.saturating_sub(prepared.unwrap_or_default())
    }
}
