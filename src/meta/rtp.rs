//! What an RTP packet and its caps say about the frame it belongs to.

use std::{
    borrow::Cow,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use gst::glib;
use gst_rtp::RTPBuffer;

use crate::logic::frame_count::Packet;

const MID_EXTENSION: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

/// Reads the packets of one set of caps.
pub struct Reader {
    clock_rate: i32,
    /// `a-mid` of the caps: what the SDP said.
    mid: Option<String>,
    /// Where packets carry their mid themselves.
    mid_extension: Option<u8>,
}

impl Reader {
    pub fn of(caps: &gst::StructureRef) -> Reader {
        Reader {
            clock_rate: caps.get("clock-rate").unwrap_or(0),
            mid: caps.get("a-mid").ok(),
            mid_extension: caps.iter().find_map(|(name, value)| {
                let id = name.strip_prefix("extmap-")?.parse().ok()?;
                is_mid(value).then_some(id)
            }),
        }
    }

    /// `None` when the buffer holds no RTP packet.
    pub fn read(&self, buffer: &gst::BufferRef) -> Option<Packet<'_>> {
        let packet = RTPBuffer::from_buffer_readable(buffer).ok()?;
        let own_mid = self.mid_extension.and_then(|id| mid_of(&packet, id));
        Some(Packet {
            ssrc: packet.ssrc(),
            timestamp: packet.timestamp(),
            clock_rate: self.clock_rate,
            mid: own_mid
                .map(Cow::Owned)
                .or(self.mid.as_deref().map(Cow::Borrowed)),
            arrival_time: arrival_time(buffer),
        })
    }
}

/// The id must be one that a one-byte header can have, or two-byte headers are looked through.
fn mid_of<T>(packet: &RTPBuffer<T>, id: u8) -> Option<String> {
    let one_byte = (1..=14)
        .contains(&id)
        .then(|| packet.extension_onebyte_header(id, 0))
        .flatten();
    let bytes = one_byte.or_else(|| Some(packet.extension_twobytes_header(id, 0)?.1))?;
    String::from_utf8(bytes.to_vec()).ok()
}

/// Plain, or with direction and attributes around it.
fn is_mid(extension: &glib::SendValue) -> bool {
    if let Ok(uri) = extension.get::<&str>() {
        return uri == MID_EXTENSION;
    }
    extension.get::<gst::ArrayRef>().is_ok_and(|parts| {
        parts
            .iter()
            .any(|part| part.get::<&str>() == Ok(MID_EXTENSION))
    })
}

/// What a source measured, else now.
fn arrival_time(buffer: &gst::BufferRef) -> u64 {
    static UNIX: LazyLock<gst::Caps> =
        LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-unix"));
    buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find(|meta| meta.reference().can_intersect(&UNIX))
        .map(|meta| meta.timestamp().nseconds())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64)
        })
}
