//! Results and statistics as GStreamer messages and events carry them.

use std::time::Duration;

use gst::glib;
use uuid::Uuid;

use super::{desk::Snapshot, settings::TensorFormat, worker::Findings};
use crate::{
    engine::{
        decoders::Decoder,
        model::ModelInfo,
        tensor::{Element, Number, Tensor},
    },
    logic::{
        stats::{Percentiles, Stage},
        wire::result::{FrameResult, ModelName, Numbers, RawTensor},
    },
};

/// `inference-result`, of the message and of the event.
pub fn result(findings: &Findings, output_name: &str, format: TensorFormat) -> gst::Structure {
    let model = findings.model.info();
    let outputs = findings
        .inference
        .as_ref()
        .ok()
        .filter(|_| model.decoder == Decoder::Raw);
    let outputs: Option<Vec<(&str, &Tensor)>> = outputs.map(|inference| {
        let names = model.outputs.iter().map(String::as_str);
        names.zip(&inference.tensors).collect()
    });
    let tensors: Option<Vec<RawTensor<'_>>> = outputs.as_ref().map(|outputs| {
        let outputs = outputs.iter();
        outputs
            .map(|(name, tensor)| raw(name, tensor, format))
            .collect()
    });
    let json = FrameResult {
        facts: &findings.facts,
        received_at: findings.received_at,
        width: findings.width,
        height: findings.height,
        found: match &findings.inference {
            Ok(inference) => Ok(&inference.detections),
            Err(error) => Err(error),
        },
        tensors: tensors.as_deref(),
        output_name,
        timing: findings.timing,
        model: ModelName {
            name: &model.name,
            hash: &model.hash,
            engine: model.engine,
            device: &model.device,
        },
        dropped: findings.dropped,
    }
    .to_json(Uuid::new_v4);
    let steps = findings.timing.steps;
    let nanoseconds = |took: Duration| took.as_nanos() as u64;
    gst::Structure::builder("inference-result")
        .field_if_some("connection-id", findings.facts.connection_id.as_deref())
        .field_if_some("stream-id", findings.facts.stream_id.as_deref())
        .field_if_some("frame-id", findings.facts.frame_id)
        .field(Stage::Queue.name(), nanoseconds(findings.timing.queue))
        .field_if_some(
            Stage::Preprocess.name(),
            steps.map(|steps| nanoseconds(steps.preprocess)),
        )
        .field_if_some(
            Stage::Inference.name(),
            steps.map(|steps| nanoseconds(steps.inference)),
        )
        .field_if_some(
            Stage::Postprocess.name(),
            steps.map(|steps| nanoseconds(steps.postprocess)),
        )
        .field(Stage::Total.name(), nanoseconds(findings.timing.total))
        .field("json", json)
        .field_if_some("tensors", beside(format, outputs.as_deref()))
        .build()
}

/// How a raw output is told in the JSON.
fn raw<'a>(name: &'a str, tensor: &'a Tensor, format: TensorFormat) -> RawTensor<'a> {
    RawTensor {
        name,
        shape: &tensor.shape,
        datatype: tensor.element.datatype(),
        data: (format == TensorFormat::Json).then(|| numbers(tensor)),
    }
}

fn numbers(tensor: &Tensor) -> Numbers<'_> {
    fn integers<T: Number + Into<i64>>(tensor: &Tensor) -> Numbers<'_> {
        let numbers = tensor.numbers::<T>().unwrap_or_default();
        Numbers::Integers(numbers.iter().map(|&number| number.into()).collect())
    }
    match tensor.element {
        Element::F32 | Element::F16 => Numbers::Singles(tensor.floats()),
        Element::F64 => Numbers::Doubles(tensor.numbers().unwrap_or_default().into()),
        Element::I8 => integers::<i8>(tensor),
        Element::I32 => integers::<i32>(tensor),
        Element::I64 => integers::<i64>(tensor),
        Element::U8 | Element::Bool => {
            Numbers::Integers(tensor.bytes.iter().map(|&byte| byte.into()).collect())
        }
    }
}

/// The raw outputs as bytes: an array of structures `tensor`.
fn beside(format: TensorFormat, outputs: Option<&[(&str, &Tensor)]>) -> Option<gst::Array> {
    let outputs = outputs.filter(|_| format == TensorFormat::Bytes)?;
    let tensors = outputs.iter().map(|(name, tensor)| {
        let sides = tensor.shape.iter().map(|&side| side as u64);
        gst::Structure::builder("tensor")
            .field("name", *name)
            .field("datatype", tensor.element.datatype())
            .field("shape", gst::Array::new(sides))
            .field("data", glib::Bytes::from(&tensor.bytes[..]))
            .build()
    });
    Some(gst::Array::new(tensors))
}

/// `inference-stats`, of the message and of the property `stats`.
pub fn stats(snapshot: Snapshot, model: Option<&ModelInfo>) -> gst::Structure {
    let counts = snapshot.counts;
    let mut structure = gst::Structure::builder("inference-stats")
        .field("received", counts.received)
        .field("inferred", counts.inferred)
        .field("failed", counts.failed)
        .field("pending", counts.pending)
        .field("dropped", counts.dropped.total())
        .field("dropped-busy", counts.dropped.busy)
        .field("dropped-late", counts.dropped.late)
        .field("dropped-flush", counts.dropped.flush)
        .field("dropped-closed", counts.dropped.closed);
    for (stage, percentiles) in Stage::ALL.into_iter().zip(snapshot.stages) {
        let Some(Percentiles { p50, p95, p99 }) = percentiles else {
            continue;
        };
        for (name, took) in [("p50", p50), ("p95", p95), ("p99", p99)] {
            let field = format!("{}-{name}", stage.name());
            structure = structure.field(field, took.as_nanos() as u64);
        }
    }
    structure
        .field_if_some("model", model.map(|model| model.name.as_str()))
        .field_if_some("model-hash", model.map(|model| model.hash.as_str()))
        .field_if_some("engine", model.map(|model| model.engine))
        .field_if_some("device", model.map(|model| model.device.as_str()))
        .build()
}
