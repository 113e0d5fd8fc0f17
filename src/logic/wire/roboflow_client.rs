//! Roboflow's session from the client's side: what is posted for it, and what its data channel says.
//!
//! The server is trusted with nothing: whatever comes is read within bounds, and what cannot be read is told and survived.
//! The other side of the same protocol is in `roboflow`.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

mod frame;
mod reassembler;
mod reply;
mod request;

pub use frame::{Frame, Metadata, Picture, Said};
pub use reassembler::{MAX_MESSAGE, Reassembler, ReassemblyError, Whole};
pub use reply::{Answer, AnswerError, answer, refusal};
pub use request::{AllButPictures, Request, Workflow, ack};

/// Where the request for a session is posted, below the server's address.
pub const ROUTE: &str = "/initialise_webrtc_worker";
/// The channel that frames are told on.
pub const CHANNEL: &str = "inference";
/// The channel that a file goes over.
pub const UPLOAD_CHANNEL: &str = "video_upload";

/// Losses that are no farther apart are told as one.
const TOGETHER: Duration = Duration::from_secs(1);

/// Reads the data channel of one session.
#[derive(Debug)]
pub struct Reader {
    reassembler: Reassembler,
    /// Of those that never became whole, but for what was too long, which is told as such; and when.
    told: u64,
    told_at: Option<Instant>,
    zone: TimeZone,
}

impl Reader {
    /// `zone` is the one that the server's clock shows.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            reassembler: Reassembler::default(),
            told: 0,
            told_at: None,
            zone,
        }
    }

    /// What a message of the channel says, alone or with those before it.
    pub fn read(&mut self, message: &[u8], binary: bool, now: Instant) -> Said {
        match self.reassembler.take(message, binary, now) {
            Ok(Some(whole)) => frame::read(whole.id, &whole.bytes, &self.zone),
            Ok(None) => Said::Ignored,
            Err(error) => Said::Broken(error.to_string()),
        }
    }

    /// What is to be told of messages that never became whole: the first at once, the next together.
    pub fn lost(&mut self, now: Instant) -> Option<String> {
        let lost = self.reassembler.lost();
        let all = lost.crowded + lost.late + lost.replaced;
        let is_early = |at| now.saturating_duration_since(at) < TOGETHER;
        if all == self.told || self.told_at.is_some_and(is_early) {
            return None;
        }
        self.told_at = Some(now);
        let new = all - std::mem::replace(&mut self.told, all);
        Some(format!(
            "{new} more messages never became whole; in all {} had no room, of {} a piece was late, {} were replaced",
            lost.crowded, lost.late, lost.replaced
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};

    use super::reassembler::tests::piece;
    use super::*;

    fn reader() -> Reader {
        Reader::new(TimeZone::fixed(jiff::tz::offset(2)))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn whole(message: &[u8]) -> Said {
        reader().read(&piece(1, 0, 1, message), true, Instant::now())
    }

    fn message() -> Value {
        json!({
            "serialized_output_data": null, "video_metadata": { "frame_id": 3 }, "errors": ["bad"], "processing_complete": false,
            "termination_reason": null,
        })
    }

    #[test]
    fn a_frame_is_read_from_text_from_one_piece_and_from_many_packed_or_not() {
        let text = message().to_string();
        let mut packed = reader();
        let gzip = gzip(text.as_bytes());
        let mut last = Said::Ignored;
        let pieces = gzip.chunks(10);
        let total = pieces.len() as u32;
        for (index, bytes) in (0..).zip(pieces) {
            assert_eq!(last, Said::Ignored);
            last = packed.read(&piece(3, index, total, bytes), true, Instant::now());
        }
        let alone = reader().read(text.as_bytes(), false, Instant::now());
        for said in [last, alone, whole(text.as_bytes()), whole(&gzip)] {
            let Said::Frame(frame) = said else {
                panic!("{said:?}");
            };
            assert_eq!((frame.id, frame.errors), (Some(3), vec!["bad".to_owned()]));
        }
    }

    #[test]
    fn what_never_became_whole_is_told_at_once_and_then_together() {
        let mut reader = reader();
        let now = Instant::now();
        let mut begin = |pieces, after| {
            // Under the same id another one begins each time.
            let now = now + Duration::from_millis(after);
            assert_eq!(
                reader.read(&piece(1, 0, pieces, b"a"), true, now),
                Said::Ignored
            );
            reader.lost(now)
        };
        assert_eq!(begin(2, 0), None);
        let first = begin(3, 0).unwrap();
        assert!(
            first.starts_with("1 more messages") && first.contains("1 were replaced"),
            "{first}"
        );
        assert_eq!((begin(4, 0), begin(5, 999)), (None, None));
        let rest = begin(6, 1000).unwrap();
        assert!(
            rest.starts_with("3 more messages") && rest.contains("4 were replaced"),
            "{rest}"
        );
        assert_eq!(begin(6, 5000), None);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_session_goes_on() {
        let packed = gzip(message().to_string().as_bytes());
        let mut corrupt = packed.clone();
        corrupt[14] ^= 0xff;
        for (message, part) in [
            (&b"\x1f\x8b"[..], "gzip"),
            (&packed[..packed.len() - 3], "gzip"),
            (&corrupt, "gzip"),
            (b"[]", "object"),
            (b"7", "object"),
            (b"{\"a\":\"\xff\"}", "UTF-8"),
            (b"{\"errors\":[}", "JSON"),
        ] {
            let mut reader = reader();
            let said = reader.read(&piece(1, 0, 1, message), true, Instant::now());
            assert!(
                matches!(&said, Said::Broken(why) if why.contains(part)),
                "{said:?}"
            );
            let next = reader.read(message_bytes().as_bytes(), false, Instant::now());
            assert!(matches!(next, Said::Frame(_)));
        }
        let index = reader().read(&piece(1, 4, 3, b"a"), true, Instant::now());
        assert!(matches!(&index, Said::Broken(why) if why.contains("piece 4 of 3")));
    }

    fn message_bytes() -> String {
        message().to_string()
    }

    #[test]
    fn what_inflates_without_end_is_stopped() {
        let mut bomb = br#"{"errors":[""#.to_vec();
        bomb.resize(65 << 20, b'a');
        let bomb = gzip(&bomb);
        assert!(bomb.len() < 1 << 20);
        let said = whole(&bomb);
        assert!(matches!(&said, Said::Broken(why) if why.contains("at most")));
    }

    #[test]
    fn more_values_than_anyone_means_are_not_unfolded() {
        let many = format!(r#"{{"errors":[{}0]}}"#, "0,".repeat(2 << 20));
        let said = whole(many.as_bytes());
        assert!(matches!(&said, Said::Broken(why) if why.contains("values")));
        let deep = format!(r#"{{"errors":{}"#, "[".repeat(100_000));
        assert!(matches!(whole(deep.as_bytes()), Said::Broken(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(messages: Vec<(Vec<u8>, bool)>) {
            let mut reader = reader();
            for (message, binary) in &messages {
                reader.read(message, *binary, Instant::now());
                reader.read(&piece(1, 0, 1, message), true, Instant::now());
            }
        }

        #[test]
        fn values_of_any_type_in_any_place_are_survived(places in proptest::collection::vec((0usize..16, 0usize..9), 0..6)) {
            const NAMES: [&str; 16] = [
                "video_metadata", "serialized_output_data", "errors", "processing_complete", "termination_reason", "frame_id",
                "received_at", "pts", "time_base", "width", "predictions", "type", "value", "x", "class", "other",
            ];
            let mut message = json!({});
            let mut at = &mut message;
            for (name, value) in places {
                let value = [
                    json!({}), json!([]), json!(null), json!(-1), json!(1e300), json!("base64"), json!(true), json!([{}]),
                    json!(u64::MAX),
                ][value].clone();
                let is_object = value.is_object();
                at[NAMES[name]] = value;
                if is_object {
                    at = &mut at[NAMES[name]];
                }
            }
            whole(message.to_string().as_bytes());
        }
    }
}
