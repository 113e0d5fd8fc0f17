//! The offer door: what scripts written for aiortc's and Pipecat's servers post.
//!
//! `POST /offer` and `POST /api/offer`, `{"sdp","type"}` → `{"sdp","type","pc_id"}` with all candidates in the
//! answer. A `webrtc_id` is the client's own name, which nobody else may bear at the same time. A body with the
//! `pc_id` of an answer renegotiates that connection. `PATCH` on the same routes takes
//! `{"pc_id","candidates":[{"candidate",…}]}` of a connection that stands.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;

use super::http::{Problem, authorization};
use super::{Host, Remote};
use crate::logic::wire::offer::{CandidatesRequest, OfferAnswer, OfferRequest};
use crate::peer::agreement::{Agreement, Visitor};
use crate::peer::session::Refusal;

pub fn routes() -> Router<Host> {
    Router::new()
        .route("/offer", post(offer).patch(candidates))
        .route("/api/offer", post(offer).patch(candidates))
}

/// Candidates that come after the offer, as Pipecat's clients send them.
async fn candidates(State(host): State<Host>, remote: Remote, body: Bytes) -> Response {
    match add_candidates(&host, &remote, &body).await {
        Ok(()) => Json(serde_json::json!({ "status": "success" })).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn add_candidates(host: &Host, remote: &Remote, body: &[u8]) -> Result<(), Problem> {
    let request = CandidatesRequest::parse(body)?;
    if host.session.find(&request.pc_id).is_none() {
        return Err(Refusal::NoSuchConnection(request.pc_id.chars().take(64).collect()).into());
    }
    for candidate in request.candidates {
        host.session
            .candidate(&request.pc_id, &candidate.candidate, remote.0)
            .await?;
    }
    Ok(())
}

async fn offer(
    State(host): State<Host>,
    remote: Remote,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match answer(&host, &remote, &headers, &body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn answer(
    host: &Host,
    remote: &Remote,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<OfferAnswer, Problem> {
    let request = OfferRequest::parse(body).map_err(|error| {
        let text = error.to_string();
        let problem = Problem::from(error);
        let session = &host.session;
        session.say_rejected("offer", None, problem.error(), &text);
        problem
    })?;
    let answered = match &request.pc_id {
        Some(id) => host.session.offer_again(id, &request.sdp).await?,
        None => {
            let data = match request.data.is_empty() {
                true => String::new(),
                false => serde_json::Value::Object(request.data).to_string(),
            };
            let visitor = Visitor {
                door: "offer",
                external_id: request.webrtc_id,
                remote: remote.0,
                data,
                authorization: authorization(headers),
            };
            host.session
                .offer(visitor, Agreement::default(), &request.sdp)
                .await?
        }
    };
    Ok(OfferAnswer {
        sdp: answered.sdp,
        kind: "answer",
        pc_id: answered.id.to_string(),
    })
}
