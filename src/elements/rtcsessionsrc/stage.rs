//! The element as its connections see it: messages, time, pads and their names.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;

use super::kept_pads::KeptPads;
use super::{RtcSessionSrc, actions};
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::Returns;
use crate::peer::chain::Chain;
use crate::peer::codecs::Media;
use crate::peer::directory;
use crate::peer::stage::Stage;

pub struct ElementStage {
    element: glib::WeakRef<RtcSessionSrc>,
    /// The name by which others find it.
    session: String,
    video_chain: Option<Chain>,
    audio_chain: Option<Chain>,
    latency: gst::ClockTime,
    playing: AtomicBool,
    /// Whether the pipeline goes on when visitors leave.
    outlives_visitors: bool,
    /// Everyone is being ended, and the element says when that is done.
    finishing: AtomicBool,
    /// Visitors whose media somebody takes: the pipeline ends with the last of them.
    guests: Mutex<HashSet<ConnectionId>>,
    /// Pad names in use.
    names: Mutex<BTreeSet<String>>,
    /// Where sessions with a server follow each other, the user's pads, which stay.
    kept: Option<KeptPads>,
}

impl ElementStage {
    pub fn new(
        element: &RtcSessionSrc,
        session: String,
        video_chain: Option<Chain>,
        audio_chain: Option<Chain>,
        latency: gst::ClockTime,
        outlives_visitors: bool,
        keeps_pads: bool,
    ) -> Self {
        Self {
            element: element.downgrade(),
            session,
            video_chain,
            audio_chain,
            latency,
            playing: AtomicBool::new(false),
            outlives_visitors,
            finishing: AtomicBool::new(false),
            guests: Mutex::default(),
            names: Mutex::default(),
            kept: keeps_pads.then(KeptPads::default),
        }
    }

    /// Sessions follow each other from here on.
    pub fn begin_pads(&self) {
        if let Some(kept) = &self.kept {
            kept.begin();
        }
    }

    /// Nothing more comes, of no session: pads that were kept get EOS and go. May wait for what is behind them.
    pub fn end_pads(&self) {
        if let Some((kept, element)) = self.kept.as_ref().zip(self.element.upgrade()) {
            kept.end(&element);
        }
    }

    pub fn set_playing(&self, playing: bool) {
        self.playing.store(playing, Ordering::Relaxed);
    }

    /// From here on the end of a visit is not the end of the pipeline.
    pub fn set_finishing(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    fn guests(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, pad: &gst::Pad) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(pad.name().as_str());
    }
}

impl Stage for ElementStage {
    fn post(&self, message: gst::Structure) {
        if let Some(element) = self.element.upgrade() {
            gst::info!(super::imp::CAT, obj = element, "{message}");
            let message = gst::message::Element::builder(message)
                .src(&element)
                .build();
            // Without a bus nobody listens.
            let _ = element.post_message(message);
        }
    }

    fn repost(&self, message: gst::Message) {
        if let Some(element) = self.element.upgrade() {
            let _ = element.post_message(message);
        }
    }

    fn warn(&self, text: &str) {
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, gst::ResourceError::OpenReadWrite, ("{text}"));
        }
    }

    fn authorize(&self, visitor: gst::Structure) -> bool {
        self.element
            .upgrade()
            .is_some_and(|element| actions::authorize(&element, &visitor))
    }

    fn ice_servers(&self, visitor: gst::Structure) -> Option<String> {
        actions::ice_servers(&self.element.upgrade()?, &visitor)
    }

    fn running_time(&self) -> Option<gst::ClockTime> {
        if !self.playing.load(Ordering::Relaxed) {
            return None;
        }
        self.element.upgrade()?.current_running_time()
    }

    fn clock(&self) -> Option<(gst::Clock, gst::ClockTime)> {
        let element = self.element.upgrade()?;
        element.clock().zip(element.base_time())
    }

    fn latency(&self) -> gst::ClockTime {
        self.latency
    }

    fn chain(&self, media: Media) -> Option<Chain> {
        match media {
            Media::Video => self.video_chain.clone(),
            Media::Audio => self.audio_chain.clone(),
        }
    }

    fn returns(&self) -> Returns {
        let of = |media| self.chain(media).and_then(|chain| chain.returns(media));
        Returns {
            of_video: of(Media::Video),
            of_audio: of(Media::Audio),
            video: directory::published(&self.session, Media::Video),
            audio: directory::published(&self.session, Media::Audio),
        }
    }

    fn pad_builder(&self, media: Media) -> gst::PadBuilder<gst::Pad> {
        let kind = media.as_str();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (0u32..)
            .map(|number| format!("{kind}_{number}"))
            .find(|name| !names.contains(name))
            .expect("there are fewer pads than numbers");
        names.insert(name.clone());
        if self.kept.is_some() {
            return gst::Pad::builder(gst::PadDirection::Src).name(name);
        }
        let template = RtcSessionSrc::pad_template(media);
        gst::Pad::builder_from_template(&template).name(name)
    }

    fn add_pad(&self, pad: &gst::Pad) -> glib::GString {
        match (self.element.upgrade(), &self.kept) {
            (Some(element), Some(kept)) => kept.put_behind(pad, &element),
            (Some(element), None) => element
                .add_pad(pad)
                .expect("its name is taken by nobody else"),
            (None, _) => {}
        }
        pad.name()
    }

    fn remove_pad(&self, pad: &gst::Pad) {
        if let Some(kept) = &self.kept {
            kept.take_from_behind(pad);
        } else if let Some(element) = self.element.upgrade() {
            // The application may have removed it already.
            let _ = element.remove_pad(pad);
        }
        self.free(pad);
    }

    fn visitor_stays(&self, connection: &ConnectionId) {
        self.guests().insert(connection.clone());
    }

    fn session(&self) -> &str {
        &self.session
    }

    fn visitor_left(&self, connection: &ConnectionId) {
        let last = {
            let mut guests = self.guests();
            guests.remove(connection) && guests.is_empty()
        };
        if last
            && !self.outlives_visitors
            && !self.finishing.load(Ordering::Relaxed)
            && let Some(element) = self.element.upgrade()
        {
            let _ = element.post_message(gst::message::Eos::builder().src(&element).build());
        }
    }

    fn forget_pad(&self, pad: &gst::Pad) {
        self.free(pad);
    }
}
