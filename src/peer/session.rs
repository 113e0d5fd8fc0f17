//! What doors and the element hold: answers offers, ends connections, shuts down.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, broadcast, oneshot, watch};

use super::agreement::{Agreement, VideoSource, Visitor};
use super::call::{self, Call, CallConfig, CallError, OfferTerms, Offered};
use super::chain::Chain;
use super::codecs::Media;
use super::connection::{Connection, Output, Shared, Terms};
use super::scene::BEYOND_DRAIN;
use super::sockets::{Addresses, Sockets};
use super::stage::Stage;
use super::transport::{Command, OfferRefused, Transport};
use super::webrtcbin::{AnswerError, Met, Neighbour, NeighbourError, Neighbourhood};
use crate::logic::connection::{EndReason, Phase};
use crate::logic::ice_servers::TransportPolicy;
use crate::logic::metrics::Metrics;
use crate::logic::registry::{Candidate, ConnectionId, Place, Refused, Registry};
use crate::logic::return_lines::{Assigned, MediaLine};
use crate::logic::wire::record::ConnectionRecord;
use crate::logic::wire::sdp::{
    CheckedOffer, SdpError, check_candidate, check_offer, rejected_line,
};
use crate::logic::wire::sdpfrag::Fragment;
use crate::logic::wire::whip::IfMatch;

/// The transport's task is never busy for longer.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Questions for ICE servers that the application is asked at once; more wait.
const ASKING: usize = 16;

pub struct SessionConfig {
    pub call: CallConfig,
    pub addresses: Addresses,
    /// What clients are told of unless the application says otherwise, as RTCConfiguration.iceServers.
    pub ice_servers: String,
    pub max_connections: u32,
    /// Of one address, that are not made yet; 0 is any number.
    pub max_pending: u32,
    pub terms: Terms,
    /// What stopping may take.
    pub shutdown_timeout: Duration,
    /// A webrtcbin that answers instead of our own transport.
    pub neighbour: Option<Neighbourhood>,
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
    #[error(transparent)]
    Answer(#[from] call::AnswerError),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
    #[error("there is no connection with the id {0:?}")]
    NoSuchConnection(String),
    #[error("offers of this connection come too fast; wait a second")]
    TooOften,
    #[error("what is said of this connection comes too fast; wait a second")]
    TooFast,
    #[error("this is about another ICE session than the connection has now")]
    OtherIceSession,
    #[error(
        "nothing here takes a codec of the offer's {0} line, and half of an offer is not taken"
    )]
    Unserved(String),
    #[error("nothing is offered here; a client's offer is right, {{\"sdp\",\"type\":\"offer\"}}")]
    NoOffers,
    #[error("the application does not let this visitor in")]
    NotAuthorized,
    #[error(
        "no TURN server relays to us now, and ice-transport-policy=relay allows no other way; try again later"
    )]
    NoRelay,
    #[error("too many candidates wait for their offers")]
    TooManyCandidates,
    #[error("the server is shutting down")]
    Gone,
}

impl Refusal {
    /// A word for programs; the text is for people.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Place(Refused::Full(_) | Refused::Leaving(_)) => "too-many-connections",
            Self::Place(Refused::Pending(_)) => "too-many-pending",
            Self::Place(Refused::Duplicate(_)) => "duplicate-id",
            Self::Place(Refused::Closed) | Self::Gone => "shutting-down",
            Self::Sdp(_) | Self::Call(_) | Self::Answer(_) => "invalid-sdp",
            Self::Neighbour(_) => "webrtcbin",
            Self::NoSuchConnection(_) => "no-such-connection",
            Self::TooOften => "too-many-offers",
            Self::TooFast => "too-many-requests",
            Self::OtherIceSession => "other-ice-session",
            Self::Unserved(_) => "no-codec",
            Self::NoOffers => "no-offers",
            Self::NotAuthorized => "not-authorized",
            Self::NoRelay => "no-relay",
            Self::TooManyCandidates => "too-many-candidates",
        }
    }
}

/// Who goes on with a connection when its answer is handed out.
enum Taker {
    /// Our own transport.
    Call(Box<Call>),
    Neighbour(Arc<Neighbour>, Box<Met>),
}

/// What was negotiated with whom comes.
struct Negotiated {
    taker: Taker,
    /// The peer's own description as it came, and its lines.
    sdp: String,
    media: Vec<MediaLine>,
    /// What is sent on which line.
    returns: Vec<Assigned>,
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
    neighbour: Option<Arc<Neighbour>>,
    /// What visitors are asked to do; `None` leaves it to them.
    desired_playing: watch::Sender<Option<bool>>,
    /// Places to ask the application for ICE servers.
    asking: Arc<Semaphore>,
    /// Cloned into every connection; taken when no more may come.
    alive: Mutex<Option<Sender<()>>>,
    over: Mutex<Receiver<()>>,
}

impl Session {
    /// Binds the UDP sockets and starts the transport.
    pub fn start(mut config: SessionConfig, stage: Arc<dyn Stage>) -> std::io::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::default());
        let (transport, neighbour) = match config.neighbour.take() {
            Some(place) => {
                let (transport, neighbour) = Neighbour::spawn(place);
                (transport, Some(neighbour))
            }
            None => {
                let sockets = {
                    let _inside = crate::runtime::runtime().enter();
                    Sockets::bind(config.addresses.clone(), &metrics, &stage)?
                };
                (Transport::spawn(sockets, metrics.clone()), None)
            }
        };
        let (alive, over) = std::sync::mpsc::channel();
        Ok(Arc::new(Self {
            stage,
            registry: Registry::new(config.max_connections, config.max_pending),
            desired_playing: watch::Sender::new(None),
            config,
            transport,
            neighbour,
            metrics,
            asking: Arc::new(Semaphore::new(ASKING)),
            alive: Mutex::new(Some(alive)),
            over: Mutex::new(over),
        }))
    }

    /// Answers a visitor's first offer and makes the connection.
    pub async fn offer(
        self: &Arc<Self>,
        visitor: Visitor,
        agreement: Agreement,
        sdp: &str,
    ) -> Result<Answered, Refusal> {
        self.decide(visitor, agreement, Some(sdp)).await
    }

    /// Makes a visitor an offer and the connection; [`offer_again`](Self::offer_again) takes the answer.
    pub async fn offer_to(
        self: &Arc<Self>,
        visitor: Visitor,
        agreement: Agreement,
    ) -> Result<Answered, Refusal> {
        self.decide(visitor, agreement, None).await
    }

    async fn decide(
        self: &Arc<Self>,
        visitor: Visitor,
        agreement: Agreement,
        sdp: Option<&str>,
    ) -> Result<Answered, Refusal> {
        if self.neighbour.is_none() {
            return self.settle(visitor, agreement, sdp).await;
        }
        // Half negotiated it would be of use to nobody: a client that hangs up becomes a visitor who does not come.
        let (me, sdp) = (self.clone(), sdp.map(str::to_owned));
        let settled =
            tokio::spawn(async move { me.settle(visitor, agreement, sdp.as_deref()).await });
        settled.await.unwrap_or(Err(Refusal::Gone))
    }

    async fn settle(
        &self,
        visitor: Visitor,
        agreement: Agreement,
        sdp: Option<&str>,
    ) -> Result<Answered, Refusal> {
        let (door, external_id) = (visitor.door, visitor.external_id.clone());
        let mut undecided = Undecided {
            session: self,
            door,
            external_id: external_id.clone(),
            decided: false,
        };
        let answered = self.admit(visitor, agreement, sdp).await;
        undecided.decided = true;
        if let Err(refusal) = &answered {
            self.say_rejected(door, external_id, refusal.code(), &refusal.to_string());
        }
        answered
    }

    /// A request that was refused, here or at the door.
    pub fn say_rejected(
        &self,
        door: &'static str,
        external_id: Option<String>,
        code: &'static str,
        error: &str,
    ) {
        self.metrics.rejected(door, code);
        self.stage.post(
            gst::Structure::builder("rtc-connection-rejected")
                .field("door", door)
                .field_if_some("external-id", external_id)
                .field("error", error)
                .field("limit", self.config.max_connections)
                .build(),
        );
    }

    async fn admit(
        &self,
        visitor: Visitor,
        agreement: Agreement,
        sdp: Option<&str>,
    ) -> Result<Answered, Refusal> {
        let offer = match sdp {
            Some(sdp) => Some(self.check(sdp, &agreement)?),
            None => None,
        };
        let remote = visitor.remote.ip();
        let external_id = visitor.external_id.as_deref();
        let place = self.registry.reserve(external_id, remote)?;
        let external_id = visitor.external_id.clone();
        let place = self.authorize(&visitor, place).await?;
        let is_spent = || self.neighbour.as_ref().is_some_and(|n| n.is_spent());
        let was_spent = is_spent();
        let answered = self.answer(offer.as_ref()).await;
        if answered.is_err() && !was_spent && is_spent() {
            // Nobody else comes: the pipeline ends as if somebody had been there.
            self.stage.visitor_stays(place.id());
            self.stage.visitor_left(place.id());
        }
        let (answer, taker) = answered?;
        if agreement.whole_offer
            && let Some(offer) = &offer
            && let Some(line) = rejected_line(&answer, &offer.media)
        {
            return Err(Refusal::Unserved(line.kind.clone()));
        }
        let (media, returns) = match offer {
            Some(offer) => (offer.media, offer.returns),
            None => Default::default(),
        };
        let negotiated = Negotiated {
            taker,
            sdp: sdp.unwrap_or_default().to_owned(),
            media,
            returns,
        };
        let connection = self.begin(visitor, agreement, place, negotiated).await?;
        let id = connection.id().clone();
        if let Some(external_id) = external_id {
            for candidate in self.registry.take_candidates(&external_id, Instant::now()) {
                self.add_candidate(&id, candidate).await;
            }
        }
        Ok(Answered { id, sdp: answer })
    }

    /// Makes an offer to a server that is called.
    pub async fn offer_out(&self, terms: &OfferTerms) -> Result<Offered, Refusal> {
        let candidates = self.candidates().await?;
        Ok(Call::offer(
            &self.config.call,
            terms,
            &candidates,
            Instant::now(),
        )?)
    }

    /// The server that is called has answered: the connection begins.
    pub async fn answered(
        &self,
        visitor: Visitor,
        agreement: Agreement,
        offered: Offered,
        answer: &str,
    ) -> Result<Arc<Connection>, Refusal> {
        let (call, checked) = offered.accept(answer, Instant::now())?;
        let external_id = visitor.external_id.as_deref();
        let place = self.registry.reserve(external_id, visitor.remote.ip())?;
        let negotiated = Negotiated {
            taker: Taker::Call(Box::new(call)),
            sdp: answer.to_owned(),
            media: checked.media,
            returns: checked.returns,
        };
        self.begin(visitor, agreement, place, negotiated).await
    }

    async fn begin(
        &self,
        visitor: Visitor,
        agreement: Agreement,
        place: Place<Arc<Connection>>,
        negotiated: Negotiated,
    ) -> Result<Arc<Connection>, Refusal> {
        let alive = self
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut terms = self.config.terms;
        terms.time_limit = [terms.time_limit, agreement.time_limit]
            .into_iter()
            .flatten()
            .min();
        let (connection, life) = Connection::new(
            visitor,
            agreement,
            Shared {
                stage: self.stage.clone(),
                transport: self.transport.clone(),
                terms,
                metrics: self.metrics.clone(),
                wish: self.desired_playing(),
            },
            place,
            alive.ok_or(Refusal::Gone)?,
        );
        let Negotiated {
            mut taker,
            sdp,
            media,
            returns,
        } = negotiated;
        if let Taker::Call(call) = &mut taker {
            let lines = call.send_lines(&returns, Instant::now());
            connection.lanes().negotiated(lines);
        }
        // From here on nothing waits: a client that hangs up meanwhile leaves no half of a connection.
        let room = self.transport.reserve().await.ok_or(Refusal::Gone)?;
        life.place.commit(connection.clone())?;
        connection.say_created();
        match taker {
            Taker::Call(call) => room.send(Command::Adopt {
                call,
                sdp,
                media,
                connection: connection.clone(),
            }),
            Taker::Neighbour(neighbour, met) => neighbour.adopt(*met, &connection),
        }
        crate::runtime::runtime().spawn(connection.clone().live(life));
        Ok(connection)
    }

    /// Whether an offer is one that can be answered here.
    fn check(&self, sdp: &str, agreement: &Agreement) -> Result<CheckedOffer, Refusal> {
        let returns = match &self.neighbour {
            Some(neighbour) => {
                neighbour.takes_offers()?;
                neighbour.can(agreement)?;
                neighbour.returns()
            }
            None => agreement.returns(&*self.stage),
        };
        let offer = check_offer(sdp, &[], &returns)?;
        if !offer.has_media() && agreement.source == VideoSource::Offer {
            return Err(SdpError::NoMedia.into());
        }
        Ok(offer)
    }

    /// An answer to the offer, or without one an offer of ours, and who goes on with it.
    async fn answer(&self, offer: Option<&CheckedOffer>) -> Result<(String, Taker), Refusal> {
        if let Some(neighbour) = &self.neighbour {
            let met = match offer {
                Some(offer) => neighbour.answer(offer).await?,
                None => neighbour.offer().await?,
            };
            let answer = met.sdp.clone();
            return Ok((answer, Taker::Neighbour(neighbour.clone(), Box::new(met))));
        }
        let offer = offer.ok_or(Refusal::NoOffers)?;
        let candidates = self.candidates().await?;
        let (call, answer) = Call::answer(&self.config.call, offer, &candidates, Instant::now())?;
        Ok((answer, Taker::Call(Box::new(call))))
    }

    /// What a peer may be told that it may reach us at.
    async fn candidates(&self) -> Result<Vec<str0m::Candidate>, Refusal> {
        let (reply, candidates) = oneshot::channel();
        self.transport.send(Command::Candidates(reply)).await;
        let candidates = candidates.await.map_err(|_| Refusal::Gone)?;
        if candidates.is_empty() && self.ice_transport_policy() == TransportPolicy::Relay {
            return Err(Refusal::NoRelay);
        }
        Ok(candidates)
    }

    /// The place goes with the question: a client that hangs up meanwhile does not make room for another one's.
    async fn authorize(
        &self,
        visitor: &Visitor,
        place: Place<Arc<Connection>>,
    ) -> Result<Place<Arc<Connection>>, Refusal> {
        let stage = self.stage.clone();
        let visitor = gst::Structure::builder("rtc-visitor")
            .field("door", visitor.door)
            .field_if_some("external-id", visitor.external_id.as_deref())
            .field("remote-address", visitor.remote.to_string())
            .field("data", &visitor.data)
            .field_if_some("authorization", visitor.authorization.as_deref())
            .build();
        let ask = move || stage.authorize(visitor).then_some(place);
        let asked = crate::runtime::runtime().spawn_blocking(ask).await;
        // A handler that panics lets nobody in.
        asked.ok().flatten().ok_or(Refusal::NotAuthorized)
    }

    async fn add_candidate(&self, id: &ConnectionId, candidate: String) {
        let id = id.clone();
        self.transport
            .send(Command::Candidate { id, candidate })
            .await;
    }

    /// Takes a candidate that came by itself, of a connection that stands or of one whose offer is on its way.
    pub async fn candidate(
        &self,
        id: &str,
        candidate: &str,
        remote: std::net::SocketAddr,
    ) -> Result<(), Refusal> {
        let Some(candidate) = check_candidate(candidate)? else {
            return Ok(());
        };
        let now = Instant::now();
        match self.registry.candidate(id, &candidate, remote.ip(), now) {
            Candidate::For(connection) if !connection.may_be_told(now) => {
                return Err(Refusal::TooFast);
            }
            Candidate::For(connection) => self.add_candidate(connection.id(), candidate).await,
            Candidate::Kept => {}
            Candidate::NoRoom => {
                self.metrics.early_candidate_dropped();
                return Err(Refusal::TooManyCandidates);
            }
        }
        Ok(())
    }

    /// What ICE servers a client of that address is given, as JSON: what the application says, else ours.
    pub async fn ice_servers(&self, remote: std::net::SocketAddr) -> String {
        let said = self.application_ice_servers(remote).await;
        said.unwrap_or_else(|| self.config.ice_servers.clone())
    }

    /// What ways a client is told to use, and we do.
    pub fn ice_transport_policy(&self) -> TransportPolicy {
        self.config.addresses.policy
    }

    async fn application_ice_servers(&self, remote: std::net::SocketAddr) -> Option<String> {
        let stage = self.stage.clone();
        let visitor = gst::Structure::builder("rtc-visitor")
            .field("remote-address", remote.to_string())
            .build();
        // Goes with the question, as a place does.
        let asking = self.asking.clone().acquire_owned().await.ok()?;
        let ask = move || {
            let servers = stage.ice_servers(visitor);
            drop(asking);
            servers
        };
        let asked = crate::runtime::runtime().spawn_blocking(ask);
        asked.await.ok().flatten()
    }

    /// The chain for that kind of stream, of visitors who bring none of their own.
    pub fn chain(&self, media: Media) -> Option<Chain> {
        self.stage.chain(media)
    }

    /// Every connection that has not ended.
    pub fn standing(&self) -> Vec<Arc<Connection>> {
        self.registry.all()
    }

    /// The connection of that id, ours or the client's.
    pub fn find(&self, id: &str) -> Option<Arc<Connection>> {
        self.registry.find(id)
    }

    /// Every connection, oldest first.
    pub fn connections(&self) -> Vec<ConnectionRecord> {
        let all = self.registry.all();
        // What was left behind has had its last word.
        let records = all.iter().map(|connection| connection.record());
        let mut records: Vec<_> = records
            .filter(|r| r.state != Phase::Ended.as_str())
            .collect();
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
        if let Some(neighbour) = &self.neighbour {
            neighbour.takes_offers()?;
        }
        self.describe(id, sdp).await
    }

    /// Takes the answer to an offer of ours.
    pub async fn accept(&self, id: &str, sdp: &str) -> Result<(), Refusal> {
        let neighbour = self.neighbour.as_ref().ok_or(Refusal::NoOffers)?;
        neighbour.makes_offers()?;
        self.describe(id, sdp).await.map(|_| ())
    }

    async fn describe(&self, id: &str, sdp: &str) -> Result<Answered, Refusal> {
        let connection = self.registry.find(id).ok_or_else(|| missing(id))?;
        let (reply, answer) = oneshot::channel();
        let offer = Command::Offer {
            id: connection.id().clone(),
            sdp: sdp.to_owned(),
            reply,
        };
        self.transport.send(offer).await;
        let answer = answer.await.map_err(|_| Refusal::Gone)?;
        let sdp = answer.map_err(|refused| refusal(refused, id))?;
        Ok(Answered {
            id: connection.id().clone(),
            sdp,
        })
    }

    /// Takes candidates of a connection that stands, if its ICE session is the one that is meant. Other credentials
    /// restart ICE; the answer is given back then.
    pub async fn ice(
        &self,
        connection: &Connection,
        if_match: IfMatch,
        fragment: Fragment,
    ) -> Result<Option<String>, Refusal> {
        if !connection.may_be_told(Instant::now()) {
            return Err(Refusal::TooFast);
        }
        let id = connection.id();
        let (reply, done) = oneshot::channel();
        let command = Command::Ice {
            id: id.clone(),
            if_match,
            fragment,
            reply,
        };
        self.transport.send(command).await;
        let done = done.await.map_err(|_| Refusal::Gone)?;
        done.map_err(|refused| refusal(refused, id.as_str()))
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
        let drain = self.config.shutdown_timeout.saturating_sub(BEYOND_DRAIN);
        for connection in self.registry.all() {
            connection.end_with_the_server(abruptly, drain);
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

fn missing(id: &str) -> Refusal {
    Refusal::NoSuchConnection(id.chars().take(64).collect())
}

fn refusal(refused: OfferRefused, id: &str) -> Refusal {
    match refused {
        OfferRefused::Gone => missing(id),
        OfferRefused::TooOften => Refusal::TooOften,
        OfferRefused::OtherIceSession => Refusal::OtherIceSession,
        OfferRefused::Sdp(error) => error.into(),
        OfferRefused::Call(error) => error.into(),
        OfferRefused::Neighbour(error) => error.into(),
    }
}

impl From<AnswerError> for Refusal {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Sdp(error) => error.into(),
            AnswerError::Neighbour(error) => error.into(),
        }
    }
}

/// An offer whose fate is open. Its client may hang up before it is known.
struct Undecided<'a> {
    session: &'a Session,
    door: &'static str,
    external_id: Option<String>,
    decided: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.decided {
            let text = "the client hung up before it was answered";
            self.session
                .say_rejected(self.door, self.external_id.take(), "hung-up", text);
        }
    }
}
