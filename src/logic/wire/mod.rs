//! What goes over the wire, as text: parsed within bounds, written without surprises.

pub mod offer;
pub mod sdp;
