//! Boxes a model found, and what is done to them before anyone sees them.

use std::sync::Arc;

/// One object found in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Centre of the box, pixels of the frame as received.
    pub x: f32,
    pub y: f32,
    /// Size of the box, pixels of the frame as received.
    pub width: f32,
    pub height: f32,
    /// 0 to 1.
    pub confidence: f32,
    pub class_id: u32,
    pub class: Arc<str>,
}
