//! What servers write in bodies: answers, and why there is none.

use serde_json::Value;

use super::http::Reply;
use super::{DialError, external_id, shown};

/// Longest explanation of a server's that is told.
const MOST_TOLD: usize = 300;

/// An answer in JSON, `{"sdp","type":"answer"}`.
#[derive(Debug, PartialEq)]
pub struct JsonAnswer {
    pub sdp: String,
    pub rest: Value,
}

impl JsonAnswer {
    pub fn of(reply: &Reply) -> Result<Self, DialError> {
        Self::parse(&reply.body).map_err(|cause| DialError::NotAnAnswer {
            url: shown(&reply.url),
            cause: cause.into(),
        })
    }

    /// What is wrong with a body that is none is said without quoting it.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let mut rest: Value = serde_json::from_slice(body).map_err(|_| "it is no JSON")?;
        let Some(fields) = rest.as_object_mut() else {
            return Err("it is no JSON object");
        };
        match fields.get("type") {
            Some(Value::String(kind)) if kind == "answer" => {}
            Some(_) => return Err("its type is not \"answer\""),
            None => return Err("it has no type"),
        }
        match fields.remove("sdp") {
            Some(Value::String(sdp)) => {
                check_sdp(&sdp)?;
                Ok(Self { sdp, rest })
            }
            Some(_) => Err("its sdp is no text"),
            None => Err("it has no sdp"),
        }
    }

    /// A field that names the session.
    pub fn id(&self, field: &str) -> Option<String> {
        external_id(self.rest.get(field)?.as_str()?)
    }
}

/// FastRTC answers with an empty description to one that it cannot read.
pub fn check_sdp(sdp: &str) -> Result<(), &'static str> {
    match sdp.trim_start() {
        "" => Err("its sdp is empty"),
        text if text.starts_with("v=") => Ok(()),
        _ => Err("its sdp is no session description"),
    }
}

/// Why a server declines, from the status and what it wrote; as long as that is, so that secrets are whole in it.
pub fn explanation(code: u16, body: &[u8]) -> String {
    let name = reqwest::StatusCode::from_u16(code).ok();
    let name = name.and_then(|code| code.canonical_reason());
    let name = name.unwrap_or("a status of the server's own");
    match said(body) {
        text if text.is_empty() => name.to_owned(),
        text => format!("{name}: {text}"),
    }
}

/// What of a body is meant for people: a text of JSON's usual fields, FastAPI's list of what is wrong where, or a plain
/// text. A page says nothing.
fn said(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return match text.trim_start().starts_with('<') {
            true => String::new(),
            false => text.trim().to_owned(),
        };
    };
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    if let Some(wrong) = value.get("detail").and_then(Value::as_array) {
        let wrong: Vec<_> = wrong.iter().take(4).map(wrong_field).collect();
        return wrong.join("; ");
    }
    let fields = ["message", "detail", "error", "title"].iter();
    let mut texts = fields.filter_map(|name| value.get(name)?.as_str());
    texts.next().unwrap_or_default().to_owned()
}

/// The place and the problem; what was sent is in it too, and is not repeated.
fn wrong_field(wrong: &Value) -> String {
    let place = wrong.get("loc").and_then(Value::as_array);
    let place = place.into_iter().flatten().take(8);
    let place: Vec<_> = place.filter_map(Value::as_str).collect();
    let problem = wrong.get("msg").and_then(Value::as_str);
    format!("{}: {}", place.join("."), problem.unwrap_or_default())
}

/// In one line, of no more than so many characters.
pub fn plain(text: &str) -> String {
    let text = text.trim();
    let mut told: String = text
        .chars()
        .take(MOST_TOLD)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MOST_TOLD).is_some() {
        told.push('…');
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_what_comes_with_it() {
        let answer = JsonAnswer::parse(br#"{"sdp":"v=0\r\n","type":"answer","pc_id":"7"}"#);
        let answer = answer.unwrap();
        assert_eq!(answer.sdp, "v=0\r\n");
        assert_eq!(answer.id("pc_id").as_deref(), Some("7"));
        assert_eq!(answer.id("n"), None);
        let id = "a".repeat(10_000);
        let long = format!(r#"{{"sdp":"v=0","type":"answer","pc_id":"{id}"}}"#);
        assert_eq!(
            JsonAnswer::parse(long.as_bytes()).unwrap().id("pc_id"),
            None
        );
    }

    #[test]
    fn whatever_else_comes_is_named() {
        for (body, problem) in [
            ("<html>", "it is no JSON"),
            ("[]", "it is no JSON object"),
            ("{}", "it has no type"),
            (
                r#"{"type":"offer","sdp":"v=0"}"#,
                "its type is not \"answer\"",
            ),
            (r#"{"type":"answer"}"#, "it has no sdp"),
            (r#"{"type":"answer","sdp":7}"#, "its sdp is no text"),
            (r#"{"type":"answer","sdp":""}"#, "its sdp is empty"),
            (
                r#"{"type":"answer","sdp":"hello"}"#,
                "its sdp is no session description",
            ),
        ] {
            assert_eq!(JsonAnswer::parse(body.as_bytes()), Err(problem), "{body}");
        }
        assert!(JsonAnswer::parse(&[0xff; 64]).is_err());
        assert!(JsonAnswer::parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn why_a_server_declines_is_told_in_one_short_line() {
        for (code, body, text) in [
            (404, "", "Not Found"),
            (404, "<!doctype html><p>nothing", "Not Found"),
            (
                400,
                r#"{"message":"no such\noutput"}"#,
                "Bad Request: no such output",
            ),
            (400, r#"{"detail":"so it is"}"#, "Bad Request: so it is"),
            (
                422,
                r#"{"detail":[{"loc":["body","type"],"msg":"Field required","input":{"key":"s"}}]}"#,
                "Unprocessable Entity: body.type: Field required",
            ),
            (503, "busy", "Service Unavailable: busy"),
            (799, "[1]", "a status of the server's own"),
        ] {
            assert_eq!(plain(&explanation(code, body.as_bytes())), text);
        }
        let long = "é".repeat(100_000);
        let told = plain(&explanation(500, long.as_bytes()));
        assert!(told.chars().count() < 400);
    }
}
