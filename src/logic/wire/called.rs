//! What servers say that we have called, and what they are told on their data channels.

use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::dialect::{Dialect, Heard, News, Payload, Pieces};
use super::roboflow_client::{CHANNEL, Reader, Said, UPLOAD_CHANNEL, ack};

/// FastRTC's.
pub const TEXT: &str = "text";

/// Roboflow's servers: what they say of each frame, and that we have had it.
pub struct ToRoboflow {
    reader: Reader,
}

impl ToRoboflow {
    /// `zone` is the one that the server's clock shows.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            reader: Reader::new(zone),
        }
    }
}

impl Dialect for ToRoboflow {
    fn tell(&mut self, _news: News<'_>) -> Vec<Pieces> {
        Vec::new()
    }

    fn hear(&mut self, label: &str, data: &[u8], binary: bool, now: Instant) -> Heard {
        if label == UPLOAD_CHANNEL {
            // Only signs of life come there.
            return Heard {
                taken: true,
                ..Heard::default()
            };
        }
        let said = self.reader.read(data, binary, now);
        let lost = self.reader.lost(now).map(Said::Broken);
        Heard {
            said: [said].into_iter().chain(lost).collect(),
            taken: true,
            ..Heard::default()
        }
    }

    fn delivered(&mut self, frame_id: u64) -> Option<Pieces> {
        Some(vec![ack(frame_id)])
    }

    fn channel(&self) -> Option<String> {
        Some(CHANNEL.into())
    }
}

/// FastRTC's servers: they wait for a word on the channel, and say when they have had enough.
#[derive(Debug, Default)]
pub struct ToFastRtc;

impl Dialect for ToFastRtc {
    fn tell(&mut self, news: News<'_>) -> Vec<Pieces> {
        match news {
            News::Channel(TEXT) => vec![vec![Payload::Text("handshake".into())]],
            _ => Vec::new(),
        }
    }

    fn hear(&mut self, _label: &str, data: &[u8], _binary: bool, _now: Instant) -> Heard {
        let message: Option<Value> = serde_json::from_slice(data).ok();
        let of = |key: &str| {
            message
                .as_ref()
                .and_then(|m| m.get(key))
                .and_then(Value::as_str)
        };
        let said = match of("type") {
            Some("end_stream") => Some(Said::Over {
                termination_reason: Some(of("data").unwrap_or("end_stream").to_owned()),
                errors: Vec::new(),
            }),
            _ => None,
        };
        // All of it is the application's business.
        Heard {
            said: said.into_iter().collect(),
            ..Heard::default()
        }
    }

    fn channel(&self) -> Option<String> {
        Some(TEXT.into())
    }
}

/// Servers with no words of their own: everything is the application's business, and we say nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Dialect for Silent {
    fn tell(&mut self, _news: News<'_>) -> Vec<Pieces> {
        Vec::new()
    }

    fn hear(&mut self, _label: &str, _data: &[u8], _binary: bool, _now: Instant) -> Heard {
        Heard::default()
    }

    fn channel(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fastrtc_is_greeted_on_its_channel_and_ends_the_session_with_a_word() {
        let greeting = vec![vec![Payload::Text("handshake".into())]];
        assert_eq!(ToFastRtc.tell(News::Channel("text")), greeting);
        assert!(ToFastRtc.tell(News::Channel("another")).is_empty());
        let heard = |text: &str| ToFastRtc.hear("text", text.as_bytes(), false, Instant::now());
        let end = heard(r#"{"type":"end_stream","data":"enough"}"#);
        assert!(
            matches!(&end.said[..], [Said::Over { termination_reason: Some(why), .. }] if why == "enough")
        );
        for other in [
            r#"{"type":"log","data":"x"}"#,
            "[]",
            "",
            "\u{0}",
            r#"{"type":7}"#,
        ] {
            assert_eq!(heard(other), Heard::default(), "{other}");
        }
    }

    #[test]
    fn roboflow_is_told_which_frame_was_delivered() {
        let mut dialect = ToRoboflow::new(TimeZone::UTC);
        let told = dialect.delivered(7).unwrap();
        assert_eq!(told, [Payload::Text(r#"{"ack":7}"#.into())]);
    }

    #[test]
    fn what_a_whole_message_replaced_is_told_with_it() {
        let piece = |total: u32, bytes: &[u8]| {
            let header = [1, 0, total].map(u32::to_le_bytes);
            [header.as_flattened(), bytes].concat()
        };
        let mut dialect = ToRoboflow::new(TimeZone::UTC);
        let mut hear = |message: Vec<u8>| {
            let heard = dialect.hear(CHANNEL, &message, true, Instant::now());
            heard.said
        };
        assert_eq!(hear(piece(2, b"{")), [Said::Ignored]);
        let said = hear(piece(1, b"{}"));
        assert!(
            matches!(&said[..], [_, Said::Broken(what)] if what.contains("1 were replaced")),
            "{said:?}"
        );
    }
}
