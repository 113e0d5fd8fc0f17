//! One request pad, and what it takes.

use std::sync::{Arc, Mutex};

use crate::logic::continuity::formats::{self, PixelFormat};
use crate::logic::media::Media;
use crate::peer::directory::Claim;
use crate::peer::publication::Publication;

/// More pixels no encoder takes.
const MAX_PIXELS: u64 = 16_383 * 16_383;
/// Most pixels to a side that encoders take.
const MAX_SIDE: u32 = 16_383;

pub struct Input {
    pub media: Media,
    /// Its pad was asked for when the element had started, as a demuxer's are when it has found its streams.
    pub is_late: bool,
    pub state: Mutex<InputState>,
}

#[derive(Default)]
pub struct InputState {
    /// Its number among the session's streams, from READY on: lines are kept for it in answers.
    pub claim: Option<Claim>,
    /// From PAUSED on.
    pub publication: Option<Arc<Publication>>,
    pub segment: gst::FormattedSegment<gst::ClockTime>,
    pub caps: Option<gst::Caps>,
    /// What a raw picture must hold at least, where its format is one that is taken as it is.
    pub picture: Option<(PixelFormat, u32, u32)>,
    /// The connection in the stream-id, if there is one.
    pub origin: Option<String>,
    /// Whether what is upstream is live; asked at the first buffer.
    pub live: Option<bool>,
    pub eos: bool,
}

/// What a picture of those caps must hold.
pub fn picture(caps: &gst::CapsRef) -> Option<(PixelFormat, u32, u32)> {
    let info = gst_video::VideoInfo::from_caps(caps).ok()?;
    let format = PixelFormat::named(info.format().to_str())?;
    Some((format, info.width(), info.height()))
}

/// What can be sent of that kind, or why it cannot.
pub fn check(media: Media, caps: &gst::CapsRef) -> Result<(), String> {
    let Some(structure) = caps.structure(0) else {
        return Err("caps without a structure".into());
    };
    let int = |name: &str| {
        structure
            .get::<i32>(name)
            .ok()
            .and_then(|n| u32::try_from(n).ok())
    };
    let format = structure.get::<&str>("format").unwrap_or_default();
    let fits = match (media, structure.name().as_str()) {
        (Media::Video, "video/x-raw") => {
            let size = (int("width").unwrap_or(0), int("height").unwrap_or(0));
            if size.0.max(size.1) > MAX_SIDE {
                return Err(format!(
                    "a picture of {}x{}; at most {MAX_SIDE} pixels to a side are right",
                    size.0, size.1
                ));
            }
            formats::video(format, size.0, size.1, MAX_PIXELS)
        }
        (Media::Audio, "audio/x-raw") => {
            let interleaved = structure.get::<&str>("layout") != Ok("non-interleaved");
            let (rate, channels) = (int("rate").unwrap_or(0), int("channels").unwrap_or(0));
            formats::audio(format, interleaved, rate, channels)
        }
        _ => return Ok(()),
    };
    fits.map(|_| ()).map_err(|error| error.to_string())
}
