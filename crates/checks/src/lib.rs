//! What was found of one thing that a program needs (a table, a queue, a right), and the command that makes
//! it. Each check stands beside the code that talks to the thing; `operator doctor` prints what they found,
//! and the programs judge their own readiness by it.

mod clock;

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

pub use clock::{SKEW_MAX, clock};

/// One thing, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in one or two words; the same in every run.
    pub name: &'static str,
    /// What was found.
    pub outcome: Outcome,
    /// The command that makes what is missing. What only the reader can know stands in `<>`.
    pub remedy: Option<String>,
}

/// What was found. The texts are one line and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it must be; with what was seen.
    Ok(String),
    /// It could not be looked at, or need not be; with the reason.
    NotChecked(String),
    /// It is not there, or refused to us: that does not pass by itself.
    Missing(String),
    /// It does not answer now: that may pass by itself.
    Unavailable(String),
}

impl Outcome {
    /// The word for it in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::NotChecked(_) => "not-checked",
            Self::Missing(_) => "missing",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The text.
    pub fn message(&self) -> &str {
        match self {
            Self::Ok(text) | Self::NotChecked(text) | Self::Missing(text) | Self::Unavailable(text) => text,
        }
    }
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Ok(seen.into()),
            remedy: None,
        }
    }

    /// It was not looked at.
    pub fn not_checked(name: &'static str, why: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::NotChecked(why.into()),
            remedy: None,
        }
    }

    /// Something is missing, named in `what`.
    pub fn missing(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Missing(what.into()),
            remedy: Some(remedy.into()),
        }
    }

    /// It does not answer.
    pub fn unavailable(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Unavailable(what.into()),
            remedy: Some(remedy.into()),
        }
    }

    /// Whether it is missing for good, or does not answer.
    pub const fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Missing(_) | Outcome::Unavailable(_))
    }

    /// Whether somebody has to do something before it can be used.
    pub const fn is_missing(&self) -> bool {
        matches!(self.outcome, Outcome::Missing(_))
    }
}

/// One line for people.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match &self.outcome {
            Outcome::Ok(_) => "ok  ",
            Outcome::NotChecked(_) => "-   ",
            Outcome::Missing(_) | Outcome::Unavailable(_) => "FAIL",
        };
        write!(f, "{word}  {} – {}", self.name, self.outcome.message())?;
        match &self.remedy {
            Some(remedy) => write!(f, " – {remedy}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Check", 4)?;
        object.serialize_field("name", self.name)?;
        object.serialize_field("outcome", self.outcome.as_str())?;
        object.serialize_field("message", self.outcome.message())?;
        object.serialize_field("remedy", &self.remedy)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ok(Check::ok("clock", "0 s apart"), "ok    clock – 0 s apart")]
    #[case::not_checked(Check::not_checked("clock", "no server"), "-     clock – no server")]
    #[case::missing(
        Check::missing("grants", "no SELECT on reports", "GRANT it"),
        "FAIL  grants – no SELECT on reports – GRANT it"
    )]
    #[case::unavailable(
        Check::unavailable("queue", "refused", "see it"),
        "FAIL  queue – refused – see it"
    )]
    fn a_check_is_one_line(#[case] check: Check, #[case] line: &str) {
        assert_eq!(check.to_string(), line);
    }

    #[test]
    fn a_check_is_one_json_object() {
        let check = Check::missing("grants", "no SELECT on reports", "GRANT it");

        assert_eq!(
            serde_json::to_value(&check).unwrap(),
            serde_json::json!({
                "name": "grants", "outcome": "missing",
                "message": "no SELECT on reports", "remedy": "GRANT it",
            })
        );
    }
}
