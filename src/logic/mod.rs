//! Decisions in plain Rust. Nothing here knows GStreamer, a socket or a clock: `now` is a parameter.

pub mod admission;
pub mod bandwidth;
pub mod connection;
pub mod continuity;
pub mod detections;
pub mod frame_count;
pub mod frame_facts;
pub mod frame_gate;
pub mod frame_rate;
pub mod handoff;
pub mod ice_servers;
pub mod media;
pub mod metrics;
pub mod origins;
pub mod overlay;
pub mod palette;
pub mod per_stream;
pub mod processing_latency;
pub mod rate_limit;
pub mod registry;
pub mod return_clock;
pub mod return_lines;
pub mod stats;
pub mod stream_clock;
pub mod token;
pub mod wire;
