//! Draws on each frame what its meta says: boxes, what they hold, how sure the model is.
//!
//! ```text
//! gst-launch-1.0 v4l2src ! videoconvert ! framemeta ! inferencefilter model=models/shapes.onnx \
//!     ! framemetaoverlay trail=true ! videoconvert ! autovideosink
//! ```
//!
//! Takes I420, NV12, RGB, BGR, RGBA, BGRA, RGBx and BGRx as they come and draws in place. A frame whose meta
//! `RtcFrameMeta` has no results passes untouched: it is neither copied nor mapped. A frame that somebody else holds too
//! (behind a `tee`) is copied before it is drawn on. The meta stays on the buffer.
//!
//! * The line around a box lies in it: its first and last pixels are those of the box, rounded to whole ones.
//! * Results that were computed on another size are scaled: `width` and `height` of the meta are compared with the caps.
//! * A class has the same colour always and everywhere. There are 18, so many classes share them.
//! * A label stands on top of its box, within the frame. One that would be wider than its box and half the frame is cut
//!   with an ellipsis; the confidence, in percent, stays.
//! * At most 300 boxes of a frame are drawn, the first ones of the meta; of boxes that overlap the earlier is on top.
//! * `trail=true` says in the lower left corner `frame 812  34 ms  results of 809`: the frame's id, the time since it
//!   arrived, and the frame the boxes were found on when it is an earlier one. What is unknown is left out.
//!
//! Letters are Latin, Greek and Cyrillic, from left to right; others show as �. They are those of DejaVu Sans, a font that
//! is part of the plugin; `font/LICENSE` holds its terms (free to embed, change and sell along with software).

use gst::{glib, prelude::*};

mod canvas;
mod frame;
mod glyphs;
mod imp;
mod settings;

glib::wrapper! {
    pub struct FrameMetaOverlay(ObjectSubclass<imp::FrameMetaOverlay>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "framemetaoverlay",
        gst::Rank::NONE,
        FrameMetaOverlay::static_type(),
    )
}
