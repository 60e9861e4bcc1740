//! Step 3: write down what is to be done, down to the last field of the Job. Pure.

use std::collections::BTreeMap;

use domain::{BlobName, CustomResourceRef, Failure, OutboxId, ReportId};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvFromSource, EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec,
    ResourceRequirements, SeccompProfile, SecretEnvSource, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use store::reports::Adoption;

use crds::{PopularityReport, Scheduling, names};

use super::decide::{Decision, Release};
use super::dereference::World;
use super::failure::{EXIT_BAD_DATA, EXIT_BAD_PARAMETERS};
use crate::config::ExporterArgs;

/// How long a Job and its Pods stay after the end, for people to read their logs.
const JOB_TTL_SECONDS: i32 = 3_600;
/// How long an exporter has to end by itself when its Pod is deleted. It has nothing to finish: what it had
/// uploaded is invisible, and the next attempt starts clean.
const TERMINATION_GRACE_SECONDS: i64 = 5;
/// The user of the exporter's image. Named here as well, because the kubelet cannot tell from a user's name
/// whether it is root.
const EXPORTER_USER: i64 = 65_532;

/// What to do, with everything that is needed to do it.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Nothing; the status may still have news.
    Nothing,
    /// Set the object's finalizers to these.
    SetFinalizers(Vec<String>),
    /// Insert row and outbox message.
    Adopt(Box<Adoption>),
    /// End a row whose parameters nobody can read; none when there is no row.
    Refuse(Option<Failure>),
    /// Record the dispatch that no message brought.
    Recover,
    /// Record the object in the row.
    Bind(CustomResourceRef),
    /// Delete the Job that is in the way, whose uid this is.
    ClearWay(String),
    /// Create the Job if there is a place.
    Launch(Box<Launch>),
    /// End the row, and the Job with this uid if it lives.
    Fail {
        /// Why.
        failure: Failure,
        /// The live Job's uid.
        job: Option<String>,
    },
    /// Delete the Job with this uid, its Pods first.
    StopJob(String),
    /// Delete the object.
    Expire,
    /// Delete the Job with this uid, if any, and these Pods.
    RemoveWorkload {
        /// The Job's uid.
        job: Option<String>,
        /// Pods without a Job, by name.
        pods: Vec<String>,
    },
    /// Delete the file unless it is to stay, tell the row, and let the object go.
    Release {
        /// The file; none when it stays, or when there never was a report.
        blob: Option<BlobName>,
        /// Whether and until when.
        release: Release,
        /// What is left of the object's finalizers.
        finalizers: Vec<String>,
    },
}

/// A Job to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The Job.
    pub job: Job,
    /// From this moment on a cluster that forbids the Job is no longer asked again.
    pub give_up_at: Timestamp,
}

/// Plans the decision. `outbox_id` is the id for a message, should one be written.
pub fn build(
    decision: Decision,
    world: &World,
    exporter: &ExporterArgs,
    outbox_id: OutboxId,
    now: Timestamp,
) -> Plan {
    let job_uid = || world.job.as_ref().and_then(ResourceExt::uid);
    match decision {
        Decision::Ignore | Decision::AwaitDispatch | Decision::AwaitExport | Decision::Rest(_) => {
            Plan::Nothing
        }
        Decision::Protect => Plan::SetFinalizers(finalizers_with_ours(&world.object)),
        Decision::Adopt(parameters) => Plan::Adopt(Box::new(Adoption {
            id: world.report,
            outbox_id,
            parameters,
            custom_resource: world.reference.clone(),
            traceparent: world
                .object
                .annotations()
                .get(names::TRACEPARENT_ANNOTATION)
                .cloned(),
            now,
            expires_at: expiry(&world.object, now),
        })),
        Decision::Refuse(errors) => Plan::Refuse(
            world
                .unreadable
                .is_some()
                .then(|| Failure::new(domain::FailureReason::InvalidParameters, &errors.to_string())),
        ),
        Decision::Recover => Plan::Recover,
        Decision::Bind => Plan::Bind(world.reference.clone()),
        Decision::ClearWay => job_uid().map_or(Plan::Nothing, Plan::ClearWay),
        Decision::Launch => {
            let dispatched = world
                .row
                .as_ref()
                .and_then(|row| row.dispatched_at)
                .unwrap_or(now);
            let patience = SignedDuration::from_secs(world.object.spec.active_deadline_seconds);
            Plan::Launch(Box::new(Launch {
                job: job(world, exporter),
                give_up_at: dispatched.checked_add(patience).unwrap_or(now),
            }))
        }
        Decision::Fail(failure) => Plan::Fail {
            failure,
            job: world.has_live_job().then(job_uid).flatten(),
        },
        Decision::StopJob => job_uid().map_or(Plan::Nothing, Plan::StopJob),
        Decision::Expire => Plan::Expire,
        Decision::RemoveWorkload => {
            let job = world.owns_job().then(job_uid).flatten();
            let pods = match job {
                Some(_) => Vec::new(),
                None => world.pods.iter().map(ResourceExt::name_any).collect(),
            };
            Plan::RemoveWorkload { job, pods }
        }
        Decision::Release(release) => Plan::Release {
            blob: world
                .row
                .as_ref()
                .filter(|_| !release.retain)
                .map(|row| BlobName::of(row.id, row.parameters.compression)),
            release,
            finalizers: finalizers_without_ours(&world.object),
        },
    }
}

fn finalizers_with_ours(object: &PopularityReport) -> Vec<String> {
    let mut finalizers = finalizers_without_ours(object);
    finalizers.push(names::FINALIZER.to_owned());
    finalizers
}

fn finalizers_without_ours(object: &PopularityReport) -> Vec<String> {
    let others = object.finalizers().iter();
    others.filter(|name| *name != names::FINALIZER).cloned().collect()
}

/// When REST may say that a report which came as a custom resource is gone: after its deadline and its time
/// to live.
fn expiry(object: &PopularityReport, now: Timestamp) -> Timestamp {
    let seconds = object
        .spec
        .active_deadline_seconds
        .saturating_add(object.spec.ttl_seconds_after_finished);
    now.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

fn labels(report: ReportId, exporter: &ExporterArgs) -> BTreeMap<String, String> {
    let ours = [
        (names::APP_NAME_LABEL, names::EXPORTER_APP_NAME.to_owned()),
        (names::MANAGED_BY_LABEL, names::MANAGED_BY.to_owned()),
        (names::REPORT_ID_LABEL, report.to_string()),
    ];
    let configured = exporter.exporter_pod_label.iter().map(|pair| pair.clone().into());
    configured
        .chain(ours.map(|(key, value)| (key.to_owned(), value)))
        .collect()
}

/// The exporter's Job.
fn job(world: &World, exporter: &ExporterArgs) -> Job {
    let report = world.report;
    let wishes = world.object.spec.scheduling.clone().unwrap_or_default();
    let scheduling = wishes.or(Scheduling::from(&exporter.scheduling));
    let labels = labels(report, exporter);
    let mut job_labels = labels.clone();
    let queue = scheduling.queue_name.clone();
    // Kueue's own webhook would suspend it too, but may be away
    let suspend = queue.as_ref().map(|_| true);
    job_labels.extend(queue.map(|name| (names::QUEUE_NAME_LABEL.to_owned(), name)));
    let traceparent = world.row.as_ref().and_then(|row| row.traceparent.clone());
    let annotations: Option<BTreeMap<_, _>> = traceparent
        .clone()
        .map(|parent| [(names::TRACEPARENT_ANNOTATION.to_owned(), parent)].into());
    Job {
        metadata: ObjectMeta {
            name: Some(names::job(report)),
            namespace: Some(world.reference.namespace.clone()),
            labels: Some(job_labels),
            annotations: annotations.clone(),
            owner_references: world.object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            completions: Some(1),
            parallelism: Some(1),
            suspend,
            backoff_limit: Some(exporter.exporter_backoff_limit),
            active_deadline_seconds: Some(world.object.spec.active_deadline_seconds),
            ttl_seconds_after_finished: Some(JOB_TTL_SECONDS),
            pod_failure_policy: Some(pod_failure_policy()),
            // never two attempts of one report at once
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations,
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(world, exporter, scheduling, traceparent)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// What ends the Job at once, and what does not count as an attempt
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>).
fn pod_failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(names::EXPORTER_CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: vec![EXIT_BAD_PARAMETERS, EXIT_BAD_DATA],
                }),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                // eviction, preemption, a drained or lost node
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
            },
        ],
    }
}

fn pod(
    world: &World,
    exporter: &ExporterArgs,
    scheduling: Scheduling,
    traceparent: Option<String>,
) -> PodSpec {
    PodSpec {
        priority_class_name: scheduling.priority_class_name,
        node_selector: scheduling.node_selector.filter(|labels| !labels.is_empty()),
        tolerations: scheduling.tolerations.filter(|taints| !taints.is_empty()),
        affinity: scheduling.affinity,
        restart_policy: Some("Never".to_owned()),
        service_account_name: exporter.exporter_service_account.clone(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(EXPORTER_USER),
            run_as_group: Some(EXPORTER_USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(world, exporter, traceparent)],
        ..PodSpec::default()
    }
}

fn container(world: &World, exporter: &ExporterArgs, traceparent: Option<String>) -> Container {
    let from_secret = exporter.exporter_env_secret.as_ref().map(|name| EnvFromSource {
        secret_ref: Some(SecretEnvSource {
            name: name.clone(),
            optional: Some(false),
        }),
        ..EnvFromSource::default()
    });
    let configured = exporter.exporter_env.iter().map(|pair| pair.clone().into());
    let trace = traceparent.map(|parent| ("TRACEPARENT".to_owned(), parent));
    let env: Vec<_> = configured
        .chain(trace)
        .map(|(name, value)| EnvVar {
            name,
            value: Some(value),
            value_from: None,
        })
        .collect();
    Container {
        name: names::EXPORTER_CONTAINER.to_owned(),
        image: Some(exporter.exporter_image.clone()),
        image_pull_policy: Some(exporter.exporter_image_pull_policy.to_string()),
        args: Some(vec!["--report-id".to_owned(), world.report.to_string()]),
        env: Some(env).filter(|env| !env.is_empty()),
        env_from: from_secret.map(|source| vec![source]),
        resources: Some(resources(exporter)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

/// Memory is limited to what is requested: an exporter needs the same whatever the size of the report, so a
/// node that admits it can also hold it. CPU is not limited: an export that a node has time for ends sooner.
fn resources(exporter: &ExporterArgs) -> ResourceRequirements {
    let memory = Quantity(exporter.exporter_memory.clone());
    let cpu = Quantity(exporter.exporter_cpu.clone());
    ResourceRequirements {
        requests: Some([("cpu".to_owned(), cpu), ("memory".to_owned(), memory.clone())].into()),
        limits: Some([("memory".to_owned(), memory)].into()),
        claims: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{job, *};

    fn outbox_id() -> OutboxId {
        OutboxId::new(uuid::Uuid::from_u128(7))
    }

    fn plan(decision: Decision, world: &World) -> Plan {
        build(decision, world, &exporter(), outbox_id(), noon())
    }

    #[test]
    fn the_job_is_the_whole_of_it() {
        let row = domain::Report {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            ..dispatched()
        };
        let world = world(object(json!({"spec": {"activeDeadlineSeconds": 77}}))).with_row(row);

        let Plan::Launch(launch) = plan(Decision::Launch, &world) else {
            panic!("no launch");
        };

        insta::assert_json_snapshot!(launch.job);
        assert_eq!(launch.give_up_at, noon_and(2 + 77));
    }

    #[test]
    fn a_job_for_a_queue_starts_suspended_where_report_and_operator_want_it() {
        let object = object(json!({"spec": {"scheduling": {
            "queueName": "nightly",
            "nodeSelector": {},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
        }}}));
        let scheduling = crate::config::SchedulingArgs {
            exporter_priority_class: Some("batch".to_owned()),
            exporter_node_selector: vec![crate::config::Pair::new("disk", "ssd")],
            ..Default::default()
        };
        let exporter = ExporterArgs {
            scheduling,
            ..exporter()
        };
        let world = world(object).with_row(dispatched());

        let Plan::Launch(launch) = build(Decision::Launch, &world, &exporter, outbox_id(), noon()) else {
            panic!("no launch");
        };

        let labels = launch.job.metadata.labels.unwrap();
        let spec = launch.job.spec.unwrap();
        let template = spec.template;
        let pod = template.spec.unwrap();
        assert_eq!(labels[names::QUEUE_NAME_LABEL], "nightly");
        assert_eq!(spec.suspend, Some(true));
        assert!(
            !template
                .metadata
                .unwrap()
                .labels
                .unwrap()
                .contains_key(names::QUEUE_NAME_LABEL),
            "Kueue would take the Pod for one of its own to manage"
        );
        assert_eq!(pod.priority_class_name.as_deref(), Some("batch"));
        assert_eq!(pod.node_selector, None, "the report asked for none");
        assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("spot"));
    }

    #[test]
    fn the_same_report_has_the_same_job_however_often_it_is_built() {
        let world = world(object(json!({}))).with_row(dispatched());
        let built = || match plan(Decision::Launch, &world) {
            Plan::Launch(launch) => launch.job,
            other => panic!("{other:?}"),
        };

        assert_eq!(built(), built());
    }

    #[test]
    fn an_object_that_came_first_becomes_the_report_of_its_uid() {
        let object = object(json!({
            "metadata": {"annotations": {names::TRACEPARENT_ANNOTATION: "00-trace"}},
            "spec": {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 3600},
        }));

        let Plan::Adopt(adoption) = plan(Decision::Adopt(domain::Parameters::default()), &world(object))
        else {
            panic!("no adoption");
        };

        assert_eq!(adoption.id, report_id());
        assert_eq!(adoption.custom_resource, reference());
        assert_eq!(adoption.outbox_id, outbox_id());
        assert_eq!(adoption.traceparent.as_deref(), Some("00-trace"));
        assert_eq!(adoption.expires_at, noon_and(3_660));
    }

    #[test]
    fn finalizers_of_others_stay() {
        let unprotected = world(object(json!({"metadata": {"finalizers": ["other/one"]}})));
        let protected = world(object(
            json!({"metadata": {"finalizers": ["other/one", names::FINALIZER]}}),
        ));

        let Plan::SetFinalizers(set) = plan(Decision::Protect, &unprotected) else {
            panic!("no finalizers");
        };
        let release = Release {
            retain: false,
            give_up_at: noon(),
        };
        let Plan::Release { finalizers, .. } = plan(Decision::Release(release), &protected) else {
            panic!("no release");
        };

        assert_eq!(set, ["other/one", names::FINALIZER]);
        assert_eq!(finalizers, ["other/one"]);
    }

    #[test]
    fn a_file_that_stays_is_not_in_the_plan() {
        let world = world(object(json!({}))).with_row(completed());
        let blob = |retain| {
            let release = Release {
                retain,
                give_up_at: noon(),
            };
            match plan(Decision::Release(release), &world) {
                Plan::Release { blob, .. } => blob.map(|blob| blob.to_string()),
                other => panic!("{other:?}"),
            }
        };

        assert_eq!(blob(true), None);
        assert_eq!(blob(false), Some(format!("{UID}.csv")));
    }

    #[test]
    fn a_failure_takes_a_live_job_with_it_and_leaves_an_ended_one_for_its_logs() {
        let failure = || Failure::new(domain::FailureReason::Cancelled, "");
        let job_of = |job| match plan(
            Decision::Fail(failure()),
            &world(object(json!({}))).with_row(processing()).with_job(job),
        ) {
            Plan::Fail { job, .. } => job,
            other => panic!("{other:?}"),
        };

        assert_eq!(job_of(job(json!({}))).as_deref(), Some(JOB_UID));
        assert_eq!(job_of(failed_job("BackoffLimitExceeded")), None);
    }
}
