//! What leaves a chain as pictures beside the results, for visitors who read them on their data channel.

use std::sync::Arc;

use gst::prelude::*;

use super::inline::InlineError;
use super::scene::take_out;
use crate::logic::frame_facts::FrameFacts;

/// Of JPEG, as Roboflow's server makes them.
const QUALITY: i32 = 80;

/// Told from the chain's thread; may wait.
pub trait PicturesOwner: Send + Sync {
    /// A frame left the chain, with what is known of it.
    fn picture(&self, facts: FrameFacts, size: (u32, u32), jpeg: &[u8]);
    /// All that entered the chain has left it.
    fn drained(&self);
}

/// Makes JPEG of what is pushed into its pad.
pub struct Pictures {
    pad: gst::Pad,
    bin: gst::Bin,
    taken: gst::Pad,
    pipeline: gst::Pipeline,
}

impl Pictures {
    /// `pipeline` plays, and its bus hears of what fails.
    pub fn new(
        pipeline: &gst::Pipeline,
        owner: Arc<dyn PicturesOwner>,
    ) -> Result<Self, InlineError> {
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let encode = gst::ElementFactory::make("jpegenc")
            .property("quality", QUALITY)
            .build()?;
        let ends = owner.clone();
        let taken = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |pad, _, buffer| {
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                owner.picture(FrameFacts::read(&buffer), size(pad), &map);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |_, _, event| {
                if event.type_() == gst::EventType::Eos {
                    ends.drained();
                }
                true
            })
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Allocation(_) => false,
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        let bin = gst::Bin::new();
        bin.add_many([&convert, &encode])?;
        convert.link(&encode)?;
        let ghost = |name: &str, element: &gst::Element| {
            let target = element.static_pad(name).expect("it is a filter");
            let ghost = gst::GhostPad::builder_with_target(&target).map(|builder| builder.build());
            ghost.and_then(|ghost| bin.add_pad(&ghost))
        };
        ghost("sink", &convert)?;
        ghost("src", &encode)?;
        let pad = bin.static_pad("sink").expect("it was added");
        let src = bin.static_pad("src").expect("it was added");
        taken.set_active(true)?;
        pipeline.add(&bin)?;
        src.link_full(&taken, gst::PadLinkCheck::empty())
            .map_err(|error| gst::glib::bool_error!("pads do not link: {error}"))?;
        bin.sync_state_with_parent()?;
        Ok(Self {
            pad,
            bin,
            taken,
            pipeline: pipeline.clone(),
        })
    }

    /// Takes raw frames in system memory.
    pub fn pad(&self) -> &gst::Pad {
        &self.pad
    }

    /// No frame may be under way.
    pub fn stop(&self) {
        let _ = self.taken.set_active(false);
        take_out(&self.pipeline, self.bin.upcast_ref());
    }
}

fn size(pad: &gst::Pad) -> (u32, u32) {
    let caps = pad.current_caps();
    let structure = caps.as_ref().and_then(|caps| caps.structure(0));
    let field = |name| {
        let number = structure.and_then(|s| s.get::<i32>(name).ok());
        number.unwrap_or_default().unsigned_abs()
    };
    (field("width"), field("height"))
}
