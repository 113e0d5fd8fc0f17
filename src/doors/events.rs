//! What clients are told as it happens, as server-sent events: a connection's results, and what visitors are
//! asked to do.
//!
//! A reader that is too slow misses the oldest results and is told how many.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Host;
use super::http::{Client, Problem};
use crate::peer::connection::Output;
use crate::peer::session::Refusal;

/// Readers of results, and as many pages.
pub const MAX_READERS: usize = 64;
/// Between two signs of life; a reader that has gone is noticed by them.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /outputs?webrtc_id=…`: the results of one connection. Served whatever the doors: who knows the id may.
pub fn outputs_routes() -> Router<Host> {
    Router::new().route("/outputs", get(outputs))
}

/// `GET /desired-playing-state`: what the page is asked to do.
pub fn playing_routes() -> Router<Host> {
    Router::new().route("/desired-playing-state", get(desired_playing))
}

#[derive(serde::Deserialize)]
struct Wanted {
    webrtc_id: String,
}

/// Events `output` with a result each, `dropped` with how many were missed, and `end` when the connection ended.
async fn outputs(
    State(host): State<Host>,
    Extension(client): Extension<Client>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let Ok(Query(Wanted { webrtc_id })) = wanted else {
        return Problem::new(
            StatusCode::BAD_REQUEST,
            "missing-id",
            "/outputs?webrtc_id=ID is right, with the id of a connection or the client's own",
        )
        .into_response();
    };
    let Some(results) = host.session.outputs(&webrtc_id) else {
        let id = webrtc_id.chars().take(64).collect();
        return Problem::from(Refusal::NoSuchConnection(id)).into_response();
    };
    let reader = |place| {
        let state = Some((results, host.session.clone(), place));
        stream::unfold(state, |state| async {
            let (mut results, session, place) = state?;
            let (event, goes_on) = match results.recv().await {
                Ok(Output::Result(json)) => (event("output", &json), true),
                Ok(Output::Ended(text)) => (event("end", &text), false),
                Err(RecvError::Lagged(missed)) => {
                    session.metrics().outputs_dropped(missed);
                    let text = serde_json::json!({ "dropped": missed }).to_string();
                    (event("dropped", &text), true)
                }
                Err(RecvError::Closed) => return None,
            };
            let state = goes_on.then_some((results, session, place));
            Some((Ok(event), state))
        })
    };
    serve(&host.readers, &client, reader)
}

/// Messages `true`, `false` or `null`: at once, and at each change.
async fn desired_playing(
    State(host): State<Host>,
    Extension(client): Extension<Client>,
) -> Response {
    let mut wishes = host.session.desired_playing();
    wishes.mark_changed();
    let reader = |place| {
        stream::unfold((wishes, place), |(mut wishes, place)| async {
            wishes.changed().await.ok()?;
            let wish = *wishes.borrow_and_update();
            let text = serde_json::json!(wish).to_string();
            Some((Ok(Event::default().data(text)), (wishes, place)))
        })
    };
    serve(&host.pages, &client, reader)
}

fn event(name: &str, text: &str) -> Event {
    Event::default().event(name).data(text)
}

/// Serves events as long as there are some and the listener is open, if one more reader has a place.
fn serve<S>(
    places: &Arc<Semaphore>,
    client: &Client,
    reader: impl FnOnce(OwnedSemaphorePermit) -> S,
) -> Response
where
    S: Stream<Item = Result<Event, Infallible>> + Send + 'static,
{
    let Ok(place) = places.clone().try_acquire_owned() else {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-readers",
            format!("{MAX_READERS} clients read events already"),
        )
        .into_response();
    };
    client.stays();
    let parts = (Box::pin(reader(place)), Box::pin(client.stopped()));
    let events = stream::unfold(parts, |(mut events, mut closed)| async {
        let event = tokio::select! {
            // What is there already is said first.
            biased;
            event = events.next() => event?,
            () = &mut closed => return None,
        };
        Some((event, (events, closed)))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}
