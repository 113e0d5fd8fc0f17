//! Which m-line carries what is sent to a peer, and so which direction each line has in the answer.

use crate::logic::media::Media;

/// Where a stream to a peer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// What is made of the peer's own stream, by its mid.
    Stream(String),
    /// The n-th stream of that kind that somebody publishes to the session.
    Published(Media, u32),
}

/// What a session has for each of its peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Returns {
    /// What is made of a video stream, and of an audio stream; `None`: nothing that is sent back.
    pub of_video: Option<Media>,
    pub of_audio: Option<Media>,
    /// How many streams of each kind are published.
    pub video: u32,
    pub audio: u32,
}

impl Returns {
    /// A stream for every line: where directions are not ours to say.
    pub const UNLIMITED: Self = Self {
        of_video: None,
        of_audio: None,
        video: u32::MAX,
        audio: u32::MAX,
    };

    /// What becomes of a stream of that kind.
    pub fn of(&self, media: Media) -> Option<Media> {
        match media {
            Media::Video => self.of_video,
            Media::Audio => self.of_audio,
        }
    }
}

/// An m-line as its offer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLine {
    pub mid: String,
    /// "audio", "video" or "application".
    pub kind: String,
    /// Whether the peer wants to send on it, and to receive.
    pub sends: bool,
    pub receives: bool,
}

impl MediaLine {
    pub fn media(&self) -> Option<Media> {
        Media::of_word(&self.kind)
    }
}

/// A line that carries something to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub source: Source,
    pub mid: String,
    pub media: Media,
}

/// Gives every source a line of its kind that the peer receives on: its own where it has one, else the first that is free.
///
/// A source that finds none is in the list of no line; a line that no source wants is not sent on.
pub fn assign(lines: &[MediaLine], returns: &Returns) -> Vec<Assigned> {
    let mut wanting = Vec::new();
    for line in lines.iter().filter(|line| line.sends) {
        if let Some(media) = line.media().and_then(|media| returns.of(media)) {
            wanting.push((Source::Stream(line.mid.clone()), media));
        }
    }
    for (media, count) in [(Media::Video, returns.video), (Media::Audio, returns.audio)] {
        // A peer has fewer lines than that, however many are published.
        for number in 0..count.min(lines.len() as u32) {
            wanting.push((Source::Published(media, number), media));
        }
    }
    let mut assigned: Vec<Assigned> = Vec::new();
    let fits = |line: &MediaLine, media| line.receives && line.media() == Some(media);
    // Their own lines first, so that nobody else takes them.
    let (own, others): (Vec<_>, Vec<_>) = wanting.into_iter().partition(|(source, media)| {
        let own = lines
            .iter()
            .find(|l| Source::Stream(l.mid.clone()) == *source);
        own.is_some_and(|line| fits(line, *media))
    });
    for (source, media) in own {
        if let Source::Stream(mid) = &source {
            let mid = mid.clone();
            assigned.push(Assigned { source, mid, media });
        }
    }
    for (source, media) in others {
        let taken = |mid: &str| assigned.iter().any(|a| a.mid == mid);
        let free = lines.iter().find(|l| fits(l, media) && !taken(&l.mid));
        if let Some(line) = free {
            let mid = line.mid.clone();
            assigned.push(Assigned { source, mid, media });
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mid: &str, kind: &str, direction: &str) -> MediaLine {
        MediaLine {
            mid: mid.into(),
            kind: kind.into(),
            sends: matches!(direction, "sendrecv" | "sendonly"),
            receives: matches!(direction, "sendrecv" | "recvonly"),
        }
    }

    fn mids(lines: &[MediaLine], returns: Returns) -> Vec<(Source, String)> {
        let assigned = assign(lines, &returns);
        assigned.into_iter().map(|a| (a.source, a.mid)).collect()
    }

    fn stream(mid: &str) -> Source {
        Source::Stream(mid.into())
    }

    const ECHO: Returns = Returns {
        of_video: Some(Media::Video),
        of_audio: Some(Media::Audio),
        video: 0,
        audio: 0,
    };

    #[test]
    fn a_stream_comes_back_on_its_own_line() {
        let lines = [
            line("0", "audio", "sendrecv"),
            line("1", "video", "sendrecv"),
            line("2", "video", "sendrecv"),
            line("3", "application", "sendrecv"),
        ];
        let expected = ["0", "1", "2"].map(|mid| (stream(mid), mid.to_owned()));
        assert_eq!(mids(&lines, ECHO), expected);
    }

    #[test]
    fn a_line_that_only_sends_gets_its_answer_on_one_that_only_receives() {
        let lines = [
            line("a", "video", "recvonly"),
            line("b", "video", "sendonly"),
            line("c", "video", "sendrecv"),
        ];
        let expected = [("c", "c"), ("b", "a")].map(|(from, to)| (stream(from), to.to_owned()));
        assert_eq!(mids(&lines, ECHO), expected);
    }

    #[test]
    fn audio_may_become_video() {
        let lines = [
            line("0", "audio", "sendonly"),
            line("1", "video", "recvonly"),
            line("2", "video", "recvonly"),
        ];
        let meter = Returns {
            of_audio: Some(Media::Video),
            ..Returns::default()
        };
        assert_eq!(mids(&lines, meter), [(stream("0"), "1".to_owned())]);
    }

    #[test]
    fn what_the_peer_does_not_receive_has_no_line() {
        let lines = [
            line("0", "video", "sendonly"),
            line("1", "audio", "inactive"),
        ];
        assert_eq!(mids(&lines, ECHO), []);
    }

    #[test]
    fn what_is_published_takes_free_lines_in_order() {
        let lines = [
            line("0", "video", "sendrecv"),
            line("1", "video", "recvonly"),
            line("2", "audio", "recvonly"),
        ];
        let published = Returns {
            video: 9,
            audio: 1,
            ..Returns::default()
        };
        let expected = [
            (Source::Published(Media::Video, 0), "0".to_owned()),
            (Source::Published(Media::Video, 1), "1".to_owned()),
            (Source::Published(Media::Audio, 0), "2".to_owned()),
        ];
        assert_eq!(mids(&lines, published), expected);
    }

    proptest::proptest! {
        #[test]
        fn no_line_carries_two_sources_or_the_wrong_kind(
            kinds in proptest::collection::vec((0usize..3, 0usize..4), 0..16),
            of_video in 0usize..3, of_audio in 0usize..3, video in 0u32..4, audio in 0u32..4,
        ) {
            const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
            const MEDIA: [Option<Media>; 3] = [None, Some(Media::Video), Some(Media::Audio)];
            let lines: Vec<_> = kinds.iter().enumerate().map(|(at, (kind, direction))| {
                line(&at.to_string(), ["audio", "video", "application"][*kind], DIRECTIONS[*direction])
            }).collect();
            let returns = Returns { of_video: MEDIA[of_video], of_audio: MEDIA[of_audio], video, audio };
            let assigned = assign(&lines, &returns);
            for (at, one) in assigned.iter().enumerate() {
                let line = lines.iter().find(|line| line.mid == one.mid).unwrap();
                proptest::prop_assert!(line.receives && line.media() == Some(one.media));
                let twice = assigned[..at].iter().any(|o| o.mid == one.mid || o.source == one.source);
                proptest::prop_assert!(!twice);
            }
        }
    }
}
