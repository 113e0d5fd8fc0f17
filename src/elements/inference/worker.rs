//! The thread that infers. It holds no lock while it does, nor while it tells the result.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    desk::{Desk, Job, Next},
    frame,
    inferrer::InferenceElement,
};
use crate::{
    engine::{
        model::{Inference, Model, Scratch},
        turns::{self, Turn},
    },
    logic::{
        admission::{Conclusion, Outcome},
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
}

struct Worker<E: InferenceElement> {
    desk: Arc<Desk>,
    model: Arc<Model>,
    element: glib::WeakRef<E::Type>,
    scratch: Scratch,
}

/// Starts the thread. It ends when `desk` is closed.
pub fn spawn<E: InferenceElement>(
    desk: Arc<Desk>,
    model: Arc<Model>,
    element: &E::Type,
) -> std::io::Result<JoinHandle<()>> {
    let name = element.upcast_ref::<gst::Element>().factory();
    let mut worker = Worker::<E> {
        desk,
        model,
        element: element.downgrade(),
        scratch: Scratch::default(),
    };
    thread::Builder::new()
        .name(name.map_or_else(|| "inference".into(), |factory| factory.name().into()))
        .spawn(move || worker.run())
}

impl<E: InferenceElement> Worker<E> {
    fn run(&mut self) {
        loop {
            match self.desk.next() {
                Next::Infer => {
                    let turn = turns::wait(|| !self.desk.is_closed());
                    // What waited may have been flushed meanwhile, and is the newest frame if not.
                    if let Some(turn) = turn
                        && let Some(job) = self.desk.take()
                    {
                        self.work(*job, turn);
                    }
                }
                Next::Report(snapshot) => {
                    if let Some(element) = self.element.upgrade() {
                        E::from_obj(&element).post_stats(snapshot);
                    }
                }
                Next::Stop => return,
            }
        }
    }

    fn work(&mut self, job: Job, turn: Turn) {
        let queue = job.entered.elapsed();
        let Some(element) = self.element.upgrade() else {
            self.desk
                .finish(Conclusion::Discard, Outcome::Failed, Duration::ZERO);
            return;
        };
        let element = E::from_obj(&element);
        let thresholds = element.inferrer().settings().thresholds;
        let inference = frame::infer(&self.model, &job, thresholds, &mut self.scratch);
        drop(turn);
        let total = job.entered.elapsed();
        let outcome = match inference {
            Ok(_) => Outcome::Inferred,
            Err(_) => Outcome::Failed,
        };
        let conclusion = self.desk.conclude();
        if let Conclusion::Publish { dropped } = conclusion {
            let steps = inference.as_ref().ok().map(|inference| Steps {
                preprocess: inference.preprocess,
                inference: inference.inference,
                postprocess: inference.postprocess,
            });
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
                timing: Timing {
                    queue,
                    steps,
                    total,
                },
                inference,
                dropped,
            };
            // A panic downstream must not keep the frame in work for ever.
            element.catch_panic(|| (), |element| element.publish(findings, buffer));
        }
        self.desk.finish(conclusion, outcome, total);
    }
}
