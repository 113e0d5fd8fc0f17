//! What goes over the wire, as text: parsed within bounds, written without surprises. One file per format.

pub mod offer;
pub mod record;
pub mod result;
pub mod sdp;
