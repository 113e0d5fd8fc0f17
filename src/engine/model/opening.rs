//! From a file, or a name on a server, to a model that is known to work.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::identity::{InstanceKey, Version, beside, read_error};
use super::{Instance, Model, ModelError, ModelInfo, ModelOptions, Preference, named};
use crate::engine::choice::{Device, EngineChoice};
use crate::engine::description::{self, Description, Given, Objection};
use crate::engine::input::InputSpec;
use crate::engine::kserve::{self, Kserve};
use crate::engine::labels::Labels;
use crate::engine::onnxruntime::library::{self, LibraryError};
use crate::engine::onnxruntime::{self, OnnxRuntime};
use crate::engine::rten::{self, Rten};
use crate::engine::scheduler::Pool;
use crate::engine::shared::Shared;
use crate::engine::side_car::{self, SideCar};
use crate::engine::tensor::Tensor;
use crate::engine::{Engine, EngineError, Room};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "inference-model",
        gst::DebugColorFlags::empty(),
        Some("Models that are opened"),
    )
});

/// Frames that share a run on a GPU or a server unless the user says otherwise.
const DEFAULT_BATCH: usize = 8;

impl Model {
    pub(super) fn open(options: &ModelOptions) -> Result<Model, ModelError> {
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
        let most_frames = match description.frames {
            Some(frames) => frames,
            None => sharing(engine, &description.input, most_frames),
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
            most_frames,
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

/// How many frames may share a run, of so many that are asked for; found out with black ones.
pub(super) fn sharing(engine: &dyn Engine, input: &InputSpec, asked: usize) -> usize {
    let shares = |frames: usize| {
        let black = Tensor::zeros(&input.shape(frames), input.element);
        let outputs = engine.run(&black, None);
        outputs.is_ok_and(|outputs| {
            let mut outputs = outputs.iter();
            outputs.all(|output| output.share_of(1, frames).is_some())
        })
    };
    // Some models that take any number of frames give one result for all of them.
    if asked < 2 || !shares(2) {
        return 1;
    }
    let mut most = asked;
    // Elsewhere there may be a limit of which nothing is said before it is passed.
    while matches!(engine.room(), Room::Own(_)) && most > 2 && !shares(most) {
        most = (most / 2).max(2);
    }
    if most < asked {
        gst::warning!(
            CAT,
            "{}: {most} frames can share a run, not {asked}",
            engine.device()
        );
    }
    most
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
