//! The embedded engine: rten, pure Rust, on the CPU.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rten::{
    DataType, Dimension, LoadErrorKind, NodeId, RunOptions, ThreadPool, Value, ValueType, ValueView,
};
use rten_tensor::Layout;

use super::tensor::{Element, Tensor};
use super::{Engine, EngineError, InputInfo, Room, guarded};

pub const NAME: &str = "rten";

pub struct Rten {
    model: rten::Model,
    inputs: Vec<InputInfo>,
    outputs: Vec<String>,
    output_ids: Vec<NodeId>,
    /// Threads of one inference.
    threads: usize,
    /// One for each run in progress: a shared one would make concurrent callers wait for each other, and rten's own takes
    /// every core for each inference. There are as many as there have been callers at once.
    idle_pools: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Rten {
    /// `bytes` are those of the file at `path`; the path is used for the weights that a large model
    /// keeps in files beside it. No `threads` are one for each inference.
    pub fn load(path: &Path, bytes: Vec<u8>, threads: usize) -> Result<Self, EngineError> {
        let threads = threads.max(1);
        let mut options = rten::ModelOptions::with_all_ops();
        options.prepack_weights(true);
        // Optimising a graph runs the constant parts of it, on whatever values the file holds.
        let model = guarded(NAME, || match options.load(bytes) {
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
            threads,
            idle_pools: Mutex::default(),
        })
    }

    fn take_pool(&self) -> Arc<ThreadPool> {
        let idle = self.pools().pop();
        idle.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(self.threads)))
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Arc<ThreadPool>>> {
        let pools = self.idle_pools.lock();
        pools.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        NAME
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

    fn room(&self) -> Room {
        Room::Cores {
            threads: self.threads,
        }
    }

    fn run(&self, input: &Tensor, _until: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        let &id = self
            .model
            .input_ids()
            .first()
            .ok_or_else(|| EngineError::Failed("the model has no input".into()))?;
        let shape = &input.shape;
        let misfit = |err: String| EngineError::Failed(err);
        let view = match (input.numbers::<f32>(), input.numbers::<u8>()) {
            (Some(floats), _) => {
                ValueView::from_shape(shape, floats).map_err(|err| misfit(err.to_string()))
            }
            (_, Some(bytes)) => {
                ValueView::from_shape(shape, bytes).map_err(|err| misfit(err.to_string()))
            }
            _ => Err(misfit(format!(
                "{NAME} takes no input of {}",
                input.element
            ))),
        }?;

        let pool = self.take_pool();
        let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
        let result = guarded(NAME, || {
            self.model
                .run(vec![(id, view.into())], &self.output_ids, Some(options))
        });
        self.pools().push(pool);

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
        Some(ValueType::Tensor(DataType::Float)) => Ok(Element::F32),
        Some(ValueType::Tensor(DataType::UInt8)) => Ok(Element::U8),
        Some(ValueType::Tensor(DataType::Int8)) => Ok(Element::I8),
        Some(ValueType::Tensor(DataType::Int32)) => Ok(Element::I32),
        Some(other) => Err(other.to_string()),
        None => Err("an unknown type".into()),
    };
    InputInfo {
        name: name(model, id),
        shape,
        element,
    }
}

fn tensor(value: Value, name: &str) -> Result<Tensor, EngineError> {
    let shape = value.shape().to_vec();
    Ok(match value {
        Value::FloatTensor(tensor) => Tensor::new(&shape, &tensor.into_data()),
        Value::Int32Tensor(tensor) => Tensor::new(&shape, &tensor.into_data()),
        Value::Int8Tensor(tensor) => Tensor::new(&shape, &tensor.into_data()),
        Value::UInt8Tensor(tensor) => Tensor::new(&shape, &tensor.into_data()),
        other => {
            let what = format!("output \"{name}\" is {}, no tensor", other.dtype());
            return Err(EngineError::Failed(what));
        }
    })
}
