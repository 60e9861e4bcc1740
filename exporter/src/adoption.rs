//! Taking over the file of an earlier attempt: after it was read back, never on its word alone.

use blob::{BlobFacts, BlobStore};
use domain::{Artifact, Report, Sha256};
use futures::TryStreamExt as _;
use sha2::Digest as _;

use crate::error::Error;
use crate::export::Target;
use crate::file_metadata::FileMetadata;

/// What stands under the report's name.
pub(crate) enum Standing {
    /// Nothing.
    Nothing,
    /// The report's file, whole.
    File(Artifact),
    /// The report's file, but its bytes are not those that its facts tell of.
    Damaged,
}

/// Looks at what stands under the report's name and reads it back.
///
/// # Errors
/// [`Error::ForeignBlob`] when no exporter of this report wrote it; [`Error::Storage`].
pub(crate) async fn standing(store: &BlobStore, report: &Report, target: &Target) -> Result<Standing, Error> {
    let name = target.name.as_str();
    let Some(content) = store.read(name).await? else {
        return Ok(Standing::Nothing);
    };
    let facts = content.facts;
    let Some(metadata) = of_this_report(&facts, report, target) else {
        return Err(Error::ForeignBlob(name.to_owned()));
    };
    let mut sum = sha2::Sha256::new();
    let mut bytes = 0;
    let mut pieces = content.bytes;
    while let Some(piece) = pieces.try_next().await? {
        sum.update(&piece);
        bytes += piece.len() as u64;
    }
    let read = Sha256::new(sum.finalize().into());
    if bytes != facts.bytes || read != metadata.sha256 {
        tracing::warn!(blob = name, bytes, sha256 = %read, told = %metadata.sha256, "the file is damaged");
        return Ok(Standing::Damaged);
    }
    tracing::info!(
        blob = name,
        attempt = metadata.attempt.get(),
        rows = metadata.rows,
        bytes,
        "an earlier attempt had finished the file; it was read back and is whole"
    );
    Ok(Standing::File(Artifact {
        container: store.container().to_owned(),
        blob: target.name.clone(),
        bytes,
        rows: metadata.rows,
        sha256: read,
        content_type: target.content_type.to_owned(),
        schema: metadata.schema,
        data_as_of: metadata.data_as_of,
    }))
}

fn of_this_report(facts: &BlobFacts, report: &Report, target: &Target) -> Option<FileMetadata> {
    FileMetadata::from_blob(&facts.metadata).filter(|metadata| {
        metadata.report_id == report.id
            && metadata.schema == domain::SCHEMA
            && metadata.parameters == report.parameters
            && facts.content_type.as_deref() == Some(target.content_type)
    })
}
