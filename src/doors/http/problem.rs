//! What a request is refused with.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};

use crate::logic::registry::Refused;
use crate::logic::wire::offer::OfferError;
use crate::peer::session::Refusal;

/// An error as JSON: `{"error": <for programs>, "message": <for people>}`.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: &'static str,
    pub(super) message: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            message: message.into(),
        }
    }
}

impl Problem {
    /// The word for programs.
    pub fn error(&self) -> &'static str {
        self.error
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.error, "message": self.message });
        let challenge = (self.status == StatusCode::UNAUTHORIZED)
            .then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        (self.status, challenge, Json(body)).into_response()
    }
}

impl From<OfferError> for Problem {
    fn from(error: OfferError) -> Self {
        let code = match &error {
            OfferError::Json(_) | OfferError::Candidates(_) => "invalid-json",
            OfferError::NotAnOffer(_) | OfferError::OfNothing => "invalid-type",
            OfferError::Id(_) => "invalid-id",
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Place(Refused::Duplicate(_)) => StatusCode::CONFLICT,
            Refusal::Place(Refused::Full(_) | Refused::Leaving(_) | Refused::Closed)
            | Refusal::NoRelay
            | Refusal::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::NoSuchConnection(_) => StatusCode::NOT_FOUND,
            Refusal::Place(Refused::Pending(_))
            | Refusal::TooOften
            | Refusal::TooFast
            | Refusal::TooManyCandidates => StatusCode::TOO_MANY_REQUESTS,
            Refusal::OtherIceSession => StatusCode::PRECONDITION_FAILED,
            Refusal::Neighbour(error) if error.is_ours() => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Unserved(_) | Refusal::Neighbour(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NotAuthorized => StatusCode::FORBIDDEN,
            Refusal::Sdp(_) | Refusal::Call(_) | Refusal::Answer(_) | Refusal::NoOffers => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}
