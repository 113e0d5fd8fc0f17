//! Attaches, completes and exports what is known about each frame.
//!
//! `framemeta` passes every buffer on and gives it the meta `RtcFrameMeta`, on any caps, RTC or not:
//!
//! * `stream-id` (that of STREAM_START) and `frame-id` (from 1 in each stream), where the frame has none;
//! * `pts`, `time-base-num`, `time-base-den`, where the frame has none: the buffer's timestamp in nanoseconds;
//! * `declared-fps`, `width`, `height` from the caps; `measured-fps` over the last two seconds;
//! * on `application/x-rtp`, for each packet: `ssrc`, `rtp-timestamp`, `mid`, `arrival-time`, and `pts` in ticks of the RTP
//!   clock from the stream's first frame. Packets with the same RTP timestamp are one frame and share its `frame-id`.
//!
//! The meta survives conversion, scaling, coding and RTP payloading. From Python:
//! `buffer.get_custom_meta("RtcFrameMeta").get_structure().get_uint64("frame-id")`.
//!
//! A flushing seek goes on counting, so no id comes twice, and measures anew.
//!
//! With `results-location` the results that frames carry, from an `inferencefilter` or a server that was called, go to a file as
//! JSON Lines.
//!
//! # Messages
//!
//! | element message | fields | when |
//! |---|---|---|
//! | `frame-meta` | the fields of the frame's meta | with `post-messages`, for each frame, from the streaming thread |

use gst::{glib, prelude::*};

mod imp;

glib::wrapper! {
    pub struct FrameMeta(ObjectSubclass<imp::FrameMeta>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "framemeta",
        gst::Rank::NONE,
        FrameMeta::static_type(),
    )
}
