//! Why an attempt failed, what the person who asked is told, and whether another attempt makes sense.

use std::error::Error as _;

use domain::{Failure, FailureReason, ReportId};
use store::catalogue::ErrorKind;

/// The exit codes, which the Job's `podFailurePolicy` reads. 64 and up are those of `sysexits.h`.
pub mod exit_codes {
    /// The report is completed, or had ended before.
    pub const DONE: u8 = 0;
    /// An option is missing or wrong: clap's own code.
    pub const MISUSE: u8 = 2;
    /// The report's parameters are not valid; never retried.
    pub const BAD_PARAMETERS: u8 = 64;
    /// The data, the storage or a database refuses for good; never retried.
    pub const BAD_DATA: u8 = 65;
    /// Something is away; retried.
    pub const TEMPORARY: u8 = 75;

    /// The code for options that cannot be read; asking for help is none of those.
    pub fn of_misuse(error: &clap::Error) -> u8 {
        if error.use_stderr() { MISUSE } else { DONE }
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reports' database has no such report: nothing can be written about it.
    #[error("the reports' database has no report {0}")]
    UnknownReport(ReportId),
    /// A database URL is none.
    #[error("{which} cannot be used")]
    DatabaseUrl {
        /// The option.
        which: &'static str,
        /// What is wrong with it.
        source: store::pool::InvalidUrl,
    },
    /// Workload identity is asked for and not there.
    #[error("workload identity cannot be used")]
    Identity(#[from] identity::ConfigurationError),
    /// The token service refuses the Pod's identity, or was away for too long.
    #[error("the Pod's identity got no token; `operator doctor --as exporter` says what is missing")]
    NoToken(#[from] identity::NoToken),
    /// The reports' database failed.
    #[error("the reports' database failed")]
    Reports(#[from] store::reports::Error),
    /// The catalogue failed.
    #[error("the catalogue failed")]
    Catalogue(#[from] store::catalogue::Error),
    /// The storage options cannot be used.
    #[error("the storage options cannot be used")]
    StorageOptions(#[from] blob::ConfigurationError),
    /// Blob storage failed.
    #[error("blob storage failed")]
    Storage(#[from] blob::Error),
    /// A row cannot be written as CSV, or packed.
    #[error("row {row} cannot be written")]
    WriteRow {
        /// The row, from 1; 0 is the header.
        row: u64,
        /// Why not.
        source: csv::Error,
    },
    /// The facts of the file cannot be blob metadata.
    #[error("the file's facts cannot be stored with it")]
    Metadata(#[from] blob::InvalidMetadata),
    /// The parameters cannot be written as JSON.
    #[error("the parameters cannot be written as JSON")]
    WriteParameters(#[source] serde_json::Error),
    /// A blob of the report's name is there that no exporter of this report wrote. It is left alone.
    #[error("the blob '{0}' is there already and is not this report's; move it away")]
    ForeignBlob(String),
    /// The service's facts differ from what was written.
    #[error("blob '{blob}' should have {written} bytes and has {found}")]
    Disagreement {
        /// The blob.
        blob: String,
        /// What was written.
        written: u64,
        /// What the service says.
        found: u64,
    },
    /// A signal came before the file was finished.
    #[error("stopped by a signal before the file was finished")]
    Stopped,
}

impl Error {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Reports(store::reports::Error::InvalidParameters { .. }) => exit_codes::BAD_PARAMETERS,
            Self::Reports(error) if error.is_unavailable() => exit_codes::TEMPORARY,
            Self::Catalogue(error) if error.kind() == ErrorKind::Unavailable => exit_codes::TEMPORARY,
            Self::Storage(error) if error.refusal() == blob::Refusal::Temporary => exit_codes::TEMPORARY,
            // a federated credential takes minutes to be known everywhere, so a refusal may pass
            Self::Disagreement { .. } | Self::Stopped | Self::NoToken(_) => exit_codes::TEMPORARY,
            Self::UnknownReport(_)
            | Self::DatabaseUrl { .. }
            | Self::Identity(_)
            | Self::Reports(_)
            | Self::Catalogue(_)
            | Self::StorageOptions(_)
            | Self::Storage(_)
            | Self::WriteRow { .. }
            | Self::Metadata(_)
            | Self::WriteParameters(_)
            | Self::ForeignBlob(_) => exit_codes::BAD_DATA,
        }
    }

    fn reason(&self) -> FailureReason {
        match self {
            Self::Reports(store::reports::Error::InvalidParameters { .. }) => {
                FailureReason::InvalidParameters
            }
            Self::Catalogue(error) => match error.kind() {
                ErrorKind::Unavailable => FailureReason::CatalogUnavailable,
                ErrorKind::Rejected => FailureReason::CatalogRejected,
                ErrorKind::InvalidData => FailureReason::InvalidData,
            },
            Self::WriteRow { .. } => FailureReason::InvalidData,
            Self::StorageOptions(_) | Self::ForeignBlob(_) => FailureReason::StorageRejected,
            Self::Storage(error) => match error.refusal() {
                blob::Refusal::Permanent => FailureReason::StorageRejected,
                blob::Refusal::Temporary => FailureReason::StorageUnavailable,
            },
            Self::Disagreement { .. } => FailureReason::StorageUnavailable,
            Self::UnknownReport(_)
            | Self::DatabaseUrl { .. }
            | Self::Identity(_)
            | Self::NoToken(_)
            | Self::Reports(_)
            | Self::Metadata(_)
            | Self::WriteParameters(_)
            | Self::Stopped => FailureReason::ExporterFailed,
        }
    }

    /// What a person is told: the reason's advice and, behind it, the chain of causes.
    pub fn failure(&self) -> Failure {
        let mut detail = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // some libraries repeat their cause in their own text
            if !detail.ends_with(&text) {
                detail.push_str(": ");
                detail.push_str(&text);
            }
            cause = error.source();
        }
        Failure::new(self.reason(), &detail)
    }
}
