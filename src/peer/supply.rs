//! Where the frames of a branch come from: the visitor's own stream, a file that it sent, or a server that it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;
use tempfile::NamedTempFile;

use super::branch::BranchError;
use super::codecs::{Media, set_if_possible};
use super::inlet::Inlet;
use crate::logic::registry::ConnectionId;
use crate::logic::wire::pull::Kind;

/// The mid of what has no m-line.
pub const NO_LINE: &str = "own-source";

/// The bin that plays it; what its elements say is no business of the application's.
pub const REEL: &str = "rtc-reel";

/// Most pixels of a picture's side.
const LARGEST: i32 = 8192;
/// Most bytes of a picture that comes as a part of many.
const LONGEST_PART: usize = 16 << 20;
/// How long a server that is pulled from may be silent.
const SILENCE: gst::ClockTime = gst::ClockTime::from_seconds(10);

pub enum Supply {
    Network(Arc<Inlet>),
    Reel(Reel),
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

/// Video that is played for a visitor.
pub struct Reel {
    pub connection: ConnectionId,
    pub from: From,
    /// Whether a file is played as fast as it was made to be, or as fast as it is taken.
    pub realtime: bool,
}

pub enum From {
    File(NamedTempFile),
    Server(Server),
}

/// A server to pull from, checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub kind: Kind,
    pub uri: String,
    pub user: Option<(String, String)>,
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
            Self::Reel(reel) => StreamName {
                connection: reel.connection.clone(),
                mid: NO_LINE.into(),
                id: format!("{}/{NO_LINE}", reel.connection),
                media: Media::Video,
                codec: match reel.from {
                    From::File(_) => "file",
                    From::Server(_) => "pull",
                },
            },
        }
    }

    /// What turns it into frames for the tail, in order. Of an inlet that is nothing where frames pass `undecoded`.
    pub fn elements(&self, undecoded: bool) -> Result<Vec<gst::Element>, BranchError> {
        match self {
            Self::Network(_) if undecoded => Ok(Vec::new()),
            Self::Network(inlet) => Ok(inlet.codec.decoder()?),
            Self::Reel(reel) => Ok(vec![reel.bin()?.upcast()]),
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
            (Self::Reel(_), elements) => {
                for bin in elements {
                    link(&static_pad(bin, "src"), tail)?;
                }
            }
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
    /// What plays it, with a ghost pad `src` for its pictures.
    fn bin(&self) -> Result<gst::Bin, gst::glib::BoolError> {
        let bin = gst::Bin::with_name(REEL);
        let add = |factory: &str| {
            let element = gst::ElementFactory::make(factory).build()?;
            bin.add(&element)?;
            Ok::<_, gst::glib::BoolError>(element)
        };
        let last = match &self.from {
            From::File(file) => {
                let (source, decoder) = (add("filesrc")?, add("decodebin")?);
                source.set_property("location", file.path());
                source.link(&decoder)?;
                only_streams(&decoder);
                let upright = add("videoflip")?;
                upright.set_property_from_str("video-direction", "auto");
                link_when_there(&decoder, &upright);
                match self.realtime {
                    true => {
                        let pace = add("clocksync")?;
                        // The file begins now, not when the pipeline began to play.
                        pace.set_property("sync-to-first", true);
                        upright.link(&pace)?;
                        pace
                    }
                    false => upright,
                }
            }
            From::Server(server) if server.kind == Kind::Rtsp => {
                let decoder = add("uridecodebin")?;
                decoder.set_property("uri", &server.uri);
                only_streams(&decoder);
                let user = server.user.clone();
                decoder.connect("source-setup", false, move |args| {
                    let source: gst::Element = args.get(1)?.get().ok()?;
                    set_user(&source, user.as_ref());
                    stay(&source);
                    set_if_possible(&source, "protocols", "tcp");
                    set_if_possible(&source, "tcp-timeout", &SILENCE.useconds().to_string());
                    None
                });
                let upright = add("videoflip")?;
                upright.set_property_from_str("video-direction", "auto");
                link_when_there(&decoder, &upright);
                upright
            }
            From::Server(server) => {
                let (source, parts) = (add("souphttpsrc")?, add("multipartdemux")?);
                source.set_property("location", &server.uri);
                set_user(&source, server.user.as_ref());
                // Where it would lead was not checked.
                source.set_property("automatic-redirect", false);
                source.set_property("is-live", true);
                source.set_property("do-timestamp", true);
                source.set_property("timeout", SILENCE.seconds() as u32);
                // Else it waits for others before it tells of the first.
                parts.set_property("single-stream", true);
                source.link(&parts)?;
                bound_parts(&source, &parts);
                let decoder = add("jpegdec")?;
                link_when_there(&parts, &decoder);
                decoder
            }
        };
        // Before a decoder makes room for its pictures it asks whether they are wanted.
        let bounded = add("capsfilter")?;
        let sizes = gst::IntRange::new(1, LARGEST);
        let caps = gst::Caps::builder("video/x-raw")
            .field("width", sizes)
            .field("height", sizes);
        bounded.set_property("caps", caps.build());
        last.link(&bounded)?;
        let ghost = gst::GhostPad::builder_with_target(&static_pad(&bounded, "src"))?;
        bin.add_pad(&ghost.name("src").build())?;
        Ok(bin)
    }
}

/// Decodes what is there and opens nothing else: playlists and descriptions name other places, of this machine too.
fn only_streams(decoder: &gst::Element) {
    const OTHERS: [&str; 4] = [
        "application/ogg",
        "application/mxf",
        "application/x-rtp",
        "image/jpeg",
    ];
    decoder.connect("autoplug-continue", false, |args| {
        let caps: gst::Caps = args.get(2)?.get().ok()?;
        let fits = |name: &str| {
            name.starts_with("video/") || name.starts_with("audio/") || OTHERS.contains(&name)
        };
        Some(caps.iter().all(|s| fits(s.name())).to_value())
    });
}

/// A server that leads elsewhere is not followed: nobody has checked where.
fn stay(source: &gst::Element) {
    if source.find_property("location").is_none()
        || source.factory().is_none_or(|f| f.name() != "rtspsrc")
    {
        return;
    }
    let location: Option<String> = source.property("location");
    source.connect("before-send", false, move |args| {
        let source: gst::Element = args.first()?.get().ok()?;
        let stays = source.property::<Option<String>>("location") == location;
        if !stays {
            gst::element_error!(
                source,
                gst::ResourceError::OpenRead,
                ("the server leads to another one, which is not followed")
            );
        }
        Some(stays.to_value())
    });
}

/// A part that never ends would be kept for ever.
fn bound_parts(source: &gst::Element, parts: &gst::Element) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let taken = waiting.clone();
    parts.connect_pad_added(move |_, pad| {
        let taken = taken.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            taken.store(0, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
    });
    let of = source.downgrade();
    static_pad(source, "src").add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let length = info.buffer().map_or(0, |buffer| buffer.size());
        if waiting.fetch_add(length, Ordering::Relaxed) + length <= LONGEST_PART {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(source) = of.upgrade() {
            gst::element_error!(
                source,
                gst::StreamError::Demux,
                ("a picture of more than {LONGEST_PART} bytes")
            );
        }
        gst::PadProbeReturn::Drop
    });
}

fn set_user(source: &gst::Element, user: Option<&(String, String)>) {
    if let Some((user, password)) = user {
        set_if_possible(source, "user-id", user);
        set_if_possible(source, "user-pw", password);
    }
}

fn static_pad(element: &gst::Element, name: &str) -> gst::Pad {
    element.static_pad(name).expect("it is a filter")
}

/// The first stream that fits goes on.
fn link_when_there(from: &gst::Element, next: &gst::Element) {
    let next = next.downgrade();
    from.connect_pad_added(move |_, pad| {
        let Some(sink) = next.upgrade().map(|next| static_pad(&next, "sink")) else {
            return;
        };
        if !sink.is_linked() && pad.query_caps(None).can_intersect(&sink.query_caps(None)) {
            // What does not link is said by whoever has nowhere to go.
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
