//! Roboflow's dialect: what `inference_sdk` posts, and what is said on its data channel.
//!
//! Every message to the client is binary: frame id, chunk index, total chunks (u32, little endian), then at most 48 KiB of JSON.
//! It is not packed, though the Python SDK would unpack gzip: no client has a way to ask for it, and the JavaScript one cannot.

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::DateTime};
use serde_json::{Map, Value, json};

use super::dialect::{Dialect, Heard, News, Payload, Pieces};
use crate::logic::connection::EndReason;

mod request;

use request::named;
pub use request::{Request, RequestError, Wanted, api_key};

/// Longest piece of a message.
const CHUNK: usize = 48 * 1024;
/// What a slow handler is given to take what waits.
const LINGER: Duration = Duration::from_secs(10);
/// The channel that files come on.
const UPLOAD: &str = "video_upload";
/// Names of outputs that are kept.
const MAX_OUTPUTS: usize = 64;

/// The answer to an offer.
pub fn answered(id: &str, sdp: &str) -> Value {
    json!({
        "status": "success",
        "context": { "request_id": id, "pipeline_id": null },
        "sdp": sdp,
        "type": "answer",
    })
}

/// Which outputs a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outputs {
    None,
    All,
    Named(Vec<String>),
}

impl Outputs {
    fn of(names: &[String]) -> Self {
        match names {
            [] => Self::None,
            [all] if all == "*" => Self::All,
            names => Self::Named(names.iter().take(MAX_OUTPUTS).cloned().collect()),
        }
    }

    /// What is told of these, and what is missing. A name that nothing else bears is the picture's, if there is one.
    fn pick(&self, found: Value, mut picture: Option<Value>) -> (Value, Vec<String>) {
        let (names, Value::Object(mut found)) = (self, found) else {
            return (Value::Null, Vec::new());
        };
        match names {
            Self::None => (Value::Null, Vec::new()),
            Self::All if found.is_empty() => (Value::Null, Vec::new()),
            Self::All => (Value::Object(found), Vec::new()),
            Self::Named(names) => {
                let mut picked = Map::new();
                let mut errors = Vec::new();
                for name in names {
                    match found.remove(name).or_else(|| picture.take()) {
                        Some(value) => drop(picked.insert(name.clone(), value)),
                        None => errors.push(format!("Output '{name}' not found")),
                    }
                }
                let picked = Some(picked).filter(|picked| !picked.is_empty());
                (picked.map_or(Value::Null, Value::Object), errors)
            }
        }
    }
}

/// One client's language.
#[derive(Debug)]
pub struct Roboflow {
    outputs: Outputs,
    declared_fps: Option<f64>,
    /// Whether results are acknowledged before more are made.
    paced: bool,
    sends_file: bool,
    zone: TimeZone,
    /// The channel that it last opened to talk on.
    channel: Option<String>,
    /// Frames told of so far.
    count: u32,
    /// That of the first one.
    first_pts: Option<i64>,
}

impl Roboflow {
    /// `zone` is the one that its clocks show.
    pub fn new(request: &Request, zone: TimeZone) -> Self {
        Self {
            outputs: Outputs::of(request.data_output.as_deref().unwrap_or_default()),
            declared_fps: request.declared_fps.filter(|fps| fps.is_finite()),
            paced: !request.is_realtime(),
            sends_file: request.video_file_upload,
            zone,
            channel: None,
            count: 0,
            first_pts: None,
        }
    }

    fn result(&mut self, result: &str, jpeg: Option<&[u8]>) -> Vec<Pieces> {
        let Ok(Value::Object(mut result)) = serde_json::from_str(result) else {
            return Vec::new();
        };
        self.count += 1;
        if let Some(Value::Object(metadata)) = result.get_mut("video_metadata") {
            metadata.insert("frame_id".into(), self.count.into());
            if let Some(pts) = metadata.get("pts").and_then(Value::as_i64) {
                let first = *self.first_pts.get_or_insert(pts);
                metadata.insert("pts".into(), (pts - first).into());
            }
            let received = metadata.get("received_at").and_then(Value::as_str);
            if let Some(naive) = received.and_then(|text| self.naive(text)) {
                metadata.insert("received_at".into(), naive.into());
            }
            if let Some(fps) = self.declared_fps {
                metadata.insert("declared_fps".into(), fps.into());
            }
        }
        let found = result.remove("serialized_output_data");
        let picture = jpeg.map(|jpeg| self.picture(jpeg, result.get("video_metadata")));
        let found = found.filter(|found| !found.is_null());
        let found = found.unwrap_or_else(|| Value::Object(Map::new()));
        let (picked, missing) = self.outputs.pick(found, picture);
        result.insert("serialized_output_data".into(), picked);
        if let Some(Value::Array(errors)) = result.get_mut("errors") {
            errors.extend(missing.into_iter().map(Value::String));
        }
        vec![framed(self.count, &Value::Object(result))]
    }

    fn picture(&self, jpeg: &[u8], metadata: Option<&Value>) -> Value {
        let of = |name: &str| metadata.and_then(|m| m.get(name)).cloned();
        json!({
            "type": "base64",
            "value": BASE64.encode(jpeg),
            "video_metadata": {
                "video_identifier": "video", "frame_number": self.count, "frame_timestamp": of("received_at"),
                "fps": of("declared_fps"), "measured_fps": of("measured_fps"), "comes_from_video_file": self.sends_file,
            },
        })
    }

    /// As its clients read it: local time, without a word about where that is.
    fn naive(&self, iso: &str) -> Option<String> {
        let at: Timestamp = iso.parse().ok()?;
        let local: DateTime = at.to_zoned(self.zone.clone()).datetime();
        Some(local.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string())
    }

    fn trouble(&self, text: &str) -> Vec<Pieces> {
        let message = json!({
            "serialized_output_data": null,
            "video_metadata": null,
            "errors": [text],
            "processing_complete": false,
            "termination_reason": null,
        });
        vec![framed(self.count, &message)]
    }

    fn over(&self, reason: EndReason, detail: Option<&str>) -> Vec<Pieces> {
        let errors: Vec<_> = detail
            .iter()
            .filter(|_| reason == EndReason::HandlerError)
            .collect();
        let termination = match reason {
            EndReason::SourceEnded => None,
            EndReason::TimeLimit => Some("timeout_reached"),
            other => Some(other.as_str()),
        };
        let message = json!({
            "serialized_output_data": null,
            "video_metadata": { "frame_id": self.count, "received_at": null, "pts": null, "time_base": null,
                "declared_fps": null, "measured_fps": null, "width": null, "height": null },
            "errors": errors,
            "processing_complete": true,
            "termination_reason": termination,
        });
        vec![framed(self.count.saturating_add(1), &message)]
    }

    fn control(&mut self, fields: &Map<String, Value>) -> Result<Heard, String> {
        let mut heard = Heard::default();
        if let Some(ack) = given(fields, "ack") {
            let ack = ack.as_u64().ok_or(r#"{"ack": 12} is right"#)?;
            heard.acknowledged = Some(ack).filter(|ack| self.paced && *ack > 0);
            heard.taken = true;
        }
        if let Some(names) = given(fields, "stream_output") {
            let names = texts(names).ok_or(r#"{"stream_output": ["name"]} is right"#)?;
            heard.sends_back = Some(named(names.iter()).is_some());
            heard.taken = true;
        }
        if let Some(names) = given(fields, "data_output") {
            let names = texts(names).ok_or(r#"{"data_output": ["name"]} is right"#)?;
            self.outputs = Outputs::of(&names);
            heard.taken = true;
        }
        Ok(heard)
    }
}

/// A field that says something.
fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    items.map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A message in pieces.
fn framed(id: u32, message: &Value) -> Pieces {
    let text = message.to_string();
    let pieces = text.as_bytes().chunks(CHUNK);
    let total = pieces.len() as u32;
    (0u32..)
        .zip(pieces)
        .map(|(index, piece)| {
            let header = [id, index, total].map(u32::to_le_bytes);
            Payload::Bytes([header.as_flattened(), piece].concat())
        })
        .collect()
}

impl Dialect for Roboflow {
    fn tell(&mut self, news: News<'_>) -> Vec<Pieces> {
        match news {
            News::Channel(UPLOAD) | News::Playing(_) => Vec::new(),
            News::Channel(label) => {
                self.channel = Some(label.to_owned());
                Vec::new()
            }
            News::Result(result) => self.result(result, None),
            News::Picture { result, jpeg } => self.result(result, Some(jpeg)),
            News::Trouble(text) => self.trouble(text),
            News::Over { reason, detail } => self.over(reason, detail),
        }
    }

    fn hear(&mut self, _label: &str, data: &[u8], binary: bool, _now: Instant) -> Heard {
        if binary {
            return Heard::default();
        }
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            return Heard::default();
        };
        let heard = match value.as_object() {
            Some(fields) => self.control(fields),
            None => return Heard::default(),
        };
        heard.unwrap_or_else(|right| Heard {
            answers: self.trouble(&right),
            taken: true,
            ..Heard::default()
        })
    }

    /// The SDK forgets an end that comes while frames wait for a slow handler, and takes it the next time.
    fn lingers(&self) -> Duration {
        LINGER
    }

    fn is_file(&self, label: &str) -> bool {
        self.sends_file && label == UPLOAD
    }

    fn channel(&self) -> Option<String> {
        self.channel.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::request::tests::request;
    use super::*;

    fn dialect(more: Value) -> Roboflow {
        Roboflow::new(&request(more), TimeZone::fixed(jiff::tz::offset(2)))
    }

    /// What a client reads of it.
    fn read(said: &[Pieces]) -> (u32, Value) {
        let [said] = said else {
            panic!("one message");
        };
        let mut text = Vec::new();
        let mut id = 0;
        for (at, payload) in said.iter().enumerate() {
            let Payload::Bytes(bytes) = payload else {
                panic!("every message is binary");
            };
            let number = |n: usize| u32::from_le_bytes(bytes[n..n + 4].try_into().unwrap());
            id = number(0);
            assert_eq!((number(4), number(8)), (at as u32, said.len() as u32));
            text.extend_from_slice(&bytes[12..]);
        }
        (id, serde_json::from_slice(&text).unwrap())
    }

    fn result(pts: i64, boxes: usize) -> String {
        let predictions = vec![json!({ "x": 1.5, "class": "circle" }); boxes];
        json!({
            "video_metadata": { "frame_id": 812, "received_at": "2026-11-20T10:00:00.123456+00:00", "pts": pts,
                "time_base": 1.0 / 90_000.0, "declared_fps": null, "width": 640, "height": 480 },
            "serialized_output_data": { "predictions": { "predictions": predictions } },
            "errors": [], "processing_complete": false, "termination_reason": null,
        })
        .to_string()
    }

    #[test]
    fn results_are_counted_from_one_and_timed_from_the_first() {
        let mut dialect = dialect(json!({ "data_output": ["*"], "declared_fps": 25.0 }));
        for (n, pts) in [(1u32, 9_000), (2, 12_000), (3, 18_000)] {
            let (id, said) = read(&dialect.tell(News::Result(&result(pts, 1))));
            let metadata = &said["video_metadata"];
            assert_eq!((id, &metadata["frame_id"]), (n, &json!(n)));
            assert_eq!(metadata["pts"], pts - 9_000);
            assert_eq!(metadata["received_at"], "2026-11-20T12:00:00.123456");
            assert_eq!(metadata["declared_fps"], 25.0);
            assert_eq!(
                said["serialized_output_data"]["predictions"]["predictions"][0]["class"],
                "circle"
            );
        }
    }

    #[test]
    fn a_long_message_comes_in_pieces_that_fit() {
        let mut dialect = dialect(json!({ "data_output": ["predictions"] }));
        let said = dialect.tell(News::Result(&result(0, 10_000)));
        assert!(said[0].len() > 5);
        assert!(
            said[0]
                .iter()
                .all(|piece| piece.as_bytes().len() <= CHUNK + 12)
        );
        let (_, message) = read(&said);
        let boxes = &message["serialized_output_data"]["predictions"]["predictions"];
        assert_eq!(boxes.as_array().unwrap().len(), 10_000);
    }

    #[test]
    fn only_what_was_asked_for_is_told_and_what_is_missing_is_named() {
        for (asked, told, errors) in [
            (json!(null), false, json!([])),
            (json!([]), false, json!([])),
            (json!(["*"]), true, json!([])),
            (json!(["predictions"]), true, json!([])),
            (json!(["masks"]), false, json!(["Output 'masks' not found"])),
        ] {
            let mut dialect = dialect(json!({ "data_output": asked }));
            let (_, said) = read(&dialect.tell(News::Result(&result(0, 1))));
            assert_eq!(!said["serialized_output_data"].is_null(), told, "{asked}");
            assert_eq!(said["errors"], errors);
        }
    }

    #[test]
    fn a_picture_is_told_under_the_name_that_nothing_else_bears() {
        let mut dialect = dialect(json!({ "data_output": ["predictions", "annotated"] }));
        let result = result(0, 1);
        let news = News::Picture {
            result: &result,
            jpeg: &[0xff, 0xd8],
        };
        let (_, said) = read(&dialect.tell(news));
        assert_eq!(said["errors"], json!([]));
        let found = &said["serialized_output_data"];
        assert_eq!(found["annotated"]["type"], "base64");
        assert_eq!(found["annotated"]["value"], "/9g=");
        assert_eq!(found["annotated"]["video_metadata"]["frame_number"], 1);
        assert!(found["predictions"]["predictions"].is_array());
    }

    #[test]
    fn what_is_wanted_can_change_at_any_time() {
        let mut dialect = dialect(json!({}));
        let heard = dialect.hear(
            "inference",
            br#"{"data_output":["*"],"stream_output":[]}"#,
            false,
            Instant::now(),
        );
        assert_eq!((heard.taken, heard.sends_back), (true, Some(false)));
        let (_, said) = read(&dialect.tell(News::Result(&result(0, 1))));
        assert!(!said["serialized_output_data"].is_null());
        let heard = dialect.hear(
            "inference",
            br#"{"stream_output":["boxes"],"data_output":null}"#,
            false,
            Instant::now(),
        );
        assert_eq!(heard.sends_back, Some(true));
        assert_eq!(dialect.outputs, Outputs::All);
    }

    #[test]
    fn only_who_gets_every_frame_is_waited_for() {
        let ack = br#"{"ack":12}"#;
        let mut every = dialect(json!({ "webrtc_realtime_processing": false }));
        assert_eq!(
            every
                .hear("inference", ack, false, Instant::now())
                .acknowledged,
            Some(12)
        );
        let none = every.hear("inference", br#"{"ack":0}"#, false, Instant::now());
        assert_eq!((none.acknowledged, none.taken), (None, true));
        let mut newest = dialect(json!({}));
        assert_eq!(
            newest
                .hear("inference", ack, false, Instant::now())
                .acknowledged,
            None
        );
    }

    #[test]
    fn control_of_the_wrong_shape_is_answered_and_changes_nothing() {
        let mut dialect = dialect(json!({ "data_output": ["*"] }));
        for wrong in [
            r#"{"ack":"abc"}"#,
            r#"{"ack":-1}"#,
            r#"{"data_output":"predictions"}"#,
            r#"{"stream_output":[7]}"#,
        ] {
            let heard = dialect.hear("inference", wrong.as_bytes(), false, Instant::now());
            let (_, said) = read(&heard.answers);
            assert!(said["errors"][0].as_str().unwrap().contains("is right"));
            assert_eq!((heard.acknowledged, heard.sends_back), (None, None));
        }
        for other in ["[]", "7", "no json", "\u{0}", "{}"] {
            let heard = dialect.hear("inference", other.as_bytes(), false, Instant::now());
            assert_eq!(heard, Heard::default(), "{other}");
        }
        assert_eq!(
            dialect.hear("inference", b"\xff\xfe", false, Instant::now()),
            Heard::default()
        );
        assert_eq!(dialect.outputs, Outputs::All);
    }

    #[test]
    fn the_end_is_told_under_the_next_number() {
        let mut dialect = dialect(json!({}));
        dialect.tell(News::Result(&result(0, 1)));
        for (reason, termination) in [
            (EndReason::SourceEnded, json!(null)),
            (EndReason::TimeLimit, json!("timeout_reached")),
            (EndReason::ServerShutdown, json!("server-shutdown")),
        ] {
            let (id, said) = read(&dialect.tell(News::Over {
                reason,
                detail: None,
            }));
            assert_eq!((id, &said["video_metadata"]["frame_id"]), (2, &json!(1)));
            assert_eq!(said["processing_complete"], true);
            assert_eq!(said["termination_reason"], termination);
        }
    }

    #[test]
    fn it_talks_on_the_channel_that_opened_last_whatever_its_label() {
        let mut dialect = dialect(json!({}));
        for (label, talks_on) in [
            ("inference", "inference"),
            (UPLOAD, "inference"),
            ("x", "x"),
        ] {
            dialect.tell(News::Channel(label));
            assert_eq!(dialect.channel().as_deref(), Some(talks_on));
        }
    }
}
