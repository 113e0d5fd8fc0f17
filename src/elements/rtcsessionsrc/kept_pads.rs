//! Pads that stay while one session with a server follows another: what is linked to them sees one stream with a gap, and
//! EOS when there is no session any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;

use super::RtcSessionSrc;
use crate::peer::codecs::Media;

#[derive(Default)]
pub struct KeptPads {
    pads: Mutex<Vec<gst::GhostPad>>,
    /// EOS goes through from here on.
    over: Arc<AtomicBool>,
}

impl KeptPads {
    fn pads(&self) -> MutexGuard<'_, Vec<gst::GhostPad>> {
        self.pads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions follow each other from here on.
    pub fn begin(&self) {
        self.over.store(false, Ordering::Relaxed);
    }

    /// What comes out of `inner` comes out of the user's pad of the same name, which is made if there is none.
    pub fn put_behind(&self, inner: &gst::Pad, element: &RtcSessionSrc) {
        let name = inner.name();
        let known = self.pads().iter().find(|pad| pad.name() == name).cloned();
        if let Some(pad) = known {
            // Fails only for a pad that is linked elsewhere, and this one is new.
            let _ = pad.set_target(Some(inner));
            return;
        }
        let media = match name.starts_with(Media::Video.as_str()) {
            true => Media::Video,
            false => Media::Audio,
        };
        let template = RtcSessionSrc::pad_template(media);
        let pad = gst::GhostPad::builder_from_template(&template)
            .name(name)
            .build();
        let over = self.over.clone();
        // On its inner side: a pad that has had EOS itself takes no second one.
        let inside = pad.internal().expect("every ghost pad has one");
        inside.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            match info.event().map(|event| event.type_()) {
                // The session's end is not that of the pad.
                Some(gst::EventType::Eos) if !over.load(Ordering::Relaxed) => {
                    gst::PadProbeReturn::Handled
                }
                _ => gst::PadProbeReturn::Ok,
            }
        });
        let _ = pad.set_target(Some(inner));
        // Fails only for a pad without a parent, where it is of no consequence.
        let _ = pad.set_active(true);
        self.pads().push(pad.clone());
        element
            .add_pad(&pad)
            .expect("its name is taken by nobody else");
    }

    /// The session that `inner` is of has ended.
    pub fn take_from_behind(&self, inner: &gst::Pad) {
        let pads = self.pads().clone();
        for pad in pads {
            if pad.target().as_ref() == Some(inner) {
                let _ = pad.set_target(None::<&gst::Pad>);
            }
        }
    }

    /// Gives EOS to whoever is linked, and takes the pads away.
    pub fn end(&self, element: &RtcSessionSrc) {
        self.over.store(true, Ordering::Relaxed);
        let pads = std::mem::take(&mut *self.pads());
        for pad in pads {
            pad.push_event(gst::event::Eos::new());
            // The application may have removed it already.
            let _ = element.remove_pad(&pad);
        }
    }
}
