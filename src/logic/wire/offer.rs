//! The offer dialect: aiortc's `{"sdp","type"}`, with Pipecat's `pc_id` for a later offer of the same connection.

use serde::{Deserialize, Serialize};

/// What a client posts. Fields we do not know are the client's own data and are kept.
#[derive(Debug, Clone, Deserialize)]
pub struct OfferRequest {
    pub sdp: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Names the connection that an offer renegotiates.
    #[serde(default)]
    pub pc_id: Option<String>,
    #[serde(flatten)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// Most candidates in one request.
const MAX_CANDIDATES: usize = 64;

/// Candidates of a connection that stands.
#[derive(Debug, Clone, Deserialize)]
pub struct CandidatesRequest {
    pub pc_id: String,
    pub candidates: Vec<CandidateLine>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct CandidateLine {
    pub candidate: String,
}

impl CandidatesRequest {
    pub fn parse(body: &[u8]) -> Result<Self, OfferError> {
        let bad = |problem: String| OfferError::Candidates(problem);
        let request: Self = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        match request.candidates.len() {
            0..=MAX_CANDIDATES => Ok(request),
            count => Err(bad(format!(
                "{count} candidates; at most {MAX_CANDIDATES} are taken at once"
            ))),
        }
    }
}

/// What it gets.
#[derive(Debug, Clone, Serialize)]
pub struct OfferAnswer {
    pub sdp: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub pc_id: String,
}

/// Why a body is not an offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("the body is not the JSON object {{\"sdp\": …, \"type\": \"offer\"}}: {0}")]
    Json(String),
    #[error(
        "the body is not the JSON object {{\"pc_id\": …, \"candidates\": [{{\"candidate\": …}}]}}: {0}"
    )]
    Candidates(String),
    #[error("type is {0:?}; \"offer\" is right")]
    NotAnOffer(String),
}

impl OfferRequest {
    pub fn parse(body: &[u8]) -> Result<Self, OfferError> {
        let request: Self =
            serde_json::from_slice(body).map_err(|error| OfferError::Json(error.to_string()))?;
        if request.kind != "offer" {
            let kind = request.kind.chars().take(24).collect();
            return Err(OfferError::NotAnOffer(kind));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_keeps_the_clients_own_data() {
        let body = br#"{"sdp":"v=0","type":"offer","video_transform":"none","n":3}"#;
        let request = OfferRequest::parse(body).unwrap();
        assert_eq!(request.sdp, "v=0");
        assert_eq!(request.data["video_transform"], "none");
        assert_eq!(request.pc_id, None);
    }

    #[test]
    fn anything_else_is_named() {
        assert!(matches!(
            OfferRequest::parse(b"no json"),
            Err(OfferError::Json(_))
        ));
        assert!(matches!(
            OfferRequest::parse(b"[1]"),
            Err(OfferError::Json(_))
        ));
        assert!(matches!(
            OfferRequest::parse(b"{\"type\":\"offer\"}"),
            Err(OfferError::Json(_))
        ));
        assert_eq!(
            OfferRequest::parse(br#"{"sdp":"","type":"answer"}"#).unwrap_err(),
            OfferError::NotAnOffer("answer".into())
        );
    }
}
