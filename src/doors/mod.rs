//! Hosting: the HTTP listener, and a door for each signalling dialect.
//!
//! A door translates between its dialect and [`Session`](crate::peer::session::Session); it holds no connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;

use crate::logic::token::Token;
use crate::logic::wire::pull::Allowed;
use crate::peer::chain::Chain;
use crate::peer::session::Session;

mod events;
mod fastrtc;
pub mod http;
mod monitor;
mod offer;
mod page;
mod roboflow;
mod rtc_config;
pub mod tls;
mod whip;

/// What clients may ask for.
pub struct Rights {
    /// Chains by the ids of Roboflow's workflows.
    pub workflows: BTreeMap<String, Chain>,
    /// Hosts that we may be told to pull from.
    pub allow_pull: Allowed,
    /// Properties of the chain's elements that may be set.
    pub client_args: Vec<String>,
    /// Bytes of the longest file that may be sent.
    pub max_upload: u64,
}

/// What every door is given.
#[derive(Clone)]
pub struct Host {
    pub session: Arc<Session>,
    /// Only who knows it is let in; none lets everybody in.
    token: Option<Arc<Token>>,
    /// The launch line that runs, for people to read; empty where there is none.
    pub launch: Arc<str>,
    /// Names of the codecs that are taken, in order of preference.
    pub video_codecs: Arc<[&'static str]>,
    pub rights: Arc<Rights>,
    /// Places for readers of results, and for pages that wait to be asked.
    readers: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

impl Host {
    pub fn new(
        session: Arc<Session>,
        token: Option<Token>,
        launch: &str,
        video_codecs: Arc<[&'static str]>,
        rights: Rights,
    ) -> Self {
        Self {
            rights: Arc::new(rights),
            session,
            token: token.map(Arc::new),
            launch: launch.into(),
            video_codecs,
            readers: Arc::new(Semaphore::new(events::MAX_READERS)),
            pages: Arc::new(Semaphore::new(events::MAX_READERS)),
        }
    }
}

/// What is served whatever the doors.
fn common_routes() -> Router<Host> {
    monitor::routes()
        .merge(events::outputs_routes())
        .merge(rtc_config::routes())
}

/// What of that needs no token.
fn common_open_routes() -> Router<Host> {
    monitor::open_routes()
}

/// Where a request came from.
pub type Remote = axum::extract::ConnectInfo<SocketAddr>;

/// One signalling dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Page,
    Offer,
    FastRtc,
    Roboflow,
    Whip,
}

impl Door {
    pub const ALL: [Door; 5] = [
        Door::Page,
        Door::Offer,
        Door::FastRtc,
        Door::Roboflow,
        Door::Whip,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Offer => "offer",
            Self::FastRtc => "fastrtc",
            Self::Roboflow => "roboflow",
            Self::Whip => "whip",
        }
    }

    /// What only who knows the token reaches.
    fn routes(self) -> Router<Host> {
        match self {
            Self::Page => page::routes().merge(events::playing_routes()),
            Self::Offer => offer::routes(),
            Self::FastRtc => fastrtc::routes(),
            Self::Whip => whip::routes(),
            Self::Roboflow => Router::new(),
        }
    }

    /// What everybody reaches: it gives nothing away, or [asks for the token itself](Host::admit).
    fn open_routes(self) -> Router<Host> {
        match self {
            Self::Page => page::open_routes(),
            Self::Roboflow => roboflow::routes(),
            Self::Offer | Self::FastRtc | Self::Whip => Router::new(),
        }
    }
}

/// A door that there is not.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no door; known ones are page, offer, fastrtc, roboflow and whip, separated by commas"
)]
pub struct UnknownDoor(String);

impl FromStr for Door {
    type Err = UnknownDoor;

    fn from_str(name: &str) -> Result<Self, UnknownDoor> {
        Self::ALL
            .into_iter()
            .find(|door| door.as_str() == name)
            .ok_or_else(|| UnknownDoor(name.to_owned()))
    }
}
