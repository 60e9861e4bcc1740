//! Download links: signed when asked for, never stored.

use std::time::Duration;

use blob::{BlobStore, SignedUrl};
use domain::{Artifact, Report};
use jiff::Timestamp;
use serde::Serialize;

/// Makes links to finished files.
pub struct Downloads {
    blobs: BlobStore,
    lifetime: Duration,
}

/// Why a completed report comes without a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    /// The stable word.
    pub code: &'static str,
    /// What it means for the caller.
    pub message: &'static str,
}

/// The link cannot be signed now. The report's answer is otherwise whole.
const SIGNING_FAILED: Unavailable = Unavailable {
    code: "storage-unavailable",
    message: "the storage cannot give out a link at the moment; ask again",
};
/// The file went with the custom resource.
const FILE_DELETED: Unavailable = Unavailable {
    code: "file-deleted",
    message: "the file was deleted; request a new report",
};
/// Another store than the one that this service knows.
const OTHER_CONTAINER: Unavailable = Unavailable {
    code: "other-container",
    message: "the file is in a container that this service does not serve; tell its operators",
};

impl Downloads {
    /// Links into this store that live so long.
    pub fn new(blobs: BlobStore, lifetime: Duration) -> Self {
        Self { blobs, lifetime }
    }

    /// Where the files are.
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// A number that changes a few times in a link's life: an answer of the same period holds a link
    /// that still works for two thirds of it or more.
    pub fn period(&self, now: Timestamp) -> i64 {
        let third = i64::try_from(self.lifetime.as_secs() / 3).unwrap_or(i64::MAX);
        now.as_second() / third.max(1)
    }

    /// A link to the report's file.
    ///
    /// With an account key nothing is asked of the storage, so the link is given even while the
    /// storage is away. Only when the custom resource is gone is it asked whether the file stayed.
    ///
    /// # Errors
    /// [`Unavailable`], which the report's answer carries in place of the link.
    pub async fn link(
        &self,
        report: &Report,
        artifact: &Artifact,
        now: Timestamp,
    ) -> Result<SignedUrl, Unavailable> {
        if artifact.container != self.blobs.container() {
            return Err(OTHER_CONTAINER);
        }
        let name = artifact.blob.as_str();
        if report.custom_resource_deleted_at.is_some() {
            match self.blobs.facts(name).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(FILE_DELETED),
                Err(error) => return Err(signing_failed(report, &error)),
            }
        }
        let disposition = format!("attachment; filename=\"{name}\"");
        self.blobs
            .signed_url(name, now, self.lifetime, Some(&disposition))
            .await
            .map_err(|error| signing_failed(report, &error))
    }
}

fn signing_failed(report: &Report, error: &blob::Error) -> Unavailable {
    let error = error as &dyn std::error::Error;
    tracing::warn!(report.id = %report.id, error, "a download link could not be made");
    SIGNING_FAILED
}
