//! Our side of a call against str0m as the far side, in invented time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstrtcinference::logic::bandwidth::{Bandwidth, Limits};
use gstrtcinference::logic::connection::{EndReason, Patience};
use gstrtcinference::logic::media::Media;
use gstrtcinference::logic::return_lines::Returns;
use gstrtcinference::logic::wire::sdp::check_offer;
use gstrtcinference::logic::wire::sdpfrag::{Credentials, restarted};
use gstrtcinference::peer::call::{Call, CallConfig, CallEvent, datagram};
use gstrtcinference::peer::codecs::Codec;
use gstrtcinference::peer::encoding::Encoded;
use gstrtcinference::peer::lane::NetworkNews;
use str0m::change::SdpAnswer;
use str0m::channel::ChannelId;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::network::Network;

pub const PATIENCE: Patience = Patience {
    setup: Some(Duration::from_secs(10)),
    disconnect: Some(Duration::from_secs(5)),
};
pub const ECHO: Returns = Returns {
    of_video: Some(Media::Video),
    of_audio: Some(Media::Audio),
    video: 0,
    audio: 0,
};
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// A frame as it came out of our side: its number, and whether it was a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    pub number: u32,
    pub keyframe: bool,
    pub rtp_timestamp: u32,
    pub at: Duration,
}

/// What comes back to the far side, whole: the number of a frame that builds on the one before, or on none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    pub number: u32,
    /// How long it was under way.
    pub took: Duration,
    pub at: Duration,
}

pub const LIMITS: Limits = Limits {
    min: 100_000,
    max: 1_500_000,
};

pub struct Bench {
    start: Instant,
    now: Instant,
    pub ours: Call,
    pub far: Rtc,
    far_at: SocketAddr,
    far_timeout: Instant,
    far_mid: Mid,
    /// The far side's first offer.
    offer: String,
    pub network: Network,
    /// Whether the far side sends frames.
    pub sending: bool,
    /// The far side vanished: it neither sends nor hears.
    pub vanished: bool,
    next_frame: Instant,
    sent: u32,
    wants_keyframe: bool,
    pub keyframe_requests: u32,
    pub got: Vec<Got>,
    pub connected: Option<Duration>,
    pub ended: Option<(EndReason, Duration)>,
    pub far_channel: Option<ChannelId>,
    /// Texts that came to us, and to the far side.
    pub our_texts: Vec<String>,
    pub far_texts: Vec<String>,
    /// Whether our side sends video back.
    pub returning: bool,
    pub bandwidth: Bandwidth,
    next_return: Instant,
    return_keyframe: bool,
    pub returns_made: u32,
    pub returns_skipped: u32,
    made_at: Vec<Instant>,
    pub returned: Vec<Returned>,
    /// Whether the far side's picture is whole.
    far_whole: bool,
    far_asked: Option<Instant>,
}

impl Bench {
    /// Both sides have offer and answer; nothing was sent yet.
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        let ours_at: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let far_at: SocketAddr = "192.0.2.2:2000".parse().unwrap();
        let mut far = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .clear_codecs()
            .enable_vp8(true)
            .set_reordering_size_video(1000)
            .set_reordering_timeout_video(Some(Duration::from_millis(600)))
            .build(start);
        far.add_local_candidate(Candidate::host(far_at, "udp").unwrap());
        let mut change = far.sdp_api();
        let far_mid = change.add_media(MediaKind::Video, Direction::SendRecv, None, None, None);
        change.add_channel("results".into());
        let (offer, pending) = change.apply().unwrap();
        let text = offer.to_sdp_string();
        let offer = check_offer(&text, &[], &ECHO).unwrap();
        let latency = Duration::from_millis(150);
        let config = CallConfig::new(vec![Codec::Vp8], latency, PATIENCE, LIMITS);
        let candidates = [Candidate::host(ours_at, "udp").unwrap()];
        let (mut ours, answer) = Call::answer(&config, &offer, &candidates, start).unwrap();
        assert_eq!(ours.send_lines(&offer.returns, start).len(), 1);
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        far.sdp_api().accept_answer(pending, answer).unwrap();
        Self {
            start,
            now: start,
            ours,
            far,
            far_at,
            far_timeout: start,
            far_mid,
            offer: text,
            network: Network::new(seed, start),
            sending: true,
            vanished: false,
            next_frame: start,
            sent: 0,
            wants_keyframe: true,
            keyframe_requests: 0,
            got: Vec::new(),
            connected: None,
            ended: None,
            far_channel: None,
            our_texts: Vec::new(),
            far_texts: Vec::new(),
            returning: false,
            bandwidth: Bandwidth::new(LIMITS),
            next_return: start,
            return_keyframe: true,
            returns_made: 0,
            returns_skipped: 0,
            made_at: Vec::new(),
            returned: Vec::new(),
            far_whole: false,
            far_asked: None,
        }
    }

    /// A call that stands, with frames flowing over a good network.
    pub fn connected(seed: u64) -> Self {
        let mut bench = Self::new(seed);
        bench.network.conditions.delay = Duration::from_millis(10);
        bench.run(Duration::from_secs(1));
        assert!(bench.connected.is_some() && !bench.got.is_empty());
        bench
    }

    /// The far side restarts ICE with nothing but its credentials and its candidate.
    pub fn restart_ice(&mut self) {
        let mut change = self.far.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().unwrap();
        let new = Credentials::of(&offer.to_sdp_string()).unwrap();
        let offer = check_offer(&restarted(&self.offer, &new), &[], &ECHO).unwrap();
        let session = self.ours.ice_session();
        let answer = self.ours.answer_again(&offer, self.now).unwrap();
        assert_ne!(self.ours.ice_session(), session);
        let candidate = Candidate::host(self.far_at, "udp").unwrap();
        self.ours
            .add_candidate(&candidate.to_sdp_string(), self.now);
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        self.far.sdp_api().accept_answer(pending, answer).unwrap();
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn mid(&self) -> Mid {
        self.far_mid
    }

    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Lets time pass, until something ends our side.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        while self.ended.is_none() {
            let mut next = self.ours.poll_timeout();
            if !self.vanished {
                next = next.min(self.far_timeout);
                if self.sending && self.connected.is_some() {
                    next = next.min(self.next_frame);
                }
            }
            if self.returning && self.connected.is_some() {
                next = next.min(self.next_return);
            }
            next = next
                .min(self.network.next_at().unwrap_or(until))
                .max(self.now);
            if next >= until {
                self.now = until;
                return;
            }
            self.now = next;
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(packet) = self.network.arrive(now) {
            let to_us = packet.destination.port() == 1000;
            if to_us {
                let input = datagram(now, packet.source, packet.destination, &packet.bytes);
                if let Some(input) = input.filter(|input| self.ours.accepts(input)) {
                    self.ours.receive(input, now);
                }
            } else if !self.vanished {
                let bytes = packet.bytes.as_slice();
                let receive = Receive::new(Protocol::Udp, packet.source, packet.destination, bytes);
                self.far
                    .handle_input(Input::Receive(now, receive.unwrap()))
                    .unwrap();
            }
            self.settle();
        }
        if self.ours.poll_timeout() <= now {
            self.ours.tick(now);
            self.settle();
        }
        if self.returning && self.connected.is_some() && self.next_return <= now {
            self.send_back();
            self.settle();
        }
        if !self.vanished {
            if self.far_timeout <= now {
                self.far.handle_input(Input::Timeout(now)).unwrap();
                self.settle();
            }
            if self.sending && self.connected.is_some() && self.next_frame <= now {
                self.send_frame();
                self.settle();
            }
        }
    }

    /// A frame of invented VP8 as long as an encoder would make it that keeps to its bitrate.
    fn send_back(&mut self) {
        let now = self.now;
        self.next_return = now + FRAME;
        if !self.bandwidth.admits(now) {
            self.returns_skipped += 1;
            return;
        }
        let keyframe = std::mem::take(&mut self.return_keyframe);
        let share = self.bandwidth.target() as usize / 8 / 30;
        let mut data = vec![u8::from(!keyframe); if keyframe { share * 6 } else { share }];
        data[3..7].copy_from_slice(&self.returns_made.to_be_bytes());
        self.bandwidth.on_sent(data.len(), now);
        let frame = Encoded {
            codec: Codec::Vp8,
            data: data.into(),
            rtp_time: u64::from(self.returns_made) * 3_000,
            wallclock: now,
            keyframe,
        };
        assert!(self.ours.write(self.far_mid, &frame, now));
        self.made_at.push(now);
        self.returns_made += 1;
    }

    /// The far side does what a browser does: shows whole pictures, and asks for a keyframe when it has none.
    fn take_back(&mut self, data: &str0m::media::MediaData) {
        let now = self.now;
        let keyframe = data.data[0] & 1 == 0;
        if keyframe || (data.contiguous && self.far_whole) {
            self.far_whole = true;
            let number = u32::from_be_bytes(data.data[3..7].try_into().unwrap());
            self.returned.push(Returned {
                number,
                took: now - self.made_at[number as usize],
                at: now - self.start,
            });
            return;
        }
        self.far_whole = false;
        let patience = Duration::from_millis(200);
        if self.far_asked.is_none_or(|asked| now >= asked + patience) {
            self.far_asked = Some(now);
            let mut writer = self.far.writer(self.far_mid).unwrap();
            writer
                .request_keyframe(None, KeyframeRequestKind::Pli)
                .unwrap();
        }
    }

    /// Whole pictures a second that the far side has seen in that time.
    pub fn returned_fps(&self, since: Duration, until: Duration) -> f64 {
        let seen = self
            .returned
            .iter()
            .filter(|r| r.at >= since && r.at < until);
        seen.count() as f64 / (until - since).as_secs_f64()
    }

    /// A frame of invented VP8: a payload header that says key or not, the frame's number, and filling.
    fn send_frame(&mut self) {
        self.next_frame = self.now + FRAME;
        let Some(writer) = self.far.writer(self.far_mid) else {
            return;
        };
        let Some(pt) = writer.payload_params().next().map(|p| p.pt()) else {
            return;
        };
        let keyframe = std::mem::take(&mut self.wants_keyframe);
        let mut data = vec![u8::from(!keyframe); if keyframe { 12_000 } else { 3_000 }];
        data[3..7].copy_from_slice(&self.sent.to_be_bytes());
        let time = MediaTime::from_90khz(u64::from(self.sent) * 3_000 + 1_000);
        writer.write(pt, self.now, time, data).unwrap();
        self.sent += 1;
    }

    fn settle(&mut self) {
        let now = self.now;
        loop {
            match self.far.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.far_timeout = at;
                    break;
                }
                Output::Transmit(t) if !self.vanished => {
                    self.network.send(now, t.source, t.destination, &t.contents);
                }
                Output::Event(Event::KeyframeRequest(_)) => {
                    self.keyframe_requests += 1;
                    self.wants_keyframe = true;
                }
                Output::Event(Event::MediaData(data)) => self.take_back(&data),
                Output::Event(Event::ChannelOpen(id, _)) => self.far_channel = Some(id),
                Output::Event(Event::ChannelData(data)) => {
                    self.far_texts.push(String::from_utf8(data.data).unwrap());
                }
                _ => {}
            }
        }
        while let Some(t) = self.ours.poll_transmit() {
            self.network.send(now, t.source, t.destination, &t.contents);
        }
        while let Some(event) = self.ours.poll_event() {
            let at = now - self.start;
            match event {
                CallEvent::Connected => {
                    self.connected = Some(at);
                    self.next_frame = now;
                }
                CallEvent::Channel(_) => {}
                CallEvent::KeyframeWanted(_) => self.return_keyframe = true,
                CallEvent::Network(NetworkNews::Estimate(bits)) => self.bandwidth.on_estimate(bits),
                CallEvent::Network(NetworkNews::Remb(bits)) => self.bandwidth.on_remb(bits),
                CallEvent::Network(NetworkNews::Loss(share)) => self.bandwidth.on_loss(share, now),
                CallEvent::Frame(frame) => self.got.push(Got {
                    number: u32::from_be_bytes(frame.data[3..7].try_into().unwrap()),
                    keyframe: frame.keyframe,
                    rtp_timestamp: frame.rtp_time as u32,
                    at,
                }),
                CallEvent::Message { data, .. } => {
                    self.our_texts.push(String::from_utf8(data).unwrap());
                }
                CallEvent::Ended { reason, .. } => {
                    assert!(self.ended.is_none(), "ended twice");
                    self.ended = Some((reason, at));
                }
            }
        }
    }

    /// Every frame that builds on another came right after it.
    pub fn assert_whole_pictures(&self) {
        let mut last = None;
        for got in &self.got {
            assert!(
                got.keyframe || last == Some(got.number - 1),
                "frame {} came after {last:?}",
                got.number
            );
            last = Some(got.number);
        }
    }
}
