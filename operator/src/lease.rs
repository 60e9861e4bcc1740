//! Leader election by a Lease object (`coordination.k8s.io/v1`), fail-stop.
//!
//! The leader renews the Lease; who finds it run out takes it over. A leader that cannot renew stops
//! before a standby may begin. Two leaders at once (a clock that is far off, a process that was
//! suspended) would be a waste and no harm: rows are guarded and names are deterministic.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error_chain::error_chain;

/// How long a Lease holds without being renewed. A standby takes over within this and one
/// [`RETRY_PERIOD`]: 12 s.
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// The leader stops when it has not been able to renew for so long: well before the Lease runs out.
const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// How often the leader renews and a standby looks.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What a look at the Lease tells one candidate to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody holds it, or who held it has let it run out: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Another holds it.
    StandBy {
        /// Who.
        holder: String,
    },
}

/// Judges a Lease as read at `now` (none when there is no such object).
pub fn evaluate(lease: Option<&LeaseSpec>, me: &str, now: Timestamp) -> Verdict {
    let Some(lease) = lease else {
        return Verdict::Acquire;
    };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder == me {
        return Verdict::Renew;
    }
    let (Some(renewed), Some(seconds)) = (&lease.renew_time, lease.lease_duration_seconds) else {
        return Verdict::Acquire;
    };
    let held = SignedDuration::from_secs(i64::from(seconds));
    if holder.is_empty() || now.duration_since(renewed.0) > held {
        Verdict::Acquire
    } else {
        Verdict::StandBy {
            holder: holder.to_owned(),
        }
    }
}

/// The Lease as it is to be written by `me`: renewed, or taken over with one transition more.
pub fn held(earlier: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let ours = earlier.is_some_and(|lease| lease.holder_identity.as_deref() == Some(me));
    let transitions = earlier.and_then(|lease| lease.lease_transitions).unwrap_or(0);
    let acquired = earlier
        .filter(|_| ours)
        .and_then(|lease| lease.acquire_time.clone());
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(LEASE_DURATION.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours || earlier.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        preferred_holder: None,
        strategy: None,
    }
}

/// Why a request for the Lease failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the Lease")]
    Read(#[source] kube::Error),
    #[error("failed to write the Lease")]
    Write(#[source] kube::Error),
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
}

/// One candidate for the leadership.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
}

impl Candidate {
    /// A candidate who calls itself `me`, unique among all, for the Lease of this name.
    pub fn new(leases: Api<Lease>, name: impl Into<String>, me: impl Into<String>) -> Self {
        Self {
            leases,
            name: name.into(),
            me: me.into(),
        }
    }

    /// Takes part until the token is cancelled, and tells through the channel whether this candidate
    /// leads. On the way out a held Lease is given back, so that a standby need not wait for its end.
    pub async fn run(self, leading: watch::Sender<bool>, shutdown: CancellationToken) {
        // Until when the leadership is certain: counted from the start of the request that renewed it.
        let mut certain_until: Option<Instant> = None;
        let mut failing = false;
        loop {
            let began = Instant::now();
            let attempt = self.attempt(Timestamp::now());
            let outcome = match certain_until {
                // a request may hang: the end of the certainty is kept by the clock
                Some(deadline) => timeout_at(deadline, attempt)
                    .await
                    .unwrap_or(Err(Error::TimedOut)),
                None => attempt.await,
            };
            match outcome {
                Ok(true) => {
                    failing = false;
                    certain_until = Some(began + RENEW_DEADLINE);
                    if !leading.send_replace(true) {
                        tracing::info!(identity = self.me, lease = self.name, "leading");
                    }
                }
                Ok(false) => {
                    failing = false;
                    certain_until = None;
                    if leading.send_replace(false) {
                        tracing::warn!(identity = self.me, "another took the lease; stopping at once");
                    }
                }
                Err(error) if failing => {
                    tracing::debug!(error = error_chain(&error), "the lease still cannot be renewed");
                }
                Err(error) => {
                    failing = true;
                    tracing::warn!(error = error_chain(&error), "the lease cannot be renewed now");
                }
            }
            let next = began + RETRY_PERIOD;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(certain_until.map_or(next, |deadline| next.min(deadline))) => {}
            }
            if certain_until.is_some_and(|deadline| Instant::now() >= deadline) {
                certain_until = None;
                leading.send_replace(false);
                tracing::warn!(
                    identity = self.me,
                    "the lease was not renewed for {} s; stopping at once",
                    RENEW_DEADLINE.as_secs()
                );
            }
        }
        let led = leading.send_replace(false);
        if led && let Err(error) = self.give_back().await {
            tracing::warn!(
                error = error_chain(&error),
                "the lease could not be given back; a standby has to wait for its end"
            );
        }
    }

    /// Acquires or renews. False when another holds the Lease, also when it was quicker just now.
    async fn attempt(&self, now: Timestamp) -> Result<bool, Error> {
        let lease = self.read().await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        if let Verdict::StandBy { holder } = evaluate(spec, &self.me, now) {
            tracing::debug!(holder, "standing by");
            return Ok(false);
        }
        let spec = held(spec, &self.me, now);
        self.write(lease.clone(), spec).await
    }

    /// Ends our hold now, unless another has it already.
    async fn give_back(&self) -> Result<(), Error> {
        let Some(lease) = self.read().await? else {
            return Ok(());
        };
        let Some(spec) = lease.spec.clone() else {
            return Ok(());
        };
        if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
            return Ok(());
        }
        let spec = LeaseSpec {
            holder_identity: None,
            ..spec
        };
        self.write(Some(lease), spec).await.map(|_| ())
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        timeout(REQUEST_TIMEOUT, self.leases.get_opt(&self.name))
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(Error::Read)
    }

    /// Writes on top of the version that was read: who comes second gets a conflict, which is "no".
    async fn write(&self, earlier: Option<Lease>, spec: LeaseSpec) -> Result<bool, Error> {
        let parameters = PostParams::default();
        let written = match earlier {
            Some(lease) => {
                let lease = Lease {
                    spec: Some(spec),
                    ..lease
                };
                timeout(
                    REQUEST_TIMEOUT,
                    self.leases.replace(&self.name, &parameters, &lease),
                )
                .await
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                timeout(REQUEST_TIMEOUT, self.leases.create(&parameters, &lease)).await
            }
        };
        match written.map_err(|_| Error::TimedOut)? {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            // The Lease went with its namespace and cannot come back: nobody can hold it. Whoever can still
            // work has to, or the namespace would wait for our finalizers for ever.
            Err(kube::Error::Api(status)) if is_terminating(&status) => Ok(true),
            Err(error) => Err(Error::Write(error)),
        }
    }
}

/// Whether the answer says that the namespace is being deleted
/// (<https://pkg.go.dev/k8s.io/api/core/v1#NamespaceTerminatingCause>).
fn is_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::testing::{Exchange, api_server, found, stored_as_sent};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn lease(holder: Option<&str>, renewed: Option<i64>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            renew_time: renewed.map(|second| MicroTime(at(second))),
            acquire_time: Some(MicroTime(at(-100))),
            lease_duration_seconds: Some(10),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }
    }

    fn stand_by() -> Verdict {
        Verdict::StandBy {
            holder: "other".to_owned(),
        }
    }

    #[rstest]
    #[case::there_is_none(None, 0, Verdict::Acquire)]
    #[case::it_was_given_back(Some(lease(None, Some(0))), 1, Verdict::Acquire)]
    #[case::it_has_an_empty_holder(Some(lease(Some(""), Some(0))), 1, Verdict::Acquire)]
    #[case::it_was_never_renewed(Some(lease(Some("other"), None)), 0, Verdict::Acquire)]
    #[case::another_renewed_just_now(Some(lease(Some("other"), Some(0))), 1, stand_by())]
    #[case::another_may_still_renew(Some(lease(Some("other"), Some(0))), 10, stand_by())]
    #[case::another_let_it_run_out(Some(lease(Some("other"), Some(0))), 11, Verdict::Acquire)]
    #[case::the_other_clock_is_ahead(Some(lease(Some("other"), Some(60))), 0, stand_by())]
    #[case::it_is_ours(Some(lease(Some("me"), Some(0))), 1, Verdict::Renew)]
    #[case::it_is_ours_and_nobody_took_it_after_its_end(Some(lease(Some("me"), Some(0))), 60, Verdict::Renew)]
    fn the_lease_tells_who_leads(
        #[case] lease: Option<LeaseSpec>,
        #[case] second: i64,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(evaluate(lease.as_ref(), "me", at(second)), verdict);
    }

    #[test]
    fn a_renewal_keeps_the_time_of_acquisition_and_counts_no_transition() {
        let renewed = held(Some(&lease(Some("me"), Some(0))), "me", at(2));

        assert_eq!(renewed.acquire_time, Some(MicroTime(at(-100))));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        assert_eq!(renewed.lease_transitions, Some(4));
    }

    #[test]
    fn a_takeover_counts_a_transition() {
        let taken = held(Some(&lease(Some("other"), Some(0))), "me", at(20));

        assert_eq!(taken.holder_identity.as_deref(), Some("me"));
        assert_eq!(taken.acquire_time, Some(MicroTime(at(20))));
        assert_eq!(taken.lease_transitions, Some(5));
    }

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/music/leases/test";
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/music/leases";

    fn candidate(client: kube::Client) -> (Candidate, watch::Sender<bool>, watch::Receiver<bool>) {
        let (leading, led) = watch::channel(false);
        (
            Candidate::new(Api::namespaced(client, "music"), "test", "me"),
            leading,
            led,
        )
    }

    fn stored(holder: &str, renewed: Timestamp) -> Exchange {
        let spec = LeaseSpec {
            renew_time: Some(MicroTime(renewed)),
            ..lease(Some(holder), None)
        };
        found(
            "GET",
            LEASE,
            serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "test", "resourceVersion": "7"}, "spec": spec,
            }),
        )
    }

    fn replaced() -> Exchange {
        stored_as_sent("PUT", LEASE)
    }

    #[tokio::test]
    async fn the_first_candidate_leads_and_gives_the_lease_back_on_its_way_out() {
        let (client, seen) = api_server([
            found("GET", LEASE, serde_json::Value::Null).refused(404, "not found"),
            stored_as_sent("POST", LEASES),
            stored("me", Timestamp::now()),
            replaced(),
        ]);
        let (candidate, leading, mut led) = candidate(client);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(candidate.run(leading, shutdown.clone()));

        led.wait_for(|leading| *leading).await.unwrap();
        shutdown.cancel();
        running.await.unwrap();

        assert!(!*led.borrow());
        let bodies = seen.bodies().await;
        assert_eq!(bodies[1]["spec"]["holderIdentity"], "me");
        assert!(bodies[3]["spec"].get("holderIdentity").is_none());
        assert_eq!(bodies[3]["metadata"]["resourceVersion"], "7");
    }

    #[tokio::test]
    async fn a_leader_stops_at_once_when_another_has_the_lease() {
        let (client, seen) = api_server([
            stored("me", Timestamp::now()),
            replaced(),
            stored("other", Timestamp::now() + SignedDuration::from_secs(60)),
        ]);
        let (candidate, leading, mut led) = candidate(client);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(candidate.run(leading, shutdown.clone()));

        led.wait_for(|leading| *leading).await.unwrap();
        led.wait_for(|leading| !*leading).await.unwrap();
        shutdown.cancel();
        running.await.unwrap();

        seen.bodies().await;
    }

    #[tokio::test]
    async fn a_candidate_that_is_second_to_write_stands_by() {
        let (client, seen) = api_server([
            stored("other", Timestamp::UNIX_EPOCH),
            replaced().refused(409, "modified"),
        ]);
        let (candidate, _leading, _led) = candidate(client);

        assert!(!candidate.attempt(Timestamp::now()).await.unwrap());
        drop(candidate);
        seen.bodies().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_api_server_hangs_stops_before_its_lease_runs_out() {
        let (service, mut handle) = tower_test::mock::pair();
        let client = kube::Client::new(service, "music");
        let (candidate, leading, mut led) = candidate(client);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(candidate.run(leading, shutdown.clone()));
        for exchange in [stored("me", Timestamp::now()), replaced()] {
            let (request, respond) = handle.next_request().await.unwrap();
            let request: http::Request<kube::client::Body> = request;
            let body = request.into_body().collect_bytes().await.unwrap();
            respond.send_response(exchange.into_response(&body));
        }
        led.wait_for(|leading| *leading).await.unwrap();
        let renewed = Instant::now();

        // every further request is taken and never answered
        let hanging = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(request) = handle.next_request().await {
                taken.push(request);
            }
        });
        led.wait_for(|leading| !*leading).await.unwrap();

        assert!(renewed.elapsed() <= RENEW_DEADLINE + Duration::from_millis(10));
        shutdown.cancel();
        running.await.unwrap();
        hanging.abort();
    }

    #[rstest]
    #[case::the_namespace_goes(serde_json::json!([{"reason": "NamespaceTerminating", "message": "x"}]), true)]
    #[case::a_role_is_missing(serde_json::json!([]), false)]
    fn a_lease_that_went_with_its_namespace_is_known(
        #[case] causes: serde_json::Value,
        #[case] terminating: bool,
    ) {
        let status = serde_json::json!({
            "status": "Failure", "message": "forbidden", "reason": "Forbidden", "code": 403,
            "details": { "name": "test", "kind": "leases", "causes": causes },
        });

        assert_eq!(
            is_terminating(&serde_json::from_value(status).unwrap()),
            terminating
        );
    }

    #[test]
    fn a_leader_stops_before_a_standby_may_begin() {
        assert!(RENEW_DEADLINE < LEASE_DURATION);
        assert!(LEASE_DURATION + RETRY_PERIOD + REQUEST_TIMEOUT < Duration::from_secs(15));
    }
}
