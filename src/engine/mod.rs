//! Models: what loads a file, turns pixels into its input, runs it, and turns its output into boxes.
//!
//! [`Model`](model::Model) is what the elements use. An engine only multiplies: it is given a
//! tensor and gives tensors back, and never learns what a frame, a box or a label is.
//!
//! | module | job |
//! |---|---|
//! | [`model`] | one loaded model for the whole process; frames in, detections out |
//! | [`description`] | what a model file says of itself: input, labels, layout of its output |
//! | [`input`] | what a model wants of a frame, and the memory for it |
//! | [`side_car`] | what GStreamer's `.modelinfo` beside a model says of it |
//! | [`labels`] | names of classes, from a file or from the model |
//! | [`tensor`] | numbers in rows, of the kinds that models know |
//! | [`preprocess`] | the pixels of a frame into a model's input |
//! | [`decoders`] | a model's outputs into boxes |
//! | [`choice`] | which engine is wanted, and on what |
//! | [`rten`] | the embedded engine |
//! | [`onnxruntime`] | ONNX Runtime, where its library is found |
//! | [`scheduler`] | who may infer now, and with whom in one run |
//! | [`shared`] | what is made once for all who ask for the same |
//! | [`kserve`] | models on servers: Triton, MLServer, OpenVINO Model Server |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use self::tensor::{Element, Tensor};

pub mod choice;
pub mod decoders;
pub mod description;
pub mod input;
pub mod kserve;
pub mod labels;
pub mod model;
pub mod onnxruntime;
pub mod preprocess;
pub mod rten;
pub mod scheduler;
pub mod shared;
pub mod side_car;
pub mod tensor;

/// What runs a model that it has loaded. Runs of several threads may overlap.
pub trait Engine: Send + Sync {
    /// As in results and statistics: `rten`, `onnxruntime`, `kserve`.
    fn name(&self) -> &'static str;

    /// What it runs on: `cpu`, `cuda:0`.
    fn device(&self) -> &str;

    fn inputs(&self) -> &[InputInfo];

    /// Names of the outputs, in the order in which `run` gives them.
    fn outputs(&self) -> &[String];

    /// What the file says about itself under `key` (ONNX: `metadata_props`).
    fn metadata(&self, key: &str) -> Option<&str>;

    /// What inferences that overlap share.
    fn room(&self) -> Room;

    /// Runs the model once, on the only input it has; the first dimension is that of the frames. What waits for others
    /// gives up at `until`.
    fn run(&self, input: &Tensor, until: Option<Instant>) -> Result<Vec<Tensor>, EngineError>;
}

/// How many inferences make sense at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As many as the cores of this machine have threads for, together with all other models; each takes so many.
    Cores { threads: usize },
    /// So many, whatever the cores do.
    Own(usize),
}

/// What a model expects of one of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct InputInfo {
    pub name: String,
    /// Each dimension, None where any will do; None altogether where the file does not say.
    pub shape: Option<Vec<Option<usize>>>,
    /// The kind of numbers; else what it takes instead.
    pub element: Result<Element, String>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The file is not what this engine loads, or is damaged.
    #[error("{0}")]
    Malformed(String),
    /// The file is sound and asks for what this engine cannot do; another might.
    #[error("{0}")]
    Unsupported(String),
    /// It was loaded, and running it failed.
    #[error("{0}")]
    Failed(String),
    /// The engine cannot run anything on that device; says on which it can.
    #[error("{0}")]
    NoDevice(String),
}

/// A model is data that others made: what an engine trips over must not take the process along.
fn guarded<T>(engine: &str, run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        format!("{engine} panicked: {}", text.unwrap_or("no reason given"))
    })
}
