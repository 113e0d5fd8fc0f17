//! What crosses the network, as bytes and text: one file per format.

pub mod result;
