//! Frames that go to a session with a server, and what became of them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;

use crate::elements::dialling::Dialling;
use crate::elements::inference::desk::Snapshot;
use crate::logic::admission::DropReason;
use crate::logic::sent_frames::{Match, SentFrames};
use crate::logic::stats::{ReportTimer, Stage, Stages};
use crate::peer::codecs::Media;
use crate::peer::dialled::Dialled;
use crate::peer::directory::{self, Claim};
use crate::peer::encoders::AudioTerms;
use crate::peer::feed::FeedTerms;
use crate::peer::publication::{Publication, PublicationStage, PublicationTerms, Recipient};

/// How often a wait for a server looks whether it is there.
const LOOK: Duration = Duration::from_millis(10);
/// What is left to send when the end comes is given so long.
const DRAIN: Duration = Duration::from_secs(2);
/// After the last frame, results are waited for so long, and no longer than this for the next one.
const RESULTS: Duration = Duration::from_secs(10);
const NEXT_RESULT: Duration = Duration::from_secs(2);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the sink keeps of a session with a server.
#[derive(Default)]
pub struct Remote {
    pub dialling: Dialling,
    session: Mutex<String>,
    running: Mutex<Option<Running>>,
    /// Waits of the streaming thread are to be aborted.
    unlocked: Mutex<bool>,
    changed: Condvar,
}

struct Running {
    dialled: Arc<Dialled>,
    publication: Arc<Publication>,
    accounts: Arc<Accounts>,
    /// Keeps a line for it.
    _claim: Claim,
    /// What is not live begins when the server is there.
    epoch: Option<gst::ClockTime>,
}

/// What a frame came to.
pub enum Gone {
    /// It is on its way, or was dropped and counted.
    Taken,
    /// The wait for the server was aborted: to be tried again.
    Unlocked,
    /// The session is over.
    Over,
}

/// What became of the frames so far.
struct Accounts {
    deadline: Option<Duration>,
    stats_interval: Option<Duration>,
    started: Instant,
    books: Mutex<Books>,
    result: Condvar,
}

struct Books {
    sent: SentFrames,
    stages: Stages,
    timer: ReportTimer,
}

impl Books {
    fn new(deadline: Option<Duration>, stats_interval: Option<Duration>, now: Duration) -> Self {
        Self {
            sent: SentFrames::new(deadline),
            stages: Stages::default(),
            timer: ReportTimer::new(stats_interval, now),
        }
    }
}

impl Accounts {
    fn new(deadline: Option<Duration>, stats_interval: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            deadline,
            stats_interval,
            started: Instant::now(),
            books: Mutex::new(Books::new(deadline, stats_interval, Duration::ZERO)),
            result: Condvar::new(),
        })
    }

    fn begin(&self) {
        let now = self.started.elapsed();
        *lock(&self.books) = Books::new(self.deadline, self.stats_interval, now);
    }

    fn said(&self, seconds: Option<f64>, failed: bool) {
        let mut books = lock(&self.books);
        if let Match::Frame { latency, .. } = books.sent.result(seconds, failed, Instant::now()) {
            books.stages.record(Stage::Total, latency);
        }
        drop(books);
        self.result.notify_all();
    }

    fn snapshot(&self) -> Snapshot {
        let mut books = lock(&self.books);
        books.sent.expire(Instant::now());
        Snapshot {
            counts: books.sent.counts(),
            stages: books.stages.percentiles(),
        }
    }

    /// Waits until nothing is out any more, or nothing comes; `given_up` ends it early.
    fn wait_settled(&self, given_up: impl Fn() -> bool) {
        let begin = Instant::now();
        let mut books = lock(&self.books);
        let mut last = (books.sent.counts().pending, begin);
        loop {
            let now = Instant::now();
            books.sent.expire(now);
            let pending = books.sent.counts().pending;
            if pending != last.0 {
                last = (pending, now);
            }
            let over =
                now.duration_since(begin) >= RESULTS || now.duration_since(last.1) >= NEXT_RESULT;
            if pending == 0 || over || given_up() {
                return;
            }
            let waited = self.result.wait_timeout(books, LOOK);
            books = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The element, as what it publishes sees it.
struct Publishing {
    element: glib::WeakRef<gst::Element>,
    accounts: Arc<Accounts>,
}

impl PublicationStage for Publishing {
    fn post(&self, message: gst::Structure) {
        if let Some(element) = self.element.upgrade() {
            let message = gst::message::Element::builder(message).src(&element);
            // Without a bus nobody listens.
            let _ = element.post_message(message.build());
        }
    }

    fn running_time(&self) -> Option<gst::ClockTime> {
        let element = self.element.upgrade()?;
        let plays = element.current_state() == gst::State::Playing;
        element.current_running_time().filter(|_| plays)
    }

    fn said(&self, seconds: Option<f64>, failed: bool) {
        self.accounts.said(seconds, failed);
    }
}

impl Remote {
    /// Sets a property of it; `false` where it is none.
    pub fn set(&self, name: &str, value: &glib::Value) -> bool {
        if name == "session" {
            let session: Option<String> = value.get().expect("GObject checked the type");
            let session = session.unwrap_or_default();
            session.clone_into(&mut lock(&self.session));
            self.dialling.announce(&session);
            return true;
        }
        let session = lock(&self.session).clone();
        self.dialling.set(name, value, &session)
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        match name {
            "session" => Some(lock(&self.session).to_value()),
            name => self.dialling.get(name),
        }
    }

    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let mut specs = Dialling::param_specs();
        specs.push(
            // GstInferenceSink:session: Since: 0.1
            glib::ParamSpecString::builder("session")
                .nick("Session")
                .blurb("The name of the session with a server that frames go to: the one that this element calls (uri), or that another element of this process does; an rtcsessionsrc of that session gives what comes back")
                .default_value(Some(""))
                .mutable_ready()
                .build(),
        );
        specs
    }

    /// The session with a server that frames go to instead of a model.
    pub fn dialled(&self, has_model: bool) -> Option<Arc<Dialled>> {
        let session = lock(&self.session).clone();
        match self.dialling.calls() || !has_model {
            true => self.dialling.dialled(&session),
            false => None,
        }
    }

    /// Checks what was set.
    pub fn check(&self) -> Result<(), gst::ErrorMessage> {
        self.dialling.check(&lock(&self.session))
    }

    /// A line is kept for the frames.
    pub fn claim(
        &self,
        element: &gst::Element,
        dialled: Arc<Dialled>,
        deadline: Option<Duration>,
        stats_interval: Option<Duration>,
    ) {
        let claim = directory::claim(dialled.name(), Media::Video);
        let accounts = Accounts::new(deadline, stats_interval);
        let terms = PublicationTerms {
            session: dialled.name().to_owned(),
            pad: "sink".into(),
            number: claim.number,
            recipient: Recipient::Server,
            bitrate: 0,
            feed: FeedTerms {
                media: Media::Video,
                continuity: None,
                coding: AudioTerms {
                    stereo: true,
                    dtx: false,
                },
                to_server: true,
            },
        };
        let stage = Publishing {
            element: element.downgrade(),
            accounts: accounts.clone(),
        };
        *lock(&self.running) = Some(Running {
            publication: Publication::new(terms, Arc::new(stage)),
            dialled,
            accounts,
            _claim: claim,
            epoch: None,
        });
    }

    pub fn is_on(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// Begins, with new accounts.
    pub fn start(&self) -> Result<(), glib::BoolError> {
        if let Some(running) = lock(&self.running).as_mut() {
            running.epoch = None;
            running.accounts.begin();
        }
        self.publication().map_or(Ok(()), |p| p.start())
    }

    fn publication(&self) -> Option<Arc<Publication>> {
        let running = lock(&self.running);
        running.as_ref().map(|running| running.publication.clone())
    }

    fn accounts(&self) -> Option<Arc<Accounts>> {
        let running = lock(&self.running);
        running.as_ref().map(|running| running.accounts.clone())
    }

    /// Waits until the server is there, where frames can wait.
    pub fn wait_for_server(&self) -> Gone {
        let (dialled, publication) = {
            let running = lock(&self.running);
            let Some(running) = running.as_ref() else {
                return Gone::Over;
            };
            (running.dialled.clone(), running.publication.clone())
        };
        let mut unlocked = lock(&self.unlocked);
        loop {
            if dialled.is_over() {
                return Gone::Over;
            }
            if publication.has_recipient() {
                return Gone::Taken;
            }
            if *unlocked {
                return Gone::Unlocked;
            }
            let waited = self.changed.wait_timeout(unlocked, LOOK);
            unlocked = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until `due`; what is not live would come too fast for a network.
    pub fn wait_until(&self, due: gst::ClockTime, now: impl Fn() -> gst::ClockTime) -> Gone {
        let mut unlocked = lock(&self.unlocked);
        loop {
            if *unlocked {
                return Gone::Unlocked;
            }
            let rest = due.saturating_sub(now());
            if rest.is_zero() {
                return Gone::Taken;
            }
            let waited = self.changed.wait_timeout(unlocked, rest.into());
            unlocked = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn is_over(&self) -> bool {
        let running = lock(&self.running);
        running
            .as_ref()
            .is_none_or(|running| running.dialled.is_over())
    }

    /// When a frame is to be sent that has that running time, where it is sent at its time. Its time begins when the
    /// server is there, `now`.
    pub fn due(&self, running_time: gst::ClockTime, now: gst::ClockTime) -> gst::ClockTime {
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else {
            return running_time;
        };
        let late = now.saturating_sub(running_time);
        let epoch = running.epoch.get_or_insert(late);
        // The pipeline has begun its time anew.
        if now < *epoch {
            *epoch = late;
        }
        running_time + *epoch
    }

    /// Sends a frame; with `wait` it waits for room, unless that is aborted.
    pub fn send(
        &self,
        buffer: gst::Buffer,
        caps: &gst::Caps,
        at: gst::ClockTime,
        wait: bool,
    ) -> Gone {
        let Some((accounts, publication)) = self.accounts().zip(self.publication()) else {
            return Gone::Over;
        };
        let at = Duration::from(at);
        let has_recipient = publication.has_recipient();
        if !publication.push(None, buffer, caps, at, wait) {
            return Gone::Unlocked;
        }
        let mut books = lock(&accounts.books);
        match has_recipient {
            true => books.sent.sent(Some(at.as_secs_f64()), Instant::now()),
            // Nobody is there, and it cannot wait.
            false => books.sent.turned_away(DropReason::Busy),
        }
        Gone::Taken
    }

    pub fn snapshot(&self) -> Option<Snapshot> {
        self.accounts().map(|accounts| accounts.snapshot())
    }

    /// The statistics, when it is time to tell them.
    pub fn report_if_due(&self) -> Option<Snapshot> {
        let accounts = self.accounts()?;
        let now = accounts.started.elapsed();
        let due = lock(&accounts.books).timer.is_due(now);
        due.then(|| accounts.snapshot())
    }

    pub fn set_unlocked(&self, unlocked: bool) {
        *lock(&self.unlocked) = unlocked;
        self.changed.notify_all();
        if let Some(publication) = self.publication() {
            publication.set_unlocked(unlocked);
        }
    }

    pub fn flush(&self) {
        // After a seek the streams' own time begins anew.
        if let Some(running) = lock(&self.running).as_mut() {
            running.epoch = None;
        }
        if let Some(publication) = self.publication() {
            publication.clear("");
        }
        if let Some(accounts) = self.accounts() {
            lock(&accounts.books).sent.close(DropReason::Flush);
            accounts.result.notify_all();
        }
    }

    /// The last frame was sent: waits for results, and where this element calls, for the end of the session.
    pub fn finish(&self) {
        let Some((accounts, publication)) = self.accounts().zip(self.publication()) else {
            return;
        };
        publication.finish(DRAIN);
        let Some(dialled) = lock(&self.running).as_ref().map(|r| r.dialled.clone()) else {
            return;
        };
        let given_up = || *lock(&self.unlocked) || dialled.is_over();
        accounts.wait_settled(given_up);
        lock(&accounts.books).sent.close(DropReason::Late);
        dialled.inputs_are_over();
        while self.dialling.session().is_some()
            && !*lock(&self.unlocked)
            && !dialled.wait_over(LOOK)
        {}
    }

    /// Nothing is sent any more.
    pub fn stop(&self) {
        self.dialling.stop(true);
        if let Some(publication) = self.publication() {
            publication.stop();
        }
        if let Some(accounts) = self.accounts() {
            lock(&accounts.books).sent.close(DropReason::Closed);
        }
    }

    pub fn release(&self) {
        lock(&self.running).take();
    }
}
