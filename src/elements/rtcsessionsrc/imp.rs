use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use self::receiving::Receiving;
use super::settings::{Plan, Settings};
use super::stage::ElementStage;
use super::{actions, properties};
use crate::doors::http::{Listener, Serving, is_local};
use crate::doors::{Door, Host, Rights};
use crate::elements::dialling::Dialling;
use crate::logic::connection::Patience;
use crate::logic::token::{Token, hide_secrets};
use crate::peer::call::CallConfig;
use crate::peer::chain::Chain;
use crate::peer::codecs::Codec;
use crate::peer::directory;
use crate::peer::session::{Session, SessionConfig};
use crate::peer::sockets::Addresses;
use crate::peer::webrtcbin::Neighbourhood;

mod receiving;

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
    dialling: Dialling,
    receiving: Mutex<Option<Receiving>>,
}

impl RtcSessionSrc {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiving(&self) -> MutexGuard<'_, Option<Receiving>> {
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds the connections, from READY on.
    pub fn session(&self) -> Option<Arc<Session>> {
        let hosted = self
            .running()
            .as_ref()
            .map(|running| running.session.clone());
        let dialled = || {
            let receiving = self.receiving();
            directory::session(receiving.as_ref()?.dialled.name())
        };
        hosted.or_else(dialled)
    }

    /// Checks the settings and takes every resource there is to take.
    fn prepare(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        if let Some(dialled) = self.dialling.dialled(&settings.session) {
            return self.prepare_to_receive(dialled);
        }
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
        let neighbour =
            self.neighbourhood(&settings, &plan.codecs, &plan.addresses, plan.patience)?;
        let config = config(&settings, &plan, neighbour);
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
            false,
        ));
        let video_codecs = plan
            .codecs
            .iter()
            .filter(|codec| !codec.is_audio())
            .map(|codec| codec.as_str())
            .collect();
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
        if self.running().is_none() && self.receiving().is_none() {
            self.prepare()?;
        }
        if self.receiving().is_some() {
            return self.receive();
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
        if let Some(receiving) = &*self.receiving() {
            receiving.stage.set_playing(playing);
        }
        if playing && let Some(session) = self.session() {
            session.rebase();
        }
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

    fn start_to_call(&self) -> Result<(), gst::ErrorMessage> {
        let obj = self.obj();
        self.dialling.start(obj.upcast_ref())
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
        if let Some(receiving) = &*self.receiving() {
            // Its EOS follows.
            return receiving.dialled.close();
        }
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

fn config(settings: &Settings, plan: &Plan, neighbour: Option<Neighbourhood>) -> SessionConfig {
    SessionConfig {
        call: CallConfig::new(
            plan.codecs.clone(),
            plan.latency,
            plan.patience,
            settings.bitrate(),
        ),
        addresses: plan.addresses.clone(),
        ice_servers: plan.ice_servers.clone(),
        // A webrtcbin is one end of one connection.
        max_connections: match settings.webrtcbin {
            Some(_) => 1,
            None => settings.max_connections,
        },
        max_pending: settings.max_pending,
        terms: settings.terms(),
        shutdown_timeout: Duration::from_millis(settings.shutdown_timeout.into()),
        neighbour,
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
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties::all);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let name = pspec.name();
        let session = self.settings().session.clone();
        if self.dialling.set(name, value, &session) {
            return;
        }
        let wish = {
            let mut settings = self.settings();
            properties::set(&mut settings, value, pspec);
            (name == "desired-playing-state").then_some(settings.desired_playing_state)
        };
        if name == "session" {
            let session = self.settings().session.clone();
            self.dialling.announce(&session);
        }
        if let Some((session, wish)) = self.session().zip(wish) {
            session.ask_to_play(wish.as_wish());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "connections" {
            return actions::connections(self.session().as_deref()).to_value();
        }
        let dialling = self.dialling.get(pspec.name());
        dialling.unwrap_or_else(|| properties::value(&self.settings(), pspec))
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
            PausedToPlaying => {
                self.set_playing(true);
                self.start_to_call()
            }
            _ => Ok(()),
        };
        if let Err(message) = prepared {
            self.post_error_message(message);
            self.stop_receiving();
            self.shut_down();
            return Err(gst::StateChangeError);
        }
        match transition {
            PlayingToPaused => self.set_playing(false),
            PausedToReady => {
                self.stop_receiving();
                self.shut_down();
            }
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        Ok(match transition {
            ReadyToPaused | PlayingToPaused => gst::StateChangeSuccess::NoPreroll,
            ReadyToNull => {
                self.receiving().take();
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
