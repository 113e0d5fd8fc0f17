//! A session with a server from the first call to the last word: calls, watches, calls again where that is wanted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{Address, DialError, Direction, Http, Protocol, Wanted, hang_up};
use crate::logic::connection::EndReason;
use crate::logic::ice_servers::TurnServer;
use crate::logic::media::Media;
use crate::logic::wire::called::{Silent, ToFastRtc, ToRoboflow};
use crate::logic::wire::dialect::Dialect;
use crate::peer::agreement::{Agreement, Called, Visitor};
use crate::peer::call::{OfferLine, OfferTerms};
use crate::peer::connection::Connection;
use crate::peer::dialled::Dialled;
use crate::peer::directory;
use crate::peer::session::{Refusal, Session, SessionConfig};
use crate::peer::stage::Stage;

/// How often a session is looked after.
const LOOK: Duration = Duration::from_millis(200);
/// After all that is sent has ended, nothing that comes for this long is the end of what comes back.
const QUIET: Duration = Duration::from_secs(2);
/// A server that goes on sending by itself is listened to for that long after.
const ENDLESS: Duration = Duration::from_secs(10);
/// Between two calls, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A session that has lasted that long is no sign that the next one would fail.
const SETTLED: Duration = Duration::from_secs(30);

/// What a session with a server is made of.
pub struct Plan {
    pub address: Address,
    pub protocol: Box<dyn Protocol>,
    pub http: Http,
    /// Whether a session that is lost is followed by another one.
    pub reconnects: bool,
    /// How long a server may be there and say nothing.
    pub stall: Option<Duration>,
    pub shutdown: Duration,
}

/// The element that calls. Called from the runtime's threads: must not wait.
pub trait Caller: Send + Sync {
    /// Something is not as it was set, and we go on.
    fn warn(&self, text: &str);
    /// It is over for good: there was nothing more to come, or why there is no session any more.
    fn over(&self, outcome: Result<(), Failure>);
}

/// Why there is no session, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{url}: {source}")]
    Session { url: String, source: Box<Refusal> },
    #[error("{url}: {}", lost(.reason, .detail.as_deref()))]
    Lost {
        url: String,
        reason: EndReason,
        detail: Option<String>,
    },
    #[error("no UDP socket for the session: {0}")]
    Socket(std::io::Error),
}

fn lost(reason: &EndReason, detail: Option<&str>) -> String {
    let what = match reason {
        EndReason::PeerLost => "the server went without a word",
        EndReason::SetupTimeout => {
            "the server has answered, and no connection to it was made in time; does UDP get through?"
        }
        EndReason::SetupFailed => "the connection to the server failed",
        EndReason::Stalled => "the server is there, and nothing has come from it for stall-timeout",
        EndReason::ServerClosed => "the server has closed the connection",
        _ => "the session failed",
    };
    match detail {
        Some(detail) => format!("{what}: {detail}"),
        None => what.into(),
    }
}

impl Failure {
    /// Whether another call may do better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Dial(error) => error.may_pass(),
            Self::Lost { reason, .. } => !matches!(reason, EndReason::HandlerError),
            Self::Session { .. } | Self::Socket(_) => false,
        }
    }
}

/// What is done for a session with a server, until it is over or [`Calls::stop`] is called.
pub struct Calls {
    plan: Plan,
    dialled: Arc<Dialled>,
    session: OnceLock<Arc<Session>>,
    /// What of the session is to be deleted on the server when it ends.
    resource: Mutex<Option<url::Url>>,
    /// By what the server knows the session.
    external_id: Mutex<Option<String>>,
    stopped: watch::Sender<bool>,
    done: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the session is offered with, and how what comes back is taken.
#[derive(Debug, Clone)]
pub struct Terms {
    pub offer: Wanted,
    /// Decoded frames that may wait.
    pub max_buffers: u32,
    /// Whether the oldest one makes room when there are more.
    pub drop: bool,
}

impl Terms {
    fn receives(&self, video: bool) -> bool {
        let mut lines = self.offer.lines.iter().filter(|line| line.video == video);
        lines.any(|line| line.direction != Direction::SendOnly)
    }

    /// As the transport has it.
    fn lines(&self) -> OfferTerms {
        let lines = self.offer.lines.iter().map(|line| OfferLine {
            media: match line.video {
                true => Media::Video,
                false => Media::Audio,
            },
            sends: line.direction != Direction::RecvOnly,
            receives: line.direction != Direction::SendOnly,
        });
        OfferTerms {
            lines: lines.collect(),
            channels: self.offer.channels.clone(),
        }
    }

    /// What holds for such a session.
    fn agreement(&self, protocol: &dyn Protocol) -> Agreement {
        let roboflow = protocol.roboflow();
        let waits = roboflow.is_some_and(|roboflow| !roboflow.realtime());
        let dialect: Box<dyn Dialect> = match (roboflow, protocol.name()) {
            (Some(_), _) => Box::new(ToRoboflow::new(TimeZone::system())),
            (_, "fastrtc") => Box::new(ToFastRtc),
            _ => Box::new(Silent),
        };
        Agreement {
            dialect: Mutex::new(dialect),
            lossless: waits || !self.drop,
            called: Some(Called {
                max_buffers: self.max_buffers,
                pairs: roboflow.is_some() && self.receives(true),
                acknowledges: waits,
            }),
            upload: roboflow.and_then(|roboflow| roboflow.upload().map(Path::to_owned)),
            ..Agreement::default()
        }
    }

    /// Whether a server that says nothing is a sign that something is wrong.
    fn expects_news(&self, protocol: &dyn Protocol) -> bool {
        protocol.roboflow().is_some() || self.receives(true)
    }
}

/// Who takes what comes back, and how.
pub struct Reception {
    pub stage: Arc<dyn Stage>,
    pub config: SessionConfig,
    pub terms: Terms,
}

impl Calls {
    /// Begins to call.
    pub fn start(
        plan: Plan,
        reception: Reception,
        dialled: Arc<Dialled>,
        caller: Arc<dyn Caller>,
    ) -> Arc<Self> {
        let calls = Arc::new(Self {
            plan,
            dialled,
            session: OnceLock::new(),
            resource: Mutex::default(),
            external_id: Mutex::default(),
            stopped: watch::Sender::new(false),
            done: watch::Sender::new(false),
        });
        let (me, of) = (calls.clone(), Arc::downgrade(&calls));
        let teller = caller.clone();
        calls.dialled.take_args(Some(Box::new(move |args| {
            of.upgrade()
                .is_some_and(|calls| calls.send_args(args, &teller))
        })));
        crate::runtime::runtime().spawn(async move {
            let mut stopped = me.stopped.subscribe();
            let outcome = tokio::select! {
                outcome = me.run(reception, &*caller) => Some(outcome),
                _ = stopped.wait_for(|stopped| *stopped) => None,
            };
            me.hang_up().await;
            me.dialled.take_args(None);
            me.dialled.say_over(matches!(outcome, Some(Ok(()))));
            if let Some(outcome) = outcome {
                caller.over(outcome);
            }
            me.done.send_replace(true);
        });
        calls
    }

    /// What holds the connection, once there is something to hold.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.session.get().cloned()
    }

    /// Calls no more, and ends the session: where that is abrupt, without waiting for what is behind its pads. Waits until
    /// everything of it is gone, at most as long as the plan says.
    pub fn stop(&self, abruptly: bool) {
        if let Some(session) = self.session.get() {
            session.close(abruptly);
        }
        self.stopped.send_replace(true);
        let mut done = self.done.subscribe();
        let limit = self.plan.shutdown;
        let (tell, told) = std::sync::mpsc::channel();
        crate::runtime::runtime().spawn(async move {
            // Whoever waits may have given up.
            let _ = done.wait_for(|done| *done).await;
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(limit);
        if let Some(session) = self.session.get() {
            // It may have come about meanwhile.
            session.close(abruptly);
            session.wait_closed(limit);
            session.release();
        }
        self.dialled.rest();
    }

    /// Tells the server what an application sets; says whether its protocol has a way to.
    fn send_args(self: &Arc<Self>, args: Map<String, Value>, caller: &Arc<dyn Caller>) -> bool {
        let id = lock(&self.external_id).clone().unwrap_or_default();
        if self
            .plan
            .protocol
            .send_args(&self.plan.http, &id, Map::new())
            .is_none()
        {
            return false;
        }
        let (me, caller) = (self.clone(), caller.clone());
        crate::runtime::runtime().spawn(async move {
            let sent = me.plan.protocol.send_args(&me.plan.http, &id, args);
            if let Some(sent) = sent
                && let Err(error) = sent.await
            {
                caller.warn(&format!("set-args: {error}"));
            }
        });
        true
    }

    async fn run(&self, reception: Reception, caller: &dyn Caller) -> Result<(), Failure> {
        let Reception {
            stage,
            mut config,
            terms,
        } = reception;
        let servers = self.plan.protocol.ice_servers(&self.plan.http).await;
        if let Some(problem) = servers.warning {
            caller.warn(&problem);
        }
        if let Some(list) = &servers.list {
            let (turn, problems) = turn_servers(list);
            config.addresses.turn_servers.extend(turn);
            problems.iter().for_each(|problem| caller.warn(problem));
        }
        let session = Session::start(config, stage).map_err(Failure::Socket)?;
        directory::open_session(self.dialled.name(), &session);
        // Set once: this is the one place that does.
        let _ = self.session.set(session.clone());
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let failure = match self.call(&session, &terms).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if !self.plan.reconnects || !failure.may_pass() || self.dialled.is_closing() {
                return Err(failure);
            }
            if began.elapsed() >= SETTLED {
                pause = FIRST_PAUSE;
            }
            caller.warn(&format!(
                "{failure}; calling again in {} ms",
                pause.as_millis()
            ));
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
                () = self.unwanted() => return Ok(()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One session, from the offer to the last word.
    async fn call(&self, session: &Arc<Session>, terms: &Terms) -> Result<(), Failure> {
        let url = self.plan.address.to_string();
        let refused = |refusal| Failure::Session {
            url: url.clone(),
            source: Box::new(refusal),
        };
        let offered = session.offer_out(&terms.lines()).await.map_err(refused)?;
        let protocol = &self.plan.protocol;
        let answer = tokio::select! {
            answer = protocol.call(&self.plan.http, &offered.sdp) => answer?,
            () = self.unwanted() => return Ok(()),
        };
        *lock(&self.resource) = answer.resource;
        answer.external_id.clone_into(&mut lock(&self.external_id));
        let visitor = Visitor {
            door: self.plan.protocol.name(),
            external_id: answer.external_id,
            remote: remote(&self.plan.address),
            data: String::new(),
            authorization: None,
        };
        let agreement = terms.agreement(&*self.plan.protocol);
        let connection = session
            .answered(visitor, agreement, offered, &answer.sdp)
            .await
            .map_err(refused)?;
        let expects_news = terms.expects_news(&*self.plan.protocol);
        self.watch(&connection, expects_news).await;
        self.hang_up().await;
        let reason = connection.end_reason().unwrap_or(EndReason::ServerClosed);
        match reason {
            EndReason::SourceEnded
            | EndReason::TimeLimit
            | EndReason::ClosedByApplication
            | EndReason::ServerShutdown
            | EndReason::ClientClosed => Ok(()),
            EndReason::ServerClosed if !self.plan.reconnects => Ok(()),
            reason => Err(Failure::Lost {
                url,
                reason,
                detail: connection.end_detail(),
            }),
        }
    }

    /// Until nobody wants a session any more that is not there yet.
    async fn unwanted(&self) {
        let sends_nothing = || self.plan.reconnects && self.dialled.are_inputs_over();
        while !self.dialled.is_closing() && !sends_nothing() {
            tokio::select! {
                () = self.dialled.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Until the connection has had its last word.
    async fn watch(&self, connection: &Connection, expects_news: bool) {
        let over = connection.over();
        tokio::pin!(over);
        let mut inputs_over: Option<Instant> = None;
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.dialled.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = Instant::now();
            connection.give_up_lost(now);
            let heard = connection.heard_at().unwrap_or(now);
            let silent = now.saturating_duration_since(heard);
            if self.dialled.is_closing() {
                connection.end(EndReason::ClosedByApplication, None);
            } else if self.dialled.are_inputs_over() {
                let since = *inputs_over.get_or_insert(now);
                let after = now.saturating_duration_since(since);
                // What answers what it is sent comes to an end; what sends of its own accord does not.
                let endless = self.plan.protocol.roboflow().is_none() && after >= ENDLESS;
                let quiet = silent.min(after) >= QUIET;
                if !expects_news || quiet || endless {
                    connection.end(EndReason::SourceEnded, Some("everything was sent".into()));
                }
            } else if let Some(stall) = self.plan.stall
                && expects_news
                && silent >= stall
            {
                connection.end(EndReason::Stalled, None);
            }
        }
    }

    /// Tells the server, where it has a place to be told.
    async fn hang_up(&self) {
        let resource = lock(&self.resource).take();
        if let Some(resource) = resource {
            hang_up(&self.plan.http, resource).await;
        }
    }
}

/// Where the server is, as far as its address says; a name's address is the resolver's business.
fn remote(address: &Address) -> SocketAddr {
    let host = address.url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let port = address.url.port_or_known_default().unwrap_or_default();
    SocketAddr::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
}

/// Those of an `iceServers` that relay, and what cannot be used of it.
fn turn_servers(list: &Value) -> (Vec<TurnServer>, Vec<String>) {
    let (mut servers, mut problems) = (Vec::new(), Vec::new());
    for server in list.as_array().into_iter().flatten() {
        let of = |key: &str| server.get(key).and_then(Value::as_str).unwrap_or_default();
        let urls = match server.get("urls") {
            Some(Value::String(url)) => vec![url.as_str()],
            Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for url in urls.into_iter().filter(|url| url.starts_with("turn")) {
            match TurnServer::with_account(url, of("username"), of("credential")) {
                Ok(server) => servers.push(server),
                Err(error) => problems.push(format!("a TURN server is left out: {error}")),
            }
        }
    }
    (servers, problems)
}
