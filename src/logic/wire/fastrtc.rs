//! FastRTC's dialect: what its front end posts, what it is answered, and what is said on the channel `text`.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Dialect, Heard, News, Payload, Pieces};
use super::object;
use crate::logic::connection::EndReason;

/// Longest id that a client may give itself.
const MAX_ID: usize = 128;
/// Of a text that is acknowledged, so many characters are repeated.
const ECHO: usize = 256;

/// What a client posts to `/webrtc/offer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub webrtc_id: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Offer {
        sdp: String,
    },
    /// Empty where there are no more.
    Candidate(String),
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Where, and what would be right: as FastAPI says it.
    #[error("{}: {problem}", at.join("."))]
    Shape {
        at: Vec<&'static str>,
        kind: &'static str,
        problem: String,
    },
    #[error("type is {0:?}; \"offer\" and \"ice-candidate\" are right")]
    Type(String),
}

impl RequestError {
    /// The body of the answer, which has status 422.
    pub fn detail(&self) -> Value {
        let (at, kind) = match self {
            Self::Shape { at, kind, .. } => (at.clone(), *kind),
            Self::Type(_) => (vec!["body", "type"], "value_error"),
        };
        json!({ "detail": [{ "type": kind, "loc": at, "msg": self.to_string() }] })
    }
}

#[derive(Deserialize)]
struct Body {
    sdp: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    webrtc_id: Option<String>,
    #[serde(default)]
    candidate: Value,
}

impl Request {
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let body: Body = object::from_slice(body).map_err(|error| RequestError::Shape {
            at: vec!["body"],
            kind: "json_invalid",
            problem: error.to_string(),
        })?;
        let missing = |field| RequestError::Shape {
            at: vec!["body", field],
            kind: "missing",
            problem: "Field required".into(),
        };
        let webrtc_id = checked_id(body.webrtc_id.ok_or_else(|| missing("webrtc_id"))?)?;
        let kind = body.kind.ok_or_else(|| missing("type"))?;
        let what = match kind.as_str() {
            "offer" => What::Offer {
                sdp: body.sdp.ok_or_else(|| missing("sdp"))?,
            },
            "ice-candidate" => What::Candidate(candidate(&body.candidate)?),
            other => return Err(RequestError::Type(other.chars().take(24).collect())),
        };
        Ok(Self { webrtc_id, what })
    }
}

/// A candidate as browsers write it: an object, or nothing where there are no more.
fn candidate(value: &Value) -> Result<String, RequestError> {
    let text = match value {
        Value::Object(fields) => fields.get("candidate").unwrap_or(&Value::Null),
        other => other,
    };
    match text {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(RequestError::Shape {
            at: vec!["body", "candidate"],
            kind: "dict_type",
            problem: "{\"candidate\": \"candidate:…\"} or null is right".into(),
        }),
    }
}

fn checked_id(id: String) -> Result<String, RequestError> {
    let length = id.chars().count();
    if (1..=MAX_ID).contains(&length) && !id.chars().any(char::is_control) {
        return Ok(id);
    }
    Err(RequestError::Shape {
        at: vec!["body", "webrtc_id"],
        kind: "value_error",
        problem: format!("1 to {MAX_ID} characters without control characters are right"),
    })
}

/// Arguments that a page posts for its connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    pub webrtc_id: String,
    pub fields: serde_json::Map<String, Value>,
}

impl Inputs {
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        struct Body {
            webrtc_id: String,
            #[serde(flatten)]
            fields: serde_json::Map<String, Value>,
        }
        let body: Body = object::from_slice(body).map_err(|error| RequestError::Shape {
            at: vec!["body"],
            kind: "json_invalid",
            problem: error.to_string(),
        })?;
        Ok(Self {
            webrtc_id: checked_id(body.webrtc_id)?,
            fields: body.fields,
        })
    }
}

/// An answer to what cannot be done, which has status 200.
pub fn failed(error: &str, limit: Option<u32>) -> Value {
    let mut meta = json!({ "error": error });
    if let Some(limit) = limit {
        meta["limit"] = limit.into();
    }
    json!({ "status": "failed", "meta": meta })
}

/// What FastRTC's front end reads on its channel.
#[derive(Debug, Default)]
pub struct FastRtc;

fn message(kind: &str, data: Value) -> Pieces {
    vec![Payload::json(&json!({ "type": kind, "data": data }))]
}

/// Its pages read `message`, its documentation says `data`.
fn complaint(kind: &str, text: &str) -> Pieces {
    vec![Payload::json(
        &json!({ "type": kind, "message": text, "data": text }),
    )]
}

impl Dialect for FastRtc {
    fn tell(&mut self, news: News<'_>) -> Vec<Pieces> {
        match news {
            News::Channel(_) => vec![message("send_input", json!([]))],
            // A page fetches `/outputs`; one that reads the channel has it already.
            News::Result(result) | News::Picture { result, .. } => {
                // It is JSON already.
                let text = format!(r#"{{"type":"fetch_output","data":[{result}]}}"#);
                vec![vec![Payload::Text(text)]]
            }
            News::Trouble(text) => vec![complaint("warning", text)],
            News::Playing(true) => Vec::new(),
            News::Playing(false) => vec![message("update_connection", "closed".into())],
            News::Over { reason, detail } => {
                let text = detail.unwrap_or(reason.as_str());
                let failed = reason == EndReason::HandlerError;
                let error = failed.then(|| complaint("error", text));
                error
                    .into_iter()
                    .chain([
                        message("end_stream", text.into()),
                        message("update_connection", "closed".into()),
                    ])
                    .collect()
            }
        }
    }

    fn hear(&mut self, _label: &str, data: &[u8], binary: bool, _now: Instant) -> Heard {
        let text = match std::str::from_utf8(data) {
            Ok(text) if !binary => text,
            _ => return Heard::default(),
        };
        let repeated: String = text.chars().take(ECHO).collect();
        Heard {
            answers: vec![message(
                "log",
                format!("Server received: {repeated}").into(),
            )],
            taken: text == "handshake",
            ..Heard::default()
        }
    }

    fn channel(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_and_candidates_are_read_as_its_front_end_writes_them() {
        let request = |text: &str| Request::parse(text.as_bytes()).unwrap();
        let offer = request(r#"{"sdp":"v=0","type":"offer","webrtc_id":"abc","candidate":null}"#);
        assert_eq!(offer.webrtc_id, "abc");
        assert_eq!(offer.what, What::Offer { sdp: "v=0".into() });
        let line = "candidate:1 1 udp 1 192.0.2.1 9 typ host";
        for (candidate, read) in [
            (
                json!({ "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 }),
                line,
            ),
            (json!({ "candidate": "" }), ""),
            (json!({}), ""),
            (Value::Null, ""),
        ] {
            let body =
                json!({ "type": "ice-candidate", "webrtc_id": "abc", "candidate": candidate });
            assert_eq!(
                request(&body.to_string()).what,
                What::Candidate(read.into())
            );
        }
        let none = request(r#"{"type":"ice-candidate","webrtc_id":"abc"}"#);
        assert_eq!(none.what, What::Candidate(String::new()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_as_fastapi_names_it() {
        for (body, at) in [
            ("no json", json!(["body"])),
            ("[]", json!(["body"])),
            (r#"{"type":"offer","sdp":""}"#, json!(["body", "webrtc_id"])),
            (
                r#"{"type":"offer","sdp":"","webrtc_id":""}"#,
                json!(["body", "webrtc_id"]),
            ),
            (r#"{"webrtc_id":"a","sdp":""}"#, json!(["body", "type"])),
            (
                r#"{"webrtc_id":"a","type":"offer"}"#,
                json!(["body", "sdp"]),
            ),
            (
                r#"{"webrtc_id":"a","type":"hello"}"#,
                json!(["body", "type"]),
            ),
            (
                r#"{"webrtc_id":"a","type":"ice-candidate","candidate":7}"#,
                json!(["body", "candidate"]),
            ),
        ] {
            let error = Request::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.detail()["detail"][0]["loc"], at, "{body}");
        }
    }

    #[test]
    fn whatever_comes_is_answered_and_only_the_handshake_is_kept_from_the_application() {
        let log = |text: &str| message("log", format!("Server received: {text}").into());
        let heard = FastRtc.hear("text", b"handshake", false, Instant::now());
        assert_eq!((heard.answers, heard.taken), (vec![log("handshake")], true));
        let heard = FastRtc.hear("text", b"hello", false, Instant::now());
        assert_eq!((heard.answers, heard.taken), (vec![log("hello")], false));
        assert_eq!(
            FastRtc.hear("text", b"\xff", false, Instant::now()),
            Heard::default()
        );
        let long = "é".repeat(10_000);
        let heard = FastRtc.hear("text", long.as_bytes(), false, Instant::now());
        assert!(heard.answers[0][0].as_bytes().len() < 1_000);
    }

    #[test]
    fn an_end_is_said_in_its_words() {
        let said = FastRtc.tell(News::Over {
            reason: EndReason::HandlerError,
            detail: Some("no such model"),
        });
        let types: Vec<String> = said
            .iter()
            .map(|pieces| {
                let value: Value = serde_json::from_slice(pieces[0].as_bytes()).unwrap();
                value["type"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(types, ["error", "end_stream", "update_connection"]);
        let error: Value = serde_json::from_slice(said[0][0].as_bytes()).unwrap();
        assert_eq!(error["message"], "no such model");
        assert_eq!(error["data"], "no such model");
    }
}
