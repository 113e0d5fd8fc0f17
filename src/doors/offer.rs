//! The offer door: what scripts written for aiortc's and Pipecat's servers post.
//!
//! `POST /offer` and `POST /api/offer`, `{"sdp","type"}` → `{"sdp","type","pc_id"}` with all candidates in the
//! answer. A body with the `pc_id` of an answer renegotiates that connection.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;

use super::http::Problem;
use super::{Host, Remote};
use crate::logic::wire::offer::{OfferAnswer, OfferRequest};
use crate::peer::connection::Visitor;

pub fn routes() -> Router<Host> {
    Router::new()
        .route("/offer", post(offer))
        .route("/api/offer", post(offer))
}

async fn offer(State(host): State<Host>, remote: Remote, body: Bytes) -> Response {
    match answer(&host, &remote, &body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn answer(host: &Host, remote: &Remote, body: &[u8]) -> Result<OfferAnswer, Problem> {
    let request = OfferRequest::parse(body)?;
    let answered = match &request.pc_id {
        Some(id) => host.session.offer_again(id, &request.sdp).await?,
        None => {
            let data = match request.data.is_empty() {
                true => String::new(),
                false => serde_json::Value::Object(request.data).to_string(),
            };
            let visitor = Visitor {
                door: "offer",
                external_id: None,
                remote: remote.0,
                data,
            };
            host.session.offer(visitor, &request.sdp).await?
        }
    };
    Ok(OfferAnswer {
        sdp: answered.sdp,
        kind: "answer",
        pc_id: answered.id.to_string(),
    })
}
