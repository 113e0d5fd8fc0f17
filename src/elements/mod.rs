//! The elements. They never import each other; they meet through pads, metas, events and messages. What several have in
//! common is a module beside them.

pub(crate) mod framemeta;
mod framemetaoverlay;
mod inference;
mod inferencefilter;
mod inferencesink;
mod rtcsessionsink;
mod rtcsessionsrc;

pub fn register(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    framemeta::register(plugin)?;
    framemetaoverlay::register(plugin)?;
    inferencefilter::register(plugin)?;
    inferencesink::register(plugin)?;
    rtcsessionsink::register(plugin)?;
    rtcsessionsrc::register(plugin)
}
