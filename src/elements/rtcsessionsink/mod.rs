/**
 * SECTION:element-rtcsessionsink
 *
 * Sends video and audio to the visitors of an `rtcsessionsrc` in the same process: to the one that each buffer came
 * from, to one that is named, or to all. Encodes as VP8, H.264 or Opus, whatever was negotiated; what is encoded
 * already in a form the visitor takes is sent untouched.
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc name=s  s.video_0 ! queue ! videoflip method=horizontal-flip ! rtcsessionsink
 * gst-launch-1.0 rtcsessionsrc  videotestsrc is-live=true ! rtcsessionsink send-to=all
 * ]|
 *
 * Each request pad, `video_%u` or `audio_%u`, is one stream to every visitor it is for. The answer to an offer keeps
 * an m-line for it, the first of its kind that is free; so the element must be in READY before a visitor comes. Without
 * any pad in READY it keeps one line of each kind, for pads that gst-launch-1.0 links when a visitor has come.
 *
 * ## Who gets what
 *
 * `send-to=origin`, the default: a buffer goes to the connection whose `connection-id` is in its `RtcFrameMeta`, or
 * else in the stream-id of its STREAM_START. Each connection has an encoder of its own, as fast as its network.
 * `send-to=all` has one encoder for each codec; a visitor that cannot keep up is skipped to the next keyframe,
 * and there are at most two of those a second. `send-to=ID` names one visitor, by our id or its own.
 *
 * ## Continuity
 *
 * With `continuity`, the default, raw video goes out at `framerate`: black until the first frame, the last frame
 * again when none comes for up to `max-repeat`, then black; a new frame goes out at once. Fresh frames keep their
 * time. Raw audio goes out in periods of 20 ms by its media time: what comes faster than it plays waits, up to
 * `max-buffer` (a live source that was held up and catches up is then heard that much later, until clear-buffers);
 * silence until the first data, nothing for `silence-tolerance` after the last, then silence again. Without
 * it, and for encoded frames, everything is sent as it comes, and at most two frames or 200 ms wait.
 *
 * Any raw format in system memory is taken, any size and rate; 16 bit samples and I420 need no conversion.
 *
 * ## Calling a server
 *
 * |[
 * gst-launch-1.0 videotestsrc is-live=true ! rtcsessionsink uri=whip+http://127.0.0.1:8080/whip
 * ]|
 * With `uri`, here or on another element of the same `session`, the media goes to a server that is called; `rtcsessionsrc` has
 * the protocols and their options, and gives what comes back. What comes in is sent to that server whatever `send-to` says. A source that
 * is not live waits until the server is there; the frames of a live one are dropped meanwhile. EOS ends the session once nothing
 * comes back any more.
 *
 * ## Messages
 *
 * Element messages, from threads of the element's own. Times are nanoseconds.
 *
 * What is said of a visitor comes before that visitor's `rtc-connection-ended`.
 *
 * | message | fields | when |
 * |---|---|---|
 * | `rtc-publication-started` | connection-id, pad, media, codec | the first frame has gone to a visitor |
 * | `rtc-publication-ended` | connection-id, pad, media, buffers, duration | nothing more goes there; once for each that started |
 * | `rtc-ready-for-audio` | connection-id, pad, media | audio for that visitor will be sent |
 * | `rtc-buffer-drained` | connection-id, pad, media, stats | what waited is used up; again only after there was a stock again |
 * | `rtc-publication-error` | connection-id, pad, media, error, fatal | something cannot be sent to a visitor |
 *
 * `buffer-stats` holds for each pad what waits for each connection (`queued`, nanoseconds) and what became of the rest:
 * frames of video, samples of audio for each channel.
 *
 * EOS waits for what has not been sent, at most `drain-timeout`.
 *
 * Since: 0.1
 */
use gst::glib;
use gst::prelude::*;

mod gate;
mod imp;
mod input;
mod settings;

glib::wrapper! {
    pub struct RtcSessionSink(ObjectSubclass<imp::RtcSessionSink>)
        @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rtcsessionsink",
        gst::Rank::NONE,
        RtcSessionSink::static_type(),
    )
}
