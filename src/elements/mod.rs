//! The elements. They never import each other; they meet through pads, metas, events and messages.

pub fn register(_plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    Ok(())
}
