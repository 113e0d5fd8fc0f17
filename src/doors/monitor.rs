//! What is going on: the list of connections, figures, and whether the server lives.
//!
//! Always there, whatever the doors. The list and the figures are for this machine only: they name every
//! visitor, and whoever can end a connection could end everybody's. A proxy on this machine must say for whom it
//! asks, with `Forwarded` or `X-Forwarded-For`, or it must keep these addresses to itself.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get};

use super::Host;
use super::http::{Client, ForeignPage, Problem};
use crate::peer::session::Refusal;

pub fn routes() -> Router<Host> {
    Router::new()
        .route("/connections", get(connections))
        .route("/connections/{id}", delete(end))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(only_from_this_machine))
}

/// Liveness, for whoever watches.
pub fn open_routes() -> Router<Host> {
    Router::new().route(
        "/healthz",
        get(async || Json(serde_json::json!({ "status": "ok" }))),
    )
}

async fn only_from_this_machine(request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>();
    // A proxy on this machine asks for somebody else.
    let forwarded = [header::FORWARDED.as_str(), "x-forwarded-for"]
        .into_iter()
        .any(|name| request.headers().contains_key(name));
    // Whoever sits at this machine did not ask: a page of somebody else's did.
    let foreign = request.extensions().get::<ForeignPage>().is_some();
    if client.is_some_and(Client::is_on_this_machine) && !forwarded && !foreign {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::FORBIDDEN,
        "only-from-this-machine",
        "this address is served to clients on the server's own machine only, and to no page of another origin",
    )
    .into_response()
}

async fn connections(State(host): State<Host>) -> Response {
    Json(host.session.connections()).into_response()
}

async fn end(State(host): State<Host>, id: Result<Path<String>, PathRejection>) -> Response {
    // What is no text is the id of nobody.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if host.session.end_connection(&id, None) {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::from(Refusal::NoSuchConnection(id.chars().take(64).collect())).into_response()
}

async fn metrics(State(host): State<Host>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = [(header::CONTENT_TYPE, kind)];
    (headers, host.session.metrics().text()).into_response()
}
