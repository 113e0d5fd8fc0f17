//! What `inference_sdk` posts, and what is wrong with it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Outputs;
use crate::logic::wire::object;

/// What a client posts; fields that are not here mean nothing to us.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub api_key: Option<String>,
    #[serde(deserialize_with = "object::deserialize")]
    pub workflow_configuration: Workflow,
    #[serde(deserialize_with = "object::deserialize")]
    pub webrtc_offer: Offer,
    /// Newest frame first, or every frame.
    #[serde(default)]
    pub webrtc_realtime_processing: Option<bool>,
    /// Which picture is sent back: absent for the first there is, only empty names for none.
    #[serde(default)]
    pub stream_output: Option<Vec<Option<String>>>,
    /// Which outputs are told: absent or empty for none, `*` for all.
    #[serde(default)]
    pub data_output: Option<Vec<String>>,
    #[serde(default)]
    pub declared_fps: Option<f64>,
    #[serde(default)]
    pub rtsp_url: Option<String>,
    #[serde(default)]
    pub mjpeg_url: Option<String>,
    /// Whether the video is a file that comes over a channel.
    #[serde(default)]
    pub video_file_upload: bool,
    /// Seconds.
    #[serde(default)]
    pub processing_timeout: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Workflow {
    #[serde(default)]
    workflow_specification: Option<Map<String, Value>>,
    #[serde(default)]
    workflow_id: Option<String>,
    #[serde(default)]
    workflows_parameters: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Offer {
    #[serde(rename = "type")]
    pub kind: String,
    pub sdp: String,
}

/// The key in a request, whatever else is in it.
pub fn api_key(body: &[u8]) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    Some(fields.get("api_key")?.as_str()?.to_owned())
}

/// What is wrong with a request, and where: it is answered with status 422.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", at.join("."))]
pub struct RequestError {
    at: Vec<String>,
    problem: String,
}

impl RequestError {
    pub fn detail(&self) -> Value {
        json!({ "detail": [{ "type": "value_error", "loc": self.at, "msg": self.problem }] })
    }
}

impl Request {
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let fields: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| RequestError {
                at: vec!["body".into()],
                problem: error.to_string(),
            })?;
        let value = Value::Object(fields);
        let request: Self = serde_path_to_error::deserialize(&value).map_err(|error| {
            let path = error.path().iter().map(|segment| segment.to_string());
            RequestError {
                at: std::iter::once("body".into()).chain(path).collect(),
                problem: error.inner().to_string(),
            }
        })?;
        if request.webrtc_offer.kind != "offer" {
            return Err(RequestError {
                at: ["body", "webrtc_offer", "type"].map(str::to_owned).to_vec(),
                problem: "\"offer\" is right".into(),
            });
        }
        Ok(request)
    }

    /// The name by which the workflow is known here.
    pub fn workflow(&self) -> Option<&str> {
        let workflow = &self.workflow_configuration;
        let named = workflow.workflow_specification.as_ref();
        let named = named.and_then(|specification| specification.get("name")?.as_str());
        workflow.workflow_id.as_deref().or(named)
    }

    pub fn parameters(&self) -> Option<&Map<String, Value>> {
        self.workflow_configuration.workflows_parameters.as_ref()
    }

    /// Whether an output by name is asked for, which may be the picture.
    pub fn wants_outputs_by_name(&self) -> bool {
        let names = self.data_output.as_deref().unwrap_or_default();
        matches!(Outputs::of(names), Outputs::Named(_))
    }

    pub fn is_realtime(&self) -> bool {
        self.webrtc_realtime_processing.unwrap_or(true)
    }

    /// Whether the video is wanted back: by name, as it comes, or not at all.
    pub fn wants_video(&self) -> Wanted {
        match &self.stream_output {
            None => Wanted::IfThereIsAny,
            Some(names) => match named(names.iter().flatten()) {
                Some(name) => Wanted::Named(name.to_owned()),
                None => Wanted::Not,
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Not,
    IfThereIsAny,
    Named(String),
}

pub(super) fn named<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    names.find(|name| !name.is_empty()).map(String::as_str)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn request(more: Value) -> Request {
        let mut body = json!({
            "workflow_configuration": { "type": "WorkflowConfiguration", "workflow_id": "shapes" },
            "webrtc_offer": { "type": "offer", "sdp": "v=0" },
            "manual_mode": true,
        });
        let (Value::Object(body), Value::Object(more)) = (&mut body, more) else {
            panic!("objects");
        };
        body.extend(more);
        Request::parse(Value::Object(body.clone()).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_request_says_which_workflow_and_what_is_wanted_back() {
        let asked = request(json!({}));
        assert_eq!(asked.workflow(), Some("shapes"));
        assert!(asked.is_realtime());
        assert_eq!(asked.wants_video(), Wanted::IfThereIsAny);
        for (names, wanted) in [
            (json!([]), Wanted::Not),
            (json!(["", null]), Wanted::Not),
            (json!(["", "boxes"]), Wanted::Named("boxes".into())),
        ] {
            let asked = request(json!({ "stream_output": names }));
            assert_eq!(asked.wants_video(), wanted);
        }
        let inline = json!({ "workflow_specification": { "name": "inline", "steps": [] }, "workflows_parameters": { "a": 1 } });
        let asked = request(json!({ "workflow_configuration": inline }));
        assert_eq!(asked.workflow(), Some("inline"));
        assert_eq!(asked.parameters().unwrap()["a"], 1);
    }

    #[test]
    fn a_request_of_the_wrong_shape_is_refused_by_name() {
        for (body, named) in [
            ("", "EOF"),
            ("[]", "expected a map"),
            (r#"[{},{"type":"offer","sdp":""}]"#, "expected a map"),
            (
                r#"{"workflow_configuration":{},"webrtc_offer":["offer",""]}"#,
                "expected a map",
            ),
            ("{}", "workflow_configuration"),
            (r#"{"workflow_configuration":{}}"#, "webrtc_offer"),
            (
                r#"{"workflow_configuration":{},"webrtc_offer":{"type":"offer","sdp":""},"data_output":"all"}"#,
                "sequence",
            ),
            (
                r#"{"workflow_configuration":{},"webrtc_offer":{"type":"offer","sdp":""},"processing_timeout":-1}"#,
                "-1",
            ),
            (
                r#"{"workflow_configuration":{},"webrtc_offer":{"type":"answer","sdp":""}}"#,
                "offer",
            ),
        ] {
            let error = Request::parse(body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(named), "{body}: {error}");
            assert!(error.detail()["detail"][0]["loc"].is_array());
        }
    }
}
