//! What must hold of a report wherever one looks: row, custom resource and blob.

use std::time::Duration;

use crds::{Phase, PopularityReport, conditions};
use k8s_openapi::api::batch::v1::Job;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::until;
use crate::world::World;

/// How long a report may take from its request to its end when nothing is in its way; the machine may be
/// busy with other tests.
pub const SOON: Duration = Duration::from_secs(90);

impl World {
    /// The report's object, found by the id in its status or its name.
    pub async fn custom_resource(&self, id: Uuid) -> Option<PopularityReport> {
        let id = id.to_string();
        self.cluster.reports().await.into_iter().find(|report| {
            let named = report.metadata.name.as_deref() == Some(&format!("report-{id}"));
            let known = report
                .status
                .as_ref()
                .and_then(|status| status.report_id.as_deref())
                == Some(&id);
            named || known || report.metadata.uid.as_deref() == Some(&id)
        })
    }

    /// The report's Job.
    pub async fn job(&self, id: Uuid) -> Option<Job> {
        let name = format!("export-{id}");
        self.cluster
            .jobs()
            .await
            .into_iter()
            .find(|job| job.metadata.name.as_deref() == Some(&name))
    }

    /// Waits until the row is in this state.
    pub async fn row_is(&self, id: Uuid, state: &str) {
        let name = format!("the row is {state}");
        let reached = async || {
            let row = self.database.report(id).await?;
            (row.state() == state).then_some(())
        };
        until(&name, SOON, reached).await;
    }

    /// Waits until the custom resource says that the report has ended.
    pub async fn custom_resource_finished(&self, id: Uuid) -> PopularityReport {
        let finished = async || {
            let report = self.custom_resource(id).await?;
            let conditions = &report.status.as_ref()?.conditions;
            let finished = conditions::find(conditions, conditions::FINISHED)?;
            (finished.status == "True").then_some(report)
        };
        until("the custom resource is Finished", SOON, finished).await
    }

    /// Waits for the report's end, and checks that row, custom resource and blob agree on it, that there is
    /// exactly one blob and at most one Job for it.
    pub async fn completed_everywhere(&self, id: Uuid) -> PopularityReport {
        let custom_resource = self.custom_resource_finished(id).await;
        let status = custom_resource
            .status
            .clone()
            .expect("a finished report has a status");
        assert_eq!(status.phase, Some(Phase::Completed), "{:?}", status.conditions);
        let row = self.database.report(id).await.expect("the row is there");
        assert_eq!(row.state(), "Completed");
        let artifact = status.artifact.expect("a completed report has a file");

        let text = |column| row.text(column).unwrap_or_else(|| panic!("{column} is NULL"));
        let number = |column| {
            let number = row.number(column).unwrap_or_else(|| panic!("{column} is NULL"));
            u64::try_from(number).expect("sizes are not negative")
        };
        assert_eq!(artifact.container, self.container.name);
        assert_eq!(artifact.container, text("artifact_container"));
        assert_eq!(artifact.blob, text("artifact_blob"));
        assert_eq!(artifact.bytes, number("artifact_bytes"));
        assert_eq!(artifact.rows, number("artifact_rows"));
        assert_eq!(artifact.sha256, text("artifact_sha256"));

        let blobs = self.container.list().await;
        let own: Vec<_> = blobs
            .iter()
            .filter(|name| name.contains(&id.to_string()))
            .collect();
        assert_eq!(own, [&artifact.blob], "one blob for a report");
        let bytes = self.container.read(&artifact.blob).await;
        let facts = self
            .container
            .facts(&artifact.blob)
            .await
            .expect("the blob is there");
        assert_eq!(facts.bytes, artifact.bytes);
        assert_eq!(u64::try_from(bytes.len()).expect("a length"), artifact.bytes);
        let sha256: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(sha256, artifact.sha256);

        let name = format!("export-{id}");
        let jobs = self.cluster.jobs().await;
        let jobs = jobs
            .iter()
            .filter(|job| job.metadata.name.as_deref() == Some(&name))
            .count();
        assert!(jobs <= 1, "one Job for a report");
        assert_eq!(
            status.attempts,
            u32::try_from(row.attempts()).expect("attempts are not negative")
        );
        custom_resource
    }

    /// Waits for the report's end, and checks that row and custom resource agree on why it failed. Returns
    /// its message.
    pub async fn failed_everywhere(&self, id: Uuid, reason: &str, attempts: i32) -> String {
        let custom_resource = self.custom_resource_finished(id).await;
        let status = custom_resource
            .status
            .clone()
            .expect("a finished report has a status");
        let succeeded = conditions::find(&status.conditions, conditions::SUCCEEDED);
        let succeeded = succeeded.expect("a finished report has the condition Succeeded");
        assert_eq!(succeeded.status, "False", "{succeeded:?}");
        assert_eq!(succeeded.reason, reason, "{}", succeeded.message);
        assert_eq!(status.phase, Some(Phase::Failed));
        assert!(status.artifact.is_none());

        let row = self.database.report(id).await.expect("the row is there");
        assert_eq!(row.state(), "Failed");
        assert_eq!(row.text("failure_reason").as_deref(), Some(reason));
        let message = row.text("failure_message").expect("a failure has a message");
        // The custom resource may add the next command to type.
        let said = &succeeded.message;
        assert!(
            said.starts_with(&message),
            "row: {message}; custom resource: {said}"
        );
        let advice = reason
            .parse::<domain::FailureReason>()
            .expect("a known reason")
            .advice();
        assert!(message.starts_with(advice), "{message}");
        assert_eq!(row.attempts(), attempts, "attempts");

        let blobs = self.container.list().await;
        assert!(
            !blobs.iter().any(|name| name.contains(&id.to_string())),
            "no blob of a failed report"
        );
        message
    }
}
