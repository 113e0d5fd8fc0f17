use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;

use super::{
    desk::{Desk, Idle, Job, Offer, Snapshot},
    frame, report,
    settings::Settings,
    worker::{self, Findings},
};
use crate::{
    engine::model::{Model, ModelError},
    logic::{
        admission::{self, DropReason},
        detections::Thresholds,
        frame_count::{FrameCount, Sighting},
        frame_facts::FrameFacts,
    },
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "inferencesink",
        gst::DebugColorFlags::empty(),
        Some("Inference on frames"),
    )
});

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
    /// What `auto` turned out to mean for this stream.
    auto: Option<admission::WhenBusy>,
}

#[derive(Default)]
pub struct InferenceSink {
    // Lock order: no two of them are ever held together.
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

impl InferenceSink {
    pub fn thresholds(&self) -> Thresholds {
        self.settings.lock().unwrap().thresholds
    }

    /// Tells a result to the bus and upstream.
    pub fn publish(&self, findings: &Findings) {
        let Some(model) = self.state.lock().unwrap().model.clone() else {
            return;
        };
        let settings = self.settings.lock().unwrap().clone();
        if let Err(error) = &findings.inference {
            gst::warning!(
                CAT,
                imp = self,
                "Frame {:?}: {error}",
                findings.facts.frame_id
            );
        }
        let structure = report::result(findings, model.info(), &settings.output_name);
        gst::log!(CAT, imp = self, "{structure}");
        let upstream = gst::event::CustomUpstream::new(structure.clone());
        self.obj().sink_pad().push_event(upstream);
        if settings.post_messages {
            self.post(structure);
        }
    }

    pub fn post_stats(&self, snapshot: Snapshot) {
        let model = self.state.lock().unwrap().model.clone();
        let model = model.as_deref().map(Model::info);
        self.post(report::stats(snapshot, model));
    }

    fn post(&self, structure: gst::Structure) {
        let obj = self.obj();
        // Refused by a bus that flushes: nobody listens any more.
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }

    fn desk(&self) -> Option<Arc<Desk>> {
        self.state.lock().unwrap().desk.clone()
    }

    /// The statistics that come before EOS and before the element has stopped.
    fn post_last_stats(&self, desk: &Desk) {
        if self.settings.lock().unwrap().stats_interval > 0 {
            self.post_stats(desk.snapshot());
        }
    }

    fn load(&self) -> Result<Arc<Model>, gst::ErrorMessage> {
        let options = self.settings.lock().unwrap().clone().model_options()?;
        let model = Model::load(&options).map_err(|error| model_error(&error))?;
        gst::info!(CAT, imp = self, "{:?}", model.info());
        Ok(model)
    }

    /// Opens the accounts of a new run, and starts the thread that infers.
    fn start_worker(&self) -> Result<(), gst::ErrorMessage> {
        let interval = self.settings.lock().unwrap().stats_interval();
        let desk = Arc::new(Desk::new(interval));
        // The one loaded before, unless a property was changed in READY.
        let model = self.load()?;
        let worker = worker::spawn(desk.clone(), model.clone(), self.obj().downgrade()).map_err(
            |error| gst::error_msg!(gst::LibraryError::Init, ("No thread to infer in: {error}")),
        )?;
        *self.state.lock().unwrap() = State {
            model: Some(model),
            desk: Some(desk),
            worker: Some(worker),
            ..State::default()
        };
        Ok(())
    }

    /// Ends what [`start_worker`](Self::start_worker) started; no frame is on its way any more.
    fn stop_worker(&self) {
        let (desk, worker) = {
            let mut state = self.state.lock().unwrap();
            (state.desk.clone(), state.worker.take())
        };
        let (Some(desk), Some(worker)) = (desk, worker) else {
            return;
        };
        desk.close();
        if worker.join().is_err() {
            gst::error!(CAT, imp = self, "The thread that infers panicked");
        }
        desk.settle(DropReason::Closed);
        self.post_last_stats(&desk);
    }

    fn job(&self, buffer: &gst::Buffer) -> Result<Box<Job>, gst::FlowError> {
        let mut facts = FrameFacts::read(buffer);
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
            buffer: buffer.clone(),
            info,
            facts,
            received_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            entered: Instant::now(),
        }))
    }

    fn when_busy(&self) -> admission::WhenBusy {
        let when_busy = self.settings.lock().unwrap().when_busy;
        match when_busy {
            super::WhenBusy::Latest => return admission::WhenBusy::Latest,
            super::WhenBusy::Wait => return admission::WhenBusy::Wait,
            super::WhenBusy::Auto => {}
        }
        if let Some(known) = self.state.lock().unwrap().auto {
            return known;
        }
        let mut latency = gst::query::Latency::new();
        let answered = self.obj().sink_pad().peer_query(latency.query_mut());
        let found = if answered && latency.result().0 {
            admission::WhenBusy::Latest
        } else {
            admission::WhenBusy::Wait
        };
        gst::debug!(CAT, imp = self, "when-busy=auto is {found:?}");
        self.state.lock().unwrap().auto = Some(found);
        found
    }

    /// Counts what reaches the pad: with `sync`, the base class drops late frames before it shows them to us.
    fn watch_arrivals(&self) {
        let weak = self.downgrade();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        self.obj().sink_pad().add_probe(kinds, move |_, info| {
            if let Some(this) = weak.upgrade() {
                let (first, frames) = match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => (Some(buffer.as_ref()), 1),
                    Some(gst::PadProbeData::BufferList(list)) => (list.get(0), list.len() as u64),
                    _ => (None, 0),
                };
                let stream_id = first.and_then(|buffer| FrameFacts::read(buffer).stream_id);
                let (desk, pad_stream_id) = {
                    let state = this.state.lock().unwrap();
                    (state.desk.clone(), state.stream_id.clone())
                };
                if let Some(desk) = desk {
                    desk.approach(&stream_id.or(pad_stream_id).unwrap_or_default(), frames);
                }
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Waits for the frames taken in, so that their results come before EOS. `false` when a flush came over the wait.
    fn drain(&self, desk: &Desk) -> bool {
        desk.settle(DropReason::Late);
        loop {
            match desk.wait_idle() {
                Idle::Reached => return true,
                Idle::Refused => return false,
                Idle::Unlocked if self.obj().wait_preroll().is_err() => return false,
                Idle::Unlocked => {}
            }
        }
    }
}

fn model_error(error: &ModelError) -> gst::ErrorMessage {
    let kind = match error {
        ModelError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            gst::ResourceError::NotFound
        }
        ModelError::Read { .. } | ModelError::NotAModel { .. } | ModelError::Engine { .. } => {
            gst::ResourceError::OpenRead
        }
        ModelError::Unfit { .. } => gst::ResourceError::Settings,
    };
    gst::error_msg!(kind, ("{error}"))
}

#[glib::object_subclass]
impl ObjectSubclass for InferenceSink {
    const NAME: &'static str = "GstInferenceSink";
    type Type = super::InferenceSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for InferenceSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut properties = Settings::param_specs();
            properties.push(
                // GstInferenceSink:stats: The base class's own property, with the fields of `inference-stats`. Since: 0.1
                glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("stats"),
            );
            properties
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings.lock().unwrap().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() != "stats" {
            return self.settings.lock().unwrap().get(pspec.name());
        }
        let (desk, model) = {
            let state = self.state.lock().unwrap();
            (state.desk.clone(), state.model.clone())
        };
        let snapshot = desk.map(|desk| desk.snapshot()).unwrap_or_default();
        report::stats(snapshot, model.as_deref().map(Model::info)).to_value()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_property("sync", false);
        obj.set_property("async", false);
        obj.set_property("qos", false);
        // It would hold one more buffer of a decoder's pool.
        obj.set_property("enable-last-sample", false);
        self.watch_arrivals();
    }
}

impl GstObjectImpl for InferenceSink {}

impl ElementImpl for InferenceSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Inference sink",
                "Sink/Analyzer/Video",
                "Runs a model on video frames and tells the results on the bus and to the peer the frames came from",
                "The rtcinference authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list(frame::FORMATS)
                .build();
            vec![
                gst::PadTemplate::new(
                    "sink",
                    gst::PadDirection::Sink,
                    gst::PadPresence::Always,
                    &caps,
                )
                .expect("the template is valid"),
            ]
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                let model = self.load().map_err(|error| {
                    self.post_error_message(error);
                    gst::StateChangeError
                })?;
                self.state.lock().unwrap().model = Some(model);
            }
            gst::StateChange::ReadyToPaused => {
                self.start_worker().map_err(|error| {
                    self.post_error_message(error);
                    gst::StateChangeError
                })?;
            }
            gst::StateChange::PausedToReady => {
                if let Some(desk) = self.desk() {
                    desk.close();
                }
            }
            _ => (),
        }
        let changed = self.parent_change_state(transition);
        match transition {
            // A way up that fails has no way down.
            gst::StateChange::ReadyToPaused if changed.is_err() => self.stop_worker(),
            gst::StateChange::PausedToReady => self.stop_worker(),
            gst::StateChange::ReadyToNull => self.state.lock().unwrap().model = None,
            _ => (),
        }
        changed
    }
}

impl BaseSinkImpl for InferenceSink {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "Not raw video: {caps}"))?;
        gst::debug!(CAT, imp = self, "Caps {caps}");
        self.state.lock().unwrap().info = Some(Arc::new(info));
        Ok(())
    }

    fn propose_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        // Planes are read by their strides.
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        let (caps, _) = query.get_owned();
        if let Some(info) = caps.and_then(|caps| VideoInfo::from_caps(&caps).ok()) {
            // One waits, one is in work, and upstream needs one to fill.
            query.add_allocation_pool(None::<&gst::BufferPool>, info.size() as u32, 3, 0);
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        let Some(desk) = self.desk() else {
            return self.parent_event(event);
        };
        match event.view() {
            gst::EventView::StreamStart(start) => {
                let mut state = self.state.lock().unwrap();
                state.stream_id = Some(start.stream_id().to_owned());
                state.auto = None;
            }
            gst::EventView::FlushStart(_) => desk.flush(),
            gst::EventView::FlushStop(_) => {
                desk.reopen();
                self.state.lock().unwrap().count.flush();
            }
            gst::EventView::Eos(_) => {
                if !self.drain(&desk) {
                    return false;
                }
                self.post_last_stats(&desk);
            }
            _ => (),
        }
        self.parent_event(event)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(desk) = self.desk() {
            desk.set_unlocked(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(desk) = self.desk() {
            desk.set_unlocked(false);
        }
        Ok(())
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let desk = self.desk().ok_or(gst::FlowError::Flushing)?;
        let when_busy = self.when_busy();
        let mut job = self.job(buffer)?;
        loop {
            match desk.offer(job, when_busy) {
                Offer::Admitted => break,
                Offer::Refused => return Err(gst::FlowError::Flushing),
                Offer::Unlocked(unlocked) => job = unlocked,
            }
            if let Err(error) = self.obj().wait_preroll() {
                desk.give_up(job);
                return Err(error);
            }
        }
        if let Some(snapshot) = desk.report_if_due() {
            self.post_stats(snapshot);
        }
        Ok(gst::FlowSuccess::Ok)
    }
}
