//! The offer dialect: aiortc's `{"sdp","type"}`, with Pipecat's `pc_id` for a later offer of the same connection.

use serde::Deserialize;

use super::object;

/// What a client posts. Fields we do not know are the client's own data and are kept.
#[derive(Debug, Clone, Deserialize)]
pub struct OfferRequest {
    #[serde(default)]
    pub sdp: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    /// Names the connection that an offer renegotiates, or whose offer an answer is for.
    #[serde(default)]
    pub pc_id: Option<String>,
    /// The client's own name for itself, by which others in the session find it.
    #[serde(default)]
    pub webrtc_id: Option<String>,
    #[serde(flatten)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// An answer to its offer; with an id, to a later one of that connection.
    Answer { sdp: String, of: Option<String> },
    /// An offer to itself.
    Offer,
    /// To answer the offer that connection was made with.
    Accept { sdp: String, of: String },
}

/// Longest name of a client.
const MAX_ID: usize = 128;

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
        let request: Self = object::from_slice(body).map_err(|error| bad(error.to_string()))?;
        match request.candidates.len() {
            0..=MAX_CANDIDATES => Ok(request),
            count => Err(bad(format!(
                "{count} candidates; at most {MAX_CANDIDATES} are taken at once"
            ))),
        }
    }
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
    #[error("webrtc_id is {0:?}; 1 to {MAX_ID} characters without control characters are right")]
    Id(String),
    #[error(
        "type is {0:?}; \"offer\" is right, or \"request\" and \"answer\" where the server makes the offers"
    )]
    NotAnOffer(String),
    #[error("an answer needs the pc_id of the offer that it is for")]
    OfNothing,
}

impl OfferRequest {
    pub fn parse(body: &[u8]) -> Result<Self, OfferError> {
        let request: Self =
            serde_json::from_slice(body).map_err(|error| OfferError::Json(error.to_string()))?;
        if let Some(id) = &request.webrtc_id {
            let length = id.chars().count();
            if !(1..=MAX_ID).contains(&length) || id.chars().any(char::is_control) {
                return Err(OfferError::Id(id.chars().take(40).collect()));
            }
        }
        Ok(request)
    }

    pub fn wish(&self) -> Result<Wish, OfferError> {
        let sdp = || {
            let missing = || OfferError::Json("missing field `sdp`".into());
            self.sdp.clone().ok_or_else(missing)
        };
        match (self.kind.as_str(), self.pc_id.clone()) {
            ("offer", of) => Ok(Wish::Answer { sdp: sdp()?, of }),
            ("request", None) => Ok(Wish::Offer),
            ("answer", Some(of)) => Ok(Wish::Accept { sdp: sdp()?, of }),
            ("answer", None) => Err(OfferError::OfNothing),
            (kind, _) => Err(OfferError::NotAnOffer(kind.chars().take(24).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_keeps_the_clients_own_data() {
        let body = br#"{"sdp":"v=0","type":"offer","video_transform":"none","n":3}"#;
        let request = OfferRequest::parse(body).unwrap();
        let (sdp, of) = ("v=0".to_owned(), None);
        assert_eq!(request.wish(), Ok(Wish::Answer { sdp, of }));
        assert_eq!(request.data["video_transform"], "none");
        assert_eq!(request.pc_id, None);
    }

    #[test]
    fn a_client_may_bring_a_name_of_its_own() {
        let named = |id: &str| {
            let body = serde_json::json!({ "sdp": "", "type": "offer", "webrtc_id": id });
            OfferRequest::parse(body.to_string().as_bytes()).map(|request| request.webrtc_id)
        };
        assert_eq!(named("viewer"), Ok(Some("viewer".into())));
        for wrong in [String::new(), "x".repeat(129), "a\nb".into()] {
            assert!(matches!(named(&wrong), Err(OfferError::Id(_))), "{wrong}");
        }
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
        let wish = |body: &[u8]| OfferRequest::parse(body).and_then(|request| request.wish());
        assert!(matches!(
            wish(b"{\"type\":\"offer\"}"),
            Err(OfferError::Json(_))
        ));
        assert_eq!(
            wish(br#"{"sdp":"","type":"pranswer"}"#),
            Err(OfferError::NotAnOffer("pranswer".into()))
        );
        assert_eq!(
            wish(br#"{"sdp":"","type":"answer"}"#),
            Err(OfferError::OfNothing)
        );
    }

    #[test]
    fn where_the_server_offers_a_client_asks_for_it_and_answers() {
        let wish = |body: &[u8]| OfferRequest::parse(body).and_then(|request| request.wish());
        assert_eq!(wish(br#"{"type":"request"}"#), Ok(Wish::Offer));
        assert_eq!(
            wish(br#"{"type":"answer","sdp":"v=0","pc_id":"one"}"#),
            Ok(Wish::Accept {
                sdp: "v=0".into(),
                of: "one".into()
            })
        );
    }
}
