//! The one task that owns the sockets and drives every call of a session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::media::Mid;
use tokio::sync::{mpsc, oneshot};

use super::call::{self, Call, CallError, CallEvent, EncodedFrame, Sent};
use super::connection::Connection;
use super::encoding::Encoded;
use super::inlet::Inlet;
use super::lane::Lane;
use super::outbox::{Message, Outbox, Waiting, Waits};
use super::sockets::{Datagram, Sockets};
use super::webrtcbin::NeighbourError;
use crate::logic::connection::EndReason;
use crate::logic::metrics::Metrics;
use crate::logic::rate_limit::RateLimit;
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::MediaLine;
use crate::logic::wire::sdp::{CheckedOffer, MAX_CANDIDATES, check_offer};
use crate::logic::wire::sdpfrag::{Credentials, Fragment, restarted};
use crate::logic::wire::whip::IfMatch;

/// Wishes that may wait for the task.
pub const COMMANDS: usize = 1024;
/// Texts of one connection that may wait for the task.
const PENDING_TEXTS: u32 = 32;
/// Later offers of one connection that are answered: all visitors share the task that does it.
const REOFFERS_PER_SECOND: u32 = 2;
/// Datagrams that are read before wishes and time are looked at again.
const BATCH: usize = 64;
/// The longest that the task sleeps.
const IDLE: Duration = Duration::from_secs(10);

pub enum Command {
    /// What a peer may be told, as soon as every TURN server has answered or was waited for.
    Candidates(oneshot::Sender<Vec<Candidate>>),
    Adopt {
        call: Box<Call>,
        /// As it came.
        sdp: String,
        media: Vec<MediaLine>,
        connection: Arc<Connection>,
    },
    Offer {
        id: ConnectionId,
        sdp: String,
        reply: oneshot::Sender<Result<String, OfferRefused>>,
    },
    /// Candidates, or an ICE restart; the answer to a restart comes back.
    Ice {
        id: ConnectionId,
        if_match: IfMatch,
        fragment: Fragment,
        reply: oneshot::Sender<Result<Option<String>, OfferRefused>>,
    },
    /// A candidate that came by itself.
    Candidate { id: ConnectionId, candidate: String },
    Message {
        id: ConnectionId,
        message: Message,
        outbox: Arc<Outbox>,
    },
    /// How much has not reached the peer yet, in bytes; nothing is said of one that is gone.
    Unsent {
        id: ConnectionId,
        reply: oneshot::Sender<usize>,
    },
    Frame {
        id: ConnectionId,
        mid: Mid,
        frame: Encoded,
        lane: Arc<Lane>,
    },
    /// What is being pushed of it is followed by EOS, where that is the transport's to do; the sender is dropped when
    /// all that is done.
    Close {
        id: ConnectionId,
        drain: Duration,
        /// Whoever stops the pipeline stops what is behind the pads.
        abrupt: bool,
        closed: oneshot::Sender<()>,
    },
    /// The sender is dropped when the sockets are closed.
    ShutDown(std::sync::mpsc::Sender<()>),
}

/// Why a later offer is not answered.
#[derive(Debug, thiserror::Error)]
pub enum OfferRefused {
    #[error("there is no connection of that id any more")]
    Gone,
    #[error("at most {REOFFERS_PER_SECOND} offers a second are answered for one connection")]
    TooOften,
    #[error("this is about another ICE session than the connection has now")]
    OtherIceSession,
    #[error(transparent)]
    Sdp(#[from] crate::logic::wire::sdp::SdpError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
}

/// Reaches the task. The task ends when the last of these is gone.
#[derive(Clone)]
pub struct Transport {
    commands: mpsc::Sender<Command>,
}

impl Transport {
    pub fn spawn(sockets: Sockets, metrics: Arc<Metrics>) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        crate::runtime::runtime().spawn(Task::new(sockets, metrics).run(receiver));
        Self { commands }
    }

    /// Of a task that is not ours to make.
    pub fn to(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Waits for room; what is said with it comes without another wait.
    pub async fn reserve(&self) -> Option<mpsc::Permit<'_, Command>> {
        self.commands.reserve().await.ok()
    }

    /// Ends the task and closes its sockets, waiting at most `limit`.
    pub fn shut_down(&self, limit: Duration) {
        let (done, over) = std::sync::mpsc::channel();
        if self.commands.try_send(Command::ShutDown(done)).is_ok() {
            // Nobody sends: the other end is dropped with the task.
            let _ = over.recv_timeout(limit);
        }
    }

    /// Waits for room.
    pub async fn send(&self, command: Command) {
        // Fails only when the task is gone, and with it all that could be wished for.
        let _ = self.commands.send(command).await;
    }

    /// Never waits; drops and counts what finds no room. Says whether it is on its way.
    pub fn send_message(&self, id: &ConnectionId, message: Message, outbox: &Arc<Outbox>) -> bool {
        if outbox.pending.fetch_add(1, Ordering::AcqRel) < PENDING_TEXTS {
            let command = Command::Message {
                id: id.clone(),
                message,
                outbox: outbox.clone(),
            };
            if self.commands.try_send(command).is_ok() {
                return true;
            }
        }
        outbox.pending.fetch_sub(1, Ordering::AcqRel);
        outbox.count(false);
        false
    }

    /// Closes a connection, and waits until that is done.
    pub async fn close(&self, id: &ConnectionId, drain: Duration, abrupt: bool) {
        let (closed, over) = oneshot::channel();
        let close = Command::Close {
            id: id.clone(),
            drain,
            abrupt,
            closed,
        };
        self.send(close).await;
        // Nobody sends: the other end is dropped.
        let _ = over.await;
    }

    /// How much of what was said to that peer has not reached it yet; `None` when it is gone.
    pub async fn unsent(&self, id: &ConnectionId) -> Option<usize> {
        let (reply, unsent) = oneshot::channel();
        let id = id.clone();
        self.send(Command::Unsent { id, reply }).await;
        unsent.await.ok()
    }

    /// Never waits. Says whether the frame is on its way.
    pub fn send_frame(
        &self,
        id: &ConnectionId,
        mid: Mid,
        frame: Encoded,
        lane: &Arc<Lane>,
    ) -> bool {
        let command = Command::Frame {
            id: id.clone(),
            mid,
            frame,
            lane: lane.clone(),
        };
        self.commands.try_send(command).is_ok()
    }
}

struct Driven {
    call: Box<Call>,
    /// The last offer that was answered, as it came.
    sdp: String,
    media: Vec<MediaLine>,
    connection: Arc<Connection>,
    inlets: Vec<Arc<Inlet>>,
    /// Messages that wait for room, bounded by what may be pending.
    waiting: VecDeque<Waiting>,
    reoffers: RateLimit,
    /// Candidates of this ICE session that came by themselves.
    candidates: HashSet<String>,
}

struct Task {
    sockets: Sockets,
    metrics: Arc<Metrics>,
    calls: HashMap<ConnectionId, Driven>,
    /// Whose datagrams come from there; a guess that the call confirms.
    sources: HashMap<SocketAddr, ConnectionId>,
    /// Offers that wait for candidates, as many as there are places at most.
    asking: Vec<oneshot::Sender<Vec<Candidate>>>,
}

enum Woken {
    Command(Option<Command>),
    /// `None` is news of a TURN server.
    Datagram(Option<Datagram>),
    Time,
}

impl Task {
    fn new(sockets: Sockets, metrics: Arc<Metrics>) -> Self {
        Self {
            sockets,
            metrics,
            calls: HashMap::new(),
            sources: HashMap::new(),
            asking: Vec::new(),
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut bytes = vec![0; 2048];
        let mut stun_due = self.sockets.ask_stun_servers(Instant::now());
        loop {
            let now = Instant::now();
            if stun_due.is_some_and(|due| due <= now) {
                stun_due = self.sockets.ask_stun_servers(now);
            }
            let relays_due = self.sockets.tend_relays(now);
            self.tell_candidates(now);
            let wake = self
                .calls
                .values()
                .map(|driven| driven.call.poll_timeout())
                .chain(stun_due)
                .chain(relays_due)
                .fold(now + IDLE, Instant::min);
            let sockets = &mut self.sockets;
            let woken = tokio::select! {
                biased;
                command = commands.recv() => Woken::Command(command),
                () = tokio::time::sleep_until(wake.into()), if wake > now => Woken::Time,
                () = std::future::ready(()), if wake <= now => Woken::Time,
                datagram = poll_fn(|context| sockets.poll_receive(context, &mut bytes)) => Woken::Datagram(datagram),
            };
            match woken {
                Woken::Command(Some(Command::ShutDown(done))) => {
                    drop(self);
                    drop(done);
                    return;
                }
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Command(None) => return,
                Woken::Time => self.tick(),
                Woken::Datagram(None) => {}
                Woken::Datagram(Some(datagram)) => {
                    self.receive(&datagram, &bytes);
                    for _ in 1..BATCH {
                        let sockets = &mut self.sockets;
                        let next = poll_fn(|context| {
                            std::task::Poll::Ready(sockets.poll_receive(context, &mut bytes))
                        });
                        match next.await {
                            std::task::Poll::Ready(Some(datagram)) => {
                                self.receive(&datagram, &bytes)
                            }
                            std::task::Poll::Ready(None) | std::task::Poll::Pending => break,
                        }
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Candidates(reply) => {
                // Who has hung up meanwhile has left its place to another.
                self.asking.retain(|reply| !reply.is_closed());
                self.asking.push(reply);
            }
            Command::Adopt {
                call,
                sdp,
                media,
                connection,
            } => {
                let id = connection.id().clone();
                let driven = Driven {
                    call,
                    sdp,
                    media,
                    connection,
                    inlets: Vec::new(),
                    waiting: VecDeque::new(),
                    reoffers: RateLimit::new(REOFFERS_PER_SECOND, now),
                    candidates: HashSet::new(),
                };
                self.calls.insert(id.clone(), driven);
                self.with(&id, now, |_| ());
            }
            Command::Offer { id, sdp, reply } => {
                let relayed = self.sockets.relayed();
                let answer = self.with(&id, now, |driven| {
                    driven.call.add_local(&relayed, now);
                    driven.renegotiate(&sdp, now)
                });
                let _ = reply.send(answer.unwrap_or(Err(OfferRefused::Gone)));
            }
            Command::Ice {
                id,
                if_match,
                fragment,
                reply,
            } => {
                let relayed = self.sockets.relayed();
                let done = self.with(&id, now, |driven| {
                    driven.call.add_local(&relayed, now);
                    driven.ice(&if_match, &fragment, now)
                });
                let _ = reply.send(done.unwrap_or(Err(OfferRefused::Gone)));
            }
            Command::Candidate { id, candidate } => {
                self.with(&id, now, |driven| driven.add_candidate(&candidate, now));
            }
            Command::Message {
                id,
                message,
                outbox,
            } => {
                let waiting = Waiting {
                    message,
                    outbox,
                    sent: false,
                };
                self.with(&id, now, |driven| driven.deliver(waiting, now));
            }
            Command::Unsent { id, reply } => {
                if let Some(unsent) = self.with(&id, now, |driven| driven.unsent()) {
                    // Whoever asked may not wait any more.
                    let _ = reply.send(unsent);
                }
            }
            Command::Frame {
                id,
                mid,
                frame,
                lane,
            } => {
                let written = self.with(&id, now, |driven| driven.call.write(mid, &frame, now));
                lane.on_written(written == Some(true));
            }
            Command::Close { id, closed, .. } => {
                self.with(&id, now, |driven| driven.call.close(now));
                self.forget(&id);
                drop(closed);
            }
            Command::ShutDown(_) => unreachable!("the loop takes it"),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let due: Vec<ConnectionId> = self
            .calls
            .iter()
            .filter(|(_, driven)| driven.call.poll_timeout() <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.with(&id, now, |driven| driven.call.tick(now));
        }
    }

    /// Answers those who asked what a peer may be told, unless more is about to come.
    fn tell_candidates(&mut self, now: Instant) {
        if self.asking.is_empty() || self.sockets.are_settling(now) {
            return;
        }
        // With no address left, the ones we had are as good as any.
        let _ = self.sockets.refresh();
        let candidates = self.sockets.candidates();
        for reply in self.asking.drain(..) {
            let _ = reply.send(candidates.clone());
        }
    }

    fn receive(&mut self, datagram: &Datagram, bytes: &[u8]) {
        let now = Instant::now();
        let (source, destination) = (datagram.source, datagram.destination);
        let bytes = &bytes[..datagram.length];
        if self.sockets.take_stun_answer(source, destination, bytes) {
            return;
        }
        let Some(input) = call::datagram(now, source, destination, bytes) else {
            return;
        };
        let guess = self.sources.get(&source).cloned();
        let id = guess
            .filter(|id| self.calls.get(id).is_some_and(|d| d.call.accepts(&input)))
            .or_else(|| {
                let found = self.calls.iter().find(|(_, d)| d.call.accepts(&input))?;
                let id = found.0.clone();
                // Addresses of connections that are gone are taken out when they go; the rest is bounded by
                // what living peers send from.
                if self.sources.len() < 16 * self.calls.len() + 16 {
                    self.sources.insert(source, id.clone());
                }
                Some(id)
            });
        if let Some(id) = id {
            self.with(&id, now, |driven| driven.call.receive(input, now));
        }
    }

    fn forget(&mut self, id: &ConnectionId) {
        if let Some(driven) = self.calls.remove(id) {
            self.metrics.frames_lost(driven.call.frames_lost());
        }
        self.sources.retain(|_, owner| owner != id);
        self.sockets.forget(id);
    }

    /// Does something to a call, then sends and tells what it wants sent and told.
    ///
    /// All calls share this task: what one peer's bytes make fail must end that peer's call and no other.
    fn with<R>(
        &mut self,
        id: &ConnectionId,
        now: Instant,
        change: impl FnOnce(&mut Driven) -> R,
    ) -> Option<R> {
        let driven = self.calls.get_mut(id)?;
        let sockets = &mut self.sockets;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let result = change(driven);
            driven.deliver_more(now);
            let goes_on = driven.events(now);
            driven.transmit(sockets);
            (result, goes_on)
        }));
        match done {
            Ok((result, goes_on)) => {
                if !goes_on {
                    self.forget(id);
                }
                Some(result)
            }
            Err(_) => {
                let detail = "the transport failed inside this connection".to_owned();
                driven.connection.end(EndReason::HandlerError, Some(detail));
                self.forget(id);
                None
            }
        }
    }
}

impl Driven {
    fn deliver(&mut self, mut waiting: Waiting, now: Instant) {
        if waiting.message.waits != Waits::Not {
            self.waiting.push_back(waiting);
        } else {
            waiting.sent = self.send(&waiting.message, now) == Sent::Yes;
        }
    }

    /// Sends what waits, as far as there is room.
    fn deliver_more(&mut self, now: Instant) {
        while let Some(mut waiting) = self.waiting.pop_front() {
            match self.send(&waiting.message, now) {
                Sent::Yes => waiting.sent = true,
                Sent::NoChannel if waiting.message.waits != Waits::ForChannel => {}
                Sent::Full | Sent::NoChannel => return self.waiting.push_front(waiting),
                Sent::TooLong => {}
            }
        }
    }

    fn unsent(&mut self) -> usize {
        self.waiting.len() + self.call.unsent()
    }

    fn send(&mut self, message: &Message, now: Instant) -> Sent {
        let channel = message.channel.as_deref();
        let sent = self.call.send(channel, &message.pieces, now);
        if message.tell
            && let Some(problem) = sent.problem(channel)
        {
            self.connection.complain(&problem);
        }
        sent
    }

    fn add_candidate(&mut self, candidate: &str, now: Instant) {
        if self.candidates.len() < MAX_CANDIDATES && self.candidates.insert(candidate.to_owned()) {
            self.call.add_candidate(candidate, now);
        }
    }

    fn renegotiate(&mut self, sdp: &str, now: Instant) -> Result<String, OfferRefused> {
        if !self.reoffers.allows(now, 1) {
            return Err(OfferRefused::TooOften);
        }
        let returns = self.connection.returns();
        let offer: CheckedOffer = check_offer(sdp, &self.media, &returns)?;
        let answer = self.call.answer_again(&offer, now)?;
        let lines = self.call.send_lines(&offer.returns, now);
        self.connection.lanes().negotiated(lines);
        self.media = offer.media;
        if Credentials::of(sdp) != Credentials::of(&self.sdp) {
            self.candidates.clear();
        }
        sdp.clone_into(&mut self.sdp);
        Ok(answer)
    }

    /// Takes candidates. Credentials that are new restart ICE: everything else of the last offer stays as it is.
    fn ice(
        &mut self,
        if_match: &IfMatch,
        fragment: &Fragment,
        now: Instant,
    ) -> Result<Option<String>, OfferRefused> {
        if !if_match.allows(&self.call.ice_session()) {
            return Err(OfferRefused::OtherIceSession);
        }
        let known = Credentials::of(&self.sdp);
        let new = fragment.credentials.as_ref();
        let answer = match new.filter(|new| known.as_ref() != Some(*new)) {
            Some(new) => Some(self.renegotiate(&restarted(&self.sdp, new), now)?),
            None => None,
        };
        for candidate in &fragment.candidates {
            self.add_candidate(candidate, now);
        }
        Ok(answer)
    }

    fn transmit(&mut self, sockets: &mut Sockets) {
        while let Some(transmit) = self.call.poll_transmit() {
            sockets.send(
                self.connection.id(),
                transmit.source,
                transmit.destination,
                &transmit.contents,
            );
        }
    }

    /// Whether the call goes on.
    fn events(&mut self, now: Instant) -> bool {
        let mut goes_on = true;
        while let Some(event) = self.call.poll_event() {
            match event {
                CallEvent::Connected => self.connection.on_connected(),
                CallEvent::Channel(label) => self.connection.on_channel(&label),
                CallEvent::KeyframeWanted(mid) => {
                    self.connection.lanes().on_keyframe_wanted(mid);
                }
                CallEvent::Network(news) => self.connection.lanes().on_network(news, now),
                CallEvent::Frame(frame) => self.frame(frame, now),
                CallEvent::Message {
                    label,
                    data,
                    binary,
                } => self.connection.on_message(label, data, binary, now),
                CallEvent::Ended { reason, detail } => {
                    self.connection.end(reason, detail);
                    goes_on = false;
                }
            }
        }
        goes_on
    }

    fn frame(&mut self, frame: EncodedFrame, now: Instant) {
        let mid = frame.mid;
        self.connection.on_heard(now);
        let known = self.inlets.iter().position(|inlet| inlet.mid == *mid);
        let at = known.unwrap_or_else(|| {
            self.inlets.push(self.connection.open_inlet(&frame));
            self.inlets.len() - 1
        });
        if self.inlets[at].push(frame, now) {
            self.call.need_keyframe(mid, now);
        }
    }
}
