//! The Roboflow door: `inference_sdk` with another `api_url`.
//!
//! `POST /initialise_webrtc_worker` → `{"sdp","type",…}`, complete both ways; the rest is said on the data channel. The
//! workflow's id names a chain in the folder of property `workflows`; its parameters are the chain's arguments.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use axum::{Extension, Router};
use jiff::tz::TimeZone;
use serde_json::json;

use super::http::{Admitted, authorization};
use super::{Host, Remote};
use crate::logic::media::Media;
use crate::logic::registry::Refused;
use crate::logic::wire::pull::{Kind, Pull, PullError};
use crate::logic::wire::roboflow::{Request, Roboflow, Wanted, answered, api_key};
use crate::peer::agreement::{Agreement, VideoSource, Visitor};
use crate::peer::args::{Args, from_json};
use crate::peer::chain::Chain;
use crate::peer::session::Refusal;
use crate::peer::supply::Server;

/// Open ones: the SDK sends the token as its `api_key`.
pub fn routes() -> Router<Host> {
    Router::new().route("/initialise_webrtc_worker", post(initialise))
}

async fn initialise(
    State(host): State<Host>,
    remote: Remote,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(problem) = host.admit("roboflow", admitted, api_key(&body).as_deref()) {
        return problem.into_response();
    }
    let request = match Request::parse(&body) {
        Ok(request) => request,
        Err(error) => {
            let text = error.to_string();
            host.session
                .say_rejected("roboflow", None, "invalid-json", &text);
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(error.detail())).into_response();
        }
    };
    let agreement = match agree(&host, &request).await {
        Ok(agreement) => agreement,
        Err(problem) => {
            host.session
                .say_rejected("roboflow", None, "invalid-configuration", &problem.message);
            return problem.into_response();
        }
    };
    let visitor = Visitor {
        door: "roboflow",
        external_id: None,
        remote: remote.0,
        data: String::new(),
        authorization: authorization(&headers),
    };
    let sdp = &request.webrtc_offer.sdp;
    match host.session.offer(visitor, agreement, sdp).await {
        Ok(answer) => Json(answered(answer.id.as_str(), &answer.sdp)).into_response(),
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

/// What can be done of what is asked for.
async fn agree(host: &Host, request: &Request) -> Result<Agreement, Problem> {
    let source = source(host, request).await?;
    if request.processing_timeout == Some(0) {
        return Err(Problem::configuration(
            "processing_timeout: 1 second is the least",
        ));
    }
    let own = match request.workflow() {
        Some(name) if !host.rights.workflows.is_empty() => match host.rights.workflows.get(name) {
            Some(chain) => Some(chain.clone()),
            None => return Err(Problem::unknown_workflow(name)),
        },
        _ => None,
    };
    let chain = own.clone().or_else(|| host.session.chain(Media::Video));
    if source != VideoSource::Offer && chain.is_none() {
        let why = "a file or a camera is played to a chain, and this server has none";
        return Err(Problem::configuration(why));
    }
    let has_picture = chain
        .as_ref()
        .is_some_and(|chain| chain.returns(Media::Video) == Some(Media::Video));
    let sends_back = match request.wants_video() {
        Wanted::Not => false,
        Wanted::IfThereIsAny => true,
        Wanted::Named(_) if has_picture => true,
        Wanted::Named(name) => {
            let why = format!("stream_output: {name:?} is no picture: the chain sends none back");
            return Err(Problem::configuration(why));
        }
    };
    // One way is enough, and pictures by name are asked for where no line for video is.
    let pictures = !sends_back && has_picture && request.wants_outputs_by_name();
    Ok(Agreement {
        dialect: Mutex::new(Box::new(Roboflow::new(request, TimeZone::system()))),
        video_chain: own,
        args: arguments(host, request, chain.as_ref())?,
        time_limit: request.processing_timeout.map(Duration::from_secs),
        sends_back: sends_back && !pictures,
        // Behind a pad others would wait with it.
        lossless: !request.is_realtime() && chain.is_some(),
        pictures,
        source,
        ..Agreement::default()
    })
}

async fn source(host: &Host, request: &Request) -> Result<VideoSource, Problem> {
    let asked = [
        ("rtsp_url", &request.rtsp_url, Kind::Rtsp),
        ("mjpeg_url", &request.mjpeg_url, Kind::Mjpeg),
    ];
    for (field, url, kind) in asked {
        if let Some(url) = url {
            let server = pull(host, url, kind).await;
            let refused = |error| Problem::configuration(format!("{field}: {error}"));
            return server.map(VideoSource::Pull).map_err(refused);
        }
    }
    Ok(match request.video_file_upload {
        true => VideoSource::Upload(host.rights.max_upload),
        false => VideoSource::Offer,
    })
}

async fn pull(host: &Host, url: &str, kind: Kind) -> Result<Server, PullError> {
    let pull = Pull::parse(url, kind)?;
    host.rights.allow_pull.host(&pull)?;
    let found = tokio::net::lookup_host((pull.host.as_str(), pull.port)).await;
    // A name that is not known has no address.
    let addresses = found.into_iter().flatten().map(|address| address.ip());
    let address = host.rights.allow_pull.address(&pull.host, addresses)?;
    Ok(Server {
        kind,
        uri: pull.uri(address),
        user: pull.user,
    })
}

fn arguments(
    host: &Host,
    request: &Request,
    chain: Option<&Chain>,
) -> Result<Option<gst::Structure>, Problem> {
    let Some(parameters) = request.parameters().filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let bad = |error: String| Problem::configuration(format!("workflows_parameters: {error}"));
    let args =
        from_json(parameters, &host.rights.client_args).map_err(|error| bad(error.to_string()))?;
    // What it will be, to know whether the arguments fit.
    let made = chain.map(Chain::make).transpose();
    let made = made.map_err(|error| bad(error.to_string()))?;
    Args::read(&args)
        .check(made.as_slice())
        .map_err(|error| bad(error.to_string()))?;
    Ok(Some(args))
}

/// An error as the SDK shows it.
struct Problem {
    status: StatusCode,
    error_type: &'static str,
    message: String,
}

impl Problem {
    fn configuration(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error_type: "WebRTCConfigurationError",
            message: message.into(),
        }
    }

    fn unknown_workflow(name: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self {
            status: StatusCode::NOT_FOUND,
            error_type: "WorkflowNotFoundError",
            message: format!(
                "there is no workflow {name:?} here: no such file in the folder of workflows"
            ),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, error_type) = match &refusal {
            Refusal::Place(Refused::Full(_) | Refused::Leaving(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "WorkspaceStreamQuotaError")
            }
            Refusal::NotAuthorized => (StatusCode::FORBIDDEN, "ForbiddenError"),
            Refusal::Sdp(_) | Refusal::Call(_) => {
                (StatusCode::BAD_REQUEST, "WebRTCConfigurationError")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        };
        Self {
            status,
            error_type,
            message: refusal.to_string(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "message": self.message, "error_type": self.error_type });
        (self.status, Json(body)).into_response()
    }
}
