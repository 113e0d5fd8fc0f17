//! One message of the data channel, read: what it says of a frame, or that nothing follows.

use std::borrow::Cow;
use std::io::Read;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use flate2::read::GzDecoder;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::DateTime};
use serde_json::{Map, Value, json};

use crate::logic::detections::Detection;
use crate::logic::wire::result::iso_8601;

/// Longest message, unpacked.
const MAX_INFLATED: u64 = 16 << 20;
/// JSON takes many times its length in memory when each byte or two is a value.
const MAX_VALUES: usize = 1 << 20;
const MAX_PICTURES: usize = 8;
const MAX_DETECTIONS: usize = 1000;
/// Levels below an output that boxes are looked for in.
const MAX_DEPTH: usize = 2;
const MAX_ERRORS: usize = 64;
/// Characters of each.
const MAX_ERROR: usize = 2000;

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Frame(Box<Frame>),
    /// No frame follows.
    Over {
        /// `None` when the source has ended.
        termination_reason: Option<String>,
        errors: Vec<String>,
    },
    /// Nothing to act on: a piece of a message that is not whole, or an object that is about something else.
    Ignored,
    /// It cannot be read, and why; others still can.
    Broken(String),
}

/// What is said of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// What it is acknowledged by: the metadata's frame id, else that of the header.
    pub id: Option<u64>,
    pub metadata: Metadata,
    /// The whole message as our own results are written, without the pictures.
    pub json: String,
    pub errors: Vec<String>,
    /// `None` when nothing in it looks like boxes.
    pub detections: Option<Vec<Detection>>,
    pub pictures: Vec<Picture>,
}

/// What the server knows of a frame; `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Counts the frames that were processed, from 1.
    pub frame_id: Option<u64>,
    /// Nanoseconds of unix time.
    pub received_at_ns: Option<u64>,
    /// In `time_base`, from the first frame that the server received.
    pub pts: Option<i64>,
    /// Seconds.
    pub time_base: Option<f64>,
    pub declared_fps: Option<f64>,
    pub measured_fps: Option<f64>,
    /// Pixels.
    pub width: Option<i32>,
    pub height: Option<i32>,
}

/// An output that is a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The output's; below it, the way there: `crops.0`.
    pub name: String,
    pub jpeg: Vec<u8>,
}

impl Metadata {
    /// Seconds since the first frame that the server received; raw pts do not compare, as each side has its own time base.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.pts? as f64 * self.time_base?)
    }

    fn of(fields: &Map<String, Value>, zone: &TimeZone) -> Self {
        let integer = |name: &str| fields.get(name).and_then(Value::as_i64);
        let positive = |name: &str| {
            let number = fields.get(name).and_then(Value::as_f64);
            number.filter(|number| number.is_finite() && *number > 0.0)
        };
        let pixels = |name: &str| {
            let pixels = integer(name).and_then(|pixels| i32::try_from(pixels).ok());
            pixels.filter(|pixels| *pixels > 0)
        };
        let received_at = fields.get("received_at").and_then(Value::as_str);
        Self {
            frame_id: fields.get("frame_id").and_then(Value::as_u64),
            received_at_ns: received_at.and_then(|text| unix_nanoseconds(text, zone)),
            pts: integer("pts"),
            time_base: positive("time_base"),
            declared_fps: positive("declared_fps"),
            measured_fps: positive("measured_fps"),
            width: pixels("width"),
            height: pixels("height"),
        }
    }
}

/// A time that does not say where it is meant is meant in `zone`.
fn unix_nanoseconds(text: &str, zone: &TimeZone) -> Option<u64> {
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => {
            let naive: DateTime = text.parse().ok()?;
            naive.to_zoned(zone.clone()).ok()?.timestamp()
        }
    };
    u64::try_from(at.as_nanosecond()).ok()
}

/// Reads a message. `id` is that of its header.
pub fn read(id: Option<u32>, message: &[u8], zone: &TimeZone) -> Said {
    match object(message) {
        Ok(fields) => understood(id, fields, zone),
        Err(why) => Said::Broken(why),
    }
}

fn object(message: &[u8]) -> Result<Map<String, Value>, String> {
    let message = unpacked(message)?;
    let text =
        str::from_utf8(&message).map_err(|error| format!("a message that is no UTF-8: {error}"))?;
    let begins_value = |byte: &&u8| matches!(byte, b',' | b'[' | b'{');
    if text.as_bytes().iter().filter(begins_value).count() > MAX_VALUES {
        return Err(format!("a message of more than {MAX_VALUES} values"));
    }
    let parsed = serde_json::from_str(text).or_else(|error| match without_names(text) {
        Some(text) => serde_json::from_str(&text),
        None => Err(error),
    });
    match parsed {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("a message that is JSON, but no object".into()),
        Err(error) => Err(format!("a message that is no JSON: {error}")),
    }
}

fn unpacked(message: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !message.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(message));
    }
    let mut inflated = Vec::new();
    let mut decoder = GzDecoder::new(message).take(MAX_INFLATED + 1);
    decoder
        .read_to_end(&mut inflated)
        .map_err(|error| format!("a message whose gzip is broken: {error}"))?;
    match inflated.len() as u64 > MAX_INFLATED {
        true => Err(format!(
            "a message that inflates to more; at most {MAX_INFLATED} bytes are taken"
        )),
        false => Ok(Cow::Owned(inflated)),
    }
}

/// Python writes numbers that are not finite by their names, which JSON lacks: null is as near as it gets.
fn without_names(text: &str) -> Option<String> {
    let (mut result, mut copied) = (String::new(), 0);
    let (mut at, mut in_text) = (0, false);
    let bytes = text.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        let name = match byte {
            b'\\' if in_text => {
                at += 2;
                continue;
            }
            b'"' => {
                in_text = !in_text;
                None
            }
            b'N' | b'I' | b'-' if !in_text => ["NaN", "Infinity", "-Infinity"]
                .into_iter()
                .find(|name| bytes[at..].starts_with(name.as_bytes())),
            _ => None,
        };
        match name {
            Some(name) => {
                result.push_str(&text[copied..at]);
                result.push_str("null");
                at += name.len();
                copied = at;
            }
            None => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    result.push_str(&text[copied..]);
    Some(result)
}

/// What every message has, and what stands for it where it is missing.
fn parts() -> [(&'static str, Value); 5] {
    [
        ("video_metadata", Value::Null),
        ("serialized_output_data", Value::Null),
        ("errors", json!([])),
        ("processing_complete", Value::Bool(false)),
        ("termination_reason", Value::Null),
    ]
}

fn understood(id: Option<u32>, mut fields: Map<String, Value>, zone: &TimeZone) -> Said {
    if !parts().iter().any(|(name, _)| fields.contains_key(*name)) {
        return Said::Ignored;
    }
    for (name, missing) in parts() {
        fields.entry(name).or_insert(missing);
    }
    let mut errors = texts(&fields["errors"]);
    if fields["processing_complete"] == true {
        let reason = fields["termination_reason"].as_str();
        return Said::Over {
            termination_reason: reason.map(cut),
            errors,
        };
    }
    fields["processing_complete"] = Value::Bool(false);
    let mut metadata = Metadata::default();
    match &mut fields["video_metadata"] {
        Value::Object(told) => {
            metadata = Metadata::of(told, zone);
            if let Some(at) = metadata.received_at_ns {
                told.insert("received_at".into(), iso_8601(at).into());
            }
        }
        other => *other = Value::Null,
    }
    let mut pictures = Pictures::default();
    let outputs = &mut fields["serialized_output_data"];
    pictures.take(outputs, String::new());
    let detections = boxes(outputs, 0);
    errors.extend(pictures.unreadable);
    errors.truncate(MAX_ERRORS);
    fields["errors"] = errors.as_slice().into();
    Said::Frame(Box::new(Frame {
        id: metadata.frame_id.or(id.map(u64::from)),
        metadata,
        json: Value::Object(fields).to_string(),
        errors,
        detections,
        pictures: pictures.found,
    }))
}

fn texts(errors: &Value) -> Vec<String> {
    let text = |error: &Value| match error {
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    };
    match errors {
        Value::Null => Vec::new(),
        Value::Array(errors) => errors.iter().take(MAX_ERRORS).map(text).collect(),
        alone => vec![text(alone)],
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_ERROR).collect()
}

#[derive(Default)]
struct Pictures {
    found: Vec<Picture>,
    /// A sentence for each that is none.
    unreadable: Vec<String>,
}

impl Pictures {
    /// Takes the pictures out of what is at `path`; null stays where their bytes were, so that what remains is small.
    fn take(&mut self, value: &mut Value, path: String) {
        let below = |name: &str| match path.is_empty() {
            true => name.to_owned(),
            false => format!("{path}.{name}"),
        };
        match value {
            Value::Object(fields) if fields.get("type").is_some_and(|kind| kind == "base64") => {
                if let Some(text @ Value::String(_)) = fields.get_mut("value") {
                    self.decode(text.take(), path);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut().filter(|(_, value)| is_nest(value)) {
                    let path = below(name);
                    self.take(value, path);
                }
            }
            Value::Array(items) => {
                for (index, value) in items
                    .iter_mut()
                    .enumerate()
                    .filter(|(_, value)| is_nest(value))
                {
                    let path = below(&index.to_string());
                    self.take(value, path);
                }
            }
            _ => {}
        }
    }

    fn decode(&mut self, text: Value, name: String) {
        if self.found.len() == MAX_PICTURES {
            return;
        }
        match BASE64.decode(text.as_str().unwrap_or_default()) {
            Ok(jpeg) => self.found.push(Picture { name, jpeg }),
            Err(error) if self.unreadable.len() < MAX_ERRORS => {
                let error = format!("Output '{name}' is no base64: {error}");
                self.unreadable.push(cut(&error));
            }
            Err(_) => {}
        }
    }
}

fn is_nest(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// The first boxes there are: under `predictions`, or an output by themselves.
fn boxes(value: &Value, depth: usize) -> Option<Vec<Detection>> {
    match value {
        Value::Object(fields) => {
            let named = fields.get("predictions").and_then(Value::as_array);
            let named = named.and_then(|items| detections(items));
            named.or_else(|| {
                let mut nests = fields.values().filter(|_| depth <= MAX_DEPTH);
                nests.find_map(|value| boxes(value, depth + 1))
            })
        }
        Value::Array(items) if !items.is_empty() => detections(items),
        _ => None,
    }
}

/// `None` when there are things, and none is a box.
fn detections(items: &[Value]) -> Option<Vec<Detection>> {
    let boxes = items.iter().filter_map(detection).take(MAX_DETECTIONS);
    let boxes: Vec<_> = boxes.collect();
    (items.is_empty() || !boxes.is_empty()).then_some(boxes)
}

/// A box that knows where and what it is; without a class id it has 0.
fn detection(value: &Value) -> Option<Detection> {
    let fields = value.as_object()?;
    let number = |name: &str| {
        let number = fields.get(name)?.as_f64()? as f32;
        Some(number).filter(|number| number.is_finite())
    };
    let class_id = fields.get("class_id").and_then(Value::as_u64);
    Some(Detection {
        x: number("x")?,
        y: number("y")?,
        width: number("width")?,
        height: number("height")?,
        confidence: number("confidence")?,
        class_id: class_id.and_then(|id| id.try_into().ok()).unwrap_or(0),
        class: fields.get("class")?.as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(2))
    }

    fn frame(message: Value) -> Frame {
        match read(Some(9), message.to_string().as_bytes(), &zone()) {
            Said::Frame(frame) => *frame,
            other => panic!("{other:?}"),
        }
    }

    fn of_outputs(outputs: Value) -> Frame {
        frame(json!({ "serialized_output_data": outputs }))
    }

    fn circle(x: f64) -> Value {
        json!({ "x": x, "y": 2.0, "width": 3, "height": 4.0, "confidence": 0.5, "class": "circle", "class_id": 7, "detection_id": "d" })
    }

    #[test]
    fn metadata_is_read_as_servers_write_it() {
        let frame = frame(json!({
            "video_metadata": { "frame_id": 4, "received_at": "2026-11-20T12:00:00.123456", "pts": 9_000,
                "time_base": 1.0 / 90_000.0, "declared_fps": 30, "measured_fps": null, "width": 640, "height": 480 },
            "serialized_output_data": null, "errors": [], "processing_complete": false, "termination_reason": null,
        }));
        assert_eq!(frame.id, Some(4));
        let expected = Metadata {
            frame_id: Some(4),
            received_at_ns: Some(1_795_168_800_123_456_000),
            pts: Some(9_000),
            time_base: Some(1.0 / 90_000.0),
            declared_fps: Some(30.0),
            measured_fps: None,
            width: Some(640),
            height: Some(480),
        };
        assert_eq!(frame.metadata, expected);
        assert!((frame.metadata.seconds().unwrap() - 0.1).abs() < 1e-12);
        let json: Value = serde_json::from_str(&frame.json).unwrap();
        assert_eq!(
            json["video_metadata"]["received_at"],
            "2026-11-20T10:00:00.123456+00:00"
        );
        assert_eq!((frame.detections, frame.pictures), (None, vec![]));
    }

    #[test]
    fn times_with_and_without_a_zone_are_the_same_moment() {
        for text in [
            "2026-11-20T12:00:00.5",
            "2026-11-20 12:00:00.5",
            "2026-11-20T10:00:00.5Z",
            "2026-11-20T10:00:00.500000+00:00",
            "2026-11-20T07:00:00.5-03:00",
        ] {
            let at = unix_nanoseconds(text, &zone());
            assert_eq!(at, Some(1_795_168_800_500_000_000), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1905-01-01T00:00:00Z",
            "9999-12-31T23:59:59",
        ] {
            assert_eq!(unix_nanoseconds(text, &zone()), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_unknown() {
        for metadata in [
            json!(null),
            json!({}),
            json!([]),
            json!({ "frame_id": "4", "received_at": 7, "pts": 1.5, "time_base": "x", "declared_fps": [], "measured_fps": -1,
                "width": 1e12, "height": 0 }),
        ] {
            let frame = frame(json!({ "video_metadata": metadata }));
            assert_eq!(frame.metadata, Metadata::default());
            assert_eq!((frame.id, frame.metadata.seconds()), (Some(9), None));
        }
        let least = read(None, br#"{"errors":null}"#, &zone());
        assert!(matches!(least, Said::Frame(frame) if frame.id.is_none()));
    }

    #[test]
    fn the_json_has_every_part_and_keeps_what_it_does_not_know() {
        let frame = frame(json!({ "errors": "alone", "more": [1], "processing_complete": 0 }));
        assert_eq!(frame.errors, ["alone"]);
        let json: Value = serde_json::from_str(&frame.json).unwrap();
        assert_eq!(
            json,
            json!({ "video_metadata": null, "serialized_output_data": null, "errors": ["alone"], "processing_complete": false,
                "termination_reason": null, "more": [1] })
        );
    }

    #[test]
    fn the_end_says_why() {
        for (reason, told) in [
            (json!(null), None),
            (json!("timeout_reached"), Some("timeout_reached")),
            (json!(7), None),
        ] {
            let message = json!({ "video_metadata": { "frame_id": 3 }, "errors": [{ "a": 1 }], "processing_complete": true,
                "termination_reason": reason });
            let said = read(Some(4), message.to_string().as_bytes(), &zone());
            let over = Said::Over {
                termination_reason: told.map(str::to_owned),
                errors: vec![r#"{"a":1}"#.into()],
            };
            assert_eq!(said, over);
        }
    }

    #[test]
    fn an_object_about_something_else_is_ignored() {
        for message in ["{}", r#"{"ack":1}"#] {
            assert_eq!(read(None, message.as_bytes(), &zone()), Said::Ignored);
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_null_and_words_in_texts_stay() {
        let message = r#"{"errors":["a \"NaN, -Infinity\\"],"more":[NaN,-Infinity,Infinity,-1]}"#;
        let Said::Frame(frame) = read(None, message.as_bytes(), &zone()) else {
            panic!("a frame");
        };
        assert_eq!(frame.errors, [r#"a "NaN, -Infinity\"#]);
        let json: Value = serde_json::from_str(&frame.json).unwrap();
        assert_eq!(json["more"], json!([null, null, null, -1]));
        for broken in ["{\"a\":Nan}", "{\"a\":\"\\", "NaN", "{\"é\\"] {
            assert!(matches!(
                read(None, broken.as_bytes(), &zone()),
                Said::Broken(_)
            ));
        }
    }

    #[test]
    fn boxes_are_found_where_workflows_put_them() {
        let boxes = json!({ "image": { "width": 640 }, "predictions": [circle(1.0), circle(5.0)] });
        for outputs in [
            json!({ "predictions": boxes }),
            json!({ "count": 2, "model": { "output": boxes } }),
            json!({ "found": [circle(1.0), circle(5.0)] }),
            json!({ "predictions": [circle(1.0), circle(5.0)] }),
            json!({ "a": [{ "class": "cat", "confidence": 0.9 }], "b": boxes }),
        ] {
            let found = of_outputs(outputs.clone()).detections.expect("boxes");
            assert_eq!(found.len(), 2, "{outputs}");
            let first = Detection {
                x: 1.0,
                y: 2.0,
                width: 3.0,
                height: 4.0,
                confidence: 0.5,
                class_id: 7,
                class: "circle".into(),
            };
            assert_eq!(found[0], first);
        }
        let deep = json!({ "a": { "b": { "c": { "d": boxes } } } });
        for outputs in [
            json!(null),
            json!({ "a": [] }),
            json!({ "a": [1, "b"] }),
            deep,
        ] {
            assert_eq!(of_outputs(outputs).detections, None);
        }
        let none = of_outputs(json!({ "model": { "predictions": [] } }));
        assert_eq!(none.detections, Some(vec![]));
    }

    #[test]
    fn a_box_without_all_its_numbers_is_none_and_there_is_an_end_of_boxes() {
        let mut boxes = vec![circle(1.0); 1];
        for (name, value) in [
            ("x", json!(null)),
            ("y", json!("1")),
            ("width", json!(1e300)),
            ("class", json!(3)),
        ] {
            let mut other = circle(2.0);
            other[name] = value;
            boxes.push(other);
        }
        let mut nameless = circle(3.0);
        nameless["class_id"] = json!("x");
        boxes.push(nameless);
        let found = of_outputs(json!({ "p": boxes })).detections.unwrap();
        let ids: Vec<_> = found
            .iter()
            .map(|found| (found.x, found.class_id))
            .collect();
        assert_eq!(ids, [(1.0, 7), (3.0, 0)]);
        let many = of_outputs(json!({ "p": vec![circle(1.0); 1001] }));
        assert_eq!(many.detections.unwrap().len(), 1000);
    }

    #[test]
    fn pictures_come_out_of_the_json() {
        let picture = json!({ "type": "base64", "value": "/9g=", "video_metadata": { "fps": 30 } });
        let frame = of_outputs(
            json!({ "boxes": picture, "crops": [picture, { "deep": picture }], "bad": { "type": "base64", "value": "?" },
            "none": { "type": "base64", "value": 7 } }),
        );
        let found: Vec<_> = frame
            .pictures
            .iter()
            .map(|p| (&*p.name, &*p.jpeg))
            .collect();
        let jpeg = &[0xff, 0xd8][..];
        assert_eq!(
            found,
            [("boxes", jpeg), ("crops.0", jpeg), ("crops.1.deep", jpeg)]
        );
        assert_eq!(frame.errors.len(), 1);
        assert!(frame.errors[0].contains("'bad'"));
        assert!(!frame.json.contains("/9g="));
        let json: Value = serde_json::from_str(&frame.json).unwrap();
        let boxes = &json["serialized_output_data"]["boxes"];
        assert_eq!(
            *boxes,
            json!({ "type": "base64", "value": null, "video_metadata": { "fps": 30 } })
        );
    }

    #[test]
    fn there_is_an_end_of_pictures_and_of_errors() {
        let picture = json!({ "type": "base64", "value": "/9g=" });
        let frame = frame(
            json!({ "serialized_output_data": { "p": vec![picture; 20] }, "errors": vec!["e"; 100] }),
        );
        assert_eq!((frame.pictures.len(), frame.errors.len()), (8, 64));
        assert!(!frame.json.contains("/9g="));
        let long = self::frame(json!({ "errors": ["é".repeat(5_000)] }));
        assert_eq!(long.errors[0].chars().count(), 2_000);
    }
}
