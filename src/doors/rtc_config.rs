//! `GET /rtc-config`: what a client's RTCPeerConnection is made with, whatever the doors.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Host, Remote};

pub fn routes() -> Router<Host> {
    Router::new().route("/rtc-config", get(rtc_config))
}

async fn rtc_config(State(host): State<Host>, remote: Remote) -> Response {
    // A list in JSON already.
    let servers = host.session.ice_servers(remote.0).await;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        // Credentials that live for a while only may be in it.
        (header::CACHE_CONTROL, "no-store"),
    ];
    let policy = host.session.ice_transport_policy().as_str();
    let config = format!(r#"{{"iceServers":{servers},"iceTransportPolicy":"{policy}"}}"#);
    (headers, config).into_response()
}
