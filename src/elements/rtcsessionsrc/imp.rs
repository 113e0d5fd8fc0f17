use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::actions;
use super::settings::{EosPolicy, IceTransportPolicy, Plan, PlayingState, Settings};
use super::stage::ElementStage;
use crate::doors::http::{Listener, Serving, is_local};
use crate::doors::{Door, Host, Rights};
use crate::logic::connection::Patience;
use crate::logic::token::{Token, hide_secrets};
use crate::peer::call::CallConfig;
use crate::peer::chain::Chain;
use crate::peer::codecs::Codec;
use crate::peer::directory;
use crate::peer::session::{Session, SessionConfig};
use crate::peer::sockets::Addresses;
use crate::peer::webrtcbin::Neighbourhood;

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtcsessionsrc",
        gst::DebugColorFlags::empty(),
        Some("RTC session source"),
    )
});

/// The listener's tasks are never busy for longer.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Everything that exists from READY on.
struct Running {
    stage: Arc<ElementStage>,
    session: Arc<Session>,
    /// Chains in READY: they were found to work, and what they load stays loaded for the next visitor.
    _prototypes: Vec<Prototype>,
    doors: Vec<Door>,
    host: Host,
    /// Until it serves.
    listener: Option<Listener>,
    serving: Option<Serving>,
}

#[derive(Default)]
pub struct RtcSessionSrc {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

impl RtcSessionSrc {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds the connections, from READY on.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.running()
            .as_ref()
            .map(|running| running.session.clone())
    }

    /// Checks the settings and takes every resource there is to take.
    fn prepare(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let plan = settings
            .plan()
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let prototypes = prototypes(&plan)?;
        let cannot = |error| {
            gst::error_msg!(
                gst::ResourceError::OpenReadWrite,
                ("listen={}: {error}", settings.listen)
            )
        };
        let addresses = plan.listen.addresses().map_err(cannot)?;
        let local = addresses.iter().all(|address| is_local(address.ip()));
        if !local && plan.token.is_none() && !settings.insecure {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                (
                    "listen={}: other machines reach this, and anybody there could use it; set auth-token=SECRET, or insecure=true to let everybody in",
                    settings.listen
                )
            ));
        }
        let listener = Listener::bind(
            plan.listen,
            &addresses,
            plan.tls,
            plan.allowed_hosts,
            plan.allowed_origins,
        )
        .map_err(cannot)?;
        let latency = gst::ClockTime::from_mseconds(settings.latency.into());
        let stage = Arc::new(ElementStage::new(
            &self.obj(),
            settings.session.clone(),
            plan.video_chain,
            plan.audio_chain,
            latency,
            settings.outlives_visitors(),
        ));
        let video_codecs = plan
            .codecs
            .iter()
            .filter(|codec| !codec.is_audio())
            .map(|codec| codec.as_str())
            .collect();
        let neighbour =
            self.neighbourhood(&settings, &plan.codecs, &plan.addresses, plan.patience)?;
        let config = SessionConfig {
            call: CallConfig::new(plan.codecs, plan.latency, plan.patience, settings.bitrate()),
            addresses: plan.addresses,
            ice_servers: plan.ice_servers,
            // A webrtcbin is one end of one connection.
            max_connections: match settings.webrtcbin {
                Some(_) => 1,
                None => settings.max_connections,
            },
            max_pending: settings.max_pending,
            terms: settings.terms(),
            shutdown_timeout: Duration::from_millis(settings.shutdown_timeout.into()),
            neighbour,
        };
        let session = Session::start(config, stage.clone()).map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::OpenReadWrite,
                (
                    "udp-port={}, ice-addresses={:?}: {error}",
                    settings.udp_port,
                    settings.ice_addresses
                )
            )
        })?;
        directory::open_session(&settings.session, &session);
        session.ask_to_play(settings.desired_playing_state.as_wish());
        let launch = launch_line(local, plan.token.as_ref());
        *self.running() = Some(Running {
            stage,
            host: Host::new(
                session.clone(),
                plan.token,
                &launch,
                video_codecs,
                Rights {
                    workflows: plan.workflows,
                    allow_pull: plan.allow_pull,
                    client_args: plan.client_args,
                    max_upload: settings.max_upload,
                },
            ),
            session,
            _prototypes: prototypes,
            doors: plan.doors,
            listener: Some(listener),
            serving: None,
        });
        Ok(())
    }

    /// The webrtcbin that was named, if one was.
    fn neighbourhood(
        &self,
        settings: &Settings,
        codecs: &[Codec],
        addresses: &Addresses,
        patience: Patience,
    ) -> Result<Option<Neighbourhood>, gst::ErrorMessage> {
        let Some(name) = settings.webrtcbin.clone() else {
            return Ok(None);
        };
        let element = self.obj().downgrade();
        let of = name.clone();
        let find = move || {
            let mut bin = element.upgrade()?.parent()?;
            while let Some(parent) = bin.parent() {
                bin = parent;
            }
            bin.downcast::<gst::Bin>().ok()?.by_name(&of)
        };
        let kind = find().and_then(|found| found.factory());
        if let Some(kind) = kind.filter(|kind| kind.name() != "webrtcbin") {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                (
                    "webrtcbin={name}: the element of that name is a {}",
                    kind.name()
                )
            ));
        }
        Ok(Some(Neighbourhood {
            name,
            find: Box::new(find),
            offers: settings.offer,
            codecs: codecs.iter().map(|codec| codec.encoding_name()).collect(),
            addresses: addresses.only.clone(),
            patience,
        }))
    }

    fn serve(&self) -> Result<(), gst::ErrorMessage> {
        if self.running().is_none() {
            self.prepare()?;
        }
        let message = {
            let mut running = self.running();
            let running = running.as_mut().expect("it was prepared");
            let Some(listener) = running.listener.take() else {
                return Ok(());
            };
            let message = gst::Structure::builder("rtc-listening")
                .field("uri", listener.uri())
                .field(
                    "doors",
                    gst::Array::new(running.doors.iter().map(|door| door.as_str())),
                )
                .build();
            let serving = listener.serve(&running.doors, running.host.clone());
            running.serving = Some(serving.map_err(|error| {
                gst::error_msg!(gst::ResourceError::OpenReadWrite, ("listen: {error}"))
            })?);
            message
        };
        let obj = self.obj();
        gst::info!(CAT, imp = self, "{message}");
        // Without a bus nobody listens.
        let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
        Ok(())
    }

    fn set_playing(&self, playing: bool) {
        let running = self.running();
        let found = running.as_ref();
        let Some((stage, session)) = found.map(|r| (r.stage.clone(), r.session.clone())) else {
            return;
        };
        drop(running);
        stage.set_playing(playing);
        if playing {
            session.rebase();
        }
    }

    /// Ends every visitor, abruptly: whoever wanted files finalised has sent EOS before.
    fn shut_down(&self) {
        let Some(mut running) = self.running().take() else {
            return;
        };
        // The listener first: nobody comes while everybody goes.
        if let Some(serving) = running.serving.take() {
            serving.stop(RELEASE_TIME);
        }
        running.session.close(true);
        let limit = self.settings().shutdown_timeout;
        if !running
            .session
            .wait_closed(Duration::from_millis(limit.into()))
        {
            gst::warning!(
                CAT,
                imp = self,
                "not every visitor was gone within shutdown-timeout"
            );
        }
        running.session.release();
    }

    /// Ends every visitor with EOS down their branches, then posts ours.
    fn finish(&self, seqnum: gst::Seqnum) {
        let session = self.running().as_ref().map(|running| {
            running.stage.set_finishing();
            running.session.clone()
        });
        let limit = Duration::from_millis(self.settings().shutdown_timeout.into());
        let element = self.obj().downgrade();
        let finish = move || {
            if let Some(session) = &session {
                session.close(false);
                session.wait_closed(limit);
            }
            let Some(element) = element.upgrade() else {
                return;
            };
            // What was stopped and started again meanwhile is not meant.
            let current = element.imp().running().as_ref().map(|r| r.session.clone());
            if current.as_ref().map(Arc::as_ptr) == session.as_ref().map(Arc::as_ptr) {
                let eos = gst::message::Eos::builder().src(&element).seqnum(seqnum);
                let _ = element.post_message(eos.build());
            }
        };
        crate::runtime::runtime().spawn_blocking(finish);
    }
}

/// A chain in READY.
struct Prototype(gst::Bin);

impl Drop for Prototype {
    fn drop(&mut self) {
        // Elements must not be disposed of in any other state.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// A bin of each chain in READY, or why it does not get there.
fn prototypes(plan: &Plan) -> Result<Vec<Prototype>, gst::ErrorMessage> {
    let chains = [
        ("video-chain", &plan.video_chain),
        ("audio-chain", &plan.audio_chain),
    ];
    let mut bins = Vec::new();
    for (property, chain) in chains {
        if let Some(chain) = chain {
            bins.push(prototype(property, chain)?);
        }
    }
    for (id, chain) in &plan.workflows {
        bins.push(prototype(&format!("workflows: {id}.launch"), chain)?);
    }
    Ok(bins)
}

fn prototype(property: &str, chain: &Chain) -> Result<Prototype, gst::ErrorMessage> {
    let settings = gst::ResourceError::Settings;
    let bin = chain
        .make()
        .map_err(|error| gst::error_msg!(settings, ("{property}: {error}")))?;
    let bus = gst::Bus::new();
    bin.set_bus(Some(&bus));
    if bin.set_state(gst::State::Ready).is_ok() {
        bin.set_bus(None);
        return Ok(Prototype(bin));
    }
    let said = bus.pop_filtered(&[gst::MessageType::Error]);
    let _ = bin.set_state(gst::State::Null);
    Err(match said.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => {
            let debug = error.debug().unwrap_or_default();
            gst::error_msg!(settings, ("{property}: {}", error.error()), ["{debug}"])
        }
        _ => gst::error_msg!(settings, ("{property}: the chain does not get ready")),
    })
}

/// The launch line that runs, without anybody's secrets.
fn launch_line(local: bool, token: Option<&Token>) -> String {
    let line = hide_secrets(&whole_launch_line(local));
    match token {
        Some(token) => token.hide_in(&line),
        None => line,
    }
}

/// What the environment says the launch line is or, for who sits at this machine, the process's own; it may hold
/// what others must not see.
fn whole_launch_line(local: bool) -> String {
    if let Ok(line) = std::env::var("RTCINFERENCE_LAUNCH") {
        return line;
    }
    if !local {
        return String::new();
    }
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    match words.first() {
        Some(program) if program.ends_with("gst-launch-1.0") => {
            let quoted = words.iter().skip(1).map(|word| match word.split_once('=') {
                Some((name, value)) if value.contains(' ') => format!("{name}=\"{value}\""),
                _ => word.clone(),
            });
            format!("gst-launch-1.0 {}", quoted.collect::<Vec<_>>().join(" "))
        }
        _ => String::new(),
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RtcSessionSrc {
    const NAME: &'static str = "GstRtcSessionSrc";
    type Type = super::RtcSessionSrc;
    type ParentType = gst::Element;
}

impl ObjectImpl for RtcSessionSrc {
    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(actions::signals);
        &SIGNALS
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // A pipeline's EOS waits for every element with the sink flag: so ours comes after the last word about
        // the visitor, and not before it.
        obj.set_element_flags(gst::ElementFlags::SOURCE | gst::ElementFlags::SINK);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let default = Settings::default();
            let text = |name, nick, blurb, default: Option<&str>| {
                glib::ParamSpecString::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .default_value(default)
                    .build()
            };
            let milliseconds = |name, nick, blurb, default| {
                glib::ParamSpecUInt::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .default_value(default)
                    .build()
            };
            vec![
                text(
                    "listen",
                    "Listen",
                    "Where the doors are served, http://HOST:PORT, or https://HOST:PORT with tls-certificate and tls-private-key; port 0 takes any free one, and the rtc-listening message says which",
                    Some(&default.listen),
                ),
                text(
                    "doors",
                    "Doors",
                    "Signalling dialects that are served, separated by commas: page (the built-in page), offer (POST /offer and /api/offer, as aiortc's and Pipecat's servers), fastrtc (POST /webrtc/offer and /input_hook), roboflow (POST /initialise_webrtc_worker, for inference_sdk), whip (/whip, RFC 9725: what OBS and whipclientsink send to)",
                    Some(&default.doors),
                ),
                text(
                    "allowed-hosts",
                    "Allowed hosts",
                    "Host names, separated by commas, that requests may be made for besides IP addresses, localhost and the host of listen; others are refused, as a protection against DNS rebinding",
                    Some(&default.allowed_hosts),
                ),
                text(
                    "allowed-origins",
                    "Allowed origins",
                    "Origins such as https://example.org, separated by commas, whose pages may use the doors besides the built-in page; * is every one, for which auth-token is needed to keep anybody out. Pages of others are refused with HTTP status 403",
                    Some(&default.allowed_origins),
                ),
                text(
                    "auth-token",
                    "Authorization token",
                    "The secret that clients send as \"Authorization: Bearer TOKEN\", the built-in page takes from its address's #token=TOKEN, and Roboflow's SDK sends as api_key; everything but the page's own files and /healthz is refused without it, with HTTP status 401. Letters, digits and -._~+/ with = at the end. Unset lets everybody in",
                    None,
                ),
                glib::ParamSpecBoolean::builder("insecure")
                    .nick("Insecure")
                    .blurb("Whether it listens without an auth-token where other machines reach it, for anybody there to use; else it does not start")
                    .default_value(default.insecure)
                    .build(),
                text(
                    "tls-certificate",
                    "TLS certificate",
                    "Path of a PEM file with the certificate that https is served with, and after it those between it and its root. With listen=https://… and tls-private-key only",
                    None,
                ),
                text(
                    "tls-private-key",
                    "TLS private key",
                    "Path of a PEM file with the key of tls-certificate, without a passphrase",
                    None,
                ),
                glib::ParamSpecUInt::builder("max-connections")
                    .nick("Maximum connections")
                    .blurb("Visitors served at a time, over all doors; more are refused with HTTP status 503. 0 refuses everyone")
                    .default_value(default.max_connections)
                    .build(),
                glib::ParamSpecUInt::builder("max-pending")
                    .nick("Maximum pending")
                    .blurb("Connections of one remote address, or IPv6 network of 64 bits, that may be on their way at a time, offered and not yet connected; more are refused with HTTP status 429. Behind a proxy all visitors have its address. 0 sets no bound")
                    .default_value(default.max_pending)
                    .build(),
                glib::ParamSpecUInt::builder("udp-port")
                    .nick("UDP port")
                    .blurb("The UDP port that the media of all connections use; 0 takes any free one")
                    .maximum(u16::MAX.into())
                    .default_value(default.udp_port)
                    .build(),
                text(
                    "ice-addresses",
                    "ICE addresses",
                    "Local IP addresses, separated by commas, that visitors are told; empty is every local address, loopback too",
                    Some(&default.ice_addresses),
                ),
                text(
                    "stun-server",
                    "STUN server",
                    "Servers that tell how we are seen from outside, stun://HOST:PORT, separated by commas; unset asks nobody. Clients are told of them by GET /rtc-config and WHIP's Link headers, unless request-ice-servers says something else",
                    None,
                ),
                text(
                    "turn-servers",
                    "TURN servers",
                    "Relays for visitors that we do not reach directly, turn://USER:PASSWORD@HOST:PORT?transport=udp, separated by commas or spaces, with %XX for characters that have a meaning in a URL; unset is none. Each lends us one address that all connections share. Clients are told of them, account and all, by GET /rtc-config and WHIP's Link headers, unless request-ice-servers says something else; those with transport=tcp or turns: are for clients only. One that does not work is warned of once and tried again",
                    None,
                ),
                glib::ParamSpecEnum::builder::<IceTransportPolicy>("ice-transport-policy")
                    .nick("ICE transport policy")
                    .blurb("Whether visitors are reached directly where that can be, or through turn-servers only; clients are told by GET /rtc-config. With relay no local address is told or listened on for media, and while no TURN server relays, offers are refused with HTTP status 503")
                    .default_value(default.ice_transport_policy)
                    .build(),
                text(
                    "video-codecs",
                    "Video codecs",
                    "Codecs that are taken, in order of preference, separated by commas: vp8, h264. Those without an installed decoder are left out",
                    Some(&default.video_codecs),
                ),
                milliseconds(
                    "latency",
                    "Latency",
                    "Milliseconds that a missing packet is waited for before the stream goes on without it; also what the LATENCY query says. 0 waits for nothing",
                    default.latency,
                ),
                milliseconds(
                    "setup-timeout",
                    "Setup timeout",
                    "Milliseconds from the answer until the connection must stand, else it ends as setup-timeout; 0 waits for ever",
                    default.setup_timeout,
                ),
                milliseconds(
                    "connection-timeout",
                    "Connection timeout",
                    "Milliseconds that a visit may last, from the moment the connection stands; then it ends as time-limit. 0 is for ever",
                    default.connection_timeout,
                ),
                milliseconds(
                    "disconnect-timeout",
                    "Disconnect timeout",
                    "Milliseconds without a packet after which a visitor has gone and the connection ends as peer-lost; 0 waits for ever",
                    default.disconnect_timeout,
                ),
                milliseconds(
                    "drain-timeout",
                    "Drain timeout",
                    "Milliseconds that EOS is given to leave the branches of a connection that ends; then they are flushed. 0 flushes at once",
                    default.drain_timeout,
                ),
                milliseconds(
                    "shutdown-timeout",
                    "Shutdown timeout",
                    "Milliseconds that stopping waits for every visitor to be ended; of these all but 1500 are left for draining, if drain-timeout is not shorter. 0 does not wait",
                    default.shutdown_timeout,
                ),
                glib::ParamSpecEnum::builder_with_default("eos-policy", default.eos_policy)
                    .nick("EOS policy")
                    .blurb("Whether the pipeline ends when its visitor has left, or goes on until it is sent EOS")
                    .build(),
                glib::ParamSpecEnum::builder_with_default(
                    "desired-playing-state",
                    default.desired_playing_state,
                )
                .nick("Desired playing state")
                .blurb("What visitors are asked to do: those connected are sent {\"desired_playing_state\":true or false} on their data channel, and the built-in page does it. Each change is sent once")
                .mutable_playing()
                .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("connections")
                    .nick("Connections")
                    .blurb("Every connection now: a structure with a field for each connection-id, whose value is a structure as get-connection gives it")
                    .read_only()
                    .build(),
                text(
                    "session",
                    "Session",
                    "The name by which an rtcsessionsink of this process finds the visitors",
                    Some(&default.session),
                ),
                text(
                    "video-chain",
                    "Video chain",
                    "Description of the elements that every video stream is given to, as in gst-launch-1.0, with one unlinked sink pad and at most one unlinked src pad, of which what leaves it is sent back; @FILE reads it from a file. Unset gives pads instead",
                    None,
                ),
                text(
                    "audio-chain",
                    "Audio chain",
                    "Description of the elements that every audio stream is given to, as in gst-launch-1.0, with one unlinked sink pad and at most one unlinked src pad, of which what leaves it is sent back; @FILE reads it from a file. Unset gives pads instead",
                    None,
                ),
                text(
                    "workflows",
                    "Workflows",
                    "Folder with files ID.launch, each a video-chain for clients of the Roboflow door that ask for the workflow ID; read when the element gets READY. Unset gives all of them video-chain",
                    None,
                ),
                text(
                    "client-args",
                    "Client arguments",
                    "Properties of the chains' elements that clients of the FastRTC and Roboflow doors may set, as NAME.PROPERTY, separated by commas. Arguments without a dot always go down their streams, as the event rtc-args",
                    Some(&default.client_args),
                ),
                text(
                    "allow-pull",
                    "Allow pull",
                    "Hosts, separated by commas, that clients of the Roboflow door may have video pulled from (rtsp_url, mjpeg_url); * allows every host with a public address, but a private one only where it or its name is listed, and a name in an https or rtsps URL only where that is. Empty turns pulling off",
                    Some(&default.allow_pull),
                ),
                glib::ParamSpecUInt64::builder("max-upload")
                    .nick("Maximum upload")
                    .blurb("Longest video file, in bytes, that a client of the Roboflow door may send; it is kept in the folder for temporary files while it is played")
                    .maximum(1 << 40)
                    .default_value(default.max_upload)
                    .build(),
                text(
                    "webrtcbin",
                    "webrtcbin",
                    "Name of a webrtcbin in the same pipeline that answers what comes in by the doors, one connection at a time, instead of this element's own transport. Media stays on its own pads; messages, data channels, results and ends are said here. Unset is none",
                    None,
                ),
                glib::ParamSpecBoolean::builder("offer")
                    .nick("Offer")
                    .blurb("Whether the webrtcbin makes the offer: POST /offer with {\"type\":\"request\"} asks for it, and {\"type\":\"answer\",\"sdp\",\"pc_id\"} answers it; offers of clients are refused then")
                    .default_value(default.offer)
                    .build(),
                glib::ParamSpecUInt::builder("min-bitrate")
                    .nick("Minimum bitrate")
                    .blurb("The least bits a second that a stream of video is sent back with, whatever the network says")
                    .minimum(10_000)
                    .default_value(default.min_bitrate)
                    .build(),
                glib::ParamSpecUInt::builder("max-bitrate")
                    .nick("Maximum bitrate")
                    .blurb("The most bits a second that a stream of video is sent back with, however much the network carries")
                    .minimum(10_000)
                    .default_value(default.max_bitrate)
                    .build(),
                glib::ParamSpecBoolean::builder("stereo")
                    .nick("Stereo")
                    .blurb("Whether audio is sent back in two channels, whatever leaves the chain, or in one")
                    .default_value(default.stereo)
                    .build(),
                glib::ParamSpecBoolean::builder("dtx")
                    .nick("Discontinuous transmission")
                    .blurb("Whether nothing is sent while the audio is silent")
                    .default_value(default.dtx)
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const TYPED: &str = "the type was checked against the property";
        let wish = {
            let mut settings = self.settings();
            let text = || value.get::<Option<String>>().expect(TYPED);
            let number = || value.get::<u32>().expect(TYPED);
            match pspec.name() {
                "listen" => settings.listen = text().unwrap_or_default(),
                "doors" => settings.doors = text().unwrap_or_default(),
                "allowed-hosts" => settings.allowed_hosts = text().unwrap_or_default(),
                "allowed-origins" => settings.allowed_origins = text().unwrap_or_default(),
                "auth-token" => settings.auth_token = text(),
                "insecure" => settings.insecure = value.get().expect(TYPED),
                "tls-certificate" => settings.tls_certificate = text(),
                "tls-private-key" => settings.tls_private_key = text(),
                "max-connections" => settings.max_connections = number(),
                "max-pending" => settings.max_pending = number(),
                "udp-port" => settings.udp_port = number(),
                "ice-addresses" => settings.ice_addresses = text().unwrap_or_default(),
                "stun-server" => settings.stun_server = text().filter(|server| !server.is_empty()),
                "turn-servers" => settings.turn_servers = text(),
                "ice-transport-policy" => {
                    settings.ice_transport_policy = value.get::<IceTransportPolicy>().expect(TYPED);
                }
                "video-codecs" => settings.video_codecs = text().unwrap_or_default(),
                "latency" => settings.latency = number(),
                "setup-timeout" => settings.setup_timeout = number(),
                "connection-timeout" => settings.connection_timeout = number(),
                "disconnect-timeout" => settings.disconnect_timeout = number(),
                "drain-timeout" => settings.drain_timeout = number(),
                "shutdown-timeout" => settings.shutdown_timeout = number(),
                "eos-policy" => settings.eos_policy = value.get::<EosPolicy>().expect(TYPED),
                "desired-playing-state" => {
                    settings.desired_playing_state = value.get::<PlayingState>().expect(TYPED);
                }
                "video-chain" => settings.video_chain = text(),
                "audio-chain" => settings.audio_chain = text(),
                "workflows" => settings.workflows = text(),
                "client-args" => settings.client_args = text().unwrap_or_default(),
                "allow-pull" => settings.allow_pull = text().unwrap_or_default(),
                "max-upload" => settings.max_upload = value.get().expect(TYPED),
                "session" => settings.session = text().unwrap_or_default(),
                "webrtcbin" => settings.webrtcbin = value.get().expect(TYPED),
                "offer" => settings.offer = value.get().expect(TYPED),
                "min-bitrate" => settings.min_bitrate = number(),
                "max-bitrate" => settings.max_bitrate = number(),
                "stereo" => settings.stereo = value.get().expect(TYPED),
                "dtx" => settings.dtx = value.get().expect(TYPED),
                name => unreachable!("{name} is no property of ours"),
            }
            (pspec.name() == "desired-playing-state").then_some(settings.desired_playing_state)
        };
        if let Some((session, wish)) = self.session().zip(wish) {
            session.ask_to_play(wish.as_wish());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "connections" {
            return actions::connections(self.session().as_deref()).to_value();
        }
        let settings = self.settings();
        match pspec.name() {
            "listen" => settings.listen.to_value(),
            "doors" => settings.doors.to_value(),
            "allowed-hosts" => settings.allowed_hosts.to_value(),
            "allowed-origins" => settings.allowed_origins.to_value(),
            "auth-token" => settings.auth_token.to_value(),
            "insecure" => settings.insecure.to_value(),
            "tls-certificate" => settings.tls_certificate.to_value(),
            "tls-private-key" => settings.tls_private_key.to_value(),
            "max-connections" => settings.max_connections.to_value(),
            "max-pending" => settings.max_pending.to_value(),
            "udp-port" => settings.udp_port.to_value(),
            "ice-addresses" => settings.ice_addresses.to_value(),
            "stun-server" => settings.stun_server.to_value(),
            "turn-servers" => settings.turn_servers.to_value(),
            "ice-transport-policy" => settings.ice_transport_policy.to_value(),
            "video-codecs" => settings.video_codecs.to_value(),
            "latency" => settings.latency.to_value(),
            "setup-timeout" => settings.setup_timeout.to_value(),
            "connection-timeout" => settings.connection_timeout.to_value(),
            "disconnect-timeout" => settings.disconnect_timeout.to_value(),
            "drain-timeout" => settings.drain_timeout.to_value(),
            "shutdown-timeout" => settings.shutdown_timeout.to_value(),
            "eos-policy" => settings.eos_policy.to_value(),
            "desired-playing-state" => settings.desired_playing_state.to_value(),
            "video-chain" => settings.video_chain.to_value(),
            "audio-chain" => settings.audio_chain.to_value(),
            "workflows" => settings.workflows.to_value(),
            "client-args" => settings.client_args.to_value(),
            "allow-pull" => settings.allow_pull.to_value(),
            "max-upload" => settings.max_upload.to_value(),
            "session" => settings.session.to_value(),
            "webrtcbin" => settings.webrtcbin.to_value(),
            "offer" => settings.offer.to_value(),
            "min-bitrate" => settings.min_bitrate.to_value(),
            "max-bitrate" => settings.max_bitrate.to_value(),
            "stereo" => settings.stereo.to_value(),
            "dtx" => settings.dtx.to_value(),
            name => unreachable!("{name} is no property of ours"),
        }
    }
}

impl GstObjectImpl for RtcSessionSrc {}

impl ElementImpl for RtcSessionSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTC session source",
                "Source/Network/Video/Audio",
                "Hosts WebRTC visitors: their video and audio on pads or in a chain of elements each, results back on their data channels",
                "rtcinference",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, media| {
                gst::PadTemplate::new(
                    name,
                    gst::PadDirection::Src,
                    gst::PadPresence::Sometimes,
                    &gst::Caps::builder(media).build(),
                )
                .expect("the template is sound")
            };
            vec![
                template("video_%u", "video/x-raw"),
                template("audio_%u", "audio/x-raw"),
            ]
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        use gst::StateChange::*;
        let prepared = match transition {
            NullToReady => self.prepare(),
            ReadyToPaused => self.serve(),
            _ => Ok(()),
        };
        if let Err(message) = prepared {
            self.post_error_message(message);
            self.shut_down();
            return Err(gst::StateChangeError);
        }
        match transition {
            PausedToPlaying => self.set_playing(true),
            PlayingToPaused => self.set_playing(false),
            PausedToReady => self.shut_down(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        Ok(match transition {
            ReadyToPaused | PlayingToPaused => gst::StateChangeSuccess::NoPreroll,
            ReadyToNull => {
                self.shut_down();
                success
            }
            _ => success,
        })
    }

    fn send_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => {
                self.finish(event.seqnum());
                true
            }
            _ => self.parent_send_event(event),
        }
    }
}
