//! What users see of the elements, one module per element.

use std::ops::Deref;
use std::sync::Once;

use gst::prelude::*;

mod access;
mod calls;
mod churn;
#[allow(dead_code, reason = "the benches use all of it")]
#[path = "../../bench/clip.rs"]
mod clip;
mod dialling;
mod endings;
mod engines;
mod framemeta;
mod framemetaoverlay;
mod ice_servers;
mod inferencefilter;
mod inferencesink;
mod inferring;
mod models;
mod overload;
mod preroll;
mod registry;
mod returning;
mod rtcsessionsink;
mod rtcsessionsrc;
mod server;
mod sharing;
#[allow(dead_code, reason = "the benches use all of it")]
#[path = "../../bench/visitor.rs"]
mod visitor;
mod whip;

/// GStreamer with the plugin's elements in it.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstrtcinference::plugin_register_static().unwrap();
    });
}

/// The bus of an element alone. It takes nothing more when the test is over: a message that stays on it would keep
/// the element, and with it the bus.
struct Overheard(gst::Bus);

impl Overheard {
    fn of(element: &gst::Element) -> Self {
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self(bus)
    }
}

impl Deref for Overheard {
    type Target = gst::Bus;

    fn deref(&self) -> &gst::Bus {
        &self.0
    }
}

impl Drop for Overheard {
    fn drop(&mut self) {
        self.0.set_flushing(true);
    }
}
