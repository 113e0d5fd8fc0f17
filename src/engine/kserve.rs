//! Servers that speak the KServe protocol, version 2, over HTTP: Triton, MLServer, OpenVINO Model Server.
//!
//! A model on a server is an engine like any other: its metadata says what it takes and gives. What servers are asked is
//! bounded by the time that a frame has; while there is some left, a server that does not answer is asked again, or another
//! one is. Bytes are [`wire`]'s affair, sockets are [`client`]'s, and which server is next is [`roster`]'s.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use self::client::{Answer, Client, ClientError, Question, Trust};
use self::roster::Roster;
use self::servers::{BadModel, RemoteModel, Servers};
use self::wire::{Encoding, InferRequest, Metadata};
use super::tensor::Tensor;
use super::{Engine, EngineError, InputInfo, Room};
use crate::runtime::runtime;

pub mod client;
pub mod roster;
pub mod servers;
pub mod wire;

pub const NAME: &str = "kserve";

/// Inferences at once: servers do several, and more frames than these would all be late.
const ROOM: usize = 8;
/// For a frame that has no time of its own.
const FRAME_LIMIT: Duration = Duration::from_secs(5);
/// Until a model is known to be there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the other servers once one has been reached.
const OTHERS_LIMIT: Duration = Duration::from_secs(1);
/// Of an answer with tensors, bytes: so much may each inference at once hold.
const MOST_TENSORS: usize = 64 << 20;
/// Of an answer about servers and models, bytes.
const MOST_METADATA: usize = 1 << 20;
/// Models that are named when one is not there.
const MOST_NAMED: usize = 20;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "kserve",
        gst::DebugColorFlags::empty(),
        Some("Servers that run models"),
    )
});

/// Why a model on servers cannot be used; each says where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Name(#[from] BadModel),
    #[error("server-ca-file {}: {reason}", path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error("https cannot be spoken: {0}; server-ca-file names whom to trust")]
    Trust(String),
    /// No server answers, or none is ready.
    #[error("{0}")]
    Unreachable(String),
    /// The server wants another token.
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}")]
    NoModel(String),
    /// What the server says of the model is of no use.
    #[error("{0}")]
    Unusable(String),
}

pub struct Kserve {
    model: RemoteModel,
    servers: Vec<Server>,
    roster: Mutex<Roster>,
    /// Of all servers.
    device: String,
    metadata: Metadata,
    /// As in the metadata.
    outputs: Vec<String>,
}

struct Server {
    client: Client,
    encoding: KnownEncoding,
}

/// How a server takes tensors. Not every one says; then it is tried.
struct KnownEncoding(AtomicU8);

impl KnownEncoding {
    const UNKNOWN: u8 = 0;
    const BINARY: u8 = 1;
    const JSON: u8 = 2;

    fn get(&self) -> Option<Encoding> {
        match self.0.load(Ordering::Relaxed) {
            Self::BINARY => Some(Encoding::Binary),
            Self::JSON => Some(Encoding::Json),
            _ => None,
        }
    }

    fn set(&self, encoding: Encoding) {
        let known = match encoding {
            Encoding::Binary => Self::BINARY,
            Encoding::Json => Self::JSON,
        };
        self.0.store(known, Ordering::Relaxed);
    }
}

/// Why a server gave no tensors.
enum Failure {
    /// It, or another one, may give them yet.
    Passing(String),
    Final(String),
    /// There is no time left.
    Late,
}

impl Kserve {
    /// The model on those servers that are there now; one at least must be, and others may come later.
    pub fn connect(model: &str, servers: &Servers) -> Result<Kserve, ConnectError> {
        let model: RemoteModel = model.parse()?;
        let trust = servers.uris.iter().any(|uri| uri.secure).then(|| {
            let path = servers.ca_file.as_deref();
            Trust::new(path).map_err(|reason| match path {
                Some(path) => ConnectError::CaFile {
                    path: path.into(),
                    reason,
                },
                None => ConnectError::Trust(reason),
            })
        });
        let trust = trust.transpose()?;
        let token = servers.token.as_ref();
        let clients = servers.uris.iter().map(|uri| Server {
            client: Client::new(uri.clone(), trust.clone().filter(|_| uri.secure), token),
            encoding: KnownEncoding(AtomicU8::new(KnownEncoding::UNKNOWN)),
        });
        let clients: Vec<_> = clients.collect();
        let mut roster = Roster::new(clients.len());
        let metadata = wait_for(introductions(&clients, &model, &mut roster))?;
        let authorities = servers.uris.iter().map(|uri| uri.authority());
        Ok(Kserve {
            model,
            device: authorities.collect::<Vec<_>>().join(","),
            servers: clients,
            roster: Mutex::new(roster),
            outputs: metadata
                .outputs
                .iter()
                .map(|output| output.name.clone())
                .collect(),
            metadata,
        })
    }

    /// The model's name alone.
    pub fn model_name(&self) -> &str {
        &self.model.name
    }

    /// `kserve:NAME/VERSION`, or the versions that the servers name, for want of what is in the file.
    pub fn hash(&self) -> String {
        let versions = match &self.model.version {
            Some(version) => version.clone(),
            None => self.metadata.versions.join(","),
        };
        let RemoteModel { name, .. } = &self.model;
        match versions.is_empty() {
            true => format!("{NAME}:{name}"),
            false => format!("{NAME}:{name}/{versions}"),
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one server after the other, again and again.
    async fn infer(&self, input: &Tensor, until: Instant) -> Result<Vec<Tensor>, String> {
        // Made when it is first needed, and once.
        let mut requests = HashMap::new();
        let mut asked = 0;
        for rounds in 0.. {
            let order = self.roster().order(Instant::now());
            let mut failure = String::new();
            for (at, &number) in order.iter().enumerate() {
                let left = until.saturating_duration_since(Instant::now());
                // The last one has all that is left to make a connection; the others leave half of it.
                let others = at + 1 < order.len();
                let connected_by = if others { until - left / 2 } else { until };
                let answer = self.ask(number, input, connected_by, &mut requests);
                let answer = timeout_at(until.into(), answer).await;
                asked += 1;
                let uri = self.servers[number].client.uri();
                match answer.unwrap_or(Err(Failure::Late)) {
                    Ok(tensors) => {
                        self.roster().worked(number);
                        return Ok(tensors);
                    }
                    // Another one may have what this one has lost.
                    Err(Failure::Final(reason)) if others => {
                        self.gave_none(number, &reason);
                        failure = format!("{uri}: {reason}");
                    }
                    Err(Failure::Final(reason)) => {
                        self.roster().worked(number);
                        return Err(format!("{uri}: {reason}"));
                    }
                    Err(Failure::Late) => {
                        self.servers[number].client.forget_connections();
                        self.gave_none(number, "no answer in time");
                        return Err(format!("{uri}: no answer in time"));
                    }
                    Err(Failure::Passing(reason)) => {
                        self.gave_none(number, &reason);
                        failure = format!("{uri}: {reason}");
                    }
                }
            }
            let wait = roster::wait(rounds, fastrand::f64());
            if until.saturating_duration_since(Instant::now()) <= wait {
                return Err(format!("{failure} (asked {asked} times)"));
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("time runs out before numbers do")
    }

    fn gave_none(&self, number: usize, reason: &str) {
        let uri = self.servers[number].client.uri();
        if self.roster().failed(number, Instant::now()) {
            gst::warning!(CAT, "{uri}: {reason}");
        } else {
            gst::debug!(CAT, "{uri}: {reason}");
        }
    }

    async fn ask(
        &self,
        number: usize,
        input: &Tensor,
        connected_by: Instant,
        requests: &mut HashMap<Encoding, InferRequest>,
    ) -> Result<Vec<Tensor>, Failure> {
        let server = &self.servers[number];
        let known = server.encoding.get();
        let mut encoding = known.unwrap_or(Encoding::Binary);
        loop {
            let request = requests
                .entry(encoding)
                .or_insert_with(|| self.request(encoding, input));
            let question = Question {
                method: Method::POST,
                path: format!("{}/infer", self.model.path()),
                body: request.body.clone(),
                header_length: request.header_length,
            };
            let answer = server
                .client
                .ask(&question, connected_by, MOST_TENSORS)
                .await;
            let answer = answer.map_err(|err| match err {
                ClientError::Unreachable(reason) | ClientError::Broken(reason) => {
                    Failure::Passing(reason)
                }
                too_long @ ClientError::TooLong(_) => Failure::Final(too_long.to_string()),
            })?;
            match answer.status {
                StatusCode::OK => {
                    let outputs = &self.metadata.outputs;
                    let tensors = wire::tensors(&answer.body, answer.header_length, outputs)
                        .map_err(|err| Failure::Final(err.to_string()))?;
                    server.encoding.set(encoding);
                    return Ok(tensors);
                }
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {
                    return Err(Failure::Passing(said(&server.client, &answer)));
                }
                // It may be the bytes that it does not take; it did not say that it does.
                _ if known.is_none() && encoding == Encoding::Binary => encoding = Encoding::Json,
                _ => return Err(Failure::Final(said(&server.client, &answer))),
            }
        }
    }

    fn request(&self, encoding: Encoding, input: &Tensor) -> InferRequest {
        let name = self.metadata.inputs.first().map_or("", |input| &input.name);
        InferRequest::new(encoding, name, input, &self.metadata.outputs)
    }
}

impl Engine for Kserve {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn inputs(&self) -> &[InputInfo] {
        &self.metadata.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.parameters.get(key).map(String::as_str)
    }

    fn room(&self) -> Room {
        Room::Own(ROOM)
    }

    fn run(&self, input: &Tensor, until: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        let until = until.unwrap_or_else(|| Instant::now() + FRAME_LIMIT);
        let result = wait_for(self.infer(input, until));
        result.map_err(EngineError::Failed)
    }
}

/// Runs it on this thread, where tokio allows that: an application of its own may call from a thread of its runtime.
fn wait_for<T: Send>(future: impl Future<Output = T> + Send) -> T {
    match Handle::try_current() {
        Err(_) => runtime().block_on(future),
        Ok(_) => std::thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime().block_on(future));
            waiting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
    }
}

/// What the servers say of the model, as long as they say the same. Those that are not there are noted in `roster`.
async fn introductions(
    servers: &[Server],
    model: &RemoteModel,
    roster: &mut Roster,
) -> Result<Metadata, ConnectError> {
    let mut until = Instant::now() + CONNECT_LIMIT;
    let introduce =
        |number: usize| async move { (number, introduction(&servers[number], model).await) };
    let mut waiting: FuturesUnordered<_> = (0..servers.len()).map(introduce).collect();
    let mut silent: BTreeSet<_> = (0..servers.len()).collect();
    let mut found: Option<(usize, Metadata)> = None;
    let mut failures: Vec<(usize, ConnectError)> = Vec::new();
    while let Ok(Some((number, introduced))) = timeout_at(until.into(), waiting.next()).await {
        silent.remove(&number);
        let uri = servers[number].client.uri();
        match (introduced, &mut found) {
            (Ok(metadata), None) => {
                until = until.min(Instant::now() + OTHERS_LIMIT);
                found = Some((number, metadata));
            }
            (Ok(metadata), Some((first, known))) => {
                if (&metadata.inputs, &metadata.outputs) != (&known.inputs, &known.outputs) {
                    let first = servers[*first].client.uri();
                    let what = format!(
                        "{first} and {uri} have different models \"{model}\"; server-uris names servers of the same one"
                    );
                    return Err(ConnectError::Unusable(what));
                }
                known.versions.extend(metadata.versions);
            }
            (Err(err), _) => failures.push((number, err)),
        }
    }
    let waited = match found {
        Some(_) => OTHERS_LIMIT,
        None => CONNECT_LIMIT,
    };
    for number in silent {
        let uri = servers[number].client.uri();
        let what = format!("{uri} does not answer within {waited:?}; server-uris names the server");
        failures.push((number, ConnectError::Unreachable(what)));
    }
    let Some((_, mut metadata)) = found else {
        failures.sort_by_key(|(number, _)| *number);
        let all: Vec<_> = failures.iter().map(|(_, err)| err.to_string()).collect();
        let (_, first) = failures.swap_remove(0);
        return Err(first.saying(all.join("; ")));
    };
    for (number, err) in failures {
        gst::warning!(CAT, "{err}; the others are used");
        roster.failed(number, Instant::now());
    }
    metadata.versions.sort();
    metadata.versions.dedup();
    if metadata.outputs.is_empty() {
        let what = format!("model \"{model}\" has no output of numbers");
        return Err(ConnectError::Unusable(what));
    }
    Ok(metadata)
}

/// What one server says of itself and the model.
async fn introduction(server: &Server, model: &RemoteModel) -> Result<Metadata, ConnectError> {
    let uri = server.client.uri();
    let get = async |path: String| ask_about(&server.client, &Question::get(path)).await;

    let ready = get("/v2/health/ready".into()).await?;
    if ready.status != StatusCode::OK {
        let what = format!(
            "{uri} is not ready to infer: {}",
            said(&server.client, &ready)
        );
        return Err(ConnectError::Unreachable(what));
    }
    let itself = get("/v2".into()).await?;
    if let Some(encoding) = wire::encoding(&itself.body) {
        server.encoding.set(encoding);
    }
    let described = get(model.path()).await?;
    if described.status != StatusCode::OK {
        let mut what = format!(
            "{uri} has no model \"{model}\": {}",
            said(&server.client, &described)
        );
        if let Some(others) = index(&server.client).await {
            what += &format!("; it has {others}");
        }
        return Err(ConnectError::NoModel(what));
    }
    let metadata = wire::metadata(&described.body).map_err(|err| {
        let what = format!("{uri} says of model \"{model}\" what is no metadata: {err}");
        ConnectError::Unusable(what)
    })?;
    let ready = get(format!("{}/ready", model.path())).await?;
    if ready.status != StatusCode::OK {
        let what = format!(
            "model \"{model}\" on {uri} is not ready: {}",
            said(&server.client, &ready)
        );
        return Err(ConnectError::NoModel(what));
    }
    Ok(metadata)
}

async fn ask_about(client: &Client, question: &Question) -> Result<Answer, ConnectError> {
    let uri = client.uri();
    let later = Instant::now() + CONNECT_LIMIT;
    let answer = client
        .ask(question, later, MOST_METADATA)
        .await
        .map_err(|err| {
            let what = match err {
                ClientError::Unreachable(reason) => {
                    let hint = if uri.secure {
                        " and server-ca-file whom to trust"
                    } else {
                        ""
                    };
                    format!("no server at {uri}: {reason}; server-uris names it{hint}")
                }
                other => format!("{uri} does not speak the KServe protocol over HTTP: {other}"),
            };
            ConnectError::Unreachable(what)
        })?;
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let what = format!(
                "{uri} does not let us in: {}; server-token is what it wants to be shown",
                said(client, &answer)
            );
            Err(ConnectError::NotAllowed(what))
        }
        _ => Ok(answer),
    }
}

/// The models that there are, where the server tells.
async fn index(client: &Client) -> Option<String> {
    let question = Question {
        method: Method::POST,
        body: Bytes::from_static(b"{}"),
        ..Question::get("/v2/repository/index")
    };
    let answer = ask_about(client, &question).await.ok()?;
    let names = wire::index(&answer.body)?;
    let more = names.len().saturating_sub(MOST_NAMED);
    let mut told = names
        .into_iter()
        .take(MOST_NAMED)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        told += &format!(" and {more} more");
    }
    Some(if told.is_empty() { "none".into() } else { told })
}

/// A status, and the server's own words; it may say what it was shown.
fn said(client: &Client, answer: &Answer) -> String {
    let words = client.without_token(wire::words(&answer.body));
    match words.is_empty() {
        true => format!("HTTP {}", answer.status),
        false => format!("HTTP {}: {words}", answer.status.as_u16()),
    }
}

impl ConnectError {
    fn saying(self, text: String) -> ConnectError {
        match self {
            alone @ (ConnectError::Name(_)
            | ConnectError::CaFile { .. }
            | ConnectError::Trust(_)) => alone,
            ConnectError::Unreachable(_) => ConnectError::Unreachable(text),
            ConnectError::NotAllowed(_) => ConnectError::NotAllowed(text),
            ConnectError::NoModel(_) => ConnectError::NoModel(text),
            ConnectError::Unusable(_) => ConnectError::Unusable(text),
        }
    }
}

#[cfg(test)]
mod tests;
