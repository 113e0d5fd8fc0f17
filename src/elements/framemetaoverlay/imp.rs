use std::{
    sync::{LazyLock, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{
        base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess},
        prelude::*,
    },
};
use gst_video::{VideoFrameRef, VideoInfo};

use super::{
    frame,
    glyphs::{self, Glyphs},
    settings,
};
use crate::logic::{
    frame_facts::FrameFacts,
    overlay::{Scene, Style, lay_out},
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "framemetaoverlay",
        gst::DebugColorFlags::empty(),
        Some("Drawing of frame metadata"),
    )
});

#[derive(Default)]
struct State {
    info: Option<VideoInfo>,
    /// What is to be drawn on the frame in work.
    scene: Scene,
    glyphs: Glyphs,
}

#[derive(Default)]
pub struct FrameMetaOverlay {
    // Lock order: no two of them are ever held together.
    style: Mutex<Style>,
    state: Mutex<State>,
}

impl FrameMetaOverlay {
    fn lay_out(&self, buffer: &gst::BufferRef, info: &VideoInfo) -> Scene {
        let style = self.style.lock().unwrap().clone();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let size = (info.width(), info.height());
        lay_out(
            &FrameFacts::read(buffer),
            size,
            &style,
            now,
            glyphs::advance,
        )
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FrameMetaOverlay {
    const NAME: &'static str = "GstFrameMetaOverlay";
    type Type = super::FrameMetaOverlay;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for FrameMetaOverlay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(settings::param_specs);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        settings::set(&mut self.style.lock().unwrap(), pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        settings::get(&self.style.lock().unwrap(), pspec.name())
    }
}

impl GstObjectImpl for FrameMetaOverlay {}

impl ElementImpl for FrameMetaOverlay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Frame metadata overlay",
                "Filter/Editor/Video",
                "Draws the boxes and labels of a frame's meta on the frame",
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
}

impl BaseTransformImpl for FrameMetaOverlay {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock().unwrap() = State::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        gst::debug!(CAT, imp = self, "Caps {incaps}");
        let info = VideoInfo::from_caps(incaps)?;
        self.state.lock().unwrap().info = Some(info);
        Ok(())
    }

    /// A frame with nothing to draw passes through: neither copied nor mapped.
    fn before_transform(&self, inbuf: &gst::BufferRef) {
        let Some(info) = self.state.lock().unwrap().info.clone() else {
            return;
        };
        let scene = self.lay_out(inbuf, &info);
        let nothing = scene.outlines.is_empty() && scene.labels.is_empty();
        self.state.lock().unwrap().scene = scene;
        self.obj().set_passthrough(nothing);
    }

    /// The buffer itself, or a copy of all of it where it is drawn on and somebody else holds it too.
    fn prepare_output_buffer(
        &self,
        inbuf: InputBuffer,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        match inbuf {
            InputBuffer::Readable(buffer) if !self.obj().is_passthrough() => buffer
                .copy_deep()
                .map(PrepareOutputBufferSuccess::Buffer)
                .map_err(|error| {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Failed,
                        ["A frame cannot be copied: {error}"]
                    );
                    gst::FlowError::Error
                }),
            _ => Ok(PrepareOutputBufferSuccess::InputBuffer),
        }
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let state = &mut *self.state.lock().unwrap();
        let info = state.info.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
        match VideoFrameRef::from_buffer_ref_writable(buffer, info) {
            Ok(mut frame) => frame::draw(&state.scene, &mut state.glyphs, &mut frame),
            Err(_) => gst::warning!(
                CAT,
                imp = self,
                "Passed on undrawn, is no such frame: {info:?}"
            ),
        }
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

    /// No pool of our own: the rare copy is made as large as its original.
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
