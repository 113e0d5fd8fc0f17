//! What doors and the element hold: answers offers, ends connections, shuts down.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot, watch};

use super::call::{Call, CallConfig, CallError};
use super::connection::{Connection, Output, Terms, Visitor};
use super::sockets::{Addresses, Sockets};
use super::stage::Stage;
use super::transport::{Command, OfferRefused, Transport};
use crate::logic::connection::EndReason;
use crate::logic::metrics::Metrics;
use crate::logic::registry::{ConnectionId, Refused, Registry};
use crate::logic::wire::record::ConnectionRecord;
use crate::logic::wire::sdp::{SdpError, check_candidate, check_offer};

/// The transport's task is never busy for longer.
const RELEASE_TIME: Duration = Duration::from_secs(1);

pub struct SessionConfig {
    pub call: CallConfig,
    pub addresses: Addresses,
    pub max_connections: u32,
    pub terms: Terms,
}

/// Why a visitor is turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Place(#[from] Refused),
    #[error(transparent)]
    Sdp(#[from] SdpError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("there is no connection with the id {0:?}")]
    NoSuchConnection(String),
    #[error("offers of this connection come too fast; wait a second")]
    TooOften,
    #[error("the application does not let this visitor in")]
    NotAuthorized,
    #[error("too many candidates wait for their offers")]
    TooManyCandidates,
    #[error("the server is shutting down")]
    Gone,
}

impl Refusal {
    /// A word for programs; the text is for people.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Place(Refused::Full(_)) => "too-many-connections",
            Self::Place(Refused::Duplicate(_)) => "duplicate-id",
            Self::Place(Refused::Closed) | Self::Gone => "shutting-down",
            Self::Sdp(_) | Self::Call(_) => "invalid-sdp",
            Self::NoSuchConnection(_) => "no-such-connection",
            Self::TooOften => "too-many-offers",
            Self::NotAuthorized => "not-authorized",
            Self::TooManyCandidates => "too-many-candidates",
        }
    }
}

/// An answered offer.
pub struct Answered {
    pub id: ConnectionId,
    pub sdp: String,
}

pub struct Session {
    stage: Arc<dyn Stage>,
    config: SessionConfig,
    registry: Registry<Arc<Connection>>,
    metrics: Arc<Metrics>,
    transport: Transport,
    /// What visitors are asked to do; `None` leaves it to them.
    desired_playing: watch::Sender<Option<bool>>,
    /// Cloned into every connection; taken when no more may come.
    alive: Mutex<Option<Sender<()>>>,
    over: Mutex<Receiver<()>>,
}

impl Session {
    /// Binds the UDP sockets and starts the transport.
    pub fn start(config: SessionConfig, stage: Arc<dyn Stage>) -> std::io::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::default());
        let sockets = {
            let _inside = crate::runtime::runtime().enter();
            Sockets::bind(config.addresses.clone(), metrics.datagrams_unsent())?
        };
        let (alive, over) = std::sync::mpsc::channel();
        Ok(Arc::new(Self {
            stage,
            registry: Registry::new(config.max_connections),
            desired_playing: watch::Sender::new(None),
            config,
            transport: Transport::spawn(sockets, metrics.clone()),
            metrics,
            alive: Mutex::new(Some(alive)),
            over: Mutex::new(over),
        }))
    }

    /// Answers a visitor's first offer and makes the connection.
    pub async fn offer(&self, visitor: Visitor, sdp: &str) -> Result<Answered, Refusal> {
        let (door, external) = (visitor.door, visitor.external_id.clone());
        let answered = self.admit(visitor, sdp).await;
        if let Err(refusal) = &answered {
            self.metrics.rejected(door, refusal.code());
            let message = gst::Structure::builder("rtc-connection-rejected")
                .field("door", door)
                .field_if_some("external-id", external)
                .field("error", refusal.to_string())
                .field("limit", self.config.max_connections);
            self.stage.post(message.build());
        }
        answered
    }

    async fn admit(&self, visitor: Visitor, sdp: &str) -> Result<Answered, Refusal> {
        let offer = check_offer(sdp, &[])?;
        let place = self.registry.reserve(visitor.external_id.as_deref())?;
        let external_id = visitor.external_id.clone();
        if !self.authorize(&visitor).await {
            return Err(Refusal::NotAuthorized);
        }
        let (reply, candidates) = oneshot::channel();
        self.transport.send(Command::Candidates(reply)).await;
        let candidates = candidates.await.map_err(|_| Refusal::Gone)?;
        let (call, answer) = Call::answer(&self.config.call, &offer, &candidates, Instant::now())?;

        let alive = self
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (connection, life) = Connection::new(
            visitor,
            self.stage.clone(),
            self.transport.clone(),
            place,
            self.config.terms,
            self.metrics.clone(),
            alive.ok_or(Refusal::Gone)?,
        );
        // From here on nothing waits: a client that hangs up meanwhile leaves no half of a connection.
        let room = self.transport.reserve().await.ok_or(Refusal::Gone)?;
        life.place.commit(connection.clone())?;
        connection.say_created();
        let id = connection.id().clone();
        room.send(Command::Adopt {
            call: Box::new(call),
            media: offer.media,
            connection: connection.clone(),
        });
        crate::runtime::runtime().spawn(connection.live(life));
        if let Some(external_id) = external_id {
            for candidate in self.registry.take_candidates(&external_id, Instant::now()) {
                self.add_candidate(&id, candidate).await;
            }
        }
        Ok(Answered { id, sdp: answer })
    }

    async fn authorize(&self, visitor: &Visitor) -> bool {
        let stage = self.stage.clone();
        let visitor = gst::Structure::builder("rtc-visitor")
            .field("door", visitor.door)
            .field_if_some("external-id", visitor.external_id.as_deref())
            .field("remote-address", visitor.remote.to_string())
            .field("data", &visitor.data)
            .field_if_some("authorization", visitor.authorization.as_deref())
            .build();
        let asked = crate::runtime::runtime().spawn_blocking(move || stage.authorize(visitor));
        // A handler that panics lets nobody in.
        asked.await.unwrap_or(false)
    }

    async fn add_candidate(&self, id: &ConnectionId, candidate: String) {
        let id = id.clone();
        self.transport
            .send(Command::Candidate { id, candidate })
            .await;
    }

    /// Takes a candidate that came by itself, of a connection that stands or of one whose offer is on its way.
    pub async fn candidate(&self, id: &str, candidate: &str) -> Result<(), Refusal> {
        let Some(candidate) = check_candidate(candidate)? else {
            return Ok(());
        };
        if let Some(connection) = self.registry.find(id) {
            self.add_candidate(connection.id(), candidate).await;
        } else if !self.registry.keep_candidate(id, &candidate, Instant::now()) {
            self.metrics.early_candidate_dropped();
            return Err(Refusal::TooManyCandidates);
        }
        Ok(())
    }

    /// What ICE servers a client of that address is given, as JSON; `None` for none.
    pub async fn ice_servers(&self, remote: std::net::SocketAddr) -> Option<String> {
        let stage = self.stage.clone();
        let visitor = gst::Structure::builder("rtc-visitor")
            .field("remote-address", remote.to_string())
            .build();
        let asked = crate::runtime::runtime().spawn_blocking(move || stage.ice_servers(visitor));
        asked.await.ok().flatten()
    }

    /// The connection of that id, ours or the client's.
    pub fn find(&self, id: &str) -> Option<Arc<Connection>> {
        self.registry.find(id)
    }

    /// Every connection, oldest first.
    pub fn connections(&self) -> Vec<ConnectionRecord> {
        let all = self.registry.all();
        let mut records: Vec<_> = all.iter().map(|connection| connection.record()).collect();
        records.sort_by(|a, b| {
            (a.created_at, &a.connection_id).cmp(&(b.created_at, &b.connection_id))
        });
        records
    }

    /// Ends a connection for the application; says whether it was there to be ended.
    pub fn end_connection(&self, id: &str, detail: Option<String>) -> bool {
        self.find(id)
            .is_some_and(|connection| connection.end(EndReason::ClosedByApplication, detail))
    }

    /// The results of a connection from now on.
    pub fn outputs(&self, id: &str) -> Option<broadcast::Receiver<Output>> {
        self.find(id)?.subscribe()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks every visitor, connected or looking at the page, to start or to stop.
    pub fn ask_to_play(&self, playing: Option<bool>) {
        self.desired_playing.send_replace(playing);
        if let Some(playing) = playing {
            for connection in self.registry.all() {
                connection.ask_to_play(playing);
            }
        }
    }

    pub fn desired_playing(&self) -> watch::Receiver<Option<bool>> {
        self.desired_playing.subscribe()
    }

    /// Answers a later offer of a connection that stands.
    pub async fn offer_again(&self, id: &str, sdp: &str) -> Result<Answered, Refusal> {
        let missing = || Refusal::NoSuchConnection(id.chars().take(64).collect());
        let connection = self.registry.find(id).ok_or_else(missing)?;
        let (reply, answer) = oneshot::channel();
        let offer = Command::Offer {
            id: connection.id().clone(),
            sdp: sdp.to_owned(),
            reply,
        };
        self.transport.send(offer).await;
        match answer.await.map_err(|_| Refusal::Gone)? {
            Ok(sdp) => Ok(Answered {
                id: connection.id().clone(),
                sdp,
            }),
            Err(OfferRefused::Gone) => Err(missing()),
            Err(OfferRefused::TooOften) => Err(Refusal::TooOften),
            Err(OfferRefused::Sdp(error)) => Err(error.into()),
            Err(OfferRefused::Call(error)) => Err(error.into()),
        }
    }

    /// The element's base time has changed.
    pub fn rebase(&self) {
        for connection in self.registry.all() {
            connection.rebase();
        }
    }

    /// Admits nobody any more and ends everyone.
    pub fn close(&self, abruptly: bool) {
        self.registry.close();
        self.alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        for connection in self.registry.all() {
            match abruptly {
                true => connection.end_abruptly(EndReason::ServerShutdown),
                false => {
                    connection.end(EndReason::ServerShutdown, None);
                }
            }
        }
    }

    /// Waits until every connection has said its last word; `false` if `limit` came first.
    pub fn wait_closed(&self, limit: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    /// Closes the UDP sockets, whoever still holds the session.
    pub fn release(&self) {
        self.transport.shut_down(RELEASE_TIME);
    }
}
