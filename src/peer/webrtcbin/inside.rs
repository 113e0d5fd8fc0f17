//! The elements in a webrtcbin: where what a peer does is an ERROR of theirs, and where they keep to themselves what others need.

use std::time::Duration;

use gst::prelude::*;

use super::coding;
use super::visit::Visit;
use crate::logic::connection::EndReason;

/// Elements in a webrtcbin that say ERROR for what a peer does, or a branch.
const MUFFLED: [&str; 8] = [
    "dtlsdec", "dtlsenc", "nicesrc", "queue", "sctpdec", "sctpenc", "srtpdec", "srtpenc",
];
/// What the last word of DTLS may take.
const GOODBYE: Duration = Duration::from_millis(250);

impl Visit {
    /// An element of its own: what the peer sends comes by, and what is an end there is no error here.
    pub(super) fn on_element(&self, element: &gst::Element) {
        let factory = element.factory().map(|factory| factory.name());
        let factory = factory.as_deref().unwrap_or_default();
        if factory == "nicesrc"
            && let Some(pad) = element.static_pad("src")
        {
            let me = self.weak();
            let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(mask, move |_, _| match me.upgrade() {
                Some(visit) => {
                    visit.on_sign_of_life();
                    gst::PadProbeReturn::Ok
                }
                None => gst::PadProbeReturn::Remove,
            });
        }
        if factory == "rtpulpfecdec" {
            tell_caps_early(element);
        }
        if MUFFLED.contains(&factory) {
            self.muffle(element, factory.to_owned());
        }
    }

    /// What goes wrong in these is this connection's trouble; as an ERROR message it would end the whole pipeline.
    fn muffle(&self, element: &gst::Element, factory: String) {
        let bus = gst::Bus::new();
        let (me, of) = (self.weak(), self.webrtcbin().downgrade());
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                if let Some(visit) = me.upgrade() {
                    visit.on_trouble(&factory, &error.error().to_string());
                }
            } else if let Some(webrtcbin) = of.upgrade() {
                let _ = webrtcbin.post_message(message.clone());
            }
            gst::BusSyncReply::Drop
        });
        element.set_bus(Some(&bus));
    }

    fn on_trouble(&self, factory: &str, error: &str) {
        gst::debug!(
            crate::peer::CAT,
            "{}: {factory}: {error}",
            self.webrtcbin().name()
        );
        let detail = Some(format!("{factory}: {error}"));
        match factory {
            // It fails when the peer has closed its channels.
            "sctpenc" | "sctpdec" => self.end_with(EndReason::ClientClosed, None),
            "dtlsenc" | "dtlsdec" => match self.is_connected() {
                true => self.end_with(EndReason::PeerLost, detail),
                false => self.end_with(EndReason::SetupFailed, detail),
            },
            // What its branches refuse comes up to there.
            _ => {
                if let Some(connection) = self.connection() {
                    connection.fail(format!("{factory}: {error}"));
                }
            }
        }
    }
}

/// Lets who links a pad of the webrtcbin know what will come out of it.
///
/// This element stands before every such pad, and takes anything until its first packet: a launch line with a
/// capsfilter for video and one for audio would link whichever pad comes first to the first of them.
fn tell_caps_early(decoder: &gst::Element) {
    let (Some(sink), Some(src)) = (decoder.static_pad("sink"), decoder.static_pad("src")) else {
        return;
    };
    let sink = sink.downgrade();
    src.add_probe(gst::PadProbeType::QUERY_UPSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Query(query)) = &mut info.data else {
            return gst::PadProbeReturn::Ok;
        };
        let upstream = sink.upgrade().and_then(|sink| sink.peer());
        let (gst::QueryViewMut::Caps(query), Some(caps)) = (
            query.view_mut(),
            upstream.and_then(|pad| pad.current_caps()),
        ) else {
            return gst::PadProbeReturn::Ok;
        };
        coding::answer(query, caps);
        gst::PadProbeReturn::Handled
    });
}

/// Has DTLS say that it is over: stopped as it is, a webrtcbin leaves its peer to find out.
pub fn say_goodbye(webrtcbin: &gst::Element) {
    let inner = webrtcbin.downcast_ref::<gst::Bin>().into_iter();
    let inner = inner.flat_map(|bin| bin.iterate_recurse().into_iter().flatten());
    let is_encoder =
        |element: &gst::Element| element.factory().is_some_and(|f| f.name() == "dtlsenc");
    for encoder in inner.filter(is_encoder) {
        let (Some(sink), Some(src)) = (encoder.static_pad("sink"), encoder.static_pad("src"))
        else {
            continue;
        };
        let (said, over) = std::sync::mpsc::channel();
        src.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && event.type_() == gst::EventType::Eos
            {
                let _ = said.send(());
            }
            gst::PadProbeReturn::Ok
        });
        sink.send_event(gst::event::Eos::new());
        // Whether it was said or not, nothing more can be done.
        let _ = over.recv_timeout(GOODBYE);
    }
}
