//! Decisions in plain Rust. Nothing here knows GStreamer, a socket or a clock: `now` is a parameter.

pub mod detections;
