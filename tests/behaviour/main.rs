//! What users see of the elements, one module per element.

use std::sync::Once;

mod calls;
mod churn;
#[allow(dead_code, reason = "the benches use all of it")]
#[path = "../../bench/clip.rs"]
mod clip;
mod endings;
mod framemeta;
mod inferencesink;
mod models;
mod overload;
mod registry;
mod rtcsessionsrc;
mod server;
#[allow(dead_code, reason = "the benches use all of it")]
#[path = "../../bench/visitor.rs"]
mod visitor;

/// GStreamer with the plugin's elements in it.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtcinference::plugin_register_static().unwrap();
    });
}
