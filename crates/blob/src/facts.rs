//! What the service says about a blob.

use crate::Metadata;

/// A committed blob, as a HEAD request or a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// Its name within the container.
    pub name: String,
    /// Its stored size.
    pub bytes: u64,
    /// The version of its content, with the quotes that belong to it.
    pub etag: String,
    /// Its media type.
    pub content_type: Option<String>,
    /// Its content encoding, such as `gzip`.
    pub content_encoding: Option<String>,
    /// What was stored with it.
    pub metadata: Metadata,
}
