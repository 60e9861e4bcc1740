//! The parameters of a popularity report, with the one set of rules that REST and the custom
//! resource share.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most that `minRatings` may be.
pub const MIN_RATINGS_MAX: u32 = 1_000_000;
/// The most that `limit` may be; the least is 1.
pub const LIMIT_MAX: u32 = 1_000_000;
/// The most that `priorWeight` may be.
pub const PRIOR_WEIGHT_MAX: u32 = 100_000;
/// The longest genre, in characters.
pub const GENRE_MAX_LEN: usize = 200;

/// RFC 3339 (section 5.6) with an offset and at most microseconds, which is what PostgreSQL keeps.
/// The years 1000 to 2999 keep every reader (Kubernetes' CEL among them) within its range.
pub const TIMESTAMP_PATTERN: &str = r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// The texts for wrong parameters. REST's problem documents and the custom resource's validation
/// rules both take them from here, so that the two doors say the same.
pub mod messages {
    /// For `from` and `to`.
    pub const TIMESTAMP: &str =
        "must be an RFC 3339 time with an offset and at most microseconds, such as 2026-01-31T00:00:00Z";
    /// For `from` and `to` together.
    pub const WINDOW: &str = "from must be before to";
    /// For `genre`.
    pub const GENRE: &str =
        "must be the exact name of one genre: 1 to 200 characters, without control characters";
    /// For `minRatings`.
    pub const MIN_RATINGS: &str = "must be a whole number from 0 to 1000000";
    /// For `limit`.
    pub const LIMIT: &str = "must be a whole number from 1 to 1000000";
    /// For `priorWeight`.
    pub const PRIOR_WEIGHT: &str = "must be a whole number from 0 to 100000";
    /// For `compression`.
    pub const COMPRESSION: &str = "must be none or gzip";
    /// For `spreadsheetSafe`.
    pub const SPREADSHEET_SAFE: &str = "must be true or false";
    /// For a field that is none of the parameters.
    pub const UNKNOWN: &str = "is not a parameter; the parameters are from, to, genre, minRatings, limit, priorWeight, compression, spreadsheetSafe";
    /// For a body that is no JSON object.
    pub const NOT_AN_OBJECT: &str = "must be a JSON object of parameters";
}

/// What a report is asked to contain. Every field has its default filled in, so that what is echoed
/// is what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct Parameters {
    /// Ratings created at or after this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Instant>,
    /// Ratings created before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Instant>,
    /// Albums of this genre alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genre: Option<String>,
    /// Albums with at least so many ratings in the window; 0 lists unrated ones too.
    pub min_ratings: u32,
    /// At most so many rows, from the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many average ratings each album is given beforehand; 0 is the plain mean.
    pub prior_weight: u32,
    /// How the file is compressed.
    pub compression: Compression,
    /// Whether cells that a spreadsheet would run as formulas are defused.
    pub spreadsheet_safe: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            genre: None,
            min_ratings: 1,
            limit: None,
            prior_weight: 10,
            compression: Compression::None,
            spreadsheet_safe: true,
        }
    }
}

/// A moment in a parameter: [`TIMESTAMP_PATTERN`] on the way in, UTC on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Instant(Timestamp);

impl Instant {
    /// The moment.
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Instant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !has_timestamp_form(text.as_bytes()) {
            return Err(messages::TIMESTAMP);
        }
        text.parse().map(Self).map_err(|_| messages::TIMESTAMP)
    }
}

/// Whether the text has the form of [`TIMESTAMP_PATTERN`]; that the day exists is the parser's to say.
fn has_timestamp_form(text: &[u8]) -> bool {
    fn two(digits: &[u8], least: u8, most: u8) -> bool {
        digits.iter().all(u8::is_ascii_digit)
            && (least..=most).contains(&((digits[0] - b'0') * 10 + digits[1] - b'0'))
    }
    if text.len() < 20 {
        return false;
    }
    let (date_time, rest) = text.split_at(19);
    let fixed = matches!(date_time[0], b'1' | b'2')
        && date_time[1..4].iter().all(u8::is_ascii_digit)
        && date_time[4] == b'-'
        && two(&date_time[5..7], 1, 12)
        && date_time[7] == b'-'
        && two(&date_time[8..10], 1, 31)
        && date_time[10] == b'T'
        && two(&date_time[11..13], 0, 23)
        && date_time[13] == b':'
        && two(&date_time[14..16], 0, 59)
        && date_time[16] == b':'
        && two(&date_time[17..19], 0, 59);
    let offset = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=6).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
    };
    let offset = match offset {
        b"Z" => true,
        [b'+' | b'-', hour @ .., b':', _, _] if hour.len() == 2 => {
            two(hour, 0, 23) && two(&offset[4..6], 0, 59)
        }
        _ => false,
    };
    fixed && offset
}

/// How the file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Plain CSV.
    #[default]
    None,
    /// One gzip member (RFC 1952).
    Gzip,
}

impl Compression {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterError {
    /// JSON Pointer (RFC 6901) to the field within the parameters; empty for the whole.
    pub pointer: String,
    /// The field's name; empty for the whole.
    pub property: String,
    /// What is wrong with it, without its name.
    pub message: &'static str,
}

/// Every wrong field of one request, in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParameterErrors(pub Vec<ParameterError>);

impl fmt::Display for ParameterErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{}", error.property)?;
            let space = if error.property.is_empty() { "" } else { " " };
            write!(f, "{space}{}", error.message)?;
        }
        Ok(())
    }
}

impl Parameters {
    /// The fields' names, in the order of the documentation.
    pub const FIELDS: [&'static str; 8] = [
        "from",
        "to",
        "genre",
        "minRatings",
        "limit",
        "priorWeight",
        "compression",
        "spreadsheetSafe",
    ];

    /// Reads parameters from JSON, where a missing or null field takes its default.
    ///
    /// # Errors
    /// [`ParameterErrors`] with every wrong field, not only the first.
    pub fn from_json(value: &Value) -> Result<Self, ParameterErrors> {
        let Value::Object(fields) = value else {
            let whole = ParameterError {
                pointer: String::new(),
                property: String::new(),
                message: messages::NOT_AN_OBJECT,
            };
            return Err(ParameterErrors(vec![whole]));
        };
        let mut reader = Reader {
            fields,
            errors: Vec::new(),
        };
        let defaults = Self::default();
        let parameters = Self {
            from: reader.read("from", messages::TIMESTAMP, instant),
            to: reader.read("to", messages::TIMESTAMP, instant),
            genre: reader.read("genre", messages::GENRE, genre),
            min_ratings: reader
                .read("minRatings", messages::MIN_RATINGS, |v| {
                    whole(v, 0, MIN_RATINGS_MAX)
                })
                .unwrap_or(defaults.min_ratings),
            limit: reader.read("limit", messages::LIMIT, |v| whole(v, 1, LIMIT_MAX)),
            prior_weight: reader
                .read("priorWeight", messages::PRIOR_WEIGHT, |v| {
                    whole(v, 0, PRIOR_WEIGHT_MAX)
                })
                .unwrap_or(defaults.prior_weight),
            compression: reader
                .read("compression", messages::COMPRESSION, compression)
                .unwrap_or(defaults.compression),
            spreadsheet_safe: reader
                .read("spreadsheetSafe", messages::SPREADSHEET_SAFE, Value::as_bool)
                .unwrap_or(defaults.spreadsheet_safe),
        };
        if let (Some(from), Some(to)) = (parameters.from, parameters.to)
            && from >= to
        {
            reader.refuse("from", messages::WINDOW);
        }
        for name in fields
            .keys()
            .filter(|name| !Self::FIELDS.contains(&name.as_str()))
        {
            reader.refuse(name, messages::UNKNOWN);
        }
        if reader.errors.is_empty() {
            Ok(parameters)
        } else {
            Err(ParameterErrors(reader.errors))
        }
    }
}

impl TryFrom<Value> for Parameters {
    type Error = ParameterErrors;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        Self::from_json(&value)
    }
}

/// Reads one field after another and keeps every error.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    errors: Vec<ParameterError>,
}

impl Reader<'_> {
    fn read<T>(
        &mut self,
        name: &str,
        message: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.refuse(name, message);
        }
        parsed
    }

    fn refuse(&mut self, name: &str, message: &'static str) {
        self.errors.push(ParameterError {
            // RFC 6901, section 3: the two characters that a pointer must escape
            pointer: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            property: name.to_owned(),
            message,
        });
    }
}

fn instant(value: &Value) -> Option<Instant> {
    value.as_str()?.parse().ok()
}

fn genre(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let length = text.chars().count();
    let fits = (1..=GENRE_MAX_LEN).contains(&length) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

fn whole(value: &Value, least: u32, most: u32) -> Option<u32> {
    let number = u32::try_from(value.as_u64()?).ok()?;
    (least..=most).contains(&number).then_some(number)
}

fn compression(value: &Value) -> Option<Compression> {
    match value.as_str()? {
        "none" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        _ => None,
    }
}
