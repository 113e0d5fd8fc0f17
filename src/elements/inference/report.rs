//! Results and statistics as GStreamer messages and events carry them.

use uuid::Uuid;

use super::{desk::Snapshot, worker::Findings};
use crate::{
    engine::model::ModelInfo,
    logic::wire::result::{FrameResult, ModelName},
};

/// `inference-result`, of the message and of the event.
pub fn result(findings: &Findings, model: &ModelInfo, output_name: &str) -> gst::Structure {
    let json = FrameResult {
        facts: &findings.facts,
        received_at: findings.received_at,
        width: findings.width,
        height: findings.height,
        found: match &findings.inference {
            Ok(inference) => Ok(&inference.detections),
            Err(error) => Err(error),
        },
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
    gst::Structure::builder("inference-result")
        .field_if_some("connection-id", findings.facts.connection_id.as_deref())
        .field_if_some("stream-id", findings.facts.stream_id.as_deref())
        .field_if_some("frame-id", findings.facts.frame_id)
        .field("latency", findings.timing.total.as_nanos() as u64)
        .field("json", json)
        .build()
}

/// `inference-stats`, of the message and of the property `stats`.
pub fn stats(snapshot: Snapshot, model: Option<&ModelInfo>) -> gst::Structure {
    let counts = snapshot.counts;
    let nanoseconds = |latency: std::time::Duration| latency.as_nanos() as u64;
    gst::Structure::builder("inference-stats")
        .field("received", counts.received)
        .field("inferred", counts.inferred)
        .field("failed", counts.failed)
        .field("pending", counts.pending)
        .field("dropped", counts.dropped.total())
        .field("dropped-busy", counts.dropped.busy)
        .field("dropped-late", counts.dropped.late)
        .field("dropped-flush", counts.dropped.flush)
        .field("dropped-closed", counts.dropped.closed)
        .field_if_some(
            "latency-p50",
            snapshot.latency.map(|at| nanoseconds(at.p50)),
        )
        .field_if_some(
            "latency-p90",
            snapshot.latency.map(|at| nanoseconds(at.p90)),
        )
        .field_if_some(
            "latency-p99",
            snapshot.latency.map(|at| nanoseconds(at.p99)),
        )
        .field_if_some("model", model.map(|model| model.name.as_str()))
        .field_if_some("engine", model.map(|model| model.engine))
        .field_if_some("device", model.map(|model| model.device.as_str()))
        .build()
}
