//! What goes over the wire, as text: parsed within bounds, written without surprises. One file per format.

pub mod called;
pub mod dialect;
pub mod fastrtc;
pub mod object;
pub mod offer;
pub mod pull;
pub mod record;
pub mod result;
pub mod roboflow;
pub mod roboflow_client;
pub mod sdp;
pub mod sdp_gate;
pub mod sdpfrag;
pub mod upload;
pub mod whip;
