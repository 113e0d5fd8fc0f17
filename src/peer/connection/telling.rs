//! What a connection says: messages on the bus, texts to its visitor.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::{Connection, DATA_PER_SECOND, End, Output, lock};
use crate::logic::connection::{EndReason, Phase};
use crate::logic::frame_facts::FrameFacts;
use crate::logic::stats::Stage;
use crate::logic::wire::dialect::{News, last_text};
use crate::logic::wire::result::without_result;
use crate::peer::CAT;
use crate::peer::agreement::VideoSource;
use crate::peer::outbox::Waits;

impl Connection {
    /// The visitor sent something on a data channel.
    pub fn on_message(&self, label: String, data: Vec<u8>, binary: bool, now: Instant) {
        if matches!(self.agreement.source, VideoSource::Upload(_))
            && lock(&self.agreement.dialect).is_file(&label)
        {
            return self.on_piece(label, &data);
        }
        self.on_heard(now);
        // Of a server that we have called, what it says of frames is as much as they are; once unpacked it may be megabytes, and
        // others share the thread.
        if self.called.is_some()
            && tokio::task::block_in_place(|| self.hear(&label, &data, binary, now))
        {
            return;
        }
        let allowed = {
            let mut rate = lock(&self.data_rate);
            let (messages, bytes) = &mut *rate;
            let allowed = messages.allows(now, 1) && bytes.allows(now, data.len());
            if !allowed && messages.dropped + bytes.dropped == 1 {
                gst::warning!(
                    CAT,
                    "{}: more than {DATA_PER_SECOND} messages a second are dropped",
                    self.id
                );
            }
            allowed
        };
        if !allowed || (self.called.is_none() && self.hear(&label, &data, binary, now)) {
            return;
        }
        let message = gst::Structure::builder("rtc-data")
            .field("connection-id", self.id.as_str())
            .field("channel", label.replace('\0', "\u{fffd}"));
        let message = match String::from_utf8(data) {
            // A GStreamer string ends with the first NUL.
            Ok(text) if !binary && !text.contains('\0') => message.field("text", text),
            Ok(text) => message.field("bytes", gst::glib::Bytes::from_owned(text.into_bytes())),
            Err(error) => message.field("bytes", gst::glib::Bytes::from_owned(error.into_bytes())),
        };
        self.stage.post(message.build());
    }

    /// Does what the visitor said to the server itself; says whether the application is to know nothing of it.
    fn hear(&self, label: &str, data: &[u8], binary: bool, now: Instant) -> bool {
        let (heard, channel) = {
            let mut dialect = lock(&self.agreement.dialect);
            (dialect.hear(label, data, binary, now), dialect.channel())
        };
        for said in heard.said {
            self.on_said(said, now);
        }
        self.say(heard.answers, channel, Waits::Not);
        if let Some(count) = heard.acknowledged {
            self.pace(0, count);
        }
        if let Some(sends_back) = heard.sends_back {
            self.lanes.pause(!sends_back);
        }
        heard.taken
    }

    pub(super) fn say_streams_ended(&self, reason: EndReason) {
        let outlets = lock(&self.outlets).take().unwrap_or_default();
        for outlet in outlets {
            let (buffers, dropped, duration) = outlet.account();
            self.stage.post(
                gst::Structure::builder("rtc-stream-ended")
                    .field("connection-id", self.id.as_str())
                    .field("stream-id", &outlet.stream.stream_id)
                    .field("media", outlet.stream.media)
                    .field("reason", reason.as_str())
                    .field("buffers", buffers)
                    .field("dropped", dropped)
                    .field("duration", duration.as_nanos() as u64)
                    .build(),
            );
        }
    }

    /// Says that the answer was handed out.
    pub fn say_created(&self) {
        self.metrics.created(self.visitor.door);
        self.stage.post(
            gst::Structure::builder("rtc-connection-created")
                .field("connection-id", self.id.as_str())
                .field_if_some("external-id", self.visitor.external_id.as_deref())
                .field("door", self.visitor.door)
                .field("remote-address", self.visitor.remote.to_string())
                .field("created-at", self.created_at)
                .field("data", &self.visitor.data)
                .build(),
        );
        self.enter(Phase::Connecting);
    }

    /// Moves on to a phase and says so.
    pub(super) fn enter(&self, new: Phase) {
        let old = std::mem::replace(&mut *lock(&self.phase), new);
        let counted = (old != Phase::Signalling).then_some(old);
        self.metrics.moved(self.visitor.door, counted, new);
        self.stage.post(
            gst::Structure::builder("rtc-connection-state")
                .field("connection-id", self.id.as_str())
                .field("old", old.as_str())
                .field("new", new.as_str())
                .field("signalling", new == Phase::Signalling)
                .field("playing", new == Phase::Playing)
                .build(),
        );
    }

    pub(super) fn say_end(&self, end: &End, lasted: Duration) {
        self.metrics.ended(end.reason);
        let outputs = lock(&self.outputs).take();
        if let Some(outputs) = outputs {
            // Without a reader nobody is told.
            let text = last_text(end.reason, end.detail.as_deref());
            let _ = outputs.send(Output::Ended(text.into()));
        }
        self.enter(Phase::Ended);
        self.stage.post(
            gst::Structure::builder("rtc-connection-ended")
                .field("connection-id", self.id.as_str())
                .field_if_some("external-id", self.visitor.external_id.as_deref())
                .field("door", self.visitor.door)
                .field("reason", end.reason.as_str())
                .field_if_some("detail", end.detail.as_deref())
                .field_if_some("termination-reason", self.termination())
                .field("duration", lasted.as_nanos() as u64)
                .field("had-media", self.had_media.load(Ordering::Relaxed))
                .build(),
        );
        let (sent, dropped) = self.outbox.counts();
        gst::info!(
            CAT,
            "{} ended: {}, {sent} texts sent, {dropped} dropped",
            self.id,
            end.reason.as_str()
        );
    }

    pub(super) fn say_error(&self, error: &str, fatal: bool) {
        self.stage.post(
            gst::Structure::builder("rtc-connection-error")
                .field("connection-id", self.id.as_str())
                .field("error", error)
                .field("fatal", fatal)
                .build(),
        );
        // What is fatal is told with the end.
        if !fatal {
            self.tell(News::Trouble(error));
        }
    }

    pub(super) fn on_result(&self, result: &gst::StructureRef) {
        if let Ok(latency) = result.get::<u64>("latency") {
            self.metrics.result(Duration::from_nanos(latency));
            for stage in Stage::BEFORE_RESULT {
                if let Ok(took) = result.get(stage.name()) {
                    self.metrics.stage(stage, Duration::from_nanos(took));
                }
            }
        }
        let Ok(json) = result.get::<String>("json") else {
            return;
        };
        if let Some(outputs) = lock(&self.outputs)
            .as_ref()
            .filter(|outputs| outputs.receiver_count() > 0)
        {
            // Without a reader nobody is told.
            let _ = outputs.send(Output::Result(json.as_str().into()));
        }
        // Else it is told with the picture that it belongs to.
        if !self.agreement.pictures {
            self.wait_for_room();
            self.tell(News::Result(&json));
            self.pace(1, 0);
        }
    }

    /// A frame that left the video chain.
    pub(super) fn on_picture(&self, facts: &FrameFacts, size: (u32, u32), jpeg: &[u8]) {
        self.wait_for_room();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos() as u64;
        let unjudged = || without_result(facts, now, size);
        let result = facts.json.clone().unwrap_or_else(unjudged);
        let result = &result;
        self.tell(News::Picture { result, jpeg });
        self.pace(1, 0);
    }

    /// Where nothing is to be missed, whoever says something waits for what was said before.
    fn wait_for_room(&self) {
        if self.agreement.lossless {
            self.outbox.wait_for_room(|| self.end.get().is_some());
        }
    }
}
