//! The description of a processing bin, made anew for each stream of each connection.

use std::str::FromStr;
use std::sync::Arc;

use gst::prelude::*;

use super::codecs::Media;

/// What is wrong with a chain's description.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("{0}")]
    Parse(#[from] gst::glib::Error),
    #[error(
        "the chain {0:?} has {1} unlinked sink pads; exactly one is needed, for the frames to enter"
    )]
    SinkPads(String, usize),
    #[error(
        "the chain {0:?} has {1} unlinked src pads; at most one is right, for what is sent back"
    )]
    SrcPads(String, usize),
    #[error("what leaves the chain {0:?} is {1}, neither video nor audio: it cannot be sent back")]
    Kind(String, String),
}

/// What leaves a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Nothing,
    /// The kind that entered.
    Same,
    Kind(Media),
}

/// A description that is known to parse.
#[derive(Debug, Clone)]
pub struct Chain {
    description: Arc<str>,
    /// What it takes, if that is nothing but encoded frames.
    encoded: Option<gst::Caps>,
    output: Output,
}

impl FromStr for Chain {
    type Err = ChainError;

    fn from_str(description: &str) -> Result<Self, ChainError> {
        let bin = make(description)?;
        let output = match bin.static_pad("src") {
            Some(pad) => output(description, &pad)?,
            None => Output::Nothing,
        };
        let taken = bin.static_pad("sink").map(|pad| pad.query_caps(None));
        Ok(Self {
            description: description.into(),
            encoded: taken.filter(|caps| !caps.is_any() && !caps.iter().any(is_raw)),
            output,
        })
    }
}

impl Chain {
    /// A new bin with the ghost pads `sink` and, where something is sent back, `src`.
    pub fn make(&self) -> Result<gst::Bin, ChainError> {
        make(&self.description)
    }

    /// The caps it takes, if frames enter it as they come from the network, undecoded.
    pub fn encoded(&self) -> Option<&gst::Caps> {
        self.encoded.as_ref()
    }

    /// What is sent back of a stream of that kind.
    pub fn returns(&self, input: Media) -> Option<Media> {
        match self.output {
            Output::Nothing => None,
            Output::Same => Some(input),
            Output::Kind(media) => Some(media),
        }
    }
}

fn is_raw(structure: &gst::StructureRef) -> bool {
    structure.name().ends_with("/x-raw")
}

/// The kind of what leaves that pad, by what it could be.
fn output(description: &str, pad: &gst::Pad) -> Result<Output, ChainError> {
    let caps = pad.query_caps(None);
    let kind = |kind: &str| {
        let prefix = format!("{kind}/");
        caps.iter().any(|s| s.name().starts_with(&prefix))
    };
    match (kind("video"), kind("audio")) {
        _ if caps.is_any() => Ok(Output::Same),
        (true, true) => Ok(Output::Same),
        (true, false) => Ok(Output::Kind(Media::Video)),
        (false, true) => Ok(Output::Kind(Media::Audio)),
        (false, false) => Err(ChainError::Kind(description.into(), caps.to_string())),
    }
}

fn make(description: &str) -> Result<gst::Bin, ChainError> {
    let bin = gst::parse::bin_from_description_full(
        description,
        false,
        None,
        gst::ParseFlags::FATAL_ERRORS,
    )?;
    let bin = bin
        .downcast::<gst::Bin>()
        .expect("a bin was asked for, and no flag says otherwise");
    let unlinked = |direction| -> Vec<gst::Pad> {
        let pads = bin.children().into_iter().flat_map(|child| child.pads());
        pads.filter(|pad| !pad.is_linked() && pad.direction() == direction)
            .collect()
    };
    let sinks = unlinked(gst::PadDirection::Sink);
    let srcs = unlinked(gst::PadDirection::Src);
    let [sink] = sinks.as_slice() else {
        return Err(ChainError::SinkPads(description.into(), sinks.len()));
    };
    if srcs.len() > 1 {
        return Err(ChainError::SrcPads(description.into(), srcs.len()));
    }
    for (name, pad) in std::iter::once(("sink", sink)).chain(srcs.iter().map(|pad| ("src", pad))) {
        let ghost = gst::GhostPad::builder_with_target(pad)
            .expect("the pad is not linked")
            .name(name)
            .build();
        bin.add_pad(&ghost).expect("no other pad has that name");
    }
    Ok(bin)
}
