//! A container's last words, which the operator reads from the Pod.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use domain::{Failure, FailureReason};
use serde::{Deserialize, Serialize};

/// What Kubernetes keeps of a container's message; longer ones are cut at their beginning or end, which
/// would leave no JSON.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The termination message: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// The closed word for it.
    pub reason: FailureReason,
    /// What was wrong and what to do.
    pub message: String,
}

impl Termination {
    /// The message of a failure.
    pub fn of(failure: &Failure) -> Self {
        Self {
            reason: failure.reason,
            message: failure.message.clone(),
        }
    }

    /// The message of options that cannot be read.
    pub fn of_misuse(problem: &str) -> Self {
        Self::of(&Failure::new(
            FailureReason::ExporterFailed,
            &format!("the exporter's options: {problem}"),
        ))
    }

    /// Leaves the message at the path. A process that is about to fail has nobody to tell that this failed
    /// too, except the log; outside of Kubernetes there is no such path.
    pub fn leave(&self, path: &Path) {
        let written = self.to_json().map_err(std::io::Error::from).and_then(|text| {
            // made by the kubelet where there is one; a file of ours would only lie about
            let create = path != Path::new("/dev/termination-log");
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .create(create)
                .open(path)?;
            file.write_all(text.as_bytes())
        });
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "left no termination message");
        }
    }

    /// The JSON, cut to what Kubernetes keeps.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let whole = serde_json::to_string(self)?;
        let Some(over) = whole
            .len()
            .checked_sub(MESSAGE_BYTES_MAX)
            .filter(|over| *over > 0)
        else {
            return Ok(whole);
        };
        // characters that JSON escapes take more there than here, so they are counted as they are there
        let mut cut = self.clone();
        let mut saved = 0;
        while saved < over + CUT.len_utf8() {
            let Some(last) = cut.message.pop() else { break };
            saved += serde_json::to_string(&last)?.len() - "\"\"".len();
        }
        cut.message.push(CUT);
        serde_json::to_string(&cut)
    }
}

/// Stands where a message was cut.
const CUT: char = '…';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_and_stays_json() {
        let message = Termination {
            reason: FailureReason::StorageRejected,
            message: "\"ü\n".repeat(3000),
        };
        let text = message.to_json().unwrap();
        assert!(
            text.len() <= MESSAGE_BYTES_MAX && text.len() > MESSAGE_BYTES_MAX - 20,
            "{}",
            text.len()
        );
        let read: Termination = serde_json::from_str(&text).unwrap();
        assert_eq!(read.reason, FailureReason::StorageRejected);
        assert!(read.message.ends_with('…'));
    }

    #[test]
    fn a_message_is_left_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        let failure = Failure::new(FailureReason::CatalogRejected, "no table");
        Termination::of(&failure).leave(&path);
        let left: Termination = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(left, Termination::of(&failure));
    }
}
