//! A visitor that sends the clip: str0m over a real socket, one thread.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::media::{Direction, KeyframeRequestKind, MediaData, MediaKind, MediaTime};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};

use crate::clip::{self, Frame};

/// Texts of a visit that are kept.
const TEXTS: usize = 1000;

/// What a visit was like.
#[derive(Default)]
pub struct Visit {
    /// Status and body of an answer that was none; nothing else is told then.
    pub refused: Option<(i32, String)>,
    pub pc_id: String,
    /// The body of the offer.
    pub offer: String,
    /// The session description of the answer.
    pub answer: String,
    /// Nanoseconds since the epoch, when the offer was posted.
    pub posted_at: u64,
    pub answered_ms: f64,
    pub connected_ms: Option<f64>,
    pub results: u64,
    /// The texts that came, the last ones.
    pub texts: VecDeque<String>,
    pub bytes: Vec<Vec<u8>>,
    /// When the last datagram of the goodbye was sent, and the same in nanoseconds since the epoch.
    pub closed_at: Option<Instant>,
    pub closed_at_epoch: u64,
}

/// How a visitor behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends the clip over and over, then closes.
    Polite,
    /// The same, and so many texts on the data channel as soon as it opens.
    Chatty(u32),
    /// Sends the clip, then goes without a word.
    Vanishing,
    /// Takes the answer and does nothing with it.
    Silent,
    /// Polite, without a data channel.
    Mute,
    /// Polite, with the clip on two tracks.
    TwoTracks,
}

/// Which protocol an offer is posted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Ours, which is aiortc's.
    Offer,
    /// FastRTC's; it calls its handler once an input was set, as pages do.
    FastRtc { input: bool },
}

/// Looks at what goes out and what comes back.
pub trait Mirror {
    /// Frame `number` of those that are sent, the clip's at `position`, is given to the sender.
    fn sent(&mut self, number: u64, position: usize);
    /// A whole frame came back; says whether nothing can be made of it without a keyframe, and one is to be asked for.
    fn returned(&mut self, frame: MediaData) -> bool;
}

/// Posts an offer and does as its manner is until `stop`.
pub fn visit(url: &str, frames: &[Frame], manner: Manner, stop: &Arc<AtomicBool>) -> Visit {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    call(url, Door::Offer, local, frames, manner, None, stop)
}

/// A polite visitor, reached at `local`, who wants something sent back.
pub fn visit_and_look(
    url: &str,
    door: Door,
    local: IpAddr,
    frames: &[Frame],
    mirror: &mut dyn Mirror,
    stop: &Arc<AtomicBool>,
) -> Visit {
    let manner = Manner::Polite;
    call(url, door, local, frames, manner, Some(mirror), stop)
}

fn call(
    url: &str,
    door: Door,
    local: IpAddr,
    frames: &[Frame],
    manner: Manner,
    mut mirror: Option<&mut dyn Mirror>,
    stop: &Arc<AtomicBool>,
) -> Visit {
    let socket = UdpSocket::bind((local, 0)).expect("it is an address of this machine");
    let local = socket.local_addr().expect("it is bound");
    let begin = Instant::now();
    let local_port = local.port();
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_vp8(true)
        .build(begin);
    rtc.add_local_candidate(Candidate::host(local, "udp").expect("it is a host"));
    let mut change = rtc.sdp_api();
    let direction = match mirror {
        Some(_) => Direction::SendRecv,
        None => Direction::SendOnly,
    };
    let mid = change.add_media(MediaKind::Video, direction, None, None, None);
    let second = (manner == Manner::TwoTracks)
        .then(|| change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None));
    if manner != Manner::Mute {
        // FastRTC sends nothing without this label.
        let label = match door {
            Door::Offer => "results",
            Door::FastRtc { .. } => "text",
        };
        change.add_channel(label.into());
    }
    let (offer, pending) = change.apply().expect("there are changes");

    let mut body = serde_json::json!({ "sdp": offer.to_sdp_string(), "type": "offer" });
    let path = match door {
        Door::Offer => "/offer",
        Door::FastRtc { .. } => {
            body["webrtc_id"] = local_port.to_string().into();
            "/webrtc/offer"
        }
    };
    let posted_at = epoch();
    let posted = Instant::now();
    let response = post(&format!("{url}{path}"), &body);
    let answer: serde_json::Value = response.json().expect("an answer is JSON");
    let answered_ms = posted.elapsed().as_secs_f64() * 1000.0;
    let Some(sdp) = answer["sdp"].as_str() else {
        return Visit {
            refused: Some((response.status_code, answer.to_string())),
            ..Visit::default()
        };
    };
    let sdp = SdpAnswer::from_sdp_string(sdp).expect("it is an answer");
    rtc.sdp_api()
        .accept_answer(pending, sdp)
        .expect("it fits the offer");
    if door == (Door::FastRtc { input: true }) {
        post(&format!("{url}/input_hook"), &body);
    }

    let mut visit = Visit {
        pc_id: answer["pc_id"].as_str().unwrap_or_default().to_owned(),
        offer: body.to_string(),
        answer: answer["sdp"].as_str().expect("an answer").to_owned(),
        posted_at,
        answered_ms,
        ..Visit::default()
    };
    while manner == Manner::Silent && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut sending: Option<(Instant, u64)> = None;
    let mut texts = match manner {
        Manner::Chatty(texts) => texts,
        _ => 0,
    };
    let mut channel = None;
    // A frame was written, and time was not told since.
    let mut untold = false;
    let mut position = 0;
    let mut bytes = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let timeout = loop {
            let output = match rtc.poll_output() {
                // The server has closed before the channels stood.
                Err(RtcError::Sctp(_)) => return visit,
                output => output.expect("it runs"),
            };
            match output {
                Output::Timeout(at) => break at,
                // A full socket buffer loses a datagram, as any network may.
                Output::Transmit(t) => drop(socket.send_to(&t.contents, t.destination)),
                Output::Event(Event::Connected) => {
                    visit.connected_ms = Some(posted.elapsed().as_secs_f64() * 1000.0);
                    sending = Some((Instant::now(), 0));
                }
                Output::Event(Event::ChannelOpen(id, _)) => channel = Some(id),
                // The clip begins with a keyframe.
                Output::Event(Event::KeyframeRequest(_)) => position = 0,
                Output::Event(Event::ChannelData(data)) => {
                    visit.results += 1;
                    match String::from_utf8(data.data) {
                        Ok(text) if !data.binary => visit.texts.push_back(text),
                        Ok(text) => visit.bytes.push(text.into_bytes()),
                        Err(error) => visit.bytes.push(error.into_bytes()),
                    }
                    if visit.texts.len() > TEXTS {
                        visit.texts.pop_front();
                    }
                }
                Output::Event(Event::MediaData(frame)) => {
                    let mid = frame.mid;
                    if mirror.as_mut().is_some_and(|m| m.returned(frame))
                        && let Some(mut writer) = rtc.writer(mid)
                    {
                        // Fails only where the other side does not know of it.
                        let _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
                    }
                }
                Output::Event(Event::Closed) => return visit,
                Output::Event(_) => {}
            }
        };
        if texts > 0
            && let Some(mut channel) = channel.and_then(|id| rtc.channel(id))
            && channel
                .write(false, texts.to_string().as_bytes())
                .expect("it is open")
        {
            texts -= 1;
            continue;
        }
        let now = Instant::now();
        if let Some((since, number)) = &mut sending
            && *since + clip::due(*number) <= now
        {
            let frame = &frames[position % frames.len()];
            if let Some(mirror) = &mut mirror {
                mirror.sent(*number, position % frames.len());
            }
            position += 1;
            let time = MediaTime::from_90khz(*number * u64::from(90_000 / clip::FPS));
            for mid in std::iter::once(mid).chain(second) {
                let writer = rtc.writer(mid).expect("it was negotiated");
                let pt = writer.payload_params().next().expect("VP8 was").pt();
                let data = frame.data.clone();
                writer.write(pt, now, time, data).expect("it is sent");
                if mirror.is_some() {
                    // The loop sends it, and sees what comes meanwhile.
                    break;
                }
                // Each is sent before the next is given.
                while let Ok(Output::Transmit(t)) = rtc.poll_output() {
                    drop(socket.send_to(&t.contents, t.destination));
                }
            }
            *number += 1;
            untold = true;
            continue;
        }
        if mirror.is_some() && (untold || timeout <= now) {
            // Packets go out when time is told, and a socket's time-out is too coarse to measure by.
            untold = false;
            rtc.handle_input(Input::Timeout(now)).expect("it runs");
            continue;
        }
        let due = sending.map_or(timeout, |(since, number)| {
            timeout.min(since + clip::due(number))
        });
        let wait = due
            .saturating_duration_since(now)
            .clamp(Duration::from_micros(500), Duration::from_millis(50));
        socket.set_read_timeout(Some(wait)).expect("it is not zero");
        let input = match socket.recv_from(&mut bytes) {
            Ok((length, source)) => receive(source, local, &bytes[..length]),
            Err(_) => None,
        };
        let input = input.unwrap_or_else(|| Input::Timeout(Instant::now()));
        rtc.handle_input(input).expect("it runs");
    }
    if matches!(manner, Manner::Vanishing | Manner::Silent) {
        return visit;
    }
    // What never stood has nothing to close.
    let _ = rtc.close();
    while let Ok(Output::Transmit(t)) = rtc.poll_output() {
        drop(socket.send_to(&t.contents, t.destination));
    }
    visit.closed_at = Some(Instant::now());
    visit.closed_at_epoch = epoch();
    visit
}

/// Nanoseconds since 1970: a moment that two processes agree on.
pub fn epoch() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is later")
        .as_nanos() as u64
}

fn post(url: &str, body: &serde_json::Value) -> minreq::Response {
    minreq::post(url)
        .with_timeout(30)
        .with_json(body)
        .and_then(minreq::Request::send)
        .expect("it is answered")
}

fn receive(source: SocketAddr, local: SocketAddr, bytes: &[u8]) -> Option<Input<'_>> {
    let receive = Receive::new(Protocol::Udp, source, local, bytes).ok()?;
    Some(Input::Receive(Instant::now(), receive))
}
