//! What the operator counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crds::PopularityReportStatus;
use crds::conditions::{self, reasons};
use domain::FailureReason;

use crate::report;

/// A reconcile is a few requests to the API server and the database: milliseconds when all is well, and 30 s
/// is its limit.
const RECONCILE_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Labels of a count by outcome. The words are from closed lists.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Labels of a count by reason. The words are those of `domain::FailureReason` and `Completed`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// The operator's metrics; clones count into the same.
#[derive(Clone)]
pub struct Metrics {
    leading: Gauge,
    places: Gauge,
    backlog: Gauge,
    backlog_age: Gauge,
    relayed: Family<Outcome, Counter>,
    consumed: Family<Outcome, Counter>,
    reconciles: Histogram,
    reconcile_failures: Family<Reason, Counter>,
    finished: Family<Reason, Counter>,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            leading: Gauge::default(),
            places: Gauge::default(),
            backlog: Gauge::default(),
            backlog_age: Gauge::default(),
            relayed: Family::default(),
            consumed: Family::default(),
            reconciles: Histogram::new(RECONCILE_BUCKETS),
            reconcile_failures: Family::default(),
            finished: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("popularity_reports");
        registry.register("leader", "1 while this process leads", metrics.leading.clone());
        registry.register(
            "exporter_places_taken",
            "Places for exporter Jobs that are taken, on the leader",
            metrics.places.clone(),
        );
        registry.register(
            "outbox_messages",
            "Outbox messages that wait for Service Bus",
            metrics.backlog.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest outbox message that waits for Service Bus",
            Unit::Seconds,
            metrics.backlog_age.clone(),
        );
        registry.register(
            "relayed_messages",
            "Outbox messages that were sent, by what became of them",
            metrics.relayed.clone(),
        );
        registry.register(
            "consumed_messages",
            "Messages that came out of the queue, by what became of them",
            metrics.consumed.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Reconciles that failed and were tried again, by the step that failed",
            metrics.reconcile_failures.clone(),
        );
        registry.register(
            "reports_finished",
            "Reports whose end was published, by reason",
            metrics.finished.clone(),
        );
        metrics.begin_at_zero();
        metrics
    }

    /// What is not there until it happens first is no increase for those who watch: an alert would sleep through the
    /// first dead letter.
    fn begin_at_zero(&self) {
        for outcome in ["dispatched", "superseded", "dead_lettered", "abandoned"] {
            drop(self.consumed.get_or_create(&Outcome { outcome }));
        }
        let reason = report::Error::TimedOut.reason().to_owned();
        drop(self.reconcile_failures.get_or_create(&Reason { reason }));
        let failures = FailureReason::ALL.iter().map(|reason| reason.as_str());
        for reason in failures.chain([reasons::COMPLETED]) {
            let reason = reason.to_owned();
            drop(self.finished.get_or_create(&Reason { reason }));
        }
    }

    /// Whether this process leads.
    pub fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// How many places are taken.
    pub fn places_taken(&self, taken: usize) {
        self.places.set(i64::try_from(taken).unwrap_or(i64::MAX));
    }

    /// What waits in the outbox.
    pub fn backlog(&self, messages: u64, oldest_age_seconds: i64) {
        self.backlog.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.backlog_age.set(oldest_age_seconds);
    }

    /// What became of a batch.
    pub fn relayed(&self, accepted: usize, put_off: usize) {
        for (outcome, count) in [("accepted", accepted), ("put_off", put_off)] {
            if count > 0 {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.relayed.get_or_create(&Outcome { outcome }).inc_by(count);
            }
        }
    }

    /// What became of a message.
    pub fn consumed(&self, outcome: &'static str) {
        self.consumed.get_or_create(&Outcome { outcome }).inc();
    }

    /// A reconcile, and the step that failed.
    pub fn reconciled(&self, took: Duration, failed: Option<&'static str>) {
        self.reconciles.observe(took.as_secs_f64());
        if let Some(reason) = failed {
            let reason = reason.to_owned();
            self.reconcile_failures.get_or_create(&Reason { reason }).inc();
        }
    }

    /// Counts a report whose end is news.
    pub fn published(&self, earlier: Option<&PopularityReportStatus>, now: &PopularityReportStatus) {
        let reason = |status: &PopularityReportStatus| {
            conditions::find(&status.conditions, conditions::FINISHED)
                .map(|finished| finished.reason.clone())
                .filter(|reason| reason != reasons::IN_PROGRESS)
        };
        if let (None, Some(reason)) = (earlier.and_then(reason), reason(now)) {
            self.finished.get_or_create(&Reason { reason }).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::consumer::Verdict;

    #[test]
    fn what_alerts_look_at_is_there_before_it_happens() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();

        let dead = Verdict::Dead("", String::new());
        for line in [
            format!(
                "popularity_reports_consumed_messages_total{{outcome=\"{}\"}} 0",
                dead.as_str()
            ),
            "popularity_reports_reports_finished_total{reason=\"ExporterFailed\"} 0".to_owned(),
            "popularity_reports_reports_finished_total{reason=\"Completed\"} 0".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
