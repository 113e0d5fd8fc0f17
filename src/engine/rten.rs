//! The embedded engine: rten, pure Rust, on the CPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rten::{DataType, Dimension, LoadErrorKind, NodeId, RunOptions, ThreadPool, Value, ValueType};
use rten_tensor::Layout;

use super::{ElementType, Engine, EngineError, InputInfo, Tensor};

pub struct Rten {
    model: rten::Model,
    inputs: Vec<InputInfo>,
    outputs: Vec<String>,
    output_ids: Vec<NodeId>,
    lanes: Lanes,
}

impl Rten {
    /// `bytes` are those of the file at `path`; the path is used for the weights that a large model
    /// keeps in files beside it.
    pub fn load(path: &Path, bytes: Vec<u8>) -> Result<Self, EngineError> {
        let mut options = rten::ModelOptions::with_all_ops();
        options.prepack_weights(true);
        // Optimising a graph runs the constant parts of it, on whatever values the file holds.
        let model = guarded(|| match options.load(bytes) {
            Err(err) if err.kind() == LoadErrorKind::ExternalDataError => options.load_file(path),
            result => result,
        })
        .map_err(EngineError::Malformed)?
        .map_err(load_error)?;

        let inputs = model.input_ids().iter().map(|&id| input(&model, id));
        let inputs = inputs.collect();
        let output_ids = model.output_ids().to_vec();
        let outputs = output_ids.iter().map(|&id| name(&model, id)).collect();
        Ok(Rten {
            model,
            inputs,
            outputs,
            output_ids,
            lanes: Lanes::default(),
        })
    }
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn device(&self) -> &str {
        "cpu"
    }

    fn inputs(&self) -> &[InputInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.model.metadata().get(key)
    }

    fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, EngineError> {
        let &id = self
            .model
            .input_ids()
            .first()
            .ok_or_else(|| EngineError::Failed("the model has no input".into()))?;
        let view = rten::ValueView::from_shape(&input.shape, &input.data)
            .map_err(|err| EngineError::Failed(err.to_string()))?;

        let lane = self.lanes.take();
        let options = RunOptions::default().with_thread_pool(Some(lane.clone()));
        let result = guarded(|| {
            self.model
                .run(vec![(id, view.into())], &self.output_ids, Some(options))
        });
        self.lanes.give_back(lane);

        let values = result
            .map_err(EngineError::Failed)?
            .map_err(|err| EngineError::Failed(err.to_string()))?;
        values
            .into_iter()
            .zip(&self.outputs)
            .map(|(value, name)| tensor(value, name))
            .collect()
    }
}

/// Pools of one thread, one for each run in progress: a shared one would make concurrent callers
/// wait for each other, and rten's own pool takes every core for each inference. There are as many
/// as there have been callers at once.
#[derive(Default)]
struct Lanes {
    idle: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Lanes {
    fn take(&self) -> Arc<ThreadPool> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1)))
    }

    fn give_back(&self, lane: Arc<ThreadPool>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(lane);
    }
}

/// A model is data that others made: what it trips over must not take the process along.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        format!("rten panicked: {}", text.unwrap_or("no reason given"))
    })
}

fn load_error(err: rten::LoadError) -> EngineError {
    match err.kind() {
        LoadErrorKind::OperatorInvalid | LoadErrorKind::ShapeInferenceFailed => {
            EngineError::Unsupported(err.to_string())
        }
        LoadErrorKind::FormatNotEnabled | LoadErrorKind::UnknownFileType => {
            EngineError::Malformed("its beginning is not that of an ONNX model".into())
        }
        _ => EngineError::Malformed(err.to_string()),
    }
}

fn name(model: &rten::Model, id: NodeId) -> String {
    let info = model.node_info(id);
    info.and_then(|info| info.name())
        .unwrap_or_default()
        .to_owned()
}

fn input(model: &rten::Model, id: NodeId) -> InputInfo {
    let info = model.node_info(id);
    let shape = info.as_ref().and_then(|info| info.shape());
    let shape = shape.map(|dims| {
        dims.into_iter()
            .map(|dim| match dim {
                Dimension::Fixed(size) => Some(size),
                Dimension::Symbolic(_) => None,
            })
            .collect()
    });
    let element = match info.and_then(|info| info.dtype()) {
        Some(ValueType::Tensor(DataType::Float)) => ElementType::Float,
        Some(other) => ElementType::Other(other.to_string()),
        None => ElementType::Other("an unknown type".into()),
    };
    InputInfo {
        name: name(model, id),
        shape,
        element,
    }
}

fn tensor(value: Value, name: &str) -> Result<Tensor, EngineError> {
    let shape = value.shape().to_vec();
    let data = match value {
        Value::FloatTensor(tensor) => tensor.into_data(),
        Value::Int32Tensor(tensor) => tensor.into_data().into_iter().map(|v| v as f32).collect(),
        Value::Int8Tensor(tensor) => tensor.into_data().into_iter().map(f32::from).collect(),
        Value::UInt8Tensor(tensor) => tensor.into_data().into_iter().map(f32::from).collect(),
        other => {
            let what = format!("output \"{name}\" is {}, no tensor", other.dtype());
            return Err(EngineError::Failed(what));
        }
    };
    Ok(Tensor { shape, data })
}
