//! When statistics are due, and how long results take.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Tells when the next report is due; all times are since one common start.
#[derive(Debug)]
pub struct ReportTimer {
    interval: Option<Duration>,
    next: Duration,
}

impl ReportTimer {
    /// The first report is due one interval after `now`; with `None` none ever is.
    pub fn new(interval: Option<Duration>, now: Duration) -> ReportTimer {
        ReportTimer {
            interval,
            next: now + interval.unwrap_or_default(),
        }
    }

    /// Whether to report now. Reports that were missed are not made up for.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        if now < self.next {
            return false;
        }
        self.next += interval;
        if self.next <= now {
            self.next = now + interval;
        }
        true
    }

    /// How long nobody needs to ask, `None` is for ever.
    pub fn rest(&self, now: Duration) -> Option<Duration> {
        self.interval.map(|_| self.next.saturating_sub(now))
    }
}

/// How long something took, each time so far; within 1 % of the truth.
#[derive(Debug)]
pub struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            nanoseconds: Histogram::new_with_bounds(1_000, 60_000_000_000, 2)
                .expect("the bounds are sound"),
        }
    }
}

/// Half of them, 95 and 99 in a hundred took no longer than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
}

impl Latencies {
    /// More than a minute counts as a minute.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.saturating_record(nanoseconds);
    }

    /// `None` before the first result.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| Duration::from_nanos(self.nanoseconds.value_at_quantile(quantile));
        (!self.nanoseconds.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
        })
    }
}

/// What a frame goes through on its way to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the model.
    Queue,
    Preprocess,
    Inference,
    Postprocess,
    /// From the frame's arrival in the element to its result.
    Total,
}

impl Stage {
    pub const ALL: [Stage; 5] = [
        Stage::Queue,
        Stage::Preprocess,
        Stage::Inference,
        Stage::Postprocess,
        Stage::Total,
    ];

    /// Those that follow each other up to the result.
    pub const BEFORE_RESULT: [Stage; 4] = [
        Stage::Queue,
        Stage::Preprocess,
        Stage::Inference,
        Stage::Postprocess,
    ];

    /// As results, statistics and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Preprocess => "preprocess",
            Stage::Inference => "inference",
            Stage::Postprocess => "postprocess",
            Stage::Total => "latency",
        }
    }
}

/// How long the stages took of all results so far.
#[derive(Debug, Default)]
pub struct Stages([Latencies; Stage::ALL.len()]);

impl Stages {
    pub fn record(&mut self, stage: Stage, took: Duration) {
        self.0[stage as usize].record(took);
    }

    /// By stage, in the order of [`Stage::ALL`].
    pub fn percentiles(&self) -> [Option<Percentiles>; Stage::ALL.len()] {
        Stage::ALL.map(|stage| self.0[stage as usize].percentiles())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_report_is_due_once_in_an_interval() {
        let mut timer = ReportTimer::new(Some(SECOND), SECOND);
        let due = [1000, 1999, 2000, 2500, 3000].map(|at| timer.is_due(Duration::from_millis(at)));
        assert_eq!(due, [false, false, true, false, true]);
    }

    #[test]
    fn missed_reports_are_not_made_up_for() {
        let mut timer = ReportTimer::new(Some(SECOND), Duration::ZERO);
        assert!(timer.is_due(SECOND * 10));
        assert!(!timer.is_due(SECOND * 10));
        assert_eq!(timer.rest(SECOND * 10), Some(SECOND));
    }

    #[test]
    fn without_interval_no_report_is_due() {
        let mut timer = ReportTimer::new(None, Duration::ZERO);
        assert!(!timer.is_due(SECOND * 1000));
        assert_eq!(timer.rest(SECOND), None);
    }

    #[test]
    fn no_results_have_no_percentiles() {
        assert_eq!(Latencies::default().percentiles(), None);
    }

    #[test]
    fn percentiles_are_within_one_percent() {
        let mut latencies = Latencies::default();
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        let percentiles = latencies.percentiles().unwrap();
        for (value, expected) in [
            (percentiles.p50, 0.050),
            (percentiles.p95, 0.095),
            (percentiles.p99, 0.099),
        ] {
            assert!(
                (value.as_secs_f64() / expected - 1.0).abs() < 0.01,
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_latency_beyond_all_bounds_is_still_counted() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().unwrap().p50 >= SECOND * 59);
    }
}
