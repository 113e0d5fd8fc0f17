use std::sync::{LazyLock, Mutex};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;

use super::WhenBusy;
use super::remote::{Gone, Remote};
use crate::{
    elements::{
        inference::{
            desk::{Desk, Idle, Offer, Snapshot},
            frame,
            inferrer::{InferenceElement, Inferrer},
            report,
            worker::Findings,
        },
        without_preroll,
    },
    logic::{
        admission::{self, DropReason},
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
pub struct InferenceSink {
    inferrer: Inferrer,
    when_busy: Mutex<WhenBusy>,
    remote: Remote,
}

impl InferenceSink {
    fn when_busy(&self) -> admission::WhenBusy {
        let when_busy = *self.when_busy.lock().unwrap();
        match when_busy {
            WhenBusy::Latest => admission::WhenBusy::Latest,
            WhenBusy::Wait => admission::WhenBusy::Wait,
            WhenBusy::Auto if self.upstream_is_live() => admission::WhenBusy::Latest,
            WhenBusy::Auto => admission::WhenBusy::Wait,
        }
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
                let stream_id = stream_id.or_else(|| this.inferrer.stream_id());
                if let Some(desk) = this.inferrer.desk() {
                    desk.approach(&stream_id.unwrap_or_default(), frames);
                }
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Where frames go to a server instead of a model, everything is made ready for that.
    fn prepare_remote(&self) -> Result<bool, gst::ErrorMessage> {
        let settings = self.inferrer.settings();
        self.remote.check()?;
        let Some(dialled) = self.remote.dialled(settings.model.is_some()) else {
            return Ok(false);
        };
        if let Some(model) = &settings.model {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("model={model}: frames go to the server of uri; one of the two is right")
            ));
        }
        let obj = self.obj();
        let (deadline, interval) = (settings.deadline(), settings.stats_interval());
        self.remote
            .claim(obj.upcast_ref(), dialled, deadline, interval);
        Ok(true)
    }

    /// Frames that can wait do, until the server is there.
    fn wait_for_server(&self) -> Result<(), gst::FlowError> {
        loop {
            match self.remote.wait_for_server() {
                Gone::Taken => return Ok(()),
                Gone::Over => return Err(gst::FlowError::Eos),
                Gone::Unlocked => drop(self.obj().wait_preroll()?),
            }
        }
    }

    /// A frame on its way to the server.
    fn send(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        let caps = obj.sink_pad().current_caps();
        let caps = caps.ok_or(gst::FlowError::NotNegotiated)?;
        let live = self.upstream_is_live();
        if self.remote.is_over() {
            return Err(gst::FlowError::Eos);
        }
        if !live {
            self.wait_for_server()?;
        }
        let now = || obj.current_running_time().unwrap_or_default();
        let segment = obj.segment();
        let time = segment.downcast_ref::<gst::ClockTime>();
        let running = time
            .zip(buffer.pts())
            .and_then(|(s, pts)| s.to_running_time(pts));
        let at = match running {
            Some(running) if !live => {
                let due = self.remote.due(running, now());
                while let Gone::Unlocked = self.remote.wait_until(due, now) {
                    obj.wait_preroll()?;
                }
                due
            }
            running => running.unwrap_or_else(now),
        };
        while let Gone::Unlocked = self.remote.send(buffer.clone(), &caps, at, !live) {
            obj.wait_preroll()?;
        }
        if let Some(snapshot) = self.remote.report_if_due() {
            self.post_remote_stats(snapshot);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn post_remote_stats(&self, snapshot: Snapshot) {
        let obj = self.obj();
        let stats = gst::message::Element::builder(report::stats(snapshot, None));
        // Refused by a bus that flushes: nobody listens any more.
        let _ = obj.post_message(stats.src(&*obj).build());
    }

    fn post_last_remote_stats(&self) {
        if self.inferrer.settings().stats_interval > 0
            && let Some(snapshot) = self.remote.snapshot()
        {
            self.post_remote_stats(snapshot);
        }
    }

    /// The state changes of a sink whose frames go to a server.
    fn change_remote(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let failed = |message: gst::ErrorMessage| {
            self.post_error_message(message);
            gst::StateChangeError
        };
        if transition == gst::StateChange::ReadyToPaused {
            let cannot = |error| gst::error_msg!(gst::ResourceError::NoSpaceLeft, ("{error}"));
            self.remote.start().map_err(|error| failed(cannot(error)))?;
        }
        let changed = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToPlaying if changed.is_ok() => {
                let obj = self.obj();
                self.remote
                    .dialling
                    .start(obj.upcast_ref())
                    .map_err(failed)?;
            }
            gst::StateChange::PausedToReady => {
                self.remote.stop();
                self.post_last_remote_stats();
            }
            gst::StateChange::ReadyToNull => self.remote.release(),
            _ => (),
        }
        changed
    }

    /// The state changes of a sink that infers here.
    fn change_local(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                self.load()?;
            }
            gst::StateChange::ReadyToPaused => {
                self.start_workers()?;
            }
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

impl InferenceElement for InferenceSink {
    fn category(&self) -> gst::DebugCategory {
        *CAT
    }

    fn inferrer(&self) -> &Inferrer {
        &self.inferrer
    }

    fn frames_pad(&self) -> gst::Pad {
        self.obj().sink_pad().clone()
    }

    fn publish(&self, findings: Findings, buffer: gst::Buffer) {
        // Its pool may be waiting for it.
        drop(buffer);
        self.tell(&findings);
    }
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
            let mut properties = Inferrer::param_specs();
            properties.extend(Remote::param_specs());
            properties.extend([
                // GstInferenceSink:when-busy: Holds from the next frame on. Since: 0.1
                glib::ParamSpecEnum::builder_with_default("when-busy", WhenBusy::default())
                    .nick("When busy")
                    .blurb(
                        "What happens to a frame that comes while another one of its stream waits",
                    )
                    .mutable_playing()
                    .build(),
                // GstInferenceSink:stats: The base class's own property, with the fields of `inference-stats`. Since: 0.1
                glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("stats"),
            ]);
            properties
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        match pspec.name() {
            "when-busy" => {
                *self.when_busy.lock().unwrap() = value.get().expect("GObject checked the type");
            }
            name if self.remote.set(name, value) => {}
            name => self.inferrer.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "when-busy" => self.when_busy.lock().unwrap().to_value(),
            "stats" => match self.remote.snapshot() {
                Some(snapshot) => report::stats(snapshot, None).to_value(),
                None => self.inferrer.stats().to_value(),
            },
            name => {
                let remote = self.remote.get(name);
                remote.unwrap_or_else(|| self.inferrer.get(name))
            }
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
        if transition == gst::StateChange::NullToReady {
            self.prepare_remote().map_err(|message| {
                self.post_error_message(message);
                gst::StateChangeError
            })?;
        }
        let changed = if self.remote.is_on() {
            self.change_remote(transition)
        } else {
            self.change_local(transition)
        };
        changed.map(|success| match self.obj().is_async() {
            // It is told to preroll.
            true => success,
            false => without_preroll(transition, success),
        })
    }
}

impl BaseSinkImpl for InferenceSink {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "Not raw video: {caps}"))?;
        gst::debug!(CAT, imp = self, "Caps {caps}");
        self.inferrer.set_info(info);
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
        if self.remote.is_on() {
            match event.view() {
                gst::EventView::StreamStart(start) => {
                    self.inferrer.begin_stream(start.stream_id());
                }
                gst::EventView::FlushStart(_) => self.remote.flush(),
                gst::EventView::Eos(_) => {
                    self.remote.finish();
                    self.post_last_remote_stats();
                }
                _ => (),
            }
            return self.parent_event(event);
        }
        let Some(desk) = self.inferrer.desk() else {
            return self.parent_event(event);
        };
        match event.view() {
            gst::EventView::StreamStart(start) => {
                self.inferrer.begin_stream(start.stream_id());
            }
            gst::EventView::FlushStart(_) => desk.flush(),
            gst::EventView::FlushStop(_) => {
                desk.reopen();
                self.inferrer.flushed();
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
        self.remote.set_unlocked(true);
        if let Some(desk) = self.inferrer.desk() {
            desk.set_unlocked(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.remote.set_unlocked(false);
        if let Some(desk) = self.inferrer.desk() {
            desk.set_unlocked(false);
        }
        Ok(())
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        if self.remote.is_on() {
            return self.send(buffer);
        }
        let desk = self.inferrer.desk().ok_or(gst::FlowError::Flushing)?;
        let mut job = self.inferrer.job(buffer.clone())?;
        match self.when_busy() {
            admission::WhenBusy::Latest => self.inferrer.hurry(&mut job),
            admission::WhenBusy::Wait => self.inferrer.prepare(&mut job),
        }
        loop {
            match desk.offer(job, || self.when_busy()) {
                Offer::Admitted { shorthanded } => {
                    if shorthanded {
                        self.add_worker(&desk);
                    }
                    break;
                }
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
