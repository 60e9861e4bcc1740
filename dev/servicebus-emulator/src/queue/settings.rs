//! What can be set for a queue, and the one spelling that the configuration file, `--queue` and the admin
//! port share.

use std::{num::NonZeroU32, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{InvalidName, QueueName};

/// A queue's settings. What is left out is as a new queue of the Standard tier has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueSettings {
    /// How long a receiver holds a message. Default 1 minute.
    #[serde(rename = "lock", with = "duration")]
    pub lock_duration: Duration,
    /// The failed delivery that moves a message to the dead letters. Default 10.
    #[serde(deserialize_with = "count")]
    pub max_delivery_count: NonZeroU32,
    /// For how long a message-id is remembered; `None` turns detection off, the default.
    #[serde(with = "optional_duration")]
    pub duplicate_detection: Option<Duration>,
    /// The longest that a message lives; `None`, the default, is for ever.
    #[serde(with = "optional_duration")]
    pub ttl: Option<Duration>,
    /// Whether a message that outlived its time goes to the dead letters. Default no: it is dropped.
    #[serde(deserialize_with = "flag")]
    pub dead_letter_expired: bool,
    /// The largest transfer, in bytes. Default 262144, the limit of the Standard tier.
    #[serde(deserialize_with = "size")]
    pub max_message_size: u64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            lock_duration: Duration::from_secs(60),
            max_delivery_count: NonZeroU32::MIN.saturating_add(9),
            duplicate_detection: None,
            ttl: None,
            dead_letter_expired: false,
            max_message_size: 262_144,
        }
    }
}

/// Why a queue's settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// The name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A setting that is not `key=value` or the word `dead-letter-expired`.
    #[error("{0:?} is not a setting: write key=value")]
    NotASetting(String),
    /// An unknown setting, or a bad value.
    #[error("queue {queue}: {reason}")]
    Value {
        /// Which queue.
        queue: QueueName,
        /// What is wrong, naming the setting.
        reason: String,
    },
}

impl QueueSettings {
    /// Reads `NAME[,KEY=VALUE]...`, the value of `--queue`.
    ///
    /// # Errors
    /// When the name, a setting's name or its value is not valid; the text says which and why.
    pub fn parse_flag(flag: &str) -> Result<(QueueName, Self), InvalidSettings> {
        let mut parts = flag.split(',').map(str::trim);
        let queue: QueueName = parts.next().unwrap_or_default().parse()?;
        let mut settings = serde_json::Map::new();
        for part in parts {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.trim(), value.trim()),
                None if part == "dead-letter-expired" => (part, "true"),
                None => return Err(InvalidSettings::NotASetting(part.to_owned())),
            };
            settings.insert(key.to_owned(), value.into());
        }
        match serde_json::from_value(settings.into()) {
            Ok(settings) => Ok((queue, settings)),
            Err(error) => Err(InvalidSettings::Value {
                queue,
                reason: error.to_string(),
            }),
        }
    }
}

fn parse_duration<E: de::Error>(text: &str) -> Result<Duration, E> {
    let refused = || {
        E::custom(format!(
            "{text:?} is not a duration: write 500ms, 3s, 10m or PT1M"
        ))
    };
    let duration: SignedDuration = text.parse().map_err(|_| refused())?;
    let duration = Duration::try_from(duration).map_err(|_| refused())?;
    if duration.is_zero() {
        Err(E::custom("a duration must be longer than nothing"))
    } else {
        Ok(duration)
    }
}

fn print_duration(duration: &Duration) -> String {
    SignedDuration::try_from(*duration).map_or_else(
        |_| format!("{}s", duration.as_secs()),
        |duration| format!("{duration:#}"),
    )
}

mod duration {
    use super::*;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&print_duration(duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?)
    }
}

mod optional_duration {
    use super::*;

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_ref().map(print_duration).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| parse_duration(&text))
            .transpose()
    }
}

/// Flags bring text, files and JSON bring the type itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOr<T> {
    Plain(T),
    Text(String),
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let number = match TextOr::<u32>::deserialize(deserializer)? {
        TextOr::Plain(number) => Some(number),
        TextOr::Text(text) => text.parse().ok(),
    };
    number
        .and_then(NonZeroU32::new)
        .ok_or_else(|| de::Error::custom("max-delivery-count must be a whole number from 1 on"))
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match TextOr::<bool>::deserialize(deserializer)? {
        TextOr::Plain(flag) => Ok(flag),
        TextOr::Text(text) => text
            .parse()
            .map_err(|_| de::Error::custom("dead-letter-expired must be true or false")),
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = match TextOr::<u64>::deserialize(deserializer)? {
        TextOr::Plain(size) => Some(size),
        TextOr::Text(text) => parse_size(&text),
    };
    // Zero means "no limit" in AMQP, but the Go SDK then takes every message for too large.
    size.filter(|size| *size > 0).ok_or_else(|| {
        de::Error::custom(
            "max-message-size must be a number of bytes above 0, such as 1048576, 256KiB or 1MiB",
        )
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix("KiB") {
        Some(number) => (number, 1024),
        None => text
            .strip_suffix("MiB")
            .map_or((text, 1), |number| (number, 1024 * 1024)),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_bare_name_has_the_defaults() {
        let (name, settings) = QueueSettings::parse_flag("report-requests").unwrap();

        assert_eq!(name.as_str(), "report-requests");
        assert_eq!(settings, QueueSettings::default());
    }

    #[test]
    fn every_setting_can_be_given_in_the_flag() {
        let flag = "q,lock=3s,max-delivery-count=4,duplicate-detection=10m,ttl=1h 30m,dead-letter-expired,max-message-size=1MiB";

        let (_, settings) = QueueSettings::parse_flag(flag).unwrap();

        assert_eq!(
            settings,
            QueueSettings {
                lock_duration: Duration::from_secs(3),
                max_delivery_count: NonZeroU32::new(4).unwrap(),
                duplicate_detection: Some(Duration::from_secs(600)),
                ttl: Some(Duration::from_secs(5400)),
                dead_letter_expired: true,
                max_message_size: 1_048_576,
            }
        );
    }

    #[rstest]
    #[case::name("a b", "not a queue name")]
    #[case::no_value("q,lock", "write key=value")]
    #[case::unknown("q,locks=3s", "unknown field `locks`")]
    #[case::duration("q,lock=3", "not a duration")]
    #[case::negative("q,lock=-3s", "not a duration")]
    #[case::nothing("q,lock=0s", "longer than nothing")]
    #[case::count("q,max-delivery-count=0", "max-delivery-count must be")]
    #[case::size("q,max-message-size=big", "max-message-size must be")]
    #[case::no_limit("q,max-message-size=0", "max-message-size must be")]
    #[case::flag("q,dead-letter-expired=maybe", "dead-letter-expired must be")]
    fn a_bad_flag_says_what_is_wrong(#[case] flag: &str, #[case] says: &str) {
        let refused = QueueSettings::parse_flag(flag).unwrap_err().to_string();

        assert!(refused.contains(says), "{refused}");
    }

    #[test]
    fn settings_come_back_from_their_json() {
        let (_, settings) =
            QueueSettings::parse_flag("q,lock=1500ms,ttl=36h,duplicate-detection=30s").unwrap();

        let json = serde_json::to_string(&settings).unwrap();

        assert_eq!(
            serde_json::from_str::<QueueSettings>(&json).unwrap(),
            settings,
            "{json}"
        );
    }
}
