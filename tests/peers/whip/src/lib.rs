//! WHIP and WHEP of gst-plugins-rs, both ends of each, and nothing else of it.

use gst::glib;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // Its HTTP client wants one, whether or not the server speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    gstrswebrtc::webrtcsink::register(plugin)?;
    gstrswebrtc::webrtcsrc::register(Some(plugin))
}

gst::plugin_define!(
    whippeer,
    env!("CARGO_PKG_NAME"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://gitlab.freedesktop.org/gstreamer/gst-plugins-rs",
    "2026-01-01"
);
