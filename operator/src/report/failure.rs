//! Why a Job failed, read from the Job and from what is left of its Pods.

use domain::{Failure, FailureReason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde::Deserialize;

use crds::PopularityReport;
use crds::conditions::{self, reasons};
use crds::names::EXPORTER_CONTAINER;

/// How the exporter ends when it must not be tried again; see `exporter`.
pub const EXIT_BAD_PARAMETERS: i32 = 64;
/// As [`EXIT_BAD_PARAMETERS`]: bad data, or storage or catalogue refuse for good.
pub const EXIT_BAD_DATA: i32 = 65;

/// What the exporter leaves in its termination message.
#[derive(Debug, Deserialize)]
struct LastWords {
    reason: String,
    #[serde(default)]
    message: String,
}

/// The type and reason words of a Job's end
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup>).
mod job {
    pub const FAILED: &str = "Failed";
    pub const FAILURE_TARGET: &str = "FailureTarget";
    pub const COMPLETE: &str = "Complete";
    pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
}

/// Where a Job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It may still have Pods.
    Live,
    /// It has not ended, and has no Pods until a queue or a person resumes it.
    Suspended,
    /// It ended, and its last Pod with it, by success.
    Complete,
    /// It ended, and its last Pod with it, by failure.
    Failed,
    /// Somebody deleted it; its Pods are on their way out.
    Deleting,
}

/// Reads where the Job is. `FailureTarget` and `SuccessCriteriaMet` say that the end is decided while Pods
/// are still ending; such a Job is live.
pub fn state(job: &Job) -> JobState {
    let ended = |type_: &str| {
        let conditions = job
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if ended(job::FAILED) {
        JobState::Failed
    } else if ended(job::COMPLETE) {
        JobState::Complete
    } else if job.metadata.deletion_timestamp.is_some()
        && !ended(job::FAILURE_TARGET)
        && !ended(job::SUCCESS_CRITERIA_MET)
    {
        JobState::Deleting
    } else if is_suspended(job) && !has_pods(job) {
        JobState::Suspended
    } else {
        JobState::Live
    }
}

/// Whether the Job is to have no Pods for now; the last ones may still be ending.
pub fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

fn has_pods(job: &Job) -> bool {
    let status = job.status.as_ref();
    let counts = [
        status.and_then(|status| status.active),
        status.and_then(|status| status.terminating),
    ];
    counts.into_iter().flatten().any(|count| count > 0)
}

/// Why the Job failed. What the exporter itself said of its last attempt comes first; then what the kubelet
/// and the Job controller say. `remembered` is what kept the Pod from starting, as [`remembered`] tells it: at
/// the deadline the Job controller deletes the Pod, and with it what could be read from it.
pub fn of_job(job: &Job, pods: &[Pod], remembered: Option<String>) -> Failure {
    let end = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == job::FAILED && condition.status == "True");
    let reason = end.and_then(|end| end.reason.as_deref()).unwrap_or_default();
    let said = end.and_then(|end| end.message.as_deref()).unwrap_or_default();
    if reason == job::DEADLINE_EXCEEDED {
        return Failure::new(
            FailureReason::DeadlineExceeded,
            &waiting(pods).or(remembered).unwrap_or_default(),
        );
    }
    match last_end(pods) {
        Some(end) => of_container(end),
        None => Failure::new(FailureReason::ExporterFailed, &format!("{reason}: {said}")),
    }
}

/// The kubelet's reasons for a container that never ran.
const START_ERROR: &str = "StartError";
/// The same of other container runtimes.
const CANNOT_RUN: &str = "ContainerCannotRun";

/// Why a container that is not tried again ended.
fn of_container(end: &ContainerStateTerminated) -> Failure {
    if let Some(failure) = end.message.as_deref().and_then(last_words) {
        return failure;
    }
    let code = end.exit_code;
    let mut detail = format!("exit code {code}");
    if let Some(START_ERROR | CANNOT_RUN) = end.reason.as_deref() {
        // the container runtime's words: nothing of ours ran
        let words = end.message.as_deref().unwrap_or_default();
        detail.extend([", ", end.reason.as_deref().unwrap_or_default(), ": ", words]);
    }
    match (end.reason.as_deref(), code) {
        (Some("OOMKilled"), _) => Failure::new(FailureReason::ExporterOutOfMemory, &detail),
        (_, EXIT_BAD_PARAMETERS) => Failure::new(FailureReason::InvalidParameters, &detail),
        (_, EXIT_BAD_DATA) => Failure::new(FailureReason::InvalidData, &detail),
        _ => Failure::new(FailureReason::ExporterFailed, &detail),
    }
}

/// The exporter's own words, unless they are none of ours.
fn last_words(text: &str) -> Option<Failure> {
    let LastWords { reason, message } = serde_json::from_str(text).ok()?;
    let reason: FailureReason = reason.parse().ok()?;
    Some(if message.trim().is_empty() {
        Failure::new(reason, "")
    } else {
        Failure { reason, message }
    })
}

/// The exporter container's end in the Pod that ended last.
fn last_end(pods: &[Pod]) -> Option<&ContainerStateTerminated> {
    pods.iter()
        .filter_map(|pod| {
            let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
            let status = statuses.iter().find(|status| status.name == EXPORTER_CONTAINER)?;
            status.state.as_ref()?.terminated.as_ref()
        })
        .max_by_key(|end| end.finished_at.as_ref().map(|time| time.0))
}

/// How the status says that a Pod does not start; what keeps it from that follows.
pub const NOT_STARTING: &str = "The exporter's Pod does not start: ";

/// What kept the Pod from starting when the status was last published.
pub fn remembered(object: &PopularityReport) -> Option<String> {
    let conditions = &object.status.as_ref()?.conditions;
    let succeeded = conditions::find(conditions, conditions::SUCCEEDED)?;
    let words = succeeded.message.strip_prefix(NOT_STARTING)?;
    (succeeded.reason == reasons::STARTING).then(|| words.to_owned())
}

/// What keeps the newest Pod from starting, in one line: an image that cannot be pulled, a Secret that is
/// not there, a node that has no room.
pub fn waiting(pods: &[Pod]) -> Option<String> {
    let pod = pods
        .iter()
        .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))?;
    let status = pod.status.as_ref()?;
    let container = status
        .container_statuses
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find_map(|status| status.state.as_ref()?.waiting.as_ref())
        // the ordinary first seconds of every Pod
        .filter(|waiting| {
            !matches!(
                waiting.reason.as_deref(),
                None | Some("ContainerCreating" | "PodInitializing")
            )
        })
        .map(|waiting| (waiting.reason.as_deref(), waiting.message.as_deref()));
    let scheduling = || {
        status
            .conditions
            .as_deref()
            .unwrap_or_default()
            .iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| (condition.reason.as_deref(), condition.message.as_deref()))
    };
    let (reason, message) = container.or_else(scheduling)?;
    let words = [reason, message].into_iter().flatten().collect::<Vec<_>>();
    Some(words.join(": ")).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn failed(reason: &str) -> Job {
        serde_json::from_value(json!({
            "metadata": {},
            "status": { "conditions": [
                { "type": "FailureTarget", "status": "True", "reason": reason },
                { "type": "Failed", "status": "True", "reason": reason, "message": "said the Job controller" },
            ]},
        }))
        .unwrap()
    }

    fn ended(at: &str, terminated: Value) -> Pod {
        let mut terminated = terminated;
        terminated["finishedAt"] = json!(at);
        serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "status": { "containerStatuses": [{
                "name": EXPORTER_CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": terminated },
            }]},
        }))
        .unwrap()
    }

    const EARLY: &str = "2026-01-31T00:00:00Z";
    const LATE: &str = "2026-01-31T00:01:00Z";

    #[rstest]
    #[case::own_words(
        "PodFailurePolicy",
        vec![ended(LATE, json!({"exitCode": 65, "reason": "Error", "message": r#"{"reason":"StorageRejected","message":"403 on container reports"}"#}))],
        FailureReason::StorageRejected,
        "403 on container reports"
    )]
    #[case::own_words_after_every_retry(
        "BackoffLimitExceeded",
        vec![
            ended(LATE, json!({"exitCode": 75, "message": r#"{"reason":"StorageUnavailable","message":"no answer"}"#})),
            ended(EARLY, json!({"exitCode": 75, "message": r#"{"reason":"CatalogUnavailable","message":"refused"}"#})),
        ],
        FailureReason::StorageUnavailable,
        "no answer"
    )]
    #[case::bad_parameters_without_words(
        "PodFailurePolicy",
        vec![ended(LATE, json!({"exitCode": 64}))],
        FailureReason::InvalidParameters,
        "(exit code 64)"
    )]
    #[case::bad_data_without_words(
        "PodFailurePolicy",
        vec![ended(LATE, json!({"exitCode": 65}))],
        FailureReason::InvalidData,
        "(exit code 65)"
    )]
    #[case::out_of_memory(
        "BackoffLimitExceeded",
        vec![ended(LATE, json!({"exitCode": 137, "reason": "OOMKilled"}))],
        FailureReason::ExporterOutOfMemory,
        "(exit code 137)"
    )]
    #[case::killed(
        "BackoffLimitExceeded",
        vec![ended(LATE, json!({"exitCode": 137, "reason": "Error"}))],
        FailureReason::ExporterFailed,
        "(exit code 137)"
    )]
    #[case::never_ran(
        "BackoffLimitExceeded",
        vec![ended(LATE, json!({"exitCode": 128, "reason": "StartError", "message": "no such file: /exporter"}))],
        FailureReason::ExporterFailed,
        "(exit code 128, StartError: no such file: /exporter)"
    )]
    #[case::words_that_are_none_of_ours(
        "BackoffLimitExceeded",
        vec![ended(LATE, json!({"exitCode": 101, "message": "thread 'main' panicked"}))],
        FailureReason::ExporterFailed,
        "(exit code 101)"
    )]
    #[case::deadline(
        "DeadlineExceeded",
        vec![],
        FailureReason::DeadlineExceeded,
        FailureReason::DeadlineExceeded.advice()
    )]
    #[case::no_pods_left(
        "BackoffLimitExceeded",
        vec![],
        FailureReason::ExporterFailed,
        "(BackoffLimitExceeded: said the Job controller)"
    )]
    fn a_failed_job_has_a_reason_that_a_person_can_act_on(
        #[case] job_reason: &str,
        #[case] pods: Vec<Pod>,
        #[case] reason: FailureReason,
        #[case] ends_with: &str,
    ) {
        let failure = of_job(&failed(job_reason), &pods, None);

        assert_eq!(failure.reason, reason);
        assert!(failure.message.ends_with(ends_with), "{}", failure.message);
    }

    #[rstest]
    #[case::the_pod_is_there(vec![waiting_pod("ImagePullBackOff", "no such image")], None)]
    #[case::the_pod_is_gone(vec![], Some("ImagePullBackOff: no such image"))]
    fn a_deadline_says_what_kept_the_pod_from_starting(
        #[case] pods: Vec<Pod>,
        #[case] remembered: Option<&str>,
    ) {
        let job = failed("DeadlineExceeded");

        let failure = of_job(&job, &pods, remembered.map(str::to_owned));

        assert!(failure.message.ends_with("(ImagePullBackOff: no such image)"));
    }

    #[rstest]
    #[case::not_starting(
        "Starting",
        "The exporter's Pod does not start: ErrImagePull",
        Some("ErrImagePull")
    )]
    #[case::starting("Starting", "The exporter's Pod is about to start.", None)]
    #[case::has_started("Exporting", "The exporter is at work; this is attempt 1.", None)]
    fn what_the_status_said_of_the_pod_is_remembered(
        #[case] reason: &str,
        #[case] message: &str,
        #[case] words: Option<&str>,
    ) {
        let object: PopularityReport = serde_json::from_value(json!({
            "apiVersion": "reports.musicalbums.dev/v1alpha1", "kind": "PopularityReport",
            "metadata": {"name": "r"}, "spec": {},
            "status": {"conditions": [{
                "type": "Succeeded", "status": "Unknown", "reason": reason, "message": message,
                "lastTransitionTime": EARLY,
            }]},
        }))
        .unwrap();

        assert_eq!(remembered(&object).as_deref(), words);
    }

    fn waiting_pod(reason: &str, message: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "creationTimestamp": EARLY },
            "status": { "containerStatuses": [{
                "name": EXPORTER_CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": message } },
            }]},
        }))
        .unwrap()
    }

    #[rstest]
    #[case::image(
        waiting_pod("ErrImagePull", "no such image"),
        Some("ErrImagePull: no such image")
    )]
    #[case::ordinary(waiting_pod("ContainerCreating", ""), None)]
    #[case::unschedulable(
        serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "status": { "conditions": [
                { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" },
            ]},
        })).unwrap(),
        Some("Unschedulable: 0/1 nodes are available")
    )]
    #[case::new(serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap(), None)]
    fn what_keeps_a_pod_from_starting_is_told(#[case] pod: Pod, #[case] words: Option<&str>) {
        assert_eq!(waiting(&[pod]).as_deref(), words);
    }

    fn suspended() -> Value {
        json!({"suspend": true, "template": {}})
    }

    #[rstest]
    #[case::new(json!({"metadata": {}}), JobState::Live)]
    #[case::failing(
        json!({"metadata": {}, "status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}),
        JobState::Live
    )]
    #[case::deleted(json!({"metadata": {"deletionTimestamp": EARLY}}), JobState::Deleting)]
    #[case::complete(
        json!({"metadata": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
        JobState::Complete
    )]
    #[case::created_for_a_queue(json!({"metadata": {}, "spec": suspended()}), JobState::Suspended)]
    #[case::suspended_while_its_pod_runs(
        json!({"metadata": {}, "spec": suspended(), "status": {"active": 1}}),
        JobState::Live
    )]
    #[case::suspended_while_its_pod_is_ending(
        json!({"metadata": {}, "spec": suspended(), "status": {"active": 0, "terminating": 1}}),
        JobState::Live
    )]
    #[case::suspended_and_its_pod_is_gone(
        json!({"metadata": {}, "spec": suspended(), "status": {"active": 0, "terminating": 0}}),
        JobState::Suspended
    )]
    #[case::suspended_and_deleted(
        json!({"metadata": {"deletionTimestamp": EARLY}, "spec": suspended()}),
        JobState::Deleting
    )]
    #[case::suspended_after_its_end(
        json!({
            "metadata": {}, "spec": suspended(),
            "status": {"conditions": [{"type": "Failed", "status": "True"}]},
        }),
        JobState::Failed
    )]
    #[case::failed_and_cleaned_up_by_its_time_to_live(
        json!({
            "metadata": {"deletionTimestamp": EARLY},
            "status": {"conditions": [{"type": "Failed", "status": "True"}]},
        }),
        JobState::Failed
    )]
    fn a_job_is_in_one_state(#[case] job: Value, #[case] expected: JobState) {
        assert_eq!(state(&serde_json::from_value(job).unwrap()), expected);
    }
}
