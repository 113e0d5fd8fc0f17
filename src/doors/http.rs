//! The listener: binds, reads requests within bounds, checks who asks from where, and hands them to the doors.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tower_service::Service;

use super::tls::Tls;
use super::{Door, Host};
use crate::logic::origins::Origin;
use crate::logic::registry::Refused;
use crate::logic::wire::offer::OfferError;
use crate::peer::session::Refusal;

/// Longest body that is read: an offer of the longest session description, as JSON.
const MAX_BODY: usize = 256 * 1024;
/// Of a longer body so much is read and thrown away, so that the client reads our answer and not a reset.
const MAX_DISCARD: usize = 16 * 1024 * 1024;
/// HTTP connections served at a time; more wait in the kernel.
const MAX_CLIENTS: usize = 256;
/// No HTTP connection is kept for longer, whatever its client does or does not read, unless it reads events.
const CLIENT_TIME: Duration = Duration::from_secs(120);
/// A client has this long for its TLS handshake, again for its request's headers, and again for its body.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// What is being answered when the listener closes has this long to come to its end.
const FAREWELL_TIME: Duration = Duration::from_millis(250);

/// Where the listener listens: `http://HOST:PORT`, or the same with https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    secure: bool,
    host: String,
    port: u16,
}

/// A value of `listen` that is not understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no address to listen on; http://HOST:PORT is right, such as http://127.0.0.1:8080"
)]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(uri: &str) -> Result<Self, BadListen> {
        let bad = || BadListen(uri.to_owned());
        let parsed: axum::http::Uri = uri.parse().map_err(|_| bad())?;
        let secure = parsed.scheme_str() == Some("https");
        let plain = (secure || parsed.scheme_str() == Some("http"))
            && matches!(parsed.path(), "" | "/")
            && parsed.query().is_none();
        let host = parsed
            .host()
            .filter(|host| plain && !host.is_empty())
            .ok_or_else(bad)?;
        let authority = parsed.authority().map(|a| a.as_str()).unwrap_or_default();
        if authority.contains('@') || (authority.ends_with(':')) {
            return Err(bad());
        }
        Ok(Self {
            secure,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: match (parsed.port(), authority.rsplit_once(':')) {
                (Some(_), _) => parsed.port_u16().ok_or_else(bad)?,
                // What follows the last colon is no port that fits.
                (None, Some((_, rest))) if !rest.ends_with(']') => return Err(bad()),
                (None, _) if secure => 443,
                (None, _) => 80,
            },
        })
    }
}

impl Listen {
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// What the host means: the first that can be bound is listened on.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        Ok(found.collect())
    }
}

/// Whether only this machine reaches an address.
pub fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A bound listener that does not serve yet.
pub struct Listener {
    socket: TcpListener,
    listen: Listen,
    /// Of https.
    tls: Option<Tls>,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<Origin>,
}

impl Listener {
    pub fn bind(
        listen: Listen,
        addresses: &[SocketAddr],
        tls: Option<Tls>,
        allowed_hosts: Vec<String>,
        allowed_origins: Vec<Origin>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(addresses)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            listen,
            tls,
            allowed_hosts,
            allowed_origins,
        })
    }

    /// What a browser is pointed at.
    pub fn uri(&self) -> String {
        let port = self
            .socket
            .local_addr()
            .map_or(self.listen.port, |a| a.port());
        let Listen { host, secure, .. } = &self.listen;
        let scheme = if *secure { "https" } else { "http" };
        match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}/"),
            false => format!("{scheme}://{host}:{port}/"),
        }
    }

    /// Serves until the returned value is dropped.
    pub fn serve(self, doors: &[Door], host: Host) -> io::Result<Serving> {
        let policy = Arc::new(HostPolicy {
            listen_host: self.listen.host.clone(),
            allowed: self.allowed_hosts,
            origins: self.allowed_origins,
        });
        // What is not open on purpose is closed, what is not there too.
        let closed = |routes: Router<Host>, door| {
            let state = (host.clone(), door);
            routes
                .method_not_allowed_fallback(wrong_method)
                .layer(middleware::from_fn_with_state(state, only_with_token))
        };
        let common = closed(super::common_routes().fallback(nowhere), "listener");
        let router = doors
            .iter()
            .fold(common.merge(super::common_open_routes()), |router, door| {
                router
                    .merge(closed(door.routes(), door.as_str()))
                    .merge(door.open_routes())
            })
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn(read_body))
            .layer(middleware::from_fn_with_state(host.clone(), look_for_token))
            .layer(middleware::from_fn_with_state(policy, check_origin))
            .with_state(host);
        let runtime = crate::runtime::runtime();
        let _inside = runtime.enter();
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        let (stop, stopped) = watch::channel(());
        let (alive, over) = std::sync::mpsc::channel();
        runtime.spawn(accept(socket, self.tls, router, stopped, alive));
        Ok(Serving { stop, over })
    }
}

/// A listener that serves; dropping it closes its socket and every HTTP connection.
pub struct Serving {
    stop: watch::Sender<()>,
    /// Its other ends are dropped with the tasks that hold sockets.
    over: std::sync::mpsc::Receiver<()>,
}

impl Serving {
    /// Closes everything and waits until it is closed, at most `limit`: the port is free then.
    pub fn stop(self, limit: Duration) {
        drop(self.stop);
        // Nobody sends.
        let _ = self.over.recv_timeout(limit);
    }
}

async fn accept(
    socket: tokio::net::TcpListener,
    tls: Option<Tls>,
    router: Router,
    mut stopped: watch::Receiver<()>,
    alive: std::sync::mpsc::Sender<()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let place = tokio::select! {
            _ = stopped.changed() => return,
            place = places.clone().acquire_owned() => place,
        };
        let (stream, remote) = tokio::select! {
            _ = stopped.changed() => return,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of file descriptors, most likely: others may end meanwhile.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let client = Client::new(remote, stream.local_addr().ok(), stopped.clone());
        let (tls, router) = (tls.clone(), router.clone());
        let alive = alive.clone();
        tokio::spawn(async move {
            let connection = async {
                let Some(tls) = tls else {
                    return talk(stream, remote, client.clone(), router).await;
                };
                let handshake = tokio::time::timeout(REQUEST_TIME, tls.accept(stream));
                tokio::select! {
                    () = client.stopped() => {}
                    // Who does not come to an end with it is not answered.
                    done = handshake => if let Ok(Ok(stream)) = done {
                        talk(stream, remote, client.clone(), router).await;
                    }
                }
            };
            tokio::select! {
                () = client.overstays() => {}
                () = connection => {}
            }
            drop((place, alive));
        });
    }
}

/// Answers one client's requests; the last one's answer comes to its end also when the listener closes.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    remote: SocketAddr,
    client: Client,
    router: Router,
) {
    let asking = client.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(remote));
        request.extensions_mut().insert(asking.clone());
        router.clone().call(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How a client's HTTP connection ends is the client's business.
        _ = connection.as_mut() => return,
        () = client.stopped() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL_TIME, connection).await;
}

/// One HTTP connection.
#[derive(Clone)]
pub struct Client {
    on_this_machine: bool,
    stays: Arc<AtomicBool>,
    stopped: watch::Receiver<()>,
}

impl Client {
    fn new(remote: SocketAddr, local: Option<SocketAddr>, stopped: watch::Receiver<()>) -> Self {
        let same = local.is_some_and(|local| local.ip() == remote.ip());
        Self {
            on_this_machine: same || is_local(remote.ip()),
            stays: Arc::default(),
            stopped,
        }
    }

    pub fn is_on_this_machine(&self) -> bool {
        self.on_this_machine
    }

    /// It reads events, for as long as there are some.
    pub fn stays(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Comes when the listener closes.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            let _ = stopped.changed().await;
        }
    }

    async fn overstays(&self) {
        loop {
            tokio::time::sleep(CLIENT_TIME).await;
            if !self.stays.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Reads a body within bounds of length and time before any door sees the request.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, mut body) = request.into_parts();
    let read = tokio::time::timeout(REQUEST_TIME, async {
        match Limited::new(&mut body, MAX_BODY).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let mut discarded = MAX_BODY;
                while let Some(Ok(frame)) = body.frame().await {
                    discarded += frame.data_ref().map_or(0, Bytes::len);
                    if discarded > MAX_DISCARD {
                        break;
                    }
                }
                Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format!("the body is longer than {MAX_BODY} bytes"),
                ))
            }
            Err(error) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-body",
                error.to_string(),
            )),
        }
    });
    match read.await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not come in time",
        )
        .into_response(),
    }
}

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "nothing lives at this address",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "this address takes another method",
    )
}

/// Whether a request's header lets it in: it had the token, or none is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted(pub bool);

/// Takes the token off the request: what doors give on as `authorization` is the application's own.
async fn look_for_token(State(host): State<Host>, mut request: Request, next: Next) -> Response {
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

async fn only_with_token(
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

struct HostPolicy {
    listen_host: String,
    allowed: Vec<String>,
    origins: Vec<Origin>,
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
async fn check_origin(
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

/// What a request says of who it is from.
pub fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(value.to_owned())
}

/// An error as JSON: `{"error": <for programs>, "message": <for people>}`.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: &'static str,
    message: String,
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
            OfferError::NotAnOffer(_) => "invalid-type",
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
            | Refusal::TooManyCandidates => StatusCode::TOO_MANY_REQUESTS,
            Refusal::OtherIceSession => StatusCode::PRECONDITION_FAILED,
            Refusal::Unserved(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NotAuthorized => StatusCode::FORBIDDEN,
            Refusal::Sdp(_) | Refusal::Call(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_are_understood_or_named() {
        let listen: Listen = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!((listen.host.as_str(), listen.port), ("127.0.0.1", 8080));
        let listen: Listen = "http://[::1]:0/".parse().unwrap();
        assert_eq!((listen.host.as_str(), listen.port), ("::1", 0));
        assert_eq!("http://localhost".parse::<Listen>().unwrap().port, 80);
        let listen: Listen = "https://localhost".parse().unwrap();
        assert_eq!((listen.is_secure(), listen.port), (true, 443));
        for bad in [
            "",
            "8080",
            "ftp://a:1",
            "http://a:99999",
            "http://:80",
            "http://a:1/x",
            "http://u@a:1",
        ] {
            let error = bad.parse::<Listen>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

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
