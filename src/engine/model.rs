//! One loaded model: frames in, detections out, for any number of threads at once.
//!
//! Loading refuses whatever could not give right boxes, after a run on a black picture, so that
//! what was loaded works. The process holds one copy of a model for as long as anyone uses it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::choice::{Device, EngineChoice};
use super::decoders::{Decoder, DecoderChoice, LayoutError, Output};
use super::description::Objection;
use super::input::{Channels, Fit, InputSpec, PerColour, Slot};
use super::kserve::ConnectError;
use super::kserve::servers::Servers;
use super::labels::Labels;
use super::onnxruntime::library::LibraryError;
use super::preprocess::{Frame, FrameError, Preprocessor};
use super::scheduler::{Pool, Request, Seat};
use super::shared::Shared;
use super::side_car::SideCarError;
use super::tensor::Tensor;
use super::{Engine, EngineError, Room};
pub use crate::logic::detections::Thresholds;
use crate::logic::detections::{Candidate, Detection, Letterbox};

mod identity;
mod opening;

use identity::Identity;

/// What the user says of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ModelOptions {
    /// An ONNX file; with [`EngineChoice::Kserve`] `NAME` or `NAME/VERSION`.
    pub path: PathBuf,
    /// A text file with one label a line; None takes them from the model.
    pub labels: Option<PathBuf>,
    pub decoder: DecoderChoice,
    /// Width and height of the input; None takes them from the model.
    pub input_size: Option<(u32, u32)>,
    /// Of red, green and blue from 0 to 1; None takes them from the file beside the model, else they change nothing.
    pub mean: Option<PerColour>,
    pub std: Option<PerColour>,
    /// None is red first.
    pub channels: Option<Channels>,
    /// None is as the decoder's models are trained.
    pub fit: Option<Fit>,
    pub engine: EngineChoice,
    pub device: Device,
    /// ONNX Runtime's library; None looks for it.
    pub runtime_library: Option<PathBuf>,
    /// Threads of one inference; 0 leaves it to the engine.
    pub threads: usize,
    /// Most frames of one run, where the file does not fix them; 0 is 1 on the cores of this machine, and several elsewhere.
    pub max_batch: usize,
    /// Who has the model, with [`EngineChoice::Kserve`].
    pub servers: Servers,
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The file's name without its extension, or that on the servers.
    pub name: String,
    /// `sha256:` and the file's digest in hexadecimal digits, or `kserve:NAME/VERSION`.
    pub hash: String,
    pub engine: &'static str,
    pub device: String,
    pub input: InputSpec,
    pub labels: Labels,
    pub decoder: Decoder,
    /// Names of all outputs, in the order of [`Inference::tensors`].
    pub outputs: Vec<String>,
    /// What became of the wish for ONNX Runtime, where the engine was left open.
    pub preference: Option<Preference>,
}

/// How the engine was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preference {
    /// ONNX Runtime runs it; names the library.
    Met(String),
    /// The embedded engine runs it; says why, and what that costs.
    Unmet(String),
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
    /// What is written beside the model cannot be understood.
    #[error("{} cannot be used: {source}", path.display())]
    SideCar { path: PathBuf, source: SideCarError },
    /// The engine cannot run it; another might.
    #[error("engine {engine} cannot run {}: {reason}", path.display())]
    Engine {
        path: PathBuf,
        engine: &'static str,
        reason: String,
    },
    /// There is no ONNX Runtime, which was asked for.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// Servers were asked for, and do not have it.
    #[error(transparent)]
    Servers(#[from] ConnectError),
    /// No engine that was asked for runs on that device.
    #[error("device {device} cannot be had: {reason}")]
    Device { device: Device, reason: String },
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
    /// Frames of one run, where the file fixes them.
    frames: Option<usize>,
    /// What decoders know its outputs by.
    output_names: Vec<String>,
    /// Most frames of one run.
    most_frames: usize,
    instance: Arc<Instance>,
    /// Who infers with this model may share runs.
    group: u64,
    /// Inputs that are not in use, each a row of slots.
    rows: Mutex<Vec<Vec<Slot>>>,
    /// Slots that are not in use and in no row.
    slots: Mutex<Vec<Slot>>,
    /// How long runs take, nanoseconds, the latest ones weighing most; at first what the one on a black picture took.
    takes: AtomicU64,
}

/// Inputs kept for the next runs of a model; more are in use at once only for moments.
const MOST_IDLE: usize = 4;

impl Model {
    /// The model, loaded unless somebody already uses it with these options. Takes as long as
    /// reading the file and one inference; callers of the same model wait for each other.
    pub fn load(options: &ModelOptions) -> Result<Arc<Model>, ModelError> {
        static MODELS: LazyLock<Shared<Identity, Model>> = LazyLock::new(Shared::default);
        MODELS.get(Identity::new(options)?, || Model::open(options))
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// All of it on the calling thread, for one frame alone.
    pub fn infer(
        &self,
        frame: &Frame<'_>,
        thresholds: Thresholds,
        scratch: &mut Scratch,
    ) -> Result<Inference, InferError> {
        let mut row = Slot::row(&self.info.input, self.frames.unwrap_or(1));
        let started = Instant::now();
        let letterbox = self.prepare(frame, &mut row[0], scratch)?;
        let prepared = Instant::now();
        let outputs = self.run(&Slot::join(&self.info.input, &mut row), None)?;
        let inferred = Instant::now();
        let findings = self.read(&outputs, 0, row.len(), letterbox, thresholds, scratch)?;
        Ok(Inference {
            preprocess: prepared - started,
            inference: inferred - prepared,
            postprocess: inferred.elapsed(),
            ..findings
        })
    }

    /// A frame into its slot of an input; tells where in it the frame lies.
    pub fn prepare(
        &self,
        frame: &Frame<'_>,
        slot: &mut Slot,
        scratch: &mut Scratch,
    ) -> Result<Letterbox, FrameError> {
        scratch.preprocessor.run(frame, &self.info.input, slot)
    }

    /// The outputs for an input of one or more frames.
    pub fn run(&self, input: &Tensor, until: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        self.instance.engine.run(input, until)
    }

    /// The outputs for the first `frames` slots of a row, and for how many frames they are.
    pub(super) fn run_row(
        &self,
        row: &mut [Slot],
        frames: usize,
        until: Option<Instant>,
    ) -> (Result<Vec<Tensor>, EngineError>, usize) {
        let frames = self.frames.unwrap_or(frames);
        let used = &mut row[..frames];
        let input = Slot::join(&self.info.input, used);
        let outputs = self.run(&input, until);
        Slot::part(&self.info.input, input, used);
        (outputs, frames)
    }

    /// Slots for so many frames, and more where a run has more.
    pub(super) fn take_row(&self, frames: usize) -> Vec<Slot> {
        let idle = self.rows().pop().filter(|row| row.len() >= frames);
        idle.unwrap_or_else(|| Slot::row(&self.info.input, self.frames.unwrap_or(frames)))
    }

    pub(super) fn give_row_back(&self, row: Vec<Slot>) {
        let mut rows = self.rows();
        if rows.len() < MOST_IDLE {
            rows.push(row);
        }
    }

    /// Waits for a turn to infer one frame; `None` when it is not wanted any more.
    pub fn wait(self: &Arc<Self>, request: Request, wanted: impl Fn() -> bool) -> Option<Seat> {
        self.instance.pool.wait(self, request, wanted)
    }

    /// A slot of its own, for a frame that is made ready before its turn.
    pub fn take_slot(&self) -> Slot {
        let idle = self.slots().pop();
        let row = || Slot::row(&self.info.input, 1);
        idle.or_else(|| row().pop()).unwrap_or_default()
    }

    pub fn give_slot_back(&self, slot: Slot) {
        let mut slots = self.slots();
        if slots.len() < MOST_IDLE {
            slots.push(slot);
        }
    }

    pub(super) fn room(&self) -> Room {
        self.instance.engine.room()
    }

    pub(super) fn group(&self) -> u64 {
        self.group
    }

    pub fn most_frames(&self) -> usize {
        self.most_frames
    }

    /// Frames that a run always has, used or not.
    pub(super) fn fixed_frames(&self) -> Option<usize> {
        self.frames
    }

    /// How long a run is expected to take.
    pub fn takes(&self) -> Duration {
        Duration::from_nanos(self.takes.load(Ordering::Relaxed))
    }

    pub(super) fn has_taken(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.takes.load(Ordering::Relaxed);
        // Of runs that end together one may be forgotten.
        let now = if before == 0 {
            took
        } else {
            before - before / 8 + took / 8
        };
        self.takes.store(now, Ordering::Relaxed);
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Vec<Slot>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the outputs say of the frame that was in the slot at `index` of so many `frames`; the times are not known here.
    pub fn read(
        &self,
        outputs: &[Tensor],
        index: usize,
        frames: usize,
        letterbox: Letterbox,
        thresholds: Thresholds,
        scratch: &mut Scratch,
    ) -> Result<Inference, InferError> {
        let decoder = self.info.decoder;
        if decoder == Decoder::Raw {
            let shares = outputs.iter().map(|output| output.share(index, frames));
            return Ok(Inference {
                tensors: shares
                    .map(|share| share.ok_or_else(shares_are_missing))
                    .collect::<Result<_, _>>()?,
                ..Inference::default()
            });
        }
        let outputs = named(outputs, &self.output_names, index, frames)?;
        let found = &mut scratch.candidates;
        decoder.decode(&outputs, self.info.input.size, thresholds, found)?;
        let detections = found.iter().filter_map(|c| self.detection(c, &letterbox));
        Ok(Inference {
            detections: detections.collect(),
            ..Inference::default()
        })
    }

    fn preferring(mut self, preference: Preference) -> Self {
        self.info.preference = Some(preference);
        self
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
}

/// A file that an engine has loaded, whatever it is used for.
struct Instance {
    engine: Box<dyn Engine>,
    pool: Arc<Pool>,
    hash: String,
}

/// What the outputs say of one frame, under the names that decoders know.
fn named<'o>(
    outputs: &'o [Tensor],
    names: &'o [String],
    index: usize,
    frames: usize,
) -> Result<Vec<Output<'o>>, EngineError> {
    if outputs.is_empty() {
        return Err(EngineError::Failed("the model has no output".into()));
    }
    let shares = outputs.iter().zip(names).map(|(output, name)| {
        let share = Output::of(output, index, frames).ok_or_else(shares_are_missing)?;
        Ok(share.named(name))
    });
    shares.collect()
}

fn shares_are_missing() -> EngineError {
    EngineError::Failed("an output has not a row for each frame".into())
}

#[cfg(test)]
pub(super) mod fakes {
    use super::*;

    impl Model {
        pub fn instance_pool(&self) -> &Pool {
            &self.instance.pool
        }

        /// What is in `engine`, of inputs of 2 by 2 pixels.
        pub fn of_engine(engine: Box<dyn Engine>, pool: Arc<Pool>, most_frames: usize) -> Self {
            Model {
                info: ModelInfo {
                    name: "fake".into(),
                    hash: "sha256:00".into(),
                    engine: engine.name(),
                    device: engine.device().into(),
                    input: InputSpec::new((2, 2)),
                    labels: Labels::default(),
                    decoder: Decoder::Raw,
                    outputs: engine.outputs().to_vec(),
                    preference: None,
                },
                frames: None,
                output_names: Vec::new(),
                most_frames,
                instance: Arc::new(Instance {
                    engine,
                    pool,
                    hash: "sha256:00".into(),
                }),
                group: 0,
                rows: Mutex::default(),
                slots: Mutex::default(),
                takes: AtomicU64::new(0),
            }
        }
    }
}

#[cfg(test)]
mod tests;
