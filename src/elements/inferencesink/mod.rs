//! Runs a model on raw video frames and tells what it found.
//!
//! Takes I420, NV12, RGB, BGR, RGBA and BGRA as they come. One frame is in work and one waits; when more come, `when-busy`
//! decides: with `latest` the newest takes the waiting place and the streaming thread is never blocked, with `wait` upstream
//! is held and every frame is inferred. `auto` asks upstream: `latest` when it is live, else `wait`.
//!
//! Each result goes two ways: on the bus, and upstream as the custom event `inference-result` with the same fields, by which
//! an `rtcsessionsrc` upstream sends it to the peer the frame came from. Frames of several streams may come through a
//! `funnel`: each result names its own. A frame without `frame-id` (no `framemeta` before) gets one here.
//!
//! EOS waits for the frames that were taken in: their results, and the last statistics, come before it.
//!
//! The model is loaded in NULL→READY, and again in READY→PAUSED when a property was changed; what is wrong with it or with a
//! property is an element error that names it.
//!
//! # Messages
//!
//! | element message | fields | when |
//! |---|---|---|
//! | `inference-result` | `connection-id` s and `stream-id` s where known, `frame-id` t, `json` s | with `post-messages`, for each frame inferred or failed, from the sink's own thread |
//! | `inference-stats` | `received`, `inferred`, `failed`, `pending`, `dropped`, `dropped-busy`, `dropped-late`, `dropped-flush`, `dropped-closed` t; `latency-p50`, `-p90`, `-p99` t, nanoseconds, after the first result; `model`, `engine`, `device` s | each `stats-interval`, before EOS and when stopping, from the sink's own thread or the streaming thread |
//!
//! All counts are since the element started; `received = inferred + failed + dropped + pending` in each. Dropped as busy: a
//! newer frame took the waiting place; late: missed its time with `sync=true`, or outside the segment; flush: a flush came over it;
//! closed: the element was stopped. Latency is from a frame's arrival in the sink to its result.
//!
//! `json` is one line:
//!
//! ```json
//! {"video_metadata":{"frame_id":812,"received_at":"2026-11-20T10:00:00.123456+00:00","pts":2435967,
//!   "time_base":1.1111111111111112e-05,"declared_fps":30.0,"measured_fps":29.7,"width":640,"height":480,
//!   "rtp_timestamp":3120457712,"mid":"0"},
//!  "serialized_output_data":{"predictions":{"image":{"width":640,"height":480},
//!   "predictions":[{"x":320.5,"y":200.0,"width":80.0,"height":60.0,"confidence":0.91,"class":"circle","class_id":0,
//!   "detection_id":"6c0e9f6e-4f0f-4f8e-9d3b-0a6e2f1f7c11"}]}},
//!  "errors":[],"processing_complete":false,"termination_reason":null,
//!  "timing_us":{"queue":300,"preprocess":410,"inference":2900,"postprocess":60,"total":4600},
//!  "model":{"name":"shapes","hash":"sha256:…","engine":"rten","device":"cpu"},"dropped":2}
//! ```
//!
//! `x` and `y` are the centre of a box, in pixels of the frame. What is unknown is absent. `dropped` counts the frames of the
//! stream dropped since its previous result. Where inference failed, `errors` says why and `serialized_output_data` is null.

use gst::{glib, prelude::*};

mod imp;

glib::wrapper! {
    pub struct InferenceSink(ObjectSubclass<imp::InferenceSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// What happens to a frame that comes while another one waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceSinkWhenBusy")]
pub enum WhenBusy {
    #[default]
    #[enum_value(name = "Latest when upstream is live, else wait", nick = "auto")]
    Auto,
    #[enum_value(
        name = "The newest frame waits, the older one is dropped",
        nick = "latest"
    )]
    Latest,
    #[enum_value(name = "Upstream is held until there is room", nick = "wait")]
    Wait,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    WhenBusy::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "inferencesink",
        gst::Rank::NONE,
        InferenceSink::static_type(),
    )
}
