//! ONNX Runtime, on the CPU or on a GPU, where [`library`] finds it.
//!
//! A model is one session, however many inferences overlap: its weights are in memory once. That runs of one session may
//! overlap is what ONNX Runtime promises of its CPU kernels; the crate does not trust it for all that it runs on and wants
//! the session to itself, so the call is made here. On a GPU runs take turns.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use half::f16;
use ort::ep::{self, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{
    DynValue, DynValueRef, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType,
};
use ort::{AsPointer, ErrorCode, logging::LogLevel};

use self::library::Runtime;
use super::choice::Device;
use super::tensor::{Element, Number, Tensor};
use super::{Engine, EngineError, InputInfo, Room, guarded};

pub mod library;

pub const NAME: &str = "onnxruntime";

pub struct OnnxRuntime {
    session: Session,
    device: Device,
    /// As results and messages have it.
    device_name: String,
    threads: usize,
    inputs: Vec<InputInfo>,
    outputs: Vec<String>,
    /// As C has them.
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    metadata: HashMap<String, String>,
    /// Held by what runs on a GPU.
    turn: Mutex<()>,
}

impl OnnxRuntime {
    /// `model` are the bytes of the file at `path`; the path is used for the weights that a large model keeps in files
    /// beside it. No `threads` are one for each inference.
    pub fn load(
        runtime: &'static Runtime,
        path: &Path,
        model: &[u8],
        device: Device,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let recipe = Recipe {
            runtime,
            folder: path.parent().map(|folder| folder.display().to_string()),
            device,
            threads: threads.max(1),
        };
        let session = guarded(NAME, || recipe.session(model)).map_err(EngineError::Failed)??;
        let metadata = guarded(NAME, || metadata(&session)).map_err(EngineError::Failed)?;
        let inputs = session.inputs().iter();
        let inputs = inputs.map(|input| describe(input.name(), input.dtype()));
        let outputs = session.outputs().iter();
        let outputs: Vec<_> = outputs.map(|output| output.name().to_owned()).collect();
        let in_c = |name: &str| {
            CString::new(name)
                .map_err(|_| EngineError::Malformed(format!("the name {name:?} has a zero in it")))
        };
        Ok(OnnxRuntime {
            input_names: session
                .inputs()
                .iter()
                .map(|input| in_c(input.name()))
                .collect::<Result<_, _>>()?,
            output_names: outputs
                .iter()
                .map(|name| in_c(name))
                .collect::<Result<_, _>>()?,
            inputs: inputs.collect(),
            outputs,
            device,
            device_name: device.to_string(),
            threads: recipe.threads,
            metadata: metadata.unwrap_or_default(),
            turn: Mutex::new(()),
            session,
        })
    }

    fn infer(&self, input: &Tensor) -> Result<Vec<Tensor>, EngineError> {
        let value = view(input)?;
        let values = match self.device {
            Device::Cpu => self.run_shared(&value),
            Device::Cuda(_) | Device::TensorRt(_) => {
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                self.run_shared(&value)
            }
        };
        let values = values.map_err(failed)?;
        let outputs = self.outputs.iter().zip(&values);
        outputs.map(|(name, value)| tensor(value, name)).collect()
    }

    #[allow(
        unsafe_code,
        reason = "the crate's own call wants the session to itself"
    )]
    fn run_shared(&self, input: &DynValue) -> ort::Result<Vec<DynValue>> {
        let missing = || ort::Error::new("the model has no input, or gave no output");
        let input_name = self.input_names.first().ok_or_else(missing)?.as_ptr();
        let output_names: Vec<_> = self.output_names.iter().map(|name| name.as_ptr()).collect();
        let mut outputs = vec![ptr::null_mut(); output_names.len()];
        // SAFETY: the session, the names and the input live until the call returns, and the lists are as long as told. Runs
        // of one session may overlap (onnxruntime.ai, FAQ); those on a GPU do not.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                &input_name,
                &input.ptr(),
                1,
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // SAFETY: what the call returned, once.
        unsafe { ort::Error::result_from_status(status) }?;
        outputs
            .into_iter()
            .map(|output| {
                let output = NonNull::new(output).ok_or_else(missing)?;
                // SAFETY: the call succeeded, so each is a value of this session's, and ours to free.
                Ok(unsafe { DynValue::from_ptr(output, Some(self.session.allocator())) })
            })
            .collect()
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> &str {
        &self.device_name
    }

    fn inputs(&self) -> &[InputInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    fn room(&self) -> Room {
        match self.device {
            Device::Cpu => Room::Cores {
                threads: self.threads,
            },
            // One runs while the next is made ready.
            Device::Cuda(_) | Device::TensorRt(_) => Room::Own(2),
        }
    }

    fn run(&self, input: &Tensor, _until: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        guarded(NAME, || self.infer(input)).map_err(EngineError::Failed)?
    }
}

/// How the session of a model is made.
struct Recipe {
    runtime: &'static Runtime,
    folder: Option<String>,
    device: Device,
    threads: usize,
}

impl Recipe {
    fn session(&self, model: &[u8]) -> Result<Session, EngineError> {
        let mut builder = self.builder().map_err(unsupported)?;
        builder = self.on_device(builder)?;
        builder
            .commit_from_memory(model)
            .map_err(|error| match error.code() {
                ErrorCode::InvalidProtobuf | ErrorCode::NoModel => {
                    EngineError::Malformed(error.to_string())
                }
                _ => unsupported(error),
            })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(&self.runtime.environment)?
            .with_log_level(LogLevel::Warning)?
            .with_intra_threads(self.threads)?
            // Threads that wait for work by burning time would take it from the other streams.
            .with_intra_op_spinning(false)?;
        if let Some(folder) = &self.folder {
            // What is loaded from memory has no folder of its own. Known from 1.19 on, ignored before.
            let key = "session.model_external_initializers_file_folder_path";
            builder = builder.with_config_entry(key, folder)?;
        }
        Ok(builder)
    }

    fn on_device(&self, builder: SessionBuilder) -> Result<SessionBuilder, EngineError> {
        let has = |known: ort::Result<bool>| known.unwrap_or(false);
        let (cuda, tensorrt) = (
            has(ep::CUDA::is_available()),
            has(ep::TensorRT::is_available()),
        );
        let providers = match self.device {
            Device::Cpu => return Ok(builder),
            Device::Cuda(number) if cuda => vec![cuda_of(number)],
            // What TensorRT does not take goes to CUDA.
            Device::TensorRt(number) if tensorrt => vec![tensorrt_of(number), cuda_of(number)],
            Device::Cuda(_) | Device::TensorRt(_) => vec![],
        };
        let refuse = |reason: &str| {
            let (runtime, device) = (self.runtime, self.device);
            let kinds = [(true, "cpu"), (cuda, "cuda:N"), (tensorrt, "tensorrt:N")];
            let offered = kinds
                .into_iter()
                .filter_map(|(has, kind)| has.then_some(kind));
            let offered = offered.collect::<Vec<_>>().join(", ");
            EngineError::NoDevice(format!("{runtime} {reason} {device}; it offers {offered}"))
        };
        if providers.is_empty() {
            return Err(refuse("is built without"));
        }
        builder
            .with_execution_providers(providers)
            .map_err(|error| refuse(&format!("found this wrong ({error}) with")))
    }
}

fn cuda_of(number: u16) -> ep::ExecutionProviderDispatch {
    let provider = ep::CUDA::default().with_device_id(number.into());
    provider.build().error_on_failure()
}

fn tensorrt_of(number: u16) -> ep::ExecutionProviderDispatch {
    let provider = ep::TensorRT::default().with_device_id(number.into());
    provider.build().error_on_failure()
}

fn metadata(session: &Session) -> ort::Result<HashMap<String, String>> {
    let metadata = session.metadata()?;
    let keys = metadata.custom_keys()?.into_iter();
    let pairs = keys.filter_map(|key| {
        let value = metadata.custom(&key)?;
        Some((key, value))
    });
    Ok(pairs.collect())
}

fn describe(name: &str, kind: &ValueType) -> InputInfo {
    let (shape, element) = match kind {
        ValueType::Tensor { ty, shape, .. } => {
            let sides = shape.iter().map(|&side| usize::try_from(side).ok());
            let element = match ty {
                TensorElementType::Float32 => Ok(Element::F32),
                TensorElementType::Float16 => Ok(Element::F16),
                TensorElementType::Float64 => Ok(Element::F64),
                TensorElementType::Uint8 => Ok(Element::U8),
                TensorElementType::Int8 => Ok(Element::I8),
                TensorElementType::Int32 => Ok(Element::I32),
                TensorElementType::Int64 => Ok(Element::I64),
                other => Err(other.to_string()),
            };
            (Some(sides.collect()), element)
        }
        other => (None, Err(other.to_string())),
    };
    InputInfo {
        name: name.to_owned(),
        shape,
        element,
    }
}

/// The tensor, where it lies.
fn view(tensor: &Tensor) -> Result<DynValueRef<'_>, EngineError> {
    fn of<T: Number + PrimitiveTensorElementType + fmt::Debug>(
        tensor: &Tensor,
    ) -> ort::Result<DynValueRef<'_>> {
        let numbers = tensor.numbers::<T>().unwrap_or_default();
        let view = TensorRef::from_array_view((tensor.shape.as_slice(), numbers))?;
        Ok(view.into_dyn())
    }
    match tensor.element {
        Element::F32 => of::<f32>(tensor),
        Element::F16 => of::<f16>(tensor),
        Element::U8 => of::<u8>(tensor),
        other => Err(ort::Error::new(format!("no input is made of {other}"))),
    }
    .map_err(failed)
}

fn tensor(value: &DynValue, name: &str) -> Result<Tensor, EngineError> {
    fn of<T: Number + PrimitiveTensorElementType>(value: &DynValue) -> ort::Result<Tensor> {
        let (shape, numbers) = value.try_extract_tensor::<T>()?;
        let sides = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0));
        Ok(Tensor::new(&sides.collect::<Vec<_>>(), numbers))
    }
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => of::<f32>(value),
        Some(TensorElementType::Float16) => of::<f16>(value),
        Some(TensorElementType::Float64) => of::<f64>(value),
        Some(TensorElementType::Int64) => of::<i64>(value),
        Some(TensorElementType::Int32) => of::<i32>(value),
        Some(TensorElementType::Int8) => of::<i8>(value),
        Some(TensorElementType::Uint8) => of::<u8>(value),
        Some(TensorElementType::Bool) => {
            value.try_extract_tensor::<bool>().map(|(shape, truths)| {
                let sides = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0));
                let bytes: Vec<u8> = truths.iter().map(|&truth| truth.into()).collect();
                Tensor::of_bytes(&sides.collect::<Vec<_>>(), Element::Bool, &bytes)
            })
        }
        _ => {
            let what = format!(
                "output \"{name}\" is {}, no tensor of numbers",
                value.dtype()
            );
            return Err(EngineError::Failed(what));
        }
    }
    .map_err(failed)
}

fn failed(error: ort::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

fn unsupported(error: ort::Error) -> EngineError {
    EngineError::Unsupported(error.to_string())
}
