//! The WHIP door (RFC 9725): what broadcasting programs send to.
//!
//! `POST /whip` with an offer as `application/sdp` → 201 with the answer, all candidates in it. Its `Location`,
//! `/whip/{connection-id}`, takes `PATCH` with candidates or an ICE restart as `application/trickle-ice-sdpfrag`, and
//! `DELETE`. Entity tags name ICE sessions. Media goes one way: nothing is sent back.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::http::{Problem, authorization};
use super::{Host, Remote};
use crate::logic::connection::EndReason;
use crate::logic::wire::sdpfrag::{Credentials, Fragment};
use crate::logic::wire::whip::{IfMatch, entity_tag, ice_links, sends_only};
use crate::peer::agreement::{Agreement, Visitor};
use crate::peer::connection::Connection;
use crate::peer::session::Refusal;

const DOOR: &str = "whip";
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// After so many seconds a client that was turned away may ask again: as long as a lost peer keeps its place, unless
/// `disconnect-timeout` says otherwise.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

pub fn routes() -> Router<Host> {
    // RFC 9725, 4.1: a GET finds nothing and succeeds.
    let endpoint = post(offer)
        .get(async || StatusCode::NO_CONTENT)
        .options(async || [(ACCEPT_POST, SDP)]);
    let session = get(look)
        .patch(ice)
        .delete(end)
        .options(async || [(ACCEPT_PATCH, FRAGMENT)]);
    Router::new()
        .route("/whip", endpoint)
        .route("/whip/{id}", session)
}

async fn offer(
    State(host): State<Host>,
    remote: Remote,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match answer(&host, &remote, &headers, &body).await {
        Ok(response) => response,
        Err(problem) => refused(problem),
    }
}

async fn answer(
    host: &Host,
    remote: &Remote,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Problem> {
    let session = &host.session;
    let sdp = text_of(headers, body, SDP).map_err(|(problem, text)| {
        session.say_rejected(DOOR, None, problem.error(), text);
        problem
    })?;
    let visitor = Visitor {
        door: DOOR,
        external_id: None,
        remote: remote.0,
        data: String::new(),
        authorization: authorization(headers),
    };
    let agreement = Agreement {
        sends_back: false,
        // RFC 9725, 4.4.3: half of an ingest misleads.
        whole_offer: true,
        ..Agreement::default()
    };
    let answered = session.offer(visitor, agreement, &sends_only(sdp)).await?;
    let servers = session.ice_servers(remote.0).await;
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, format!("/whip/{}", answered.id)),
        (ACCEPT_PATCH, FRAGMENT.to_owned()),
    ];
    let mut response = (StatusCode::CREATED, headers, answered.sdp.clone()).into_response();
    tag(&mut response, &answered.sdp);
    for link in ice_links(&servers) {
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().append(header::LINK, link);
        }
    }
    Ok(response)
}

/// Candidates that come after the offer, or a restart of ICE.
async fn ice(
    State(host): State<Host>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match take_ice(&host, id, &headers, &body).await {
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(answer)) => {
            let headers = [(header::CONTENT_TYPE, FRAGMENT)];
            let mut response = (headers, Fragment::of_answer(&answer)).into_response();
            tag(&mut response, &answer);
            response
        }
        Err(problem) => refused(problem),
    }
}

/// The answer to a restart.
async fn take_ice(
    host: &Host,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<String>, Problem> {
    let connection = find(host, id)?;
    let text = text_of(headers, body, FRAGMENT).map_err(|(problem, _)| problem)?;
    let Some(if_match) = headers.get(header::IF_MATCH) else {
        return Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition-required",
            "If-Match is needed: the ETag of the ICE session, or * to restart it",
        ));
    };
    // What is no text is the tag of nothing.
    let if_match = IfMatch::new(if_match.to_str().unwrap_or_default());
    let fragment = Fragment::parse(text).map_err(Refusal::from)?;
    let answer = host.session.ice(&connection, if_match, fragment).await;
    Ok(answer?)
}

async fn end(State(host): State<Host>, id: Result<Path<String>, PathRejection>) -> Response {
    match find(&host, id) {
        Ok(connection) => {
            // Somebody else may have been quicker: it ends all the same.
            connection.end(EndReason::ClientClosed, None);
            StatusCode::OK.into_response()
        }
        Err(problem) => refused(problem),
    }
}

async fn look(State(host): State<Host>, id: Result<Path<String>, PathRejection>) -> Response {
    match find(&host, id) {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refused(problem),
    }
}

/// A connection that came in by this door: its id is known only to whom it was given.
fn find(host: &Host, id: Result<Path<String>, PathRejection>) -> Result<Arc<Connection>, Problem> {
    // What is no text is the id of nobody.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let found = host.session.find(&id);
    // The id that a client of another door brought is no secret.
    let ours = found.filter(|c| c.door() == DOOR && c.id().as_str() == id);
    let missing = || Refusal::NoSuchConnection(id.chars().take(64).collect());
    ours.ok_or_else(|| missing().into())
}

/// The body as text, if it is of that type.
fn text_of<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    kind: &str,
) -> Result<&'a str, (Problem, &'static str)> {
    if !is_of(headers, kind) {
        let text = "the body is of another type";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = format!("{text}; Content-Type: {kind} is right");
        return Err((
            Problem::new(status, "unsupported-media-type", message),
            text,
        ));
    }
    str::from_utf8(body).map_err(|_| {
        let text = "the body is no UTF-8";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid-sdp", text);
        (problem, text)
    })
}

fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(kind))
}

/// Names the ICE session that an answer began; one that takes no line begins none.
fn tag(response: &mut Response, answer: &str) {
    if let Some(tag) = tag_of(answer) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

fn tag_of(answer: &str) -> Option<HeaderValue> {
    let ours = Credentials::of(answer)?;
    HeaderValue::try_from(entity_tag(&ours.ufrag)).ok()
}

fn refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_takes_no_line_has_no_entity_tag() {
        let rejecting = "v=0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=inactive\r\na=mid:0\r\n";
        let taking = format!("{rejecting}a=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n");
        assert_eq!(tag_of(&taking).unwrap(), "\"abcd\"");
        assert_eq!(tag_of(rejecting), None);
    }

    #[test]
    fn a_type_is_known_whatever_its_letters_and_its_parameters() {
        let with = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            HeaderMap::from_iter([(header::CONTENT_TYPE, value)])
        };
        for value in [
            "application/sdp",
            "Application/SDP",
            "application/sdp ; charset=utf-8",
        ] {
            assert!(is_of(&with(value), SDP), "{value}");
        }
        for value in [
            "application/json",
            "application/sdpx",
            "",
            "text/plain; application/sdp",
        ] {
            assert!(!is_of(&with(value), SDP), "{value}");
        }
        assert!(!is_of(&HeaderMap::new(), SDP));
    }
}
