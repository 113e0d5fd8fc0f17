//! The offer door: what scripts written for aiortc's and Pipecat's servers post.
//!
//! `POST /offer` and `POST /api/offer`, `{"sdp","type"}` → `{"sdp","type","pc_id"}` with all candidates in the
//! answer. A `webrtc_id` is the client's own name, which nobody else may bear at the same time. A body with the
//! `pc_id` of an answer renegotiates that connection. `PATCH` on the same routes takes
//! `{"pc_id","candidates":[{"candidate",…}]}` of a connection that stands. Where the server makes the offers,
//! `{"type":"request"}` asks for one, and `{"type":"answer","sdp","pc_id"}` answers it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;

use super::http::{Problem, authorization};
use super::{Host, Remote};
use crate::logic::wire::offer::{CandidatesRequest, OfferError, OfferRequest, Wish};
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
) -> Result<serde_json::Value, Problem> {
    let said_rejected = |error: OfferError| {
        let text = error.to_string();
        let problem = Problem::from(error);
        let session = &host.session;
        session.say_rejected("offer", None, problem.error(), &text);
        problem
    };
    let request = OfferRequest::parse(body).map_err(said_rejected)?;
    let wish = request.wish().map_err(said_rejected)?;
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
    let session = &host.session;
    let (answered, kind) = match wish {
        Wish::Answer { sdp, of: None } => {
            let agreement = Agreement::default();
            (session.offer(visitor, agreement, &sdp).await?, "answer")
        }
        Wish::Answer { sdp, of: Some(id) } => (session.offer_again(&id, &sdp).await?, "answer"),
        Wish::Offer => {
            let agreement = Agreement::default();
            (session.offer_to(visitor, agreement).await?, "offer")
        }
        Wish::Accept { sdp, of } => {
            session.accept(&of, &sdp).await?;
            return Ok(serde_json::json!({ "pc_id": of }));
        }
    };
    Ok(serde_json::json!({ "sdp": answered.sdp, "type": kind, "pc_id": answered.id.as_str() }))
}
