//! Which hosts are served here, and the pages of which origins may use them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;
use crate::logic::origins::Origin;

pub(super) struct HostPolicy {
    pub(super) listen_host: String,
    pub(super) allowed: Vec<String>,
    pub(super) origins: Vec<Origin>,
}

impl HostPolicy {
    /// A name that is none of ours may have been pointed at us (DNS rebinding).
    fn allows(&self, authority: &str) -> bool {
        let host = host_of(authority);
        host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case(&self.listen_host)
            || self
                .allowed
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, port)) if port.is_empty() || port.starts_with(':') => host,
            _ => "",
        };
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

/// A request that a browser makes for a page of another origin, which is allowed to.
#[derive(Debug, Clone, Copy)]
pub struct ForeignPage;

/// Turns away requests for hosts that are not ours and pages of other origins than those that are allowed.
pub(super) async fn check_origin(
    State(policy): State<Arc<HostPolicy>>,
    mut request: Request,
    next: Next,
) -> Response {
    let text = |headers: &HeaderMap, name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default().to_owned())
    };
    let host = text(request.headers(), header::HOST).unwrap_or_default();
    if !policy.allows(&host) {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "host-not-allowed",
            format!(
                "the host {:?} is not served here; allowed-hosts names what is",
                host_of(&host)
            ),
        )
        .into_response();
    }
    // A browser says on whose behalf it asks: a page of another origin must not open a visitor's camera to us.
    let foreign = text(request.headers(), header::ORIGIN).filter(|origin| {
        origin
            .split_once("://")
            .is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(&host))
    });
    let mut response = match &foreign {
        Some(origin) if !policy.origins.iter().any(|o| o.allows(origin)) => {
            let text = format!(
                "pages of {origin:?} may not use this server; allowed-origins names who may"
            );
            Problem::new(StatusCode::FORBIDDEN, "origin-not-allowed", text).into_response()
        }
        Some(origin) => {
            request.extensions_mut().insert(ForeignPage);
            let mut response = match is_preflight(&request) {
                true => (StatusCode::NO_CONTENT, PREFLIGHT).into_response(),
                false => next.run(request).await,
            };
            let headers = response.headers_mut();
            let exposed = HeaderValue::from_static("Location, ETag, Link");
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            if let Ok(origin) = HeaderValue::from_str(origin) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            }
            response
        }
        None => next.run(request).await,
    };
    if !policy.origins.is_empty() {
        // What is kept for one origin is no answer for another.
        let origin = HeaderValue::from_static("Origin");
        response.headers_mut().append(header::VARY, origin);
    }
    response
}

/// What a page of another origin may send, for so many seconds without asking again.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, POST, PATCH, DELETE",
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Authorization, Content-Type, If-Match",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// A browser's question whether a page may send what it wants to.
fn is_preflight(request: &Request) -> bool {
    let asked = header::ACCESS_CONTROL_REQUEST_METHOD;
    request.method() == Method::OPTIONS && request.headers().contains_key(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_served() {
        let policy = HostPolicy {
            listen_host: "camera.lan".into(),
            allowed: vec!["other.lan".into()],
            origins: Vec::new(),
        };
        for host in [
            "127.0.0.1:8080",
            "[::1]:80",
            "localhost",
            "camera.lan:1",
            "OTHER.lan",
        ] {
            assert!(policy.allows(host), "{host}");
        }
        for host in [
            "evil.example",
            "",
            "evil.example:127",
            "[127.0.0.1]evil.example",
            "localhost.evil.example:80",
        ] {
            assert!(!policy.allows(host), "{host}");
        }
    }
}
