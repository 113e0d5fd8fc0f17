//! Elements between two pads of ours, in a pipeline that plays: what is pushed into `feed` comes out of `tail`.

use gst::prelude::*;

use super::scene::take_out;

pub struct Inline {
    pub feed: gst::Pad,
    pub tail: gst::Pad,
    elements: Vec<gst::Element>,
    pipeline: gst::Pipeline,
}

impl Inline {
    /// Without elements the pads are linked to each other. Stop it when it is of no more use, also when it did not start.
    pub fn new(
        pipeline: &gst::Pipeline,
        feed: gst::Pad,
        tail: gst::Pad,
        elements: Vec<gst::Element>,
    ) -> Self {
        Self {
            feed,
            tail,
            elements,
            pipeline: pipeline.clone(),
        }
    }

    /// Starts the elements and says what every stream begins with.
    pub fn start(&self, caps: &gst::Caps, segment: Option<gst::Event>) -> Result<(), InlineError> {
        let link = |src: &gst::Pad, sink: &gst::Pad| {
            // Our pads have no parent, so there is no hierarchy to check.
            src.link_full(sink, gst::PadLinkCheck::empty())
                .map_err(|error| gst::glib::bool_error!("pads do not link: {error}"))
        };
        self.tail.set_active(true)?;
        self.feed.set_active(true)?;
        self.pipeline.add_many(&self.elements)?;
        gst::Element::link_many(&self.elements)?;
        match (self.elements.first(), self.elements.last()) {
            (Some(first), Some(last)) => {
                let sink = first.static_pad("sink").expect("it is a filter");
                let src = last.static_pad("src").expect("it is a filter");
                link(&src, &self.tail)?;
                link(&self.feed, &sink)?;
            }
            _ => {
                link(&self.feed, &self.tail)?;
            }
        }
        for element in self.elements.iter().rev() {
            element.sync_state_with_parent()?;
        }
        let any = gst::FormattedSegment::<gst::ClockTime>::new();
        let segment = segment.unwrap_or_else(|| gst::event::Segment::new(&any));
        self.feed.push_event(gst::event::StreamStart::new("inline"));
        self.feed.push_event(gst::event::Caps::new(caps));
        self.feed.push_event(segment);
        Ok(())
    }

    /// No buffer may be under way.
    pub fn stop(&self) {
        let _ = self.feed.set_active(false);
        let _ = self.tail.set_active(false);
        for element in &self.elements {
            take_out(&self.pipeline, element);
        }
    }
}

/// Why elements do not start.
#[derive(Debug, thiserror::Error)]
pub enum InlineError {
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
    #[error("{0}")]
    State(#[from] gst::StateChangeError),
}

/// A pad that takes whatever comes, into `chain`.
pub fn taking_pad(
    chain: impl Fn(&gst::Pad, gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError>
    + Send
    + Sync
    + 'static,
) -> gst::Pad {
    gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |pad, _, buffer| chain(pad, buffer))
        // Events end here: caps stay on the pad.
        .event_function(|_, _, _| true)
        .query_function(|pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Allocation(_) => false,
            // What it is was asked for in front of it; the rest may change at any time.
            gst::QueryViewMut::AcceptCaps(accept) => {
                accept.set_result(true);
                true
            }
            // By default it would take only what it has now, and an encoder then refuses frames of another size.
            gst::QueryViewMut::Caps(caps) => {
                let all = caps.filter_owned().unwrap_or_else(gst::Caps::new_any);
                caps.set_result(&all);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build()
}
