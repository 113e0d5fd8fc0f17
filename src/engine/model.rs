//! One loaded model: frames in, detections out, for any number of threads at once.
//!
//! Loading refuses whatever could not give right boxes, after a run on a black picture, so that
//! what was loaded works. The process holds one copy of a model for as long as anyone uses it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::choice::{Device, EngineChoice};
use super::decoders::{Decoder, DecoderChoice, LayoutError, Output};
use super::description::{self, Description, Given, Objection};
use super::input::{Channels, Fit, InputSpec, PerColour, Slot};
use super::kserve::servers::Servers;
use super::kserve::{self, ConnectError, Kserve};
use super::labels::Labels;
use super::onnxruntime::library::{self, LibraryError};
use super::onnxruntime::{self, OnnxRuntime};
use super::preprocess::{Frame, FrameError, Preprocessor};
use super::rten::{self, Rten};
use super::scheduler::{Pool, Request, Seat};
use super::shared::Shared;
use super::side_car::{self, SideCar, SideCarError};
use super::tensor::Tensor;
use super::{Engine, EngineError, Room};
pub use crate::logic::detections::Thresholds;
use crate::logic::detections::{Candidate, Detection, Letterbox};

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

/// Frames that share a run on a GPU or a server unless the user says otherwise.
const DEFAULT_BATCH: usize = 8;

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

    fn open(options: &ModelOptions) -> Result<Model, ModelError> {
        let labels = match &options.labels {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(read_error(path))?;
                Some(Labels::from_lines(&text))
            }
            None => None,
        };
        let side_car = match beside(&options.path) {
            Some(path) if options.engine != EngineChoice::Kserve => Some(read_side_car(&path)?),
            _ => None,
        };

        let source = Source {
            options,
            labels,
            side_car,
        };
        match options.engine {
            EngineChoice::Rten => source.in_rten(),
            EngineChoice::OnnxRuntime => source.in_onnxruntime(source.library()?),
            EngineChoice::Kserve => source.on_servers(),
            // No other engine knows another device.
            EngineChoice::Auto if options.device != Device::Cpu => {
                source.in_onnxruntime(source.library()?)
            }
            EngineChoice::Auto => source.in_the_best(),
        }
    }
}

/// What is to be loaded, read from its files.
struct Source<'a> {
    options: &'a ModelOptions,
    labels: Option<Labels>,
    side_car: Option<SideCar>,
}

impl Source<'_> {
    /// In ONNX Runtime where it can be had and takes the model, else in the embedded engine.
    fn in_the_best(&self) -> Result<Model, ModelError> {
        const COST: &str = "engine rten runs it instead, and takes about twice as long for a frame";
        let runtime = match self.library() {
            Ok(runtime) => runtime,
            Err(missing) => {
                let model = self.in_rten().map_err(|err| err.and(&missing))?;
                return Ok(model.preferring(Preference::Unmet(format!("{missing}; {COST}"))));
            }
        };
        let first = match self.in_onnxruntime(runtime) {
            Ok(model) => {
                let met = format!("Models run in {runtime}");
                return Ok(model.preferring(Preference::Met(met)));
            }
            Err(first @ (ModelError::NotAModel { .. } | ModelError::Engine { .. })) => first,
            // What it is to be used for is the same in any engine.
            Err(other) => return Err(other),
        };
        match self.in_rten() {
            Ok(model) => Ok(model.preferring(Preference::Unmet(format!("{first}; {COST}")))),
            // The one that tells more comes first.
            Err(second @ ModelError::Engine { .. }) => Err(second.and(&first)),
            Err(second @ ModelError::NotAModel { .. }) => Err(first.and(&second)),
            Err(other) => Err(other),
        }
    }

    fn in_rten(&self) -> Result<Model, ModelError> {
        if self.options.device != Device::Cpu {
            let what = "engine rten runs on cpu only".into();
            return Err(self.engine_error(rten::NAME)(EngineError::NoDevice(what)));
        }
        self.fit(self.instance(rten::NAME, |path, bytes| {
            let engine = Rten::load(path, bytes, self.options.threads)?;
            Ok(Box::new(engine))
        })?)
    }

    fn in_onnxruntime(&self, runtime: &'static library::Runtime) -> Result<Model, ModelError> {
        let ModelOptions {
            device, threads, ..
        } = *self.options;
        self.fit(self.instance(onnxruntime::NAME, |path, bytes| {
            let engine = OnnxRuntime::load(runtime, path, &bytes, device, threads)?;
            Ok(Box::new(engine))
        })?)
    }

    /// The file in an engine, loaded unless it already is.
    fn instance(
        &self,
        engine: &'static str,
        load: impl FnOnce(&Path, Vec<u8>) -> Result<Box<dyn Engine>, EngineError>,
    ) -> Result<Arc<Instance>, ModelError> {
        static INSTANCES: LazyLock<Shared<InstanceKey, Instance>> = LazyLock::new(Shared::default);
        let mut path = self.options.path.clone();
        let key = InstanceKey {
            version: Version::of(&mut path)?,
            path: path.clone(),
            engine,
            device: self.options.device,
            threads: self.options.threads.max(1),
        };
        INSTANCES.get(key, || {
            let bytes = std::fs::read(&path).map_err(read_error(&path))?;
            let digest = Sha256::digest(&bytes);
            let hash = digest.iter().map(|byte| format!("{byte:02x}"));
            let hash = format!("sha256:{}", hash.collect::<String>());
            let engine = load(&path, bytes).map_err(self.engine_error(engine))?;
            Ok(Instance {
                pool: Pool::of(engine.room()),
                engine,
                hash,
            })
        })
    }

    fn on_servers(&self) -> Result<Model, ModelError> {
        if self.options.device != Device::Cpu {
            let what = "engine kserve runs on what the server chooses".into();
            return Err(self.engine_error(kserve::NAME)(EngineError::NoDevice(what)));
        }
        let model = self.options.path.to_string_lossy();
        let engine = Kserve::connect(&model, &self.options.servers)?;
        let name = engine.model_name().to_owned();
        let mut model = self.fit(Arc::new(Instance {
            pool: Pool::of(engine.room()),
            hash: engine.hash(),
            engine: Box::new(engine),
        }))?;
        model.info.name = name;
        Ok(model)
    }

    fn library(&self) -> Result<&'static library::Runtime, LibraryError> {
        library::runtime(self.options.runtime_library.as_deref())
    }

    /// The model in an engine that has loaded it, if it can be used there.
    fn fit(&self, instance: Arc<Instance>) -> Result<Model, ModelError> {
        static GROUPS: AtomicU64 = AtomicU64::new(0);
        let engine = &*instance.engine;
        let options = self.options;
        let unfit = |objection| ModelError::Unfit {
            path: options.path.clone(),
            objection,
        };
        let given = Given {
            labels: self.labels.clone(),
            input_size: options.input_size,
            mean: options.mean,
            std: options.std,
            channels: options.channels,
            fit: options.fit,
            side_car: self.side_car.clone(),
        };
        let mut description = Description::new(engine, &given).map_err(unfit)?;
        let frames = description.frames.unwrap_or(1);
        let input = &description.input;
        let black = Tensor::zeros(&input.shape(frames), input.element);
        let failed = self.engine_error(engine.name());
        let started = Instant::now();
        let outputs = engine.run(&black, None).map_err(&failed)?;
        let takes = started.elapsed();
        let names = &description.output_names;
        let outputs = named(&outputs, names, 0, frames).map_err(&failed)?;
        let (decoder, labels) = description
            .decoder(options.decoder, &outputs)
            .map_err(unfit)?;
        if !decoder.takes_several(&outputs) {
            description.frames = Some(1);
        }
        description.input.fit = description.fit.unwrap_or(decoder.fit());
        let most_frames = match (options.max_batch, engine.room()) {
            (0, Room::Cores { .. }) => 1,
            (0, Room::Own(_)) => DEFAULT_BATCH.min(description::most_frames(&description.input)),
            (asked, _) => asked,
        };
        let most = description::most_frames(&description.input);
        if description.frames.is_none() && most_frames > most {
            let bytes = description.input.shape(1).iter().product::<usize>()
                * description.input.element.size();
            return Err(unfit(Objection::MaxBatch {
                asked: most_frames,
                bytes,
                most,
            }));
        }
        // Some models that take any number of frames give one result for all of them.
        let shares_runs = description.frames.is_none() && most_frames > 1 && {
            let input = &description.input;
            let pair = Tensor::zeros(&input.shape(2), input.element);
            let outputs = engine.run(&pair, None);
            outputs
                .is_ok_and(|outputs| outputs.iter().all(|output| output.share_of(1, 2).is_some()))
        };
        let name = options.path.file_stem().unwrap_or_default();
        Ok(Model {
            info: ModelInfo {
                name: name.to_string_lossy().into(),
                hash: instance.hash.clone(),
                engine: engine.name(),
                device: engine.device().to_owned(),
                input: description.input,
                labels,
                decoder,
                outputs: engine.outputs().to_vec(),
                preference: None,
            },
            most_frames: match description.frames {
                Some(frames) => frames,
                None if shares_runs => most_frames,
                None => 1,
            },
            frames: description.frames,
            output_names: description.output_names,
            group: GROUPS.fetch_add(1, Ordering::Relaxed),
            rows: Mutex::default(),
            slots: Mutex::default(),
            takes: AtomicU64::new(u64::try_from(takes.as_nanos()).unwrap_or(u64::MAX)),
            instance,
        })
    }

    fn engine_error(&self, engine: &'static str) -> impl Fn(EngineError) -> ModelError {
        let path = self.options.path.clone();
        let device = self.options.device;
        move |err| match err {
            EngineError::Malformed(reason) => ModelError::NotAModel {
                path: path.clone(),
                reason,
            },
            EngineError::Unsupported(reason) | EngineError::Failed(reason) => ModelError::Engine {
                path: path.clone(),
                engine,
                reason,
            },
            EngineError::NoDevice(reason) => ModelError::Device { device, reason },
        }
    }
}

impl ModelError {
    /// This one, with what keeps the other engine from running the model, where it is about an engine.
    fn and(self, other: &dyn std::error::Error) -> ModelError {
        match self {
            ModelError::Engine {
                path,
                engine,
                reason,
            } => ModelError::Engine {
                path,
                engine,
                reason: format!("{reason}; {other}"),
            },
            alone => alone,
        }
    }
}

/// What makes two requests ask for the same model.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    /// With paths as the file system has them.
    options: ModelOptions,
    /// None where there is no file.
    model: Option<Version>,
    labels: Option<Version>,
    /// Two links to one model may have two of them.
    side_car: Option<(PathBuf, Version)>,
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
        let (model, side_car) = match options.engine {
            EngineChoice::Kserve => (None, None),
            _ => {
                let mut side_car = None;
                if let Some(mut path) = beside(&options.path) {
                    let version = Version::of(&mut path)?;
                    side_car = Some((path, version));
                }
                (Some(Version::of(&mut options.path)?), side_car)
            }
        };
        let labels = options.labels.as_mut().map(Version::of).transpose()?;
        Ok(Identity {
            options,
            model,
            labels,
            side_car,
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

/// A file that an engine has loaded, whatever it is used for.
struct Instance {
    engine: Box<dyn Engine>,
    pool: Arc<Pool>,
    hash: String,
}

/// What makes two models the same to an engine.
#[derive(PartialEq, Eq, Hash)]
struct InstanceKey {
    path: PathBuf,
    version: Version,
    engine: &'static str,
    device: Device,
    threads: usize,
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

/// The `.modelinfo` of the model at `path`, if there is one.
fn beside(path: &Path) -> Option<PathBuf> {
    side_car::places(path)
        .into_iter()
        .find(|place| place.is_file())
}

fn read_side_car(path: &Path) -> Result<SideCar, ModelError> {
    let length = path.metadata().map_err(read_error(path))?.len();
    if length > side_car::MAX_BYTES {
        let what = format!(
            "it has {length} bytes, at most {} are read",
            side_car::MAX_BYTES
        );
        return Err(read_error(path)(io::Error::other(what)));
    }
    let text = std::fs::read_to_string(path).map_err(read_error(path))?;
    SideCar::parse(&text).map_err(|source| ModelError::SideCar {
        path: path.to_owned(),
        source,
    })
}

fn shares_are_missing() -> EngineError {
    EngineError::Failed("an output has not a row for each frame".into())
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Read {
        path: path.clone(),
        source,
    }
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
