//! What is posted for a session, and what is said on its data channel.

use serde_json::{Map, Value, json};

use crate::logic::wire::dialect::Payload;

/// A session as it is wanted. It may hold keys and passwords, so it cannot be printed.
#[derive(Clone, PartialEq)]
pub struct Request {
    pub workflow: Workflow,
    /// The workflow's name for the frame.
    pub image_input_name: String,
    pub workflow_parameters: Map<String, Value>,
    /// The picture that comes back as video; empty for none.
    pub stream_output: Vec<String>,
    /// What is told of each frame: empty for the frame's metadata alone, exactly `*` for all but pictures.
    pub data_output: Vec<String>,
    /// Newest frame first, or every frame, each acknowledged.
    pub realtime: bool,
    /// Copied into the metadata.
    pub declared_fps: Option<f64>,
    /// Seconds after which the server ends the session.
    pub processing_timeout: Option<u32>,
    /// Of the hosted service.
    pub requested_plan: Option<String>,
    pub requested_region: Option<String>,
    /// `None` when it goes as a header.
    pub api_key: Option<String>,
    /// For the server's own ICE: `{"iceServers": […]}`, or the list alone.
    pub ice_servers: Option<Value>,
    /// The server fetches its video there.
    pub rtsp_url: Option<String>,
    pub mjpeg_url: Option<String>,
    /// The video is a file that goes over the channel.
    pub upload: bool,
}

/// What is done with each frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Workflow {
    Specification(Value),
    Named {
        workspace: String,
        id: String,
        version: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"*\" leaves pictures out, so it cannot stand beside the picture that comes over the channel: name the outputs"
)]
pub struct AllButPictures;

impl Request {
    /// What a newest-frame session over that workflow needs least.
    pub fn new(workflow: Workflow) -> Self {
        Self {
            workflow,
            image_input_name: "image".into(),
            workflow_parameters: Map::new(),
            stream_output: Vec::new(),
            data_output: Vec::new(),
            realtime: true,
            declared_fps: None,
            processing_timeout: None,
            requested_plan: None,
            requested_region: None,
            api_key: None,
            ice_servers: None,
            rtsp_url: None,
            mjpeg_url: None,
            upload: false,
        }
    }

    /// The picture comes over the channel, in JSON, and there is no video: what an upload without a track asks for.
    pub fn with_pictures_in_channel(mut self) -> Result<Self, AllButPictures> {
        let pictures = std::mem::take(&mut self.stream_output);
        let pictures: Vec<_> = pictures
            .into_iter()
            .filter(|name| !name.is_empty() && !self.data_output.contains(name))
            .collect();
        if !pictures.is_empty() && self.data_output == ["*"] {
            return Err(AllButPictures);
        }
        self.data_output.extend(pictures);
        Ok(self)
    }

    /// What is posted, with an offer that has all its candidates.
    pub fn body(&self, sdp: &str) -> Value {
        let optional = [
            ("api_key", self.api_key.as_deref().map(Value::from)),
            ("webrtc_config", self.ice_servers.clone().map(ice_config)),
            ("declared_fps", self.declared_fps.map(Value::from)),
            (
                "processing_timeout",
                self.processing_timeout.map(Value::from),
            ),
            (
                "requested_plan",
                self.requested_plan.as_deref().map(Value::from),
            ),
            (
                "requested_region",
                self.requested_region.as_deref().map(Value::from),
            ),
            ("rtsp_url", self.rtsp_url.as_deref().map(Value::from)),
            ("mjpeg_url", self.mjpeg_url.as_deref().map(Value::from)),
            (
                "video_file_upload",
                self.upload.then_some(Value::Bool(true)),
            ),
        ];
        let mut body = json!({
            "workflow_configuration": self.configuration(),
            "webrtc_offer": { "type": "offer", "sdp": sdp },
            "webrtc_realtime_processing": self.realtime,
            "stream_output": self.stream_output,
            "data_output": self.data_output,
        });
        for (name, value) in optional {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    fn configuration(&self) -> Value {
        let mut configuration = json!({
            "type": "WorkflowConfiguration",
            "image_input_name": self.image_input_name,
            "workflows_parameters": self.workflow_parameters,
        });
        match &self.workflow {
            Workflow::Specification(specification) => {
                configuration["workflow_specification"] = specification.clone();
            }
            Workflow::Named {
                workspace,
                id,
                version,
            } => {
                configuration["workspace_name"] = workspace.as_str().into();
                configuration["workflow_id"] = id.as_str().into();
                if let Some(version) = version {
                    configuration["workflow_version_id"] = version.as_str().into();
                }
            }
        }
        configuration
    }
}

fn ice_config(servers: Value) -> Value {
    match servers {
        Value::Array(servers) => json!({ "iceServers": servers }),
        config => config,
    }
}

/// All frames up to that one have been taken. It also switches the waiting for it on, so it is for sessions of every frame.
pub fn ack(frame_id: u64) -> Payload {
    Payload::json(&json!({ "ack": frame_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn named() -> Workflow {
        Workflow::Named {
            workspace: "ours".into(),
            id: "shapes".into(),
            version: None,
        }
    }

    #[test]
    fn the_least_is_what_the_server_requires() {
        let body = Request::new(named()).body("v=0");
        assert_eq!(
            body,
            json!({
                "workflow_configuration": { "type": "WorkflowConfiguration", "workspace_name": "ours", "workflow_id": "shapes",
                    "image_input_name": "image", "workflows_parameters": {} },
                "webrtc_offer": { "type": "offer", "sdp": "v=0" },
                "webrtc_realtime_processing": true,
                "stream_output": [],
                "data_output": [],
            })
        );
    }

    #[test]
    fn everything_goes_under_the_name_the_server_reads() {
        let specification = json!({ "version": "1.0", "steps": [] });
        let request = Request {
            workflow_parameters: Map::from_iter([("least".to_owned(), json!(0.5))]),
            image_input_name: "picture".into(),
            stream_output: names(&["boxes"]),
            data_output: names(&["*"]),
            realtime: false,
            declared_fps: Some(25.0),
            processing_timeout: Some(60),
            requested_plan: Some("plan".into()),
            requested_region: Some("eu".into()),
            api_key: Some("key".into()),
            ice_servers: Some(json!([{ "urls": "turn:a" }])),
            rtsp_url: Some("rtsp://a".into()),
            mjpeg_url: Some("http://a".into()),
            upload: true,
            ..Request::new(Workflow::Specification(specification.clone()))
        };
        let body = request.body("v=0");
        let configuration = &body["workflow_configuration"];
        assert_eq!(configuration["workflow_specification"], specification);
        assert_eq!(configuration.get("workflow_id"), None);
        assert_eq!(configuration["image_input_name"], "picture");
        assert_eq!(configuration["workflows_parameters"]["least"], 0.5);
        for (name, value) in [
            ("stream_output", json!(["boxes"])),
            ("data_output", json!(["*"])),
            ("webrtc_realtime_processing", json!(false)),
            ("declared_fps", json!(25.0)),
            ("processing_timeout", json!(60)),
            ("requested_plan", json!("plan")),
            ("requested_region", json!("eu")),
            ("api_key", json!("key")),
            (
                "webrtc_config",
                json!({ "iceServers": [{ "urls": "turn:a" }] }),
            ),
            ("rtsp_url", json!("rtsp://a")),
            ("mjpeg_url", json!("http://a")),
            ("video_file_upload", json!(true)),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
    }

    #[test]
    fn a_configuration_of_ice_goes_as_it_is() {
        let config = json!({ "iceServers": [] });
        let request = Request {
            ice_servers: Some(config.clone()),
            ..Request::new(named())
        };
        assert_eq!(request.body("")["webrtc_config"], config);
    }

    #[test]
    fn pictures_in_the_channel_are_outputs_among_others() {
        let request = Request {
            stream_output: names(&["", "boxes", "crops"]),
            data_output: names(&["predictions", "crops"]),
            ..Request::new(named())
        };
        let request = request.with_pictures_in_channel().unwrap();
        assert_eq!(request.stream_output, names(&[]));
        assert_eq!(
            request.data_output,
            names(&["predictions", "crops", "boxes"])
        );
        let all = Request {
            data_output: names(&["*"]),
            ..Request::new(named())
        };
        let both = Request {
            stream_output: names(&["boxes"]),
            ..all.clone()
        };
        assert_eq!(both.with_pictures_in_channel().err(), Some(AllButPictures));
        let all = all.with_pictures_in_channel().unwrap();
        assert_eq!(all.data_output, names(&["*"]));
    }

    #[test]
    fn an_acknowledgement_has_the_shape_that_servers_survive() {
        assert_eq!(ack(12), Payload::Text(r#"{"ack":12}"#.into()));
    }
}
