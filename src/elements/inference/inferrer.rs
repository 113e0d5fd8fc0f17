//! An element that infers, from the model it loads to the results it tells.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::{prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;

use super::{
    desk::{Desk, Job, Snapshot},
    report,
    settings::Settings,
    worker::{self, Findings},
};
use crate::{
    engine::model::Model,
    logic::{
        admission::DropReason,
        frame_count::{FrameCount, Sighting},
        frame_facts::FrameFacts,
    },
};

/// What such an element keeps.
#[derive(Default)]
pub struct Inferrer {
    // Lock order: no two of them are ever held together.
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// From NULL→READY to READY→NULL.
    model: Option<Arc<Model>>,
    /// Of this run, or of the last one.
    desk: Option<Arc<Desk>>,
    worker: Option<JoinHandle<()>>,
    info: Option<Arc<VideoInfo>>,
    /// The stream-id of the last STREAM_START.
    stream_id: Option<String>,
    count: FrameCount,
    /// Whether upstream of this stream is live, once it was asked.
    live: Option<bool>,
}

impl Inferrer {
    pub fn settings(&self) -> Settings {
        self.settings.lock().unwrap().clone()
    }

    /// Sets the settings' property of that name.
    pub fn set(&self, name: &str, value: &gst::glib::Value) {
        self.settings.lock().unwrap().set(name, value);
    }

    pub fn desk(&self) -> Option<Arc<Desk>> {
        self.state.lock().unwrap().desk.clone()
    }

    pub fn model(&self) -> Option<Arc<Model>> {
        self.state.lock().unwrap().model.clone()
    }

    pub fn stream_id(&self) -> Option<String> {
        self.state.lock().unwrap().stream_id.clone()
    }

    /// STREAM_START came.
    pub fn begin_stream(&self, stream_id: &str) {
        let mut state = self.state.lock().unwrap();
        state.stream_id = Some(stream_id.to_owned());
        state.live = None;
    }

    /// What frames look like from now on.
    pub fn set_info(&self, info: VideoInfo) {
        self.state.lock().unwrap().info = Some(Arc::new(info));
    }

    /// A flush has ended.
    pub fn flushed(&self) {
        self.state.lock().unwrap().count.flush();
    }

    pub fn unload(&self) {
        self.state.lock().unwrap().model = None;
    }

    /// The statistics as they are now.
    pub fn stats(&self) -> gst::Structure {
        let (desk, model) = {
            let state = self.state.lock().unwrap();
            (state.desk.clone(), state.model.clone())
        };
        let snapshot = desk.map(|desk| desk.snapshot()).unwrap_or_default();
        report::stats(snapshot, model.as_deref().map(Model::info))
    }

    /// A frame that came just now, with what is known about it.
    pub fn job(&self, buffer: gst::Buffer) -> Result<Box<Job>, gst::FlowError> {
        let mut facts = FrameFacts::read(&buffer);
        let measured_before = facts.measured_fps;
        let state = &mut *self.state.lock().unwrap();
        let info = state.info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let fps = info.fps();
        state.count.complete(
            &mut facts,
            &Sighting {
                stream_id: state.stream_id.as_deref(),
                pts: buffer.pts().map(Duration::from),
                declared_fps: (fps.numer() > 0)
                    .then(|| f64::from(fps.numer()) / f64::from(fps.denom())),
                width: i32::try_from(info.width()).ok(),
                height: i32::try_from(info.height()).ok(),
                packet: None,
            },
        );
        // Measured nearer to the source it is free of what was dropped on the way.
        facts.measured_fps = measured_before.or(facts.measured_fps);
        Ok(Box::new(Job {
            buffer,
            info,
            facts,
            received_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            entered: Instant::now(),
        }))
    }
}

/// An element that has an [`Inferrer`], and what follows from that.
pub trait InferenceElement:
    ElementImpl + ObjectSubclass<Type: IsA<gst::Element> + Send + Sync>
{
    fn category(&self) -> gst::DebugCategory;

    fn inferrer(&self) -> &Inferrer;

    /// Where frames come in, and results go upstream.
    fn frames_pad(&self) -> gst::Pad;

    /// The worker is done with a frame, whose result is still wanted. Called from its thread, under no lock.
    fn publish(&self, findings: Findings, buffer: gst::Buffer);

    /// Loads the model, or tells what is wrong with it or with a property as an element error.
    fn load(&self) -> Result<Arc<Model>, gst::StateChangeError> {
        let model = self.inferrer().settings().load().map_err(|error| {
            self.post_error_message(error);
            gst::StateChangeError
        })?;
        gst::info!(self.category(), imp = self, "{:?}", model.info());
        self.inferrer().state.lock().unwrap().model = Some(model.clone());
        Ok(model)
    }

    /// Opens the accounts of a new run, and starts the thread that infers.
    fn start_worker(&self) -> Result<Arc<Model>, gst::StateChangeError> {
        let desk = Arc::new(Desk::new(self.inferrer().settings().stats_interval()));
        // The one loaded before, unless a property was changed in READY.
        let model = self.load()?;
        let worker =
            worker::spawn::<Self>(desk.clone(), model.clone(), &self.obj()).map_err(|error| {
                self.post_error_message(gst::error_msg!(
                    gst::LibraryError::Init,
                    ("No thread to infer in: {error}")
                ));
                gst::StateChangeError
            })?;
        *self.inferrer().state.lock().unwrap() = State {
            model: Some(model.clone()),
            desk: Some(desk),
            worker: Some(worker),
            ..State::default()
        };
        Ok(model)
    }

    /// Ends all waits, so that no thread is held in a pad function.
    fn close_desk(&self) {
        if let Some(desk) = self.inferrer().desk() {
            desk.close();
        }
    }

    /// Ends what [`start_worker`](Self::start_worker) started; no frame is on its way any more.
    fn stop_worker(&self) {
        let (desk, worker) = {
            let mut state = self.inferrer().state.lock().unwrap();
            (state.desk.clone(), state.worker.take())
        };
        let (Some(desk), Some(worker)) = (desk, worker) else {
            return;
        };
        desk.close();
        if worker.join().is_err() {
            gst::error!(
                self.category(),
                imp = self,
                "The thread that infers panicked"
            );
        }
        desk.settle(DropReason::Closed);
        self.post_last_stats(&desk);
    }

    /// Whether upstream says that it is live, asked once in a stream.
    fn upstream_is_live(&self) -> bool {
        if let Some(known) = self.inferrer().state.lock().unwrap().live {
            return known;
        }
        let mut latency = gst::query::Latency::new();
        let answered = self.frames_pad().peer_query(latency.query_mut());
        let live = answered && latency.result().0;
        gst::debug!(self.category(), imp = self, "Upstream is live: {live}");
        self.inferrer().state.lock().unwrap().live = Some(live);
        live
    }

    /// Tells a result to the bus and upstream, and gives it back.
    fn tell(&self, findings: &Findings) -> Option<gst::Structure> {
        let model = self.inferrer().model()?;
        let settings = self.inferrer().settings();
        let cat = self.category();
        if let Err(error) = &findings.inference {
            let frame = findings.facts.frame_id;
            gst::warning!(cat, imp = self, "Frame {frame:?}: {error}");
        }
        let structure = report::result(findings, model.info(), &settings.output_name);
        gst::log!(cat, imp = self, "{structure}");
        let upstream = gst::event::CustomUpstream::new(structure.clone());
        self.frames_pad().push_event(upstream);
        if settings.post_messages {
            self.post(structure.clone());
        }
        Some(structure)
    }

    fn post_stats(&self, snapshot: Snapshot) {
        let model = self.inferrer().model();
        self.post(report::stats(snapshot, model.as_deref().map(Model::info)));
    }

    /// The statistics that come before EOS and before the element has stopped.
    fn post_last_stats(&self, desk: &Desk) {
        if self.inferrer().settings().stats_interval > 0 {
            self.post_stats(desk.snapshot());
        }
    }

    fn post(&self, structure: gst::Structure) {
        let obj = self.obj();
        // Refused by a bus that flushes: nobody listens any more.
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }
}
