//! Looks at a peer's session description before any parser does.
//!
//! A description is bounded, its lines must agree with each other, and what we could not use anyway
//! (mDNS and TCP candidates) is taken out. What passes here is still only text: `peer` negotiates.

use std::collections::HashSet;

use crate::logic::return_lines::{Assigned, MediaLine, Returns, assign};

/// Longest session description that is read.
pub const MAX_SDP_BYTES: usize = 64 * 1024;
/// Most m-lines in a description.
pub const MAX_MEDIA_LINES: usize = 16;
/// Most candidates in a description.
pub const MAX_CANDIDATES: usize = 200;

/// Most lines in a description; browsers write a few hundred.
pub const MAX_LINES: usize = 1500;
/// Longest candidate; browsers write some 150 characters.
pub const MAX_CANDIDATE: usize = 512;
/// Longest mid.
pub const MAX_MID: usize = 16;

/// Why a session description is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("the session description has {0} bytes; at most {MAX_SDP_BYTES} are read")]
    TooLong(usize),
    #[error("this is no session description: it starts with {0:?} instead of \"v=0\"")]
    NotSdp(String),
    #[error("line {line} of the session description, {text:?}, is not of the form \"k=value\"")]
    BadLine { line: usize, text: String },
    #[error("the session description has {0} m-lines; at most {MAX_MEDIA_LINES} are accepted")]
    TooManyMediaLines(usize),
    #[error("the session description has {0} candidates; at most {MAX_CANDIDATES} are accepted")]
    TooManyCandidates(usize),
    #[error("the session description has {0} lines; at most {MAX_LINES} are accepted")]
    TooManyLines(usize),
    #[error(
        "{attribute} has {length} characters; {least} to {most} letters, digits, + and / are right"
    )]
    BadCredential {
        attribute: &'static str,
        length: usize,
        least: usize,
        most: usize,
    },
    #[error("{0} stands there with several values; the m-lines of a bundle have one")]
    Differing(&'static str),
    #[error("ice-ufrag and ice-pwd come together; only one of them is there")]
    HalfCredentials,
    #[error("the offer has no audio or video m-line; at least one is needed")]
    NoMedia,
    #[error("m-line {0} has no a=mid; every m-line needs one of its own")]
    MissingMid(usize),
    #[error("a=mid:{0:?}: a mid of 1 to {MAX_MID} letters, digits and underscores is accepted")]
    BadMid(String),
    #[error(
        "{0:?} is no candidate; \"candidate:1 1 udp 2122260223 192.0.2.1 9 typ host\" is right"
    )]
    BadCandidate(String),
    #[error("a=mid:{0} stands on more than one m-line; every m-line needs one of its own")]
    DuplicateMid(String),
    #[error("a=group:BUNDLE names {0:?}, which is the mid of no m-line")]
    UnknownBundleMid(String),
    #[error("{attribute} stands {count} times in one section; once is right")]
    Repeated {
        attribute: &'static str,
        count: usize,
    },
    #[error("m-line {line} has no {attribute}, and the session has none either")]
    MissingTransport {
        attribute: &'static str,
        line: usize,
    },
    #[error("the {kind} line offers none of the codecs that are taken here: {known}")]
    NoCodec { kind: String, known: String },
    #[error(
        "a re-offer must keep every m-line in its place: m-line {index} was {was:?}, is {is:?}"
    )]
    Reordered {
        index: usize,
        was: String,
        is: String,
    },
}

/// An offer that may be given to a parser.
#[derive(Debug, Clone)]
pub struct CheckedOffer {
    pub sdp: String,
    /// What later offers of the same connection are compared with.
    pub media: Vec<MediaLine>,
    /// The lines that we send on.
    pub returns: Vec<Assigned>,
    /// Whether the peer tells how packets arrive, by which bandwidth is estimated.
    pub transport_feedback: bool,
    /// Whether something may be sent, now or after a later offer.
    pub may_return: bool,
}

impl CheckedOffer {
    /// Whether it has a line for audio or video.
    pub fn has_media(&self) -> bool {
        self.media.iter().any(|line| line.media().is_some())
    }
}

/// One section of a description: the session's, or an m-line's.
struct Section<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn attributes(&self, name: &'a str) -> impl Iterator<Item = &'a str> + '_ {
        self.lines.iter().filter_map(move |line| {
            let rest = line.strip_prefix("a=")?.strip_prefix(name)?;
            match rest.strip_prefix(':') {
                Some(value) => Some(value.trim()),
                None => rest.is_empty().then_some(rest),
            }
        })
    }

    fn direction(&self) -> Option<&'a str> {
        const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
        let attributes = self.lines.iter().rev().filter_map(|l| l.strip_prefix("a="));
        attributes.into_iter().find(|l| DIRECTIONS.contains(l))
    }

    fn kind(&self) -> Option<&'a str> {
        let value = self.lines.first()?.strip_prefix("m=")?;
        value.split_ascii_whitespace().next()
    }

    fn rejected(&self) -> bool {
        let port = self
            .lines
            .first()
            .and_then(|l| l.split_ascii_whitespace().nth(1));
        port == Some("0") && self.attributes("bundle-only").next().is_none()
    }

    fn once(&self, attribute: &'static str) -> Result<bool, SdpError> {
        match self.attributes(attribute).count() {
            count @ 0..=1 => Ok(count == 1),
            count => Err(SdpError::Repeated { attribute, count }),
        }
    }
}

/// Checks an offer and takes out what we cannot use.
///
/// `previous` are the m-lines of the connection's last offer, empty for a first one. Where we have nothing to send,
/// according to `returns`, a line that wants both directions is answered as if it only sent.
pub fn check_offer(
    text: &str,
    previous: &[MediaLine],
    returns: &Returns,
) -> Result<CheckedOffer, SdpError> {
    if text.len() > MAX_SDP_BYTES {
        return Err(SdpError::TooLong(text.len()));
    }
    if text.trim_end().lines().next().map(str::trim_end) != Some("v=0") {
        return Err(SdpError::NotSdp(text.chars().take(24).collect()));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        return Err(SdpError::TooManyLines(lines));
    }
    let mut sections = vec![Section { lines: Vec::new() }];
    for (index, line) in text.lines().map(str::trim_end).enumerate() {
        if line.is_empty() {
            continue;
        }
        check_line(index, line)?;
        if line.starts_with("m=") {
            sections.push(Section { lines: Vec::new() });
        }
        sections
            .last_mut()
            .expect("it starts with one section")
            .lines
            .push(line);
    }
    let (session, media) = sections.split_first().expect("it starts with one section");

    if media.len() > MAX_MEDIA_LINES {
        return Err(SdpError::TooManyMediaLines(media.len()));
    }
    let candidates = sections
        .iter()
        .map(|s| s.attributes("candidate").count())
        .sum();
    if candidates > MAX_CANDIDATES {
        return Err(SdpError::TooManyCandidates(candidates));
    }
    let lines = check_mids(session, media)?;
    check_transport(session, media)?;
    for (index, was) in previous.iter().enumerate() {
        let is = lines.get(index).map(|l| l.mid.as_str()).unwrap_or_default();
        if was.mid != is || Some(was.kind.as_str()) != lines.get(index).map(|l| l.kind.as_str()) {
            return Err(SdpError::Reordered {
                index,
                was: was.mid.clone(),
                is: is.to_owned(),
            });
        }
    }
    let may_return = *returns != Returns::default();
    let returns = assign(&lines, returns);
    let transport_feedback = media.iter().any(|section| {
        let mut feedback = section.attributes("rtcp-fb");
        feedback.any(|value| value.ends_with(" transport-cc"))
    });
    Ok(CheckedOffer {
        sdp: rewrite(&sections, &lines, &returns),
        media: lines,
        returns,
        transport_feedback,
        may_return,
    })
}

/// The form of the line of that index, counted from 0; an empty one has none to be wrong.
pub(super) fn check_line(index: usize, line: &str) -> Result<(), SdpError> {
    let mut chars = line.chars();
    let form = chars.next().is_none_or(|c| c.is_ascii_lowercase())
        && (line.is_empty() || chars.next() == Some('='));
    if form && !line.contains(|c: char| c.is_control() && c != '\t') {
        return Ok(());
    }
    Err(SdpError::BadLine {
        line: index + 1,
        text: line.chars().take(40).collect(),
    })
}

fn check_mids(session: &Section, media: &[Section]) -> Result<Vec<MediaLine>, SdpError> {
    let mut seen = HashSet::new();
    let mut lines = Vec::with_capacity(media.len());
    for (index, section) in media.iter().enumerate() {
        section.once("mid")?;
        let mid = section
            .attributes("mid")
            .next()
            .filter(|mid| !mid.is_empty());
        let mid = mid.ok_or(SdpError::MissingMid(index))?;
        // The transport tells longer and other names apart no more.
        if mid.len() > MAX_MID || !mid.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(SdpError::BadMid(mid.chars().take(24).collect()));
        }
        if !seen.insert(mid) {
            return Err(SdpError::DuplicateMid(mid.to_owned()));
        }
        let direction = section.direction().or_else(|| session.direction());
        let is = |one: &str| direction.unwrap_or("sendrecv") == one;
        lines.push(MediaLine {
            mid: mid.to_owned(),
            kind: section.kind().unwrap_or_default().to_owned(),
            sends: !section.rejected() && (is("sendrecv") || is("sendonly")),
            receives: !section.rejected() && (is("sendrecv") || is("recvonly")),
        });
    }
    for group in session.attributes("group") {
        let mut words = group.split_ascii_whitespace();
        if words.next() == Some("BUNDLE")
            && let Some(unknown) = words.find(|mid| !seen.contains(mid))
        {
            return Err(SdpError::UnknownBundleMid(unknown.to_owned()));
        }
    }
    Ok(lines)
}

fn check_transport(session: &Section, media: &[Section]) -> Result<(), SdpError> {
    for attribute in ["ice-ufrag", "ice-pwd"] {
        let of_session = session.once(attribute)?;
        for (index, section) in media.iter().enumerate() {
            if !section.once(attribute)? && !of_session && !section.rejected() {
                return Err(SdpError::MissingTransport {
                    attribute,
                    line: index,
                });
            }
        }
    }
    for attribute in ["ice-ufrag", "ice-pwd"] {
        for value in std::iter::once(session)
            .chain(media)
            .flat_map(|section| section.attributes(attribute))
        {
            check_credential(attribute, value)?;
        }
    }
    let of_session = session.attributes("fingerprint").next().is_some();
    match media
        .iter()
        .position(|m| !of_session && !m.rejected() && m.attributes("fingerprint").next().is_none())
    {
        Some(line) => Err(SdpError::MissingTransport {
            attribute: "fingerprint",
            line,
        }),
        None => Ok(()),
    }
}

/// A value of `ice-ufrag` or `ice-pwd`.
pub(super) fn check_credential(attribute: &'static str, value: &str) -> Result<(), SdpError> {
    // RFC 8839 allows longer names than one STUN message of ours can carry.
    let (least, most) = match attribute {
        "ice-ufrag" => (4, 64),
        _ => (22, 256),
    };
    let sound = value.bytes().all(|b| b.is_ascii_graphic());
    if sound && (least..=most).contains(&value.len()) {
        return Ok(());
    }
    Err(SdpError::BadCredential {
        attribute,
        length: value.chars().count(),
        least,
        most,
    })
}

fn rewrite(sections: &[Section], lines: &[MediaLine], returns: &[Assigned]) -> String {
    let mut out = String::new();
    // The session's own section stands before the lines'.
    let lines = std::iter::once(None).chain(lines.iter().map(Some));
    for (section, media) in sections.iter().zip(lines) {
        for line in &section.lines {
            match *line {
                // Each line gets its own at its end; on the session's level a direction is only a default.
                "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive" => continue,
                line if line.starts_with("a=candidate:") && !usable_candidate(line) => continue,
                line => out.push_str(line),
            }
            out.push_str("\r\n");
        }
        if let Some(line) = media.filter(|line| line.media().is_some()) {
            let receives = returns.iter().any(|assigned| assigned.mid == line.mid);
            out.push_str(match (line.sends, receives) {
                (true, true) => "a=sendrecv\r\n",
                (true, false) => "a=sendonly\r\n",
                (false, true) => "a=recvonly\r\n",
                (false, false) => "a=inactive\r\n",
            });
        }
    }
    out
}

/// The first line that its peer would send on and that an answer has rejected.
pub fn rejected_line<'a>(answer: &str, offered: &'a [MediaLine]) -> Option<&'a MediaLine> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("m="));
    let rejected = |line: &str| line.split_ascii_whitespace().nth(1) == Some("0");
    let mut both = lines.zip(offered);
    let (_, line) = both.find(|(answered, line)| line.sends && rejected(answered))?;
    Some(line)
}

/// The first line that an answer would lack: its kind is unknown, or a parser stopped there, according to what it wrote of
/// what it had read.
pub fn unanswered_line<'a>(read: &str, offered: &'a [MediaLine]) -> Option<&'a MediaLine> {
    let known = |line: &MediaLine| line.media().is_some() || line.kind == "application";
    let read = read.lines().filter(|line| line.starts_with("m=")).count();
    let mut lines = offered.iter().enumerate();
    let (_, line) = lines.find(|(index, line)| *index >= read || !known(line))?;
    Some(line)
}

/// A candidate that came by itself, as browsers write it: `candidate:…` with eight words or more.
///
/// `None` is nothing to add: the end of candidates (an empty text), or one that is not spoken here.
pub fn check_candidate(text: &str) -> Result<Option<String>, SdpError> {
    let line = text.trim();
    let line = line.strip_prefix("a=").unwrap_or(line);
    if line.is_empty() {
        return Ok(None);
    }
    let bad = || SdpError::BadCandidate(text.chars().take(80).collect());
    if line.len() > MAX_CANDIDATE || !line.starts_with("candidate:") {
        return Err(bad());
    }
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |at: usize| words[at].parse::<u32>().is_ok();
    let port = |at: usize| words[at].parse::<u16>().is_ok();
    if words.len() < 8 || !number(1) || !number(3) || !port(5) || words[6] != "typ" {
        return Err(bad());
    }
    Ok(usable_candidate(line).then(|| line.to_owned()))
}

/// mDNS names are not resolved (their owner shows itself as a peer-reflexive candidate); only UDP is spoken.
fn usable_candidate(line: &str) -> bool {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    words.get(2).is_some_and(|t| t.eq_ignore_ascii_case("udp"))
        && words
            .get(4)
            .is_some_and(|a| a.parse::<std::net::IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::media::Media;

    fn check(text: &str, previous: &[MediaLine]) -> Result<CheckedOffer, SdpError> {
        check_offer(text, previous, &Returns::default())
    }

    fn offer(session: &str, media: &[&str]) -> String {
        let mut text = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 00:11\r\n{session}"
        );
        for m in media {
            text.push_str(m);
        }
        text
    }

    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\na=sendrecv\r\n";
    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\n";

    #[test]
    fn lines_that_want_both_directions_are_answered_as_if_they_sent() {
        let checked = check(&offer("", &[VIDEO, AUDIO]), &[]).unwrap();
        assert_eq!(checked.sdp.matches("a=sendonly").count(), 2);
        assert!(!checked.sdp.contains("a=sendrecv"));
        assert_eq!(checked.media[1].kind, "audio");
    }

    #[test]
    fn a_line_that_only_receives_gets_nothing() {
        let text = offer("", &[&VIDEO.replace("sendrecv", "recvonly")]);
        assert!(check(&text, &[]).unwrap().sdp.contains("a=inactive"));
    }

    #[test]
    fn each_line_has_the_direction_of_what_is_sent_on_it() {
        let echo = Returns {
            of_video: Some(Media::Video),
            ..Returns::default()
        };
        for (asked, right) in [
            ("sendrecv", "sendrecv"),
            ("sendonly", "sendonly"),
            ("recvonly", "inactive"),
            ("inactive", "inactive"),
        ] {
            let text = offer("", &[&VIDEO.replace("sendrecv", asked), AUDIO]);
            let checked = check_offer(&text, &[], &echo).unwrap();
            let said: Vec<_> = checked.sdp.matches(&format!("a={right}\r\n")).collect();
            assert_eq!(said.len(), 1 + usize::from(right == "sendonly"), "{asked}");
        }
        let published = Returns {
            video: 1,
            ..Returns::default()
        };
        let text = offer("a=recvonly\r\n", &[&VIDEO.replace("a=sendrecv\r\n", "")]);
        let checked = check_offer(&text, &[], &published).unwrap();
        assert!(checked.sdp.ends_with("a=recvonly\r\n"), "{}", checked.sdp);
    }

    #[test]
    fn feedback_of_the_transport_is_noticed() {
        assert!(!check(&offer("", &[VIDEO]), &[]).unwrap().transport_feedback);
        let line = VIDEO.replace("a=mid:0", "a=rtcp-fb:96 transport-cc\r\na=mid:0");
        assert!(check(&offer("", &[&line]), &[]).unwrap().transport_feedback);
    }

    #[test]
    fn text_that_is_no_description_is_refused_with_its_beginning() {
        let error = check("hello", &[]).unwrap_err();
        assert_eq!(error, SdpError::NotSdp("hello".into()));
        assert!(matches!(check("", &[]), Err(SdpError::NotSdp(_))));
        assert!(matches!(
            check("v=0\r\nnonsense", &[]),
            Err(SdpError::BadLine { line: 2, .. })
        ));
    }

    #[test]
    fn bounds_hold_before_anything_is_parsed() {
        assert!(matches!(
            check(&"v".repeat(MAX_SDP_BYTES + 1), &[]),
            Err(SdpError::TooLong(_))
        ));
        let lines: Vec<_> = (0..17)
            .map(|n| VIDEO.replace("mid:0", &format!("mid:{n}")))
            .collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            check(&offer("", &lines), &[]).unwrap_err(),
            SdpError::TooManyMediaLines(17)
        );
        let candidate = "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";
        let text = offer("", &[VIDEO, &candidate.repeat(201)]);
        assert_eq!(
            check(&text, &[]).unwrap_err(),
            SdpError::TooManyCandidates(201)
        );
        let text = offer("", &[VIDEO, &candidate.repeat(200)]);
        assert!(check(&text, &[]).is_ok());
    }

    #[test]
    fn two_session_credentials_are_refused() {
        let text = offer(
            "a=ice-ufrag:a\r\na=ice-ufrag:b\r\n",
            &["m=video 9 X 96\r\na=mid:0\r\n"],
        );
        assert!(matches!(
            check(&text, &[]),
            Err(SdpError::Repeated {
                attribute: "ice-ufrag",
                count: 2
            })
        ));
    }

    #[test]
    fn credentials_of_a_length_that_cannot_be_sent_are_refused() {
        let long = "u".repeat(65);
        for (was, is, attribute, length) in [
            ("user", "use", "ice-ufrag", 3),
            ("user", &long, "ice-ufrag", 65),
            ("twenty-two-characters!", "short", "ice-pwd", 5),
        ] {
            let text = offer("", &[&VIDEO.replace(was, is)]);
            let error = check(&text, &[]).unwrap_err();
            let SdpError::BadCredential {
                attribute: a,
                length: l,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((a, l), (attribute, length));
        }
    }

    #[test]
    fn a_reoffer_keeps_its_lines_in_place() {
        let first = check(&offer("", &[VIDEO, AUDIO]), &[]).unwrap();
        assert!(check(&offer("", &[VIDEO, AUDIO]), &first.media).is_ok());
        assert!(matches!(
            check(&offer("", &[AUDIO, VIDEO]), &first.media),
            Err(SdpError::Reordered { index: 0, .. })
        ));
        assert!(matches!(
            check(&offer("", &[VIDEO]), &first.media),
            Err(SdpError::Reordered { index: 1, .. })
        ));
    }

    #[test]
    fn mids_are_needed_and_unique_and_bundles_name_them() {
        let text = offer("", &[&VIDEO.replace("a=mid:0\r\n", "")]);
        assert_eq!(check(&text, &[]).unwrap_err(), SdpError::MissingMid(0));
        for bad in ["a-b", "seventeen_letters"] {
            let text = offer("", &[&VIDEO.replace("mid:0", &format!("mid:{bad}"))]);
            assert_eq!(check(&text, &[]).unwrap_err(), SdpError::BadMid(bad.into()));
        }
        let text = offer("", &[VIDEO, VIDEO]);
        assert_eq!(
            check(&text, &[]).unwrap_err(),
            SdpError::DuplicateMid("0".into())
        );
        let text = offer("a=group:BUNDLE 0 7\r\n", &[VIDEO]);
        assert_eq!(
            check(&text, &[]).unwrap_err(),
            SdpError::UnknownBundleMid("7".into())
        );
    }

    #[test]
    fn a_line_that_an_answer_rejects_is_found() {
        let offered = check(&offer("", &[VIDEO, AUDIO]), &[]).unwrap().media;
        let answer = |video: u8, audio: u8| {
            format!("v=0\r\nm=video {video} X 96\r\na=mid:0\r\nm=audio {audio} X 111\r\n")
        };
        assert_eq!(rejected_line(&answer(9, 9), &offered), None);
        assert_eq!(rejected_line(&answer(9, 0), &offered), Some(&offered[1]));
        let inactive = MediaLine {
            sends: false,
            ..offered[0].clone()
        };
        assert_eq!(rejected_line(&answer(0, 0), &[inactive]), None);
    }

    #[test]
    fn a_candidate_by_itself_is_checked() {
        let plain = "candidate:1 1 udp 2122260223 192.0.2.1 63692 typ host";
        let browsers = format!("{plain} generation 0 ufrag x network-id 1");
        for text in [plain, &browsers] {
            assert_eq!(check_candidate(text), Ok(Some(text.to_owned())));
            assert_eq!(
                check_candidate(&format!("a={text}")),
                Ok(Some(text.to_owned()))
            );
        }
        let nothing_to_add = [
            "",
            "candidate:1 1 udp 1 abc.local 9 typ host",
            "candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
        ];
        for text in nothing_to_add {
            assert_eq!(check_candidate(text), Ok(None), "{text}");
        }
        let long = format!("{plain} {}", "x".repeat(MAX_CANDIDATE));
        for text in [
            "hello",
            "candidate:1 1 udp 1 192.0.2.1 9 typ",
            "candidate:1 1 udp 1 192.0.2.1 99999 typ host",
            "candidate:1 one udp 1 192.0.2.1 9 typ host",
            &long,
        ] {
            assert!(
                matches!(check_candidate(text), Err(SdpError::BadCandidate(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn only_udp_candidates_with_an_address_are_kept() {
        let lines = "a=candidate:1 1 udp 1 abc.local 9 typ host\r\n\
                     a=candidate:2 1 tcp 1 10.0.0.1 9 typ host tcptype active\r\n\
                     a=candidate:3 1 udp 1 10.0.0.1 9 typ host\r\n";
        let checked = check(&offer("", &[VIDEO, lines]), &[]).unwrap();
        assert_eq!(checked.sdp.matches("a=candidate").count(), 1);
    }

    #[test]
    fn an_offer_without_media_is_refused() {
        let text = offer(
            "",
            &[
                "m=application 9 X webrtc-datachannel\r\na=mid:0\r\na=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\n",
            ],
        );
        assert!(!check(&text, &[]).unwrap().has_media());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(v=0\r\n)?([a-z]=[ -~]{0,30}(\r)?\n){0,30}.{0,20}") {
            let _ = check(&text, &[]);
        }
    }
}
