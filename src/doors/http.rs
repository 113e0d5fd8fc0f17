//! The listener: binds, reads requests within bounds, checks who asks from where, and hands them to the doors.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower_service::Service;

use super::tls::Tls;
use super::{Door, Host};
use crate::logic::origins::Origin;

mod listen;
mod places;
mod policy;
mod problem;
mod token;

pub use listen::{BadListen, Listen};
pub use policy::ForeignPage;
pub use problem::Problem;
pub use token::{Admitted, authorization};

use places::Places;
use policy::{HostPolicy, check_origin};
use token::{look_for_token, only_with_token};

/// Longest body that is read: an offer of the longest session description, as JSON.
const MAX_BODY: usize = 256 * 1024;
/// Of a longer body so much is read and thrown away, so that the client reads our answer and not a reset.
const MAX_DISCARD: usize = 16 * 1024 * 1024;
/// Who has too many connections reads this, if it speaks plain HTTP.
const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"error\":\"too-many-clients\",\"message\":\"this address has too many HTTP connections to this server\"}";
/// No HTTP connection is kept for longer, whatever its client does or does not read, unless it reads events.
const CLIENT_TIME: Duration = Duration::from_secs(120);
/// A client has this long for its TLS handshake, again for its request's headers, and again for its body.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// What is being answered when the listener closes has this long to come to its end.
const FAREWELL_TIME: Duration = Duration::from_millis(250);

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
            .with_state(host.clone());
        let runtime = crate::runtime::runtime();
        let _inside = runtime.enter();
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        let (stop, stopped) = watch::channel(());
        let (alive, over) = std::sync::mpsc::channel();
        let accepting = accept(socket, self.tls, router, host, stopped, alive.clone());
        runtime.spawn(async move {
            // The socket goes with it, and only then is it over.
            accepting.await;
            drop(alive);
        });
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
    host: Host,
    mut stopped: watch::Receiver<()>,
    alive: std::sync::mpsc::Sender<()>,
) {
    let places = Places::new();
    loop {
        let free = tokio::select! {
            _ = stopped.changed() => return,
            free = places.one_is_free() => free,
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
        let Some(place) = places.take(free, remote.ip()) else {
            let metrics = host.session.metrics();
            metrics.rejected("listener", "too-many-clients");
            if tls.is_none() {
                // What does not fit at once is not waited for.
                let _ = stream
                    .into_std()
                    .and_then(|mut stream| stream.write_all(TOO_MANY.as_bytes()));
            }
            continue;
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
    let too_large = || {
        let text = format!("the body is longer than {MAX_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
    };
    // What will not be read to its end need not begin.
    if HttpBody::size_hint(&body).lower() > MAX_DISCARD as u64 {
        return too_large().into_response();
    }
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
                Err(too_large())
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
