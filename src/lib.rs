//! GStreamer elements for real-time inference over WebRTC.
//!
//! # Code map
//!
//! | module | job |
//! |---|---|
//! | [`elements`] | the elements: pads, properties, state changes; they do what `logic` decides |
//! | [`dial`] | calling servers: one protocol per file, and a session from the first call to the last word |
//! | [`doors`] | hosting: the HTTP listener and one signalling dialect per file |
//! | [`peer`] | the only place that knows str0m: sockets, negotiation, tracks, the private pipeline |
//! | [`engine`] | models: one trait, one file per engine; preprocessing and box decoding |
//! | [`meta`] | the only place with `GstMeta` layout |
//! | [`runtime`] | the one tokio runtime |
//! | [`logic`] | decisions in plain Rust: no GStreamer, no socket, no clock |
//!
//! Imports point down only: elements → doors, dial, peer, engine, meta, runtime → logic.

pub mod dial;
pub mod doors;
pub mod elements;
pub mod engine;
pub mod logic;
pub mod meta;
pub mod peer;
pub mod runtime;

/// What the fuzzer has found and kept goes through its parser in every test run.
#[cfg(test)]
#[path = "../bench/fuzz/targets.rs"]
mod fuzz_targets;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    elements::register(plugin)
}

gst::plugin_define!(
    rtcinference,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    "MPL",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://gstreamer.freedesktop.org"
);
