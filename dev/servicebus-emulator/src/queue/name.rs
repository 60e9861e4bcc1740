//! What queues are called, and how link addresses name them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A queue's name: `report-requests`. Letters, digits, `.`, `-`, `_` and `/`, at most 260 characters, kept in
/// lower case because Service Bus does not tell cases apart:
/// <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules#microsoftservicebus>.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(String);

impl QueueName {
    /// The longest name that Service Bus takes.
    pub const MAX_LEN: usize = 260;

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a queue cannot be called that.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a queue name: use 1 to 260 letters, digits, '.', '-', '_' or '/', and a letter, digit or '_' at both ends"
)]
pub struct InvalidName(String);

impl FromStr for QueueName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let valid = name.len() <= Self::MAX_LEN
            && name.starts_with(edge)
            && name.ends_with(edge)
            && name.chars().all(|c| edge(c) || matches!(c, '.' | '-' | '/'));
        if valid {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(InvalidName(name.to_owned()))
        }
    }
}

impl TryFrom<String> for QueueName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The queue itself or its dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The queue itself.
    Main,
    /// Its sub-queue `$DeadLetterQueue`.
    DeadLetter,
}

/// What a link's address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The node that takes tokens.
    Cbs,
    /// Messages.
    Messages(QueueName, Part),
    /// Requests about messages.
    Management(QueueName, Part),
}

impl Address {
    /// Reads an address as the SDKs send it: a path, or a URI of any scheme and authority, in any case.
    ///
    /// # Errors
    /// When what is left after taking off the sub-paths cannot be a queue's name.
    pub fn parse(address: &str) -> Result<Self, InvalidName> {
        let path = path(address);
        if path == "$cbs" {
            return Ok(Self::Cbs);
        }
        let (path, management) = match path.strip_suffix("/$management") {
            Some(rest) => (rest, true),
            None => (path.as_str(), false),
        };
        let (name, part) = match path.strip_suffix("/$deadletterqueue") {
            Some(rest) => (rest, Part::DeadLetter),
            None => (path, Part::Main),
        };
        let name = name.parse()?;
        Ok(if management {
            Self::Management(name, part)
        } else {
            Self::Messages(name, part)
        })
    }
}

/// The path of an address or audience, without slashes at its ends, in lower case.
pub fn path(address: &str) -> String {
    let after_authority = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    after_authority.trim_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("orders", "orders")]
    #[case::upper_case("Report-Requests", "report-requests")]
    #[case::nested("a/b_c.d", "a/b_c.d")]
    fn a_good_name_is_kept_in_lower_case(#[case] given: &str, #[case] kept: &str) {
        assert_eq!(given.parse::<QueueName>().unwrap().as_str(), kept);
    }

    #[rstest]
    #[case::empty("")]
    #[case::space("a b")]
    #[case::sub_queue("a/$deadletterqueue")]
    #[case::slash_at_end("a/")]
    #[case::dash_first("-a")]
    #[case::not_ascii("größe")]
    fn a_bad_name_is_refused(#[case] given: &str) {
        assert!(given.parse::<QueueName>().is_err());
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!("a".repeat(260).parse::<QueueName>().is_ok());
        assert!("a".repeat(261).parse::<QueueName>().is_err());
    }

    #[rstest]
    #[case("$cbs", Address::Cbs)]
    #[case("Orders", Address::Messages(name("orders"), Part::Main))]
    #[case("/orders/", Address::Messages(name("orders"), Part::Main))]
    #[case(
        "amqps://localhost:5672/orders",
        Address::Messages(name("orders"), Part::Main)
    )]
    #[case(
        "orders/$DeadLetterQueue",
        Address::Messages(name("orders"), Part::DeadLetter)
    )]
    #[case("orders/$management", Address::Management(name("orders"), Part::Main))]
    #[case(
        "sb://h/orders/$DeadLetterQueue/$management",
        Address::Management(name("orders"), Part::DeadLetter)
    )]
    fn an_address_is_read_as_the_sdks_write_it(#[case] given: &str, #[case] meant: Address) {
        assert_eq!(Address::parse(given).unwrap(), meant);
    }

    fn name(name: &str) -> QueueName {
        name.parse().unwrap()
    }
}
