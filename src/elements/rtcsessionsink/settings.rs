//! What the user set, and what it means once it is found to be possible.

use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use crate::logic::continuity::formats::{Fps, MAX_FPS, MAX_MAX_FPS};
use crate::logic::media::Media;
use crate::peer::encoders::AudioTerms;
use crate::peer::feed::{ContinuityTerms, FeedTerms};
use crate::peer::publication::{PublicationTerms, Recipient};

/// The longest that audio may wait, milliseconds.
const MAX_BUFFER: u32 = 600_000;
/// A period of audio at least, milliseconds.
const MIN_BUFFER: u32 = 20;

#[derive(Debug, Clone)]
pub struct Settings {
    pub session: String,
    pub send_to: String,
    pub sync: bool,
    pub continuity: bool,
    pub framerate: u32,
    /// Milliseconds, as all times here.
    pub max_repeat: u32,
    pub silence_tolerance: u32,
    pub max_buffer: u32,
    pub drain_timeout: u32,
    /// Bits a second.
    pub bitrate: u32,
    pub stereo: bool,
    pub dtx: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session: String::new(),
            send_to: "origin".into(),
            sync: true,
            continuity: true,
            framerate: MAX_FPS,
            max_repeat: 2_000,
            silence_tolerance: 100,
            max_buffer: 10_000,
            drain_timeout: 2_000,
            bitrate: 0,
            stereo: true,
            dtx: false,
        }
    }
}

fn milliseconds(value: u32) -> Duration {
    Duration::from_millis(value.into())
}

impl Settings {
    /// What the stream of a pad is held to.
    /// `server` is by what a session is found that is with a server.
    pub fn terms(
        &self,
        pad: &str,
        number: u32,
        media: Media,
        server: Option<&str>,
    ) -> PublicationTerms {
        let continuity = self.continuity.then(|| ContinuityTerms {
            fps: fps(self.framerate),
            max_repeat: milliseconds(self.max_repeat),
            silence_tolerance: milliseconds(self.silence_tolerance),
            capacity: milliseconds(self.max_buffer),
        });
        PublicationTerms {
            session: server.unwrap_or(&self.session).to_owned(),
            pad: pad.to_owned(),
            number,
            recipient: match self.send_to.as_str() {
                _ if server.is_some() => Recipient::Server,
                "" | "origin" => Recipient::Origin,
                "all" => Recipient::All,
                id => Recipient::One(id.to_owned()),
            },
            bitrate: self.bitrate,
            feed: FeedTerms {
                media,
                continuity,
                coding: AudioTerms {
                    stereo: self.stereo,
                    dtx: self.dtx,
                },
                to_server: server.is_some(),
            },
        }
    }

    pub fn drain_timeout(&self) -> Duration {
        milliseconds(self.drain_timeout)
    }

    /// `value` is what GObject checked against the property's own spec.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        const CHECKED: &str = "GObject checked the type";
        let number = || value.get::<u32>().expect(CHECKED);
        let flag = || value.get::<bool>().expect(CHECKED);
        let text = || value.get::<Option<String>>().expect(CHECKED);
        match name {
            "session" => self.session = text().unwrap_or_default(),
            "send-to" => self.send_to = text().unwrap_or_default(),
            "sync" => self.sync = flag(),
            "continuity" => self.continuity = flag(),
            "framerate" => self.framerate = number(),
            "max-repeat" => self.max_repeat = number(),
            "silence-tolerance" => self.silence_tolerance = number(),
            "max-buffer" => self.max_buffer = number(),
            "drain-timeout" => self.drain_timeout = number(),
            "bitrate" => self.bitrate = number(),
            "stereo" => self.stereo = flag(),
            "dtx" => self.dtx = flag(),
            _ => unreachable!("{name} is not in the list below"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "session" => self.session.to_value(),
            "send-to" => self.send_to.to_value(),
            "sync" => self.sync.to_value(),
            "continuity" => self.continuity.to_value(),
            "framerate" => self.framerate.to_value(),
            "max-repeat" => self.max_repeat.to_value(),
            "silence-tolerance" => self.silence_tolerance.to_value(),
            "max-buffer" => self.max_buffer.to_value(),
            "drain-timeout" => self.drain_timeout.to_value(),
            "bitrate" => self.bitrate.to_value(),
            "stereo" => self.stereo.to_value(),
            "dtx" => self.dtx.to_value(),
            _ => unreachable!("{name} is not in the list below"),
        }
    }

    /// All properties but the read-only `buffer-stats`; they count from the next READY→PAUSED on, `session` from NULL→READY.
    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let default = Settings::default();
        let number = |name, nick, blurb, least, most, default| {
            glib::ParamSpecUInt::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(least)
                .maximum(most)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        let flag = |name, nick, blurb, default| {
            glib::ParamSpecBoolean::builder(name)
                .nick(nick)
                .blurb(blurb)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        let text = |name, nick, blurb, default: &str| {
            glib::ParamSpecString::builder(name)
                .nick(nick)
                .blurb(blurb)
                .default_value(Some(default))
                .mutable_ready()
                .build()
        };
        vec![
            // GstRtcSessionSink:session: Since: 0.1
            text(
                "session",
                "Session",
                "The rtcsessionsrc of this process whose visitors are sent to, by its property session",
                &default.session,
            ),
            // GstRtcSessionSink:send-to: Since: 0.1
            text(
                "send-to",
                "Send to",
                "Who gets what comes in: origin (the visitor each buffer came from, told by its metadata or its stream-id), all (every visitor, from one encoder for each codec), or the connection-id or external-id of one visitor, who may come later",
                &default.send_to,
            ),
            // GstRtcSessionSink:sync: Since: 0.1
            flag(
                "sync",
                "Sync",
                "Whether buffers of a source that is not live are sent at their time; those of a live source are sent at once either way",
                default.sync,
            ),
            // GstRtcSessionSink:continuity: Since: 0.1
            flag(
                "continuity",
                "Continuity",
                "Whether raw video goes on at its rate when nothing comes (black before the first frame, then the last one again, then black), and raw audio as silence, paced by its media time",
                default.continuity,
            ),
            // GstRtcSessionSink:framerate: Since: 0.1
            number(
                "framerate",
                "Frame rate",
                "Frames a second that video goes out with under continuity: of more the newest count, fewer are filled up",
                1,
                MAX_MAX_FPS,
                default.framerate,
            ),
            // GstRtcSessionSink:max-repeat: Since: 0.1
            number(
                "max-repeat",
                "Maximum repeat",
                "Milliseconds for which the last frame is repeated before black follows; 0 is black at once",
                0,
                u32::MAX,
                default.max_repeat,
            ),
            // GstRtcSessionSink:silence-tolerance: Since: 0.1
            number(
                "silence-tolerance",
                "Silence tolerance",
                "Milliseconds for which nothing is sent when audio ends, before silence is; 0 is silence at once",
                0,
                60_000,
                default.silence_tolerance,
            ),
            // GstRtcSessionSink:max-buffer: Since: 0.1
            number(
                "max-buffer",
                "Maximum buffer",
                "Milliseconds of audio that may wait to be sent; beyond that a live source loses what does not fit, and another one is held",
                MIN_BUFFER,
                MAX_BUFFER,
                default.max_buffer,
            ),
            // GstRtcSessionSink:drain-timeout: Since: 0.1
            number(
                "drain-timeout",
                "Drain timeout",
                "Milliseconds that EOS waits for what has not been sent yet; 0 drops it",
                0,
                u32::MAX,
                default.drain_timeout,
            ),
            // GstRtcSessionSink:bitrate: Since: 0.1
            number(
                "bitrate",
                "Bitrate",
                "Bits a second at most for each stream, audio has no more than 64000; 0 is what the visitor's network carries, within the session's min-bitrate and max-bitrate, and 1000000 with send-to=all",
                0,
                1_000_000_000,
                default.bitrate,
            ),
            // GstRtcSessionSink:stereo: Since: 0.1
            flag(
                "stereo",
                "Stereo",
                "Whether audio is sent in two channels, whatever comes in, or in one",
                default.stereo,
            ),
            // GstRtcSessionSink:dtx: Since: 0.1
            flag(
                "dtx",
                "Discontinuous transmission",
                "Whether nothing is sent while the audio is silent",
                default.dtx,
            ),
        ]
    }
}

fn fps(framerate: u32) -> Fps {
    let (fps, _) = Fps::of_source(framerate, 1, MAX_MAX_FPS)
        .expect("the property's own bounds are those of a rate");
    fps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_gives_back_what_it_was_given() {
        for spec in Settings::param_specs() {
            let mut settings = Settings::default();
            let before = settings.get(spec.name());
            settings.set(spec.name(), &before);
            assert_eq!(spec.value_type(), before.type_(), "{}", spec.name());
        }
    }

    #[test]
    fn every_frame_rate_that_can_be_set_is_one() {
        for framerate in 1..=MAX_MAX_FPS {
            assert!(!fps(framerate).period().is_zero());
        }
    }

    #[test]
    fn recipients_are_told_apart() {
        let to = |send_to: &str| {
            let settings = Settings {
                send_to: send_to.into(),
                ..Settings::default()
            };
            settings.terms("video_0", 0, Media::Video, None).recipient
        };
        assert_eq!(to("origin"), Recipient::Origin);
        assert_eq!(to(""), Recipient::Origin);
        assert_eq!(to("all"), Recipient::All);
        assert_eq!(to("abc"), Recipient::One("abc".into()));
    }
}
