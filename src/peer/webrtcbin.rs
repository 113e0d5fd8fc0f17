//! The neighbour: a webrtcbin of the user's that answers what comes in by the doors, one connection at a time.
//!
//! Media stays on its own pads. What comes of a connection besides is as with our own transport: messages, data
//! channels, ends. A webrtcbin tells few of its ends, so they are looked for here; what it cannot be asked for is refused.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{WebRTCSDPType, WebRTCSessionDescription};
use tokio::sync::mpsc;

use super::agreement::{Agreement, VideoSource};
use super::connection::Connection;
use super::transport::{COMMANDS, Command, OfferRefused, Transport};
use crate::logic::connection::{EndReason, Patience};
use crate::logic::media::Media;
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::{MediaLine, Returns};
use crate::logic::wire::sdp::{CheckedOffer, SdpError, check_offer};
use crate::logic::wire::sdp_gate::{Gated, GatedLine, gate};
use crate::logic::wire::sdpfrag::{Credentials, Fragment};
use crate::logic::wire::whip::IfMatch;

mod channels;
mod coding;
mod inside;
mod lines;
mod sending;
mod visit;

use sending::Source;
use visit::Visit;

/// What a webrtcbin may take for one step; making its certificate takes longest.
const STEP: Duration = Duration::from_secs(5);
/// Nothing but RTCP may come, and no more often: silence that is shorter says nothing.
const LEAST_SILENCE: Duration = Duration::from_secs(8);

/// Which webrtcbin it is, and what it is told.
pub struct Neighbourhood {
    pub name: String,
    /// Looks for it, for every connection anew: an application may add it late.
    pub find: Box<dyn Fn() -> Option<gst::Element> + Send + Sync>,
    /// Whether it offers, and clients answer.
    pub offers: bool,
    /// Encoding names, in order of preference.
    pub codecs: Vec<&'static str>,
    /// Where it may be reached; empty: wherever it finds.
    pub addresses: Vec<IpAddr>,
    pub patience: Patience,
}

/// Why it does not make a connection.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    #[error("there is no webrtcbin {0:?} in the pipeline")]
    Missing(String),
    #[error(
        "{0} has had its connection, and cannot have another; a new one of that name is needed"
    )]
    Spent(String),
    #[error("{name} does not take it: {problem}")]
    Refused { name: String, problem: String },
    #[error("{name}: no answer to {step} within {} s", STEP.as_secs())]
    Late { name: String, step: &'static str },
    #[error(
        "what a webrtcbin receives stays on its own pads: {0} needs a session without webrtcbin"
    )]
    Elsewhere(&'static str),
    #[error("{0} makes the offers here: POST /offer with {{\"type\":\"request\"}} asks for one")]
    Offers(String),
    #[error("{0} makes no offers here: offer=true lets it do so")]
    Answers(String),
    #[error("a webrtcbin cannot restart ICE; a new connection is needed")]
    Restart,
    #[error(
        "a webrtcbin changes no line that it has: not its codecs, not its direction; a new connection is needed"
    )]
    Changed,
    #[error("no offer waits for this answer")]
    NothingOffered,
}

impl NeighbourError {
    /// Whether it may be different another time, and not for what the client says.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Spent(_) | Self::Late { .. })
    }
}

/// A description of its, and the visit that began with it.
pub struct Met {
    /// Its last answer, or its offer.
    pub sdp: String,
    visit: Arc<Visit>,
    /// The lines of what was negotiated.
    media: Vec<MediaLine>,
    /// What an offer of the client's said of itself.
    identity: Vec<String>,
    lines: Vec<GatedLine>,
}

struct Current {
    id: ConnectionId,
    met: Met,
    /// Whether the client's answer is awaited.
    open: bool,
}

pub struct Neighbour {
    me: Weak<Neighbour>,
    place: Neighbourhood,
    /// What it is given to send.
    sources: Mutex<Vec<Arc<Source>>>,
    current: Mutex<Option<Current>>,
    /// The one that has had its connection: its transports cannot begin anew.
    spent: Mutex<glib::WeakRef<gst::Element>>,
    /// Held by the later offer that is being answered.
    negotiating: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Neighbour {
    /// What reaches it, and it itself.
    pub fn spawn(place: Neighbourhood) -> (Transport, Arc<Self>) {
        let neighbour = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            place,
            sources: Mutex::default(),
            current: Mutex::default(),
            spent: Mutex::default(),
            negotiating: tokio::sync::Mutex::default(),
        });
        let (commands, receiver) = mpsc::channel(COMMANDS);
        if let Some(webrtcbin) = (neighbour.place.find)() {
            neighbour.guard(&webrtcbin);
        }
        crate::runtime::runtime().spawn(neighbour.clone().obey_all(receiver));
        (Transport::to(commands), neighbour)
    }

    pub fn takes_offers(&self) -> Result<(), NeighbourError> {
        match self.place.offers {
            true => Err(NeighbourError::Offers(self.name())),
            false => Ok(()),
        }
    }

    pub fn makes_offers(&self) -> Result<(), NeighbourError> {
        match self.place.offers {
            true => Ok(()),
            false => Err(NeighbourError::Answers(self.name())),
        }
    }

    /// How many lines of each kind it sends on.
    pub fn returns(&self) -> Returns {
        let sources = lock(&self.sources).clone();
        let count = |media| {
            let of_kind = sources
                .iter()
                .filter(|source| source.media() == Some(media));
            of_kind.count() as u32
        };
        Returns {
            video: count(Media::Video),
            audio: count(Media::Audio),
            ..Returns::default()
        }
    }

    /// Takes what it is given to send under our guard: an application may have put another one, or linked more.
    fn guard(&self, webrtcbin: &gst::Element) {
        let sinks = webrtcbin.sink_pads();
        let mut sources = lock(&self.sources).clone();
        sources.retain(|source| sinks.iter().any(|sink| source.is_of(sink)));
        for sink in sinks {
            if !sources.iter().any(|source| source.is_of(&sink)) {
                let me = self.me.clone();
                let on_end = Box::new(move || {
                    if let Some(neighbour) = me.upgrade() {
                        neighbour.on_source_end();
                    }
                });
                sources.extend(Source::guard(&sink, self.place.offers, on_end));
            }
        }
        *lock(&self.sources) = sources;
    }

    /// Where all that is sent has ended and nothing is received, the connection has too.
    fn on_source_end(&self) {
        let over = lock(&self.sources).iter().all(|source| source.has_ended());
        let visit = lock(&self.current)
            .as_ref()
            .map(|current| current.met.visit.clone());
        if let Some(visit) = visit.filter(|visit| over && !visit.receives()) {
            let detail = "all that is sent has come to its end".to_owned();
            visit.end_with(EndReason::SourceEnded, Some(detail));
        }
    }

    /// Whether it has what a door has agreed on.
    pub fn can(&self, agreement: &Agreement) -> Result<(), NeighbourError> {
        let wants = match agreement.source {
            _ if agreement.video_chain.is_some() => "a chain",
            VideoSource::Upload(_) => "a file",
            VideoSource::Pull(_) => "a camera that is pulled from",
            VideoSource::Offer => return Ok(()),
        };
        Err(NeighbourError::Elsewhere(wants))
    }

    fn name(&self) -> String {
        format!("webrtcbin {:?}", self.place.name)
    }

    /// It, ready for somebody new.
    fn ready(&self) -> Result<gst::Element, NeighbourError> {
        let webrtcbin =
            (self.place.find)().ok_or_else(|| NeighbourError::Missing(self.place.name.clone()))?;
        if let Some(bin) = webrtcbin.downcast_ref::<gst::Bin>() {
            // Its inner sinks never end, so the pipeline must not wait for them: it waits for us.
            bin.set_suppressed_flags(gst::ElementFlags::SINK);
            bin.unset_element_flags(gst::ElementFlags::SINK);
        }
        let spent = lock(&self.spent).upgrade();
        if spent.is_some_and(|spent| spent == webrtcbin) {
            return Err(NeighbourError::Spent(self.name()));
        }
        self.guard(&webrtcbin);
        for address in &self.place.addresses {
            let agent: glib::Object = webrtcbin.property("ice-agent");
            agent.emit_by_name::<bool>("add-local-ip-address", &[&address.to_string()]);
        }
        Ok(webrtcbin)
    }

    /// Answers somebody new.
    pub async fn answer(&self, offer: &CheckedOffer) -> Result<Met, AnswerError> {
        self.takes_offers()?;
        let gated = gate(&offer.sdp, &self.place.codecs)?;
        let webrtcbin = self.ready()?;
        self.spend(&webrtcbin);
        let visit = Visit::begin(webrtcbin, self.patience());
        let lines = gated.lines.clone();
        let sdp = self.exchange(&visit, gated).await?;
        Ok(Met {
            sdp,
            visit,
            media: offer.media.clone(),
            identity: identity(&offer.sdp),
            lines,
        })
    }

    /// An offer to somebody new.
    pub async fn offer(&self) -> Result<Met, AnswerError> {
        self.makes_offers()?;
        let webrtcbin = self.ready()?;
        self.spend(&webrtcbin);
        let visit = Visit::begin(webrtcbin, self.patience());
        visit.open_channel();
        let sdp = self.describe(&visit, "create-offer", "offer").await?;
        // Its certificate is RSA, which some clients take from a DTLS server and others do not; from a client all do.
        let sdp = sdp.replace("a=setup:actpass", "a=setup:active");
        // Only for what its lines are; what it writes is sound.
        let media = check_offer(&sdp, &[], &Returns::UNLIMITED)?.media;
        Ok(Met {
            sdp,
            visit,
            media,
            identity: Vec::new(),
            lines: Vec::new(),
        })
    }

    /// From its first step on it can serve nobody else: what is half set stays, and 1.22 aborts at what does not fit it.
    fn spend(&self, webrtcbin: &gst::Element) {
        *lock(&self.spent) = webrtcbin.downgrade();
    }

    /// Whether the one that is there has had its connection, or its attempt.
    pub fn is_spent(&self) -> bool {
        let there = (self.place.find)();
        there.is_some() && lock(&self.spent).upgrade() == there
    }

    fn patience(&self) -> Patience {
        let Patience { setup, disconnect } = self.place.patience;
        Patience {
            setup,
            disconnect: disconnect.map(|silence| silence.max(LEAST_SILENCE)),
        }
    }

    /// The connection stands in the registry: from here on it hears of everything.
    pub fn adopt(&self, met: Met, connection: &Arc<Connection>) {
        met.visit.belongs_to(connection);
        *lock(&self.current) = Some(Current {
            id: connection.id().clone(),
            met,
            open: self.place.offers,
        });
    }

    /// Offer in, answer out.
    async fn exchange(&self, visit: &Arc<Visit>, offer: Gated) -> Result<String, AnswerError> {
        let Gated { sdp, lines } = offer;
        visit.renew(lines.clone());
        let coded = lines.iter().filter(|line| line.kind != "application");
        let transceivers = coded.count();
        self.set_remote(visit, WebRTCSDPType::Offer, &sdp).await?;
        let mut left = lines;
        let sources = lock(&self.sources).clone();
        for source in sources {
            // One that finds no line sends nothing.
            if source.take(&mut left) {
                visit.sends(source);
            }
        }
        let answer = self.describe(visit, "create-answer", "answer").await?;
        visit.watch_transports(transceivers);
        Ok(answer)
    }

    async fn set_remote(
        &self,
        visit: &Visit,
        kind: WebRTCSDPType,
        sdp: &str,
    ) -> Result<(), AnswerError> {
        let refused = |problem: String| NeighbourError::Refused {
            name: self.name(),
            problem,
        };
        let sdp = gst_sdp::SDPMessage::parse_buffer(sdp.as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        let description = WebRTCSessionDescription::new(kind, sdp);
        self.step(visit, "set-remote-description", |webrtcbin, promise| {
            webrtcbin.emit_by_name::<()>("set-remote-description", &[&description, &promise]);
        })
        .await?;
        Ok(())
    }

    /// Makes a description of its own, with all candidates in it.
    async fn describe(
        &self,
        visit: &Visit,
        action: &'static str,
        field: &str,
    ) -> Result<String, AnswerError> {
        let made = self
            .step(visit, action, |webrtcbin, promise| {
                webrtcbin.emit_by_name::<()>(action, &[&None::<gst::Structure>, &promise]);
            })
            .await?;
        let nothing = || NeighbourError::Refused {
            name: self.name(),
            problem: format!("{action} gives no {field}"),
        };
        let made = made.ok_or_else(nothing)?;
        let description = made
            .get::<WebRTCSessionDescription>(field)
            .map_err(|_| nothing())?;
        self.step(visit, "set-local-description", |webrtcbin, promise| {
            webrtcbin.emit_by_name::<()>("set-local-description", &[&description, &promise]);
        })
        .await?;
        visit.gathered().await;
        visit.local_description().ok_or_else(|| nothing().into())
    }

    /// One step of a negotiation; what it says of it.
    async fn step(
        &self,
        visit: &Visit,
        step: &'static str,
        emit: impl FnOnce(&gst::Element, gst::Promise),
    ) -> Result<Option<gst::Structure>, NeighbourError> {
        let (promise, reply) = gst::Promise::new_future();
        emit(visit.webrtcbin(), promise);
        let refused = |problem: String| NeighbourError::Refused {
            name: self.name(),
            problem,
        };
        let late = |_| NeighbourError::Late {
            name: self.name(),
            step,
        };
        let reply = tokio::time::timeout(STEP, reply).await.map_err(late)?;
        let reply = reply.map_err(|error| refused(format!("{step}: {error:?}")))?;
        let reply = reply.map(|reply| reply.to_owned());
        match reply
            .as_ref()
            .map(|reply| reply.get::<glib::Error>("error"))
        {
            Some(Ok(error)) => Err(refused(error.message().to_owned())),
            _ => Ok(reply),
        }
    }

    async fn obey_all(self: Arc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::ShutDown(done) => {
                    lock(&self.current).take();
                    drop(done);
                    return;
                }
                command => self.obey(command),
            }
        }
    }

    fn visit(&self, id: &ConnectionId) -> Option<Arc<Visit>> {
        let current = lock(&self.current);
        let current = current.as_ref().filter(|current| current.id == *id);
        current.map(|current| current.met.visit.clone())
    }

    fn obey(self: &Arc<Self>, command: Command) {
        match command {
            Command::Offer { id, sdp, reply } => {
                // It may take its time, for which the end must not wait.
                let me = self.clone();
                tokio::spawn(async move {
                    let answer = match me.negotiating.try_lock() {
                        Ok(_negotiating) => me.offered_again(&id, &sdp).await,
                        Err(_) => Err(OfferRefused::TooOften),
                    };
                    let _ = reply.send(answer);
                });
            }
            Command::Ice {
                id,
                if_match,
                fragment,
                reply,
            } => {
                let _ = reply.send(self.ice(&id, &if_match, &fragment));
            }
            Command::Candidate { id, candidate } => {
                if let Some(visit) = self.visit(&id) {
                    visit.add_candidate(&candidate);
                }
            }
            Command::Message {
                id,
                message,
                outbox,
            } => {
                let sent = self.visit(&id).is_some_and(|visit| visit.send(&message));
                outbox.settle(sent);
            }
            Command::Unsent { id, reply } => {
                if let Some(visit) = self.visit(&id) {
                    // Whoever asked may not wait any more.
                    let _ = reply.send(visit.unsent());
                }
            }
            Command::Close {
                id,
                drain,
                abrupt,
                closed,
            } => {
                let ours = |current: &mut Current| current.id == id;
                let current = lock(&self.current).take_if(ours);
                if let Some(Current { met, .. }) = current {
                    for source in lock(&self.sources).iter() {
                        source.close();
                    }
                    // The others must not wait for it.
                    tokio::spawn(async move {
                        met.visit.end(drain, abrupt).await;
                        drop(closed);
                    });
                }
            }
            // These are for a transport of our own, and nobody has one here.
            Command::Candidates(_) | Command::Adopt { .. } | Command::Frame { .. } => {}
            Command::ShutDown(_) => unreachable!("the loop takes it"),
        }
    }

    /// A later offer, or the answer to ours.
    async fn offered_again(&self, id: &ConnectionId, sdp: &str) -> Result<String, OfferRefused> {
        let (visit, media, open, said, mut lines) = {
            let current = lock(&self.current);
            let current = current.as_ref().filter(|current| current.id == *id);
            let current = current.ok_or(OfferRefused::Gone)?;
            (
                current.met.visit.clone(),
                current.met.media.clone(),
                current.open,
                current.met.identity.clone(),
                current.met.lines.clone(),
            )
        };
        if !visit.may_negotiate() {
            return Err(OfferRefused::TooOften);
        }
        let (checked, gated);
        let sdp = if self.place.offers {
            if !open {
                return Err(NeighbourError::NothingOffered.into());
            }
            // The directions of an answer are what the client says.
            checked = check_offer(sdp, &media, &Returns::UNLIMITED)?;
            gated = gate(&checked.sdp, &self.place.codecs)?;
            self.set_remote(&visit, WebRTCSDPType::Answer, &gated.sdp)
                .await?;
            let coded = gated.lines.iter().filter(|line| line.kind != "application");
            visit.watch_transports(coded.count());
            String::new()
        } else {
            checked = check_offer(sdp, &media, &self.returns())?;
            gated = gate(&checked.sdp, &self.place.codecs)?;
            if identity(&checked.sdp) != said {
                return Err(NeighbourError::Restart.into());
            }
            let same = media.iter().zip(&checked.media).all(|(was, is)| was == is);
            if !same || !gated.lines.starts_with(&lines) {
                return Err(NeighbourError::Changed.into());
            }
            lines.clone_from(&gated.lines);
            self.exchange(&visit, gated).await?
        };
        let mut current = lock(&self.current);
        if let Some(current) = current.as_mut().filter(|current| current.id == *id) {
            current.met.media = checked.media;
            current.met.lines = lines;
            current.met.sdp.clone_from(&sdp);
            current.open = false;
        }
        Ok(sdp)
    }

    fn ice(
        &self,
        id: &ConnectionId,
        if_match: &IfMatch,
        fragment: &Fragment,
    ) -> Result<Option<String>, OfferRefused> {
        let (visit, ours) = {
            let current = lock(&self.current);
            let current = current.as_ref().filter(|current| current.id == *id);
            let current = current.ok_or(OfferRefused::Gone)?;
            let ours = Credentials::of(&current.met.sdp).map(|own| own.ufrag);
            (current.met.visit.clone(), ours)
        };
        if !if_match.allows(&ours.unwrap_or_default()) {
            return Err(OfferRefused::OtherIceSession);
        }
        let new = fragment.credentials.as_ref();
        if new.is_some_and(|new| !visit.knows(new)) {
            return Err(NeighbourError::Restart.into());
        }
        for candidate in &fragment.candidates {
            visit.add_candidate(candidate);
        }
        Ok(None)
    }
}

/// What a description says of who is there: a later one that says other things is of somebody else, or of a restart.
fn identity(sdp: &str) -> Vec<String> {
    const OF_IT: [&str; 3] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"];
    let of_it = |line: &&str| OF_IT.iter().any(|name| line.starts_with(name));
    let mut lines: Vec<_> = sdp.lines().filter(of_it).map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Why somebody is not answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Sdp(#[from] SdpError),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
}

impl From<AnswerError> for OfferRefused {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Sdp(error) => error.into(),
            AnswerError::Neighbour(error) => error.into(),
        }
    }
}
