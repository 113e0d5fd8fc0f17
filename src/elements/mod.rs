//! The elements. They never import each other; they meet through pads, metas, events and messages. What several have in
//! common is a module beside them.

use gst::prelude::*;

mod dialling;
mod framemeta;
mod framemetaoverlay;
mod inference;
mod inferencefilter;
mod inferencesink;
mod rtcsessionsink;
mod rtcsessionsrc;

pub fn register(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    dialling::Reconnect::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    framemeta::register(plugin)?;
    framemetaoverlay::register(plugin)?;
    inferencefilter::register(plugin)?;
    inferencesink::register(plugin)?;
    rtcsessionsink::register(plugin)?;
    rtcsessionsrc::register(plugin)
}

/// What a sink says of a change of state that waits for no data. To call it a success would let the pipeline play before the
/// thread that brought it to PAUSED (decodebin's, say) has told so, and what that thread tells then takes PLAYING back: a pipeline
/// of GStreamer 1.22 would never post EOS again.
fn without_preroll(
    transition: gst::StateChange,
    success: gst::StateChangeSuccess,
) -> gst::StateChangeSuccess {
    use gst::StateChange::{PlayingToPaused, ReadyToPaused};
    match (transition, success) {
        (ReadyToPaused | PlayingToPaused, gst::StateChangeSuccess::Success) => {
            gst::StateChangeSuccess::NoPreroll
        }
        _ => success,
    }
}
