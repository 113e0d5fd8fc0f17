//! An element that infers, from the model it loads to the results it tells.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;

use super::{
    desk::{Desk, Job, Snapshot},
    frame, report,
    settings::{self, Refusal, Settings},
    worker::{self, Findings},
};
use crate::{
    engine::{
        model::{Model, Preference, Scratch, Thresholds},
        scheduler::Request,
    },
    logic::{
        admission::DropReason,
        frame_count::{FrameCount, Sighting},
        frame_facts::FrameFacts,
    },
};

/// Properties that tell of the model.
const OF_MODEL: [&str; 3] = ["engine-active", "device-active", "model-hash"];

/// In whose order turns come where no deadline is set.
const USUAL_DEADLINE: Duration = Duration::from_secs(1);

/// What such an element keeps.
#[derive(Default)]
pub struct Inferrer {
    // Lock order: no two of them are ever held together.
    settings: Mutex<Settings>,
    state: Mutex<State>,
    loader: Mutex<Loader>,
    /// Of the streaming thread.
    scratch: Mutex<Scratch>,
}

/// Loads the model anew beside the one that runs.
#[derive(Default)]
struct Loader {
    /// Properties were changed since it began to load.
    outdated: bool,
    /// From a change of properties until what they ask for is loaded.
    thread: Option<JoinHandle<()>>,
    /// Whether `thread` is at its end.
    idle: bool,
    /// Nothing is loaded any more.
    closed: bool,
}

#[derive(Default)]
struct State {
    /// From NULL→READY to READY→NULL.
    model: Option<Arc<Model>>,
    /// Of this run, or of the last one.
    desk: Option<Arc<Desk>>,
    workers: Vec<JoinHandle<()>>,
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
    pub fn set(&self, name: &str, value: &glib::Value) {
        self.settings.lock().unwrap().set(name, value);
    }

    /// The property of that name, of the settings or of the model.
    pub fn get(&self, name: &str) -> glib::Value {
        let model = self.model();
        let info = model.as_deref().map(Model::info);
        match name {
            "engine-active" => info.map(|info| info.engine).to_value(),
            "device-active" => info.map(|info| info.device.as_str()).to_value(),
            "model-hash" => info.map(|info| info.hash.as_str()).to_value(),
            name => self.settings().get(name),
        }
    }

    /// The specs of the properties that all such elements have.
    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let mut specs = Settings::param_specs();
        specs.extend([
            // GstInferenceSink:engine-active:, GstInferenceFilter:engine-active: Notified when a model is loaded or let go. Since: 0.1
            glib::ParamSpecString::builder(OF_MODEL[0])
                .nick("Active engine")
                .blurb("The engine that runs the model: rten, onnxruntime or kserve; unset while none is loaded")
                .read_only()
                .build(),
            // GstInferenceSink:device-active:, GstInferenceFilter:device-active: Notified when a model is loaded or let go. Since: 0.1
            glib::ParamSpecString::builder(OF_MODEL[1])
                .nick("Active device")
                .blurb("What the model runs on, such as cpu or cuda:0, or HOST:PORT of each server; unset while none is loaded")
                .read_only()
                .build(),
            // GstInferenceSink:model-hash:, GstInferenceFilter:model-hash: Notified when a model is loaded or let go. Since: 0.1
            glib::ParamSpecString::builder(OF_MODEL[2])
                .nick("Model hash")
                .blurb("sha256: and the digest of the model's file in hexadecimal digits, or kserve:NAME/VERSION for one on a server, as in each result; unset while none is loaded")
                .read_only()
                .build(),
        ]);
        specs
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

    /// The statistics as they are now.
    pub fn stats(&self) -> gst::Structure {
        let (desk, model) = {
            let state = self.state.lock().unwrap();
            (state.desk.clone(), state.model.clone())
        };
        let snapshot = desk.map(|desk| desk.snapshot()).unwrap_or_default();
        report::stats(snapshot, model.as_deref().map(Model::info))
    }

    /// How a turn is asked for, for a frame whose result is of use until then.
    pub fn request(&self, until: Option<Instant>) -> Request {
        let settings = self.settings.lock().unwrap();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        Request {
            patience: settings.batch_latency(),
            budget: left.or(settings.deadline()).unwrap_or(USUAL_DEADLINE),
            alone: false,
        }
    }

    /// What a result must meet.
    pub fn limits(&self) -> (Thresholds, Option<Duration>) {
        let settings = self.settings.lock().unwrap();
        (settings.thresholds, settings.deadline())
    }

    /// Sets for how long the frame's result is of use, when it comes from something live.
    pub fn hurry(&self, job: &mut Job) {
        let deadline = self.settings.lock().unwrap().deadline();
        job.until = deadline.map(|deadline| job.entered + deadline);
    }

    /// Makes the frame ready for the model on the thread that brings it, while the model is at the one before. What is wrong
    /// with the frame is told when its turn has come.
    pub fn prepare(&self, job: &mut Job) {
        if job.prepared.is_none()
            && let Some(model) = self.model()
        {
            let scratch = &mut self.scratch.lock().unwrap();
            job.prepared = frame::prepare(model, job, scratch).ok();
        }
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
            until: None,
            prepared: None,
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
        let model = self.inferrer().settings().load().map_err(|refusal| {
            let Refusal { kind, text } = refusal;
            self.post_error_message(gst::error_msg!(kind, ("{text}")));
            gst::StateChangeError
        })?;
        gst::info!(self.category(), imp = self, "{:?}", model.info());
        self.keep(Some(model.clone()));
        if let Some(preference) = &model.info().preference {
            self.tell_preference(preference);
        }
        Ok(model)
    }

    /// Lets the model go.
    fn unload(&self) {
        self.keep(None);
    }

    fn keep(&self, model: Option<Arc<Model>>) {
        let before = {
            let mut state = self.inferrer().state.lock().unwrap();
            std::mem::replace(&mut state.model, model.clone())
        };
        if before.as_ref().map(Arc::as_ptr) != model.as_ref().map(Arc::as_ptr) {
            OF_MODEL.iter().for_each(|name| self.obj().notify(name));
        }
    }

    /// Says on the bus what became of the wish for ONNX Runtime. A server has an element for each visitor: what one has
    /// said in this process the others do not repeat.
    fn tell_preference(&self, preference: &Preference) {
        let obj = self.obj();
        let source = obj.upcast_ref::<gst::Element>();
        let (text, message) = match preference {
            Preference::Met(text) => {
                let message = gst::message::Info::builder(gst::LibraryError::Init, text);
                (text, message.src(source).build())
            }
            Preference::Unmet(text) => {
                let message = gst::message::Warning::builder(gst::LibraryError::Init, text);
                (text, message.src(source).build())
            }
        };
        gst::info!(self.category(), imp = self, "{text}");
        if is_news(text) {
            // Refused by a bus that flushes: nobody listens any more.
            let _ = obj.post_message(message);
        }
    }

    /// Another model than before runs; its first frame may be in work already. Called under no lock.
    fn model_changed(&self, _model: &Arc<Model>) {}

    /// Opens the accounts of a new run, and starts the first thread that infers.
    fn start_workers(&self) -> Result<Arc<Model>, gst::StateChangeError> {
        let inferrer = self.inferrer();
        let desk = Arc::new(Desk::new(inferrer.settings().stats_interval()));
        let asked = inferrer.settings().model_options().ok();
        // The one loaded before, unless a property was changed in READY.
        let model = self.load()?;
        *inferrer.loader.lock().unwrap() = Loader::default();
        let worker = worker::spawn::<Self>(desk.clone(), &self.obj()).map_err(|error| {
            self.post_error_message(gst::error_msg!(
                gst::LibraryError::Init,
                ("No thread to infer in: {error}")
            ));
            gst::StateChangeError
        })?;
        *inferrer.state.lock().unwrap() = State {
            model: Some(model.clone()),
            desk: Some(desk),
            workers: vec![worker],
            ..State::default()
        };
        // Who set a property while the model was loaded found nobody who runs.
        if inferrer.settings().model_options().ok() != asked {
            self.properties_changed(&settings::OF_MODEL);
        }
        Ok(model)
    }

    /// One more thread infers, for one more stream.
    fn add_worker(&self, desk: &Arc<Desk>) {
        match worker::spawn::<Self>(desk.clone(), &self.obj()) {
            Ok(worker) => self.inferrer().state.lock().unwrap().workers.push(worker),
            Err(error) => {
                gst::warning!(self.category(), imp = self, "No thread more: {error}");
                desk.dismiss();
            }
        }
    }

    /// Properties were changed. What they ask for is loaded beside the model that runs, which goes on until the new one has
    /// shown that it works.
    fn properties_changed(&self, names: &[&str]) {
        let inferrer = self.inferrer();
        if names.contains(&"when-busy")
            && let Some(desk) = inferrer.desk()
        {
            desk.reconsider();
        }
        let is_running = !inferrer.state.lock().unwrap().workers.is_empty();
        if !is_running || !names.iter().any(|name| settings::OF_MODEL.contains(name)) {
            return;
        }
        let mut loader = inferrer.loader.lock().unwrap();
        if loader.closed {
            return;
        }
        loader.outdated = true;
        if loader.thread.is_some() && !loader.idle {
            return;
        }
        let weak = self.obj().downgrade();
        let load = move || {
            while weak
                .upgrade()
                .is_some_and(|obj| Self::from_obj(&obj).reload())
            {}
        };
        match thread::Builder::new()
            .name("model-loader".into())
            .spawn(load)
        {
            Ok(thread) => {
                loader.idle = false;
                // The one before is at its end, and has nothing more to do.
                loader.thread = Some(thread);
            }
            Err(error) => {
                gst::warning!(self.category(), imp = self, "No thread to load in: {error}");
            }
        }
    }

    /// Loads what the properties ask for, on the loader's thread; `false` when there is nothing more to load.
    fn reload(&self) -> bool {
        let inferrer = self.inferrer();
        {
            let mut loader = inferrer.loader.lock().unwrap();
            if !loader.outdated || loader.closed {
                loader.idle = true;
                return false;
            }
            loader.outdated = false;
        }
        let loaded = inferrer.settings().load();
        let is_wanted = {
            let loader = inferrer.loader.lock().unwrap();
            !loader.outdated && !loader.closed
        };
        if !is_wanted {
            return true;
        }
        match loaded {
            Ok(model) => {
                let before = inferrer.model();
                if before.as_ref().map(Arc::as_ptr) != Some(Arc::as_ptr(&model)) {
                    gst::info!(self.category(), imp = self, "{:?}", model.info());
                    self.keep(Some(model.clone()));
                    self.model_changed(&model);
                }
                if let Some(preference) = &model.info().preference {
                    self.tell_preference(preference);
                }
            }
            Err(Refusal { kind, text }) => {
                let obj = self.obj();
                let active = inferrer.model();
                let active = active.as_ref().map_or("none", |model| &model.info().name);
                let text = format!("{text}; model \"{active}\" goes on");
                gst::warning!(self.category(), imp = self, "{text}");
                let message = gst::message::Warning::builder(kind, &text);
                let message = message.src(obj.upcast_ref::<gst::Element>()).build();
                // Refused by a bus that flushes: nobody listens any more.
                let _ = obj.post_message(message);
            }
        }
        true
    }

    /// Ends all waits, so that no thread is held in a pad function.
    fn close_desk(&self) {
        if let Some(desk) = self.inferrer().desk() {
            desk.close();
        }
    }

    /// Ends what [`start_workers`](Self::start_workers) started; no frame is on its way any more.
    fn stop_workers(&self) {
        let (desk, workers) = {
            let mut state = self.inferrer().state.lock().unwrap();
            (state.desk.clone(), std::mem::take(&mut state.workers))
        };
        let loader = {
            let mut loader = self.inferrer().loader.lock().unwrap();
            loader.closed = true;
            loader.thread.take()
        };
        let (Some(desk), false) = (desk, workers.is_empty()) else {
            return;
        };
        desk.close();
        for thread in workers.into_iter().chain(loader) {
            if thread.join().is_err() {
                gst::error!(self.category(), imp = self, "A thread panicked");
            }
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
    fn tell(&self, findings: &Findings) -> gst::Structure {
        let settings = self.inferrer().settings();
        let cat = self.category();
        if let Err(error) = &findings.inference {
            let frame = findings.facts.frame_id;
            gst::warning!(cat, imp = self, "Frame {frame:?}: {error}");
        }
        let structure = report::result(findings, &settings.output_name, settings.tensor_format);
        gst::log!(cat, imp = self, "{structure}");
        let upstream = gst::event::CustomUpstream::new(structure.clone());
        self.frames_pad().push_event(upstream);
        if settings.post_messages {
            self.post(structure.clone());
        }
        structure
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

/// Whether this was not said before in this process.
fn is_news(text: &str) -> bool {
    /// Models and libraries have names that users choose; more than these are only logged.
    const MOST: usize = 64;
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let is_news = said.len() < MOST && !said.iter().any(|before| before == text);
    if is_news {
        said.push(text.to_owned());
    }
    is_news
}
