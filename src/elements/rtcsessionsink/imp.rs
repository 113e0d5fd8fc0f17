use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::gate::Gate;
use super::input::{Input, InputState, check, picture};
use super::settings::Settings;
use crate::elements::dialling::Dialling;
use crate::elements::without_preroll;
use crate::logic::frame_facts::FrameFacts;
use crate::logic::media::Media;
use crate::peer::dialled::Dialled;
use crate::peer::directory::{self, Reservation};
use crate::peer::encoding::{accepted, answer_caps};
use crate::peer::publication::{Publication, PublicationStage};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtcsessionsink",
        gst::DebugColorFlags::empty(),
        Some("RTC session sink"),
    )
});

/// How much before its time audio is taken, where it is paced: a period.
const AHEAD: gst::ClockTime = gst::ClockTime::from_mseconds(20);
/// How often a wait for the end of a session looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How often a wait for a server looks whether it is there.
const LOOK_FOR_SERVER: Duration = Duration::from_millis(10);

#[derive(Default)]
pub struct RtcSessionSink {
    settings: Mutex<Settings>,
    inputs: Mutex<BTreeMap<String, Arc<Input>>>,
    /// Stands for pads that are yet to come: a demuxer's are asked for one after another when it has found its streams, and
    /// then an offer may have been made or answered. They are known when there is data.
    reserved: Mutex<Option<Arc<Reservation>>>,
    gate: Gate,
    dialling: Dialling,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The element, as its publications see it.
struct Stage(glib::WeakRef<super::RtcSessionSink>);

impl PublicationStage for Stage {
    fn post(&self, message: gst::Structure) {
        if let Some(element) = self.0.upgrade() {
            gst::info!(CAT, obj = element, "{message}");
            let message = gst::message::Element::builder(message).src(&element);
            // Without a bus nobody listens.
            let _ = element.post_message(message.build());
        }
    }

    fn running_time(&self) -> Option<gst::ClockTime> {
        let element = self.0.upgrade()?;
        let playing = element.imp().gate.is_playing();
        element.current_running_time().filter(|_| playing)
    }
}

impl RtcSessionSink {
    fn inputs(&self) -> Vec<(String, Arc<Input>)> {
        let inputs = lock(&self.inputs);
        let all = inputs.iter();
        all.map(|(name, input)| (name.clone(), input.clone()))
            .collect()
    }

    fn publications(&self) -> Vec<Arc<Publication>> {
        let inputs = self.inputs().into_iter();
        inputs
            .filter_map(|(_, input)| lock(&input.state).publication.clone())
            .collect()
    }

    /// The session with a server that it sends to, if it is one.
    fn dialled(&self) -> Option<Arc<Dialled>> {
        let session = lock(&self.settings).session.clone();
        self.dialling.dialled(&session)
    }

    /// By what the session is found.
    fn session(&self) -> String {
        match self.dialled() {
            Some(dialled) => dialled.name().to_owned(),
            None => lock(&self.settings).session.clone(),
        }
    }

    fn claim(&self, input: &Input) {
        let claim = directory::claim(&self.session(), input.media);
        lock(&input.state).claim = Some(claim);
    }

    fn publish(&self, name: &str, input: &Input) -> Result<(), glib::BoolError> {
        let number = lock(&input.state).claim.as_ref().map_or(0, |c| c.number);
        let server = self.dialled();
        let server = server.as_ref().map(|dialled| dialled.name());
        let terms = lock(&self.settings).terms(name, number, input.media, server);
        let stage = Arc::new(Stage(self.obj().downgrade()));
        let publication = Publication::new(terms, stage);
        lock(&input.state).publication = Some(publication.clone());
        publication.start()
    }

    fn start(&self) -> Result<(), glib::BoolError> {
        self.gate.start();
        let inputs = self.inputs();
        inputs
            .iter()
            .try_for_each(|(name, input)| self.publish(name, input))
    }

    fn move_gate(&self, change: impl FnOnce(&Gate)) {
        change(&self.gate);
        for publication in self.publications() {
            publication.wake();
        }
    }

    /// Where pads are asked for late, what comes through them is not known before there is data.
    fn reserve(&self) {
        let are_late = self.inputs().iter().all(|(_, input)| input.is_late);
        let reservation = are_late.then(|| directory::reserve(&self.session()));
        *lock(&self.reserved) = reservation;
    }

    fn pads_are_known(&self) {
        if let Some(reservation) = &*lock(&self.reserved) {
            reservation.set_known();
        }
    }

    fn chain(
        &self,
        pad: &gst::Pad,
        input: &Input,
        buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (publication, caps, running, origin) = {
            let state = lock(&input.state);
            if state.eos {
                return Err(gst::FlowError::Eos);
            }
            // The first one of its stream.
            if state.live.is_none() {
                self.pads_are_known();
            }
            let caps = state.caps.clone().ok_or(gst::FlowError::NotNegotiated)?;
            let fits = state
                .picture
                .map_or(Ok(0), |(format, w, h)| format.frame_in(buffer.size(), w, h));
            if let Err(error) = fits {
                drop(state);
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ("{}: {error}", pad.name())
                );
                return Err(gst::FlowError::Error);
            }
            let publication = state.publication.clone();
            let running = match buffer.pts() {
                Some(pts) => match state.segment.to_running_time(pts) {
                    Some(running) => Some(running),
                    // Outside of what is to be played.
                    None => return Ok(gst::FlowSuccess::Ok),
                },
                None => None,
            };
            let publication = publication.ok_or(gst::FlowError::Flushing)?;
            (publication, caps, running, state.origin.clone())
        };
        let wait = !self.is_live(pad, input);
        if let Some(server) = self.dialled() {
            if server.is_over() {
                return Err(gst::FlowError::Eos);
            }
            if wait {
                self.wait_for_server(pad, &publication, &server, running)?;
            }
        }
        let sync = lock(&self.settings).sync;
        // What comes a moment early is sent at its time by continuity, what comes late is a gap.
        let now = || self.obj().current_running_time().unwrap_or_default();
        let running = running.map(|running| running + self.gate.epoch(now()));
        let ahead = match publication.terms().feed.continuity {
            Some(_) if input.media == Media::Audio => AHEAD,
            _ => gst::ClockTime::ZERO,
        };
        let due = running.filter(|_| wait && sync);
        let due = due.map(|due| due.saturating_sub(ahead));
        self.gate
            .wait_until(pad, due, || self.obj().current_running_time())?;
        let origin = FrameFacts::read(&buffer).connection_id.or(origin);
        let at = running.unwrap_or_else(now);
        publication.push(origin.as_deref(), buffer, &caps, at.into(), wait);
        match self.gate.shuts(pad) {
            true => Err(gst::FlowError::Flushing),
            false => Ok(gst::FlowSuccess::Ok),
        }
    }

    /// What can wait is not lost while a server is being called.
    fn wait_for_server(
        &self,
        pad: &gst::Pad,
        publication: &Publication,
        server: &Dialled,
        running: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        while !publication.has_recipient() {
            if server.is_over() {
                return Err(gst::FlowError::Eos);
            }
            self.gate.wait_for(pad, LOOK_FOR_SERVER)?;
        }
        let now = self.obj().current_running_time();
        let late = now.zip(running).and_then(|(now, at)| now.checked_sub(at));
        self.gate.met_server(late);
        Ok(())
    }

    fn is_live(&self, pad: &gst::Pad, input: &Input) -> bool {
        if let Some(live) = lock(&input.state).live {
            return live;
        }
        let mut latency = gst::query::Latency::new();
        let live = pad.peer_query(latency.query_mut()) && latency.result().0;
        lock(&input.state).live = Some(live);
        live
    }

    fn event(&self, pad: &gst::Pad, input: &Input, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                let connection = start
                    .stream_id()
                    .split_once('/')
                    .map(|(id, _)| id.to_owned());
                let publication = {
                    let mut state = lock(&input.state);
                    state.origin = connection;
                    state.live = None;
                    state.eos = false;
                    state.publication.clone()
                };
                // A pad that had its EOS is given a stream again.
                let opened = publication.map_or(Ok(()), |publication| publication.reopen());
                if let Err(error) = &opened {
                    gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("{error}"));
                }
                opened.is_ok()
            }
            gst::EventView::Caps(caps) => {
                if let Err(error) = check(input.media, caps.caps()) {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        ("{}: {error}", pad.name()),
                        ["{}", caps.caps()]
                    );
                    return false;
                }
                let publication = {
                    let mut state = lock(&input.state);
                    state.caps = Some(caps.caps_owned());
                    state.picture = match input.media {
                        Media::Video => picture(caps.caps()),
                        Media::Audio => None,
                    };
                    state.publication.clone()
                };
                let revived = publication.map_or(Ok(()), |publication| publication.revive());
                if let Err(error) = &revived {
                    gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("{error}"));
                }
                revived.is_ok()
            }
            gst::EventView::Segment(segment) => {
                let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() else {
                    gst::warning!(CAT, obj = pad, "a segment that is not in time is refused");
                    return false;
                };
                lock(&input.state).segment = segment.clone();
                true
            }
            gst::EventView::FlushStart(_) => {
                self.move_gate(|gate| gate.begin_flush(pad));
                if let Some(publication) = &lock(&input.state).publication {
                    publication.set_flushing(true);
                }
                true
            }
            gst::EventView::FlushStop(stop) => {
                self.move_gate(|gate| gate.end_flush(pad));
                let publication = {
                    let mut state = lock(&input.state);
                    state.eos = false;
                    state.segment = gst::FormattedSegment::new();
                    state.publication.clone()
                };
                if stop.resets_time() {
                    let obj = self.obj();
                    let now = obj.current_running_time().unwrap_or_default();
                    self.move_gate(|gate| gate.begin_anew(now));
                    let zero = gst::message::ResetTime::builder(gst::ClockTime::ZERO).src(&*obj);
                    let _ = obj.post_message(zero.build());
                }
                if let Some(publication) = publication {
                    publication.set_flushing(false);
                    // After an end something comes again.
                    return publication.reopen().is_ok();
                }
                true
            }
            gst::EventView::Gap(_) => {
                self.pads_are_known();
                true
            }
            gst::EventView::Eos(_) => {
                self.pads_are_known();
                self.finish(input, event.seqnum());
                true
            }
            _ => true,
        }
    }

    /// Sends what waits; the element's EOS comes after that of all its pads.
    fn finish(&self, input: &Input, seqnum: gst::Seqnum) {
        let publication = {
            let mut state = lock(&input.state);
            state.eos = true;
            state.publication.clone()
        };
        let limit = lock(&self.settings).drain_timeout();
        if let Some(publication) = publication {
            publication.finish(limit);
        }
        let over = self
            .inputs()
            .iter()
            .all(|(_, input)| lock(&input.state).eos);
        if over {
            self.finish_call();
            let obj = self.obj();
            let eos = gst::message::Eos::builder().src(&*obj).seqnum(seqnum);
            let _ = obj.post_message(eos.build());
        }
    }

    /// The session with a server ends when nothing comes back any more; whoever called waits for that.
    fn finish_call(&self) {
        let Some(server) = self.dialled() else {
            return;
        };
        server.inputs_are_over();
        while self.dialling.session().is_some()
            && !self.gate.is_stopped()
            && !server.wait_over(LOOK)
        {}
    }

    fn buffer_stats(&self) -> gst::Structure {
        let mut stats = gst::Structure::new_empty("rtc-buffer-stats");
        for publication in self.publications() {
            stats.set(publication.terms().pad.as_str(), publication.stats());
        }
        stats
    }

    /// Whether every pad had somebody of that id.
    fn clear(&self, id: &str) -> bool {
        let publications = self.publications();
        let cleared: Vec<bool> = publications.iter().map(|p| p.clear(id)).collect();
        !cleared.is_empty() && cleared.into_iter().all(|cleared| cleared)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RtcSessionSink {
    const NAME: &'static str = "GstRtcSessionSink";
    type Type = super::RtcSessionSink;
    type ParentType = gst::Element;
}

impl ObjectImpl for RtcSessionSink {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut properties = Settings::param_specs();
            properties.extend(Dialling::param_specs());
            properties.push(
                // GstRtcSessionSink:buffer-stats: Since: 0.1
                glib::ParamSpecBoxed::builder::<gst::Structure>("buffer-stats")
                    .nick("Buffer statistics")
                    .blurb("What waits to be sent and what became of the rest: a structure with a field for each pad, whose value has one for each connection-id, or \"all\"")
                    .read_only()
                    .build(),
            );
            properties
        });
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let action = |name: &str, act: fn(&RtcSessionSink, &str) -> bool| {
                glib::subclass::Signal::builder(name)
                    .param_types([String::static_type()])
                    .return_type::<bool>()
                    .action()
                    .class_handler(move |values| {
                        let element = values[0].get::<super::RtcSessionSink>().ok()?;
                        let id = values[1].get::<Option<String>>().ok()?;
                        Some(act(element.imp(), &id.unwrap_or_default()).to_value())
                    })
                    .build()
            };
            vec![
                // GstRtcSessionSink::clear-buffers: Drops what waits to be sent to the connection of that id, or to all with
                // an empty one; `true` if every pad had somebody to clear for. Since: 0.1
                action("clear-buffers", RtcSessionSink::clear),
                // GstRtcSessionSink::rtc-interrupt: The same for an answer that is interrupted: silence is heard at the next
                // period. Since: 0.1
                action("rtc-interrupt", RtcSessionSink::clear),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let session = lock(&self.settings).session.clone();
        if self.dialling.set(pspec.name(), value, &session) {
            return;
        }
        lock(&self.settings).set(pspec.name(), value);
        if pspec.name() == "session" {
            let session = lock(&self.settings).session.clone();
            self.dialling.announce(&session);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "buffer-stats" => self.buffer_stats().to_value(),
            name => {
                let dialling = self.dialling.get(name);
                dialling.unwrap_or_else(|| lock(&self.settings).get(name))
            }
        }
    }
}

impl GstObjectImpl for RtcSessionSink {}

impl ElementImpl for RtcSessionSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTC session sink",
                "Sink/Network/WebRTC",
                "Sends video and audio to the visitors of an rtcsessionsrc",
                "The rtcinference authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [Media::Video, Media::Audio]
                .into_iter()
                .map(|media| {
                    gst::PadTemplate::new(
                        &format!("{}_%u", media.as_str()),
                        gst::PadDirection::Sink,
                        gst::PadPresence::Request,
                        &accepted(media),
                    )
                    .expect("its caps are caps")
                })
                .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let kind = template.name_template().trim_end_matches("_%u");
        let media = Media::of_word(kind)?;
        let input = Arc::new(Input {
            media,
            is_late: self.obj().current_state() >= gst::State::Ready,
            state: Mutex::default(),
        });
        let name = {
            let mut inputs = lock(&self.inputs);
            let free = |name: &String| !inputs.contains_key(name);
            let name = match name {
                Some(name) => Some(name.to_owned()).filter(free),
                None => (0u32..).map(|n| format!("{kind}_{n}")).find(free),
            };
            let Some(name) = name else {
                gst::warning!(CAT, imp = self, "there is a pad of that name already");
                return None;
            };
            inputs.insert(name.clone(), input.clone());
            name
        };
        let pad = self.make_pad(template, &name, input.clone());
        if self.obj().current_state() >= gst::State::Ready {
            self.claim(&input);
        }
        if self.obj().current_state() >= gst::State::Paused
            && let Err(error) = self.publish(&name, &input)
        {
            gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("{error}"));
        }
        let _ = pad.set_active(true);
        self.obj().add_pad(&pad).ok()?;
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let name = pad.name().to_string();
        let input = lock(&self.inputs).remove(&name);
        let publication = input.and_then(|input| lock(&input.state).publication.take());
        // Whoever waits in the pad waits no longer.
        self.move_gate(|gate| gate.begin_flush(pad));
        if let Some(publication) = &publication {
            publication.set_flushing(true);
        }
        let _ = pad.set_active(false);
        self.move_gate(|gate| gate.end_flush(pad));
        if let Some(publication) = publication {
            publication.stop();
        }
        let _ = self.obj().remove_pad(pad);
    }

    /// Seeks and what else goes upstream.
    fn send_event(&self, event: gst::Event) -> bool {
        if !event.is_upstream() {
            return self.parent_send_event(event);
        }
        let pads = self.obj().sink_pads();
        let taken: Vec<bool> = pads.iter().map(|p| p.push_event(event.clone())).collect();
        taken.contains(&true)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                let session = lock(&self.settings).session.clone();
                if let Err(message) = self.dialling.check(&session) {
                    self.post_error_message(message);
                    return Err(gst::StateChangeError);
                }
                for (_, input) in self.inputs() {
                    self.claim(&input);
                }
                self.reserve();
            }
            gst::StateChange::ReadyToPaused => {
                self.reserve();
                if let Err(error) = self.start() {
                    gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("{error}"));
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::PlayingToPaused => self.move_gate(|gate| gate.set_playing(false)),
            gst::StateChange::PausedToReady => {
                self.move_gate(Gate::stop);
                for publication in self.publications() {
                    publication.set_flushing(true);
                }
            }
            _ => {}
        }
        let done = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToPlaying => {
                self.move_gate(|gate| gate.set_playing(true));
                if let Err(message) = self.dialling.start(self.obj().upcast_ref()) {
                    self.post_error_message(message);
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::PausedToReady => {
                self.dialling.stop(true);
                for publication in self.publications() {
                    publication.stop();
                }
                for (_, input) in self.inputs() {
                    let mut state = lock(&input.state);
                    let claim = state.claim.take();
                    *state = InputState::default();
                    state.claim = claim;
                }
                self.gate.reset();
            }
            gst::StateChange::ReadyToNull => {
                lock(&self.reserved).take();
                for (_, input) in self.inputs() {
                    lock(&input.state).claim = None;
                }
            }
            _ => {}
        }
        Ok(without_preroll(transition, done))
    }
}

impl RtcSessionSink {
    fn make_pad(&self, template: &gst::PadTemplate, name: &str, input: Arc<Input>) -> gst::Pad {
        let (for_buffers, for_events, media) = (input.clone(), input.clone(), input.media);
        gst::Pad::builder_from_template(template)
            .name(name)
            .chain_function(move |pad, parent, buffer| {
                RtcSessionSink::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(pad, &for_buffers, buffer),
                )
            })
            .event_function(move |pad, parent, event| {
                RtcSessionSink::catch_panic_pad_function(
                    parent,
                    || false,
                    |this| this.event(pad, &for_events, event),
                )
            })
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Caps(caps) => {
                    answer_caps(media, caps);
                    true
                }
                gst::QueryViewMut::Allocation(_) => false,
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build()
    }
}
