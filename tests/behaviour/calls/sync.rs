//! Sound and picture that come back together: ten minutes of a call, whose far side has a clock of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstrtcinference::logic::frame_facts::{FrameFacts, TimeBase};
use gstrtcinference::logic::return_clock::ReturnClock;
use gstrtcinference::logic::stream_clock::StreamClock;
use gstrtcinference::logic::wire::sdp::check_offer;
use gstrtcinference::peer::call::{Call, CallConfig, CallEvent, EncodedFrame, datagram};
use gstrtcinference::peer::codecs::Codec;
use gstrtcinference::peer::encoding::Encoded;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaData, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::bench::{ECHO, LIMITS, PATIENCE};
use super::network::{Conditions, Network};

const TEN_MINUTES: Duration = Duration::from_secs(600);
/// The far side's crystal is off by that much.
const DRIFT: f64 = 1.0001;

/// A stream of the far side, and its way back through us.
struct Stream {
    codec: Codec,
    period: Duration,
    sent: u32,
    next: Instant,
    arrivals: StreamClock,
    returns: ReturnClock,
    /// Of the piece that was heard or seen last: when, by the sender reports, less when it was made.
    shift: Option<f64>,
    came: u32,
}

impl Stream {
    fn new(codec: Codec, period: Duration, start: Instant) -> Self {
        Self {
            codec,
            period,
            sent: 0,
            next: start,
            arrivals: StreamClock::new(codec.clock_rate()),
            returns: ReturnClock::new(codec.clock_rate(), codec.is_audio()),
            shift: None,
            came: 0,
        }
    }

    /// What our side makes of a frame: what chain and encoder do to its time.
    fn turn_round(&mut self, frame: &EncodedFrame, start: Instant) -> Encoded {
        let rate = self.codec.clock_rate();
        let at = self
            .arrivals
            .running_time(frame.rtp_time, frame.arrival - start);
        let facts = FrameFacts {
            rtp_timestamp: Some(frame.rtp_time as u32),
            pts: Some(self.arrivals.ticks(frame.rtp_time)),
            time_base: TimeBase::of_clock_rate(rate as i32),
            ..FrameFacts::default()
        };
        self.returns.note(at, &facts);
        Encoded {
            codec: self.codec,
            data: frame.data.clone(),
            rtp_time: self.returns.stamp(at, Some(self.period)),
            wallclock: start + at,
            keyframe: true,
        }
    }

    fn come_back(&mut self, data: &MediaData, epoch: std::time::SystemTime) {
        self.came += 1;
        let Some(report) = data.last_sender_info else {
            return;
        };
        let reported = report.ntp_time.duration_since(epoch).unwrap().as_secs_f64();
        let rate = f64::from(self.codec.clock_rate());
        let since = (data.time.numer() as u32).wrapping_sub(report.rtp_time.numer() as u32) as i32;
        let number = u32::from_be_bytes(data.data[3..7].try_into().unwrap());
        let made = f64::from(number) * self.period.as_secs_f64() * DRIFT;
        self.shift = Some(reported + f64::from(since) / rate - made);
    }
}

#[test]
fn sound_and_picture_that_come_back_stay_together_for_ten_minutes() {
    let start = Instant::now();
    let epoch = std::time::SystemTime::now() - Duration::from_secs(10);
    let ours_at: SocketAddr = "192.0.2.1:1000".parse().unwrap();
    let far_at: SocketAddr = "192.0.2.2:2000".parse().unwrap();
    let mut far = Rtc::builder()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_vp8(true)
        .enable_opus(true, false)
        .build(start);
    far.add_local_candidate(Candidate::host(far_at, "udp").unwrap());
    let mut change = far.sdp_api();
    let video = change.add_media(MediaKind::Video, Direction::SendRecv, None, None, None);
    let audio = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
    let (offer, pending) = change.apply().unwrap();
    let offer = check_offer(&offer.to_sdp_string(), &[], &ECHO).unwrap();
    let codecs = vec![Codec::Vp8, Codec::Opus];
    let config = CallConfig::new(codecs, Duration::from_millis(150), PATIENCE, LIMITS);
    let candidates = [Candidate::host(ours_at, "udp").unwrap()];
    let (mut ours, answer) = Call::answer(&config, &offer, &candidates, start).unwrap();
    assert_eq!(ours.send_lines(&offer.returns, start).len(), 2);
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    far.sdp_api().accept_answer(pending, answer).unwrap();

    let mut streams: HashMap<Mid, Stream> = HashMap::from([
        (
            video,
            Stream::new(Codec::Vp8, Duration::from_nanos(1_000_000_000 / 30), start),
        ),
        (
            audio,
            Stream::new(Codec::Opus, Duration::from_millis(20), start),
        ),
    ]);
    let mut network = Network::new(77, start);
    network.conditions = Conditions {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(40),
        loss: 0.01,
        ..Conditions::default()
    };
    let (mut now, mut far_timeout, mut connected) = (start, start, false);
    let mut worst: f64 = 0.0;
    while now < start + TEN_MINUTES {
        while let Some(packet) = network.arrive(now) {
            if packet.destination == ours_at {
                let input = datagram(now, packet.source, packet.destination, &packet.bytes);
                ours.receive(input.unwrap(), now);
            } else {
                let bytes = packet.bytes.as_slice();
                let receive = Receive::new(Protocol::Udp, packet.source, packet.destination, bytes);
                far.handle_input(Input::Receive(now, receive.unwrap()))
                    .unwrap();
            }
        }
        if ours.poll_timeout() <= now {
            ours.tick(now);
        }
        if far_timeout <= now {
            far.handle_input(Input::Timeout(now)).unwrap();
        }
        for (mid, stream) in &mut streams {
            if !connected || stream.next > now {
                continue;
            }
            stream.next = now + stream.period.mul_f64(DRIFT);
            let mut data = vec![0; 200];
            data[3..7].copy_from_slice(&stream.sent.to_be_bytes());
            let ticks = f64::from(stream.sent) * stream.period.as_secs_f64();
            let ticks = (ticks * f64::from(stream.codec.clock_rate())).round() as u64;
            let time = match stream.codec.is_audio() {
                true => MediaTime::new(ticks, str0m::media::Frequency::FORTY_EIGHT_KHZ),
                false => MediaTime::from_90khz(ticks),
            };
            stream.sent += 1;
            let writer = far.writer(*mid).unwrap();
            let pt = writer.payload_params().next().unwrap().pt();
            writer.write(pt, now, time, data).unwrap();
            while !matches!(far.poll_output().unwrap(), Output::Timeout(_)) {}
            far.handle_input(Input::Timeout(now)).unwrap();
        }
        loop {
            match far.poll_output().unwrap() {
                Output::Timeout(at) => {
                    far_timeout = at;
                    break;
                }
                Output::Transmit(t) => network.send(now, t.source, t.destination, &t.contents),
                Output::Event(Event::MediaData(data)) => {
                    streams.get_mut(&data.mid).unwrap().come_back(&data, epoch);
                    let shifts: Vec<f64> = streams.values().filter_map(|s| s.shift).collect();
                    if let [one, other] = shifts[..] {
                        worst = worst.max((one - other).abs());
                    }
                }
                Output::Event(_) => {}
            }
        }
        while let Some(event) = ours.poll_event() {
            match event {
                CallEvent::Connected => {
                    connected = true;
                    streams.values_mut().for_each(|stream| stream.next = now);
                }
                CallEvent::Frame(frame) => {
                    let stream = streams.get_mut(&frame.mid).unwrap();
                    let back = stream.turn_round(&frame, start);
                    assert!(ours.write(frame.mid, &back, now));
                }
                CallEvent::Ended { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
        while let Some(t) = ours.poll_transmit() {
            network.send(now, t.source, t.destination, &t.contents);
        }
        let due = streams.values().map(|stream| stream.next);
        now = due
            .filter(|_| connected)
            .chain([far_timeout, ours.poll_timeout()])
            .chain(network.next_at())
            .fold(start + TEN_MINUTES, Instant::min)
            .max(now + Duration::from_micros(1));
    }
    for stream in streams.values() {
        let share = f64::from(stream.came) / f64::from(stream.sent);
        assert!(share > 0.9, "{:?}: {share:.2} came back", stream.codec);
    }
    assert!(worst > 0.0, "no sender report came");
    assert!(worst < 0.040, "{:.1} ms apart", worst * 1e3);
}
