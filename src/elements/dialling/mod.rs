//! Calling a server, for the elements that have `uri`: its properties, its errors, and what the session sees of the element.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use crate::dial::calls::{Caller, Calls, Failure, Plan, Reception, Terms};
use crate::dial::{
    self, Address, DialError, Http, OptionError, Options, Party, Protocol, Value, Wanted,
};
use crate::logic::bandwidth::Limits;
use crate::logic::connection::Patience;
use crate::peer::call::CallConfig;
use crate::peer::codecs::{Codec, Media};
use crate::peer::connection;
use crate::peer::dialled::{self, Dialled, Receiver};
use crate::peer::directory;
use crate::peer::encoders::AudioTerms;
use crate::peer::session::SessionConfig;
use crate::peer::sockets::Addresses;

mod stage;

use stage::SenderStage;

/// What the last words may take.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Of a session that nobody but its sender takes part in.
const LATENCY: Duration = Duration::from_millis(150);
const PATIENCE: Patience = Patience {
    setup: Some(Duration::from_secs(10)),
    disconnect: Some(Duration::from_secs(5)),
};
const BITRATE: Limits = Limits {
    min: 500_000,
    max: 2_000_000,
};
const DRAIN: Duration = Duration::from_secs(2);

/// When a server is called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtcSessionReconnect")]
#[repr(i32)]
pub enum Reconnect {
    #[default]
    #[enum_value(name = "A session that is lost is an error", nick = "never")]
    Never,
    #[enum_value(
        name = "A session that is lost, or does not come about, is followed by another one",
        nick = "on-loss"
    )]
    OnLoss,
}

#[derive(Debug, Clone, Default)]
struct Settings {
    uri: Option<String>,
    options: Option<gst::Structure>,
    reconnect: Reconnect,
    stall_timeout: Option<u32>,
}

/// Milliseconds.
const STALL_TIMEOUT: u32 = 30_000;

/// What an element that may call keeps.
#[derive(Default)]
pub struct Dialling {
    settings: Mutex<Settings>,
    /// The session is one with a server from `uri` on, whatever the state: others look for it before they start.
    dialled: Mutex<Option<Arc<Dialled>>>,
    calls: Mutex<Option<Arc<Calls>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong(problem: impl std::fmt::Display) -> gst::ErrorMessage {
    gst::error_msg!(gst::ResourceError::Settings, ("{problem}"))
}

impl Dialling {
    /// The properties.
    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let of_kinds = dial::KINDS.each_ref().map(|kind| {
            let names: Vec<_> = kind.all_options().map(|option| option.name).collect();
            format!("{}: {}", kind.name, names.join(", "))
        });
        let options = format!(
            "What that protocol needs, such as options=\"roboflow,workspace=me,workflow-id=count,stream-output=image\"; an unknown field is an error that names the known ones. {}",
            of_kinds.join("; ")
        );
        vec![
            // :uri: Since: 0.1
            glib::ParamSpecString::builder("uri")
                .nick("URI")
                .blurb("The server to call instead of waiting for visitors: roboflow+http://HOST:PORT (what inference_sdk talks to), fastrtc+http://…, offer+http://…/offer (aiortc, Pipecat), whip+http://… to send, whep+http://… to receive, each with https too; elements with the same session share the connection. Unset calls nobody")
                .mutable_ready()
                .build(),
            // :options: Since: 0.1
            glib::ParamSpecBoxed::builder::<gst::Structure>("options")
                .nick("Options")
                .blurb(&options)
                .mutable_ready()
                .build(),
            // :reconnect: Since: 0.1
            glib::ParamSpecEnum::builder::<Reconnect>("reconnect")
                .nick("Reconnect")
                .blurb("Whether the server is called again, with pauses of 0.25 to 45 seconds, when the session is lost or does not come about; what comes in meanwhile is dropped")
                .mutable_ready()
                .build(),
            // :stall-timeout: Since: 0.1
            glib::ParamSpecUInt::builder("stall-timeout")
                .nick("Stall timeout")
                .blurb("Milliseconds for which a server that is to send something may send neither media nor messages before the session counts as lost; 0 is for ever")
                .default_value(STALL_TIMEOUT)
                .mutable_ready()
                .build(),
        ]
    }

    /// Sets one of them; `false` where it is none of them. `session` is what the element's session is called.
    pub fn set(&self, name: &str, value: &glib::Value, session: &str) -> bool {
        const CHECKED: &str = "GObject checked the type";
        let mut settings = lock(&self.settings);
        match name {
            "uri" => {
                let uri: Option<String> = value.get().expect(CHECKED);
                settings.uri = uri.filter(|uri| !uri.is_empty());
                drop(settings);
                self.announce(session);
            }
            "options" => settings.options = value.get().expect(CHECKED),
            "reconnect" => {
                settings.reconnect = value.get().expect(CHECKED);
                drop(settings);
                self.announce(session);
            }
            "stall-timeout" => settings.stall_timeout = Some(value.get().expect(CHECKED)),
            _ => return false,
        }
        true
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        let settings = lock(&self.settings);
        Some(match name {
            "uri" => settings.uri.to_value(),
            "options" => settings.options.to_value(),
            "reconnect" => settings.reconnect.to_value(),
            "stall-timeout" => settings.stall_timeout.unwrap_or(STALL_TIMEOUT).to_value(),
            _ => return None,
        })
    }

    /// `uri` or the name of the session has changed.
    pub fn announce(&self, session: &str) {
        let settings = lock(&self.settings).clone();
        // What it was is let go first: it would be found under the same name.
        lock(&self.dialled).take();
        *lock(&self.dialled) = settings.uri.map(|_| {
            let dialled = dialled::announce(session);
            dialled.set_reconnects(settings.reconnect == Reconnect::OnLoss);
            dialled
        });
    }

    /// The session with a server that the element calls, or that another one calls for a session of that name.
    pub fn dialled(&self, session: &str) -> Option<Arc<Dialled>> {
        let own = lock(&self.dialled).clone();
        own.or_else(|| dialled::find(session))
    }

    /// Whether this element calls.
    pub fn calls(&self) -> bool {
        lock(&self.dialled).is_some()
    }

    /// What holds the connections, once there is something to hold.
    pub fn session(&self) -> Option<Arc<crate::peer::session::Session>> {
        lock(&self.calls).as_ref()?.session()
    }

    /// Checks what was set.
    pub fn check(&self, session: &str) -> Result<(), gst::ErrorMessage> {
        let Some(own) = lock(&self.dialled).clone() else {
            return Ok(());
        };
        self.plan()?;
        match dialled::find(session) {
            Some(first) if !Arc::ptr_eq(&first, &own) => Err(wrong(format!(
                "session={session}: another element calls a server for it; one uri is right, the others need the session's name only"
            ))),
            _ => Ok(()),
        }
    }

    fn plan(&self) -> Result<Plan, gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let uri = settings.uri.unwrap_or_default();
        // Not repeated: there may be a secret in it.
        let address: Address = uri
            .parse()
            .map_err(|error| wrong(format!("uri: {error}")))?;
        let options = match &settings.options {
            Some(structure) => read(structure)?,
            None => Options::default(),
        };
        let in_options = |error| wrong(format!("options: {error}"));
        let protocol = dial::protocol(&address, &options).map_err(in_options)?;
        let http = Http::new(&address, &options).map_err(in_options)?;
        let stall = settings.stall_timeout.unwrap_or(STALL_TIMEOUT);
        Ok(Plan {
            address,
            protocol,
            http,
            reconnects: settings.reconnect == Reconnect::OnLoss,
            stall: (stall > 0).then(|| Duration::from_millis(stall.into())),
            shutdown: SHUTDOWN,
        })
    }

    /// Calls, unless it does already. `is_source`: its end is posted as EOS.
    pub fn start(&self, element: &gst::Element) -> Result<(), gst::ErrorMessage> {
        let Some(dialled) = lock(&self.dialled).clone() else {
            return Ok(());
        };
        if lock(&self.calls).is_some() {
            return Ok(());
        }
        let plan = self.plan()?;
        let name = dialled.name();
        let party = Party {
            sends_video: directory::published(name, Media::Video),
            sends_audio: directory::published(name, Media::Audio),
            receives: dialled.has_receiver(),
        };
        let offer = match directory::is_reserved(name) {
            // A demuxer finds what there is; what the server does not take of it is told of as discarded.
            true => most_of(&*plan.protocol, &party),
            false => plan.protocol.wanted(&party),
        };
        let offer = offer.map_err(|error| wrong(format!("{}: {error}", plan.address)))?;
        let sender = || Receiver {
            stage: Arc::new(SenderStage::new(element, name)),
            config: config(),
            max_buffers: 1,
            drop: true,
            over: Box::new(|_| ()),
        };
        dialled.open();
        let receiver = dialled.take_receiver().unwrap_or_else(sender);
        let reception = Reception {
            stage: receiver.stage,
            config: receiver.config,
            terms: Terms {
                offer,
                max_buffers: receiver.max_buffers,
                drop: receiver.drop,
            },
        };
        let caller = Arc::new(ElementCaller(element.downgrade()));
        *lock(&self.calls) = Some(Calls::start(plan, reception, dialled, caller));
        Ok(())
    }

    /// Ends the session.
    pub fn stop(&self, abruptly: bool) {
        let calls = lock(&self.calls).take();
        if let Some(calls) = calls {
            calls.stop(abruptly);
        }
    }
}

/// Of as many streams as the protocol takes, rather video than audio; the error is that of all of them.
fn most_of(protocol: &dyn Protocol, party: &Party) -> Result<Wanted, OptionError> {
    let least = party.sends_video.min(1);
    let mut fewer = (least..=party.sends_video).rev().flat_map(|video| {
        let audios = (0..=party.sends_audio).rev();
        audios.map(move |audio| Party {
            sends_video: video,
            sends_audio: audio,
            ..*party
        })
    });
    protocol.wanted(party).or_else(|error| {
        let offer = fewer.find_map(|party| protocol.wanted(&party).ok());
        offer.ok_or(error)
    })
}

fn config() -> SessionConfig {
    SessionConfig {
        call: CallConfig::new(
            vec![Codec::Vp8, Codec::H264, Codec::Opus],
            LATENCY,
            PATIENCE,
            BITRATE,
        ),
        addresses: Addresses::default(),
        ice_servers: String::new(),
        max_connections: 1,
        max_pending: 0,
        terms: connection::Terms {
            drain_timeout: DRAIN,
            time_limit: None,
            bitrate: BITRATE,
            audio: AudioTerms {
                stereo: true,
                dtx: false,
            },
        },
        shutdown_timeout: SHUTDOWN,
        neighbour: None,
    }
}

/// Options as the protocols read them.
fn read(structure: &gst::StructureRef) -> Result<Options, gst::ErrorMessage> {
    let fields = values(structure).map_err(|error| wrong(format!("options: {error}")))?;
    Ok(Options::new(fields.into_iter().collect()))
}

/// The fields as JSON.
pub fn json(
    structure: &gst::StructureRef,
) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let fields = values(structure)?;
    Ok(fields
        .into_iter()
        .map(|(name, value)| (name, json_of(&value)))
        .collect())
}

fn values(structure: &gst::StructureRef) -> Result<Vec<(String, Value)>, String> {
    let fields = structure.iter().map(|(name, value)| {
        let kind = value.type_();
        let read = value_of(value).ok_or_else(|| {
            format!("{name} is a {kind}; a string, boolean, number, or a list or structure of these is right")
        })?;
        Ok((name.to_string(), read))
    });
    fields.collect()
}

fn value_of(value: &glib::SendValue) -> Option<Value> {
    if let Ok(text) = value.get::<String>() {
        return Some(Value::Text(text));
    }
    if let Ok(flag) = value.get::<bool>() {
        return Some(Value::Flag(flag));
    }
    let integer = [
        value.get::<i32>().ok().map(i64::from),
        value.get::<u32>().ok().map(i64::from),
        value.get::<i64>().ok(),
        value
            .get::<u64>()
            .ok()
            .and_then(|number| i64::try_from(number).ok()),
    ];
    if let Some(number) = integer.into_iter().flatten().next() {
        return Some(Value::Integer(number));
    }
    let number = [
        value.get::<f64>().ok(),
        value.get::<f32>().ok().map(f64::from),
    ];
    if let Some(number) = number.into_iter().flatten().next() {
        return Some(Value::Number(number));
    }
    if let Ok(fraction) = value.get::<gst::Fraction>() {
        return Some(Value::Number(
            f64::from(fraction.numer()) / f64::from(fraction.denom()),
        ));
    }
    if let Ok(array) = value.get::<gst::ArrayRef>() {
        return texts(array.as_slice());
    }
    if let Ok(list) = value.get::<gst::ListRef>() {
        return texts(list.as_slice());
    }
    let structure = value.get::<gst::Structure>().ok()?;
    let fields = structure
        .iter()
        .map(|(name, value)| Some((name.to_string(), json_of(&value_of(value)?))));
    Some(Value::Object(fields.collect::<Option<_>>()?))
}

fn texts(values: &[glib::SendValue]) -> Option<Value> {
    let texts = values.iter().map(|value| value.get::<String>().ok());
    Some(Value::Texts(texts.collect::<Option<_>>()?))
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Integer(number) => (*number).into(),
        Value::Number(number) => (*number).into(),
        Value::Texts(texts) => texts.iter().map(String::as_str).collect(),
        Value::Object(fields) => fields.clone().into(),
    }
}

/// The element that calls.
struct ElementCaller(glib::WeakRef<gst::Element>);

impl Caller for ElementCaller {
    fn warn(&self, text: &str) {
        if let Some(element) = self.0.upgrade() {
            gst::element_warning!(element, gst::ResourceError::OpenReadWrite, ("{text}"));
        }
    }

    fn over(&self, outcome: Result<(), Failure>) {
        let (Some(element), Err(failure)) = (self.0.upgrade(), outcome) else {
            return;
        };
        let kind = match &failure {
            Failure::Dial(DialError::Unreachable { .. }) => gst::ResourceError::NotFound,
            Failure::Dial(DialError::Status {
                code: 401 | 403, ..
            }) => gst::ResourceError::NotAuthorized,
            Failure::Lost { .. } => gst::ResourceError::Read,
            _ => gst::ResourceError::OpenReadWrite,
        };
        gst::element_error!(element, kind, ("{failure}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_demuxer_finds_a_server_is_offered_as_much_as_it_takes() {
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.into()));
        let of_roboflow = [text("workspace", "any"), text("workflow-id", "any")];
        for (uri, options, [sends_video, sends_audio], lines) in [
            ("whip+http://h/whip", vec![], [1, 2], Some(3)),
            ("whip+http://h/whip", vec![], [1, 6], Some(5)),
            ("whip+http://h/whip", vec![], [0, 6], Some(4)),
            ("roboflow+http://h", of_roboflow.to_vec(), [2, 3], Some(1)),
            ("roboflow+http://h", of_roboflow.to_vec(), [0, 1], None),
        ] {
            let options = Options::new(options.into_iter().collect());
            let protocol = dial::protocol(&uri.parse().unwrap(), &options).unwrap();
            let party = Party {
                sends_video,
                sends_audio,
                receives: false,
            };
            let offer = most_of(&*protocol, &party);
            assert_eq!(offer.map(|wanted| wanted.lines.len()).ok(), lines, "{uri}");
        }
    }
}
