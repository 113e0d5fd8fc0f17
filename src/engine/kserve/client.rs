//! Requests to one server, on connections that are kept. Knows HTTP and TLS, and nothing of models.
//!
//! A connection is driven by whoever uses it, on that one's own thread: one that nobody uses has no task, and one that is
//! given up is closed at once.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};
use tokio_openssl::SslStream;

use super::servers::ServerUri;
use super::wire;
use crate::logic::token::Token;

/// Connections kept for the next frames.
const MOST_IDLE: usize = 8;
/// How long one is kept; servers close theirs after five seconds or more, and a request that meets that is repeated.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// What is read of a body that only explains a failure.
const MOST_EXPLANATION: usize = 64 << 10;

const NO_CONNECTION: &str = "no connection could be made in time";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no connection; whether there is a server is not known.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// What makes https of a connection: whom to trust.
#[derive(Clone)]
pub struct Trust(SslConnector);

impl Trust {
    /// Those in a PEM file and no others, else those that the system trusts.
    pub fn new(ca_file: Option<&Path>) -> Result<Trust, String> {
        let failed = |err: openssl::error::ErrorStack| err.to_string();
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
        if let Some(path) = ca_file {
            let text = fs::read(path).map_err(|err| err.to_string())?;
            let certificates = X509::stack_from_pem(&text).unwrap_or_default();
            if certificates.is_empty() {
                return Err("there is no certificate in PEM form in it".into());
            }
            let mut store = X509StoreBuilder::new().map_err(failed)?;
            for certificate in certificates {
                store.add_cert(certificate).map_err(failed)?;
            }
            builder.set_cert_store(store.build());
        }
        Ok(Trust(builder.build()))
    }
}

/// A question to a server.
#[derive(Clone)]
pub struct Question {
    pub method: Method,
    /// Below the path of the server's address.
    pub path: String,
    pub body: Bytes,
    /// How much of the body is JSON, where bytes follow.
    pub header_length: Option<usize>,
}

impl Question {
    pub fn get(path: impl Into<String>) -> Question {
        Question {
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            header_length: None,
        }
    }
}

/// What a server says, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub header_length: Option<usize>,
    pub body: BytesMut,
}

pub struct Client {
    uri: ServerUri,
    /// None without https.
    trust: Option<Trust>,
    token: Option<Token>,
    idle: Mutex<Vec<Connection>>,
    /// A resolver that hangs holds one thread, whoever waits for it.
    lookups: Arc<Semaphore>,
}

impl Client {
    pub fn new(uri: ServerUri, trust: Option<Trust>, token: Option<&Token>) -> Client {
        Client {
            uri,
            trust,
            token: token.cloned(),
            idle: Mutex::default(),
            lookups: Arc::new(Semaphore::new(1)),
        }
    }

    pub fn uri(&self) -> &ServerUri {
        &self.uri
    }

    /// A text of the server's, which may say what it was shown.
    pub fn without_token(&self, text: String) -> String {
        match &self.token {
            Some(token) => token.hide_in(&text),
            None => text,
        }
    }

    /// Asks the server and reads its answer, of no more than `limit` bytes. A new connection is made until `connected_by`;
    /// all else takes as long as it takes, and ends at once when the future is dropped.
    pub async fn ask(
        &self,
        question: &Question,
        connected_by: Instant,
        limit: usize,
    ) -> Result<Answer, ClientError> {
        while let Some(mut connection) = self.idle_connection().await {
            match connection.ask(self.request(question), limit).await {
                // The server has closed it while nobody looked.
                Err(ClientError::Broken(_)) => drop(connection),
                answer => return self.kept(connection, answer),
            }
        }
        let connecting = self.connect(connected_by);
        let connecting = timeout_at(connected_by.into(), connecting).await;
        let mut connection =
            connecting.unwrap_or_else(|_| Err(ClientError::Unreachable(NO_CONNECTION.into())))?;
        let answer = connection.ask(self.request(question), limit).await;
        self.kept(connection, answer)
    }

    /// A connection that has brought its answer to the end is used again.
    fn kept(
        &self,
        mut connection: Connection,
        answer: Result<Answer, ClientError>,
    ) -> Result<Answer, ClientError> {
        connection.idle_since = Instant::now();
        let mut idle = self.idle();
        if answer.is_ok() && !connection.is_over && idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        answer
    }

    /// One that still stands, as far as is known; the others go.
    async fn idle_connection(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle().pop()?;
            if connection.idle_since.elapsed() < LONGEST_IDLE && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    /// A server that is silent may be gone, with all that was ever connected to it.
    pub fn forget_connections(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, question: &Question) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        let path = format!("{}{}", self.uri.path, question.path);
        *request.uri_mut() = path
            .parse()
            .expect("it is made of parts that were read as such");
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(self.uri.authority());
        headers.insert(
            header::HOST,
            host.expect("it was read as that of an address"),
        );
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            )),
        );
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(token.authorization());
            let mut value = value.expect("a token has only letters that a header takes");
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let kind = match question.header_length {
            Some(length) => {
                headers.insert(wire::HEADER_LENGTH, length.into());
                "application/octet-stream"
            }
            None => "application/json",
        };
        if question.method != Method::GET {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        request
    }

    async fn connect(&self, by: Instant) -> Result<Connection, ClientError> {
        let unreachable = |err: io::Error| ClientError::Unreachable(reason(&err));
        let mut failure = ClientError::Unreachable("its name has no address".into());
        let addresses = self.addresses().await.map_err(unreachable)?;
        for (at, address) in addresses.iter().enumerate() {
            // One that swallows everything leaves the others their share.
            let share =
                by.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
            let stream = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(err)) => {
                    failure = unreachable(err);
                    continue;
                }
                Err(_) => {
                    failure = ClientError::Unreachable(NO_CONNECTION.into());
                    continue;
                }
            };
            // Head and body go in one piece or in several; none of them waits for an acknowledgement.
            let _ = stream.set_nodelay(true);
            return match &self.trust {
                Some(trust) => Connection::new(self.secured(trust, stream).await?).await,
                None => Connection::new(stream).await,
            };
        }
        Err(failure)
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (self.uri.host.clone(), self.uri.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let permit = self.lookups.clone().acquire_owned().await;
        let lookup = move || {
            let _permit = permit;
            (host, port).to_socket_addrs().map(Vec::from_iter)
        };
        tokio::task::spawn_blocking(lookup).await?
    }

    async fn secured(
        &self,
        trust: &Trust,
        stream: TcpStream,
    ) -> Result<SslStream<TcpStream>, ClientError> {
        let failed = |reason: String| ClientError::Unreachable(format!("no TLS: {reason}"));
        let ssl = trust
            .0
            .configure()
            .and_then(|configuration| configuration.into_ssl(&self.uri.host))
            .map_err(|err| failed(err.to_string()))?;
        let mut stream = SslStream::new(ssl, stream).map_err(|err| failed(err.to_string()))?;
        let shaken = Pin::new(&mut stream).connect().await;
        shaken.map_err(|err| {
            let verified = stream.ssl().verify_result();
            match verified == openssl::x509::X509VerifyResult::OK {
                true => failed(err.to_string()),
                false => failed(format!(
                    "its certificate is not trusted: {}",
                    verified.error_string()
                )),
            }
        })?;
        Ok(stream)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Does all reading and writing.
    driver: Driver,
    /// The driver has nothing left to do.
    is_over: bool,
    idle_since: Instant,
}

impl Connection {
    async fn new(stream: impl Stream + 'static) -> Result<Connection, ClientError> {
        let stream: Box<dyn Stream> = Box::new(stream);
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        Ok(Connection {
            sender,
            driver,
            is_over: false,
            idle_since: Instant::now(),
        })
    }

    /// Whether it can take a request; reads what has come meanwhile, be it the end.
    async fn is_ready(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = &mut self.driver => false,
            ready = self.sender.ready() => ready.is_ok(),
        }
    }

    async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, ClientError> {
        let sent = self.sender.send_request(request);
        let exchange = async { read(sent.await.map_err(broken)?, limit).await };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut self.driver => {
                self.is_over = true;
                // What it has read is there already.
                exchange.await
            }
        }
    }
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<Answer, ClientError> {
    let (parts, mut incoming) = response.into_parts();
    let explains = parts.status != StatusCode::OK;
    let limit = if explains {
        limit.min(MOST_EXPLANATION)
    } else {
        limit
    };
    let too_long = ClientError::TooLong(limit);
    if !explains && incoming.size_hint().lower() > limit as u64 {
        return Err(too_long);
    }
    let header_length = match parts.headers.get(wire::HEADER_LENGTH) {
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            let what = || ClientError::Broken(format!("its {} is no length", wire::HEADER_LENGTH));
            Some(length.ok_or_else(what)?)
        }
        None => None,
    };
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if body.len() + data.len() > limit {
            if explains {
                break;
            }
            return Err(too_long);
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer {
        status: parts.status,
        header_length,
        body,
    })
}

fn broken(err: hyper::Error) -> ClientError {
    ClientError::Broken(reason(&err))
}

/// The innermost cause is the one that tells something.
fn reason(err: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
