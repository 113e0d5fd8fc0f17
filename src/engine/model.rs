//! One loaded model: frames in, detections out, for any number of threads at once.
//!
//! Loading refuses whatever could not give right boxes, after a run on a black picture, so that
//! what was loaded works. The process holds one copy of a model for as long as anyone uses it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::decoders::{Decoder, DecoderChoice, LayoutError};
use super::description::{Description, Objection};
use super::labels::Labels;
use super::preprocess::{Frame, FrameError, Preprocessor};
use super::rten::Rten;
use super::{Engine, EngineError, Tensor};
pub use crate::logic::detections::Thresholds;
use crate::logic::detections::{Candidate, Detection, Letterbox};

/// What the user says of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ModelOptions {
    /// An ONNX file.
    pub path: PathBuf,
    /// A text file with one label a line; None takes them from the model.
    pub labels: Option<PathBuf>,
    pub decoder: DecoderChoice,
    /// Width and height of the input; None takes them from the model.
    pub input_size: Option<(u32, u32)>,
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The file's name without its extension.
    pub name: String,
    /// `sha256:` and the file's digest in hexadecimal digits.
    pub hash: String,
    pub engine: &'static str,
    pub device: String,
    /// Width and height of the input.
    pub input: (u32, u32),
    pub labels: Labels,
    pub decoder: Decoder,
    /// Names of all outputs, in the order of [`Inference::tensors`].
    pub outputs: Vec<String>,
}

/// Why there is no model; the text names the file and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is no model, or is damaged.
    #[error("{} is not an ONNX model, or is damaged: {reason}", path.display())]
    NotAModel { path: PathBuf, reason: String },
    /// The engine cannot run it; another might.
    #[error("engine {engine} cannot run {}: {reason}", path.display())]
    Engine {
        path: PathBuf,
        engine: &'static str,
        reason: String,
    },
    /// It runs, and does not fit what it is to be used for.
    #[error("{} cannot be used: {objection}", path.display())]
    Unfit { path: PathBuf, objection: Objection },
}

/// Why a frame has no result. The model stays usable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferError {
    /// The frame is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Running the model failed.
    #[error("inference failed: {0}")]
    Engine(#[from] EngineError),
    /// The output was of another layout than on the black picture.
    #[error(transparent)]
    Output(#[from] LayoutError),
}

/// What a model says about one frame, and what it took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inference {
    /// Best first, in pixels of the frame. A classification gives its five most likely classes, each
    /// over the whole frame, so that whoever draws or reads boxes needs no second case.
    pub detections: Vec<Detection>,
    /// All outputs as they came, with the decoder `raw`; else empty.
    pub tensors: Vec<Tensor>,
    pub preprocess: Duration,
    pub inference: Duration,
    pub postprocess: Duration,
}

/// Buffers that one stream keeps from frame to frame. Any model and frame size may follow another.
#[derive(Default)]
pub struct Scratch {
    preprocessor: Preprocessor,
    candidates: Vec<Candidate>,
}

pub struct Model {
    info: ModelInfo,
    engine: Box<dyn Engine>,
}

impl Model {
    /// The model, loaded unless somebody already uses it with these options. Takes as long as
    /// reading the file and one inference; callers of the same model wait for each other.
    pub fn load(options: &ModelOptions) -> Result<Arc<Model>, ModelError> {
        let identity = Identity::new(options)?;
        let place = place(identity);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = place.upgrade() {
            return Ok(model);
        }
        let model = Arc::new(Model::read(options)?);
        *place = Arc::downgrade(&model);
        Ok(model)
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Runs on the calling thread's time and returns when the result is there.
    pub fn infer(
        &self,
        frame: &Frame<'_>,
        thresholds: Thresholds,
        scratch: &mut Scratch,
    ) -> Result<Inference, InferError> {
        let started = Instant::now();
        let (input, letterbox) = scratch.preprocessor.run(frame, self.info.input)?;
        let prepared = Instant::now();
        let mut tensors = self.engine.run(input)?;
        let inferred = Instant::now();

        let decoder = self.info.decoder;
        let mut detections = Vec::new();
        if decoder != Decoder::Raw {
            let found = &mut scratch.candidates;
            decoder.decode(first(&tensors)?, self.info.input, thresholds, found)?;
            detections.extend(found.iter().filter_map(|c| self.detection(c, &letterbox)));
            tensors.clear();
        }
        Ok(Inference {
            detections,
            tensors,
            preprocess: prepared - started,
            inference: inferred - prepared,
            postprocess: inferred.elapsed(),
        })
    }

    fn detection(&self, candidate: &Candidate, letterbox: &Letterbox) -> Option<Detection> {
        let corners = letterbox.to_frame(&candidate.corners)?;
        Some(Detection {
            x: (corners.x0 + corners.x1) / 2.0,
            y: (corners.y0 + corners.y1) / 2.0,
            width: corners.x1 - corners.x0,
            height: corners.y1 - corners.y0,
            confidence: candidate.score,
            class_id: candidate.class_id,
            class: self.info.labels.name(candidate.class_id),
        })
    }

    fn read(options: &ModelOptions) -> Result<Model, ModelError> {
        let path = &options.path;
        let bytes = std::fs::read(path).map_err(read_error(path))?;
        let digest = Sha256::digest(&bytes);
        let hash = digest.iter().map(|byte| format!("{byte:02x}"));
        let hash = format!("sha256:{}", hash.collect::<String>());
        let labels = match &options.labels {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(read_error(path))?;
                Some(Labels::from_lines(&text))
            }
            None => None,
        };

        let engine = Rten::load(path, bytes).map_err(engine_error(path))?;
        let unfit = |objection| ModelError::Unfit {
            path: path.clone(),
            objection,
        };
        let description = Description::new(&engine, labels, options.input_size).map_err(unfit)?;
        let (width, height) = description.input;
        let black = Tensor::zeros(&[1, 3, height as usize, width as usize]);
        let outputs = engine.run(&black).map_err(engine_error(path))?;
        let output = first(&outputs).map_err(engine_error(path))?;
        let (decoder, labels) = description
            .decoder(options.decoder, &output.shape)
            .map_err(unfit)?;
        Ok(Model {
            info: ModelInfo {
                name: path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into(),
                hash,
                engine: engine.name(),
                device: engine.device().to_owned(),
                input: description.input,
                labels,
                decoder,
                outputs: engine.outputs().to_vec(),
            },
            engine: Box::new(engine),
        })
    }
}

/// What makes two requests ask for the same model.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    /// With paths as the file system has them.
    options: ModelOptions,
    model: Version,
    labels: Option<Version>,
}

/// Tells a file from what replaces it.
#[derive(PartialEq, Eq, Hash)]
struct Version {
    modified: Option<SystemTime>,
    length: u64,
}

impl Identity {
    fn new(options: &ModelOptions) -> Result<Self, ModelError> {
        let mut options = options.clone();
        let model = Version::of(&mut options.path)?;
        let labels = options.labels.as_mut().map(Version::of).transpose()?;
        Ok(Identity {
            options,
            model,
            labels,
        })
    }
}

impl Version {
    /// Also makes the path canonical.
    fn of(path: &mut PathBuf) -> Result<Self, ModelError> {
        let metadata = path.metadata().map_err(read_error(path))?;
        if !metadata.is_file() {
            // Reading a device or a pipe might never end.
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(read_error(path)(source));
        }
        *path = path.canonicalize().map_err(read_error(path))?;
        Ok(Version {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        })
    }
}

/// Where a model is while anyone uses it. Locked while it is loaded, so that it is loaded once.
type Place = Arc<Mutex<Weak<Model>>>;

fn place(identity: Identity) -> Place {
    static PLACES: LazyLock<Mutex<HashMap<Identity, Place>>> = LazyLock::new(Mutex::default);
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    // A place that somebody holds is being loaded.
    places.retain(|_, place| {
        let is_held = Arc::strong_count(place) > 1;
        is_held || place.lock().is_ok_and(|model| model.strong_count() > 0)
    });
    places.entry(identity).or_default().clone()
}

fn first(outputs: &[Tensor]) -> Result<&Tensor, EngineError> {
    let missing = || EngineError::Failed("the model has no output".into());
    outputs.first().ok_or_else(missing)
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Read {
        path: path.clone(),
        source,
    }
}

fn engine_error(path: &Path) -> impl Fn(EngineError) -> ModelError {
    let path = path.to_owned();
    move |err| match err {
        EngineError::Malformed(reason) => ModelError::NotAModel {
            path: path.clone(),
            reason,
        },
        EngineError::Unsupported(reason) | EngineError::Failed(reason) => ModelError::Engine {
            path: path.clone(),
            engine: "rten",
            reason,
        },
    }
}

#[cfg(test)]
mod tests;
