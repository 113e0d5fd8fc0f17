//! The one JSON of a result, in messages, on data channels and in files: a superset of Roboflow's.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::logic::{detections::Detection, frame_facts::FrameFacts};

/// Everything a result says.
#[derive(Debug, Clone, Copy)]
pub struct FrameResult<'a> {
    pub facts: &'a FrameFacts,
    /// Nanoseconds of unix time, for frames that do not know when they arrived.
    pub received_at: u64,
    /// Size of the frame the boxes are in, pixels.
    pub width: u32,
    pub height: u32,
    /// The boxes, or why there are none.
    pub found: Result<&'a [Detection], &'a str>,
    /// What the model gave as it came, where nobody makes boxes of it.
    pub tensors: Option<&'a [RawTensor<'a>]>,
    /// The key of the boxes.
    pub output_name: &'a str,
    pub timing: Timing,
    pub model: ModelName<'a>,
    /// Frames of the stream dropped since its previous result.
    pub dropped: u64,
}

/// One output of a model.
#[derive(Debug, Clone, Serialize)]
pub struct RawTensor<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    /// As the KServe protocol writes it: `FP32`.
    pub datatype: &'a str,
    /// In rows, the last dimension next to each other; absent where they travel beside the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Numbers<'a>>,
}

/// Numbers as JSON has them; those that are not finite are null.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Numbers<'a> {
    Singles(Cow<'a, [f32]>),
    Doubles(Cow<'a, [f64]>),
    Integers(Vec<i64>),
}

/// How long each step took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Waiting for the model.
    pub queue: Duration,
    /// Unknown when inference failed.
    pub steps: Option<Steps>,
    /// From the frame's arrival in the element to its result.
    pub total: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Steps {
    pub preprocess: Duration,
    pub inference: Duration,
    pub postprocess: Duration,
}

/// What computed a result.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ModelName<'a> {
    pub name: &'a str,
    pub hash: &'a str,
    pub engine: &'a str,
    pub device: &'a str,
}

impl FrameResult<'_> {
    /// One line of JSON. `detection_id` makes the id of each box.
    pub fn to_json(&self, mut detection_id: impl FnMut() -> Uuid) -> String {
        let serialized_output_data = self.found.ok().map(|found| {
            let predictions = found
                .iter()
                .map(|found| Prediction {
                    x: found.x,
                    y: found.y,
                    width: found.width,
                    height: found.height,
                    confidence: found.confidence,
                    class: &found.class,
                    class_id: found.class_id,
                    detection_id: detection_id().to_string(),
                })
                .collect();
            let image = Image {
                width: self.width,
                height: self.height,
            };
            let output = Output {
                image,
                predictions,
                tensors: self.tensors,
            };
            BTreeMap::from([(self.output_name, output)])
        });
        let document = Document {
            video_metadata: video_metadata(self.facts, self.received_at, (self.width, self.height)),
            serialized_output_data,
            errors: self.found.err().into_iter().collect(),
            processing_complete: false,
            termination_reason: None,
            timing_us: self.timing.into(),
            model: self.model,
            dropped: self.dropped,
        };
        serde_json::to_string(&document).expect("its keys are strings")
    }
}

/// Of a frame that nobody judged, what is known of the frame.
pub fn without_result(facts: &FrameFacts, received_at: u64, size: (u32, u32)) -> String {
    let metadata = video_metadata(facts, received_at, size);
    serde_json::json!({
        "video_metadata": metadata, "serialized_output_data": null, "errors": [], "processing_complete": false,
        "termination_reason": null,
    })
    .to_string()
}

/// `received_at` is for frames that do not know when they arrived.
fn video_metadata(
    facts: &FrameFacts,
    received_at: u64,
    (width, height): (u32, u32),
) -> VideoMetadata<'_> {
    VideoMetadata {
        frame_id: facts.frame_id,
        received_at: iso_8601(facts.arrival_time.unwrap_or(received_at)),
        pts: facts.pts,
        time_base: facts.time_base.map(|base| base.seconds()),
        declared_fps: facts.declared_fps,
        measured_fps: facts.measured_fps,
        width,
        height,
        rtp_timestamp: facts.rtp_timestamp,
        mid: facts.mid.as_deref(),
    }
}

/// With the offset as digits: older Pythons do not read a `Z`.
pub fn iso_8601(unix_nanoseconds: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanoseconds))
        .expect("64 bits of nanoseconds end in the year 2554")
        .strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
        .to_string()
}

#[derive(Serialize)]
struct Document<'a> {
    video_metadata: VideoMetadata<'a>,
    serialized_output_data: Option<BTreeMap<&'a str, Output<'a>>>,
    errors: Vec<&'a str>,
    processing_complete: bool,
    termination_reason: Option<&'a str>,
    timing_us: TimingUs,
    model: ModelName<'a>,
    dropped: u64,
}

#[derive(Serialize)]
struct VideoMetadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_id: Option<u64>,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_base: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declared_fps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_fps: Option<f64>,
    width: u32,
    height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtp_timestamp: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mid: Option<&'a str>,
}

#[derive(Serialize)]
struct Output<'a> {
    image: Image,
    predictions: Vec<Prediction<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [RawTensor<'a>]>,
}

#[derive(Serialize)]
struct Image {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Prediction<'a> {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    confidence: f32,
    class: &'a str,
    class_id: u32,
    detection_id: String,
}

#[derive(Serialize)]
struct TimingUs {
    queue: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    preprocess: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    postprocess: Option<u64>,
    total: u64,
}

impl From<Timing> for TimingUs {
    fn from(timing: Timing) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        TimingUs {
            queue: micros(timing.queue),
            preprocess: timing.steps.map(|steps| micros(steps.preprocess)),
            inference: timing.steps.map(|steps| micros(steps.inference)),
            postprocess: timing.steps.map(|steps| micros(steps.postprocess)),
            total: micros(timing.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::frame_facts::TimeBase;

    const MODEL: ModelName = ModelName {
        name: "shapes",
        hash: "sha256:00",
        engine: "rten",
        device: "cpu",
    };

    fn result<'a>(
        facts: &'a FrameFacts,
        found: Result<&'a [Detection], &'a str>,
    ) -> FrameResult<'a> {
        FrameResult {
            facts,
            received_at: 1_795_168_800_123_456_789,
            width: 640,
            height: 480,
            found,
            tensors: None,
            output_name: "predictions",
            timing: Timing {
                queue: Duration::from_micros(300),
                steps: Some(Steps {
                    preprocess: Duration::from_micros(410),
                    inference: Duration::from_micros(2900),
                    postprocess: Duration::from_micros(60),
                }),
                total: Duration::from_micros(4600),
            },
            model: MODEL,
            dropped: 2,
        }
    }

    #[test]
    fn a_full_result_reads_as_documented() {
        let facts = FrameFacts {
            frame_id: Some(812),
            pts: Some(2_435_967),
            time_base: TimeBase::of_clock_rate(90_000),
            declared_fps: Some(30.0),
            measured_fps: Some(29.7),
            rtp_timestamp: Some(3_120_457_712),
            mid: Some("0".into()),
            ..FrameFacts::default()
        };
        let found = [Detection {
            x: 320.5,
            y: 200.0,
            width: 80.0,
            height: 60.0,
            confidence: 0.91,
            class_id: 0,
            class: "circle".into(),
        }];
        let json = result(&facts, Ok(&found)).to_json(Uuid::nil);
        assert_eq!(
            json,
            concat!(
                r#"{"video_metadata":{"frame_id":812,"received_at":"2026-11-20T10:00:00.123456+00:00","pts":2435967,"#,
                r#""time_base":0.000011111111111111112,"declared_fps":30.0,"measured_fps":29.7,"width":640,"height":480,"#,
                r#""rtp_timestamp":3120457712,"mid":"0"},"#,
                r#""serialized_output_data":{"predictions":{"image":{"width":640,"height":480},"#,
                r#""predictions":[{"x":320.5,"y":200.0,"width":80.0,"height":60.0,"confidence":0.91,"class":"circle","class_id":0,"#,
                r#""detection_id":"00000000-0000-0000-0000-000000000000"}]}},"#,
                r#""errors":[],"processing_complete":false,"termination_reason":null,"#,
                r#""timing_us":{"queue":300,"preprocess":410,"inference":2900,"postprocess":60,"total":4600},"#,
                r#""model":{"name":"shapes","hash":"sha256:00","engine":"rten","device":"cpu"},"dropped":2}"#,
            )
        );
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let facts = FrameFacts::default();
        let json = result(&facts, Ok(&[])).to_json(Uuid::nil);
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        let keys: Vec<_> = document["video_metadata"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        assert_eq!(keys, ["height", "received_at", "width"]);
    }

    #[test]
    fn a_failure_is_an_error_without_output() {
        let facts = FrameFacts::default();
        let mut result = result(&facts, Err("out of memory"));
        result.timing.steps = None;
        let document: serde_json::Value = serde_json::from_str(&result.to_json(Uuid::nil)).unwrap();
        assert_eq!(document["errors"], serde_json::json!(["out of memory"]));
        assert!(document["serialized_output_data"].is_null());
        let timing: Vec<_> = document["timing_us"].as_object().unwrap().keys().collect();
        assert_eq!(timing, ["queue", "total"]);
    }

    #[test]
    fn the_arrival_time_of_the_frame_comes_before_ours_and_full_seconds_keep_their_digits() {
        let facts = FrameFacts {
            arrival_time: Some(1_795_168_800_000_000_000),
            ..FrameFacts::default()
        };
        let json = result(&facts, Ok(&[])).to_json(Uuid::nil);
        assert!(
            json.contains(r#""received_at":"2026-11-20T10:00:00.000000+00:00""#),
            "{json}"
        );
    }

    #[test]
    fn raw_tensors_are_told_by_name_and_shape_with_their_numbers_or_without() {
        let facts = FrameFacts::default();
        let tensor = |name, datatype, data| RawTensor {
            name,
            shape: &[1, 2],
            datatype,
            data,
        };
        let tensors = [
            tensor(
                "a",
                "FP32",
                Some(Numbers::Singles((&[0.1, f32::NAN][..]).into())),
            ),
            tensor("b", "INT64", Some(Numbers::Integers(vec![i64::MAX, -1]))),
            tensor("c", "FP16", None),
        ];
        let mut result = result(&facts, Ok(&[]));
        result.tensors = Some(&tensors);
        let json = result.to_json(Uuid::nil);
        let told = concat!(
            r#""tensors":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[0.1,null]},"#,
            r#"{"name":"b","shape":[1,2],"datatype":"INT64","data":[9223372036854775807,-1]},"#,
            r#"{"name":"c","shape":[1,2],"datatype":"FP16"}]"#
        );
        assert!(json.contains(told), "{json}");
    }

    #[test]
    fn boxes_are_under_the_output_name() {
        let facts = FrameFacts::default();
        let mut result = result(&facts, Ok(&[]));
        result.output_name = "my shapes";
        let document: serde_json::Value = serde_json::from_str(&result.to_json(Uuid::nil)).unwrap();
        assert_eq!(
            document["serialized_output_data"]["my shapes"]["image"]["width"],
            640
        );
    }
}
