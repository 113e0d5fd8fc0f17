//! What reads bytes of clients and peers, each as a function of any bytes that checks what must hold of what was read.
//!
//! The fuzzer runs them on what it makes up, and the plugin's own tests on what is kept in `corpus/`. In all of them a NUL
//! begins the next message of the same client, unless a target says otherwise.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, IceCreds, Input, Output, Rtc};
use stun_types::attribute::XorMappedAddress;
use stun_types::message::Message;

use crate::logic::connection::EndReason;
use crate::logic::media::Media;
use crate::logic::origins::Origin;
use crate::logic::return_lines::Returns;
use crate::logic::token::Token;
use crate::logic::wire::called::{ToFastRtc, ToRoboflow};
use crate::logic::wire::dialect::{Dialect, Heard, News, Payload, Pieces};
use crate::logic::wire::fastrtc::{self, FastRtc, Inputs};
use crate::logic::wire::offer::{CandidatesRequest, OfferRequest, Wish};
use crate::logic::wire::pull::{Allowed, Kind, Pull};
use crate::logic::wire::record::ConnectionRecord;
use crate::logic::wire::roboflow::{self, Roboflow};
use crate::logic::wire::roboflow_client::{self, Said};
use crate::logic::wire::sdp::{
    CheckedOffer, MAX_CANDIDATE, MAX_CANDIDATES, MAX_LINES, MAX_MEDIA_LINES, MAX_MID,
    MAX_SDP_BYTES, check_candidate, check_offer, rejected_line, unanswered_line,
};
use crate::logic::wire::sdp_gate::gate;
use crate::logic::wire::sdpfrag::{Credentials, Fragment, restarted};
use crate::logic::wire::upload::{Piece, Upload};
use crate::logic::wire::whip::{IfMatch, entity_tag, sends_only};
use crate::meta::rtp::Reader;
use crate::peer::args::{Args, from_json};

pub struct Target {
    /// That of its file in `corpus/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Bytes that an input may stand for, once it is [stretched].
    pub longest: usize,
}

/// As the listener bounds them.
const BODY: usize = 256 * 1024;
/// One more line than is read, or one more byte.
const SDP: usize = MAX_SDP_BYTES + 1;

pub const ALL: [Target; 14] = [
    Target {
        name: "sdp",
        run: sdp,
        longest: SDP,
    },
    Target {
        name: "answer",
        run: answer,
        longest: SDP,
    },
    Target {
        name: "sdpfrag",
        run: sdpfrag,
        longest: SDP,
    },
    Target {
        name: "candidate",
        run: candidate,
        longest: SDP,
    },
    Target {
        name: "offer",
        run: offer,
        longest: BODY,
    },
    Target {
        name: "fastrtc",
        run: fastrtc,
        longest: BODY,
    },
    Target {
        name: "roboflow",
        run: roboflow,
        longest: BODY,
    },
    Target {
        name: "called",
        run: called,
        longest: BODY,
    },
    Target {
        name: "args",
        run: args,
        longest: BODY,
    },
    Target {
        name: "upload",
        run: upload,
        longest: BODY,
    },
    Target {
        name: "pull",
        run: pull,
        longest: BODY,
    },
    Target {
        name: "headers",
        run: headers,
        longest: BODY,
    },
    Target {
        name: "rtp",
        run: rtp,
        longest: 0,
    },
    Target {
        name: "datagram",
        run: datagram,
        longest: 0,
    },
];

/// What an input stands for: in `a 01 n b 01 c` b stands 2ⁿ times, as often as there is room, with the number of each for
/// every 02 in it. So a short input asks what a long one costs.
pub fn stretched(data: &[u8], longest: usize) -> Cow<'_, [u8]> {
    let mut parts = data.splitn(3, |byte| *byte == 1);
    let (Some(before), Some([times, again @ ..])) = (parts.next(), parts.next()) else {
        return Cow::Borrowed(data);
    };
    let after = parts.next().unwrap_or_default();
    let room = longest.saturating_sub(before.len() + after.len());
    let parts: Vec<&[u8]> = again.split(|byte| *byte == 2).collect();
    let mut middle = Vec::new();
    for number in 0..1u32 << (times % 20) {
        let one = parts.join(number.to_string().as_bytes());
        if one.is_empty() || middle.len() + one.len() > room {
            break;
        }
        middle.extend(one);
    }
    Cow::Owned([before, &middle, after].concat())
}

fn messages(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    // More of one client make nothing new.
    data.split(|byte| *byte == 0).take(32)
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// What is sent to a peer, of what a number says.
fn returns(how: u8) -> Returns {
    let back = |bits| match bits {
        1 => Some(Media::Video),
        2 => Some(Media::Audio),
        _ => None,
    };
    Returns {
        of_video: back(how & 3),
        of_audio: back(how >> 2 & 3),
        video: u32::from(how >> 4 & 1) * 2,
        audio: u32::from(how >> 5 & 1) * 20,
    }
}

/// An offer, and later ones of the same connection; the first byte says what is sent back.
fn sdp(data: &[u8]) {
    let Some((how, offers)) = data.split_first() else {
        return;
    };
    let returns = returns(*how);
    let mut before = Vec::new();
    for offer in messages(offers).filter_map(text) {
        let Ok(checked) = check_offer(offer, &before, &returns) else {
            continue;
        };
        for (was, is) in before.iter().zip(&checked.media) {
            assert_eq!((&was.mid, &was.kind), (&is.mid, &is.kind));
        }
        is_within_bounds(&checked);
        is_the_same_again(&checked, &returns);
        passes_the_gate_once(&checked);
        assert_eq!(sends_only(&sends_only(offer)), sends_only(offer));
        let ours = Credentials {
            ufrag: "other".into(),
            pwd: "another-one-of-that-length".into(),
        };
        let again = restarted(offer, &ours);
        assert!(again.len() <= offer.len() + offer.lines().count() * 40);
        if Credentials::of(offer).is_some() {
            assert_eq!(Credentials::of(&again), Some(ours));
        }
        before = checked.media;
    }
}

/// What a webrtcbin may be given: what was left out does not come back, and no line is without what holds for all.
fn passes_the_gate_once(checked: &CheckedOffer) {
    const CODECS: [&str; 3] = ["VP8", "H264", "OPUS"];
    let Ok(gated) = gate(&checked.sdp, &CODECS) else {
        return;
    };
    assert_eq!(gated.lines.len(), checked.media.len());
    let longest = checked.sdp.len() * (1 + MAX_MEDIA_LINES);
    assert!(gated.sdp.len() <= longest);
    assert_eq!(gate(&gated.sdp, &CODECS).as_ref(), Ok(&gated));
}

fn is_within_bounds(checked: &CheckedOffer) {
    assert!(checked.media.len() <= MAX_MEDIA_LINES);
    assert!(checked.returns.len() <= checked.media.len());
    let is_candidate = |line: &&str| line.starts_with("a=candidate:");
    assert!(checked.sdp.lines().filter(is_candidate).count() <= MAX_CANDIDATES);
    // Line ends may be longer than they were, and each m-line gets a direction.
    assert!(checked.sdp.lines().count() <= MAX_LINES + MAX_MEDIA_LINES);
    assert!(checked.sdp.len() <= MAX_SDP_BYTES + MAX_LINES + 12 * MAX_MEDIA_LINES);
    for line in &checked.media {
        assert!((1..=MAX_MID).contains(&line.mid.len()));
    }
    for assigned in &checked.returns {
        let line = checked.media.iter().find(|line| line.mid == assigned.mid);
        assert!(line.is_some_and(|line| line.receives && line.media() == Some(assigned.media)));
    }
}

/// What was made of an offer is an offer, of which the same is made.
fn is_the_same_again(checked: &CheckedOffer, returns: &Returns) {
    if checked.sdp.len() > MAX_SDP_BYTES || checked.sdp.lines().count() > MAX_LINES {
        return;
    }
    let again = check_offer(&checked.sdp, &checked.media, returns);
    let again = again.expect("it was checked");
    assert_eq!(again.sdp, checked.sdp);
    assert_eq!(again.returns, checked.returns);
    assert_eq!(again.transport_feedback, checked.transport_feedback);
}

/// The same, and fragments, as the transport answers them: whatever begins with `v=0` is an offer.
fn answer(data: &[u8]) {
    let Some((how, messages_of_peer)) = data.split_first() else {
        return;
    };
    let mut call: Option<Call> = None;
    for message in messages(messages_of_peer).filter_map(text) {
        match &mut call {
            _ if message.starts_with("v=0") => {
                let message = match how & 0x80 {
                    0 => Cow::Borrowed(message),
                    _ => Cow::Owned(sends_only(message)),
                };
                match &mut call {
                    Some(call) => drop(call.offered(&message)),
                    None => call = Call::begin(&message, returns(*how)),
                }
            }
            Some(call) => call.take_fragment(message),
            None => {}
        }
    }
}

static CERTIFICATE: LazyLock<DtlsCert> = LazyLock::new(|| {
    let provider = str0m::crypto::from_feature_flags().dtls_provider;
    provider.generate_certificate().expect("OpenSSL makes some")
});

/// Our end of a connection, as `peer::call` sets it up.
struct Call {
    rtc: Rtc,
    returns: Returns,
    checked: CheckedOffer,
    /// As it came last.
    sdp: String,
}

const OUR_UFRAG: &str = "ours";
const OUR_PWD: &str = "twenty-two-characters!";

impl Call {
    fn begin(sdp: &str, returns: Returns) -> Option<Self> {
        let checked = check_offer(sdp, &[], &returns).ok()?;
        let now = Instant::now();
        let crypto = str0m::crypto::from_feature_flags();
        let config = Rtc::builder()
            .set_crypto_provider(crypto.into())
            .set_dtls_cert(CERTIFICATE.clone())
            .set_local_ice_credentials(IceCreds {
                ufrag: OUR_UFRAG.into(),
                pass: OUR_PWD.into(),
            })
            .clear_codecs()
            .enable_vp8(true)
            .enable_h264(true)
            .enable_opus(true, false)
            .set_reordering_size_video(1000)
            .set_reordering_size_audio(1000);
        let mut rtc = config.build(now);
        rtc.handle_input(Input::Timeout(now)).ok()?;
        let ours = Candidate::host(OURS.parse().ok()?, "udp").ok()?;
        rtc.add_local_candidate(ours);
        let mut call = Self {
            rtc,
            returns,
            checked,
            sdp: String::new(),
        };
        call.answer(&call.checked.clone())?;
        call.sdp = sdp.to_owned();
        Some(call)
    }

    fn offered(&mut self, sdp: &str) -> Option<()> {
        let checked = check_offer(sdp, &self.checked.media, &self.returns).ok()?;
        self.answer(&checked)?;
        self.checked = checked;
        self.sdp = sdp.to_owned();
        Some(())
    }

    fn answer(&mut self, checked: &CheckedOffer) -> Option<()> {
        let offer = SdpOffer::from_sdp_string(&checked.sdp).ok()?;
        if unanswered_line(&offer.to_sdp_string(), &checked.media).is_some() {
            return None;
        }
        let answer = self.rtc.sdp_api().accept_offer(offer);
        self.drain();
        let answer = answer.ok()?.to_sdp_string();
        assert_eq!(answer.matches("\nm=").count(), checked.media.len());
        let _ = rejected_line(&answer, &checked.media);
        if checked.has_media() {
            let ours = Credentials::of(&answer).expect("every answer has its credentials");
            let fragment = Fragment::parse(&Fragment::of_answer(&answer));
            assert_eq!(fragment.expect("it is one").credentials, Some(ours));
        }
        Some(())
    }

    fn take_fragment(&mut self, text: &str) {
        let Ok(fragment) = Fragment::parse(text) else {
            return;
        };
        if let Some(new) = &fragment.credentials {
            let _ = self.offered(&restarted(&self.sdp, new));
        }
        for candidate in &fragment.candidates {
            if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
                self.rtc.add_remote_candidate(candidate);
                self.drain();
            }
        }
    }

    /// Until it has nothing to say, which must come.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if matches!(self.rtc.poll_output(), Ok(Output::Timeout(_)) | Err(_)) {
                return;
            }
        }
        panic!("it never comes to an end");
    }
}

/// ICE by itself.
fn sdpfrag(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let _ = Fragment::of_answer(text);
    let Ok(fragment) = Fragment::parse(text) else {
        return;
    };
    assert!(fragment.candidates.len() <= MAX_CANDIDATES);
    for candidate in &fragment.candidates {
        assert_eq!(check_candidate(candidate), Ok(Some(candidate.clone())));
    }
    if let Some(new) = &fragment.credentials {
        let again = restarted(text, new);
        assert_eq!(Credentials::of(&again).as_ref(), Some(new));
        let again = Fragment::parse(&again).map(|fragment| fragment.credentials);
        assert!(text.len() + 2 * MAX_LINES > MAX_SDP_BYTES || again == Ok(fragment.credentials));
    }
}

/// Candidates by themselves.
fn candidate(data: &[u8]) {
    for text in messages(data).filter_map(text) {
        if let Ok(Some(candidate)) = check_candidate(text) {
            assert!(candidate.len() <= MAX_CANDIDATE && candidate.starts_with("candidate:"));
            assert_eq!(check_candidate(&candidate), Ok(Some(candidate.clone())));
            let _ = Candidate::from_sdp_string(&candidate);
        }
    }
}

/// The bodies of the offer door.
fn offer(data: &[u8]) {
    if let Ok(request) = CandidatesRequest::parse(data) {
        assert!(request.candidates.len() <= 64);
    }
    let Ok(request) = OfferRequest::parse(data) else {
        return;
    };
    if let Ok(wish) = request.wish() {
        let of = match wish {
            Wish::Answer { of, .. } => of,
            Wish::Accept { of, .. } => Some(of),
            Wish::Offer => None,
        };
        assert_eq!(of, request.pc_id);
    }
    assert!(request.webrtc_id.is_none_or(|id| is_id(&id)));
    let given = Value::Object(request.data);
    let record = ConnectionRecord {
        connection_id: String::new(),
        external_id: request.pc_id,
        door: "offer",
        state: "playing",
        remote_address: String::new(),
        created_at: 0,
        had_media: false,
        streams: Vec::new(),
        data: given.to_string(),
    };
    let told = serde_json::to_string(&record).expect("a list of connections is JSON");
    let told: Value = serde_json::from_str(&told).expect("a list of connections is JSON");
    assert_eq!(told["data"].is_null(), given.is_null());
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= 128 && !id.chars().any(char::is_control)
}

/// The bodies of FastRTC's door, and what is said on its channel.
fn fastrtc(data: &[u8]) {
    for message in messages(data) {
        match fastrtc::Request::parse(message) {
            Ok(request) => assert!(is_id(&request.webrtc_id)),
            Err(error) => assert!(error.detail()["detail"][0]["loc"].is_array()),
        }
        if let Ok(inputs) = Inputs::parse(message) {
            assert!(is_id(&inputs.webrtc_id));
        }
        is_answered_briefly(&FastRtc.hear("text", message, false, Instant::now()));
        if let Some(text) = text(message) {
            let said = FastRtc.tell(News::Trouble(text));
            let Payload::Text(said) = &said[0][0] else {
                panic!("it reads texts");
            };
            let said: Value = serde_json::from_str(said).expect("it reads JSON");
            assert_eq!(said["message"], text);
        }
    }
}

/// What servers answer that we call, and what they say on their channels; every other message is binary where the first byte
/// of it is no `{`.
fn called(data: &[u8]) {
    let mut server = ToRoboflow::new(jiff::tz::TimeZone::UTC);
    for message in messages(data) {
        let now = Instant::now();
        if let Ok(answer) = roboflow_client::answer(message) {
            assert!(!answer.sdp.is_empty());
        }
        let refusal = roboflow_client::refusal(404, message, Some("s3cr3t-key"));
        assert!(refusal.len() <= 4096 && !refusal.contains("s3cr3t-key"));
        let heard = server.hear("inference", message, !message.starts_with(b"{"), now);
        assert!(heard.taken && heard.answers.is_empty());
        for said in heard.said {
            let Said::Frame(frame) = said else { continue };
            let json: Value = serde_json::from_str(&frame.json).expect("it is written as JSON");
            assert!(json["errors"].is_array() && frame.pictures.len() <= 8);
            let boxes = frame.detections.iter().flatten();
            assert!(boxes.clone().count() <= 1000);
            assert!(
                boxes
                    .clone()
                    .all(|b| (b.x + b.y + b.width + b.height).is_finite())
            );
        }
        let heard = ToFastRtc.hear("text", message, false, now);
        assert!(!heard.taken && heard.answers.is_empty());
    }
}

/// Else a visitor makes us send more than they do.
fn is_answered_briefly(heard: &Heard) {
    let pieces = heard.answers.iter().flatten();
    let length: usize = pieces.map(|piece| piece.as_bytes().len()).sum();
    assert!(length <= 4096, "{length} bytes");
}

/// What `inference_sdk` posts, then what it says on its channel; every other message is binary where the first byte of it
/// is no `{`.
fn roboflow(data: &[u8]) {
    let mut messages = messages(data);
    let body = messages.next().unwrap_or_default();
    let _ = roboflow::api_key(body);
    let request = match roboflow::Request::parse(body) {
        Ok(request) => request,
        Err(error) => return assert!(error.detail()["detail"][0]["loc"].is_array()),
    };
    let _ = (
        request.workflow(),
        request.parameters(),
        request.wants_video(),
    );
    let _ = request.wants_outputs_by_name();
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
    let mut dialect = Roboflow::new(&request, zone);
    let mut told = 0;
    for message in messages {
        let heard = dialect.hear(
            "inference",
            message,
            !message.starts_with(b"{"),
            Instant::now(),
        );
        is_answered_briefly(&heard);
        heard.answers.iter().for_each(|said| drop(read(said)));
        let result = r#"{"video_metadata":{"frame_id":7,"received_at":"2026-11-20T10:00:00.123456+00:00","pts":9000},
            "serialized_output_data":{"predictions":{"predictions":[]}},"errors":[]}"#;
        for said in dialect.tell(News::Result(result)) {
            let (id, said) = read(&said);
            told += 1;
            assert_eq!(
                (id, &said["video_metadata"]["frame_id"]),
                (told, &json!(told))
            );
        }
    }
    let end = dialect.tell(News::Over {
        reason: EndReason::TimeLimit,
        detail: None,
    });
    assert_eq!(read(&end[0]).1["processing_complete"], true);
}

/// As its client reads a message.
fn read(pieces: &Pieces) -> (u32, Value) {
    let mut whole = Vec::new();
    let mut id = 0;
    for (at, piece) in pieces.iter().enumerate() {
        let (header, bytes) = piece.as_bytes().split_at(12);
        let number = |n: usize| u32::from_le_bytes(header[n..n + 4].try_into().expect("four"));
        id = number(0);
        assert_eq!((number(4), number(8)), (at as u32, pieces.len() as u32));
        whole.extend_from_slice(bytes);
    }
    (id, serde_json::from_slice(&whole).expect("it is JSON"))
}

/// Arguments that clients give; of elements' properties they may set one.
fn args(data: &[u8]) {
    static GST: LazyLock<()> = LazyLock::new(|| gst::init().expect("GStreamer is installed"));
    *GST;
    let mut kept = Args::default();
    for message in messages(data) {
        let Ok(Value::Object(fields)) = serde_json::from_slice(message) else {
            continue;
        };
        let Ok(given) = from_json(&fields, &["i.silent".to_owned()]) else {
            continue;
        };
        for (name, _) in given.iter() {
            assert!(!name.contains('.') || name.as_str() == "i.silent", "{name}");
        }
        if let Ok(both) = kept.with(&Args::read(&given)) {
            kept = both;
        }
        assert!(kept.event().is_none_or(|event| event.n_fields() <= 64));
    }
}

/// A file in pieces: each begins with its length (u16, big endian).
fn upload(data: &[u8]) {
    const LIMIT: u64 = 10_000;
    let mut upload = Upload::new(LIMIT);
    let (mut taken, mut whole) = (0, false);
    for piece in lengths(data) {
        match upload.take(piece) {
            Ok(Piece::Ping) => assert!(piece.len() <= 1),
            Ok(Piece::Repeated) => assert!(piece.len() > 8),
            Ok(Piece::Bytes { bytes, last }) => {
                assert!(!whole && !bytes.is_empty());
                taken += bytes.len() as u64;
                whole = last;
            }
            Err(_) => {}
        }
    }
    assert!(taken <= LIMIT);
}

/// Messages of which each begins with its length.
fn lengths(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let ([high, low], bytes) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (message, after) = bytes.split_at(length.min(bytes.len()));
        rest = after;
        Some(message)
    })
}

/// A URL to pull from: what is opened goes to the address that was checked, and tells nobody the password.
fn pull(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let allowed = Allowed::new(["cam.lan", "*"].iter());
    for kind in [Kind::Rtsp, Kind::Mjpeg] {
        let Ok(pull) = Pull::parse(text, kind) else {
            continue;
        };
        let _ = allowed.host(&pull);
        if let Ok(address) = pull.host.parse() {
            let opened = allowed.address(&pull.host, std::iter::once(address));
            assert!(opened.is_err() || !is_plainly_private(address), "{address}");
        }
        for address in ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().expect("an address")) {
            let uri = pull.uri(address);
            assert!(!uri.contains(['\r', '\n', ' ']), "{uri:?}");
            let again = Pull::parse(&uri, kind);
            // It may have become too long.
            if uri.len() > 2048 {
                continue;
            }
            let again = again.unwrap_or_else(|error| panic!("{uri:?}: {error}"));
            let named =
                again.host == pull.host && !uri.starts_with("http:") && !uri.starts_with("rtsp:");
            assert!(again.host.parse() == Ok(address) || named, "{uri:?}");
            assert_eq!((again.port, again.user), (pull.port, None), "{uri:?}");
        }
    }
}

fn is_plainly_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local()
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// `If-Match`, `Authorization` and `Origin`, in that order.
fn headers(data: &[u8]) {
    let mut values = messages(data).map(|bytes| text(bytes).unwrap_or_default());
    let mut next = || values.next().unwrap_or_default();
    let if_match = next();
    let named = if_match.contains('*') || if_match.contains(&entity_tag("abcd"));
    assert!(named || !IfMatch::new(if_match).allows("abcd"));
    let authorization = next();
    let token: Token = "s3cret/+~==".parse().expect("it is one");
    assert!(!token.is_in(authorization) || authorization.trim_end().ends_with("s3cret/+~=="));
    let origin = next();
    if let Ok(parsed) = origin.parse::<Origin>() {
        assert_eq!(
            parsed.allows("https://example.org"),
            parsed == Origin::Any || {
                let own = origin.to_ascii_lowercase();
                ["https://example.org", "https://example.org:443"].contains(&own.as_str())
            }
        );
    }
}

/// A packet, after the number of the extension that holds its mid.
fn rtp(data: &[u8]) {
    static GST: LazyLock<()> = LazyLock::new(|| gst::init().expect("GStreamer is installed"));
    *GST;
    let Some((extension, packet)) = data.split_first() else {
        return;
    };
    let caps = gst::Structure::builder("application/x-rtp")
        .field("clock-rate", 90_000)
        .field(
            format!("extmap-{extension}"),
            "urn:ietf:params:rtp-hdrext:sdes:mid",
        )
        .build();
    let buffer = gst::Buffer::from_slice(packet.to_vec());
    if let Some(read) = Reader::of(&caps).read(&buffer) {
        assert!(packet.len() >= 12);
        assert_eq!(read.ssrc.to_be_bytes(), packet[8..12]);
        assert!(read.mid.is_none_or(|mid| mid.len() < packet.len()));
    }
}

const OURS: &str = "192.0.2.1:9";
const THEIRS: &str = "192.0.2.2:9";

/// Datagrams of a peer: each begins with its length. Of the first byte's highest bit the rest is attributes of a STUN
/// message, which is signed as by the peer.
fn datagram(data: &[u8]) {
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        a=fingerprint:sha-256 6B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
        a=ice-ufrag:peer\r\na=ice-pwd:twenty-two-characters!\r\na=setup:actpass\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
        a=rtpmap:96 VP8/90000\r\na=ssrc:1 cname:a\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sctp-port:5000\r\n";
    let returns = returns(1);
    let mut call = Call::begin(OFFER, returns).expect("it is an offer");
    let [ours, theirs]: [SocketAddr; 2] = [OURS, THEIRS].map(|a| a.parse().expect("an address"));
    let mut now = Instant::now();
    for message in lengths(data) {
        let signed = match message.split_first() {
            Some((kind, attributes)) if kind & 0x80 != 0 => Some(stun(*kind, attributes)),
            _ => None,
        };
        let bytes = signed.as_deref().unwrap_or(message);
        if let Ok(message) = Message::from_bytes(bytes)
            && let Ok(seen) = message.attribute::<XorMappedAddress>()
        {
            let _ = seen.addr(message.transaction_id());
        }
        let Ok(received) = Receive::new(Protocol::Udp, theirs, ours, bytes) else {
            continue;
        };
        let input = Input::Receive(now, received);
        if call.rtc.accepts(&input) {
            let _ = call.rtc.handle_input(input);
            call.drain();
        }
        now += Duration::from_millis(20);
        let _ = call.rtc.handle_input(Input::Timeout(now));
        call.drain();
    }
}

/// A message about binding: a request, an answer or an indication.
fn stun(kind: u8, attributes: &[u8]) -> Vec<u8> {
    use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    const SIGNATURE: usize = 24;
    let class: u16 = [0x0001, 0x0101, 0x0111, 0x0011][usize::from(kind & 3)];
    let mut body = attribute(0x0006, format!("{OUR_UFRAG}:peer").as_bytes());
    body.extend(attributes);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = class.to_be_bytes().to_vec();
    message.extend(((body.len() + SIGNATURE) as u16).to_be_bytes());
    message.extend(COOKIE);
    message.extend([kind; 12]);
    message.extend(body);
    let key = PKey::hmac(OUR_PWD.as_bytes()).expect("a key of bytes");
    let mut signer = Signer::new(MessageDigest::sha1(), &key).expect("it signs");
    let signature = signer.sign_oneshot_to_vec(&message).expect("it signs");
    message.extend(attribute(0x0008, &signature));
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One input a line, with escapes as Rust and Python write them.
    fn kept(name: &str) -> Vec<Vec<u8>> {
        let path = format!(
            "{}/bench/fuzz/corpus/{name}.txt",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.lines().map(unescaped).collect()
    }

    fn unescaped(line: &str) -> Vec<u8> {
        let mut bytes = line.bytes();
        let next = || {
            let byte = bytes.next()?;
            if byte != b'\\' {
                return Some(byte);
            }
            Some(match bytes.next()? {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            })
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_the_fuzzer_has_kept_does_no_harm() {
        assert_eq!(unescaped(r"a\\b\x00\r\n"), b"a\\b\0\r\n");
        for target in &ALL {
            let inputs = kept(target.name);
            assert!(!inputs.is_empty(), "{}", target.name);
            for input in inputs {
                (target.run)(&stretched(&input, target.longest));
            }
        }
    }
}
