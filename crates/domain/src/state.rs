//! The states of a report and the only ways between them.
//!
//! `Pending → Processing → Completed | Failed`, and `Pending → Failed`. Terminal states are final.
//! The guarded statements of the store mirror these functions; `docs/state-machine.md` is their table.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Artifact, AttemptNumber, Failure};

/// The word for where a report is, the same in SQL, REST and the custom resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Accepted; relayed, dispatched or waiting for a place.
    Pending,
    /// An exporter has begun.
    Processing,
    /// The file is there.
    Completed,
    /// It ended without a file.
    Failed,
}

impl State {
    /// Every state, in the order in which a report meets them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Completed, Self::Failed];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Processing => "Processing",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }

    /// Whether the report has ended. A terminal state never changes.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// The state after an event.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the event does not belong to this state. At the store this is the
    /// ordinary outcome `Superseded`: somebody else was there first.
    pub const fn after(self, event: Event) -> Result<Self, InvalidTransition> {
        match (self, event) {
            (Self::Pending, Event::Dispatch) => Ok(Self::Pending),
            (Self::Pending | Self::Processing, Event::Begin) => Ok(Self::Processing),
            (Self::Processing, Event::Complete) => Ok(Self::Completed),
            (Self::Pending | Self::Processing, Event::Fail) => Ok(Self::Failed),
            (from, event) => Err(InvalidTransition { from, event }),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is none of [`State`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a report state")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// What can happen to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The consumer took the report's message from the queue.
    Dispatch,
    /// An exporter began an attempt.
    Begin,
    /// An exporter's file is committed and verified.
    Complete,
    /// The report can not be finished, or is not wanted any more.
    Fail,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Dispatch, Self::Begin, Self::Complete, Self::Fail];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dispatch => "Dispatch",
            Self::Begin => "Begin",
            Self::Complete => "Complete",
            Self::Fail => "Fail",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The event does not belong to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a report that is {from} takes no {event}")]
pub struct InvalidTransition {
    /// Where the report was.
    pub from: State,
    /// What was asked of it.
    pub event: Event,
}

/// Where a report is, with exactly the data that this state has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// See [`State::Pending`].
    Pending {
        /// When the consumer took the message, if it has.
        dispatched_at: Option<Timestamp>,
    },
    /// See [`State::Processing`].
    Processing {
        /// The attempt that is under way.
        attempt: AttemptNumber,
        /// When the first attempt began.
        started_at: Timestamp,
    },
    /// See [`State::Completed`].
    Completed {
        /// The file.
        artifact: Artifact,
        /// When the row became final.
        finished_at: Timestamp,
    },
    /// See [`State::Failed`].
    Failed {
        /// Why.
        failure: Failure,
        /// When the row became final.
        finished_at: Timestamp,
    },
}

impl Progress {
    /// A report that was just accepted.
    pub const fn accepted() -> Self {
        Self::Pending { dispatched_at: None }
    }

    /// The word for it.
    pub const fn state(&self) -> State {
        match self {
            Self::Pending { .. } => State::Pending,
            Self::Processing { .. } => State::Processing,
            Self::Completed { .. } => State::Completed,
            Self::Failed { .. } => State::Failed,
        }
    }

    const fn refuse(&self, event: Event) -> InvalidTransition {
        InvalidTransition {
            from: self.state(),
            event,
        }
    }

    /// The consumer took the message. A second message for the same report is refused, so that it
    /// counts as superseded.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless the report is pending and not yet dispatched.
    pub fn dispatch(self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Pending { dispatched_at: None } => Ok(Self::Pending {
                dispatched_at: Some(now),
            }),
            other => Err(other.refuse(Event::Dispatch)),
        }
    }

    /// An exporter began.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the report has ended.
    pub fn begin(self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Pending { .. } => Ok(Self::Processing {
                attempt: AttemptNumber::NONE.next(),
                started_at: now,
            }),
            Self::Processing { attempt, started_at } => Ok(Self::Processing {
                attempt: attempt.next(),
                started_at,
            }),
            other => Err(other.refuse(Event::Begin)),
        }
    }

    /// The file is committed and verified.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless the report is being processed.
    pub fn complete(self, artifact: Artifact, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Processing { .. } => Ok(Self::Completed {
                artifact,
                finished_at: now,
            }),
            other => Err(other.refuse(Event::Complete)),
        }
    }

    /// The report ends without a file.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the report has ended already.
    pub fn fail(self, failure: Failure, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Pending { .. } | Self::Processing { .. } => Ok(Self::Failed {
                failure,
                finished_at: now,
            }),
            other => Err(other.refuse(Event::Fail)),
        }
    }
}
