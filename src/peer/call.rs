//! One connection without sockets or clocks.
//!
//! A [`Call`] is told of datagrams, time and wishes, and says what to send, what happened, and when it wants
//! to be told of time again. It drains str0m after every mutation itself, so no caller can forget to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::channel::ChannelId;
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::format::Codec as StrCodec;
use str0m::media::{Frequency, KeyframeRequestKind, MediaData, MediaTime, Mid, Pt, Rid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};

use super::codecs::{Codec, Media};
use super::encoding::Encoded;
use super::lane::{NetworkNews, SendLine};
use crate::logic::bandwidth::Limits;
use crate::logic::connection::{EndReason, Patience, Watchdog};
use crate::logic::frame_gate::{FrameGate, Verdict};
use crate::logic::return_lines::{Assigned, MediaLine};
use crate::logic::wire::dialect::Payload;
use crate::logic::wire::sdp::{CheckedOffer, unanswered_line};

mod offering;

pub use offering::{AnswerError, OfferLine, OfferTerms, Offered};

/// Most data channels of one connection that are listened to.
const MAX_CHANNELS: usize = 64;
/// Most tracks of one connection that are listened to.
const MAX_TRACKS: usize = 16;
/// Payloads that may turn out broken at once; beyond that the call makes no progress.
const MAX_BROKEN: u32 = 1000;
/// What the network is believed to carry before anything is known of it, bits a second.
const FIRST_ESTIMATE: u64 = 1_000_000;
/// How often a peer's reports are looked at.
const REPORTS: Duration = Duration::from_secs(1);
/// Packets that may go out for one telling of time; more go at the next.
const MAX_PACED: u32 = 256;
/// Packets that are kept to be sent again, and how long.
const REPAIR_PACKETS: usize = 1024;
const REPAIR_TIME: Duration = Duration::from_secs(3);
/// Of all that is sent, the share that may be repairs: on a network that reorders, peers ask for much that is not lost.
const MAX_REPAIRS: f32 = 0.5;
/// What may wait in a data channel before messages are dropped.
const CHANNEL_BACKLOG: usize = 256 * 1024;
/// Longest message; it waits whole, or half of it would go out.
const MAX_MESSAGE: usize = 1024 * 1024;

/// What every call of a session shares.
#[derive(Clone)]
pub struct CallConfig {
    pub certificate: DtlsCert,
    pub crypto: Arc<CryptoProvider>,
    /// In order of preference.
    pub codecs: Vec<Codec>,
    /// How long a gap is waited for.
    pub latency: Duration,
    pub patience: Patience,
    /// Of each stream of video that is sent.
    pub bitrate: Limits,
}

impl CallConfig {
    /// Makes the certificate; takes a few milliseconds.
    pub fn new(codecs: Vec<Codec>, latency: Duration, patience: Patience, bitrate: Limits) -> Self {
        let crypto = Arc::new(str0m::crypto::from_feature_flags());
        let certificate = crypto
            .dtls_provider
            .generate_certificate()
            .expect("OpenSSL makes P-256 certificates");
        Self {
            certificate,
            crypto,
            codecs,
            latency,
            patience,
            bitrate,
        }
    }
}

/// A whole encoded frame that builds only on frames that were given out before it.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    pub mid: Mid,
    pub codec: Codec,
    pub data: Arc<[u8]>,
    /// RTP time, extended to 64 bit; the lower 32 are what stood in the packets.
    pub rtp_time: u64,
    pub ssrc: u32,
    /// When its first packet came.
    pub arrival: Instant,
    pub keyframe: bool,
}

/// What happened in a call.
#[derive(Debug)]
pub enum CallEvent {
    /// ICE and DTLS stand.
    Connected,
    Frame(EncodedFrame),
    Message {
        label: String,
        data: Vec<u8>,
        binary: bool,
    },
    /// A data channel of that label has opened.
    Channel(String),
    /// The peer lost pictures of what it is sent, and needs a keyframe.
    KeyframeWanted(Mid),
    Network(NetworkNews),
    /// Nothing follows.
    Ended {
        reason: EndReason,
        detail: Option<String>,
    },
}

/// Why an offer has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the session description is not understood: {0}")]
    Sdp(String),
    #[error("the offer cannot be answered: {0}")]
    Rtc(#[from] RtcError),
}

/// What became of a message to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The peer has no such channel open.
    NoChannel,
    /// The peer does not keep up.
    Full,
    /// The peer takes no message of that length.
    TooLong,
}

impl Sent {
    /// What the application is told of it.
    pub fn problem(self, channel: Option<&str>) -> Option<String> {
        match (self, channel) {
            (Self::Yes, _) => None,
            (Self::NoChannel, Some(label)) => {
                Some(format!("the visitor has no open data channel {label:?}"))
            }
            (Self::NoChannel, None) => Some("the visitor has no open data channel".into()),
            (Self::Full, _) => Some("the visitor's data channel is full".into()),
            (Self::TooLong, _) => {
                Some("the message is too long for the visitor's data channel".into())
            }
        }
    }
}

struct Track {
    mid: Mid,
    /// Of simulcast layers the first that came is taken.
    rid: Option<Rid>,
    gate: FrameGate,
    ssrc: u32,
}

pub struct Call {
    rtc: Rtc,
    watchdog: Watchdog,
    tracks: Vec<Track>,
    /// Lines that were ever sent on.
    sends_on: Vec<Mid>,
    /// Open channels, oldest first.
    channels: Vec<(ChannelId, String)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<CallEvent>,
    /// When str0m wants to be told of time.
    timeout: Instant,
    connected: bool,
    ended: bool,
    /// What it means that the peer has closed.
    closed: EndReason,
    /// Of each stream of video.
    bitrate: Limits,
    /// The least that is ever sent, bits a second.
    least: u64,
    /// The most that bandwidth is looked for.
    most: u64,
}

impl Call {
    /// Answers an offer. `candidates` are the addresses the peer may reach us at.
    pub fn answer(
        config: &CallConfig,
        offer: &CheckedOffer,
        candidates: &[Candidate],
        now: Instant,
    ) -> Result<(Self, String), CallError> {
        let parsed = parse_offer(offer)?;
        // A later offer may want what the first one did not.
        let sends = offer.may_return;
        let estimates = sends && offer.transport_feedback;
        let mut call = Self::new(config, rtc_config(config, sends, estimates), now)?;
        call.add_local(candidates, now);
        let answer = call.accept(parsed, now)?;
        Ok((call, answer))
    }

    fn new(config: &CallConfig, rtc: str0m::RtcConfig, now: Instant) -> Result<Self, CallError> {
        let mut call = Self {
            rtc: rtc.build(now),
            watchdog: Watchdog::new(config.patience, now),
            tracks: Vec::new(),
            sends_on: Vec::new(),
            channels: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            timeout: now,
            connected: false,
            ended: false,
            closed: EndReason::ClientClosed,
            bitrate: config.bitrate,
            least: 0,
            most: 0,
        };
        call.rtc.handle_input(Input::Timeout(now))?;
        call.drain(now);
        Ok(call)
    }

    /// Addresses that the peer may reach us at, too; the next answer tells it. Those that are known change nothing.
    pub fn add_local(&mut self, candidates: &[Candidate], now: Instant) {
        for candidate in candidates {
            self.rtc.add_local_candidate(candidate.clone());
            self.drain(now);
        }
    }

    /// Answers a later offer of the same connection.
    pub fn answer_again(
        &mut self,
        offer: &CheckedOffer,
        now: Instant,
    ) -> Result<String, CallError> {
        let offer = parse_offer(offer)?;
        self.accept(offer, now)
    }

    fn accept(&mut self, offer: SdpOffer, now: Instant) -> Result<String, CallError> {
        let answer: Result<SdpAnswer, _> = self.rtc.sdp_api().accept_offer(offer);
        self.drain(now);
        Ok(answer?.to_sdp_string())
    }

    /// Our username fragment, which each restart of ICE changes.
    pub fn ice_session(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Those of the lines that the answer agreed to send on, with what the peer takes there.
    pub fn send_lines(&mut self, returns: &[Assigned], now: Instant) -> Vec<SendLine> {
        let mut lines = Vec::new();
        for assigned in returns {
            let mid = Mid::from(assigned.mid.as_str());
            let agreed = self.rtc.media(mid);
            if !agreed.is_some_and(|media| media.direction().is_sending() && !media.disabled()) {
                continue;
            }
            if !self.sends_on.contains(&mid)
                && let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None)
            {
                stream.set_rtx_cache(REPAIR_PACKETS, REPAIR_TIME, Some(MAX_REPAIRS));
                // An encoder that keeps to its bitrate needs no pacer, and one that holds back what is sent again for longer than
                // the peer waits is worse than none.
                stream.set_unpaced(true);
                self.sends_on.push(mid);
            }
            let mut codecs = Vec::new();
            for (codec, _) in self.payloads(mid) {
                if !codecs.contains(&codec) {
                    codecs.push(codec);
                }
            }
            lines.push(SendLine {
                source: assigned.source.clone(),
                mid,
                media: assigned.media,
                codecs,
            });
        }
        let videos = lines.iter().filter(|line| line.media == Media::Video);
        let videos = videos.count() as u64;
        (self.least, self.most) = (self.bitrate.min * videos, self.bitrate.max * videos);
        // More is not looked for. Without an estimate it is nothing.
        let most = Bitrate::bps(self.most.max(self.least));
        self.rtc.bwe().set_desired_bitrate(most);
        self.drain(now);
        lines
    }

    fn payloads(&mut self, mid: Mid) -> Vec<(Codec, Pt)> {
        let Some(wishes) = self.rtc.media(mid).map(|media| media.remote_pts().to_vec()) else {
            return Vec::new();
        };
        let Some(writer) = self.rtc.writer(mid) else {
            return Vec::new();
        };
        let mut payloads: Vec<_> = writer
            .payload_params()
            .filter_map(|params| {
                let spec = params.spec();
                let codec = codec_of(spec.codec)?;
                // Whole slices in as many packets as they need, which is what is sent.
                let fits = codec != Codec::H264 || spec.format.packetization_mode == Some(1);
                let place = wishes.iter().position(|pt| *pt == params.pt())?;
                fits.then_some((place, codec, params.pt()))
            })
            .collect();
        payloads.sort_by_key(|(place, ..)| *place);
        payloads
            .into_iter()
            .map(|(_, codec, pt)| (codec, pt))
            .collect()
    }

    /// Sends a frame; says whether it went out.
    pub fn write(&mut self, mid: Mid, frame: &Encoded, now: Instant) -> bool {
        if self.ended || !self.connected {
            return false;
        }
        let payload = self
            .payloads(mid)
            .into_iter()
            .find(|(codec, _)| *codec == frame.codec);
        let Some((writer, (_, pt))) = self.rtc.writer(mid).zip(payload) else {
            return false;
        };
        let rate = match frame.codec.is_audio() {
            true => Frequency::FORTY_EIGHT_KHZ,
            false => Frequency::NINETY_KHZ,
        };
        let time = MediaTime::new(frame.rtp_time, rate);
        // Of a time that is yet to come the sender reports would tell nonsense.
        let wallclock = frame.wallclock.min(now);
        let written = writer.write(pt, wallclock, time, frame.data.clone());
        self.drain(now);
        // Packets are made of it when time is told.
        self.input(Input::Timeout(now), now);
        self.pace(now);
        written.is_ok()
    }

    /// One packet goes out for each time that time is told.
    fn pace(&mut self, now: Instant) {
        for _ in 0..MAX_PACED {
            if self.timeout > now || self.ended {
                return;
            }
            self.input(Input::Timeout(now), now);
        }
    }

    /// Whether a datagram belongs to this call.
    pub fn accepts(&self, datagram: &Input) -> bool {
        !self.ended && self.rtc.accepts(datagram)
    }

    /// A datagram of this call's peer came.
    pub fn receive(&mut self, datagram: Input, now: Instant) {
        self.watchdog.on_datagram(now);
        self.input(datagram, now);
    }

    /// Time has come: see [`Call::poll_timeout`].
    pub fn tick(&mut self, now: Instant) {
        if let Some(reason) = self.watchdog.check(now) {
            return self.end(reason, None);
        }
        for index in 0..self.tracks.len() {
            if self.tracks[index].gate.repeat(now) {
                self.ask_for_keyframe(index);
                self.drain(now);
            }
        }
        self.input(Input::Timeout(now), now);
        self.pace(now);
    }

    fn input(&mut self, input: Input, now: Instant) {
        if self.ended {
            return;
        }
        let result = self.rtc.handle_input(input);
        self.drain(now);
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// When the call wants to be told of time.
    pub fn poll_timeout(&self) -> Instant {
        let repeats = self.tracks.iter().filter_map(|t| t.gate.repeat_at());
        repeats
            .chain(self.watchdog.deadline())
            .fold(self.timeout, Instant::min)
    }

    /// Frames that came and were not given out: they built on others that were lost.
    pub fn frames_lost(&self) -> u64 {
        self.tracks.iter().map(|track| track.gate.dropped).sum()
    }

    /// What is to be sent, until there is nothing more.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What happened, until there is nothing more.
    pub fn poll_event(&mut self) -> Option<CallEvent> {
        self.events.pop_front()
    }

    /// Frames of `mid` were lost behind this call: nothing more comes before a keyframe.
    pub fn need_keyframe(&mut self, mid: Mid, now: Instant) {
        if let Some(index) = self.tracks.iter().position(|t| t.mid == mid)
            && self.tracks[index].gate.close(now)
        {
            self.ask_for_keyframe(index);
            self.drain(now);
        }
    }

    /// Sends a message, in pieces that the peer takes one by one, on the open channel of that label; without one, on the
    /// oldest. All of it or nothing.
    pub fn send(&mut self, label: Option<&str>, pieces: &[Payload], now: Instant) -> Sent {
        let mut channels = self.channels.iter();
        let channel = channels.find(|(_, open)| label.is_none_or(|label| label == open));
        let Some(&(id, _)) = channel else {
            return Sent::NoChannel;
        };
        // All channels share the room.
        let waiting = self.unsent();
        let Some(mut channel) = self.rtc.channel(id) else {
            return Sent::NoChannel;
        };
        let length: usize = pieces.iter().map(|piece| piece.as_bytes().len()).sum();
        if length > MAX_MESSAGE {
            return Sent::TooLong;
        }
        // A long message goes when nothing else does.
        if waiting > 0 && waiting + length > CHANNEL_BACKLOG {
            return Sent::Full;
        }
        let mut write = |piece: &Payload| {
            let binary = matches!(piece, Payload::Bytes(_));
            match channel.write(binary, piece.as_bytes()) {
                Ok(true) => Sent::Yes,
                Ok(false) => Sent::Full,
                // Longer than the peer takes; the loss of the whole association is told elsewhere.
                Err(_) => Sent::TooLong,
            }
        };
        let failed = pieces
            .iter()
            .map(&mut write)
            .find(|sent| *sent != Sent::Yes);
        self.drain(now);
        failed.unwrap_or(Sent::Yes)
    }

    /// Bytes in data channels that have not reached the peer.
    pub fn unsent(&mut self) -> usize {
        let rtc = &mut self.rtc;
        let channels = self.channels.iter();
        channels
            .filter_map(|(id, _)| Some(rtc.channel(*id)?.buffered_amount()))
            .sum()
    }

    /// One more address the peer may be reached at, checked before.
    pub fn add_candidate(&mut self, candidate: &str, now: Instant) {
        // What is well-formed and still not understood is of a kind that is not spoken here.
        if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
            self.rtc.add_remote_candidate(candidate);
            self.drain(now);
        }
    }

    /// Says goodbye. What is to be sent of it comes from [`Call::poll_transmit`]; no event follows.
    pub fn close(&mut self, now: Instant) {
        if !self.ended {
            self.ended = true;
            self.events.clear();
            // A handshake that never finished leaves nothing to close properly.
            let _ = self.rtc.close();
            self.drain(now);
        }
    }

    fn end(&mut self, reason: EndReason, detail: Option<String>) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(CallEvent::Ended { reason, detail });
        }
    }

    fn fail(&mut self, error: RtcError) {
        let reason = match self.connected {
            true => EndReason::PeerLost,
            false => EndReason::SetupFailed,
        };
        self.end(reason, Some(error.to_string()));
    }

    /// Empties str0m, as it wants after every mutation.
    fn drain(&mut self, now: Instant) {
        let mut broken = 0;
        loop {
            match self.rtc.poll_output() {
                // A payload that is none of its codec: as good as lost. Each takes its packets with it.
                Err(RtcError::Packet(mid, ..)) if broken < MAX_BROKEN => {
                    broken += 1;
                    if let Some(index) = self.tracks.iter().position(|t| t.mid == mid)
                        && self.tracks[index].gate.close(now)
                    {
                        self.ask_for_keyframe(index);
                    }
                }
                Ok(Output::Timeout(at)) => {
                    self.timeout = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.transmits.push_back(transmit),
                Ok(Output::Event(event)) => self.on_event(event, now),
                Err(error) => {
                    self.timeout = now + Duration::from_secs(3600);
                    return match error {
                        // The peer has closed before its channels stood.
                        RtcError::Sctp(_) if self.connected => self.end(self.closed, None),
                        error => self.fail(error),
                    };
                }
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        if self.ended {
            return;
        }
        match event {
            Event::Connected => {
                self.connected = true;
                self.watchdog.on_connected(now);
                self.events.push_back(CallEvent::Connected);
            }
            Event::MediaData(data) => self.on_media(data, now),
            Event::ChannelOpen(id, label) if self.channels.len() < MAX_CHANNELS => {
                self.channels.push((id, label.clone()));
                self.events.push_back(CallEvent::Channel(label));
            }
            Event::ChannelClose(id) => self.channels.retain(|(open, _)| *open != id),
            Event::ChannelData(data) => {
                if let Some((_, label)) = self.channels.iter().find(|(id, _)| *id == data.id) {
                    self.events.push_back(CallEvent::Message {
                        label: label.clone(),
                        data: data.data,
                        binary: data.binary,
                    });
                }
            }
            Event::KeyframeRequest(request) => {
                self.events
                    .push_back(CallEvent::KeyframeWanted(request.mid));
            }
            Event::EgressBitrateEstimate(kind) => {
                if let BweKind::Twcc { estimate, .. } = &kind
                    && estimate.as_u64() < self.least
                {
                    // Less is never sent: from further down it would only take longer to climb again.
                    self.rtc.bwe().reset(Bitrate::bps(self.least));
                    self.rtc.bwe().set_desired_bitrate(Bitrate::bps(self.most));
                }
                let news = match kind {
                    BweKind::Twcc {
                        estimate,
                        can_probe,
                    } => NetworkNews::Estimate(can_probe.then(|| estimate.as_u64())),
                    BweKind::Remb { estimate, .. } => NetworkNews::Remb(estimate.as_u64()),
                    _ => return,
                };
                self.events.push_back(CallEvent::Network(news));
            }
            Event::MediaEgressStats(stats) => {
                if let Some(loss) = stats.loss {
                    let news = NetworkNews::Loss(f64::from(loss));
                    self.events.push_back(CallEvent::Network(news));
                }
            }
            Event::Closed => self.end(self.closed, None),
            _ => {}
        }
    }

    fn on_media(&mut self, media: MediaData, now: Instant) {
        let Some(codec) = codec_of(media.params.spec().codec) else {
            return;
        };
        let index = match self.tracks.iter().position(|t| t.mid == media.mid) {
            Some(index) if self.tracks[index].rid == media.rid => index,
            Some(_) => return,
            None if self.tracks.len() >= MAX_TRACKS => return,
            None => {
                self.tracks.push(Track {
                    mid: media.mid,
                    rid: media.rid,
                    gate: FrameGate::default(),
                    ssrc: 0,
                });
                self.tracks.len() - 1
            }
        };
        let keyframe = codec.is_audio() || media.is_keyframe();
        match self.tracks[index]
            .gate
            .check(media.contiguous, keyframe, now)
        {
            Verdict::Pass => {}
            Verdict::Drop => return,
            Verdict::DropAndRequestKeyframe => return self.ask_for_keyframe(index),
        }
        // A sender may change its SSRC; a keyframe is where it would.
        let track = &mut self.tracks[index];
        if (keyframe || track.ssrc == 0)
            && let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(track.mid, track.rid)
        {
            track.ssrc = *stream.ssrc();
        }
        self.events.push_back(CallEvent::Frame(EncodedFrame {
            mid: media.mid,
            codec,
            data: media.data,
            rtp_time: media.time.numer(),
            ssrc: track.ssrc,
            arrival: media.network_time,
            keyframe,
        }));
    }

    /// The caller drains, or is being drained.
    fn ask_for_keyframe(&mut self, index: usize) {
        let (mid, rid) = (self.tracks[index].mid, self.tracks[index].rid);
        let Some(mut writer) = self.rtc.writer(mid) else {
            return;
        };
        let kind = [KeyframeRequestKind::Pli, KeyframeRequestKind::Fir]
            .into_iter()
            .find(|kind| writer.is_request_keyframe_possible(*kind));
        if let Some(kind) = kind {
            // Fails only for a track that has gone meanwhile.
            let _ = writer.request_keyframe(rid, kind);
        }
    }
}

/// What came on a socket, as a call's input; `None` for what is neither STUN, DTLS, RTP nor RTCP.
pub fn datagram(
    now: Instant,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: &[u8],
) -> Option<Input<'_>> {
    Receive::new(Protocol::Udp, source, destination, bytes)
        .ok()
        .map(|receive| Input::Receive(now, receive))
}

/// The parser says where it stopped as an address in our memory, which is nobody's business.
fn without_addresses(error: &str) -> String {
    let lines = error.lines().filter(|line| !line.contains("PointerOffset"));
    lines.collect::<Vec<_>>().join("; ")
}

fn parse_offer(offer: &CheckedOffer) -> Result<SdpOffer, CallError> {
    let parsed = SdpOffer::from_sdp_string(&offer.sdp)
        .map_err(|error| CallError::Sdp(without_addresses(&error.to_string())))?;
    // It stops at a protocol that it does not know, and answers no line of a kind that it does not know: it says nothing of
    // either, and the answer fits no offer.
    match unanswered_line(&parsed.to_sdp_string(), &offer.media) {
        None => Ok(parsed),
        Some(line) => {
            let MediaLine { mid, kind, .. } = line;
            let text = format!("the m-line with mid {mid:?}, {kind:?}, or what stands in it");
            Err(CallError::Sdp(text))
        }
    }
}

fn codec_of(codec: StrCodec) -> Option<Codec> {
    match codec {
        StrCodec::Vp8 => Some(Codec::Vp8),
        StrCodec::H264 => Some(Codec::H264),
        StrCodec::Opus => Some(Codec::Opus),
        _ => None,
    }
}

fn rtc_config(config: &CallConfig, sends: bool, estimates: bool) -> str0m::RtcConfig {
    // Without a peer that tells how packets arrive there is nothing to estimate by, and pacing would only wait.
    let first = config.bitrate.max.min(FIRST_ESTIMATE);
    let rtc = Rtc::builder()
        .enable_bwe(estimates.then(|| Bitrate::bps(first)))
        .set_stats_interval(sends.then_some(REPORTS))
        .set_crypto_provider(config.crypto.clone())
        .set_dtls_cert(config.certificate.clone())
        .clear_codecs()
        .set_sctp_max_buffered_amount(MAX_MESSAGE)
        // Waiting is bounded by time, not by a number of frames.
        .set_reordering_size_video(1000)
        .set_reordering_size_audio(1000)
        .set_reordering_timeout_video(Some(config.latency))
        .set_reordering_timeout_audio(Some(config.latency));
    config.codecs.iter().fold(rtc, |rtc, codec| match codec {
        Codec::Vp8 => rtc.enable_vp8(true),
        Codec::H264 => rtc.enable_h264(true),
        Codec::Opus => rtc.enable_opus(true, false),
        Codec::Jpeg => rtc,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::return_lines::Returns;
    use crate::logic::wire::sdp::check_offer;

    #[test]
    fn an_offer_with_a_line_that_is_not_understood_is_refused_and_the_line_named() {
        let line = |mid: &str, kind: &str, protocol: &str| {
            format!(
                "m={kind} 9 {protocol} 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sendrecv\r\na=rtpmap:96 VP8/90000\r\n"
            )
        };
        let offer = |kind: &str, protocol: &str| {
            let known = line("a", "video", "UDP/TLS/RTP/SAVPF");
            let text = format!(
                "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 00:11\r\n\
                 a=ice-ufrag:user\r\na=ice-pwd:twenty-two-characters!\r\n{known}{}",
                line("b", kind, protocol)
            );
            check_offer(&text, &[], &Returns::default()).unwrap()
        };
        parse_offer(&offer("video", "UDP/TLS/RTP/SAVPF")).unwrap();
        for (kind, protocol) in [("video", "RTP/AVP"), ("text", "UDP/DTLS/SCTP")] {
            let error = parse_offer(&offer(kind, protocol)).unwrap_err().to_string();
            assert!(error.contains("mid \"b\""), "{error}");
        }
    }
}
