//! The ICE part of a session description by itself, `application/trickle-ice-sdpfrag` (RFC 8840): candidates that
//! come after an offer, and the credentials of an ICE restart.

use super::sdp::{
    MAX_CANDIDATES, MAX_LINES, MAX_SDP_BYTES, SdpError, check_candidate, check_credential,
    check_line,
};

/// What names one ICE session at one of its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// Those that come first in a description. Its lines are in one bundle, so that all have the same.
    pub fn of(sdp: &str) -> Option<Self> {
        let value = |name| sdp.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            ufrag: value("a=ice-ufrag:")?.trim().to_owned(),
            pwd: value("a=ice-pwd:")?.trim().to_owned(),
        })
    }
}

/// A fragment that was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Of the ICE session that the candidates are of.
    pub credentials: Option<Credentials>,
    /// Those that are of use here.
    pub candidates: Vec<String>,
}

impl Fragment {
    /// Reads a fragment. Which m-lines it names is of no interest: all are in one bundle.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLong(text.len()));
        }
        let count = text.lines().count();
        if count > MAX_LINES {
            return Err(SdpError::TooManyLines(count));
        }
        let lines = || text.lines().map(str::trim_end);
        let attribute = |name| lines().filter_map(move |line: &str| line.strip_prefix(name));
        let count = attribute("a=candidate:").count();
        if count > MAX_CANDIDATES {
            return Err(SdpError::TooManyCandidates(count));
        }
        for (index, line) in lines().enumerate() {
            check_line(index, line)?;
        }
        let ufrag = one("ice-ufrag", attribute("a=ice-ufrag:"))?;
        let pwd = one("ice-pwd", attribute("a=ice-pwd:"))?;
        let credentials = match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) => Some(Credentials {
                ufrag: ufrag.to_owned(),
                pwd: pwd.to_owned(),
            }),
            (None, None) => None,
            _ => return Err(SdpError::HalfCredentials),
        };
        let mut candidates = Vec::new();
        for line in lines().filter(|line| line.starts_with("a=candidate:")) {
            let candidate = check_candidate(line)?;
            candidates.extend(candidate.as_deref().map(without_ufrag));
        }
        Ok(Self {
            credentials,
            candidates,
        })
    }

    /// What the far side of a restart is told: the part of our answer that is about ICE.
    pub fn of_answer(answer: &str) -> String {
        const KEPT: [&str; 7] = [
            "a=ice-lite",
            "a=ice-options:",
            "a=ice-pacing:",
            "a=ice-ufrag:",
            "a=ice-pwd:",
            "a=mid:",
            "a=candidate:",
        ];
        let mut fragment = String::new();
        let mut media = 0;
        for line in answer.lines() {
            let begins = line.starts_with("m=");
            media += usize::from(begins);
            if media > 1 {
                break;
            }
            let bundle = line.starts_with("a=group:BUNDLE");
            if begins || bundle || KEPT.iter().any(|kept| line.starts_with(kept)) {
                fragment.push_str(line);
                fragment.push_str("\r\n");
            }
        }
        fragment + "a=end-of-candidates\r\n"
    }
}

/// The one value of an attribute that every section may repeat.
fn one<'a>(
    attribute: &'static str,
    mut values: impl Iterator<Item = &'a str>,
) -> Result<Option<&'a str>, SdpError> {
    let Some(first) = values.next() else {
        return Ok(None);
    };
    check_credential(attribute, first)?;
    match values.all(|value| value == first) {
        true => Ok(Some(first)),
        false => Err(SdpError::Differing(attribute)),
    }
}

/// A candidate belongs to the credentials that came with it, whichever it names: those of RFC 9725's own example of a
/// restart name the session before.
fn without_ufrag(candidate: &str) -> String {
    let mut words = candidate.split_ascii_whitespace();
    // What comes first has no names.
    let mut kept: Vec<_> = words.by_ref().take(8).collect();
    while let Some(name) = words.next() {
        let value = words.next();
        if name != "ufrag" {
            kept.push(name);
            kept.extend(value);
        }
    }
    kept.join(" ")
}

/// An offer as it would be after an ICE restart: with other credentials, and no candidates yet.
pub fn restarted(offer: &str, credentials: &Credentials) -> String {
    let mut text = String::with_capacity(offer.len());
    for line in offer.lines().map(str::trim_end) {
        if line.starts_with("a=ice-ufrag:") {
            text.push_str("a=ice-ufrag:");
            text.push_str(&credentials.ufrag);
        } else if line.starts_with("a=ice-pwd:") {
            text.push_str("a=ice-pwd:");
            text.push_str(&credentials.pwd);
        } else if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        } else {
            text.push_str(line);
        }
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RFC 9725 gives as an example of a restart.
    const RESTART: &str = "a=ice-options:trickle ice2\r\n\
        a=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
        a=mid:0\r\n\
        a=ice-ufrag:ysXw\r\n\
        a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0 ufrag EsAw network-id 2\r\n\
        a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw network-id 1\r\n";

    fn credentials(ufrag: &str, pwd: &str) -> Credentials {
        Credentials {
            ufrag: ufrag.into(),
            pwd: pwd.into(),
        }
    }

    #[test]
    fn credentials_and_the_candidates_that_are_of_use_are_read() {
        let fragment = Fragment::parse(RESTART).unwrap();
        assert_eq!(
            fragment.credentials,
            Some(credentials("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k"))
        );
        assert_eq!(
            fragment.candidates,
            [
                "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 network-id 1",
                "candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0 network-id 2",
            ]
        );
    }

    #[test]
    fn the_end_of_candidates_says_nothing_however_often_it_comes() {
        for text in [
            "",
            "a=end-of-candidates\r\na=end-of-candidates\n",
            "m=video 9 X 0\n",
        ] {
            assert_eq!(Fragment::parse(text), Ok(Fragment::default()), "{text}");
        }
    }

    #[test]
    fn every_section_may_repeat_its_credentials_and_none_may_have_others() {
        let section = "m=audio 9 X 0\r\na=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\n";
        let twice = section.repeat(2);
        let read = Fragment::parse(&twice).unwrap().credentials;
        assert_eq!(read, Some(credentials("user", "twenty-two-characters!")));
        let others = twice.replacen("user", "name", 1);
        assert_eq!(
            Fragment::parse(&others),
            Err(SdpError::Differing("ice-ufrag"))
        );
        assert_eq!(
            Fragment::parse("a=ice-ufrag:user"),
            Err(SdpError::HalfCredentials)
        );
        assert!(matches!(
            Fragment::parse("a=ice-ufrag:me\r\na=ice-pwd:twenty-two-characters!"),
            Err(SdpError::BadCredential { length: 2, .. })
        ));
    }

    #[test]
    fn bounds_hold_before_a_line_is_looked_at() {
        let line = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        assert!(Fragment::parse(&line.repeat(MAX_CANDIDATES)).is_ok());
        assert_eq!(
            Fragment::parse(&line.repeat(MAX_CANDIDATES + 1)),
            Err(SdpError::TooManyCandidates(MAX_CANDIDATES + 1))
        );
        assert_eq!(
            Fragment::parse(&line.repeat(10_000)),
            Err(SdpError::TooLong(10_000 * line.len()))
        );
        assert_eq!(
            Fragment::parse(&"\n".repeat(MAX_LINES + 1)),
            Err(SdpError::TooManyLines(MAX_LINES + 1))
        );
        for text in ["hello", "a=mid:0\u{7}", "a=candidate:1 1 udp"] {
            assert!(Fragment::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_restart_changes_an_offer_in_nothing_else() {
        let offer = "v=0\r\na=ice-options:trickle\r\nm=audio 9 X 0\r\na=ice-ufrag:user\r\n\
                     a=ice-pwd:twenty-two-characters!\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                     a=end-of-candidates\r\na=sendonly\r\n";
        let new = credentials("name", "another-one-of-that-length");
        assert_eq!(
            restarted(offer, &new),
            "v=0\r\na=ice-options:trickle\r\nm=audio 9 X 0\r\na=ice-ufrag:name\r\n\
             a=ice-pwd:another-one-of-that-length\r\na=sendonly\r\n"
        );
        assert_eq!(Credentials::of(&restarted(offer, &new)), Some(new));
    }

    #[test]
    fn what_an_answer_says_of_ice_is_a_fragment() {
        let answer = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\n\
                      m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:user\r\n\
                      a=ice-pwd:twenty-two-characters!\r\na=fingerprint:sha-256 00\r\n\
                      a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
        let fragment = Fragment::of_answer(answer);
        assert_eq!(
            fragment,
            "a=group:BUNDLE 0 1\r\na=ice-options:trickle\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
             a=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\n\
             a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
        );
        let read = Fragment::parse(&fragment).unwrap();
        assert_eq!(read.credentials, Credentials::of(answer));
        assert_eq!(read.candidates.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "((a=end-of-candidates|(a=(candidate:|candidate:1 1 udp 1 ::1 9 typ |ice-ufrag:|ice-pwd:|mid:)|[a-z]=)[ -~é]{0,40})(\r)?\n){0,20}",
        ) {
            if let Ok(fragment) = Fragment::parse(&text) {
                proptest::prop_assert!(fragment.candidates.len() <= MAX_CANDIDATES);
                if let Some(new) = fragment.credentials {
                    let _ = restarted(&text, &new);
                }
            }
            let _ = Fragment::of_answer(&text);
        }
    }
}
