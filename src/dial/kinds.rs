//! Which lines an offer has where the server takes audio and video both ways: what is sent, and what `receive` adds.

use super::options::{OptionError, OptionKind, OptionSpec, Options};
use super::{Direction, Line, Party};

pub const RECEIVE: &str = "receive";

/// Most lines of one kind; an offer of more says nothing that a server here could want.
pub const MOST: u32 = 4;

/// Kinds of media that may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    pub video: bool,
    pub audio: bool,
}

pub const SPEC: OptionSpec = OptionSpec {
    name: RECEIVE,
    kind: OptionKind::Texts,
    blurb: "Kinds of media to be received: video, audio or both; those that are sent where it is not set",
};

impl Receive {
    pub fn of(options: &Options) -> Result<Option<Self>, OptionError> {
        let Some(names) = options.texts(RECEIVE) else {
            return Ok(None);
        };
        let mut receive = Self {
            video: false,
            audio: false,
        };
        for name in &names {
            match name.as_str() {
                "video" => receive.video = true,
                "audio" => receive.audio = true,
                _ => {
                    let problem = format!("{:?}; video and audio are right", shortened(name));
                    return Err(OptionError::value(RECEIVE, problem));
                }
            }
        }
        Ok(Some(receive))
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(24).collect()
}

/// Lines for what is sent, `most` of a kind at most, each both ways if its kind is received; then one for each kind
/// that is only received.
pub fn lines(
    protocol: &'static str,
    party: &Party,
    receive: Option<Receive>,
    most: u32,
) -> Result<Vec<Line>, OptionError> {
    let wrong = |problem| OptionError::Party { protocol, problem };
    let mut lines = Vec::new();
    for (video, sent) in [(true, party.sends_video), (false, party.sends_audio)] {
        if sent > most {
            return Err(wrong(match most {
                1 => "more than one stream of a kind is sent; one is taken",
                _ => "too many streams of a kind are sent",
            }));
        }
        let chosen = receive.map(|receive| if video { receive.video } else { receive.audio });
        let back = party.receives && chosen.unwrap_or(sent > 0);
        let direction = match (sent > 0, back) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => continue,
        };
        let count = sent.max(1) as usize;
        lines.extend(std::iter::repeat_n(Line { video, direction }, count));
    }
    match lines.is_empty() {
        true if party.receives => Err(wrong(
            "nothing is sent; option receive says which kinds of media are to be received",
        )),
        true => Err(wrong("nothing is sent and nothing is received")),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Value;
    use super::Direction::{RecvOnly, SendOnly, SendRecv};
    use super::*;

    fn of(sends: (u32, u32), receives: bool, receive: Option<&str>) -> Vec<(bool, Direction)> {
        let party = Party {
            sends_video: sends.0,
            sends_audio: sends.1,
            receives,
        };
        let set = receive.map(|text| (RECEIVE.to_owned(), Value::Text(text.into())));
        let receive = Receive::of(&set.into_iter().collect()).unwrap();
        let lines = lines("offer", &party, receive, 2).unwrap_or_default();
        let lines = lines.iter().map(|line| (line.video, line.direction));
        lines.collect()
    }

    #[test]
    fn what_is_sent_comes_back_where_somebody_receives() {
        assert_eq!(of((1, 0), false, None), [(true, SendOnly)]);
        assert_eq!(of((1, 0), true, None), [(true, SendRecv)]);
        assert_eq!(
            of((1, 1), true, None),
            [(true, SendRecv), (false, SendRecv)]
        );
        assert_eq!(of((2, 0), true, None), [(true, SendRecv); 2]);
    }

    #[test]
    fn receive_chooses_what_comes_back() {
        assert_eq!(
            of((0, 1), true, Some("video")),
            [(true, RecvOnly), (false, SendOnly)]
        );
        assert_eq!(of((1, 0), true, Some("")), [(true, SendOnly)]);
        assert_eq!(
            of((0, 0), true, Some("audio, video")),
            [(true, RecvOnly), (false, RecvOnly)]
        );
        assert_eq!(of((1, 0), false, Some("audio")), [(true, SendOnly)]);
    }

    #[test]
    fn an_offer_of_nothing_or_of_too_much_is_refused() {
        for (sends, receives) in [
            ((0, 0), true),
            ((0, 0), false),
            ((3, 0), true),
            ((0, 3), false),
        ] {
            assert_eq!(of(sends, receives, None), []);
        }
        let set = [(RECEIVE.to_owned(), Value::Text("video,smell".into()))];
        let error = Receive::of(&set.into_iter().collect()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "option receive: \"smell\"; video and audio are right"
        );
    }
}
