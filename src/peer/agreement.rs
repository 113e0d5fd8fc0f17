//! Who comes, and what a door has agreed on with them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use super::chain::Chain;
use super::codecs::Media;
use super::stage::Stage;
use super::supply::Server;
use crate::logic::return_lines::Returns;
use crate::logic::wire::dialect::{Dialect, Plain};

/// Who came, by which door.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub door: &'static str,
    pub external_id: Option<String>,
    pub remote: SocketAddr,
    /// The client's own data, as JSON; empty where there was none.
    pub data: String,
    /// What stood in the request's `Authorization`; for the application's eyes only.
    pub authorization: Option<String>,
}

/// What a door has agreed on with a visitor; the default is what holds for all.
pub struct Agreement {
    pub dialect: Mutex<Box<dyn Dialect>>,
    /// Instead of the session's.
    pub video_chain: Option<Chain>,
    /// What its chains are told before their first frame.
    pub args: Option<gst::Structure>,
    /// How long the visit may last, if that is shorter than what holds for all.
    pub time_limit: Option<Duration>,
    /// Whether its video is sent back, where there is something to send.
    pub sends_back: bool,
    /// Whether frames wait for the chain instead of making room for newer ones.
    pub lossless: bool,
    /// Whether what leaves the video chain is told as pictures, beside the results.
    pub pictures: bool,
    pub source: VideoSource,
    /// Whether an offer is refused when one of its lines cannot be served.
    pub whole_offer: bool,
    /// With a server that we have called.
    pub called: Option<Called>,
    /// A file that it is sent.
    pub upload: Option<PathBuf>,
}

/// What holds for a session with a server that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Frames that come back and may wait for whoever takes them.
    pub max_buffers: u32,
    /// Whether frames that come back are to be given what the server says of them.
    pub pairs: bool,
    /// Whether the server goes on when it is told that a frame was delivered.
    pub acknowledges: bool,
}

/// Where a visitor's video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoSource {
    /// The lines of its offer.
    Offer,
    /// A file, of at most so many bytes, that it sends on a data channel.
    Upload(u64),
    /// A server.
    Pull(Server),
}

impl Default for Agreement {
    fn default() -> Self {
        Self {
            dialect: Mutex::new(Box::new(Plain)),
            video_chain: None,
            args: None,
            time_limit: None,
            sends_back: true,
            lossless: false,
            pictures: false,
            source: VideoSource::Offer,
            whole_offer: false,
            called: None,
            upload: None,
        }
    }
}

impl Agreement {
    /// The chain for that kind of stream.
    pub fn chain(&self, stage: &dyn Stage, media: Media) -> Option<Chain> {
        let own = self.video_chain.clone().filter(|_| media == Media::Video);
        own.or_else(|| stage.chain(media))
    }

    /// What is sent to the visitor.
    pub fn returns(&self, stage: &dyn Stage) -> Returns {
        let mut returns = stage.returns();
        if let Some(chain) = &self.video_chain {
            returns.of_video = chain.returns(Media::Video);
        }
        if !self.sends_back {
            returns.of_video = None;
        }
        // What does not come on a line has none of its own.
        if self.source != VideoSource::Offer && returns.of_video == Some(Media::Video) {
            returns.video = returns.video.max(1);
        }
        returns
    }
}
