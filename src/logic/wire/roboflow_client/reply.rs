//! What a server replies to the request for a session.

use serde_json::{Map, Value};

/// A longer body than this is not looked into.
const MAX_BODY: usize = 1 << 20;
/// Characters of a refusal.
const MAX_TEXT: usize = 600;
/// Fields named in one.
const MAX_FIELDS: usize = 4;
/// So much of a key's beginning gives away that it is one.
const PREFIX: usize = 8;
const HIDDEN: &str = "***";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub sdp: String,
    /// Names the session where the server has pipelines.
    pub pipeline_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the answer is no JSON object")]
    NotAnObject,
    #[error("the answer has no \"sdp\"")]
    NoSdp,
    #[error("the \"sdp\" of the answer is no text")]
    SdpNotText,
    #[error("the answer is of another type than \"answer\"")]
    OtherType,
}

/// Reads the body of a success. A type that is not said is taken for the right one.
pub fn answer(body: &[u8]) -> Result<Answer, AnswerError> {
    let fields: Map<String, Value> = within(body)
        .and_then(|body| serde_json::from_slice(body).ok())
        .ok_or(AnswerError::NotAnObject)?;
    if fields.get("type").is_some_and(|kind| kind != "answer") {
        return Err(AnswerError::OtherType);
    }
    let sdp = match fields.get("sdp") {
        None | Some(Value::Null) => return Err(AnswerError::NoSdp),
        Some(Value::String(sdp)) => sdp.clone(),
        Some(_) => return Err(AnswerError::SdpNotText),
    };
    let id = fields.get("context").and_then(|c| c.get("pipeline_id"));
    Ok(Answer {
        sdp,
        pipeline_id: id.and_then(Value::as_str).map(str::to_owned),
    })
}

/// What went wrong, for who has to mend it. `hide`: the API key, which servers repeat.
pub fn refusal(status: u16, body: &[u8], hide: Option<&str>) -> String {
    let why = match status {
        400 => "the server refuses the request",
        401 => "the server does not accept the API key",
        402 => "the account has no credits left",
        403 => "the API key gives no right to this workflow",
        404 => {
            "not found; it may be that the workspace or the workflow's id is misspelt, that the workflow or its version \
             does not exist, that the API key is of another workspace, or that this is no inference server or one without WebRTC"
        }
        422 => "the server cannot read the request",
        423 => "the account is paused",
        429 => "the workspace has all the sessions it may have",
        504 => "the server got no answer from what it asks in turn",
        500..=599 => {
            "the server failed; it may be that it cannot reach the video or does not take the offer"
        }
        _ => "the server does not answer the request as it should",
    };
    let mut text = format!("{why} (HTTP {status})");
    if let Some(said) = within(body).and_then(said) {
        text = format!("{text}: {said}");
    }
    let text = hidden(text, hide.unwrap_or_default());
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let text = words.join(" ");
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn within(body: &[u8]) -> Option<&[u8]> {
    Some(body).filter(|body| body.len() <= MAX_BODY)
}

/// The server's own words.
fn said(body: &[u8]) -> Option<String> {
    let fields: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(fields) => fields,
        // A page says nothing that is worth a line.
        Err(_) => {
            let text = str::from_utf8(body).ok()?.trim();
            return Some(text.to_owned()).filter(|text| !text.is_empty() && !text.contains('<'));
        }
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let mut said: Vec<String> = ["message", "inner_error_message", "detail", "error"]
        .into_iter()
        .filter_map(|name| text(name).map(str::to_owned))
        .filter(|text| !text.is_empty())
        .collect();
    said.dedup();
    let details = fields.get("detail").and_then(Value::as_array);
    said.extend(
        details
            .iter()
            .copied()
            .flatten()
            .take(MAX_FIELDS)
            .map(field),
    );
    Some(said.join("; ")).filter(|said| !said.is_empty())
}

/// Which field it is and what is wrong with it; never what was in it.
fn field(detail: &Value) -> String {
    let path = detail.get("loc").and_then(Value::as_array);
    let path: Vec<_> = path
        .iter()
        .copied()
        .flatten()
        .map(|segment| match segment {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        })
        .skip_while(|segment| segment == "body")
        .collect();
    let problem = detail.get("msg").and_then(Value::as_str);
    let problem = problem.unwrap_or("not as it should be");
    match path.as_slice() {
        [] => problem.to_owned(),
        path => format!("{}: {problem}", path.join(".")),
    }
}

/// Without the key, whole or cut, and without what is given for one in an address.
fn hidden(text: String, key: &str) -> String {
    let mut text = text;
    if !key.is_empty() {
        text = text.replace(key, HIDDEN);
        if let Some((end, _)) = key.char_indices().nth(PREFIX) {
            text = blot(&text, &key[..end], "");
        }
    }
    blot(&text, "api_key=", "api_key=")
}

/// Hides the word that begins with, or follows on, each `mark`.
fn blot(text: &str, mark: &str, kept: &str) -> String {
    let mut pieces = text.split(mark);
    let mut blotted = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '%' | '*');
        blotted.push_str(kept);
        blotted.push_str(HIDDEN);
        blotted.push_str(piece.trim_start_matches(is_of_word));
    }
    blotted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_has_its_description_and_may_name_the_session() {
        let body = br#"{"status":"success","context":{"request_id":null,"pipeline_id":"p"},"sdp":"v=0","type":"answer"}"#;
        let answered = answer(body).unwrap();
        assert_eq!(answered.sdp, "v=0");
        assert_eq!(answered.pipeline_id.as_deref(), Some("p"));
        let least = answer(br#"{"sdp":"v=0"}"#).unwrap();
        assert_eq!(least.pipeline_id, None);
    }

    #[test]
    fn a_success_that_is_no_answer_is_named() {
        for (body, error) in [
            ("", AnswerError::NotAnObject),
            ("[]", AnswerError::NotAnObject),
            ("<html>", AnswerError::NotAnObject),
            (r#"{"type":"answer"}"#, AnswerError::NoSdp),
            (r#"{"sdp":null,"type":"answer"}"#, AnswerError::NoSdp),
            (r#"{"sdp":7,"type":"answer"}"#, AnswerError::SdpNotText),
            (r#"{"sdp":"v=0","type":"offer"}"#, AnswerError::OtherType),
            (r#"{"sdp":"v=0","type":7}"#, AnswerError::OtherType),
        ] {
            assert_eq!(answer(body.as_bytes()), Err(error), "{body}");
        }
    }

    #[test]
    fn fields_that_are_wrong_are_named_without_what_is_in_them() {
        let detail = |loc: Value, msg: &str| json!({ "type": "missing", "loc": loc, "msg": msg, "input": "secret" });
        let body = json!({ "detail": [
            detail(json!(["body", "workflow_configuration", "type"]), "Field required"),
            detail(json!(["body", "data_output", 0]), "Input should be a valid string"),
            { "loc": 7 }, "text", detail(json!([]), "fifth"),
        ] });
        assert_eq!(
            refusal(422, body.to_string().as_bytes(), None),
            "the server cannot read the request (HTTP 422): workflow_configuration.type: Field required; \
             data_output.0: Input should be a valid string; not as it should be; not as it should be"
        );
    }

    #[test]
    fn the_servers_words_follow_ours() {
        let body = br#"{"message":"Could not parse","error_type":"WorkflowSyntaxError","inner_error_message":"no such\n block"}"#;
        assert_eq!(
            refusal(400, body, None),
            "the server refuses the request (HTTP 400): Could not parse; no such block"
        );
        let text = refusal(404, br#"{"detail":"Not Found"}"#, None);
        for part in ["workspace", "API key", "WebRTC", "(HTTP 404): Not Found"] {
            assert!(text.contains(part), "{text}");
        }
        for (status, part) in [
            (401, "key"),
            (402, "credits"),
            (403, "right"),
            (423, "paused"),
            (429, "sessions"),
            (500, "failed"),
            (504, "no answer"),
            (302, "HTTP 302"),
        ] {
            let text = refusal(status, b"", None);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_page_of_html_and_what_is_no_text_are_left_out() {
        for body in [
            &b"<html>502</html>"[..],
            b"\xff\xfe",
            b"  ",
            &[b'a'; MAX_BODY + 1],
        ] {
            assert!(refusal(502, body, None).ends_with("(HTTP 502)"));
        }
        assert!(refusal(502, b"upstream down", None).ends_with(": upstream down"));
    }

    #[test]
    fn the_key_is_hidden_whole_and_cut() {
        let key = "rf_AbCdEfGhIjKl0123";
        for said in [
            format!("bad key {key}!"),
            format!("GET https://api/x?api_key={key}&n=1"),
            format!("key {}... is bad", &key[..10]),
            "GET https://api/x?api_key=another1&n=1".to_owned(),
        ] {
            let body = json!({ "message": said }).to_string();
            let text = refusal(401, body.as_bytes(), Some(key));
            assert!(
                !text.contains("rf_AbCdE") && !text.contains("another"),
                "{text}"
            );
            assert!(text.contains(HIDDEN), "{text}");
        }
        assert!(!refusal(401, b"plain", Some("")).contains(HIDDEN));
    }

    #[test]
    fn a_key_at_the_cut_does_not_show_its_beginning() {
        let key = "abcdefghijklmnopqrstuvwxyz";
        for length in MAX_TEXT - 100..MAX_TEXT {
            let said = format!("{}{key}", "x".repeat(length));
            let text = refusal(400, said.as_bytes(), Some(key));
            assert!(text.chars().count() <= MAX_TEXT + 1 && !text.contains("abc"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic_or_long(status: u16, body: Vec<u8>, text in ".*", key in ".*") {
            let _ = answer(&body);
            for body in [&body, text.as_bytes(), json!({ "message": text }).to_string().as_bytes()] {
                let told = refusal(status, body, Some(&key));
                proptest::prop_assert!(told.chars().count() <= MAX_TEXT + 1);
            }
        }
    }
}
