use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;

use super::WhenBusy;
use crate::{
    elements::inference::{
        desk::{Desk, Idle, Job, Offer},
        frame,
        inferrer::{InferenceElement, Inferrer},
        worker::Findings,
    },
    engine::model::Model,
    logic::{
        admission::{self, DropReason},
        detections::Detection,
        frame_facts::FrameFacts,
        per_stream::PerStream,
        processing_latency::{self, ProcessingLatency},
    },
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "inferencefilter",
        gst::DebugColorFlags::empty(),
        Some("Inference on frames that go on"),
    )
});

/// Frames that may be here at a time: one waits and one is in work.
const HELD: u32 = 2;

/// The properties that `inferencesink` has not, or of another kind.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    when_busy: WhenBusy,
    /// Milliseconds, 0 to measure it.
    processing_latency: u32,
}

/// What frames of the stream go through, `auto` being one of the others by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Skip,
    Latest,
    Wait,
}

struct State {
    /// What frames are treated by now.
    when_busy: WhenBusy,
    /// Known from the first frame of a stream on.
    mode: Option<Mode>,
    /// What the worker's last push came to; upstream is told with its next frame.
    flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// How often downstream was linked anew, or changed.
    reconfigured: u64,
    latency: ProcessingLatency,
    /// With `latest`, what frames carry until there is something newer.
    last: PerStream<Option<Arc<Told>>>,
}

impl Default for State {
    fn default() -> Self {
        State {
            when_busy: WhenBusy::default(),
            mode: None,
            flow: Ok(gst::FlowSuccess::Ok),
            reconfigured: 0,
            latency: ProcessingLatency::default(),
            last: PerStream::default(),
        }
    }
}

/// A result, as frames carry it.
struct Told {
    frame_id: Option<u64>,
    /// Of the frame, pixels: the boxes mean nothing in one of another size.
    size: (u32, u32),
    /// `None` where inference failed.
    results: Option<Vec<Detection>>,
    json: Option<String>,
}

pub struct InferenceFilter {
    inferrer: Inferrer,
    sink_pad: gst::Pad,
    src_pad: gst::Pad,
    // Lock order: no two of them are ever held together.
    own: Mutex<Own>,
    state: Mutex<State>,
}

impl InferenceFilter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let desk = self.inferrer.desk().ok_or(gst::FlowError::Flushing)?;
        let mut job = self.inferrer.job(buffer).inspect_err(|_| {
            let stream_id = self.inferrer.stream_id();
            desk.turn_away(&stream_id.unwrap_or_default(), DropReason::Closed);
        })?;
        let flow = self.state().flow;
        if let Err(error) = flow {
            let reason = match error {
                gst::FlowError::Flushing => DropReason::Flush,
                _ => DropReason::Closed,
            };
            desk.turn_away(job.stream_id(), reason);
            return Err(error);
        }
        self.follow_when_busy()
            .inspect_err(|_| desk.turn_away(job.stream_id(), DropReason::Flush))?;
        let flow = match self.mode() {
            Mode::Skip => {
                self.inferrer.hurry(&mut job);
                self.offer(&desk, job, admission::WhenBusy::Latest)
            }
            Mode::Wait => {
                self.inferrer.prepare(&mut job);
                self.offer(&desk, job, admission::WhenBusy::Wait)
            }
            Mode::Latest => {
                self.inferrer.hurry(&mut job);
                self.pass_on(&desk, job)
            }
        };
        if let Some(snapshot) = desk.report_if_due() {
            self.post_stats(snapshot);
        }
        flow
    }

    /// Leaves a frame to the worker, which pushes it.
    fn offer(
        &self,
        desk: &Arc<Desk>,
        job: Box<Job>,
        when_busy: admission::WhenBusy,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match desk.offer(job, || when_busy) {
            Offer::Admitted { shorthanded } => {
                if shorthanded {
                    self.add_worker(desk);
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Offer::Refused => Err(gst::FlowError::Flushing),
            Offer::Unlocked(job) => {
                desk.give_up(job);
                Err(gst::FlowError::Flushing)
            }
        }
    }

    /// Pushes a frame with the last result of its stream, while the worker has a look at it too.
    fn pass_on(&self, desk: &Arc<Desk>, job: Box<Job>) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut buffer = job.buffer.clone();
        let facts = job.facts.clone();
        let size = (job.info.width(), job.info.height());
        let last = self.state().last.of(job.stream_id()).clone();
        let last = last.filter(|told| told.size == size);
        self.offer(desk, job, admission::WhenBusy::Latest)?;
        // A frame that the worker holds is copied, without its pixels.
        write(buffer.make_mut(), facts, last.as_deref());
        self.src_pad.push(buffer)
    }

    /// Goes over to what `when-busy` was changed to, when what is here has left.
    fn follow_when_busy(&self) -> Result<(), gst::FlowError> {
        let own = *self.own.lock().unwrap();
        if self.state().when_busy == own.when_busy {
            return Ok(());
        }
        self.drain()?;
        let latency = match self.inferrer.model() {
            Some(model) => self.first_latency(own, &model),
            None => Duration::ZERO,
        };
        {
            let mut state = self.state();
            state.when_busy = own.when_busy;
            state.mode = None;
            state.last = PerStream::default();
            state.latency = ProcessingLatency::new(latency);
        }
        self.post_latency();
        Ok(())
    }

    fn post_latency(&self) {
        let obj = self.obj();
        // Refused by a bus that flushes: nobody listens any more.
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }

    fn mode(&self) -> Mode {
        let when_busy = {
            let state = self.state();
            if let Some(known) = state.mode {
                return known;
            }
            state.when_busy
        };
        // Asked whatever the mode: the latency depends on it too.
        let live = self.upstream_is_live();
        let mode = match when_busy {
            WhenBusy::Auto if live => Mode::Skip,
            WhenBusy::Auto | WhenBusy::Wait => Mode::Wait,
            WhenBusy::Skip => Mode::Skip,
            WhenBusy::Latest => Mode::Latest,
        };
        gst::debug!(CAT, imp = self, "Frames are treated as {mode:?}");
        self.state().mode = Some(mode);
        mode
    }

    /// What frames are delayed by, told to who asks for the latency.
    fn latency(&self) -> Duration {
        let state = self.state();
        match state.when_busy {
            WhenBusy::Latest => Duration::ZERO,
            _ => state.latency.effective(),
        }
    }

    /// Has the latency follow what frames really take.
    fn watch_latency(&self, took: Duration) {
        let raised = self.state().latency.record(took);
        if let Some(raised) = raised {
            gst::info!(CAT, imp = self, "Frames take longer, latency is {raised:?}");
            self.post_latency();
        }
    }

    /// Waits until the frames that were taken in have left.
    fn drain(&self) -> Result<(), gst::FlowError> {
        let desk = self.inferrer.desk().ok_or(gst::FlowError::Flushing)?;
        match desk.wait_idle() {
            Idle::Reached => Ok(()),
            Idle::Unlocked | Idle::Refused => Err(gst::FlowError::Flushing),
        }
    }

    fn sink_event(&self, event: gst::Event) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::log!(CAT, imp = self, "{event:?}");
        match event.view() {
            gst::EventView::FlushStart(_) => {
                if let Some(desk) = self.inferrer.desk() {
                    desk.flush();
                }
            }
            gst::EventView::FlushStop(_) => self.flushed(),
            gst::EventView::StreamStart(start) => {
                self.drain()?;
                self.begin(Some(start.stream_id()));
            }
            gst::EventView::Segment(_) => {
                self.drain_unless_passed_on()?;
                self.begin(None);
            }
            gst::EventView::Caps(caps) => {
                self.drain_unless_passed_on()?;
                self.inferrer.set_info(self.video_info(caps.caps())?);
            }
            gst::EventView::Eos(_) => {
                self.drain()?;
                if let Some(desk) = self.inferrer.desk() {
                    self.post_last_stats(&desk);
                }
                self.check_flow()?;
            }
            _ if event.is_serialized() => self.drain_unless_passed_on()?,
            _ => (),
        }
        let is_caps = event.type_() == gst::EventType::Caps;
        if self.src_pad.push_event(event) {
            Ok(gst::FlowSuccess::Ok)
        } else if self.src_pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            Err(gst::FlowError::Flushing)
        } else if is_caps {
            Err(gst::FlowError::NotNegotiated)
        } else {
            Err(gst::FlowError::Error)
        }
    }

    /// With `latest` nothing that could be overtaken is here.
    fn drain_unless_passed_on(&self) -> Result<(), gst::FlowError> {
        if self.state().mode == Some(Mode::Latest) {
            return Ok(());
        }
        self.drain()
    }

    /// A new stream, or only a new segment of it: whoever had enough of the last one may want this one.
    fn begin(&self, stream_id: Option<&str>) {
        let mut state = self.state();
        if state.flow == Err(gst::FlowError::Eos) {
            state.flow = Ok(gst::FlowSuccess::Ok);
        }
        if let Some(stream_id) = stream_id {
            state.mode = None;
            drop(state);
            self.inferrer.begin_stream(stream_id);
        }
    }

    fn flushed(&self) {
        if let Some(desk) = self.inferrer.desk() {
            // Else a frame from before the flush could be pushed after it.
            desk.wait_published();
            desk.reopen();
        }
        self.inferrer.flushed();
        let mut state = self.state();
        state.flow = Ok(gst::FlowSuccess::Ok);
        state.last = PerStream::default();
    }

    fn video_info(&self, caps: &gst::CapsRef) -> Result<VideoInfo, gst::FlowError> {
        gst::debug!(CAT, imp = self, "Caps {caps}");
        VideoInfo::from_caps(caps)
            .ok()
            .filter(|info| frame::FORMATS.contains(&info.format()))
            .ok_or_else(|| {
                gst::warning!(CAT, imp = self, "Not raw video of a known format: {caps}");
                gst::FlowError::NotNegotiated
            })
    }

    /// No frame will come any more with which upstream could be told that downstream took none.
    fn check_flow(&self) -> Result<(), gst::FlowError> {
        let flow = self.state().flow;
        let Err(error) = flow else {
            return Ok(());
        };
        // Whoever has had enough waits for the event.
        if error == gst::FlowError::Eos {
            return Ok(());
        }
        if error != gst::FlowError::Flushing {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("Internal data stream error."),
                ["streaming stopped, reason {error}"]
            );
        }
        Err(error)
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        gst::trace!(CAT, imp = self, "{query:?}");
        // DRAIN wants buffers back, and an answer about allocation holds for frames after those that are here.
        if query.is_serialized() && self.drain().is_err() {
            return false;
        }
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        if !self.src_pad.peer_query(query.query_mut()) {
            return false;
        }
        let pools: Vec<_> = query.allocation_pools().collect();
        for (index, (pool, size, min, max)) in (0..).zip(pools) {
            // Without those held here, downstream's own would be too few.
            let most = if max == 0 {
                0
            } else {
                max.saturating_add(HELD)
            };
            let min = min.saturating_add(HELD);
            query.set_nth_allocation_pool(index, pool.as_ref(), size, min, most);
        }
        true
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Reconfigure {
            // Sent by a pad that was linked just now, too.
            let mut state = self.state();
            state.reconfigured += 1;
            if state.flow == Err(gst::FlowError::NotLinked) {
                state.flow = Ok(gst::FlowSuccess::Ok);
            }
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(query) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        if !self.sink_pad.peer_query(query.query_mut()) {
            return false;
        }
        let (live, min, max) = query.result();
        if live {
            let ours = gst::ClockTime::try_from(self.latency()).unwrap_or(gst::ClockTime::ZERO);
            let max = max.map(|max| max.saturating_add(ours));
            query.set(live, min.saturating_add(ours), max);
        }
        true
    }

    /// The latency to begin with.
    fn first_latency(&self, own: Own, model: &Arc<Model>) -> Duration {
        if own.when_busy == WhenBusy::Latest {
            return Duration::ZERO;
        }
        if own.processing_latency > 0 {
            return Duration::from_millis(own.processing_latency.into());
        }
        let measured = frame::time_of_one(model);
        gst::info!(CAT, imp = self, "A black frame took {measured:?}");
        measured.unwrap_or_else(|error| {
            gst::warning!(CAT, imp = self, "A black frame: {error}");
            Duration::ZERO
        })
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let own = *self.own.lock().unwrap();
        let model = self.start_workers()?;
        let latency = self.first_latency(own, &model);
        *self.state() = State {
            when_busy: own.when_busy,
            latency: ProcessingLatency::new(latency),
            ..State::default()
        };
        Ok(())
    }
}

/// Puts on a frame what is known about it, and a result in the place of any other.
fn write(buffer: &mut gst::BufferRef, facts: FrameFacts, told: Option<&Told>) {
    FrameFacts::forget_result(buffer);
    let own = facts.frame_id;
    FrameFacts {
        result_frame_id: told
            .and_then(|told| told.frame_id)
            .filter(|id| Some(*id) != own),
        results: told.and_then(|told| told.results.clone()),
        json: told.and_then(|told| told.json.clone()),
        ..facts
    }
    .write(buffer);
}

impl InferenceElement for InferenceFilter {
    fn category(&self) -> gst::DebugCategory {
        *CAT
    }

    fn inferrer(&self) -> &Inferrer {
        &self.inferrer
    }

    fn frames_pad(&self) -> gst::Pad {
        self.sink_pad.clone()
    }

    fn model_changed(&self, model: &Arc<Model>) {
        let own = *self.own.lock().unwrap();
        // A user's own figure stays, and is raised when frames take longer.
        if own.processing_latency == 0 {
            let latency = self.first_latency(own, model);
            self.state().latency = ProcessingLatency::new(latency);
            self.post_latency();
        }
    }

    fn publish(&self, findings: Findings, mut buffer: gst::Buffer) {
        let mode = self.mode();
        let json = self.tell(&findings).get::<String>("json").ok();
        let told = Told {
            frame_id: findings.facts.frame_id,
            size: (findings.width, findings.height),
            results: findings.inference.ok().map(|found| found.detections),
            json,
        };
        if mode == Mode::Latest {
            let stream_id = findings.facts.stream_id.unwrap_or_default();
            *self.state().last.of(&stream_id) = Some(Arc::new(told));
            return;
        }
        if told.results.is_some() && self.upstream_is_live() {
            self.watch_latency(findings.timing.total);
        }
        let (flow, reconfigured) = {
            let state = self.state();
            (state.flow, state.reconfigured)
        };
        if flow.is_err() {
            return;
        }
        let frame = buffer.make_mut();
        write(frame, findings.facts, Some(&told));
        if findings.dropped > 0 {
            frame.set_flags(gst::BufferFlags::DISCONT);
        }
        let flow = self.src_pad.push(buffer);
        if let Err(error) = flow {
            gst::debug!(CAT, imp = self, "Downstream took no frame: {error}");
        }
        let mut state = self.state();
        let outdated = flow == Err(gst::FlowError::NotLinked) && state.reconfigured != reconfigured;
        if !outdated {
            state.flow = flow;
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for InferenceFilter {
    const NAME: &'static str = "GstInferenceFilter";
    type Type = super::InferenceFilter;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("sink").expect("it is in the list");
        let sink_pad = gst::Pad::builder_from_template(&template)
            .chain_function(|_, parent, buffer| {
                InferenceFilter::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.sink_chain(buffer),
                )
            })
            .event_full_function(|_, parent, event| {
                InferenceFilter::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.sink_event(event),
                )
            })
            .query_function(|pad, parent, query| {
                InferenceFilter::catch_panic_pad_function(
                    parent,
                    || false,
                    |this| this.sink_query(pad, query),
                )
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        let template = class.pad_template("src").expect("it is in the list");
        let src_pad = gst::Pad::builder_from_template(&template)
            .event_function(|pad, parent, event| {
                InferenceFilter::catch_panic_pad_function(
                    parent,
                    || false,
                    |this| this.src_event(pad, event),
                )
            })
            .query_function(|pad, parent, query| {
                InferenceFilter::catch_panic_pad_function(
                    parent,
                    || false,
                    |this| this.src_query(pad, query),
                )
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        InferenceFilter {
            inferrer: Inferrer::default(),
            sink_pad,
            src_pad,
            own: Mutex::default(),
            state: Mutex::default(),
        }
    }
}

impl ObjectImpl for InferenceFilter {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let most = processing_latency::MOST.as_millis() as u32;
            let mut properties = Inferrer::param_specs();
            properties.extend([
                // GstInferenceFilter:when-busy: Holds from the next frame on. Since: 0.1
                glib::ParamSpecEnum::builder_with_default("when-busy", WhenBusy::default())
                    .nick("When busy")
                    .blurb("What happens to frames that come faster than they are inferred")
                    .mutable_playing()
                    .build(),
                // GstInferenceFilter:processing-latency: What it begins with; see `effective-latency`. Since: 0.1
                glib::ParamSpecUInt::builder("processing-latency")
                    .nick("Processing latency")
                    .blurb("Milliseconds a frame takes here, added to the latency of a live pipeline unless when-busy is latest; raised while frames persistently take longer; 0 measures it when the element starts")
                    .maximum(most)
                    .mutable_ready()
                    .build(),
                // GstInferenceFilter:effective-latency: Rounded up; 0 with when-busy=latest and before the first start. Since: 0.1
                glib::ParamSpecUInt::builder("effective-latency")
                    .nick("Effective latency")
                    .blurb("Milliseconds that are added to the latency of a live pipeline now")
                    .maximum(most)
                    .read_only()
                    .build(),
                // GstInferenceFilter:stats: The fields of `inference-stats`. Since: 0.1
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("What became of the frames so far, and how long results took")
                    .read_only()
                    .build(),
            ]);
            properties
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "GObject checked the type";
        match pspec.name() {
            "when-busy" => self.own.lock().unwrap().when_busy = value.get().expect(CHECKED),
            "processing-latency" => {
                self.own.lock().unwrap().processing_latency = value.get().expect(CHECKED);
            }
            name => self.inferrer.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "when-busy" => self.own.lock().unwrap().when_busy.to_value(),
            "processing-latency" => self.own.lock().unwrap().processing_latency.to_value(),
            "effective-latency" => (self.latency().as_micros().div_ceil(1000) as u32).to_value(),
            "stats" => self.inferrer.stats().to_value(),
            name => self.inferrer.get(name),
        }
    }

    fn dispatch_properties_changed(&self, specs: &[glib::ParamSpec]) {
        self.parent_dispatch_properties_changed(specs);
        let names: Vec<_> = specs.iter().map(|spec| spec.name()).collect();
        self.properties_changed(&names);
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.add_pad(&self.sink_pad)
            .expect("it is the only one of its name");
        obj.add_pad(&self.src_pad)
            .expect("it is the only one of its name");
    }
}

impl GstObjectImpl for InferenceFilter {}

impl ElementImpl for InferenceFilter {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Inference filter",
                "Filter/Analyzer/Video",
                "Runs a model on video frames and passes them on with the results, which it also tells on the bus and to the peer the frames came from",
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
            [
                ("sink", gst::PadDirection::Sink),
                ("src", gst::PadDirection::Src),
            ]
            .map(|(name, direction)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                    .expect("the template is valid")
            })
            .into()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                self.load()?;
            }
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PausedToReady => self.close_desk(),
            _ => (),
        }
        let changed = self.parent_change_state(transition);
        match transition {
            // A way up that fails has no way down.
            gst::StateChange::ReadyToPaused if changed.is_err() => self.stop_workers(),
            gst::StateChange::PausedToReady => self.stop_workers(),
            gst::StateChange::ReadyToNull => self.unload(),
            _ => (),
        }
        changed
    }
}
