//! One connection of a webrtcbin: its signals, from the negotiation to the end, and the ends that it does not tell.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{
    WebRTCDTLSTransport, WebRTCDTLSTransportState, WebRTCDataChannel, WebRTCICEGatheringState,
    WebRTCPeerConnectionState, WebRTCRTPTransceiver, WebRTCSessionDescription,
};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::inside::say_goodbye;
use super::lines::{AFTER_FLUSH, Line};
use super::sending::Source;
use crate::logic::connection::{EndReason, Patience, Watchdog};
use crate::logic::rate_limit::RateLimit;
use crate::logic::wire::sdp::MAX_MEDIA_LINES;
use crate::logic::wire::sdp_gate::GatedLine;
use crate::logic::wire::sdpfrag::Credentials;
use crate::peer::connection::{Connection, Part};

/// Without a server to ask, all candidates are there so long after the last one.
const QUIET: Duration = Duration::from_millis(20);
/// Where servers are asked, they have had their time so long after it.
const ASKED: Duration = Duration::from_millis(300);
/// What having one at all may take.
const GATHERING: Duration = Duration::from_secs(2);
/// Later offers that are answered.
const OFFERS_PER_SECOND: u32 = 2;
/// Candidates of one connection that are taken.
const MAX_CANDIDATES: u32 = 200;
/// What stopping it may take.
const STOPPING: Duration = Duration::from_secs(1);

pub struct Visit {
    me: Weak<Visit>,
    webrtcbin: gst::Element,
    /// What the peer offers, for transceivers that are made of it.
    offered: Mutex<Vec<GatedLine>>,
    /// Absent until the answer is handed out.
    connection: OnceLock<Weak<Connection>>,
    watchdog: Mutex<Watchdog>,
    guard: Mutex<Option<AbortHandle>>,
    reoffers: Mutex<RateLimit>,
    candidates: Mutex<u32>,
    lines: Mutex<Vec<Arc<Line>>>,
    channels: Mutex<Vec<WebRTCDataChannel>>,
    handlers: Mutex<Vec<glib::SignalHandlerId>>,
    transports: Mutex<Vec<(WebRTCDTLSTransport, glib::SignalHandlerId)>>,
    /// When its last candidate came, and whether there are more to come.
    gathering: Mutex<(Option<Instant>, bool)>,
    gathered_more: Notify,
    /// What is sent, once the connection stands: its pads block before.
    sources: Mutex<Vec<Arc<Source>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Visit {
    /// Listens to all that it says from here on.
    pub fn begin(webrtcbin: gst::Element, patience: Patience) -> Arc<Self> {
        let now = Instant::now();
        let visit = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            webrtcbin,
            offered: Mutex::default(),
            connection: OnceLock::new(),
            watchdog: Mutex::new(Watchdog::new(patience, now)),
            guard: Mutex::default(),
            reoffers: Mutex::new(RateLimit::new(OFFERS_PER_SECOND, now)),
            candidates: Mutex::default(),
            lines: Mutex::default(),
            channels: Mutex::default(),
            handlers: Mutex::default(),
            transports: Mutex::default(),
            gathering: Mutex::new((None, false)),
            gathered_more: Notify::new(),
            sources: Mutex::default(),
        });
        visit.listen();
        visit
    }

    pub fn webrtcbin(&self) -> &gst::Element {
        &self.webrtcbin
    }

    pub fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.get()?.upgrade()
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, Vec<WebRTCDataChannel>> {
        lock(&self.channels)
    }

    /// Sends it as soon as the connection stands.
    pub fn sends(&self, source: Arc<Source>) {
        if self.is_connected() {
            source.open();
        } else {
            lock(&self.sources).push(source);
        }
    }

    /// Whether something has come.
    pub(super) fn receives(&self) -> bool {
        !lock(&self.lines).is_empty()
    }

    /// The lines of a later offer.
    pub fn renew(&self, offered: Vec<GatedLine>) {
        *lock(&self.offered) = offered;
    }

    pub fn may_negotiate(&self) -> bool {
        lock(&self.reoffers).allows(Instant::now(), 1)
    }

    /// The answer is being handed out.
    pub fn belongs_to(&self, connection: &Arc<Connection>) {
        let _ = self.connection.set(connection.weak());
        // There is no other one for this webrtcbin: the pipeline ends with it.
        connection.stage().visitor_stays(connection.id());
        // Some may be there already: the peer knows enough of an offer of ours.
        for pad in self.webrtcbin.src_pads() {
            self.on_pad(&pad);
        }
        let me = self.weak();
        let guard = crate::runtime::runtime().spawn(async move {
            while let Some(visit) = me.upgrade() {
                let deadline = lock(&visit.watchdog).deadline();
                drop(visit);
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    // Connecting changes it, so it is looked at again.
                    None => tokio::time::sleep(STOPPING).await,
                }
                let Some(visit) = me.upgrade() else { return };
                let check = lock(&visit.watchdog).check(Instant::now());
                if let Some(reason) = check {
                    visit.end_with(reason, None);
                }
            }
        });
        *lock(&self.guard) = Some(guard.abort_handle());
    }

    pub(super) fn is_connected(&self) -> bool {
        lock(&self.watchdog).is_connected()
    }

    pub(super) fn end_with(&self, reason: EndReason, detail: Option<String>) {
        if let Some(connection) = self.connection() {
            connection.end(reason, detail);
        }
    }

    /// Something of the peer came.
    pub fn on_sign_of_life(&self) {
        lock(&self.watchdog).on_datagram(Instant::now());
    }

    /// Nothing of it is heard any more.
    fn ignore(&self) {
        let handlers = std::mem::take(&mut *lock(&self.handlers));
        for handler in handlers {
            self.webrtcbin.disconnect(handler);
        }
        let transports = std::mem::take(&mut *lock(&self.transports));
        for (transport, handler) in transports {
            transport.disconnect(handler);
        }
        if let Some(guard) = lock(&self.guard).take() {
            guard.abort();
        }
    }

    /// Connects a signal of the webrtcbin's.
    fn on(&self, signal: &str, act: impl Fn(&Arc<Visit>, &[glib::Value]) + Send + Sync + 'static) {
        let me = self.weak();
        let handler = self.webrtcbin.connect(signal, false, move |values| {
            if let Some(visit) = me.upgrade() {
                act(&visit, values);
            }
            None
        });
        lock(&self.handlers).push(handler);
    }

    fn listen(&self) {
        self.on("on-new-transceiver", |visit, values| {
            if let Ok(transceiver) = values[1].get::<WebRTCRTPTransceiver>() {
                visit.on_transceiver(&transceiver);
            }
        });
        self.on("on-ice-candidate", |visit, _| {
            lock(&visit.gathering).0 = Some(Instant::now());
            visit.gathered_more.notify_one();
        });
        self.on("notify::ice-gathering-state", |visit, _| {
            let state: WebRTCICEGatheringState = visit.webrtcbin.property("ice-gathering-state");
            lock(&visit.gathering).1 = state == WebRTCICEGatheringState::Complete;
            visit.gathered_more.notify_one();
        });
        self.on("notify::connection-state", |visit, _| {
            visit.on_state(visit.webrtcbin.property("connection-state"));
        });
        self.on("on-data-channel", |visit, values| {
            if let Ok(channel) = values[1].get::<WebRTCDataChannel>() {
                visit.on_channel(channel);
            }
        });
        self.on("pad-added", |visit, values| {
            if let Ok(pad) = values[1].get::<gst::Pad>() {
                visit.on_pad(&pad);
            }
        });
        self.on("deep-element-added", |visit, values| {
            if let Ok(element) = values[2].get::<gst::Element>() {
                visit.on_element(&element);
            }
        });
        let inner = self.webrtcbin.downcast_ref::<gst::Bin>().into_iter();
        for element in inner.flat_map(|bin| bin.iterate_recurse().into_iter().flatten()) {
            self.on_element(&element);
        }
    }

    fn on_state(&self, state: WebRTCPeerConnectionState) {
        match state {
            WebRTCPeerConnectionState::Connected => {
                lock(&self.watchdog).on_connected(Instant::now());
                let sources = lock(&self.sources).clone();
                for source in sources {
                    source.open();
                }
                if let Some(connection) = self.connection() {
                    connection.on_connected();
                }
            }
            WebRTCPeerConnectionState::Failed => {
                let failed = match self.is_connected() {
                    true => EndReason::PeerLost,
                    false => EndReason::SetupFailed,
                };
                self.end_with(failed, None);
            }
            WebRTCPeerConnectionState::Closed => self.end_with(EndReason::ClientClosed, None),
            _ => {}
        }
    }

    /// A pad that only receives: what is asked for of the peer is said here, the one time that it is read.
    fn on_transceiver(&self, transceiver: &WebRTCRTPTransceiver) {
        let at = transceiver.mlineindex() as usize;
        let Some(line) = lock(&self.offered).get(at).cloned() else {
            return;
        };
        let mut wanted = gst::Caps::new_empty();
        for codec in &line.codecs {
            wanted.make_mut().append(line.caps(codec));
        }
        if !wanted.is_empty() {
            transceiver.set_property("do-nack", line.kind == "video");
            transceiver.set_property("codec-preferences", wanted);
        }
    }

    fn on_pad(&self, pad: &gst::Pad) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        if pad.direction() != gst::PadDirection::Src {
            return;
        }
        let is_new = |lines: &[Arc<Line>]| {
            lines.len() < MAX_MEDIA_LINES && !lines.iter().any(|line| line.is_of(pad))
        };
        if is_new(&lock(&self.lines)) {
            let line = Line::watch(pad, &me);
            lock(&self.lines).push(line);
        }
    }

    /// Its DTLS transports are there once something is negotiated; that the peer closed is told by them alone.
    pub fn watch_transports(&self, transceivers: usize) {
        let mut transports: Vec<WebRTCDTLSTransport> = Vec::new();
        for index in 0..transceivers as i32 {
            let transceiver: Option<WebRTCRTPTransceiver> =
                self.webrtcbin.emit_by_name("get-transceiver", &[&index]);
            let Some(transceiver) = transceiver else {
                break;
            };
            transports.extend(
                transceiver
                    .receiver()
                    .and_then(|receiver| receiver.transport()),
            );
        }
        let sctp: Option<gst_webrtc::WebRTCSCTPTransport> =
            self.webrtcbin.property("sctp-transport");
        transports.extend(sctp.and_then(|sctp| sctp.transport()));
        for transport in transports {
            if lock(&self.transports)
                .iter()
                .any(|(known, _)| *known == transport)
            {
                continue;
            }
            let me = self.weak();
            let handler = transport.connect_state_notify(move |transport| {
                if transport.state() == WebRTCDTLSTransportState::Closed
                    && let Some(visit) = me.upgrade()
                {
                    visit.end_with(EndReason::ClientClosed, None);
                }
            });
            lock(&self.transports).push((transport, handler));
        }
    }

    /// Waits until its candidates are there, or the time for that is over.
    pub async fn gathered(&self) {
        let text = |name: &str| self.webrtcbin.property::<Option<String>>(name).is_some();
        let asks = text("stun-server") || text("turn-server");
        let all = async {
            loop {
                let (last, complete) = *lock(&self.gathering);
                let quiet = last.map(|last| last + if asks { ASKED } else { QUIET });
                match quiet {
                    _ if complete => return,
                    Some(quiet) if quiet <= Instant::now() => return,
                    Some(quiet) => tokio::select! {
                        () = tokio::time::sleep_until(quiet.into()) => {}
                        () = self.gathered_more.notified() => {}
                    },
                    None => self.gathered_more.notified().await,
                }
            }
        };
        let _ = tokio::time::timeout(GATHERING, all).await;
    }

    pub fn local_description(&self) -> Option<String> {
        let description: Option<WebRTCSessionDescription> =
            self.webrtcbin.property("local-description");
        description?.sdp().as_text().ok()
    }

    /// Whether these are the peer's credentials as it said them.
    pub fn knows(&self, credentials: &Credentials) -> bool {
        let description: Option<WebRTCSessionDescription> =
            self.webrtcbin.property("remote-description");
        let text = description.and_then(|description| description.sdp().as_text().ok());
        text.and_then(|text| Credentials::of(&text)).as_ref() == Some(credentials)
    }

    pub fn add_candidate(&self, candidate: &str) {
        let count = {
            let mut count = lock(&self.candidates);
            *count += 1;
            *count
        };
        if count <= MAX_CANDIDATES {
            // All lines are in one bundle.
            self.webrtcbin
                .emit_by_name::<()>("add-ice-candidate", &[&0u32, &candidate]);
        }
    }

    /// Opens the channel that clients of an offer of ours find.
    pub fn open_channel(&self) {
        let channel: Option<WebRTCDataChannel> = self.webrtcbin.emit_by_name(
            "create-data-channel",
            &[&"inference", &None::<gst::Structure>],
        );
        if let Some(channel) = channel {
            self.on_channel(channel);
        }
    }

    /// EOS down every branch, then it is stopped; `abrupt`: whoever stops the pipeline stops it too.
    pub async fn end(self: Arc<Self>, drain: Duration, abrupt: bool) {
        let connection = self.connection();
        let at_work = Arc::new(AtWork(connection.clone()));
        let ended = tokio::task::spawn_blocking(move || self.end_blocking(drain, abrupt, &at_work));
        if ended.await.ok() != Some(true)
            && let Some(connection) = connection
        {
            connection.was_left_behind(Part::Visit);
        }
    }

    fn end_blocking(&self, drain: Duration, abrupt: bool, at_work: &Arc<AtWork>) -> bool {
        self.ignore();
        if abrupt {
            return true;
        }
        let drained = self.finish_lines(Instant::now() + drain, at_work);
        self.channels().clear();
        let reason = self
            .connection()
            .and_then(|connection| connection.end_reason());
        // Who is not there, or has said it first, is told nothing.
        let say = self.is_connected() && reason != Some(EndReason::ClientClosed);
        let (stopped, over) = std::sync::mpsc::channel();
        let (webrtcbin, at_work) = (self.webrtcbin.clone(), at_work.clone());
        // It has been seen to hang in this; nobody waits for it longer than is said.
        let stopping = std::thread::Builder::new()
            .name("rtc-stop".into())
            .spawn(move || {
                if say {
                    say_goodbye(&webrtcbin);
                }
                webrtcbin.set_locked_state(true);
                let _ = webrtcbin.set_state(gst::State::Null);
                drop(at_work);
                let _ = stopped.send(());
            });
        stopping.is_ok() && over.recv_timeout(STOPPING).is_ok() && drained
    }

    /// Not even a flush is sure to return: what hangs holds the lock that flushing takes.
    fn finish_lines(&self, deadline: Instant, at_work: &Arc<AtWork>) -> bool {
        let lines = std::mem::take(&mut *lock(&self.lines));
        let count = lines.len();
        let (finished, over) = std::sync::mpsc::channel();
        for line in lines {
            let (finished, at_work) = (finished.clone(), at_work.clone());
            // One that has no thread says nothing.
            let _ = std::thread::Builder::new()
                .name("rtc-finish".into())
                .spawn(move || {
                    let done = line.finish(deadline, &at_work);
                    drop(at_work);
                    let _ = finished.send(done);
                });
        }
        drop(finished);
        let limit = deadline + AFTER_FLUSH;
        let left = || limit.saturating_duration_since(Instant::now());
        // One that panics or is stuck changes nothing for the others.
        let finished = (0..count).map(|_| over.recv_timeout(left()) == Ok(true));
        let finished: Vec<bool> = finished.collect();
        !finished.contains(&false)
    }
}

/// Held by all that is at work on the end of a visit: tells when nothing is any more.
pub(super) struct AtWork(Option<Arc<Connection>>);

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.was_taken_apart(Part::Visit);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.ignore();
    }
}
