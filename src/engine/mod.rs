//! Models: what loads a file, turns pixels into its input, runs it, and turns its output into boxes.
//!
//! [`Model`](model::Model) is what the elements use. An engine only multiplies: it is given a
//! tensor and gives tensors back, and never learns what a frame, a box or a label is.
//!
//! | module | job |
//! |---|---|
//! | [`model`] | one loaded model for the whole process; frames in, detections out |
//! | [`description`] | what a model file says of itself: input, labels, layout of its output |
//! | [`labels`] | names of classes, from a file or from the model |
//! | [`preprocess`] | the pixels of a frame into a model's input |
//! | [`decoders`] | a model's output into boxes |
//! | [`rten`] | the embedded engine |
//! | [`turns`] | who may infer now |

pub mod decoders;
pub mod description;
pub mod labels;
pub mod model;
pub mod preprocess;
pub mod rten;
pub mod turns;

/// What runs a model that it has loaded. Runs of several threads may overlap.
pub trait Engine: Send + Sync {
    /// As in results and statistics: `rten`.
    fn name(&self) -> &'static str;

    /// What it runs on: `cpu`.
    fn device(&self) -> &str;

    fn inputs(&self) -> &[InputInfo];

    /// Names of the outputs, in the order in which `run` gives them.
    fn outputs(&self) -> &[String];

    /// What the file says about itself under `key` (ONNX: `metadata_props`).
    fn metadata(&self, key: &str) -> Option<&str>;

    /// Runs the model once, on the only input it has.
    fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, EngineError>;
}

/// Numbers in rows, the last dimension next to each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor {
    pub shape: Vec<usize>,
    /// As many as the product of `shape`.
    pub data: Vec<f32>,
}

impl Tensor {
    pub fn zeros(shape: &[usize]) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: vec![0.0; shape.iter().product()],
        }
    }
}

/// What a model expects of one of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct InputInfo {
    pub name: String,
    /// Each dimension, None where any will do; None altogether where the file does not say.
    pub shape: Option<Vec<Option<usize>>>,
    /// Whether it takes floats; else what it takes.
    pub element: ElementType,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ElementType {
    Float,
    Other(String),
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
}
