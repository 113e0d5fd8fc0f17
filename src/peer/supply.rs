//! Where the frames of a branch come from: the network, or a file that the visitor sent.

use std::sync::Arc;

use gst::prelude::*;
use tempfile::NamedTempFile;

use super::branch::BranchError;
use super::codecs::Media;
use super::inlet::Inlet;
use crate::logic::registry::ConnectionId;

/// The mid of a file's stream, which no m-line may have.
pub const FILE_MID: &str = "file";

pub enum Supply {
    Network(Arc<Inlet>),
    File(Reel),
}

/// A stream's names.
#[derive(Debug, Clone)]
pub struct StreamName {
    pub connection: ConnectionId,
    pub mid: String,
    pub id: String,
    pub media: Media,
    pub codec: &'static str,
}

/// A video file.
pub struct Reel {
    pub connection: ConnectionId,
    pub file: NamedTempFile,
    /// Whether it is played as fast as it was made to be, or as fast as it is taken.
    pub realtime: bool,
}

impl Supply {
    pub fn name(&self) -> StreamName {
        match self {
            Self::Network(inlet) => StreamName {
                connection: inlet.connection.clone(),
                mid: inlet.mid.clone(),
                id: inlet.stream_id.clone(),
                media: inlet.codec.media(),
                codec: inlet.codec.as_str(),
            },
            Self::File(reel) => StreamName {
                connection: reel.connection.clone(),
                mid: FILE_MID.into(),
                id: format!("{}/{FILE_MID}", reel.connection),
                media: Media::Video,
                codec: "file",
            },
        }
    }

    /// What turns it into frames for the tail, in order. Of an inlet that is nothing where frames pass `undecoded`.
    pub fn elements(&self, undecoded: bool) -> Result<Vec<gst::Element>, BranchError> {
        match self {
            Self::Network(_) if undecoded => Ok(Vec::new()),
            Self::Network(inlet) => Ok(inlet.codec.decoder()?),
            Self::File(reel) => reel.elements(),
        }
    }

    /// Links what was added to the pipeline, up to the tail.
    pub fn link(&self, elements: &[gst::Element], tail: &gst::Pad) -> Result<(), BranchError> {
        match (self, elements) {
            (Self::Network(inlet), [first, .., last]) => {
                gst::Element::link_many(elements)?;
                link(inlet.pump.pad(), &static_pad(first, "sink"))?;
                link(&static_pad(last, "src"), tail)?;
            }
            (Self::Network(inlet), [only]) => {
                link(inlet.pump.pad(), &static_pad(only, "sink"))?;
                link(&static_pad(only, "src"), tail)?;
            }
            (Self::Network(inlet), []) => link(inlet.pump.pad(), tail)?,
            (Self::File(_), [source, decoder, upright, rest @ ..]) => {
                source.link(decoder)?;
                link_when_there(decoder, upright);
                let last = match rest {
                    [pace] => {
                        upright.link(pace)?;
                        pace
                    }
                    _ => upright,
                };
                link(&static_pad(last, "src"), tail)?;
            }
            (Self::File(_), _) => unreachable!("a file has these elements"),
        }
        Ok(())
    }

    /// Frames come from here on.
    pub fn start(&self) -> Result<(), BranchError> {
        if let Self::Network(inlet) = self {
            let begin = gst::event::StreamStart::new(&inlet.stream_id);
            inlet.pump.open(begin, &inlet.caps);
            inlet.pump.start()?;
        }
        Ok(())
    }

    /// Frames are dropped from now on.
    pub fn close(&self) {
        if let Self::Network(inlet) = self {
            inlet.close();
        }
    }

    /// Nothing comes from it any more; waits for a push under way.
    pub fn stop(&self) {
        if let Self::Network(inlet) = self {
            inlet.pump.stop();
        }
    }
}

impl Reel {
    fn elements(&self) -> Result<Vec<gst::Element>, BranchError> {
        let source = gst::ElementFactory::make("filesrc")
            .property("location", self.file.path())
            .build()?;
        let decoder = gst::ElementFactory::make("decodebin").build()?;
        let upright = gst::ElementFactory::make("videoflip")
            .property_from_str("video-direction", "auto")
            .build()?;
        let mut elements = vec![source, decoder, upright];
        if self.realtime {
            elements.push(gst::ElementFactory::make("clocksync").build()?);
        }
        Ok(elements)
    }
}

fn static_pad(element: &gst::Element, name: &str) -> gst::Pad {
    element.static_pad(name).expect("it is a filter")
}

/// The first stream of video that a decoder finds goes on.
fn link_when_there(decoder: &gst::Element, next: &gst::Element) {
    let next = next.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let video = caps.iter().any(|s| s.name() == "video/x-raw");
        if let Some(sink) = next.upgrade().map(|next| static_pad(&next, "sink"))
            && video
            && !sink.is_linked()
        {
            // What does not link is said by the decoder, which has nowhere to go.
            let _ = pad.link(&sink);
        }
    });
}

fn link(src: &gst::Pad, sink: &gst::Pad) -> Result<(), BranchError> {
    // Our pads have no parent, so there is no hierarchy to check.
    src.link_full(sink, gst::PadLinkCheck::empty())
        .map(|_| ())
        .map_err(|error| gst::glib::bool_error!("pads do not link: {error}").into())
}
