//! What the elements that infer have in common: the settings, the desk where frames wait, the thread that works on them, and
//! how results are told. What becomes of the frames themselves is the element's own affair.

pub mod desk;
pub mod frame;
pub mod inferrer;
pub mod report;
pub mod settings;
pub mod worker;
