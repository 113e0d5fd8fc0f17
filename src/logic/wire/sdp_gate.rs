//! The way of a checked description into a webrtcbin: it gets nothing that it is known to fail at.
//!
//! Version 1.22 aborts where the session has ICE credentials and an m-line has none, and accepts codecs that nobody
//! here takes. So what holds for all lines is written on each, and a line keeps only codecs that are wanted.

use super::sdp::SdpError;

/// A description that a webrtcbin may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gated {
    pub sdp: String,
    pub lines: Vec<GatedLine>,
}

/// An m-line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatedLine {
    /// "audio", "video" or "application".
    pub kind: String,
    /// In the order of our wishes; none where no codec is spoken of.
    pub codecs: Vec<Offered>,
    /// The id of the header extension that numbers packets for bandwidth estimation.
    pub transport_cc: Option<u8>,
}

/// A codec that the peer offers on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// As in `a=rtpmap`, in capitals.
    pub name: String,
    pub payload_type: u8,
    pub clock_rate: u32,
    /// What the peer understands about packets that came or did not: "nack pli", "transport-cc", …
    pub feedback: Vec<String>,
}

/// On the session's level these hold for every line.
const FOR_ALL: [&str; 5] = [
    "ice-ufrag",
    "ice-pwd",
    "ice-options",
    "fingerprint",
    "setup",
];
/// Streams in several sizes are one stream here.
const UNSPOKEN: [&str; 2] = ["rid", "simulcast"];
pub const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Rewrites what [`check_offer`](super::sdp::check_offer) has checked; `codecs` are encoding names in order of preference.
pub fn gate(checked: &str, codecs: &[&str]) -> Result<Gated, SdpError> {
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in checked.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        sections.last_mut().expect("there is one").push(line);
    }
    let (session, media) = sections.split_first().expect("there is one");
    let for_all = |line: &&&str| attribute(line).is_some_and(|(name, _)| FOR_ALL.contains(&name));
    let mut sdp = String::new();
    for line in session.iter().filter(|line| !for_all(line)) {
        put(&mut sdp, line);
    }
    let of_all: Vec<&str> = session.iter().filter(for_all).copied().collect();
    let mut lines = Vec::new();
    let mut of_first: Option<Vec<&str>> = None;
    for section in media {
        let line = Line::read(section, codecs)?;
        // One bundle has one end, and what is half set of another stays in a webrtcbin.
        let fingerprint =
            |line: &&&str| attribute(line).is_some_and(|(name, _)| name == "fingerprint");
        let own = line.rest.iter().filter(fingerprint);
        let mut own: Vec<&str> = own.copied().collect();
        own.sort_unstable();
        own.dedup();
        if !own.is_empty() && *of_first.get_or_insert_with(|| own.clone()) != own {
            return Err(SdpError::Differing("fingerprint"));
        }
        put(&mut sdp, &line.first);
        for own in &line.rest {
            put(&mut sdp, own);
        }
        let has = |name| {
            let mut own = line.rest.iter().filter_map(|line| attribute(line));
            own.any(|(own, _)| own == name)
        };
        for line in &of_all {
            if !attribute(line).is_some_and(|(name, _)| has(name)) {
                put(&mut sdp, line);
            }
        }
        lines.push(line.gated);
    }
    Ok(Gated { sdp, lines })
}

fn put(sdp: &mut String, line: &str) {
    sdp.push_str(line);
    sdp.push_str("\r\n");
}

/// Name and value of `a=name:value`.
fn attribute(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("a=")?;
    Some(line.split_once(':').unwrap_or((line, "")))
}

/// What stays of an m-line and what follows it.
struct Line<'a> {
    first: String,
    rest: Vec<&'a str>,
    gated: GatedLine,
}

/// One payload type of a line.
struct Payload<'a> {
    number: &'a str,
    payload_type: u8,
    name: String,
    clock_rate: u32,
    /// Of what it repeats, the payload type.
    repeats: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn read(section: &[&'a str], codecs: &[&str]) -> Result<Self, SdpError> {
        let (first, rest) = section.split_first().expect("it starts with m=");
        let mut words = first.trim_start_matches("m=").split_ascii_whitespace();
        let kind = words.next().unwrap_or_default().to_owned();
        let port = words.next().unwrap_or_default();
        let mut gated = GatedLine {
            kind,
            codecs: Vec::new(),
            transport_cc: None,
        };
        let rejected = port == "0" && !rest.contains(&"a=bundle-only");
        if !matches!(gated.kind.as_str(), "audio" | "video") || rejected {
            let (first, rest) = ((*first).to_owned(), rest.to_vec());
            return Ok(Self { first, rest, gated });
        }
        let profile = words.next().unwrap_or_default();
        let offered: Vec<_> = words.filter_map(|number| payload(number, rest)).collect();
        let mut kept: Vec<&Payload> = Vec::new();
        for codec in codecs {
            kept.extend(
                offered
                    .iter()
                    .filter(|p| p.name == codec.to_ascii_uppercase()),
            );
        }
        if kept.is_empty() {
            return Err(SdpError::NoCodec {
                kind: gated.kind,
                known: codecs.join(", "),
            });
        }
        for payload in &kept {
            gated.codecs.push(Offered {
                name: payload.name.clone(),
                payload_type: payload.payload_type,
                clock_rate: payload.clock_rate,
                feedback: feedback(payload.number, rest),
            });
        }
        let repeated = |p: &&Payload| {
            p.repeats
                .is_some_and(|of| kept.iter().any(|k| k.number == of))
        };
        let repairs: Vec<_> = offered.iter().filter(repeated).collect();
        kept.extend(repairs);
        let numbers: Vec<_> = kept.iter().map(|payload| payload.number).collect();
        let first = format!("m={} {port} {profile} {}", gated.kind, numbers.join(" "));
        let stays = |line: &&&str| match attribute(line) {
            Some(("rtpmap" | "fmtp" | "rtcp-fb", value)) => {
                let number = value.split_ascii_whitespace().next().unwrap_or_default();
                number == "*" || numbers.contains(&number)
            }
            Some((name, _)) => !UNSPOKEN.contains(&name),
            None => true,
        };
        let rest: Vec<_> = rest.iter().filter(stays).copied().collect();
        gated.transport_cc = rest.iter().find_map(|line| {
            let (id, uri) = attribute(line)
                .filter(|(name, _)| *name == "extmap")?
                .1
                .split_once(' ')?;
            let id = id.split('/').next()?.parse().ok()?;
            (uri.split_ascii_whitespace().next() == Some(TRANSPORT_CC)).then_some(id)
        });
        Ok(Self { first, rest, gated })
    }
}

fn payload<'a>(number: &'a str, rest: &[&'a str]) -> Option<Payload<'a>> {
    let of = |name: &str| {
        rest.iter().find_map(|line| {
            let (_, value) = attribute(line).filter(|(own, _)| *own == name)?;
            value.strip_prefix(number)?.strip_prefix(' ')
        })
    };
    let mut coding = of("rtpmap")?.trim().split('/');
    let name = coding.next()?.to_ascii_uppercase();
    let clock_rate = coding.next()?.parse().ok()?;
    let repeats = of("fmtp")
        .filter(|_| name == "RTX")
        .and_then(|value| value.split(';').find_map(|v| v.trim().strip_prefix("apt=")));
    Some(Payload {
        number,
        payload_type: number.parse().ok().filter(|number| *number < 128)?,
        name,
        clock_rate,
        repeats,
    })
}

fn feedback(number: &str, rest: &[&str]) -> Vec<String> {
    let values = rest.iter().filter_map(|line| {
        let (_, value) = attribute(line).filter(|(name, _)| *name == "rtcp-fb")?;
        let (of, value) = value.split_once(' ')?;
        (of == number || of == "*").then(|| value.trim().to_owned())
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        a=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\na=fingerprint:sha-256 00:11\r\na=setup:actpass\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100\r\na=mid:0\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:98 AV1/90000\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=rtpmap:100 H264/90000\r\n\
        a=extmap:3/sendonly http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=rid:q send\r\na=sendonly\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:1\r\na=ice-ufrag:user\r\na=rtpmap:111 opus/48000/2\r\na=sendonly\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";
    const CODECS: [&str; 3] = ["H264", "VP8", "OPUS"];

    #[test]
    fn what_holds_for_all_lines_stands_once_on_each() {
        let gated = gate(OFFER, &CODECS).unwrap();
        let (session, media) = gated.sdp.split_at(gated.sdp.find("m=").unwrap());
        for attribute in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:"] {
            assert!(!session.contains(attribute), "{attribute}");
            for section in media.split("m=").skip(1).filter(|s| !s.is_empty()) {
                assert_eq!(
                    section.matches(attribute).count(),
                    1,
                    "{attribute} in {section}"
                );
            }
        }
        assert!(session.contains("a=group:BUNDLE 0 1 2"));
    }

    #[test]
    fn lines_keep_the_codecs_that_are_wanted_in_the_order_of_the_wishes() {
        let gated = gate(OFFER, &CODECS).unwrap();
        assert!(
            gated
                .sdp
                .contains("m=video 9 UDP/TLS/RTP/SAVPF 100 96 97\r\n"),
            "{}",
            gated.sdp
        );
        assert!(
            gated.sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"),
            "{}",
            gated.sdp
        );
        for gone in ["AV1", "apt=98", "a=rtpmap:99", "a=rid:"] {
            assert!(!gated.sdp.contains(gone), "{gone}");
        }
        let video = &gated.lines[0];
        let names: Vec<_> = video
            .codecs
            .iter()
            .map(|codec| codec.name.as_str())
            .collect();
        assert_eq!(names, ["H264", "VP8"]);
        assert_eq!(video.codecs[1].feedback, ["nack pli", "transport-cc"]);
        let types: Vec<_> = video
            .codecs
            .iter()
            .map(|codec| codec.payload_type)
            .collect();
        assert_eq!((types, video.transport_cc), (vec![100, 96], Some(3)));
        assert_eq!(gated.lines[1].codecs[0].clock_rate, 48_000);
        assert_eq!(
            (gated.lines[2].kind.as_str(), gated.lines[2].codecs.len()),
            ("application", 0)
        );
    }

    #[test]
    fn lines_of_different_ends_are_refused() {
        let with = |mid: &str, value: &str| {
            let line = format!("a=mid:{mid}\r\na=fingerprint:sha-256 {value}");
            OFFER.replace(&format!("a=mid:{mid}"), &line)
        };
        assert!(gate(&with("2", "22:33"), &CODECS).is_ok());
        let differs =
            with("2", "22:33").replace("a=mid:0", "a=mid:0\r\na=fingerprint:sha-256 44:55");
        assert!(matches!(
            gate(&differs, &CODECS),
            Err(SdpError::Differing(_))
        ));
    }

    #[test]
    fn a_line_without_a_wanted_codec_is_refused_with_those_that_are() {
        let error = gate(OFFER, &["VP8"]).unwrap_err().to_string();
        assert!(error.contains("audio") && error.contains("VP8"), "{error}");
        let rejected = OFFER.replace("m=audio 9", "m=audio 0");
        assert!(gate(&rejected, &["VP8"]).is_ok());
    }
}
