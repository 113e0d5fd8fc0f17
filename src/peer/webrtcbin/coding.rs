//! What caps of RTP say of a stream, and the answers to who asks for caps.

use gst::prelude::*;

use crate::logic::media::Media;

/// What is coded how, whatever its payload type.
pub struct Coding {
    pub media: Media,
    /// As in `a=rtpmap`, in capitals.
    pub name: String,
    clock_rate: i32,
}

impl Coding {
    /// Of what a pad carries.
    pub fn now(pad: &gst::Pad) -> Option<Self> {
        Self::read(&pad.current_caps()?)
    }

    /// Of what a pad carries, or is made for.
    pub fn of(pad: &gst::Pad) -> Option<Self> {
        let caps = pad.current_caps();
        Self::read(&caps.unwrap_or_else(|| pad.query_caps(None)))
    }

    fn read(caps: &gst::Caps) -> Option<Self> {
        let caps = caps.structure(0)?;
        let name: String = caps.get("encoding-name").ok()?;
        Some(Self {
            media: Media::of_word(caps.get("media").ok()?)?,
            name: name.to_ascii_uppercase(),
            clock_rate: caps.get("clock-rate").ok()?,
        })
    }

    pub fn caps(&self) -> gst::Caps {
        gst::Caps::builder("application/x-rtp")
            .field("media", self.media.as_str())
            .field("encoding-name", &self.name)
            .field("clock-rate", self.clock_rate)
            .build()
    }
}

/// Says that it is these caps, of those that are asked for.
pub fn answer(query: &mut gst::query::Caps, caps: gst::Caps) {
    let caps = match query.filter_owned() {
        Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
        None => caps,
    };
    query.set_result(&caps);
}
