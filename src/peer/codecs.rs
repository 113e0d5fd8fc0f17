//! Which codec is which caps, and which element decodes it.

use std::str::FromStr;

use gst::glib;
use gst::prelude::*;

pub use crate::logic::media::Media;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Vp8,
    H264,
    Opus,
    /// On data channels, never on a line.
    Jpeg,
}

impl Codec {
    pub const VIDEO: [Codec; 2] = [Codec::Vp8, Codec::H264];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Opus => "opus",
            Self::Jpeg => "jpeg",
        }
    }

    /// As session descriptions and RTP caps have it.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H264",
            Self::Opus => "OPUS",
            Self::Jpeg => "JPEG",
        }
    }

    pub fn media(self) -> Media {
        match self {
            Self::Vp8 | Self::H264 | Self::Jpeg => Media::Video,
            Self::Opus => Media::Audio,
        }
    }

    pub fn is_audio(self) -> bool {
        self.media() == Media::Audio
    }

    /// Ticks a second of its RTP clock.
    pub fn clock_rate(self) -> u32 {
        match self.media() {
            Media::Video => 90_000,
            Media::Audio => 48_000,
        }
    }

    /// Caps of the frames that come from the network.
    pub fn caps(self) -> gst::Caps {
        match self {
            Self::Vp8 => gst::Caps::builder("video/x-vp8").build(),
            Self::H264 => gst::Caps::builder("video/x-h264")
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build(),
            Self::Jpeg => gst::Caps::builder("image/jpeg").build(),
            Self::Opus => gst::Caps::builder("audio/x-opus")
                .field("rate", 48_000)
                .field("channels", 2)
                .field("channel-mapping-family", 0)
                .build(),
        }
    }

    /// The elements that turn its frames into raw media in system memory, in order.
    pub fn decoder(self) -> Result<Vec<gst::Element>, MissingDecoder> {
        let missing = || MissingDecoder(self);
        let mut chain = Vec::new();
        if self == Self::H264 {
            let parser = gst::ElementFactory::make("h264parse").build();
            chain.push(parser.map_err(|_| missing())?);
        }
        let factories = gst::ElementFactory::factories_with_type(
            gst::ElementFactoryType::DECODER,
            gst::Rank::MARGINAL,
        );
        let raw = gst::Caps::builder(match self.media() {
            Media::Video => "video/x-raw",
            Media::Audio => "audio/x-raw",
        })
        .build();
        // Some decode only pictures that carry an alpha plane beside them, and say so in their caps.
        let mut plain = self.caps();
        plain.make_mut().set("codec-alpha", false);
        let mut usable: Vec<_> = factories
            .into_iter()
            .filter(|f| f.can_sink_any_caps(&plain) && f.can_src_any_caps(&raw))
            .collect();
        usable.sort_by_key(|f| std::cmp::Reverse(f.rank()));
        let decoder = usable
            .iter()
            .find_map(|f| f.create().build().ok())
            .ok_or_else(missing)?;
        // One thread decodes one stream, and nothing but whole pictures leaves it.
        set_if_possible(&decoder, "threads", "1");
        set_if_possible(&decoder, "max-threads", "1");
        set_if_possible(&decoder, "output-corrupt", "false");
        set_if_possible(&decoder, "automatic-request-sync-points", "true");
        set_if_possible(&decoder, "discard-corrupted-frames", "true");
        chain.push(decoder);
        Ok(chain)
    }
}

/// Coders differ in what they offer; versions and drivers too.
pub fn set_if_possible(element: &gst::Element, name: &str, value: &str) {
    let Some(spec) = element.find_property(name) else {
        return;
    };
    let mut parsed = match glib::Value::deserialize_with_pspec(value, &spec) {
        Ok(parsed) => parsed,
        Err(_) => return gst::debug!(super::CAT, obj = element, "has no {name}={value}"),
    };
    // What is out of bounds becomes the bound.
    if let (Some(spec), Ok(number)) = (spec.downcast_ref::<glib::ParamSpecInt>(), parsed.get()) {
        let number: i32 = number;
        parsed = number.clamp(spec.minimum(), spec.maximum()).to_value();
    }
    element.set_property_from_value(name, &parsed);
}

#[derive(Debug, thiserror::Error)]
#[error("no decoder for {} is installed", .0.as_str())]
pub struct MissingDecoder(Codec);

/// The value of `video-codecs` that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no video codec; known ones are vp8 and h264, separated by commas")]
pub struct UnknownCodec(String);

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        Self::VIDEO
            .into_iter()
            .find(|codec| codec.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}
