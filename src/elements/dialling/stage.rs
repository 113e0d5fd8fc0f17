//! An element that only sends, as its session with a server sees it.

use gst::glib;
use gst::prelude::*;

use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::Returns;
use crate::peer::chain::Chain;
use crate::peer::codecs::Media;
use crate::peer::stage::Stage;

pub struct SenderStage {
    element: glib::WeakRef<gst::Element>,
    /// By which publishers find the session.
    session: String,
}

impl SenderStage {
    pub fn new(element: &gst::Element, session: &str) -> Self {
        Self {
            element: element.downgrade(),
            session: session.to_owned(),
        }
    }
}

impl Stage for SenderStage {
    fn post(&self, message: gst::Structure) {
        if let Some(element) = self.element.upgrade() {
            let message = gst::message::Element::builder(message).src(&element);
            // Without a bus nobody listens.
            let _ = element.post_message(message.build());
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

    fn authorize(&self, _visitor: gst::Structure) -> bool {
        true
    }

    fn ice_servers(&self, _visitor: gst::Structure) -> Option<String> {
        None
    }

    fn running_time(&self) -> Option<gst::ClockTime> {
        self.element.upgrade()?.current_running_time()
    }

    fn clock(&self) -> Option<(gst::Clock, gst::ClockTime)> {
        let element = self.element.upgrade()?;
        element.clock().zip(element.base_time())
    }

    fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::ZERO
    }

    fn chain(&self, _media: Media) -> Option<Chain> {
        None
    }

    fn returns(&self) -> Returns {
        Returns::default()
    }

    // Nothing is asked for, so nothing comes; what comes all the same ends in a pad that is linked to nothing.
    fn pad_builder(&self, _media: Media) -> gst::PadBuilder<gst::Pad> {
        gst::Pad::builder(gst::PadDirection::Src)
    }

    fn add_pad(&self, pad: &gst::Pad) -> glib::GString {
        pad.name()
    }

    fn remove_pad(&self, _pad: &gst::Pad) {}

    fn forget_pad(&self, _pad: &gst::Pad) {}

    fn visitor_stays(&self, _connection: &ConnectionId) {}

    fn session(&self) -> &str {
        &self.session
    }

    fn visitor_left(&self, _connection: &ConnectionId) {}
}
