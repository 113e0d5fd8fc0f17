//! Sinks that do not preroll, behind what does: decodebin is not in PAUSED before a thread of its own has said so.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use gst::prelude::*;

use crate::inferring::{MODEL, until_eos};
use crate::init;

const FILE: &str = "filesrc location=tests/data/ball.webm ! decodebin";

/// Plays before the thread that brings the pipeline to PAUSED has told so, as any application may that is told by a message.
fn plays_to_its_end(sink: &str) {
    init();
    let pipeline = gst::parse::launch(&format!("{FILE} ! {sink}")).unwrap();
    let pipeline: gst::Pipeline = pipeline.downcast().unwrap();
    let (paused, is_paused) = mpsc::channel();
    let (played, has_played) = mpsc::channel::<()>();
    let has_played = Mutex::new(has_played);
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if let gst::MessageView::StateChanged(change) = message.view()
            && message.src().is_some_and(|src| src.is::<gst::Pipeline>())
            && (change.current(), change.pending()) == (gst::State::Paused, gst::State::VoidPending)
        {
            paused.send(()).unwrap();
            // Whoever tells it is held up until the pipeline plays, unless it is the one who lets it play.
            let _ = has_played
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_millis(200));
        }
        gst::BusSyncReply::Pass
    });
    pipeline.set_state(gst::State::Paused).unwrap();
    is_paused.recv_timeout(Duration::from_secs(5)).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let _ = played.send(());
    until_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_file_behind_decodebin_ends_at_an_inferencesink() {
    plays_to_its_end(&format!("inferencesink model={MODEL}"));
}

#[test]
fn a_file_behind_decodebin_ends_at_an_rtcsessionsink() {
    plays_to_its_end("videoconvert ! rtcsessionsink");
}
