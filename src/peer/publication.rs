//! One stream that is published: to the connection it came from, to one that is named, or to all of a session.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::codecs::{Codec, Media};
use super::connection::Connection;
use super::directory::{self, Publisher};
use super::encoding::Taker;
use super::fan::Fan;
use super::feed::{Feed, FeedOwner, FeedTerms};
use super::lane::{AUDIO_BITRATE, Lane};
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::Source;

/// What encoders for many peers are given where nothing is said, bits a second.
const BITRATE_FOR_ALL: u32 = 1_000_000;

/// Who a published stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// The connection that each buffer came from.
    Origin,
    All,
    /// The connection of that id, ours or the client's.
    One(String),
    /// The server that the session is with.
    Server,
}

/// The element that publishes, as its publications see it. Called from any thread, never under a lock that it could want.
pub trait PublicationStage: Send + Sync {
    fn post(&self, message: gst::Structure);
    /// Running time; `None` while the element does not play.
    fn running_time(&self) -> Option<gst::ClockTime>;
    /// The server that is sent to says something of the frame of those seconds, of its own clock.
    fn said(&self, _seconds: Option<f64>, _failed: bool) {}
}

pub struct PublicationTerms {
    pub session: String,
    /// The pad it enters by.
    pub pad: String,
    /// Which of the session's streams of its kind it is.
    pub number: u32,
    pub recipient: Recipient,
    /// Bits a second at most, 0 for what the network carries.
    pub bitrate: u32,
    pub feed: FeedTerms,
}

pub struct Publication {
    terms: PublicationTerms,
    stage: Arc<dyn PublicationStage>,
    me: Weak<Publication>,
    state: Mutex<State>,
    /// Lanes that were reached, of which it was said, and what there is to say; absent between stop and start.
    reached: Mutex<Option<HashMap<ConnectionId, Reached>>>,
    telling: Mutex<Telling>,
    told: Condvar,
}

/// What is said, in order, by one thread at a time: a handler of it may come back to us.
#[derive(Default)]
struct Telling {
    waiting: VecDeque<gst::Structure>,
    teller: Option<ThreadId>,
}

/// What may wait to be said before only beginnings and ends are kept.
const UNTOLD: usize = 256;
/// What somebody else may take to say what there is to say.
const TELLING: Duration = Duration::from_millis(100);
/// What taking feeds apart may take.
const TAKE_APART: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// By the connection they are for; with one encoder for all there is one, for nobody in particular.
    feeds: HashMap<Option<ConnectionId>, Arc<Feed>>,
    /// One for each codec, where there is one encoder for all.
    fans: Vec<Arc<Fan>>,
    /// Frames of connections that are not in the session.
    homeless: u64,
    finished: bool,
    /// Between start and stop.
    open: bool,
}

impl State {
    fn is_on(&self) -> bool {
        self.open && !self.finished
    }
}

struct Reached {
    since: Instant,
    lane: Arc<Lane>,
}

impl Publication {
    /// Hears of the session's visitors from now on.
    pub fn new(terms: PublicationTerms, stage: Arc<dyn PublicationStage>) -> Arc<Self> {
        let publication = Arc::new_cyclic(|me| Self {
            terms,
            stage,
            me: me.clone(),
            state: Mutex::default(),
            reached: Mutex::new(Some(HashMap::new())),
            telling: Mutex::default(),
            told: Condvar::new(),
        });
        let publisher: Arc<dyn Publisher> = publication.clone();
        directory::publish(&publication.terms.session, &publisher);
        publication
    }

    /// Begins, with the connections that stand already.
    pub fn start(&self) -> Result<(), gst::glib::BoolError> {
        self.lock().open = true;
        if self.terms.recipient == Recipient::All {
            let bitrate = match (self.terms.bitrate, self.terms.feed.media) {
                (0, Media::Video) => BITRATE_FOR_ALL,
                (0, Media::Audio) => AUDIO_BITRATE,
                (bits, Media::Video) => bits,
                // More sounds no better, and a piece of it must fit in a packet.
                (bits, Media::Audio) => bits.min(AUDIO_BITRATE),
            };
            let codecs: &[Codec] = match self.terms.feed.media {
                Media::Video => &Codec::VIDEO,
                Media::Audio => &[Codec::Opus],
            };
            let fans: Vec<_> = codecs
                .iter()
                .map(|codec| Arc::new(Fan::new(*codec, bitrate)))
                .collect();
            let takers = fans.iter().map(|fan| fan.clone() as Arc<dyn Taker>);
            let owned = fans.clone();
            // A lane is in every fan, whichever codec it takes.
            let lanes = move || owned.first().map(|fan| fan.all()).unwrap_or_default();
            let feed = Feed::start(self.terms.feed, None, takers.collect(), lanes, self.owner())?;
            let mut state = self.lock();
            state.feeds.insert(None, feed);
            state.fans = fans;
        }
        for connection in directory::connections(&self.terms.session) {
            self.joined(&connection);
        }
        Ok(())
    }

    pub fn terms(&self) -> &PublicationTerms {
        &self.terms
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self) -> Arc<dyn FeedOwner> {
        self.me.upgrade().expect("it lives while it is called")
    }

    /// Takes a buffer that came from that connection, if it came from any; see [`Feed::push`].
    pub fn push(
        &self,
        origin: Option<&str>,
        buffer: gst::Buffer,
        caps: &gst::Caps,
        at: Duration,
        wait: bool,
    ) -> bool {
        let feeds: Vec<Arc<Feed>> = {
            let mut state = self.lock();
            if !state.is_on() {
                return true;
            }
            let found: Vec<_> = match (&self.terms.recipient, origin) {
                (Recipient::Origin, None) => Vec::new(),
                (Recipient::Origin, Some(id)) => {
                    let feed = state.feeds.get(&Some(ConnectionId::from(id)));
                    feed.cloned().into_iter().collect()
                }
                // Two may bear that name for a moment: one that leaves, and one that comes.
                (Recipient::All | Recipient::One(_) | Recipient::Server, _) => {
                    state.feeds.values().cloned().collect()
                }
            };
            if found.is_empty() {
                // Whoever it is for may come yet.
                state.homeless += 1;
            }
            found
        };
        let mut taken = true;
        for feed in feeds {
            // Every one of them gets it.
            taken &= feed.push(buffer.clone(), caps, at, wait);
        }
        taken
    }

    /// Frames of another kind come: a feed that failed is given another chance.
    pub fn revive(&self) -> Result<(), gst::glib::BoolError> {
        let failed = {
            let mut state = self.lock();
            if !state.is_on() {
                return Ok(());
            }
            let before = state.feeds.len();
            state.feeds.retain(|_, feed| !feed.is_closed());
            state.feeds.len() < before
        };
        if failed { self.start() } else { Ok(()) }
    }

    /// Whether there is somebody whom it reaches.
    pub fn has_recipient(&self) -> bool {
        !self.lock().feeds.is_empty()
    }

    fn feeds(&self) -> Vec<(Option<ConnectionId>, Arc<Feed>)> {
        let state = self.lock();
        let feeds = state.feeds.iter();
        feeds.map(|(to, feed)| (to.clone(), feed.clone())).collect()
    }

    /// Feeds for that connection alone, or all of them with an empty id.
    fn feeds_for(&self, id: &str) -> Vec<Arc<Feed>> {
        let meant = |to: &Option<ConnectionId>| {
            id.is_empty() || to.as_ref().is_some_and(|to| to.as_str() == id)
        };
        let feeds = self.feeds().into_iter();
        feeds.filter(|(to, _)| meant(to)).map(|(_, f)| f).collect()
    }

    /// Drops what waits to be sent to a connection, or to all with an empty id. Says whether there was somebody to clear for.
    pub fn clear(&self, id: &str) -> bool {
        let feeds = self.feeds_for(id);
        for feed in &feeds {
            feed.clear();
        }
        !feeds.is_empty()
    }

    /// What waits, by connection; `all` where there is one encoder for all.
    pub fn stats(&self) -> gst::Structure {
        let mut stats = gst::Structure::new_empty("rtc-buffer-stats");
        for (to, feed) in self.feeds() {
            let to = to.as_ref().map_or("all", |id| id.as_str());
            stats.set(to, feed.stats());
        }
        let homeless = self.lock().homeless;
        stats.set("without-recipient", homeless);
        stats
    }

    /// Whoever waits for room waits no longer, until told otherwise; what waits stays.
    pub fn set_unlocked(&self, unlocked: bool) {
        for (_, feed) in self.feeds() {
            feed.set_unlocked(unlocked);
        }
    }

    pub fn set_flushing(&self, flushing: bool) {
        for (_, feed) in self.feeds() {
            feed.set_flushing(flushing);
        }
    }

    /// It is paused, or goes on.
    pub fn wake(&self) {
        for (_, feed) in self.feeds() {
            feed.wake();
        }
    }

    /// After [`Publication::finish`] something comes again.
    pub fn reopen(&self) -> Result<(), gst::glib::BoolError> {
        let over = {
            let mut state = self.lock();
            std::mem::take(&mut state.finished)
        };
        if !over {
            return Ok(());
        }
        self.reached().get_or_insert_default();
        self.start()
    }

    /// Nothing more comes: what waits is sent, for at most `limit`.
    pub fn finish(&self, limit: Duration) {
        self.lock().finished = true;
        let feeds = self.feeds();
        for (_, feed) in &feeds {
            feed.finish();
        }
        // What came faster than it plays has its time coming, if anything is waited for at all.
        let queued = feeds.iter().map(|(_, feed)| feed.queued()).max();
        let queued = queued.filter(|_| !limit.is_zero()).unwrap_or_default();
        let deadline = Instant::now() + limit + queued;
        for (_, feed) in &feeds {
            feed.wait_closed(deadline.saturating_duration_since(Instant::now()));
        }
        self.stop();
    }

    /// Nothing is sent any more.
    pub fn stop(&self) {
        let feeds = {
            let mut state = self.lock();
            state.open = false;
            state.fans.clear();
            std::mem::take(&mut state.feeds)
        };
        for feed in feeds.values() {
            feed.close();
        }
        let deadline = Instant::now() + TAKE_APART;
        for feed in feeds.values() {
            feed.wait_apart(deadline.saturating_duration_since(Instant::now()));
        }
        let reached = self.reached().take();
        for (id, reached) in reached.into_iter().flatten() {
            self.tell(self.ended(&id, &reached));
        }
        self.tell_all();
    }

    fn reached(&self) -> MutexGuard<'_, Option<HashMap<ConnectionId, Reached>>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, name: &str, to: Option<&ConnectionId>) -> gst::structure::Builder {
        gst::Structure::builder(name)
            .field_if_some("connection-id", to.map(ConnectionId::as_str))
            .field("pad", &self.terms.pad)
            .field("media", self.terms.feed.media.as_str())
    }

    fn ended(&self, id: &ConnectionId, reached: &Reached) -> gst::Structure {
        self.say("rtc-publication-ended", Some(id))
            .field("buffers", reached.lane.sent())
            .field("duration", reached.since.elapsed().as_nanos() as u64)
            .build()
    }

    /// Puts something in the line of what is to be said; [`tell_all`](Self::tell_all) says it, outside of every lock.
    fn tell(&self, message: gst::Structure) {
        self.telling().waiting.push_back(message);
    }

    fn tell_all(&self) {
        let me = std::thread::current().id();
        {
            let mut telling = self.telling();
            match telling.teller {
                None => telling.teller = Some(me),
                // We were called by a handler, and go on when it returns.
                Some(teller) if teller == me => return,
                // Whoever waits for us must find it said; but not for a handler that hangs.
                Some(_) => {
                    let busy = |telling: &mut Telling| telling.teller.is_some();
                    drop(self.told.wait_timeout_while(telling, TELLING, busy));
                    return;
                }
            }
        }
        loop {
            let message = {
                let mut telling = self.telling();
                let next = telling.waiting.pop_front();
                if next.is_none() {
                    telling.teller = None;
                    self.told.notify_all();
                }
                next
            };
            match message {
                Some(message) => self.stage.post(message),
                None => return,
            }
        }
    }

    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something of a connection, unless it has left: then its last word was said.
    fn say_of(&self, to: Option<&ConnectionId>, message: gst::structure::Builder) {
        {
            let reached = self.reached();
            let there = to.is_none_or(|to| self.lock().feeds.contains_key(&Some(to.clone())));
            // Of one whose handler hangs, ends are kept, and the rest only so far.
            if !there || reached.is_none() || self.telling().waiting.len() >= UNTOLD {
                return;
            }
            self.tell(message.build());
        }
        self.tell_all();
    }

    fn say_error(&self, to: &ConnectionId, error: String) {
        let message = self.say("rtc-publication-error", Some(to));
        let message = message.field("error", error).field("fatal", false);
        self.stage.post(message.build());
    }

    fn wants(&self, connection: &Connection) -> bool {
        match &self.terms.recipient {
            Recipient::Origin | Recipient::All | Recipient::Server => true,
            Recipient::One(id) => {
                connection.id().as_str() == id || connection.external_id() == Some(id)
            }
        }
    }
}

impl Publisher for Publication {
    fn joined(&self, connection: &Arc<Connection>) {
        if !self.wants(connection) || !self.lock().is_on() {
            return;
        }
        let media = self.terms.feed.media;
        let to = connection.id().clone();
        let source = Source::Published(media, self.terms.number);
        let most = (self.terms.bitrate > 0).then_some(self.terms.bitrate);
        let lane = connection.lanes().open(source, media, most);
        let carried = lane.has_line();
        if self.terms.recipient == Recipient::All {
            for fan in &self.lock().fans {
                fan.add(lane.clone());
            }
            if !carried {
                self.say_error(&to, format!("the visitor receives no {}", media.as_str()));
            }
        } else {
            let lanes = {
                let lane = lane.clone();
                move || vec![lane.clone()]
            };
            let takers: Vec<Arc<dyn Taker>> = vec![Arc::new(lane.clone())];
            let id = Some(to.clone());
            let mut state = self.lock();
            // Whoever starts just when a visitor joins is told twice.
            if !state.is_on() || state.feeds.contains_key(&id) {
                return;
            }
            // Under the lock: the feed has things to say at once, and of nobody who is not in the list.
            match Feed::start(self.terms.feed, id.clone(), takers, lanes, self.owner()) {
                Ok(feed) => {
                    state.feeds.insert(id, feed);
                }
                Err(error) => {
                    drop(state);
                    return self.say_error(&to, error.to_string());
                }
            }
        }
        if lane.is_closed() {
            // It has left, or is about to be said to.
            return self.left(&to);
        }
        if media == Media::Audio && carried {
            let message = self.say("rtc-ready-for-audio", Some(&to));
            self.stage.post(message.build());
        }
    }

    fn left(&self, connection: &ConnectionId) {
        let feed = {
            let mut state = self.lock();
            for fan in &state.fans {
                fan.remove(connection);
            }
            state.feeds.remove(&Some(connection.clone()))
        };
        if let Some(feed) = feed {
            feed.close();
        }
        {
            let mut reached = self.reached();
            if let Some(last) = reached.as_mut().and_then(|all| all.remove(connection)) {
                self.tell(self.ended(connection, &last));
            }
        }
        self.tell_all();
    }

    fn interrupt(&self, connection: &ConnectionId) {
        self.clear(connection.as_str());
    }

    fn said(&self, seconds: Option<f64>, failed: bool) {
        self.stage.said(seconds, failed);
    }
}

impl FeedOwner for Publication {
    fn running_time(&self) -> Option<gst::ClockTime> {
        self.stage.running_time()
    }

    fn drained(&self, to: Option<&ConnectionId>, stats: &gst::StructureRef) {
        let message = self.say("rtc-buffer-drained", to);
        self.say_of(to, message.field("stats", stats.to_owned()));
    }

    fn started(&self, lane: &Arc<Lane>) {
        {
            let mut reached = self.reached();
            let Some(all) = reached.as_mut().filter(|_| !lane.is_closed()) else {
                return;
            };
            let id = lane.connection();
            // A feed that was given another chance reaches it again.
            if all.contains_key(id) {
                return;
            }
            let reached = Reached {
                since: Instant::now(),
                lane: lane.clone(),
            };
            all.insert(id.clone(), reached);
            let codec = lane.codec().map_or("", Codec::as_str);
            let message = self.say("rtc-publication-started", Some(id));
            self.tell(message.field("codec", codec).build());
        }
        self.tell_all();
    }

    fn discarded(&self, to: Option<&ConnectionId>, why: String) {
        // With one encoder for all it only means that nobody is there who takes that codec.
        if to.is_some() {
            let message = self.say("rtc-publication-error", to).field("error", why);
            self.say_of(to, message.field("fatal", false));
        }
    }

    fn failed(&self, to: Option<&ConnectionId>, error: String) {
        let message = self.say("rtc-publication-error", to).field("error", error);
        self.say_of(to, message.field("fatal", true));
    }
}
