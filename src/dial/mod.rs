//! Calling servers: one trait, one file per protocol.
//!
//! A protocol says what an offer has to have, carries it over HTTP and brings the answer back. It knows no transport and
//! no element: whoever makes the offer asks it first and gives it the text.

mod answer;
pub mod calls;
mod fastrtc;
pub mod http;
mod kinds;
mod offer;
pub mod options;
pub mod roboflow;
mod secret;
#[cfg(test)]
mod tests;
mod whep;
mod whip;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use url::Url;

pub use self::http::Http;
pub use self::options::{OptionError, OptionKind, OptionSpec, Options, Value};
use self::roboflow::Roboflow;

/// One way to call a server.
pub trait Protocol: Send + Sync {
    /// What stands before the `+` of a `uri`.
    fn name(&self) -> &'static str;

    /// What the offer of this party is made of; a party that the protocol has no use for is refused.
    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError>;

    /// ICE servers to use, asked for once, before the first offer.
    fn ice_servers<'a>(&'a self, _http: &'a Http) -> BoxFuture<'a, IceServers> {
        Box::pin(async { IceServers::default() })
    }

    /// Takes an offer with all candidates in it to the server. A future that is dropped closes its connection.
    fn call<'a>(&'a self, http: &'a Http, sdp: &'a str)
    -> BoxFuture<'a, Result<Answer, DialError>>;

    /// Tells the server what an application sets for the session that it knows by `id`; `None` where it takes nothing.
    fn send_args<'a>(
        &'a self,
        _http: &'a Http,
        _id: &'a str,
        _args: serde_json::Map<String, serde_json::Value>,
    ) -> Option<BoxFuture<'a, Result<(), DialError>>> {
        None
    }

    /// What only this protocol has to say of its session.
    fn roboflow(&self) -> Option<&Roboflow> {
        None
    }
}

/// A protocol by its name.
pub struct Kind {
    pub name: &'static str,
    /// Its own options; there are some that all take.
    pub options: &'static [OptionSpec],
    make: Make,
}

type Make = fn(&Address, &Options) -> Result<Box<dyn Protocol>, OptionError>;

/// All there are.
pub static KINDS: [Kind; 5] = [
    roboflow::KIND,
    fastrtc::KIND,
    offer::KIND,
    whip::KIND,
    whep::KIND,
];

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Kind {
    /// Every option there is for it.
    pub fn all_options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        http::OPTIONS.iter().chain(self.options)
    }
}

/// The protocol of an address, as its options have it. Files that options name are read here.
pub fn protocol(address: &Address, options: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    options.check(address.protocol)?;
    (address.protocol.make)(address, options)
}

/// Takes leave of a server (`DELETE` of RFC 9725, 4.2): as well as it can be done in two seconds, whatever comes back.
pub async fn hang_up(http: &Http, resource: Url) {
    http.delete(resource).await;
}

/// What a server is called for, and where: a `uri`.
#[derive(Clone)]
pub struct Address {
    pub protocol: &'static Kind,
    /// http or https, without account and fragment.
    pub url: Url,
}

/// Why a text is no address. It repeats of the text only what cannot be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{scheme:?} is no scheme of a server to call; {known} are, each with +http or +https")]
    Scheme { scheme: String, known: String },
    #[error("what follows {0}+ is no URL: {1}")]
    Url(&'static str, String),
    #[error("there is an account in it; a secret belongs into the options")]
    Account,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        let unknown = || AddressError::Scheme {
            scheme: scheme.chars().take(40).collect(),
            known: KINDS.each_ref().map(|kind| kind.name).join(", "),
        };
        let scheme = scheme.to_ascii_lowercase();
        let (name, carrier) = scheme.split_once('+').ok_or_else(unknown)?;
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let kind = kind.ok_or_else(unknown)?;
        if !matches!(carrier, "http" | "https") {
            return Err(unknown());
        }
        let bad = |problem: String| AddressError::Url(kind.name, problem);
        if !rest.starts_with("//") {
            return Err(bad("// and a host are missing".into()));
        }
        let url = Url::parse(&format!("{carrier}:{rest}"));
        let mut url = url.map_err(|error| bad(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Account);
        }
        url.set_fragment(None);
        Ok(Self {
            protocol: kind,
            url,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.protocol.name, shown(&self.url))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// The address of something below it; a slash at its end makes no difference.
    fn below(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}{path}");
        url.set_path(&path);
        url
    }

    /// Where it names no path, the usual one.
    fn or_at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        if url.path() == "/" {
            url.set_path(path);
        }
        url
    }
}

/// A URL as it may be told: secrets are often in the query.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An address has none; what a server names may.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    SendOnly,
    RecvOnly,
    SendRecv,
}

/// A line of an offer: video, else audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub video: bool,
    pub direction: Direction,
}

/// What the elements of a session have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Party {
    pub sends_video: u32,
    pub sends_audio: u32,
    /// There is an element that gives what comes back.
    pub receives: bool,
}

/// What an offer has to have besides candidates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub lines: Vec<Line>,
    /// Labels of data channels, in the order in which they are made.
    pub channels: Vec<String>,
}

/// What there is to know of ICE servers before a call.
#[derive(Clone, Default)]
pub struct IceServers {
    /// As in RTCConfiguration.iceServers; it has secrets in it.
    pub list: Option<serde_json::Value>,
    /// They were to be had and could not be: the call goes on without, and somebody should be told.
    pub warning: Option<String>,
}

impl fmt::Debug for IceServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self
            .list
            .as_ref()
            .and_then(|list| Some(list.as_array()?.len()));
        f.debug_struct("IceServers")
            .field("count", &count)
            .field("warning", &self.warning)
            .finish()
    }
}

#[derive(Clone)]
pub struct Answer {
    pub sdp: String,
    /// The name that the server has for the session, or was given for it.
    pub external_id: Option<String>,
    /// What takes the `DELETE` when the session ends (WHIP, WHEP).
    pub resource: Option<Url>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("sdp", &format_args!("{} bytes", self.sdp.len()))
            .field("external_id", &self.external_id)
            .field("resource", &self.resource.as_ref().map(shown))
            .finish()
    }
}

/// Longest name of a session that is told.
const MOST_ID: usize = 256;

/// A name that a server gave, if it can be one.
fn external_id(id: &str) -> Option<String> {
    let fits = (1..=MOST_ID).contains(&id.len()) && !id.chars().any(char::is_control);
    fits.then(|| id.to_owned())
}

/// Why a call has brought no answer. Each names the URL without its query, where secrets are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection could be made, or it broke.
    #[error("{url}: no connection: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("{url}: no TLS: {cause}")]
    Tls { url: String, cause: String },
    /// The server declines in the words of HTTP.
    #[error("{url}: status {code}: {text}")]
    Status {
        url: String,
        code: u16,
        text: String,
    },
    /// The server is content, and what it sent is of no use.
    #[error("{url}: no answer to an offer: {cause}")]
    NotAnAnswer { url: String, cause: String },
    /// The server declines in the words of its protocol.
    #[error("{url}: refused: {cause}")]
    Refused {
        url: String,
        cause: String,
        /// Others hold what this call would need.
        busy: bool,
    },
    #[error("{url}: no answer within {} s", after.as_secs_f32())]
    TimedOut { url: String, after: Duration },
}

impl DialError {
    /// Whether the same call could succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Status { code, .. } => matches!(code, 408 | 425 | 429 | 500..),
            Self::Refused { busy, .. } => *busy,
            Self::Tls { .. } | Self::NotAnAnswer { .. } => false,
        }
    }
}
