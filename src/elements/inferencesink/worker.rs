//! The thread that infers. It holds no lock while it does, nor while it tells the result.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use gst::{glib, subclass::prelude::*};

use super::{
    desk::{Desk, Job, Next},
    frame,
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

struct Worker {
    desk: Arc<Desk>,
    model: Arc<Model>,
    sink: glib::WeakRef<super::InferenceSink>,
    scratch: Scratch,
}

/// Starts the thread. It ends when `desk` is closed.
pub fn spawn(
    desk: Arc<Desk>,
    model: Arc<Model>,
    sink: glib::WeakRef<super::InferenceSink>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("inferencesink".into())
        .spawn(move || {
            let mut worker = Worker {
                desk,
                model,
                sink,
                scratch: Scratch::default(),
            };
            worker.run();
        })
}

impl Worker {
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
                    if let Some(sink) = self.sink.upgrade() {
                        sink.imp().post_stats(snapshot);
                    }
                }
                Next::Stop => return,
            }
        }
    }

    fn work(&mut self, job: Job, turn: Turn) {
        let queue = job.entered.elapsed();
        let Some(sink) = self.sink.upgrade() else {
            self.desk
                .finish(Conclusion::Discard, Outcome::Failed, Duration::ZERO);
            return;
        };
        let thresholds = sink.imp().thresholds();
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
            // Its pool may be waiting for it.
            drop(buffer);
            sink.imp().publish(&Findings {
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
            });
        }
        self.desk.finish(conclusion, outcome, total);
    }
}
