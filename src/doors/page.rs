//! The built-in page: everything it needs comes from here, and nothing it asks for lies elsewhere.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;

use super::Host;

/// Nothing from elsewhere, and nobody else's frame around it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn routes() -> Router<Host> {
    Router::new().route("/info", get(info))
}

/// The page itself: it asks for the token.
pub fn open_routes() -> Router<Host> {
    let file = |kind: &'static str, text: &'static str| get(async move || serve(kind, text));
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page/index.html")),
        )
        .route(
            "/page.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
        .route(
            "/page.css",
            file("text/css; charset=utf-8", include_str!("page/page.css")),
        )
}

fn serve(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// What the page shows of the server.
async fn info(State(host): State<Host>) -> Response {
    Json(serde_json::json!({
        "launch": &*host.launch,
        "version": env!("CARGO_PKG_VERSION"),
        "video_codecs": &*host.video_codecs,
    }))
    .into_response()
}
