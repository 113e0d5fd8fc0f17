//! The FastRTC door: what its front end, and pages written after its documentation, post.
//!
//! `POST /webrtc/offer` takes an offer or, by itself, a candidate, of a client that names itself by `webrtc_id`;
//! candidates may overtake their offer. Refusals have status 200 and `{"status":"failed","meta":{"error",…}}`.
//! `POST /input_hook`, `{"webrtc_id", …}`: the other fields are the connection's arguments, as of `set-args`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::http::authorization;
use super::{Host, Remote};
use crate::logic::registry::Refused;
use crate::logic::wire::fastrtc::{FastRtc, Inputs, Request, RequestError, What, failed};
use crate::peer::agreement::{Agreement, Visitor};
use crate::peer::args::from_json;
use crate::peer::session::Refusal;

pub fn routes() -> Router<Host> {
    Router::new()
        .route("/webrtc/offer", post(offer))
        .route("/input_hook", post(inputs))
}

async fn offer(
    State(host): State<Host>,
    remote: Remote,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = match Request::parse(&body) {
        Ok(request) => request,
        Err(error) => return misshapen(&host, &error),
    };
    let answer = match request.what {
        What::Offer { sdp } => {
            let visitor = Visitor {
                door: "fastrtc",
                external_id: Some(request.webrtc_id),
                remote: remote.0,
                data: String::new(),
                authorization: authorization(&headers),
            };
            let agreement = Agreement {
                dialect: std::sync::Mutex::new(Box::new(FastRtc)),
                ..Agreement::default()
            };
            let answered = host.session.offer(visitor, agreement, &sdp).await;
            answered.map(|answered| json!({ "sdp": answered.sdp, "type": "answer" }))
        }
        What::Candidate(candidate) => {
            let taken = host
                .session
                .candidate(&request.webrtc_id, &candidate, remote.0)
                .await;
            taken.map(|()| json!({ "status": "success" }))
        }
    };
    Json(answer.unwrap_or_else(|refusal| refused(&refusal))).into_response()
}

fn misshapen(host: &Host, error: &RequestError) -> Response {
    let text = error.to_string();
    host.session
        .say_rejected("fastrtc", None, "invalid-json", &text);
    (StatusCode::UNPROCESSABLE_ENTITY, Json(error.detail())).into_response()
}

/// In the words that its front end knows.
fn refused(refusal: &Refusal) -> Value {
    match refusal {
        Refusal::Place(Refused::Full(limit)) => failed("concurrency_limit_reached", Some(*limit)),
        Refusal::Place(Refused::Duplicate(_)) => failed("connection_already_exists", None),
        Refusal::NoSuchConnection(_) => failed("unknown_connection", None),
        Refusal::Place(Refused::Closed) | Refusal::Gone => failed("connection_closed", None),
        Refusal::Sdp(crate::logic::wire::sdp::SdpError::BadCandidate(_)) => {
            failed("invalid_candidate_format", None)
        }
        other => failed(&other.to_string(), None),
    }
}

async fn inputs(State(host): State<Host>, body: Bytes) -> Response {
    let inputs = match Inputs::parse(&body) {
        Ok(inputs) => inputs,
        Err(error) => {
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(error.detail())).into_response();
        }
    };
    Json(match set(&host, &inputs) {
        Ok(()) => json!({ "status": "success" }),
        Err(why) => failed(&why, None),
    })
    .into_response()
}

fn set(host: &Host, inputs: &Inputs) -> Result<(), String> {
    let connection = host.session.find(&inputs.webrtc_id);
    let connection = connection.ok_or("unknown_connection")?;
    let args =
        from_json(&inputs.fields, &host.rights.client_args).map_err(|error| error.to_string())?;
    connection
        .set_args(&args)
        .map_err(|error| error.to_string())
}
