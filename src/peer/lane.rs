//! What is sent to a peer: one lane for each stream, which knows the m-line it goes out on.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use str0m::media::Mid;

use super::codecs::{Codec, Media};
use super::encoding::{Encoded, Taker};
use super::transport::Transport;
use crate::logic::bandwidth::{Bandwidth, Limits};
use crate::logic::metrics::Metrics;
use crate::logic::registry::ConnectionId;
use crate::logic::return_lines::Source;

/// Encoded frames of one lane that may wait for the transport.
const PENDING: u32 = 64;
/// Between two keyframes; a peer that loses more asks again.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(250);
/// Bits a second of one stream of audio.
pub const AUDIO_BITRATE: u32 = 64_000;

/// An m-line as it was negotiated.
#[derive(Debug, Clone)]
pub struct SendLine {
    pub source: Source,
    pub mid: Mid,
    pub media: Media,
    /// What the peer takes, in the order of its wishes.
    pub codecs: Vec<Codec>,
}

/// What the transport learns of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NetworkNews {
    /// Bits a second; `None`: it is no longer known.
    Estimate(Option<u64>),
    /// Bits a second that the peer says it can receive.
    Remb(u64),
    /// Share of the packets lost lately.
    Loss(f64),
}

/// All lanes of one connection.
pub struct Lanes {
    connection: ConnectionId,
    transport: Transport,
    metrics: Arc<Metrics>,
    lines: Mutex<Vec<SendLine>>,
    lanes: Mutex<Vec<Weak<Lane>>>,
    bandwidth: Mutex<Bandwidth>,
    paused: AtomicBool,
    closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    pub fn new(
        connection: ConnectionId,
        transport: Transport,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        Self {
            connection,
            transport,
            metrics,
            lines: Mutex::default(),
            lanes: Mutex::default(),
            bandwidth: Mutex::new(Bandwidth::new(limits)),
            paused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// An offer was answered: these are the lines from now on.
    pub fn negotiated(&self, lines: Vec<SendLine>) {
        let videos = lines.iter().filter(|line| line.media == Media::Video);
        lock(&self.bandwidth).share_among(videos.count());
        *lock(&self.lines) = lines;
    }

    /// The lane of that stream, whether or not a line carries it yet.
    /// It gets no more than `most` bits a second.
    pub fn open(self: &Arc<Self>, source: Source, media: Media, most: Option<u32>) -> Arc<Lane> {
        let lane = Arc::new(Lane {
            lanes: self.clone(),
            source,
            media,
            most,
            // Whoever looks first wants a whole picture.
            wants_keyframe: AtomicBool::new(true),
            needs_keyframe: AtomicBool::new(true),
            pending: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            way: Mutex::default(),
            counters: LaneCounters {
                sent: self.metrics.returned(media.as_str()),
                skipped: self.metrics.return_skipped(media.as_str()),
            },
        });
        let mut lanes = lock(&self.lanes);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(&lane));
        lane
    }

    /// The peer lost pictures that it cannot do without.
    pub fn on_keyframe_wanted(&self, mid: Mid) {
        let source = lock(&self.lines)
            .iter()
            .find(|line| line.mid == mid)
            .map(|line| line.source.clone());
        let lanes = lock(&self.lanes);
        for lane in lanes.iter().filter_map(Weak::upgrade) {
            if Some(&lane.source) == source.as_ref() {
                lane.wants_keyframe.store(true, Ordering::Relaxed);
            }
        }
    }

    pub fn on_network(&self, news: NetworkNews, now: Instant) {
        let mut bandwidth = lock(&self.bandwidth);
        match news {
            NetworkNews::Estimate(bits) => bandwidth.on_estimate(bits),
            NetworkNews::Remb(bits) => bandwidth.on_remb(bits),
            NetworkNews::Loss(share) => bandwidth.on_loss(share, now),
        }
    }

    /// Whether the peer is sent nothing for the time being.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Nothing is sent any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.lines).clear();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

struct LaneCounters {
    sent: Counter,
    skipped: Counter,
}

/// One stream to one peer.
pub struct Lane {
    lanes: Arc<Lanes>,
    source: Source,
    media: Media,
    most: Option<u32>,
    /// The next frame is to be a keyframe.
    wants_keyframe: AtomicBool,
    /// Nothing else is of use.
    needs_keyframe: AtomicBool,
    /// Frames that wait for the transport.
    pending: AtomicU32,
    sent: AtomicU64,
    /// As what it was last sent, and on which line.
    way: Mutex<Option<(Codec, Mid)>>,
    counters: LaneCounters,
}

impl Lane {
    fn line(&self) -> Option<SendLine> {
        let lines = lock(&self.lanes.lines);
        lines.iter().find(|l| l.source == self.source).cloned()
    }

    /// Whether the peer can be sent this at all, as it was last negotiated.
    pub fn has_line(&self) -> bool {
        self.line().is_some()
    }

    /// Whether the network keeps up.
    pub fn has_room(&self) -> bool {
        self.media == Media::Audio || lock(&self.lanes.bandwidth).admits(Instant::now())
    }

    /// The codec that the peer was last sent.
    pub fn codec(&self) -> Option<Codec> {
        lock(&self.way).map(|(codec, _)| codec)
    }

    pub fn is_closed(&self) -> bool {
        self.lanes.is_closed()
    }

    /// Frames given to the transport.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The transport has taken a frame, or could not.
    pub fn on_written(&self, written: bool) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
        if written {
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.counters.sent.inc();
        } else {
            self.lost();
        }
    }

    pub fn connection(&self) -> &ConnectionId {
        &self.lanes.connection
    }

    /// A frame that others build on does not reach the peer: nothing else is of use before a keyframe.
    pub fn lost(&self) {
        self.needs_keyframe.store(true, Ordering::Relaxed);
        self.wants_keyframe.store(true, Ordering::Relaxed);
        self.counters.skipped.inc();
    }

    /// Gives an encoded frame to the transport; never waits.
    pub fn send(self: &Arc<Self>, frame: Encoded) {
        let Some(line) = self.line().filter(|l| l.codecs.contains(&frame.codec)) else {
            return self.lost();
        };
        let way = Some((frame.codec, line.mid));
        if std::mem::replace(&mut *lock(&self.way), way) != way {
            // On another line, or as another codec, nothing was there to build on.
            self.needs_keyframe.store(true, Ordering::Relaxed);
            self.wants_keyframe
                .store(!frame.keyframe, Ordering::Relaxed);
        }
        if frame.keyframe {
            self.needs_keyframe.store(false, Ordering::Relaxed);
        } else if self.needs_keyframe.load(Ordering::Relaxed) {
            return self.lost();
        }
        if self.media == Media::Video {
            lock(&self.lanes.bandwidth).on_sent(frame.data.len(), Instant::now());
        }
        let room = self.pending.fetch_add(1, Ordering::AcqRel) < PENDING;
        let connection = &self.lanes.connection;
        if !room
            || !self
                .lanes
                .transport
                .send_frame(connection, line.mid, frame, self)
        {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            self.lost();
        }
    }
}

impl Taker for Arc<Lane> {
    fn codecs(&self) -> Vec<Codec> {
        self.line().map(|line| line.codecs).unwrap_or_default()
    }

    fn admits(&self) -> bool {
        if self.lanes.paused.load(Ordering::Relaxed) {
            return false;
        }
        let admitted = self.has_room();
        if !admitted {
            self.counters.skipped.inc();
        }
        admitted
    }

    fn bitrate(&self) -> u32 {
        let most = self.most.unwrap_or(u32::MAX);
        if self.media == Media::Audio {
            return AUDIO_BITRATE.min(most);
        }
        let bits = lock(&self.lanes.bandwidth).target_each();
        u32::try_from(bits).unwrap_or(u32::MAX).min(most)
    }

    fn take_keyframe_wish(&self) -> bool {
        self.wants_keyframe.swap(false, Ordering::Relaxed)
    }

    fn keyframe_interval(&self) -> Duration {
        KEYFRAME_INTERVAL
    }

    fn take(&self, frame: Encoded) {
        self.send(frame);
    }
}
