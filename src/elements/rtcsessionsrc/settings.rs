//! What the user set, and what it means once it is found to be possible.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use gst::glib;

use crate::doors::Door;
use crate::doors::http::Listen;
use crate::doors::tls::{Tls, Unusable};
use crate::logic::bandwidth::Limits;
use crate::logic::connection::Patience;
use crate::logic::ice_servers::{
    MAX_SERVERS, StunServer, TransportPolicy, TurnServer, as_json, without_accounts, words,
};
use crate::logic::media::Media;
use crate::logic::origins::Origin;
use crate::logic::token::Token;
use crate::logic::wire::pull::Allowed;
use crate::peer::chain::{Chain, ChainError};
use crate::peer::codecs::Codec;
use crate::peer::connection::Terms;
use crate::peer::encoders::AudioTerms;
use crate::peer::sockets::Addresses;

/// When the end of a visit ends the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtcSessionSrcEosPolicy")]
#[repr(i32)]
pub enum EosPolicy {
    /// connection with pads, never with chains.
    #[default]
    #[enum_value(name = "connection with pads, never with chains", nick = "auto")]
    Auto,
    #[enum_value(
        name = "The pipeline ends when the visitor whose pads are linked has left",
        nick = "connection"
    )]
    Connection,
    #[enum_value(name = "The pipeline goes on, whoever leaves", nick = "never")]
    Never,
}

/// What visitors are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtcSessionSrcPlayingState")]
#[repr(i32)]
pub enum PlayingState {
    /// They start and stop as they like.
    #[default]
    #[enum_value(name = "Visitors start and stop as they like", nick = "any")]
    Any,
    #[enum_value(name = "Visitors are asked to start", nick = "playing")]
    Playing,
    #[enum_value(name = "Visitors are asked to stop", nick = "stopped")]
    Stopped,
}

/// How visitors may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtcSessionSrcIceTransportPolicy")]
#[repr(i32)]
pub enum IceTransportPolicy {
    /// Directly where that can be.
    #[default]
    #[enum_value(
        name = "Directly where that can be, else through a relay",
        nick = "all"
    )]
    All,
    #[enum_value(name = "Through a relay of turn-servers only", nick = "relay")]
    Relay,
}

impl From<IceTransportPolicy> for TransportPolicy {
    fn from(policy: IceTransportPolicy) -> Self {
        match policy {
            IceTransportPolicy::All => Self::All,
            IceTransportPolicy::Relay => Self::Relay,
        }
    }
}

impl PlayingState {
    pub fn as_wish(self) -> Option<bool> {
        match self {
            Self::Any => None,
            Self::Playing => Some(true),
            Self::Stopped => Some(false),
        }
    }
}

#[derive(Clone)]
pub struct Settings {
    pub listen: String,
    pub doors: String,
    pub allowed_hosts: String,
    pub allowed_origins: String,
    pub auth_token: Option<String>,
    /// Listens beyond this machine without a token.
    pub insecure: bool,
    /// Paths of PEM files.
    pub tls_certificate: Option<String>,
    pub tls_private_key: Option<String>,
    pub max_connections: u32,
    pub max_pending: u32,
    pub udp_port: u32,
    pub ice_addresses: String,
    pub stun_server: Option<String>,
    pub turn_servers: Option<String>,
    pub ice_transport_policy: IceTransportPolicy,
    pub video_codecs: String,
    /// Milliseconds, as all times here; 0 is none.
    pub latency: u32,
    pub setup_timeout: u32,
    pub connection_timeout: u32,
    pub disconnect_timeout: u32,
    pub drain_timeout: u32,
    pub shutdown_timeout: u32,
    pub eos_policy: EosPolicy,
    pub desired_playing_state: PlayingState,
    pub session: String,
    /// The webrtcbin that answers instead of our own transport, and whether it offers instead.
    pub webrtcbin: Option<String>,
    pub offer: bool,
    pub video_chain: Option<String>,
    pub audio_chain: Option<String>,
    pub workflows: Option<String>,
    pub max_upload: u64,
    pub allow_pull: String,
    pub client_args: String,
    /// Bits a second of each stream of video that is sent.
    pub min_bitrate: u32,
    pub max_bitrate: u32,
    pub stereo: bool,
    pub dtx: bool,
    /// Of what a server sends that was called: decoded frames that may wait, and whether the oldest then makes room.
    pub max_buffers: u32,
    pub drop: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "http://127.0.0.1:8080".into(),
            doors: "page,offer,fastrtc,roboflow,whip".into(),
            allowed_hosts: String::new(),
            allowed_origins: String::new(),
            auth_token: None,
            insecure: false,
            tls_certificate: None,
            tls_private_key: None,
            max_connections: 16,
            max_pending: 8,
            udp_port: 0,
            ice_addresses: String::new(),
            stun_server: None,
            turn_servers: None,
            ice_transport_policy: IceTransportPolicy::All,
            video_codecs: "vp8,h264".into(),
            latency: 150,
            setup_timeout: 10_000,
            connection_timeout: 0,
            disconnect_timeout: 5_000,
            drain_timeout: 2_000,
            shutdown_timeout: 5_000,
            eos_policy: EosPolicy::Auto,
            desired_playing_state: PlayingState::Any,
            session: String::new(),
            webrtcbin: None,
            offer: false,
            video_chain: None,
            audio_chain: None,
            workflows: None,
            max_upload: 1 << 30,
            allow_pull: String::new(),
            client_args: String::new(),
            min_bitrate: 500_000,
            max_bitrate: 2_000_000,
            stereo: true,
            dtx: false,
            max_buffers: 8,
            drop: true,
        }
    }
}

/// A property whose value cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{property}={value}: {problem}")]
pub struct Impossible {
    pub property: &'static str,
    pub value: String,
    pub problem: String,
}

fn impossible(property: &'static str, value: &str, problem: impl std::fmt::Display) -> Impossible {
    Impossible {
        property,
        value: value.to_owned(),
        problem: problem.to_string(),
    }
}

/// The settings, understood.
pub struct Plan {
    pub listen: Listen,
    pub doors: Vec<Door>,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<Origin>,
    pub token: Option<Token>,
    /// With `listen=https://…`, and only then.
    pub tls: Option<Tls>,
    pub addresses: Addresses,
    /// STUN and TURN servers that clients are told of, as RTCConfiguration.iceServers.
    pub ice_servers: String,
    /// Video codecs in order of preference, then audio.
    pub codecs: Vec<Codec>,
    pub latency: Duration,
    pub patience: Patience,
    pub video_chain: Option<Chain>,
    pub audio_chain: Option<Chain>,
    /// Video chains by name.
    pub workflows: BTreeMap<String, Chain>,
    pub allow_pull: Allowed,
    pub client_args: Vec<String>,
}

impl Settings {
    /// Whether the pipeline's EOS waits for ours.
    pub fn outlives_visitors(&self) -> bool {
        match self.eos_policy {
            EosPolicy::Auto => self.video_chain.is_some() || self.audio_chain.is_some(),
            EosPolicy::Connection => false,
            EosPolicy::Never => true,
        }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            drain_timeout: Duration::from_millis(self.drain_timeout.into()),
            time_limit: milliseconds(self.connection_timeout),
            bitrate: self.bitrate(),
            audio: AudioTerms {
                stereo: self.stereo,
                dtx: self.dtx,
            },
        }
    }

    pub fn bitrate(&self) -> Limits {
        Limits {
            min: self.min_bitrate.into(),
            max: self.max_bitrate.into(),
        }
    }

    pub fn plan(&self) -> Result<Plan, Impossible> {
        self.check_webrtcbin()?;
        if self.min_bitrate > self.max_bitrate {
            let problem = format!(
                "it must not be greater than max-bitrate={}",
                self.max_bitrate
            );
            return Err(impossible(
                "min-bitrate",
                &self.min_bitrate.to_string(),
                problem,
            ));
        }
        let video_chain = chain("video-chain", self.video_chain.as_deref())?;
        let audio_chain = chain("audio-chain", self.audio_chain.as_deref())?;
        let of_video = video_chain.as_ref().and_then(|c| c.returns(Media::Video));
        let of_audio = audio_chain.as_ref().and_then(|c| c.returns(Media::Audio));
        if let Some((one, other)) = of_video.zip(of_audio)
            && one == other
        {
            let problem = format!(
                "video-chain sends back {} too; one chain may do so for each kind, the other needs a sink",
                one.as_str()
            );
            let value = self.audio_chain.as_deref().unwrap_or_default();
            return Err(impossible("audio-chain", value, problem));
        }
        let doors = words(&self.doors)
            .map(|word| {
                word.parse()
                    .map_err(|e| impossible("doors", &self.doors, e))
            })
            .collect::<Result<Vec<Door>, _>>()?;
        let stun_servers = stun_servers(self.stun_server.as_deref().unwrap_or_default())?;
        let turn_servers = turn_servers(self.turn_servers.as_deref().unwrap_or_default())?;
        if self.ice_transport_policy == IceTransportPolicy::Relay
            && !turn_servers.iter().any(TurnServer::is_ours_too)
        {
            let problem = "turn-servers names no relay that our own side speaks to, which it does over plain UDP; \
                           turn-servers=turn://USER:PASSWORD@HOST:PORT is right";
            return Err(impossible("ice-transport-policy", "relay", problem));
        }
        let addresses = Addresses {
            port: self.udp_port as u16,
            only: words(&self.ice_addresses)
                .map(|word| word.parse::<IpAddr>())
                .collect::<Result<_, _>>()
                .map_err(|error| {
                    let problem = format!(
                        "{error}; addresses such as 192.0.2.1 separated by commas are right"
                    );
                    impossible("ice-addresses", &self.ice_addresses, problem)
                })?,
            stun_servers: stun_servers
                .iter()
                .map(|server| self.resolve_stun(server))
                .collect::<Result<_, _>>()?,
            turn_servers: turn_servers.clone(),
            policy: self.ice_transport_policy.into(),
        };
        let listen = self
            .listen
            .parse()
            .map_err(|error| impossible("listen", &self.listen, error))?;
        Ok(Plan {
            tls: self.tls(&listen)?,
            listen,
            doors,
            allowed_hosts: words(&self.allowed_hosts).map(str::to_owned).collect(),
            allowed_origins: words(&self.allowed_origins)
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|error| impossible("allowed-origins", &self.allowed_origins, error))?,
            token: token(self.auth_token.as_deref())?,
            addresses,
            ice_servers: as_json(&stun_servers, &turn_servers),
            codecs: self.codecs(video_chain.as_ref(), audio_chain.as_ref())?,
            latency: Duration::from_millis(self.latency.into()),
            patience: Patience {
                setup: milliseconds(self.setup_timeout),
                disconnect: milliseconds(self.disconnect_timeout),
            },
            video_chain,
            audio_chain,
            workflows: workflows(self.workflows.as_deref())?,
            allow_pull: Allowed::new(words(&self.allow_pull)),
            client_args: words(&self.client_args).map(str::to_owned).collect(),
        })
    }

    /// What a webrtcbin receives is on its own pads, so that nothing here can be made of it.
    fn check_webrtcbin(&self) -> Result<(), Impossible> {
        let chains = [
            ("video-chain", &self.video_chain),
            ("audio-chain", &self.audio_chain),
            ("workflows", &self.workflows),
        ];
        let Some(name) = &self.webrtcbin else {
            return match self.offer {
                true => Err(impossible(
                    "offer",
                    "true",
                    "only a webrtcbin offers; webrtcbin=NAME is needed",
                )),
                false => Ok(()),
            };
        };
        match chains.into_iter().find(|(_, value)| value.is_some()) {
            Some((property, _)) => {
                let problem = format!(
                    "{property} is for a session without webrtcbin: media stays on webrtcbin's own pads"
                );
                Err(impossible("webrtcbin", name, problem))
            }
            None => Ok(()),
        }
    }

    fn resolve_stun(&self, server: &StunServer) -> Result<SocketAddr, Impossible> {
        let value = self.stun_server.as_deref().unwrap_or_default();
        let bad = |problem: String| impossible("stun-server", value, problem);
        let mut found = (server.0.host.as_str(), server.0.port)
            .to_socket_addrs()
            .map_err(|error| bad(format!("{}: {error}; stun://HOST:PORT is right", server.0)))?;
        found
            .next()
            .ok_or_else(|| bad(format!("{} has no address", server.0)))
    }

    fn tls(&self, listen: &Listen) -> Result<Option<Tls>, Impossible> {
        const CERTIFICATE: &str = "tls-certificate";
        const KEY: &str = "tls-private-key";
        let files = (&self.tls_certificate, &self.tls_private_key);
        let (certificate, key) = match (listen.is_secure(), files) {
            (false, (None, None)) => return Ok(None),
            (false, _) => {
                let problem = format!("{CERTIFICATE} and {KEY} are for https://…");
                return Err(impossible("listen", &self.listen, problem));
            }
            (true, (Some(certificate), Some(key))) => (certificate, key),
            (true, (certificate, _)) => {
                let missing = if certificate.is_some() {
                    KEY
                } else {
                    CERTIFICATE
                };
                let problem = format!("listen={} needs the path of a PEM file", self.listen);
                return Err(impossible(missing, "", problem));
            }
        };
        let loaded = Tls::load(Path::new(certificate), Path::new(key));
        loaded.map(Some).map_err(|unusable| match unusable {
            Unusable::Certificate(problem) => impossible(CERTIFICATE, certificate, problem),
            Unusable::Key(problem) => impossible(KEY, key, problem),
        })
    }

    /// Those that can be served: by a chain that takes them as they come, else by a decoder.
    fn codecs(
        &self,
        video: Option<&Chain>,
        audio: Option<&Chain>,
    ) -> Result<Vec<Codec>, Impossible> {
        let bad = |problem: String| impossible("video-codecs", &self.video_codecs, problem);
        let mut codecs = Vec::new();
        for word in words(&self.video_codecs) {
            let codec: Codec = word.parse().map_err(|error| bad(format!("{error}")))?;
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        codecs.retain(|codec| can_serve(*codec, video));
        if codecs.is_empty() {
            return Err(match video.and_then(Chain::encoded) {
                Some(caps) => bad(format!("video-chain takes none of them, but {caps}")),
                None => bad("none of them can be decoded with the plugins installed".into()),
            });
        }
        codecs.extend(Some(Codec::Opus).filter(|codec| can_serve(*codec, audio)));
        Ok(codecs)
    }
}

/// Of several codecs those that can be served are offered; without any there is nothing to serve.
fn can_serve(codec: Codec, chain: Option<&Chain>) -> bool {
    match (chain.and_then(Chain::encoded), codec.decoder()) {
        (Some(caps), _) => caps.can_intersect(&codec.caps()),
        (None, Ok(_)) => true,
        (None, Err(error)) => {
            gst::info!(super::imp::CAT, "{error}: it is not offered");
            false
        }
    }
}

/// Chains that are kept ready.
const MAX_WORKFLOWS: usize = 64;

fn milliseconds(value: u32) -> Option<Duration> {
    (value > 0).then(|| Duration::from_millis(value.into()))
}

fn token(value: Option<&str>) -> Result<Option<Token>, Impossible> {
    let Some(value) = value else {
        return Ok(None);
    };
    let token = value.parse();
    // It may be almost right, so it is not told.
    token
        .map(Some)
        .map_err(|error| impossible("auth-token", "…", error))
}

fn stun_servers(value: &str) -> Result<Vec<StunServer>, Impossible> {
    let servers: Result<Vec<_>, _> = words(value).map(str::parse).collect();
    let servers = servers.map_err(|error| impossible("stun-server", value, error))?;
    if servers.len() > MAX_SERVERS {
        return Err(impossible("stun-server", value, too_many()));
    }
    Ok(servers)
}

fn turn_servers(value: &str) -> Result<Vec<TurnServer>, Impossible> {
    let bad = |problem: String| impossible("turn-servers", &without_accounts(value), problem);
    let mut servers: Vec<TurnServer> = Vec::new();
    for word in words(value) {
        let server = word
            .parse()
            .map_err(|error| bad(format!("{}: {error}", without_accounts(word))))?;
        servers.push(server);
    }
    if servers.len() > MAX_SERVERS {
        return Err(bad(too_many()));
    }
    for server in servers.iter().filter(|server| !server.is_ours_too()) {
        gst::warning!(
            super::imp::CAT,
            "turn-servers: {server} is for clients only; our own side speaks plain UDP to a TURN server"
        );
    }
    Ok(servers)
}

fn too_many() -> String {
    format!("at most {MAX_SERVERS} servers are taken")
}

/// The files `ID.launch` of a folder, read once: what is asked for later is looked up by its id and never on a disk.
fn workflows(folder: Option<&str>) -> Result<BTreeMap<String, Chain>, Impossible> {
    let mut found = BTreeMap::new();
    let Some(folder) = folder.filter(|folder| !folder.trim().is_empty()) else {
        return Ok(found);
    };
    let bad = |problem: String| impossible("workflows", folder, problem);
    for entry in std::fs::read_dir(folder).map_err(|error| bad(error.to_string()))? {
        let path = entry.map_err(|error| bad(error.to_string()))?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str());
        let Some(id) = id.filter(|_| path.extension().is_some_and(|e| e == "launch")) else {
            continue;
        };
        if found.len() == MAX_WORKFLOWS {
            return Err(bad(format!(
                "at most {MAX_WORKFLOWS} files ID.launch are read"
            )));
        }
        let chain = read_description(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| text.parse().map_err(|error: ChainError| error.to_string()))
            .map_err(|problem| bad(format!("{}: {problem}", path.display())))?;
        found.insert(id.to_owned(), chain);
    }
    match found.is_empty() {
        true => Err(bad("there is no file ID.launch in it".into())),
        false => Ok(found),
    }
}

/// A description without its comments.
fn read_description(file: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    Ok(lines.collect::<Vec<_>>().join(" "))
}

fn chain(property: &'static str, value: Option<&str>) -> Result<Option<Chain>, Impossible> {
    let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
        return Ok(None);
    };
    let description = match value.strip_prefix('@') {
        Some(file) => {
            read_description(Path::new(file)).map_err(|error| impossible(property, value, error))?
        }
        None => value.to_owned(),
    };
    description
        .parse()
        .map(Some)
        .map_err(|error| impossible(property, value, error))
}
