//! Who is let in: whoever says the token, in the header or where its door's clients say it.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;
use crate::doors::Host;

/// Whether a request's header lets it in: it had the token, or none is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted(pub bool);

/// Takes the token off the request: what doors give on as `authorization` is the application's own.
pub(super) async fn look_for_token(
    State(host): State<Host>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = match &host.token {
        Some(token) => {
            let said = authorization(request.headers());
            let found = said.is_some_and(|said| token.is_in(&said));
            if found {
                request.headers_mut().remove(header::AUTHORIZATION);
            }
            found
        }
        None => true,
    };
    request.extensions_mut().insert(Admitted(admitted));
    next.run(request).await
}

pub(super) async fn only_with_token(
    State((host, door)): State<(Host, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let found = request.extensions().get::<Admitted>();
    let admitted = found.copied().unwrap_or(Admitted(false));
    let checked = match *request.method() {
        Method::POST => host.admit(door, admitted, None),
        _ if admitted.0 => Ok(()),
        // Nobody has asked to come in: it is counted, and no news for the bus.
        _ => {
            let problem = unauthorized();
            host.session.metrics().rejected(door, problem.error());
            Err(problem)
        }
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "this server is for those who know its token",
    )
}

impl Host {
    /// Whether an offer comes from who has the token; whoever has not is counted and told of. A door whose clients
    /// send it elsewhere than in the header says what it found there: its routes are open ones, which ask here.
    pub fn admit(
        &self,
        door: &'static str,
        admitted: Admitted,
        elsewhere: Option<&str>,
    ) -> Result<(), Problem> {
        let mut known = self.token.as_deref().zip(elsewhere).into_iter();
        if admitted.0 || known.any(|(token, text)| token.is(text)) {
            return Ok(());
        }
        let problem = unauthorized();
        let session = &self.session;
        session.say_rejected(door, None, problem.error(), &problem.message);
        Err(problem)
    }
}

/// What a request says of who it is from.
pub fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(value.to_owned())
}
