//! Runs a model on raw video frames and passes them on with what it found.
//!
//! ```text
//! rtcsessionsrc video-chain="framemeta ! inferencefilter model=models/shapes.onnx"
//! v4l2src ! videoconvert ! inferencefilter model=models/shapes.onnx ! videoconvert ! autovideosink
//! ```
//!
//! Takes I420, NV12, RGB, BGR, RGBA and BGRA, and gives the same: caps and pixels go through untouched, nothing is copied.
//! What is known about a frame is in its meta `RtcFrameMeta` afterwards: what `framemeta` would have put there, the boxes as
//! `results`, and the whole result as `json`. A result that an element before left on the frame is replaced. From Python:
//! `buffer.get_custom_meta("RtcFrameMeta").get_structure().get_array("results")`.
//!
//! Of each stream one frame is in work and one waits; when more come, `when-busy` decides:
//!
//! | `when-busy` | which frames go on | upstream | latency |
//! |---|---|---|---|
//! | `skip` | those that were inferred, each with its own result; the newest takes the waiting place | never blocked by the model | `effective-latency` |
//! | `latest` | all, at once, each with the last result of its stream, which `result-frame-id` names | never blocked | none |
//! | `wait` | all, each with its own result | held until there is room | `effective-latency` |
//! | `auto` | as `skip` when upstream is live, else as `wait` | | |
//!
//! With `latest` a frame that is passed on and never inferred counts as dropped, busy: the accounts are those of inference.
//! Until there is a first result, and after one for frames of another size, frames have none. `result-frame-id` is absent
//! where the result is the frame's own. A filter further down that writes into the pixels has to copy them while the worker
//! still reads.
//!
//! A frame whose inference failed goes on in every mode, in its place, with a `json` whose `errors` says why and without
//! `results`. A frame after dropped ones carries the flag DISCONT, unless all are passed on.
//!
//! Each result also goes on the bus and upstream, before its frame is pushed, exactly as `inferencesink` tells it.
//!
//! Events that are serialized with the frames, and EOS with them, wait for the frames that were taken in and keep their
//! place; with `latest` only a new stream and EOS wait, as the frames have left. What downstream answers to a frame is told
//! upstream with the next one; with no next one, before EOS, it is an element error. When a pad is linked again frames
//! flow again.
//!
//! # Latency
//!
//! When upstream is live, and frames are not passed on at once, the answer to a LATENCY query is that of upstream and
//! `effective-latency` more, in min, and in max where there is one. It begins with `processing-latency`, or where that is 0
//! with what a black frame took when the element started. When more than two of the last twenty frames took longer from
//! arrival to result, it is raised to what the third slowest took and a tenth more, and a LATENCY message is posted from the
//! filter's own thread. It is never lowered before the element is started anew.
//!
//! # Model
//!
//! It is loaded in NULL→READY, and again in READY→PAUSED when a property was changed; what is wrong with it or with a
//! property is an element error that names it. What runs it is chosen as with `inferencesink`, and it may change while the
//! element runs, shared by all elements that name it: see there.
//!
//! # Messages
//!
//! | element message | fields | when |
//! |---|---|---|
//! | `inference-result` | `connection-id` s and `stream-id` s where known, `frame-id` t, `queue`, `preprocess`, `inference`, `postprocess` and `latency` t in nanoseconds, `json` s, with `tensor-format=bytes` `tensors` | with `post-messages`, for each frame inferred or failed, from one of the filter's own threads |
//! | `inference-stats` | `received`, `inferred`, `failed`, `pending`, `dropped`, `dropped-busy`, `dropped-late`, `dropped-flush`, `dropped-closed` t; `queue-`, `preprocess-`, `inference-`, `postprocess-` and `latency-p50`, `-p95`, `-p99` t, nanoseconds, after the first result; `model`, `model-hash`, `engine`, `device` s | each `stats-interval`, before EOS and when stopping, from one of the filter's own threads or the streaming thread |
//!
//! All counts are since the element started; `received = inferred + failed + dropped + pending` in each. Dropped as busy: a
//! newer frame took the waiting place; flush: a flush came over it; closed: the element was stopped, downstream took no more
//! frames, or the frame came before caps; late: `deadline` passed before its turn. `json` is described with `inferencesink`.

use gst::{glib, prelude::*};

use crate::elements::inference::settings::{ChannelOrder, Engine, Resize, TensorFormat};

mod imp;

glib::wrapper! {
    pub struct InferenceFilter(ObjectSubclass<imp::InferenceFilter>)
        @extends gst::Element, gst::Object;
}

/// What happens to frames that come faster than they are inferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceFilterWhenBusy")]
pub enum WhenBusy {
    #[default]
    #[enum_value(name = "Skip when upstream is live, else wait", nick = "auto")]
    Auto,
    #[enum_value(
        name = "The newest frame is inferred and passed on, those before it are dropped",
        nick = "skip"
    )]
    Skip,
    #[enum_value(
        name = "Every frame is passed on at once with the last result",
        nick = "latest"
    )]
    Latest,
    #[enum_value(
        name = "Every frame is inferred, upstream is held until there is room",
        nick = "wait"
    )]
    Wait,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    WhenBusy::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    for property in [
        Engine::static_type(),
        ChannelOrder::static_type(),
        Resize::static_type(),
        TensorFormat::static_type(),
    ] {
        property.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "inferencefilter",
        gst::Rank::NONE,
        InferenceFilter::static_type(),
    )
}
