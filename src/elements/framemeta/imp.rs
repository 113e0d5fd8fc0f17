use std::{
    fs::File,
    io::{BufWriter, Write},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{
        base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess},
        prelude::*,
    },
};

use crate::{
    logic::{
        frame_count::{FrameCount, Seen, Sighting},
        frame_facts::FrameFacts,
    },
    meta::{self, rtp},
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "framemeta",
        gst::DebugColorFlags::empty(),
        Some("Frame metadata"),
    )
});

#[derive(Default)]
struct State {
    count: FrameCount,
    /// The stream-id of the last STREAM_START.
    stream_id: Option<String>,
    caps: CapsFacts,
    /// Where results go, a line each.
    results: Option<BufWriter<File>>,
}

/// What the caps say about every frame under them.
#[derive(Default)]
struct CapsFacts {
    declared_fps: Option<f64>,
    width: Option<i32>,
    height: Option<i32>,
    /// Set when the buffers are RTP packets.
    rtp: Option<rtp::Reader>,
}

impl CapsFacts {
    fn of(caps: &gst::CapsRef) -> CapsFacts {
        let Some(s) = caps.structure(0) else {
            return CapsFacts::default();
        };
        CapsFacts {
            declared_fps: s
                .get::<gst::Fraction>("framerate")
                .ok()
                .filter(|rate| rate.numer() > 0)
                .map(|rate| f64::from(rate.numer()) / f64::from(rate.denom())),
            width: s.get("width").ok(),
            height: s.get("height").ok(),
            rtp: (s.name() == "application/x-rtp").then(|| rtp::Reader::of(s)),
        }
    }
}

#[derive(Default)]
pub struct FrameMeta {
    post_messages: AtomicBool,
    results_location: Mutex<Option<String>>,
    state: Mutex<State>,
}

impl FrameMeta {
    fn complete(&self, buffer: &mut gst::BufferRef) {
        let mut facts = FrameFacts::read(buffer);
        let seen = {
            let state = &mut *self.state.lock().unwrap();
            let packet = match &state.caps.rtp {
                Some(rtp) => match rtp.read(buffer) {
                    Some(packet) => Some(packet),
                    None => {
                        gst::warning!(CAT, imp = self, "Not an RTP packet: {buffer:?}");
                        return;
                    }
                },
                None => None,
            };
            state.count.complete(
                &mut facts,
                &Sighting {
                    stream_id: state.stream_id.as_deref(),
                    pts: buffer.pts().map(Duration::from),
                    declared_fps: state.caps.declared_fps,
                    width: state.caps.width,
                    height: state.caps.height,
                    packet,
                },
            )
        };
        if seen == Seen::NewFrame
            && let Some(json) = &facts.json
        {
            self.keep(json);
        }
        facts.write(buffer);
        gst::log!(CAT, imp = self, "{seen:?} {:?}", facts.frame_id);
        if seen == Seen::NewFrame
            && self.post_messages.load(Ordering::Relaxed)
            && let Some(structure) = meta::export(buffer, "frame-meta")
        {
            let message = gst::message::Element::builder(structure)
                .src(&*self.obj())
                .build();
            // Refused by a bus that flushes: nobody listens any more.
            let _ = self.obj().post_message(message);
        }
    }
}

impl FrameMeta {
    /// Writes a result to the file, if there is one to write to.
    fn keep(&self, json: &str) {
        let written = match &mut self.state.lock().unwrap().results {
            Some(file) => writeln!(file, "{json}"),
            None => Ok(()),
        };
        self.check_written(written);
    }

    fn flush_results(&self) {
        let flushed = match &mut self.state.lock().unwrap().results {
            Some(file) => file.flush(),
            None => Ok(()),
        };
        self.check_written(flushed);
    }

    fn check_written(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.state.lock().unwrap().results = None;
            let location = self.results_location.lock().unwrap().clone();
            let location = location.unwrap_or_default();
            gst::element_imp_error!(
                self,
                gst::ResourceError::Write,
                ("results-location={location}: {error}")
            );
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FrameMeta {
    const NAME: &'static str = "GstFrameMeta";
    type Type = super::FrameMeta;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for FrameMeta {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                // GstFrameMeta:post-messages:
                // Each frame's facts as element message `frame-meta`, from the streaming thread. Since: 0.1
                glib::ParamSpecBoolean::builder("post-messages")
                    .nick("Post messages")
                    .blurb("Whether what is known about each frame is posted as element message \"frame-meta\"")
                    .mutable_playing()
                    .build(),
                // GstFrameMeta:results-location: Written anew by each READY→PAUSED. Since: 0.1
                glib::ParamSpecString::builder("results-location")
                    .nick("Results location")
                    .blurb("Path of a file that the result of each frame that has one is written to, as JSON, a line each (JSON Lines); unset writes none")
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "GObject checked the type";
        match pspec.name() {
            "results-location" => {
                *self.results_location.lock().unwrap() = value.get().expect(CHECKED)
            }
            _ => {
                let post = value.get().expect(CHECKED);
                self.post_messages.store(post, Ordering::Relaxed);
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "results-location" => self.results_location.lock().unwrap().to_value(),
            _ => self.post_messages.load(Ordering::Relaxed).to_value(),
        }
    }
}

impl GstObjectImpl for FrameMeta {}

impl ElementImpl for FrameMeta {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Frame metadata",
                "Filter/Metadata",
                "Gives each frame an id, timing and its RTP facts as a meta that survives conversion, coding and payloading",
                "The rtcinference authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [
                ("sink", gst::PadDirection::Sink),
                ("src", gst::PadDirection::Src),
            ]
            .map(|(name, direction)| {
                gst::PadTemplate::new(
                    name,
                    direction,
                    gst::PadPresence::Always,
                    &gst::Caps::new_any(),
                )
                .expect("the template is valid")
            })
            .into()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for FrameMeta {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let location = self.results_location.lock().unwrap().clone();
        let location = location.filter(|location| !location.is_empty());
        let results = location.map(|location| {
            File::create(&location).map_err(|error| {
                let kind = gst::ResourceError::OpenWrite;
                gst::error_msg!(kind, ("results-location={location}: {error}"))
            })
        });
        *self.state.lock().unwrap() = State {
            results: results.transpose()?.map(BufWriter::new),
            ..State::default()
        };
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.flush_results();
        self.state.lock().unwrap().results = None;
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        gst::debug!(CAT, imp = self, "Caps {incaps}");
        self.state.lock().unwrap().caps = CapsFacts::of(incaps);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                self.state.lock().unwrap().stream_id = Some(start.stream_id().to_owned());
            }
            gst::EventView::FlushStop(_) => self.state.lock().unwrap().count.flush(),
            gst::EventView::Eos(_) => self.flush_results(),
            _ => (),
        }
        self.parent_sink_event(event)
    }

    /// The buffer itself, or a copy that shares its memory: only metas are ever changed.
    fn prepare_output_buffer(
        &self,
        inbuf: InputBuffer,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        Ok(match inbuf {
            InputBuffer::Writable(_) => PrepareOutputBufferSuccess::InputBuffer,
            InputBuffer::Readable(buffer) => PrepareOutputBufferSuccess::Buffer(buffer.copy()),
        })
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.complete(buffer);
        Ok(gst::FlowSuccess::Ok)
    }

    /// Upstream may use what downstream offers, as if this element were not there.
    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        if self.obj().src_pad().peer_query(query.query_mut()) {
            Ok(())
        } else {
            Err(gst::loggable_error!(CAT, "Downstream proposes nothing"))
        }
    }

    /// No pool of our own: no buffer is ever made here.
    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        while query.allocation_pools().next().is_some() {
            query.remove_nth_allocation_pool(0);
        }
        Ok(())
    }
}
