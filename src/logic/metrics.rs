//! The figures of one session, as Prometheus reads them.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::admission::Counts;
use super::connection::{EndReason, Phase};
use super::stats::Stage;

/// Seconds; a frame at 30 a second is due every 0.033.
const LATENCY_BUCKETS: [f64; 11] = [
    0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

pub struct Metrics {
    registry: Registry,
    connections: Family<Labels<2>, Gauge>,
    left_behind: Gauge,
    created: Counters<1>,
    rejected: Counters<2>,
    ended: Counters<1>,
    decoded: Counters<1>,
    handoff_dropped: Counters<1>,
    returned: Counters<1>,
    return_skipped: Counters<1>,
    frames_received: Counter,
    frames_inferred: Counter,
    frames_failed: Counter,
    frames_dropped: Counters<1>,
    frames_pending: Gauge,
    latency: Histogram,
    stages: Family<Labels<1>, Histogram, fn() -> Histogram>,
    messages: Counters<1>,
    outputs_dropped: Counter,
    datagrams_unsent: Counter,
    frames_lost: Counter,
    early_candidates_dropped: Counter,
    relays: Gauge,
    relay_allocations: Counters<1>,
    relay_datagrams_dropped: Counters<1>,
}

fn new_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// What became of an address on a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayNews {
    Made,
    Failed,
    /// It was there and is not any more.
    Lost,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rtcinference");
        macro_rules! metric {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            connections: metric!(
                "connections",
                "Connections that stand, by door and state",
                Family::default()
            ),
            left_behind: metric!(
                "connections_left_behind",
                "Connections that ended with something that does not stop",
                Gauge::default()
            ),
            created: metric!(
                "connections_created",
                "Connections whose answer was handed out",
                Family::default()
            ),
            rejected: metric!(
                "connections_rejected",
                "Offers refused, and requests without the token, by door and error",
                Family::default()
            ),
            ended: metric!(
                "connections_ended",
                "Connections that ended, by reason",
                Family::default()
            ),
            decoded: metric!(
                "stream_frames_decoded",
                "Decoded video frames and audio buffers",
                Family::default()
            ),
            handoff_dropped: metric!(
                "stream_frames_dropped",
                "Decoded video frames and audio buffers dropped because a chain or pad was slow",
                Family::default()
            ),
            returned: metric!(
                "return_frames_sent",
                "Encoded frames sent to visitors",
                Family::default()
            ),
            return_skipped: metric!(
                "return_frames_skipped",
                "Frames not sent because the network was behind, or a keyframe was missing",
                Family::default()
            ),
            frames_received: metric!(
                "inference_frames_received",
                "Frames that entered an inference element of a chain",
                Counter::default()
            ),
            frames_inferred: metric!(
                "inference_frames_inferred",
                "Frames with a result",
                Counter::default()
            ),
            frames_failed: metric!(
                "inference_frames_failed",
                "Frames whose inference failed",
                Counter::default()
            ),
            frames_dropped: metric!(
                "inference_frames_dropped",
                "Frames dropped before inference, by reason",
                Family::default()
            ),
            frames_pending: metric!(
                "inference_frames_pending",
                "Frames that wait or are in work",
                Gauge::default()
            ),
            latency: metric!(
                "inference_latency_seconds",
                "From a frame's arrival in the inference element to its result",
                Histogram::new(LATENCY_BUCKETS)
            ),
            stages: metric!(
                "inference_stage_seconds",
                "What of that is spent waiting for the model, before it, in it and after it, by stage",
                Family::new_with_constructor(new_histogram as fn() -> Histogram)
            ),
            messages: metric!(
                "messages",
                "Messages to visitors' data channels, sent or dropped",
                Family::default()
            ),
            datagrams_unsent: metric!(
                "datagrams_unsent",
                "Datagrams that the kernel did not take",
                Counter::default()
            ),
            frames_lost: metric!(
                "stream_frames_lost",
                "Encoded frames that came but built on lost ones, of connections that have ended",
                Counter::default()
            ),
            outputs_dropped: metric!(
                "outputs_dropped",
                "Results that a reader of /outputs was too slow for",
                Counter::default()
            ),
            early_candidates_dropped: metric!(
                "early_candidates_dropped",
                "Candidates without an offer that found no room",
                Counter::default()
            ),
            relays: metric!(
                "relays",
                "Addresses of ours on TURN servers",
                Gauge::default()
            ),
            relay_allocations: metric!(
                "relay_allocations",
                "Addresses asked of TURN servers, by outcome; those that were lost are counted as made before",
                Family::default()
            ),
            relay_datagrams_dropped: metric!(
                "relay_datagrams_dropped",
                "Datagrams not sent through a TURN server, by reason",
                Family::default()
            ),
            registry,
        }
    }
}

impl Metrics {
    pub fn created(&self, door: &'static str) {
        self.created.get_or_create(&[("door", door)]).inc();
    }

    pub fn rejected(&self, door: &'static str, error: &'static str) {
        let labels = [("door", door), ("error", error)];
        self.rejected.get_or_create(&labels).inc();
    }

    /// A connection moved on; `None` is before the first phase.
    pub fn moved(&self, door: &'static str, old: Option<Phase>, new: Phase) {
        let gauge = |phase: Phase| {
            let labels = [("door", door), ("state", phase.as_str())];
            self.connections.get_or_create_owned(&labels)
        };
        if let Some(old) = old {
            gauge(old).dec();
        }
        if new != Phase::Ended {
            gauge(new).inc();
        }
    }

    pub fn left_behind(&self, more: i64) {
        self.left_behind.inc_by(more);
    }

    pub fn ended(&self, reason: EndReason) {
        let labels = [("reason", reason.as_str())];
        self.ended.get_or_create(&labels).inc();
    }

    /// The counter of decoded items of a kind, for whoever counts each.
    pub fn decoded(&self, media: &'static str) -> Counter {
        self.decoded.get_or_create_owned(&[("media", media)])
    }

    /// The same of items dropped in front of a slow chain or pad.
    pub fn handoff_dropped(&self, media: &'static str) -> Counter {
        self.handoff_dropped
            .get_or_create_owned(&[("media", media)])
    }

    /// The counter of encoded frames sent to visitors.
    pub fn returned(&self, media: &'static str) -> Counter {
        self.returned.get_or_create_owned(&[("media", media)])
    }

    /// The same of frames that were not.
    pub fn return_skipped(&self, media: &'static str) -> Counter {
        self.return_skipped.get_or_create_owned(&[("media", media)])
    }

    /// What an inference element's books say now, and said before.
    pub fn inference(&self, before: &Counts, now: &Counts) {
        let more = |counter: &Counter, before: u64, now: u64| {
            counter.inc_by(now.saturating_sub(before));
        };
        more(&self.frames_received, before.received, now.received);
        more(&self.frames_inferred, before.inferred, now.inferred);
        more(&self.frames_failed, before.failed, now.failed);
        for (reason, before, now) in [
            ("busy", before.dropped.busy, now.dropped.busy),
            ("late", before.dropped.late, now.dropped.late),
            ("flush", before.dropped.flush, now.dropped.flush),
            ("closed", before.dropped.closed, now.dropped.closed),
        ] {
            let counter = self.frames_dropped.get_or_create(&[("reason", reason)]);
            more(&counter, before, now);
        }
        self.frames_pending
            .inc_by(now.pending as i64 - before.pending as i64);
    }

    /// A result was told, that took so long from the frame's arrival.
    pub fn result(&self, latency: Duration) {
        self.latency.observe(latency.as_secs_f64());
    }

    /// A result spent so long in one of the stages before it.
    pub fn stage(&self, stage: Stage, took: Duration) {
        let of_stage = self.stages.get_or_create(&[("stage", stage.name())]);
        of_stage.observe(took.as_secs_f64());
    }

    pub fn message(&self, sent: bool) {
        let outcome = if sent { "sent" } else { "dropped" };
        self.messages.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The counter of datagrams that were not sent, for whoever sends.
    pub fn datagrams_unsent(&self) -> Counter {
        self.datagrams_unsent.clone()
    }

    pub fn frames_lost(&self, frames: u64) {
        self.frames_lost.inc_by(frames);
    }

    pub fn outputs_dropped(&self, results: u64) {
        self.outputs_dropped.inc_by(results);
    }

    pub fn early_candidate_dropped(&self) {
        self.early_candidates_dropped.inc();
    }

    /// So many more addresses on TURN servers.
    pub fn relays(&self, more: i64) {
        self.relays.inc_by(more);
    }

    pub fn relay(&self, news: RelayNews) {
        let outcome = match news {
            RelayNews::Made => "made",
            RelayNews::Failed => "failed",
            RelayNews::Lost => "lost",
        };
        let labels = [("outcome", outcome)];
        self.relay_allocations.get_or_create(&labels).inc();
    }

    pub fn relay_dropped(&self, reason: &'static str, datagrams: u64) {
        let labels = [("reason", reason)];
        self.relay_datagrams_dropped
            .get_or_create(&labels)
            .inc_by(datagrams);
    }

    /// OpenMetrics text, version 1.0.0.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::admission::Dropped;

    fn value(metrics: &Metrics, sample: &str) -> Option<u64> {
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample))?;
        line.trim().parse().ok()
    }

    #[test]
    fn a_connection_is_counted_in_one_state_at_a_time() {
        let metrics = Metrics::default();
        metrics.moved("offer", None, Phase::Connecting);
        metrics.moved("offer", Some(Phase::Connecting), Phase::Playing);
        let in_state = |state: &str| {
            value(
                &metrics,
                &format!("rtcinference_connections{{door=\"offer\",state=\"{state}\"}}"),
            )
        };
        assert_eq!(
            (in_state("connecting"), in_state("playing")),
            (Some(0), Some(1))
        );
        metrics.moved("offer", Some(Phase::Playing), Phase::Ending);
        metrics.moved("offer", Some(Phase::Ending), Phase::Ended);
        let sum: u64 = ["connecting", "playing", "ending"]
            .iter()
            .filter_map(|s| in_state(s))
            .sum();
        assert_eq!(sum, 0);
    }

    #[test]
    fn books_of_elements_add_up() {
        let metrics = Metrics::default();
        let first = Counts {
            received: 10,
            inferred: 6,
            failed: 1,
            dropped: Dropped {
                busy: 2,
                ..Dropped::default()
            },
            pending: 1,
        };
        let last = Counts {
            received: 12,
            inferred: 8,
            dropped: Dropped {
                busy: 2,
                closed: 1,
                ..Dropped::default()
            },
            pending: 0,
            ..first
        };
        metrics.inference(&Counts::default(), &first);
        metrics.inference(&first, &last);
        let frames = |name: &str| value(&metrics, &format!("rtcinference_inference_frames_{name}"));
        assert_eq!(frames("received_total"), Some(12));
        assert_eq!(frames("inferred_total"), Some(8));
        assert_eq!(frames("failed_total"), Some(1));
        assert_eq!(frames("pending"), Some(0));
        assert_eq!(frames("dropped_total{reason=\"busy\"}"), Some(2));
        assert_eq!(frames("dropped_total{reason=\"closed\"}"), Some(1));
    }

    #[test]
    fn latencies_land_in_their_buckets() {
        let metrics = Metrics::default();
        metrics.result(Duration::from_millis(4));
        metrics.result(Duration::from_millis(40));
        metrics.stage(Stage::Queue, Duration::from_millis(4));
        let queued = "rtcinference_inference_stage_seconds_bucket{le=\"0.005\",stage=\"queue\"}";
        assert_eq!(value(&metrics, queued), Some(1));
        let below = |bound: &str| {
            value(
                &metrics,
                &format!("rtcinference_inference_latency_seconds_bucket{{le=\"{bound}\"}}"),
            )
        };
        assert_eq!(
            (below("0.005"), below("0.035"), below("0.05")),
            (Some(1), Some(1), Some(2))
        );
    }
}
