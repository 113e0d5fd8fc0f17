//! Decisions in plain Rust. Nothing here knows GStreamer, a socket or a clock: `now` is a parameter.

pub mod admission;
pub mod detections;
pub mod frame_count;
pub mod frame_facts;
pub mod frame_rate;
pub mod per_stream;
pub mod stats;
pub mod wire;
