//! What users see of the elements, one module per element.

use std::sync::Once;

mod calls;
mod framemeta;
mod inferencesink;

/// GStreamer with the plugin's elements in it.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtcinference::plugin_register_static().unwrap();
    });
}
