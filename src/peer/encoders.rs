//! Which element encodes which codec, and how it is made to do so at once.
//!
//! Of the encoders that are installed the one with the highest rank is taken that is in the table: without its settings an
//! encoder looks ahead, and a call cannot wait.

use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;

use super::codecs::{Codec, Media, set_if_possible};

/// An encoder that we know how to set.
struct Known {
    name: &'static str,
    codec: Codec,
    /// What is set where the element has it; versions and drivers differ.
    settings: &'static [(&'static str, &'static str)],
    /// The property that takes the bits a second, and how many of them are one there.
    bitrate: (&'static str, u32),
    /// Whether it believes in a fixed frame rate and must be told one.
    wants_rate: bool,
}

/// What the encoder of audio is told below.
const PIECE: Duration = Duration::from_millis(20);

/// Keyframes come when the peer asks for one, so none are made for nothing.
const KNOWN: [Known; 8] = [
    Known {
        name: "vp8enc",
        codec: Codec::Vp8,
        settings: &[
            ("deadline", "1"),
            // Positive numbers let the quality fall when the machine is busy.
            ("cpu-used", "-12"),
            ("threads", "1"),
            ("end-usage", "cbr"),
            ("keyframe-max-dist", "3000"),
            ("lag-in-frames", "0"),
            ("min-quantizer", "2"),
            ("max-quantizer", "56"),
            ("undershoot", "100"),
            ("overshoot", "15"),
            ("buffer-size", "1000"),
            ("buffer-initial-size", "500"),
            ("buffer-optimal-size", "600"),
            // Without it a keyframe bursts out that takes a second to send.
            ("max-intra-bitrate", "600"),
        ],
        bitrate: ("target-bitrate", 1),
        wants_rate: false,
    },
    Known {
        name: "openh264enc",
        codec: Codec::H264,
        settings: &[
            ("rate-control", "bitrate"),
            ("usage-type", "camera"),
            ("complexity", "low"),
            ("multi-thread", "1"),
            ("gop-size", "3000"),
            ("scene-change-detection", "false"),
        ],
        bitrate: ("bitrate", 1),
        wants_rate: true,
    },
    Known {
        name: "x264enc",
        codec: Codec::H264,
        settings: &[
            ("tune", "zerolatency"),
            ("speed-preset", "ultrafast"),
            ("key-int-max", "3000"),
            ("threads", "1"),
            ("byte-stream", "true"),
        ],
        bitrate: ("bitrate", 1000),
        wants_rate: true,
    },
    Known {
        name: "nvh264enc",
        codec: Codec::H264,
        settings: &[
            ("preset", "low-latency-hq"),
            ("zerolatency", "true"),
            ("rc-mode", "cbr"),
            ("gop-size", "3000"),
            ("bframes", "0"),
        ],
        bitrate: ("bitrate", 1000),
        wants_rate: true,
    },
    VA_H264,
    Known {
        name: "vah264lpenc",
        ..VA_H264
    },
    Known {
        name: "vaapih264enc",
        codec: Codec::H264,
        settings: &[
            ("rate-control", "cbr"),
            ("keyframe-period", "3000"),
            ("max-bframes", "0"),
        ],
        bitrate: ("bitrate", 1000),
        wants_rate: true,
    },
    Known {
        name: "opusenc",
        codec: Codec::Opus,
        settings: &[("inband-fec", "true"), ("frame-size", "20")],
        bitrate: ("bitrate", 1),
        wants_rate: false,
    },
];

const VA_H264: Known = Known {
    name: "vah264enc",
    codec: Codec::H264,
    settings: &[
        ("rate-control", "cbr"),
        ("key-int-max", "1024"),
        ("b-frames", "0"),
        ("target-usage", "7"),
    ],
    bitrate: ("bitrate", 1000),
    wants_rate: true,
};

/// What an audio stream is encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTerms {
    /// Two channels whatever comes in, else one.
    pub stereo: bool,
    /// Nothing is sent while nothing is to be heard.
    pub dtx: bool,
}

/// Elements that make encoded frames out of raw ones, in order.
pub struct EncoderElements {
    pub elements: Vec<gst::Element>,
    control: gst::Element,
    known: &'static Known,
}

#[derive(Debug, thiserror::Error)]
#[error("no encoder for {} is installed that is known here", .0.as_str())]
pub struct MissingEncoder(Codec);

impl EncoderElements {
    pub fn new(codec: Codec, bits: u32, audio: AudioTerms) -> Result<Self, MissingEncoder> {
        let missing = || MissingEncoder(codec);
        let make = |name: &str| gst::ElementFactory::make(name).build().ok();
        let (control, known) = best(codec).ok_or_else(missing)?;
        for (name, value) in known.settings {
            set_if_possible(&control, name, value);
        }
        let mut elements = Vec::new();
        let filter = |caps: gst::Caps| {
            let filter = make("capsfilter")?;
            filter.set_property("caps", caps);
            Some(filter)
        };
        match codec.media() {
            Media::Video => {
                elements.push(make("videoconvert").ok_or_else(missing)?);
                elements.push(control.clone());
                if codec == Codec::H264 {
                    let baseline = gst::Caps::builder("video/x-h264")
                        .field("profile", "constrained-baseline")
                        .build();
                    let parser = make("h264parse").ok_or_else(missing)?;
                    // A receiver that comes later has not seen the parameter sets.
                    parser.set_property("config-interval", -1);
                    elements.push(filter(baseline).ok_or_else(missing)?);
                    elements.push(parser);
                    elements.push(filter(codec.caps()).ok_or_else(missing)?);
                }
            }
            Media::Audio => {
                let raw = gst::Caps::builder("audio/x-raw")
                    .field("rate", 48_000)
                    .field("channels", if audio.stereo { 2 } else { 1 })
                    .build();
                elements.push(make("audioconvert").ok_or_else(missing)?);
                elements.push(make("audioresample").ok_or_else(missing)?);
                elements.push(filter(raw).ok_or_else(missing)?);
                set_if_possible(&control, "dtx", if audio.dtx { "true" } else { "false" });
                elements.push(control.clone());
            }
        }
        let encoder = Self {
            elements,
            control,
            known,
        };
        encoder.set_bitrate(bits);
        Ok(encoder)
    }

    /// How long each piece of audio is.
    pub fn piece(&self) -> Option<Duration> {
        self.known.codec.is_audio().then_some(PIECE)
    }

    /// Whether a frame rate is to be put in the caps where there is none.
    pub fn wants_rate(&self) -> bool {
        self.known.wants_rate
    }

    /// Bits a second from the next frame on.
    pub fn set_bitrate(&self, bits: u32) {
        let (property, unit) = self.known.bitrate;
        set_if_possible(&self.control, property, &(bits / unit).max(1).to_string());
    }
}

/// Whether that codec can be encoded here. Looking for an encoder opens it, so it is done once.
pub fn can_encode(codec: Codec) -> bool {
    static ENCODED: LazyLock<Vec<Codec>> = LazyLock::new(|| {
        let all = [Codec::Vp8, Codec::H264, Codec::Opus];
        let found = all.into_iter().filter(|codec| best(*codec).is_some());
        found.collect()
    });
    ENCODED.contains(&codec)
}

/// The known encoder with the highest rank that opens.
fn best(codec: Codec) -> Option<(gst::Element, &'static Known)> {
    let mut known: Vec<_> = KNOWN
        .iter()
        .filter(|known| known.codec == codec)
        .filter_map(|known| Some((gst::ElementFactory::find(known.name)?, known)))
        .collect();
    known.sort_by_key(|(factory, _)| std::cmp::Reverse(factory.rank()));
    known.into_iter().find_map(|(factory, known)| {
        let element = factory.create().build().ok()?;
        // A driver may be installed whose hardware is not there.
        let opens = element.set_state(gst::State::Ready).is_ok();
        let _ = element.set_state(gst::State::Null);
        opens.then_some((element, known))
    })
}
