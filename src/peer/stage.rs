//! What a session needs of the element that owns it.

use std::sync::Arc;

use super::chain::Chain;
use super::codecs::Media;
use super::connection::Connection;
use super::directory;
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::Returns;

/// The element, as its connections see it. Called from any thread, never under a lock of the caller.
pub trait Stage: Send + Sync {
    /// Posts an element message.
    fn post(&self, message: gst::Structure);
    /// Posts a message of an inner element as it is.
    fn repost(&self, message: gst::Message);
    /// Posts a warning: something outside is not as it was set, and we go on.
    fn warn(&self, text: &str);
    /// Whether the application lets that visitor in; may take its time.
    fn authorize(&self, visitor: gst::Structure) -> bool;
    /// ICE servers for that visitor, as JSON; may take its time.
    fn ice_servers(&self, visitor: gst::Structure) -> Option<String>;
    /// Running time now; `None` while the element does not play, when frames are dropped.
    fn running_time(&self) -> Option<gst::ClockTime>;
    /// The clock and base time that inner pipelines run on.
    fn clock(&self) -> Option<(gst::Clock, gst::ClockTime)>;
    /// What the LATENCY query says: how long a gap is waited for.
    fn latency(&self) -> gst::ClockTime;
    /// The chain for that kind of stream; without one its streams get pads.
    fn chain(&self, media: Media) -> Option<Chain>;
    /// What is sent to each visitor.
    fn returns(&self) -> Returns;
    /// A pad of that kind, with the lowest free name, which is taken until the pad is removed or forgotten.
    fn pad_builder(&self, media: Media) -> gst::PadBuilder<gst::Pad>;
    /// Gives the pad to the user; returns what it is called there.
    fn add_pad(&self, pad: &gst::Pad) -> gst::glib::GString;
    fn remove_pad(&self, pad: &gst::Pad);
    /// A chain or something linked takes media of that connection; said any number of times.
    fn visitor_stays(&self, connection: &ConnectionId);
    /// A connection has said its last word.
    fn visitor_left(&self, connection: &ConnectionId);
    /// Frees the name of a pad that was never added.
    fn forget_pad(&self, pad: &gst::Pad);
    /// The name by which those who send to the session find it.
    fn session(&self) -> &str;

    /// A connection stands.
    fn visitor_joined(&self, connection: &Arc<Connection>) {
        directory::tell(self.session(), |publisher| publisher.joined(connection));
    }

    /// What waits to be sent to that connection is of no more use.
    fn interrupt(&self, connection: &ConnectionId) {
        directory::tell(self.session(), |publisher| publisher.interrupt(connection));
    }

    /// A server that was called says something of the frame of those seconds, of its own clock.
    fn server_said(&self, seconds: Option<f64>, failed: bool) {
        directory::tell(self.session(), |publisher| publisher.said(seconds, failed));
    }

    /// It is over; its last word follows.
    fn visitor_leaves(&self, connection: &ConnectionId) {
        directory::tell(self.session(), |publisher| publisher.left(connection));
    }
}
